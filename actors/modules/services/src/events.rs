//! Events: one row for (instance, event id), with a count.
use extension::{
    records::{
        Event,
        kept::{self, Happening},
    },
    service::{Received, ServiceError},
};
use protocol::service;

use crate::subject::{Draft, Subject};

/// Key that leads from (instance, event id) to the row: `v`, id, event id.
const KNOWN: u8 = b'v';

/// One event message. The row shows the message with the latest `occurred_at`.
pub(crate) fn event(
    received: &Received,
    said: &service::Event,
    draft: &mut Draft<'_>,
) -> Result<(), ServiceError> {
    let about = Subject::of(received);
    // Without an id it is an event of its own.
    let known = (!said.event_id.is_empty()).then(|| about.key(KNOWN, &[&said.event_id]));
    let first = match &known {
        Some(key) => match draft.row(key)? {
            Some(row) => Some(kept::count_of(Some(&row))),
            None => {
                draft.put(key.clone(), received.seq.to_be_bytes().to_vec());
                None
            }
        },
        None => None,
    };
    let key = kept::happening_key(first.unwrap_or(received.seq));
    let before: Option<Happening> = draft.row(&key)?.and_then(|r| kept::from_row(&r));
    let count = before.as_ref().map_or(0, |b| b.event.count) + 1;
    let newer = |b: &Happening| (about.occurred_at, about.order) >= (b.event.occurred_at, b.newest);
    let happening = match before {
        Some(before) if !newer(&before) => {
            Happening { event: Event { count, ..before.event }, ..before }
        }
        _ => shown(about, received, said, count),
    };
    draft.put(key, kept::to_row(&happening));
    Ok(())
}

fn shown(about: Subject, received: &Received, said: &service::Event, count: u64) -> Happening {
    Happening {
        newest: about.order,
        event: Event {
            message_id: received.message.header.id,
            customer_id: about.customer,
            instance: about.instance,
            instance_id: about.id,
            integrator: about.integrator,
            event_id: said.event_id.clone(),
            kind: said.kind.clone(),
            severity: said.severity,
            text: said.text.clone(),
            state: said.state,
            occurred_at: about.occurred_at,
            accepted_at: about.accepted_at,
            stored_at: about.stored_at,
            count,
            replayed: received.replayed,
        },
    }
}
