//! Queues of a proxy whose parent is away: shown running and stopped, bounded, and by time to live.
use std::{
    process::Output,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    sandbox::{callhome, chain::Chain, get, text, wait_for},
    schema::{check, check_all},
    support::{metric, refused},
};

fn send(chain: &Chain, more: &[&str]) -> Output {
    let socket = chain.socket().display().to_string();
    let mut all = vec!["send"];
    all.extend(more);
    all.extend(["--instance", "press-1", "--socket", &socket]);
    callhome(&all)
}

fn sent(chain: &Chain, more: &[&str]) -> String {
    let output = send(chain, more);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

fn json(data: &str, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["--data", data, "-o", "json"]);
    let output = callhome(&all);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

const ALARM: [&str; 7] = ["alarm", "--type", "oil", "--severity", "major", "--text", "low"];

/// A line of fsck of a good store that holds two messages at least.
fn checks_out(line: &Value) {
    assert_eq!(line["ok"], true, "{line}");
    let mut keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    keys.sort_unstable();
    assert_eq!(keys, ["damaged", "messages", "node", "ok", "salvaged", "set_aside"]);
    assert!(line["messages"].as_u64().unwrap() >= 2);
}

/// Seconds until the proxy's queue up is empty, by precedence.
fn drains(chain: &Chain) -> Vec<(String, f64)> {
    let metrics = chain.operator(0, "/metrics");
    let drains = metric(&metrics, "callhome_queue_drain_eta_seconds");
    drains.into_iter().filter(|(labels, _)| labels.contains("queue=\"up\"")).collect()
}

/// What waits is told to wait for ever, as nothing goes away.
fn waits_and_does_not_drain(chain: &Chain) {
    let drains = drains(chain);
    assert_eq!(drains.len(), 3);
    for (labels, seconds) in drains {
        let waits = !labels.contains("precedence=\"urgent\"");
        // Registrations went away within the last minute.
        assert_eq!(seconds, if waits { f64::INFINITY } else { 0.0 }, "{labels}");
    }
}

/// Waits until a message is delivered, by its trace.
fn arrives(server: &str, id: &str) {
    wait_for("what waited", || {
        let output = callhome(&["trace", id, "--data", server, "-o", "json"]);
        let trace: Value = serde_json::from_slice(&output.stdout).ok()?;
        check("Trace", &trace);
        (trace["state"] == "delivered").then_some(())
    });
}

/// A message as it is shown; a stopped node goes by its folder, so without the node.
fn form(shown: &Value) -> Value {
    let mut form = shown.clone();
    form["node"].take();
    form
}

#[test]
fn queues_are_shown_of_running_and_of_stopped_nodes() {
    let mut chain = Chain::start("");
    sent(&chain, &ALARM);
    let proxy = chain.nodes[0].folder.display().to_string();
    wait_for("an empty queue", || {
        json(&proxy, &["queue", "ls"]).as_array()?.is_empty().then_some(())
    });
    chain.nodes[1].process.take().unwrap().kill();
    let id = sent(&chain, &ALARM);
    let bulk = sent(&chain, &["data", "--class", "core", "--precedence", "bulk"]);
    // QUE-16: what is of no use after a second never reaches the server.
    let short = [&ALARM[..], &["--ttl", "1", "--key", "short"]].concat();
    let (short, sent_at) = (sent(&chain, &short), Instant::now());

    let rows = json(&proxy, &["queue", "ls"]);
    let row = |precedence: &str, rows: &Value| {
        let mut rows = rows.as_array().unwrap().iter();
        rows.find(|r| r["queue"] == "up" && r["precedence"] == precedence).cloned()
    };
    let normal = row("normal", &rows).expect("normal messages");
    let mut keys: Vec<&String> = normal.as_object().unwrap().keys().collect();
    keys.sort_unstable();
    assert_eq!(keys, ["bytes", "messages", "node", "oldest_age_s", "precedence", "queue"]);
    assert_eq!(normal["node"], "proxy");
    assert!(normal["messages"].as_u64().unwrap() >= 1);
    assert_eq!(row("bulk", &rows).expect("bulk")["messages"], 1);
    let head = text(&callhome(&["queue", "ls", "--data", &proxy]).stdout);
    let columns: Vec<&str> = head.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns.join(" "), "node queue precedence messages bytes oldest_age_s");
    let shown = json(&proxy, &["queue", "show", &id]);
    assert_eq!((&shown["queue"], &shown["state"]), (&"up".into(), &"queued".into()), "{shown}");
    assert_eq!(shown["message_id"], *id);
    let running = json(&proxy, &["queue", "show", &bulk]);
    waits_and_does_not_drain(&chain);
    refused(&callhome(&["queue", "fsck", "--data", &proxy]), 69);

    // The same of the stopped node.
    assert_eq!(chain.nodes[0].process.take().unwrap().stop(), Some(0));
    let stopped = json(&proxy, &["queue", "ls"]);
    assert_eq!(row("bulk", &stopped).expect("bulk")["messages"], 1, "{stopped}");
    let shown = json(&proxy, &["queue", "show", &bulk]);
    assert_eq!((&shown["queue"], &shown["message_id"]), (&"up".into(), &bulk.clone().into()));
    assert_eq!(form(&shown), form(&running), "one form, whoever shows it");
    checks_out(&json(&proxy, &["queue", "fsck"])[0]);
    damaged_is_shown_as_far_as_it_can_be_read(&chain, &stopped, &bulk);

    // All of it travels on when the parent is back, but what expired.
    wait_for("a second to pass", || {
        (sent_at.elapsed() > Duration::from_millis(1100)).then_some(())
    });
    chain.run(1);
    chain.run(0);
    let server = chain.nodes[3].folder.display().to_string();
    arrives(&server, &id);
    arrives(&server, &bulk);
    wait_for("the queue to be told empty", || {
        drains(&chain).iter().all(|(_, seconds)| *seconds == 0.0).then_some(())
    });
    let messages = chain.api("/messages?instance=press-1");
    check_all("Message", &messages["items"]);
    let ids = messages["items"].as_array().unwrap().iter().map(|m| &m["message_id"]);
    assert!(!ids.into_iter().any(|i| *i == *short), "it expired");
    wait_for("the accounts to say that it expired, once", || {
        let ledgers = json(&server, &["ledger"]);
        let ledgers = ledgers.as_array()?;
        let expired: u64 = ledgers.iter().filter_map(|l| l["expired"].as_u64()).sum();
        (expired == 1 && ledgers.iter().all(|l| l["balanced"] == true)).then_some(())
    });
}

