//! Who may open a store, what proves that it is the one this machine had last, and what happens
//! after openings that did not end.
#![allow(clippy::unwrap_used)] // a test may end at once

mod common;

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use common::{place, queue};
use extension::storage::{Change, QueueStore, StoreError};
use module_redb::{DAMAGED, LOCK, OpenError, Opened, Options, RedbStore, STORE, fsck, probe};
use protocol::Precedence;

/// Names what the helper is to do; without it the helper is an empty test.
const HELPER: &str = "CALLHOME_STORE_HELPER";

fn open(dir: &Path) -> Opened {
    RedbStore::open(dir, &Options::default()).unwrap()
}

fn put(position: u64) -> [Change; 2] {
    let value = format!("run {position}").into_bytes();
    let place = place(Precedence::Normal, position);
    let row = Change::PutRow { table: "t", key: "k".into(), value: value.clone().into() };
    [Change::PutRun { queue: queue(), place, value: value.into() }, row]
}

fn runs(store: &RedbStore) -> usize {
    let mut count = 0;
    let mut visit = |_: u64, _: extension::storage::Value<'_>| {
        count += 1;
        std::ops::ControlFlow::Continue(())
    };
    store.runs(&queue(), Precedence::Normal, 0, &mut visit).unwrap();
    count
}

/// A store with one run whose epoch was drawn.
fn drawn(dir: &Path) -> Opened {
    let opened = open(dir);
    opened.store.commit(&put(1)).unwrap();
    opened
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// This test's own binary, told what to be.
fn helper(what: &str) -> Vec<OsString> {
    let exe = std::env::current_exe().unwrap();
    let told = format!("{HELPER}={what}");
    vec![
        "env".into(),
        told.into(),
        exe.into(),
        "what_started_processes_do".into(),
        "--exact".into(),
        "--nocapture".into(),
    ]
}

/// A process that holds the store of a folder and has committed runs up to 5.
fn holder(dir: &Path) -> Child {
    let command = helper("hold");
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line.contains("holding"));
    assert!(ready, "the helper ended");
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Not a test: what the processes that the tests start do.
#[test]
#[allow(clippy::disallowed_methods, reason = "the main of a process that a test starts")]
fn what_started_processes_do() {
    let Ok(what) = std::env::var(HELPER) else { return };
    let path = std::env::args().next_back().unwrap();
    let path = Path::new(&path);
    match &what[..] {
        "hold" => {
            let opened = open(path);
            for position in 2..=5 {
                opened.store.commit(&put(position)).unwrap();
            }
            println!("holding");
            loop {
                std::thread::park();
            }
        }
        "probe" => std::process::exit(i32::from(probe(path).is_err())),
        "abort" => std::process::abort(),
        other => panic!("no such helper: {other}"),
    }
}

// DESIGN §6
#[test]
fn a_store_closed_here_is_proved_and_a_new_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let new = open(dir.path());
    assert!(new.report.created && !new.proved);
    drop(new);
    let again = open(dir.path());
    assert!(!again.proved, "no epoch was drawn yet: {:?}", again.report);
    again.store.commit(&put(1)).unwrap();
    assert!(!again.store.must_draw_epoch());
    drop(again);
    for _ in 0..3 {
        let opened = open(dir.path());
        assert!(opened.proved, "{:?}", opened.report);
        assert_eq!(runs(&opened.store), 1);
    }
}

// QUE-2
#[test]
fn a_killed_node_finds_all_that_was_answered_and_its_store_proved() {
    let dir = tempfile::tempdir().unwrap();
    drop(drawn(dir.path()));
    for _ in 0..5 {
        kill(holder(dir.path()));
        let opened = open(dir.path());
        assert!(opened.proved, "{:?}", opened.report);
        assert_eq!(runs(&opened.store), 5);
        assert!(opened.report.set_aside.is_empty());
    }
}

