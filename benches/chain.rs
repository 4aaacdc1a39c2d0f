//! How many messages a second the whole chain carries, synced at every tier, and at what cost.
//!
//! `cargo bench --bench chain [-- --rate R --seconds S --bytes B --runs N --tiers 3|4
//! --integrators I --in-process]`; `--rate 0`: as fast as it goes. The last line is JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod parts;
#[path = "../tests/sandbox/mod.rs"]
mod sandbox;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use parts::{
    flag,
    load::{Integrator, Plan},
    median, meter,
    nodes::{Chain, Shape},
    option, rounded,
};
use serde_json::{Value, json};

/// How long the reference is measured before and after each run.
const REFERENCE: Duration = Duration::from_secs(1);
/// How often the provider is asked how far it is, while all is under way and at the end.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long what was accepted may take to arrive once the load has ended.
const ARRIVE_WITHIN: Duration = Duration::from_secs(300);

struct Settings {
    rate: f64,
    time: Duration,
    bytes: usize,
    integrators: usize,
    shape: Shape,
}

/// What one run showed.
struct Measured {
    accepted_per_s: f64,
    arrived_per_s: f64,
    reference_per_s: f64,
    messages: u64,
    /// By process: CPU µs a message, and peak MiB.
    cost: BTreeMap<&'static str, (f64, f64)>,
    /// Cores that neither the chain nor the load took.
    others: f64,
}

fn main() {
    let runs = option("--runs", 3_usize);
    let settings = Settings {
        rate: option("--rate", 62_000.0),
        time: Duration::from_secs_f64(option("--seconds", 10.0)),
        bytes: option("--bytes", 1024),
        integrators: option("--integrators", 4_usize).max(1),
        shape: match (flag("--in-process"), option("--tiers", 3_u32)) {
            (true, _) => Shape::One,
            (_, 4) => Shape::Four,
            _ => Shape::Three,
        },
    };
    let place = parts::place();
    let mut all = Vec::new();
    for run in 1..=runs.max(1) {
        let folder = tempfile::tempdir_in(&place).expect("a folder");
        let measured = measure(&settings, folder.path());
        println!("run {run}: {}", line(&measured));
        all.push(measured);
    }
    println!("{}", summary(&settings, &all));
}

fn measure(settings: &Settings, folder: &Path) -> Measured {
    let chain = Chain::start(folder, settings.shape);
    let names = (0..settings.integrators).map(|n| format!("load-{n}"));
    let mut integrators: Vec<Integrator> =
        names.map(|name| Integrator::connect(&chain.socket, &name, settings.bytes)).collect();
    chain.settle();
    let base = chain.at_rest();
    let before = meter::appends_per_s(folder, settings.bytes, REFERENCE);
    let pids: Vec<(&'static str, u32)> = chain.nodes.iter().map(|n| (n.name, n.pid())).collect();
    let pids = [&pids[..], &[("load", std::process::id())]].concat();
    let cpu_before: Vec<u64> = pids.iter().map(|(_, pid)| meter::cpu_us(*pid)).collect();
    let machine_before = meter::machine_cpu_us();
    let rate = settings.rate / settings.integrators as f64;
    let plan = Plan { started: Instant::now(), time: settings.time, rate };
    let accepted: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = integrators.iter_mut().map(|i| scope.spawn(|| i.run(plan))).collect();
        threads.into_iter().map(|t| t.join().expect("a load")).sum()
    });
    let accepted_in = plan.started.elapsed().as_secs_f64();
    while chain.taken() - base < accepted {
        assert!(
            plan.started.elapsed() < settings.time + ARRIVE_WITHIN,
            "{} of {accepted} arrived",
            chain.taken() - base
        );
        std::thread::sleep(LOOK_EVERY);
    }
    let arrived_in = plan.started.elapsed().as_secs_f64();
    let took: Vec<u64> =
        pids.iter().zip(&cpu_before).map(|((_, pid), b)| meter::cpu_us(*pid) - b).collect();
    let machine = meter::machine_cpu_us() - machine_before;
    let after = meter::appends_per_s(folder, settings.bytes, REFERENCE);
    let refused: u64 = integrators.iter().map(|i| i.other).sum();
    assert_eq!(refused, 0, "calls were not stored");
    // Nothing was lost, nothing doubled: each account balances, and the top has taken as many as
    // the proxy has answered for.
    chain.settle();
    assert_eq!(chain.taken() - base, accepted, "lost or doubled");
    let cost = pids
        .iter()
        .zip(&took)
        .map(|((name, pid), us)| (*name, (*us as f64 / accepted as f64, meter::peak_mib(*pid))));
    Measured {
        accepted_per_s: accepted as f64 / accepted_in,
        arrived_per_s: accepted as f64 / arrived_in,
        reference_per_s: f64::midpoint(before, after),
        messages: accepted,
        cost: cost.collect(),
        others: machine.saturating_sub(took.iter().sum()) as f64 / 1e6 / arrived_in,
    }
}

fn line(m: &Measured) -> String {
    let costs = m.cost.iter().map(|(name, (us, mib))| format!("{name} {us:.2} µs {mib:.0} MiB"));
    format!(
        "{} messages, accepted {:.0}/s, arrived {:.0}/s, reference {:.0}/s, ratio {:.2}; {}; \
        others took {:.2} cores",
        m.messages,
        m.accepted_per_s,
        m.arrived_per_s,
        m.reference_per_s,
        m.arrived_per_s / m.reference_per_s,
        costs.collect::<Vec<_>>().join(", "),
        m.others
    )
}

fn summary(settings: &Settings, all: &[Measured]) -> Value {
    let of = |value: &dyn Fn(&Measured) -> f64| median(all.iter().map(value).collect());
    let arrived = all.iter().map(|m| m.arrived_per_s);
    let (least, most) = arrived.fold((f64::MAX, 0.0_f64), |(l, m), a| (l.min(a), m.max(a)));
    let each = |part: &dyn Fn(&(f64, f64)) -> f64| {
        let names = all.iter().flat_map(|m| m.cost.keys().copied());
        let value = |name: &'static str| rounded(of(&|m| m.cost.get(name).map_or(0.0, part)));
        names.map(|name| (name.to_owned(), value(name))).collect::<serde_json::Map<_, _>>()
    };
    json!({
        "bench": "chain",
        "messages_per_s": rounded(of(&|m| m.arrived_per_s)),
        "accepted_per_s": rounded(of(&|m| m.accepted_per_s)),
        "reference_per_s": rounded(of(&|m| m.reference_per_s)),
        "ratio": rounded(of(&|m| m.arrived_per_s / m.reference_per_s)),
        "cpu_us_per_message": each(&|(us, _)| *us),
        "peak_mib": each(&|(_, mib)| *mib),
        "spread": [rounded(least), rounded(most)],
        "others_cores": rounded(of(&|m| m.others)),
        "runs": all.len(),
        "rate": settings.rate,
        "seconds": settings.time.as_secs_f64(),
        "bytes": settings.bytes,
    })
}
