//! Keeping messages of this node's own: room, numbers, runs.
use bytes::Bytes;
use extension::storage::{QueueName, StoreError};
use protocol::{
    Message, MessageId, Precedence, Refusal,
    ends::{End, EndReport},
    message::{Blocks, Channel, Messages, Persistence, Unnumbered, fill_in},
    parts::HeaderParts,
    run::{Hop, Run, RunHeader},
};
use tracing::error;

use super::{DurableQueue, Group, UP};
use crate::delivery::{
    eviction::Decision,
    orders::{Arrived, Checked, Keep, Kept},
    runs::Traits,
};

/// Own messages of one precedence and way, numbered, that become runs.
#[derive(Default)]
pub(super) struct Numbered {
    first: u64,
    bytes: Vec<u8>,
    traits: Vec<Traits>,
}

impl Numbered {
    /// Whether a message of that number would follow the last.
    fn goes_on_at(&self, sequence: u64) -> bool {
        self.traits.is_empty() || self.first + self.traits.len() as u64 == sequence
    }
}

impl DurableQueue {
    pub(super) fn plan_keep(
        &mut self,
        keep: Keep,
        group: &mut Group,
    ) -> Result<Vec<Result<Kept, Refusal>>, StoreError> {
        group.changes.extend(keep.changes);
        self.plan_ends(&keep.ends, group);
        let mut results = Vec::with_capacity(keep.messages.len());
        for message in keep.messages {
            let down = self.keeper.is_some() && is_back(&message.bytes);
            if down {
                results.push(self.keep_back(message, group)?);
                continue;
            }
            let own = self.identity();
            if (message.origin, message.epoch) != (own.id, own.epoch) {
                // The node got its id, or another life, since it was written.
                results.push(Err(Refusal::Busy));
                continue;
            }
            let decision = match self.keeper {
                Some(_) => Decision::Admit,
                None => self.admit(message.precedence, message.bytes.len() as u64, group)?,
            };
            match decision {
                Decision::Reject => {
                    error!(target: "delivery", precedence = %message.precedence,
                        "queue is full and nothing may be evicted; newcomer rejected (QUE-15)");
                    self.state.turn_away(Refusal::QueueFull.name(), 1);
                    group.state_changed = true;
                    results.push(Err(Refusal::QueueFull));
                }
                Decision::Discard => results.push(Ok(self.discard(&message, group))),
                Decision::Admit => {
                    let run = &mut group.own[message.precedence as usize];
                    if !run.goes_on_at(self.state.sequence[message.precedence as usize] + 1) {
                        // A number in between went to a message that is not in this run.
                        let whole = std::mem::take(run);
                        self.keep_run(message.precedence, whole, group)?;
                    }
                    let run = &mut group.own[message.precedence as usize];
                    results.push(Ok(Kept::Stored(self.number(&message, run))));
                }
            }
        }
        Ok(results)
    }

    /// Own messages of one commit become one run a precedence, whoever sent them: here and at each
    /// node above a run costs more than a message.
    pub(super) fn keep_own(&mut self, group: &mut Group) -> Result<(), StoreError> {
        for (precedence, numbered) in Precedence::ALL.iter().zip(std::mem::take(&mut group.own)) {
            self.keep_run(*precedence, numbered, group)?;
        }
        Ok(())
    }

    /// Messages of the records that ended, at the top of the chain.
    fn plan_ends(&mut self, ends: &[(End, u64)], group: &mut Group) {
        for (end, count) in ends.iter().filter(|e| e.1 > 0) {
            group.state_changed = true;
            self.end(*end, *count, if *end == End::Refused { "poison" } else { "" });
        }
    }

    /// Counts messages that left the account's `queued`.
    pub(super) fn end(&mut self, end: End, count: u64, reason: &str) {
        self.state.end(end, count, reason);
    }

    /// Counts messages that came into custody.
    pub(super) fn taken(&mut self, count: u64) {
        self.state.taken(count);
    }

    fn next_id(&mut self, precedence: Precedence) -> (MessageId, u64) {
        let own = self.identity();
        self.state.order += 1;
        let sequence = &mut self.state.sequence[precedence as usize];
        *sequence += 1;
        let id = MessageId { origin: own.id, epoch: own.epoch, precedence, sequence: *sequence };
        (id, self.state.order)
    }

