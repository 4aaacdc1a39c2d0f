//! The spill: calls that the proxy cannot take now, on the integrator's own disk.
//!
//! Segments `NAME.NUMBER.spill` hold records in the order of sending; a cursor in the newest says
//! how far the proxy has answered. A record is sent only when it is synced, and the cursor is
//! synced before the proxy could have forgotten the results behind it, so a restart goes on under
//! the same stream and nothing is stored twice. Segments go when all in them is answered.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

use protocol::socket::{Call, CallError, STREAM_BYTES};

use crate::{entry::Entry, ticket::Accepted};

mod record;
mod recover;
mod write;

use record::{RECORD_BYTES_MAX, Record, walk};
pub(crate) use recover::open;
pub(crate) use write::{Job, Written};

/// A segment that is longer is followed by a new one, bytes: small enough to go soon.
const SEGMENT_BYTES: u64 = 4 << 20;
/// The first segment's number; replays go in front of what is there.
const FIRST_SEGMENT: u64 = 1 << 32;
/// Calls that wait for one sync, bytes of memory; a disk that hangs fills no more.
const WAITING_BYTES_MAX: u64 = 16 << 20;
/// Records loaded at once; their frames are in memory until they are answered.
const LOADED_MAX: usize = 256;
/// Records sent beyond the synced cursor: half of what the proxy remembers of a stream.
const AHEAD_MAX: u64 = 512;
/// Records answered until the cursor is synced.
const CURSOR_EVERY: u64 = 128;

/// Where a record stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

struct Segment {
    file: Arc<File>,
    path: PathBuf,
    /// Bytes that are synced; nothing behind is read.
    synced: u64,
    /// An earlier run wrote it: its tail may be torn, so nothing is appended.
    sealed: bool,
}

/// A call on its way to disk.
struct Waiting {
    entry: Entry,
    record: Vec<u8>,
    /// It was sent before: it goes in front of what never was.
    front: bool,
    replaces: Option<Position>,
}

/// What is known of the files; the files are written by one thread ([`Job`]).
pub(crate) struct Spill {
    folder: PathBuf,
    name: String,
    bytes_max: u64,
    segments: BTreeMap<u64, Segment>,
    /// Next to load.
    read: Position,
    /// Loaded and unanswered, with the running number of each.
    loaded: BTreeMap<Position, u64>,
    /// Answered or replaced, at or behind the cursor.
    done: BTreeSet<Position>,
    /// Running number of the next record to load; of the first behind the synced cursor.
    next_index: u64,
    synced_index: u64,
    /// Bytes of each loaded record, to be given back.
    sizes: BTreeMap<Position, u64>,
    waiting: Vec<Waiting>,
    waiting_bytes: u64,
    writing: bool,
    /// A cursor stands in a segment: nothing goes in front any more, it would seem answered.
    cursored: bool,
    /// Bytes of records that are not answered, on disk or on their way.
    bytes: u64,
    /// Holds the lock of this name.
    _lock: File,
}

/// Why a call does not go into the spill.
fn full(bytes_max: u64) -> CallError {
    let detail = format!("the spill holds its {bytes_max} bytes; the proxy must take some first");
    CallError::new(protocol::Refusal::QueueFull, detail).after(1000)
}

