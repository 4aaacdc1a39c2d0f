//! Looks at a store without changing it: redb's tree, every value, and what the store says of
//! itself. All that redb writes meanwhile stays in memory.
use std::{
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use extension::storage::{Place, QueueName, Value};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};

use crate::{
    backend::{Fused, Overlay},
    engine::{self, Bytes2, DRAW, Engine, Format, META, PROOF, ROWS, RUNS},
    frame::{self, Head, Kind},
    held::Held,
    key,
    trouble::{Trouble, guarded, visiting},
};

/// Bytes of redb's cache while it is looked at.
const CACHE_BYTES: usize = 16 << 20;

/// What a store says of itself.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    /// Nothing is in it yet.
    pub(crate) new: bool,
    /// Written by a version this one does not know.
    pub(crate) unknown: Option<u32>,
    pub(crate) seed: u64,
    /// Of the last commit.
    pub(crate) stamp: u64,
    /// Its part of the proof.
    pub(crate) proof: Vec<u8>,
    /// An epoch is still to be drawn.
    pub(crate) draw: bool,
    /// Every page and value was read.
    pub(crate) whole: bool,
    pub(crate) runs: u64,
    pub(crate) rows: u64,
    /// Runs that are not what was written; all else is.
    pub(crate) damaged: Vec<DamagedRun>,
}

/// A run that is not what was written.
#[derive(Debug)]
pub(crate) struct DamagedRun {
    pub(crate) key: Vec<u8>,
    pub(crate) queue: QueueName,
    pub(crate) place: Place,
    pub(crate) bytes: Vec<u8>,
}

impl DamagedRun {
    /// What stands where its value was.
    pub(crate) fn value(&self) -> &[u8] {
        self.bytes.get(frame::HEADER + self.key.len()..).unwrap_or_default()
    }
}

/// Is shown each run.
pub(crate) type ShowRun<'s> = &'s mut dyn for<'a> FnMut(&QueueName, Place, Value<'a>);

/// Looks at a file. `deep`: every page and every value; else only what the store says of itself.
pub(crate) fn examine(path: &Path, deep: bool) -> Result<Examined, Trouble> {
    match look(path, deep) {
        // Perhaps only runs are damaged: then they are cut out, and the rest stays.
        Err(Trouble::Damaged(why)) if deep => {
            without_damaged_runs(path).map_err(|_| Trouble::Damaged(why))
        }
        other => other,
    }
}

fn open(path: &Path) -> Result<(Held, Arc<AtomicBool>), Trouble> {
    let io = |e: std::io::Error| Trouble::io(&e);
    let overlay = File::open(path).and_then(Overlay::new).map_err(io)?;
    let blown = Arc::new(AtomicBool::new(false));
    let backend = Fused { inner: Box::new(overlay), blown };
    let repaired = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&repaired);
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_repair_callback(move |_| noted.store(true, Relaxed));
    Ok((Held::new(builder.create_with_backend(backend)?), repaired))
}

fn look(path: &Path, deep: bool) -> Result<Examined, Trouble> {
    guarded(|| {
        let (mut db, repaired) = open(path)?;
        // A repair has looked at every page already.
        if deep && !repaired.load(Relaxed) && !db.check_integrity()? {
            return Err(Trouble::Damaged("redb's check of the file failed".into()));
        }
        let mut examined = said(&db)?;
        examined.whole = deep;
        if deep && !examined.new && examined.unknown.is_none() {
            walk(&db, &mut examined, &mut |_, _, _| {})?;
            if !examined.damaged.is_empty() {
                return Err(Trouble::Damaged("a value does not have its digest".into()));
            }
        }
        db.set_sound(deep);
        Ok(examined)
    })
}

/// What is found when the damaged runs are cut out, and no other damage is.
fn without_damaged_runs(path: &Path) -> Result<Examined, Trouble> {
    guarded(|| {
        let (mut db, _) = open(path)?;
        let mut examined = said(&db)?;
        walk(&db, &mut examined, &mut |_, _, _| {})?;
        let keys: Vec<_> = examined.damaged.iter().map(|run| run.key.clone()).collect();
        if keys.is_empty() {
            return Err(Trouble::Damaged("the damage is not in the runs".into()));
        }
        Engine::cut(&db, &keys)?;
        if !db.check_integrity()? {
            return Err(Trouble::Damaged("there is more damage than in the runs".into()));
        }
        examined.whole = true;
        db.set_sound(true);
        Ok(examined)
    })
}

/// Shows every run of a file that [`examine`] could read.
pub(crate) fn shown(path: &Path, show: ShowRun<'_>) -> Result<(), Trouble> {
    guarded(|| {
        let (db, _) = open(path)?;
        let mut examined = said(&db)?;
        if examined.new || examined.unknown.is_some() {
            return Ok(());
        }
        walk(&db, &mut examined, show)
    })
}

