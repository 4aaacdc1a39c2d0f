//! What integrators last told of their counters, for the operator's door (contract §4, §7).
//!
//! Kept in memory only: an integrator tells all of it again with its next connection. What stands
//! here outlives the connection, so that a scrape after a short life still sees its end.
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::socket::{CallError, Counters};
use tracing::warn;

/// Names that are kept; the one that was silent longest makes room. As many as may be connected at
/// once, and with all reasons at their longest below a megabyte.
pub const NAMES_MAX: usize = 256;
/// Least time between two complaints about reports, ms: who sends bad ones must not fill the log.
const COMPLAIN_EVERY_MS: i64 = 1_000;

/// What is known of one integrator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Its last report; none: all it sent were refused.
    pub counters: Option<Counters>,
    /// Reports of it that were refused.
    pub refused: u64,
    /// When it was last heard, in reports of all.
    heard: u64,
}

#[derive(Debug, Default)]
struct Inside {
    names: BTreeMap<String, Counted>,
    reports: u64,
    complained_at: Option<i64>,
}

/// The last report of each integrator, by its name. Of two connections of one name the newer
/// report counts.
#[derive(Debug, Default)]
pub struct Reports(Mutex<Inside>);

impl Reports {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Each change is one step: a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a report, or counts that it was none; `now` in ms since 1970 UTC.
    pub fn take(&self, name: &str, report: Result<Counters, CallError>, now: i64) {
        let mut inside = self.lock();
        inside.reports += 1;
        let heard = inside.reports;
        if !inside.names.contains_key(name) {
            inside.make_room();
        }
        let counted = inside.names.entry(name.to_owned()).or_default();
        counted.heard = heard;
        let error = match report {
            Ok(counters) => {
                counted.counters = Some(counters);
                return;
            }
            Err(error) => error,
        };
        counted.refused += 1;
        let refused = counted.refused;
        let since = inside.complained_at.map(|at| now.saturating_sub(at));
        if since.is_some_and(|since| (0..COMPLAIN_EVERY_MS).contains(&since)) {
            return;
        }
        inside.complained_at = Some(now);
        drop(inside);
        warn!(target: "proxy", integrator = name, refusal = %error.name, detail = error.detail,
            refused, "report of counters refused");
    }

    /// All that are known, by name.
    pub fn all(&self) -> Vec<(String, Counted)> {
        let inside = self.lock();
        inside.names.iter().map(|(name, counted)| (name.clone(), counted.clone())).collect()
    }
}

impl Inside {
    fn make_room(&mut self) {
        while self.names.len() >= NAMES_MAX {
            let silent = self.names.iter().min_by_key(|(_, counted)| counted.heard);
            let Some(name) = silent.map(|(name, _)| name.clone()) else { return };
            self.names.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(received: u64) -> Result<Counters, CallError> {
        Ok(Counters { received, ..Counters::default() })
    }

    fn received(reports: &Reports, name: &str) -> Option<u64> {
        let all = reports.all();
        let (_, counted) = all.iter().find(|(known, _)| known == name)?;
        counted.counters.as_ref().map(|counters| counters.received)
    }

    #[test]
    fn the_last_report_counts_also_where_it_is_lower() {
        let reports = Reports::default();
        reports.take("snmp", report(7), 0);
        reports.take("syslog", report(1), 0);
        // The integrator was started again.
        reports.take("snmp", report(2), 0);
        assert_eq!(received(&reports, "snmp"), Some(2));
        assert_eq!(received(&reports, "syslog"), Some(1));
        assert_eq!(received(&reports, "other"), None);
    }

    #[test]
    fn what_is_refused_is_counted_and_leaves_the_last_good_report() {
        let reports = Reports::default();
        reports.take("snmp", report(7), 0);
        for _ in 0..3 {
            reports.take("snmp", Err(CallError::malformed("x")), 5);
        }
        reports.take("bad", Err(CallError::malformed("x")), 5);
        assert_eq!(received(&reports, "snmp"), Some(7));
        let all = reports.all();
        let refused: Vec<_> = all.iter().map(|(name, c)| (name.as_str(), c.refused)).collect();
        assert_eq!(refused, [("bad", 1), ("snmp", 3)]);
        assert_eq!(all[0].1.counters, None);
    }

    #[test]
    fn names_are_bounded_and_the_longest_silent_makes_room() {
        let reports = Reports::default();
        for n in 0..NAMES_MAX {
            reports.take(&format!("i{n}"), report(1), 0);
        }
        reports.take("i0", report(2), 0);
        reports.take("new", report(1), 0);
        assert_eq!(reports.all().len(), NAMES_MAX);
        assert_eq!(received(&reports, "i0"), Some(2));
        assert_eq!(received(&reports, "i1"), None);
        assert_eq!(received(&reports, "new"), Some(1));
    }
}
