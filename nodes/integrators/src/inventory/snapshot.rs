//! What a host is made of at one moment, in sections of named items, and its canonical bytes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::tree::{Stamp, Tree};
use super::{disks, packages, patches, system};

/// The class under which state is published: first part of the header's subclass, and `type` of
/// the service block.
pub const CLASS: &str = "inventory";
/// The class under which samples are published.
pub const PERFORMANCE: &str = "performance";
/// Bytes of one name or value taken from the host: what is longer is cut.
pub const VALUE_BYTES: usize = 1024;

/// Items of one section by their name.
pub type Items = BTreeMap<String, Value>;

/// The sections of the state of a host; the names are the subclasses (DAT-15).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Section {
    /// Software packages.
    Packages,
    /// Updates applied and waiting.
    Patches,
    /// Disks, partitions, arrays, mounts: the disk configuration.
    Disks,
    /// Operating system, processors, memory, interfaces, firmware: the system configuration.
    System,
}

impl Section {
    /// All of them, in the order in which they are sent.
    pub const ALL: [Self; 4] = [Self::System, Self::Disks, Self::Packages, Self::Patches];

    /// The subclass.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packages => "packages",
            Self::Patches => "patches",
            Self::Disks => "disks",
            Self::System => "system",
        }
    }
}

/// The state of a host.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// Items by section; a section that cannot be seen on this host is absent.
    pub sections: BTreeMap<Section, Items>,
}

/// Reads the state of a host; `previous` is what was known before (applied updates outlive the
/// log that told of them). Disks and system are read anew, packages only when `cache` is stale.
#[must_use]
pub fn collect(tree: &dyn Tree, previous: &Snapshot, cache: &mut Cache) -> Snapshot {
    let mut now = Snapshot::default();
    let stamps = patches::stamps(tree);
    if cache.stamps != stamps || stamps.is_empty() {
        cache.packages = packages::packages(tree);
        cache.patches = patches::patches(tree, &cache.packages);
        cache.stamps = stamps;
    }
    let mut patches = cache.patches.clone();
    if let Some(known) = previous.sections.get(&Section::Patches) {
        patches::carry(known, &cache.packages, &mut patches);
    }
    patches.extend(patches::reboot(tree));
    for (section, items) in [
        (Section::Packages, cache.packages.clone()),
        (Section::Patches, patches),
        (Section::Disks, disks::disks(tree)),
        (Section::System, system::system(tree)),
    ] {
        // A section once seen that is now empty is a change; one never seen says nothing.
        if !items.is_empty() || previous.sections.contains_key(&section) {
            now.sections.insert(section, items);
        }
    }
    now
}

/// What is costly to read, with what tells that it changed.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    stamps: Vec<(String, Stamp)>,
    packages: Items,
    patches: Items,
}

/// An item out of its fields; absent ones are left out.
#[must_use]
pub fn item<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let present = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(present.map(|(name, value)| (name.to_string(), value)).collect())
}

/// The text, cut at [`VALUE_BYTES`] on a character.
#[must_use]
pub fn cut(text: &str) -> String {
    let mut end = text.len().min(VALUE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_string()
}

/// Canonical JSON: keys sorted, no blanks; equal values give equal bytes.
#[must_use]
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            // The map sorts by itself unless a feature of serde_json says otherwise; not relied on.
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            out.push('{');
            for (index, (name, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(value, out);
            }
            out.push(']');
        }
        simple => out.push_str(&simple.to_string()),
    }
}

/// The digest of a section in hex: xxh3-64 over its canonical bytes.
#[must_use]
pub fn digest(items: &Items) -> String {
    let whole = Value::Object(items.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(canonical(&whole).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::tree::MapTree;
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_state_gives_equal_bytes_whatever_the_order() {
        let one = json!({"b": [1, {"z": null, "a": "ü\n"}], "a": true});
        assert_eq!(canonical(&one), r#"{"a":true,"b":[1,{"a":"ü\n","z":null}]}"#);
    }

    #[test]
    fn long_values_are_cut_on_a_character() {
        let long = "ü".repeat(VALUE_BYTES);
        assert_eq!(cut(&long).len(), VALUE_BYTES);
        assert_eq!(cut(&format!("a{long}")).len(), VALUE_BYTES - 1);
    }

    #[test]
    fn a_section_never_seen_is_absent_and_one_that_vanished_is_empty() {
        let mut cache = Cache::default();
        let none = collect(&MapTree::default(), &Snapshot::default(), &mut cache);
        assert_eq!(none, Snapshot::default());
        let mut before = Snapshot::default();
        before.sections.insert(Section::Disks, [("disk/sda".to_string(), json!({}))].into());
        let now = collect(&MapTree::default(), &before, &mut cache);
        assert_eq!(now.sections.get(&Section::Disks), Some(&Items::new()));
    }
}