fn said(db: &Database) -> Result<Examined, Trouble> {
    let seed = match engine::format(db)? {
        Format::New => return Ok(Examined { new: true, ..Examined::default() }),
        Format::Unknown(found) => {
            return Ok(Examined { unknown: Some(found), ..Examined::default() });
        }
        Format::Known(seed) => seed,
    };
    let proof = engine::meta(db, seed, PROOF)?.unwrap_or_default();
    let draw = engine::meta(db, seed, DRAW)?.is_some();
    let (stamp, _) = engine::last(db, seed)?;
    Ok(Examined { seed, stamp, proof, draw, ..Examined::default() })
}

/// Every value of every table. Damage of a run's value is noted, any other is an error.
fn walk(db: &Database, examined: &mut Examined, show: ShowRun<'_>) -> Result<(), Trouble> {
    let seed = examined.seed;
    examined.rows = whole(db, ROWS, &mut |key, bytes| {
        frame::read_at(bytes, seed, Kind::Row, key)
            .map(drop)
            .ok_or_else(|| Trouble::Damaged("a row does not have its digest".into()))
    })?;
    whole(db, META, &mut |key, bytes| {
        let seed = if key == engine::FORMAT { 0 } else { seed };
        frame::read_at(bytes, seed, Kind::Meta, key)
            .map(drop)
            .ok_or_else(|| Trouble::Damaged("a row of the store itself is damaged".into()))
    })?;
    let damaged = &mut examined.damaged;
    examined.runs = whole(db, RUNS, &mut |key, bytes| {
        let (queue, place) = key::parse_run(key)
            .ok_or_else(|| Trouble::Damaged("a run stands under no key of ours".into()))?;
        if let Some(frame) = frame::read_at(bytes, seed, Kind::Run, key) {
            visiting(|| show(&queue, place, Value::Good(frame.value)));
            return Ok(());
        }
        visiting(|| show(&queue, place, Value::Damaged(bytes)));
        let itself = Head::read(bytes)
            .is_some_and(|head| head.total() == bytes.len() && head.kind == Kind::Run)
            && bytes[frame::HEADER..].starts_with(key);
        if !itself {
            return Err(Trouble::Damaged("the tree leads to the wrong place".into()));
        }
        damaged.push(DamagedRun { key: key.to_vec(), queue, place, bytes: bytes.to_vec() });
        Ok(())
    })?;
    Ok(())
}

/// Is shown each key with its bytes.
type Each<'e> = &'e mut dyn FnMut(&[u8], &[u8]) -> Result<(), Trouble>;

/// Visits a whole table; the keys must rise and be as many as the table says.
fn whole(db: &Database, definition: Bytes2, visit: Each<'_>) -> Result<u64, Trouble> {
    let table = db.begin_read()?.open_table(definition)?;
    let (mut count, mut before) = (0, None::<Vec<u8>>);
    for entry in table.iter()? {
        let (key, bytes) = entry?;
        let key = key.value();
        if before.as_deref().is_some_and(|before| key <= before) {
            return Err(Trouble::Damaged("the keys of the tree do not rise".into()));
        }
        visit(key, bytes.value())?;
        before = Some(key.to_vec());
        count += 1;
    }
    if count != table.len()? {
        return Err(Trouble::Damaged("the tree does not hold what it counts".into()));
    }
    Ok(count)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test may end at once
mod tests {
    use super::*;
    use crate::{OpenError, Options, RedbStore, STORE};

    // DESIGN §12
    #[test]
    fn a_format_of_another_version_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        drop(RedbStore::open(dir.path(), &Options::default()).unwrap());
        let path = dir.path().join(STORE);
        let db = Database::open(&path).unwrap();
        let txn = db.begin_write().unwrap();
        let mut value = engine::format_value(7);
        value[..4].copy_from_slice(&99_u32.to_le_bytes());
        let row = frame::build(Kind::Meta, 1, 0, engine::FORMAT, &value);
        txn.open_table(META).unwrap().insert(engine::FORMAT, &row[..]).unwrap();
        txn.commit().unwrap();
        drop(db);
        let before = std::fs::read(&path).unwrap();
        for _ in 0..6 {
            let refused = RedbStore::open(dir.path(), &Options::default()).unwrap_err();
            assert!(matches!(refused, OpenError::UnknownFormat { found: 99, .. }), "{refused}");
            let refused = crate::fsck(dir.path(), &mut |_, _, _| {}).unwrap_err();
            assert!(matches!(refused, OpenError::UnknownFormat { found: 99, .. }), "{refused}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
