//! The disk configuration: disks, partitions, controllers, software arrays, mounts, swap.

use serde_json::Value;

use super::snapshot::{Items, cut, item};
use super::tree::Tree;

/// The kernel counts in sectors of this many bytes, whatever the disk's own are.
pub const SECTOR_BYTES: u64 = 512;

/// All that the host stores on (DAT-15).
#[must_use]
pub fn disks(tree: &dyn Tree) -> Items {
    let mut items = Items::new();
    block_devices(tree, &mut items);
    if items.is_empty() {
        partitions(tree, &mut items);
    }
    controllers(tree, &mut items);
    arrays(&tree.text("proc/mdstat").unwrap_or_default(), &mut items);
    for (device, path, kind, options) in mounts(tree) {
        let read_only = options.split(',').any(|option| option == "ro");
        let fields =
            [("device", device.into()), ("type", kind.into()), ("read_only", read_only.into())];
        items.insert(format!("mount{path}"), item(fields));
    }
    for line in tree.text("proc/swaps").unwrap_or_default().lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [device, kind, kib, ..] = words[..] {
            let bytes = kib.parse::<u64>().ok().map(|kib| kib.saturating_mul(1024));
            let fields = [("type", cut(kind).into()), ("size_bytes", bytes.into())];
            items.insert(format!("swap{}", cut(device)), item(fields));
        }
    }
    items
}

fn text(tree: &dyn Tree, path: &str) -> Value {
    tree.text(path).map(|text| cut(&text)).into()
}

fn flag(tree: &dyn Tree, path: &str) -> Value {
    tree.number(path).map(|number| number != 0).into()
}

fn size(tree: &dyn Tree, folder: &str) -> Option<u64> {
    tree.number(&format!("{folder}/size")).map(|sectors| sectors.saturating_mul(SECTOR_BYTES))
}

/// Devices that hold nothing (empty loop and RAM devices, drives without a medium) are left out.
fn block_devices(tree: &dyn Tree, items: &mut Items) {
    for name in tree.list("sys/block") {
        let folder = format!("sys/block/{name}");
        let Some(bytes) = size(tree, &folder).filter(|bytes| *bytes > 0) else {
            continue;
        };
        let first = |paths: [&str; 2]| {
            let found = paths.map(|path| text(tree, &format!("{folder}/{path}")));
            found.into_iter().find(|value| !value.is_null()).unwrap_or_default()
        };
        let fields = [
            ("size_bytes", bytes.into()),
            ("removable", flag(tree, &format!("{folder}/removable"))),
            ("read_only", flag(tree, &format!("{folder}/ro"))),
            ("rotational", flag(tree, &format!("{folder}/queue/rotational"))),
            ("block_bytes", tree.number(&format!("{folder}/queue/logical_block_size")).into()),
            ("vendor", text(tree, &format!("{folder}/device/vendor"))),
            ("model", text(tree, &format!("{folder}/device/model"))),
            ("serial", first(["serial", "device/serial"])),
            ("firmware", first(["device/rev", "device/firmware_rev"])),
        ];
        items.insert(format!("disk/{name}"), item(fields));
        for part in tree.list(&folder).into_iter().filter(|part| part.starts_with(&name)) {
            let below = format!("{folder}/{part}");
            let Some(number) = tree.number(&format!("{below}/partition")) else {
                continue;
            };
            let fields = [
                ("disk", name.as_str().into()),
                ("number", number.into()),
                ("start_sector", tree.number(&format!("{below}/start")).into()),
                ("size_bytes", size(tree, &below).into()),
                ("read_only", flag(tree, &format!("{below}/ro"))),
            ];
            items.insert(format!("partition/{part}"), item(fields));
        }
    }
}

/// Where there is no /sys/block (a copied /proc): names and sizes alone.
fn partitions(tree: &dyn Tree, items: &mut Items) {
    for line in tree.text("proc/partitions").unwrap_or_default().lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, kib, name] = words[..] else {
            continue;
        };
        if let Some(bytes) = kib.parse::<u64>().ok().map(|kib| kib.saturating_mul(1024)) {
            items.insert(format!("block/{}", cut(name)), item([("size_bytes", bytes.into())]));
        }
    }
}

fn controllers(tree: &dyn Tree, items: &mut Items) {
    for name in tree.list("sys/class/nvme") {
        let folder = format!("sys/class/nvme/{name}");
        let fields = [
            ("model", text(tree, &format!("{folder}/model"))),
            ("serial", text(tree, &format!("{folder}/serial"))),
            ("firmware", text(tree, &format!("{folder}/firmware_rev"))),
            ("state", text(tree, &format!("{folder}/state"))),
        ];
        items.insert(format!("controller/{name}"), item(fields));
    }
}

