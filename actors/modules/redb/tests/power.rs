//! Power cuts, simulated beneath redb: what was not synced is dropped, torn and reordered.
//!
//! It is a model, not a pulled plug: sectors of 512 bytes are written whole or not at all, and a
//! sync that returns has written.
#![allow(clippy::unwrap_used)] // a test may end at once

mod common;

use std::{
    collections::BTreeMap,
    fs, io,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard},
};

use common::{Random, place, seed};
use extension::storage::{Change, QueueName, QueueStore, StoreError, Value};
use module_redb::{Medium, Options, RedbStore, STORE};
use protocol::Precedence;
use redb::StorageBackend;

/// Simulated power cuts of a run.
const CUTS: usize = 2_500;
/// Cuts after which a new disk is taken, so that files stay small.
const CUTS_A_DISK: usize = 50;
/// What the disk writes whole.
const SECTOR: usize = 512;
/// Bytes of redb's cache: small, so that it writes early.
const CACHE_BYTES: usize = 1 << 20;

/// A write that was not synced yet.
#[derive(Clone, Debug)]
struct Write {
    offset: usize,
    data: Vec<u8>,
}

#[derive(Debug, Default)]
struct Disk {
    /// What survives.
    durable: Vec<u8>,
    /// What programs read.
    seen: Vec<u8>,
    pending: Vec<Write>,
    /// Operations until the power goes.
    left: usize,
    off: bool,
    /// The control: it says it synced, and did not.
    lies: bool,
    big: bool,
    /// Operations until one fails, once.
    hiccup: Option<usize>,
    /// A sync failed: what was not synced is gone once the page cache is forgotten.
    sync_failed: Option<Random>,
}

impl Disk {
    /// One operation less until the power goes.
    fn step(&mut self) -> io::Result<()> {
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        self.left = self.left.saturating_sub(1);
        self.off = self.left == 0;
        Ok(())
    }

    /// Whether this operation is the one that fails.
    fn hiccups(&mut self) -> bool {
        self.hiccup = self.hiccup.and_then(|left| left.checked_sub(1));
        self.hiccup == Some(0)
    }

    fn answer(&self) -> io::Result<()> {
        if self.off { Err(io::Error::other("the power went")) } else { Ok(()) }
    }

    /// What is on the disk when the power is back.
    fn cut(&mut self, random: &mut Random) {
        let mut pending = std::mem::take(&mut self.pending);
        // A lying disk loses all that it holds back: torn trees besides might abort redb.
        let mode = if self.lies { 0 } else { random.below(5) };
        if mode >= 3 {
            for i in (1..pending.len()).rev() {
                pending.swap(i, random.below(i + 1));
            }
        }
        let mut image = std::mem::take(&mut self.durable);
        for write in pending {
            if mode == 0 || (mode != 1 && random.one_in(3)) {
                continue;
            }
            for (at, sector) in sectors(&write) {
                if mode == 1 || mode == 3 || !random.one_in(3) {
                    let end = at + sector.len();
                    image.resize(image.len().max(end), 0);
                    image[at..end].copy_from_slice(sector);
                }
            }
        }
        if random.one_in(2) {
            // The new length may have come to the disk without what was written there.
            image.resize(image.len().max(self.seen.len()), 0);
        }
        self.seen = image.clone();
        self.durable = image;
        self.off = false;
    }
}

/// The parts of a write that are written whole.
fn sectors(write: &Write) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = write.offset;
    let end = write.offset + write.data.len();
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let next = ((at / SECTOR + 1) * SECTOR).min(end);
        let part = &write.data[at - write.offset..next - write.offset];
        let start = std::mem::replace(&mut at, next);
        Some((start, part))
    })
}

#[derive(Clone, Debug)]
struct Simulated(Arc<Mutex<Disk>>);

impl Simulated {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }
}

