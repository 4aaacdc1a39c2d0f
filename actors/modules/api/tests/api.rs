//! What the API does with HTTP: tokens, problems, pages, entity tags, repeated POSTs, streams.
#![allow(clippy::unwrap_used, reason = "a test")]
mod fake;

use actix_web::{
    App,
    body::MessageBody,
    dev::ServiceResponse,
    http::{Method, StatusCode},
    test::{TestRequest, call_service, init_service, read_body},
    web,
};
use proptest::prelude::*;
use serde_json::Value;

use fake::{ALARM, Fake, MESSAGE, NODE, api};

macro_rules! server {
    () => {
        server!(Fake::default())
    };
    ($fake:expr) => {{
        let api = api($fake);
        init_service(App::new().configure(|app| module_api::configure(app, api))).await
    }};
}

fn request(method: Method, path: &str) -> TestRequest {
    TestRequest::default()
        .method(method)
        .uri(path)
        .insert_header(("authorization", format!("Bearer {}", fake::TOKEN)))
}

fn get(path: &str) -> TestRequest {
    request(Method::GET, path)
}

fn header<'a>(response: &'a ServiceResponse<impl MessageBody>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn json(response: ServiceResponse<impl MessageBody>) -> Value {
    serde_json::from_slice(&read_body(response).await).unwrap()
}

