//! The last state that was accepted, in one small file, so that a restart sends changes alone.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::snapshot::{Section, Snapshot, canonical};

/// First line of the file: what it is, and its format.
const MAGIC: &str = "callhome-inventory 1";
/// Bytes of the file: a host with 100,000 items stays below.
const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// What was last accepted by the proxy, and when all of it was sent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct State {
    /// The root folder and the instance it is about; other ones begin anew.
    pub about: String,
    /// When the full set was last sent, in milliseconds since 1970; none: never.
    pub full_at_ms: Option<i64>,
    /// The items last accepted.
    pub accepted: Snapshot,
}

/// Why there is no state to go on from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missing {
    /// There was none.
    Absent,
    /// It could not be read or is damaged; it was set aside.
    Damaged,
    /// It is about another root or instance.
    Other,
}

impl State {
    /// The file's bytes: a line with magic and xxh3 of the rest, then canonical JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let sections = self.accepted.sections.iter();
        let sections: Map<String, Value> = sections
            .map(|(section, items)| {
                let items = items.iter().map(|(name, item)| (name.clone(), item.clone()));
                (section.name().to_string(), Value::Object(items.collect()))
            })
            .collect();
        let body = canonical(&json!({
            "about": self.about,
            "full_at_ms": self.full_at_ms,
            "sections": sections,
        }));
        let digest = xxhash_rust::xxh3::xxh3_64(body.as_bytes());
        format!("{MAGIC} {digest:016x}\n{body}").into_bytes()
    }

    /// The state of these bytes; none when they are damaged or of a format not known.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (line, body) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n')?);
        let body = body.get(1..)?;
        let digest = std::str::from_utf8(line).ok()?.strip_prefix(MAGIC)?.trim();
        if u64::from_str_radix(digest, 16).ok()? != xxhash_rust::xxh3::xxh3_64(body) {
            return None;
        }
        let body: Value = serde_json::from_slice(body).ok()?;
        let mut accepted = Snapshot::default();
        for section in Section::ALL {
            if let Some(items) = body["sections"][section.name()].as_object() {
                let items = items.iter().map(|(name, item)| (name.clone(), item.clone()));
                accepted.sections.insert(section, items.collect());
            }
        }
        let about = body["about"].as_str()?.to_string();
        Some(Self { about, full_at_ms: body["full_at_ms"].as_i64(), accepted })
    }
}

/// Where the state is kept.
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file for an integrator's name in a folder, which is made when missing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(folder: &Path, name: &str) -> std::io::Result<Self> {
        // The spill's folder: what is in it is nobody else's business.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let name: String = name.chars().map(plain).collect();
        Ok(Self { path: folder.join(format!("{name}.state")) })
    }

    /// What the file holds about this root and instance. A damaged file is renamed, never deleted.
    ///
    /// # Errors
    /// Why the next look must be sent in full.
    pub fn load(&self, about: &str) -> Result<State, Missing> {
        let mut bytes = Vec::new();
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Missing::Absent);
            }
            Err(_) => return Err(Missing::Damaged),
        };
        let read = file.take(FILE_BYTES).read_to_end(&mut bytes);
        match read.ok().and_then(|_| State::decode(&bytes)) {
            Some(state) if state.about == about => Ok(state),
            Some(_) => Err(Missing::Other),
            None => {
                let _ = std::fs::rename(&self.path, self.path.with_extension("damaged"));
                Err(Missing::Damaged)
            }
        }
    }

    /// Replaces the file; after it returns a power cut leaves this state or a later one.
    ///
    /// # Errors
    /// The disk is full or refuses; the old file is still whole.
    pub fn save(&self, state: &State) -> std::io::Result<()> {
        let new = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        file.write_all(&state.encode())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panic")]
    use super::*;

    fn state() -> State {
        let mut state = State { about: "/ web1".into(), ..State::default() };
        state.full_at_ms = Some(7);
        let items = [("a:all".to_string(), json!({"version": "1"}))].into();
        state.accepted.sections.insert(Section::Packages, items);
        state
    }

    #[test]
    fn state_read_back_is_the_state_written() {
        let folder = std::env::temp_dir().join(format!("callhome-state-{}", std::process::id()));
        let file = StateFile::open(&folder, "inv/../x").unwrap();
        assert_eq!(file.load("/ web1"), Err(Missing::Absent));
        file.save(&state()).unwrap();
        assert_eq!(file.load("/ web1"), Ok(state()));
        assert_eq!(file.load("/ web2"), Err(Missing::Other));
        let mut bytes = state().encode();
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        std::fs::write(&file.path, bytes).unwrap();
        assert_eq!(file.load("/ web1"), Err(Missing::Damaged));
        assert!(file.path.with_extension("damaged").exists());
        assert_eq!(file.load("/ web1"), Err(Missing::Absent));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn no_damage_to_the_file_is_taken_for_state() {
        let bytes = state().encode();
        for cut in 0..bytes.len() {
            assert_eq!(State::decode(&bytes[..cut]), None);
        }
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 0x20;
            // Case of a hex digit in the digest says the same.
            if let Some(read) = State::decode(&damaged) {
                assert_eq!(read, state(), "byte {index}");
            }
        }
    }
}
