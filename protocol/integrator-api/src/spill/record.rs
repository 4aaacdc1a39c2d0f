//! The spill's file format: records with magic, length and digest (pure).
use std::ops::Range;

use bytes::Bytes;
use protocol::{limits::FRAME_BYTES_MAX, socket::STREAM_BYTES};
use xxhash_rust::xxh3::xxh3_64;

use super::Position;

/// Begins every record; the last byte is the format's version.
const MAGIC: [u8; 4] = *b"CHs\x01";
/// Magic, length and digest.
const HEAD_BYTES: usize = 16;
/// Payload of a record, bytes: a frame and its describing fields.
const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX + 1024;
/// A whole record, bytes.
pub(crate) const RECORD_BYTES_MAX: usize = HEAD_BYTES + PAYLOAD_BYTES_MAX;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Begins each segment: the stream its numbers count in, and a number above all that were
    /// used before the segment was made.
    Head { stream: [u8; STREAM_BYTES], floor: u64 },
    /// A call. `replaces` is the record whose number was refused.
    Call { seq: Option<u64>, replaces: Option<Position>, method: String, params: Bytes },
    /// All before is answered.
    Cursor(Position),
}

impl Record {
    /// The bytes of the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = vec![0; HEAD_BYTES];
        match self {
            Self::Head { stream, floor } => {
                to.push(0);
                to.extend_from_slice(stream);
                to.extend_from_slice(&floor.to_be_bytes());
            }
            Self::Call { seq, replaces, method, params } => {
                to.push(1);
                to.extend_from_slice(&seq.unwrap_or_default().to_be_bytes());
                put_position(&mut to, replaces.unwrap_or_default());
                to.push(method.len() as u8);
                to.extend_from_slice(method.as_bytes());
                to.extend_from_slice(params);
            }
            Self::Cursor(position) => {
                to.push(2);
                put_position(&mut to, *position);
            }
        }
        let length = (to.len() - HEAD_BYTES) as u32;
        let digest = xxh3_64(&to[HEAD_BYTES..]);
        to[..4].copy_from_slice(&MAGIC);
        to[4..8].copy_from_slice(&length.to_be_bytes());
        to[8..16].copy_from_slice(&digest.to_be_bytes());
        to
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let (kind, rest) = payload.split_first()?;
        Some(match kind {
            0 => {
                let (stream, rest) = rest.split_first_chunk()?;
                let (floor, _) = number(rest)?;
                Self::Head { stream: *stream, floor }
            }
            1 => {
                let (seq, rest) = number(rest)?;
                let (replaces, rest) = position(rest)?;
                let (length, rest) = rest.split_first()?;
                let (method, params) = rest.split_at_checked(usize::from(*length))?;
                Self::Call {
                    seq: (seq != 0).then_some(seq),
                    replaces: (replaces != Position::default()).then_some(replaces),
                    method: std::str::from_utf8(method).ok()?.to_owned(),
                    params: Bytes::copy_from_slice(params),
                }
            }
            2 => Self::Cursor(position(rest)?.0),
            _ => return None,
        })
    }
}

fn put_position(to: &mut Vec<u8>, position: Position) {
    to.extend_from_slice(&position.segment.to_be_bytes());
    to.extend_from_slice(&position.offset.to_be_bytes());
}

fn number(from: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = from.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}

fn position(from: &[u8]) -> Option<(Position, &[u8])> {
    let (segment, rest) = number(from)?;
    let (offset, rest) = number(rest)?;
    Some((Position { segment, offset }, rest))
}

/// What bytes of a segment hold.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Good records and where they lie.
    pub(crate) records: Vec<(Range<usize>, Record)>,
    /// Bytes that need not be looked at again.
    pub(crate) consumed: usize,
    /// Bytes that are no record.
    pub(crate) damaged: usize,
}

