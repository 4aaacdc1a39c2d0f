//! The portal as people meet it: a browser from sign-in to the trace of a real trap, and without
//! JavaScript over plain HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

#[path = "portal/browser.rs"]
mod browser;

use std::process::Command;

use browser::Browser;
use sandbox::{Up, text, wait_for};
use serde_json::Value;

const LINK_DOWN: [&str; 8] = [
    "",
    "1.3.6.1.6.3.1.1.5.3",
    "1.3.6.1.2.1.2.2.1.1.7",
    "i",
    "7",
    "1.3.6.1.2.1.2.2.1.2.7",
    "s",
    "eth7",
];
/// What the shipped rules make of it.
const ALARM: &str = "interface eth7 is down";

/// A trap by the sender of net-snmp.
fn trap(up: &Up) -> Value {
    let to = up.process.word("snmp");
    let mut command = Command::new("snmptrap");
    command.env("MIBS", "").args(["-v", "2c", "-c", "public", &to]).args(LINK_DOWN);
    let output = command.output().expect("snmptrap runs: apt-get install snmp");
    assert!(output.status.success(), "{}", text(&output.stderr));
    up.alarm("the trap's alarm", |a| a["text"] == ALARM)
}

fn start() -> Up {
    Up::start(&["--syslog", "off", "--no-inventory"])
}

#[test]
fn an_operator_signs_in_sees_a_trap_and_follows_it_home() {
    let up = start();
    let mut browser = Browser::start();
    // The one-time address of the ready line shows a button; pressing it signs in.
    browser.go(&up.process.word("portal"));
    assert_eq!(browser.evaluate("document.querySelectorAll('form').length"), 1);
    browser.click("form button");
    browser.wait("location.pathname === '/'", "the overview");
    for node in ["proxy", "mlm", "applications-mlm", "app-server"] {
        browser.wait(&format!("document.body.innerText.includes('{node}')"), node);
    }

    // The page of alarms is open when the trap comes: it is told without a reload.
    browser.go(&format!("http://{}/alarms", up.server()));
    browser.evaluate("window.sameDocument = true");
    let alarm = trap(&up);
    // New rows are offered above the list, and never inserted under a reader.
    browser.wait("document.querySelector('#new a') !== null", "the offer, live");
    assert_eq!(browser.evaluate("window.sameDocument"), true, "the page was not loaded anew");
    browser.click("#new a");
    browser.wait(&format!("document.body.innerText.includes('{ALARM}')"), "the alarm");

    let alarm_id = alarm["alarm_id"].as_str().unwrap();
    browser.click(&format!("a[href^='/alarms/{alarm_id}']"));
    browser.wait(&format!("location.pathname === '/alarms/{alarm_id}'"), "the alarm's page");
    assert!(browser.text().contains(ALARM));
    browser.click("a[href^='/messages/']");
    browser.wait("location.pathname.startsWith('/messages/')", "the trace");
    let trace = browser.text();
    for node in ["proxy", "mlm", "applications-mlm", "app-server"] {
        assert!(trace.contains(node), "{node} in {trace}");
    }
    // IDM-2: a customer is registered in the portal, and its id is made and shown.
    browser.go(&format!("http://{}/customers", up.server()));
    browser.evaluate("document.querySelector('#name').value = 'Kestrel Logistics'");
    browser.click("form[action='/customers'] button");
    browser.wait("location.search.includes('done=')", "the customer");
    let list = up.api("/customers");
    let known = list["items"].as_array().unwrap().iter();
    let made = known.clone().find(|c| c["customer"] == "Kestrel Logistics").unwrap();
    let id = made["customer_id"].as_str().unwrap();
    assert!(browser.text().contains(&format!("<identity customer=\"{id}\"/>")));
    for page in ["/events", "/instances", "/nodes", "/ledger"] {
        browser.go(&format!("http://{}{page}", up.server()));
        assert!(browser.evaluate("document.querySelector('h1') !== null") == true, "{page}");
    }
    assert_eq!(browser.complaints, Vec::<String>::new(), "the pages' own errors");
    on_a_telephone(&mut browser, &up);
    // The code is spent: another browser is not let in by it.
    let mut other = Browser::start();
    other.go(&up.process.word("portal"));
    assert!(other.text().contains("does not sign in"), "{}", other.text());
}

/// At 390 pixels nothing sticks out to the side, and each node has a card as wide as the page.
fn on_a_telephone(browser: &mut Browser, up: &Up) {
    browser.resize(390, 844);
    for page in ["/", "/alarms", "/events", "/instances", "/nodes", "/ledger", "/customers"] {
        browser.go(&format!("http://{}{page}", up.server()));
        let wide = browser.evaluate("document.documentElement.scrollWidth");
        assert!(wide.as_f64().unwrap() <= 390.0, "{page} is {wide} wide");
    }
    browser.go(&format!("http://{}/", up.server()));
    let cards = "[...document.querySelectorAll('.node')].map(n => n.getBoundingClientRect())";
    let narrow = format!("{cards}.filter(r => r.width < 300).length");
    assert_eq!(browser.evaluate(&narrow), 0, "cards that are slivers");
    let over = format!("{cards}.filter((r, i, all) => i > 0 && r.top < all[i - 1].bottom).length");
    assert_eq!(browser.evaluate(&over), 0, "cards over each other");
}

/// An answer of the portal: status, head in lower case, body.
fn page(up: &Up, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
    use std::io::{Read, Write};
    let host = up.server();
    let mut stream = std::net::TcpStream::connect(&host).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = text(&answer);
    let (head, body) =
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    let line = head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    });
    line.unwrap_or_else(|| panic!("no {name} in {head}"))
}

