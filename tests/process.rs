//! Processes as a whole: a second TERM, a store of another version, the support bundle, a reader of
//! the stream that was away too long.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use integrator_api::{AlarmCall, Call, Client, Options, Severity};
use redb::{Database, ReadableTable, TableDefinition};
use sandbox::{LONG, Up, callhome, chain::Chain, text, wait_for};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What `up` does not do here by itself.
const QUIET: [&str; 5] = ["--snmp", "off", "--syslog", "off", "--no-inventory"];

fn tell(pid: u32, signal: &str) {
    let told = Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(told.success());
}

// CONTRACT §2: TERM drains within `drain-within-s` (30), a second one ends at once.
#[test]
fn a_second_term_ends_at_once() {
    let mut up = Up::start(&QUIET);
    let data = up.data_text();
    // An actor that hangs cannot be drained.
    let hung = callhome(&["drill", "hang", "durable_queue", "--node", "mlm", "--data", &data]);
    assert!(hung.status.success(), "{}", text(&hung.stderr));
    let pid = up.process.child.id();
    tell(pid, "-TERM");
    std::thread::sleep(Duration::from_secs(2));
    assert!(up.process.child.try_wait().unwrap().is_none(), "it drains: {}", up.process.log());
    let again = Instant::now();
    tell(pid, "-TERM");
    let status = wait_for("its end", || up.process.child.try_wait().unwrap());
    assert!(again.elapsed() < Duration::from_secs(2), "{:?}", again.elapsed());
    assert_ne!(status.code(), Some(0), "it did not drain");
    assert!(up.process.log().contains("ending at once"), "{}", up.process.log());
}

/// Writes another version into the format row of a store, as a later program would: the row is a
/// frame (`actors/modules/redb/src/frame.rs`), of which only the version is not known.
fn make_later(store: &Path) {
    const META: TableDefinition<&[u8], &[u8]> = TableDefinition::new("meta");
    let (head, key) = (28, b"format");
    let database = Database::open(store).unwrap();
    let change = database.begin_write().unwrap();
    {
        let mut meta = change.open_table(META).unwrap();
        let mut frame = meta.get(&key[..]).unwrap().expect("a format row").value().to_vec();
        frame[head + key.len()..][..4].copy_from_slice(&99_u32.to_le_bytes());
        let digest = xxh3_64_with_seed(&frame[12..], 0);
        frame[4..12].copy_from_slice(&digest.to_le_bytes());
        meta.insert(&key[..], &frame[..]).unwrap();
    }
    change.commit().unwrap();
}

// CONTRACT §8: an unknown store format is refused untouched, 78.
#[test]
fn a_store_of_a_later_version_is_refused_and_left_as_it_is() {
    let mut chain = Chain::start("");
    let mlm = chain.nodes[1].process.take().unwrap();
    assert_eq!(mlm.stop(), Some(0));
    let folder = chain.nodes[1].folder.clone();
    let (data, store) = (folder.display().to_string(), folder.join("store.redb"));
    make_later(&store);
    let before = std::fs::read(&store).unwrap();
    let listed = || -> BTreeMap<String, u64> {
        let entries = std::fs::read_dir(&folder).unwrap().map(Result::unwrap);
        let entries = entries.filter(|entry| entry.file_name() != "lock");
        let size = |e: &std::fs::DirEntry| e.metadata().unwrap().len();
        entries.map(|e| (e.file_name().to_string_lossy().into_owned(), size(&e))).collect()
    };
    let files = listed();
    for arguments in [
        &["node", "--role", "mlm", "--insecure", "--data", &data][..],
        &["check", "--data", &data],
        &["queue", "ls", "--data", &data],
        &["queue", "fsck", "--data", &data],
    ] {
        let output = callhome(arguments);
        let said = text(&output.stderr) + &text(&output.stdout);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}: {said}");
        assert!(said.contains("99"), "{arguments:?}: {said}");
        assert_eq!(std::fs::read(&store).unwrap(), before, "{arguments:?} changed it");
        assert_eq!(listed(), files, "{arguments:?} left something");
    }
}

