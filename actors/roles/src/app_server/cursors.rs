//! How far a service module is in the records, and what it takes next.
use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use extension::storage::{Change, QueueStore, StoreError, Value};
use protocol::{Precedence, codec::Reader, limits::BATCH_MESSAGES_MAX, run::RunHeader};
use serde::{Deserialize, Serialize};

use super::{
    reel::{Recent, Reel},
    rows::{COUNTED, CURSORS, Counted, from_row, records, to_row},
};

/// Key of the cursor behind which messages have ended.
pub const CLOSED: &str = "";

/// How far a module is: each precedence apart, the urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Number of the next message, by precedence.
    pub next: [u64; 3],
    /// Messages behind it, by precedence.
    pub done: [u64; 3],
    /// Counts commits, so that one whose outcome is unknown can be found out.
    pub step: u64,
}

impl Default for Cursor {
    fn default() -> Self {
        Self { next: [1; 3], done: [0; 3], step: 0 }
    }
}

/// A run, or a part of it, that is to be handled next.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Precedence.
    pub precedence: Precedence,
    /// Number of its first message.
    pub seq: u64,
    /// Messages in it.
    pub count: u64,
    /// The run; none: it is damaged and its messages are lost.
    pub reel: Option<Arc<Reel>>,
}

impl Cursor {
    /// The cursor of a module; a new one begins where messages have not ended.
    pub fn read(store: &dyn QueueStore, module: &str) -> Result<Self, StoreError> {
        for key in [module, CLOSED] {
            let row = match store.row(CURSORS, key.as_bytes()) {
                Err(StoreError::Damaged(_)) => {
                    tracing::error!(module, "a cursor is damaged: messages come again");
                    None
                }
                row => row?,
            };
            if let Some(cursor) = row.and_then(|r| from_row(&r)) {
                return Ok(cursor);
            }
        }
        Ok(Self::default())
    }

    /// What stores it.
    pub fn change(&self, module: &str) -> Change {
        let key = Bytes::copy_from_slice(module.as_bytes());
        Change::PutRow { table: CURSORS, key, value: to_row(self) }
    }

    /// Goes past `count` messages, the first of which has the number `seq`.
    pub fn pass(&mut self, precedence: Precedence, seq: u64, count: u64) {
        let p = precedence as usize;
        self.next[p] = self.next[p].max(seq + count);
        self.done[p] += count;
    }

    /// Whether a message is behind it.
    pub fn is_past(&self, precedence: Precedence, seq: u64) -> bool {
        seq < self.next[precedence as usize]
    }

    /// What comes next: at most so many messages, of at most so many bytes (but one run at
    /// least), the urgent first. Goes past numbers that nothing of a precedence has.
    pub fn ahead(
        &mut self,
        store: &dyn QueueStore,
        recent: &Recent,
        messages_max: u64,
        bytes_max: usize,
    ) -> Result<Vec<Piece>, StoreError> {
        let mut ahead = Ahead { pieces: Vec::new(), messages: messages_max, bytes: bytes_max };
        for (next, precedence) in self.next.iter_mut().zip(Precedence::ALL) {
            let (precedence, before) = (*precedence, ahead.pieces.len());
            let known = recent.next();
            let walked = recent.walk(Some(precedence), *next, |reel| {
                if ahead.is_full() {
                    return ControlFlow::Break(());
                }
                ahead.take(reel.stored.position.max(*next), reel.clone());
                ControlFlow::Continue(())
            });
            if walked.is_none() {
                ahead.read(store, precedence, *next)?;
            }
            if ahead.is_full() {
                break;
            }
            if ahead.pieces.len() == before {
                *next = walked.unwrap_or(known).max(*next);
            }
        }
        Ok(ahead.pieces)
    }
}

/// What a module is given next, in the making.
struct Ahead {
    pieces: Vec<Piece>,
    /// Room for so many more messages.
    messages: u64,
    /// Room for so many more bytes.
    bytes: usize,
}

impl Ahead {
    fn is_full(&self) -> bool {
        self.messages == 0 || self.bytes == 0
    }

    fn take(&mut self, seq: u64, reel: Arc<Reel>) {
        let precedence = reel.stored.run.header.precedence;
        let count = (reel.stored.end() - seq).min(self.messages);
        self.messages -= count;
        self.bytes = self.bytes.saturating_sub(reel.stored.run.messages.len());
        self.pieces.push(Piece { precedence, seq, count, reel: Some(reel) });
    }

