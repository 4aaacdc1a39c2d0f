//! The proxy's queue as an integrator and an operator see it: limits, order, time to live.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

use std::time::{Duration, Instant};

use integrator_api::{
    Call, Client, DataCall, EventCall, Options, Persistence, Precedence, Qos, Refusal, Severity,
    Verdict,
};
use sandbox::{chain::Chain, text, wait_for};

const PROXY: usize = 0;
const MLM: usize = 1;

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn client(chain: &Chain) -> Client {
    let client = Client::open(Options::new(chain.socket(), "plant", "1")).unwrap();
    client.wait_registered(sandbox::LONG).unwrap();
    client
}

fn event(text: &str, qos: Qos) -> Call {
    Call::Event(EventCall { qos, ..EventCall::new("press-1", now(), "t", Severity::Minor, text) })
}

/// Messages and bytes that wait for the parent.
fn waiting(chain: &Chain, node: usize) -> (u64, u64) {
    let rows = chain.queues(node);
    let up = rows.iter().filter(|row| row["queue"] == "up");
    let sum = |name: &str| up.clone().map(|row| row[name].as_u64().unwrap()).sum();
    (sum("messages"), sum("bytes"))
}

/// Bytes of the proxy's queue in the test of its limit.
const LIMIT: u64 = 200_000;

