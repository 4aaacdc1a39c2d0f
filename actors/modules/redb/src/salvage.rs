//! Finds what is good in a file that redb cannot read, and makes a new store of it.
//!
//! The raw bytes are searched for frames. redb copies pages when it changes them, so old copies of
//! values lie about: of a key the newest stamp counts. Removed values may come back, which the
//! delivery rules allow; what keeps them few: a queue's lowest position, written with each removal,
//! and the keys that the last commits removed.
use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, PoisonError},
};

use crate::{
    aside::RUNS_KEPT,
    backend::{FileMedium, Medium},
    engine::{self, DRAW, Engine, FORMAT, LAST, LOW, PROOF},
    frame::{self, HEADER, Head, Kind, MAGIC},
    home, key,
    open::Salvaged,
    trouble::Trouble,
};

/// Bytes read at once.
const CHUNK: usize = 4 << 20;
/// Bytes of values in one commit of the new store.
const COMMIT_BYTES: usize = 8 << 20;
/// Frames without their digest that are remembered; more are only counted.
const DAMAGED_MAX: usize = 100_000;

type Name = (Kind, Vec<u8>);

/// Where a good frame lies.
#[derive(Clone, Copy, Debug)]
struct At {
    stamp: u64,
    offset: u64,
    len: usize,
}

/// Is shown kind, key and value.
type Each<'e> = &'e mut dyn FnMut(Kind, &[u8], &[u8]) -> Result<(), Trouble>;

/// What a search of the raw file found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) seed: u64,
    good: HashMap<Name, At>,
    /// Newest removal of a key that is known.
    gone: HashMap<Name, u64>,
    lows: HashMap<Vec<u8>, (u64, u64)>,
    /// The newest of each, as far as its stamp can be believed.
    unreadable: HashMap<Name, At>,
    /// Frames beyond [`DAMAGED_MAX`].
    uncounted: u64,
}

/// Calls back with each place where a header can be read, and goes on behind what it answers.
fn search(
    file: &File,
    found: &mut dyn FnMut(u64, Head) -> io::Result<Option<u64>>,
) -> io::Result<()> {
    let len = file.metadata()?.len();
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at + (HEADER as u64) <= len {
        let there = (len - at).min(CHUNK as u64) as usize;
        file.read_exact_at(&mut chunk[..there], at)?;
        let mut within = 0;
        while let Some(offset) = next_magic(&chunk[..there], within) {
            if offset + HEADER > there {
                break;
            }
            let start = at + offset as u64;
            let head = Head::read(&chunk[offset..there]);
            let head = head.filter(|head| head.total() as u64 <= len - start);
            let behind = match head {
                Some(head) => found(start, head)?,
                None => None,
            };
            within = behind.map_or(offset + 1, |behind| (behind - at) as usize);
            if within >= there {
                break;
            }
        }
        // A header that the end of the chunk cuts is read again with the next.
        at += (there - (HEADER - 1)).max(within) as u64;
    }
    Ok(())
}

fn next_magic(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == MAGIC[0])?;
        if bytes[at..].starts_with(&MAGIC) {
            return Some(at);
        }
        at += 1;
    }
}

fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// The seed of a store whose proof is gone: its format row says it.
fn seed_of(file: &File) -> io::Result<Option<u64>> {
    let mut newest = None;
    search(file, &mut |offset, head| {
        if head.kind != Kind::Meta || head.key != FORMAT.len() {
            return Ok(None);
        }
        let bytes = read_at(file, offset, head.total())?;
        let frame = frame::read(&bytes, 0).filter(|frame| frame.key == FORMAT);
        let seed = frame.and_then(|frame| frame.value.get(4..)?.try_into().ok());
        newest = newest.or(seed.map(u64::from_le_bytes));
        Ok(seed.map(|_| offset + head.total() as u64))
    })?;
    Ok(newest)
}

/// Searches a whole file.
pub(crate) fn scan(file: &File, seed: Option<u64>) -> io::Result<Found> {
    let seed = match seed {
        Some(seed) => seed,
        None => seed_of(file)?.unwrap_or(0),
    };
    let mut found = Found { seed, ..Found::default() };
    search(file, &mut |offset, head| {
        let bytes = read_at(file, offset, head.total())?;
        let Some(frame) = frame::read(&bytes, seed) else {
            let format = head.kind == Kind::Meta && frame::read(&bytes, 0).is_some();
            if !format {
                found.unreadable(&bytes, head, offset);
            }
            return Ok(format.then(|| offset + head.total() as u64));
        };
        found.note(frame, offset);
        Ok(Some(offset + head.total() as u64))
    })?;
    found.sort();
    Ok(found)
}

impl Found {
    fn unreadable(&mut self, bytes: &[u8], head: Head, offset: u64) {
        if self.unreadable.len() < DAMAGED_MAX {
            let key = bytes[HEADER..HEADER + head.key].to_vec();
            let at = At { stamp: head.stamp, offset, len: head.total() };
            let known = self.unreadable.entry((head.kind, key)).or_insert(at);
            if at.stamp > known.stamp {
                *known = at;
            }
        } else {
            self.uncounted += 1;
        }
    }

