//! Reads every value of a stopped node's store and says what is good; changes nothing.
use std::{fs::File, io, path::Path, sync::Arc};

use extension::storage::{StoreError, Value};
use redb::StorageBackend;

use crate::{
    aside,
    backend::{FileMedium, Medium, Overlay},
    engine::Engine,
    examine::{ShowRun, examine, shown},
    frame::Kind,
    home, key,
    open::{OpenError, Salvaged},
    salvage,
    store::RedbStore,
    trouble::Trouble,
};

/// What is in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// All is as it was written.
    pub ok: bool,
    /// Runs that are good and in their place.
    pub runs: u64,
    /// Rows that are good and in their place.
    pub rows: u64,
    /// Why redb cannot read the file; then the numbers below are of a search of its raw bytes.
    pub broken: Option<String>,
    /// What the next opening would salvage from a broken file.
    pub salvaged: Salvaged,
    /// Values that are not what was written; the next opening cuts them out.
    pub damaged: u64,
    /// Things that earlier openings have set aside in `damaged/`.
    pub set_aside: u64,
}

fn locked(dir: &Path) -> Result<File, OpenError> {
    let at = |path: &Path, error| OpenError::Io { path: path.to_owned(), error };
    let store = dir.join(home::STORE);
    if let Err(error) = std::fs::metadata(&store) {
        return Err(at(&store, error));
    }
    match home::lock(dir).map_err(|e| at(&dir.join(home::LOCK), e))? {
        Ok(lock) => Ok(lock),
        Err(home::InUse(pid)) => Err(OpenError::InUse { dir: dir.to_owned(), pid }),
    }
}

fn failed(path: &Path, trouble: &Trouble) -> OpenError {
    if let Trouble::Damaged(why) = trouble {
        return OpenError::Damaged { path: path.to_owned(), why: why.clone() };
    }
    let error = io::Error::other(trouble.to_string());
    OpenError::Io { path: path.to_owned(), error }
}

/// Reads every value; `show` gets each run, good or damaged (of a broken file: each good run that
/// would be salvaged).
///
/// # Errors
/// In use by a process, no store there, unknown format, or the disk fails. Damage is no error.
pub fn fsck(dir: &Path, show: ShowRun<'_>) -> Result<FsckReport, OpenError> {
    let _lock = locked(dir)?;
    let path = dir.join(home::STORE);
    let set_aside = aside::count(dir);
    match examine(&path, true) {
        Ok(examined) => {
            if let Some(found) = examined.unknown {
                return Err(OpenError::UnknownFormat { path, found });
            }
            shown(&path, show).map_err(|trouble| failed(&path, &trouble))?;
            let damaged = examined.damaged.len() as u64;
            let runs = examined.runs - damaged;
            let (ok, rows) = (damaged == 0, examined.rows);
            Ok(FsckReport { ok, runs, rows, damaged, set_aside, ..FsckReport::default() })
        }
        Err(Trouble::Damaged(why)) => {
            let searched = raw(dir, &path, show).map_err(|trouble| failed(&path, &trouble))?;
            let (salvaged, damaged) = searched;
            let broken = Some(why);
            Ok(FsckReport { broken, salvaged, damaged, set_aside, ..FsckReport::default() })
        }
        Err(trouble) => Err(failed(&path, &trouble)),
    }
}

fn raw(dir: &Path, path: &Path, show: ShowRun<'_>) -> Result<(Salvaged, u64), Trouble> {
    let io = |e: io::Error| Trouble::io(&e);
    let file = File::open(path).map_err(io)?;
    let seed = home::read_proof(dir).map(|proof| proof.seed);
    let found = salvage::scan(&file, seed).map_err(io)?;
    found.each(&file, &mut |kind, key, value| {
        if let (Kind::Run, Some((queue, place))) = (kind, key::parse_run(key)) {
            show(&queue, place, Value::Good(value));
        }
        Ok(())
    })?;
    Ok((found.salvaged(), found.damaged()))
}

/// Is shown each row by its key, which is `table 0 key`.
type ShowRow<'s> = &'s mut dyn FnMut(&[u8], &[u8]);

/// Shows what the next opening would salvage from a broken file, changing nothing: the rows, then
/// the runs in the order of their queues.
///
/// # Errors
/// In use by a process, no store there, or the disk fails.
pub fn salvageable(dir: &Path, row: ShowRow<'_>, run: ShowRun<'_>) -> Result<(), OpenError> {
    let _lock = locked(dir)?;
    let path = dir.join(home::STORE);
    let io = |e: io::Error| failed(&path, &Trouble::io(&e));
    let file = File::open(&path).map_err(io)?;
    let seed = home::read_proof(dir).map(|proof| proof.seed);
    let found = salvage::scan(&file, seed).map_err(io)?;
    let rows = found.each(&file, &mut |kind, key, value| {
        if kind == Kind::Row {
            row(key, value);
        }
        Ok(())
    });
    let runs = found.each(&file, &mut |kind, key, value| {
        if let (Kind::Run, Some((queue, place))) = (kind, key::parse_run(key)) {
            run(&queue, place, Value::Good(value));
        }
        Ok(())
    });
    rows.and(runs).map_err(|trouble| failed(&path, &trouble))
}

impl RedbStore {
    /// Reads every value while the store serves, and finds each by its key, too: a background
    /// check for files too large to be read at each opening. Answers runs and rows.
    ///
    /// # Errors
    /// Damage; [`RedbStore::suspect`] then says so until the next opening, which mends it.
    pub fn verify(&self) -> Result<(u64, u64), StoreError> {
        let runs = self.verified(Kind::Run)?;
        Ok((runs, self.verified(Kind::Row)?))
    }
}

/// The file with its writes kept in memory.
struct Unchanged(FileMedium);

impl Medium for Unchanged {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(Overlay::new(File::open(&self.0.path)?)?))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }

    fn file_bytes(&self) -> io::Result<u64> {
        self.0.file_bytes()
    }
}

/// A stopped node's store, to be looked at.
pub struct Looked {
    store: RedbStore,
    _lock: File,
}

impl std::ops::Deref for Looked {
    type Target = RedbStore;

    fn deref(&self) -> &RedbStore {
        &self.store
    }
}

impl RedbStore {
    /// A stopped node's store, to be looked at: the file stays as it is, commits are lost with
    /// the value. Damage shows as [`Value::Damaged`], or as an error here.
    ///
    /// # Errors
    /// As [`fsck`]; damage of the file itself, too.
    pub fn look(dir: &Path) -> Result<Looked, OpenError> {
        let lock = locked(dir)?;
        let path = dir.join(home::STORE);
        let examined = examine(&path, false).map_err(|trouble| failed(&path, &trouble))?;
        if let Some(found) = examined.unknown {
            return Err(OpenError::UnknownFormat { path, found });
        }
        let medium = Arc::new(Unchanged(FileMedium { path: path.clone() }));
        let opened = medium.open().map_err(|e| Trouble::io(&e));
        let engine = opened.and_then(|backend| Engine::open(backend, 16 << 20, 1));
        let engine = engine.map_err(|trouble| failed(&path, &trouble))?;
        Ok(Looked { store: RedbStore::new(medium, engine, (16 << 20, 0), None), _lock: lock })
    }
}
