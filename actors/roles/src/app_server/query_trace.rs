//! Where a message is or what became of it.
use std::{future::pending, ops::ControlFlow, time::Duration};

use extension::records::{
    ActionState, Answer, FromNodes, Hop, MessageState, RecordsError, Stands, Time, Trace,
    WAIT_S_MAX,
};
use protocol::{
    Header, Message, MessageId, Refusal, RemoteId,
    ends::End,
    limits,
    question::Found,
    run::{self, Run},
};
use tokio::time::Instant;

use super::{
    asking::Round,
    cursors::Cursor,
    index,
    query::{AppRecords, Desk, failed},
    query_asked::Whom,
    rows::{
        CURSORS, ENDED, EndRow, POISON, from_row, number_at, poison_key, stream_of_id, with_numbers,
    },
};
use crate::delivery::{durable_queue::SET_ASIDE, orders::Find};

/// How long what is on its way may take to arrive before it is said to stand where it was found,
/// or to be nowhere: the message goes up while the question goes down, and they may pass.
const ARRIVES_WITHIN: Duration = Duration::from_millis(300);
/// Times that nodes are asked: in a second one what moved in the first is seen.
const ROUNDS: u32 = 2;

impl AppRecords {
    /// Where a message is. What has not arrived is asked for, where `wait_s` allows it.
    pub(crate) async fn trace_for(&self, id: MessageId, wait_s: u64) -> Answer<FromNodes<Trace>> {
        let until = Instant::now() + Duration::from_secs(wait_s.min(WAIT_S_MAX));
        let (trace, whom) = self
            .read(move |desk| {
                let (trace, target) = desk.trace(&id)?;
                let on_its_way = match target {
                    Some(target) => Some(target),
                    None => (trace.state == MessageState::Unknown).then_some(id.origin),
                };
                let whom = on_its_way.map(|component| desk.who_may_hold(&component)).transpose()?;
                Ok((trace, whom))
            })
            .await?;
        let Some(whom) = whom else { return Ok(FromNodes::of_records(trace)) };
        let own = self.desk.identity().id;
        if id.origin == own
            && let Ok(Ok(Some((queue, run, message)))) = self.desk.find.ask(Find(id)).await
        {
            // What goes down stands here first.
            return self.stands(trace, own, found_here(queue, &run, &message)).await;
        }
        match wait_s {
            0 => Ok(FromNodes::of_records(trace)),
            _ => self.asked_for(trace, whom, until).await,
        }
    }

    /// Asks who may have it, until it is found or arrives, or all have said no.
    async fn asked_for(
        &self,
        trace: Trace,
        whom: Whom,
        until: Instant,
    ) -> Answer<FromNodes<Trace>> {
        let id = trace.message_id;
        let mut round = Round::default();
        for _ in 0..ROUNDS {
            round = tokio::select! {
                biased;
                arrived = self.arrives(id, until) => return arrived.map(FromNodes::of_records),
                round = self.ask_nodes(&whom, Some(id), until) => round?,
            };
            let soon = until.min(Instant::now() + ARRIVES_WITHIN);
            // A node that has no id yet cannot be asked: what it sends may come any moment.
            let soon = if id.origin.is_unregistered() { until } else { soon };
            if let Ok(arrived) = tokio::time::timeout_at(soon, self.arrives(id, until)).await {
                return arrived.map(FromNodes::of_records);
            }
            if round.found().is_some() || whom.nodes.is_empty() || Instant::now() >= until {
                break;
            }
        }
        let mut traced = match round.found() {
            Some((node, found)) => self.stands(trace, node, found.clone()).await?,
            None => FromNodes::of_records(trace),
        };
        let unanswered = whom.nodes.into_iter().filter(|node| !round.said.contains_key(node));
        traced.unanswered = Some(unanswered.collect());
        Ok(traced)
    }

    /// The trace of a message as soon as it is stored or has ended; pending beyond `until`.
    async fn arrives(&self, id: MessageId, until: Instant) -> Answer<Trace> {
        let mut stored = self.desk.feed.on_stored();
        loop {
            stored.mark_unchanged();
            let (trace, target) = self.read(move |desk| desk.trace(&id)).await?;
            if trace.state != MessageState::Unknown && target.is_none() {
                return Ok(trace);
            }
            if !matches!(tokio::time::timeout_at(until, stored.changed()).await, Ok(Ok(()))) {
                pending::<()>().await;
            }
        }
    }

    /// A trace with what the node says that has the message.
    async fn stands(&self, trace: Trace, node: RemoteId, found: Found) -> Answer<FromNodes<Trace>> {
        self.read(move |desk| {
            let Found { queue, attempts, reason, class, occurred_at, accepted_at, path } = found;
            let state = match queue == SET_ASIDE {
                true => MessageState::Refused,
                false => MessageState::Queued,
            };
            let answer = Trace {
                state,
                node_id: Some(node),
                reason: Some(reason).filter(|reason| !reason.is_empty()),
                class: Some(class),
                occurred_at: Some(Time(occurred_at)),
                accepted_at: Some(Time(accepted_at)),
                hops: desk.hops(&path)?,
                ..trace
            };
            let stands = Some(Stands { queue, attempts });
            Ok(FromNodes { answer, unanswered: None, stands })
        })
        .await
    }
}

