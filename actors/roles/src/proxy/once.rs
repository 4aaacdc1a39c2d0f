//! Calls that say what tells them from all others (`once`): stored once, under whatever number they
//! come again.
//!
//! A stream's numbers find what a client repeats; they cannot find what the sender behind a client
//! repeats to its next process, which gives it a number of its own. Such a call brings a key. A row
//! for each stands in the commit of its message, and all that is known is in memory, too: bounded
//! by [`ONCE_KEPT_MAX`], read from disk when the first such call comes. Calls without a key find
//! nothing of this.
//!
//! Forgetting too early, by the bound or by a clock that jumps, costs a duplicate and never a
//! message.
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use extension::storage::{Change, QueueStore, StoreError};
use protocol::limits::{ONCE_KEPT_MAX, ONCE_KEPT_MS};
use xxhash_rust::xxh3::Xxh3;

/// Calls with a key that were stored. Key: a counter, so that rows are put at the end and taken
/// from the front. Value: when, ms since 1970 UTC; what [`key_of`] makes.
pub const ONCE: &str = "once";
/// Rows that are taken away with each new one, so that many that are old at once hold up nobody.
const FORGOTTEN_WITH_EACH: usize = 2;

/// What is to be done with a call that has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is new, and nobody else may store it until this claim is settled. The number is its
    /// row's.
    New(u64),
    /// It was stored.
    Before,
    /// It is on its way to disk.
    Underway,
}

#[derive(Default)]
struct Known {
    /// By what [`key_of`] makes: the row.
    rows: HashMap<Bytes, u64>,
    /// By row: when, and the key.
    by_age: BTreeMap<u64, (i64, Bytes)>,
    /// Claimed and not settled.
    claimed: HashSet<Bytes>,
    /// Whether what is on disk was read.
    is_read: bool,
    /// The next row. Only grows while the process lives: one that was claimed may yet be stored.
    next: u64,
}

/// The calls with a key that are known. One per proxy, for what an integrator repeats may come
/// while its last connection still has it in hand.
pub struct Once {
    store: Arc<dyn QueueStore>,
    known: Mutex<Known>,
}

/// Claims of one commit. What is dropped without [`Claims::settle`] may be on disk or not: all is
/// read from there again.
pub struct Claims {
    once: Arc<Once>,
    now: i64,
    /// Position of the message, its row, and the key.
    each: Vec<(usize, u64, Bytes)>,
}

