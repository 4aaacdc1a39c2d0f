//! Damage on top of a kill: redb then falls back to the commit before, which must not pass for
//! what was answered.
#![allow(clippy::unwrap_used)] // a test may end at once

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use common::{Random, place, queue, seed};
use extension::storage::{Change, QueueStore, Value};
use module_redb::{Options, RedbStore, STORE};
use protocol::Precedence;

/// Names the folder to the process that is killed.
const FOLDER: &str = "CALLHOME_KILLED_FOLDER";
/// Stores killed and damaged.
const ROUNDS: usize = 40;
/// Runs in each.
const RUNS: u64 = 30;

/// Not a test: the process that is killed.
#[test]
fn what_the_killed_process_does() {
    let Ok(dir) = std::env::var(FOLDER) else { return };
    let store = RedbStore::open(Path::new(&dir), &Options::default()).unwrap().store;
    for position in 1..=RUNS {
        let value = vec![position as u8; 900].into();
        let place = place(Precedence::Normal, position);
        let row = Change::PutRow { table: "t", key: "k".into(), value: "v".into() };
        store.commit(&[Change::PutRun { queue: queue(), place, value }, row]).unwrap();
    }
    println!("filled");
    loop {
        std::thread::park();
    }
}

fn killed(dir: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["what_the_killed_process_does", "--exact", "--nocapture"])
        .env(FOLDER, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("filled")));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Flips a bit of a byte that is not zero, in the file as it lies.
fn flip(path: &Path, random: &mut Random) -> usize {
    let mut bytes = fs::read(path).unwrap();
    let at = loop {
        let at = random.below(bytes.len());
        if bytes[at] != 0 {
            break at;
        }
    };
    bytes[at] ^= 1 << random.below(8);
    fs::write(path, bytes).unwrap();
    at
}

// DESIGN §4.5
#[test]
fn damage_after_a_kill_costs_at_most_the_run_it_hit() {
    let mut random = seed("CALLHOME_DAMAGE_SEED");
    let mut told = 0;
    for round in 0..ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        killed(dir.path());
        let at = flip(&dir.path().join(STORE), &mut random);
        let opened = RedbStore::open(dir.path(), &Options::default()).unwrap();
        let mut found = 0;
        let mut visit = |_: u64, value: Value<'_>| {
            found += u64::from(matches!(value, Value::Good(_)));
            std::ops::ControlFlow::Continue(())
        };
        opened.store.runs(&queue(), Precedence::Normal, 0, &mut visit).unwrap();
        let aside = !opened.report.set_aside.is_empty();
        assert!(found >= RUNS - 1, "round {round}, byte {at}: {found} of {RUNS} runs");
        assert!(found == RUNS || aside, "round {round}, byte {at}: a run lost and nobody told");
        assert!(!(aside && opened.proved) || found == RUNS - 1, "round {round}, byte {at}");
        told += usize::from(aside);
    }
    println!("{ROUNDS} kills with a flipped bit: {told} told");
}
