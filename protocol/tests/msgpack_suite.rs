//! MessagePack as others write it: each encoding in their suite of cases is read as its value.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::path::PathBuf;

use protocol::{
    codec::{Reader, Writer},
    limits,
};
use serde_json::Value;

/// Cases of the suite; said where the suite is not there.
const CASES: usize = 85;

/// The suite: title of a file, then its cases. `None`, and said, where it is not there.
fn suite() -> Option<serde_json::Map<String, Value>> {
    let fixtures = std::env::var_os("CALLHOME_FIXTURES").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/fixtures")),
        PathBuf::from,
    );
    let path = fixtures.join("msgpack/msgpack-test-suite.json");
    match std::fs::read(&path) {
        Ok(text) => Some(serde_json::from_slice(&text).unwrap()),
        Err(_) => {
            println!("skipped: {CASES} cases of MessagePack: no {}", path.display());
            None
        }
    }
}

fn unhex(dashed: &str) -> Vec<u8> {
    let pairs = dashed.split('-').filter(|p| !p.is_empty());
    pairs.map(|p| u8::from_str_radix(p, 16).unwrap()).collect()
}

fn encodings(case: &Value) -> Vec<Vec<u8>> {
    case["msgpack"].as_array().unwrap().iter().map(|e| unhex(e.as_str().unwrap())).collect()
}

/// The whole number of a case, where it is one.
fn whole(case: &Value) -> Option<i128> {
    match (&case["bignum"], &case["number"]) {
        (Value::String(big), _) => big.parse().ok(),
        (_, number) if number.is_f64() => None,
        (_, number) => number.as_i64().map(i128::from).or(number.as_u64().map(i128::from)),
    }
}

/// Reads one encoding; it must be read whole, or not at all.
fn read<'a, T>(bytes: &'a [u8], read: impl FnOnce(&mut Reader<'a>) -> Option<T>) -> Option<T> {
    let mut reader = Reader::new(bytes);
    let value = read(&mut reader)?;
    assert!(reader.is_empty(), "{bytes:02x?}");
    Some(value)
}

/// Floating point; the protocol has none.
fn is_float(bytes: &[u8]) -> bool {
    matches!(bytes[0], 0xca | 0xcb)
}

#[test]
fn whole_numbers_are_read_in_every_encoding_and_written_in_the_shortest() {
    let Some(suite) = suite() else { return };
    let mut read_ones = 0;
    for (title, cases) in suite.iter().filter(|(title, _)| title.contains(".number-")) {
        for case in cases.as_array().unwrap() {
            let Some(value) = whole(case) else { continue };
            let all = encodings(case);
            for bytes in &all {
                let (uint, int) = (read(bytes, Reader::uint), read(bytes, Reader::int));
                if is_float(bytes) {
                    assert_eq!((uint, int), (None, None), "{title} {bytes:02x?}");
                    continue;
                }
                assert_eq!(uint, u64::try_from(value).ok(), "{title} {bytes:02x?}");
                assert_eq!(int, i64::try_from(value).ok(), "{title} {bytes:02x?}");
                read_ones += 1;
            }
            let mut to = Writer::new();
            match (i64::try_from(value), u64::try_from(value)) {
                (Ok(n), _) => to.int(n),
                (_, Ok(n)) => to.uint(n),
                _ => unreachable!("the suite ends at 64 bits"),
            };
            let shortest = all.iter().filter(|b| !is_float(b)).map(Vec::len).min().unwrap();
            let written = to.into_vec();
            assert_eq!(written.len(), shortest, "{value}");
            assert!(all.contains(&written), "{value}");
        }
    }
    assert!(read_ones > 100, "{read_ones}");
}

#[test]
fn texts_binaries_booleans_and_nil_are_read_in_every_encoding() {
    let Some(suite) = suite() else { return };
    for case in suite.values().flat_map(|cases| cases.as_array().unwrap()) {
        let mut to = Writer::new();
        for bytes in encodings(case) {
            if let Some(text) = case["string"].as_str() {
                assert_eq!(read(&bytes, |r| r.text().map(str::to_owned)).as_deref(), Some(text));
                assert_eq!(read(&bytes, |r| r.bin().map(<[u8]>::to_vec)), None);
            } else if let Some(binary) = case["binary"].as_str() {
                let expected = unhex(binary);
                assert_eq!(read(&bytes, |r| r.bin().map(<[u8]>::to_vec)), Some(expected));
                assert_eq!(read(&bytes, |r| r.text().map(str::to_owned)), None);
            } else if let Some(yes) = case["bool"].as_bool() {
                assert_eq!(read(&bytes, Reader::boolean), Some(yes));
            } else if case.get("nil").is_some() {
                assert_eq!(read(&bytes, |r| r.nil().then_some(())), Some(()));
            } else {
                continue;
            }
        }
        let written = match (case["string"].as_str(), case["binary"].as_str()) {
            (Some(text), _) => to.text(text),
            (_, Some(binary)) => to.bin(&unhex(binary)),
            _ => continue,
        };
        assert!(!written.is_empty() && encodings(case).contains(&to.into_vec()));
    }
}

#[test]
fn every_case_of_any_kind_is_skipped_whole_and_none_when_cut() {
    let Some(suite) = suite() else { return };
    let mut skipped = 0;
    for case in suite.values().flat_map(|cases| cases.as_array().unwrap()) {
        for bytes in encodings(case) {
            assert_eq!(read(&bytes, |r| r.skip(limits::DEPTH_MAX)), Some(()), "{bytes:02x?}");
            let cut = &bytes[..bytes.len() - 1];
            assert_eq!(Reader::new(cut).skip(limits::DEPTH_MAX), None, "{bytes:02x?}");
            skipped += 1;
        }
    }
    assert!(skipped > 150, "{skipped}");
}
