//! The application server's API: problems, pages, entity tags, idempotency, the stream.
use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
};

use serde_json::Value;

use crate::{
    sandbox::{LONG, Up, wait_for},
    schema::{OPENAPI, check, check_page},
    support::{alarm, bearer, http, shared},
};

const LISTS: [(&str, &str); 9] = [
    ("customers", "Customer"),
    ("nodes", "Node"),
    ("integrators", "Integrator"),
    ("instances", "Instance"),
    ("alarms", "Alarm"),
    ("events", "Event"),
    ("messages", "Message"),
    ("actions", "Action"),
    ("ledger", "Ledger"),
];

fn json_headers(up: &Up, key: &str) -> String {
    let bearer = bearer(&up.token());
    format!("{bearer}Content-Type: application/json\r\nIdempotency-Key: {key}\r\n")
}

#[test]
fn lists_and_objects_have_the_schemas_of_the_contract() {
    let up = shared();
    alarm(&up, "lathe-1", &[]);
    up.alarm("the alarm", |a| a["instance"] == "lathe-1");
    for (list, schema) in LISTS {
        let page = up.api(&format!("/{list}?limit=10"));
        check_page(schema, &page);
        let id = match list {
            "events" | "actions" | "ledger" => continue,
            _ => format!("{}_id", list.trim_end_matches('s')),
        };
        let Some(first) = page["items"].get(0) else { continue };
        let id = first[&id].as_str().unwrap();
        for written in [id.to_owned(), id.replace('/', ".")] {
            if written.contains('/') {
                continue;
            }
            let one = up.api(&format!("/{list}/{written}"));
            check(schema, &one);
        }
    }
    let open = up.api("/alarms?instance=lathe-1");
    let id = open["items"][0]["alarm_id"].as_str().unwrap();
    check_page("Message", &up.api(&format!("/alarms/{id}/history")));
}

#[test]
fn openapi_lists_what_works_and_nothing_else() {
    let up = shared();
    let answer = http(&up.server(), "GET /api/openapi.json", "", b"");
    assert_eq!(answer.status, 200);
    let served = answer.json();
    let contract = &*OPENAPI;
    for (path, methods) in served["paths"].as_object().unwrap() {
        let known = &contract["paths"][path];
        for method in methods.as_object().unwrap().keys() {
            assert!(!known[method].is_null(), "{method} {path} is not in the contract");
        }
        if !path.contains('{') && methods.get("get").is_some() && path != "/stream" {
            up.api(path);
        }
    }
    for (name, schema) in served["components"]["schemas"].as_object().unwrap() {
        assert_eq!(*schema, contract["components"]["schemas"][name], "{name}");
    }
}

#[test]
fn problems_say_what_is_wrong() {
    let up = shared();
    let (host, bearer) = (up.server(), bearer(&up.token()));
    let get = |path: &str, headers: &str| http(&host, &format!("GET /api/v1{path}"), headers, b"");
    for (list, _) in LISTS {
        get(&format!("/{list}"), "").problem(401, "unauthenticated", "give_up");
        let wrong = "Authorization: Bearer 0123456789abcdef\r\n";
        get(&format!("/{list}"), wrong).problem(401, "unauthenticated", "give_up");
        let unknown = get(&format!("/{list}?colour=red"), &bearer);
        let problem = unknown.problem(400, "malformed", "give_up");
        assert_eq!(problem["errors"][0]["pointer"], "colour", "{list}");
        get(&format!("/{list}?limit=10001"), &bearer).problem(400, "malformed", "give_up");
        get(&format!("/{list}?cursor=nonsense"), &bearer).problem(400, "malformed", "give_up");
    }
    for path in [
        "/alarms?severity_min=huge",
        "/alarms?since=yesterday",
        "/alarms?limit=0",
        "/alarms/nonsense/history?limit=x",
        "/ledger?wait_s=46",
        "/stream",
        "/stream?topic=x",
    ] {
        get(path, &bearer).problem(400, "malformed", "give_up");
    }
    for path in [
        "/nothing",
        "/alarms/01a20a03-e88d-7000-8000-000000000099",
        "/nodes/018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42.7",
        "/messages/018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42.3:7:u:1042",
    ] {
        get(path, &bearer).problem(404, "not_found", "give_up");
    }
    let post = |path: &str, body: &str| {
        http(&host, &format!("POST /api/v1{path}"), &json_headers(&up, "p"), body.as_bytes())
    };
    post("/customers", "{").problem(400, "malformed", "give_up");
    post("/customers", "{\"name\":\"x\"}").problem(400, "malformed", "give_up");
    post("/customers", "{\"customer\":\"\"}").problem(400, "malformed", "give_up");
    post("/actions", "{\"targets\":[]}").problem(400, "malformed", "give_up");
}

