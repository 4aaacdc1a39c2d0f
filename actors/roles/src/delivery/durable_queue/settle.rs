//! What the link takes and what becomes of it.
use bytes::Bytes;
use extension::storage::{Change, QueueName, StoreError};
use protocol::{
    Precedence, Refusal, Verdict,
    ends::{End, EndReport},
    exchange::Outcome,
    limits,
    run::Run,
};
use tracing::warn;

use super::{
    DurableQueue, Group, UP, place_of,
    put::{id_at, sizes_of},
};
use crate::delivery::{
    lanes::Head,
    orders::{Batch, NextBatch, Part, Settle},
    runs::{Gone, Traits},
    state::ENDS,
};

/// Share of the line that bulk gets while others wait, percent (DESIGN §8).
const BULK_SHARE_PERCENT: u64 = 5;
/// Runs looked at for what has expired before a batch is cut.
const EXPIRED_AT_ONCE: usize = 64;

impl DurableQueue {
    pub(super) fn next_batch(&mut self, order: &NextBatch) -> Result<Batch, StoreError> {
        let mut batch = Batch { acknowledgements: self.acknowledgements_now(), ..Batch::default() };
        batch.ends = self.waiting_ends()?;
        batch.beats = self.unsent_beats();
        if order.empty {
            return Ok(batch);
        }
        let up = QueueName::new(UP);
        for precedence in Precedence::ALL {
            self.refill(&up, *precedence, order.bytes_max)?;
        }
        self.expire()?;
        let waits = |queue: &mut Self, p: Precedence| {
            order.allowed[p as usize] && queue.lane(&up, p).heads.iter().any(|h| h.flight.is_none())
        };
        let ready: Vec<_> = Precedence::ALL.iter().copied().filter(|p| waits(self, *p)).collect();
        let Some(first) = ready.first().copied() else { return Ok(batch) };
        let bulk_waits = ready.len() > 1 && ready.contains(&Precedence::Bulk);
        let bulk_turn = bulk_waits && self.bulk_owed >= order.bytes_max as u64;
        let chosen = if bulk_turn { Precedence::Bulk } else { first };
        let bytes = self.cut_batch(&up, chosen, order.bytes_max, &mut batch)?;
        match (bulk_turn, bulk_waits) {
            (true, _) => self.bulk_owed = 0,
            (_, true) => {
                self.bulk_owed += bytes as u64 * BULK_SHARE_PERCENT / (100 - BULK_SHARE_PERCENT);
            }
            _ => self.bulk_owed = 0,
        }
        Ok(batch)
    }

    /// Takes heads of one precedence into the batch, in order; they are in flight now.
    fn cut_batch(
        &mut self,
        up: &QueueName,
        precedence: Precedence,
        bytes_max: usize,
        batch: &mut Batch,
    ) -> Result<usize, StoreError> {
        let (mut bytes, mut messages) = (0, 0);
        for head in self.lane(up, precedence).heads.iter_mut() {
            if head.flight.is_some() {
                continue;
            }
            let count = head.present().count();
            let size = head.bytes();
            let full = bytes + size > bytes_max.min(limits::BATCH_BYTES_MAX)
                || messages + count > limits::BATCH_MESSAGES_MAX
                || batch.runs.len() >= limits::RUNS_MAX;
            if full && !batch.runs.is_empty() {
                break;
            }
            let Some(run) = present_run(head)? else { continue };
            let positions = head.present().collect();
            let expires_at = head.stored.due(&head.gone);
            batch.expires_at = [batch.expires_at, expires_at].into_iter().flatten().min();
            batch.parts.push(Part { place: place_of(precedence, head.position), positions });
            batch.runs.push(run);
            head.flight = Some(1);
            bytes += size;
            messages += count;
        }
        Ok(bytes)
    }

    /// Ends what has expired among the heads, before it is sent (QUE-16).
    fn expire(&mut self) -> Result<(), StoreError> {
        let (up, now) = (QueueName::new(UP), self.now());
        let mut due = Vec::new();
        for precedence in Precedence::ALL {
            let heads = self.lane(&up, *precedence).heads.iter();
            let late = heads
                .filter(|h| h.flight.is_none() && h.stored.expires_at.is_some_and(|at| at <= now));
            due.extend(late.take(EXPIRED_AT_ONCE).map(|h| (*precedence, h.clone())));
        }
        if due.is_empty() {
            return Ok(());
        }
        let mut group = Group::default();
        for (precedence, head) in due {
            let place = place_of(precedence, head.position);
            for at in expired_in(&head, now) {
                self.drop_one(&up, place, at, End::Expired, "", &mut group)?;
            }
        }
        self.write(&mut group)
    }

    fn waiting_ends(&self) -> Result<Vec<(u64, EndReport)>, StoreError> {
        let mut ends = Vec::new();
        self.settings.store.rows(ENDS, &[], &[], &mut |key, value| {
            let number = key.try_into().map(u64::from_be_bytes);
            let report = EndReport::read(&mut protocol::codec::Reader::new(value));
            if let (Ok(number), Ok(report)) = (number, report) {
                ends.push((number, report));
            }
            match ends.len() < limits::ENDS_MAX {
                true => std::ops::ControlFlow::Continue(()),
                false => std::ops::ControlFlow::Break(()),
            }
        })?;
        Ok(ends)
    }

