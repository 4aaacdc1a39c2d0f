//! What is collected, and how that changes without a build: rules, altered hosts, remote agents.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

use std::{
    net::{IpAddr, TcpStream},
    path::Path,
    process::Command,
};

use sandbox::{Process, Up, chain::Chain, text, wait_for};
use serde_json::Value;

const QUIET: [&str; 5] = ["--snmp", "off", "--syslog", "off", "--no-inventory"];

fn logger(to: &str, line: &str) {
    let (host, port) = to.rsplit_once(':').unwrap();
    let mut command = Command::new("logger");
    command.args(["-n", host, "-P", port, "-d", "-t", "belt", line]);
    let output = command.output().expect("logger runs: apt-get install bsdutils");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn rule(id: &str, word: &str, said: &str) -> String {
    format!(
        "format = 1\nkind = \"syslog\"\n\n[[rule]]\nid = \"{id}\"\n\
        match = {{ app = \"belt\", text = '^{word} (?P<n>\\d+)' }}\nbecomes = \"alarm\"\n\
        key = \"{{n}}\"\nseverity = \"minor\"\ntext = \"{said}\"\n"
    )
}

// IPC-9, ARC-11: what a line becomes is a matter of rules; they change while the collector runs,
// and one more file adds something to collect.
#[test]
fn rules_change_what_a_running_collector_collects() {
    let up = Up::start(&QUIET);
    let rules = tempfile::tempdir().unwrap();
    std::fs::write(rules.path().join("10-belt.toml"), rule("belt/stop", "stop", "belt {n} stands"))
        .unwrap();
    let folder = rules.path().display().to_string();
    let socket = up.data().join("proxy/integrator.sock").display().to_string();
    let spill = up.data().join("spill").display().to_string();
    let collector = Process::start(&[
        "integrator",
        "syslog",
        "--socket",
        &socket,
        "--spill",
        &spill,
        "--rules",
        &folder,
        "--listen-udp",
        "127.0.0.1:0",
    ]);
    let to = collector.word("udp");
    logger(&to, "stop 7");
    up.alarm("the alarm of the first rule", |a| a["text"] == "belt 7 stands");

    std::fs::write(rules.path().join("10-belt.toml"), rule("belt/stop", "stop", "belt {n} halted"))
        .unwrap();
    std::fs::write(rules.path().join("20-heat.toml"), rule("belt/heat", "heat", "belt {n} is hot"))
        .unwrap();
    let pid = collector.child.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    // The signal takes effect when it does: lines are sent until one falls under the new rules.
    let mut n = 100;
    wait_for("the changed rule", || {
        n += 1;
        logger(&to, &format!("stop {n}"));
        let list = up.api("/alarms?limit=1000");
        let mut all = list["items"].as_array()?.iter();
        all.find(|a| a["text"].as_str().is_some_and(|t| t.ends_with(" halted"))).map(|_| ())
    });
    logger(&to, "heat 9");
    up.alarm("the alarm of the new rule", |a| a["text"] == "belt 9 is hot");
    assert_eq!(collector.child.id().to_string(), pid, "the same process");
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn packages(root: &Path, names: &[&str]) {
    let paragraph = |name: &&str| {
        format!(
            "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n"
        )
    };
    put(root, "var/lib/dpkg/status", &names.iter().map(paragraph).collect::<String>());
}

/// The documents about packages that the API has, oldest first.
fn told_of_packages(up: &Up) -> Vec<Value> {
    let list = up.api("/messages?class=data&subclass=inventory/packages&limit=100");
    let mut documents: Vec<(u64, Value)> = Vec::new();
    for item in list["items"].as_array().unwrap() {
        let id = item["message_id"].as_str().unwrap().replace('/', ".");
        let document = up.api(&format!("/messages/{id}/data"));
        documents.push((item["seq"].as_u64().unwrap(), document));
    }
    documents.sort_by_key(|(seq, _)| *seq);
    documents.into_iter().map(|(_, document)| document).collect()
}

// ARC-5: a component that is new appears unprompted; the host is altered: a change record appears.
#[test]
fn altered_host_leaves_a_change_record_in_the_api() {
    let up = Up::start(&QUIET);
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "etc/hostname", "web1\n");
    put(root.path(), "etc/os-release", "ID=debian\n");
    packages(root.path(), &["bash", "dpkg"]);
    let socket = up.data().join("proxy/integrator.sock").display().to_string();
    let spill = up.data().join("spill").display().to_string();
    let root_text = root.path().display().to_string();
    let _integrator = Process::start(&[
        "integrator",
        "inventory",
        "--socket",
        &socket,
        "--spill",
        &spill,
        "--root",
        &root_text,
        "--every-s",
        "1",
    ]);
    let first = wait_for("the inventory", || told_of_packages(&up).pop());
    assert_eq!(first["kind"], "full");
    wait_for("the new instance", || {
        let list = up.api("/instances?limit=10");
        let mut all = list["items"].as_array()?.iter();
        all.find(|i| i["integrator"] == "inventory").map(|_| ())
    });
    packages(root.path(), &["bash", "curl"]);
    let all = wait_for("the change", || {
        let all = told_of_packages(&up);
        (all.len() == 2).then_some(all)
    });
    assert_eq!(all[1]["kind"], "changes");
    assert_eq!(all[1]["added"]["curl:amd64"]["version"], "1");
    assert_eq!(all[1]["removed"].as_object().unwrap().len(), 1, "{}", all[1]);
}

/// Local addresses, in hexadecimal, of the sockets of a process that take something from a network.
fn listening(pid: u32) -> Vec<String> {
    let mut inodes = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default().display().to_string();
        if let Some(inode) = target.strip_prefix("socket:[") {
            inodes.push(inode.trim_end_matches(']').to_owned());
        }
    }
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        let rows = text.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
        let own = rows.filter(|row| row.len() > 9 && inodes.iter().any(|i| i == row[9]));
        // 0A: a TCP socket that listens; 07: a UDP socket that is not connected.
        let open = own.filter(|row| matches!(row[3], "0A" | "07"));
        found.extend(open.map(|row| row[1].to_owned()));
    }
    found
}

