//! What the tests of the store share: a seeded generator and short names.
#![allow(dead_code)] // each test uses its part

use extension::storage::{Place, QueueName};
use protocol::Precedence;

/// SplitMix64: small, seeded, the same everywhere.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// `true` in one of so many cases.
    pub fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == 0
    }
}

/// The seed that a variable names, else one from the clock; printed, so that a failure repeats.
#[allow(clippy::disallowed_methods, reason = "a seed that differs each time")]
pub fn seed(variable: &str) -> Random {
    let given = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    });
    println!("{variable}={seed}");
    Random(seed)
}

pub fn queue() -> QueueName {
    QueueName::new("up")
}

pub fn place(precedence: Precedence, position: u64) -> Place {
    Place { precedence, position }
}
