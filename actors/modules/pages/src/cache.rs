//! What was read and made before: answers of the API and pages, bounded in number and bytes.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Entries at most: the pages that some people look at at once.
pub const ENTRIES_MAX: usize = 256;
/// Bytes of all entries: 32 MiB, a few lists of 1,000 rows and the pages made of them.
pub const BYTES_MAX: usize = 32 << 20;

/// Something kept, and when it was true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes.
    pub bytes: Arc<[u8]>,
    /// When they were read or made, milliseconds since 1970.
    pub at_ms: i64,
    /// Which state of the application server they show: see [`crate::live::Feed`].
    pub version: u64,
}

impl Entry {
    /// Whether it may stand for what a read would give now.
    pub fn is_fresh(&self, now_ms: i64, version: u64, for_ms: i64) -> bool {
        self.version == version && (0..for_ms).contains(&(now_ms - self.at_ms))
    }
}

/// A bounded map; what was put in first goes first. What is old stays: it is what is known when
/// the application server does not answer.
#[derive(Debug, Default)]
pub struct Cache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<String, Entry>,
    bytes: usize,
}

impl Cache {
    /// What is kept under a name.
    pub fn get(&self, name: &str) -> Option<Entry> {
        self.kept().entries.get(name).cloned()
    }

    /// Keeps it; what is larger than a quarter of all is not kept.
    pub fn put(&self, name: &str, entry: Entry) {
        let size = name.len() + entry.bytes.len();
        let mut kept = self.kept();
        kept.remove(name);
        if size > BYTES_MAX / 4 {
            return;
        }
        while kept.entries.len() >= ENTRIES_MAX || kept.bytes + size > BYTES_MAX {
            let oldest = kept.entries.iter().min_by_key(|(_, entry)| entry.at_ms);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
            kept.remove(&oldest);
        }
        kept.bytes += size;
        kept.entries.insert(name.to_owned(), entry);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Only a cache: what a panic left half done is forgotten by and by.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, name: &str) {
        if let Some(entry) = self.entries.remove(name) {
            self.bytes = self.bytes.saturating_sub(name.len() + entry.bytes.len());
        }
    }
}

/// The entity tag of bytes.
pub fn etag(bytes: &[u8]) -> String {
    format!("\"{:016x}\"", xxhash_rust::xxh3::xxh3_64(bytes))
}

/// Whether `If-None-Match` names the tag.
pub fn matches(if_none_match: &str, etag: &str) -> bool {
    let tag = |text: &str| text.trim().trim_start_matches("W/") == etag;
    if_none_match.trim() == "*" || if_none_match.split(',').any(tag)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(size: usize, at_ms: i64) -> Entry {
        Entry { bytes: vec![0; size].into(), at_ms, version: 1 }
    }

    #[test]
    fn an_entry_is_fresh_until_its_time_or_a_change() {
        let entry = entry(1, 1000);
        assert!(entry.is_fresh(5999, 1, 5000));
        assert!(!entry.is_fresh(6000, 1, 5000) && !entry.is_fresh(1000, 2, 5000));
        // A clock that was set back does not keep anything fresh for ever.
        assert!(!entry.is_fresh(999, 1, 5000));
    }

    #[test]
    fn the_oldest_go_for_new_ones_and_bytes_are_bounded() {
        let cache = Cache::default();
        for at in 0..300 {
            cache.put(&at.to_string(), entry(10, at));
        }
        assert!(cache.get("0").is_none() && cache.get("299").is_some());
        assert_eq!(cache.kept().entries.len(), ENTRIES_MAX);
        for at in 300..310 {
            cache.put(&at.to_string(), entry(BYTES_MAX / 5, at));
        }
        assert!(cache.kept().bytes <= BYTES_MAX);
        cache.put("huge", entry(BYTES_MAX, 400));
        assert!(cache.get("huge").is_none());
    }

    #[test]
    fn tags_match_as_clients_write_them() {
        let tag = etag(b"page");
        assert!(matches(&tag, &tag) && matches(&format!("\"x\", W/{tag}"), &tag));
        assert!(matches("*", &tag) && !matches("\"x\"", &tag));
    }
}
