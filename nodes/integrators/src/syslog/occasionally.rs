//! Says a thing at most once a second, with how often it was not said since.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least time from one log line to the next of its kind: a flood must not become one of logs.
pub const BETWEEN: Duration = Duration::from_secs(1);

/// When it was last said, and how often it was kept quiet since.
#[derive(Debug, Default)]
pub struct Occasionally {
    last: Option<Instant>,
    quiet: u64,
}

impl Occasionally {
    /// Whether to say it now: how often it was not said since the last time, or none.
    pub fn say(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < BETWEEN) {
            self.quiet += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.quiet))
    }
}

/// The same for several tasks, by the process's clock.
pub(super) fn say_now(shared: &Mutex<Occasionally>) -> Option<u64> {
    shared.lock().unwrap_or_else(PoisonError::into_inner).say(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_once_a_second_with_its_size() {
        let (mut flood, start) = (Occasionally::default(), Instant::now());
        assert_eq!(flood.say(start), Some(0));
        for _ in 0..5 {
            assert_eq!(flood.say(start + BETWEEN / 2), None);
        }
        assert_eq!(flood.say(start + BETWEEN), Some(5));
        assert_eq!(flood.say(start + BETWEEN * 3), Some(0));
    }
}
