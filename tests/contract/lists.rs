//! `send`, `ls`, `trace`, `ledger`, `alarm`: all flags, and each object by the API's schemas.
use serde_json::Value;

use crate::{
    sandbox::{Up, text, wait_for},
    schema::{check, check_all},
    support::{against, alarm, done, refused, shared},
};

fn json(up: &Up, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["--format", "json"]);
    serde_json::from_str(&done(up, &all)).expect("JSON")
}

/// Waits until the alarms of an instance are so many.
fn alarms(up: &Up, instance: &str, count: usize) -> Vec<Value> {
    wait_for("the alarms", || {
        let list = json(up, &["ls", "alarms", "--instance", instance, "--state", "all"]);
        let list = list.as_array()?.clone();
        (list.len() == count).then_some(list)
    })
}

#[test]
fn alarm_opens_repeats_and_closes_by_instance_type_and_key() {
    let up = shared();
    let id = alarm(&up, "oven-1", &["--key", "a", "--at", "2026-11-23T08:00:00Z"]);
    let answer = json(
        &up,
        &[
            "send",
            "alarm",
            "--instance",
            "oven-1",
            "--type",
            "oil",
            "--key",
            "a",
            "--severity",
            "critical",
            "--text",
            "worse",
            "--at",
            "2026-11-23T08:01:00Z",
        ],
    );
    assert_eq!(answer["outcome"], "stored");
    assert_eq!(answer.as_object().unwrap().len(), 2);
    alarm(&up, "oven-1", &["--key", "b"]);
    let both = wait_for("two alarms, one twice", || {
        let both = alarms(&up, "oven-1", 2);
        both.iter().any(|a| a["count"] == 2).then_some(both)
    });
    check_all("Alarm", &both.clone().into());
    let a = both.iter().find(|a| a["key"] == "a").unwrap();
    assert_eq!(a["severity"], "critical");
    assert_eq!(a["text"], "worse");
    assert_eq!(a["opened_at"], "2026-11-23T08:00:00.000Z");
    assert_eq!(a["occurred_at"], "2026-11-23T08:01:00.000Z");
    assert_eq!(a["message_id"], answer["message_id"]);
    assert_ne!(a["message_id"], id);
    alarm(&up, "oven-1", &["--key", "a", "--state", "closed"]);
    wait_for("it to close", || (alarms_open(&up, "oven-1") == 1).then_some(()));
    // Opened after that it is a new alarm.
    alarm(&up, "oven-1", &["--key", "a"]);
    let all = alarms(&up, "oven-1", 3);
    assert_eq!(all.iter().filter(|a| a["key"] == "a" && a["state"] == "closed").count(), 1);
}

fn alarms_open(up: &Up, instance: &str) -> usize {
    json(up, &["ls", "alarms", "--instance", instance]).as_array().unwrap().len()
}

#[test]
fn alarm_command_acknowledges_silences_and_closes() {
    let up = shared();
    alarm(&up, "oven-2", &[]);
    let id = alarms(&up, "oven-2", 1)[0]["alarm_id"].as_str().unwrap().to_owned();
    let acked = json(&up, &["alarm", "ack", &id, "--comment", "on my way"]);
    check("Alarm", &acked);
    assert_eq!(acked["state"], "acknowledged");
    assert_eq!(acked["comment"], "on my way");
    assert!(acked["acknowledged_by"].is_string());
    let silent = json(&up, &["alarm", "silence", &id, "--until", "2h"]);
    check("Alarm", &silent);
    assert!(silent["silenced_until"].is_string());
    assert_eq!(silent["state"], "acknowledged");
    let closed = json(&up, &["alarm", "close", &id]);
    check("Alarm", &closed);
    assert_eq!(closed["state"], "closed");
    assert!(closed["closed_at"].is_string());
    assert_eq!(alarms_open(&up, "oven-2"), 0);
}

