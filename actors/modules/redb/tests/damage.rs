//! Whatever is done to a store's file: it opens, keeps what is good, and tells what is not.
#![allow(clippy::unwrap_used)] // a test may end at once

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use common::{Random, place, queue, seed};
use extension::storage::{Change, QueueStore, Value};
use module_redb::{DAMAGED, FsckReport, Opened, Options, RedbStore, STORE, fsck};
use protocol::Precedence;

/// Files with one flipped bit each.
const FLIPS: usize = 400;
/// Runs in the file.
const RUNS: u64 = 120;
/// Rows in the file.
const ROWS: u32 = 40;

fn value(position: u64, random: &mut Random) -> Vec<u8> {
    let len = if position.is_multiple_of(10) { 9_000 } else { 200 + random.below(900) };
    (0..len).map(|_| random.next() as u8).collect()
}

fn open(dir: &Path) -> Opened {
    RedbStore::open(dir, &Options::default()).unwrap()
}

type Content = BTreeMap<u64, Vec<u8>>;

/// A store with a history: runs and rows put, replaced and removed. Answers the runs it holds.
fn fill(dir: &Path, random: &mut Random) -> Content {
    let store = open(dir).store;
    let mut content = Content::new();
    for position in 1..=RUNS {
        let bytes = value(position, random);
        content.insert(position, bytes.clone());
        let row = (position as u32 % ROWS).to_be_bytes().to_vec();
        let mut changes = vec![
            Change::PutRun {
                queue: queue(),
                place: place(Precedence::Normal, position),
                value: bytes.into(),
            },
            Change::PutRow {
                table: "t",
                key: row.into(),
                value: position.to_be_bytes().to_vec().into(),
            },
        ];
        if position > 20 && position.is_multiple_of(2) {
            let gone = position / 2 - 10;
            content.remove(&gone);
            let place = place(Precedence::Normal, gone);
            changes.push(Change::RemoveRun { queue: queue(), place });
        }
        store.commit(&changes).unwrap();
    }
    content
}

/// Runs that are good, and how many are not.
fn read(store: &RedbStore) -> (Content, u64) {
    let (mut good, mut damaged) = (Content::new(), 0);
    let mut visit = |position: u64, value: Value<'_>| {
        match value {
            Value::Good(value) => drop(good.insert(position, value.to_vec())),
            Value::Damaged(_) => damaged += 1,
        }
        std::ops::ControlFlow::Continue(())
    };
    store.runs(&queue(), Precedence::Normal, 0, &mut visit).unwrap();
    (good, damaged)
}

