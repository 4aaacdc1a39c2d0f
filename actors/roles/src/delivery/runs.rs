//! Runs as a queue keeps them: with when they expire, what of them is gone, cut to fit pages.
use bytes::Bytes;
use protocol::{
    codec::{Malformed, Reader, Writer},
    message::{Messages, Persistence},
    parts::HeaderParts,
    run::{Run, RunHeader},
};

/// Version of a stored run.
const FORMAT: u64 = 1;

/// A run in a queue of this node. Its path ends with this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRun {
    /// When the first of its messages expires, by this node's clock; none: never.
    pub expires_at: Option<i64>,
    /// Messages with assured persistence.
    pub assured: u32,
    /// The run.
    pub run: Run,
}

/// What the queue must know of a message beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Wire bytes.
    pub bytes: usize,
    /// Whether it is never evicted.
    pub assured: bool,
    /// Seconds from acceptance until it is of no use.
    pub time_to_live_s: Option<u32>,
}

impl Traits {
    /// Of a message of `bytes` wire bytes.
    pub fn of(header: &HeaderParts<'_>, bytes: usize) -> Self {
        let assured = header.persistence == Persistence::Assured;
        Self { bytes, assured, time_to_live_s: header.time_to_live_s }
    }

    /// When it expires by this node's clock, having been `age_ms` old at `received`.
    pub fn expires_at(&self, received: i64, age_ms: i64) -> Option<i64> {
        let left = i64::from(self.time_to_live_s?) * 1000 - age_ms;
        Some(received.saturating_add(left))
    }
}

impl StoredRun {
    /// Of a run and its messages' traits, in the order they stand.
    pub fn new(run: Run, traits: &[Traits]) -> Self {
        let received = received(&run.header);
        let age = run.header.age_before_ms();
        let expires_at = traits.iter().filter_map(|t| t.expires_at(received, age)).min();
        let assured = traits.iter().filter(|t| t.assured).count() as u32;
        Self { expires_at, assured, run }
    }

    /// The value that is stored.
    pub fn encode(&self) -> Bytes {
        let mut to = Writer::on(Vec::with_capacity(self.run.messages.len() + 256));
        to.array(4).uint(FORMAT);
        to.optional(self.expires_at, |to, t| {
            to.int(t);
        });
        to.uint(self.assured.into());
        self.run.write(&mut to);
        to.into_bytes()
    }

    /// Reads a stored value; the run's messages are a slice of it.
    pub fn decode(value: &Bytes) -> Result<Self, Malformed> {
        Reader::new(value).array("stored run", 4, |i| {
            if i.uint()? != FORMAT {
                return Err(Malformed("stored run"));
            }
            Ok(Self {
                expires_at: i.optional(|i| i.int())?,
                assured: i.u32()?,
                run: i.nested(|r| Run::read(r, value))?,
            })
        })
    }
}

impl StoredRun {
    /// Its messages that are not gone and can be read: position, wire bytes, traits.
    pub fn left<'r>(&'r self, gone: &'r Gone) -> impl Iterator<Item = (u32, Traits)> + 'r {
        let header = &self.run.header;
        let there = (0..header.count).filter(|p| !header.is_left_out(*p));
        let all = there.zip(Messages::of(&self.run.messages));
        all.filter(|(at, _)| !gone.has(*at)).filter_map(|(at, message)| {
            let (range, blocks) = message.ok()?;
            let header = HeaderParts::read(blocks.header).ok()?;
            Some((at, Traits::of(&header, range.len())))
        })
    }

    /// When a message of it expires, by this node's clock.
    pub fn expires_at(&self, traits: &Traits) -> Option<i64> {
        traits.expires_at(received(&self.run.header), self.run.header.age_before_ms())
    }

    /// When the first of its messages that are not gone expires.
    pub fn due(&self, gone: &Gone) -> Option<i64> {
        self.expires_at?;
        self.left(gone).filter_map(|(_, traits)| self.expires_at(&traits)).min()
    }
}

