//! Taking an exchange of a child: its number, room, one commit, one answer.
use std::time::Instant;

use actix::prelude::*;
use bytes::Bytes;
use extension::storage::{Change, QueueName, StoreError};
use protocol::{
    Message, Refusal, Verdict,
    exchange::{Exchange, Outcome, in_rows},
    heartbeat::Heartbeat,
    run::{Hop, Run},
    service::Service,
};
use tracing::warn;

use super::{BEATS_MAX, DurableQueue, EARLY_WAIT, Group, Job, Reply, UP};
use crate::delivery::{
    eviction::Decision,
    exchanges::{ChildMemory, Judgement},
    orders::{Arrived, Checked, Take, Taken},
    router::{self, is_newer},
    runs::Traits,
    state::EXCHANGES,
};

impl DurableQueue {
    pub(super) fn plan_take(
        &mut self,
        mut take: Box<Take>,
        since: Instant,
        reply: Reply<Taken>,
        group: &mut Group,
        ctx: &mut Context<Self>,
    ) -> Result<(), StoreError> {
        let exchange = &take.exchange;
        let key = memory_key(exchange);
        let judgement = match exchange.number {
            0 => Judgement::Repeat(Vec::new()),
            _ => self.memory_of(&key)?.judge(exchange),
        };
        if judgement == Judgement::Early && since.elapsed() < EARLY_WAIT {
            // The one before it travels on another connection and is due any moment.
            self.early.push(Job::Take(take, since, reply));
            ctx.run_later(EARLY_WAIT, |queue, ctx| queue.wake_early(ctx));
            return Ok(());
        }
        self.plan_beside(&take, group)?;
        let checked = std::mem::take(&mut take.checked);
        let exchange = &take.exchange;
        let outcomes = match judgement {
            Judgement::Take => {
                let outcomes = self.plan_runs(exchange, checked, group)?;
                let memory = self.memory_of(&key)?;
                memory.note(exchange, &outcomes);
                let value =
                    rmp_serde::to_vec(&*memory).map_err(|e| StoreError::Failed(e.to_string()))?;
                let (key, value) = (key.into(), value.into());
                group.changes.push(Change::PutRow { table: EXCHANGES, key, value });
                if !self.early.is_empty() {
                    ctx.run_later(std::time::Duration::ZERO, |queue, ctx| queue.wake_early(ctx));
                }
                outcomes
            }
            Judgement::Repeat(outcomes) => outcomes,
            Judgement::Early => all(exchange, Refusal::Busy),
            Judgement::NewIncarnation => all(exchange, Refusal::NewIncarnation),
        };
        let down = self.take_down_for(&exchange.sender, group)?;
        group.answer(reply, Ok(Taken { outcomes, down }));
        Ok(())
    }

    fn wake_early(&mut self, ctx: &mut Context<Self>) {
        let early = std::mem::take(&mut self.early);
        for job in early {
            self.add(job, ctx);
        }
    }

    /// What rides in any exchange and is processed again in a repeat: heartbeats, end reports,
    /// acknowledgements.
    fn plan_beside(&mut self, take: &Take, group: &mut Group) -> Result<(), StoreError> {
        let exchange = &take.exchange;
        for beat in &take.beats {
            self.learn(&beat.node, beat.epoch, beat.order, exchange, group)?;
            self.note_beat(beat.clone());
            group.bells.push(UP.to_owned());
        }
        if !exchange.ends.is_empty() {
            match &mut self.keeper {
                Some(keeper) => group.changes.extend(keeper.ends(&exchange.ends)?),
                None => {
                    self.put_reports(exchange.ends.clone(), group);
                    group.bells.push(UP.to_owned());
                }
            }
        }
        for acknowledgement in &exchange.acknowledgements {
            self.plan_acknowledged(acknowledgement, &exchange.sender, group)?;
        }
        Ok(())
    }

