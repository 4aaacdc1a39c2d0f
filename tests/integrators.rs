//! Integrators as processes: what they count is at the operator's door, HUP reaches them, and one
//! that runs once says truly whether all was taken.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use protocol::socket::{Frame, Frames, Hello, Map};
use sandbox::{CALLHOME, LONG, Process, Up, chain::Chain, get, text, wait_for, wait_within};

/// The value of a series: a metric's name without its prefix, and all its labels in order.
fn value(metrics: &str, series: &str) -> Option<u64> {
    let line = metrics.lines().find_map(|line| {
        let (found, value) = line.strip_prefix("callhome_integrator_")?.rsplit_once(' ')?;
        (found == series).then_some(value)
    });
    line.map(|value| value.parse().unwrap())
}

fn snmptrap(to: &str, interface: u32) {
    let mut command = Command::new("snmptrap");
    command.env("MIBS", "").args(["-v", "2c", "-c", "public", to, "", "1.3.6.1.6.3.1.1.5.3"]);
    command.args(["1.3.6.1.2.1.2.2.1.1.7", "i", &interface.to_string()]);
    let output = command.output().expect("snmptrap runs: apt-get install snmp");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn logger(to: &str, line: &str) {
    let (host, port) = to.rsplit_once(':').unwrap();
    let mut command = Command::new("logger");
    command.args(["-n", host, "-P", port, "-d", "-t", "belt", line]);
    let output = command.output().expect("logger runs: apt-get install bsdutils");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Processes that `parent` started and whose command line names `word`.
fn children(parent: u32, word: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |pid: &u32| {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let (status, line) = (text(&read("status")), text(&read("cmdline")));
        status.lines().any(|l| l == format!("PPid:\t{parent}"))
            && line.split('\0').any(|w| w == word)
    };
    pids.filter(is_child).collect()
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

// What comes and what is garbage, of real senders, is at the operator's door; an integrator that
// is started again begins at 0, as a counter does.
#[test]
fn what_integrators_count_is_at_the_operators_door_of_up() {
    // One port for datagrams and connections.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let up = Up::start(&["--no-inventory", "--syslog", &free]);
    let (snmp, syslog) = (up.process.word("snmp"), up.process.word("syslog"));
    (1..=3).for_each(|interface| snmptrap(&snmp, interface));
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for garbage in [&b"nonsense"[..], b"nonsense", &[0x30, 0x30, 2, 1, 1]] {
        sender.send_to(garbage, &snmp).unwrap();
    }
    (1..=4).for_each(|n| logger(&syslog, &format!("line {n}")));
    let mut stream = TcpStream::connect(&syslog).unwrap();
    stream.write_all(b"99999999 <13>too long").unwrap();
    drop(stream);
    let snmp_is = |name: &str| format!("{name}{{node=\"proxy\",integrator=\"snmp\"}}");
    let syslog_is = |name: &str| format!("{name}{{node=\"proxy\",integrator=\"syslog\"}}");
    let malformed = |integrator: &str, reason: &str| {
        let labels = format!("node=\"proxy\",integrator=\"{integrator}\",reason=\"{reason}\"");
        format!("malformed_total{{{labels}}}")
    };
    let expected = [
        (snmp_is("received_total"), 3),
        (snmp_is("ignored_total"), 0),
        (snmp_is("dropped_total"), 0),
        (snmp_is("spill_bytes"), 0),
        (snmp_is("reports_refused_total"), 0),
        (malformed("snmp", "not_snmp"), 2),
        (malformed("snmp", "truncated"), 1),
        (syslog_is("received_total"), 4),
        (syslog_is("rule_gaps_total"), 0),
        (malformed("syslog", "count_too_large"), 1),
    ];
    let metrics = || get(&up.operator(), "/metrics", "").1;
    wait_for("the counters", || {
        let metrics = metrics();
        let right = |(series, count): &(String, u64)| value(&metrics, series) == Some(*count);
        expected.iter().all(right).then_some(())
    });
    let metrics_now = metrics();
    for name in ["received_total counter", "malformed_total counter", "spill_bytes gauge"] {
        let head = format!("# TYPE callhome_integrator_{name}\n");
        assert_eq!(metrics_now.matches(&head).count(), 1, "{metrics_now}");
    }
    let pid = children(up.process.child.id(), "snmp")[0];
    signal("-KILL", pid);
    wait_for("the counter's reset", || {
        (value(&metrics(), &snmp_is("received_total")) == Some(0)).then_some(())
    });
    assert_eq!(value(&metrics(), &syslog_is("received_total")), Some(4));
}

/// An integrator of bytes: says hello by that name.
struct Raw(UnixStream, Frames);

impl Raw {
    fn hello(socket: &Path, name: &str) -> Self {
        let hello = Hello {
            protocols: vec![1],
            name: name.into(),
            version: "1".into(),
            callbacks: Vec::new(),
            stream: None,
        };
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut raw = Self(stream, Frames::new());
        raw.ask(&Frame::request(1, "hello", hello.map()));
        raw
    }

    fn say(&mut self, frame: &[u8]) {
        self.0.write_all(frame).unwrap();
    }

    /// Sends a request and waits for an answer that is no error.
    fn ask(&mut self, frame: &[u8]) {
        self.say(frame);
        let mut bytes = [0; 4096];
        loop {
            match self.1.next_frame().unwrap() {
                Some(Frame::Answer { result, .. }) => {
                    assert!(result.is_ok(), "{result:?}");
                    return;
                }
                Some(_) => {}
                None => {
                    let count = self.0.read(&mut bytes).unwrap();
                    assert!(count > 0, "the proxy hung up");
                    self.1.buffer().extend_from_slice(&bytes[..count]);
                }
            }
        }
    }
}

fn collector(socket: &Path, spill: &Path, name: &str) -> Process {
    let (socket, spill) = (socket.display().to_string(), spill.display().to_string());
    let more = ["--spill", &spill, "--name", name, "--listen-udp", "127.0.0.1:0"];
    let mut all = vec!["integrator", "syslog", "--socket", &socket];
    all.extend(more);
    Process::start(&all)
}

// The last report comes with the end, and stays; reports that are none are refused and counted,
// and cost their sender nothing else.
#[test]
fn the_last_count_of_an_integrator_stays_at_its_node_and_bad_reports_harm_nothing() {
    let chain = Chain::start("");
    let spill = chain.nodes[0].folder.join("spill");
    let belt = collector(&chain.socket(), &spill, "belt");
    let to = belt.word("udp");
    (1..=3).for_each(|n| logger(&to, &format!("line {n}")));
    wait_for("the lines", || {
        let list = chain.api("/messages?limit=100");
        (list["items"].as_array()?.iter().filter(|m| m["integrator"] == "belt").count() >= 3)
            .then_some(())
    });
    assert_eq!(belt.stop(), Some(0));
    let series =
        |name: &str, labels: &str| format!("{name}{{node=\"proxy\",integrator=\"{labels}\"}}");
    let received =
        |name: &str| value(&chain.operator(0, "/metrics"), &series("received_total", name));
    assert_eq!(received("belt"), Some(3));

    let mut odd = Raw::hello(&chain.socket(), "odd \"1\"\\");
    let report = |map: Map| Frame::notice("counters", map);
    odd.say(&report(Map::new().uint("received", 5)));
    odd.say(&report(Map::new().int("received", -1)));
    odd.say(&report(Map::new().map("malformed", Map::new().uint("a\"} 1\nb{c=\"", 1))));
    odd.say(&Frame::notice("mood", Map::new()));
    let instance = |n: u32| Frame::request(n, "instance", Map::new().text("instance", "press-1"));
    wait_for("the refused reports", || {
        odd.ask(&instance(7));
        let refused = series("reports_refused_total", "odd \\\"1\\\"\\\\");
        (value(&chain.operator(0, "/metrics"), &refused) == Some(2)).then_some(())
    });
    assert_eq!(received("odd \\\"1\\\"\\\\"), Some(5));
    assert_eq!(received("belt"), Some(3), "others keep what they told");
}

// CONTRACT §2: HUP reads rules again, in the integrators that a node started, and ends none.
#[test]
fn hup_of_a_node_reaches_the_integrators_it_started() {
    let rules = tempfile::tempdir().unwrap();
    let rule = |said: &str| {
        let text = format!(
            "format = 1\nkind = \"syslog\"\n\n[[rule]]\nid = \"belt/stop\"\n\
            match = {{ app = \"belt\", text = '^stop (?P<n>\\d+)' }}\nbecomes = \"alarm\"\n\
            key = \"{{n}}\"\nseverity = \"minor\"\ntext = \"{said}\"\n"
        );
        std::fs::write(rules.path().join("10-belt.toml"), text).unwrap();
    };
    rule("belt {n} stands");
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = free.local_addr().unwrap().to_string();
    drop(free);
    let root = tempfile::tempdir().unwrap();
    let chain = Chain::start(&format!(
        "<integrators><integrator name=\"belts\" kind=\"syslog\">\
        <option name=\"listen-udp\" value=\"{to}\"/><option name=\"rules\" value=\"{}\"/>\
        </integrator><integrator name=\"host\" kind=\"inventory\">\
        <option name=\"root\" value=\"{}\"/></integrator></integrators>",
        rules.path().display(),
        root.path().display()
    ));
    let node = chain.nodes[0].process.as_ref().unwrap().child.id();
    let mut n = 0;
    let mut said = |wanted: &str| {
        wait_for(wanted, || {
            n += 1;
            logger(&to, &format!("stop {n}"));
            let list = chain.api("/alarms?limit=1000");
            let mut all = list["items"].as_array()?.iter();
            all.find(|a| a["text"].as_str().is_some_and(|t| t.ends_with(wanted))).map(|_| ())
        });
    };
    said(" stands");
    let started = || (children(node, "belts"), children(node, "host"));
    let before = started();
    assert_eq!((before.0.len(), before.1.len()), (1, 1));
    rule("belt {n} halted");
    signal("-HUP", node);
    said(" halted");
    // One that is broken changes nothing, and one that is mended counts again.
    rule("belt {n} is {nowhere}");
    signal("-HUP", node);
    rule("belt {n} rests");
    signal("-HUP", node);
    said(" rests");
    assert_eq!(started(), before, "the same processes");
}

/// Looks once, with `more` flags; its standard error is read line by line.
fn once(chain: &Chain, root: &Path, name: &str) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut command = Command::new(CALLHOME);
    command.args(["integrator", "inventory", "--once", "--name", name, "--log", "off"]);
    command.arg("--socket").arg(chain.socket()).arg("--root").arg(root);
    command.arg("--spill").arg(chain.nodes[0].folder.join("spill"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let stderr = BufReader::new(child.stderr.take().unwrap());
    (child, stderr)
}

fn host(root: &Path) {
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/hostname"), "web1\n").unwrap();
    std::fs::create_dir_all(root.join("var/lib/dpkg")).unwrap();
    let package = "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n";
    std::fs::write(root.join("var/lib/dpkg/status"), package).unwrap();
}

/// How often the packages were told by that integrator.
fn told(chain: &Chain, name: &str) -> usize {
    let list = chain.api("/messages?class=data&subclass=inventory/packages&limit=100");
    list["items"].as_array().unwrap().iter().filter(|m| m["integrator"] == name).count()
}

// With everything in the spill, `--once` does not claim that it was taken: it says what it waits
// for, goes on when the proxy does, and ends with 75 where it may not wait any longer.
#[test]
fn once_ends_when_the_proxy_has_taken_all_and_with_75_where_it_has_not() {
    let mut chain = Chain::start("");
    let root = tempfile::tempdir().unwrap();
    host(root.path());
    wait_for("the chain", || {
        let nodes = chain.api("/nodes?limit=10");
        (nodes["items"].as_array()?.len() == 4).then_some(())
    });
    // The proxy is there, but cannot register an integrator that nobody knows.
    chain.stop(1);
    let (mut child, mut said) = once(&chain, root.path(), "first");
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("callhome: waiting until the proxy at "), "{line}");
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    chain.run(1);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    wait_for("the inventory", || (told(&chain, "first") == 1).then_some(()));

    chain.stop(0);
    let (mut child, mut said) = once(&chain, root.path(), "second");
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    // What was found is in the spill by now, or soon.
    wait_for("the spill", || {
        let all = std::fs::read_dir(chain.nodes[0].folder.join("spill")).ok()?.flatten();
        let mut names = all.filter_map(|e| e.file_name().into_string().ok());
        names.any(|n| n.starts_with("second.") && n.ends_with(".spill")).then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    signal("-TERM", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("callhome: error: the proxy has not taken all"), "{rest}");
    assert!(rest.contains("go at the next start"), "{rest}");
    chain.run(0);
    let (mut child, _said) = once(&chain, root.path(), "second");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    wait_for("what was kept", || (told(&chain, "second") == 1).then_some(()));
}

// An integrator that came or went is told of at once, not with the next heartbeat: `send`, which is
// gone after one message, stood as `registering` for up to half a minute.
#[test]
fn integrators_that_came_and_went_are_shown_so_within_seconds() {
    let up = Up::start(&["--no-inventory"]);
    let data = up.data_text();
    let one = ["--instance", "a", "--type", "t", "--severity", "minor", "--text", "x"];
    let mut all = vec!["--data", &data, "send", "event"];
    all.extend(one);
    let output = sandbox::callhome(&all);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let sent_at = Instant::now();
    wait_for("the states", || {
        let list = up.api("/integrators?limit=10");
        let items = list["items"].as_array()?;
        let is = |name: &str, state: &str| {
            items.iter().any(|i| i["integrator"] == name && i["state"] == state)
        };
        (is("send", "away") && is("snmp", "connected") && is("syslog", "connected")).then_some(())
    });
    assert!(sent_at.elapsed() < Duration::from_secs(20), "{:?}", sent_at.elapsed());
    let nodes = up.api("/nodes?limit=10");
    for node in nodes["items"].as_array().unwrap() {
        assert_eq!(node["state"], "operational", "{node}");
    }
}

/// The complaints in a log of JSON lines: how many were logged for themselves, how many more those
/// lines tell of, and what the lines about the rest of a burst said.
fn complaints(log: &str, field: &str) -> (u64, u64, Vec<String>) {
    let (mut single, mut more, mut rests) = (0, 0, Vec::new());
    for line in log.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok()) {
        if line["message"].as_str().is_some_and(|m| m.ends_with("passed over in the log")) {
            more += line["also"].as_u64().unwrap();
            rests.push(line["reasons"].as_str().unwrap().to_owned());
        } else if let Some(also) = line[field].as_u64() {
            single += 1;
            more += also;
        }
    }
    (single, more, rests)
}

// Malformed input is logged at most once a second, and the rest of a burst is told though nothing
// bad ever comes again, within two seconds.
#[test]
fn a_burst_of_bad_input_is_told_whole_with_its_reasons() {
    const BURST: u64 = 40;
    let chain = Chain::start("");
    let (socket, spill) = (chain.socket(), chain.nodes[0].folder.join("spill"));
    let words = |kind: &str, more: &[&str]| {
        let (socket, spill) = (socket.display().to_string(), spill.display().to_string());
        let mut all = vec!["integrator", kind, "--socket", &socket, "--spill", &spill];
        all.extend(more);
        Process::start(&all)
    };
    let snmp = words("snmp", &["--listen", "127.0.0.1:0"]);
    let syslog = words("syslog", &["--listen-tcp", "127.0.0.1:0"]);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..BURST {
        let bad: &[u8] = if n % 2 == 0 { b"nonsense" } else { &[0x30, 0x30, 2, 1, 1] };
        sender.send_to(bad, snmp.word("udp")).unwrap();
        let mut stream = TcpStream::connect(syslog.word("tcp")).unwrap();
        stream.write_all(b"99999999 <13>too long").unwrap();
    }
    // Three times what is promised.
    let within = Duration::from_secs(6);
    for (process, field, reasons) in
        [(&snmp, "also", &["not_snmp", "truncated"][..]), (&syslog, "quiet", &["count_too_large"])]
    {
        let rests = wait_within(within, "the rest of the burst", || {
            let (single, more, rests) = complaints(&process.log(), field);
            assert!(single + more <= BURST, "{}", process.log());
            (single + more == BURST).then_some(rests)
        });
        assert!(!rests.is_empty(), "{}", process.log());
        for reason in reasons {
            assert!(rests.iter().any(|rest| rest.contains(reason)), "{rests:?}");
        }
    }
}
