//! Syslog lines by others and by real programs: decoded, or refused, as their sources say.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use integrators::rules::Facts as _;
use integrators::syslog::framing::{Framer, FramingError};
use integrators::syslog::message::{Form, Message, Received};
use integrators::syslog::parse::{Clock, parse};
use jiff::tz::TimeZone;

/// The folder of fixtures by others; none (said aloud) where they are not there.
fn fixtures(below: &str, cases: usize) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures");
    let folder =
        std::env::var_os("CALLHOME_FIXTURES").map_or_else(|| default.into(), PathBuf::from);
    let found = folder.join("syslog").join(below);
    if !found.is_dir() {
        eprintln!("{cases} cases left out: no {}; set CALLHOME_FIXTURES", found.display());
        return None;
    }
    Some(found)
}

fn captured(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/syslog/captured/");
    std::fs::read(format!("{folder}{name}")).unwrap()
}

fn read(line: &[u8]) -> Message {
    let now = "2026-11-23T00:00:00Z".parse().unwrap();
    parse(line, &Clock { now, zone: TimeZone::UTC })
}

/// The messages of a stream, and how it ended.
fn stream(bytes: &[u8]) -> (Vec<Message>, Option<FramingError>) {
    let (mut framer, mut messages) = (Framer::default(), Vec::new());
    framer.push(bytes);
    loop {
        match framer.next_frame() {
            Ok(Some(frame)) => messages.push(read(&frame.bytes)),
            Ok(None) => break,
            Err(error) => return (messages, Some(error)),
        }
    }
    match framer.finish() {
        Ok(last) => (messages.into_iter().chain(last.map(|f| read(&f.bytes))).collect(), None),
        Err(error) => (messages, Some(error)),
    }
}

/// A value as rules see it; `-` where there is none.
fn value(message: &Message, name: &str) -> String {
    let received = Received { message: message.clone(), source: None };
    received.value(name).map_or_else(|| "-".into(), std::borrow::Cow::into_owned)
}

#[test]
fn what_logger_and_rsyslog_sent_is_read_in_all_its_shapes() {
    let counted = stream(&captured("logger-tcp-rfc5424-octet.bin"));
    assert_eq!((counted.0.len(), counted.1), (3, None));
    assert_eq!(value(&counted.0[1], "text"), "second line – utf8 ünï");
    assert_eq!(value(&counted.0[1], "sd.timeQuality.isSynced"), "0");
    for name in ["logger-tcp-rfc5424-lf.bin", "logger-tcp-rfc3164-lf.bin"] {
        let (messages, error) = stream(&captured(name));
        assert_eq!((messages.len(), error), (2, None), "{name}");
        assert_eq!(value(&messages[0], "host"), "vm", "{name}");
    }

    let disk = read(&captured("logger-udp-rfc5424.bin"));
    assert_eq!(disk.form, Form::Rfc5424(1));
    assert_eq!(value(&disk, "msgid"), "DISKFAIL");
    assert_eq!(value(&disk, "sd.disk@32473.esc"), r#"a]b"c\d"#);
    assert_eq!(value(&disk, "severity"), "err");
    let kernel = read(&captured("logger-udp-rfc3164.bin"));
    assert_eq!((value(&kernel, "app"), value(&kernel, "host")), ("kernel".into(), "vm".into()));
    let nil = read(&captured("logger-udp-rfc5424-notime-nohost.bin"));
    assert_eq!((nil.occurred_at_ms, value(&nil, "host")), (None, "-".into()));
    assert_eq!((value(&nil, "app"), value(&nil, "text")), ("t".into(), "nil everything".into()));

    let (relayed, error) = stream(&captured("rsyslog-omfwd-tls-octet-counted-decrypted.bin"));
    assert_eq!((relayed.len(), error), (2, None));
    assert_eq!(value(&relayed[0], "text"), "SEL: Power Supply 2 lost AC");
    assert_eq!(value(&relayed[1], "sd.md@32473.dev"), "md0");
    let (plain, error) = stream(&captured("rsyslog-omfwd-tcp-traditional-lf.bin"));
    assert_eq!((plain.len(), error), (3, None));
    assert_eq!((value(&plain[1], "app"), value(&plain[1], "host")), ("mdadm".into(), "vm".into()));
    assert_eq!(value(&plain[2], "text"), "su root failed for lonvick on /dev/pts/8");
    for (number, app) in [(1, "ipmid"), (2, "mdadm"), (3, "su")] {
        let message = read(&captured(&format!("rsyslog-omfwd-udp-rfc5424-{number}.bin")));
        assert_eq!((message.form, value(&message, "app")), (Form::Rfc5424(1), app.into()));
    }
}

/// One line of InfluxDB line protocol: tags and fields by name, text without its quotes.
fn influx(line: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let (mut name, mut value) = (String::new(), String::new());
    let (mut in_value, mut quoted, mut part) = (false, false, 0);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let escaped = characters.next().unwrap_or('\\');
                let escaped = if quoted && escaped == 'n' { '\n' } else { escaped };
                if in_value { &mut value } else { &mut name }.push(escaped);
            }
            '"' => quoted = !quoted,
            '=' if !quoted && !in_value => in_value = true,
            ',' | ' ' if !quoted => {
                if in_value {
                    fields.insert(std::mem::take(&mut name), std::mem::take(&mut value));
                }
                (in_value, part) = (false, part + usize::from(character == ' '));
                name.clear();
            }
            other => if in_value { &mut value } else { &mut name }.push(other),
        }
        if part == 2 {
            break;
        }
    }
    fields
}