    pub(super) fn release(&mut self) {
        for lane in self.lanes.entry(QueueName::new(UP)).or_default() {
            lane.heads.iter_mut().for_each(|h| h.flight = None);
        }
    }

    pub(super) fn plan_settle(
        &mut self,
        settle: &Settle,
        group: &mut Group,
    ) -> Result<(), StoreError> {
        let mut outcomes =
            settle.outcomes.iter().flat_map(|(o, n)| std::iter::repeat_n(*o, *n as usize));
        for part in &settle.parts {
            let outcomes: Vec<Outcome> = outcomes.by_ref().take(part.positions.len()).collect();
            self.settle_part(part, &outcomes, group)?;
        }
        for end in &settle.ends {
            let key = Bytes::copy_from_slice(&end.to_be_bytes());
            group.changes.push(Change::RemoveRow { table: ENDS, key });
        }
        for (node, beat) in &settle.beats {
            if let Some((known, sent)) = self.beats.get_mut(node)
                && known.beat == *beat
            {
                *sent = true;
            }
        }
        if !settle.outcomes.is_empty() {
            self.state.last_acknowledged_at = self.now();
            group.state_changed = true;
            // What was in flight made room for heads that stood on disk only: the link goes on.
            group.bells.push(UP.to_owned());
        }
        Ok(())
    }

    fn settle_part(
        &mut self,
        part: &Part,
        outcomes: &[Outcome],
        group: &mut Group,
    ) -> Result<(), StoreError> {
        let up = QueueName::new(UP);
        if let Some(head) = self.lane(&up, part.place.precedence).head(part.place.position) {
            head.flight = None;
        }
        // After a restart of the queue it is on disk only; settled twice it is nowhere.
        let Some(head) = self.head_of(&up, part.place, group)? else { return Ok(()) };
        let (mut there, mut refused) = (Vec::new(), Vec::new());
        for (position, outcome) in part.positions.iter().zip(outcomes) {
            match outcome {
                Outcome::Stored | Outcome::Duplicate => there.push(*position),
                Outcome::Refused(r) if r.verdict() == Verdict::GiveUp => {
                    refused.push((*position, *r));
                }
                Outcome::Refused(_) => {}
            }
        }
        if !refused.is_empty() {
            self.give_up(&head, &refused, group)?;
        }
        let gone: Vec<u32> = there.iter().copied().chain(refused.iter().map(|(p, _)| *p)).collect();
        let fresh = |p: &&u32| !head.gone.has(**p);
        let delivered = there.iter().filter(fresh).count() as u64;
        self.gone_from(&up, part.place, head, &gone, group)?;
        if delivered > 0 {
            self.end(End::Delivered, delivered, "");
        }
        Ok(())
    }

    /// The parent refuses messages for ever: they end here, are set aside and told upward.
    fn give_up(
        &mut self,
        head: &Head,
        refused: &[(u32, Refusal)],
        group: &mut Group,
    ) -> Result<(), StoreError> {
        let header = &head.stored.run.header;
        for (position, refusal) in refused.iter().filter(|(p, _)| !head.gone.has(*p)) {
            let id = id_at(header, *position);
            warn!(target: "delivery", message_id = %id, refusal = %refusal, verdict = "give_up",
                "parent refused a message; set aside");
            self.end(End::Refused, 1, refusal.name());
            self.report(id, 1, End::Refused, refusal.name(), group);
        }
        let wanted: Vec<u32> =
            refused.iter().map(|(p, _)| *p).filter(|p| !head.gone.has(*p)).collect();
        let run = head.stored.run.without(|p| !wanted.contains(&p));
        let run = run.map_err(|e| StoreError::Failed(e.to_string()))?;
        if let Some(run) = run {
            let traits = sizes_of(&run)?;
            let traits: Vec<Traits> = traits
                .into_iter()
                .map(|(_, bytes)| Traits { bytes, assured: false, time_to_live_s: None })
                .collect();
            self.set_aside(run, &traits, group)?;
        }
        Ok(())
    }
}

/// The run as it is sent: without what is gone.
fn present_run(head: &Head) -> Result<Option<Run>, StoreError> {
    let run = &head.stored.run;
    if head.gone == Gone::default() {
        return Ok(Some(run.clone()));
    }
    run.without(|p| head.gone.has(p)).map_err(|e| StoreError::Failed(e.to_string()))
}

/// Positions of a run that have outlived their time.
fn expired_in(head: &Head, now: i64) -> Vec<u32> {
    let late = |traits: &Traits| head.stored.expires_at(traits).is_some_and(|at| at <= now);
    head.stored.left(&head.gone).filter(|(_, traits)| late(traits)).map(|(at, _)| at).collect()
}
