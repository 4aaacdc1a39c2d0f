//! A full disk: puts are refused, removals pass, and with room again all works by itself.
#![allow(clippy::unwrap_used)] // a test may end at once

mod common;

use std::{fs, path::Path, process::Command};

use common::{place, queue};
use extension::storage::{Change, QueueStore, StoreError};
use module_redb::{Options, RedbStore};
use protocol::Precedence;

/// Bytes of a run.
const RUN_BYTES: usize = 60_000;

fn put(position: u64) -> Change {
    let value = vec![position as u8; RUN_BYTES].into();
    Change::PutRun { queue: queue(), place: place(Precedence::Bulk, position), value }
}

fn remove(position: u64) -> Change {
    Change::RemoveRun { queue: queue(), place: place(Precedence::Bulk, position) }
}

fn has(store: &RedbStore, position: u64) -> bool {
    store.run(&queue(), place(Precedence::Bulk, position)).unwrap().is_some()
}

// DESIGN §4.1
#[test]
fn below_the_free_space_to_keep_only_removals_pass() {
    let dir = tempfile::tempdir().unwrap();
    let store = RedbStore::open(dir.path(), &Options::default()).unwrap().store;
    store.commit(&[put(1), put(2)]).unwrap();
    drop(store);
    let options = Options { keep_free_bytes: u64::MAX / 2, ..Options::default() };
    let store = RedbStore::open(dir.path(), &options).unwrap().store;
    let refused = store.commit(&[remove(1), put(3)]);
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    assert!(has(&store, 1) && !has(&store, 3), "nothing was changed");
    store.commit(&[remove(1)]).unwrap();
    assert!(!has(&store, 1) && has(&store, 2));
}

/// A small disk of its own; unmounted at the end.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Takes all room but so many bytes.
fn ballast(dir: &Path, but: u64) {
    let stat = rustix::fs::statvfs(dir).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    let more = vec![7; free.saturating_sub(but) as usize];
    fs::write(dir.join("ballast"), more).unwrap();
}

// DESIGN §4.1
#[test]
fn a_full_disk_refuses_loses_nothing_and_recovers_by_itself_when_there_is_room() {
    let Some(disk) = Tmpfs::mount(24) else {
        println!("left out: a full disk needs the right to mount a tmpfs, and mount was refused");
        return;
    };
    let node = disk.path().join("node");
    fs::create_dir(&node).unwrap();
    let store = RedbStore::open(&node, &Options::default()).unwrap().store;
    let mut acked = Vec::new();
    for round in 0..4_u64 {
        ballast(disk.path(), 600_000 + 150_000 * round);
        let mut refused = 0;
        for i in 0..60 {
            let position = round * 100 + i;
            match store.commit(&[put(position)]) {
                Ok(()) => acked.push(position),
                Err(StoreError::Full(_)) => refused += 1,
                Err(error) => panic!("a full disk is not a failed one: {error}"),
            }
            for position in &acked {
                assert!(has(&store, *position), "run {position} was answered");
            }
        }
        assert!(refused > 0, "round {round}: the disk never was full");
        fs::remove_file(disk.path().join("ballast")).unwrap();
        store.commit(&[put(round * 100 + 99)]).unwrap();
        acked.push(round * 100 + 99);
        let gone: Vec<_> = acked.drain(..acked.len() / 2).collect();
        store.commit(&gone.iter().map(|position| remove(*position)).collect::<Vec<_>>()).unwrap();
        assert!(gone.iter().all(|position| !has(&store, *position)));
    }
    assert_eq!(store.suspect(), None);
    drop(store);
    let opened = RedbStore::open(&node, &Options::default()).unwrap();
    assert!(opened.report.set_aside.is_empty(), "{:?}", opened.report);
    assert!(acked.iter().all(|position| has(&opened.store, *position)));
}
