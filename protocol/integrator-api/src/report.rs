//! When an integrator tells its counters on a connection: after hello, when changed, at the end.
//! Pure; time is an argument.
use std::time::{Duration, Instant};

use protocol::socket::Counters;

/// Least time between two reports, but for the last: below the usual scrape of 15 s, and nothing
/// beside the calls themselves.
pub(crate) const REPORT_EVERY: Duration = Duration::from_secs(5);

/// What was told on one connection.
#[derive(Default)]
pub(crate) struct Report {
    told: Option<Counters>,
    asked_at: Option<Instant>,
    ended: bool,
}

impl Report {
    /// Whether the counters are to be asked for now. `ending`: nothing comes after this report.
    pub(crate) fn is_due(&self, now: Instant, ending: bool) -> bool {
        (ending && !self.ended) || self.due_in(now).is_zero()
    }

    /// How long until they are to be asked for, if nothing ends meanwhile.
    pub(crate) fn due_in(&self, now: Instant) -> Duration {
        let next = self.asked_at.map(|at| at + REPORT_EVERY);
        next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    /// Whether the last report was made, so that the connection may end.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes what was counted; the frame, where there is something new to tell.
    pub(crate) fn take(
        &mut self,
        counters: Option<Counters>,
        now: Instant,
        ending: bool,
    ) -> Option<Vec<u8>> {
        self.asked_at = Some(now);
        self.ended |= ending;
        let counters = counters?;
        if self.told.as_ref() == Some(&counters) {
            return None;
        }
        let frame = counters.frame();
        self.told = Some(counters);
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(received: u64) -> Option<Counters> {
        Some(Counters { received, ..Counters::default() })
    }

    #[test]
    fn counters_are_told_at_first_when_changed_and_at_the_end() {
        let mut report = Report::default();
        let start = Instant::now();
        assert!(report.is_due(start, false), "after hello");
        assert!(report.take(counted(0), start, false).is_some());
        assert!(!report.is_due(start + REPORT_EVERY / 2, false), "a flood is one report");
        let later = start + REPORT_EVERY;
        assert!(report.is_due(later, false));
        assert!(report.take(counted(0), later, false).is_none(), "nothing new");
        assert!(report.is_due(later, true) && !report.has_ended());
        assert!(report.take(counted(1), later, true).is_some());
        assert!(report.has_ended() && !report.is_due(later, true), "the last is told once");
    }

    #[test]
    fn who_counts_nothing_tells_nothing() {
        let mut report = Report::default();
        let now = Instant::now();
        assert!(report.take(None, now, false).is_none());
        assert_eq!(report.due_in(now), REPORT_EVERY);
    }
}