    /// Keeps the newest heartbeat of each node.
    pub(super) fn note_beat(&mut self, beat: Heartbeat) {
        let newer = self
            .beats
            .get(&beat.node)
            .is_none_or(|(known, _)| (known.epoch, known.beat) < (beat.epoch, beat.beat));
        if newer && (self.beats.len() < BEATS_MAX || self.beats.contains_key(&beat.node)) {
            self.beats.insert(beat.node, (beat, false));
        }
    }

    pub(super) fn unsent_beats(&self) -> Vec<Heartbeat> {
        let unsent = self.beats.values().filter(|(_, sent)| !sent).map(|(beat, _)| beat.clone());
        unsent.take(protocol::limits::BEATS_MAX).collect()
    }

    fn plan_runs(
        &mut self,
        exchange: &Exchange,
        checked: Vec<Vec<Result<Checked, Refusal>>>,
        group: &mut Group,
    ) -> Result<Vec<(Outcome, u32)>, StoreError> {
        let own = self.identity().id;
        let mut outcomes = Vec::new();
        let mut again: Option<Refusal> = None;
        for (run, checked) in exchange.runs.iter().zip(checked) {
            // Number 0 is anybody's who is not registered yet.
            let known = !own.is_unregistered();
            if known && again.is_none() && run.header.path.iter().any(|h| h.node == own) {
                warn!(target: "delivery", origin = %run.header.origin,
                    "this node is in the path already: look for a circle among the parents");
                again = Some(Refusal::Loop);
            }
            if let Some(refusal) = again {
                self.turn_away(refusal, checked.len(), group);
                outcomes.extend(checked.iter().map(|_| Outcome::Refused(refusal)));
                continue;
            }
            self.plan_run(exchange, run, checked, &mut outcomes, &mut again, group)?;
        }
        Ok(in_rows(outcomes))
    }

    fn turn_away(&mut self, refusal: Refusal, messages: usize, group: &mut Group) {
        self.state.turn_away(refusal.name(), messages as u64);
        group.state_changed = true;
    }

    /// Decides message by message; after a try again all the rest is try again.
    fn plan_run(
        &mut self,
        exchange: &Exchange,
        run: &Run,
        checked: Vec<Result<Checked, Refusal>>,
        outcomes: &mut Vec<Outcome>,
        again: &mut Option<Refusal>,
        group: &mut Group,
    ) -> Result<(), StoreError> {
        let there: Vec<u32> =
            (0..run.header.count).filter(|p| !run.header.is_left_out(*p)).collect();
        let count = checked.len();
        let (mut stays, mut taken) = (Vec::new(), Vec::with_capacity(count));
        let first_outcome = outcomes.len();
        for (i, message) in checked.into_iter().enumerate() {
            let refusal = match (again.as_ref(), message) {
                (Some(refusal), _) => Some(*refusal),
                (None, Err(refusal)) => Some(refusal),
                (None, Ok(checked)) => {
                    let bytes = checked.traits.bytes as u64;
                    let room = match self.keeper {
                        Some(_) => Decision::Admit,
                        None => self.admit(run.header.precedence, bytes, group)?,
                    };
                    (room != Decision::Admit).then_some(Refusal::QueueFull).or_else(|| {
                        stays.push(there[i]);
                        taken.push(checked);
                        None
                    })
                }
            };
            if let Some(refusal) = refusal {
                if refusal.verdict() == Verdict::TryAgain {
                    again.get_or_insert(refusal);
                }
                self.turn_away(refusal, 1, group);
            }
            outcomes.push(refusal.map_or(Outcome::Stored, Outcome::Refused));
        }
        if stays.is_empty() {
            return Ok(());
        }
        let mut kept = match stays.len() == count {
            true => run.clone(),
            false => {
                let part = run.without(|p| !stays.contains(&p));
                part.map_err(|e| StoreError::Failed(e.to_string()))?.unwrap_or_else(|| run.clone())
            }
        };
        let (node, received) = (self.identity().id, self.now());
        kept.header.path.push(Hop { node, received, sent: 0 });
        for message in taken.iter().filter_map(|checked| checked.message.as_deref()) {
            self.learn_from(message, exchange, group)?;
        }
        self.plan_kept(kept, taken, &mut outcomes[first_outcome..], group)
    }

