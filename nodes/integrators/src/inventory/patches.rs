//! Patches: the updates that brought what is installed, those that wait, and a reboot they need.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::Value;

use super::packages::{DPKG_STATUS, Paragraph};
use super::snapshot::{Items, cut, item};
use super::tree::{Stamp, Tree};

/// dpkg's log, the rotated one first so that the newest line wins.
const LOGS: [&str; 2] = ["var/log/dpkg.log.1", "var/log/dpkg.log"];
/// apt's lists of what can be had.
const LISTS: &str = "var/lib/apt/lists";
/// Where Debian says that an update wants a reboot.
const REBOOT: [&str; 2] = ["run/reboot-required", "var/run/reboot-required"];

/// Length and time of all files from which packages and patches are read.
#[must_use]
pub fn stamps(tree: &dyn Tree) -> Vec<(String, Stamp)> {
    let mut files: Vec<String> = LOGS.iter().map(ToString::to_string).collect();
    files.extend([DPKG_STATUS, "var/lib/rpm/rpmdb.sqlite", "var/lib/rpm/Packages"].map(Into::into));
    files.push("usr/lib/sysimage/rpm/rpmdb.sqlite".into());
    files.extend(lists(tree));
    let known = files.into_iter().filter_map(|file| tree.stamp(&file).map(|found| (file, found)));
    known.collect()
}

/// The lists of packages among apt's files.
fn lists(tree: &dyn Tree) -> Vec<String> {
    let names = tree.list(LISTS).into_iter();
    let named = names.filter(|name| {
        name.ends_with("_Packages")
            || name.rsplit_once('.').is_some_and(|(stem, _)| stem.ends_with("_Packages"))
    });
    named.map(|name| format!("{LISTS}/{name}")).collect()
}

/// Updates applied (`applied/NAME`) and waiting (`waiting/NAME`).
#[must_use]
pub fn patches(tree: &dyn Tree, packages: &Items) -> Items {
    let mut items = applied(tree, packages);
    waiting(tree, packages, &mut items);
    items
}

/// A reboot that an update asked for.
#[must_use]
pub fn reboot(tree: &dyn Tree) -> Items {
    let Some(path) = REBOOT.iter().find(|path| tree.read(path).is_some()) else {
        return Items::new();
    };
    let names = tree.text(&format!("{path}.pkgs")).unwrap_or_default();
    let mut names: Vec<String> = names.lines().map(|name| cut(name.trim())).collect();
    names.sort();
    names.dedup();
    [("reboot-required".to_string(), item([("packages", names.into())]))].into()
}

/// For each package the logged upgrade that brought the version it has.
fn applied(tree: &dyn Tree, packages: &Items) -> Items {
    let mut items = Items::new();
    for log in LOGS {
        tree.lines(log, &mut |line| {
            let line = String::from_utf8_lossy(line);
            let words: Vec<&str> = line.split_whitespace().collect();
            let [day, time, "upgrade", key, from, to] = words[..] else {
                return;
            };
            if packages.get(key).is_some_and(|package| package["version"] == to) {
                let at = format!("{day} {time}");
                items.insert(
                    format!("applied/{key}"),
                    item([
                        ("from", cut(from).into()),
                        ("to", cut(to).into()),
                        ("at_host_time", cut(&at).into()),
                    ]),
                );
            }
        });
    }
    items
}

/// Keeps applied updates that the log no longer tells of, as long as what they brought is there.
pub fn carry(known: &Items, packages: &Items, now: &mut Items) {
    for (name, value) in known {
        let Some(key) = name.strip_prefix("applied/") else {
            continue;
        };
        let there = packages.get(key).is_some_and(|package| package["version"] == value["to"]);
        if there && !now.contains_key(name) {
            now.insert(name.clone(), value.clone());
        }
    }
}

/// For each installed package the newest version in apt's lists, when newer than what it has.
/// Pins, holds and phasing are apt's own and not looked at: this is what can be had.
fn waiting(tree: &dyn Tree, packages: &Items, items: &mut Items) {
    let mut installed: BTreeMap<&str, Vec<(&str, &Value)>> = BTreeMap::new();
    for (key, package) in packages {
        if let Some((name, architecture)) = key.rsplit_once(':')
            && package["status"] == "installed"
        {
            installed.entry(name).or_default().push((architecture, package));
        }
    }
    for list in lists(tree) {
        let security = list.contains("security");
        let mut paragraph = Paragraph::default();
        let mut compare = |paragraph: &mut Paragraph| {
            let offered = std::mem::take(paragraph);
            for (architecture, package) in
                installed.get(offered.name.as_str()).into_iter().flatten()
            {
                let same = *architecture == offered.architecture;
                if !same && *architecture != "all" && offered.architecture != "all" {
                    continue;
                }
                let has = package["version"].as_str().unwrap_or_default();
                let name = format!("waiting/{}:{architecture}", offered.name);
                let best = items.get(&name).and_then(|best| best["to"].as_str()).unwrap_or(has);
                if compare_versions(&offered.version, best) == Ordering::Greater {
                    let fields = [
                        ("from", has.into()),
                        ("to", offered.version.as_str().into()),
                        ("security", security.into()),
                    ];
                    items.insert(name, item(fields));
                }
            }
        };
        tree.lines(&list, &mut |line| {
            if paragraph.take(line) {
                compare(&mut paragraph);
            }
        });
        compare(&mut paragraph);
    }
}

