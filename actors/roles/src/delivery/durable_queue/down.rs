//! The back-channel: what the parent handed down, what waits for a child, what is local.
use std::{collections::HashMap, ops::ControlFlow};

use actix::prelude::*;
use extension::storage::{Change, QueueName, QueueStore, StoreError};
use protocol::{
    Precedence, Refusal, RemoteId,
    ends::End,
    exchange::{Acknowledgement, Sender},
    limits,
    message::{Channel, Header, Messages},
    run::{Hop, Run},
};
use tracing::warn;

use super::{DurableQueue, Group, place_of, put::id_at};
use crate::delivery::{
    orders::{Downward, FinishLocal, LocalMessage, NextLocal, Part, TakeDown},
    retry,
    router::{self, Route, Way},
    runs::{Traits, received},
    state::{LOCAL, ROUTES},
};

/// Acknowledgements that wait for the next exchange.
const ACKNOWLEDGEMENTS_MAX: usize = limits::ACKNOWLEDGEMENTS_MAX;

impl DurableQueue {
    /// Name of the queue that leads to the destination; none: nobody is known to.
    pub(super) fn queue_down(&self, header: &Header) -> Option<String> {
        match router::way(header, self.identity()) {
            Way::Own => Some("local/node".to_owned()),
            Way::Local(integrator) => {
                let number = integrator.number(2).unwrap_or_default();
                let name = self.local.get(&integrator).cloned();
                Some(format!("local/{}", name.unwrap_or_else(|| number.to_string())))
            }
            Way::Below(key) => self.routes.get(&key).map(|route| {
                router::down_queue(&Sender { id: route.child, epoch: route.child_epoch })
            }),
            Way::Nowhere => None,
        }
    }

    pub(super) fn plan_take_down(
        &mut self,
        take: TakeDown,
        group: &mut Group,
    ) -> Result<Vec<Acknowledgement>, StoreError> {
        let mut acknowledged = Vec::new();
        for run in take.0 {
            self.take_down_run(run, &mut acknowledged, group)?;
        }
        let room = ACKNOWLEDGEMENTS_MAX.saturating_sub(self.acknowledgements.len());
        self.acknowledgements.extend(acknowledged.iter().take(room));
        Ok(acknowledged)
    }

    /// Each message of the run goes its own way; what came before is only acknowledged again.
    fn take_down_run(
        &mut self,
        run: Run,
        acknowledged: &mut Vec<Acknowledgement>,
        group: &mut Group,
    ) -> Result<(), StoreError> {
        let (own, now) = (self.identity().id, self.now());
        let attempt = received(&run.header);
        let there: Vec<u32> =
            (0..run.header.count).filter(|p| !run.header.is_left_out(*p)).collect();
        for (position, message) in there.iter().zip(Messages::of(&run.messages)) {
            let id = id_at(&run.header, *position);
            acknowledged.push(Acknowledgement { id, received: attempt });
            let Ok((range, blocks)) = message else { break };
            let parts = blocks.parts();
            let queue = match &parts {
                Ok(m) if m.header.channel == Channel::Back => self.queue_down(&m.header.owned()),
                _ => None,
            };
            let (Ok(parts), Some(queue)) = (parts, queue) else {
                // Discarded; who sent it hears of it when its time ends without an answer (RTE-4).
                warn!(target: "delivery", message_id = %id, "no way down to its destination");
                self.state.turn_away(Refusal::UnknownDestination.name(), 1);
                group.state_changed = true;
                continue;
            };
            let queue = QueueName::new(&queue);
            if self.holds(&queue, &id)? {
                continue;
            }
            let mut header = run.header.clone();
            (header.first, header.count) = (id.sequence, 1);
            header.left_out.clear();
            header.path.push(Hop { node: own, received: now, sent: 0 });
            let traits = [Traits::of(&parts.header, range.len())];
            let messages = run.messages.slice(range);
            self.taken(1);
            self.put_run(&queue, Run { header, messages }, &traits, group);
            group.bells.push(queue.0.to_string());
        }
        Ok(())
    }

