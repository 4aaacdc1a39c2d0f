//! How messages ended otherwise than by being handed on, in intervals (`delivery.md` §4).
use serde::{Deserialize, Serialize};

use crate::{
    RemoteId,
    codec::{Malformed, Reader, Writer},
    message::{Precedence, wire_enum},
};

wire_enum! {
    /// What became of a message. Exactly one for each at a node (DESIGN §4.4).
    End {
        /// The parent has it; at the top, every module is done with it.
        Delivered = "delivered",
        /// Its time to live ran out (QUE-10, QUE-16).
        Expired = "expired",
        /// A full queue made room (QUE-11…13).
        Evicted = "evicted",
        /// The parent said give up, or it was set aside.
        Refused = "refused",
        /// A mid-stream module dropped it or made another of it.
        Consumed = "consumed",
    }
}

/// That `count` messages from `first` on ended so at `node`. Explains holes; never counts as seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndReport {
    /// Who numbered them.
    pub origin: RemoteId,
    /// Which life of its store.
    pub epoch: u64,
    /// Their precedence.
    pub precedence: Precedence,
    /// First number.
    pub first: u64,
    /// How many.
    pub count: u32,
    /// How they ended.
    pub end: End,
    /// Where.
    pub node: RemoteId,
    /// A refusal's name; empty where the end says all.
    pub reason: String,
}

impl EndReport {
    /// Writes the report.
    pub fn write(&self, to: &mut Writer) {
        to.array(8).id(&self.origin).uint(self.epoch).uint(self.precedence as u64);
        to.uint(self.first).uint(self.count.into()).uint(self.end as u64);
        to.id(&self.node).text(&self.reason);
    }

    /// Reads a report.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.array("end report", 8, |i| {
            let report = Self {
                origin: i.id()?,
                epoch: i.uint()?,
                precedence: i.one_of(Precedence::from_number)?,
                first: i.uint()?,
                count: i.u32()?,
                end: i.one_of(End::from_number)?,
                node: i.id()?,
                reason: i.text(crate::limits::NAME_BYTES_MAX)?.to_owned(),
            };
            match report.first.checked_add(u64::from(report.count)) {
                Some(_) if report.count > 0 => Ok(report),
                _ => Err(Malformed("end report")),
            }
        })
    }
}

/// Joins reports that follow each other, so that a long backlog's end is a few intervals.
pub fn join(reports: Vec<EndReport>) -> Vec<EndReport> {
    let mut joined: Vec<EndReport> = Vec::with_capacity(reports.len());
    for report in reports {
        if let Some(last) = joined.last_mut() {
            let same = (last.origin, last.epoch, last.precedence, last.end, last.node)
                == (report.origin, report.epoch, report.precedence, report.end, report.node)
                && last.reason == report.reason;
            let follows = last.first + u64::from(last.count) == report.first;
            if let (true, true, Some(count)) = (same, follows, last.count.checked_add(report.count))
            {
                last.count = count;
                continue;
            }
        }
        joined.push(report);
    }
    joined
}
