//! What every `QueueStore` promises, as a test that an outsider runs on theirs.
//!
//! ```text
//! #[test]
//! fn my_store_conforms() {
//!     extension::storage::conformance::conformance(|| Arc::new(MyStore::new()));
//! }
//! ```
use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use protocol::Precedence::{self, Bulk, Normal, Urgent};

use super::{Change, Place, QueueName, QueueStore, Value};

type Make<'m> = &'m dyn Fn() -> Arc<dyn QueueStore>;
type Check = fn(Make<'_>);

/// Checks every promise of [`QueueStore`] that can be checked without a fault of the disk.
/// `make` gives an empty store each time.
///
/// # Panics
/// Where a promise is not kept; the message says which.
pub fn conformance(make: impl Fn() -> Arc<dyn QueueStore>) {
    let checks: [(&str, Check); 12] = [
        ("an empty store holds nothing", empty),
        ("runs come oldest first and newest first", order_of_runs),
        ("a run is replaced and removed", replaced_runs),
        ("precedences and queues are apart", queues_apart),
        ("a walk ends when told", walk_ends),
        ("rows come in the order of their bytes", order_of_rows),
        ("rows are found by prefix and edge", rows_by_edge),
        ("tables are apart", tables_apart),
        ("a moment reads what was committed before it", moment),
        ("changes apply in order and together", changes_in_order),
        ("a reader may read while it is called", nested_reads),
        ("other threads read what was committed", read_elsewhere),
    ];
    for (promise, check) in checks {
        eprintln!("conformance: {promise}");
        check(&make);
    }
}

fn commit(store: &dyn QueueStore, changes: &[Change]) {
    assert_eq!(store.commit(changes), Ok(()), "commit of {} changes", changes.len());
}

fn place(precedence: Precedence, position: u64) -> Place {
    Place { precedence, position }
}

fn put(queue: &str, precedence: Precedence, position: u64, value: &str) -> Change {
    let (queue, place) = (QueueName::new(queue), place(precedence, position));
    Change::PutRun { queue, place, value: Bytes::copy_from_slice(value.as_bytes()) }
}

fn remove(queue: &str, precedence: Precedence, position: u64) -> Change {
    Change::RemoveRun { queue: QueueName::new(queue), place: place(precedence, position) }
}

fn put_row(table: &'static str, key: &[u8], value: &str) -> Change {
    let value = Bytes::copy_from_slice(value.as_bytes());
    Change::PutRow { table, key: Bytes::copy_from_slice(key), value }
}

fn remove_row(table: &'static str, key: &[u8]) -> Change {
    Change::RemoveRow { table, key: Bytes::copy_from_slice(key) }
}

/// Runs of a precedence as `position=value`, forward from `edge` or back to it.
fn runs(store: &dyn QueueStore, queue: &str, p: Precedence, edge: u64, back: bool) -> Vec<String> {
    let queue = QueueName::new(queue);
    let mut seen = Vec::new();
    let mut visit = |position: u64, value: Value<'_>| {
        let Value::Good(value) = value else { panic!("run {position} is damaged") };
        seen.push(format!("{position}={}", String::from_utf8_lossy(value)));
        ControlFlow::Continue(())
    };
    let walked = match back {
        false => store.runs(&queue, p, edge, &mut visit),
        true => store.runs_back(&queue, p, edge, &mut visit),
    };
    assert_eq!(walked, Ok(()), "walk of {queue}");
    seen
}

fn rows(store: &dyn QueueStore, table: &'static str, edges: [&[u8]; 2], back: bool) -> Vec<String> {
    let mut seen = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        seen.push(format!("{}={}", key.escape_ascii(), value.escape_ascii()));
        ControlFlow::Continue(())
    };
    let [prefix, edge] = edges;
    let walked = match back {
        false => store.rows(table, prefix, edge, &mut visit),
        true => store.rows_back(table, prefix, edge, &mut visit),
    };
    assert_eq!(walked, Ok(()), "walk of {table}");
    seen
}