/// Which Debian version is later (deb-version(7)): epoch, upstream version, revision.
#[must_use]
pub fn compare_versions(left: &str, right: &str) -> Ordering {
    let parts = |version: &'_ str| -> (u64, String, String) {
        let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch.parse().unwrap_or(0), upstream.to_string(), revision.to_string())
    };
    let ((e1, u1, r1), (e2, u2, r2)) = (parts(left), parts(right));
    let upstream = || compare_part(u1.as_bytes(), u2.as_bytes());
    e1.cmp(&e2).then_with(upstream).then_with(|| compare_part(r1.as_bytes(), r2.as_bytes()))
}

/// Non-digits by a changed ASCII order (`~` before the end, letters before the rest), digits by
/// value, in turns.
fn compare_part(mut left: &[u8], mut right: &[u8]) -> Ordering {
    let order = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    let digit = |text: &[u8]| text.first().is_some_and(u8::is_ascii_digit);
    while !left.is_empty() || !right.is_empty() {
        while (!left.is_empty() && !digit(left)) || (!right.is_empty() && !digit(right)) {
            match order(left.first()).cmp(&order(right.first())) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
            left = left.get(1..).unwrap_or_default();
            right = right.get(1..).unwrap_or_default();
        }
        let number = |text: &mut &[u8]| -> Vec<u8> {
            let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
            let (digits, rest) = text.split_at(end);
            *text = rest;
            digits.iter().copied().skip_while(|digit| *digit == b'0').collect()
        };
        let (one, two) = (number(&mut left), number(&mut right));
        match one.len().cmp(&two.len()).then_with(|| one.cmp(&two)) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::super::packages::packages;
    use super::super::tree::MapTree;
    use super::*;

    const STATUS: &str = "Package: a\nStatus: install ok installed\nArchitecture: amd64\n\
        Version: 2.0-1\n\nPackage: b\nStatus: install ok installed\nArchitecture: all\n\
        Version: 1.0\n";

    #[test]
    fn versions_compare_as_debian_policy_says() {
        use Ordering::{Equal, Greater, Less};
        for (left, expected, right) in [
            ("1.0", Equal, "1.0-0"),
            ("1.0~rc1", Less, "1.0"),
            ("1:0.1", Greater, "9.9"),
            ("2.36-9+deb12u10", Greater, "2.36-9+deb12u9"),
            ("252.38-1~deb12u1", Less, "252.38-1"),
            ("1.2.3", Less, "1.2.10"),
            ("1.0a", Less, "1.0+"),
            ("0.6.45-1ubuntu1.3", Greater, "0.6.45-1ubuntu1"),
            ("007", Equal, "7"),
            ("", Equal, "0"),
            ("1.0~~", Less, "1.0~"),
        ] {
            assert_eq!(compare_versions(left, right), expected, "{left} {right}");
            assert_eq!(compare_versions(right, left), expected.reverse(), "{right} {left}");
        }
    }

    #[test]
    fn applied_and_waiting_patches_are_told_apart() {
        let log = "2026-01-02 03:04:05 upgrade a:amd64 1.9-1 2.0-1\n\
            2026-01-02 03:04:05 status installed a:amd64 2.0-1\n\
            2026-01-02 03:04:06 upgrade b:all 0.8 0.9\n";
        let list = "Package: b\nArchitecture: all\nVersion: 1.0+deb12u1\n\n\
            Package: a\nArchitecture: amd64\nVersion: 1.0\n\nPackage: c\nVersion: 9\n\n";
        let tree = MapTree::of(&[
            (DPKG_STATUS, STATUS),
            ("var/log/dpkg.log", log),
            ("var/lib/apt/lists/x_debian-security_main_binary-amd64_Packages", list),
        ]);
        let found = patches(&tree, &packages(&tree));
        assert_eq!(found.keys().collect::<Vec<_>>(), ["applied/a:amd64", "waiting/b:all"]);
        assert_eq!(found["waiting/b:all"]["to"], "1.0+deb12u1");
        assert_eq!(found["waiting/b:all"]["security"], true);
        assert_eq!(found["applied/a:amd64"]["from"], "1.9-1");
    }

    #[test]
    fn an_applied_patch_outlives_its_log_but_not_its_package() {
        let installed = packages(&MapTree::of(&[(DPKG_STATUS, STATUS)]));
        let known: Items = [
            ("applied/a:amd64".to_string(), item([("to", "2.0-1".into())])),
            ("applied/b:all".to_string(), item([("to", "0.9".into())])),
            ("waiting/a:amd64".to_string(), item([("to", "3".into())])),
        ]
        .into();
        let mut now = Items::new();
        carry(&known, &installed, &mut now);
        assert_eq!(now.keys().collect::<Vec<_>>(), ["applied/a:amd64"]);
    }

    #[test]
    fn a_needed_reboot_is_an_item_of_its_own() {
        let tree = MapTree::of(&[
            ("run/reboot-required", "*** System restart required ***\n"),
            ("run/reboot-required.pkgs", "linux-base\nlibc6\nlinux-base\n"),
        ]);
        assert_eq!(reboot(&tree)["reboot-required"]["packages"][0], "libc6");
        assert!(reboot(&MapTree::default()).is_empty());
    }
}
