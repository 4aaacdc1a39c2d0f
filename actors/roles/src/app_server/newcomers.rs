//! Which proxies reject newcomers, from what their heartbeats count: each is an alarm while it
//! lasts, for it may be the sign of a parent that moved or is gone (QUE-15).
//!
//! The count says it, not the moment: a proxy whose parent is away tells it when the parent is
//! back.
use std::ops::ControlFlow;

use extension::storage::{QueueStore, StoreError};
use protocol::{codec::Reader, heartbeat::Heartbeat};
use serde::{Deserialize, Serialize};

use super::rows::{STATUS, StatusRow, from_row};

/// A proxy that rejected nothing for so long is well again, ms: a source that is refused tries
/// again within seconds.
pub const CALM_MS: i64 = 300_000;

/// What is remembered of a proxy that rejected newcomers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejecting {
    /// How many it had rejected at the last look.
    pub count: u64,
    /// When that was last seen to differ from the look before, ms since 1970 UTC.
    pub at: i64,
    /// Whether its alarm stands.
    pub is_open: bool,
}

/// What a look at a proxy leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing.
    Same,
    /// This is to be remembered.
    Note(Rejecting),
    /// Its alarm opens.
    Open(Rejecting),
    /// Its alarm closes.
    Close(Rejecting),
}

/// Decides by the count of its newest heartbeat. A new store counts anew, so any other number is
/// a new rejection, but none.
pub fn look(known: Option<Rejecting>, count: u64, now: i64) -> Look {
    let before = known.map_or(0, |known| known.count);
    match known {
        _ if count != before && count > 0 => {
            let note = Rejecting { count, at: now, is_open: true };
            if known.is_some_and(|known| known.is_open) {
                Look::Note(note)
            } else {
                Look::Open(note)
            }
        }
        Some(known) if known.is_open && now - known.at > CALM_MS => {
            Look::Close(Rejecting { count, is_open: false, ..known })
        }
        Some(known) if count != before => Look::Note(Rejecting { count, ..known }),
        _ => Look::Same,
    }
}

/// The newest heartbeats of the proxies that ever rejected a newcomer. A proxy has no door for
/// nodes, so what it turned away are calls of its integrators that found no room.
pub fn proxies(store: &dyn QueueStore) -> Result<Vec<Heartbeat>, StoreError> {
    let mut proxies = Vec::new();
    store.rows(STATUS, &[], &[], &mut |_, value| {
        let row: Option<StatusRow> = from_row(value);
        let beat = row.and_then(|r| Heartbeat::read(&mut Reader::new(&r.beat)).ok());
        let rejects = |beat: &Heartbeat| {
            beat.account.turned_away > 0 && beat.roles.iter().any(|role| role == "proxy")
        };
        proxies.extend(beat.filter(rejects));
        ControlFlow::Continue(())
    })?;
    Ok(proxies)
}

#[cfg(test)]
mod tests {
    use super::*;

    // QUE-15
    #[test]
    fn a_proxy_that_rejects_is_an_alarm_until_it_has_rejected_nothing_for_a_while() {
        let at = |count, at, is_open| Rejecting { count, at, is_open };
        assert_eq!(look(None, 0, 0), Look::Same);
        assert_eq!(look(None, 3, 10), Look::Open(at(3, 10, true)));
        let open = Some(at(3, 10, true));
        assert_eq!(look(open, 3, 10 + CALM_MS), Look::Same);
        assert_eq!(look(open, 5, 20), Look::Note(at(5, 20, true)));
        assert_eq!(look(open, 3, 11 + CALM_MS), Look::Close(at(3, 10, false)));
        let closed = Some(at(3, 10, false));
        assert_eq!(look(closed, 3, i64::MAX), Look::Same);
        assert_eq!(look(closed, 4, 50), Look::Open(at(4, 50, true)));
        // A new store counts anew.
        assert_eq!(look(closed, 0, 50), Look::Note(at(0, 10, false)));
        assert_eq!(look(closed, 1, 50), Look::Open(at(1, 50, true)));
    }
}
