//! What nodes hold in memory: idle, with a backlog, over a restart; and how soon they are back.
//!
//! `cargo bench --bench memory [-- --messages N --bytes B --idle-s S]`. The last line is JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod parts;
#[path = "../tests/sandbox/mod.rs"]
mod sandbox;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use parts::{
    load::{Integrator, Plan},
    meter,
    nodes::{Chain, Shape},
    option, rounded,
};
use sandbox::wait_for;
use serde_json::json;

/// How often the provider is asked whether anything came.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Integrators that fill the queue.
const INTEGRATORS: usize = 4;
/// What is sent at a time while the queue fills.
const PART: Duration = Duration::from_secs(1);
/// How long a backlog may take to drain.
const DRAINED_WITHIN: Duration = Duration::from_secs(600);

fn main() {
    let messages = option("--messages", 1_000_000_u64);
    let (bytes, idle) = (option("--bytes", 1024), Duration::from_secs(option("--idle-s", 20)));
    let place = parts::place();
    let folder = tempfile::tempdir_in(&place).expect("a folder");
    let backlog = backlog(folder.path(), messages, bytes, idle);
    println!("{backlog}");
    let folder = tempfile::tempdir_in(&place).expect("a folder");
    let up = up_idle(folder.path(), idle);
    println!("{up}");
    println!("{}", json!({ "bench": "memory", "proxy": backlog, "up": up }));
}

/// A proxy: idle, filled while its parent is away, killed, started again, drained.
fn backlog(folder: &Path, messages: u64, bytes: usize, idle: Duration) -> serde_json::Value {
    let mut chain = Chain::start(folder, Shape::Three);
    chain.settle();
    std::thread::sleep(idle);
    let idle_mib = meter::rss_mib(chain.nodes[0].pid());
    let names = (0..INTEGRATORS).map(|n| format!("load-{n}"));
    let mut integrators: Vec<Integrator> =
        names.map(|name| Integrator::connect(&chain.socket, &name, bytes)).collect();
    chain.settle();
    let base = chain.at_rest();
    chain.nodes[1].kill();
    let started = Instant::now();
    let mut accepted = 0;
    while accepted < messages {
        let plan = Plan { started: Instant::now(), time: PART, rate: 0.0 };
        accepted += std::thread::scope(|scope| {
            let runs: Vec<_> =
                integrators.iter_mut().map(|i| scope.spawn(|| i.run(plan))).collect();
            runs.into_iter().map(|run| run.join().expect("a load")).sum::<u64>()
        });
    }
    let accepted_per_s = accepted as f64 / started.elapsed().as_secs_f64();
    let pid = chain.nodes[0].pid();
    let (full_mib, filling_mib) = (meter::rss_mib(pid), meter::peak_mib(pid));
    drop(integrators);
    chain.nodes[0].kill();
    chain.nodes[1].start();
    let started = Instant::now();
    chain.nodes[0].start();
    let ready_s = started.elapsed().as_secs_f64();
    // What stood in the MLM's own queue came before: nothing did, it was idle.
    while chain.taken() == base {
        assert!(started.elapsed() < DRAINED_WITHIN, "nothing arrives");
        std::thread::sleep(LOOK_EVERY);
    }
    let first_s = started.elapsed().as_secs_f64();
    let restart_mib = meter::peak_mib(chain.nodes[0].pid());
    while chain.taken() - base < accepted {
        assert!(started.elapsed() < DRAINED_WITHIN, "{} arrived", chain.taken() - base);
        std::thread::sleep(Duration::from_millis(100));
    }
    let drained_s = started.elapsed().as_secs_f64();
    chain.settle();
    assert_eq!(chain.taken() - base, accepted, "lost or doubled");
    json!({
        "idle_mib": rounded(idle_mib),
        "messages": accepted,
        "accepted_per_s": rounded(accepted_per_s),
        "full_mib": rounded(full_mib),
        "peak_filling_mib": rounded(filling_mib),
        "ready_after_kill_s": rounded(ready_s),
        "first_delivery_s": rounded(first_s),
        "peak_until_first_delivery_mib": rounded(restart_mib),
        "drained_s": rounded(drained_s),
        "peak_drained_mib": rounded(meter::peak_mib(chain.nodes[0].pid())),
    })
}

/// All of `up` with its integrators, doing nothing: memory, and share of a core.
fn up_idle(folder: &Path, idle: Duration) -> serde_json::Value {
    let data = folder.display().to_string();
    let up = sandbox::Process::start(&[
        "up",
        "--listen",
        "127.0.0.1:0",
        "--data",
        &data,
        "--log",
        "warn",
    ]);
    let pids = wait_for("its integrators", || {
        let pids = meter::with_children(up.child.id());
        (pids.len() == 4).then_some(pids)
    });
    // The first round of the inventory is work, not idleness.
    std::thread::sleep(idle);
    let before: u64 = pids.iter().map(|pid| meter::cpu_us(*pid)).sum();
    let started = Instant::now();
    std::thread::sleep(idle);
    let took: u64 = pids.iter().map(|pid| meter::cpu_us(*pid)).sum();
    let share = (took - before) as f64 / 1e4 / started.elapsed().as_secs_f64();
    let mib: Vec<f64> = pids.iter().map(|pid| meter::rss_mib(*pid)).collect();
    json!({
        "idle_mib": rounded(mib.iter().sum()),
        "by_process_mib": mib.into_iter().map(rounded).collect::<Vec<_>>(),
        "cpu_percent_of_a_core": rounded(share),
    })
}