    fn note(&mut self, frame: frame::Frame<'_>, offset: u64) {
        let at = At { stamp: frame.stamp, offset, len: frame::len(frame.key, frame.value) };
        if frame.kind == Kind::Meta {
            if frame.key == LAST {
                for (kind, key) in engine::gone(frame.value) {
                    let newest = self.gone.entry((kind, key.to_vec())).or_default();
                    *newest = (*newest).max(frame.stamp);
                }
            }
            if let (Some(prefix), Ok(low)) = (frame.key.strip_prefix(LOW), frame.value.try_into()) {
                let known = self.lows.entry(prefix.to_vec()).or_default();
                *known = (*known).max((frame.stamp, u64::from_le_bytes(low)));
            }
        }
        let name = (frame.kind, frame.key.to_vec());
        let known = self.good.entry(name).or_insert(at);
        if at.stamp > known.stamp {
            *known = at;
        }
    }

    /// Takes out what was removed, and from the unreadable what is good elsewhere.
    fn sort(&mut self) {
        let (gone, lows) = (&self.gone, &self.lows);
        let newest = |name: &Name| gone.get(name).copied().unwrap_or(0);
        let passed = |(kind, key): &Name, stamp: u64| {
            let (prefix, position) = key.split_at(key.len().saturating_sub(8));
            let position = position.try_into().map_or(0, u64::from_be_bytes);
            let below = |&(at, low): &(u64, u64)| position < low && stamp <= at;
            *kind == Kind::Run && lows.get(prefix).is_some_and(below)
        };
        // A removal and a put of the same commit: the put is kept, once too often at worst.
        self.good.retain(|name, at| at.stamp >= newest(name) && !passed(name, at.stamp));
        let good = &self.good;
        self.unreadable.retain(|name, _| {
            !good.contains_key(name) && !gone.contains_key(name) && !passed(name, 0)
        });
    }

    /// Values that were found but are not what was written, as far as can be told.
    pub(crate) fn damaged(&self) -> u64 {
        self.unreadable.len() as u64 + self.uncounted
    }

    /// What would be salvaged.
    pub(crate) fn salvaged(&self) -> Salvaged {
        let count = |kind| self.good.keys().filter(|name| name.0 == kind).count() as u64;
        Salvaged { runs: count(Kind::Run), rows: count(Kind::Row) }
    }

    /// Highest stamp.
    pub(crate) fn stamp(&self) -> u64 {
        self.good.values().map(|at| at.stamp).max().unwrap_or(0)
    }

    /// Runs that are lost, in the order of their keys: what the file has in their place.
    fn each_lost(&self, file: &File, visit: Each<'_>) -> Result<(), Trouble> {
        let runs = |name: &Name| name.0 == Kind::Run && key::parse_run(&name.1).is_some();
        let mut lost: Vec<_> = self.unreadable.iter().filter(|(name, _)| runs(name)).collect();
        lost.sort_unstable_by_key(|(name, _)| *name);
        for ((kind, key), at) in lost.into_iter().take(RUNS_KEPT) {
            let bytes = read_at(file, at.offset, at.len).map_err(|e| Trouble::io(&e))?;
            visit(*kind, key, bytes.get(HEADER + key.len()..).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Visits what is good, in the order of the keys.
    pub(crate) fn each(&self, file: &File, visit: Each<'_>) -> Result<(), Trouble> {
        let mut names: Vec<_> = self.good.iter().collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        for ((kind, key), at) in names {
            let bytes = read_at(file, at.offset, at.len).map_err(|e| Trouble::io(&e))?;
            // Read a second time, so checked a second time.
            if let Some(frame) = frame::read_at(&bytes, self.seed, *kind, key) {
                visit(*kind, key, frame.value)?;
            }
        }
        Ok(())
    }
}

/// Builds the store that takes the place of a damaged one, beside it.
pub(crate) fn rebuild(
    dir: &Path,
    file: &File,
    found: &Found,
    cache_bytes: usize,
) -> Result<(), Trouble> {
    let path = dir.join(home::NEW_STORE);
    let io = |e: io::Error| Trouble::io(&e);
    home::write_private(&path, b"").map_err(io)?;
    let medium = Arc::new(FileMedium { path: path.clone() });
    let engine = Engine::open(medium.open().map_err(io)?, cache_bytes, found.seed)?;
    {
        let mut writer = engine.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.stamp = writer.stamp.max(found.stamp());
    }
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut restore = |kind, key: Vec<u8>, value: &[u8]| {
        bytes += frame::len(&key, value);
        batch.push((kind, key, value.to_vec()));
        if bytes >= COMMIT_BYTES {
            bytes = 0;
            engine.restore(&std::mem::take(&mut batch))?;
        }
        Ok(())
    };
    found.each(file, &mut |kind, key, value| {
        if kind == Kind::Meta && [FORMAT, LAST, PROOF, DRAW].contains(&key) {
            return Ok(());
        }
        restore(kind, key.to_vec(), value)
    })?;
    // What was lost is left for its queue to account for.
    found.each_lost(file, &mut |_, key, value| restore(Kind::Row, key::cut(key), value))?;
    engine.restore(&batch)?;
    engine.set_meta(&[(DRAW, Some(b"salvaged"))])?;
    drop(engine);
    File::open(&path).and_then(|file| file.sync_all()).map_err(io)
}
