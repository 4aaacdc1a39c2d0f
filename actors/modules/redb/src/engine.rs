//! One opened database: its three tables, a commit, and what the store itself keeps in it.
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use extension::storage::Change;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition,
    TableHandle, WriteTransaction,
};

use crate::{
    aside::RUNS_KEPT,
    backend::Fused,
    examine::DamagedRun,
    frame::{self, Kind},
    held::Held,
    key,
    trouble::{Trouble, guarded},
};

pub(crate) type Bytes2 = TableDefinition<'static, &'static [u8], &'static [u8]>;
type Open<'t> = Table<'t, &'static [u8], &'static [u8]>;

pub(crate) const RUNS: Bytes2 = TableDefinition::new("runs");
pub(crate) const ROWS: Bytes2 = TableDefinition::new("rows");
pub(crate) const META: Bytes2 = TableDefinition::new("meta");

/// Row of [`META`]: version of the format and the seed of the digests; its own seed is 0.
pub(crate) const FORMAT: &[u8] = b"format";
/// Row of [`META`]: stamp of the last commit, bytes alive, what that commit removed.
pub(crate) const LAST: &[u8] = b"last";
/// Row of [`META`]: what proves that this machine closed the store last.
pub(crate) const PROOF: &[u8] = b"proof";
/// Row of [`META`] while a new epoch is still to be drawn.
pub(crate) const DRAW: &[u8] = b"draw";
/// Rows of [`META`]: `low queue 0 precedence` to the lowest position that may still stand there.
pub(crate) const LOW: &[u8] = b"low ";

/// The format this code writes. A change of it is a migration.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Bytes of removed keys that [`LAST`] names, so that salvage knows what lately went; more would
/// take the row out of its small page.
const GONE_BYTES: usize = 2048;
/// Stamps jump by this at each opening: what a commit that never ended left in the file must not
/// look as new as the commit after it.
const STAMP_JUMP: u64 = 1 << 20;
/// From this size on a walk at the opening after a crash takes longer than a commit is worth.
pub(crate) const QUICK_REPAIR_FROM: u64 = 256 << 20;

/// What [`FORMAT`] says.
pub(crate) enum Format {
    /// Nothing is in the file.
    New,
    /// Ours, with the seed.
    Known(u64),
    /// Written by a version this one does not know.
    Unknown(u32),
}

/// An opened database. After an error that redb does not forgive another takes its place.
pub(crate) struct Engine {
    pub(crate) db: Held,
    pub(crate) seed: u64,
    pub(crate) blown: Arc<AtomicBool>,
    pub(crate) writer: Mutex<Writer>,
}

/// What the next commit starts from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    /// Of the last commit.
    pub(crate) stamp: u64,
    /// Bytes of all frames.
    pub(crate) live: u64,
    /// A new epoch is still to be drawn.
    pub(crate) draw: bool,
    lows: BTreeMap<Vec<u8>, u64>,
    /// What the commit removed: kind, length of the key, key.
    gone: Vec<u8>,
}

/// redb on that backend; nothing is looked at.
pub(crate) fn database(
    backend: Box<dyn StorageBackend>,
    cache_bytes: usize,
) -> Result<(Held, Arc<AtomicBool>), Trouble> {
    let blown = Arc::new(AtomicBool::new(false));
    let backend = Fused { inner: backend, blown: Arc::clone(&blown) };
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    Ok((Held::new(builder.create_with_backend(backend)?), blown))
}

/// What stands in the file.
pub(crate) fn format(db: &Database) -> Result<Format, Trouble> {
    let txn = db.begin_read()?;
    let tables: Vec<String> = txn.list_tables()?.map(|t| t.name().to_owned()).collect();
    if tables.is_empty() {
        return Ok(Format::New);
    }
    let meta = txn.open_table(META)?;
    let damaged = || Trouble::Damaged("the format row is damaged".into());
    let row = meta.get(FORMAT)?.ok_or_else(damaged)?;
    let frame = frame::read_at(row.value(), 0, Kind::Meta, FORMAT).ok_or_else(damaged)?;
    let (version, rest) = frame.value.split_first_chunk::<4>().ok_or_else(damaged)?;
    match u32::from_le_bytes(*version) {
        FORMAT_VERSION => {
            Ok(Format::Known(u64::from_le_bytes(rest.try_into().map_err(|_| damaged())?)))
        }
        other => Ok(Format::Unknown(other)),
    }
}

/// Value of [`FORMAT`].
pub(crate) fn format_value(seed: u64) -> [u8; 12] {
    let mut value = [0; 12];
    value[..4].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    value[4..].copy_from_slice(&seed.to_le_bytes());
    value
}