/// The body, after a look at what every problem has.
async fn problem(response: ServiceResponse<impl MessageBody>, name: &str) -> Value {
    assert_eq!(header(&response, "content-type"), "application/problem+json");
    let status = response.status().as_u16();
    let body = json(response).await;
    assert_eq!(body["type"], format!("/problems/{name}"), "{body}");
    assert_eq!(body["status"], status);
    for key in ["title", "detail", "instance", "verdict"] {
        assert!(body[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {body}");
    }
    body
}

#[actix_web::test]
async fn who_said_nothing_and_where_it_stands_is_told_beside_the_answer() {
    let server = server!();
    let trace = |wait| get(&format!("/api/v1/trace/{MESSAGE}?wait_s={wait}")).to_request();
    let asked = call_service(&server, trace(1)).await;
    assert_eq!(header(&asked, "callhome-unanswered-count"), "60");
    assert_eq!(header(&asked, "callhome-unanswered").split(", ").count(), 50);
    assert_eq!(header(&asked, "callhome-queue"), "local/h?he");
    assert_eq!(header(&asked, "callhome-attempts"), "3");
    let not_asked = call_service(&server, trace(0)).await;
    assert_eq!(header(&not_asked, "callhome-unanswered-count"), "");
    let all = call_service(&server, get("/api/v1/ledger?wait_s=1").to_request()).await;
    assert_eq!(header(&all, "callhome-unanswered-count"), "0");
    assert_eq!(header(&all, "callhome-unanswered"), "");
}

#[actix_web::test]
async fn who_has_no_token_or_a_wrong_one_learns_nothing_but_how_to_send_it() {
    let server = server!();
    for token in [None, Some("Bearer nope"), Some("Basic x"), Some("Bearer")] {
        for path in ["/api/v1/alarms", "/api/v1/stream?topic=alarms", "/api/v1/nowhere"] {
            let mut request = TestRequest::get().uri(path);
            if let Some(token) = token {
                request = request.insert_header(("authorization", token));
            }
            let response = call_service(&server, request.to_request()).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert!(header(&response, "www-authenticate").starts_with("Bearer"));
            problem(response, "unauthenticated").await;
        }
    }
}

#[actix_web::test]
async fn every_answer_forbids_sniffing_and_framing_and_allows_no_other_origin() {
    let server = server!();
    for path in ["/api/v1/alarms", "/api/v1/alarms?wat=1", "/api/openapi.json", "/api/x"] {
        let request = get(path).insert_header(("origin", "http://elsewhere.example"));
        let response = call_service(&server, request.to_request()).await;
        assert_eq!(header(&response, "x-content-type-options"), "nosniff", "{path}");
        assert!(header(&response, "content-security-policy").contains("default-src 'none'"));
        assert_eq!(header(&response, "access-control-allow-origin"), "");
    }
}

#[actix_web::test]
async fn an_unknown_parameter_is_named_with_the_known_ones() {
    let server = server!();
    let response = call_service(&server, get("/api/v1/alarms?severty=fatal").to_request()).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let body = problem(response, "malformed").await;
    assert_eq!(body["errors"][0]["pointer"], "severty");
    assert!(body["errors"][0]["detail"].as_str().unwrap().contains("severity_min"));
}

#[actix_web::test]
async fn a_list_is_read_to_its_end_page_by_page() {
    let server = server!();
    let (mut path, mut seen) = ("/api/v1/alarms?limit=2&type=x".to_owned(), Vec::new());
    loop {
        let response = call_service(&server, get(&path).to_request()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let link = header(&response, "link").to_owned();
        let body = json(response).await;
        assert!(body["items"].as_array().unwrap().len() <= 2);
        for item in body["items"].as_array().unwrap() {
            seen.push(item["text"].as_str().unwrap().to_owned());
        }
        match body["next"].as_str() {
            None => break assert_eq!(link, ""),
            Some(_) => {
                let (url, rest) = link.trim_start_matches('<').split_once('>').unwrap();
                assert_eq!(rest, "; rel=\"next\"");
                path = url.to_owned();
            }
        }
    }
    assert_eq!(seen, ["alarm 4", "alarm 3", "alarm 2", "alarm 1", "alarm 0"]);
}

#[actix_web::test]
async fn ids_are_read_with_dots_with_slashes_and_escaped() {
    let server = server!();
    for id in [NODE.to_owned(), NODE.replace('/', "."), NODE.replace('/', "%2F")] {
        let response =
            call_service(&server, get(&format!("/api/v1/nodes/{id}")).to_request()).await;
        assert_eq!(response.status(), StatusCode::OK, "{id}");
        assert_eq!(json(response).await["node_id"], NODE);
    }
    for id in [MESSAGE.to_owned(), MESSAGE.replace('/', "."), MESSAGE.replace(':', "%3A")] {
        for (path, status) in [("messages", 200), ("trace", 200)] {
            let path = format!("/api/v1/{path}/{id}");
            let response = call_service(&server, get(&path).to_request()).await;
            assert_eq!(response.status().as_u16(), status, "{path}");
            assert_eq!(json(response).await["message_id"], MESSAGE);
        }
    }
    let response = call_service(&server, get("/api/v1/nodes/x").to_request()).await;
    problem(response, "malformed").await;
    let nobody = NODE.replace("/1", "/9");
    let response =
        call_service(&server, get(&format!("/api/v1/nodes/{nobody}")).to_request()).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let body = problem(response, "not_found").await;
    assert!(body["detail"].as_str().unwrap().contains(&nobody));
}

#[actix_web::test]
async fn data_of_a_message_is_an_attachment_byte_for_byte() {
    let server = server!();
    let id = MESSAGE.replace('/', ".");
    let path = format!("/api/v1/messages/{id}/data");
    let response = call_service(&server, get(&path).to_request()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-type"), "text/html");
    assert!(header(&response, "content-disposition").starts_with("attachment"));
    assert_eq!(header(&response, "x-content-type-options"), "nosniff");
    assert_eq!(&read_body(response).await[..], fake::DATA);
}

#[actix_web::test]
async fn what_did_not_change_is_not_sent_again() {
    let server = server!();
    let response = call_service(&server, get("/api/v1/alarms").to_request()).await;
    let tag = header(&response, "etag").to_owned();
    assert!(tag.starts_with('"'));
    let again = get("/api/v1/alarms").insert_header(("if-none-match", tag.as_str()));
    let response = call_service(&server, again.to_request()).await;
    assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(header(&response, "etag"), tag);
    assert!(read_body(response).await.is_empty());
    let other = get("/api/v1/alarms?limit=1").insert_header(("if-none-match", tag.as_str()));
    assert_eq!(call_service(&server, other.to_request()).await.status(), StatusCode::OK);
}

#[actix_web::test]
async fn an_alarm_is_acknowledged_by_the_tokens_owner() {
    let server = server!();
    let path = format!("/api/v1/alarms/{ALARM}/acknowledgement");
    let put = request(Method::PUT, &path).set_payload(r#"{"comment": "on it"}"#);
    let body = json(call_service(&server, put.to_request()).await).await;
    assert_eq!(body["state"], "acknowledged");
    assert_eq!(body["acknowledged_by"], "operator");
    assert_eq!(body["comment"], "on it");
    let wrong = request(Method::PUT, &path).set_payload(r#"{"coment": "typo"}"#);
    problem(call_service(&server, wrong.to_request()).await, "malformed").await;
    let delete = request(Method::DELETE, &path).to_request();
    assert_eq!(json(call_service(&server, delete).await).await["state"], "opened");
}

#[actix_web::test]
async fn a_silence_in_the_past_is_refused() {
    let server = server!();
    let path = format!("/api/v1/alarms/{ALARM}/silence");
    let past = request(Method::PUT, &path).set_payload(r#"{"until": "2001-01-01T00:00:00Z"}"#);
    let body = problem(call_service(&server, past.to_request()).await, "malformed").await;
    assert_eq!(body["errors"][0]["pointer"], "/until");
    let future = request(Method::PUT, &path).set_payload(r#"{"until": "2999-01-01T00:00:00Z"}"#);
    let body = json(call_service(&server, future.to_request()).await).await;
    assert_eq!(body["silenced_until"], "2999-01-01T00:00:00.000Z");
}

#[actix_web::test]
async fn the_same_post_twice_is_one() {
    let server = server!();
    let post = |key: &str, name: &str| {
        let body = format!(r#"{{"targets": ["{NODE}"], "name": "{name}"}}"#);
        request(Method::POST, "/api/v1/actions")
            .insert_header(("idempotency-key", key))
            .set_payload(body)
            .to_request()
    };
    let first = call_service(&server, post("k1", "restart")).await;
    assert_eq!(first.status(), StatusCode::ACCEPTED);
    let first = json(first).await;
    let again = call_service(&server, post("k1", "restart")).await;
    assert_eq!(again.status(), StatusCode::ACCEPTED);
    assert_eq!(json(again).await, first);
    let other = call_service(&server, post("k2", "restart")).await;
    assert_ne!(json(other).await, first);
    let misused = call_service(&server, post("k1", "stop")).await;
    assert_eq!(misused.status(), StatusCode::CONFLICT);
    problem(misused, "conflict").await;
    let long = call_service(&server, post(&"k".repeat(65), "stop")).await;
    problem(long, "malformed").await;
}

#[actix_web::test]
async fn a_store_that_is_down_says_when_to_come_again() {
    let server = server!(Fake { down: true, ..Fake::default() });
    let response = call_service(&server, get("/api/v1/customers").to_request()).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_ne!(header(&response, "retry-after"), "");
    assert_eq!(problem(response, "storage_down").await["verdict"], "try_again");
}

#[actix_web::test]
async fn a_token_that_asks_too_fast_is_told_to_wait() {
    let server = server!();
    let mut busy = None;
    // The bucket holds 200 and gains one each 10 ms: a loop in memory is faster than that.
    for _ in 0..5_000 {
        let response = call_service(&server, get("/api/v1/customers").to_request()).await;
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            busy = Some(response);
            break;
        }
    }
    let busy = busy.unwrap();
    assert_ne!(header(&busy, "retry-after"), "");
    problem(busy, "busy").await;
}

#[actix_web::test]
async fn a_body_above_the_limit_is_too_large() {
    let server = server!();
    let huge = vec![b' '; module_api::BODY_BYTES_MAX + 1];
    let post = request(Method::POST, "/api/v1/actions").set_payload(huge).to_request();
    let response = call_service(&server, post).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    problem(response, "too_large").await;
}

#[actix_web::test]
async fn a_stream_says_what_changed_with_an_id_to_go_on_after() {
    let server = server!();
    let path = "/api/v1/stream?topic=alarms";
    let response = call_service(&server, get(path).to_request()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-type"), "text/event-stream");
    let text = String::from_utf8(read_body(response).await.to_vec()).unwrap();
    assert!(text.contains("event: alarm\nid: 1\ndata: {\"alarm_id\""), "{text}");
    let on = get(path).insert_header(("last-event-id", "1")).to_request();
    let text =
        String::from_utf8(read_body(call_service(&server, on).await).await.to_vec()).unwrap();
    assert!(text.contains("id: 2\n") && !text.contains("id: 1\n"), "{text}");
    let old = get(path).insert_header(("last-event-id", "gone")).to_request();
    let text =
        String::from_utf8(read_body(call_service(&server, old).await).await.to_vec()).unwrap();
    assert!(text.contains("event: gap\n"), "{text}");
    problem(call_service(&server, get("/api/v1/stream").to_request()).await, "malformed").await;
}

#[actix_web::test]
async fn the_seventeenth_stream_of_a_token_waits() {
    let server = server!(Fake { endless: true, ..Fake::default() });
    let mut open = Vec::new();
    for _ in 0..module_api::tokens::STREAMS_MAX {
        let request = get("/api/v1/stream?topic=alarms").to_request();
        open.push(call_service(&server, request).await);
    }
    let response = call_service(&server, get("/api/v1/stream?topic=alarms").to_request()).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    problem(response, "busy").await;
    drop(open.pop());
    let response = call_service(&server, get("/api/v1/stream?topic=alarms").to_request()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let body = std::pin::pin!(response.into_body());
    let mut body = body;
    let first = std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await.unwrap().unwrap();
    assert!(first.starts_with(b"retry: "));
}

#[actix_web::test]
async fn openapi_lists_what_is_served_and_nothing_else() {
    let server = server!();
    let response =
        call_service(&server, TestRequest::get().uri("/api/openapi.json").to_request()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let openapi = json(response).await;
    for (path, operations) in openapi["paths"].as_object().unwrap() {
        let at = concrete(path);
        for method in ["get", "put", "post", "delete", "patch"] {
            let request =
                request(Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(), &at);
            let response = call_service(&server, request.to_request()).await;
            let status = response.status().as_u16();
            if operations.get(method).is_some() {
                assert!(status < 405, "{method} {at}: {status}");
            } else {
                assert_eq!(status, 405, "{method} {at}");
                assert_ne!(header(&response, "allow"), "");
            }
        }
    }
}

/// A path with ids that the fake has.
fn concrete(path: &str) -> String {
    let mut at = format!("/api/v1{path}");
    for (name, id) in [
        ("{customer_id}", fake::CUSTOMER),
        ("{node_id}", NODE),
        ("{integrator_id}", fake::INTEGRATOR),
        ("{instance_id}", fake::INSTANCE),
        ("{alarm_id}", ALARM),
        ("{message_id}", MESSAGE),
        ("{action_id}", fake::ACTION),
    ] {
        at = at.replace(name, &id.replace('/', "."));
    }
    assert!(!at.contains('{'), "{at}");
    if path == "/stream" { format!("{at}?topic=alarms") } else { at }
}

#[actix_web::test]
async fn a_path_that_is_not_there_is_a_problem() {
    let server = server!();
    for path in ["/api/v1/nowhere", "/api/v2/alarms", "/api/v1/bulk", "/api/v1/alarms/x/y"] {
        let response = call_service(&server, get(path).to_request()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        problem(response, "not_found").await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_query_string_gets_an_answer_or_a_problem(
        list in prop::sample::select(vec!["alarms", "events", "messages", "nodes", "ledger",
            "actions", "instances", "integrators", "customers"]),
        raw in "(limit|cursor|state|since|text|type|wat)?(=[!-~&&[^#]]{0,20})?\
            (&[!-~&&[^#]]{0,20}){0,3}",
    ) {
        let path = format!("/api/v1/{list}?{raw}");
        prop_assume!(path.parse::<actix_web::http::Uri>().is_ok());
        actix_web::rt::System::new().block_on(async move {
            let server = server!();
            let response = call_service(&server, get(&path).to_request()).await;
            if response.status() != StatusCode::OK {
                assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
                problem(response, "malformed").await;
            }
        });
    }
}

#[actix_web::test]
async fn one_server_of_several_workers_counts_as_one() {
    let shared: web::Data<module_api::Api> = api(Fake::default());
    let post = || {
        request(Method::POST, "/api/v1/customers")
            .insert_header(("idempotency-key", "same"))
            .set_payload(r#"{"customer": "north"}"#)
            .to_request()
    };
    let mut answers = Vec::new();
    for _worker in 0..2 {
        let api = shared.clone();
        let server =
            init_service(App::new().configure(|app| module_api::configure(app, api))).await;
        let response = call_service(&server, post()).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        answers.push(json(response).await);
    }
    assert_eq!(answers[0], answers[1]);
}