/// A store whose head is gone: fsck says so, and what it holds is shown all the same.
fn damaged_is_shown_as_far_as_it_can_be_read(chain: &Chain, whole: &Value, id: &str) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    for file in ["store.redb", "store.proof"] {
        std::fs::copy(chain.nodes[0].folder.join(file), folder.path().join(file)).unwrap();
    }
    let store = folder.path().join("store.redb");
    let mut bytes = std::fs::read(&store).unwrap();
    bytes[..4096].fill(0x5a);
    std::fs::write(&store, &bytes).unwrap();
    refused(&callhome(&["queue", "fsck", "--data", data]), 65);
    let without = |rows: &Value| {
        let rows = rows.as_array().unwrap().iter();
        let row = rows.map(|r| [&r["queue"], &r["precedence"], &r["messages"], &r["bytes"]]);
        row.map(|cells| cells.map(Value::to_string)).collect::<Vec<_>>()
    };
    assert_eq!(without(&json(data, &["queue", "ls"])), without(whole));
    let shown = callhome(&["queue", "show", id, "--data", data, "-o", "json"]);
    let said = text(&shown.stderr);
    assert_eq!(shown.status.code(), Some(0), "{said}");
    assert!(said.contains("damaged") && said.contains("callhome queue fsck"), "{said}");
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["message_id"], id);
    assert_eq!(std::fs::read(&store).unwrap(), bytes, "looking changes nothing");
}

/// A folder of a node without an API needs no server; what only warns is a row of its own.
#[test]
fn doctor_is_content_with_a_folder_that_has_no_api() {
    let chain = Chain::start("");
    sent(&chain, &ALARM);
    let proxy = chain.nodes[0].folder.display().to_string();
    let checks = json(&proxy, &["doctor"]);
    let row = |name: &str| {
        let found = checks.as_array().unwrap().iter().find(|c| c["check"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {checks}")).clone()
    };
    assert_eq!(row("server")["status"], "pass", "{checks}");
    assert!(row("server")["found"].as_str().unwrap().contains("has no API"), "{checks}");
    assert_eq!(row("plain_links")["status"], "warn", "{checks}");
    assert_eq!(row("delivering")["status"], "pass", "{checks}");
}

// QUE-7: the bytes queued are shown and never exceed the limit; a rejected newcomer is an error to
// try again.
#[test]
fn a_full_queue_is_bounded_and_refuses_with_75() {
    const LIMIT: u64 = 4 << 20;
    let mut chain = Chain::start(&format!("<store bytes=\"{LIMIT}\"/>"));
    sent(&chain, &ALARM);
    chain.nodes[1].process.take().unwrap().kill();
    let file = chain.nodes[0].folder.join("payload");
    std::fs::write(&file, vec![7; 250_000]).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let operator = chain.nodes[0].process.as_ref().unwrap().word("operator").replace("http://", "");
    let mut refusal = None;
    for _ in 0..25 {
        let output =
            send(&chain, &["data", "--class", "core", "--assured", "--data", &file, "--wait", "2"]);
        let (_, metrics) = get(&operator, "/metrics", "");
        let queued: f64 =
            metric(&metrics, "callhome_queue_bytes").iter().map(|(_, bytes)| bytes).sum();
        assert!(queued <= LIMIT as f64, "{queued}");
        if !output.status.success() {
            refusal = Some(output);
            break;
        }
    }
    let said = refused(&refusal.expect("a full queue"), 75);
    assert!(said.contains("queue_full"), "{said}");
    // Bulk that finds no room is a success that is told and counted.
    let bulk = send(
        &chain,
        &["data", "--class", "core", "--precedence", "bulk", "--data", &file, "-o", "json"],
    );
    assert_eq!(bulk.status.code(), Some(0), "{}", text(&bulk.stderr));
    let told: Value = serde_json::from_slice(&bulk.stdout).unwrap();
    assert_eq!(told["outcome"], "evicted", "{told}");
    assert!(chain.account(0).balanced);
}
