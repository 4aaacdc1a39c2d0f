//! The latest set of an inventory and how it changed.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]
mod common;

use common::Bench;
use extension::records::kept::{self, SetChange};
use module_services::Inventory;
use protocol::service::{Data, Payload, Service};
use serde_json::{Value, json};

fn document(document: &Value) -> Service {
    Service::Data(Data {
        kind: "inventory".to_owned(),
        subtype: "packages".to_owned(),
        payload: Payload {
            encoding: "application/json".to_owned(),
            data: document.to_string().into(),
        },
    })
}

fn changes(bench: &Bench<Inventory>) -> Vec<(u64, u64, u64)> {
    let rows = bench.table.under(b'c');
    let read = |v: &bytes::Bytes| kept::from_row::<SetChange>(v).unwrap();
    rows.iter().map(|(_, v)| read(v)).map(|c| (c.added, c.removed, c.changed)).collect()
}

// ARC-5: alter the monitored host, and a change record appears.
#[test]
fn a_change_of_the_host_changes_the_set_and_leaves_a_record() {
    let mut bench = Bench::new(Inventory);
    let full = json!({"kind": "full", "set": "1", "part": 1, "parts": 1,
        "items": {"bash": {"v": 1}, "curl": {"v": 1}}});
    bench.take(1, 100, document(&full));
    let changed = json!({"kind": "changes", "base": "1", "set": "2", "added": {"zsh": {"v": 1}},
        "removed": {"curl": {"v": 1}}, "changed": {"bash": {"from": {"v": 1}, "to": {"v": 2}}}});
    bench.take(2, 200, document(&changed));
    let items = bench.table.under(b'i');
    assert_eq!(items.len(), 2);
    assert!(items[0].0.ends_with(b"bash") && items[0].1.ends_with(b"{\"v\":2}}"));
    assert_eq!(changes(&bench), [(2, 0, 0), (1, 1, 1)]);
}

#[test]
fn a_whole_set_in_parts_replaces_the_one_before() {
    let mut bench = Bench::new(Inventory);
    let part = |set: &str, part: u64, parts: u64, items: Value| {
        document(&json!({"kind": "full", "set": set, "part": part, "parts": parts, "items": items}))
    };
    bench.take(1, 100, part("1", 1, 1, json!({"a": 1, "b": 1})));
    bench.take(2, 200, part("2", 1, 2, json!({"b": 2})));
    bench.take(3, 200, part("2", 2, 2, json!({"c": 1})));
    assert_eq!(bench.table.under(b'i').len(), 2);
    assert_eq!(changes(&bench), [(2, 0, 0), (0, 0, 1), (1, 1, 0)]);
    // The same again: no change. Late: nothing at all.
    bench.take(4, 300, part("2", 1, 1, json!({"b": 2, "c": 1})));
    bench.take(3, 900, part("9", 1, 1, json!({})));
    assert_eq!((bench.table.under(b'i').len(), changes(&bench).len()), (2, 3));
}