impl Once {
    /// Those of a store.
    pub fn new(store: Arc<dyn QueueStore>) -> Self {
        Self { store, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims what [`key_of`] made. The changes take away what is too old; they may go with any
    /// later commit.
    pub fn claim(&self, key: &Bytes, now: i64) -> Result<(Claim, Vec<Change>), StoreError> {
        let mut known = self.lock();
        if !known.is_read {
            known.read(&*self.store)?;
        }
        if known.claimed.contains(key) {
            return Ok((Claim::Underway, Vec::new()));
        }
        let row = known.rows.get(key).and_then(|row| known.by_age.get(row));
        if row.is_some_and(|(at, _)| is_young(*at, now)) {
            return Ok((Claim::Before, Vec::new()));
        }
        known.claimed.insert(key.clone());
        let row = known.next;
        known.next += 1;
        Ok((Claim::New(row), known.forget(now)))
    }
}

impl Known {
    fn read(&mut self, store: &dyn QueueStore) -> Result<(), StoreError> {
        self.rows.clear();
        self.by_age.clear();
        store.rows(ONCE, &[], &[], &mut |key, value| {
            if let (Ok(row), Some((at, key))) = (key.try_into(), value.split_first_chunk()) {
                let key = Bytes::copy_from_slice(key);
                self.note(u64::from_be_bytes(row), i64::from_be_bytes(*at), key);
            }
            ControlFlow::Continue(())
        })?;
        self.is_read = true;
        Ok(())
    }

    /// That row is on disk.
    fn note(&mut self, row: u64, at: i64, key: Bytes) {
        self.rows.insert(key.clone(), row);
        self.by_age.insert(row, (at, key));
        self.next = self.next.max(row.saturating_add(1));
    }

    fn forget(&mut self, now: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < FORGOTTEN_WITH_EACH {
            let too_many = self.by_age.len() >= ONCE_KEPT_MAX;
            let Some(oldest) = self.by_age.first_entry() else { break };
            if !too_many && is_young(oldest.get().0, now) {
                break;
            }
            let (row, (_, key)) = oldest.remove_entry();
            // The key may have come again since, in a younger row.
            if self.rows.get(&key) == Some(&row) {
                self.rows.remove(&key);
            }
            changes.push(Change::RemoveRow { table: ONCE, key: row_key(row) });
        }
        changes
    }
}

impl Claims {
    /// None yet.
    pub fn new(once: &Arc<Once>, now: i64) -> Self {
        Self { once: once.clone(), now, each: Vec::new() }
    }

    /// A claim of the message at that position; the change that goes with it.
    pub fn add(&mut self, at: usize, row: u64, key: Bytes) -> Change {
        let value = [&self.now.to_be_bytes(), &key[..]].concat().into();
        self.each.push((at, row, key));
        Change::PutRow { table: ONCE, key: row_key(row), value }
    }

    /// The position of the message in this commit that has that key.
    pub fn position(&self, key: &Bytes) -> Option<usize> {
        self.each.iter().find(|(.., claimed)| claimed == key).map(|(at, ..)| *at)
    }

    /// What became of the messages is known: whether those at these positions are on disk.
    pub fn settle(mut self, is_kept: impl Fn(usize) -> bool) {
        let mut known = self.once.lock();
        for (at, row, key) in std::mem::take(&mut self.each) {
            known.claimed.remove(&key);
            if is_kept(at) && known.is_read {
                known.note(row, self.now, key);
            }
        }
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        if self.each.is_empty() {
            return;
        }
        let mut known = self.once.lock();
        for (.., key) in &self.each {
            known.claimed.remove(key);
        }
        known.is_read = false;
    }
}

/// The key of a call among those of all integrators: of one, its class and its instance. All
/// scripts of a host that name no integrator are one, and each counts its runs by itself.
pub fn key_of(integrator: u32, class: &str, instance: &str, once: &[u8]) -> Bytes {
    // A digest, so that a long name costs no memory; a class is a word and has no zero in it.
    let mut about = Xxh3::new();
    about.update(class.as_bytes());
    about.update(&[0]);
    about.update(instance.as_bytes());
    [&integrator.to_be_bytes(), &about.digest128().to_be_bytes()[..], once].concat().into()
}

fn row_key(row: u64) -> Bytes {
    Bytes::copy_from_slice(&row.to_be_bytes())
}

fn is_young(at: i64, now: i64) -> bool {
    // A clock that was set back makes rows of the future; they are old, or would be known for long.
    now.abs_diff(at) <= ONCE_KEPT_MS.unsigned_abs()
}

/// The changes that take away what is too old, at most `most`: where no call with a key comes any
/// more, nothing else does.
pub fn old(store: &dyn QueueStore, now: i64, most: usize) -> Result<Vec<Change>, StoreError> {
    let mut changes = Vec::new();
    store.rows(ONCE, &[], &[], &mut |key, value| {
        let at = value.first_chunk().map(|at| i64::from_be_bytes(*at));
        if at.is_none_or(|at| !is_young(at, now)) {
            let key = Bytes::copy_from_slice(key);
            changes.push(Change::RemoveRow { table: ONCE, key });
        }
        match changes.len() < most {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use module_memory::MemoryStore;

    use super::*;

    const NOW: i64 = 1_795_348_800_000;

    fn once(store: &Arc<MemoryStore>) -> Arc<Once> {
        Arc::new(Once::new(store.clone()))
    }

    /// Claims a key and stores it where it is new.
    fn store_one(store: &MemoryStore, once: &Arc<Once>, key: &[u8], now: i64) -> Claim {
        let key = Bytes::copy_from_slice(key);
        let (claim, mut changes) = once.claim(&key, now).unwrap();
        if let Claim::New(row) = claim {
            let mut claims = Claims::new(once, now);
            changes.push(claims.add(0, row, key));
            store.commit(&changes).unwrap();
            claims.settle(|_| true);
        }
        claim
    }

    fn on_disk(store: &MemoryStore) -> usize {
        old(store, i64::MAX, usize::MAX).unwrap().len()
    }

    #[test]
    fn a_key_is_known_for_ten_minutes_over_a_restart_and_is_new_after_that() {
        let store = Arc::new(MemoryStore::new());
        let first = once(&store);
        assert_eq!(store_one(&store, &first, b"a", NOW), Claim::New(0));
        for once in [first, once(&store)] {
            assert_eq!(store_one(&store, &once, b"a", NOW), Claim::Before);
            assert_eq!(store_one(&store, &once, b"a", NOW + ONCE_KEPT_MS), Claim::Before);
        }
        let again = once(&store);
        assert_eq!(store_one(&store, &again, b"a", NOW + ONCE_KEPT_MS + 1), Claim::New(1));
        assert_eq!(store_one(&store, &again, b"a", NOW + 2 * ONCE_KEPT_MS), Claim::Before);
        assert_eq!(on_disk(&store), 1, "the old row is gone");
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nothing_known_for_ever() {
        let store = Arc::new(MemoryStore::new());
        let once = once(&store);
        assert_eq!(store_one(&store, &once, b"a", NOW), Claim::New(0));
        assert_eq!(store_one(&store, &once, b"a", NOW - ONCE_KEPT_MS - 1), Claim::New(1));
    }

    #[test]
    fn what_is_claimed_is_underway_until_it_is_settled() {
        let store = Arc::new(MemoryStore::new());
        let once = once(&store);
        let key = Bytes::from_static(b"a");
        let claim = |expected| assert_eq!(once.claim(&key, NOW).unwrap().0, expected);
        let held = |row| {
            let mut claims = Claims::new(&once, NOW);
            (claims.add(3, row, key.clone()), claims)
        };
        claim(Claim::New(0));
        let (_, claims) = held(0);
        claim(Claim::Underway);
        claims.settle(|_| false);
        // It found no room. The next one is on disk, but nobody learns it: the disk is asked.
        claim(Claim::New(1));
        let (change, claims) = held(1);
        store.commit(&[change]).unwrap();
        drop(claims);
        claim(Claim::Before);
    }

    #[test]
    fn memory_and_disk_are_bounded_and_the_oldest_go_first() {
        let store = Arc::new(MemoryStore::new());
        let once = once(&store);
        for n in 0..ONCE_KEPT_MAX as u32 + 100 {
            store_one(&store, &once, &n.to_be_bytes(), NOW);
        }
        {
            let known = once.lock();
            assert_eq!((known.by_age.len(), known.rows.len()), (ONCE_KEPT_MAX, ONCE_KEPT_MAX));
        }
        assert_eq!(on_disk(&store), ONCE_KEPT_MAX);
        assert_eq!(store_one(&store, &once, &100_u32.to_be_bytes(), NOW), Claim::Before);
        assert!(matches!(store_one(&store, &once, &99_u32.to_be_bytes(), NOW), Claim::New(_)));
        let later = NOW + ONCE_KEPT_MS + 1;
        assert_eq!(old(&*store, NOW, 10).unwrap().len(), 0);
        assert_eq!(old(&*store, later, 10).unwrap().len(), 10);
        store.commit(&old(&*store, later, usize::MAX).unwrap()).unwrap();
        assert_eq!(on_disk(&store), 0);
    }
}
