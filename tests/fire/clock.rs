//! The clock of one node jumps, by a day and by ten years, forward and back.
use std::{path::Path, process::Command};

use integrator_api::Qos;

use crate::sandbox::{chain::Chain, get, told, traffic::Traffic, wait_for};

const PROXY: usize = 0;
/// Calls a second.
const RATE: u64 = 200;
/// What the clock says after each jump, from the true time. Ten years are what the door tolerates.
const JUMPS: [&str; 5] = ["+1d", "-1d", "+10y", "-10y", "+0"];
/// Ages that come of clocks that jumped by no more than from one end to the other, seconds.
const AGE_S_MAX: f64 = 21.0 * 366.0 * 86_400.0;
/// Longer than a day by far: no jump of a day ends it.
const TIME_TO_LIVE_S: u32 = 30 * 86_400;

/// The library that gives a program another time; `None` where it is not installed, which is said.
fn library() -> Option<String> {
    let said = Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]).output();
    let found = said.ok().filter(|said| said.status.success());
    if found.is_none() {
        println!("skipped: clock that jumps: faketime is not installed (apt-get install faketime)");
    }
    Some(crate::sandbox::text(&found?.stdout).trim().to_owned())
}

/// Sets the clock that programs with this file see.
fn set(file: &Path, offset: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, offset).unwrap();
    std::fs::rename(&new, file).unwrap();
}

/// Variables of a program whose clock stands in the file. Only the clock that can be set jumps.
fn variables(library: &str, file: &Path) -> Vec<(String, String)> {
    let file = file.display().to_string();
    let pairs = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", &file),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Each node takes messages, and says nothing absurd about them.
fn is_well(chain: &Chain, what: &str) {
    for (i, node) in chain.nodes.iter().enumerate() {
        let url = std::fs::read_to_string(node.folder.join("operator.url")).unwrap();
        let host = url.trim().replace("http://", "");
        wait_for(what, || (get(&host, "/readyz", "").0 == 200).then_some(()));
        let metrics = chain.operator(i, "/metrics");
        let ages = metrics.lines().filter(|l| l.starts_with("callhome_queue_oldest_age_seconds{"));
        for line in ages {
            let age: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!((0.0..AGE_S_MAX).contains(&age), "{what}: {line}");
        }
        let expired = metrics.lines().filter(|l| l.starts_with("callhome_ledger_expired_total"));
        expired.for_each(|line| assert!(line.ends_with(" 0"), "{what}: {line}"));
    }
}

/// How far the clock of a node is from ours, days, by when it says that it was started.
fn days_off(chain: &Chain, node: usize) -> i64 {
    let tree: serde_json::Value = serde_json::from_str(&chain.operator(node, "/tree")).unwrap();
    let since: jiff::Timestamp = tree[0]["since_at"].as_str().unwrap().parse().unwrap();
    (since.as_second() - jiff::Timestamp::now().as_second()) / 86_400
}

/// Messages reach the top.
fn arrive(chain: &Chain, what: &str) {
    let top = chain.top();
    let before = chain.account(top).taken;
    wait_for(what, || (chain.account(top).taken > before + 20).then_some(()));
}

/// Stops a node and gives it a copy of its store: nothing proves any more that it is the one it
/// closed, so the next start draws a new epoch.
fn copy_store(chain: &mut Chain, node: usize) {
    chain.stop(node);
    let store = chain.nodes[node].folder.join("store.redb");
    let copy = store.with_extension("copy");
    std::fs::copy(&store, &copy).unwrap();
    std::fs::rename(&copy, &store).unwrap();
    chain.run(node);
}

/// Epochs of the proxy's messages, in the order in which it was asked to send them.
fn epochs(chain: &Chain) -> Vec<u64> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = chain.api(&format!("/events?limit=10000{cursor}"));
        for item in page["items"].as_array().unwrap() {
            let number: u64 = item["text"].as_str().unwrap()[1..].parse().unwrap();
            // ORIGIN:EPOCH:PRECEDENCE:SEQUENCE
            let id = item["message_id"].as_str().unwrap();
            let epoch = id.split(':').nth(1).unwrap();
            all.push((number, u64::from_str_radix(epoch, 16).unwrap()));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    all.sort_unstable();
    let mut epochs: Vec<u64> = all.into_iter().map(|(_, epoch)| epoch).collect();
    epochs.dedup();
    epochs
}

// DESIGN §5: clocks need not agree, and ten years are tolerated; delivery.md §1: an epoch is at
// least one more than any known, whatever the clock says.
#[test]
fn clock_that_jumps_costs_no_message_and_no_epoch_comes_again() {
    let Some(library) = library() else { return };
    let _turn = crate::turn();
    let mut chain = Chain::start_three(&[], "");
    let clocks = tempfile::tempdir().unwrap();
    let files: Vec<_> =
        (0..chain.nodes.len()).map(|i| clocks.path().join(format!("clock-{i}"))).collect();
    for (i, file) in files.iter().enumerate() {
        set(file, "+0");
        chain.nodes[i].variables = variables(&library, file);
        chain.kill(i);
    }
    let traffic = Traffic::start(chain.socket(), "c", RATE, Qos::default());
    traffic.flows(50);
    for (i, file) in files.iter().enumerate() {
        for jump in JUMPS {
            let what = format!("{} at {jump}", chain.nodes[i].role);
            set(file, jump);
            traffic.flows(20);
            arrive(&chain, &what);
            is_well(&chain, &what);
        }
        // It also starts while its clock is wrong.
        for (jump, years) in [("+10y", 10), ("-10y", -10)] {
            let what = format!("{} started at {jump}", chain.nodes[i].role);
            set(file, jump);
            chain.kill(i);
            // Otherwise nothing jumps here, and this test shows nothing.
            assert_eq!(days_off(&chain, i) / 360, years, "{what}");
            arrive(&chain, &what);
            is_well(&chain, &what);
        }
        set(file, "+0");
    }
    // Epochs are drawn before, during and after.
    for jump in ["+10y", "-10y", "+0"] {
        set(&files[PROXY], jump);
        copy_store(&mut chain, PROXY);
        traffic.flows(20);
    }
    let accepted = traffic.finish();
    let stored = told::once_each(&chain, &accepted);
    let epochs = epochs(&chain);
    assert!(epochs.len() == 4 && epochs.is_sorted(), "they only grow: {epochs:x?}");
    println!(
        "{} jumps at each of {} nodes: {} accepted, {stored} stored, 0 lost, 0 twice, none expired",
        JUMPS.len(),
        files.len(),
        accepted.len()
    );
}

// QUE-16: what has longer to live than the clock jumped is not ended by the jump.
#[test]
fn time_to_live_outlasts_a_shorter_jump() {
    let Some(library) = library() else { return };
    let _turn = crate::turn();
    let mut chain = Chain::start_three(&[], "");
    let clocks = tempfile::tempdir().unwrap();
    let file = clocks.path().join("clock");
    set(&file, "+0");
    chain.nodes[PROXY].variables = variables(&library, &file);
    chain.kill(PROXY);
    let qos = Qos { time_to_live_s: Some(TIME_TO_LIVE_S), ..Qos::default() };
    let traffic = Traffic::start(chain.socket(), "t", RATE, qos);
    traffic.flows(20);
    chain.stop(PROXY + 1);
    for jump in ["+1d", "-1d", "+0"] {
        set(&file, jump);
        traffic.flows(50);
    }
    chain.run(PROXY + 1);
    let accepted = traffic.finish();
    told::once_each(&chain, &accepted);
    is_well(&chain, "after jumps of a day");
}
