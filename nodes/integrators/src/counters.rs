//! What one integrator counts, for its proxy's operator's door (contract §4).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use integrator_api::Counters as Told;

/// The counters of one integrator since its start. Clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    received: AtomicU64,
    ignored: AtomicU64,
    dropped: AtomicU64,
    rule_gaps: AtomicU64,
    /// Reasons are words of our own, so there are few.
    malformed: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    /// A message came and could be read.
    pub fn received(&self) {
        self.0.received.fetch_add(1, Ordering::Relaxed);
    }

    /// A rule said to ignore it, or it was there already.
    pub fn ignored(&self) {
        self.0.ignored.fetch_add(1, Ordering::Relaxed);
    }

    /// It was read and is lost: not allowed, no room, or refused for ever.
    pub fn dropped(&self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// A rule named values that the message did not have.
    pub fn rule_gaps(&self, gaps: usize) {
        self.0.rule_gaps.fetch_add(gaps as u64, Ordering::Relaxed);
    }

    /// It could not be read.
    pub fn malformed(&self, reason: &'static str) {
        *self.reasons().entry(reason).or_default() += 1;
    }

    fn reasons(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.0.malformed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it as of now; what is in the spill is not known here.
    pub fn told(&self) -> Told {
        let reasons = self.reasons().clone();
        let malformed = reasons.into_iter().map(|(reason, n)| (reason.to_owned(), n)).collect();
        Told {
            malformed,
            received: self.0.received.load(Ordering::Relaxed),
            ignored: self.0.ignored.load(Ordering::Relaxed),
            dropped: self.0.dropped.load(Ordering::Relaxed),
            rule_gaps: self.0.rule_gaps.load(Ordering::Relaxed),
            spill_bytes: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_count_into_the_same() {
        let counters = Counters::default();
        let clone = counters.clone();
        clone.received();
        clone.received();
        clone.rule_gaps(3);
        clone.malformed("cut");
        clone.malformed("cut");
        counters.dropped();
        counters.ignored();
        let malformed = [("cut".to_owned(), 2)].into();
        let all = Told {
            received: 2,
            ignored: 1,
            dropped: 1,
            rule_gaps: 3,
            malformed,
            spill_bytes: None,
        };
        assert_eq!(counters.told(), all);
    }
}
