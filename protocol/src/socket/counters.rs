//! What an integrator counts, told by the notice `counters`: the whole of it, each time anew.
use std::collections::BTreeMap;

use super::{
    CallError, Frame,
    fields::{Fields, Map},
};

/// Reasons in one report: each becomes a series of a metric for as long as the proxy lives.
pub const REASONS_MAX: usize = 32;
/// Longest reason, bytes: a word such as `not_snmp`.
pub const REASON_BYTES_MAX: usize = 64;
/// Where an integrator's own end puts what does not fit these bounds.
const OTHER: &str = "other";

/// The counters of one integrator process since its start (contract §4). The last report counts;
/// a proxy that does not know the notice passes it over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Came, and could be read.
    pub received: u64,
    /// A rule said to ignore it, or it was there already.
    pub ignored: u64,
    /// Read, and lost: not allowed, no room, or refused for good.
    pub dropped: u64,
    /// Values that a rule named and the message did not have.
    pub rule_gaps: u64,
    /// What could not be read, by reason: a word of lower-case letters, digits and `_`.
    pub malformed: BTreeMap<String, u64>,
    /// Bytes of calls in its spill now; none: it has no spill.
    pub spill_bytes: Option<u64>,
}

/// Whether a reason is one: it becomes a label, so nothing else is let through.
fn is_reason(word: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    !word.is_empty() && word.len() <= REASON_BYTES_MAX && word.bytes().all(plain)
}

impl Counters {
    /// The name of the notice.
    pub const METHOD: &str = "counters";

    /// The bytes of the frame. Reasons beyond the bounds are told together as `other`.
    pub fn frame(&self) -> Vec<u8> {
        let (mut malformed, mut other) = (Map::new(), 0_u64);
        let mut told = 0;
        for (reason, count) in &self.malformed {
            if told + 1 < REASONS_MAX && reason != OTHER && is_reason(reason) {
                malformed = malformed.uint(reason, *count);
                told += 1;
            } else {
                other = other.saturating_add(*count);
            }
        }
        if other > 0 {
            malformed = malformed.uint(OTHER, other);
        }
        let map = Map::new().uint("received", self.received).uint("ignored", self.ignored);
        let map = map.uint("dropped", self.dropped).uint("rule_gaps", self.rule_gaps);
        let map = map.map("malformed", malformed).uint_if("spill_bytes", self.spill_bytes);
        Frame::notice(Self::METHOD, map)
    }

    /// Reads the params of the notice. What is absent is 0; what is wrong makes all of it wrong,
    /// for half a report would look like a restart.
    pub fn read(params: &[u8]) -> Result<Self, CallError> {
        let fields = Fields::read(params)?;
        let number = |key| Ok::<_, CallError>(fields.uint(key)?.unwrap_or_default());
        let mut malformed = BTreeMap::new();
        if let Some(reasons) = fields.map("malformed")? {
            for reason in reasons.keys() {
                if !is_reason(reason) {
                    let detail = "a reason is a word of at most 64 of a-z, 0-9 and _";
                    return Err(CallError::malformed(detail));
                }
                let count = reasons.uint(reason)?.unwrap_or_default();
                malformed.insert(reason.to_owned(), count);
            }
        }
        if malformed.len() > REASONS_MAX {
            let detail =
                format!("malformed has {} reasons; at most {REASONS_MAX}", malformed.len());
            return Err(CallError::too_large(detail));
        }
        Ok(Self {
            received: number("received")?,
            ignored: number("ignored")?,
            dropped: number("dropped")?,
            rule_gaps: number("rule_gaps")?,
            malformed,
            spill_bytes: fields.uint("spill_bytes")?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// The params of a frame of ours.
    fn params(counters: &Counters) -> Bytes {
        let frame = Bytes::from(counters.frame()).slice(4..);
        match Frame::read(&frame).unwrap() {
            Frame::Notice { method, params } if method == Counters::METHOD => params,
            other => panic!("{other:?}"),
        }
    }

    fn some() -> Counters {
        Counters {
            received: 7,
            ignored: 1,
            dropped: 2,
            rule_gaps: 3,
            malformed: [("not_snmp".to_owned(), 4), ("truncated".to_owned(), u64::MAX)].into(),
            spill_bytes: Some(0),
        }
    }

    #[test]
    fn what_is_told_is_what_is_read() {
        for counters in [Counters::default(), some(), Counters { spill_bytes: None, ..some() }] {
            assert_eq!(Counters::read(&params(&counters)).unwrap(), counters);
        }
        assert_eq!(Counters::read(&[0x80]).unwrap(), Counters::default());
        let later = Map::new().uint("received", 1).text("mood", "good");
        assert_eq!(Counters::read(&later.into_bytes()).unwrap().received, 1);
    }

    #[test]
    fn reasons_beyond_the_bounds_are_told_together() {
        let mut malformed: BTreeMap<_, _> = (0..50).map(|n| (format!("r{n}"), 1)).collect();
        malformed.insert("No Word".to_owned(), 1);
        malformed.insert("x".repeat(65), 1);
        malformed.insert("other".to_owned(), 5);
        let read = Counters::read(&params(&Counters { malformed, ..some() })).unwrap();
        assert_eq!(read.malformed.len(), REASONS_MAX);
        assert_eq!(read.malformed["other"], 50 - 31 + 2 + 5);
        assert_eq!(read.malformed.values().sum::<u64>(), 57);
    }

    #[test]
    fn a_report_with_one_bad_value_is_refused_whole() {
        let good = || Map::new().uint("received", 1);
        let reason = |reason: &str| good().map("malformed", Map::new().uint(reason, 1));
        let many = (0..33).fold(Map::new(), |map, n| map.uint(&format!("r{n}"), 1));
        let hundred = (0..100).fold(Map::new(), |map, n| map.uint(&format!("r{n}"), 1));
        for bad in [
            good().int("dropped", -1),
            good().text("ignored", "many"),
            good().text("malformed", "x"),
            good().map("malformed", Map::new().text("cut", "x")),
            good().map("malformed", many),
            good().map("malformed", hundred),
            good().text("spill_bytes", ""),
            reason(""),
            reason("a\"b"),
            reason("line\nbreak"),
            reason("Capital"),
            reason(&"x".repeat(65)),
        ] {
            assert!(Counters::read(&bad.into_bytes()).is_err());
        }
        assert!(Counters::read(&reason(&"x".repeat(64)).into_bytes()).is_ok());
    }
}