/// Compares what telegraf made of a line with what we do.
fn same_as_telegraf(message: &Message, expected: &BTreeMap<String, String>, case: &str) {
    let number = |name: &str| expected[name].trim_end_matches(['i', 'u']).parse::<i64>().unwrap();
    for (theirs, ours) in [
        ("facility", "facility"),
        ("severity", "severity"),
        ("hostname", "host"),
        ("appname", "app"),
        ("procid", "pid"),
        ("msgid", "msgid"),
        ("message", "text"),
    ] {
        let wanted = expected.get(theirs).map_or("-", String::as_str);
        assert_eq!(value(message, ours), wanted, "{case}: {theirs}");
    }
    assert_eq!(i64::from(message.facility), number("facility_code"), "{case}");
    assert_eq!(i64::from(message.severity), number("severity_code"), "{case}");
    if expected.contains_key("version") {
        let version = u16::try_from(number("version")).unwrap();
        assert_eq!(message.form, Form::Rfc5424(version), "{case}");
    }
    let time = expected.contains_key("timestamp").then(|| number("timestamp") / 1_000_000);
    assert_eq!(message.occurred_at_ms, time, "{case}");
    for element in &message.structured {
        for (name, value) in &element.parameters {
            assert_eq!(expected.get(&format!("{}_{name}", element.id)), Some(value), "{case}");
        }
    }
}

#[test]
fn telegrafs_cases_are_decoded_alike_and_framing_errors_refused_where_telegraf_does() {
    let Some(folder) = fixtures("telegraf", 22) else { return };
    let mut cases = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, case) = {
            let entry = entry.unwrap();
            (entry.path(), entry.file_name().into_string().unwrap())
        };
        let input = std::fs::read(path.join("input.txt")).unwrap();
        let (messages, error) =
            if case.contains("udp") { (vec![read(&input)], None) } else { stream(&input) };
        cases += 1;
        let Ok(expected) = std::fs::read_to_string(path.join("expected.out")) else {
            refused_or_text(&case, &messages, error);
            continue;
        };
        assert_eq!(error, None, "{case}");
        let expected: Vec<&str> = expected.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(messages.len(), expected.len(), "{case}");
        for (message, line) in messages.iter().zip(expected) {
            same_as_telegraf(message, &influx(line), &case);
        }
    }
    assert_eq!(cases, 22);
}

