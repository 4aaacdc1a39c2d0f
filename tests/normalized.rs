//! What leaves a proxy, heard on the wire: one form for everything, wherever it came from.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

use std::process::Command;

use protocol::{
    Message,
    message::{Channel, SourceType},
    service::Service,
};
use sandbox::{Process, callhome, chain::Chain, tap::Tap, text, wait_for};

const PROXY: usize = 0;

/// A rule that makes of a line what the shipped rules make of the trap linkDown.
const RULE: &str = "format = 1\nkind = \"syslog\"\n\n[[rule]]\nid = \"switch/down\"\n\
    match = { app = \"switch\", text = '^port (?P<port>\\d+) lost its link' }\n\
    becomes = \"alarm\"\ntype = \"1.3.6.1.6.3.1.1.5.3\"\nkey = \"{port}\"\n\
    severity = \"major\"\ntext = \"interface eth{port} is down\"\n";

/// A chain whose proxy is listened to, and the collectors of two platforms below it.
struct Site {
    chain: Chain,
    tap: Tap,
    snmp: Process,
    syslog: Process,
    _rules: tempfile::TempDir,
}

impl Site {
    fn start() -> Self {
        let mut chain = Chain::start("");
        let tap = chain.tap(PROXY);
        let rules = tempfile::tempdir().unwrap();
        std::fs::write(rules.path().join("switch.toml"), RULE).unwrap();
        let (socket, folder) = (chain.socket().display().to_string(), rules.path().display());
        let collector = |kind: &str, listen: &str, rules: &[&str]| {
            let spill = format!("{folder}/spill-{kind}");
            let own = ["integrator", kind, "--socket", &socket, "--spill", &spill, listen];
            Process::start(&[&own[..], &["127.0.0.1:0"], rules].concat())
        };
        let snmp = collector("snmp", "--listen", &[]);
        let file = format!("{folder}/switch.toml");
        let syslog = collector("syslog", "--listen-udp", &["--rules", &file]);
        Self { chain, tap, snmp, syslog, _rules: rules }
    }