    fn holds(&mut self, queue: &QueueName, id: &protocol::MessageId) -> Result<bool, StoreError> {
        self.refill(queue, id.precedence, limits::DOWN_BYTES_MAX)?;
        let heads = &self.lane(queue, id.precedence).heads;
        Ok(heads.iter().any(|h| {
            let header = &h.stored.run.header;
            header.origin == id.origin && header.epoch == id.epoch && header.first == id.sequence
        }))
    }

    /// What waits for a child and was not sent to it just now, and what it is asked.
    pub(super) fn take_down_for(
        &mut self,
        child: &Sender,
        group: &mut Group,
    ) -> Result<Downward, StoreError> {
        let now = self.now();
        let questions = self.questions.of_child(child, now);
        let again_in_ms = self.questions.again_in_ms(child, now);
        let mut down = Downward { runs: Vec::new(), questions, again_in_ms };
        for queue in router::down_queues(child) {
            self.take_down_from(&QueueName::new(&queue), &mut down, group)?;
        }
        Ok(down)
    }

    fn take_down_from(
        &mut self,
        queue: &QueueName,
        down: &mut Downward,
        group: &mut Group,
    ) -> Result<(), StoreError> {
        if self.state.held(&queue.0).iter().all(|h| h.messages == 0) {
            return Ok(());
        }
        let (now, mut bytes) = (self.now(), 0);
        for precedence in Precedence::ALL {
            self.refill(queue, *precedence, limits::DOWN_BYTES_MAX)?;
            for head in self.lane(queue, *precedence).heads.iter_mut() {
                if head.stored.expires_at.is_some_and(|at| at <= now) {
                    continue;
                }
                let wait = retry::down_again_ms(head.sent, head.bytes());
                // What was sent in the future was sent before the clock was set back.
                let sent = head.flight.map(|at| at as i64).filter(|at| *at <= now);
                let due = sent.map_or(i64::MIN, |at| at + wait);
                if due <= now && bytes + head.bytes() <= limits::DOWN_BYTES_MAX {
                    bytes += head.bytes();
                    head.flight = Some(now.max(0) as u64);
                    head.sent = head.sent.saturating_add(1);
                    let mut run = head.stored.run.clone();
                    if let Some(hop) = run.header.path.last_mut() {
                        hop.sent = now;
                    }
                    down.runs.push(run);
                }
                let wait = retry::down_again_ms(head.sent, head.bytes());
                let due = head.flight.map_or(now, |at| at as i64 + wait);
                let in_ms = (due - now).max(0).unsigned_abs();
                down.again_in_ms = Some(down.again_in_ms.map_or(in_ms, |known| known.min(in_ms)));
            }
        }
        self.expire_down(queue, now, group)
    }

    /// Back-channel messages that nobody fetched in time end as expired.
    fn expire_down(
        &mut self,
        queue: &QueueName,
        now: i64,
        group: &mut Group,
    ) -> Result<(), StoreError> {
        for precedence in Precedence::ALL {
            let heads = self.lane(queue, *precedence).heads.iter();
            let late = heads.filter(|h| h.stored.expires_at.is_some_and(|at| at <= now));
            let late: Vec<_> =
                late.map(|h| (h.position, h.present().collect::<Vec<_>>())).collect();
            for (position, present) in late {
                for at in present {
                    let place = place_of(*precedence, position);
                    self.drop_one(queue, place, at, End::Expired, "", group)?;
                }
            }
        }
        Ok(())
    }

