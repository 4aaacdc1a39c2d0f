//! Looks through `up` on disk for messages that may go, oldest first.
use std::{
    collections::{HashMap, HashSet, VecDeque},
    ops::ControlFlow,
};

use bytes::Bytes;
use extension::storage::{Place, QueueName, QueueStore, StoreError, Value};
use protocol::Precedence;

use super::{
    UP,
    hunt::Hunt,
    place_of,
    put::{AtHand, read_head},
};
use crate::delivery::{
    eviction::{Held, Victim},
    lanes::{DamagedRun, Head, gone_key},
    runs::{Gone, StoredRun, Traits},
    state::GONE,
};

/// One look for victims.
pub(super) struct Walk<'a> {
    store: &'a dyn QueueStore,
    now: i64,
    /// Runs that are passed over: those in flight, while there are others.
    flying: &'a HashSet<Place>,
    /// What of runs is gone when the commit in the making is made.
    planned: &'a HashMap<Place, Gone>,
    hunt: &'a mut Hunt,
    at_hand: &'a mut AtHand,
    /// Victims of the run that was looked at last, by precedence.
    expired: [VecDeque<Victim>; 3],
    evictable: [VecDeque<Victim>; 3],
    /// Behind the run on disk whose victims were named last, by precedence.
    from: [Option<u64>; 3],
    /// Runs passed in flight whose victims were named.
    used: HashSet<Place>,
    /// Runs that are damaged.
    pub(super) damaged: Vec<DamagedRun>,
    looked_again: bool,
}

