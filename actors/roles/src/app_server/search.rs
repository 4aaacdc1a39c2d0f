//! Searches stored messages newest first: by the index where there is one, in the runs themselves
//! where there is none yet.
use std::{collections::VecDeque, ops::ControlFlow, sync::Arc};

use extension::{
    records::Answer,
    storage::{QueueStore, StoreError},
};
use protocol::Precedence;

use super::{
    index::{Found, reel_at},
    indexer::{self, Index, note_stored, stored_next},
    query::{Desk, WORK_MAX, failed},
    reel::{Recent, Reel},
    rows::INDEX,
    segment::{Candidate, Columns, Names, Segment, Sought, Words, first_of, segment_of, tags},
};

/// Candidates drawn at a time, at least.
const DRAWN_MIN: usize = 64;
/// What a look at the dictionaries of one segment counts as, in messages.
const SEGMENT_WORK: u64 = 64;

/// One search.
pub(crate) struct Search<'s> {
    store: &'s dyn QueueStore,
    recent: &'s Recent,
    index: &'s Index,
    sought: Sought<'s>,
    /// All from this number on was looked at.
    below: u64,
    drawn: VecDeque<Candidate>,
    /// How many are likely to be asked for.
    most: usize,
    /// The run that was read last: neighbours stand in it.
    reel: Option<Arc<Reel>>,
    looked: u64,
}

impl<'s> Search<'s> {
    /// Searches below a number; none: from the newest on. About `most` will be asked for.
    pub(crate) fn new(
        desk: &'s Desk,
        sought: Sought<'s>,
        below: Option<u64>,
        most: usize,
    ) -> Answer<Self> {
        let store = &*desk.store;
        let next = stored_next(store).map_err(failed)?;
        Ok(Self {
            store,
            recent: &desk.recent,
            index: &desk.index,
            sought,
            below: below.map_or(next, |below| below.min(next)),
            drawn: VecDeque::new(),
            most: most.max(DRAWN_MIN),
            reel: None,
            looked: 0,
        })
    }

    /// The next message back that may be meant, `None` at the end; `Err` of a number where the work
    /// of one page is done: a search goes on below it.
    pub(crate) fn next_back(&mut self) -> Answer<Result<Option<Found>, u64>> {
        loop {
            while let Some(candidate) = self.drawn.pop_front() {
                if self.looked >= WORK_MAX as u64 {
                    return Ok(Err(candidate.seq + 1));
                }
                self.looked += 1;
                if let Some(found) = self.fetch(candidate).map_err(failed)? {
                    return Ok(Ok(Some(found)));
                }
            }
            if self.below <= 1 {
                return Ok(Ok(None));
            }
            if self.looked >= WORK_MAX as u64 {
                return Ok(Err(self.below));
            }
            self.draw().map_err(failed)?;
        }
    }

    fn fetch(&mut self, candidate: Candidate) -> Result<Option<Found>, StoreError> {
        let Candidate { seq, precedence } = candidate;
        let holds = |reel: &Reel| reel.stored.position <= seq && seq < reel.stored.end();
        if !self.reel.as_deref().is_some_and(holds) {
            let each = precedence.map_or_else(|| Precedence::ALL.to_vec(), |only| vec![only]);
            for precedence in each {
                if let Some(reel) = reel_at(self.store, self.recent, precedence, seq)? {
                    self.reel = Some(reel);
                    break;
                }
            }
        }
        let Some(reel) = self.reel.as_ref().filter(|reel| holds(reel)) else { return Ok(None) };
        let at = (seq - reel.stored.position) as usize;
        Ok(Some(Found { reel: reel.clone(), at }))
    }

    /// Draws candidates of the segment that ends below, or of a part of it.
    fn draw(&mut self) -> Result<(), StoreError> {
        let number = segment_of(self.below - 1);
        let first = first_of(number);
        self.looked += SEGMENT_WORK;
        if let Some((found, covered)) = self.in_ram(number) {
            if covered < self.below {
                // Stored a moment ago.
                return self.in_runs(covered, self.below);
            }
            self.take(found, first);
            return Ok(());
        }
        match self.on_disk(number)? {
            Some(found) => self.take(found, first),
            None => self.in_runs(first, self.below)?,
        }
        Ok(())
    }

    /// Candidates of a segment that is in RAM, and the number behind what it covers.
    fn in_ram(&self, number: u64) -> Option<(Vec<Candidate>, u64)> {
        let live = self.index.live();
        let here = |segment: &&Segment| segment_of(segment.first()) == number;
        let tail = live.tail.as_ref().filter(here);
        let segment = tail.or_else(|| live.whole.as_deref().filter(here))?;
        let covered = segment.next();
        let found = match covered < self.below {
            true => Vec::new(),
            false => segment.candidates(&self.sought, self.below, self.most),
        };
        Some((found, covered))
    }

    /// Candidates of a segment by its rows; none: it has none that can be read.
    fn on_disk(&self, number: u64) -> Result<Option<Vec<Candidate>>, StoreError> {
        let row = |tag: u8| indexer::row(self.store, self.index, tag, number);
        let is_whole = row(tags::WHOLE)?.is_some_and(|v| *v == [super::segment::ROWS_VERSION]);
        let names = match is_whole {
            true => row(tags::NAMES)?.and_then(|row| Names::of_row(&row)),
            false => None,
        };
        let Some(names) = names else { return Ok(None) };
        let Some(meant) = names.meant(&self.sought) else { return Ok(Some(Vec::new())) };
        let Some(words) = self.words(number)? else { return Ok(None) };
        let Some(columns) = row(tags::COLUMNS)?.and_then(|row| Columns::of_row(&row)) else {
            return Ok(None);
        };
        let words = (!self.sought.words.is_empty()).then_some(&words[..]);
        let (dictionaries, limits) = ((&names, &meant), (self.below, self.most));
        let first = first_of(number);
        Ok(Some(columns.candidates(first, dictionaries, words, &self.sought, limits)))
    }

    /// Which texts of a segment have the words; none: they cannot be read.
    fn words(&self, number: u64) -> Result<Option<Vec<bool>>, StoreError> {
        let mut with = Vec::new();
        if self.sought.words.is_empty() {
            return Ok(Some(with));
        }
        let mut good = true;
        let prefix = super::segment::key(tags::WORDS, number);
        let walked = self.store.rows(INDEX, &prefix, &[], &mut |_, row| {
            match Words::of_row(row) {
                Some(words) => with.append(&mut words.with_all(self.sought.words)),
                None => good = false,
            }
            ControlFlow::Continue(())
        });
        match walked {
            Ok(()) => Ok(good.then_some(with)),
            Err(StoreError::Damaged(_)) => {
                self.index.damaged(number);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the runs themselves, from one number up to another.
    fn in_runs(&mut self, from: u64, until: u64) -> Result<(), StoreError> {
        let mut segment = Segment::new(first_of(segment_of(from)));
        note_stored(self.store, &mut segment, from, until)?;
        self.looked += until - from;
        // All of it at once: it is not read twice.
        let found = segment.candidates(&self.sought, until, usize::MAX);
        self.drawn.extend(found.into_iter().filter(|candidate| candidate.seq >= from));
        self.below = from;
        Ok(())
    }

    fn take(&mut self, found: Vec<Candidate>, first: u64) {
        self.below = match found.last() {
            Some(last) if found.len() >= self.most => last.seq,
            _ => first,
        };
        self.drawn.extend(found);
    }
}
