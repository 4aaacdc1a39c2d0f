//! How long a supervisor waits before a restart. Pure.

use std::time::Duration;

use crate::Intensity;

/// Waits that double from `min` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Wait before the first restart in a window.
    pub min: Duration,
    /// Longest wait.
    pub max: Duration,
}

impl Default for Backoff {
    /// 5 to 50 ms: longer than a scheduling hiccup, too short for a sender to notice.
    fn default() -> Self {
        Self { min: Duration::from_millis(5), max: Duration::from_millis(50) }
    }
}

impl Backoff {
    /// Wait before the restart that makes `restarts` of them in the window.
    pub fn delay(&self, restarts: u32) -> Duration {
        self.min.saturating_mul(1 << restarts.saturating_sub(1).min(16)).min(self.max)
    }

    /// Whether a child that always fails at once uses up `intensity`. If the waits alone outlast
    /// the window, the count never reaches the limit and the supervisor never gives up.
    pub(crate) fn lets_through(&self, intensity: Intensity) -> bool {
        let mut waits = Duration::ZERO;
        for n in 1..=intensity.restarts_max {
            waits = waits.saturating_add(self.delay(n));
            if waits >= intensity.window {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn wait_doubles_from_the_shortest_to_the_longest() {
        let backoff = Backoff::default();
        let waits: Vec<u128> = (1..=6).map(|n| backoff.delay(n).as_millis()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 50, 50]);
        assert_eq!(backoff.delay(u32::MAX).as_millis(), 50);
        assert_eq!(backoff.delay(0).as_millis(), 5);
    }

    #[test]
    fn waits_that_outlast_the_window_are_seen() {
        let intensity = Intensity { restarts_max: 10, window: 60 * SECOND };
        assert!(Backoff::default().lets_through(intensity));
        assert!(!Backoff { min: SECOND, max: 10 * SECOND }.lets_through(intensity));
    }
}
