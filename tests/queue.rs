//! The proxy's queue as an integrator and an operator see it: limits, order, time to live.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

use std::time::{Duration, Instant};

use integrator_api::{
    Call, Client, DataCall, EventCall, Options, Outcome, Persistence, Precedence, Qos, Refusal,
    Severity, Verdict,
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

/// Payload of a message in the tests of newcomers, bytes: six of them fill [`LIMIT`].
const SIZE: usize = 30_000;

/// Data that is known by its name, of so many sizes.
fn named(name: &str, sizes: usize, qos: Qos) -> Call {
    Call::Data(DataCall {
        instance: "press-1".into(),
        class: "log".into(),
        subclass: name.into(),
        data: vec![b'x'; sizes * SIZE].into(),
        encoding: "text/plain".into(),
        qos,
        ..DataCall::default()
    })
}

fn qos(precedence: Precedence, persistence: Persistence) -> Qos {
    Qos { precedence: Some(precedence), persistence, time_to_live_s: None }
}

/// A metric of the proxy, over all its labels.
fn counted(chain: &Chain, name: &str) -> u64 {
    let metrics = chain.operator(PROXY, "/metrics");
    let lines = metrics.lines().filter(|l| l.starts_with(&format!("callhome_{name}_total{{")));
    lines.map(|l| l.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// What waits at the proxy by precedence: urgent, normal, bulk.
fn held(chain: &Chain) -> [u64; 3] {
    let rows = chain.queues(PROXY);
    ["urgent", "normal", "bulk"].map(|word| {
        let up = rows.iter().filter(|row| row["queue"] == "up" && row["precedence"] == word);
        up.map(|row| row["messages"].as_u64().unwrap()).sum()
    })
}

/// A proxy whose MLM is away and whose queue is empty.
fn cut_off(store: &str) -> (Chain, Client) {
    let mut chain = Chain::start(store);
    let client = client(&chain);
    client.send(event("before", Qos::default())).wait().unwrap();
    wait_for("an empty queue", || (waiting(&chain, PROXY).0 == 0).then_some(()));
    chain.stop(MLM);
    (chain, client)
}

/// Sends and checks that it is stored.
fn stores(client: &Client, call: Call) {
    let sent = client.send(call.clone()).wait();
    assert_eq!(sent.unwrap_or_else(|e| panic!("{e}: {call:?}")).outcome(), Some(Outcome::Stored));
}

/// Sends and checks that it is rejected, as an error that the C library tells as -2 RS_EFULL.
fn rejects(client: &Client, call: Call) {
    let error = client.send(call).wait().unwrap_err();
    let told = (error.name, error.verdict, error.code, error.rs_errno);
    assert_eq!(told, (Refusal::QueueFull, Verdict::TryAgain, -2, Some(2)));
}

/// Sends bulk and checks that it is evicted at once: a success, with a number.
fn evicts(client: &Client, call: Call) {
    let accepted = client.send(call).wait().unwrap();
    assert_eq!(accepted.outcome(), Some(Outcome::Evicted));
    assert!(accepted.message_id().is_some(), "its number is explained by the account");
}

// QUE-9, QUE-10, QUE-11, QUE-12, QUE-13, QUE-14: who goes and who is rejected, newcomer by newcomer
// over the socket. QUE-15: the provider has an alarm of it, also of what it could not hear then.
#[test]
fn newcomers_of_each_class_make_room_or_are_turned_away_as_the_rows_say() {
    use Persistence::{Assured, Normal as Plain};
    use Precedence::{Bulk, Normal, Urgent};
    let (mut chain, client) = cut_off(&format!("<store bytes=\"{LIMIT}\"/>"));
    // What the link has in its hands stays: this one, as the most urgent, whenever it tries.
    stores(&client, event("u0", qos(Urgent, Assured)));
    let short = Qos { time_to_live_s: Some(1), ..qos(Normal, Assured) };
    stores(&client, named("n0", 1, short));
    let expires = Instant::now() + Duration::from_millis(1100);
    for (name, precedence, persistence) in [
        ("b1", Bulk, Plain),
        ("b2", Bulk, Assured),
        ("b3", Bulk, Plain),
        ("n1", Normal, Assured),
        ("n2", Normal, Plain),
    ] {
        stores(&client, named(name, 1, qos(precedence, persistence)));
    }
    let ends = |chain: &Chain| {
        (counted(chain, "ledger_expired"), counted(chain, "ledger_evicted"), held(chain))
    };
    // The time to live has to pass; nothing else is waited for here.
    std::thread::sleep(expires.saturating_duration_since(Instant::now()));
    // QUE-10: what expired goes first, assured as it was, and no bulk for it.
    stores(&client, named("n3", 1, qos(Normal, Plain)));
    assert_eq!(ends(&chain), (1, 0, [1, 3, 3]));
    // QUE-11: then the oldest bulk of normal persistence, for bulk, too.
    stores(&client, named("b4", 1, qos(Bulk, Plain)));
    assert_eq!(ends(&chain), (1, 1, [1, 3, 3]));
    // QUE-9: as many as are needed and no more. The assured one stays.
    stores(&client, named("n4", 2, qos(Normal, Plain)));
    assert_eq!(ends(&chain), (1, 3, [1, 4, 1]));
    // QUE-12: bulk displaces nothing but bulk: it is itself discarded, and nobody is told off.
    evicts(&client, named("b5", 1, qos(Bulk, Plain)));
    evicts(&client, named("b6", 1, qos(Bulk, Assured)));
    assert_eq!(ends(&chain), (1, 5, [1, 4, 1]));
    assert_eq!(counted(&chain, "intake_turned_away"), 0);
    // QUE-14: a normal newcomer is rejected, whatever its persistence.
    rejects(&client, named("n5", 1, qos(Normal, Plain)));
    rejects(&client, named("n6", 1, qos(Normal, Assured)));
    assert_eq!(ends(&chain), (1, 5, [1, 4, 1]));
    // QUE-13: an urgent one displaces normal ones of normal persistence, the oldest first …
    for (name, evicted, held) in
        [("u1", 6, [2, 3, 1]), ("u2", 7, [3, 2, 1]), ("u3", 8, [4, 1, 1]), ("u4", 8, [5, 1, 1])]
    {
        stores(&client, named(name, 1, qos(Urgent, Plain)));
        assert_eq!(ends(&chain), (1, evicted, held), "{name}");
    }
    // … and nothing assured or urgent: then it is rejected, too.
    rejects(&client, named("u5", 1, qos(Urgent, Assured)));
    assert_eq!(ends(&chain), (1, 8, [5, 1, 1]));
    assert_eq!(counted(&chain, "intake_turned_away"), 3);
    assert!(chain.account(PROXY).balanced);
    chain.run(MLM);
    let arrived = wait_for("what was kept", || {
        let list = chain.api("/messages?class=data&limit=100");
        let items = list["items"].as_array()?;
        let names = items.iter().map(|m| m["subclass"].as_str().unwrap_or_default().to_owned());
        (items.len() >= 6).then(|| names.collect::<std::collections::BTreeSet<_>>())
    });
    let kept = ["b2", "n1", "u1", "u2", "u3", "u4"].map(|name| format!("log/{name}"));
    assert_eq!(arrived, kept.into());
    let alarm = wait_for("the alarm", || {
        let list = chain.api("/alarms?type=queue_full");
        list["items"].as_array()?.first().cloned()
    });
    assert_eq!(["instance", "state", "severity"].map(|k| &alarm[k]), ["proxy", "opened", "major"]);
    let said = alarm["text"].as_str().unwrap();
    assert!(said.starts_with("proxy rejects new messages, 3 so far: its queue is full"), "{said}");
}

// QUE-8: a precedence with a limit of its own is full by itself: what happens, happens within it.
#[test]
fn a_full_precedence_turns_away_its_own_newcomers_only() {
    use Persistence::{Assured, Normal as Plain};
    use Precedence::{Bulk, Normal, Urgent};
    let limit = |word: &str| format!("<limit precedence=\"{word}\" bytes=\"70000\"/>");
    let (normal, bulk) = (limit("normal"), limit("bulk"));
    let (chain, client) = cut_off(&format!("<store bytes=\"4000000\">{normal}{bulk}</store>"));
    stores(&client, event("u0", qos(Urgent, Assured)));
    for n in 0..2 {
        stores(&client, named(&format!("b{n}"), 1, qos(Bulk, Plain)));
        stores(&client, named(&format!("n{n}"), 1, qos(Normal, Plain)));
    }
    stores(&client, named("b2", 1, qos(Bulk, Plain)));
    assert_eq!((counted(&chain, "ledger_evicted"), held(&chain)), (1, [1, 2, 2]));
    rejects(&client, named("n2", 1, qos(Normal, Plain)));
    evicts(&client, named("b3", 3, qos(Bulk, Plain)));
    for n in 0..5 {
        stores(&client, named(&format!("u{n}"), 1, qos(Urgent, Plain)));
    }
    assert_eq!((counted(&chain, "ledger_evicted"), held(&chain)), (2, [6, 2, 2]));
    assert!(chain.account(PROXY).balanced);
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