// IDM-2: the customer's id is made when the customer registers, once.
#[test]
fn customers_register_once() {
    let up = shared();
    let post = |key: &str, body: &str| {
        http(&up.server(), "POST /api/v1/customers", &json_headers(&up, key), body.as_bytes())
    };
    let first = post("one", "{\"customer\":\"acme\"}");
    assert_eq!(first.status, 201);
    check("Customer", &first.json());
    let again = post("one", "{\"customer\":\"acme\"}");
    assert_eq!((again.status, again.json()), (201, first.json()));
    post("two", "{\"customer\":\"acme\"}").problem(409, "conflict", "give_up");
    let id = first.json()["customer_id"].as_str().unwrap().to_owned();
    assert_eq!(up.api(&format!("/customers/{id}"))["customer"], "acme");
}

#[test]
fn pages_follow_their_cursor_and_miss_nothing() {
    let up = shared();
    for i in 0..5 {
        alarm(&up, "lathe-2", &["--key", &format!("k{i}")]);
    }
    wait_for("five alarms", || {
        (up.api("/alarms?instance=lathe-2")["items"].as_array()?.len() == 5).then_some(())
    });
    let (mut keys, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = up.api(&format!("/alarms?instance=lathe-2&limit=2{cursor}"));
        check_page("Alarm", &page);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        keys.extend(items.iter().map(|a| a["key"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(keys, ["k4", "k3", "k2", "k1", "k0"]);
}

#[test]
fn what_did_not_change_is_304() {
    let up = shared();
    let bearer = bearer(&up.token());
    // Figures of a neighbour test may change in between: each try begins with what is there now.
    wait_for("an answer without a body", || {
        let first = http(&up.server(), "GET /api/v1/customers", &bearer, b"");
        let tag = first.header("etag").expect("an entity tag").to_owned();
        let headers = format!("{bearer}If-None-Match: {tag}\r\n");
        let again = http(&up.server(), "GET /api/v1/customers", &headers, b"");
        if again.status == 304 {
            assert!(again.body.is_empty());
            return Some(());
        }
        None
    });
}

/// Reads events of a stream until one is wanted; returns its data and id.
fn event(lines: &mut impl Iterator<Item = String>, name: &str, word: &str) -> (Value, String) {
    let (mut kind, mut data, mut id) = (String::new(), String::new(), String::new());
    for line in lines {
        if let Some(rest) = line.strip_prefix("event: ") {
            kind = rest.to_owned();
        } else if let Some(rest) = line.strip_prefix("data: ") {
            data.push_str(rest);
        } else if let Some(rest) = line.strip_prefix("id: ") {
            id = rest.to_owned();
        } else if line.is_empty() {
            if kind == name && data.contains(word) {
                return (serde_json::from_str(&data).expect("JSON"), id);
            }
            (kind, data) = (String::new(), String::new());
        }
    }
    panic!("the stream ended before {name} with {word}");
}

fn stream(up: &Up, query: &str, headers: &str) -> impl Iterator<Item = String> + use<> {
    let mut socket = TcpStream::connect(up.server()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    write!(
        socket,
        "GET /api/v1/stream?{query} HTTP/1.1\r\nHost: x\r\n{}{headers}\r\n",
        bearer(&up.token())
    )
    .unwrap();
    let mut lines = BufReader::new(socket).lines().map_while(Result::ok);
    let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    assert!(head[0].contains(" 200 "), "{head:?}");
    assert!(head.iter().any(|h| h.eq_ignore_ascii_case("content-type: text/event-stream")));
    lines
}

#[test]
fn stream_brings_alarms_as_lists_show_them_and_goes_on_behind_an_id() {
    let up = shared();
    let mut lines = stream(&up, "topic=alarms&instance=lathe-3", "");
    alarm(&up, "lathe-3", &["--key", "first"]);
    let (first, id) = event(&mut lines, "alarm", "first");
    check("Alarm", &first);
    assert!(!id.is_empty());
    drop(lines);
    alarm(&up, "lathe-3", &["--key", "second"]);
    up.alarm("the second", |a| a["instance"] == "lathe-3" && a["key"] == "second");
    let mut lines =
        stream(&up, "topic=alarms&instance=lathe-3", &format!("Last-Event-ID: {id}\r\n"));
    let (second, later) = event(&mut lines, "alarm", "second");
    check("Alarm", &second);
    assert_ne!(id, later);
}
