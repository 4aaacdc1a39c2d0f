//! A run: messages of one precedence that arrived together, in their wire bytes (`delivery.md` §3).
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    RemoteId,
    codec::{Malformed, Reader, Writer},
    limits,
    message::{Messages, Precedence},
};

/// One node a run has passed; the last one has not sent it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The node.
    pub node: RemoteId,
    /// When it took the run, by its own clock, ms since 1970 UTC.
    pub received: i64,
    /// When it sent it, by its own clock; 0: not yet.
    pub sent: i64,
}

/// What the messages of a run share, and where it has been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHeader {
    /// Who numbered the messages.
    pub origin: RemoteId,
    /// Which life of its store.
    pub epoch: u64,
    /// One precedence a run.
    pub precedence: Precedence,
    /// Number of the first message.
    pub first: u64,
    /// Numbers covered, those left out too.
    pub count: u32,
    /// Bitmap of positions left out, least bit first; empty: none.
    pub left_out: Vec<u8>,
    /// It waited while a link was down, so nobody is paged by it.
    pub replayed: bool,
    /// A service module changed it on the way.
    pub changed: bool,
    /// Where it has been, origin first.
    pub path: Vec<Hop>,
}

const REPLAYED: u8 = 1;
const CHANGED: u8 = 2;

impl RunHeader {
    /// Numbers of the messages that are there, in their order: as many as [`Self::present`].
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        let there = (0..self.count).filter(|p| !self.is_left_out(*p));
        there.map(|p| self.first.saturating_add(u64::from(p)))
    }

    /// Whether the message `position` places after the first is not in this run.
    pub fn is_left_out(&self, position: u32) -> bool {
        let byte = self.left_out.get(position as usize / 8);
        byte.is_some_and(|b| b & (1 << (position % 8)) != 0)
    }

    /// Messages that are in it.
    pub fn present(&self) -> u32 {
        let left_out = (0..self.count).filter(|p| self.is_left_out(*p)).count();
        self.count - left_out as u32
    }

    /// Milliseconds spent at the nodes before the last one, each by its own clock.
    pub fn age_before_ms(&self) -> i64 {
        let before = self.path.iter().rev().skip(1);
        before.map(|h| (h.sent - h.received).max(0)).sum()
    }

    /// Writes the header.
    pub fn write(&self, to: &mut Writer) {
        to.array(8).id(&self.origin).uint(self.epoch).uint(self.precedence as u64);
        to.uint(self.first).uint(self.count.into());
        let left_out = (!self.left_out.is_empty()).then_some(&self.left_out[..]);
        to.optional(left_out, |to, bits| {
            to.bin(bits);
        });
        let flags = [(self.replayed, REPLAYED), (self.changed, CHANGED)];
        to.uint(flags.iter().filter(|f| f.0).map(|f| u64::from(f.1)).sum());
        to.list(&self.path, |to, hop| {
            to.array(3).id(&hop.node).int(hop.received).int(hop.sent);
        });
    }

    /// Reads the header.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.array("run header", 8, |i| {
            let (origin, epoch) = (i.id()?, i.uint()?);
            let precedence = i.one_of(Precedence::from_number)?;
            let (first, count) = (i.uint()?, i.u32()?);
            let left_out = i.optional(|i| i.bin())?.unwrap_or_default().to_vec();
            let flags = i.u8()?;
            let path = i.list(limits::HOPS_MAX, |r| {
                r.array("hop", 3, |i| {
                    Ok(Hop { node: i.id()?, received: time(i.int()?)?, sent: time(i.int()?)? })
                })
            })?;
            if count == 0
                || count as usize > limits::BATCH_MESSAGES_MAX
                || left_out.len() > (count as usize).div_ceil(8)
                || first.checked_add(u64::from(count)).is_none()
            {
                return Err(Malformed("run header"));
            }
            let (replayed, changed) = (flags & REPLAYED != 0, flags & CHANGED != 0);
            Ok(Self { origin, epoch, precedence, first, count, left_out, replayed, changed, path })
        })
    }
}

/// A time of a hop, in ms since 1970.
fn time(at: i64) -> Result<i64, Malformed> {
    if (0..=limits::TIME_MS_MAX).contains(&at) { Ok(at) } else { Err(Malformed("time of a hop")) }
}

/// A run on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What its messages share.
    pub header: RunHeader,
    /// The messages back to back, in wire bytes.
    pub messages: Bytes,
}

impl Run {
    /// Writes `[run header, bin messages]`.
    pub fn write(&self, to: &mut Writer) {
        to.array(2);
        self.header.write(to);
        to.bin(&self.messages);
    }

    /// Reads a run; its messages are a slice of `all`, which `from` reads.
    pub fn read(from: &mut Reader<'_>, all: &Bytes) -> Result<Self, Malformed> {
        from.array("run", 2, |i| {
            let header = i.nested(RunHeader::read)?;
            let messages = all.slice_ref(i.bin()?);
            Ok(Self { header, messages })
        })
    }

    /// The run without the messages at `gone` (positions from the first number on), or `None`
    /// when nothing is left.
    pub fn without(&self, gone: impl Fn(u32) -> bool) -> Result<Option<Self>, Malformed> {
        let mut left_out = vec![0_u8; (self.header.count as usize).div_ceil(8)];
        let mut kept = Vec::with_capacity(self.messages.len());
        let mut messages = Messages::of(&self.messages);
        let mut any = false;
        for position in 0..self.header.count {
            let there = !self.header.is_left_out(position);
            let message = if there { messages.next().transpose()? } else { None };
            match message {
                Some((range, _)) if !gone(position) => {
                    kept.extend_from_slice(&self.messages[range]);
                    any = true;
                }
                None if there => return Err(Malformed("run: messages are missing")),
                _ => left_out[position as usize / 8] |= 1 << (position % 8),
            }
        }
        if left_out.iter().all(|b| *b == 0) {
            left_out.clear();
        }
        let header = RunHeader { left_out, ..self.header.clone() };
        Ok(any.then(|| Self { header, messages: kept.into() }))
    }
}
