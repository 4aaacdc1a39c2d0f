//! Golden bytes: each type of `delivery.md` §12 as its file in `golden/` has it. They change only
//! with a version. `CALLHOME_GOLDEN=write` writes the files anew.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::{collections::BTreeSet, fmt::Write, fs, path::PathBuf, sync::Once};

use bytes::Bytes;
use protocol::{
    Header, Message,
    codec::Reader,
    exchange::{Answer, Exchange},
    heartbeat::Heartbeat,
    message::{Blocks, Channel, SourceType},
    run::Run,
    service::Service,
};

mod common;

const BYTES_A_LINE: usize = 32;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(BYTES_A_LINE) {
        for byte in line {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

/// Writes the files anew where that was asked for, once, before any test reads one.
fn write_if_asked() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os("CALLHOME_GOLDEN").is_some_and(|v| v == "write") {
            for (name, bytes) in common::all() {
                fs::write(folder().join(format!("{name}.hex")), hex(&bytes)).unwrap();
            }
        }
    });
}

fn golden(name: &str) -> Vec<u8> {
    write_if_asked();
    let path = folder().join(format!("{name}.hex"));
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|_| panic!("{} is missing: CALLHOME_GOLDEN=write", path.display()));
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

#[test]
fn every_type_is_written_as_its_golden_bytes() {
    let all = common::all();
    for (name, bytes) in &all {
        assert_eq!(hex(bytes), hex(&golden(name)), "{name}: its bytes changed without a version");
    }
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|f| f.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(files, all.into_iter().map(|(name, _)| name).collect(), "a file for each, no more");
}

#[test]
fn golden_bytes_are_read_as_what_they_were_made_of() {
    for (n, (name, service)) in common::services().into_iter().enumerate() {
        let bytes = golden(&format!("message-{name}"));
        assert_eq!(Message::decode(&bytes).unwrap(), common::message(service, 1 + n as u64));
    }
    assert_eq!(Message::decode(&golden("message-to-id")).unwrap(), common::full_header());
    let exchange = Bytes::from(golden("exchange"));
    assert_eq!(Exchange::decode(&exchange).unwrap(), common::exchange());
    let empty = Bytes::from(golden("exchange-empty"));
    assert_eq!(Exchange::decode(&empty).unwrap(), common::empty_exchange());
    assert_eq!(Answer::decode(&golden("answer").into()).unwrap(), common::answer());
    let asking = Answer::decode(&golden("answer-asking").into()).unwrap();
    assert_eq!(asking, common::asking_answer());
    let saying = golden("heartbeat-saying");
    let saying = Heartbeat::read(&mut Reader::new(&saying)).unwrap();
    assert_eq!(saying, common::saying_heartbeat());
    let unready = golden("heartbeat-unready");
    let unready = Heartbeat::read(&mut Reader::new(&unready)).unwrap();
    assert_eq!(unready, common::unready_heartbeat());
    let rejecting = golden("heartbeat-rejecting");
    let rejecting = Heartbeat::read(&mut Reader::new(&rejecting)).unwrap();
    assert_eq!(rejecting, common::rejecting_heartbeat());
    for (name, run) in [("run", common::run()), ("run-partial", common::partial_run())] {
        let bytes = Bytes::from(golden(name));
        assert_eq!(Run::read(&mut Reader::new(&bytes), &bytes).unwrap(), run);
    }
}

// DAT-1: every message starts with one and the same header block, whatever its class.
// DAT-2: it says where it comes from, how to route it, when, and what kind of source it is.
#[test]
fn every_class_has_the_same_header_and_it_says_whence_when_and_where_to() {
    for (name, service) in common::services() {
        let bytes = golden(&format!("message-{name}"));
        let header = Blocks::take(&mut Reader::new(&bytes)).unwrap().header;
        let header = Header::read(header).unwrap();
        assert_eq!(header.class, service.class());
        assert_eq!(header.source, common::id("/3/1/17"));
        assert_eq!(header.source_type, SourceType::Instance);
        assert_eq!(header.id.origin, common::id("/3"));
        assert_eq!(header.channel, Channel::Forward);
        assert_eq!((header.occurred_at, header.accepted_at), (common::AT - 250, common::AT));
        assert_eq!(header.time_to_live_s, None);
    }
    let full = common::full_header().header;
    let bytes = golden("message-to-id");
    assert_eq!(Header::read(Blocks::take(&mut Reader::new(&bytes)).unwrap().header).unwrap(), full);
    assert_eq!(full.time_to_live_s, Some(86_400));
}

// DAT-5: two platforms' messages differ in the infrastructure block by who they are about alone.
#[test]
fn the_infrastructure_block_is_free_of_what_is_special_to_a_platform() {
    let mut snmp = common::message(common::alarm(), 1).infrastructure;
    let mut syslog = common::message(common::alarm(), 2).infrastructure;
    syslog.integrator = "syslog".into();
    syslog.external_id = "press-1".into();
    assert_ne!(snmp, syslog);
    for block in [&mut snmp, &mut syslog] {
        (block.integrator, block.external_id) = (String::new(), String::new());
    }
    assert_eq!(snmp, syslog);
    // Nothing else stands in it: eight items, whatever the class.
    for (name, _) in common::services() {
        let bytes = golden(&format!("message-{name}"));
        let block = Blocks::take(&mut Reader::new(&bytes)).unwrap().infrastructure;
        assert_eq!(Reader::new(block).array_len(), Some(8));
    }
}

// DAT-6: each class has its own form, and a block of another form is refused with a reason.
#[test]
fn a_service_block_that_breaks_the_form_of_its_class_is_refused() {
    for (name, service) in common::services() {
        let bytes = golden(&format!("message-{name}"));
        let block = Blocks::take(&mut Reader::new(&bytes)).unwrap().service;
        assert_eq!(Service::read(service.class(), block).unwrap(), service);
        let wrong = Service::read("unheard-of", block).unwrap_err();
        assert_eq!(wrong.to_string(), "not a valid class");
    }
    let alarm = golden("message-alarm");
    let alarm = Blocks::take(&mut Reader::new(&alarm)).unwrap().service;
    let others = ["event", "registration", "registration-answer", "action", "removal", "data"];
    for other in others {
        assert!(Service::read(other, alarm).is_err(), "an alarm was read as {other}");
    }
}