/// Reads at most `most` records. Damage is skipped up to the next good record. `whole`: nothing
/// follows the bytes, so a record that is cut off is damage, too: a torn tail.
pub(crate) fn walk(bytes: &[u8], most: usize, whole: bool) -> Walk {
    let mut walk = Walk::default();
    while walk.records.len() < most && walk.consumed < bytes.len() {
        match one(&bytes[walk.consumed..]) {
            One::Good(length, record) => {
                walk.records.push((walk.consumed..walk.consumed + length, record));
                walk.consumed += length;
            }
            One::CutOff if !whole => break,
            One::CutOff | One::Damaged => {
                let from = walk.consumed;
                let next = bytes[from + 1..].windows(MAGIC.len()).position(|w| w == MAGIC);
                let keep = if whole { 0 } else { MAGIC.len() - 1 };
                let end = (bytes.len() - keep).max(from + 1);
                walk.consumed = next.map_or(end, |n| from + 1 + n);
                walk.damaged += walk.consumed - from;
            }
        }
    }
    walk
}

enum One {
    Good(usize, Record),
    CutOff,
    Damaged,
}

fn one(bytes: &[u8]) -> One {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        let begins = bytes.iter().zip(&MAGIC).all(|(a, b)| a == b);
        return if begins { One::CutOff } else { One::Damaged };
    };
    let Some((length, digest)) = numbers(head) else { return One::Damaged };
    if length > PAYLOAD_BYTES_MAX {
        return One::Damaged;
    }
    let Some(payload) = rest.get(..length) else { return One::CutOff };
    if xxh3_64(payload) != digest {
        return One::Damaged;
    }
    match Record::decode(payload) {
        Some(record) => One::Good(HEAD_BYTES + length, record),
        None => One::Damaged,
    }
}

fn numbers(head: &[u8; HEAD_BYTES]) -> Option<(usize, u64)> {
    let rest = head.strip_prefix(&MAGIC)?;
    let (length, digest) = rest.split_first_chunk()?;
    Some((u32::from_be_bytes(*length) as usize, u64::from_be_bytes(digest.try_into().ok()?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(n: u64) -> Record {
        let params = Bytes::from(format!("params of {n}"));
        Record::Call { seq: Some(n), replaces: None, method: "alarm".into(), params }
    }

    fn file(count: u64) -> Vec<u8> {
        let head = Record::Head { stream: [7; 16], floor: 1 };
        let mut file = head.encode();
        (1..=count).for_each(|n| file.extend(call(n).encode()));
        file
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let replaces = Some(Position { segment: 9, offset: 80 });
        let params = Bytes::from_static(&[0, 1, 2]);
        let again = Record::Call { seq: None, replaces, method: "remove".into(), params };
        let all = [
            Record::Head { stream: [3; 16], floor: 12 },
            call(1),
            again,
            Record::Cursor(Position { segment: 4, offset: 99 }),
        ];
        let file: Vec<u8> = all.iter().flat_map(Record::encode).collect();
        let walk = walk(&file, 100, true);
        assert!(walk.records.iter().map(|(_, r)| r).eq(&all));
        assert_eq!((walk.consumed, walk.damaged), (file.len(), 0));
    }

    proptest! {
        #[test]
        fn a_torn_tail_takes_only_the_record_it_tore(cut in any::<prop::sample::Index>()) {
            let mut file = file(5);
            let ends: Vec<_> = walk(&file, 9, true).records.iter().map(|(r, _)| r.end).collect();
            let cut = cut.index(file.len() + 1);
            file.truncate(cut);
            let found = walk(&file, 9, true).records.len();
            prop_assert_eq!(found, ends.iter().filter(|end| **end <= cut).count());
        }

        #[test]
        fn a_damaged_byte_takes_only_its_record(
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let mut file = file(5);
            let at = at.index(file.len());
            file[at] ^= flip;
            let found = walk(&file, 9, true);
            prop_assert_eq!(found.records.len(), 5);
            prop_assert!(found.damaged > 0);
        }

        #[test]
        fn no_bytes_make_it_panic_or_stand_still(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            whole in any::<bool>(),
        ) {
            let all = [&bytes[..], &MAGIC, &bytes].concat();
            prop_assert!(walk(&all, 9, whole).consumed <= all.len());
        }
    }
}