// What somebody who helps is given: what the doors say, and no secret of any file.
#[test]
fn a_support_bundle_has_what_the_doors_say_and_no_secret() {
    let up = Up::start(&QUIET);
    let data = up.data_text();
    let secret = "hunter2-is-in-a-payload";
    let output = callhome(&[
        "--data",
        &data,
        "send",
        "alarm",
        "--instance",
        "db1",
        "--type",
        "disk",
        "--severity",
        "major",
        "--text",
        secret,
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bundle.tar");
    let output = callhome(&["support-bundle", file.to_str().unwrap(), "--data", &data]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let unpacked = Command::new("tar")
        .args(["-xf", file.to_str().unwrap(), "-C", folder.path().to_str().unwrap()])
        .status()
        .unwrap();
    assert!(unpacked.success());
    let part = |name: &str| {
        let path = folder.path().join("callhome").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    let json = |name: &str| -> Value { serde_json::from_str(&part(name)).unwrap() };
    assert_eq!(json("about.json")["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json("healthz.json")["nodes"].as_array().unwrap().len(), 4);
    assert_eq!(json("tree.json").as_array().unwrap().len(), 4);
    assert_eq!(json("nodes.json")["items"].as_array().unwrap().len(), 4);
    assert_eq!(json("ledger.json")["items"].as_array().unwrap().len(), 4);
    assert!(json("queue.json").is_array() && json("integrators.json")["items"].is_array());
    assert!(!json("doctor.json").as_array().unwrap().is_empty());
    assert!(part("metrics.txt").contains("callhome_ledger_in_total"));
    let files = part("files.json");
    for name in ["operator.token", "proxy/store.redb", "app-server/store.redb"] {
        assert!(files.contains(name), "{name} is named, with its size and mode");
    }
    let whole = text(&std::fs::read(&file).unwrap());
    assert!(!whole.contains(&up.token()), "the operator's token");
    let code = up.process.word("portal");
    let code = code.split("code=").nth(1).unwrap();
    assert!(!whole.contains(code), "the code that signs in");
    assert!(!whole.contains(secret), "what messages say");
    // It is not written over, and a helper's copy is for its owner alone.
    let again = callhome(&["support-bundle", file.to_str().unwrap(), "--data", &data]);
    assert_eq!(again.status.code(), Some(64));
}

/// The first event of the stream of alarms for who comes back with that id.
fn first_event(up: &Up, last_event_id: &str) -> (String, String) {
    let mut socket = TcpStream::connect(up.server()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let last = match last_event_id {
        "" => String::new(),
        id => format!("Last-Event-ID: {id}\r\n"),
    };
    let token = up.token();
    write!(
        socket,
        "GET /api/v1/stream?topic=alarms HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {token}\r\n{last}\r\n"
    )
    .unwrap();
    let (mut event, mut id) = (String::new(), String::new());
    for line in BufReader::new(socket).lines().map_while(Result::ok) {
        if let Some(word) = line.strip_prefix("event: ") {
            event = word.to_owned();
        } else if let Some(word) = line.strip_prefix("id: ") {
            id = word.to_owned();
        } else if line.is_empty() && !event.is_empty() {
            return (event, id);
        }
    }
    panic!("the stream ended");
}

// CONTRACT §5: `event: gap`, list again.
#[test]
fn a_reader_that_was_away_too_long_is_told_of_the_gap() {
    let up = Up::start(&QUIET);
    let client = Client::open(Options::new(up.data().join("proxy/integrator.sock"), "load", "1"));
    let client = client.unwrap();
    let send = |keys: std::ops::Range<u32>| {
        let at = jiff::Timestamp::now().as_millisecond();
        let calls: Vec<_> = keys
            .map(|n| {
                let mut alarm = AlarmCall::new("host-1", at, "load", Severity::Minor, "high");
                alarm.key = format!("n{n}");
                client.send(Call::Alarm(alarm))
            })
            .collect();
        for call in calls {
            call.wait().unwrap();
        }
    };
    let stored = |count: usize| {
        wait_for("the alarms", || {
            let list = up.api("/alarms?limit=10000");
            (list["items"].as_array()?.len() == count).then_some(())
        });
    };
    send(0..1);
    // One who listens from the start has an id to come back with.
    let listening = std::thread::scope(|scope| {
        let first = scope.spawn(|| first_event(&up, ""));
        let mut n = 1;
        while !first.is_finished() {
            send(n..n + 1);
            n += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
        let (event, id) = first.join().unwrap();
        assert_eq!(event, "alarm");
        (id, n)
    });
    let (id, so_far) = listening;
    // Soon again: what came meanwhile, and no gap.
    send(so_far..so_far + 1);
    stored(so_far as usize + 1);
    assert_eq!(first_event(&up, &id).0, "alarm");
    // More than is kept for who comes back (4,096 changes).
    send(so_far + 1..so_far + 4_300);
    stored(so_far as usize + 4_300);
    let (event, newer) = first_event(&up, &id);
    assert_eq!(event, "gap");
    // It goes on from there.
    send(so_far + 4_300..so_far + 4_301);
    assert_eq!(first_event(&up, &newer).0, "alarm");
    // An id of nobody's, or of an earlier life of the server, is a gap as well.
    for strange in ["x", "0-7", "ffffffffffffffff-1"] {
        assert_eq!(first_event(&up, strange).0, "gap", "{strange}");
    }
}
