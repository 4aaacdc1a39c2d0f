//! Stored runs as modules, index and lists read them: each is taken apart once for all of them, and
//! the newest stay in RAM, so that who keeps up reads no disk.
use std::{
    collections::VecDeque,
    ops::{ControlFlow, Range},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;
use protocol::{
    Precedence,
    codec::Reader,
    message::{Blocks, Messages},
    parts::HeaderParts,
};

use super::index::StoredRun;

/// Bytes of the newest runs that are kept: what modules handle between two commits, some times
/// over. Who is further behind reads the disk.
const RECENT_BYTES_MAX: usize = 8 << 20;
/// Runs that are kept: the smallest holds one message.
const RECENT_RUNS_MAX: usize = 4_096;

/// A stored run, taken apart when somebody first asks.
#[derive(Debug)]
pub struct Reel {
    /// The run.
    pub stored: StoredRun,
    spans: OnceLock<Spans>,
}

/// What subscribers match: class and subclass.
pub type Kind = (Box<str>, Box<str>);

#[derive(Debug, Default)]
struct Spans {
    kinds: Vec<Kind>,
    messages: Vec<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    from: u32,
    to: u32,
    /// Place in `kinds`; behind its end: the header cannot be read.
    kind: u32,
}

impl Reel {
    /// Of a stored run.
    pub fn new(stored: StoredRun) -> Self {
        Self { stored, spans: OnceLock::new() }
    }

    /// Of a stored value; none: it cannot be read.
    pub fn read(position: u64, value: &[u8]) -> Option<Self> {
        StoredRun::read(position, &Bytes::copy_from_slice(value)).map(Self::new)
    }

    fn spans(&self) -> &Spans {
        self.spans.get_or_init(|| {
            let mut spans = Spans::default();
            spans.messages.reserve(self.stored.run.header.present() as usize);
            for (range, blocks) in Messages::of(&self.stored.run.messages).map_while(Result::ok) {
                let kind = spans.kind_of(&blocks);
                let (from, to) = (range.start as u32, range.end as u32);
                spans.messages.push(Span { from, to, kind });
            }
            spans
        })
    }

    /// Which kinds of messages are in it; few.
    pub fn kinds(&self) -> &[Kind] {
        &self.spans().kinds
    }

    /// Messages that can be taken apart; the number of the first is the run's position.
    pub fn len(&self) -> usize {
        self.spans().messages.len()
    }

    /// Whether no message can be taken apart.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Place of a message's kind in [`Self::kinds`]; none where its header cannot be read.
    pub fn kind_at(&self, at: usize) -> Option<usize> {
        let spans = self.spans();
        spans.messages.get(at).map(|s| s.kind as usize).filter(|kind| *kind < spans.kinds.len())
    }

    /// Where a message's wire bytes stand in the run, and its blocks.
    pub fn message(&self, at: usize) -> Option<(Range<usize>, Blocks<'_>)> {
        let span = self.spans().messages.get(at)?;
        let range = span.from as usize..span.to as usize;
        let bytes = self.stored.run.messages.get(range.clone())?;
        Some((range, Blocks::take(&mut Reader::new(bytes)).ok()?))
    }
}

impl Spans {
    fn kind_of(&mut self, blocks: &Blocks<'_>) -> u32 {
        let Ok(header) = HeaderParts::read(blocks.header) else { return u32::MAX };
        let same = |k: &Kind| *k.0 == *header.class && *k.1 == *header.subclass;
        let known = self.kinds.iter().position(same).unwrap_or_else(|| {
            self.kinds.push((header.class.into(), header.subclass.into()));
            self.kinds.len() - 1
        });
        known as u32
    }
}

/// The newest runs, in the order of their numbers and without a hole between them. Clones are the
/// same.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    runs: VecDeque<Arc<Reel>>,
    bytes: usize,
    /// Number behind the last run; 0: nothing was kept yet.
    next: u64,
}

impl Recent {
    /// Keeps a run that is on disk; runs come in the order of their numbers.
    pub fn keep(&self, stored: StoredRun) {
        let mut ring = self.ring();
        if stored.position != ring.next {
            // Something between was not seen here: it is read from disk.
            *ring = Ring::default();
        }
        ring.next = stored.end();
        ring.bytes += stored.run.messages.len();
        ring.runs.push_back(Arc::new(Reel::new(stored)));
        while ring.bytes > RECENT_BYTES_MAX || ring.runs.len() > RECENT_RUNS_MAX {
            let Some(oldest) = ring.runs.pop_front() else { break };
            ring.bytes -= oldest.stored.run.messages.len();
        }
    }

