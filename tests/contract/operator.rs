//! The operator's door: health, tree, metrics, what needs the token; drills.
use serde_json::{Value, json};

use crate::{
    sandbox::{Up, callhome, get, text, wait_for},
    support::{QUIET, against, alarm, bearer, done, http, metric, refused, shared},
};

const NODES: [&str; 4] = ["app-server", "applications-mlm", "mlm", "proxy"];

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn health_is_three_answers_of_each_node() {
    let up = shared();
    for (path, parts) in [
        ("/livez", &["alive"][..]),
        ("/readyz", &["ready"]),
        ("/healthz", &["alive", "delivering", "ready"]),
    ] {
        // A neighbour's drill may show for a moment.
        let body = wait_for(path, || {
            let (status, body) = get(&up.operator(), path, "");
            (status == 200).then_some(body)
        });
        let health: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(keys(&health), ["nodes", "status"]);
        assert_eq!(health["status"], "ok");
        let nodes = health["nodes"].as_array().unwrap();
        let mut names: Vec<&str> = nodes.iter().map(|n| n["node"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, NODES);
        for node in nodes {
            let mut wanted: Vec<&str> = parts.to_vec();
            wanted.extend(["node", "node_id"]);
            wanted.sort_unstable();
            assert_eq!(keys(node), wanted, "{path}");
            for part in parts.iter().filter(|part| **part != "delivering") {
                assert_eq!(node[*part], json!({"ok": true, "reasons": []}));
            }
            if path == "/healthz" {
                assert_eq!(
                    keys(&node["delivering"]),
                    ["held", "last_acknowledged_at", "ok", "oldest_age_s", "reasons"]
                );
            }
        }
    }
    let (_, body) = get(&up.operator(), "/healthz?verbose", "");
    let verbose: Value = serde_json::from_str(&body).unwrap();
    let passed = verbose["nodes"][0]["ready"]["passed"].as_array().unwrap();
    assert!(passed.contains(&"registering".into()), "{passed:?}");
}

#[test]
fn tree_shows_each_node_its_supervisors_and_actors() {
    let up = shared();
    let (status, body) = get(&up.operator(), "/tree", "");
    assert_eq!(status, 200);
    let tree: Value = serde_json::from_str(&body).unwrap();
    let mut names = Vec::new();
    for node in tree.as_array().unwrap() {
        names.push(node["name"].as_str().unwrap().to_owned());
        assert_eq!(node["kind"], "node");
        walk(node);
    }
    names.sort_unstable();
    assert_eq!(names, NODES);
    assert!(body.contains("\"durable_queue\"") && body.contains("\"link\""));
}

fn walk(part: &Value) {
    assert_eq!(
        keys(part),
        ["children", "kind", "mailbox", "name", "restarts", "since_at", "state"]
    );
    assert!(["node", "supervisor", "actor"].contains(&part["kind"].as_str().unwrap()));
    assert!(["running", "waiting", "stopped"].contains(&part["state"].as_str().unwrap()));
    part["children"].as_array().unwrap().iter().for_each(walk);
}

/// Metrics of contract §4 but those of integrators and of certificates: name, kind, labels beside
/// `node`, and whether a quiet `up` has counted any.
const METRICS: [(&str, &str, &[&str], bool); 23] = [
    ("build_info", "gauge", &["version"], true),
    ("queue_messages", "gauge", &["queue", "precedence"], true),
    ("queue_bytes", "gauge", &["queue", "precedence"], true),
    ("queue_oldest_age_seconds", "gauge", &["queue", "precedence"], true),
    ("queue_drain_eta_seconds", "gauge", &["queue", "precedence"], true),
    ("ledger_in_total", "counter", &[], true),
    ("ledger_delivered_total", "counter", &[], true),
    ("ledger_expired_total", "counter", &[], true),
    ("ledger_evicted_total", "counter", &[], true),
    ("ledger_consumed_total", "counter", &[], true),
    ("ledger_refused_total", "counter", &["reason"], false),
    ("ledger_queued", "gauge", &[], true),
    ("ledger_balanced", "gauge", &[], true),
    ("intake_duplicates_total", "counter", &[], true),
    ("intake_turned_away_total", "counter", &["reason"], false),
    ("intake_dropped_total", "counter", &[], true),
    ("store_commit_seconds", "histogram", &["le"], true),
    ("exchange_seconds", "histogram", &["le"], true),
    ("exchange_bytes_total", "counter", &["direction"], true),
    ("supervision_restarts_total", "counter", &["supervisor", "child", "exit"], false),
    ("supervision_escalations_total", "counter", &["supervisor"], false),
    ("ready", "gauge", &[], true),
    ("delivering", "gauge", &[], true),
];

#[test]
fn metrics_have_the_names_of_the_contract_and_their_node() {
    let up = shared();
    alarm(&up, "kiln-1", &[]);
    let (status, text) = get(&up.operator(), "/metrics", "");
    assert_eq!(status, 200);
    for (name, kind, labels, counted) in METRICS {
        let name = format!("callhome_{name}");
        let help = text.lines().filter(|line| line.starts_with(&format!("# HELP {name} ")));
        assert_eq!(help.count(), 1, "HELP of {name}");
        let told = text.lines().filter(|line| *line == format!("# TYPE {name} {kind}"));
        assert_eq!(told.count(), 1, "TYPE of {name}");
        let suffix = if kind == "histogram" { "_bucket" } else { "" };
        let series = metric(&text, &format!("{name}{suffix}"));
        assert!(!counted || !series.is_empty(), "{name}");
        for (shown, _) in series {
            let known = NODES.iter().any(|node| shown.contains(&format!("node=\"{node}\"")));
            assert!(known, "{name}{{{shown}");
            for label in labels {
                assert!(shown.contains(&format!("{label}=\"")), "{name}{{{shown}");
            }
        }
    }
    for node in NODES {
        let own = |name: &str| {
            let series = metric(&text, name);
            series.iter().find(|(l, _)| l.contains(&format!("node=\"{node}\""))).unwrap().1
        };
        assert_eq!(own("callhome_ledger_balanced"), 1.0, "{node}");
        assert_eq!(own("callhome_ready"), 1.0, "{node}");
        assert!(own("callhome_ledger_in_total") > 0.0, "{node}");
    }
    let up_and_down = metric(&text, "callhome_exchange_bytes_total");
    for direction in ["up", "down"] {
        assert!(up_and_down.iter().any(|(l, v)| l.contains(direction) && *v > 0.0));
    }
    // Nothing is told twice, which a reader would refuse as a whole.
    let mut series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    series.retain(|line| !line.is_empty());
    let mut names: Vec<&str> = series.iter().map(|l| l.rsplit_once(' ').unwrap().0).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn what_changes_anything_wants_the_token() {
    let up = shared();
    let (host, token) = (up.operator(), up.token());
    for (method, path) in [("POST", "/drill"), ("PUT", "/log"), ("POST", "/sign-in")] {
        for headers in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic eDp5\r\n"] {
            let answer = http(&host, &format!("{method} {path}"), headers, b"{}");
            answer.problem(401, "unauthenticated", "give_up");
        }
    }
    http(&host, "POST /drill", &bearer(&token), b"{\"fault\":1}").problem(
        400,
        "malformed",
        "give_up",
    );
    http(&host, "POST /drill", &bearer(&token), b"{\"fault\":\"dance\",\"actor\":\"link\"}")
        .problem(400, "malformed", "give_up");
    http(&host, "PUT /log", &bearer(&token), b"{\"filter\":\"(((\"}").problem(
        400,
        "malformed",
        "give_up",
    );
    http(&host, "GET /nothing", "", b"").problem(404, "not_found", "give_up");
    // The door is not a way into the API.
    assert_eq!(get(&host, "/api/v1/alarms", &token).0, 404);
}

#[test]
fn drills_break_an_actor_and_the_node_serves_on() {
    // One of its own: what a drill holds up for some seconds is not its neighbours'.
    let up = Up::start(&QUIET);
    let restarts = || {
        let (_, text) = get(&up.operator(), "/metrics", "");
        let series = metric(&text, "callhome_supervision_restarts_total");
        let own = series.iter().filter(|(labels, _)| {
            labels.contains("node=\"mlm\"") && labels.contains("child=\"link\"")
        });
        own.map(|(_, value)| value).sum::<f64>()
    };
    let before = restarts();
    done(&up, &["drill", "panic", "link", "--node", "mlm", "--times", "2", "--every-ms", "200"]);
    wait_for("two restarts", || (restarts() >= before + 2.0).then_some(()));
    let (_, text) = get(&up.operator(), "/metrics", "");
    for (labels, _) in metric(&text, "callhome_supervision_restarts_total") {
        for label in ["node=", "supervisor=", "child=", "exit="] {
            assert!(labels.contains(label), "{labels}");
        }
    }
    let id = alarm(&up, "kiln-2", &["--wait", "40"]);
    wait_for("the alarm behind it", || {
        let output = against(&up, &["trace", &id, "-o", "json"]);
        let trace: Value = serde_json::from_slice(&output.stdout).ok()?;
        (trace["state"] == "delivered").then_some(())
    });
    refused(&against(&up, &["drill", "stop", "nobody"]), 66);
}

/// The log in JSON lines: each has time, level, target and message, and says whose it is.
#[test]
fn every_line_of_a_node_says_whose_it_is() {
    let up = Up::start(&["--snmp", "off", "--syslog", "off", "--no-inventory", "--log", "info"]);
    let socket = up.data().join("proxy/integrator.sock").display().to_string();
    let own = ["send", "event", "--socket", &socket, "--instance", "a", "--type", "t"];
    let said = callhome(&[&own[..], &["--severity", "minor", "--text", "x"]].concat());
    assert!(said.status.success(), "{}", text(&said.stderr));
    let mut nodes = std::collections::BTreeSet::new();
    for line in up.process.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        for key in ["timestamp", "level", "target", "message"] {
            assert!(line[key].is_string(), "{key} in {line}");
        }
        assert!(!line.to_string().contains("Some("), "{line}");
        if ["delivery", "proxy", "app_server"].contains(&line["target"].as_str().unwrap()) {
            assert!(line["node"].is_string() && line["role"].is_string(), "whose: {line}");
        }
        nodes.extend(line["node"].as_str().map(str::to_owned));
    }
    let all = ["app-server", "applications-mlm", "mlm", "proxy"].map(str::to_owned);
    assert_eq!(nodes, all.into());
}

