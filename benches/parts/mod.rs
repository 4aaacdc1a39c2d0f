//! What the benches share: a chain of real processes, a load, and what the kernel counts.
#![allow(dead_code, reason = "each bench uses a part")]

use std::path::PathBuf;

pub mod child;
pub mod load;
pub mod meter;
pub mod nodes;

/// The folder below which stores stand: `$CALLHOME_BENCH_DIR`, or one in `target`.
pub fn place() -> PathBuf {
    let place = std::env::var_os("CALLHOME_BENCH_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench")),
        PathBuf::from,
    );
    std::fs::create_dir_all(&place).expect("a folder");
    place
}

/// The value behind `--NAME` on the command line.
pub fn option<T: std::str::FromStr>(name: &str, default: T) -> T {
    let mut arguments = std::env::args().skip_while(|a| a != name).skip(1);
    match arguments.next() {
        Some(text) => text.parse().unwrap_or_else(|_| panic!("{name} {text} is no value")),
        None => default,
    }
}

/// Whether `--NAME` stands on the command line.
pub fn flag(name: &str) -> bool {
    std::env::args().any(|a| a == name)
}

/// A figure with two digits behind the point.
pub fn rounded(value: f64) -> serde_json::Value {
    serde_json::json!((value * 100.0).round() / 100.0)
}

/// The value below which so many of a hundred lie; 0 of none.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(at.max(1) - 1).copied().unwrap_or(0.0)
}

/// The middle one, the mean of both in an even number; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}
