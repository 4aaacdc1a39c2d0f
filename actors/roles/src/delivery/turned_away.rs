//! Exchanges that the door refused as a whole, counted by reason until a commit takes them along.
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::Refusal;

/// Counts by the name of the refusal.
pub type Counts = BTreeMap<&'static str, u64>;

/// What the door has counted and no commit has taken yet.
#[derive(Debug, Default)]
pub struct TurnedAway(Mutex<Counts>);

impl TurnedAway {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // It is changed in one step each.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one exchange.
    pub fn note(&self, refusal: Refusal) {
        *self.lock().entry(refusal.name()).or_default() += 1;
    }

    /// What is counted here.
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// These are on disk.
    pub fn written(&self, counts: &Counts) {
        let mut all = self.lock();
        for (name, count) in counts {
            if let Some(known) = all.get_mut(name) {
                *known = known.saturating_sub(*count);
            }
        }
        all.retain(|_, count| *count > 0);
    }
}
