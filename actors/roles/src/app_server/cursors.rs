//! How far a service module is in the records, and what it takes next.
use std::ops::ControlFlow;

use bytes::Bytes;
use extension::storage::{Change, QueueStore, StoreError, Value};
use protocol::{Precedence, codec::Reader, run::RunHeader};
use serde::{Deserialize, Serialize};

use super::{
    index::StoredRun,
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
    pub stored: Option<StoredRun>,
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
    /// least), the urgent first.
    pub fn ahead(
        &self,
        store: &dyn QueueStore,
        messages_max: u64,
        bytes_max: usize,
    ) -> Result<Vec<Piece>, StoreError> {
        let mut pieces = Vec::new();
        let mut room = (messages_max, bytes_max);
        for (p, precedence) in Precedence::ALL.iter().enumerate() {
            self.ahead_of(store, *precedence, self.next[p], &mut room, &mut pieces)?;
            if room.0 == 0 || room.1 == 0 {
                break;
            }
        }
        Ok(pieces)
    }

    fn ahead_of(
        &self,
        store: &dyn QueueStore,
        precedence: Precedence,
        next: u64,
        room: &mut (u64, usize),
        pieces: &mut Vec<Piece>,
    ) -> Result<(), StoreError> {
        // The cursor may stand within a run.
        if let Some(stored) = run_around(store, precedence, next)? {
            take(precedence, next, stored, room, pieces);
        }
        let mut damaged = Vec::new();
        store.runs(&records(), precedence, next, &mut |position, value| {
            if room.0 == 0 || room.1 == 0 {
                return ControlFlow::Break(());
            }
            let stored = match value {
                Value::Good(bytes) => StoredRun::read(position, &Bytes::copy_from_slice(bytes)),
                Value::Damaged(_) => None,
            };
            match stored {
                Some(stored) => take(precedence, position, stored, room, pieces),
                None => {
                    damaged.push(pieces.len());
                    pieces.push(Piece { precedence, seq: position, count: 0, stored: None });
                }
            }
            ControlFlow::Continue(())
        })?;
        for at in damaged {
            if let Some(piece) = pieces.get_mut(at) {
                piece.count = following(store, piece.seq)?.saturating_sub(piece.seq);
            }
        }
        Ok(())
    }
}

/// The run that begins before `next` and holds it. Most often there is none, and then none is
/// copied.
fn run_around(
    store: &dyn QueueStore,
    precedence: Precedence,
    next: u64,
) -> Result<Option<StoredRun>, StoreError> {
    let mut found = None;
    let Some(before) = next.checked_sub(1).filter(|n| *n > 0) else { return Ok(None) };
    store.runs_back(&records(), precedence, before, &mut |position, value| {
        let Value::Good(bytes) = value else { return ControlFlow::Break(()) };
        let header = Reader::new(bytes).array("run", 2, |i| i.nested(RunHeader::read));
        if header.is_ok_and(|h| position + u64::from(h.present()) > next) {
            found = StoredRun::read(position, &Bytes::copy_from_slice(bytes));
        }
        ControlFlow::Break(())
    })?;
    Ok(found)
}

fn take(
    precedence: Precedence,
    seq: u64,
    stored: StoredRun,
    room: &mut (u64, usize),
    pieces: &mut Vec<Piece>,
) {
    let count = (stored.end() - seq).min(room.0);
    room.0 -= count;
    room.1 = room.1.saturating_sub(stored.run.messages.len());
    pieces.push(Piece { precedence, seq, count, stored: Some(stored) });
}

/// Number behind a damaged run: numbers are given without holes, so the next run of any
/// precedence begins there.
fn following(store: &dyn QueueStore, position: u64) -> Result<u64, StoreError> {
    let counted: Option<Counted> = store.row(COUNTED, b"")?.and_then(|r| from_row(&r));
    let mut next = counted.unwrap_or_default().next;
    for precedence in Precedence::ALL {
        store.runs(&records(), *precedence, position + 1, &mut |at, _| {
            next = next.min(at);
            ControlFlow::Break(())
        })?;
    }
    Ok(next)
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
