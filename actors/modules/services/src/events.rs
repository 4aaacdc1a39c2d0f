//! Events: one row for (instance, event id), with a count. One without an id is its message.
use extension::{
    records::{
        Event, Time,
        kept::{self, Happening},
    },
    service::{Received, ServiceError},
};
use protocol::parts::EventParts;

use crate::subject::{self, Draft};

/// Key that leads from (instance, event id) to the row: `v`, id, event id.
const KNOWN: u8 = b'v';

/// One event message. The row shows the message with the latest `occurred_at`.
pub(crate) fn event(
    received: &Received<'_>,
    said: &EventParts<'_>,
    draft: &mut Draft<'_>,
) -> Result<(), ServiceError> {
    if said.event_id.is_empty() {
        // Nothing repeats it: lists find it among the messages, and it costs no row.
        return Ok(());
    }
    let replayed = received.replayed;
    let now = Happening::of(&received.message, said, Time(received.stored_at), replayed);
    let known = subject::key(KNOWN, &now.event.instance_id, &[said.event_id]);
    let first = match draft.row(&known)? {
        Some(row) => Some(kept::count_of(Some(&row))),
        None => {
            draft.put(known, received.seq.to_be_bytes().to_vec());
            None
        }
    };
    let key = kept::happening_key(first.unwrap_or(received.seq));
    let before: Option<Happening> = match first {
        Some(_) => draft.row(&key)?.and_then(|r| kept::from_row(&r)),
        None => None,
    };
    let count = before.as_ref().map_or(0, |b| b.event.count) + 1;
    let shows =
        |b: &Happening| (now.event.occurred_at, now.newest) >= (b.event.occurred_at, b.newest);
    let shown = match before {
        Some(before) if !shows(&before) => before,
        _ => now,
    };
    let happening = Happening { event: Event { count, ..shown.event }, newest: shown.newest };
    draft.put(key, kept::to_row(&happening));
    Ok(())
}
