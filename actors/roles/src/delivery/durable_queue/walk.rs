//! Looks through `up` on disk for messages that may go, oldest first.
use std::{collections::HashSet, ops::ControlFlow};

use bytes::Bytes;
use extension::storage::{Place, QueueName, QueueStore, StoreError, Value};
use protocol::{Precedence, message::Messages};

use super::{UP, place_of, put::read_head};
use crate::delivery::{
    eviction::{Held, Victim},
    lanes::gone_key,
    runs::{Gone, StoredRun, Traits, received},
    state::EXPIRY,
};

/// One look for victims.
pub(super) struct Walk<'a> {
    pub(super) store: &'a dyn QueueStore,
    pub(super) now: i64,
    /// Runs in flight stay: what is on its way is settled by its answer.
    pub(super) flying: HashSet<Place>,
    /// Victims named before.
    pub(super) given: HashSet<(Place, u32)>,
    /// Below these positions nothing may be evicted, by precedence.
    pub(super) evict_from: [u64; 3],
}

impl Walk<'_> {
    /// The first message of a run that `wanted` says yes to.
    fn first_in(
        &self,
        place: Place,
        stored: &StoredRun,
        gone: &Gone,
        wanted: &dyn Fn(&Traits) -> bool,
    ) -> Option<Victim> {
        let header = &stored.run.header;
        let there = (0..header.count).filter(|p| !header.is_left_out(*p));
        there.zip(Messages::of(&stored.run.messages)).find_map(|(at, message)| {
            let (range, blocks) = message.ok()?;
            if gone.has(at) || self.given.contains(&(place, at)) {
                return None;
            }
            let traits = Traits::of(&blocks.decode().ok()?, range.len());
            wanted(&traits).then_some(Victim { place, at, bytes: range.len() as u64 })
        })
    }

    fn give(&mut self, victim: Option<Victim>) -> Option<Victim> {
        self.given.extend(victim.map(|v| (v.place, v.at)));
        victim
    }

    /// Runs of which something has expired, by the table of what expires.
    fn expired_places(&self) -> Result<Vec<Place>, StoreError> {
        let mut places = Vec::new();
        self.store.rows(EXPIRY, &[], &[], &mut |key, _| {
            let Some((at, place)) = read_expiry_key(key) else { return ControlFlow::Continue(()) };
            if at > self.now {
                return ControlFlow::Break(());
            }
            places.push(place);
            ControlFlow::Continue(())
        })?;
        Ok(places)
    }
}

/// Whether a message of that run has outlived its time at `now`.
pub(super) fn has_expired(stored: &StoredRun, traits: &Traits, now: i64) -> bool {
    let header = &stored.run.header;
    let at = traits.expires_at(received(header), header.age_before_ms());
    at.is_some_and(|at| at <= now)
}

fn read_expiry_key(key: &[u8]) -> Option<(i64, Place)> {
    let (at, rest) = key.split_first_chunk()?;
    let (precedence, position) = rest.split_first()?;
    let precedence = Precedence::from_number(*precedence)?;
    let position = u64::from_be_bytes(position.try_into().ok()?);
    Some((i64::from_be_bytes(*at), place_of(precedence, position)))
}

impl Held<StoreError> for Walk<'_> {
    fn next_expired(&mut self, within: Option<Precedence>) -> Result<Option<Victim>, StoreError> {
        let up = QueueName::new(UP);
        let mut oldest: Option<(i64, Victim)> = None;
        for place in self.expired_places()? {
            if within.is_some_and(|w| w != place.precedence) || self.flying.contains(&place) {
                continue;
            }
            let Some(head) = read_head(self.store, &up, place)? else { continue };
            let wanted = |t: &Traits| has_expired(&head.stored, t, self.now);
            let found = self.first_in(place, &head.stored, &head.gone, &wanted);
            let since = received(&head.stored.run.header);
            if let Some(found) = found
                && oldest.is_none_or(|o| since < o.0)
            {
                oldest = Some((since, found));
            }
        }
        Ok(self.give(oldest.map(|o| o.1)))
    }

    fn next_evictable(&mut self, precedence: Precedence) -> Result<Option<Victim>, StoreError> {
        let up = QueueName::new(UP);
        let from = self.evict_from[precedence as usize];
        let mut found = None;
        let mut failed = None;
        // A run in flight may come back, so the mark may not pass it.
        let mut mark = None;
        self.store.runs(&up, precedence, from, &mut |position, value| {
            let place = place_of(precedence, position);
            let Value::Good(raw) = value else { return ControlFlow::Continue(()) };
            if self.flying.contains(&place) {
                mark.get_or_insert(position);
                return ControlFlow::Continue(());
            }
            let stored = StoredRun::decode(&Bytes::copy_from_slice(raw));
            let Ok(stored) = stored else { return ControlFlow::Continue(()) };
            if stored.assured >= stored.run.header.present() {
                return ControlFlow::Continue(());
            }
            let gone = match self.store.row("gone", &gone_key(&up, place)) {
                Ok(row) => row.map(|row| Gone::from_bytes(&row)).unwrap_or_default(),
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            };
            let wanted = |t: &Traits| !t.assured && !has_expired(&stored, t, self.now);
            found = self.first_in(place, &stored, &gone, &wanted);
            if found.is_some() {
                mark.get_or_insert(position);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if let Some(failed) = failed {
            return Err(failed);
        }
        if let Some(mark) = mark {
            self.evict_from[precedence as usize] = mark;
        }
        Ok(self.give(found))
    }
}
