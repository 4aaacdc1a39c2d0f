//! Runs that are found damaged while the queue serves.
use std::collections::BTreeMap;

use extension::storage::{Change, QueueName, StoreError};
use tracing::{error, warn};

use super::{DurableQueue, Group};
use crate::delivery::{
    lanes::gone_key,
    recount::{self, Difference, at_most},
    runs::Gone,
    state::GONE,
};

impl DurableQueue {
    /// A run whose bytes are damaged is taken out of its queue and kept apart, so that it neither
    /// stops the queue nor is sent. Its messages end refused, and are told upward where they can
    /// still be told apart. How many they were says what is left: its own count may be damaged.
    /// That reads a precedence of the queue as a whole, which is what damage costs.
    pub(super) fn set_damaged_aside(&mut self) -> Result<(), StoreError> {
        let found = std::mem::take(&mut self.damaged);
        if found.is_empty() {
            return Ok(());
        }
        let store = self.settings.store.clone();
        let node = self.identity().id;
        let mut group = Group::default();
        let mut lanes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let runs: BTreeMap<_, _> =
            found.into_iter().map(|(queue, run)| ((queue, run.place), run.bytes)).collect();
        for ((queue, place), bytes) in runs {
            error!(target: "delivery", queue = %queue, position = place.position,
                "run is damaged; what is left of it is kept under damaged/");
            if let Err(error) = store.set_aside(&queue, place, &bytes) {
                warn!(target: "delivery", %error, "what is left of it could not be kept");
            }
            let key = gone_key(&queue, place);
            let gone = store.row(GONE, &key)?.map(|row| Gone::from_bytes(&row));
            let gone = gone.unwrap_or_default();
            let reports = recount::reports(&bytes, place.precedence, &gone, node);
            let lane: (QueueName, _) = (queue.clone(), place.precedence);
            lanes.entry(lane).or_default().extend(reports);
            group.changes.push(Change::RemoveRun { queue, place });
            group.changes.push(Change::RemoveRow { table: GONE, key });
        }
        for ((queue, precedence), reports) in lanes {
            let known = self.state.held(&queue.0)[precedence as usize];
            let (found, _) = recount::lane(&*store, &queue, precedence)?;
            if known != found {
                let queue = queue.0.to_string();
                let lost = self.state.correct(&Difference { queue, precedence, known, found });
                self.put_reports(at_most(lost, reports), &mut group);
            }
            group.state_changed = true;
        }
        self.write(&mut group)
    }
}
