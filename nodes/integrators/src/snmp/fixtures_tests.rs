//! Datagrams that others recorded, and what a general ASN.1 decoder makes of those recorded here.
#![allow(clippy::unwrap_used, reason = "a test may end at what it did not expect")]

use std::path::{Path, PathBuf};

use super::ber::Bytes;
use super::message::{self, Malformed, Version};
use super::value::Variable;

/// The folder of one owner's fixtures; `None`, and said, where they are not there.
fn fixtures(folder: &str, cases: usize) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures");
    let root = std::env::var_os("CALLHOME_FIXTURES").map_or_else(|| default.into(), PathBuf::from);
    let path = root.join("snmp").join(folder);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("{cases} cases of {folder} left out: set CALLHOME_FIXTURES to the fixtures' folder");
    None
}

/// The UDP payloads of a pcap file of Ethernet frames with IPv4 or IPv6.
fn datagrams(pcap: &[u8]) -> Vec<Vec<u8>> {
    assert_eq!(pcap[..4], [0xd4, 0xc3, 0xb2, 0xa1], "a little-endian pcap");
    let (mut datagrams, mut rest) = (Vec::new(), &pcap[24..]);
    while let Some((header, after)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        let (frame, after) = after.split_at(length);
        let packet = &frame[14..];
        let udp = match packet[0] >> 4 {
            4 => &packet[usize::from(packet[0] & 15) * 4..],
            _ => &packet[40..],
        };
        let length = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
        datagrams.push(udp[8..length].to_vec());
        rest = after;
    }
    datagrams
}

fn from_base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sextets = text.bytes().filter_map(|b| alphabet.iter().position(|known| *known == b));
    let bits: Vec<_> = sextets.collect();
    let octets = bits.chunks(4).flat_map(|four| {
        let number = four.iter().fold(0, |n, six| n << 6 | six) << (6 * (4 - four.len()));
        let octets = [number >> 16, number >> 8, number].map(|n| (n & 255) as u8);
        octets.into_iter().take(four.len() * 6 / 8)
    });
    octets.collect()
}

// EXT-2
#[test]
fn trap_recorded_by_zeek_is_read_and_what_is_no_trap_refused() {
    let Some(folder) = fixtures("zeek", 6) else { return };
    let read = |name: &str| {
        let pcap = std::fs::read(folder.join(name)).unwrap();
        datagrams(&pcap).iter().map(|datagram| message::read(datagram)).collect::<Vec<_>>()
    };
    let traps = read("snmpv1_trap.pcap");
    let [Ok(trap)] = traps.as_slice() else { panic!("one trap") };
    assert_eq!(trap.version, Version::V1);
    assert_eq!(trap.notification.trap, "1.3.6.1.6.3.1.1.5.1");
    assert_eq!(trap.notification.agent_address, Some("127.0.0.1".parse().unwrap()));
    assert_eq!(trap.notification.variables[0].value.text(), "33");
    let others = [
        ("snmpv1_get_short.pcap", Malformed::NotATrap),
        ("snmpv1_set.pcap", Malformed::NotATrap),
        ("snmpv2_get.pcap", Malformed::NotATrap),
        ("snmpv2_get_bulk.pcap", Malformed::NotATrap),
        ("snmpv3_get_next.pcap", Malformed::UnsupportedVersion),
    ];
    for (name, malformed) in others {
        let read = read(name);
        assert!(!read.is_empty(), "{name}");
        assert!(read.iter().all(|read| *read == Err(malformed)), "{name}: {read:?}");
    }
}

#[test]
fn trap_recorded_by_gosnmp_is_read_with_and_without_what_stands_behind_it() {
    let Some(folder) = fixtures("gosnmp-trap", 3) else { return };
    let read = |name: &str| message::read(&std::fs::read(folder.join(name)).unwrap());
    let plain = read("trap1-v2c.bin").unwrap();
    assert!(!plain.notification.variables.is_empty());
    assert_eq!(read("trap1-v2c-with-219-trailing-bytes.bin"), Ok(plain));
    assert_eq!(read("generic-v3-trap.bin"), Err(Malformed::UnsupportedVersion));
}

#[test]
fn each_type_recorded_by_gosnmp_is_read_and_its_message_refused() {
    let Some(folder) = fixtures("gosnmp-pdu-b64", 13) else { return };
    let cases = [
        ("test0_PDUInteger", "i", "104"),
        ("test1_PDUCounter32", "c", "271070065"),
        ("test2_PDUGauge32", "u", "4294967295"),
        ("test3_PDUOctetString", "s", "Administrator"),
        ("test4_PDUIPAddress", "a", "127.0.0.1"),
        ("test5_PDUOpaqueFloat", "F", "10"),
        ("test6_PDUOpaqueFloat", "F", "0"),
        ("test7_PDUOpaqueDouble", "D", "10"),
        ("test8_PDUOpaqueDouble", "D", "0"),
        ("test9_PDUCounter32", "c", "271070065"),
        ("test10_PDUTimeTicks", "t", "318870100"),
        ("test11_PDUUinteger32", "u", "2147483647"),
        ("test12_PDUCounter64", "C", "9223372036854775807"),
    ];
    for (name, letter, text) in cases {
        let written = std::fs::read_to_string(folder.join(format!("{name}_pkt.b64"))).unwrap();
        let bytes = from_base64(&written);
        assert_eq!(message::read(&bytes), Err(Malformed::NotATrap), "{name}");
        let mut message = Bytes(Bytes(&bytes).tagged(0x30).unwrap());
        let (_version, _community) = (message.any().unwrap(), message.any().unwrap());
        let mut pdu = Bytes(message.any().unwrap().1);
        for _ in 0..3 {
            pdu.integer().unwrap();
        }
        let variables = Variable::read_list(pdu.tagged(0x30).unwrap()).unwrap();
        let shown: Vec<_> = variables.iter().map(|v| (v.value.letter(), v.value.text())).collect();
        assert_eq!(shown, [(letter, text.to_owned())], "{name}");
    }
}

#[test]
fn names_and_number_of_variables_are_those_of_a_general_decoder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/snmp/captured");
    let mut compared = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let Ok(ours) = message::read(&bytes) else { continue };
        if ours.version != Version::V2c {
            continue;
        }
        use rasn_snmp::{v2, v2c};
        let theirs = rasn::ber::decode::<v2c::Message<v2::Pdus>>(&bytes).unwrap();
        let pdu = match theirs.data {
            v2::Pdus::Trap(v2::Trap(pdu)) => pdu,
            v2::Pdus::InformRequest(v2::InformRequest(pdu)) => pdu,
            other => panic!("{}: {other:?}", path.display()),
        };
        let names = pdu.variable_bindings.iter().skip(2).map(|binding| binding.name.to_string());
        let ours = ours.notification.variables.iter().map(|variable| variable.oid.clone());
        assert!(names.eq(ours), "{}", path.display());
        compared += 1;
    }
    assert_eq!(compared, 6);
}
