//! Every actor panics under load, and runs again soon.
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use integrator_api::Qos;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    full,
    sandbox::{LONG, Up, get, request, traffic::Traffic, wait_for},
    spread,
};

/// Calls a second.
const RATE: u64 = 200;
/// How soon an actor runs again (p99): three times the goal, the machine may be busy.
const AGAIN_WITHIN: Duration = Duration::from_millis(3 * 100);
/// Actors of a connection, which end with it: the next one has another.
const OF_A_CONNECTION: &str = "/integrators/";

/// An actor as `/tree` shows it.
#[derive(Clone)]
struct Seen {
    restarts: u64,
    runs: bool,
    since: Timestamp,
}

fn tree(up: &Up) -> Value {
    let (status, body) = get(&up.operator(), "/tree", "");
    assert_eq!(status, 200);
    serde_json::from_str(&body).unwrap()
}

/// All actors, by full path.
fn actors(up: &Up) -> BTreeMap<String, Seen> {
    fn find(tree: &Value, path: &str, into: &mut BTreeMap<String, Seen>) {
        let path = format!("{path}{}", tree["name"].as_str().unwrap());
        if tree["kind"] == "actor" {
            let (restarts, runs) = (tree["restarts"].as_u64().unwrap(), tree["state"] == "running");
            let since = tree["since_at"].as_str().unwrap().parse().unwrap();
            into.insert(path.clone(), Seen { restarts, runs, since });
        }
        for child in tree["children"].as_array().unwrap() {
            find(child, &format!("{path}/"), into);
        }
    }
    let mut all = BTreeMap::new();
    tree(up).as_array().unwrap().iter().for_each(|root| find(root, "", &mut all));
    all
}

/// What kind of actor it is: the last part of its path.
fn kind(path: &str) -> String {
    let last = path.rsplit('/').next().unwrap();
    match path.contains(OF_A_CONNECTION) {
        true => "an integrator's".to_owned(),
        false => last.to_owned(),
    }
}

/// When the actor panicked that was told to, as the log says behind its first `from` bytes. It has
/// done by then what it had in hand.
fn panicked_at(up: &Up, from: usize) -> Timestamp {
    wait_for("the panic in the log", || {
        let log = up.process.log_from(from);
        let line = log.lines().find(|line| line.contains("panicked: drill"))?;
        let said: Value = serde_json::from_str(line).ok()?;
        said["timestamp"].as_str()?.parse().ok()
    })
}

/// Lets one panic; how long it took from the panic until it ran again. None: it was gone before.
fn panic(up: &Up, headers: &str, path: &str, before: &Seen) -> Option<Duration> {
    let order = format!("{{\"fault\":\"panic\",\"actor\":\"{path}\"}}");
    let (ordered, logged) = (Timestamp::now(), up.process.log_length());
    let (status, said) = request(&up.operator(), "POST /drill", headers, &order);
    if status != 200 {
        // The actor of a connection that ended by the panic before is not there any more.
        assert!(path.contains(OF_A_CONNECTION), "{path}: {said}");
        return None;
    }
    let end = Instant::now() + LONG;
    loop {
        let all = actors(up);
        let again = match all.get(path) {
            Some(now) => Some(now).filter(|now| now.runs && now.restarts > before.restarts),
            // Its connection ended with it; the client makes another.
            None => {
                all.iter().find(|(p, s)| kind(p) == kind(path) && s.since > ordered).map(|f| f.1)
            }
        };
        if let Some(again) = again {
            let took = again.since.duration_since(panicked_at(up, logged));
            return Some(Duration::try_from(took).unwrap_or_default());
        }
        assert!(Instant::now() < end, "{path} does not run again");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn api_once_each(up: &Up, accepted: &[String]) {
    let (mut texts, mut cursor) = (HashMap::<String, usize>::new(), String::new());
    wait_for("all events", || {
        texts.clear();
        cursor.clear();
        loop {
            let page = up.api(&format!("/events?limit=10000{cursor}"));
            for item in page["items"].as_array()? {
                *texts.entry(item["text"].as_str()?.to_owned()).or_default() += 1;
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        accepted.iter().all(|text| texts.contains_key(text)).then_some(())
    });
    assert!(texts.values().all(|copies| *copies == 1), "stored twice");
}

// Any actor may panic, each by name, under traffic: what was accepted is stored once, and every
// actor runs at the end.
#[test]
fn each_actor_may_panic_under_traffic() {
    let _turn = crate::turn();
    let up = Up::start(&["--snmp", "off", "--syslog", "off", "--no-inventory"]);
    let socket = up.data().join("proxy/integrator.sock");
    let traffic = Traffic::start(socket, "n", RATE, Qos::default());
    traffic.flows(50);
    let headers =
        format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", up.token());
    let wanted = if full() { 200 } else { 10 };
    let mut took: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    while took.is_empty() || took.values().any(|times| times.len() < wanted) {
        let seen = actors(&up);
        assert!(seen.len() >= 15, "{:?}", seen.keys());
        for (path, before) in seen {
            let times = took.entry(kind(&path)).or_default();
            if times.len() < wanted {
                times.extend(panic(&up, &headers, &path, &before));
            }
        }
    }
    let accepted = traffic.finish();
    api_once_each(&up, &accepted);
    wait_for("every actor to run", || actors(&up).values().all(|seen| seen.runs).then_some(()));
    let mut all = Vec::new();
    for (kind, mut times) in took {
        all.extend_from_slice(&times);
        // Ten are too few for a p99 of each; it is asserted over all.
        let again = spread(&mut times, Duration::ZERO);
        println!("{kind}: {} panics, runs again {again}", times.len());
    }
    let panics = all.len();
    println!(
        "{panics} panics, {} accepted, 0 lost, 0 twice; run again {}",
        accepted.len(),
        spread(&mut all, AGAIN_WITHIN)
    );
}
