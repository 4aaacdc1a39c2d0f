//! Finds stored messages: by id, by number, backwards from the newest.
use std::ops::ControlFlow;

use bytes::Bytes;
use extension::storage::{Place, QueueStore, StoreError, Value};
use protocol::{
    MessageId, Precedence,
    codec::Reader,
    limits,
    message::{Blocks, Messages},
    run::Run,
};

use super::rows::{FOUND, number_at, records, stream_of_id, with_numbers};

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
    pub stored: StoredRun,
    /// Its place among those of the run that are there.
    pub at: u32,
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

    /// Its messages with their numbers, in order; what cannot be read ends it.
    pub fn messages(&self) -> impl Iterator<Item = (u64, Bytes, Blocks<'_>)> {
        let messages = Messages::of(&self.run.messages).map_while(Result::ok);
        messages
            .zip(self.position..)
            .map(|((range, blocks), seq)| (seq, self.run.messages.slice(range), blocks))
    }
}

impl Found {
    /// Its number in the records.
    pub fn seq(&self) -> u64 {
        self.stored.position + u64::from(self.at)
    }

    /// Its wire bytes and blocks.
    pub fn blocks(&self) -> Option<(Bytes, Blocks<'_>)> {
        self.stored.messages().nth(self.at as usize).map(|(_, bytes, blocks)| (bytes, blocks))
    }
}

/// Where the message of a number stands in a run, when it is there.
pub fn place_in(run: &Run, sequence: u64) -> Option<u32> {
    let position = u32::try_from(sequence.checked_sub(run.header.first)?).ok()?;
    if position >= run.header.count || run.header.is_left_out(position) {
        return None;
    }
    Some((0..position).filter(|p| !run.header.is_left_out(*p)).count() as u32)
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
            found.push(Found { stored, at });
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
    precedence: Precedence,
    seq: u64,
) -> Result<Option<Found>, StoreError> {
    let Some(stored) = run_before(store, precedence, seq)? else { return Ok(None) };
    if seq >= stored.end() {
        return Ok(None);
    }
    let at = (seq - stored.position) as u32;
    Ok(Some(Found { stored, at }))
}

/// The newest readable run of a precedence that begins at `to` or before.
pub fn run_before(
    store: &dyn QueueStore,
    precedence: Precedence,
    to: u64,
) -> Result<Option<StoredRun>, StoreError> {
    let mut found = None;
    store.runs_back(&records(), precedence, to, &mut |position, value| {
        if let Value::Good(bytes) = value {
            found = StoredRun::read(position, &Bytes::copy_from_slice(bytes));
        }
        if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}

/// Runs of all precedences from the newest back.
pub struct Backwards<'s> {
    store: &'s dyn QueueStore,
    heads: [Option<StoredRun>; 3],
}

impl<'s> Backwards<'s> {
    /// From the run that holds number `to`, or the one before it.
    pub fn from(store: &'s dyn QueueStore, to: u64) -> Result<Self, StoreError> {
        let mut heads = [None, None, None];
        for (head, precedence) in heads.iter_mut().zip(Precedence::ALL) {
            *head = run_before(store, *precedence, to)?;
        }
        Ok(Self { store, heads })
    }

    /// The next run back.
    pub fn next_run(&mut self) -> Result<Option<StoredRun>, StoreError> {
        let newest = (0..3).max_by_key(|p| self.heads[*p].as_ref().map(|r| r.position));
        let Some(newest) = newest else { return Ok(None) };
        let Some(run) = self.heads[newest].take() else { return Ok(None) };
        if let (Some(before), Some(precedence)) =
            (run.position.checked_sub(1), Precedence::ALL.get(newest))
        {
            self.heads[newest] = run_before(self.store, *precedence, before)?;
        }
        Ok(Some(run))
    }
}