    /// The run of a precedence that holds that number, if it is here.
    pub fn at(&self, precedence: Precedence, number: u64) -> Option<Arc<Reel>> {
        let ring = self.ring();
        let behind = ring.runs.partition_point(|reel| reel.stored.position <= number);
        let reel = ring.runs.get(behind.checked_sub(1)?)?;
        let here = reel.stored.run.header.precedence == precedence && number < reel.stored.end();
        here.then(|| reel.clone())
    }

    /// Number behind the newest run.
    pub fn next(&self) -> u64 {
        self.ring().next
    }

    /// Visits the runs that hold anything from that number on, oldest first; of one precedence, or
    /// of all. Answers the number behind all that was visited and passed over. None: some are on
    /// disk only, and none is visited.
    pub fn walk(
        &self,
        precedence: Option<Precedence>,
        number: u64,
        mut visit: impl FnMut(&Arc<Reel>) -> ControlFlow<()>,
    ) -> Option<u64> {
        let ring = self.ring();
        let oldest = ring.runs.front().map_or(ring.next, |reel| reel.stored.position);
        if oldest > number || ring.next == 0 {
            return None;
        }
        let first = ring.runs.partition_point(|reel| reel.stored.end() <= number);
        for reel in ring.runs.range(first..) {
            let meant = precedence.is_none_or(|p| p == reel.stored.run.header.precedence);
            if meant && visit(reel).is_break() {
                return Some(reel.stored.position.max(number));
            }
        }
        Some(ring.next)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing in it can be half done: a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panic")]
mod tests {
    use protocol::{RemoteId, run::Run, run::RunHeader};

    use super::*;

    fn stored(position: u64, count: u32, precedence: Precedence, bytes: usize) -> StoredRun {
        let header = RunHeader {
            origin: RemoteId::customer(uuid::Uuid::nil()),
            epoch: 1,
            precedence,
            first: position,
            count,
            left_out: Vec::new(),
            replayed: false,
            changed: false,
            path: Vec::new(),
        };
        StoredRun { position, run: Run { header, messages: vec![0; bytes].into() } }
    }

    fn walked(recent: &Recent, of: Option<Precedence>, from: u64) -> (Vec<u64>, Option<u64>) {
        let mut seen = Vec::new();
        let behind = recent.walk(of, from, |reel| {
            seen.push(reel.stored.position);
            ControlFlow::Continue(())
        });
        (seen, behind)
    }

    #[test]
    fn what_is_in_ram_is_whole_from_its_oldest_run_on() {
        use Precedence::{Bulk, Normal, Urgent};
        let recent = Recent::default();
        assert_eq!(walked(&recent, None, 1), (vec![], None), "nothing is known yet");
        for (position, count, precedence) in [(1, 3, Normal), (4, 1, Urgent), (5, 2, Normal)] {
            recent.keep(stored(position, count, precedence, 10));
        }
        assert_eq!(walked(&recent, None, 1), (vec![1, 4, 5], Some(7)));
        assert_eq!(walked(&recent, Some(Normal), 3), (vec![1, 5], Some(7)));
        assert_eq!(walked(&recent, Some(Bulk), 1), (vec![], Some(7)), "there is none");
        assert_eq!(walked(&recent, None, 7), (vec![], Some(7)));
        assert_eq!(recent.at(Normal, 6).unwrap().stored.position, 5);
        assert!(recent.at(Urgent, 6).is_none() && recent.at(Normal, 7).is_none());
        let broken_off = recent.walk(None, 2, |reel| match reel.stored.position {
            4.. => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert_eq!(broken_off, Some(4));
        // A run that came in between was not seen: what is before it is on disk only.
        recent.keep(stored(9, 1, Normal, 10));
        assert_eq!(walked(&recent, None, 6), (vec![], None));
        assert_eq!(walked(&recent, None, 9), (vec![9], Some(10)));
    }

    #[test]
    fn the_oldest_leave_when_it_is_full() {
        let recent = Recent::default();
        let half = RECENT_BYTES_MAX / 2;
        for position in 1..=5 {
            recent.keep(stored(position, 1, Precedence::Normal, half));
        }
        assert_eq!(walked(&recent, None, 4), (vec![4, 5], Some(6)));
        assert_eq!(walked(&recent, None, 3), (vec![], None));
    }
}