// DESIGN §6
#[test]
fn a_copied_or_restored_store_is_not_proved_until_an_epoch_was_drawn() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("node");
    fs::create_dir(&dir).unwrap();
    drop(drawn(&dir));
    let (elsewhere, backup) = (base.path().join("elsewhere"), base.path().join("backup"));
    copy(&dir, &elsewhere);
    copy(&dir, &backup);
    assert!(!open(&elsewhere).proved);
    let again = open(&elsewhere);
    assert!(!again.proved, "a crash before the epoch was drawn does not hide it");
    again.store.commit(&put(2)).unwrap();
    drop(again);
    assert!(open(&elsewhere).proved);
    // Written over in place: the same files, older content.
    open(&dir).store.commit(&put(2)).unwrap();
    copy(&backup, &dir);
    let restored = open(&dir);
    assert!(!restored.proved);
    assert!(restored.report.set_aside.is_empty(), "old is not damaged: {:?}", restored.report);
    assert_eq!(runs(&restored.store), 1);
    restored.store.commit(&put(2)).unwrap();
    drop(restored);
    // The store alone, restored in place.
    fs::copy(backup.join(STORE), dir.join(STORE)).unwrap();
    assert!(!open(&dir).proved);
    fs::remove_file(dir.join("store.proof")).unwrap();
    assert!(!open(&dir).proved);
}

// DESIGN §6
#[test]
fn a_backup_of_a_killed_node_restored_in_place_is_not_proved() {
    let base = tempfile::tempdir().unwrap();
    let (dir, backup) = (base.path().join("node"), base.path().join("backup"));
    fs::create_dir(&dir).unwrap();
    drop(drawn(&dir));
    kill(holder(&dir));
    copy(&dir, &backup);
    let opened = open(&dir);
    assert!(opened.proved);
    opened.store.commit(&put(9)).unwrap();
    drop(opened);
    kill(holder(&dir));
    copy(&backup, &dir);
    let opened = open(&dir);
    assert!(!opened.proved, "{:?}", opened.report);
    assert!(opened.report.set_aside.is_empty(), "{:?}", opened.report);
}

// DESIGN §6
#[test]
fn a_store_of_another_machine_is_not_proved() {
    let dir = tempfile::tempdir().unwrap();
    let on = |machine: &str| Options { machine: Some(machine.into()), ..Options::default() };
    let first = RedbStore::open(dir.path(), &on("a")).unwrap();
    first.store.commit(&put(1)).unwrap();
    drop(first);
    assert!(RedbStore::open(dir.path(), &on("a")).unwrap().proved);
    assert!(!RedbStore::open(dir.path(), &on("b")).unwrap().proved);
}

// DESIGN §12
#[test]
fn a_store_in_use_is_refused_with_the_pid_also_to_fsck() {
    let dir = tempfile::tempdir().unwrap();
    let opened = drawn(dir.path());
    let refused = RedbStore::open(dir.path(), &Options::default()).unwrap_err();
    let me = std::process::id();
    assert!(matches!(&refused, OpenError::InUse { pid: Some(pid), .. } if *pid == me), "{refused}");
    let refused = fsck(dir.path(), &mut |_, _, _| {}).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }));
    drop(opened);
    let mut shown = 0;
    let report = fsck(dir.path(), &mut |_, _, _| shown += 1).unwrap();
    assert!(report.ok && report.runs == 1 && report.rows == 1 && shown == 1, "{report:?}");
    let looked = RedbStore::look(dir.path()).unwrap();
    assert_eq!(runs(&looked), 1);
    drop(looked);
    assert!(open(dir.path()).proved, "looking changes nothing");
}

// DESIGN §9
#[test]
fn files_are_the_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(drawn(dir.path()));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    let mut bytes = fs::read(dir.path().join(STORE)).unwrap();
    bytes[..4096].fill(0);
    fs::write(dir.path().join(STORE), bytes).unwrap();
    drop(open(dir.path()));
    assert_eq!(mode(&dir.path().join(DAMAGED)), 0o700);
    for entry in fs::read_dir(dir.path().join(DAMAGED)).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    assert_eq!(mode(&dir.path().join(LOCK)), 0o600);
}

// DESIGN §4.5
#[test]
fn a_file_that_aborts_the_process_is_set_aside_and_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    drop(drawn(dir.path()));
    kill(holder(dir.path()));
    // An opening that did not end, and a probe that ends as redb would on such a file.
    fs::write(dir.path().join("store.opening"), "1").unwrap();
    let aborts = Options { probe: Some(helper("abort")), ..Options::default() };
    let opened = RedbStore::open(dir.path(), &aborts).unwrap();
    assert!(!opened.proved);
    assert_eq!(opened.report.set_aside.len(), 1, "{:?}", opened.report);
    assert_eq!((opened.report.salvaged.runs, opened.report.salvaged.rows), (5, 1));
    assert_eq!(runs(&opened.store), 5);
    let why = fs::read_to_string(opened.report.set_aside[0].path.with_extension("json")).unwrap();
    assert!(why.contains("signal: 6") && why.contains("\"salvaged_runs\": 5"), "{why}");
    opened.store.commit(&put(6)).unwrap();
    drop(opened);
    assert!(open(dir.path()).proved);
}