// QUE-7: the queue tells its bytes, and they never exceed the limit.
// QUE-15: what is turned away is an error to the caller, in the log, in metrics and heartbeats.
#[test]
fn full_queue_keeps_its_limit_and_rejects_aloud() {
    let mut chain = Chain::start(&format!("<store bytes=\"{LIMIT}\"/>"));
    let client = client(&chain);
    client.send(event("before", Qos::default())).wait().unwrap();
    wait_for("an empty queue", || (waiting(&chain, PROXY).0 == 0).then_some(()));
    chain.stop(MLM);
    let mut accepted = 0;
    let rejected = loop {
        let call = Call::Data(DataCall {
            instance: "press-1".into(),
            class: "log".into(),
            data: vec![b'x'; 6_000].into(),
            encoding: "text/plain".into(),
            qos: Qos { persistence: Persistence::Assured, ..Qos::default() },
            ..DataCall::default()
        });
        let sent = client.send(call).wait();
        let (messages, bytes) = waiting(&chain, PROXY);
        assert!(bytes <= LIMIT, "{bytes} bytes");
        match sent {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(messages >= accepted && bytes >= accepted * 6_000, "{messages}, {bytes} bytes");
        assert!(accepted <= LIMIT / 6_000);
    };
    assert_eq!(rejected.name, Refusal::QueueFull);
    assert_eq!(rejected.verdict, Verdict::TryAgain);
    assert!(accepted >= 30, "it was full: {accepted}");
    let metrics = chain.operator(PROXY, "/metrics");
    let line = metrics.lines().find(|l| l.starts_with("callhome_intake_turned_away_total{"));
    assert!(line.is_some_and(|l| l.contains("reason=\"queue_full\"")), "{line:?}");
    let process = chain.nodes[PROXY].process.as_ref().unwrap();
    wait_for("an error in the log", || {
        let log = process.log();
        let mut lines = log.lines();
        lines.find(|l| l.contains("ERROR") && l.contains("queue is full")).map(|_| ())
    });
    chain.run(MLM);
    wait_for("the heartbeat to tell it", || {
        let list = chain.api("/ledger");
        let proxy = list["items"].as_array()?.iter().find(|n| n["node"] == "proxy")?.clone();
        (proxy["turned_away"].as_u64()? > 0).then_some(())
    });
    wait_for("what was accepted", || {
        let list = chain.api("/messages?class=data&limit=100");
        (list["items"].as_array()?.len() as u64 == accepted).then_some(())
    });
}

// QUE-4, QUE-5: queued bulk, normal, urgent, with the proxy away in between: they leave urgent,
// normal, bulk.
// QUE-16: what outlived its time before the parent was back never reaches the server.
#[test]
fn queue_goes_by_the_attributes_of_each_call() {
    let mut chain = Chain::start("");
    let client = client(&chain);
    client.send(event("first", Qos::default())).wait().unwrap();
    wait_for("an empty queue", || (waiting(&chain, PROXY).0 == 0).then_some(()));
    let before = chain.account(PROXY).taken;
    chain.stop(MLM);
    let late = Qos { time_to_live_s: Some(1), ..Qos::default() };
    client.send(event("late", late)).wait().unwrap();
    let expires = Instant::now() + Duration::from_secs(1);
    let order = [Precedence::Bulk, Precedence::Normal, Precedence::Urgent];
    for precedence in order {
        for n in 0..5 {
            let persistence = if n == 0 { Persistence::Assured } else { Persistence::Normal };
            let text = format!("{precedence}{n}");
            let precedence = Some(precedence);
            let qos = Qos { precedence, persistence, time_to_live_s: Some(3600) };
            client.send(event(&text, qos)).wait().unwrap();
        }
    }
    chain.kill(PROXY);
    client.wait_registered(sandbox::LONG).unwrap();
    // The time to live has to pass; nothing else is waited for here.
    std::thread::sleep(expires.saturating_duration_since(Instant::now()));
    chain.run(MLM);
    let events = wait_for("the events", || {
        let list = chain.api("/events?limit=100");
        let items = list["items"].as_array()?.clone();
        (items.len() == 16).then_some(items)
    });
    assert!(events.iter().all(|e| e["text"] != "late"));
    let mut left: Vec<(String, String)> = Vec::new();
    for event in &events {
        let id = event["message_id"].as_str().unwrap().replace('/', ".");
        let trace = chain.api(&format!("/trace/{id}"));
        let at = trace["hops"][1]["received_at"].as_str().expect("the MLM's stamp").to_owned();
        left.push((at, event["text"].as_str().unwrap().to_owned()));
    }
    // When each precedence came to the MLM: one after the other.
    let came = |precedence: Precedence| {
        let word = precedence.to_string();
        let mut times: Vec<&str> =
            left.iter().filter(|l| l.1.starts_with(&word)).map(|l| l.0.as_str()).collect();
        times.sort_unstable();
        assert_eq!(times.len(), 5);
        (times[0].to_owned(), times[4].to_owned())
    };
    let [bulk, normal, urgent] = order.map(came);
    assert!(urgent.1 <= normal.0 && normal.1 <= bulk.0, "{left:?}");
    let metrics = wait_for("the account", || {
        let metrics = chain.operator(PROXY, "/metrics");
        let account = chain.account(PROXY);
        (account.balanced && account.queued == 0).then_some(metrics)
    });
    assert!(chain.account(PROXY).taken >= before + 16);
    let expired = metrics.lines().find(|l| l.starts_with("callhome_ledger_expired_total"));
    assert!(expired.is_some_and(|l| l.ends_with(" 1")), "{expired:?}");
    wait_for("the server to know it", || {
        let list = chain.api("/ledger");
        let proxy = list["items"].as_array()?.iter().find(|n| n["node"] == "proxy")?.clone();
        (proxy["expired"] == 1).then_some(())
    });
}

// QUE-3: what holds where nothing is said, and the MLM holds more.
#[test]
fn proxy_holds_less_than_an_mlm() {
    let bytes = |role: &str| -> u64 {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("callhome.xml");
        let door = if role == "mlm" { "<exchange bind=\"127.0.0.1:0\" via=\"a\"/>" } else { "" };
        let configuration = format!(
            "<node xmlns=\"urn:callhome:config:1\" name=\"n\" roles=\"{role}\">\
            <identity customer=\"{}\"/><communications><module name=\"a\" protocol=\"http\" \
            encryption=\"none\" authentication=\"none\"/></communications>\
            <parents><parent url=\"http://127.0.0.1:1\" via=\"a\"/></parents>\
            <doors>{door}</doors></node>",
            sandbox::chain::PROVIDER
        );
        std::fs::write(&file, configuration).unwrap();
        let path = file.display().to_string();
        let output = sandbox::callhome(&["check", "--config", &path, "--print"]);
        let printed = text(&output.stdout);
        let store = printed.split("<store").nth(1);
        let store = store.unwrap_or_else(|| panic!("{printed}{}", text(&output.stderr)));
        let value = store.split(" bytes=\"").nth(1).and_then(|v| v.split('"').next());
        value.unwrap_or_else(|| panic!("{printed}")).parse().unwrap()
    };
    assert_eq!((bytes("proxy"), bytes("mlm")), (4 << 30, 16 << 30));
}