// DAT-13: each message through the proxy has an id of its own.
#[test]
fn send_takes_all_its_flags() {
    let up = shared();
    let payload = up.data().join("payload-of-flags");
    std::fs::write(&payload, b"<a/>").unwrap();
    let payload = payload.to_str().unwrap();
    let event = "send event --instance oven-3 --type boot --severity information --text starts \
        --event-id e-1 --state opened --at 2026-11-23T08:00:00Z --precedence bulk --ttl 3600 \
        --integrator plant";
    let first = done(&up, &event.split_whitespace().collect::<Vec<_>>());
    let data = format!(
        "send data --instance oven-3 --class core --subclass kernel --data {payload} \
        --encoding application/xml --assured --answers {} --integrator plant --wait 5",
        first.trim()
    );
    let second = done(&up, &data.split_whitespace().collect::<Vec<_>>());
    assert_ne!(first, second);
    let event = wait_for("the event", || {
        json(&up, &["ls", "events", "--instance", "oven-3"]).as_array()?.first().cloned()
    });
    check("Event", &event);
    assert_eq!((&event["event_id"], &event["state"]), (&"e-1".into(), &"opened".into()));
    assert_eq!(event["occurred_at"], "2026-11-23T08:00:00.000Z");
    let messages = wait_for("both messages", || {
        let list = json(&up, &["ls", "messages", "--instance", "oven-3"]);
        (list.as_array()?.len() == 2).then_some(list)
    });
    check_all("Message", &messages);
    let of = |class: &str| {
        messages.as_array().unwrap().iter().find(|m| m["class"] == class).unwrap().clone()
    };
    let (event, data) = (of("event"), of("data"));
    assert_eq!(event["precedence"], "bulk");
    assert_eq!(event["time_to_live_s"], 3600);
    assert_eq!(event["integrator"], "plant");
    assert_eq!(event["message_id"], first.trim());
    assert_eq!(data["subclass"], "core/kernel");
    assert_eq!(data["encoding"], "application/xml");
    assert_eq!(data["persistence"], "assured");
    // DAT-14: an answer quotes the id of what it answers.
    assert_eq!(data["answers"], first.trim());
}

// DAT-8: a value outside the definitions fails at the API, with what is wrong.
#[test]
fn send_without_an_instance_is_refused_for_good() {
    let up = shared();
    let words = ["send", "alarm", "--instance", "", "--type", "t", "--severity", "major"];
    let said = refused(&against(&up, &[&words[..], &["--text", "x"]].concat()), 65);
    assert!(said.contains("malformed"), "{said}");
}

#[test]
fn precedence_is_urgent_for_what_is_critical_unless_told() {
    let up = shared();
    for (severity, key) in [("fatal", "f"), ("critical", "c"), ("major", "m")] {
        done(
            &up,
            &[
                "send",
                "alarm",
                "--instance",
                "oven-4",
                "--type",
                "t",
                "--severity",
                severity,
                "--key",
                key,
                "--text",
                severity,
            ],
        );
    }
    let list = wait_for("three messages", || {
        let list = json(&up, &["ls", "messages", "--instance", "oven-4", "--class", "alarm"]);
        (list.as_array()?.len() == 3).then(|| list.as_array().unwrap().clone())
    });
    let mut urgent: Vec<&str> = list.iter().map(|m| m["precedence"].as_str().unwrap()).collect();
    urgent.sort_unstable();
    assert_eq!(urgent, ["normal", "urgent", "urgent"]);
}

const KINDS: [(&str, &str, &str); 8] = [
    ("customers", "Customer", "customer nodes instances alarms customer_id"),
    ("nodes", "Node", "node roles state delivering queued oldest_age_s node_id"),
    ("integrators", "Integrator", "integrator version state instances integrator_id"),
    ("instances", "Instance", "instance integrator state alarms instance_id"),
    ("alarms", "Alarm", "severity state instance type key text count occurred_at alarm_id"),
    ("events", "Event", "severity state instance type event_id text occurred_at message_id"),
    ("messages", "Message", "class subclass precedence instance stored_at message_id"),
    ("actions", "Action", "name target_id state status action_id"),
];

