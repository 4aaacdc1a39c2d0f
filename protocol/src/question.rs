//! A question from above, and what a node says to it: its account now, and where a message stands.
//!
//! It rides on an answer, and what is said to it in a heartbeat: outside sequence, account and
//! disk, so that asking changes nothing of what is asked about.
use serde::{Deserialize, Serialize};

use crate::{
    MessageId, RemoteId,
    codec::{Malformed, Reader, Writer},
    limits,
    run::Hop,
};

/// What a node is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Drawn by who asks; what is said quotes it.
    pub id: u64,
    /// How long somebody waits for what is said, ms; each node takes off for how long it had it.
    pub wait_ms: u64,
    /// Whom it asks: these and all below them. None: everybody.
    pub to: Vec<RemoteId>,
    /// The message it asks for; none: for the account alone.
    pub about: Option<MessageId>,
}

/// What a node says to a question. The account stands in the heartbeat that carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Which question.
    pub question: u64,
    /// Where the message stands here; none: nowhere, or the question asks for none.
    pub found: Option<Found>,
}

/// Where a message stands at a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Name of the queue.
    pub queue: String,
    /// Tries of the link that carried messages and failed, in a row.
    pub attempts: u32,
    /// Why the parent does not take messages now, a refusal's name; empty: not known.
    pub reason: String,
    /// Data class of the message.
    pub class: String,
    /// By the platform's clock, ms since 1970 UTC.
    pub occurred_at: i64,
    /// On disk at its origin, ms since 1970 UTC.
    pub accepted_at: i64,
    /// Where it has been, origin first, this node last.
    pub path: Vec<Hop>,
}

impl Question {
    /// Whether it asks that node.
    pub fn asks(&self, node: &RemoteId) -> bool {
        self.to.is_empty() || self.to.iter().any(|to| node.is_under(to))
    }

    /// Writes it.
    pub fn write(&self, to: &mut Writer) {
        to.array(4).uint(self.id).uint(self.wait_ms);
        to.list(&self.to, |to, id| {
            to.id(id);
        });
        to.optional(self.about.as_ref(), |to, id| id.write(to));
    }

    /// Reads it.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.array("question", 4, |i| {
            Ok(Self {
                id: i.uint()?,
                wait_ms: i.uint()?.min(limits::HELD_S_MAX * 1000),
                to: i.list(limits::QUESTION_TARGETS_MAX, read_id)?,
                about: i.optional(|i| i.nested(MessageId::read))?,
            })
        })
    }
}

fn read_id(from: &mut Reader<'_>) -> Result<RemoteId, Malformed> {
    let id = from.bin().and_then(|b| RemoteId::from_bytes(b).ok());
    id.ok_or(Malformed("question: whom it asks"))
}

impl Said {
    /// Writes it.
    pub fn write(&self, to: &mut Writer) {
        to.array(2).uint(self.question);
        to.optional(self.found.as_ref(), |to, found| found.write(to));
    }

    /// Reads it.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.array("answer to a question", 2, |i| {
            Ok(Self { question: i.uint()?, found: i.optional(|i| i.nested(Found::read))? })
        })
    }
}

impl Found {
    fn write(&self, to: &mut Writer) {
        to.array(7).text(&self.queue).uint(self.attempts.into()).text(&self.reason);
        to.text(&self.class).int(self.occurred_at).int(self.accepted_at);
        to.list(&self.path, |to, hop| {
            to.array(3).id(&hop.node).int(hop.received).int(hop.sent);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        const NAME: usize = limits::NAME_BYTES_MAX;
        from.array("where a message stands", 7, |i| {
            Ok(Self {
                queue: i.text(limits::QUEUE_NAME_BYTES_MAX)?.to_owned(),
                attempts: i.u32()?,
                reason: i.text(NAME)?.to_owned(),
                class: i.text(NAME)?.to_owned(),
                occurred_at: i.int()?,
                accepted_at: i.int()?,
                path: i.list(limits::HOPS_MAX, |r| {
                    r.array("hop", 3, |i| {
                        Ok(Hop { node: i.id()?, received: i.int()?, sent: i.int()? })
                    })
                })?,
            })
        })
    }
}
