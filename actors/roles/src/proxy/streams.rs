//! What became of a stream's calls: a repeat is answered `duplicate` (`delivery.md` §6).
//!
//! A row for calls that follow on each other, in the commit of their messages and only for those
//! that were kept.
use std::{collections::BTreeMap, ops::ControlFlow};

use bytes::Bytes;
use extension::storage::{Change, QueueStore, StoreError};
use protocol::{limits::STREAM_RESULTS_MAX, socket::STREAM_BYTES};

use crate::delivery::orders::{Noted, unbroken};

/// Streams. Key: the stream. Value: when it was used last, ms since 1970 UTC.
pub const STREAMS: &str = "streams";
/// Calls of a stream that were stored. Key: the stream, then the first seq. Value: the last; empty:
/// the same.
pub const RESULTS: &str = "stream-results";
/// A stream that is not used for so long is forgotten, ms (contract §7).
pub const UNUSED_MAX_MS: i64 = 30 * 24 * 3600 * 1000;
/// How old "used last" may be, ms: it need not be written with every call.
const USED_EVERY_MS: i64 = 3600 * 1000;

/// The id of a stream.
pub type StreamId = [u8; STREAM_BYTES];

/// What is to be done with a call of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is new.
    New,
    /// It was stored.
    Before,
    /// It is too old to tell: a client may not be that far ahead of its oldest unanswered call.
    Forgotten,
}

/// The calls of one stream that are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    id: StreamId,
    /// First and last of calls that follow on each other, as they stand in rows.
    rows: BTreeMap<u64, u64>,
    used_at: i64,
}

impl Stream {
    /// Reads what is on disk.
    pub fn load(store: &dyn QueueStore, id: StreamId) -> Result<Self, StoreError> {
        let mut rows = BTreeMap::new();
        store.rows(RESULTS, &id, &[], &mut |key, value| {
            let seq = key.get(STREAM_BYTES..).and_then(|seq| seq.try_into().ok());
            if let Some(first) = seq.map(u64::from_be_bytes) {
                rows.insert(first, value.try_into().map_or(first, u64::from_be_bytes));
            }
            ControlFlow::Continue(())
        })?;
        let used_at = store.row(STREAMS, &id)?.and_then(|row| read_time(&row)).unwrap_or(0);
        Ok(Self { id, rows, used_at })
    }

    /// Whether that call was stored.
    pub fn seen(&self, seq: u64) -> Seen {
        if self.rows.range(..=seq).next_back().is_some_and(|(_, last)| seq <= *last) {
            return Seen::Before;
        }
        match seq.saturating_add(STREAM_RESULTS_MAX as u64) <= self.newest() {
            true => Seen::Forgotten,
            false => Seen::New,
        }
    }

    fn newest(&self) -> u64 {
        self.rows.last_key_value().map_or(0, |(_, last)| *last)
    }

    /// What says that calls were stored: positions of messages, and the calls' numbers.
    pub fn noted(&self, numbers: Vec<(usize, u64)>) -> Noted {
        Noted { table: RESULTS, prefix: Bytes::copy_from_slice(&self.id), numbers }
    }

    /// The row that says a call was stored, for one that is no message of the commit.
    pub fn row(&self, seq: u64) -> Change {
        let value = Bytes::copy_from_slice(&seq.to_be_bytes());
        Change::PutRow { table: RESULTS, key: self.key(seq), value }
    }

    /// Calls were stored, their rows are on disk. The changes forget what is older than the window;
    /// they may go with any later commit.
    pub fn note(&mut self, stored: impl IntoIterator<Item = u64>) -> Vec<Change> {
        self.rows.extend(unbroken(stored));
        let from = (self.newest() + 1).saturating_sub(STREAM_RESULTS_MAX as u64);
        let mut old = Vec::new();
        // Rows do not overlap, so the first is also the one that ends first.
        while let Some(row) = self.rows.first_entry().filter(|row| *row.get() < from) {
            old.push(row.remove_entry().0);
        }
        let row = |first| Change::RemoveRow { table: RESULTS, key: self.key(first) };
        old.into_iter().map(row).collect()
    }

    /// The change that says the stream is in use, where it is due.
    pub fn used(&mut self, now: i64) -> Option<Change> {
        // One that a wrong clock left in the future is mended, too.
        if (0..USED_EVERY_MS).contains(&now.saturating_sub(self.used_at)) {
            return None;
        }
        self.used_at = now;
        Some(used_row(self.id, now))
    }

    fn key(&self, seq: u64) -> Bytes {
        let mut key = self.id.to_vec();
        key.extend_from_slice(&seq.to_be_bytes());
        key.into()
    }
}

/// The row that says a stream was used at `now`.
pub fn used_row(id: StreamId, now: i64) -> Change {
    let key = Bytes::copy_from_slice(&id);
    Change::PutRow { table: STREAMS, key, value: Bytes::copy_from_slice(&now.to_be_bytes()) }
}

