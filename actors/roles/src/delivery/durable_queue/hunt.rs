//! What is known of `up` on disk between two looks for victims, so that each row and run is read
//! once, however many newcomers want room. Bounded whatever the backlog is (DESIGN §4.6).
use std::{collections::BTreeSet, ops::ControlFlow};

use bytes::Bytes;
use extension::storage::{Place, QueueStore, StoreError};

use crate::delivery::state::{EXPIRY, expiry_key, parse_expiry_key};

/// Runs with something expired that are remembered, by precedence: 16 bytes each. With more the
/// table of what expires is read again when they are used up.
const EXPIRED_MAX: usize = 16_384;

/// Where the looks for victims have come to.
#[derive(Debug, Default)]
pub(super) struct Hunt {
    /// Positions of runs with something expired, by precedence: the oldest [`EXPIRED_MAX`].
    pub(super) expired: [BTreeSet<u64>; 3],
    /// Runs put by the commit in the making that had expired before.
    noted: Vec<Place>,
    /// There were more than those.
    more: bool,
    /// What expired until then was looked at; none: nothing was.
    until: Option<i64>,
    /// Below these positions nothing may be evicted, by precedence…
    pub(super) evict_from: [u64; 3],
    /// …but what was in flight when it was passed.
    pub(super) passed: [BTreeSet<u64>; 3],
}

impl Hunt {
    /// A clock that was set back makes what was known worthless.
    pub(super) fn at(&mut self, now: i64) {
        if self.until.is_some_and(|until| now < until) {
            *self = Self::default();
        }
    }

    /// A run is put that expires `at`; with the next commit it can be read.
    pub(super) fn note(&mut self, at: i64, place: Place) {
        if self.until.is_some_and(|until| at <= until) {
            self.noted.push(place);
        }
    }

    /// What was put before is on disk.
    pub(super) fn begin(&mut self) {
        for place in std::mem::take(&mut self.noted) {
            self.insert(place);
        }
    }

    fn insert(&mut self, place: Place) {
        let expired = &mut self.expired[place.precedence as usize];
        expired.insert(place.position);
        if expired.len() > EXPIRED_MAX {
            expired.pop_last();
            self.more = true;
        }
    }

    /// Looks at what has expired since the last look.
    pub(super) fn look(&mut self, store: &dyn QueueStore, now: i64) -> Result<(), StoreError> {
        if self.until == Some(now) {
            return Ok(());
        }
        let from = self.until.map_or(Bytes::new(), |until| {
            let (precedence, position) = (protocol::Precedence::Urgent, 0);
            expiry_key(until + 1, Place { precedence, position })
        });
        store.rows(EXPIRY, &[], &from, &mut |key, _| {
            match parse_expiry_key(key) {
                Some((at, _)) if at > now => return ControlFlow::Break(()),
                Some((_, place)) => self.insert(place),
                None => {}
            }
            ControlFlow::Continue(())
        })?;
        self.until = Some(now);
        Ok(())
    }

    /// Looks at all that has expired anew, where the last such look found more than it remembers.
    /// `false`: it did not.
    pub(super) fn look_again(
        &mut self,
        store: &dyn QueueStore,
        now: i64,
    ) -> Result<bool, StoreError> {
        if !self.more {
            return Ok(false);
        }
        self.expired = Default::default();
        (self.more, self.until) = (false, None);
        self.look(store, now)?;
        Ok(true)
    }
}
