//! Nodes asked over the back-channel: the ledger is of now, and a message that has not arrived is
//! found where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

use std::{
    process::Output,
    time::{Duration, Instant},
};

use integrator_api::Options;
use integrator_api::{ActionRequest, Call, Callback, CallbackError, Client, Handler, InstanceCall};
use sandbox::{Up, callhome, chain::Chain, request, small::Small, text, wait_for};
use serde_json::Value;

const PROXY: usize = 0;
const MLM: usize = 1;

/// What `up` does not do here by itself.
const QUIET: [&str; 5] = ["--snmp", "off", "--syslog", "off", "--no-inventory"];
/// Much less than the time between two heartbeats of `up`, and much more than the way down and up.
const AT_ONCE: Duration = Duration::from_secs(5);

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)))
}

/// Sends an alarm; its message id.
fn sent(socket: &str, text_of_it: &str) -> String {
    let place = ["send", "alarm", "--socket", socket, "--instance", "press-1", "--type", "hot"];
    let what = ["--severity", "major", "--text", text_of_it, "--wait", "30"];
    let output = callhome(&[&place[..], &what[..]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

fn account<'l>(ledgers: &'l Value, node: &str) -> &'l Value {
    let ledgers = ledgers.as_array().unwrap();
    ledgers.iter().find(|ledger| ledger["node"] == node).unwrap_or_else(|| panic!("no {node}"))
}

// CONTRACT §2: `ledger --wait` asks; what was sent just now is in the accounts, which balance.
#[test]
fn a_ledger_right_after_a_message_has_it_and_balances() {
    let up = Up::start(&QUIET);
    let socket = up.data().join("proxy/integrator.sock").display().to_string();
    let data = up.data_text();
    let asked = || {
        let begun = Instant::now();
        let output = callhome(&["ledger", "--check", "--data", &data, "-o", "json"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(begun.elapsed() < AT_ONCE, "it waited for heartbeats: {:?}", begun.elapsed());
        json(&output)
    };
    // Registrations and what they lead to are over first.
    sent(&socket, "first");
    let mut before = asked();
    for n in 0..5 {
        sent(&socket, &format!("again {n}"));
        let after = asked();
        let taken = |ledgers: &Value| account(ledgers, "proxy")["in"].as_u64().unwrap();
        assert!(taken(&after) > taken(&before), "{before} {after}");
        let names: Vec<&str> =
            after.as_array().unwrap().iter().map(|l| l["node"].as_str().unwrap()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        before = after;
    }
    // Nobody is asked where nobody waits, and the last word stands.
    let output = callhome(&["ledger", "--wait", "0", "--data", &data, "-o", "json"]);
    assert_eq!(account(&json(&output), "proxy")["in"], account(&before, "proxy")["in"]);
}

// To be asked changes nothing of what is asked about: neither the accounts nor the heartbeats.
#[test]
fn asking_changes_no_account_and_makes_no_node_silent() {
    let up = Up::start(&QUIET);
    let data = up.data_text();
    let ledger = || json(&callhome(&["ledger", "--data", &data, "-o", "json"]));
    let figures = |ledgers: &Value| -> Vec<(String, Value, Value)> {
        let of = |l: &Value| {
            (text(l["node"].as_str().unwrap().as_bytes()), l["in"].clone(), l["queued"].clone())
        };
        ledgers.as_array().unwrap().iter().map(of).collect()
    };
    let mut before = figures(&ledger());
    wait_for("accounts that stand still", || {
        let now = figures(&ledger());
        let same = now == before && now.iter().all(|(.., queued)| *queued == 0);
        before = now;
        same.then_some(())
    });
    for _ in 0..20 {
        assert_eq!(figures(&ledger()), before);
    }
    let nodes = up.api("/nodes");
    for node in nodes["items"].as_array().unwrap() {
        assert_eq!(node["state"], "operational", "{node}");
    }
}

#[test]
fn a_message_is_found_where_it_stands_and_who_says_nothing_is_named() {
    let Some(disk) = Small::mount(48 << 20) else { return };
    let mut chain = Chain::start("");
    let socket = chain.socket().display().to_string();
    let arrived = sent(&socket, "before");
    let data = chain.nodes[3].folder.display().to_string();
    let trace = |id: &str, wait: &str| {
        callhome(&["trace", id, "--wait", wait, "--data", &data, "-o", "json"])
    };
    wait_for("the first alarm", || {
        (json(&trace(&arrived, "5"))["state"] == "delivered").then_some(())
    });
    chain.move_to(MLM, disk.path());
    let through = sent(&socket, "through");
    wait_for("the way by the small disk", || {
        (json(&trace(&through, "5"))["state"] == "delivered").then_some(())
    });
    disk.fill();
    let stuck = sent(&socket, "stuck");
    // The MLM cannot keep it, and says so; what it only passes on goes by.
    let (found, said) = wait_for("the message at the proxy", || {
        let output = trace(&stuck, "10");
        let found = json(&output);
        (found["reason"] == "storage_down").then(|| (found, text(&output.stderr)))
    });
    assert_eq!(found["state"], "queued", "{found}");
    assert_eq!(found["class"], "alarm");
    assert!(stuck.starts_with(found["node_id"].as_str().unwrap()), "{found}");
    assert!(found["stored_at"].is_null() && !found["accepted_at"].is_null());
    assert_eq!(found["hops"][0]["node"], "proxy");
    assert_eq!(found["hops"].as_array().unwrap().len(), 1);
    assert!(found["hops"][0]["sent_at"].is_null());
    assert!(said.is_empty() || said.contains("mlm did not answer"), "{said}");
    let table = callhome(&["trace", &stuck, "--wait", "10", "--data", &data]);
    let table = text(&table.stdout);
    assert!(table.contains(" in up, ") && table.contains(" tries of its link failed"), "{table}");
    disk.make_room();
    wait_for("it to arrive", || (json(&trace(&stuck, "5"))["state"] == "delivered").then_some(()));

    // Behind a link that is down nobody can be asked: that is said, and who.
    chain.stop(MLM);
    let unseen = sent(&socket, "unseen");
    let output = trace(&unseen, "1");
    assert_eq!(output.status.code(), Some(66), "{}", text(&output.stdout));
    assert_eq!(json(&output)["state"], "unknown");
    let said = text(&output.stderr);
    for node in ["proxy", "mlm"] {
        assert!(said.contains(node), "{said}");
    }
    let output = callhome(&["ledger", "--wait", "1", "--data", &data, "-o", "json"]);
    let said = text(&output.stderr);
    assert!(said.contains("did not answer") && said.contains("proxy"), "{said}");
    assert!(!said.contains("applications-mlm"), "{said}");
    chain.run(MLM);
    wait_for("the last alarm", || {
        (json(&trace(&unseen, "5"))["state"] == "delivered").then_some(())
    });
    chain.stop(PROXY);
}

/// Takes actions, as far as it is there.
struct Takes;

impl Handler for Takes {
    fn callbacks(&self) -> Vec<Callback> {
        vec![Callback::Action]
    }

    fn action(&self, _: ActionRequest) -> Result<i64, CallbackError> {
        Ok(0)
    }
}

/// Messages in the queues of a node, but those set aside: they have ended.
fn standing(chain: &Chain, node: usize) -> u64 {
    let rows = chain.queues(node);
    let held = rows.iter().filter(|row| row["queue"] != "set-aside");
    held.map(|row| row["messages"].as_u64().unwrap()).sum()
}

// RTE-5: what goes down is in custody, too: in the account of each node as long as it stands there,
// and found by its id.
#[test]
fn an_action_that_waits_is_in_the_account_and_found_where_it_waits() {
    let mut chain = Chain::start("");
    let policy = "<policy xmlns=\"urn:callhome:config:1\">\
        <rule what=\"action\" name=\"restart\" decision=\"allow\"/></policy>";
    std::fs::write(chain.nodes[PROXY].folder.join("policy.xml"), policy).unwrap();
    chain.kill(PROXY);
    let client = |chain: &Chain| {
        Client::open(Options::new(chain.socket(), "plant", "1").handler(Takes)).unwrap()
    };
    let there = client(&chain);
    let instance = InstanceCall { instance: "press-1".into(), capabilities: None };
    there.send(Call::Instance(instance)).wait().unwrap();
    let target = wait_for("the instance at the server", || {
        let list = chain.api("/instances?limit=10");
        list["items"].as_array()?.first()?["instance_id"].as_str().map(str::to_owned)
    });
    drop(there);
    let headers = format!(
        "Authorization: Bearer {}\r\nContent-Type: application/json\r\n\
        Idempotency-Key: action-1\r\n",
        chain.token()
    );
    let body = format!("{{\"targets\":[\"{target}\"],\"name\":\"restart\"}}");
    let (status, said) = request(&chain.server(), "POST /api/v1/actions", &headers, &body);
    assert!((200..300).contains(&status), "{status}: {said}");
    let made: Value = serde_json::from_str(&said).unwrap();
    let message = made["items"][0]["message_id"].as_str().unwrap().to_owned();
    let data = chain.nodes[3].folder.display().to_string();
    let traced = || callhome(&["trace", &message, "--data", &data]);
    let trace = || json(&callhome(&["trace", &message, "--data", &data, "-o", "json"]));
    wait_for("the action at the proxy", || {
        let trace = trace();
        let waits = trace["node_id"].as_str().is_some_and(|node| target.starts_with(node));
        (waits && trace["state"] == "queued").then_some(())
    });
    let table = text(&traced().stdout);
    assert!(table.contains(" in local/plant"), "{table}");
    let names = ["proxy", "mlm", "applications-mlm", "app-server"];
    wait_for("accounts that say what stands where", || {
        let ledgers = json(&callhome(&["ledger", "--data", &data, "-o", "json"]));
        let queued = |node: &str| account(&ledgers, node)["queued"].as_u64().unwrap();
        let balanced = ledgers.as_array()?.iter().all(|ledger| ledger["balanced"] == true);
        assert!(balanced, "{ledgers}");
        // Removals ride on later commits: a moment long more stands in a queue than will stay.
        let still = names.iter().enumerate().all(|(i, node)| queued(node) == standing(&chain, i));
        (still && queued("proxy") == 1 && names[1..].iter().all(|n| queued(n) == 0)).then_some(())
    });
    let back = client(&chain);
    wait_for("the action done", || (trace()["state"] == "delivered").then_some(()));
    wait_for("nothing to stand anywhere", || {
        (0..names.len()).all(|i| standing(&chain, i) == 0).then_some(())
    });
    drop(back);
}