// IDM-6: at the proxy's door and at the provider either identifier of an instance gives the other.
#[test]
fn either_identifier_of_an_instance_is_asked_for_and_gives_the_other() {
    let up = shared();
    alarm(&up, "192.0.2.77", &[]);
    let door = |asked: &str| -> Value {
        let (status, body) = get(&up.operator(), &format!("/instances?instance={asked}"), "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    let by_name = door("192.0.2.77");
    assert_eq!(by_name.as_array().unwrap().len(), 1, "{by_name}");
    let found = &by_name[0];
    assert_eq!(
        keys(found),
        ["instance", "instance_id", "integrator", "integrator_id", "node", "state"]
    );
    assert_eq!((&found["instance"], &found["node"]), (&"192.0.2.77".into(), &"proxy".into()));
    assert_eq!((&found["integrator"], &found["state"]), (&"send".into(), &"active".into()));
    let id = found["instance_id"].as_str().unwrap();
    assert!(id.starts_with(&format!("{}/", found["integrator_id"].as_str().unwrap())), "{id}");
    assert_eq!(door(id), by_name);
    assert_eq!(door(&id.replace('/', ".")), by_name);
    // The provider says the same, when the registration has come.
    let listed = |asked: &str| {
        let out = done(&up, &["-o", "json", "ls", "instances", "--instance", asked]);
        let rows: Value = serde_json::from_str(&out).unwrap();
        rows.as_array().unwrap().first().cloned()
    };
    let row = wait_for("the instance at the provider", || listed("192.0.2.77"));
    assert_eq!((&row["instance"], &row["instance_id"]), (&"192.0.2.77".into(), &id.into()));
    assert_eq!(listed(id).as_ref().map(|row| &row["instance"]), Some(&"192.0.2.77".into()));
    for (wrong, status) in [
        ("/instances?instance=nobody", 404),
        ("/instances?instance=192.0.2.77&node=nobody", 404),
        ("/instances", 400),
        ("/instances?instance=a&instance=b", 400),
    ] {
        let answer = http(&up.operator(), &format!("GET {wrong}"), "", b"");
        assert_eq!(answer.status, status, "{wrong}: {}", text(&answer.body));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
}