impl Engine {
    /// Opens a database, or makes one with `new_seed`. The format was looked at before.
    pub(crate) fn open(
        backend: Box<dyn StorageBackend>,
        cache_bytes: usize,
        new_seed: u64,
    ) -> Result<Engine, Trouble> {
        guarded(|| {
            let (db, blown) = database(backend, cache_bytes)?;
            let seed = match format(&db)? {
                Format::Known(seed) => seed,
                Format::New => {
                    create(&db, new_seed)?;
                    new_seed
                }
                Format::Unknown(version) => {
                    return Err(Trouble::Refused(format!("format {version} is not known")));
                }
            };
            let mut writer = read_writer(&db, seed)?;
            writer.stamp += STAMP_JUMP;
            db.set_sound(true);
            Ok(Engine { db, seed, blown, writer: Mutex::new(writer) })
        })
    }

    /// Writes or removes rows of [`META`], durably.
    pub(crate) fn set_meta(&self, rows: &[(&[u8], Option<&[u8]>)]) -> Result<(), Trouble> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = writer.clone_small();
        guarded(|| {
            let mut txn = self.db.begin_write()?;
            txn.set_durability(Durability::Immediate).map_err(refused)?;
            {
                let mut meta = txn.open_table(META)?;
                for (key, value) in rows {
                    match value {
                        Some(value) => put(&mut meta, (Kind::Meta, &next), self.seed, key, value)?,
                        None => drop(meta.remove(*key)?),
                    }
                    if *key == DRAW {
                        next.draw = value.is_some();
                    }
                }
                put_last(&mut meta, &next, self.seed)?;
            }
            txn.commit()?;
            Ok(())
        })?;
        (writer.stamp, writer.draw) = (next.stamp, next.draw);
        Ok(())
    }

    /// Puts values that salvage found, in one commit.
    pub(crate) fn restore(&self, values: &[(Kind, Vec<u8>, Vec<u8>)]) -> Result<(), Trouble> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = writer.clone_small();
        guarded(|| {
            let mut txn = self.db.begin_write()?;
            txn.set_durability(Durability::Immediate).map_err(refused)?;
            {
                let mut runs = txn.open_table(RUNS)?;
                let mut rows = txn.open_table(ROWS)?;
                let mut meta = txn.open_table(META)?;
                for (kind, key, value) in values {
                    let table = match kind {
                        Kind::Run => &mut runs,
                        Kind::Row => &mut rows,
                        Kind::Meta => &mut meta,
                    };
                    put(table, (*kind, &next), self.seed, key, value)?;
                    next.live += frame::len(key, value) as u64;
                }
                put_last(&mut meta, &next, self.seed)?;
            }
            txn.commit()?;
            Ok(())
        })?;
        (writer.stamp, writer.live) = (next.stamp, next.live);
        Ok(())
    }

    /// Shuts it: nothing reaches the file any more. `damaged`: nor is it closed.
    pub(crate) fn shut(&self, damaged: bool) {
        self.blown.store(true, Relaxed);
        if damaged {
            self.db.set_sound(false);
        }
    }

    /// Cuts damaged runs out, durably. What they held is not counted off: it is not known.
    pub(crate) fn cut(db: &Database, keys: &[Vec<u8>]) -> Result<(), Trouble> {
        guarded(|| {
            let txn = db.begin_write()?;
            {
                let mut runs = txn.open_table(RUNS)?;
                for key in keys {
                    runs.remove(&key[..])?;
                }
            }
            txn.commit()?;
            Ok(())
        })
    }

    /// Cuts damaged runs out of a file and leaves what is in them for their queue to account for,
    /// in one commit.
    pub(crate) fn cut_aside(&self, damaged: &[DamagedRun]) -> Result<(), Trouble> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let next = writer.clone_small();
        guarded(|| {
            let mut txn = self.db.begin_write()?;
            txn.set_durability(Durability::Immediate).map_err(refused)?;
            {
                let mut runs = txn.open_table(RUNS)?;
                let mut rows = txn.open_table(ROWS)?;
                for (i, run) in damaged.iter().enumerate() {
                    runs.remove(&run.key[..])?;
                    if i < RUNS_KEPT {
                        let (key, value) = (key::cut(&run.key), run.value());
                        put(&mut rows, (Kind::Row, &next), self.seed, &key, value)?;
                    }
                }
            }
            txn.commit()?;
            Ok(())
        })
    }

    /// Makes the changes durable; answers the stamp of the commit.
    pub(crate) fn commit(&self, changes: &[Change], quick_repair: bool) -> Result<u64, Trouble> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = writer.clone_small();
        let mut lows = BTreeMap::new();
        guarded(|| {
            let mut txn = self.db.begin_write()?;
            txn.set_durability(Durability::Immediate).map_err(refused)?;
            txn.set_quick_repair(quick_repair);
            self.apply(&txn, changes, &mut next, &writer.lows, &mut lows)?;
            txn.commit()?;
            Ok(())
        })?;
        writer.lows.append(&mut lows);
        (writer.stamp, writer.live, writer.draw) = (next.stamp, next.live, next.draw);
        Ok(next.stamp)
    }

    fn apply(
        &self,
        txn: &WriteTransaction,
        changes: &[Change],
        next: &mut Writer,
        known: &BTreeMap<Vec<u8>, u64>,
        lows: &mut BTreeMap<Vec<u8>, u64>,
    ) -> Result<(), Trouble> {
        // Highest position removed, of the queues whose lowest position may have changed.
        let mut touched: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        let mut runs = txn.open_table(RUNS)?;
        let mut rows = txn.open_table(ROWS)?;
        let mut row_put = false;
        for change in changes {
            match change {
                Change::PutRun { queue, place, value } => {
                    let key = key::run(queue, *place);
                    self.put_run(&mut runs, next, &key, value)?;
                    let prefix = &key[..key.len() - 8];
                    if known.get(prefix).is_some_and(|low| place.position < *low) {
                        touched.entry(prefix.to_vec()).or_default();
                    }
                }
                Change::RemoveRun { queue, place } => {
                    let key = key::run(queue, *place);
                    next.note_gone(Kind::Run, &key);
                    if let Some(old) = runs.remove(&key[..])? {
                        next.live = next.live.saturating_sub(old.value().len() as u64);
                        let highest = touched.entry(key[..key.len() - 8].to_vec()).or_default();
                        *highest = (*highest).max(place.position.saturating_add(1));
                    }
                }
                Change::PutRow { table, key, value } => {
                    let key = key::row(table, key);
                    row_put = true;
                    let framed = checked(&key, value)
                        .map(|()| frame::build(Kind::Row, next.stamp, self.seed, &key, value))?;
                    next.live += framed.len() as u64;
                    let old = rows.insert(&key[..], &framed[..])?;
                    next.live = next.live.saturating_sub(old.map_or(0, |o| o.value().len() as u64));
                }
                Change::RemoveRow { table, key } => {
                    let key = key::row(table, key);
                    next.note_gone(Kind::Row, &key);
                    let old = rows.remove(&key[..])?;
                    next.live = next.live.saturating_sub(old.map_or(0, |o| o.value().len() as u64));
                }
            }
        }
        let mut meta = txn.open_table(META)?;
        for (prefix, highest) in touched {
            let before = known.get(&prefix).copied().unwrap_or(0);
            let low = first_position(&runs, &prefix)?.unwrap_or(highest.max(before));
            if low != before {
                let key = [LOW, &prefix].concat();
                put(&mut meta, (Kind::Meta, next), self.seed, &key, &low.to_le_bytes())?;
                lows.insert(prefix, low);
            }
        }
        if row_put && next.draw {
            meta.remove(DRAW)?;
            next.draw = false;
        }
        put_last(&mut meta, next, self.seed)
    }

    /// Frames the value in redb's own page: runs are the bulk of what is written.
    fn put_run(
        &self,
        runs: &mut Open<'_>,
        next: &mut Writer,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Trouble> {
        checked(key, value)?;
        let old = runs.get(key)?.map_or(0, |old| old.value().len() as u64);
        let len = frame::len(key, value);
        let mut page = runs.insert_reserve(key, len)?;
        frame::write(page.as_mut(), Kind::Run, next.stamp, self.seed, (key, value));
        next.live = (next.live + len as u64).saturating_sub(old);
        Ok(())
    }
}

