//! Rows of one service module as they will be when the effects so far are committed.
use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use bytes::Bytes;
use extension::{
    service::{Rows, ServiceError},
    storage::{Change, Moment, QueueStore, StoreError},
};

use super::rows::{SERVICES, service_key};

/// A module's rows with drafted changes on them.
pub(crate) struct ModuleRows<'s> {
    store: &'s dyn QueueStore,
    /// From the first read of a batch on: what others write meanwhile is for the next batch.
    moment: OnceCell<Box<dyn Moment + 's>>,
    module: &'s str,
    drafted: BTreeMap<Bytes, Option<Bytes>>,
}

impl<'s> ModuleRows<'s> {
    pub(crate) fn of(store: &'s dyn QueueStore, module: &'s str) -> Self {
        Self { store, moment: OnceCell::new(), module, drafted: BTreeMap::new() }
    }

    pub(crate) fn draft(&mut self, key: Bytes, value: Option<Bytes>) {
        self.drafted.insert(key, value);
    }

    /// One change a row, however often it was drafted; and the keys that were put.
    pub(crate) fn into_changes(self) -> (Vec<Change>, Vec<Bytes>) {
        let mut put = Vec::new();
        let changes = self.drafted.into_iter().map(|(key, value)| {
            let whole = service_key(self.module, &key);
            match value {
                Some(value) => {
                    put.push(key);
                    Change::PutRow { table: SERVICES, key: whole, value }
                }
                None => Change::RemoveRow { table: SERVICES, key: whole },
            }
        });
        let changes = changes.collect();
        (changes, put)
    }
}

impl Rows for ModuleRows<'_> {
    fn row(&self, key: &[u8]) -> Result<Option<Bytes>, ServiceError> {
        if let Some(drafted) = self.drafted.get(key) {
            return Ok(drafted.clone());
        }
        let moment = match self.moment.get() {
            Some(moment) => moment,
            None => {
                let moment = self.store.moment().map_err(failed)?;
                self.moment.get_or_init(|| moment)
            }
        };
        moment.row(SERVICES, &service_key(self.module, key)).map_err(failed)
    }

    fn rows(&self, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ServiceError> {
        let drafted: Vec<_> = self
            .drafted
            .range(Bytes::copy_from_slice(prefix)..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .collect();
        let hidden: BTreeSet<&[u8]> = drafted.iter().map(|(key, _)| &key[..]).collect();
        let whole = service_key(self.module, prefix);
        let cut = self.module.len() + 1;
        let mut rows: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            let own = key.get(cut..).unwrap_or_default();
            if !hidden.contains(own) {
                rows.insert(Bytes::copy_from_slice(own), Bytes::copy_from_slice(value));
            }
            if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        self.store.rows(SERVICES, &whole, &[], visit).map_err(failed)?;
        for (key, value) in drafted {
            if let Some(value) = value {
                rows.insert(key.clone(), value.clone());
            }
        }
        Ok(rows.into_iter().take(limit).collect())
    }
}

fn failed(error: StoreError) -> ServiceError {
    ServiceError(error.to_string())
}
