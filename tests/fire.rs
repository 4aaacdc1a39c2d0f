//! Real processes under fire: power cuts, panics, hung arbiters, full disks, damaged files, a
//! parent away, a clock that jumps. Nothing accepted is lost, nothing is stored twice, every
//! account balances.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

#[path = "fire/away.rs"]
mod away;
#[path = "fire/clock.rs"]
mod clock;
#[path = "fire/damage.rs"]
mod damage;
#[path = "fire/disk.rs"]
mod disk;
#[path = "fire/hang.rs"]
mod hang;
#[path = "fire/panics.rs"]
mod panics;
#[path = "fire/power.rs"]
mod power;
mod sandbox;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Whether the long forms run.
fn full() -> bool {
    std::env::var_os("CALLHOME_FULL").is_some()
}

/// Tests that load the machine take turns, so that each has it for itself.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Median, 99th of a hundred and longest in words; that 99th must be within `p99_within`, unless it
/// is zero.
fn spread(times: &mut [Duration], p99_within: Duration) -> String {
    assert!(!times.is_empty(), "nothing was measured");
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share).div_ceil(100).max(1) - 1];
    let (median, p99, most) = (at(50), at(99), times[times.len() - 1]);
    assert!(p99_within.is_zero() || p99 <= p99_within, "p99 {p99:?}, at most {p99_within:?}");
    format!("after {median:.0?} in the median, {p99:.0?} p99, {most:.0?} at most")
}
