//! The portal over a real server of recorded answers: pages, sign-in, forms, events, /api.
#![allow(clippy::unwrap_used, reason = "a test")]
mod fake;
mod html;
mod site;

use std::{collections::BTreeSet, time::Duration};

use reqwest::{Response, StatusCode};
use serde_json::json;

use fake::{ALARM, DELIVERED, QUEUED, TOKEN, fixture, until};
use site::{Site, header};

fn pages() -> Vec<String> {
    let mut pages: Vec<String> = [
        "/",
        "/alarms",
        "/events",
        "/instances",
        "/nodes",
        "/messages",
        "/ledger",
        "/customers",
        "/alarms?severity=fatal&state=all&customer=Northwind+Hospital",
        "/nodes?state=silent",
        "/events?text=disk&cursor=x",
    ]
    .map(str::to_owned)
    .to_vec();
    pages.push(format!("/alarms/{ALARM}"));
    pages.push(format!("/messages/{DELIVERED}"));
    pages.push(format!("/messages/{QUEUED}"));
    // As clients write it that escape colons, and with the slash of the id.
    pages.push(format!("/messages/{}", DELIVERED.replace(':', "%3A")));
    pages.push(format!("/messages/{}", DELIVERED.replacen('.', "/", 1)));
    pages
}

#[actix_web::test]
async fn every_page_is_sound_small_safe_and_links_only_to_what_is_there() {
    let site = Site::start(5).await;
    let mut links = BTreeSet::new();
    for path in pages() {
        let answer = site.get(&path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let policy = header(&answer, "content-security-policy");
        assert!(policy.contains("default-src 'self'") && !policy.contains("script-src"));
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
        assert_eq!(header(&answer, "cache-control"), "private, max-age=5");
        let page = answer.text().await.unwrap();
        html::check(&page);
        assert!(page.len() <= 40_000, "{path} has {} bytes", page.len());
        assert!(page.contains("id=\"line\"") && page.contains("· Callhome</title>"), "{path}");
        links.extend(html::links(&page));
    }
    for link in links.iter().filter(|link| !matches!(link.as_str(), "/sign-out")) {
        let answer = site.get(link).send().await.unwrap();
        let status = answer.status();
        // Ids of the recorded lists of which no single answer was recorded.
        let unrecorded =
            ["/alarms/0193", "/messages/", "/api/"].iter().any(|p| link.starts_with(p));
        let expected = status.is_success() || status.is_redirection();
        assert!(expected || unrecorded && status == StatusCode::NOT_FOUND, "{link}: {status}");
    }
}

#[actix_web::test]
async fn sheet_and_script_are_small_and_kept_by_their_tags() {
    let site = Site::signed_out(5).await;
    let sheet = site.get("/style.css").send().await.unwrap();
    let tag = header(&sheet, "etag").to_owned();
    assert!(sheet.text().await.unwrap().len() <= 25 << 10);
    let again = site.get("/style.css").header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let script = site.get("/live.js").send().await.unwrap();
    assert!(header(&script, "content-type").starts_with("text/javascript"));
    assert!(script.text().await.unwrap().lines().count() <= 150);
}

#[actix_web::test]
async fn what_hostile_texts_say_is_text() {
    let site = Site::start(0).await;
    let hostile = "\"><script>alert(1)</script><b id=\"line\" data-part onclick='x'>&amp;";
    let mut alarms = fixture("alarms");
    for key in ["text", "type", "key", "instance", "integrator"] {
        alarms["items"][0][key] = json!(hostile);
    }
    site.api.set("/alarms", alarms.clone());
    site.api.set(&format!("/alarms/{ALARM}"), alarms["items"][0].clone());
    let mut nodes = fixture("nodes");
    nodes["items"][0]["node"] = json!(hostile);
    nodes["items"][0]["roles"] = json!([hostile]);
    nodes["items"][3]["delivering"]["reasons"][0]["help"] = json!(hostile);
    site.api.set("/nodes", nodes);
    let mut customers = fixture("customers");
    customers["items"][0]["customer"] = json!(hostile);
    site.api.set("/customers", customers);
    for path in pages() {
        let page = site.page(&path).await;
        html::check(&page);
        assert!(!page.contains("<script>") && !page.contains("onclick='x'>&amp;<"), "{path}");
    }
    let query = "/alarms?text=%22%3E%3Cscript%3Ex%3C/script%3E&instance=%3Cb%3E";
    html::check(&site.page(query).await);
    let refused = site.get("/sign-in?code=%22%3E%3Cscript%3Ex").send().await.unwrap();
    html::check(&refused.text().await.unwrap());
}

#[actix_web::test]
async fn a_full_page_of_alarms_keeps_below_its_limit() {
    let site = Site::start(5).await;
    let mut alarms = fixture("alarms");
    let row = alarms["items"][1].clone();
    let rows = (0..200).map(|n| {
        let mut row = row.clone();
        row["alarm_id"] = json!(format!("0193a1c7-51d0-7f31-8c0e-{n:012x}"));
        row
    });
    alarms["items"] = rows.collect();
    site.api.set("/alarms", alarms);
    for path in ["/alarms", "/alarms?page=2", "/"] {
        let page = site.page(path).await;
        html::check(&page);
        assert!(page.len() <= 40_000, "{path} has {} bytes", page.len());
    }
    assert!(site.page("/alarms?page=2").await.contains("26 to 50"));
    assert!(site.page("/alarms?page=99").await.contains("nothing here"));
}

#[actix_web::test]
async fn looking_at_a_sign_in_link_spends_nothing_and_posting_it_spends_it_once() {
    let site = Site::signed_out(5).await;
    let code = site.portal.sessions().new_code().unwrap();
    for _ in 0..3 {
        let page = site.page(&format!("/sign-in?code={code}")).await;
        html::check(&page);
        assert!(page.contains("<button class=\"go\">Sign in</button>"));
    }
    let form = format!("code={code}");
    let answer = site.post("/sign-in", &form).send().await.unwrap();
    assert_eq!((answer.status(), header(&answer, "location")), (StatusCode::SEE_OTHER, "/"));
    let cookie = header(&answer, "set-cookie").to_owned();
    for flag in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    assert!(!cookie.contains(&code));
    let again = site.post("/sign-in", &form).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::GONE);
    assert!(again.headers().get("set-cookie").is_none());
    let page = again.text().await.unwrap();
    html::check(&page);
    assert!(page.contains("callhome sign-in"), "it says what to do");
    // The first link says so, too, and another site's form signs nobody in.
    assert_eq!(site.get(&format!("/sign-in?code={code}")).send().await.unwrap().status(), 410);
    let fresh = site.portal.sessions().new_code().unwrap();
    let forged = site.post("/sign-in", &format!("code={fresh}"));
    let forged = forged.header("origin", "http://evil.example").send().await.unwrap();
    assert_eq!(forged.status(), StatusCode::FORBIDDEN);
}

