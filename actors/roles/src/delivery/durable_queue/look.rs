//! Looking without changing: figures, one message by its id, what waits.
use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use actix::prelude::*;
use bytes::Bytes;
use extension::storage::{QueueName, QueueStore, StoreError, Value};
use protocol::{
    Message, MessageId, Precedence, Refusal, heartbeat::Depth, message::Messages, run::Run,
};
use tracing::warn;

use super::{DurableQueue, Group, place_of, put::sizes_of};
use crate::delivery::{
    lanes::gone_key,
    orders::{
        AskFigures, Batch, DownFor, Downward, Figures, Find, LocalMessage, NextBatch, NextLocal,
        Release,
    },
    runs::{Gone, StoredRun, received},
    state::GONE,
};

/// How long a message is looked for: a disk's worth of a few gigabytes.
const FIND_WITHIN: Duration = Duration::from_secs(4);

impl DurableQueue {
    fn figures(&mut self) -> Figures {
        let now = self.now();
        let names: Vec<String> = self.state.held.keys().cloned().collect();
        let mut queues = Vec::with_capacity(names.len());
        let mut drains_in_s = Vec::with_capacity(names.len());
        for name in names {
            let held = self.state.held(&name);
            let queue = QueueName::new(&name);
            let mut depths = [Depth::default(); 3];
            drains_in_s.push([0, 1, 2].map(|precedence| self.drains_in_s(&queue, precedence)));
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
        // What no commit took along yet is told all the same.
        let (mut account, mut turned_away) = (self.state.account, self.state.turned_away.clone());
        for (reason, count) in self.settings.turned_away.counts() {
            *turned_away.entry(reason.to_owned()).or_default() += count;
            account.turned_away += count;
        }
        Figures {
            account,
            refused: self.state.refused.clone().into_iter().collect(),
            turned_away: turned_away.into_iter().collect(),
            queues,
            drains_in_s,
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
}

/// Looks through queues on disk for a message that is not gone; what takes longer than `until` is
/// not found.
fn find(
    store: &dyn QueueStore,
    queues: Vec<QueueName>,
    id: &MessageId,
    until: Instant,
) -> Result<Option<Stands>, StoreError> {
    for queue in queues {
        let (mut found, mut failed) = (None, None);
        store.runs(&queue, id.precedence, 0, &mut |position, value| {
            if let Value::Good(raw) = value
                && let Ok(stored) = StoredRun::decode(&Bytes::copy_from_slice(raw))
                && let Some((at, message)) = message_of(&stored.run, id)
            {
                match store.row(GONE, &gone_key(&queue, place_of(id.precedence, position))) {
                    Ok(Some(row)) if Gone::from_bytes(&row).has(at) => {}
                    Ok(_) => found = Some((stored.run, message)),
                    Err(error) => failed = Some(error),
                }
            }
            match found.is_some() || failed.is_some() || Instant::now() > until {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if let Some((run, message)) = found {
            return Ok(Some((queue.0.to_string(), run, message)));
        }
        if Instant::now() > until {
            break;
        }
    }
    Ok(None)
}

/// The queue a message stands in, its run, and the message.
type Stands = (String, Run, Message);

/// The message of that id in a run, and its position.
fn message_of(run: &Run, id: &MessageId) -> Option<(u32, Message)> {
    let header = &run.header;
    let in_run =
        (header.origin, header.epoch, header.precedence) == (id.origin, id.epoch, id.precedence);
    let at = id.sequence.checked_sub(header.first).filter(|at| *at < header.count.into())?;
    if !in_run {
        return None;
    }
    let places = sizes_of(run).ok()?;
    let i = places.iter().position(|(position, _)| u64::from(*position) == at)?;
    let message = Messages::of(&run.messages).nth(i)?.ok()?.1.decode().ok()?;
    Some((places[i].0, message))
}

impl Handler<AskFigures> for DurableQueue {
    type Result = MessageResult<AskFigures>;

    fn handle(&mut self, _: AskFigures, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.figures())
    }
}

/// On a thread of its own: a long queue is long to look through, and nothing waits for that.
impl Handler<Find> for DurableQueue {
    type Result = ResponseFuture<Result<Option<Stands>, Refusal>>;

    fn handle(&mut self, Find(id): Find, _: &mut Context<Self>) -> Self::Result {
        let store = self.settings.store.clone();
        let queues: Vec<QueueName> = self.state.held.keys().map(|n| QueueName::new(n)).collect();
        Box::pin(async move {
            let until = Instant::now() + FIND_WITHIN;
            let look = move || find(&*store, queues, &id, until);
            let found = tokio::task::spawn_blocking(look).await;
            match found {
                Ok(found) => found.map_err(|error| {
                    warn!(target: "delivery", %error, message_id = %id, "not looked for");
                    Refusal::StorageDown
                }),
                Err(_panicked) => Err(Refusal::Internal),
            }
        })
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
    type Result = Result<Downward, Refusal>;

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