fn rows(store: &RedbStore) -> usize {
    let mut count = 0;
    let mut visit = |_: &[u8], value: &[u8]| {
        assert_eq!(value.len(), 8);
        count += 1;
        std::ops::ControlFlow::Continue(())
    };
    store.rows("t", b"", b"", &mut visit).unwrap();
    count
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Opens a damaged copy and checks all that is promised; answers runs lost.
fn opens(dir: &Path, content: &Content, what: &str) -> (usize, FsckReport) {
    let before = fs::read(dir.join(STORE)).unwrap();
    let said = fsck(dir, &mut |_, _, _| {}).unwrap();
    assert_eq!(fs::read(dir.join(STORE)).unwrap(), before, "{what}: fsck changes nothing");
    let opened = open(dir);
    let (good, damaged) = read(&opened.store);
    assert_eq!(damaged, 0, "{what}: what is damaged was cut out");
    for (position, value) in &good {
        if let Some(expected) = content.get(position) {
            assert_eq!(value, expected, "{what}: run {position}");
        }
    }
    let lost = content.keys().filter(|position| !good.contains_key(position)).count();
    let told = !opened.report.set_aside.is_empty();
    assert_eq!(said.ok, !told, "{what}: fsck and the opening agree: {said:?}");
    if lost > 0 || rows(&opened.store) < ROWS as usize {
        assert!(told, "{what}: {lost} runs lost and nobody told");
    }
    for aside in &opened.report.set_aside {
        assert!(aside.path.exists() && aside.path.with_extension("json").exists(), "{what}");
    }
    // It serves, and the next opening finds nothing any more.
    let put = Change::PutRow { table: "t", key: "new".into(), value: vec![0; 8].into() };
    opened.store.commit(&[put]).unwrap();
    drop(opened);
    assert!(open(dir).report.set_aside.is_empty(), "{what}: once is enough");
    (lost, said)
}

// DESIGN §4.5
#[test]
fn any_flipped_bit_is_told_and_costs_at_most_what_it_hit() {
    let mut random = seed("CALLHOME_DAMAGE_SEED");
    let base = tempfile::tempdir().unwrap();
    let full = base.path().join("full");
    fs::create_dir(&full).unwrap();
    let content = fill(&full, &mut random);
    let bytes = fs::read(full.join(STORE)).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (mut told, mut lost) = (0, 0);
    for flip in 0..FLIPS {
        let dir = base.path().join(format!("flip-{flip}"));
        copy(&full, &dir);
        let bit = random.below(used * 8);
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(dir.join(STORE), &bad).unwrap();
        let what = format!("bit {bit}");
        let (gone, said) = opens(&dir, &content, &what);
        assert!(gone <= 1, "{what}: {gone} runs lost by one bit");
        told += usize::from(!said.ok);
        lost += gone;
        fs::remove_dir_all(&dir).unwrap();
    }
    println!("{FLIPS} flips in {used} bytes: {told} told, {lost} runs lost");
    assert!(told > 0 && told < FLIPS, "some bits are live, some are not");
}

// DESIGN §4.5
#[test]
fn a_file_too_large_to_be_checked_at_each_opening_tells_damage_when_it_is_read() {
    let mut random = seed("CALLHOME_DAMAGE_SEED");
    let base = tempfile::tempdir().unwrap();
    let full = base.path().join("full");
    fs::create_dir(&full).unwrap();
    let content = fill(&full, &mut random);
    let bytes = fs::read(full.join(STORE)).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let unchecked = Options { check_bytes: 0, ..Options::default() };
    let (mut at_opening, mut at_reading) = (0, 0);
    for flip in 0..FLIPS / 2 {
        let dir = base.path().join(format!("flip-{flip}"));
        copy(&full, &dir);
        let bit = random.below(used * 8);
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(dir.join(STORE), &bad).unwrap();
        let opened = RedbStore::open(&dir, &unchecked).unwrap();
        at_opening += usize::from(!opened.report.set_aside.is_empty());
        let mut found = Content::new();
        let mut visit = |position: u64, value: Value<'_>| {
            if let Value::Good(value) = value {
                found.insert(position, value.to_vec());
            }
            std::ops::ControlFlow::Continue(())
        };
        let walked = opened.store.runs(&queue(), Precedence::Normal, 0, &mut visit);
        let verified = opened.store.verify();
        let quiet = walked.is_ok() && verified.is_ok() && opened.report.set_aside.is_empty();
        assert!(!quiet || found == content, "bit {bit}: {} of {}", found.len(), content.len());
        // An old page that a wrong pointer leads to may show a removed run, but nothing else.
        let right = |(position, value): (&u64, &Vec<u8>)| {
            *position <= RUNS && content.get(position).is_none_or(|expected| expected == value)
        };
        assert!(found.iter().all(right), "bit {bit}");
        at_reading += usize::from(verified.is_err());
        drop(opened);
        if verified.is_err() {
            let mended = RedbStore::open(&dir, &unchecked).unwrap();
            assert!(!mended.report.set_aside.is_empty(), "bit {bit}: {:?}", mended.report);
            assert!(mended.store.verify().is_ok(), "bit {bit}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
    println!("{} flips: {at_opening} told when opened, {at_reading} when read", FLIPS / 2);
    assert!(at_reading > 0);
}

// DESIGN §4.5
#[test]
fn a_file_cut_short_overwritten_or_foreign_does_not_stop_the_node() {
    let mut random = seed("CALLHOME_DAMAGE_SEED");
    let base = tempfile::tempdir().unwrap();
    let full = base.path().join("full");
    fs::create_dir(&full).unwrap();
    let content = fill(&full, &mut random);
    let bytes = fs::read(full.join(STORE)).unwrap();
    let len = bytes.len();
    let zeroed = |range: std::ops::Range<usize>| {
        let mut bad = bytes.clone();
        bad[range].fill(0);
        bad
    };
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("cut to half", bytes[..len / 2].to_vec()),
        ("cut to a page", bytes[..4096].to_vec()),
        ("cut within a page", bytes[..len / 2 + 77].to_vec()),
        ("grown", [&bytes[..], &[7; 4096]].concat()),
        ("no header", zeroed(0..4096)),
        ("a hole", zeroed(len / 4..len / 4 + 20_000)),
        ("text", b"This is not a store at all.".repeat(1000)),
        ("zeros", vec![0; 1 << 20]),
        ("noise", (0..300_000).map(|_| random.next() as u8).collect()),
    ];
    for (what, bytes) in bad {
        let dir = base.path().join(what);
        copy(&full, &dir);
        fs::write(dir.join(STORE), &bytes).unwrap();
        let (lost, said) = opens(&dir, &content, what);
        println!("{what}: {lost} of {} runs lost, {said:?}", content.len());
        if what == "no header" {
            assert_eq!(lost, 0);
        }
    }
    let gone = base.path().join("gone");
    copy(&full, &gone);
    fs::remove_file(gone.join(STORE)).unwrap();
    let opened = open(&gone);
    assert!(opened.report.created && !opened.proved);
}

// DESIGN §4.5
#[test]
fn salvage_needs_neither_tree_nor_proof_and_brings_no_removed_run_back_in_a_queue() {
    let mut random = seed("CALLHOME_DAMAGE_SEED");
    let base = tempfile::tempdir().unwrap();
    let content = fill(base.path(), &mut random);
    let mut bytes = fs::read(base.path().join(STORE)).unwrap();
    bytes[..4096].fill(0);
    fs::write(base.path().join(STORE), &bytes).unwrap();
    fs::remove_file(base.path().join("store.proof")).unwrap();
    let opened = open(base.path());
    assert!(!opened.proved);
    let (good, _) = read(&opened.store);
    assert_eq!(good, content, "the queue was emptied from its head, so its lowest position tells");
    assert_eq!(rows(&opened.store), ROWS as usize);
    assert_eq!(opened.report.salvaged.runs, content.len() as u64);
    assert!(base.path().join(DAMAGED).exists());
}
