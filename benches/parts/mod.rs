//! What the benches share: a chain of real processes, a load, and what the kernel counts.
#![allow(dead_code, reason = "each bench uses a part")]

pub mod child;
pub mod load;
pub mod meter;
pub mod nodes;

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
