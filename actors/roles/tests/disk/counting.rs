//! A store that counts what is read of it.
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use extension::storage::{
    Change, Moment, Place, QueueName, QueueStore, StoreError, StoreSize, Visit, VisitRow,
};
use protocol::Precedence;

/// Counts runs and rows that are read.
pub struct Counting {
    pub store: Arc<dyn QueueStore>,
    pub runs: AtomicU64,
    pub rows: AtomicU64,
}

impl Counting {
    pub fn new(store: Arc<dyn QueueStore>) -> Arc<Self> {
        Arc::new(Self { store, runs: AtomicU64::new(0), rows: AtomicU64::new(0) })
    }

    /// Runs and rows read since the last call.
    pub fn read(&self) -> (u64, u64) {
        (self.runs.swap(0, Ordering::Relaxed), self.rows.swap(0, Ordering::Relaxed))
    }
}

impl QueueStore for Counting {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.store.commit(changes)
    }

    fn run(&self, queue: &QueueName, place: Place) -> Result<Option<Bytes>, StoreError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.store.run(queue, place)
    }

    fn runs(
        &self,
        queue: &QueueName,
        precedence: Precedence,
        from: u64,
        visit: Visit<'_, u64>,
    ) -> Result<(), StoreError> {
        self.store.runs(queue, precedence, from, &mut |position, value| {
            self.runs.fetch_add(1, Ordering::Relaxed);
            visit(position, value)
        })
    }

    fn runs_back(
        &self,
        queue: &QueueName,
        precedence: Precedence,
        to: u64,
        visit: Visit<'_, u64>,
    ) -> Result<(), StoreError> {
        self.store.runs_back(queue, precedence, to, visit)
    }

    fn queues(&self) -> Result<Vec<QueueName>, StoreError> {
        self.store.queues()
    }

    fn row(&self, table: &'static str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.row(table, key)
    }

    fn moment(&self) -> Result<Box<dyn Moment + '_>, StoreError> {
        self.store.moment()
    }

    fn rows(
        &self,
        table: &'static str,
        prefix: &[u8],
        from: &[u8],
        visit: VisitRow<'_>,
    ) -> Result<(), StoreError> {
        self.store.rows(table, prefix, from, &mut |key, value| {
            self.rows.fetch_add(1, Ordering::Relaxed);
            visit(key, value)
        })
    }

    fn rows_back(
        &self,
        table: &'static str,
        prefix: &[u8],
        to: &[u8],
        visit: VisitRow<'_>,
    ) -> Result<(), StoreError> {
        self.store.rows_back(table, prefix, to, visit)
    }

    fn size(&self) -> Result<StoreSize, StoreError> {
        self.store.size()
    }

    fn compact(&self) -> Result<bool, StoreError> {
        self.store.compact()
    }
}
