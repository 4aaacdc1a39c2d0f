//! Opens the spill and finds what an earlier run left in it.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::socket::STREAM_BYTES;

use super::{
    Position, Segment, Spill,
    record::{Record, walk},
};

/// What an earlier run left.
pub(crate) struct Recovered {
    pub(crate) spill: Spill,
    /// Its stream, where it left anything.
    pub(crate) stream: Option<[u8; STREAM_BYTES]>,
    /// The next number of that stream.
    pub(crate) next_seq: u64,
    /// Bytes that were no records: a torn tail, or damage that was passed over.
    pub(crate) damaged: u64,
}

/// Opens the spill of integrator `name` in `folder`, making the folder (0700) where there is
/// none. Fails where another process has it open.
pub(crate) fn open(folder: &Path, name: &str, bytes_max: u64) -> io::Result<Recovered> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let name = escaped(name);
    let lock = folder.join(format!("{name}.lock"));
    let mut options = OpenOptions::new();
    let lock = options.read(true).write(true).create(true).mode(0o600).open(lock)?;
    lock.try_lock().map_err(|_| {
        let text =
            format!("spill of {name:?} in {} is in use by another process", folder.display());
        io::Error::new(io::ErrorKind::AddrInUse, text)
    })?;
    let mut found = Found { next_seq: 1, ..Found::default() };
    for (number, path) in segments_of(folder, &name)? {
        found.segment(number, path)?;
    }
    let low = found.cursor.max(found.first());
    found.done.retain(|place| *place >= low);
    found.sizes.retain(|place, _| *place >= low && !found.done.contains(place));
    let spill = Spill {
        folder: folder.to_owned(),
        name,
        bytes_max,
        segments: found.segments,
        read: low,
        loaded: BTreeMap::new(),
        done: found.done,
        next_index: 0,
        synced_index: 0,
        bytes: found.sizes.values().sum(),
        sizes: BTreeMap::new(),
        waiting: Vec::new(),
        waiting_bytes: 0,
        writing: false,
        cursored: found.cursor != Position::default(),
        _lock: lock,
    };
    let (stream, next_seq, damaged) = (found.stream, found.next_seq, found.damaged);
    Ok(Recovered { spill, stream, next_seq, damaged })
}

#[derive(Default)]
struct Found {
    segments: BTreeMap<u64, Segment>,
    stream: Option<[u8; STREAM_BYTES]>,
    next_seq: u64,
    cursor: Position,
    done: BTreeSet<Position>,
    sizes: BTreeMap<Position, u64>,
    damaged: u64,
}

impl Found {
    fn first(&self) -> Position {
        let segment = self.segments.keys().next().copied().unwrap_or_default();
        Position { segment, offset: 0 }
    }

    fn segment(&mut self, number: u64, path: PathBuf) -> io::Result<()> {
        let bytes = fs::read(&path)?;
        let found = walk(&bytes, usize::MAX, true);
        self.damaged += found.damaged as u64;
        for (range, record) in found.records {
            let place = Position { segment: number, offset: range.start as u64 };
            match record {
                Record::Head { stream, floor } => {
                    self.stream.get_or_insert(stream);
                    self.next_seq = self.next_seq.max(floor);
                }
                Record::Call { seq, replaces, .. } => {
                    self.next_seq = self.next_seq.max(seq.map_or(1, |seq| seq + 1));
                    self.done.extend(replaces);
                    self.sizes.insert(place, range.len() as u64);
                }
                Record::Cursor(cursor) => self.cursor = self.cursor.max(cursor),
            }
        }
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let synced = bytes.len() as u64;
        let segment = Segment { file: Arc::new(file), path, synced, sealed: true };
        self.segments.insert(number, segment);
        Ok(())
    }
}

fn segments_of(folder: &Path, name: &str) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut segments = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(number) = file_name
            .to_str()
            .and_then(|f| f.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".spill"))
        else {
            continue;
        };
        if let Ok(number) = u64::from_str_radix(number, 16) {
            segments.insert(number, entry.path());
        }
    }
    Ok(segments)
}

/// File name of a segment.
pub(super) fn segment_name(name: &str, number: u64) -> String {
    format!("{name}.{number:016x}.spill")
}

/// A name that is safe as part of a file name: it comes from an administrator, but may hold `/`.
fn escaped(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02x}")),
        }
    }
    // 255 bytes is what file systems take; a long name is cut and told apart by its digest.
    if escaped.len() > 200 {
        let digest = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
        escaped.truncate(180);
        escaped.push_str(&format!("-{digest:016x}"));
    }
    escaped
}
