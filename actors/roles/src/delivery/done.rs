//! Back-channel messages this node has acted on: a repeat is not acted on again, and heartbeats
//! name the newest (`delivery.md` §7).
use std::{
    collections::{HashSet, VecDeque},
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use extension::storage::{Change, QueueStore, StoreError};
use protocol::MessageId;

/// Table of them. Key: when, ms since 1970 UTC, then the id as text.
pub const DONE: &str = "done";
/// How many are remembered: far more than a server sends within the time to live of an action.
pub const DONE_MAX: usize = 4096;

/// What was acted on, oldest first.
#[derive(Debug, Default)]
pub struct Done(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    order: VecDeque<(i64, MessageId)>,
    ids: HashSet<MessageId>,
    /// Repeats that came, newest last: heartbeats name them first.
    repeated: VecDeque<MessageId>,
}

impl Done {
    /// Reads them from disk.
    pub fn load(store: &dyn QueueStore) -> Result<Self, StoreError> {
        let mut inner = Inner::default();
        store.rows(DONE, &[], &[], &mut |key, _| {
            inner.order.extend(read_key(key));
            ControlFlow::Continue(())
        })?;
        inner.ids = inner.order.iter().map(|(_, id)| *id).collect();
        Ok(Self(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was acted on.
    pub fn has(&self, id: &MessageId) -> bool {
        self.lock().ids.contains(id)
    }

    /// The changes that remember `id`, to be made in the commit of what was done. When they are on
    /// disk, call [`Done::note`] with the same values.
    pub fn changes(&self, id: &MessageId, now: i64) -> Vec<Change> {
        let inner = self.lock();
        let mut changes =
            vec![Change::PutRow { table: DONE, key: key_of(now, id), value: Bytes::new() }];
        let too_many = (inner.order.len() + 1).saturating_sub(DONE_MAX);
        for (at, id) in inner.order.iter().take(too_many) {
            changes.push(Change::RemoveRow { table: DONE, key: key_of(*at, id) });
        }
        changes
    }

    /// What [`Done::changes`] gave is on disk.
    pub fn note(&self, id: MessageId, now: i64) {
        let mut inner = self.lock();
        if !inner.ids.insert(id) {
            return;
        }
        inner.order.push_back((now, id));
        while inner.order.len() > DONE_MAX {
            if let Some((_, oldest)) = inner.order.pop_front() {
                inner.ids.remove(&oldest);
            }
        }
    }

    /// It came again: the server has not heard of it, so the next heartbeats name it.
    pub fn note_repeat(&self, id: MessageId) {
        let mut inner = self.lock();
        inner.repeated.retain(|known| *known != id);
        inner.repeated.push_back(id);
        if inner.repeated.len() > DONE_MAX {
            inner.repeated.pop_front();
        }
    }

    /// At most `most`, for a heartbeat: half of the room for what was asked for again, each once,
    /// the rest for the newest.
    pub fn for_heartbeat(&self, most: usize) -> Vec<MessageId> {
        let mut inner = self.lock();
        let again = inner.repeated.len().min(most / 2);
        let mut named: Vec<MessageId> = inner.repeated.drain(..again).collect();
        let newest = inner.order.iter().rev().map(|(_, id)| *id).filter(|id| !named.contains(id));
        let newest: Vec<MessageId> = newest.take(most - again).collect();
        named.extend(newest);
        named
    }
}

fn key_of(at: i64, id: &MessageId) -> Bytes {
    let mut key = at.max(0).to_be_bytes().to_vec();
    key.extend_from_slice(id.to_string().as_bytes());
    key.into()
}

fn read_key(key: &[u8]) -> Option<(i64, MessageId)> {
    let (at, id) = key.split_first_chunk()?;
    Some((i64::from_be_bytes(*at), std::str::from_utf8(id).ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use module_memory::MemoryStore;
    use protocol::Precedence;

    use super::*;

    fn id(sequence: u64) -> MessageId {
        let origin = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3".parse().unwrap();
        MessageId { origin, epoch: 7, precedence: Precedence::Urgent, sequence }
    }

    #[test]
    fn what_was_done_is_known_after_a_restart_and_the_oldest_is_forgotten() {
        let store = MemoryStore::new();
        let done = Done::load(&store).unwrap();
        for n in 0..=DONE_MAX as u64 {
            store.commit(&done.changes(&id(n), n as i64)).unwrap();
            done.note(id(n), n as i64);
        }
        let again = Done::load(&store).unwrap();
        assert!(!again.has(&id(0)));
        assert!(again.has(&id(1)) && again.has(&id(DONE_MAX as u64)));
        assert_eq!(again.for_heartbeat(2), [id(DONE_MAX as u64), id(DONE_MAX as u64 - 1)]);
    }

    #[test]
    fn what_came_again_is_named_though_it_is_old() {
        let done = Done::default();
        (0..10).for_each(|n| done.note(id(n), n as i64));
        done.note_repeat(id(1));
        assert_eq!(done.for_heartbeat(4), [id(1), id(9), id(8), id(7)]);
        assert_eq!(done.for_heartbeat(2), [id(9), id(8)]);
    }
}
