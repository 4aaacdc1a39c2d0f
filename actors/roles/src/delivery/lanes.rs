//! A queue in memory: its heads by precedence, the rest on disk. Memory does not depend on the
//! backlog (DESIGN §4.6).
use std::{collections::VecDeque, ops::ControlFlow};

use bytes::Bytes;
use extension::storage::{Place, QueueName, QueueStore, StoreError, Value};
use protocol::{Precedence, limits::BATCH_BYTES_MAX};

use super::{
    runs::{Gone, StoredRun},
    state::GONE,
};

/// Wire bytes of one precedence's heads kept in memory.
pub const HEADS_BYTES_MAX: usize = 4 << 20;

/// A run at hand.
#[derive(Clone, Debug)]
pub struct Head {
    /// Where it stands.
    pub position: u64,
    /// The run.
    pub stored: StoredRun,
    /// What of it is gone.
    pub gone: Gone,
    /// The exchange it is in, or for a back-channel queue when it was sent last.
    pub flight: Option<u64>,
    /// Of a back-channel queue: how often it was sent.
    pub sent: u32,
}

impl Head {
    /// Its bytes in memory.
    pub fn bytes(&self) -> usize {
        self.stored.run.messages.len()
    }

    /// Positions that are in the run and not gone.
    pub fn present(&self) -> impl Iterator<Item = u32> + '_ {
        let header = &self.stored.run.header;
        (0..header.count).filter(|p| !header.is_left_out(*p) && !self.gone.has(*p))
    }
}

/// One precedence of a queue.
#[derive(Debug, Default)]
pub struct Lane {
    /// The oldest, in order.
    pub heads: VecDeque<Head>,
    /// Runs from this position on are on disk only; none: all are heads.
    pub rest_from: Option<u64>,
    bytes: usize,
}

/// A run that could not be read.
#[derive(Debug)]
pub struct DamagedRun {
    /// Where it stands.
    pub place: Place,
    /// What is there.
    pub bytes: Bytes,
}

/// Key of the side row of a run.
pub fn gone_key(queue: &QueueName, place: Place) -> Bytes {
    let mut key = queue.0.as_bytes().to_vec();
    key.push(0);
    key.push(place.precedence as u8);
    key.extend_from_slice(&place.position.to_be_bytes());
    key.into()
}

/// Queue and place of such a key.
pub fn parse_gone_key(key: &[u8]) -> Option<(QueueName, Place)> {
    let (rest, position) = key.split_last_chunk()?;
    let (name, [0, precedence]) = rest.split_last_chunk()? else { return None };
    let precedence = Precedence::from_number(*precedence)?;
    let name = std::str::from_utf8(name).ok()?;
    Some((QueueName::new(name), Place { precedence, position: u64::from_be_bytes(*position) }))
}

impl Lane {
    /// A lane whose runs are all on disk.
    pub fn on_disk() -> Self {
        Self { rest_from: Some(0), ..Self::default() }
    }

    /// A run was committed at the end.
    pub fn push(&mut self, head: Head) {
        if self.rest_from.is_some() || self.bytes + head.bytes() > HEADS_BYTES_MAX {
            self.rest_from.get_or_insert(head.position);
            return;
        }
        self.bytes += head.bytes();
        self.heads.push_back(head);
    }

    /// Fills the heads from disk when they are few; damaged runs are given back to be set aside.
    pub fn refill(
        &mut self,
        store: &dyn QueueStore,
        queue: &QueueName,
        precedence: Precedence,
        wanted: usize,
    ) -> Result<Vec<DamagedRun>, StoreError> {
        let mut damaged = Vec::new();
        let Some(from) = self.rest_from else { return Ok(damaged) };
        // What is in flight stays a head until its settlement is on disk; the link goes on with
        // what is behind it, or a backlog drains no faster than settlements are written.
        let flying: usize = self.heads.iter().filter(|h| h.flight.is_some()).map(Head::bytes).sum();
        let waiting = self.bytes.saturating_sub(flying);
        if waiting >= wanted || self.bytes >= HEADS_BYTES_MAX {
            return Ok(damaged);
        }
        self.rest_from = None;
        // Half at once: the rest is read when what is in flight has gone.
        let most = (flying + HEADS_BYTES_MAX / 2).min(HEADS_BYTES_MAX);
        let (heads, bytes, rest) = (&mut self.heads, &mut self.bytes, &mut self.rest_from);
        store.runs(queue, precedence, from, &mut |position, value| {
            if *bytes >= most {
                *rest = Some(position);
                return ControlFlow::Break(());
            }
            let place = Place { precedence, position };
            let (raw, good) = match value {
                Value::Good(raw) => (Bytes::copy_from_slice(raw), true),
                Value::Damaged(raw) => (Bytes::copy_from_slice(raw), false),
            };
            match StoredRun::decode(&raw) {
                Ok(stored) if good => {
                    let head =
                        Head { position, stored, gone: Gone::default(), flight: None, sent: 0 };
                    *bytes += head.bytes();
                    heads.push_back(head);
                }
                _ => damaged.push(DamagedRun { place, bytes: raw }),
            }
            ControlFlow::Continue(())
        })?;
        for head in self.heads.iter_mut().filter(|h| h.position >= from) {
            let place = Place { precedence, position: head.position };
            if let Some(row) = store.row(GONE, &gone_key(queue, place))? {
                head.gone = Gone::from_bytes(&row);
            }
        }
        Ok(damaged)
    }

    /// Whether a link finds less than a batch here though more stands on disk: what is in flight
    /// takes the room.
    pub fn starves(&self) -> bool {
        let waiting = self.heads.iter().filter(|h| h.flight.is_none()).map(Head::bytes);
        self.rest_from.is_some()
            && self.heads.iter().any(|h| h.flight.is_some())
            && waiting.sum::<usize>() < BATCH_BYTES_MAX
    }

    /// The head at `position`.
    pub fn head(&mut self, position: u64) -> Option<&mut Head> {
        let i = self.heads.binary_search_by_key(&position, |h| h.position).ok()?;
        self.heads.get_mut(i)
    }

    /// Takes the head at `position` out.
    pub fn remove(&mut self, position: u64) -> Option<Head> {
        let i = self.heads.binary_search_by_key(&position, |h| h.position).ok()?;
        let head = self.heads.remove(i)?;
        self.bytes -= head.bytes();
        Some(head)
    }
}
