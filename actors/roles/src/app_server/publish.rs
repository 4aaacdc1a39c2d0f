//! What changes, told to whoever listens: service hosts that wait for data, readers of the stream.
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use protocol::{Precedence, RemoteId};
use tokio::sync::{broadcast, watch};

/// Changes kept for readers that come back with `Last-Event-ID`, and the most a slow one may be
/// behind: some seconds of a busy server.
pub const RECENT_MAX: usize = 4_096;

/// Whether a module's row shows in a list: an alarm, an event, an action.
pub fn is_shown(key: &[u8]) -> bool {
    matches!(key.first(), Some(b'e' | b'w' | b'a'))
}

/// What changed; the reader looks up what it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A run was stored.
    Stored {
        /// Its precedence.
        precedence: Precedence,
        /// Number of its first message.
        position: u64,
        /// How many messages.
        count: u32,
    },
    /// A row of a service module was put.
    Row {
        /// Which module.
        module: Arc<str>,
        /// The module's own key.
        key: Bytes,
    },
    /// A node said how it is, and what its account is.
    Node(RemoteId),
}

/// One change with its number.
#[derive(Clone, Debug)]
pub struct Item {
    /// From 1 in this life of the process.
    pub number: u64,
    /// What changed.
    pub what: What,
}

/// Where changes are told and heard. Clones are the same feed.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

struct Inner {
    life: u64,
    recent: Mutex<Recent>,
    sender: broadcast::Sender<Item>,
    stored: watch::Sender<u64>,
    stepped: watch::Sender<u64>,
}

struct Recent {
    next: u64,
    items: VecDeque<Item>,
}

/// Where a reader goes on.
pub struct Listening {
    /// Changes it has missed and can still get, in order.
    pub missed: Vec<Item>,
    /// Whether some are gone.
    pub gap: bool,
    /// Number of the newest there is; 0: none yet.
    pub newest: u64,
    /// What comes.
    pub receiver: broadcast::Receiver<Item>,
}

impl Feed {
    /// A feed; `life` is drawn at each start, so that ids of an earlier one are not taken for ours.
    pub fn new(life: u64) -> Self {
        let recent = Mutex::new(Recent { next: 1, items: VecDeque::new() });
        let sender = broadcast::Sender::new(RECENT_MAX);
        let (stored, stepped) = (watch::Sender::new(0), watch::Sender::new(0));
        Self(Arc::new(Inner { life, recent, sender, stored, stepped }))
    }

    /// Which life of the process.
    pub fn life(&self) -> u64 {
        self.0.life
    }

    /// Tells a change.
    pub fn tell(&self, what: What) {
        let mut recent = self.recent();
        let item = Item { number: recent.next, what };
        recent.next += 1;
        if recent.items.len() == RECENT_MAX {
            recent.items.pop_front();
        }
        recent.items.push_back(item.clone());
        // An error means that nobody listens. Sent under the lock: see `listen`.
        let _ = self.0.sender.send(item);
    }

    /// Says that all numbers below `next` are stored.
    pub fn stored(&self, next: u64) {
        self.0.stored.send_replace(next);
    }

    /// Says that a cursor went on.
    pub fn stepped(&self) {
        self.0.stepped.send_modify(|steps| *steps = steps.wrapping_add(1));
    }

    /// Wakes when something is stored.
    pub fn on_stored(&self) -> watch::Receiver<u64> {
        self.0.stored.subscribe()
    }

    /// Wakes when a cursor goes on.
    pub fn on_stepped(&self) -> watch::Receiver<u64> {
        self.0.stepped.subscribe()
    }

    /// Listens from the change `from` (its number) on; none: from now on.
    pub fn listen(&self, from: Option<u64>) -> Listening {
        let recent = self.recent();
        let (receiver, newest) = (self.0.sender.subscribe(), recent.next - 1);
        let Some(from) = from else {
            return Listening { missed: Vec::new(), gap: false, newest, receiver };
        };
        let oldest = recent.items.front().map_or(recent.next, |item| item.number);
        let missed = recent.items.iter().filter(|item| item.number >= from).cloned().collect();
        Listening { missed, gap: from < oldest || from > recent.next, newest, receiver }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // Nothing in it can be half done: a panic elsewhere does not spoil it.
        self.0.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(feed: &Feed, times: usize) {
        for _ in 0..times {
            feed.tell(What::Row { module: "alarms".into(), key: Bytes::from_static(b"e") });
        }
    }

    #[test]
    fn a_reader_who_comes_back_gets_what_it_missed_or_a_gap() {
        let feed = Feed::new(1);
        tell(&feed, 3);
        let back = feed.listen(Some(2));
        assert_eq!(back.missed.iter().map(|i| i.number).collect::<Vec<_>>(), [2, 3]);
        assert!(!back.gap && !feed.listen(Some(4)).gap);
        tell(&feed, RECENT_MAX);
        let late = feed.listen(Some(2));
        assert!(late.gap);
        assert_eq!(late.missed.len(), RECENT_MAX);
        assert!(feed.listen(Some(9_999)).gap);
    }
}
