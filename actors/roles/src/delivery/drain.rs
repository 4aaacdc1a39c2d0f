//! Until when a queue is empty: what waits, by how fast it went away of late (pure).
use std::collections::VecDeque;

/// What went away within so long says how fast a queue drains, ms.
pub const WINDOW_MS: i64 = 60_000;
/// Time between two samples, ms.
pub const SAMPLE_EVERY_MS: i64 = 5_000;

/// How many messages had gone away from one precedence of a queue, at times within the window.
#[derive(Clone, Debug, Default)]
pub struct Samples(VecDeque<(i64, u64)>);

impl Samples {
    /// Notes that `gone` messages have gone away so far, at `now`, ms since 1970 UTC. The first
    /// says from where to count.
    pub fn note(&mut self, now: i64, gone: u64) {
        let recent =
            self.0.back().is_some_and(|(at, _)| (0..SAMPLE_EVERY_MS).contains(&(now - at)));
        if recent {
            return;
        }
        // The newest that is older than the window is where the window begins.
        while self.0.get(1).is_some_and(|(at, _)| now - at >= WINDOW_MS) {
            self.0.pop_front();
        }
        // A clock that was set back begins anew.
        if self.0.back().is_some_and(|(at, _)| *at > now) {
            self.0.clear();
        }
        self.0.push_back((now, gone));
    }

    /// Seconds until `waiting` messages have gone away as fast as in the window; 0 where nothing
    /// waits, none where nothing went away: it does not drain.
    pub fn eta_s(&self, now: i64, gone: u64, waiting: u64) -> Option<f64> {
        if waiting == 0 {
            return Some(0.0);
        }
        let (since, before) = *self.0.front()?;
        let (went, took_ms) = (gone.saturating_sub(before), (now - since).max(1));
        (went > 0).then(|| waiting as f64 * (took_ms as f64 / 1000.0) / went as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_drains_as_fast_as_it_did_of_late() {
        let mut samples = Samples::default();
        assert_eq!(samples.eta_s(0, 0, 0), Some(0.0));
        assert_eq!(samples.eta_s(0, 0, 5), None, "nothing is known yet");
        samples.note(0, 100);
        assert_eq!(samples.eta_s(10_000, 100, 5), None, "nothing went away");
        // 20 in 10 s: 50 more take 25 s.
        assert_eq!(samples.eta_s(10_000, 120, 50), Some(25.0));
    }

    #[test]
    fn what_went_away_before_the_window_does_not_count() {
        let mut samples = Samples::default();
        for second in 0..=200 {
            // 10 a second for the first 100 s, then none.
            samples.note(second * 1000, 10 * second.min(100) as u64);
        }
        assert_eq!(samples.eta_s(200_000, 1000, 7), None);
        assert!(samples.0.len() as i64 <= WINDOW_MS / SAMPLE_EVERY_MS + 2);
        samples.note(10, 1000);
        assert_eq!(samples.0.len(), 1, "the clock was set back");
    }
}
