//! The main job on real input: traps, log lines and this host, from their senders to API and CLI.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

use std::process::Command;

use sandbox::{Up, callhome, get, text, wait_for};
use serde_json::Value;

fn snmptrap(to: &str, version: &str, rest: &[&str]) {
    let mut command = Command::new("snmptrap");
    command.env("MIBS", "").args(["-v", version, "-c", "public", to]).args(rest);
    let output = command.output().expect("snmptrap runs: apt-get install snmp");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

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
const LINK_UP: [&str; 5] = ["", "1.3.6.1.6.3.1.1.5.4", "1.3.6.1.2.1.2.2.1.1.7", "i", "7"];

fn logger(to: &str, rest: &[&str]) {
    let (host, port) = to.rsplit_once(':').unwrap();
    let mut command = Command::new("logger");
    command.args(["-n", host, "-P", port, "-d"]).args(rest);
    let output = command.output().expect("logger runs: apt-get install bsdutils");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

// EXT-2, EXT-5, ARC-16: unmodified senders; a trap opens an alarm, the next one closes it, a log
// line becomes an alarm, and this host's packages arrive.
// ARC-6: net-snmp and the system log have nothing in common but the API they come in by.
#[test]
fn trap_line_and_inventory_travel_to_the_provider() {
    let up = Up::start(&[]);
    let (snmp, syslog) = (up.process.word("snmp"), up.process.word("syslog"));
    snmptrap(&snmp, "2c", &LINK_DOWN);
    let alarm = up.alarm("the trap's alarm", |a| a["text"] == "interface eth7 is down");
    assert_eq!(alarm["severity"], "major");
    assert_eq!(alarm["state"], "opened");
    assert_eq!(alarm["integrator"], "snmp");
    assert_eq!(alarm["key"], "7");
    assert_eq!(alarm["type"], "1.3.6.1.6.3.1.1.5.3");
    snmptrap(&snmp, "2c", &LINK_UP);
    let id = alarm["alarm_id"].as_str().unwrap().to_owned();
    wait_for("the alarm to close", || {
        let alarm = up.api(&format!("/alarms/{id}"));
        (alarm["state"] == "closed").then_some(())
    });

    let line = "Device: /dev/sda [SAT], FAILED SMART self-check. BACK UP DATA NOW!";
    logger(&syslog, &["-t", "smartd", "-p", "daemon.crit", line]);
    let alarm = up.alarm("the line's alarm", |a| a["integrator"] == "syslog");
    assert_eq!(alarm["severity"], "critical");
    assert_eq!(alarm["text"], "disk /dev/sda is failing: back up its data now");

    let integrators = up.api("/integrators?limit=10");
    let at = |name: &str| {
        let list = integrators["items"].as_array().unwrap();
        let one = list.iter().find(|i| i["integrator"] == name);
        one.unwrap_or_else(|| panic!("{integrators}"))["node_id"].clone()
    };
    assert_eq!(at("snmp"), at("syslog"), "one proxy, one API");

    // DAT-15 in part: this host's own packages and performance samples are data messages.
    wait_for("the inventory", || {
        let list = up.api("/messages?class=data&limit=100");
        let items = list["items"].as_array()?;
        let has = |word: &str| {
            items.iter().any(|m| m["subclass"].as_str().is_some_and(|s| s.starts_with(word)))
        };
        (has("inventory") && has("performance")).then_some(())
    });

    // IDM-1, IDM-3: every component has an id of its own, under its customer.
    let nodes = up.cli(&["ls", "nodes"]);
    let mut ids: Vec<&str> =
        nodes.as_array().unwrap().iter().map(|n| n["node_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "{nodes}");

    // The message's way, hop by hop, in API and CLI alike (DAT-4).
    let message = alarm["message_id"].as_str().unwrap();
    let trace = wait_for("the trace", || {
        let trace = up.cli(&["trace", message]);
        (trace["state"] == "delivered").then_some(trace)
    });
    let hops = trace["hops"].as_array().unwrap();
    assert_eq!(hops.len(), 4, "{trace}");
    assert!(hops.iter().all(|h| h["received_at"].is_string()));
    wait_for("the ledger to balance", || {
        let ledger = up.cli(&["ledger"]);
        ledger.as_array()?.iter().all(|l| l["balanced"] == Value::Bool(true)).then_some(())
    });
    assert_eq!(up.process.stop(), Some(0));
}

// DAT-14 …: what scripts send by the API arrives with the payload byte for byte (DAT-11).
#[test]
fn payloads_of_scripts_arrive_byte_for_byte() {
    let up = Up::start(&["--snmp", "off", "--syslog", "off", "--no-inventory"]);
    let data = up.data_text();
    let xml = b"<?xml version=\"1.0\"?><a>\xc3\xa4</a>".to_vec();
    let random: Vec<u8> = (0..=255_u8).cycle().take(70_000).collect();
    let cases: [(&str, Vec<u8>); 4] = [
        ("application/octet-stream", random),
        ("text/plain", "grüße\n".as_bytes().to_vec()),
        ("application/xml", xml),
        ("text/plain", Vec::new()),
    ];
    for (encoding, payload) in cases {
        let file = up.data().join("payload");
        std::fs::write(&file, &payload).unwrap();
        let output = callhome(&[
            "send",
            "data",
            "--instance",
            "press-1",
            "--class",
            "core",
            "--data",
            file.to_str().unwrap(),
            "--encoding",
            encoding,
            "--socket",
            &format!("{data}/proxy/integrator.sock"),
        ]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let id = text(&output.stdout).trim().to_owned();
        let dotted = id.replace('/', ".");
        wait_for("the message", || {
            let (status, _) = get(&up.server(), &format!("/api/v1/messages/{dotted}"), &up.token());
            (status == 200).then_some(())
        });
        let message = up.api(&format!("/messages/{dotted}"));
        assert_eq!(message["encoding"], encoding);
        let mut stream = raw(&up.server(), &format!("/api/v1/messages/{dotted}/data"), &up.token());
        assert_eq!(stream.split_off(stream.len() - payload.len()), payload, "{encoding}");
    }
}

/// A whole answer in bytes.
fn raw(host: &str, path: &str, token: &str) -> Vec<u8> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
        Authorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}
