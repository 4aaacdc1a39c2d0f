//! Finds stored messages: by id, by number.
use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use extension::storage::{Place, QueueStore, StoreError, Value};
use protocol::{MessageId, Precedence, codec::Reader, limits, message::Blocks, run::Run};

use super::{
    reel::{Recent, Reel},
    rows::{FOUND, number_at, records, stream_of_id, with_numbers},
};

/// A run as it stands in the records.
#[derive(Clone, Debug)]
pub struct StoredRun {
    /// Number of its first message in the records.
    pub position: u64,
    /// The run; its path ends here.
    pub run: Run,
}

/// A message as it stands in the records.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its run.
    pub reel: Arc<Reel>,
    /// Its place among those of the run that are there.
    pub at: usize,
}

impl StoredRun {
    /// Reads a stored value.
    pub fn read(position: u64, value: &Bytes) -> Option<Self> {
        let run = Run::read(&mut Reader::new(value), value).ok()?;
        Some(Self { position, run })
    }

    /// Number behind its last message.
    pub fn end(&self) -> u64 {
        self.position + u64::from(self.run.header.present())
    }

    /// When it was stored, ms since 1970 UTC.
    pub fn stored_at(&self) -> i64 {
        self.run.header.path.last().map_or(0, |hop| hop.received)
    }
}

impl Found {
    /// Its number in the records.
    pub fn seq(&self) -> u64 {
        self.reel.stored.position + self.at as u64
    }

    /// Its wire bytes, how many, and its blocks.
    pub fn blocks(&self) -> Option<(usize, Blocks<'_>)> {
        self.reel.message(self.at).map(|(range, blocks)| (range.len(), blocks))
    }
}

/// Where the message of a number stands in a run, when it is there.
pub fn place_in(run: &Run, sequence: u64) -> Option<usize> {
    let position = u32::try_from(sequence.checked_sub(run.header.first)?).ok()?;
    if position >= run.header.count || run.header.is_left_out(position) {
        return None;
    }
    Some((0..position).filter(|p| !run.header.is_left_out(*p)).count())
}

/// All stored messages of an id: one, or several where machines were cloned.
pub fn find(store: &dyn QueueStore, id: &MessageId) -> Result<Vec<Found>, StoreError> {
    let stream = stream_of_id(id);
    let mut candidates = Vec::new();
    let to = with_numbers(&stream, &[id.sequence, u64::MAX]);
    store.rows_back(FOUND, &stream, &to, &mut |key, value| {
        let numbers = &key[stream.len().min(key.len())..];
        let (Some(first), Some(position)) = (number_at(numbers, 0), number_at(numbers, 8)) else {
            return ControlFlow::Continue(());
        };
        // A run covers so many numbers at most.
        if first + (limits::BATCH_MESSAGES_MAX as u64) <= id.sequence {
            return ControlFlow::Break(());
        }
        if number_at(value, 0).is_some_and(|last| last >= id.sequence) {
            candidates.push(position);
        }
        ControlFlow::Continue(())
    })?;
    let mut found = Vec::new();
    for position in candidates {
        let place = Place { precedence: id.precedence, position };
        let Some(value) = run_at(store, place)? else { continue };
        let Some(stored) = StoredRun::read(position, &value) else { continue };
        if let Some(at) = place_in(&stored.run, id.sequence) {
            found.push(Found { reel: Arc::new(Reel::new(stored)), at });
        }
    }
    Ok(found)
}

/// The stored run at a place; a damaged one counts as none.
fn run_at(store: &dyn QueueStore, place: Place) -> Result<Option<Bytes>, StoreError> {
    match store.run(&records(), place) {
        Err(StoreError::Damaged(_)) => Ok(None),
        run => run,
    }
}

/// The message of a number in the records.
pub fn at_seq(
    store: &dyn QueueStore,
    recent: &Recent,
    precedence: Precedence,
    seq: u64,
) -> Result<Option<Found>, StoreError> {
    let reel = reel_at(store, recent, precedence, seq)?;
    Ok(reel.map(|reel| {
        let at = (seq - reel.stored.position) as usize;
        Found { reel, at }
    }))
}

/// The run of a precedence that holds a number.
pub fn reel_at(
    store: &dyn QueueStore,
    recent: &Recent,
    precedence: Precedence,
    seq: u64,
) -> Result<Option<Arc<Reel>>, StoreError> {
    if let Some(reel) = recent.at(precedence, seq) {
        return Ok(Some(reel));
    }
    let mut found = None;
    store.runs_back(&records(), precedence, seq, &mut |position, value| {
        if let Value::Good(bytes) = value {
            found = Reel::read(position, bytes).filter(|reel| seq < reel.stored.end());
        }
        ControlFlow::Break(())
    })?;
    Ok(found.map(Arc::new))
}