#[actix_web::test]
async fn who_is_signed_out_is_led_to_sign_in_and_learns_nothing() {
    let site = Site::signed_out(5).await;
    for path in pages() {
        let answer = site.get(&path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let to = header(&answer, "location").to_owned();
        assert!(to.starts_with("/sign-in") && (path == "/") == (to == "/sign-in"), "{to}");
    }
    let live = site.get("/live?page=overview").send().await.unwrap();
    assert_eq!(live.status(), StatusCode::UNAUTHORIZED);
    let api = site.get("/api/v1/alarms").send().await.unwrap();
    assert_eq!(api.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(header(&api, "content-type"), "application/problem+json");
    let wrong = site.get("/").header("cookie", "callhome_session=0000").send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::SEE_OTHER);
    let post = site.post(&format!("/alarms/{ALARM}"), "do=close").send().await.unwrap();
    assert_eq!(header(&post, "location"), "/sign-in");
    assert_eq!(site.api.asked("PUT"), []);
}

#[actix_web::test]
async fn sign_in_leads_to_the_page_that_was_asked_for_and_never_elsewhere() {
    let site = Site::signed_out(5).await;
    let path = format!("/alarms/{ALARM}?at=1");
    let answer = site.get(&path).send().await.unwrap();
    let page = site.page(header(&answer, "location")).await;
    html::check(&page);
    assert!(page.contains(&format!("name=\"to\" value=\"{path}\"")), "{page}");
    for (to, leads) in [
        (path.as_str(), path.as_str()),
        ("//evil.example/", "/"),
        ("http://evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("/sign-out", "/"),
        ("/alarms?x=%0D%0Ay", "/alarms?x=%0D%0Ay"),
        ("/alarms\r\nx: y", "/"),
    ] {
        let code = site.portal.sessions().new_code().unwrap();
        let to: String = url_escaped(to);
        let answer = site.post("/sign-in", &format!("code={code}&to={to}")).send().await.unwrap();
        assert_eq!(header(&answer, "location"), leads, "{to}");
    }
}

fn url_escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[actix_web::test]
async fn signing_out_ends_the_session() {
    let site = Site::start(5).await;
    let csrf = site.csrf().await;
    let forged = site.post("/sign-out", "csrf=x").send().await.unwrap();
    assert_eq!(forged.status(), StatusCode::FORBIDDEN);
    let answer = site.post("/sign-out", &format!("csrf={csrf}")).send().await.unwrap();
    assert!(header(&answer, "set-cookie").contains("Max-Age=0"));
    assert_eq!(site.get("/").send().await.unwrap().status(), StatusCode::SEE_OTHER);
}

#[actix_web::test]
async fn a_form_changes_an_alarm_only_with_the_token_of_the_session() {
    let site = Site::start(5).await;
    let path = format!("/alarms/{ALARM}");
    let csrf = site.csrf().await;
    let other = site.sign_in().await;
    for form in ["do=acknowledge".to_owned(), "do=acknowledge&csrf=abc".to_owned()] {
        let answer = site.post(&path, &form).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        html::check(&answer.text().await.unwrap());
    }
    let right = format!("do=acknowledge&comment=on+my+way&csrf={csrf}");
    let cross =
        site.post(&path, &right).header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert_eq!(cross.status(), StatusCode::FORBIDDEN);
    let borrowed = site.client.post(format!("{}{path}", site.url)).header("cookie", other);
    assert_eq!(borrowed.body(right.clone()).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(site.api.asked("PUT"), []);

    let done = site.post(&path, &right).send().await.unwrap();
    assert_eq!(done.status(), StatusCode::SEE_OTHER);
    let location = header(&done, "location").to_owned();
    assert!(location.starts_with(&format!("{path}?done=acknowledge&at=")), "{location}");
    let put = (format!("/api/v1{path}/acknowledgement"), r#"{"comment":"on my way"}"#.to_owned());
    assert_eq!(site.api.asked("PUT"), [put]);
    assert!(site.page(&location).await.contains("Acknowledged."));

    let both = format!("do=silence&for_s=3600&a={ALARM}&a={ALARM}&csrf={csrf}");
    let done = site.post("/alarms?severity=fatal", &both).send().await.unwrap();
    assert!(header(&done, "location").starts_with("/alarms?severity=fatal&done=2"));
    assert!(site.api.asked("PUT")[1].1.contains("\"until\":\"20"));
    let none = site.post("/alarms", &format!("do=close&csrf={csrf}")).send().await.unwrap();
    assert_eq!(none.status(), StatusCode::BAD_REQUEST);
}

#[actix_web::test]
async fn a_page_that_did_not_change_is_not_sent_again() {
    let site = Site::start(5).await;
    let first = site.get("/alarms").send().await.unwrap();
    let tag = header(&first, "etag").to_owned();
    let again = site.get("/alarms").header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(header(&again, "etag"), tag);
    // Many readers cost one read each five seconds.
    let reads = site.api.asked("GET").len();
    for _ in 0..5 {
        site.page("/alarms").await;
    }
    assert_eq!(site.api.asked("GET").len(), reads);
    // A change is seen at once, also where the cache has a page.
    let csrf = site.csrf().await;
    let form = format!("do=close&csrf={csrf}");
    site.post(&format!("/alarms/{ALARM}"), &form).send().await.unwrap();
    site.page("/alarms").await;
    assert!(site.api.asked("GET").len() > reads);
}

#[actix_web::test]
async fn without_the_application_server_pages_show_what_is_known_and_from_when() {
    let site = Site::start(0).await;
    let fresh = site.page("/").await;
    assert!(!fresh.contains("<body class=\"stale\""));
    *site.api.fake.refuse.lock().unwrap() = Some(503);
    let answer = site.get("/").send().await.unwrap();
    assert_eq!((answer.status(), header(&answer, "cache-control")), (StatusCode::OK, "no-store"));
    let stale = answer.text().await.unwrap();
    html::check(&stale);
    assert!(stale.contains("<body class=\"stale\"") && stale.contains("Not live."));
    assert!(stale.contains("This page shows how things stood at"));
    assert!(stale.contains("ups-2.rz1"), "what is known is shown");
    // What was never read: what is safe, and what to do.
    let answer = site.get("/messages").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&answer, "retry-after"), "10");
    let page = answer.text().await.unwrap();
    html::check(&page);
    assert!(page.contains("No message is lost by this."));
    *site.api.fake.refuse.lock().unwrap() = None;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert!(!site.page("/").await.contains("<body class=\"stale\""));
}

#[actix_web::test]
async fn nothing_to_show_is_said_with_the_next_step() {
    let site = Site::start(0).await;
    for list in ["nodes", "ledger", "alarms", "customers", "events", "instances", "messages"] {
        site.api.set(&format!("/{list}"), json!({"items": [], "next": null}));
    }
    for (path, words) in [
        ("/", "No site yet"),
        ("/alarms", "No alarm is open."),
        ("/alarms?severity=fatal", "No alarm is like this."),
        ("/events", "No event yet."),
        ("/instances", "callhome integrator snmp"),
        ("/nodes", "No node has called home yet."),
        ("/messages", "No message is stored yet."),
        ("/ledger", "No node has told its account yet"),
    ] {
        let page = site.page(path).await;
        html::check(&page);
        assert!(page.contains(words), "{path}");
    }
    for path in
        ["/nope", "/alarms/x", "/messages/x", "/alarms/0193a1c7-51d0-7f31-8c0e-0000000000ff"]
    {
        let answer = site.get(path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        html::check(&answer.text().await.unwrap());
    }
}

/// Reads events until one has these words.
async fn read_until(answer: &mut Response, seen: &mut String, words: &str) {
    let read = async {
        while !seen.contains(words) {
            let chunk = answer.chunk().await.unwrap().expect("the stream goes on");
            seen.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    let within = tokio::time::timeout(Duration::from_secs(10), read).await;
    assert!(within.is_ok(), "no {words:?} in {seen}");
}

#[actix_web::test]
async fn an_open_page_gets_what_changed_within_a_second() {
    let site = Site::start(5).await;
    let page = site.page("/alarms").await;
    let (_, rest) = page.split_once("data-events=\"").unwrap();
    let events = rest.split('"').next().unwrap().replace("&amp;", "&");
    let mut answer = site.get(&events).send().await.unwrap();
    assert_eq!(header(&answer, "content-type"), "text/event-stream");
    let mut seen = String::new();
    read_until(&mut answer, &mut seen, "event: beat").await;
    assert!(!seen.contains("event: part"), "the page is as it was: {seen}");
    until("the stream is followed", || site.api.fake.stream.receiver_count() > 0).await;

    let mut alarms = site.api.fake.answers.lock().unwrap()["/alarms"].clone();
    alarms["items"][1]["count"] = json!(4711);
    let mut fresh = alarms["items"][0].clone();
    fresh["alarm_id"] = json!("0193a1c7-51d0-7f31-8c0e-00000000abcd");
    alarms["items"].as_array_mut().unwrap().push(fresh);
    site.api.set("/alarms", alarms);
    let started = std::time::Instant::now();
    site.api.fake.stream.send("event: alarm\nid: 1\ndata: {}\n\n".to_owned()).unwrap();
    read_until(&mut answer, &mut seen, "4,711").await;
    read_until(&mut answer, &mut seen, "1 new, show").await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(seen.contains("data: <tr id=\"a-0193a1c7-51d0-7f31-8c0e-000000000002\""));
    assert!(!seen.contains("<tr id=\"a-0193a1c7-51d0-7f31-8c0e-00000000abcd\""));
    assert!(seen.contains("data: <ul id=\"menu\""), "the figure in the menu changed");
}

#[actix_web::test]
async fn without_the_servers_answers_an_open_page_gets_no_beat() {
    let site = Site::start(0).await;
    site.page("/").await;
    *site.api.fake.refuse.lock().unwrap() = Some(503);
    let mut answer = site.get("/live?page=overview&seen=0").send().await.unwrap();
    let mut seen = String::new();
    read_until(&mut answer, &mut seen, ": the application server does not answer").await;
    assert!(!seen.contains("event: beat"));
}

#[actix_web::test]
async fn the_api_is_passed_on_with_the_callers_token_or_the_sessions() {
    let site = Site::start(5).await;
    let plain = reqwest::Client::new();
    let alarms = format!("{}/api/v1/alarms?limit=2", site.url);
    let own = plain.get(&alarms).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(own.status(), StatusCode::OK);
    assert_eq!(
        own.json::<serde_json::Value>().await.unwrap()["items"].as_array().unwrap().len(),
        8
    );
    assert!(site.api.asked("GET").iter().any(|(path, _)| path == "/api/v1/alarms?limit=2"));
    let wrong = plain.get(&alarms).bearer_auth("wrong").send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    // With a session and a wrong token it is the token that counts.
    let wrong = site.get("/api/v1/alarms").bearer_auth("wrong").send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(site.get("/api/v1/alarms").send().await.unwrap().status(), StatusCode::OK);

    let put = format!("{}/api/v1/alarms/{ALARM}/closure", site.url);
    let change = || site.client.put(&put).header("cookie", &site.cookie).body("{}");
    assert_eq!(change().send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(site.api.asked("PUT"), []);
    let token = site.csrf().await;
    let done = change().header(module_pages::CSRF_HEADER, token).send().await.unwrap();
    assert_eq!(done.status(), StatusCode::OK);
    assert_eq!(site.api.asked("PUT").len(), 1);
}

#[actix_web::test]
async fn a_stream_of_the_api_stays_a_stream_and_a_dead_server_is_told() {
    let site = Site::start(5).await;
    let mut answer = site.get("/api/v1/stream?topic=alarms").send().await.unwrap();
    assert_eq!(header(&answer, "content-type"), "text/event-stream");
    let mut seen = String::new();
    read_until(&mut answer, &mut seen, ": callhome").await;
    site.api.fake.stream.send("event: alarm\nid: 7\ndata: {}\n\n".to_owned()).unwrap();
    read_until(&mut answer, &mut seen, "id: 7").await;
    drop(answer);
    site.api.handle.stop(false).await;
    let answer = site.get("/api/v1/alarms").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&answer, "retry-after"), "5");
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(
        (problem["verdict"].as_str(), problem["status"].as_u64()),
        (Some("try_again"), Some(503))
    );
}

#[actix_web::test]
async fn the_recorded_answers_have_the_keys_of_the_apis_description() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../api/openapi.json");
    let api: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (file, schema) in [
        ("nodes", "Node"),
        ("ledger", "Ledger"),
        ("alarms", "Alarm"),
        ("customers", "Customer"),
        ("events", "Event"),
        ("instances", "Instance"),
        ("messages", "Message"),
        ("alarm_history", "Message"),
        ("trace", "Trace"),
        ("trace_queued", "Trace"),
        ("alarm", "Alarm"),
        ("message", "Message"),
    ] {
        let fixture = fixture(file);
        let one = [fixture.clone()];
        let items = fixture["items"].as_array().map_or(&one[..], |items| &items[..]);
        let keys: BTreeSet<&String> = api["components"]["schemas"][schema]["properties"]
            .as_object()
            .unwrap()
            .keys()
            .collect();
        for item in items {
            let has: BTreeSet<&String> = item.as_object().unwrap().keys().collect();
            assert_eq!(has, keys, "{file}");
        }
    }
}
