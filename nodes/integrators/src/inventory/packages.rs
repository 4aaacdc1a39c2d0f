//! Software packages: dpkg's own status file, and `rpm -qa` on a live host.

use super::snapshot::{Items, cut, item};
use super::tree::Tree;

/// dpkg's data base.
pub const DPKG_STATUS: &str = "var/lib/dpkg/status";
/// Where rpm keeps its own, old and new.
const RPM_FOLDERS: [&str; 2] = ["var/lib/rpm", "usr/lib/sysimage/rpm"];
/// One line a package; the fields cannot hold a tab.
const RPM_FORMAT: &str = "%{NAME}\t%{ARCH}\t%{EVR}\t%{SOURCERPM}\n";

/// Reads `Field: value` paragraphs (dpkg status, apt lists) line by line.
#[derive(Default)]
pub struct Paragraph {
    /// `Package`.
    pub name: String,
    /// `Version`.
    pub version: String,
    /// `Architecture`.
    pub architecture: String,
    /// `Source`, without the version in parentheses.
    pub source: String,
    /// The third word of `Status`: `installed`, `config-files`, …
    pub status: String,
}

impl Paragraph {
    /// Takes one line; true when it was the empty one that ends the paragraph.
    pub fn take(&mut self, line: &[u8]) -> bool {
        if line.is_empty() {
            return true;
        }
        // Only these five letters begin a field that matters: skips most of a 50 MB list cheaply.
        if !matches!(line[0], b'P' | b'V' | b'A' | b'S') {
            return false;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return false;
        };
        let field = match &line[..colon] {
            b"Package" => &mut self.name,
            b"Version" => &mut self.version,
            b"Architecture" => &mut self.architecture,
            b"Source" => &mut self.source,
            b"Status" => &mut self.status,
            _ => return false,
        };
        let value = String::from_utf8_lossy(&line[colon + 1..]);
        let value = value.trim();
        *field = match &line[..colon] {
            b"Source" => cut(value.split_whitespace().next().unwrap_or_default()),
            b"Status" => cut(value.split_whitespace().nth(2).unwrap_or_default()),
            _ => cut(value),
        };
        false
    }

    /// `name:architecture`, which tells apart what is installed side by side.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}:{}", self.name, self.architecture)
    }
}

/// All packages known to dpkg and rpm, those removed but for their configuration too (EXT-5).
#[must_use]
pub fn packages(tree: &dyn Tree) -> Items {
    let mut items = Items::new();
    dpkg(tree, &mut items);
    if RPM_FOLDERS.iter().any(|folder| !tree.list(folder).is_empty()) {
        rpm(tree, &mut items);
    }
    items
}

fn dpkg(tree: &dyn Tree, items: &mut Items) {
    let mut paragraph = Paragraph::default();
    let mut keep = |paragraph: &mut Paragraph| {
        let done = std::mem::take(paragraph);
        if done.name.is_empty() || done.status.is_empty() || done.status == "not-installed" {
            return;
        }
        let source = if done.source.is_empty() { &done.name } else { &done.source };
        items.insert(
            done.key(),
            item([
                ("manager", "dpkg".into()),
                ("version", done.version.as_str().into()),
                ("status", done.status.as_str().into()),
                ("source", source.as_str().into()),
            ]),
        );
    };
    tree.lines(DPKG_STATUS, &mut |line| {
        if paragraph.take(line) {
            keep(&mut paragraph);
        }
    });
    keep(&mut paragraph);
}

fn rpm(tree: &dyn Tree, items: &mut Items) {
    tree.program("rpm", &["-qa", "--qf", RPM_FORMAT], &mut |line| {
        let line = String::from_utf8_lossy(line);
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, architecture, version, source] = fields[..] else {
            return;
        };
        // Several kernels of one name stand side by side under rpm, so the version is in the key.
        items.insert(
            cut(&format!("{name}-{version}.{architecture}")),
            item([
                ("manager", "rpm".into()),
                ("version", cut(version).into()),
                ("status", "installed".into()),
                ("source", cut(source).into()),
            ]),
        );
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panic")]
    use super::super::tree::MapTree;
    use super::*;

    const STATUS: &str = "Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\n\
        Source: openssl\nVersion: 3.0.11-1\nDescription: text\n Package: not a field\n\n\
        Package: old\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1:2\n\n\
        Package: gone\nStatus: purge ok not-installed\nArchitecture: all\n";

    #[test]
    fn packages_of_dpkg_are_read_with_what_is_left_of_removed_ones() {
        let found = packages(&MapTree::of(&[(DPKG_STATUS, STATUS)]));
        assert_eq!(found.keys().collect::<Vec<_>>(), ["libssl3:amd64", "old:all"]);
        assert_eq!(found["libssl3:amd64"]["source"], "openssl");
        assert_eq!(found["libssl3:amd64"]["version"], "3.0.11-1");
        assert_eq!(found["old:all"]["status"], "config-files");
    }

    #[test]
    fn packages_of_rpm_keep_several_kernels_apart() {
        let mut tree = MapTree::of(&[("var/lib/rpm/rpmdb.sqlite", "x")]);
        let printed =
            b"kernel\tx86_64\t5.14-1\tk.src.rpm\nkernel\tx86_64\t5.14-2\tk.src.rpm\nbad\n";
        tree.programs.insert(format!("rpm -qa --qf {RPM_FORMAT}"), printed.to_vec());
        let found = packages(&tree);
        assert_eq!(found.len(), 2);
        assert_eq!(found["kernel-5.14-2.x86_64"]["manager"], "rpm");
    }

    #[test]
    fn damaged_status_files_give_what_can_be_read() {
        let found = packages(&MapTree::of(&[(DPKG_STATUS, "Package\n:\n\n\n: x\nStatus: a\n\n")]));
        assert!(found.is_empty());
    }
}