    /// Takes what is on disk.
    fn read(
        &mut self,
        store: &dyn QueueStore,
        precedence: Precedence,
        next: u64,
    ) -> Result<(), StoreError> {
        // The cursor may stand within a run.
        if let Some(reel) = run_around(store, precedence, next)? {
            self.take(next, Arc::new(reel));
        }
        let mut damaged = Vec::new();
        store.runs(&records(), precedence, next, &mut |position, value| {
            if self.is_full() {
                return ControlFlow::Break(());
            }
            let reel = match value {
                Value::Good(bytes) => Reel::read(position, bytes),
                Value::Damaged(_) => None,
            };
            match reel {
                Some(reel) => self.take(position, Arc::new(reel)),
                None => {
                    damaged.push(self.pieces.len());
                    self.pieces.push(Piece { precedence, seq: position, count: 0, reel: None });
                }
            }
            ControlFlow::Continue(())
        })?;
        for at in damaged {
            if let Some(piece) = self.pieces.get_mut(at) {
                piece.count = following(store, piece.seq)?.saturating_sub(piece.seq);
            }
        }
        Ok(())
    }
}

/// The run that begins before `next` and holds it. Most often there is none, and then none is
/// copied.
pub(crate) fn run_around(
    store: &dyn QueueStore,
    precedence: Precedence,
    next: u64,
) -> Result<Option<Reel>, StoreError> {
    let mut found = None;
    let Some(before) = next.checked_sub(1).filter(|n| *n > 0) else { return Ok(None) };
    store.runs_back(&records(), precedence, before, &mut |position, value| {
        let Value::Good(bytes) = value else { return ControlFlow::Break(()) };
        let header = Reader::new(bytes).array("run", 2, |i| i.nested(RunHeader::read));
        if header.is_ok_and(|h| position + u64::from(h.present()) > next) {
            found = Reel::read(position, bytes);
        }
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// Number behind a damaged run: numbers are given without holes, so the next run of any
/// precedence begins there.
fn following(store: &dyn QueueStore, position: u64) -> Result<u64, StoreError> {
    let mut next = counted(store)?.next;
    for precedence in Precedence::ALL {
        store.runs(&records(), *precedence, position + 1, &mut |at, _| {
            next = next.min(at);
            ControlFlow::Break(())
        })?;
    }
    Ok(next)
}

/// How many are stored.
pub fn counted(store: &dyn QueueStore) -> Result<Counted, StoreError> {
    let row = match store.row(COUNTED, b"") {
        Err(StoreError::Damaged(_)) => None,
        row => row?,
    };
    row.and_then(|r| from_row(&r)).map_or_else(|| counted_anew(store), Ok)
}

/// How many are stored, by the runs themselves: the row that says so is damaged, or there is
/// nothing yet. What stands must never be written over.
fn counted_anew(store: &dyn QueueStore) -> Result<Counted, StoreError> {
    let closed = store.row(CURSORS, CLOSED.as_bytes()).ok().flatten();
    let closed: Cursor = closed.and_then(|r| from_row(&r)).unwrap_or_default();
    let mut counted = Counted { next: 1, stored: closed.done };
    // Of a damaged run nobody knows how many numbers it has.
    let behind = |position: u64, value: Value<'_>| match value {
        Value::Good(bytes) => Reel::read(position, bytes).map(|reel| reel.stored.end()),
        Value::Damaged(_) => None,
    };
    let most = BATCH_MESSAGES_MAX as u64;
    for (precedence, next) in Precedence::ALL.iter().zip(closed.next) {
        let stored = &mut counted.stored[*precedence as usize];
        store.runs(&records(), *precedence, next, &mut |position, value| {
            *stored += behind(position, value).map_or(0, |end| end - position);
            ControlFlow::Continue(())
        })?;
        // All of them may have ended.
        let mut last = next;
        store.runs_back(&records(), *precedence, u64::MAX, &mut |position, value| {
            last = last.max(behind(position, value).unwrap_or(position + most));
            ControlFlow::Break(())
        })?;
        counted.next = counted.next.max(last);
    }
    Ok(counted)
}

/// What all modules are done with: the slowest of each precedence. `modules` may be empty: then
/// it is all that is stored.
pub fn slowest(modules: &[Cursor], counted: &Counted) -> Cursor {
    let mut slowest = Cursor { next: [counted.next; 3], done: counted.stored, step: 0 };
    for module in modules {
        for p in 0..3 {
            if module.done[p] < slowest.done[p] {
                slowest.done[p] = module.done[p];
                slowest.next[p] = module.next[p];
            }
        }
    }
    slowest
}
