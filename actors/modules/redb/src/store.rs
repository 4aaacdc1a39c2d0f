//! The store: `QueueStore` over one redb file, which opens it anew after an error.
use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use extension::storage::{
    Change, Moment, Place, QueueName, QueueStore, StoreError, StoreSize, Visit, VisitRow,
};
use protocol::Precedence;

use crate::{
    backend::Medium,
    engine::{Engine, QUICK_REPAIR_FROM},
    frame::{self, Kind},
    home::Home,
    read::{Rows, Way},
    trouble::{Trouble, guarded},
};

/// After the disk was full, puts are tried again when so many bytes more than they need are free…
const ROOM: u64 = 1 << 20;
/// …or after this time, for disks whose free space cannot be asked (quotas).
const TRY_FULL_EACH: Duration = Duration::from_secs(1);
/// A file smaller than this is not worth compacting.
const COMPACT_FROM: u64 = 8 << 20;
/// Compaction moves what is alive: worth it where that is at most this part of the file.
const COMPACT_PART: u64 = 8;
/// redb's page; a value gets one of 4 KiB × 2ⁿ for itself.
const PAGE: usize = 4096;
/// redb's own bytes in a page of one entry: header, end of key, end of value.
const PAGE_OVERHEAD: usize = 12;
/// The largest page runs are cut for; beyond it what is written in vain is below 2 %.
const PAGE_MAX: usize = 256 << 10;

/// The durable state of one node in one redb file.
///
/// Dropping it closes the file and writes down that this machine closed it.
pub struct RedbStore {
    medium: Arc<dyn Medium>,
    cache_bytes: usize,
    keep_free_bytes: u64,
    slot: RwLock<Slot>,
    /// Stamp of the last commit that was answered.
    acked: AtomicU64,
    full_since: Mutex<Option<Instant>>,
    home: Option<Home>,
}

struct Slot {
    engine: Option<Arc<Engine>>,
    /// Why nothing is served until the next opening.
    suspect: Option<String>,
}

impl std::fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbStore").finish_non_exhaustive()
    }
}

impl RedbStore {
    pub(crate) fn new(
        medium: Arc<dyn Medium>,
        engine: Engine,
        (cache_bytes, keep_free_bytes): (usize, u64),
        home: Option<Home>,
    ) -> Self {
        Self {
            medium,
            cache_bytes,
            keep_free_bytes,
            slot: RwLock::new(Slot { engine: Some(Arc::new(engine)), suspect: None }),
            acked: AtomicU64::new(0),
            full_since: Mutex::new(None),
            home,
        }
    }

    /// A store on any medium, without lock, proof and salvage: for tests of the format.
    ///
    /// # Errors
    /// What redb says.
    pub fn on_medium(medium: Arc<dyn Medium>, cache_bytes: usize) -> Result<Self, StoreError> {
        let opened = medium.open().map_err(|e| Trouble::io(&e));
        let engine = opened.and_then(|backend| Engine::open(backend, cache_bytes, 1));
        let engine = engine.map_err(|trouble| trouble.to_store_error())?;
        Ok(Self::new(medium, engine, (cache_bytes, 0), None))
    }

    /// Why the store answers nothing any more: its file is damaged. Drop it and open it anew:
    /// the opening salvages what is good.
    pub fn suspect(&self) -> Option<String> {
        self.slot.read().unwrap_or_else(PoisonError::into_inner).suspect.clone()
    }

    /// A new epoch is still to be drawn; ends with the first commit that puts a row.
    pub fn must_draw_epoch(&self) -> bool {
        let writer =
            |engine: Arc<Engine>| engine.writer.lock().unwrap_or_else(PoisonError::into_inner).draw;
        self.engine().map_or(true, writer)
    }

