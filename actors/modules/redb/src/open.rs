//! Opening a store, whatever happened to it: lock, proof, check, salvage, and the account of that.
use std::{
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use extension::storage::{QueueStore, StoreError};

use crate::{
    aside,
    backend::{FileMedium, Medium},
    engine::{DRAW, Engine, PROOF, QUICK_REPAIR_FROM},
    examine::{DamagedRun, Examined, examine},
    home::{self, Home},
    probe, proof, salvage,
    store::RedbStore,
    trouble::Trouble,
};

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of redb's cache, 16–64 MiB: less costs reads, more gains nothing (measured).
    pub cache_bytes: usize,
    /// Free space in bytes below which puts are refused; 0: only a full disk refuses them.
    pub keep_free_bytes: u64,
    /// Files of less bytes are read and checked as a whole at each opening; larger ones only when
    /// something made them suspicious. By default 256 MiB: about half a second.
    pub check_bytes: u64,
    /// Program and arguments that call [`probe`](crate::probe) on the file named behind them, and
    /// exit 0 where it is good. Without it a suspicious file is looked at in this process, where
    /// an abort would end it.
    pub probe: Option<Vec<OsString>>,
    /// What tells this machine from others; by default `/etc/machine-id` and the machine's
    /// product UUID, where they can be read.
    pub machine: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 32 << 20,
            keep_free_bytes: 0,
            check_bytes: QUICK_REPAIR_FROM,
            probe: None,
            machine: None,
        }
    }
}

/// Bounds of [`Options::cache_bytes`].
const CACHE_BYTES: (usize, usize) = (16 << 20, 64 << 20);

/// An opened store and what is to be told about the opening.
#[derive(Debug)]
pub struct Opened {
    /// It.
    pub store: RedbStore,
    /// What happened.
    pub report: OpenReport,
    /// The store is proved to be the one that this machine closed (or held when it died) last.
    /// Where it is not, a new epoch is drawn (delivery.md §1), in the first commit that puts a
    /// row: until that commit every later opening says `false` again.
    pub proved: bool,
}

/// What an opening did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// There was no store.
    pub created: bool,
    /// Why `proved` is `false`.
    pub unproved: Option<String>,
    /// Files and values that were cut out, with the reason; each lies in `damaged/` with a .json.
    pub set_aside: Vec<SetAside>,
    /// What was found good in a file that was set aside, and stands in the store again.
    pub salvaged: Salvaged,
    /// Values that were found but are not what was written.
    pub damaged: u64,
}

/// Something that was cut out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Where it lies now.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// How much was salvaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Runs.
    pub runs: u64,
    /// Rows.
    pub rows: u64,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the folder (exit 69).
    #[error("{} is in use{}", dir.display(),
        pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    InUse {
        /// Which folder.
        dir: PathBuf,
        /// Which process, where its lock file says.
        pid: Option<u32>,
    },
    /// Written by another version (exit 78). Nothing was changed.
    #[error("{} has format {found}, which this version does not know", path.display())]
    UnknownFormat {
        /// Which file.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
    /// The file is not what was written. Who looks at a store or checks it is told so; opening
    /// one mends it.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The disk fails, is full, or refuses (exit 69, try again).
    #[error("{}: {error}", path.display())]
    Io {
        /// What was used.
        path: PathBuf,
        /// How it failed.
        error: io::Error,
    },
    /// The store was opened but cannot be written.
    #[error("{}: {error}", path.display())]
    Store {
        /// Which file.
        path: PathBuf,
        /// How it failed.
        error: StoreError,
    },
}

/// Openings that did not end after which the file is not tried any more: the first may have been
/// killed, those after it came behind a probe.
const TRIES: u32 = 4;
/// Ends that were not clean, one after the other, after which the file is looked at as a whole.
const UNCLEAN: u32 = 3;

impl RedbStore {
    /// Opens the store of a folder, or makes one. Blocks on the disk while it is checked
    /// ([`Options::check_bytes`]).
    ///
    /// # Errors
    /// Never because of damage: that is cut out and told in the report.
    pub fn open(dir: &Path, options: &Options) -> Result<Opened, OpenError> {
        let mut report = OpenReport::default();
        match Self::attempt(dir, options, &mut report) {
            // The first commit met damage: now the file is looked at as a whole.
            Err(OpenError::Store { .. }) if home::read_suspect(dir).is_some() => {
                Self::attempt(dir, options, &mut report)
            }
            other => other,
        }
    }