fn none() -> Vec<String> {
    Vec::new()
}

fn empty(make: Make<'_>) {
    let store = make();
    assert_eq!(store.queues(), Ok(vec![]));
    assert_eq!(store.run(&QueueName::new("up"), place(Urgent, 1)), Ok(None));
    assert_eq!(store.row("table", b"key"), Ok(None));
    assert_eq!(runs(&*store, "up", Normal, 0, false), none());
    assert_eq!(runs(&*store, "up", Normal, u64::MAX, true), none());
    assert_eq!(rows(&*store, "table", [b"", b""], false), none());
    assert_eq!(rows(&*store, "table", [b"", b""], true), none());
    commit(&*store, &[]);
    commit(&*store, &[remove("up", Urgent, 1), remove_row("table", b"key")]);
    assert!(store.size().is_ok());
    assert!(store.compact().is_ok());
    assert!(store.fitting(&QueueName::new("up"), 100_000) <= 100_000);
}

fn moment(make: Make<'_>) {
    let store = make();
    commit(&*store, &[put_row("table", b"a", "1"), put_row("other", b"a", "2")]);
    let text = |text: &'static str| Ok(Some(Bytes::from_static(text.as_bytes())));
    let Ok(moment) = store.moment() else { panic!("a store that works has a moment") };
    assert_eq!(moment.row("table", b"a"), text("1"));
    assert_eq!(moment.row("other", b"a"), text("2"));
    assert_eq!(moment.row("table", b"b"), Ok(None));
    // It holds up nobody.
    commit(&*store, &[remove_row("table", b"a")]);
    drop(moment);
    assert_eq!(store.moment().and_then(|moment| moment.row("table", b"a")), Ok(None));
}

fn order_of_runs(make: Make<'_>) {
    let store = make();
    let (a, b) = (put("up", Normal, 256, "b"), put("up", Normal, 255, "a"));
    commit(&*store, &[a, b, put("up", Normal, u64::MAX, "d"), put("up", Normal, 0, "z")]);
    let last = format!("{}=d", u64::MAX);
    assert_eq!(runs(&*store, "up", Normal, 0, false), ["0=z", "255=a", "256=b", &last[..]]);
    assert_eq!(runs(&*store, "up", Normal, 256, false), ["256=b", &last[..]]);
    assert_eq!(runs(&*store, "up", Normal, 257, false), [&last[..]]);
    assert_eq!(runs(&*store, "up", Normal, u64::MAX, true), [&last[..], "256=b", "255=a", "0=z"]);
    assert_eq!(runs(&*store, "up", Normal, 256, true), ["256=b", "255=a", "0=z"]);
    assert_eq!(runs(&*store, "up", Normal, 0, true), ["0=z"]);
}

fn replaced_runs(make: Make<'_>) {
    let store = make();
    let run = |position| store.run(&QueueName::new("up"), place(Bulk, position));
    commit(&*store, &[put("up", Bulk, 1, "first"), put("up", Bulk, 2, "")]);
    assert_eq!(run(1), Ok(Some(Bytes::from_static(b"first"))));
    assert_eq!(run(2), Ok(Some(Bytes::new())), "an empty value is a value");
    let long = "x".repeat(300_000);
    commit(&*store, &[put("up", Bulk, 1, &long), remove("up", Bulk, 2)]);
    assert_eq!(run(1), Ok(Some(Bytes::from(long))));
    assert_eq!(run(2), Ok(None));
    commit(&*store, &[remove("up", Bulk, 1)]);
    assert_eq!(store.queues(), Ok(vec![]), "a queue that holds nothing is not named");
}