// IPC-4: a remote agent's trap comes in by its integrator; the proxy itself can only be reached
// from this host: a Unix socket, and the operator's door on loopback.
#[test]
fn remote_agents_reach_the_integrator_and_nobody_reaches_the_proxy() {
    let chain = Chain::start("");
    let pid = chain.nodes[0].process.as_ref().unwrap().child.id();
    let url = std::fs::read_to_string(chain.nodes[0].folder.join("operator.url")).unwrap();
    let port: u16 = url.trim().rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(listening(pid), [format!("0100007F:{port:04X}")]);
    let mut mine = callhome::config::own_addresses();
    mine.retain(|address| matches!(address, IpAddr::V4(v4) if !v4.is_loopback()));
    let Some(address) = mine.first() else {
        println!("skipped: the trap over a network: this host has no address but loopback");
        return;
    };
    assert!(TcpStream::connect((*address, port)).is_err(), "the door answers on {address}");
    let socket = chain.socket().display().to_string();
    let spill = chain.nodes[0].folder.join("spill").display().to_string();
    let integrator = Process::start(&[
        "integrator",
        "snmp",
        "--socket",
        &socket,
        "--spill",
        &spill,
        "--listen",
        "0.0.0.0:0",
    ]);
    let port = integrator.word("udp").rsplit(':').next().unwrap().to_owned();
    let mut trap = Command::new("snmptrap");
    trap.env("MIBS", "").args(["-v", "2c", "-c", "public", &format!("{address}:{port}")]);
    trap.args(["", "1.3.6.1.6.3.1.1.5.3", "1.3.6.1.2.1.2.2.1.1.4", "i", "4"]);
    let output = trap.output().expect("snmptrap runs: apt-get install snmp");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let alarm = wait_for("the trap's alarm", || {
        let list = chain.api("/alarms?limit=10");
        list["items"].as_array()?.iter().find(|a| a["integrator"] == "snmp").cloned()
    });
    // Which of its addresses the sender takes is the kernel's choice.
    let from: IpAddr = alarm["instance"].as_str().unwrap().parse().unwrap();
    assert!(mine.contains(&from), "{alarm}");
    assert_eq!(alarm["type"], "1.3.6.1.6.3.1.1.5.3");
}
