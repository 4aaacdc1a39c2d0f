//! `QueueStore` in memory: the same promises but for the disk, with switches that make it fail.
use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use extension::storage::{
    Change, Moment, Place, QueueName, QueueStore, StoreError, StoreSize, Value, Visit, VisitRow,
};
use protocol::Precedence;

type Runs = BTreeMap<(QueueName, Place), (Bytes, bool)>;
type Rows = BTreeMap<(&'static str, Bytes), (Bytes, bool)>;

/// A store that ends with the process. For tests, and for nodes that keep nothing.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// Value and whether it is good.
    state: Mutex<(Runs, Rows)>,
    fail_next: AtomicBool,
    full: AtomicBool,
    commits: AtomicU64,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next commit fails and changes nothing.
    pub fn fail_next_commit(&self) {
        self.fail_next.store(true, Relaxed);
    }

    /// While full, commits that put something are refused; removals pass.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Relaxed);
    }

    /// Commits made since the beginning.
    pub fn commits(&self) -> u64 {
        self.commits.load(Relaxed)
    }

    /// Damages the run at `place`; `false` where there is none.
    pub fn damage_run(&self, queue: &QueueName, place: Place) -> bool {
        let mut state = self.lock();
        state.0.get_mut(&(queue.clone(), place)).map(|run| run.1 = false).is_some()
    }

    /// Damages a row; `false` where there is none.
    pub fn damage_row(&self, table: &'static str, key: &[u8]) -> bool {
        let mut state = self.lock();
        let key = (table, Bytes::copy_from_slice(key));
        state.1.get_mut(&key).map(|row| row.1 = false).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, (Runs, Rows)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copied out, so that the caller may use the store while it is called.
    fn runs_of(
        &self,
        queue: &QueueName,
        precedence: Precedence,
        (from, to): (u64, u64),
    ) -> Vec<(u64, (Bytes, bool))> {
        let at = |position| (queue.clone(), Place { precedence, position });
        let state = self.lock();
        let range = state.0.range(at(from)..=at(to));
        range.map(|((_, place), run)| (place.position, run.clone())).collect()
    }

    fn rows_of(
        &self,
        table: &'static str,
        prefix: &[u8],
        from: &[u8],
    ) -> Vec<(Bytes, Bytes, bool)> {
        let from = Bytes::copy_from_slice(from.max(prefix));
        let state = self.lock();
        let range = state.1.range((Bound::Included((table, from)), Bound::Unbounded));
        let within = range.take_while(|((t, key), _)| *t == table && key.starts_with(prefix));
        within.map(|((_, key), (value, good))| (key.clone(), value.clone(), *good)).collect()
    }
}

/// Each read is of its own moment.
struct Now<'s>(&'s MemoryStore);

impl Moment for Now<'_> {
    fn row(&self, table: &'static str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.row(table, key)
    }
}

fn show(run: &(Bytes, bool)) -> Value<'_> {
    if run.1 { Value::Good(&run.0) } else { Value::Damaged(&run.0) }
}

fn visit_runs<'r>(runs: impl Iterator<Item = &'r (u64, (Bytes, bool))>, visit: Visit<'_, u64>) {
    for (position, run) in runs {
        if visit(*position, show(run)).is_break() {
            return;
        }
    }
}

fn visit_rows<'r>(
    table: &'static str,
    rows: impl Iterator<Item = &'r (Bytes, Bytes, bool)>,
    visit: VisitRow<'_>,
) -> Result<(), StoreError> {
    let mut damaged = false;
    for (key, value, good) in rows {
        damaged |= !good;
        if *good && visit(key, value) == ControlFlow::Break(()) {
            break;
        }
    }
    if damaged { Err(StoreError::Damaged(table)) } else { Ok(()) }
}

