//! What changed between two looks at a section, and the documents that tell it in numbered parts.

use std::collections::BTreeMap;

use protocol::limits::DATA_BYTES_MAX;
use serde_json::{Map, Value, json};

use super::snapshot::{Items, Section, canonical, digest};

/// Version of the documents below.
pub const FORMAT: u64 = 1;
/// Bytes of a part that are kept for its describing fields.
const ENVELOPE_BYTES: usize = 1024;
/// Bytes of items in one part.
const PART_BYTES: usize = DATA_BYTES_MAX - ENVELOPE_BYTES;

/// What became different in a section.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// Items that are new.
    pub added: Items,
    /// Items that are gone, as they were.
    pub removed: Items,
    /// Items that differ: `{"from": …, "to": …}`.
    pub changed: Items,
}

impl Changes {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// How many items differ.
    #[must_use]
    pub fn len(&self) -> usize {
        self.added.len() + self.removed.len() + self.changed.len()
    }
}

/// Compares two looks at a section (ARC-5).
#[must_use]
pub fn diff(old: &Items, new: &Items) -> Changes {
    let mut changes = Changes::default();
    for (name, value) in new {
        match old.get(name) {
            None => drop(changes.added.insert(name.clone(), value.clone())),
            Some(before) if before != value => {
                let both = json!({"from": before, "to": value});
                changes.changed.insert(name.clone(), both);
            }
            Some(_) => {}
        }
    }
    for (name, value) in old {
        if !new.contains_key(name) {
            changes.removed.insert(name.clone(), value.clone());
        }
    }
    changes
}

/// The whole section: `{format, kind: "full", section, set, part, parts, items}`. Equal items give
/// equal bytes; `set` is the digest of the items of all parts.
#[must_use]
pub fn full(section: Section, items: &Items) -> Vec<String> {
    let fields = json!({"kind": "full", "section": section.name(), "set": digest(items)});
    pack(&fields, &["items"], [("items", items)])
}

/// The changes: `{format, kind: "changes", section, base, set, part, parts, added, removed,
/// changed}`. `base` and `set` are the digests before and after, so that a reader who missed a
/// document knows it. Nothing where nothing changed.
#[must_use]
pub fn changes(section: Section, old: &Items, new: &Items) -> Vec<String> {
    let changes = diff(old, new);
    if changes.is_empty() {
        return Vec::new();
    }
    let fields = json!({
        "kind": "changes",
        "section": section.name(),
        "base": digest(old),
        "set": digest(new),
    });
    let lists =
        [("removed", &changes.removed), ("changed", &changes.changed), ("added", &changes.added)];
    pack(&fields, &["added", "removed", "changed"], lists)
}

/// A sample: `{format, kind: "sample", section: "performance", taken_at_ms, part, parts, items}`.
#[must_use]
pub fn sample(items: &Items, taken_at_ms: i64) -> Vec<String> {
    let fields = json!({"kind": "sample", "section": "performance", "taken_at_ms": taken_at_ms});
    pack(&fields, &["items"], [("items", items)])
}

/// Spreads the items of some lists over as few parts as hold them, in order. Names and values are
/// cut when collected, so a single item is far below a part; one that is not is left out.
fn pack<const N: usize>(fields: &Value, lists: &[&str], items: [(&str, &Items); N]) -> Vec<String> {
    let mut parts: Vec<BTreeMap<&str, Map<String, Value>>> = vec![BTreeMap::new()];
    let mut used = 0;
    for (list, items) in items {
        for (name, value) in items {
            let bytes = Value::from(name.as_str()).to_string().len() + canonical(value).len() + 2;
            if bytes > PART_BYTES {
                tracing::warn!(list, bytes, "an item does not fit into a part and is left out");
                continue;
            }
            if used + bytes > PART_BYTES {
                parts.push(BTreeMap::new());
                used = 0;
            }
            used += bytes;
            if let Some(part) = parts.last_mut() {
                part.entry(list).or_default().insert(name.clone(), value.clone());
            }
        }
    }
    let count = parts.len();
    let document = |(index, mut part): (usize, BTreeMap<&str, Map<String, Value>>)| {
        let mut document = fields.as_object().cloned().unwrap_or_default();
        document.insert("format".into(), FORMAT.into());
        document.insert("part".into(), (index + 1).into());
        document.insert("parts".into(), count.into());
        for list in lists {
            document.insert((*list).into(), Value::Object(part.remove(list).unwrap_or_default()));
        }
        canonical(&Value::Object(document))
    };
    parts.into_iter().enumerate().map(document).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panic")]
    use super::*;

    fn items(pairs: &[(&str, u64)]) -> Items {
        pairs.iter().map(|(name, value)| ((*name).to_string(), json!({"v": value}))).collect()
    }

    #[test]
    fn what_was_added_removed_and_changed_is_told_with_what_it_was() {
        let (old, new) =
            (items(&[("a", 1), ("b", 1), ("c", 1)]), items(&[("b", 2), ("c", 1), ("d", 1)]));
        let parts = changes(Section::Packages, &old, &new);
        assert_eq!(parts.len(), 1);
        let told: Value = serde_json::from_str(&parts[0]).unwrap();
        assert_eq!(told["added"], json!({"d": {"v": 1}}));
        assert_eq!(told["removed"], json!({"a": {"v": 1}}));
        assert_eq!(told["changed"], json!({"b": {"from": {"v": 1}, "to": {"v": 2}}}));
        assert_eq!(told["section"], "packages");
        assert_eq!(told["base"], digest(&old));
        assert_eq!(told["set"], digest(&new));
    }

    #[test]
    fn nothing_is_told_where_nothing_changed() {
        let same = items(&[("a", 1)]);
        assert!(changes(Section::Disks, &same, &same.clone()).is_empty());
        assert_eq!(full(Section::Disks, &same), full(Section::Disks, &same.clone()));
    }

    #[test]
    fn sets_above_the_limit_of_data_are_split_into_numbered_parts() {
        let long = "x".repeat(1000);
        let many: Items = (0..1000).map(|n| (format!("p{n:04}"), json!({"v": long}))).collect();
        let parts = full(Section::Packages, &many);
        assert!(parts.len() >= 4, "{}", parts.len());
        let mut seen = Items::new();
        for (index, part) in parts.iter().enumerate() {
            assert!(part.len() <= DATA_BYTES_MAX);
            let part: Value = serde_json::from_str(part).unwrap();
            assert_eq!(part["part"], index + 1);
            assert_eq!(part["parts"], parts.len());
            seen.extend(part["items"].as_object().unwrap().clone());
        }
        assert_eq!(seen, many);
    }
}
