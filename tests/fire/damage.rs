//! Store files that are damaged between a kill and the next start.
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

use integrator_api::Qos;

use crate::sandbox::{chain::Chain, told, traffic::Traffic, wait_for};

const PROXY: usize = 0;
const PAGE: u64 = 4096;
/// Messages that wait in the store when it is damaged.
const WAITING: u64 = 400;

/// Writes that were cut off: pages here and there of which the second half is missing.
fn tear(store: &Path) {
    let file: File = OpenOptions::new().read(true).write(true).open(store).unwrap();
    let pages = file.metadata().unwrap().len() / PAGE;
    let nothing = vec![0; PAGE as usize / 2];
    let half = |page: u64| page * PAGE + PAGE / 2;
    (2..pages).step_by(7).for_each(|p| file.write_all_at(&nothing, half(p)).unwrap());
    file.sync_all().unwrap();
}

/// Files under `damaged/`, without their explanations.
fn set_aside(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder.join("damaged")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_none_or(|end| end != "json")).count()
}

/// Sum of the lines of a metric.
fn metric(chain: &Chain, node: usize, name: &str) -> u64 {
    let text = chain.operator(node, "/metrics");
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

/// Damages the store of `node` while messages wait in it. What is lost is told, no more than what
/// waited there; all else arrives once.
fn damaged(node: usize) {
    let mut chain = Chain::start_three(&[], "");
    let traffic = Traffic::start(chain.socket(), "d", 300, Qos::default());
    traffic.flows(50);
    // The parent is away, so that there is something in the store.
    chain.stop(node + 1);
    wait_for("messages to wait", || (chain.account(node).queued > WAITING).then_some(()));
    chain.stop(node);
    tear(&chain.nodes[node].folder.join("store.redb"));
    chain.run(node);
    let log = chain.nodes[node].process.as_ref().unwrap().log();
    assert!(log.contains("store was damaged"), "{log}");
    assert!(set_aside(&chain.nodes[node].folder) > 0);
    chain.run(node + 1);
    traffic.flows(50);
    let accepted = traffic.finish();
    told::settle(&chain, crate::sandbox::LONG);
    let told_lost = metric(&chain, node, "callhome_ledger_refused_total");
    let mut lost = 0;
    wait_for("all else to be shown", || {
        let texts = told::stored(&chain);
        assert!(texts.values().all(|copies| *copies == 1), "stored twice");
        lost = accepted.iter().filter(|text| !texts.contains_key(*text)).count() as u64;
        (lost <= told_lost).then_some(())
    });
    println!(
        "torn at {}: {} accepted, {lost} were in what was damaged, {told_lost} told; the \
        accounts balance",
        chain.nodes[node].role,
        accepted.len()
    );
}

// QUE-2, DESIGN §4.5: damage costs at most what it hit, is told, and stops nothing.
#[test]
fn damaged_store_starts_says_what_it_cost_and_delivers_the_rest() {
    let _turn = crate::turn();
    damaged(PROXY);
}
