//! Questions to nodes that are open at the server: who is awaited, who said what (pure), and what
//! wakes those who wait.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::{RemoteId, heartbeat::Heartbeat, limits::QUESTIONS_MAX, question::Found};
use tokio::sync::watch;

/// One question and what came of it so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Who can be reached and has not said anything yet.
    pub awaited: BTreeSet<RemoteId>,
    /// What nodes said, also those that nobody hoped for.
    pub said: BTreeMap<RemoteId, Option<Found>>,
}

impl Round {
    /// Where the message stands: at the node it got furthest to.
    pub fn found(&self) -> Option<(RemoteId, &Found)> {
        let found = self.said.iter().filter_map(|(node, found)| Some((*node, found.as_ref()?)));
        found.max_by_key(|(_, found)| found.path.len())
    }
}

/// The open questions by their ids.
#[derive(Debug, Default)]
struct Open(BTreeMap<u64, Round>);

impl Open {
    /// Opens a question; `false`: too many are open.
    fn begin(&mut self, id: u64, awaited: BTreeSet<RemoteId>) -> bool {
        let room = self.0.len() < QUESTIONS_MAX;
        if room {
            self.0.insert(id, Round { awaited, said: BTreeMap::new() });
        }
        room
    }

    /// Notes what a heartbeat says to questions; `true`: somebody may be done waiting.
    fn heard(&mut self, beat: &Heartbeat) -> bool {
        let mut changed = false;
        for said in &beat.says {
            let Some(round) = self.0.get_mut(&said.question) else { continue };
            changed |= round.awaited.remove(&beat.node);
            let known = round.said.insert(beat.node, said.found.clone());
            changed |= known != Some(said.found.clone());
        }
        changed
    }
}

/// Where questions are opened and what is said to them is heard. Clones are the same.
#[derive(Clone)]
pub struct Asking {
    open: Arc<Mutex<Open>>,
    heard: Arc<watch::Sender<u64>>,
}

impl Default for Asking {
    fn default() -> Self {
        Self { open: Arc::default(), heard: Arc::new(watch::channel(0).0) }
    }
}

/// A question that is open as long as this is held.
pub struct Asked {
    id: u64,
    asking: Asking,
    heard: watch::Receiver<u64>,
}

impl Asking {
    fn lock(&self) -> MutexGuard<'_, Open> {
        // Each change leaves it whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a question; none: too many are open.
    pub fn begin(&self, id: u64, awaited: BTreeSet<RemoteId>) -> Option<Asked> {
        let heard = self.heard.subscribe();
        let begun = self.lock().begin(id, awaited);
        begun.then(|| Asked { id, asking: self.clone(), heard })
    }

    /// Whether anybody waits.
    pub fn is_open(&self) -> bool {
        !self.lock().0.is_empty()
    }

    /// Hears heartbeats, which are on disk.
    pub fn heard<'b>(&self, beats: impl Iterator<Item = &'b Heartbeat>) {
        let mut open = self.lock();
        // All of them are heard: the first that changes something is not the last.
        let changed = beats.filter(|beat| open.heard(beat)).count() > 0;
        drop(open);
        if changed {
            self.heard.send_modify(|heard| *heard += 1);
        }
    }
}

impl Asked {
    /// What came of it so far.
    pub fn round(&self) -> Round {
        self.asking.lock().0.get(&self.id).cloned().unwrap_or_default()
    }

    /// Waits until somebody said something new.
    pub async fn changed(&mut self) {
        // The sender lives as long as `asking`.
        let _ = self.heard.changed().await;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.asking.lock().0.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::{
        heartbeat::{Account, Mode},
        question::Said,
        run::Hop,
    };

    use super::*;

    fn node(number: u32) -> RemoteId {
        RemoteId::customer(uuid::Uuid::from_u128(7)).child(number).unwrap()
    }

    fn found(hops: usize) -> Found {
        Found {
            queue: "up".to_owned(),
            attempts: 0,
            reason: String::new(),
            class: "alarm".to_owned(),
            occurred_at: 0,
            accepted_at: 0,
            path: vec![Hop { node: node(1), received: 0, sent: 0 }; hops],
        }
    }

    fn beat(number: u32, question: u64, found: Option<Found>) -> Heartbeat {
        Heartbeat {
            node: node(number),
            epoch: 1,
            beat: 1,
            order: 1,
            at: 0,
            name: String::new(),
            roles: Vec::new(),
            version: String::new(),
            mode: Mode::Session,
            account: Account::default(),
            depths: Default::default(),
            reasons: Vec::new(),
            configuration: String::new(),
            done: Vec::new(),
            integrators: Vec::new(),
            path: Vec::new(),
            says: vec![Said { question, found }],
            ready: None,
            rejected: None,
        }
    }

    #[test]
    fn a_round_ends_when_all_that_are_awaited_have_spoken() {
        let asking = Asking::default();
        let asked = asking.begin(5, BTreeSet::from([node(1), node(2)])).unwrap();
        asking.heard([beat(1, 5, None), beat(2, 6, None)].iter());
        assert_eq!(asked.round().awaited, BTreeSet::from([node(2)]));
        // One whom nobody hoped for has it; one that has it further up counts more.
        asking.heard([beat(9, 5, Some(found(1)))].iter());
        assert_eq!(asked.round().found(), Some((node(9), &found(1))));
        asking.heard([beat(2, 5, Some(found(2)))].iter());
        assert_eq!(asked.round().found(), Some((node(2), &found(2))));
        assert!(asked.round().awaited.is_empty());
        drop(asked);
        assert!(!asking.is_open());
    }

    #[test]
    fn questions_are_bounded_and_end_with_who_asks() {
        let asking = Asking::default();
        let mut open: Vec<_> = (0..QUESTIONS_MAX as u64)
            .map(|id| asking.begin(id, BTreeSet::new()).unwrap())
            .collect();
        assert!(asking.begin(99, BTreeSet::new()).is_none());
        open.pop();
        assert!(asking.begin(99, BTreeSet::new()).is_some());
    }
}