/// What this server says of a message in a queue of its own.
fn found_here(queue: String, run: &Run, message: &Message) -> Found {
    Found {
        queue,
        attempts: 0,
        reason: String::new(),
        class: message.header.class.clone(),
        occurred_at: message.header.occurred_at,
        accepted_at: message.header.accepted_at,
        path: run.header.path.clone(),
    }
}

impl Desk {
    /// What is known of a message now; with the component it goes down to, where it has not been
    /// acted on there.
    fn trace(&self, id: &MessageId) -> Answer<(Trace, Option<RemoteId>)> {
        match self.found(id) {
            Ok(found) => return Ok((self.stored_trace(id, &found)?, None)),
            Err(RecordsError::NotFound) => {}
            Err(error) => return Err(error),
        }
        let mut trace = Trace {
            message_id: *id,
            state: MessageState::Unknown,
            node_id: None,
            reason: None,
            class: None,
            occurred_at: None,
            accepted_at: None,
            stored_at: None,
            hops: Vec::new(),
        };
        let mut target = None;
        if let Some(action) = self.action_of(id)? {
            target = matches!(action.state, ActionState::Queued | ActionState::Asked)
                .then_some(action.target_id);
            trace.state = match action.state {
                ActionState::Answered | ActionState::Sent => MessageState::Delivered,
                ActionState::Expired => MessageState::Expired,
                ActionState::Refused => MessageState::Refused,
                ActionState::Queued | ActionState::Asked => MessageState::Queued,
            };
            trace.class = Some("action".to_owned());
            trace.reason = action.reason;
            (trace.occurred_at, trace.accepted_at) =
                (Some(action.requested_at), Some(action.requested_at));
            trace.node_id = match trace.state {
                MessageState::Queued => Some(self.identity().id),
                _ => Some(action.target_id),
            };
        } else if let Some(end) = self.end_of(id)? {
            trace.state = match end.end {
                End::Delivered => MessageState::Delivered,
                End::Expired => MessageState::Expired,
                End::Evicted => MessageState::Evicted,
                End::Refused => MessageState::Refused,
                End::Consumed => MessageState::Consumed,
            };
            trace.node_id = Some(end.node);
            trace.reason = Some(end.reason).filter(|reason| !reason.is_empty());
        }
        Ok((trace, target))
    }

    /// A path with the names of its nodes.
    fn hops(&self, path: &[run::Hop]) -> Answer<Vec<Hop>> {
        let hop = |hop: &run::Hop| {
            let (node, roles) = self.node_name(&hop.node)?;
            Ok(Hop {
                node,
                node_id: hop.node,
                roles,
                received_at: Time(hop.received),
                sent_at: (hop.sent != 0).then_some(Time(hop.sent)),
            })
        };
        path.iter().map(hop).collect()
    }

    fn stored_trace(&self, id: &MessageId, found: &index::Found) -> Answer<Trace> {
        let header = found.blocks().and_then(|(_, blocks)| Header::read(blocks.header).ok());
        let hops = self.hops(&found.reel.stored.run.header.path)?;
        let poison = self.row(POISON, &poison_key(id.precedence, found.seq()))?.is_some();
        let mut done = true;
        for module in self.modules.iter() {
            let cursor: Option<Cursor> = self.value(CURSORS, module.as_bytes())?;
            done &= cursor.is_some_and(|c| c.is_past(id.precedence, found.seq()));
        }
        let (state, reason) = match (poison, done) {
            (true, _) => (MessageState::Refused, Some(Refusal::Poison.name().to_owned())),
            (false, true) => (MessageState::Delivered, None),
            (false, false) => (MessageState::Queued, None),
        };
        Ok(Trace {
            message_id: *id,
            state,
            node_id: Some(self.identity().id),
            reason,
            class: header.as_ref().map(|h| h.class.clone()),
            occurred_at: header.as_ref().map(|h| Time(h.occurred_at)),
            accepted_at: header.as_ref().map(|h| Time(h.accepted_at)),
            stored_at: Some(Time(found.reel.stored.stored_at())),
            hops,
        })
    }

    /// The end report that covers a message.
    fn end_of(&self, id: &MessageId) -> Answer<Option<EndRow>> {
        let stream = stream_of_id(id);
        // Behind every report that begins at this number.
        let mut to = with_numbers(&stream, &[id.sequence]).to_vec();
        to.extend([0xff; 29]);
        let mut covering = None;
        let mut looked = 0;
        self.store
            .rows_back(ENDED, &stream, &to, &mut |key, value| {
                looked += 1;
                let first = number_at(key, stream.len());
                let row: Option<EndRow> = from_row(value);
                if let Some((first, row)) = first.zip(row)
                    && id.sequence < first + u64::from(row.count)
                {
                    covering = Some(row);
                    return ControlFlow::Break(());
                }
                // Reports are joined below: a long one may begin far ahead of it.
                if looked < limits::BATCH_MESSAGES_MAX {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })
            .map_err(failed)?;
        Ok(covering)
    }
}