fn queues_apart(make: Make<'_>) {
    let store = make();
    let names = ["down/a", "down/ab", "records", "up"];
    for (i, name) in names.iter().enumerate() {
        for precedence in [Urgent, Normal, Bulk] {
            let value = format!("{name} {precedence}");
            commit(&*store, &[put(name, precedence, i as u64, &value)]);
        }
    }
    let mut found = store.queues().unwrap_or_default();
    found.sort();
    assert_eq!(found, names.map(QueueName::new));
    for (i, name) in names.iter().enumerate() {
        for precedence in [Urgent, Normal, Bulk] {
            let expected = [format!("{i}={name} {precedence}")];
            assert_eq!(runs(&*store, name, precedence, 0, false), expected);
            assert_eq!(runs(&*store, name, precedence, u64::MAX, true), expected);
        }
    }
}

fn walk_ends(make: Make<'_>) {
    let store = make();
    let up = QueueName::new("up");
    for position in 0..10 {
        let row = put_row("t", &[position], "row");
        commit(&*store, &[put("up", Urgent, position.into(), "run"), row]);
    }
    let mut calls = 0;
    let mut third = |_: u64, _: Value<'_>| {
        calls += 1;
        if calls % 3 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert_eq!(store.runs(&up, Urgent, 0, &mut third), Ok(()));
    assert_eq!(store.runs_back(&up, Urgent, u64::MAX, &mut third), Ok(()));
    let mut row = |_: &[u8], _: &[u8]| {
        calls += 1;
        ControlFlow::Break(())
    };
    assert_eq!(store.rows("t", b"", b"", &mut row), Ok(()));
    assert_eq!(store.rows_back("t", b"", b"", &mut row), Ok(()));
    assert_eq!(calls, 8, "three of each walk of runs, one of each walk of rows");
}

fn order_of_rows(make: Make<'_>) {
    let store = make();
    let keys: [&[u8]; 6] = [b"b", b"", b"\xff\xff", b"a\0", b"a", b"\xff"];
    for key in keys {
        commit(&*store, &[put_row("t", key, "1")]);
    }
    let order = ["=1", "a=1", "a\\x00=1", "b=1", "\\xff=1", "\\xff\\xff=1"];
    assert_eq!(rows(&*store, "t", [b"", b""], false), order);
    let mut back = order;
    back.reverse();
    assert_eq!(rows(&*store, "t", [b"", b""], true), back);
    assert_eq!(store.row("t", b""), Ok(Some(Bytes::from_static(b"1"))), "an empty key is a key");
    commit(&*store, &[put_row("t", b"a", "2"), remove_row("t", b"b")]);
    assert_eq!(store.row("t", b"a"), Ok(Some(Bytes::from_static(b"2"))));
    assert_eq!(store.row("t", b"b"), Ok(None));
}

fn rows_by_edge(make: Make<'_>) {
    let store = make();
    for key in ["a1", "b1", "b3", "b5", "c1"] {
        commit(&*store, &[put_row("t", key.as_bytes(), "")]);
    }
    commit(&*store, &[put_row("t", b"\xff\xff1", ""), put_row("u", b"b4", "")]);
    let up = |prefix: &[u8], from: &[u8]| rows(&*store, "t", [prefix, from], false);
    let back = |prefix: &[u8], to: &[u8]| rows(&*store, "t", [prefix, to], true);
    assert_eq!(up(b"b", b""), ["b1=", "b3=", "b5="]);
    assert_eq!(up(b"b", b"b2"), ["b3=", "b5="]);
    assert_eq!(up(b"b", b"b3"), ["b3=", "b5="]);
    assert_eq!(up(b"b", b"a1"), ["b1=", "b3=", "b5="], "from below the prefix");
    assert_eq!(up(b"b", b"c"), none(), "from above the prefix");
    assert_eq!(up(b"\xff\xff", b""), ["\\xff\\xff1="]);
    assert_eq!(back(b"b", b""), ["b5=", "b3=", "b1="], "to nowhere is all");
    assert_eq!(back(b"b", b"b4"), ["b3=", "b1="]);
    assert_eq!(back(b"b", b"b3"), ["b3=", "b1="]);
    assert_eq!(back(b"b", b"c1"), ["b5=", "b3=", "b1="], "to above the prefix");
    assert_eq!(back(b"b", b"a"), none(), "to below the prefix");
    assert_eq!(back(b"\xff\xff", b""), ["\\xff\\xff1="]);
}