/// When this node took the run, by its own clock.
pub fn received(header: &RunHeader) -> i64 {
    header.path.last().map_or(0, |hop| hop.received)
}

/// Positions of a run that are gone: sent, expired, evicted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gone(Vec<u8>);

impl Gone {
    /// From a side row.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// For a side row.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// Whether the message at `position` is gone.
    pub fn has(&self, position: u32) -> bool {
        self.0.get(position as usize / 8).is_some_and(|b| b & (1 << (position % 8)) != 0)
    }

    /// Marks it; `false` when it was gone already.
    pub fn mark(&mut self, position: u32) -> bool {
        let byte = position as usize / 8;
        if self.0.len() <= byte {
            self.0.resize(byte + 1, 0);
        }
        let bit = 1 << (position % 8);
        let fresh = self.0[byte] & bit == 0;
        self.0[byte] |= bit;
        fresh
    }

    /// Marks the first `count` positions.
    pub fn mark_all(&mut self, count: u32) {
        let bytes = (count as usize).div_ceil(8);
        self.0.resize(bytes.max(self.0.len()), 0);
        self.0[..count as usize / 8].fill(u8::MAX);
        if let (Some(last), rest @ 1..) = (self.0.get_mut(count as usize / 8), count % 8) {
            *last |= (1 << rest) - 1;
        }
    }

    /// Whether nothing is gone.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|b| *b == 0)
    }
}

/// Value and key of a run beside its messages, bytes: stored header, frame and leaf.
const SPARE: usize = 320;
/// Largest value of a queue, bytes: what one page walk reads at once.
pub const LARGEST: usize = 256 << 10;
/// Smallest page, bytes.
const PAGE: usize = 4096;

/// Cuts messages of the given sizes into runs that fill power-of-two pages: redb gives a value
/// 4 KiB × 2^n and writes all of it. `largest` is such a page. Returns how many messages go into
/// each run.
pub fn cut(sizes: &[usize], messages_max: usize, largest: usize) -> Vec<usize> {
    let mut pieces = Vec::new();
    let mut rest = sizes;
    while !rest.is_empty() {
        let left: usize = rest.iter().sum();
        let whole = (left + SPARE).next_power_of_two().clamp(PAGE, largest);
        // Waste of at most a quarter is cheaper than another row.
        let room = if left + SPARE <= largest && (left + SPARE) * 4 >= whole * 3 {
            whole - SPARE
        } else {
            (whole / 2).max(PAGE) - SPARE
        };
        let mut bytes = 0;
        let fits = |size: &&usize| {
            bytes += **size;
            bytes <= room
        };
        let count = rest.iter().take_while(fits).count().clamp(1, messages_max);
        pieces.push(count);
        rest = &rest[count..];
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_keeps_every_message_and_no_piece_is_too_large() {
        for sizes in [vec![1100; 900], vec![10; 3], vec![300 << 10, 5, 200 << 10], vec![]] {
            let pieces = cut(&sizes, 1024, LARGEST);
            assert_eq!(pieces.iter().sum::<usize>(), sizes.len());
            let mut rest = &sizes[..];
            for piece in pieces {
                let bytes: usize = rest[..piece].iter().sum();
                assert!(piece == 1 || bytes + SPARE <= LARGEST);
                rest = &rest[piece..];
            }
        }
    }

    #[test]
    fn gone_marks_once() {
        let mut gone = Gone::default();
        assert!(gone.is_empty() && gone.mark(9) && !gone.mark(9) && gone.has(9) && !gone.has(8));
        assert_eq!(Gone::from_bytes(&gone.to_bytes()), gone);
    }

    #[test]
    fn all_that_is_marked_at_once_is_gone_and_nothing_behind_it() {
        for count in [1, 7, 8, 9, 64, 1024] {
            let (mut gone, mut each) = (Gone::default(), Gone::default());
            gone.mark_all(count);
            (0..count).for_each(|position| assert!(each.mark(position)));
            assert_eq!(gone, each);
            assert!(!gone.has(count));
        }
    }
}
