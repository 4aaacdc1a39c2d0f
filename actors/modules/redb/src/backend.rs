//! What redb reads and writes: the file, or the file with all writes kept in memory.
use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use redb::StorageBackend;
use rustix::fs::{Advice, fadvise};

/// After so many bytes written, the file's pages leave the page cache: pages used again are warm,
/// pages that the kernel must find anew are not (measured: 6.05 → 2.99 µs a message).
const DROP_EACH: u64 = 64 << 20;

/// Where a store's bytes lie. Ours is a file; a test's loses what was not synced.
pub trait Medium: Send + Sync {
    /// Opens it for redb. Called again after an error, when the one opened before is shut.
    fn open(&self) -> io::Result<Box<dyn StorageBackend>>;

    /// Makes the next read read the disk: after a failed sync the page cache may hold what the
    /// disk does not.
    fn forget_cached(&self) {}

    /// Bytes free on its disk.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Bytes of the file.
    fn file_bytes(&self) -> io::Result<u64>;
}

/// A file.
#[derive(Debug)]
pub(crate) struct FileMedium {
    pub(crate) path: PathBuf,
}

impl Medium for FileMedium {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        let file = File::options().read(true).write(true).open(&self.path)?;
        Ok(Box::new(FileBackend { file, written: AtomicU64::new(0) }))
    }

    fn forget_cached(&self) {
        if let Ok(file) = File::open(&self.path) {
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn file_bytes(&self) -> io::Result<u64> {
        Ok(std::fs::metadata(&self.path)?.len())
    }
}

#[derive(Debug)]
struct FileBackend {
    file: File,
    written: AtomicU64,
}

impl StorageBackend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        if self.written.load(Relaxed) >= DROP_EACH {
            self.written.store(0, Relaxed);
            // Advice only: a file system that does not take it loses speed, not data.
            let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.written.fetch_add(data.len() as u64, Relaxed);
        self.file.write_all_at(data, offset)
    }
}

/// Any backend, with a fuse: once blown nothing reaches the file any more.
#[derive(Debug)]
pub(crate) struct Fused {
    pub(crate) inner: Box<dyn StorageBackend>,
    pub(crate) blown: Arc<AtomicBool>,
}

impl Fused {
    fn check(&self) -> io::Result<()> {
        if self.blown.load(Relaxed) {
            return Err(io::Error::other("the store was opened anew"));
        }
        Ok(())
    }
}

impl StorageBackend for Fused {
    fn len(&self) -> io::Result<u64> {
        self.check()?;
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check()?;
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}

/// Bytes of a block that [`Overlay`] keeps: redb's page.
const BLOCK: u64 = 4096;

/// The file as it is, with all that redb writes kept in memory: repair without changing anything.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: File,
    state: Mutex<Blocks>,
}

#[derive(Debug)]
struct Blocks {
    len: u64,
    /// Bytes of the file that still count: less after it was cut and grown again.
    below: u64,
    written: HashMap<u64, Box<[u8; BLOCK as usize]>>,
}

impl Overlay {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, state: Mutex::new(Blocks { len, below: len, written: HashMap::new() }) })
    }

    fn below(&self, blocks: &Blocks, block: u64) -> io::Result<[u8; BLOCK as usize]> {
        let mut bytes = [0; BLOCK as usize];
        let start = block * BLOCK;
        if start < blocks.below {
            let there = (blocks.below - start).min(BLOCK) as usize;
            self.file.read_exact_at(&mut bytes[..there], start)?;
        }
        Ok(bytes)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset.checked_add(out.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        if end > state.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if state.written.is_empty() && end <= state.below {
            return self.file.read_exact_at(out, offset);
        }
        let mut at = offset;
        while at < end {
            let (block, within) = (at / BLOCK, (at % BLOCK) as usize);
            let n = (BLOCK as usize - within).min((end - at) as usize);
            let to = (at - offset) as usize;
            match state.written.get(&block) {
                Some(bytes) => out[to..to + n].copy_from_slice(&bytes[within..within + n]),
                None => {
                    let bytes = self.below(&state, block)?;
                    out[to..to + n].copy_from_slice(&bytes[within..within + n]);
                }
            }
            at += n as u64;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if len < state.len {
            state.below = state.below.min(len);
            let keep = len.div_ceil(BLOCK);
            state.written.retain(|block, _| *block < keep);
            if let Some(bytes) = state.written.get_mut(&(len / BLOCK)) {
                bytes[(len % BLOCK) as usize..].fill(0);
            }
        }
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut at, end) = (offset, offset + data.len() as u64);
        state.len = state.len.max(end);
        while at < end {
            let (block, within) = (at / BLOCK, (at % BLOCK) as usize);
            let n = (BLOCK as usize - within).min((end - at) as usize);
            let from = (at - offset) as usize;
            if !state.written.contains_key(&block) {
                let bytes = self.below(&state, block)?;
                state.written.insert(block, Box::new(bytes));
            }
            if let Some(bytes) = state.written.get_mut(&block) {
                bytes[within..within + n].copy_from_slice(&data[from..from + n]);
            }
            at += n as u64;
        }
        Ok(())
    }
}