    /// The largest run of at most `at_most` bytes that fills the page redb gives it.
    pub fn fitting(queue: &QueueName, at_most: usize) -> usize {
        let key = queue.0.len() + 10;
        let overhead = PAGE_OVERHEAD + key + frame::HEADER + key;
        let mut page = PAGE_MAX;
        while page > PAGE && page > at_most + overhead {
            page /= 2;
        }
        page.saturating_sub(overhead).min(at_most)
    }

    fn engine(&self) -> Result<Arc<Engine>, StoreError> {
        {
            let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(engine) = &slot.engine {
                return Ok(Arc::clone(engine));
            }
        }
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        self.reopen(&mut slot).map_err(|trouble| trouble.to_store_error())
    }

    fn reopen(&self, slot: &mut Slot) -> Result<Arc<Engine>, Trouble> {
        if let Some(why) = &slot.suspect {
            return Err(Trouble::Damaged(why.clone()));
        }
        if let Some(engine) = &slot.engine {
            return Ok(Arc::clone(engine));
        }
        self.medium.forget_cached();
        let backend = self.medium.open().map_err(|e| Trouble::io(&e));
        let opened = backend.and_then(|backend| Engine::open(backend, self.cache_bytes, 1));
        let opened = opened.and_then(|engine| {
            let known = crate::engine::last(&engine.db, engine.seed)?.0;
            if known < self.acked.load(Relaxed) {
                return Err(Trouble::Damaged("the last commits are gone from the file".into()));
            }
            Ok(Arc::new(engine))
        });
        match opened {
            Ok(engine) => {
                tracing::warn!("store opened anew after an error");
                slot.engine = Some(Arc::clone(&engine));
                Ok(engine)
            }
            Err(trouble) => {
                self.suspected(slot, &trouble);
                Err(trouble)
            }
        }
    }

    fn suspected(&self, slot: &mut Slot, trouble: &Trouble) {
        if let Trouble::Damaged(why) = trouble {
            tracing::error!(why, "store is damaged; open it anew to salvage what is good");
            slot.suspect = Some(why.clone());
            if let Some(home) = &self.home {
                home.suspect(why);
            }
        }
    }

    /// What redb does not forgive ends this database; the next use opens another.
    fn broken(&self, engine: &Arc<Engine>, trouble: &Trouble) {
        if matches!(trouble, Trouble::Row(_) | Trouble::Refused(_)) {
            return;
        }
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        engine.shut(matches!(trouble, Trouble::Damaged(_)));
        if slot.engine.as_ref().is_some_and(|e| Arc::ptr_eq(e, engine)) {
            slot.engine = None;
        }
        self.suspected(&mut slot, trouble);
        if let Trouble::Io(why) = trouble {
            tracing::error!(why, "store failed; it is opened anew");
        }
    }

    fn with<T>(&self, work: impl Fn(&Engine) -> Result<T, Trouble>) -> Result<T, StoreError> {
        let engine = self.engine()?;
        work(&engine).map_err(|trouble| {
            self.broken(&engine, &trouble);
            trouble.to_store_error()
        })
    }

    /// Less free than is to be kept, for a commit that puts something.
    fn room_for(&self, changes: &[Change]) -> Result<(), StoreError> {
        let bytes: u64 = changes.iter().map(put_bytes).sum();
        let full_since = *self.full_since.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes == 0 || (self.keep_free_bytes == 0 && full_since.is_none()) {
            return Ok(());
        }
        let free = self.medium.free_bytes().map_err(|e| StoreError::Failed(e.to_string()))?;
        if self.keep_free_bytes > 0 && free < self.keep_free_bytes.saturating_add(bytes) {
            let keep = self.keep_free_bytes;
            return Err(StoreError::Full(format!("{free} bytes are free, {keep} are to be kept")));
        }
        let waits = full_since.is_some_and(|since| since.elapsed() < TRY_FULL_EACH);
        if waits && free < ROOM.saturating_add(bytes.saturating_mul(2)) {
            return Err(StoreError::Full(format!("{free} bytes are free")));
        }
        Ok(())
    }

