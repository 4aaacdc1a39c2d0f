//! Performance: one sample of the kernel's counters, in base units, never compared with another.

use serde_json::Value;

use super::disks::{SECTOR_BYTES, mounts};
use super::snapshot::{Items, cut, item};
use super::system::meminfo_bytes;
use super::tree::Tree;

/// Milliseconds of one tick of /proc/stat: `USER_HZ` is 100 on every platform that Linux has.
const TICK_MS: u64 = 10;

/// Load, processors, memory, disks, file systems and interfaces as they stand (DAT-15).
#[must_use]
pub fn sample(tree: &dyn Tree) -> Items {
    let mut items = Items::new();
    load(tree, &mut items);
    processors(tree, &mut items);
    memory(tree, &mut items);
    disks(tree, &mut items);
    interfaces(tree, &mut items);
    for (_, path, ..) in mounts(tree) {
        if let Some(space) = tree.space(&path) {
            let fields = [
                ("size_bytes", space.total_bytes.into()),
                ("available_bytes", space.available_bytes.into()),
                ("files", space.files.into()),
                ("files_free", space.files_free.into()),
            ];
            items.insert(format!("filesystem{path}"), item(fields));
        }
    }
    items
}

fn load(tree: &dyn Tree, items: &mut Items) {
    let text = tree.text("proc/loadavg").unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().collect();
    if let [one, five, fifteen, processes, ..] = words[..] {
        let number = |word: &str| Value::from(word.parse::<f64>().ok());
        let total = processes.split_once('/').and_then(|(_, total)| total.parse::<u64>().ok());
        let fields = [
            ("1_min", number(one)),
            ("5_min", number(five)),
            ("15_min", number(fifteen)),
            ("tasks", total.into()),
        ];
        items.insert("load".into(), item(fields));
    }
    if let Some(up) = tree.text("proc/uptime").and_then(|text| seconds(&text)) {
        items.insert("uptime".into(), item([("uptime_s", up.into())]));
    }
}

/// The whole seconds of `123.45 67.89`.
fn seconds(text: &str) -> Option<u64> {
    text.split(['.', ' ']).next()?.parse().ok()
}

fn processors(tree: &dyn Tree, items: &mut Items) {
    let stat = tree.text("proc/stat").unwrap_or_default();
    for line in stat.lines() {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let value = || line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
        match name {
            "cpu" => {
                let ticks: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
                let names = [
                    "user_ms",
                    "nice_ms",
                    "system_ms",
                    "idle_ms",
                    "wait_ms",
                    "irq_ms",
                    "softirq_ms",
                    "steal_ms",
                ];
                let fields = names.iter().zip(ticks).map(|(name, ticks)| {
                    ((*name).to_string(), Value::from(ticks.saturating_mul(TICK_MS)))
                });
                items.insert("processors".into(), Value::Object(fields.collect()));
            }
            "ctxt" | "processes" | "procs_running" | "procs_blocked" => {
                let fields = items.entry("tasks".into()).or_insert_with(|| item([]));
                if let (Some(fields), Some(value)) = (fields.as_object_mut(), value()) {
                    let name = match name {
                        "ctxt" => "switches",
                        "processes" => "started",
                        "procs_running" => "running",
                        _ => "blocked",
                    };
                    fields.insert(name.into(), value.into());
                }
            }
            _ => {}
        }
    }
}

fn memory(tree: &dyn Tree, items: &mut Items) {
    let meminfo = tree.text("proc/meminfo").unwrap_or_default();
    let bytes = |name: &str| Value::from(meminfo_bytes(&meminfo, name));
    let fields = item([
        ("total_bytes", bytes("MemTotal")),
        ("available_bytes", bytes("MemAvailable")),
        ("free_bytes", bytes("MemFree")),
        ("buffers_bytes", bytes("Buffers")),
        ("cached_bytes", bytes("Cached")),
        ("swap_total_bytes", bytes("SwapTotal")),
        ("swap_free_bytes", bytes("SwapFree")),
        ("dirty_bytes", bytes("Dirty")),
    ]);
    if fields.as_object().is_some_and(|fields| !fields.is_empty()) {
        items.insert("memory".into(), fields);
    }
}

fn disks(tree: &dyn Tree, items: &mut Items) {
    for line in tree.text("proc/diskstats").unwrap_or_default().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let count = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
        let bytes = |index| count(index).map(|sectors| sectors.saturating_mul(SECTOR_BYTES));
        // Loop and RAM devices that nobody uses stand at nought for ever.
        let (Some(name), Some(reads), Some(writes)) = (words.get(2), count(3), count(7)) else {
            continue;
        };
        if reads == 0 && writes == 0 {
            continue;
        }
        let fields = [
            ("reads", reads.into()),
            ("read_bytes", bytes(5).into()),
            ("read_ms", count(6).into()),
            ("writes", writes.into()),
            ("written_bytes", bytes(9).into()),
            ("write_ms", count(10).into()),
            ("in_flight", count(11).into()),
            ("busy_ms", count(12).into()),
        ];
        items.insert(format!("disk/{}", cut(name)), item(fields));
    }
}

fn interfaces(tree: &dyn Tree, items: &mut Items) {
    for line in tree.text("proc/net/dev").unwrap_or_default().lines() {
        let Some((name, counters)) = line.split_once(':') else {
            continue;
        };
        let name = name.trim();
        if name.starts_with("veth") {
            continue;
        }
        let counters: Vec<u64> =
            counters.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let at = |index: usize| Value::from(counters.get(index).copied());
        let fields = [
            ("received_bytes", at(0)),
            ("received_packets", at(1)),
            ("receive_errors", at(2)),
            ("receive_dropped", at(3)),
            ("sent_bytes", at(8)),
            ("sent_packets", at(9)),
            ("send_errors", at(10)),
            ("send_dropped", at(11)),
        ];
        items.insert(format!("interface/{}", cut(name)), item(fields));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::MapTree;
    use super::*;

    #[test]
    fn a_sample_is_in_base_units_whatever_the_kernel_counts_in() {
        let tree = MapTree::of(&[
            ("proc/loadavg", "0.02 0.04 0.05 1/497 11947\n"),
            ("proc/uptime", "12.34 5\n"),
            ("proc/stat", "cpu  301854 612 111922 8979004 3552 2 3944 0 0 0\nprocesses 26442\n"),
            ("proc/meminfo", "MemTotal: 4 kB\nMemFree: 1 kB\n"),
            ("proc/diskstats", " 8 0 sda 5 0 2 7 3 0 4 9 0 1 1\n 7 0 loop0 0 0 0 0 0 0 0 0 0\nx\n"),
            ("proc/net/dev", "head |x\n eth0: 1 2 3 4 0 0 0 0 5 6 7 8\n veth9: 1\n"),
        ]);
        let found = sample(&tree);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        let wanted =
            ["disk/sda", "interface/eth0", "load", "memory", "processors", "tasks", "uptime"];
        assert_eq!(names, wanted);
        assert_eq!(found["processors"]["user_ms"], 3_018_540);
        assert_eq!(found["disk/sda"]["written_bytes"], 2048);
        assert_eq!(found["memory"]["total_bytes"], 4096);
        assert_eq!(found["interface/eth0"]["send_dropped"], 8);
        assert_eq!(found["load"]["tasks"], 497);
        assert_eq!(found["uptime"]["uptime_s"], 12);
        assert_eq!(found["tasks"]["started"], 26_442);
    }

    #[test]
    fn a_host_without_kernel_files_gives_an_empty_sample() {
        assert!(sample(&MapTree::default()).is_empty());
    }
}