/// What telegraf refuses: a framing error is one here too; a line that breaks RFC 5424 is taken as
/// text, with the priority it has.
fn refused_or_text(case: &str, messages: &[Message], error: Option<FramingError>) {
    match case {
        "octet_counting_strict_tcp_1st_underflow_nok" => {
            assert_eq!((messages.len(), error), (0, Some(FramingError::Incomplete)));
        }
        // The count cuts the first line short; what follows is no count.
        "octet_counting_strict_tcp_1st_underflow_malfunction" => {
            assert_eq!((messages.len(), error), (1, Some(FramingError::NoCount)));
        }
        "rfc5424_strict_toolong_appname" => {
            assert_eq!((messages[0].form, messages[0].severity), (Form::Rfc3164, 3));
            assert!(value(&messages[0], "text").ends_with("/dev/pts/8"));
        }
        "rfc5424_strict_udp_min_incomplete" => {
            assert_eq!((messages[0].form, messages[0].severity), (Form::Rfc3164, 1));
            assert_eq!(value(&messages[0], "text"), "2");
        }
        other => panic!("{other} is refused by telegraf and not known here"),
    }
}

#[test]
fn lines_of_nineteen_vendors_give_time_priority_and_text() {
    let Some(folder) = fixtures("sc4s", 19) else { return };
    let (mut files, mut lines, mut hosts) = (0, 0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        files += 1;
        for line in std::fs::read(&path).unwrap().split(|byte| *byte == b'\n') {
            // Some lines are a priority and no more.
            if line.len() < 8 {
                continue;
            }
            lines += 1;
            let message = read(line);
            let shown = String::from_utf8_lossy(line);
            assert_ne!(message.form, Form::Text, "{shown}");
            let rest = shown.split_once('>').unwrap().1;
            let versioned = rest.starts_with("1 2026");
            assert_eq!(message.form == Form::Rfc5424(1), versioned, "{shown}");
            let timed = rest.contains("19:30:00") && !rest.starts_with('[');
            assert_eq!(message.occurred_at_ms.is_some(), timed, "{shown}");
            if timed {
                // One fixed time was filled in everywhere.
                assert_eq!(message.occurred_at_ms.unwrap() / 1000, 1_795_289_400, "{shown}");
            }
            let host = value(&message, "host");
            assert!(host == "-" || host.contains("host") || host == "192.168.12.1", "{shown}");
            hosts += usize::from(host != "-");
        }
    }
    assert_eq!(files, 19);
    assert!(lines > 70 && hosts * 10 > lines * 8, "{hosts} hosts in {lines} lines");
}

/// Payloads of the packets of a capture by the client, for IPv4 over Ethernet or loopback.
fn payloads(capture: &[u8]) -> Vec<Vec<u8>> {
    let number = |at: usize| u32::from_le_bytes(capture[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!(number(0), 0xa1b2_c3d4, "a little-endian capture");
    let header = match number(20) {
        1 => 14,
        0 => 4,
        228 => 0,
        other => panic!("link type {other}"),
    };
    let (mut at, mut found) = (24, Vec::new());
    while at < capture.len() {
        let length = number(at + 8);
        let ip = &capture[at + 16 + header..at + 16 + length];
        at += 16 + length;
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let (ip, transport) = (&ip[..total], usize::from(ip[0] & 15) * 4);
        let start =
            transport + if ip[9] == 17 { 8 } else { usize::from(ip[transport + 12] >> 4) * 4 };
        let to = u16::from_be_bytes([ip[transport + 2], ip[transport + 3]]);
        if to < 1024 || to == 1514 {
            found.push(ip[start..].to_vec());
        }
    }
    found
}

#[test]
fn what_zeek_captured_is_read() {
    let Some(folder) = fixtures("zeek", 2) else { return };
    let datagrams = payloads(&std::fs::read(folder.join("syslog-single-udp.pcap")).unwrap());
    assert_eq!(datagrams.len(), 1);
    let message = read(&datagrams[0]);
    assert_eq!(datagrams[0].last(), Some(&0), "it ends with a NUL");
    assert!(message.form != Form::Text && !value(&message, "text").ends_with('\0'));
    let capture = std::fs::read(folder.join("tcp-syslog.pcap")).unwrap();
    let (messages, error) = stream(&payloads(&capture).concat());
    assert_eq!(error, None);
    assert!(!messages.is_empty());
    for message in messages {
        assert_ne!(message.form, Form::Text, "{message:?}");
    }
}