fn tables_apart(make: Make<'_>) {
    let store = make();
    let two = [put_row("t", b"k", "t"), put_row("tt", b"k", "tt"), put("t", Urgent, 0, "run")];
    commit(&*store, &two);
    assert_eq!(rows(&*store, "t", [b"", b""], false), ["k=t"]);
    assert_eq!(rows(&*store, "tt", [b"", b""], true), ["k=tt"]);
    commit(&*store, &[remove_row("t", b"k")]);
    assert_eq!(store.row("tt", b"k"), Ok(Some(Bytes::from_static(b"tt"))));
    assert_eq!(runs(&*store, "t", Urgent, 0, false), ["0=run"]);
}

fn changes_in_order(make: Make<'_>) {
    let store = make();
    let changes = [
        put("up", Urgent, 1, "a"),
        remove("up", Urgent, 1),
        put("up", Urgent, 1, "b"),
        put_row("t", b"k", "a"),
        put_row("t", b"k", "b"),
        put_row("t", b"gone", "a"),
        remove_row("t", b"gone"),
        put("up", Urgent, 2, "moved"),
    ];
    commit(&*store, &changes);
    assert_eq!(runs(&*store, "up", Urgent, 0, false), ["1=b", "2=moved"]);
    assert_eq!(rows(&*store, "t", [b"", b""], false), ["k=b"]);
    commit(&*store, &[remove("up", Urgent, 2), put("local/x", Bulk, 9, "moved")]);
    assert_eq!(runs(&*store, "up", Urgent, 0, false), ["1=b"]);
    assert_eq!(runs(&*store, "local/x", Bulk, 0, false), ["9=moved"]);
}

fn nested_reads(make: Make<'_>) {
    let store = make();
    commit(&*store, &[put("up", Urgent, 1, "a"), put("up", Urgent, 2, "b")]);
    commit(&*store, &[put_row("t", b"1", "of a"), put_row("t", b"2", "of b")]);
    let mut seen = Vec::new();
    let mut visit = |position: u64, _: Value<'_>| {
        let row = store.row("t", position.to_string().as_bytes());
        seen.push(row.ok().flatten().map(|row| String::from_utf8_lossy(&row).into_owned()));
        ControlFlow::Continue(())
    };
    assert_eq!(store.runs(&QueueName::new("up"), Urgent, 0, &mut visit), Ok(()));
    assert_eq!(seen, [Some("of a".to_owned()), Some("of b".to_owned())]);
}

fn read_elsewhere(make: Make<'_>) {
    /// Commits while others read.
    const COMMITS: u64 = 50;
    let store = make();
    commit(&*store, &[put("up", Normal, 0, "0"), put_row("t", b"k", "0")]);
    std::thread::scope(|scope| {
        let reader = || {
            let mut last = 0;
            while last < COMMITS {
                let row = store.row("t", b"k").ok().flatten().unwrap_or_default();
                let now: u64 = String::from_utf8_lossy(&row).parse().unwrap_or(0);
                assert!(now >= last, "what was committed is not taken back");
                let newest = runs(&*store, "up", Normal, u64::MAX, true);
                let run: u64 = newest.first().map_or(0, |r| r.split_once('=').map_or(0, number));
                assert!(run >= now, "run {run} is in the commit of row {now}");
                last = now;
            }
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        for i in 1..=COMMITS {
            let text = i.to_string();
            commit(&*store, &[put("up", Normal, i, &text), put_row("t", b"k", &text)]);
        }
        for reader in readers {
            if let Err(panic) = reader.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

fn number((_, value): (&str, &str)) -> u64 {
    value.parse().unwrap_or(0)
}
