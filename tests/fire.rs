//! Every actor may panic, and the disk may be full: nothing accepted is lost, and the node goes on
//! by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use integrator_api::{Call, Client, EventCall, Options, Severity, Verdict};
use sandbox::{Up, chain::Chain, get, request, small::Small, wait_for};
use serde_json::Value;

/// Names of the actors in a tree, by full path.
fn actors(tree: &Value, path: &str, into: &mut BTreeSet<String>) {
    let path = format!("{path}{}", tree["name"].as_str().unwrap());
    if tree["kind"] == "actor" {
        into.insert(path.clone());
    }
    for child in tree["children"].as_array().unwrap() {
        actors(child, &format!("{path}/"), into);
    }
}

/// Sends numbered events, one after the other was accepted, until told to stop.
fn events(
    socket: std::path::PathBuf,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
) -> std::thread::JoinHandle<()> {
    let client = Client::open(Options::new(socket, "load", "1")).unwrap();
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let number = sent.load(Ordering::Relaxed);
            let at = jiff::Timestamp::now().as_millisecond();
            let text = format!("n{number}");
            let event = EventCall::new("host-1", at, "load", Severity::Major, &text);
            // What was refused for now goes again, as every integrator of ours does.
            while let Err(refused) = client.send(Call::Event(event.clone())).wait() {
                assert_eq!(refused.verdict, Verdict::TryAgain, "{refused:?}");
                std::thread::sleep(Duration::from_millis(20));
            }
            sent.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(2));
        }
    })
}

// Any actor may panic, each by name, under traffic: what was accepted is stored once, and every
// actor runs at the end.
#[test]
fn each_actor_may_panic_under_traffic() {
    let up = Up::start(&["--snmp", "off", "--syslog", "off", "--no-inventory"]);
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let socket = up.data().join("proxy/integrator.sock");
    let sending = events(socket, stop.clone(), sent.clone());
    wait_for("traffic", || (sent.load(Ordering::Relaxed) > 20).then_some(()));
    let tree = |up: &Up| -> Value {
        let (status, body) = get(&up.operator(), "/tree", "");
        assert_eq!(status, 200);
        serde_json::from_str(&body).unwrap()
    };
    let mut paths = BTreeSet::new();
    for root in tree(&up).as_array().unwrap() {
        actors(root, "", &mut paths);
    }
    assert!(paths.len() >= 15, "{paths:?}");
    let headers =
        format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", up.token());
    for path in &paths {
        for _ in 0..3 {
            let order = format!("{{\"fault\":\"panic\",\"actor\":\"{path}\"}}");
            let (status, said) = request(&up.operator(), "POST /drill", &headers, &order);
            // The actor of a connection that ended by the panic before is not there any more.
            assert!(status == 200 || path.contains("/integrators/"), "{path}: {said}");
            std::thread::sleep(Duration::from_millis(60));
        }
    }
    stop.store(true, Ordering::Relaxed);
    sending.join().expect("every call was accepted in the end");
    let accepted = sent.load(Ordering::Relaxed);
    wait_for("all events", || {
        let list = up.api("/events?limit=10000");
        let texts: Vec<&str> =
            list["items"].as_array()?.iter().filter_map(|e| e["text"].as_str()).collect();
        let once: BTreeSet<&str> = texts.iter().copied().collect();
        assert_eq!(texts.len(), once.len(), "stored twice");
        (once.len() == accepted).then_some(())
    });
    wait_for("every actor to run", || {
        fn runs(tree: &Value) -> bool {
            tree["state"] == "running" && tree["children"].as_array().unwrap().iter().all(runs)
        }
        tree(&up).as_array()?.iter().all(runs).then_some(())
    });
    println!("{} actors, 3 panics each, {accepted} events accepted and stored once", paths.len());
}

// A full disk makes a node refuse with storage_down, stay alive, and recover by itself.
#[test]
fn full_disk_is_told_and_recovered_from() {
    let Some(disk) = Small::mount(48 << 20) else { return };
    let mut chain = Chain::start_in(disk.path(), "<store keep-free-bytes=\"1048576\"/>");
    let client = Client::open(Options::new(chain.socket(), "load", "1")).unwrap();
    let event = |text: &str| {
        let at = jiff::Timestamp::now().as_millisecond();
        Call::Event(EventCall::new("host-1", at, "load", Severity::Major, text))
    };
    client.send(event("before")).wait().expect("accepted");
    disk.fill();
    let pid = chain.nodes[0].process.as_ref().unwrap().child.id();
    let during = client.send(event("during"));
    wait_for("the node to say storage_down", || {
        let url = std::fs::read_to_string(chain.nodes[0].folder.join("operator.url")).ok()?;
        let (status, body) = get(&url.trim().replace("http://", ""), "/readyz", "");
        (status == 503 && body.contains("storage_down")).then_some(())
    });
    disk.make_room();
    // The client still has what was refused for now, and sends it again by itself.
    drop(during);
    wait_for("the node to take messages again", || client.send(event("after")).wait().ok());
    assert_eq!(chain.nodes[0].process.as_ref().unwrap().child.id(), pid, "it stayed alive");
    assert!(chain.nodes[0].process.as_mut().unwrap().child.try_wait().unwrap().is_none());
    wait_for("what was accepted to arrive", || {
        let list = chain.api("/events?limit=1000");
        let texts: Vec<&str> =
            list["items"].as_array()?.iter().filter_map(|e| e["text"].as_str()).collect();
        (texts.contains(&"before") && texts.contains(&"after")).then_some(())
    });
}
