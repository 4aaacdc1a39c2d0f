//! Where a message is or what became of it.
use std::{ops::ControlFlow, time::Duration};

use extension::records::{
    ActionState, Answer, Hop, MessageState, RecordsError, Time, Trace, WAIT_S_MAX,
};
use protocol::{Header, MessageId, Refusal, ends::End, limits};

use super::{
    cursors::Cursor,
    index::Found,
    query::{AppRecords, Desk, failed},
    rows::{
        CURSORS, ENDED, EndRow, POISON, from_row, number_at, poison_key, stream_of_id, with_numbers,
    },
};

impl AppRecords {
    /// Waits for a message that has not arrived, at most `wait_s` seconds.
    pub(crate) async fn trace_for(&self, id: MessageId, wait_s: u64) -> Answer<Trace> {
        let wait = Duration::from_secs(wait_s.min(WAIT_S_MAX));
        let until = tokio::time::Instant::now() + wait;
        let mut stored = self.desk.feed.on_stored();
        loop {
            stored.mark_unchanged();
            let trace = self.read(move |desk| desk.trace(&id)).await?;
            if trace.state != MessageState::Unknown {
                return Ok(trace);
            }
            let next = tokio::time::timeout_at(until, stored.changed()).await;
            if !matches!(next, Ok(Ok(()))) {
                return Ok(trace);
            }
        }
    }
}

impl Desk {
    /// What is known of a message now.
    fn trace(&self, id: &MessageId) -> Answer<Trace> {
        match self.found(id) {
            Ok(found) => return self.stored_trace(id, &found),
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
        if let Some(action) = self.action_of(id)? {
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
        Ok(trace)
    }

    fn stored_trace(&self, id: &MessageId, found: &Found) -> Answer<Trace> {
        let header = found.blocks().and_then(|(_, blocks)| Header::read(blocks.header).ok());
        let mut hops = Vec::new();
        for hop in &found.stored.run.header.path {
            let (node, roles) = self.node_name(&hop.node)?;
            hops.push(Hop {
                node,
                node_id: hop.node,
                roles,
                received_at: Time(hop.received),
                sent_at: (hop.sent != 0).then_some(Time(hop.sent)),
            });
        }
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
            stored_at: Some(Time(found.stored.stored_at())),
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