#[test]
fn lists_have_the_columns_of_the_contract_and_the_schemas_of_the_api() {
    let up = shared();
    alarm(&up, "oven-5", &[]);
    done(
        &up,
        &[
            "send",
            "event",
            "--instance",
            "oven-5",
            "--type",
            "t",
            "--severity",
            "minor",
            "--text",
            "x",
        ],
    );
    alarms(&up, "oven-5", 1);
    wait_for("the event", || {
        let list = json(&up, &["ls", "events", "--instance", "oven-5"]);
        (list.as_array()?.len() == 1).then_some(())
    });
    for (kind, schema, columns) in KINDS {
        let list = json(&up, &["ls", kind]);
        check_all(schema, &list);
        assert!(kind == "actions" || !list.as_array().unwrap().is_empty(), "{kind}");
        let table = done(&up, &["ls", kind]);
        let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(head.join(" "), columns, "{kind}");
    }
}

#[test]
fn lists_are_filtered_limited_and_newest_first() {
    let up = shared();
    for i in 0..3 {
        done(
            &up,
            &[
                "send",
                "event",
                "--instance",
                "oven-6",
                "--type",
                "t",
                "--severity",
                ["minor", "major", "fatal"][i],
                "--text",
                &format!("oil number {i}"),
            ],
        );
    }
    let all = wait_for("three events", || {
        let list = json(&up, &["ls", "events", "--instance", "oven-6"]);
        (list.as_array()?.len() == 3).then(|| list.as_array().unwrap().clone())
    });
    let texts: Vec<&str> = all.iter().map(|e| e["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["oil number 2", "oil number 1", "oil number 0"]);
    let count = |more: &[&str]| {
        let mut line = vec!["ls", "events", "--instance", "oven-6"];
        line.extend(more);
        json(&up, &line).as_array().unwrap().len()
    };
    assert_eq!(count(&["--severity-min", "major"]), 2);
    assert_eq!(count(&["--severity", "minor", "--severity", "fatal"]), 2);
    assert_eq!(count(&["--text", "NUMBER 1"]), 1);
    assert_eq!(count(&["--type", "other"]), 0);
    assert_eq!(count(&["--since", "1h"]), 3);
    assert_eq!(count(&["--until", "1h"]), 0);
    assert_eq!(count(&["--customer", "local", "--node", "proxy", "--integrator", "send"]), 3);
    assert_eq!(count(&["--customer", "provider"]), 0);
    assert_eq!(count(&["--limit", "0"]), 3);
    let output = against(&up, &["ls", "events", "--instance", "oven-6", "--limit", "2"]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout).lines().count(), 3, "a head and two rows");
    assert!(text(&output.stderr).contains("more"), "{}", text(&output.stderr));
    refused(&against(&up, &["ls", "alarms", "--class", "core"]), 64);
    // Instances by name and by id, in both spellings.
    let id = all[0]["instance_id"].as_str().unwrap();
    let by = |id: &str| json(&up, &["ls", "events", "--instance", id]).as_array().unwrap().len();
    assert_eq!((by(id), by(&id.replace('/', "."))), (3, 3));
}

#[test]
fn trace_and_ledger_tell_what_became_of_it() {
    let up = shared();
    let id = alarm(&up, "oven-7", &[]);
    let trace = wait_for("it to arrive", || {
        let output = against(&up, &["trace", &id, "-o", "json"]);
        let trace: Value = serde_json::from_slice(&output.stdout).ok()?;
        (trace["state"] == "delivered").then_some(trace)
    });
    check("Trace", &trace);
    let hops = trace["hops"].as_array().unwrap();
    let names: Vec<&str> = hops.iter().map(|h| h["node"].as_str().unwrap()).collect();
    assert_eq!(names, ["proxy", "mlm", "applications-mlm", "app-server"]);
    let times: Vec<&str> = hops.iter().map(|h| h["received_at"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(json(&up, &["trace", &id.replace('/', "."), "--wait", "0"])["message_id"], *id);

    // A node's account comes with its heartbeat.
    let ledgers = wait_for("the accounts of four nodes", || {
        let ledgers = json(&up, &["ledger"]);
        (ledgers.as_array()?.len() == 4).then_some(ledgers)
    });
    check_all("Ledger", &ledgers);
    let one = json(&up, &["ledger", "proxy"]);
    check_all("Ledger", &one);
    assert_eq!(one[0]["node"], "proxy");
    done(&up, &["ledger", "--check"]);
}