/// Whether a message of that run has outlived its time at `now`.
fn has_expired(stored: &StoredRun, traits: &Traits, now: i64) -> bool {
    stored.expires_at(traits).is_some_and(|at| at <= now)
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        store: &'a dyn QueueStore,
        now: i64,
        (flying, planned): (&'a HashSet<Place>, &'a HashMap<Place, Gone>),
        (hunt, at_hand): (&'a mut Hunt, &'a mut AtHand),
    ) -> Self {
        Self {
            store,
            now,
            flying,
            planned,
            hunt,
            at_hand,
            expired: Default::default(),
            evictable: Default::default(),
            from: [None; 3],
            used: HashSet::new(),
            damaged: Vec::new(),
            looked_again: false,
        }
    }

    /// A run as it is after what was planned.
    fn read(&mut self, place: Place) -> Result<Option<Head>, StoreError> {
        let read = read_head(self.store, &QueueName::new(UP), place, self.at_hand)?;
        let mut head = read.unwrap_or_else(|damaged| {
            self.damaged.push(damaged);
            None
        });
        if let (Some(head), Some(gone)) = (&mut head, self.planned.get(&place)) {
            head.gone = gone.clone();
        }
        Ok(head)
    }

    /// The oldest run with something expired, of those precedences.
    fn oldest_expired(&self, within: Option<Precedence>) -> Option<Place> {
        let wanted = Precedence::ALL.iter().filter(|p| within.is_none_or(|within| within == **p));
        let places = wanted.filter_map(|precedence| {
            let positions = self.hunt.expired[*precedence as usize].iter();
            let mut places = positions.map(|position| place_of(*precedence, *position));
            places.find(|place| !self.flying.contains(place))
        });
        // Positions are given in the order of arrival, over all precedences.
        places.min_by_key(|place| place.position)
    }

    /// Finds the next run with messages that may be evicted; `false`: there is none.
    fn find_evictable(&mut self, precedence: Precedence) -> Result<bool, StoreError> {
        let lane = precedence as usize;
        // What was in flight when it was passed may be back.
        let back = |walk: &Self| {
            let mut places = walk.hunt.passed[lane].iter().map(|at| place_of(precedence, *at));
            places.find(|place| !walk.flying.contains(place) && !walk.used.contains(place))
        };
        while let Some(place) = back(self) {
            self.evictable[lane] =
                self.read(place)?.map(|head| evictable(&head, place, self.now)).unwrap_or_default();
            if !self.evictable[lane].is_empty() {
                self.used.insert(place);
                return Ok(true);
            }
            self.hunt.passed[lane].remove(&place.position);
        }
        let from = self.from[lane].unwrap_or(self.hunt.evict_from[lane]);
        let (end, found) = self.evictable_from(precedence, from)?;
        // A plan may name victims and not take them: the mark stays before the first.
        if self.from[lane].is_none() {
            self.hunt.evict_from[lane] = end;
        }
        if found {
            self.from[lane] = Some(end + 1);
        }
        Ok(found)
    }

    /// Looks from a position on. Answers where it stopped, and whether at victims.
    fn evictable_from(
        &mut self,
        precedence: Precedence,
        from: u64,
    ) -> Result<(u64, bool), StoreError> {
        let up = QueueName::new(UP);
        let (mut end, mut victims, mut failed) = (from, VecDeque::new(), None);
        let (hunt, damaged) = (&mut self.hunt, &mut self.damaged);
        self.store.runs(&up, precedence, from, &mut |position, value| {
            let place = place_of(precedence, position);
            end = position + 1;
            if self.flying.contains(&place) {
                hunt.passed[precedence as usize].insert(position);
                return ControlFlow::Continue(());
            }
            let (raw, good) = match value {
                Value::Good(raw) => (Bytes::copy_from_slice(raw), true),
                Value::Damaged(raw) => (Bytes::copy_from_slice(raw), false),
            };
            let stored = match StoredRun::decode(&raw) {
                Ok(stored) if good => stored,
                _ => {
                    damaged.push(DamagedRun { place, bytes: raw });
                    return ControlFlow::Continue(());
                }
            };
            if stored.assured >= stored.run.header.present() {
                return ControlFlow::Continue(());
            }
            let gone = match self.planned.get(&place) {
                Some(gone) => Ok(gone.clone()),
                None => self
                    .store
                    .row(GONE, &gone_key(&up, place))
                    .map(|row| row.map(|row| Gone::from_bytes(&row)).unwrap_or_default()),
            };
            match gone {
                Ok(gone) => {
                    let head = Head { position, stored, gone, flight: None, sent: 0 };
                    victims = evictable(&head, place, self.now);
                }
                Err(error) => failed = Some(error),
            }
            match victims.is_empty() && failed.is_none() {
                true => ControlFlow::Continue(()),
                false => {
                    end = position;
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(failed) = failed {
            return Err(failed);
        }
        let found = !victims.is_empty();
        self.evictable[precedence as usize] = victims;
        Ok((end, found))
    }
}

/// The messages of a run that may be evicted.
fn evictable(head: &Head, place: Place, now: i64) -> VecDeque<Victim> {
    victims(head, place, |t| !t.assured && !has_expired(&head.stored, t, now))
}

fn victims(head: &Head, place: Place, wanted: impl Fn(&Traits) -> bool) -> VecDeque<Victim> {
    let left = head.stored.left(&head.gone).filter(|(_, traits)| wanted(traits));
    left.map(|(at, traits)| Victim { place, at, bytes: traits.bytes as u64 }).collect()
}

impl Held<StoreError> for Walk<'_> {
    fn next_expired(&mut self, within: Option<Precedence>) -> Result<Option<Victim>, StoreError> {
        self.hunt.look(self.store, self.now)?;
        loop {
            let Some(place) = self.oldest_expired(within) else {
                // At most once a walk: what is found anew may lead nowhere again.
                if self.looked_again || !self.hunt.look_again(self.store, self.now)? {
                    return Ok(None);
                }
                self.looked_again = true;
                continue;
            };
            let lane = place.precedence as usize;
            if self.expired[lane].is_empty() {
                let (head, now) = (self.read(place)?, self.now);
                let late =
                    |head: Head| victims(&head, place, |t| has_expired(&head.stored, t, now));
                self.expired[lane] = head.map(late).unwrap_or_default();
            }
            let victim = self.expired[lane].pop_front();
            // Expired victims go whatever is decided, so the last of a run is the end of it.
            if self.expired[lane].is_empty() {
                self.hunt.expired[lane].remove(&place.position);
            }
            if victim.is_some() {
                return Ok(victim);
            }
        }
    }

    fn next_evictable(&mut self, precedence: Precedence) -> Result<Option<Victim>, StoreError> {
        let lane = precedence as usize;
        if self.evictable[lane].is_empty() && !self.find_evictable(precedence)? {
            return Ok(None);
        }
        Ok(self.evictable[lane].pop_front())
    }
}
