//! `up`: its flags and ready line, the files of §3 with their modes, ends, signals, what is in use.
use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    sandbox::{Up, callhome, get, text, wait_for},
    support::{QUIET, alarm, refused},
};

fn mode(path: &Path) -> u32 {
    let data = std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    data.permissions().mode() & 0o7777
}

const NODES: [&str; 4] = ["proxy", "mlm", "applications-mlm", "app-server"];

#[test]
fn files_have_their_modes_and_say_where_it_serves_until_a_clean_end() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let process = Up::process(&data, &QUIET);
    assert_eq!(mode(&data), 0o750);
    for (file, wanted) in [
        ("server.url", 0o644),
        ("operator.url", 0o644),
        ("operator.token", 0o600),
        ("customers", 0o600),
        ("proxy/integrator.sock", 0o660),
        ("proxy/store.proof", 0o600),
        ("proxy/store.acked", 0o600),
    ] {
        assert_eq!(mode(&data.join(file)), wanted, "{file}");
    }
    for node in NODES {
        assert_eq!(mode(&data.join(node)), 0o750, "{node}");
        assert_eq!(mode(&data.join(node).join("lock")), 0o600, "{node}");
        assert_eq!(mode(&data.join(node).join("store.redb")), 0o600, "{node}");
        let holder = std::fs::read_to_string(data.join(node).join("lock")).unwrap();
        assert_eq!(holder.trim(), process.child.id().to_string(), "{node}");
    }
    let line = |file: &str| std::fs::read_to_string(data.join(file)).unwrap();
    for file in ["server.url", "operator.url", "operator.token"] {
        assert_eq!(line(file).lines().count(), 1, "{file}");
    }
    let portal = process.word("portal");
    let server = line("server.url").trim().to_owned();
    assert!(portal.starts_with(&format!("{server}/sign-in?code=")), "{portal}");
    assert_eq!(process.word("data"), data.display().to_string());
    let token = line("operator.token");
    let started = Instant::now();
    assert_eq!(process.stop(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(30), "drain-within-s");
    for file in ["server.url", "operator.url", "proxy/integrator.sock"] {
        assert!(!data.join(file).exists(), "{file} outlives a clean end");
    }
    // Again over the same data: the token is kept.
    let process = Up::process(&data, &QUIET);
    assert_eq!(line("operator.token"), token);
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn flags_choose_the_addresses_and_turn_integrators_off() {
    let folder = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let process =
        Up::process(folder.path(), &["--snmp", &free, "--syslog", "off", "--no-inventory"]);
    assert_eq!(process.word("snmp"), free);
    assert!(!process.ready.contains("syslog="), "{}", process.ready);
    assert!(std::net::UdpSocket::bind(&free).is_err(), "the port is taken");
}

// IPC-4: nothing that takes messages from this host's integrators listens beyond it.
#[test]
fn everything_listens_on_loopback_only() {
    let up = Up::start(&["--no-inventory"]);
    for word in ["snmp", "syslog"] {
        assert!(up.process.word(word).starts_with("127.0.0.1:"), "{}", up.process.ready);
    }
    let mut pids = children(up.process.child.id());
    pids.push(up.process.child.id());
    let mut listening = 0;
    for pid in pids {
        for table in ["tcp", "tcp6", "udp", "udp6"] {
            for address in bound(pid, table) {
                assert!(address.starts_with("0100007F:"), "{table}: {address}");
                listening += 1;
            }
        }
    }
    assert!(listening >= 6, "{listening} sockets: portal, operator, doors, traps, lines");
}

/// Local addresses (hexadecimal) of a process's sockets that listen, by /proc.
fn bound(pid: u32, table: &str) -> Vec<String> {
    let mut inodes = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default().display().to_string();
        if let Some(inode) = target.strip_prefix("socket:[") {
            inodes.push(inode.trim_end_matches(']').to_owned());
        }
    }
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
    let rows = text.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    // 0A: a TCP socket that listens; 07: a UDP socket that is not connected.
    let own = rows.filter(|row| row.len() > 9 && inodes.iter().any(|i| i == row[9]));
    own.filter(|row| matches!(row[3], "0A" | "07")).map(|row| row[1].to_owned()).collect()
}

fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}

fn runs(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = state.rsplit(") ").next().unwrap_or_default();
    !state.is_empty() && !state.starts_with('Z')
}

#[test]
fn what_up_starts_ends_with_it_also_by_kill() {
    let mut up = Up::start(&[]);
    let started = wait_for("three integrators", || {
        let started = children(up.process.child.id());
        (started.len() >= 3).then_some(started)
    });
    assert_eq!(mode(&up.data().join("spill")), 0o700);
    up.process.kill();
    wait_for("the integrators to end", || started.iter().all(|pid| !runs(*pid)).then_some(()));
    // What a kill leaves is in nobody's way: the next one starts over it.
    assert!(up.data().join("server.url").exists());
    let process = Up::process(up.data(), &QUIET);
    assert_eq!(process.stop(), Some(0));
}

// IDM-7: proxy, integrator and instance have the ids they had, and history stays attached.
#[test]
fn ids_stay_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let process = Up::process(folder.path(), &QUIET);
        let up = Up { folder: tempfile::tempdir().unwrap(), process };
        let data = folder.path().display().to_string();
        let sent = callhome(&[
            "--data",
            &data,
            "send",
            "alarm",
            "--instance",
            "press-1",
            "--type",
            "oil",
            "--severity",
            "major",
            "--text",
            "low",
            "--integrator",
            "plant",
        ]);
        assert!(sent.status.success(), "{}", text(&sent.stderr));
        let ids = wait_for("the ids", || {
            let mut ids = Vec::new();
            for (kind, id) in [
                ("nodes", "node_id"),
                ("integrators", "integrator_id"),
                ("instances", "instance_id"),
                ("customers", "customer_id"),
            ] {
                let list = callhome(&["--data", &data, "ls", kind, "-o", "json"]);
                let list: serde_json::Value = serde_json::from_slice(&list.stdout).ok()?;
                let all: Vec<String> = list
                    .as_array()?
                    .iter()
                    .map(|item| item[id].as_str().unwrap().to_owned())
                    .collect();
                ids.push((kind, all));
            }
            (ids[2].1.len() == 1).then_some(ids)
        });
        seen.push(ids);
        assert_eq!(up.process.stop(), Some(0));
    }
    let second = seen.pop().unwrap();
    assert_eq!(seen.pop().unwrap(), second);
    // Every id starts with its parent's (DESIGN §6).
    let (nodes, integrators, instances) = (&second[0].1, &second[1].1, &second[2].1);
    assert!(integrators.iter().all(|i| nodes.iter().any(|n| i.starts_with(&format!("{n}/")))));
    assert!(instances.iter().all(|i| integrators.iter().any(|n| i.starts_with(&format!("{n}/")))));
    assert!(nodes.iter().all(|n| second[3].1.iter().any(|c| n.starts_with(&format!("{c}/")))));
}

#[test]
fn data_or_an_address_in_use_is_69() {
    let up = Up::start(&QUIET);
    let data = up.data_text();
    let again: Vec<&str> =
        ["up", "--listen", "127.0.0.1:0", "--data", &data].into_iter().chain(QUIET).collect();
    let said = refused(&callhome(&again), 69);
    assert!(said.contains("in use by process"), "{said}");
    assert!(said.contains(&up.process.child.id().to_string()), "{said}");
    assert_eq!(said.matches("stop").count(), 1, "one help, in one place: {said}");
    // The first one is none the worse, and its files stand.
    assert_eq!(get(&up.operator(), "/readyz", "").0, 200);
    assert_eq!(get(&up.server(), "/api/v1/nodes", &up.token()).0, 200);
    alarm(&up, "still-here", &[]);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let other: Vec<&str> =
        ["up", "--listen", &address, "--data", data].into_iter().chain(QUIET).collect();
    let said = refused(&callhome(&other), 69);
    assert!(said.contains("  help: "), "{said}");
}

#[test]
fn int_ends_it_cleanly_too() {
    let mut up = Up::start(&QUIET);
    let pid = up.process.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let status = wait_for("its end", || up.process.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(!up.data().join("server.url").exists());
}
