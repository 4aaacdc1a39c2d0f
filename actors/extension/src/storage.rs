//! What a node keeps on disk: runs in queues, rows in tables, changed all together or not at all.
use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use protocol::Precedence;

pub mod conformance;

/// Table of the runs that a store found damaged at an opening and cut out. Key: queue name, 0,
/// precedence, position; value: what is left of the run. The queue accounts for them and removes
/// them.
pub const CUT: &str = "cut";

/// Name of a queue: `up`, `down/ID`, `local/NAME`, `serve/MODULE`, `set-aside`, `records`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName(pub Arc<str>);

impl QueueName {
    /// A queue of that name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }
}

impl std::fmt::Display for QueueName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// Where a run stands: positions grow in a store and are never used again in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Queues are ordered by precedence first.
    pub precedence: Precedence,
    /// Then by position.
    pub position: u64,
}

/// One change of a commit. Applied in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stores a run; one that stands there already is replaced.
    PutRun {
        /// In which queue.
        queue: QueueName,
        /// Where in it.
        place: Place,
        /// Any bytes; the store adds magic, length and digest.
        value: Bytes,
    },
    /// Removes a run; nothing happens where there is none.
    RemoveRun {
        /// From which queue.
        queue: QueueName,
        /// Where in it.
        place: Place,
    },
    /// Stores a row; one with that key is replaced.
    PutRow {
        /// In which table; the name is part of the store's format.
        table: &'static str,
        /// Ordered as bytes.
        key: Bytes,
        /// Any bytes.
        value: Bytes,
    },
    /// Removes a row; nothing happens where there is none.
    RemoveRow {
        /// From which table.
        table: &'static str,
        /// Its key.
        key: Bytes,
    },
}

/// A stored value as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// What was put, by its digest.
    Good(&'a [u8]),
    /// Something else: what is there is shown so that it can be set aside (DESIGN §4.5).
    Damaged(&'a [u8]),
}

/// Why the store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Less free space than is to be kept, or none at all. Nothing was changed; removals still
    /// work.
    #[error("disk is full: {0}")]
    Full(String),
    /// The disk or the file fails. Whether the commit was made is not known: read again what
    /// matters. The store tries to work again with each call; where its file is damaged it fails
    /// until it is opened anew.
    #[error("store failed: {0}")]
    Failed(String),
    /// A row (or, for table `runs`, a run) does not have its digest.
    #[error("row of table {0} is damaged")]
    Damaged(&'static str),
}

/// How big a store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Bytes free on its disk.
    pub free_bytes: u64,
}

/// Called with each entry; breaks off when it has seen enough.
pub type Visit<'v, K> = &'v mut dyn for<'a> FnMut(K, Value<'a>) -> ControlFlow<()>;
/// As [`Visit`], for rows: key and value.
pub type VisitRow<'v> = &'v mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Rows of one moment: many reads for the price of one. It may keep the store from using space
/// again: drop it soon. What is committed meanwhile may be seen or not.
pub trait Moment {
    /// As [`QueueStore::row`].
    fn row(&self, table: &'static str, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
}

/// The durable state of one node. One thread commits; any thread reads what was committed last.
///
/// Methods block on the disk: call [`commit`](Self::commit) on the store's own thread.
pub trait QueueStore: Send + Sync {
    /// Makes all changes or none. When it returns `Ok` they survive a power cut.
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError>;

    /// The run at `place`, if there is one; [`StoreError::Damaged`] where it does not have its
    /// digest ([`runs`](Self::runs) shows what is there).
    fn run(&self, queue: &QueueName, place: Place) -> Result<Option<Bytes>, StoreError>;

    /// Runs of one precedence from `from` on, oldest first. A damaged run does not end the walk.
    fn runs(
        &self,
        queue: &QueueName,
        precedence: Precedence,
        from: u64,
        visit: Visit<'_, u64>,
    ) -> Result<(), StoreError>;

    /// Runs of one precedence from `to` (inclusive) back, newest first.
    fn runs_back(
        &self,
        queue: &QueueName,
        precedence: Precedence,
        to: u64,
        visit: Visit<'_, u64>,
    ) -> Result<(), StoreError>;

    /// Names of the queues that hold anything.
    fn queues(&self) -> Result<Vec<QueueName>, StoreError>;

    /// The row of that key.
    fn row(&self, table: &'static str, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// For reads of many single rows.
    fn moment(&self) -> Result<Box<dyn Moment + '_>, StoreError>;

    /// Rows whose key starts with `prefix` and is not below `from`, in order. Damaged rows are
    /// passed over, and told with [`StoreError::Damaged`] at the end.
    fn rows(
        &self,
        table: &'static str,
        prefix: &[u8],
        from: &[u8],
        visit: VisitRow<'_>,
    ) -> Result<(), StoreError>;

    /// Rows whose key starts with `prefix` and is not above `to` (all where `to` is empty),
    /// in reverse order.
    fn rows_back(
        &self,
        table: &'static str,
        prefix: &[u8],
        to: &[u8],
        visit: VisitRow<'_>,
    ) -> Result<(), StoreError>;

    /// How big it is.
    fn size(&self) -> Result<StoreSize, StoreError>;

    /// Gives space back where that is cheap: nearly empty. `true` when it did.
    fn compact(&self) -> Result<bool, StoreError>;

    /// Keeps a damaged run that is about to be removed where people look at it (DESIGN §4.5);
    /// a store without such a place does nothing.
    fn set_aside(&self, queue: &QueueName, place: Place, value: &[u8]) -> Result<(), StoreError> {
        let _ = (queue, place, value);
        Ok(())
    }

    /// The largest value of at most `at_most` bytes that wastes nothing of what the store
    /// allots to a run: cut runs there. `at_most` itself where all sizes are alike.
    fn fitting(&self, queue: &QueueName, at_most: usize) -> usize {
        let _ = queue;
        at_most
    }
}
