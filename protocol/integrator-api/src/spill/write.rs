//! Writes the spill: all that waits goes with one sync.
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Position, Waiting, record::Record};

/// Number, file, path and synced length of a segment.
type Synced = (u64, Arc<File>, PathBuf, u64);

/// What is to be written, prepared under the lock and done without it.
pub(crate) struct Job {
    pub(super) folder: PathBuf,
    pub(super) head: Vec<u8>,
    pub(super) front: Vec<Waiting>,
    pub(super) front_segment: (u64, PathBuf),
    pub(super) back: Vec<Waiting>,
    /// The newest segment, where it has room.
    pub(super) open: Option<Synced>,
    pub(super) next_segment: (u64, PathBuf),
    pub(super) cursor: Option<(Position, u64)>,
}

/// What was written, for [`super::Spill::written`].
#[derive(Default)]
pub(crate) struct Written {
    pub(super) segments: Vec<Synced>,
    pub(super) cursor: Option<(Position, u64)>,
    pub(super) good: Vec<Waiting>,
    pub(super) failed: Vec<Waiting>,
    pub(super) error: Option<io::Error>,
}

impl Job {
    /// Writes and syncs. What failed is said, and nothing of it counts.
    pub(crate) fn run(self) -> Written {
        let mut written = Written::default();
        let mut made = false;
        if !self.front.is_empty() {
            let records = self.front.iter().map(|w| w.record.as_slice());
            let (number, path) = &self.front_segment;
            match create(*number, path, &self.head, records) {
                Ok(segment) => {
                    made = true;
                    written.segments.push(segment);
                    written.good.extend(self.front);
                }
                Err(error) => {
                    written.error = Some(error);
                    written.failed.extend(self.front);
                }
            }
        }
        let cursor = self.cursor.map(|(position, _)| Record::Cursor(position).encode());
        if !self.back.is_empty() || cursor.is_some() {
            let records = self.back.iter().map(|w| w.record.as_slice());
            let records = records.chain(cursor.as_deref());
            let appended = match self.open {
                Some(open) => append(open, records),
                None => {
                    made = true;
                    let (number, path) = &self.next_segment;
                    create(*number, path, &self.head, records)
                }
            };
            match appended {
                Ok(segment) => {
                    written.segments.push(segment);
                    written.good.extend(self.back);
                    written.cursor = self.cursor;
                }
                Err(error) => {
                    written.error = Some(error);
                    written.failed.extend(self.back);
                }
            }
        }
        if made {
            // Without its entry in the folder a new file would be lost with the power.
            let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
            if let Err(error) = synced {
                written.failed.append(&mut written.good);
                written.segments.clear();
                written.cursor = None;
                written.error = Some(error);
            }
        }
        written
    }
}

fn create<'a>(
    number: u64,
    path: &Path,
    head: &'a [u8],
    records: impl Iterator<Item = &'a [u8]>,
) -> io::Result<Synced> {
    let made = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(path)?;
        let all: Vec<u8> = [head].into_iter().chain(records).flatten().copied().collect();
        file.write_all(&all)?;
        file.sync_all()?;
        Ok((number, Arc::new(file), path.to_owned(), all.len() as u64))
    };
    let result = made();
    if result.is_err() {
        // Half a segment would be replayed after a restart though its senders were refused.
        let _ = std::fs::remove_file(path);
    }
    result
}

fn append<'a>(
    (number, file, path, synced): Synced,
    records: impl Iterator<Item = &'a [u8]>,
) -> io::Result<Synced> {
    let all: Vec<u8> = records.flatten().copied().collect();
    let appended = file.write_all_at(&all, synced).and_then(|()| file.sync_data());
    if let Err(error) = appended {
        // The same: what was refused must not come back.
        let _ = file.set_len(synced);
        return Err(error);
    }
    Ok((number, file, path, synced + all.len() as u64))
}