    fn plan_kept(
        &mut self,
        run: Run,
        messages: Vec<Checked>,
        outcomes: &mut [Outcome],
        group: &mut Group,
    ) -> Result<(), StoreError> {
        group.state_changed = true;
        let now = self.now();
        let Some(keeper) = &mut self.keeper else {
            let traits: Vec<Traits> = messages.iter().map(|checked| checked.traits).collect();
            self.taken(traits.len() as u64);
            self.put_run(&QueueName::new(UP), run, &traits, group);
            group.bells.push(UP.to_owned());
            return Ok(());
        };
        let plan = keeper.plan(Arrived { run, messages, now })?;
        group.changes.extend(plan.changes);
        let stored = plan.outcomes.iter().filter(|o| **o == Outcome::Stored).count() as u64;
        self.state.account.duplicates += plan.outcomes.len() as u64 - stored;
        self.taken(stored);
        group.bells.push("records".to_owned());
        let places = outcomes.iter_mut().filter(|o| **o == Outcome::Stored);
        for (place, outcome) in places.zip(plan.outcomes) {
            *place = outcome;
        }
        Ok(())
    }

    /// A registration of a node on its way up teaches the route down (`delivery.md` §7).
    fn learn_from(
        &mut self,
        message: &Message,
        exchange: &Exchange,
        group: &mut Group,
    ) -> Result<(), StoreError> {
        match &message.service {
            Service::Registration(_) => {
                let h = &message.header;
                self.learn(&h.id.origin.cut(1), h.id.epoch, h.order, exchange, group)
            }
            _ => Ok(()),
        }
    }

    fn learn(
        &mut self,
        node: &protocol::RemoteId,
        epoch: u64,
        order: u64,
        exchange: &Exchange,
        group: &mut Group,
    ) -> Result<(), StoreError> {
        let key = router::key(node, epoch);
        if !is_newer(self.routes.get(&key), epoch, order) {
            return Ok(());
        }
        let child = exchange.sender;
        let same = self
            .routes
            .get(&key)
            .is_some_and(|r| (r.child, r.child_epoch, r.epoch) == (child.id, child.epoch, epoch));
        let route = router::Route { child: child.id, child_epoch: child.epoch, epoch, order };
        // The order moves with each heartbeat; on disk it matters only when the way changes.
        if !same {
            let value = rmp_serde::to_vec(&route).map_err(|e| StoreError::Failed(e.to_string()))?;
            let (key, value) = (Bytes::copy_from_slice(&key), value.into());
            group.changes.push(Change::PutRow { table: super::state::ROUTES, key, value });
        }
        self.routes.insert(key, route);
        Ok(())
    }

    fn memory_of(&mut self, key: &[u8]) -> Result<&mut ChildMemory, StoreError> {
        if !self.memory.contains_key(key) {
            let row = self.settings.store.row(EXCHANGES, key)?;
            let known = row.and_then(|row| rmp_serde::from_slice(&row).ok());
            self.memory.insert(key.to_vec(), known.unwrap_or_default());
        }
        Ok(self.memory.entry(key.to_vec()).or_default())
    }
}

fn all(exchange: &Exchange, refusal: Refusal) -> Vec<(Outcome, u32)> {
    let messages: u32 = exchange.runs.iter().map(|r| r.header.present()).sum();
    vec![(Outcome::Refused(refusal), messages)]
}

fn memory_key(exchange: &Exchange) -> Vec<u8> {
    let mut key = router::key(&exchange.sender.id, exchange.sender.epoch);
    key.push(exchange.precedence as u8);
    key
}