    fn number(&mut self, message: &Unnumbered, into: &mut Numbered) -> MessageId {
        let (id, order) = self.next_id(message.precedence);
        if into.traits.is_empty() {
            into.first = id.sequence;
        }
        let at = into.bytes.len();
        into.bytes.extend_from_slice(&message.bytes);
        fill_in(&mut into.bytes[at..], message.blanks, id.sequence, order);
        into.traits.push(Traits {
            bytes: message.bytes.len(),
            assured: message.persistence == Persistence::Assured,
            time_to_live_s: message.time_to_live_s,
        });
        id
    }

    /// Bulk that found no room: numbered, so that the top can explain the hole, and ended.
    fn discard(&mut self, message: &Unnumbered, group: &mut Group) -> Kept {
        let (id, _) = self.next_id(message.precedence);
        self.taken(1);
        self.end(End::Evicted, 1, "");
        self.report(id, 1, End::Evicted, "", group);
        group.state_changed = true;
        Kept::Evicted(id)
    }

    /// Writes an end report of this node's own.
    pub(super) fn report(
        &mut self,
        first: MessageId,
        count: u32,
        end: End,
        reason: &str,
        group: &mut Group,
    ) {
        let report = EndReport {
            origin: first.origin,
            epoch: first.epoch,
            precedence: first.precedence,
            first: first.sequence,
            count,
            end,
            node: self.identity().id,
            reason: reason.to_owned(),
        };
        self.put_reports(vec![report], group);
    }

    fn own_header(&self, precedence: Precedence, first: u64, count: usize) -> RunHeader {
        let own = self.identity();
        RunHeader {
            origin: own.id,
            epoch: own.epoch,
            precedence,
            first,
            count: count as u32,
            left_out: Vec::new(),
            replayed: false,
            changed: false,
            path: vec![Hop { node: own.id, received: self.now(), sent: 0 }],
        }
    }

    fn keep_run(
        &mut self,
        precedence: Precedence,
        numbered: Numbered,
        group: &mut Group,
    ) -> Result<(), StoreError> {
        let Numbered { first, bytes, traits } = numbered;
        if traits.is_empty() {
            return Ok(());
        }
        group.state_changed = true;
        let bytes = Bytes::from(bytes);
        let header = self.own_header(precedence, first, traits.len());
        if self.keeper.is_some() {
            let run = Run { header, messages: bytes };
            return self.keep_in_records(run, group);
        }
        let up = QueueName::new(UP);
        self.taken(traits.len() as u64);
        self.put_run(&up, Run { header, messages: bytes }, &traits, group);
        group.bells.push(UP.to_owned());
        Ok(())
    }

    /// At the top a message of its own goes through the same keeper as everybody's.
    fn keep_in_records(&mut self, run: Run, group: &mut Group) -> Result<(), StoreError> {
        let now = self.now();
        let read = |m: Result<(_, Blocks<'_>), _>| {
            let (range, blocks): (std::ops::Range<usize>, _) = m?;
            blocks.parts().map(|parts| Checked::of(&parts, range.len(), true))
        };
        let messages: Result<Vec<_>, _> = Messages::of(&run.messages).map(read).collect();
        let messages = messages.map_err(|e| StoreError::Failed(e.to_string()))?;
        let count = messages.len() as u64;
        if let Some(keeper) = &mut self.keeper {
            let plan = keeper.plan(Arrived { run, messages, now })?;
            group.changes.extend(plan.changes);
            self.taken(count);
        }
        Ok(())
    }

    /// A message of the top's own on its way down.
    fn keep_back(
        &mut self,
        message: Unnumbered,
        group: &mut Group,
    ) -> Result<Result<Kept, Refusal>, StoreError> {
        let decoded = Message::decode(&message.bytes);
        let Ok(decoded) = decoded else { return Ok(Err(Refusal::Malformed)) };
        let Some(queue) = self.queue_down(&decoded.header) else {
            return Ok(Err(Refusal::UnknownDestination));
        };
        let mut numbered = Numbered::default();
        let id = self.number(&message, &mut numbered);
        let header = self.own_header(message.precedence, id.sequence, 1);
        let run = Run { header, messages: numbered.bytes.into() };
        self.taken(1);
        group.state_changed = true;
        let queue = QueueName::new(&queue);
        self.put_run(&queue, run, &numbered.traits, group);
        group.bells.push(queue.0.to_string());
        Ok(Ok(Kept::Stored(id)))
    }
}

/// Whether a message in wire bytes goes down.
fn is_back(bytes: &[u8]) -> bool {
    let mut reader = protocol::codec::Reader::new(bytes);
    let blocks = Blocks::take(&mut reader);
    let header = blocks.ok().and_then(|b| HeaderParts::read(b.header).ok());
    header.is_some_and(|h| h.channel == Channel::Back)
}