    /// The child has it on its disk.
    pub(super) fn plan_acknowledged(
        &mut self,
        acknowledgement: &Acknowledgement,
        child: &Sender,
        group: &mut Group,
    ) -> Result<(), StoreError> {
        for queue in router::down_queues(child) {
            let queue = QueueName::new(&queue);
            let id = acknowledgement.id;
            if self.state.held(&queue.0)[id.precedence as usize].messages == 0 {
                continue;
            }
            self.refill(&queue, id.precedence, limits::DOWN_BYTES_MAX)?;
            let found = self.lane(&queue, id.precedence).heads.iter().find(|h| {
                let header = &h.stored.run.header;
                (header.origin, header.epoch, header.first) == (id.origin, id.epoch, id.sequence)
                    && received(header) == acknowledgement.received
            });
            if let Some(head) = found.cloned() {
                let place = place_of(id.precedence, head.position);
                let present: Vec<u32> = head.present().collect();
                let count = self.gone_from(&queue, place, head, &present, group)?;
                self.end(End::Delivered, u64::from(count), "");
            }
        }
        Ok(())
    }

    /// Acknowledgements for the parent; what an exchange lost is acknowledged when it comes again.
    pub(super) fn acknowledgements_now(&mut self) -> Vec<Acknowledgement> {
        std::mem::take(&mut self.acknowledgements)
    }

    pub(super) fn next_local(
        &mut self,
        order: &NextLocal,
    ) -> Result<Vec<LocalMessage>, StoreError> {
        let queue = QueueName::new(&order.queue);
        let mut found = Vec::new();
        for precedence in Precedence::ALL {
            self.refill(&queue, *precedence, limits::DOWN_BYTES_MAX)?;
            for head in &self.lane(&queue, *precedence).heads {
                for (at, message) in super::put::sizes_of(&head.stored.run)?
                    .iter()
                    .zip(Messages::of(&head.stored.run.messages))
                {
                    if found.len() >= order.messages_max || head.gone.has(at.0) {
                        continue;
                    }
                    let message = message.and_then(|(_, blocks)| blocks.decode());
                    let message = message.map_err(|e| StoreError::Failed(e.to_string()))?;
                    let place = place_of(*precedence, head.position);
                    let part = Part { place, positions: vec![at.0] };
                    found.push(LocalMessage { part, message });
                }
            }
        }
        Ok(found)
    }

    pub(super) fn plan_finish(
        &mut self,
        finish: FinishLocal,
        group: &mut Group,
    ) -> Result<(), StoreError> {
        let queue = QueueName::new(&finish.queue);
        for at in &finish.part.positions {
            let place = finish.part.place;
            self.drop_one(&queue, place, *at, finish.end, &finish.reason, group)?;
        }
        group.changes.extend(finish.changes);
        Ok(())
    }
}

pub(super) fn read_routes(store: &dyn QueueStore) -> Result<HashMap<Vec<u8>, Route>, StoreError> {
    let mut routes = HashMap::new();
    store.rows(ROUTES, &[], &[], &mut |key, value| {
        // A route that cannot be read is learned again with the next heartbeat.
        if let Ok(route) = rmp_serde::from_slice(value) {
            routes.insert(key.to_vec(), route);
        }
        ControlFlow::Continue(())
    })?;
    Ok(routes)
}

pub(super) fn read_local_names(
    store: &dyn QueueStore,
) -> Result<HashMap<RemoteId, String>, StoreError> {
    let mut names = HashMap::new();
    store.rows(LOCAL, &[], &[], &mut |key, value| {
        if let (Ok(id), Ok(name)) = (RemoteId::from_bytes(key), std::str::from_utf8(value)) {
            names.insert(id, name.to_owned());
        }
        ControlFlow::Continue(())
    })?;
    Ok(names)
}

/// A row that names the queue of an integrator: `local/NAME`.
pub fn local_name(integrator: &RemoteId, name: &str) -> Change {
    let key = integrator.as_bytes().to_vec().into();
    Change::PutRow { table: LOCAL, key, value: name.as_bytes().to_vec().into() }
}

/// The names of local queues changed on disk.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ReadNames;

impl Handler<ReadNames> for DurableQueue {
    type Result = ();

    fn handle(&mut self, _: ReadNames, _: &mut Context<Self>) {
        if let Ok(names) = read_local_names(&*self.settings.store) {
            self.local = names;
        }
    }
}
