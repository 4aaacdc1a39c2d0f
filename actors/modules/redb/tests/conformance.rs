//! The store over redb keeps the promises of `QueueStore`.
#![allow(clippy::unwrap_used)] // a test may end at once

use std::sync::{Arc, Mutex};

use extension::storage::{Change, Place, QueueName, QueueStore};
use module_redb::{Options, RedbStore, STORE};
use protocol::Precedence;
use redb::{ReadableDatabase, ReadableTableMetadata};

// DESIGN §11
#[test]
fn the_store_over_redb_conforms() {
    let folders = Mutex::new(Vec::new());
    extension::storage::conformance::conformance(|| {
        let folder = tempfile::tempdir().unwrap();
        let opened = RedbStore::open(folder.path(), &Options::default()).unwrap();
        folders.lock().unwrap().push(folder);
        Arc::new(opened.store)
    });
}

// DESIGN §7
#[test]
fn a_fitting_run_fills_its_pages_and_one_byte_more_wastes_half() {
    let wasted = |more: usize| {
        let dir = tempfile::tempdir().unwrap();
        let queue = QueueName::new("up");
        let store = RedbStore::open(dir.path(), &Options::default()).unwrap().store;
        let bytes = store.fitting(&queue, 100_000) + more;
        for position in 0..32 {
            let place = Place { precedence: Precedence::Normal, position };
            let value = vec![7; bytes].into();
            store.commit(&[Change::PutRun { queue: queue.clone(), place, value }]).unwrap();
        }
        drop(store);
        let db = redb::Database::open(dir.path().join(STORE)).unwrap();
        let runs: redb::TableDefinition<&[u8], &[u8]> = redb::TableDefinition::new("runs");
        let stats = db.begin_read().unwrap().open_table(runs).unwrap().stats().unwrap();
        let stored = stats.stored_bytes() as f64;
        (bytes, stats.fragmented_bytes() as f64 / stored)
    };
    let (bytes, fitting) = wasted(0);
    assert!(bytes > 60_000 && bytes <= 65_536, "{bytes} bytes fill a page of 64 KiB");
    assert!(fitting < 0.02, "{fitting}");
    assert!(wasted(1).1 > 0.5);
}