impl Writer {
    /// Without the lows, for the next commit.
    fn clone_small(&self) -> Writer {
        let (stamp, live, draw) = (self.stamp + 1, self.live, self.draw);
        Writer { stamp, live, draw, ..Writer::default() }
    }

    fn note_gone(&mut self, kind: Kind, key: &[u8]) {
        if self.gone.len() + key.len() + 3 <= GONE_BYTES {
            self.gone.push(kind as u8);
            self.gone.extend_from_slice(&(key.len() as u16).to_le_bytes());
            self.gone.extend_from_slice(key);
        }
    }
}

fn refused(error: impl std::fmt::Display) -> Trouble {
    Trouble::Refused(error.to_string())
}

fn checked(key: &[u8], value: &[u8]) -> Result<(), Trouble> {
    if key.len() > frame::KEY_MAX || value.len() > frame::VALUE_MAX {
        return Err(refused(format!(
            "key of {} or value of {} bytes is too long; at most {} and {}",
            key.len(),
            value.len(),
            frame::KEY_MAX,
            frame::VALUE_MAX
        )));
    }
    Ok(())
}

fn put(
    table: &mut Open<'_>,
    (kind, next): (Kind, &Writer),
    seed: u64,
    key: &[u8],
    value: &[u8],
) -> Result<(), Trouble> {
    table.insert(key, &frame::build(kind, next.stamp, seed, key, value)[..])?;
    Ok(())
}

