//! How a value lies in the file: magic, digest, lengths, stamp, its own key, then its bytes.
//!
//! A frame names itself, so that a run can be found in the raw file without redb's tree, and so
//! that a tree that leads to the wrong place is noticed. The digest is seeded with a number drawn
//! for this store: bytes that a sender put into a message never pass for a frame of ours.
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// First bytes of each frame.
pub(crate) const MAGIC: [u8; 4] = [0xC5, b'H', 0xF1, 0x01];
/// Bytes before the key.
pub(crate) const HEADER: usize = 28;
/// Longest key: redb compares keys on each step, and none of ours comes near.
pub(crate) const KEY_MAX: usize = 4096;
/// Longest value: a frame that claims more is no frame. Far above any run or index segment.
pub(crate) const VALUE_MAX: usize = 256 << 20;

/// Which table of the file a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    Run = 0,
    Row = 1,
    Meta = 2,
}

/// A frame taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: Kind,
    pub(crate) stamp: u64,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// The lengths a header speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) stamp: u64,
    pub(crate) key: usize,
    pub(crate) value: usize,
}

impl Head {
    /// Reads a header; `None` where there is none.
    pub(crate) fn read(bytes: &[u8]) -> Option<Head> {
        let header: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        if header[..4] != MAGIC {
            return None;
        }
        let kind = match header[14] {
            0 => Kind::Run,
            1 => Kind::Row,
            2 => Kind::Meta,
            _ => return None,
        };
        let key = usize::from(u16::from_le_bytes(part(header, 12)));
        let value = u32::from_le_bytes(part(header, 16)) as usize;
        let stamp = u64::from_le_bytes(part(header, 20));
        let sane = key <= KEY_MAX && value <= VALUE_MAX && header[15] == 0;
        sane.then_some(Head { kind, stamp, key, value })
    }

    /// Bytes of the whole frame.
    pub(crate) fn total(&self) -> usize {
        HEADER + self.key + self.value
    }
}

fn part<const N: usize>(header: &[u8; HEADER], at: usize) -> [u8; N] {
    std::array::from_fn(|i| header[at + i])
}

/// Bytes a value takes in the file without what redb adds.
pub(crate) fn len(key: &[u8], value: &[u8]) -> usize {
    HEADER + key.len() + value.len()
}

/// Writes a frame into `out`, which is exactly [`len`] bytes.
pub(crate) fn write(
    out: &mut [u8],
    kind: Kind,
    stamp: u64,
    seed: u64,
    (key, value): (&[u8], &[u8]),
) {
    out[..4].copy_from_slice(&MAGIC);
    out[12..14].copy_from_slice(&(key.len() as u16).to_le_bytes());
    out[14] = kind as u8;
    out[15] = 0;
    out[16..20].copy_from_slice(&(value.len() as u32).to_le_bytes());
    out[20..28].copy_from_slice(&stamp.to_le_bytes());
    out[HEADER..HEADER + key.len()].copy_from_slice(key);
    out[HEADER + key.len()..].copy_from_slice(value);
    let digest = xxh3_64_with_seed(&out[12..], seed);
    out[4..12].copy_from_slice(&digest.to_le_bytes());
}

/// A new frame.
pub(crate) fn build(kind: Kind, stamp: u64, seed: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![0; len(key, value)];
    write(&mut out, kind, stamp, seed, (key, value));
    out
}

/// Takes a frame apart that begins at the first byte; what follows it is left alone.
/// `None` where it is not what was written.
pub(crate) fn read(bytes: &[u8], seed: u64) -> Option<Frame<'_>> {
    let head = Head::read(bytes)?;
    let frame = bytes.get(..head.total())?;
    let digest = u64::from_le_bytes(frame[4..12].try_into().ok()?);
    if xxh3_64_with_seed(&frame[12..], seed) != digest {
        return None;
    }
    let (key, value) = frame[HEADER..].split_at(head.key);
    Some(Frame { kind: head.kind, stamp: head.stamp, key, value })
}

/// As [`read`], of exactly these bytes, and of that key.
pub(crate) fn read_at<'a>(bytes: &'a [u8], seed: u64, kind: Kind, key: &[u8]) -> Option<Frame<'a>> {
    read(bytes, seed)
        .filter(|f| f.kind == kind && f.key == key && len(f.key, f.value) == bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    // DESIGN §4.5
    #[test]
    fn any_flipped_bit_of_a_frame_is_noticed() {
        let good = build(Kind::Run, 7, 42, b"up\0\0\0\0\0\0\0\0\0\x01", b"three alarms");
        assert!(read(&good, 42).is_some());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad, 42).is_none(), "bit {bit}");
        }
    }

    // DESIGN §4.5
    #[test]
    fn a_frame_of_another_store_is_not_ours() {
        let other = build(Kind::Row, 1, 1, b"k", b"v");
        assert!(read(&other, 2).is_none());
        assert!(read_at(&other, 1, Kind::Row, b"l").is_none());
        assert!(read_at(&other, 1, Kind::Run, b"k").is_none());
    }
}