    /// After an error the commit may have landed all the same: then it counts. What is read then
    /// is read from the disk, and opening anew syncs it.
    fn landed(&self, before: u64) -> Option<u64> {
        let engine = self.engine().ok()?;
        let stamp = guarded(|| Ok(crate::engine::last(&engine.db, engine.seed)?.0)).ok()?;
        (stamp > before).then_some(stamp)
    }

    fn note_full(&self, full: bool) {
        let mut since = self.full_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = full.then(Instant::now);
    }

    fn answered(&self, stamp: u64) {
        self.acked.store(stamp, Relaxed);
        if let Some(home) = &self.home {
            home.acked(stamp);
        }
    }

    /// The first commit of an opening: rows of the store itself. What was answered before no
    /// longer tells anything: the store may be an older one, restored.
    pub(crate) fn begin(&self, rows: &[(&[u8], Option<&[u8]>)]) -> Result<(), StoreError> {
        self.answered(0);
        let stamp = self.with(|engine| {
            engine.set_meta(rows)?;
            Ok(engine.writer.lock().unwrap_or_else(PoisonError::into_inner).stamp)
        })?;
        self.answered(stamp);
        Ok(())
    }
}

/// One read transaction.
struct OneMoment<'s> {
    store: &'s RedbStore,
    engine: Arc<Engine>,
    rows: Rows,
}

impl Moment for OneMoment<'_> {
    fn row(&self, table: &'static str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.told(&self.engine, self.engine.row(&self.rows, table, key))
    }
}

fn put_bytes(change: &Change) -> u64 {
    match change {
        Change::PutRun { value, .. } => value.len() as u64 + PAGE as u64,
        Change::PutRow { key, value, .. } => (key.len() + value.len()) as u64,
        Change::RemoveRun { .. } | Change::RemoveRow { .. } => 0,
    }
}

