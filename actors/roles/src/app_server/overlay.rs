//! Rows as they will be when what was planned so far is committed.
use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use extension::storage::{Change, QueueStore, StoreError};
use serde::{Serialize, de::DeserializeOwned};

use super::rows::{from_row, to_row};

/// A store with planned changes on it; for reads of single rows.
pub struct Overlay {
    store: Arc<dyn QueueStore>,
    planned: HashMap<(&'static str, Bytes), Option<Bytes>>,
    changes: Vec<Change>,
}

impl Overlay {
    /// Nothing planned yet.
    pub fn new(store: Arc<dyn QueueStore>) -> Self {
        Self { store, planned: HashMap::new(), changes: Vec::new() }
    }

    /// The store below.
    pub fn store(&self) -> &Arc<dyn QueueStore> {
        &self.store
    }

    /// The row of that key; a damaged one counts as none, the store reports it.
    pub fn row(&self, table: &'static str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if !self.planned.is_empty() {
            let wanted = (table, Bytes::copy_from_slice(key));
            if let Some(planned) = self.planned.get(&wanted) {
                return Ok(planned.clone());
            }
        }
        match self.store.row(table, key) {
            Err(StoreError::Damaged(table)) => {
                tracing::error!(table, "a row is damaged and taken as missing");
                Ok(None)
            }
            row => row,
        }
    }

    /// The value of that key.
    pub fn value<T: DeserializeOwned>(
        &self,
        table: &'static str,
        key: &[u8],
    ) -> Result<Option<T>, StoreError> {
        Ok(self.row(table, key)?.and_then(|row| from_row(&row)))
    }

    /// Plans a row.
    pub fn put(&mut self, table: &'static str, key: Bytes, value: Bytes) {
        self.planned.insert((table, key.clone()), Some(value.clone()));
        self.changes.push(Change::PutRow { table, key, value });
    }

    /// Plans a value.
    pub fn put_value<T: Serialize>(&mut self, table: &'static str, key: Bytes, value: &T) {
        self.put(table, key, to_row(value));
    }

    /// Plans that a row goes.
    pub fn remove(&mut self, table: &'static str, key: Bytes) {
        self.planned.insert((table, key.clone()), None);
        self.changes.push(Change::RemoveRow { table, key });
    }

    /// Plans a change that no read needs to see, such as that of a run.
    pub fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// What was planned since it was asked last.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// What was planned is on disk, or will never be.
    pub fn settled(&mut self) {
        self.planned.clear();
        self.changes.clear();
    }
}
