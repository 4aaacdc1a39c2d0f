//! How many restarts a supervisor allows before it gives up. Pure: time is an argument.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// At most `restarts_max` restarts within any `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts allowed; one more and the supervisor gives up.
    pub restarts_max: u32,
    /// Length of the sliding window.
    pub window: Duration,
}

impl Intensity {
    /// `restarts_max` restarts in any 60 s.
    pub const fn a_minute(restarts_max: u32) -> Self {
        Self { restarts_max, window: Duration::from_secs(60) }
    }
}

/// The restarts of the last window.
#[derive(Debug)]
pub(crate) struct Restarts {
    limit: Intensity,
    at: VecDeque<Instant>,
}

impl Restarts {
    pub(crate) fn new(limit: Intensity) -> Self {
        Self { limit, at: VecDeque::new() }
    }

    /// Notes one restart and says whether it is still within the intensity.
    pub(crate) fn note(&mut self, now: Instant) -> bool {
        while self.at.front().is_some_and(|at| now - *at > self.limit.window) {
            self.at.pop_front();
        }
        self.at.push_back(now);
        self.at.len() <= self.limit.restarts_max as usize
    }

    /// Restarts within the window that ended with the last [`note`](Self::note).
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.at.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_past_the_limit_is_refused_until_the_window_has_moved_on() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut restarts = Restarts::new(Intensity { restarts_max: 2, window: 5 * second });
        assert!(restarts.note(start));
        assert!(restarts.note(start + second));
        assert!(!restarts.note(start + 2 * second));
        assert!(restarts.note(start + 20 * second));
        assert_eq!(restarts.count(), 1);
    }
}