/// The changes that forget a stream.
pub fn forget(store: &dyn QueueStore, id: &[u8]) -> Result<Vec<Change>, StoreError> {
    let mut changes = Vec::new();
    store.rows(RESULTS, id, &[], &mut |key, _| {
        changes.push(Change::RemoveRow { table: RESULTS, key: Bytes::copy_from_slice(key) });
        ControlFlow::Continue(())
    })?;
    changes.push(Change::RemoveRow { table: STREAMS, key: Bytes::copy_from_slice(id) });
    Ok(changes)
}

/// The oldest streams that were not used for [`UNUSED_MAX_MS`], at most `most`.
pub fn unused(store: &dyn QueueStore, now: i64, most: usize) -> Result<Vec<Bytes>, StoreError> {
    let mut unused = Vec::new();
    store.rows(STREAMS, &[], &[], &mut |key, value| {
        let used_at = read_time(value).unwrap_or_default();
        if now.saturating_sub(used_at) > UNUSED_MAX_MS {
            unused.push(Bytes::copy_from_slice(key));
        }
        match unused.len() < most {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    Ok(unused)
}

fn read_time(row: &[u8]) -> Option<i64> {
    row.try_into().ok().map(i64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use module_memory::MemoryStore;

    use super::*;

    const ID: StreamId = [7; STREAM_BYTES];

    fn store_row(store: &MemoryStore, stream: &Stream, first: u64, last: u64) {
        let value = Bytes::copy_from_slice(&last.to_be_bytes());
        store.commit(&[Change::PutRow { table: RESULTS, key: stream.key(first), value }]).unwrap();
    }

    fn store_all(store: &MemoryStore, stream: &mut Stream, seqs: impl Iterator<Item = u64>) {
        for seq in seqs {
            store_row(store, stream, seq, seq);
            let old = stream.note([seq]);
            store.commit(&old).unwrap();
        }
    }

    #[test]
    fn the_last_1024_calls_are_known_after_a_restart_and_older_ones_are_forgotten() {
        let store = MemoryStore::new();
        let mut stream = Stream::load(&store, ID).unwrap();
        store_all(&store, &mut stream, 1..=2000);
        for stream in [stream, Stream::load(&store, ID).unwrap()] {
            assert_eq!(stream.seen(2000), Seen::Before);
            assert_eq!(stream.seen(977), Seen::Before);
            assert_eq!(stream.seen(976), Seen::Forgotten);
            assert_eq!(stream.seen(2001), Seen::New);
            assert_eq!(stream.rows.len(), STREAM_RESULTS_MAX);
        }
        let other = Stream::load(&store, [8; STREAM_BYTES]).unwrap();
        assert_eq!(other.seen(2000), Seen::New, "streams do not share numbers");
    }

    #[test]
    fn calls_that_follow_on_each_other_are_one_row() {
        let store = MemoryStore::new();
        let mut stream = Stream::load(&store, ID).unwrap();
        for (first, last) in [(1, 700), (702, 1300), (1301, 1800)] {
            store_row(&store, &stream, first, last);
            store.commit(&stream.note(first..=last)).unwrap();
        }
        for stream in [stream, Stream::load(&store, ID).unwrap()] {
            assert_eq!(stream.rows, BTreeMap::from([(702, 1300), (1301, 1800)]));
            assert_eq!([702, 1300, 1301, 1800].map(|seq| stream.seen(seq)), [Seen::Before; 4]);
            assert_eq!([701, 776].map(|seq| stream.seen(seq)), [Seen::Forgotten, Seen::Before]);
            assert_eq!(stream.seen(1801), Seen::New);
        }
    }

    #[test]
    fn a_call_that_was_refused_leaves_a_hole_that_is_new() {
        let store = MemoryStore::new();
        let mut stream = Stream::load(&store, ID).unwrap();
        store_all(&store, &mut stream, [1, 2, 4].into_iter());
        assert_eq!(stream.seen(3), Seen::New);
    }

    #[test]
    fn a_stream_is_forgotten_on_its_thirty_first_day_without_use() {
        const DAY: i64 = 24 * 3600 * 1000;
        let store = MemoryStore::new();
        let mut stream = Stream::load(&store, ID).unwrap();
        store_all(&store, &mut stream, 1..=3);
        store.commit(&[stream.used(DAY).unwrap()]).unwrap();
        assert_eq!(stream.used(DAY + 1), None);
        assert_eq!(unused(&store, 31 * DAY, 10).unwrap(), Vec::<Bytes>::new());
        let old = unused(&store, 31 * DAY + 1, 10).unwrap();
        assert_eq!(old, [Bytes::copy_from_slice(&ID)]);
        store.commit(&forget(&store, &old[0]).unwrap()).unwrap();
        assert_eq!(Stream::load(&store, ID).unwrap().seen(3), Seen::New);
        assert!(unused(&store, i64::MAX, 10).unwrap().is_empty());
    }
}