impl Spill {
    /// Bytes of calls that are not answered (`callhome_integrator_spill_bytes`).
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing is in it or on its way there.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.waiting.is_empty() && !self.writing
    }

    /// Whether all that was taken is synced.
    pub(crate) fn is_synced(&self) -> bool {
        self.waiting.is_empty() && !self.writing
    }

    /// Takes a call; its sender is told when it is synced. `seq` is its number if it gets one.
    /// What was `sent` before goes in front and always finds room, as does what replaces another.
    pub(crate) fn take(&mut self, mut entry: Entry, sent: bool) {
        let replaces = entry.place.take();
        if let Some(seq) = entry.seq {
            entry.call.set_seq(seq);
        }
        let record = Record::Call {
            seq: entry.seq,
            replaces,
            method: entry.call.method().to_owned(),
            params: entry.call.map().into_bytes(),
        };
        let record = record.encode();
        let length = record.len() as u64;
        let held = !sent && replaces.is_none();
        let too_much =
            self.bytes + length > self.bytes_max || self.waiting_bytes + length > WAITING_BYTES_MAX;
        if held && too_much {
            entry.finish(Err(full(self.bytes_max)));
            return;
        }
        if let Some(place) = replaces {
            self.answered(place);
        }
        self.bytes += length;
        self.waiting_bytes += length;
        self.waiting.push(Waiting { entry, record, front: sent && !self.cursored, replaces });
    }

    /// That the record at `place` needs no more sending.
    pub(crate) fn answered(&mut self, place: Position) {
        if self.loaded.remove(&place).is_some() {
            self.done.insert(place);
            let size = self.sizes.remove(&place).unwrap_or_default();
            self.bytes = self.bytes.saturating_sub(size);
            let low = self.low();
            self.done.retain(|p| *p >= low);
        }
    }

    /// The first record that is not answered.
    fn low(&self) -> Position {
        self.loaded.first_key_value().map_or(self.read, |(place, _)| *place)
    }

    fn low_index(&self) -> u64 {
        self.loaded.first_key_value().map_or(self.next_index, |(_, index)| *index)
    }

    /// The connection is gone: what is loaded is loaded again, unchanged.
    pub(crate) fn rewind(&mut self) {
        let (low, index) = (self.low(), self.low_index());
        self.read = low;
        self.next_index = index;
        self.loaded.clear();
        self.sizes.clear();
    }

    /// The next calls to send, oldest first; none where all is loaded or the cursor lags.
    pub(crate) fn load(&mut self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        while entries.is_empty() {
            let room = AHEAD_MAX.saturating_sub(self.next_index - self.synced_index);
            let most = LOADED_MAX.min(usize::try_from(room).unwrap_or(LOADED_MAX));
            if most == 0 || self.loaded.len() >= LOADED_MAX {
                break;
            }
            let Some(segment) = self.segments.get(&self.read.segment) else {
                if !self.next_segment() {
                    break;
                }
                continue;
            };
            let left = segment.synced.saturating_sub(self.read.offset);
            if left == 0 {
                if !self.next_segment() {
                    break;
                }
                continue;
            }
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(2 * RECORD_BYTES_MAX);
            let mut bytes = vec![0; length];
            segment.file.read_exact_at(&mut bytes, self.read.offset)?;
            let found = walk(&bytes, most, length as u64 == left);
            self.load_found(found, &mut entries);
        }
        Ok(entries)
    }

    fn load_found(&mut self, found: record::Walk, entries: &mut Vec<Entry>) {
        let from = self.read;
        self.read.offset += found.consumed as u64;
        for (range, record) in found.records {
            let place = Position { offset: from.offset + range.start as u64, ..from };
            let Record::Call { seq, method, params, .. } = record else { continue };
            if self.done.contains(&place) {
                continue;
            }
            // What an older version wrote and this one would not send is passed over.
            let Ok(call) = Call::read(&method, &params) else { continue };
            self.loaded.insert(place, self.next_index);
            self.sizes.insert(place, range.len() as u64);
            self.next_index += 1;
            entries.push(Entry { call, slot: None, seq, place: Some(place), retried: false });
        }
    }

    fn next_segment(&mut self) -> bool {
        let next = self.segments.range(self.read.segment + 1..).next();
        let Some((segment, _)) = next else { return false };
        self.read = Position { segment: *segment, offset: 0 };
        true
    }

    fn all_read(&self) -> bool {
        let last = self.segments.last_key_value();
        last.is_none_or(|(number, segment)| {
            self.read.segment > *number
                || (self.read.segment == *number && self.read.offset >= segment.synced)
        })
    }

    /// Whether every record is answered, and only the files are left.
    fn drained(&self) -> bool {
        !self.segments.is_empty()
            && self.loaded.is_empty()
            && self.waiting.is_empty()
            && !self.writing
            && self.all_read()
    }

    /// Whether the writing thread has something to do.
    pub(crate) fn wants_writing(&self) -> bool {
        !self.writing && (!self.waiting.is_empty() || self.cursor_due() || self.drained())
    }

    fn cursor_due(&self) -> bool {
        !self.segments.is_empty() && self.low_index() - self.synced_index >= CURSOR_EVERY
    }

    /// Takes in what the writing thread did. What could not be written comes back: with
    /// [`CallError`]s told to senders, and the entries that go on in memory.
    pub(crate) fn written(&mut self, written: Written) -> Vec<Entry> {
        self.writing = false;
        for (number, file, path, synced) in written.segments {
            let is_new = !self.segments.contains_key(&number);
            if is_new && number < self.read.segment {
                self.read = Position { segment: number, offset: 0 };
            }
            self.segments.insert(number, Segment { file, path, synced, sealed: false });
        }
        if let Some((cursor, index)) = written.cursor {
            self.synced_index = index;
            self.cursored = true;
            self.remove_segments(|number| number < cursor.segment);
        }
        for waiting in written.good {
            waiting.entry.finish(Ok(Accepted::Spilled));
        }
        let mut back = Vec::new();
        for waiting in written.failed {
            self.bytes = self.bytes.saturating_sub(waiting.record.len() as u64);
            let goes_on = waiting.front || waiting.replaces.is_some();
            match (&written.error, goes_on) {
                (Some(error), false) => {
                    let error = format!("spill: {error}");
                    let error = CallError::new(protocol::Refusal::StorageDown, error);
                    waiting.entry.finish(Err(error.after(1000)));
                }
                _ => back.push(waiting.entry),
            }
        }
        back
    }

    fn remove_segments(&mut self, which: impl Fn(u64) -> bool) {
        let gone: Vec<u64> = self.segments.keys().copied().filter(|n| which(*n)).collect();
        for number in gone {
            if let Some(segment) = self.segments.remove(&number) {
                // A file that stays is read again at the next start and answered `duplicate`.
                let _ = std::fs::remove_file(segment.path);
            }
        }
    }

    /// What the writing thread is to do now.
    pub(crate) fn job(&mut self, stream: [u8; STREAM_BYTES], next_seq: u64) -> Option<Job> {
        if self.drained() {
            self.remove_segments(|_| true);
            self.read = Position::default();
            self.done.clear();
            self.cursored = false;
            self.synced_index = self.next_index;
            self.bytes = 0;
            return None;
        }
        if !self.wants_writing() {
            return None;
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let (front, back): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|w| w.front);
        self.writing = true;
        let head = Record::Head { stream, floor: next_seq }.encode();
        // Not together with what replaces a record before it: a torn write could keep only the
        // cursor.
        let alone = back.iter().all(|w| w.replaces.is_none());
        let cursor = (alone && self.cursor_due()).then(|| (self.low(), self.low_index()));
        let first = self.segments.keys().next().copied();
        let last = self.segments.last_key_value();
        let front_number = first.map_or(FIRST_SEGMENT, |number| number - 1);
        let next_number = last.map_or(FIRST_SEGMENT + 1, |(number, _)| number + 1);
        let open = last.filter(|(_, s)| !s.sealed && s.synced < SEGMENT_BYTES);
        let open = open.map(|(n, s)| (*n, s.file.clone(), s.path.clone(), s.synced));
        let path = |number| self.folder.join(recover::segment_name(&self.name, number));
        Some(Job {
            folder: self.folder.clone(),
            head,
            front,
            front_segment: (front_number, path(front_number)),
            back,
            open,
            next_segment: (next_number, path(next_number)),
            cursor,
        })
    }
}