impl QueueStore for RedbStore {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.room_for(changes)?;
        let engine = self.engine()?;
        let before = engine.writer.lock().unwrap_or_else(PoisonError::into_inner).stamp;
        let quick = self.medium.file_bytes().is_ok_and(|bytes| bytes >= QUICK_REPAIR_FROM);
        match engine.commit(changes, quick) {
            Ok(stamp) => {
                self.note_full(false);
                self.answered(stamp);
                Ok(())
            }
            Err(trouble) => {
                self.broken(&engine, &trouble);
                drop(engine);
                self.note_full(matches!(trouble, Trouble::Full(_)));
                let known = matches!(trouble, Trouble::Full(_) | Trouble::Io(_));
                if let (true, Some(stamp)) = (known, self.landed(before)) {
                    self.answered(stamp);
                    return Ok(());
                }
                Err(trouble.to_store_error())
            }
        }
    }

    fn run(&self, queue: &QueueName, place: Place) -> Result<Option<Bytes>, StoreError> {
        self.with(|engine| engine.run(queue, place))
    }

    fn runs(
        &self,
        queue: &QueueName,
        precedence: Precedence,
        from: u64,
        visit: Visit<'_, u64>,
    ) -> Result<(), StoreError> {
        let engine = self.engine()?;
        let walked = engine.walk_runs(queue, precedence, (Way::Up, from), visit);
        self.told(&engine, walked)
    }

    fn runs_back(
        &self,
        queue: &QueueName,
        precedence: Precedence,
        to: u64,
        visit: Visit<'_, u64>,
    ) -> Result<(), StoreError> {
        let engine = self.engine()?;
        let walked = engine.walk_runs(queue, precedence, (Way::Down, to), visit);
        self.told(&engine, walked)
    }

    fn queues(&self) -> Result<Vec<QueueName>, StoreError> {
        self.with(Engine::queues)
    }

    fn row(&self, table: &'static str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.with(|engine| engine.row(&engine.rows()?, table, key))
    }

    fn moment(&self) -> Result<Box<dyn Moment + '_>, StoreError> {
        let engine = self.engine()?;
        let rows = self.told(&engine, engine.rows())?;
        Ok(Box::new(OneMoment { store: self, engine, rows }))
    }

    fn rows(
        &self,
        table: &'static str,
        prefix: &[u8],
        from: &[u8],
        visit: VisitRow<'_>,
    ) -> Result<(), StoreError> {
        let engine = self.engine()?;
        let walked = engine.walk_rows(table, prefix, (Way::Up, from), visit);
        self.told(&engine, walked)
    }

    fn rows_back(
        &self,
        table: &'static str,
        prefix: &[u8],
        to: &[u8],
        visit: VisitRow<'_>,
    ) -> Result<(), StoreError> {
        let engine = self.engine()?;
        let walked = engine.walk_rows(table, prefix, (Way::Down, to), visit);
        self.told(&engine, walked)
    }

    fn size(&self) -> Result<StoreSize, StoreError> {
        let failed = |e: std::io::Error| StoreError::Failed(e.to_string());
        let file_bytes = self.medium.file_bytes().map_err(failed)?;
        Ok(StoreSize { file_bytes, free_bytes: self.medium.free_bytes().map_err(failed)? })
    }

    fn compact(&self) -> Result<bool, StoreError> {
        let file_bytes = self.size()?.file_bytes;
        let live = {
            let engine = self.engine()?;
            engine.writer.lock().unwrap_or_else(PoisonError::into_inner).live
        };
        if file_bytes < COMPACT_FROM || live > file_bytes / COMPACT_PART {
            return Ok(false);
        }
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever reads now is not made to wait: another time.
        let Some(engine) = slot.engine.as_mut().and_then(Arc::get_mut) else { return Ok(false) };
        match guarded(|| compacted(engine)) {
            Ok(done) => Ok(done),
            Err(trouble) => {
                engine.shut(matches!(trouble, Trouble::Damaged(_)));
                slot.engine = None;
                self.suspected(&mut slot, &trouble);
                Err(trouble.to_store_error())
            }
        }
    }

    fn set_aside(&self, queue: &QueueName, place: Place, value: &[u8]) -> Result<(), StoreError> {
        let Some(home) = &self.home else { return Ok(()) };
        let set_aside = crate::aside::run(&home.dir, (queue, place), value);
        set_aside.map(drop).map_err(|e| StoreError::Failed(e.to_string()))
    }

    fn fitting(&self, queue: &QueueName, at_most: usize) -> usize {
        Self::fitting(queue, at_most)
    }
}

impl RedbStore {
    /// Checks a table, some entries at a time, so that no reader holds old pages for long.
    pub(crate) fn verified(&self, kind: Kind) -> Result<u64, StoreError> {
        let (mut count, mut from) = (0, Some(Vec::new()));
        while let Some(key) = from {
            let (seen, next) = self.with(|engine| engine.verify(kind, &key))?;
            count += seen;
            from = next;
        }
        Ok(count)
    }

    fn told<T>(&self, engine: &Arc<Engine>, result: Result<T, Trouble>) -> Result<T, StoreError> {
        result.map_err(|trouble| {
            self.broken(engine, &trouble);
            trouble.to_store_error()
        })
    }
}

fn compacted(engine: &mut Engine) -> Result<bool, Trouble> {
    match engine.db.compact() {
        Ok(done) => Ok(done),
        Err(redb::CompactionError::TransactionInProgress) => Ok(false),
        Err(error) => Err(redb::Error::from(error).into()),
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        let slot = self.slot.get_mut().unwrap_or_else(PoisonError::into_inner);
        let engine = slot.engine.take().and_then(Arc::into_inner);
        let stamp = *self.acked.get_mut();
        let Some(engine) = engine else { return };
        let closed = guarded(move || {
            drop(engine);
            Ok(())
        });
        if let (Ok(()), None, Some(home)) = (closed, &slot.suspect, &self.home) {
            home.closed(stamp);
        }
    }
}