impl Medium for Simulated {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        self.lock().answer()?;
        Ok(Box::new(self.clone()))
    }

    fn forget_cached(&self) {
        let mut disk = self.lock();
        if let Some(mut random) = disk.sync_failed.take() {
            disk.cut(&mut random);
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn file_bytes(&self) -> io::Result<u64> {
        let disk = self.lock();
        // A file this big makes the store commit in two phases.
        Ok(if disk.big { 1 << 40 } else { disk.seen.len() as u64 })
    }
}

impl StorageBackend for Simulated {
    fn len(&self) -> io::Result<u64> {
        let disk = self.lock();
        disk.answer()?;
        Ok(disk.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.lock();
        disk.answer()?;
        let start = offset as usize;
        let bytes = disk.seen.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.lock();
        disk.step()?;
        let len = len as usize;
        if len < disk.seen.len() {
            // A file that shrinks loses what was beyond; that may come to the disk at once.
            disk.durable.truncate(len);
            disk.pending.retain(|write| write.offset + write.data.len() <= len);
        }
        disk.seen.resize(len, 0);
        disk.answer()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.lock();
        disk.step()?;
        disk.answer()?;
        if disk.hiccups() {
            disk.sync_failed = Some(Random(disk.seen.len() as u64));
            return Err(io::Error::other("the sync failed"));
        }
        if !disk.lies {
            disk.durable = disk.seen.clone();
            disk.pending.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.lock();
        disk.step()?;
        if disk.hiccups() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let offset = offset as usize;
        let end = offset + data.len();
        let len = disk.seen.len().max(end);
        disk.seen.resize(len, 0);
        disk.seen[offset..end].copy_from_slice(data);
        disk.pending.push(Write { offset, data: data.to_vec() });
        disk.answer()
    }
}

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    runs: BTreeMap<(u8, u64), Vec<u8>>,
    rows: BTreeMap<u8, Vec<u8>>,
}

const QUEUES: [&str; 2] = ["up", "down/a"];

fn random_change(random: &mut Random, content: &mut Content) -> Change {
    let index = random.below(QUEUES.len()) as u8;
    let queue = QueueName::new(QUEUES[usize::from(index)]);
    let position = random.below(60) as u64;
    let place = place(Precedence::Normal, position);
    let len = if random.one_in(8) { random.below(20_000) } else { random.below(700) };
    let key = random.below(20) as u8;
    match random.below(6) {
        0 | 1 => {
            let value = vec![random.next() as u8; len];
            content.runs.insert((index, position), value.clone());
            Change::PutRun { queue, place, value: value.into() }
        }
        2 | 3 => {
            content.runs.remove(&(index, position));
            Change::RemoveRun { queue, place }
        }
        4 => {
            let value = vec![random.next() as u8; len / 10];
            content.rows.insert(key, value.clone());
            Change::PutRow { table: "t", key: vec![key].into(), value: value.into() }
        }
        _ => {
            content.rows.remove(&key);
            Change::RemoveRow { table: "t", key: vec![key].into() }
        }
    }
}

fn read(store: &RedbStore) -> Result<Content, String> {
    let mut content = Content::default();
    let mut damaged = false;
    for (index, name) in QUEUES.iter().enumerate() {
        let mut visit = |position: u64, value: Value<'_>| {
            match value {
                Value::Good(value) => {
                    drop(content.runs.insert((index as u8, position), value.to_vec()));
                }
                Value::Damaged(_) => damaged = true,
            }
            ControlFlow::Continue(())
        };
        let walked = store.runs(&QueueName::new(name), Precedence::Normal, 0, &mut visit);
        walked.map_err(|e| e.to_string())?;
    }
    let mut visit = |key: &[u8], value: &[u8]| {
        content.rows.insert(key[0], value.to_vec());
        ControlFlow::Continue(())
    };
    store.rows("t", b"", b"", &mut visit).map_err(|e| e.to_string())?;
    if damaged { Err("a run is damaged".into()) } else { Ok(content) }
}

/// Changes that were answered, and those of the commit that was under way.
struct Model {
    acked: Content,
    next: Content,
    commits: usize,
    openings_cut: usize,
}

/// Commits until the power goes.
fn work(disk: &Simulated, random: &mut Random, model: &mut Model) -> Result<(), String> {
    let most = if random.one_in(3) { 8 } else { 120 };
    disk.lock().left = 1 + random.below(most);
    let store = match RedbStore::on_medium(Arc::new(disk.clone()), CACHE_BYTES) {
        Ok(store) => store,
        Err(_) if disk.lock().off => {
            model.openings_cut += 1;
            return Ok(());
        }
        Err(error) => return Err(error.to_string()),
    };
    loop {
        let count = 1 + random.below(6);
        let changes: Vec<_> = (0..count).map(|_| random_change(random, &mut model.next)).collect();
        match store.commit(&changes) {
            Ok(()) => {
                model.commits += 1;
                model.acked = model.next.clone();
            }
            Err(_) if disk.lock().off => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The power is back: what was answered is there, and of the rest all or nothing.
fn check(disk: &Simulated, model: &mut Model) -> Result<(), String> {
    disk.lock().left = usize::MAX;
    let store = RedbStore::on_medium(Arc::new(disk.clone()), CACHE_BYTES);
    let store = store.map_err(|e| e.to_string())?;
    let found = read(&store)?;
    if found != model.acked && found != model.next {
        return Err(format!(
            "what is there is neither what was answered nor one commit more: {:?}",
            (found.runs.len(), model.acked.runs.len(), model.next.runs.len())
        ));
    }
    model.acked = found.clone();
    model.next = found;
    Ok(())
}

/// The image as a file, through the whole opening: a power cut is no damage.
fn check_file(disk: &Simulated, model: &Model) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(STORE), &disk.lock().seen).unwrap();
    let opened = RedbStore::open(folder.path(), &Options::default()).map_err(|e| e.to_string())?;
    if !opened.report.set_aside.is_empty() {
        return Err(format!("taken for damage: {:?}", opened.report));
    }
    let found = read(&opened.store)?;
    if found != model.acked && found != model.next {
        return Err("the opening of the file found something else".into());
    }
    Ok(())
}

/// So many cuts; the first wrong one ends it.
fn cuts(random: &mut Random, cuts: usize, lies: bool) -> Result<(usize, usize), String> {
    let (mut commits, mut openings_cut) = (0, 0);
    let mut done = 0;
    while done < cuts {
        let big = random.one_in(4);
        let disk = Disk { lies, big, ..Disk::default() };
        let disk = Simulated(Arc::new(Mutex::new(disk)));
        // A new file is made under another name and renamed when it is whole: no cut there.
        disk.lock().left = usize::MAX;
        let made = RedbStore::on_medium(Arc::new(disk.clone()), CACHE_BYTES);
        drop(made.map_err(|e| e.to_string())?);
        let (acked, next) = (Content::default(), Content::default());
        let mut model = Model { acked, next, commits: 0, openings_cut: 0 };
        for round in 0..CUTS_A_DISK.min(cuts - done) {
            work(&disk, random, &mut model)?;
            disk.lock().cut(random);
            if round % 10 == 9 {
                check_file(&disk, &model)?;
            }
            check(&disk, &mut model)?;
            // The check's own writes may be lost, too.
            if random.one_in(2) {
                disk.lock().cut(random);
            }
            done += 1;
        }
        commits += model.commits;
        openings_cut += model.openings_cut;
    }
    Ok((commits, openings_cut))
}

// QUE-2
#[test]
fn power_cuts_lose_nothing_that_was_answered_and_leave_no_commit_in_part() {
    let mut random = seed("CALLHOME_POWER_SEED");
    let (commits, openings_cut) = cuts(&mut random, CUTS, false).unwrap();
    println!("{CUTS} power cuts, {openings_cut} of them in an opening; {commits} commits, 0 lost");
    assert!(commits > CUTS, "each cut came after something was answered");
    assert!(openings_cut > CUTS / 50, "openings are cut, too");
}

// DESIGN §4.1
#[test]
fn a_write_or_sync_that_fails_once_is_told_and_the_store_works_on_by_itself() {
    /// Failures.
    const HICCUPS: usize = 400;
    let mut random = seed("CALLHOME_POWER_SEED");
    let (mut full, mut failed, mut landed) = (0, 0, 0);
    let mut disk = Simulated(Arc::new(Mutex::new(Disk::default())));
    for round in 0..HICCUPS {
        if round % CUTS_A_DISK == 0 {
            disk = Simulated(Arc::new(Mutex::new(Disk::default())));
        }
        disk.lock().left = usize::MAX;
        let store = RedbStore::on_medium(Arc::new(disk.clone()), CACHE_BYTES).unwrap();
        let mut content = read(&store).unwrap();
        disk.lock().hiccup = Some(1 + random.below(60));
        while disk.lock().hiccup.is_some() {
            let mut next = content.clone();
            let changes: Vec<_> = (0..4).map(|_| random_change(&mut random, &mut next)).collect();
            match store.commit(&changes) {
                Ok(()) => {
                    landed += usize::from(disk.lock().hiccup.is_none());
                    content = next;
                }
                Err(StoreError::Full(_)) => full += 1,
                Err(StoreError::Failed(_)) => {
                    failed += 1;
                    let found = read(&store).unwrap();
                    assert!(found == content || found == next, "round {round}");
                    content = found;
                }
                Err(error) => panic!("round {round}: {error}"),
            }
            assert_eq!(read(&store), Ok(content.clone()), "round {round}");
        }
        assert_eq!(store.suspect(), None, "round {round}");
    }
    println!("{HICCUPS} failures: {full} full, {failed} failed, {landed} commits landed anyway");
    assert!(full > 0 && failed > 0);
}

// QUE-2
#[test]
fn a_disk_whose_sync_lies_is_caught() {
    /// Disks; each is cut until something is missing.
    const DISKS: usize = 40;
    let mut random = seed("CALLHOME_POWER_SEED");
    let caught = (0..DISKS).filter(|_| cuts(&mut random, CUTS_A_DISK, true).is_err()).count();
    println!("{caught} of {DISKS} lying disks caught");
    assert_eq!(caught, DISKS, "the check can fail");
}