    fn attempt(
        dir: &Path,
        options: &Options,
        report: &mut OpenReport,
    ) -> Result<Opened, OpenError> {
        let lock = match home::lock(dir).map_err(|e| io_at(&dir.join(home::LOCK), e))? {
            Ok(lock) => lock,
            Err(home::InUse(pid)) => return Err(OpenError::InUse { dir: dir.to_owned(), pid }),
        };
        let cache_bytes = options.cache_bytes.clamp(CACHE_BYTES.0, CACHE_BYTES.1);
        let path = dir.join(home::STORE);
        let mut opening = Opening { dir, path, options, cache_bytes, report };
        opening.prepare().map_err(|e| io_at(dir, e))?;
        let opened = opening.open(lock);
        if let Err(OpenError::UnknownFormat { .. } | OpenError::Io { .. }) = &opened {
            // That says nothing about the file.
            let _ = home::unmark_opening(dir);
        }
        opened
    }
}

fn io_at(path: &Path, error: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), error }
}

struct Opening<'o> {
    dir: &'o Path,
    path: PathBuf,
    options: &'o Options,
    cache_bytes: usize,
    report: &'o mut OpenReport,
}

impl Opening<'_> {
    /// Ends what an earlier opening began: the new store counts once the damaged one is away.
    fn prepare(&mut self) -> io::Result<()> {
        let new = self.dir.join(home::NEW_STORE);
        if self.path.exists() {
            return match std::fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        if new.exists() {
            std::fs::rename(&new, &self.path)?;
        } else {
            self.report.created = true;
        }
        home::sync_folder(self.dir)
    }

    /// A new store gets its name when it is whole: a power cut before leaves nothing to explain.
    fn create(&self) -> Result<(), Trouble> {
        let io = |e: io::Error| Trouble::io(&e);
        let path = self.dir.join(home::FIRST_STORE);
        home::write_private(&path, b"").map_err(io)?;
        let medium = FileMedium { path: path.clone() };
        let seed = proof::random().map_err(io)?;
        drop(Engine::open(medium.open().map_err(io)?, self.cache_bytes, seed)?);
        File::open(&path).and_then(|file| file.sync_all()).map_err(io)?;
        std::fs::rename(&path, &self.path).map_err(io)?;
        home::sync_folder(self.dir).map_err(io)
    }

    fn trouble(&self, trouble: Trouble) -> OpenError {
        let path = self.path.clone();
        match trouble {
            Trouble::Io(text) => OpenError::Io { path, error: io::Error::other(text) },
            Trouble::Full(text) => {
                OpenError::Io { path, error: io::Error::new(io::ErrorKind::StorageFull, text) }
            }
            other => OpenError::Store { path, error: other.to_store_error() },
        }
    }

    fn open(mut self, lock: File) -> Result<Opened, OpenError> {
        if self.report.created {
            self.create().map_err(|trouble| self.trouble(trouble))?;
        }
        let before = home::read_proof(self.dir);
        let tries = home::openings(self.dir);
        home::mark_opening(self.dir, tries + 1).map_err(|e| io_at(self.dir, e))?;
        let unclean = before.as_ref().map_or(0, |proof| proof.unclean);
        let suspicion = home::read_suspect(self.dir).or_else(|| {
            (tries > 0).then(|| format!("{tries} openings of it did not end")).or_else(|| {
                (unclean >= UNCLEAN)
                    .then(|| format!("{unclean} ends one after the other were not clean"))
            })
        });
        let examined = match self.trusted(tries, suspicion.as_deref(), before.as_ref()) {
            Ok(examined) => examined,
            Err(Trouble::Damaged(why)) => self.salvage(&why, before.as_ref())?,
            Err(trouble) => return Err(self.trouble(trouble)),
        };
        if let Some(found) = examined.unknown {
            return Err(OpenError::UnknownFormat { path: self.path, found });
        }
        let unproved = if self.report.created {
            Some("the store is new".into())
        } else if !self.report.set_aside.is_empty() {
            Some("the store was salvaged".into())
        } else {
            proof::unproved(self.dir, self.options, before.as_ref(), &examined)
        };
        self.set_runs_aside(&examined.damaged)?;
        let unclean = if examined.whole { 0 } else { unclean };
        self.serve(lock, unproved, unclean + 1, before.as_ref())
    }

    /// What the store says of itself, when it can be believed.
    fn trusted(
        &self,
        tries: u32,
        suspicion: Option<&str>,
        before: Option<&proof::Proof>,
    ) -> Result<Examined, Trouble> {
        if tries >= TRIES {
            return Err(Trouble::Damaged(format!("{tries} openings of it did not end")));
        }
        let io = |e: io::Error| Trouble::io(&e);
        if let (Some(suspicion), Some(command)) = (suspicion, &self.options.probe) {
            tracing::warn!(suspicion, "store is read in a process of its own first");
            if let Some(why) = probe::run(command, &self.path).map_err(io)? {
                return Err(Trouble::Damaged(format!("{suspicion}; {why}")));
            }
        }
        let bytes = std::fs::metadata(&self.path).map_err(io)?.len();
        let deep = suspicion.is_some() || bytes < self.options.check_bytes;
        let examined = examine(&self.path, deep)?;
        let ours = proof::unproved(self.dir, self.options, before, &examined).is_none();
        match home::read_acked(self.dir) {
            Some(acked) if ours && acked > examined.stamp => {
                Err(Trouble::Damaged("the last commits are gone from it".into()))
            }
            _ => Ok(examined),
        }
    }

    /// Makes a new store of what is good in the damaged one, and sets that aside.
    fn salvage(&mut self, why: &str, before: Option<&proof::Proof>) -> Result<Examined, OpenError> {
        tracing::error!(why, "store is damaged; what is good is salvaged");
        let file = File::open(&self.path).map_err(|e| io_at(&self.path, e))?;
        let found = salvage::scan(&file, before.map(|proof| proof.seed));
        let found = found.map_err(|e| io_at(&self.path, e))?;
        salvage::rebuild(self.dir, &file, &found, self.cache_bytes)
            .map_err(|trouble| self.trouble(trouble))?;
        self.report.salvaged = found.salvaged();
        self.report.damaged += found.damaged();
        let aside = aside::store(self.dir, why, found.salvaged(), found.damaged())
            .and_then(|aside| {
                std::fs::rename(self.dir.join(home::NEW_STORE), &self.path)?;
                home::sync_folder(self.dir)?;
                Ok(aside)
            })
            .map_err(|e| io_at(self.dir, e))?;
        self.report.set_aside.push(aside);
        let seed = found.seed;
        Ok(Examined { seed, draw: true, stamp: found.stamp(), ..Examined::default() })
    }

    fn set_runs_aside(&mut self, damaged: &[DamagedRun]) -> Result<(), OpenError> {
        for run in damaged {
            tracing::error!(queue = %run.queue, position = run.place.position, "run is damaged");
            let aside = aside::run(self.dir, (&run.queue, run.place), &run.bytes);
            let aside = aside.map_err(|e| io_at(self.dir, e))?;
            self.report.set_aside.push(aside);
            self.report.damaged += 1;
        }
        if damaged.is_empty() {
            return Ok(());
        }
        let medium = FileMedium { path: self.path.clone() };
        let opened = medium.open().map_err(|e| Trouble::io(&e));
        opened
            .and_then(|backend| Engine::open(backend, self.cache_bytes, 0))
            .and_then(|engine| engine.cut_aside(damaged))
            .map_err(|trouble| self.trouble(trouble))
    }

    /// The database itself; damage that only now shows is salvaged, once.
    fn engine(
        &mut self,
        seed: u64,
        before: Option<&proof::Proof>,
    ) -> Result<(Arc<dyn Medium>, Engine, bool), OpenError> {
        let medium: Arc<dyn Medium> = Arc::new(FileMedium { path: self.path.clone() });
        let mut salvaged = false;
        loop {
            let opened = medium.open().map_err(|e| Trouble::io(&e));
            match opened.and_then(|backend| Engine::open(backend, self.cache_bytes, seed)) {
                Ok(engine) => return Ok((medium, engine, salvaged)),
                Err(Trouble::Damaged(why)) if !salvaged => {
                    salvaged = true;
                    self.salvage(&why, before)?;
                }
                Err(trouble) => return Err(self.trouble(trouble)),
            }
        }
    }

    fn serve(
        mut self,
        lock: File,
        unproved: Option<String>,
        unclean: u32,
        before: Option<&proof::Proof>,
    ) -> Result<Opened, OpenError> {
        let io = |e| io_at(&self.path, e);
        let seed = proof::random().map_err(io)?;
        let nonce = proof::random().map_err(io)?;
        let (medium, engine, salvaged) = self.engine(seed, before)?;
        let unproved = unproved.or_else(|| salvaged.then(|| "the store was salvaged".to_owned()));
        let (written, row) = proof::write(self.dir, self.options, (nonce, engine.seed), unclean)
            .map_err(|e| io_at(self.dir, e))?;
        let home = Home::open(self.dir, lock, written).map_err(|e| io_at(self.dir, e))?;
        let sizes = (self.cache_bytes, self.options.keep_free_bytes);
        let store = RedbStore::new(medium, engine, sizes, Some(home));
        let failed = |error| OpenError::Store { path: self.path.clone(), error };
        let mut rows = vec![(PROOF, Some(&row[..]))];
        if let Some(why) = &unproved {
            rows.push((DRAW, Some(why.as_bytes())));
        }
        store.begin(&rows).map_err(failed)?;
        match store.compact() {
            Ok(true) => tracing::info!("store compacted"),
            Ok(false) => {}
            // The store opens itself anew; a file larger than need be does no harm.
            Err(error) => tracing::warn!(%error, "store not compacted"),
        }
        if let Some(why) = store.suspect() {
            return Err(failed(StoreError::Failed(why)));
        }
        home::unmark(self.dir).map_err(|e| io_at(self.dir, e))?;
        self.report.unproved = unproved;
        let proved = self.report.unproved.is_none();
        Ok(Opened { store, report: std::mem::take(self.report), proved })
    }
}
