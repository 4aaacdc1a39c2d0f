//! One hop: an MLM that takes exchanges of a played child and hands them on, synced at both.
//!
//! `cargo bench --bench hop [-- --messages N --bytes B --runs R]`. The child has one exchange in
//! flight, so this is what a hop costs, not what it can carry. The last line is JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod parts;
#[path = "../tests/sandbox/mod.rs"]
mod sandbox;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use parts::{
    child::{Child, Mix},
    median, meter,
    nodes::{Chain, Shape},
    option, rounded,
};
use serde_json::json;

/// How long the reference is measured before each run.
const REFERENCE: Duration = Duration::from_secs(1);

/// What one run showed.
struct Measured {
    messages_per_s: f64,
    reference_per_s: f64,
    cpu_us: f64,
    peak_mib: f64,
}

fn main() {
    let messages = option("--messages", 200_000_u64).max(1_000);
    let mix = Mix { bytes: option("--bytes", 1024), instances: 7, alarms: 0 };
    let place = parts::place();
    let mut all = Vec::new();
    for run in 1..=option("--runs", 3_usize).max(1) {
        let folder = tempfile::tempdir_in(&place).expect("a folder");
        let m = measure(folder.path(), messages, mix);
        println!(
            "run {run}: {:.0} messages/s, {:.2} × the reference, MLM {:.2} µs, {:.0} MiB",
            m.messages_per_s,
            m.messages_per_s / m.reference_per_s,
            m.cpu_us,
            m.peak_mib
        );
        all.push(m);
    }
    let of = |part: &dyn Fn(&Measured) -> f64| all.iter().map(part).collect::<Vec<f64>>();
    let mut rates = of(&|m| m.messages_per_s);
    rates.sort_by(f64::total_cmp);
    println!(
        "{}",
        json!({
            "bench": "hop",
            "messages_per_s": rounded(median(rates.clone())),
            "reference_per_s": rounded(median(of(&|m| m.reference_per_s))),
            "ratio": rounded(median(of(&|m| m.messages_per_s / m.reference_per_s))),
            "cpu_us_per_message": {"mlm": rounded(median(of(&|m| m.cpu_us)))},
            "peak_mib": rounded(median(of(&|m| m.peak_mib))),
            "spread": [rounded(rates[0]), rounded(rates[rates.len() - 1])],
            "runs": all.len(),
            "bytes": mix.bytes,
        })
    );
}

fn measure(folder: &Path, messages: u64, mix: Mix) -> Measured {
    let reference_per_s = meter::appends_per_s(folder, mix.bytes, REFERENCE);
    let chain = Chain::start(folder, Shape::Hop);
    let mut child = Child::connect(&chain.door, &chain.customer, mix);
    chain.settle();
    let (base, mlm) = (chain.at_rest(), chain.nodes[0].pid());
    let (started, before) = (Instant::now(), meter::cpu_us(mlm));
    child.send(messages);
    sandbox::wait_for("all to be at the provider", || {
        (chain.taken() - base >= messages).then_some(())
    });
    let messages_per_s = messages as f64 / started.elapsed().as_secs_f64();
    let cpu_us = (meter::cpu_us(mlm) - before) as f64 / messages as f64;
    chain.settle();
    assert_eq!(chain.taken() - base, messages, "lost or doubled");
    Measured { messages_per_s, reference_per_s, cpu_us, peak_mib: meter::peak_mib(mlm) }
}