/// Software arrays of /proc/mdstat; how far a rebuild is changes all the time and is left out.
fn arrays(mdstat: &str, items: &mut Items) {
    let mut lines = mdstat.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, rest)) = line.split_once(" : ") else {
            continue;
        };
        if !name.starts_with("md") {
            continue;
        }
        let words: Vec<&str> = rest.split_whitespace().collect();
        let is_member = |word: &&&str| word.contains('[');
        let mut members: Vec<String> = words.iter().filter(is_member).map(|w| cut(w)).collect();
        members.sort();
        let level = words.iter().skip(1).find(|word| !word.contains('[') && !word.contains('('));
        let counts = lines.peek().and_then(|next| working(next));
        let fields = [
            ("state", words.first().map(|state| cut(state)).into()),
            ("level", level.map(|level| cut(level)).into()),
            ("members", members.into()),
            ("members_wanted", counts.map(|(wanted, _)| wanted).into()),
            ("members_working", counts.map(|(_, working)| working).into()),
        ];
        items.insert(format!("array/{}", cut(name)), item(fields));
    }
}

/// `[4/3]` of an array's second line.
fn working(line: &str) -> Option<(u64, u64)> {
    line.split_whitespace().find_map(|word| {
        let (wanted, working) = word.strip_prefix('[')?.strip_suffix(']')?.split_once('/')?;
        Some((wanted.parse().ok()?, working.parse().ok()?))
    })
}

/// (device, path, type, options) of what is mounted from a device, once a device: a bind mount
/// shows the same storage again.
#[must_use]
pub fn mounts(tree: &dyn Tree) -> Vec<(String, String, String, String)> {
    let known = ["proc/self/mounts", "proc/mounts"].iter().find_map(|path| tree.text(path));
    let mut found: Vec<(String, String, String, String)> = Vec::new();
    for line in known.unwrap_or_default().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [device, path, kind, options, ..] = words[..] else {
            continue;
        };
        // Network and FUSE mounts can hang whoever looks at them; they are no disks of this host.
        if !device.starts_with("/dev/") || kind.starts_with("fuse") {
            continue;
        }
        if found.iter().all(|(seen, ..)| seen != device) {
            found.push((cut(device), unescape(path), cut(kind), cut(options)));
        }
    }
    found
}

/// `\040` and the like, as the kernel writes blanks in paths.
fn unescape(path: &str) -> String {
    let mut out = path.to_string();
    for (code, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(code, character);
    }
    cut(&out)
}

#[cfg(test)]
mod tests {
    use super::super::tree::MapTree;
    use super::*;

    #[test]
    fn disks_partitions_and_mounts_are_read_from_the_kernels_files() {
        let tree = MapTree::of(&[
            ("sys/block/loop0/size", "0\n"),
            ("sys/block/sda/size", "2048\n"),
            ("sys/block/sda/device/model", "VMware Virtual S \n"),
            ("sys/block/sda/queue/rotational", "1\n"),
            ("sys/block/sda/sda1/partition", "1\n"),
            ("sys/block/sda/sda1/size", "1024\n"),
            ("sys/block/sda/slaves/x", ""),
            (
                "proc/self/mounts",
                "/dev/sda1 /a\\040b ext4 ro,relatime 0 0\n\
                /dev/sda1 /bound ext4 rw 0 0\nnas:/x /n nfs rw 0 0\n",
            ),
            ("proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 4 0 -2\n"),
        ]);
        let found = disks(&tree);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["disk/sda", "mount/a b", "partition/sda1", "swap/dev/sda2"]);
        assert_eq!(found["disk/sda"]["size_bytes"], 1_048_576);
        assert_eq!(found["disk/sda"]["model"], "VMware Virtual S");
        assert_eq!(found["partition/sda1"]["disk"], "sda");
        assert_eq!(found["mount/a b"]["read_only"], true);
        assert_eq!(found["swap/dev/sda2"]["size_bytes"], 4096);
    }

    #[test]
    fn without_sys_the_kernels_list_of_partitions_is_taken() {
        let listed = "major minor  #blocks  name\n\n 254        0  268435456 vda\n";
        let found = disks(&MapTree::of(&[("proc/partitions", listed)]));
        assert_eq!(found["block/vda"]["size_bytes"], 274_877_906_944_u64);
    }

    #[test]
    fn a_degraded_array_shows_what_it_wants_and_what_works() {
        let mut items = Items::new();
        let text = "Personalities : [raid1]\nmd6 : active raid1 sdb2[2](F) sdc[1](S) sda2[0]\n\
            \x20     195310144 blocks [2/1] [U_]\n\nmd11 : active (auto-read-only) raid1 sdb2[0]\n\
            \x20     4190208 blocks super 1.2 [2/2] [UU]\nmd219 : inactive sdb[2](S) sda[0](S)\n\
            \x20       7932 blocks super external:imsm\nunused devices: <none>\n";
        arrays(text, &mut items);
        assert_eq!(items.len(), 3);
        assert_eq!(items["array/md6"]["members_working"], 1);
        assert_eq!(items["array/md6"]["members"][1], "sdb2[2](F)");
        assert_eq!(items["array/md11"]["level"], "raid1");
        assert_eq!(items["array/md219"]["level"], Value::Null);
    }
}