// DESIGN §4.5
#[test]
fn a_large_store_that_ends_uncleanly_again_and_again_is_read_elsewhere_first() {
    let dir = tempfile::tempdir().unwrap();
    drop(drawn(dir.path()));
    let proof = dir.path().join("store.proof");
    let text = fs::read_to_string(&proof).unwrap();
    assert!(text.contains("\"unclean\":0"), "{text}");
    fs::write(&proof, text.replace("\"unclean\":0", "\"unclean\":3")).unwrap();
    let options = Options { check_bytes: 0, probe: Some(helper("abort")), ..Options::default() };
    let opened = RedbStore::open(dir.path(), &options).unwrap();
    assert_eq!(opened.report.set_aside.len(), 1);
    assert_eq!(runs(&opened.store), 1);
    drop(opened);
    assert!(RedbStore::open(dir.path(), &options).unwrap().report.set_aside.is_empty());
}

// DESIGN §4.5
#[test]
fn an_opening_that_was_only_killed_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(drawn(dir.path()));
    fs::write(dir.path().join("store.opening"), "1").unwrap();
    let probes = Options { probe: Some(helper("probe")), ..Options::default() };
    let opened = RedbStore::open(dir.path(), &probes).unwrap();
    assert!(opened.proved && opened.report.set_aside.is_empty(), "{:?}", opened.report);
    drop(opened);
    // Without a probe it is looked at here; after too many tries it is not opened any more.
    fs::write(dir.path().join("store.opening"), "2").unwrap();
    assert!(open(dir.path()).proved);
    fs::write(dir.path().join("store.opening"), "4").unwrap();
    let opened = open(dir.path());
    assert_eq!((opened.report.set_aside.len(), runs(&opened.store)), (1, 1));
    assert_eq!(opened.store.verify(), Ok((1, 1)));
}

// DESIGN §4.5
#[test]
fn a_salvage_that_was_cut_short_is_done_again_or_ended() {
    let dir = tempfile::tempdir().unwrap();
    drop(drawn(dir.path()));
    fs::write(dir.path().join("store.new"), "half of a new store").unwrap();
    let opened = open(dir.path());
    assert!(opened.proved && runs(&opened.store) == 1);
    drop(opened);
    // The damaged store is away, the new one not yet in its place.
    fs::rename(dir.path().join(STORE), dir.path().join("store.new")).unwrap();
    let opened = open(dir.path());
    assert_eq!(runs(&opened.store), 1);
    assert!(!opened.report.created);
}

// DESIGN §4.5
#[test]
fn damage_that_comes_while_it_serves_is_an_error_and_mended_at_the_next_opening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).store;
    for position in 1..=300 {
        // More than redb's cache holds: in debug builds redb reads all when it opens.
        let value = vec![position as u8; 80_000].into();
        let place = place(Precedence::Normal, position);
        store.commit(&[Change::PutRun { queue: queue(), place, value }]).unwrap();
    }
    drop(store);
    let options = Options { cache_bytes: 16 << 20, ..Options::default() };
    let served = RedbStore::open(dir.path(), &options).unwrap().store;
    let mut bytes = fs::read(dir.path().join(STORE)).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[8192..used].iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(dir.path().join(STORE), bytes).unwrap();
    let (mut damaged, mut all) = (0, 0);
    let mut visit = |_: u64, value: extension::storage::Value<'_>| {
        all += 1;
        damaged += u32::from(matches!(value, extension::storage::Value::Damaged(_)));
        std::ops::ControlFlow::Continue(())
    };
    let walked = served.runs(&queue(), Precedence::Normal, 0, &mut visit);
    let seen = walked.is_err() || damaged > 0;
    assert!(seen, "damage is seen when it is read: {walked:?}, {damaged} of {all}");
    if let Err(error) = walked {
        assert!(matches!(error, StoreError::Failed(_)), "{error}");
        assert!(served.suspect().is_some());
    }
    drop(served);
    let opened = open(dir.path());
    assert!(!opened.report.set_aside.is_empty() && !opened.proved);
    opened.store.commit(&put(999)).unwrap();
}