    fn trap(&self) {
        let mut command = Command::new("snmptrap");
        let link_down = ["", "1.3.6.1.6.3.1.1.5.3", "1.3.6.1.2.1.2.2.1.1.7", "i", "7"];
        command.env("MIBS", "").args(["-v", "2c", "-c", "public", &self.snmp.word("udp")]);
        let name = ["1.3.6.1.2.1.2.2.1.2.7", "s", "eth7"];
        let output = command.args(link_down).args(name).output().expect("snmptrap runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    fn line(&self) {
        let to = self.syslog.word("udp");
        let (host, port) = to.rsplit_once(':').unwrap();
        let mut command = Command::new("logger");
        command.args(["-n", host, "-P", port, "-d", "-t", "switch", "port 7 lost its link"]);
        let output = command.output().expect("logger runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    fn send(&self, what: &str, rest: &[&str]) {
        let socket = self.chain.socket().display().to_string();
        let own = ["send", what, "--socket", &socket, "--wait", "20", "--instance", "press-1"];
        let output = callhome(&[&own[..], rest].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// What the proxy sent of a class, when there are so many.
    fn sent(&self, class: &str, count: usize) -> Vec<Message> {
        wait_for(class, || {
            let mut messages = self.tap.messages();
            messages.retain(|message| message.header.class == class);
            (messages.len() >= count).then_some(messages)
        })
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn alarm_of<'m>(messages: &'m [Message], integrator: &str) -> &'m Message {
    let found = messages.iter().find(|m| m.infrastructure.integrator == integrator);
    found.unwrap_or_else(|| panic!("an alarm of {integrator}"))
}

// DAT-5: the same alarm by two platforms has the same infrastructure block but for who it is.
// DAT-7, DAT-10: severity, state and instance are filled, and the module that keeps alarms has
// them alike, wherever they come from. DAT-9: no encoding of a platform leaves the proxy.
#[test]
fn the_same_alarm_of_two_platforms_is_the_same_message() {
    let site = Site::start();
    site.trap();
    site.line();
    let alarms = site.sent("alarm", 2);
    let (trap, line) = (alarm_of(&alarms, "snmp"), alarm_of(&alarms, "syslog"));
    let mut there = trap.infrastructure.clone();
    let here = &line.infrastructure;
    there.integrator.clone_from(&here.integrator);
    there.integrator_version.clone_from(&here.integrator_version);
    (there.instance, there.external_id) = (here.instance, here.external_id.clone());
    assert_eq!(there, *here);
    let (Service::Alarm(trapped), Service::Alarm(logged)) = (&trap.service, &line.service) else {
        panic!("{trap:?} {line:?}");
    };
    let common = |alarm: &protocol::service::Alarm| {
        (alarm.kind.clone(), alarm.key.clone(), alarm.severity, alarm.state, alarm.text.clone())
    };
    assert_eq!(common(trapped), common(logged));
    // What the platform said stands in the payload, and there alone.
    let community = b"public";
    for message in &alarms {
        let mut bare = message.clone();
        if let Service::Alarm(alarm) = &mut bare.service {
            alarm.payload.data = bytes::Bytes::new();
        }
        let bytes = bare.encode().0;
        assert!(!bytes.windows(community.len()).any(|part| part == community), "{bare:?}");
        assert!(!bytes.windows(4).any(|part| part == b"<13>"), "{bare:?}");
    }
    let kept = wait_for("both at the server", || {
        let list = site.chain.api("/alarms")["items"].as_array()?.clone();
        (list.len() == 2).then_some(list)
    });
    for alarm in &kept {
        let is = |key: &str, word: &str| assert_eq!(alarm[key], word, "{alarm}");
        is("severity", "major");
        is("state", "opened");
        is("type", "1.3.6.1.6.3.1.1.5.3");
        is("key", "7");
        assert!(alarm["instance_id"].as_str().is_some_and(|id| !id.is_empty()), "{alarm}");
    }
}

// DAT-1, DAT-2: whatever class, on the wire each begins with the one header: who numbered it and
// whom it is about, how to route it, its times, and the kind of source. A heartbeat is no message;
// it names its node and times beside them.
#[test]
fn every_class_on_the_wire_has_the_one_header() {
    let site = Site::start();
    let began = now();
    site.send("alarm", &["--type", "hot", "--severity", "major", "--text", "too hot"]);
    site.send("event", &["--type", "door", "--severity", "information", "--text", "door opened"]);
    let file = site.chain.nodes[PROXY].folder.join("report");
    std::fs::write(&file, "a report").unwrap();
    let file = file.display().to_string();
    site.send("data", &["--class", "report", "--subclass", "daily", "--data", &file]);
    for class in ["registration", "alarm", "event", "data"] {
        for message in site.sent(class, 1) {
            let header = &message.header;
            assert_eq!(header.class, class);
            assert!(header.source.is_under(&header.id.origin), "{header:?}");
            assert_eq!((header.channel, header.destination.is_some()), (Channel::Forward, false));
            assert!(header.accepted_at <= now() && header.occurred_at <= now(), "{header:?}");
            let of_platform = class != "registration";
            assert!(!of_platform || header.occurred_at >= began, "{header:?}");
            let kind = if of_platform { SourceType::Instance } else { header.source_type };
            assert_eq!(header.source_type, kind, "{header:?}");
        }
    }
    let beats = wait_for("a heartbeat", || Some(site.tap.heartbeats()).filter(|b| !b.is_empty()));
    assert!(beats.iter().all(|beat| beat.node.to_string().starts_with(&site.chain.customer)));
}

/// Local TCP ports that a process listens at, by the kernel's own tables.
fn listening(pid: u32) -> Vec<u16> {
    let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|fd| {
            std::fs::read_link(fd.ok()?.path()).ok()?.into_os_string().into_string().ok()
        })
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    let tables =
        ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")));
    let tables: String = tables.into_iter().flatten().collect();
    let mut ports = Vec::new();
    for row in tables.lines() {
        let words: Vec<&str> = row.split_whitespace().collect();
        let [_, local, _, "0A", _, _, _, _, _, inode, ..] = words[..] else { continue };
        if inodes.iter().any(|own| own == inode) {
            let port = local.rsplit_once(':').unwrap().1;
            ports.push(u16::from_str_radix(port, 16).unwrap());
        }
    }
    ports
}

// IPC-2: integrators come in by a socket of this host that others may not open; at a proxy no port
// listens but the operator's door.
#[test]
fn nothing_of_the_integrators_socket_is_on_the_network() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let chain = Chain::start("");
    let proxy = &chain.nodes[PROXY];
    let operator = std::fs::read_to_string(proxy.folder.join("operator.url")).unwrap();
    let operator: u16 = operator.trim().rsplit_once(':').unwrap().1.parse().unwrap();
    let pid = proxy.process.as_ref().unwrap().child.id();
    assert_eq!(listening(pid), [operator]);
    let socket = std::fs::metadata(chain.socket()).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
}
