//! The folder of a store: its lock, its proof, and the marks an opening leaves.
use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::proof::Proof;

/// The store of a folder.
pub const STORE: &str = "store.redb";
/// A store that salvage builds before it takes the place of the damaged one.
pub(crate) const NEW_STORE: &str = "store.new";
/// A store that is being made.
pub(crate) const FIRST_STORE: &str = "store.first";
/// Locked while a process has the folder; holds its pid.
pub const LOCK: &str = "lock";
/// Where what was cut out lies, with a .json why.
pub const DAMAGED: &str = "damaged";
/// What proves that the store is the one this machine closed last.
const PROOF: &str = "store.proof";
/// Stamp of the last commit answered; written after each, never synced.
const ACKED: &str = "store.acked";
/// There while an opening runs: how often it was begun.
const OPENING: &str = "store.opening";
/// There after damage was seen while the store served: why.
const SUSPECT: &str = "store.suspect";

/// A file, told apart from its copies: a copy has another inode or, written in place, another
/// time of change, which no program can set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    inode: u64,
    /// Nanoseconds since 1970, 0 where the file system does not say.
    born: u64,
    /// Nanoseconds since 1970 of the last change of content or rights.
    changed: i64,
    bytes: u64,
}

impl Identity {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        let born = meta.created().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        Ok(Self {
            inode: meta.ino(),
            born: born.map_or(0, |d| d.as_nanos() as u64),
            changed: meta.ctime().wrapping_mul(1_000_000_000).wrapping_add(meta.ctime_nsec()),
            bytes: meta.len(),
        })
    }

    /// The same file, perhaps written since.
    pub(crate) fn same_file(&self, other: &Identity) -> bool {
        (self.inode, self.born) == (other.inode, other.born)
    }
}

/// An open folder of a store.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) dir: PathBuf,
    acked: File,
    pub(crate) proof: Proof,
    _lock: File,
}

/// The folder is in use.
pub(crate) struct InUse(pub(crate) Option<u32>);

/// How long a folder's lock is waited for: a program that its last owner was just starting holds
/// it, too, until it is itself.
const LOCK_WITHIN: Duration = Duration::from_millis(500);
/// Between two tries.
const LOCK_AGAIN: Duration = Duration::from_millis(10);

/// Takes the lock of a folder and writes the pid into it.
pub(crate) fn lock(dir: &Path) -> io::Result<Result<File, InUse>> {
    let path = dir.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path)?;
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if waited < LOCK_WITHIN => {
                std::thread::sleep(LOCK_AGAIN);
                waited += LOCK_AGAIN;
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = (&mut file).take(32).read_to_string(&mut text);
                return Ok(Err(InUse(text.trim().parse().ok())));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    file.set_len(0)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
    Ok(Ok(file))
}

/// Makes a folder only the owner can enter.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Writes a whole file, owner only, synced and renamed into place.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&part, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes names in a folder durable.
pub(crate) fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Path of the proof.
pub(crate) fn proof_path(dir: &Path) -> PathBuf {
    dir.join(PROOF)
}

/// The proof beside a store; `None` where there is none that can be read.
pub(crate) fn read_proof(dir: &Path) -> Option<Proof> {
    serde_json::from_slice(&std::fs::read(dir.join(PROOF)).ok()?).ok()
}

/// Stamp of the last commit answered, as far as it is known.
pub(crate) fn read_acked(dir: &Path) -> Option<u64> {
    let bytes = std::fs::read(dir.join(ACKED)).ok()?;
    let (stamp, digest) = bytes.split_first_chunk::<8>()?;
    (xxh3_64(stamp).to_le_bytes() == digest).then(|| u64::from_le_bytes(*stamp))
}

/// How often an opening was begun and did not end.
pub(crate) fn openings(dir: &Path) -> u32 {
    let text = std::fs::read_to_string(dir.join(OPENING));
    text.map_or(0, |text| text.trim().parse().unwrap_or(1))
}

/// Why the store was not trusted any more while it served.
pub(crate) fn read_suspect(dir: &Path) -> Option<String> {
    std::fs::read_to_string(dir.join(SUSPECT)).ok()
}

/// Marks that an opening runs.
pub(crate) fn mark_opening(dir: &Path, times: u32) -> io::Result<()> {
    write_private(&dir.join(OPENING), times.to_string().as_bytes())
}

/// The opening ended; what was suspected was looked into.
pub(crate) fn unmark(dir: &Path) -> io::Result<()> {
    unmark_opening(dir)?;
    remove(&dir.join(SUSPECT))
}

/// The opening ended, but not with an open store.
pub(crate) fn unmark_opening(dir: &Path) -> io::Result<()> {
    remove(&dir.join(OPENING))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Home {
    /// Opens what lies beside the store; the proof is written already.
    pub(crate) fn open(dir: &Path, lock: File, proof: Proof) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let acked = options.open(dir.join(ACKED))?;
        Ok(Self { dir: dir.to_owned(), acked, proof, _lock: lock })
    }

    /// Notes what was answered. Without a sync: it survives the process, and after a power cut an
    /// older number says less but nothing wrong.
    pub(crate) fn acked(&self, stamp: u64) {
        let stamp = stamp.to_le_bytes();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&stamp);
        bytes[8..].copy_from_slice(&xxh3_64(&stamp).to_le_bytes());
        // Where it cannot be written the next opening knows less; the commit is durable anyway.
        let _ = self.acked.write_all_at(&bytes, 0);
    }

    /// The next opening looks at everything.
    pub(crate) fn suspect(&self, why: &str) {
        if let Err(error) = write_private(&self.dir.join(SUSPECT), why.as_bytes()) {
            tracing::error!(%error, "the suspicion could not be written down");
        }
    }

    /// The store is closed: what proves it is written.
    pub(crate) fn closed(&self, stamp: u64) {
        self.acked(stamp);
        let written = Identity::of(&self.dir.join(STORE)).and_then(|closed| {
            let proof = Proof { closed: Some(closed), unclean: 0, ..self.proof.clone() };
            write_private(&self.dir.join(PROOF), &serde_json::to_vec(&proof)?)
        });
        if let Err(error) = written {
            tracing::warn!(%error, "the clean end could not be written down");
        }
    }
}