impl QueueStore for MemoryStore {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        if self.fail_next.swap(false, Relaxed) {
            return Err(StoreError::Failed("told to fail".into()));
        }
        let puts = |c: &Change| matches!(c, Change::PutRun { .. } | Change::PutRow { .. });
        if self.full.load(Relaxed) && changes.iter().any(puts) {
            return Err(StoreError::Full("told to be full".into()));
        }
        let mut state = self.lock();
        let (runs, rows) = &mut *state;
        for change in changes.iter().cloned() {
            match change {
                Change::PutRun { queue, place, value } => {
                    runs.insert((queue, place), (value, true));
                }
                Change::RemoveRun { queue, place } => {
                    runs.remove(&(queue, place));
                }
                Change::PutRow { table, key, value } => {
                    rows.insert((table, key), (value, true));
                }
                Change::RemoveRow { table, key } => {
                    rows.remove(&(table, key));
                }
            }
        }
        self.commits.fetch_add(1, Relaxed);
        Ok(())
    }

    fn run(&self, queue: &QueueName, place: Place) -> Result<Option<Bytes>, StoreError> {
        match self.lock().0.get(&(queue.clone(), place)) {
            Some((value, true)) => Ok(Some(value.clone())),
            Some((_, false)) => Err(StoreError::Damaged("runs")),
            None => Ok(None),
        }
    }

    fn runs(
        &self,
        queue: &QueueName,
        precedence: Precedence,
        from: u64,
        visit: Visit<'_, u64>,
    ) -> Result<(), StoreError> {
        visit_runs(self.runs_of(queue, precedence, (from, u64::MAX)).iter(), visit);
        Ok(())
    }

    fn runs_back(
        &self,
        queue: &QueueName,
        precedence: Precedence,
        to: u64,
        visit: Visit<'_, u64>,
    ) -> Result<(), StoreError> {
        visit_runs(self.runs_of(queue, precedence, (0, to)).iter().rev(), visit);
        Ok(())
    }

    fn queues(&self) -> Result<Vec<QueueName>, StoreError> {
        let mut names: Vec<_> = self.lock().0.keys().map(|(queue, _)| queue.clone()).collect();
        names.dedup();
        Ok(names)
    }

    fn row(&self, table: &'static str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.lock().1.get(&(table, Bytes::copy_from_slice(key))) {
            Some((value, true)) => Ok(Some(value.clone())),
            Some((_, false)) => Err(StoreError::Damaged(table)),
            None => Ok(None),
        }
    }

    fn moment(&self) -> Result<Box<dyn Moment + '_>, StoreError> {
        Ok(Box::new(Now(self)))
    }

    fn rows(
        &self,
        table: &'static str,
        prefix: &[u8],
        from: &[u8],
        visit: VisitRow<'_>,
    ) -> Result<(), StoreError> {
        visit_rows(table, self.rows_of(table, prefix, from).iter(), visit)
    }

    fn rows_back(
        &self,
        table: &'static str,
        prefix: &[u8],
        to: &[u8],
        visit: VisitRow<'_>,
    ) -> Result<(), StoreError> {
        let rows = self.rows_of(table, prefix, &[]);
        let below = rows.iter().rev().filter(|(key, ..)| to.is_empty() || &key[..] <= to);
        visit_rows(table, below, visit)
    }

    fn size(&self) -> Result<StoreSize, StoreError> {
        let state = self.lock();
        let runs: usize = state.0.values().map(|(value, _)| value.len()).sum();
        let rows: usize = state.1.iter().map(|((_, key), (v, _))| key.len() + v.len()).sum();
        let free_bytes = if self.full.load(Relaxed) { 0 } else { u64::MAX };
        Ok(StoreSize { file_bytes: (runs + rows) as u64, free_bytes })
    }

    fn compact(&self) -> Result<bool, StoreError> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn put(value: &'static [u8]) -> Change {
        let place = Place { precedence: Precedence::Urgent, position: 1 };
        Change::PutRun { queue: QueueName::new("up"), place, value: Bytes::from_static(value) }
    }

    // DESIGN §11
    #[test]
    fn the_store_in_memory_conforms() {
        extension::storage::conformance::conformance(|| Arc::new(MemoryStore::new()));
    }

    // DESIGN §4.5
    #[test]
    fn a_commit_told_to_fail_changes_nothing_and_the_next_works() {
        let store = MemoryStore::new();
        store.fail_next_commit();
        assert!(matches!(store.commit(&[put(b"a")]), Err(StoreError::Failed(_))));
        assert_eq!(store.queues(), Ok(vec![]));
        assert_eq!(store.commit(&[put(b"a")]), Ok(()));
    }

    // DESIGN §4.5
    #[test]
    fn a_full_store_takes_removals_only() {
        let store = MemoryStore::new();
        assert_eq!(store.commit(&[put(b"a")]), Ok(()));
        store.set_full(true);
        assert!(matches!(store.commit(&[put(b"b")]), Err(StoreError::Full(_))));
        let place = Place { precedence: Precedence::Urgent, position: 1 };
        let remove = Change::RemoveRun { queue: QueueName::new("up"), place };
        assert_eq!(store.commit(&[remove]), Ok(()));
    }
}
