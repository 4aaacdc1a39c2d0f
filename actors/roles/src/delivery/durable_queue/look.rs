//! Looking without changing: figures, one message by its id, what waits.
use std::ops::ControlFlow;

use actix::prelude::*;
use bytes::Bytes;
use extension::storage::{QueueName, StoreError, Value};
use protocol::{
    Message, MessageId, Precedence, Refusal, heartbeat::Depth, message::Messages, run::Run,
};

use super::{DurableQueue, Group, put::sizes_of};
use crate::delivery::{
    orders::{
        AskFigures, Batch, DownFor, Figures, Find, LocalMessage, NextBatch, NextLocal, Release,
    },
    runs::{StoredRun, received},
};

impl DurableQueue {
    fn figures(&mut self) -> Figures {
        let now = self.now();
        let names: Vec<String> = self.state.held.keys().cloned().collect();
        let mut queues = Vec::with_capacity(names.len());
        for name in names {
            let held = self.state.held(&name);
            let queue = QueueName::new(&name);
            let mut depths = [Depth::default(); 3];
            for precedence in Precedence::ALL {
                let i = *precedence as usize;
                if held[i].messages == 0 {
                    continue;
                }
                let oldest_age_ms = self.oldest_age(&queue, *precedence, now);
                depths[i] =
                    Depth { messages: held[i].messages, bytes: held[i].bytes, oldest_age_ms };
            }
            queues.push((name, depths));
        }
        Figures {
            account: self.state.account,
            refused: self.state.refused.clone().into_iter().collect(),
            turned_away: self.state.turned_away.clone().into_iter().collect(),
            queues,
            last_acknowledged_at: self.state.last_acknowledged_at,
            storage: self.storage.clone(),
            beats: self.beats.values().map(|(beat, _)| beat.clone()).collect(),
        }
    }

    /// How long the oldest message of a lane has waited here, ms.
    fn oldest_age(&mut self, queue: &QueueName, precedence: Precedence, now: i64) -> u64 {
        // A store that cannot be read is told by `storage`; the age is then not known.
        let _ = self.refill(queue, precedence, 1);
        let head = self.lane(queue, precedence).heads.front();
        head.map_or(0, |h| (now - received(&h.stored.run.header)).max(0) as u64)
    }

    fn find(&self, id: &MessageId) -> Result<Option<(String, Run, Message)>, StoreError> {
        for queue in self.settings.store.queues()? {
            let mut found = None;
            self.settings.store.runs(&queue, id.precedence, 0, &mut |_, value| {
                if let Value::Good(raw) = value
                    && let Ok(stored) = StoredRun::decode(&Bytes::copy_from_slice(raw))
                    && let Some(message) = message_of(&stored.run, id)
                {
                    found = Some((stored.run, message));
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            if let Some((run, message)) = found {
                return Ok(Some((queue.0.to_string(), run, message)));
            }
        }
        Ok(None)
    }
}

/// The message of that id in a run.
fn message_of(run: &Run, id: &MessageId) -> Option<Message> {
    let header = &run.header;
    let in_run =
        (header.origin, header.epoch, header.precedence) == (id.origin, id.epoch, id.precedence);
    let at = id.sequence.checked_sub(header.first).filter(|at| *at < header.count.into())?;
    if !in_run {
        return None;
    }
    let places = sizes_of(run).ok()?;
    let i = places.iter().position(|(position, _)| u64::from(*position) == at)?;
    Messages::of(&run.messages).nth(i)?.ok()?.1.decode().ok()
}

impl Handler<AskFigures> for DurableQueue {
    type Result = MessageResult<AskFigures>;

    fn handle(&mut self, _: AskFigures, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.figures())
    }
}

impl Handler<Find> for DurableQueue {
    type Result = Result<Option<(String, Run, Message)>, Refusal>;

    fn handle(&mut self, find: Find, _: &mut Context<Self>) -> Self::Result {
        self.find(&find.0).map_err(|e| self.read_failed(&e))
    }
}

impl Handler<NextBatch> for DurableQueue {
    type Result = Result<Batch, Refusal>;

    fn handle(&mut self, order: NextBatch, _: &mut Context<Self>) -> Self::Result {
        self.next_batch(&order).map_err(|e| self.read_failed(&e))
    }
}

impl Handler<Release> for DurableQueue {
    type Result = ();

    fn handle(&mut self, _: Release, _: &mut Context<Self>) {
        self.release();
    }
}

impl Handler<DownFor> for DurableQueue {
    type Result = Result<Vec<Run>, Refusal>;

    fn handle(&mut self, order: DownFor, _: &mut Context<Self>) -> Self::Result {
        let mut group = Group::default();
        let down = self.take_down_for(&order.0, &mut group);
        let written = down.and_then(|down| self.write(&mut group).map(|()| down));
        written.map_err(|e| self.read_failed(&e))
    }
}

impl Handler<NextLocal> for DurableQueue {
    type Result = Result<Vec<LocalMessage>, Refusal>;

    fn handle(&mut self, order: NextLocal, _: &mut Context<Self>) -> Self::Result {
        self.next_local(&order).map_err(|e| self.read_failed(&e))
    }
}

impl DurableQueue {
    fn read_failed(&mut self, error: &StoreError) -> Refusal {
        self.failed(error);
        Refusal::StorageDown
    }
}