fn put_last(meta: &mut Open<'_>, next: &Writer, seed: u64) -> Result<(), Trouble> {
    let mut value = Vec::with_capacity(16 + next.gone.len());
    value.extend_from_slice(&next.stamp.to_le_bytes());
    value.extend_from_slice(&next.live.to_le_bytes());
    value.extend_from_slice(&next.gone);
    put(meta, (Kind::Meta, next), seed, LAST, &value)
}

fn first_position(runs: &Open<'_>, prefix: &[u8]) -> Result<Option<u64>, Trouble> {
    let end = key::above(prefix);
    let mut range = runs.range::<&[u8]>((Bound::Included(prefix), as_slice(&end)))?;
    let Some(first) = range.next() else { return Ok(None) };
    let position = key::parse_run(first?.0.value()).map(|(_, place)| place.position);
    position.map(Some).ok_or_else(|| Trouble::Damaged("a run stands under no key of ours".into()))
}

/// What a value of [`LAST`] says was removed in its commit.
pub(crate) fn gone(last: &[u8]) -> Vec<(Kind, &[u8])> {
    let mut keys = Vec::new();
    let mut rest = last.get(16..).unwrap_or_default();
    while let Some(([kind, a, b], more)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([*a, *b]));
        let Some((key, more)) = more.split_at_checked(len) else { break };
        keys.push((if *kind == Kind::Run as u8 { Kind::Run } else { Kind::Row }, key));
        rest = more;
    }
    keys
}

/// The bound as redb wants it.
pub(crate) fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

fn create(db: &Database, seed: u64) -> Result<(), Trouble> {
    let txn = db.begin_write()?;
    {
        txn.open_table(RUNS)?;
        txn.open_table(ROWS)?;
        let mut meta = txn.open_table(META)?;
        put(&mut meta, (Kind::Meta, &Writer::default()), 0, FORMAT, &format_value(seed))?;
        let first = Writer { stamp: 1, draw: true, ..Writer::default() };
        put(&mut meta, (Kind::Meta, &first), seed, DRAW, b"new")?;
        put_last(&mut meta, &first, seed)?;
    }
    txn.commit()?;
    Ok(())
}

pub(crate) fn meta(db: &Database, seed: u64, key: &[u8]) -> Result<Option<Vec<u8>>, Trouble> {
    let table = db.begin_read()?.open_table(META)?;
    let Some(row) = table.get(key)? else { return Ok(None) };
    match frame::read_at(row.value(), seed, Kind::Meta, key) {
        Some(frame) => Ok(Some(frame.value.to_vec())),
        None => Err(Trouble::Damaged("a row of the store itself is damaged".into())),
    }
}

/// Stamp of the last commit and bytes alive.
pub(crate) fn last(db: &Database, seed: u64) -> Result<(u64, u64), Trouble> {
    let row = meta(db, seed, LAST)?.unwrap_or_default();
    match row.split_first_chunk::<8>() {
        Some((stamp, rest)) => {
            let live = rest.first_chunk::<8>().map_or(0, |live| u64::from_le_bytes(*live));
            Ok((u64::from_le_bytes(*stamp), live))
        }
        None => Err(Trouble::Damaged("the stamp of the last commit is missing".into())),
    }
}

fn read_writer(db: &Database, seed: u64) -> Result<Writer, Trouble> {
    let (stamp, live) = last(db, seed)?;
    let draw = meta(db, seed, DRAW)?.is_some();
    let mut lows = BTreeMap::new();
    let table = db.begin_read()?.open_table(META)?;
    let end = key::above(LOW);
    for entry in table.range::<&[u8]>((Bound::Included(LOW), as_slice(&end)))? {
        let (key, row) = entry?;
        let frame = frame::read_at(row.value(), seed, Kind::Meta, key.value());
        let low = frame.and_then(|f| f.value.try_into().ok()).map(u64::from_le_bytes);
        let low = low.ok_or_else(|| Trouble::Damaged("a lowest position is damaged".into()))?;
        lows.insert(key.value()[LOW.len()..].to_vec(), low);
    }
    Ok(Writer { stamp, live, draw, lows, gone: Vec::new() })
}