/// What a browser sends with a form.
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// Signs in by the one-time address; the header of the session.
fn sign_in(up: &Up) -> String {
    let url = up.process.word("portal");
    let code = url.split_once("code=").unwrap().1;
    let path = format!("/sign-in?code={code}");
    // A preview of the link spends nothing.
    for _ in 0..3 {
        let (status, head, body) = page(up, "GET", &path, "", "");
        assert_eq!(status, 200);
        assert!(body.contains("<form") && !head.to_lowercase().contains("set-cookie"));
    }
    let (status, _, _) = page(up, "POST", "/sign-in", FORM, "code=wrong");
    assert_eq!(status, 410);
    // Another site's form does not sign anybody in.
    let foreign = format!("{FORM}Origin: http://elsewhere.example\r\n");
    let (status, head, _) = page(up, "POST", "/sign-in", &foreign, &format!("code={code}"));
    assert!(status >= 400 && !head.to_lowercase().contains("set-cookie"), "{head}");
    let (status, head, _) = page(up, "POST", "/sign-in", FORM, &format!("code={code}"));
    assert_eq!((status, header(&head, "location")), (303, "/"));
    let cookie = header(&head, "set-cookie").to_owned();
    for word in ["HttpOnly", "SameSite=Strict", "Max-Age=43200", "Path=/"] {
        assert!(cookie.contains(word), "{word} in {cookie}");
    }
    let (status, _, _) = page(up, "POST", "/sign-in", FORM, &format!("code={code}"));
    assert_eq!(status, 410, "the code works once");
    format!("Cookie: {}\r\n", cookie.split(';').next().unwrap())
}

/// DESIGN §4.10: API and command tell readiness and what waits by precedence, of each node.
fn every_node_says_whether_it_is_ready(up: &Up) {
    wait_for("each node to say whether it is ready", || {
        let list = up.cli(&["ls", "nodes"]);
        let nodes = list.as_array()?;
        let is_told = |node: &Value| {
            let waiting = node["waiting"].as_array().unwrap().iter();
            let precedences: Vec<&str> =
                waiting.map(|w| w["precedence"].as_str().unwrap()).collect();
            precedences == ["urgent", "normal", "bulk"]
                && node["ready"] == serde_json::json!({"ok": true, "reasons": []})
        };
        (nodes.len() == 4 && nodes.iter().all(is_told)).then_some(())
    });
}

#[test]
fn everything_works_without_javascript_by_plain_http() {
    let up = start();
    for path in ["/", "/alarms", "/events", "/instances", "/nodes", "/ledger", "/messages/x"] {
        let (status, head, _) = page(&up, "GET", path, "", "");
        assert_eq!(status, 303, "{path}");
        assert!(header(&head, "location").starts_with("/sign-in"), "{path}");
    }
    let session = sign_in(&up);

    let alarm = trap(&up);
    let alarm_id = alarm["alarm_id"].as_str().unwrap();
    let get = |path: &str| {
        let (status, head, body) = page(&up, "GET", path, &session, "");
        assert_eq!(status, 200, "{path}: {body}");
        assert!(header(&head, "content-type").starts_with("text/html"));
        assert!(head.to_lowercase().contains("content-security-policy:"), "{head}");
        (head, body)
    };
    let (_, overview) = get("/");
    assert!(overview.contains("app-server") && overview.contains("proxy"));
    every_node_says_whether_it_is_ready(&up);
    let ready = wait_for("all nodes to be ready on the page", || {
        let (_, overview) = get("/");
        let line = overview.split("id=\"line\"").nth(1)?.split("</ul>").next()?;
        line.contains("<small>Ready</small> <b>4 of 4</b>").then_some(overview)
    });
    for precedence in ["urgent", "normal", "bulk"] {
        let figures = ready.matches(&format!("<dt>{precedence}</dt>")).count();
        assert_eq!(figures, 4, "{precedence} of each node");
    }
    let (_, alarms) = wait_for("the alarm on the page", || {
        Some(get("/alarms")).filter(|(_, body)| body.contains(ALARM))
    });
    assert!(alarms.contains(&format!("/alarms/{alarm_id}")));
    let (_, one) = get(&format!("/alarms/{alarm_id}"));
    let message = alarm["message_id"].as_str().unwrap().replace('/', ".");
    assert!(one.contains(&format!("/messages/{message}")), "a link to the trace");
    let trace = wait_for("the whole trace", || {
        let (_, body) = get(&format!("/messages/{message}"));
        body.contains("applications-mlm").then_some(body)
    });
    assert!(trace.contains("app-server") && trace.contains("mlm"));
    // Pages may be kept for 5 s and are revalidated by their tag (contract §5).
    let (head, _) = get("/instances");
    assert!(header(&head, "cache-control").contains("max-age=5"), "{head}");
    let tag = format!("{session}If-None-Match: {}\r\n", header(&head, "etag"));
    assert_eq!(page(&up, "GET", "/instances", &tag, "").0, 304);
    // A form acknowledges; without the page's own mark it is refused.
    let path = format!("/alarms/{alarm_id}");
    let action = one.split("action=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let ack = action.into_iter().find(|a| a.starts_with(&path)).expect("a form to act on it");
    let bare = format!("{session}{FORM}");
    assert_eq!(page(&up, "POST", ack, &bare, "").0, 403, "{ack}");
    let mark = one.split("name=\"csrf\" value=\"").nth(1).expect("a mark");
    let mark = mark.split('"').next().unwrap();
    let fields = format!("csrf={mark}&do=acknowledge&comment=seen");
    let (status, _, body) = page(&up, "POST", ack, &bare, &fields);
    assert_eq!(status, 303, "{ack}: {body}");
    wait_for("the acknowledgement", || {
        (up.api(&format!("/alarms/{alarm_id}"))["state"] == "acknowledged").then_some(())
    });
}
