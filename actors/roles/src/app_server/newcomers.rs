//! Which proxies reject newcomers, from what their heartbeats count: each is an alarm while it
//! lasts, for it may be the sign of a parent that moved or is gone (QUE-15).
//!
//! The count says it, not the moment: a proxy whose parent is away tells it when the parent is
//! back. For the same reason its silence says nothing: only itself can say that it is well again.
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
    /// How many it had rejected by its heartbeat before.
    pub count: u64,
    /// When it first said so, by its own clock, ms since 1970 UTC.
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

/// Decides by the count of its newest heartbeat and when that was written. A new store counts
/// anew, so any other number is a new rejection, but none.
pub fn look(known: Option<Rejecting>, count: u64, at: i64) -> Look {
    let Some(known) = known else {
        let note = Rejecting { count, at, is_open: true };
        return if count > 0 { Look::Open(note) } else { Look::Same };
    };
    if count != known.count {
        let note = Rejecting { count, at, is_open: known.is_open || count > 0 };
        return if note.is_open && !known.is_open { Look::Open(note) } else { Look::Note(note) };
    }
    if known.is_open && at.saturating_sub(known.at) > CALM_MS {
        return Look::Close(Rejecting { is_open: false, ..known });
    }
    // A clock that was set back does not keep the alarm for as long as that was.
    if at < known.at { Look::Note(Rejecting { at, ..known }) } else { Look::Same }
}

/// The newest heartbeats of the proxies that say how many newcomers they rejected. A proxy has no
/// door for nodes, so what its full queue rejected are calls of its integrators.
pub fn proxies(store: &dyn QueueStore) -> Result<Vec<(Heartbeat, u64)>, StoreError> {
    let mut proxies = Vec::new();
    store.rows(STATUS, &[], &[], &mut |_, value| {
        let row: Option<StatusRow> = from_row(value);
        let beat = row.and_then(|r| Heartbeat::read(&mut Reader::new(&r.beat)).ok());
        let beat = beat.filter(|beat| beat.roles.iter().any(|role| role == "proxy"));
        proxies.extend(beat.and_then(|beat| beat.rejected.map(|rejected| (beat, rejected))));
        ControlFlow::Continue(())
    })?;
    Ok(proxies)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        cell::RefCell,
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    use bytes::Bytes;
    use extension::service::{Effect, Rows, ServiceError, ServiceModule};
    use module_memory::MemoryStore;
    use protocol::{
        RemoteId,
        heartbeat::{Account, Mode},
        service::{Service, State},
    };

    use super::*;
    use crate::{
        app_server::{registrar::Registrar, status},
        delivery::orders::Identity,
    };

    // QUE-15
    #[test]
    fn a_proxy_that_rejects_is_an_alarm_until_it_says_that_it_rejected_nothing_for_a_while() {
        let at = |count, at, is_open| Rejecting { count, at, is_open };
        assert_eq!(look(None, 0, 0), Look::Same);
        assert_eq!(look(None, 3, 10), Look::Open(at(3, 10, true)));
        let open = Some(at(3, 10, true));
        assert_eq!(look(open, 3, 10 + CALM_MS), Look::Same);
        assert_eq!(look(open, 5, 20), Look::Note(at(5, 20, true)));
        assert_eq!(look(open, 5, 11 + CALM_MS), Look::Note(at(5, 11 + CALM_MS, true)));
        assert_eq!(look(open, 3, 11 + CALM_MS), Look::Close(at(3, 10, false)));
        assert_eq!(look(open, 3, 5), Look::Note(at(3, 5, true)), "its clock was set back");
        let closed = Some(at(3, 10, false));
        assert_eq!(look(closed, 3, i64::MAX), Look::Same);
        assert_eq!(look(closed, 4, 50), Look::Open(at(4, 50, true)));
        // A new store counts anew.
        assert_eq!(look(closed, 0, 50), Look::Note(at(0, 50, false)));
        assert_eq!(look(Some(at(0, 50, false)), 1, 60), Look::Open(at(1, 60, true)));
        assert_eq!(look(open, 0, 50), Look::Note(at(0, 50, true)));
    }

    #[derive(Default)]
    struct Table(RefCell<BTreeMap<Bytes, Bytes>>);

    impl Rows for Table {
        fn row(&self, key: &[u8]) -> Result<Option<Bytes>, ServiceError> {
            Ok(self.0.borrow().get(key).cloned())
        }

        fn rows(&self, _: &[u8], _: usize) -> Result<Vec<(Bytes, Bytes)>, ServiceError> {
            Ok(Vec::new())
        }
    }

    fn node(number: u32) -> RemoteId {
        RemoteId::customer(uuid::Uuid::from_u128(7)).child(number).unwrap()
    }

    /// A server that hears heartbeats, and whose clock is set by hand.
    struct Server {
        store: Arc<MemoryStore>,
        table: Table,
        registrar: Registrar,
        beats: u64,
    }

    impl Server {
        fn new() -> Self {
            let store = Arc::new(MemoryStore::new());
            let own = Arc::new(Mutex::new(Identity { id: node(1), epoch: 1 }));
            let registrar = Registrar::new(store.clone(), own);
            Self { store, table: Table::default(), registrar, beats: 0 }
        }

        /// A heartbeat of hall-2, of that role, written and heard now.
        fn hears(&mut self, role: &str, rejected: Option<u64>, turned_away: u64, now: i64) {
            self.beats += 1;
            let beat = Heartbeat {
                node: node(2),
                epoch: 1,
                beat: self.beats,
                order: self.beats,
                at: now,
                name: "hall-2".to_owned(),
                roles: vec![role.to_owned()],
                version: "1".to_owned(),
                mode: Mode::Session,
                account: Account { turned_away, ..Account::default() },
                depths: Default::default(),
                reasons: Vec::new(),
                configuration: String::new(),
                done: Vec::new(),
                integrators: Vec::new(),
                path: Vec::new(),
                says: Vec::new(),
                ready: Some(Vec::new()),
                rejected,
            };
            let store: Arc<dyn QueueStore> = self.store.clone();
            let (changes, _) = status::plan(&store, &[beat], now).unwrap();
            self.store.commit(&changes).unwrap();
        }

        /// What the next tick tells: whom it is about, how it stands, in words.
        fn tells(&mut self, now: i64) -> Vec<(String, State, String)> {
            let mut told = Vec::new();
            for effect in self.registrar.tick(now, &self.table).unwrap() {
                match effect {
                    Effect::Put { key, value } => {
                        drop(self.table.0.borrow_mut().insert(key, value))
                    }
                    Effect::Publish { service: Service::Alarm(alarm), about, .. } => {
                        assert_eq!((&*alarm.kind, alarm.key), ("queue_full", node(2).to_string()));
                        told.push((about, alarm.state, alarm.text));
                    }
                    other => panic!("{other:?}"),
                }
            }
            told
        }
    }

    // QUE-15: a parent that is gone is what the alarm is for; the proxy behind it is silent.
    #[test]
    fn the_alarm_of_a_proxy_that_fell_silent_stands_until_it_is_heard_again_and_is_calm() {
        const T: i64 = 1_000_000;
        let mut server = Server::new();
        server.hears("proxy", Some(3), 3, T);
        let says = "hall-2 rejects new messages, 3 so far: its queue is full";
        assert_eq!(server.tells(T), [("hall-2".to_owned(), State::Opened, says.to_owned())]);
        assert_eq!(server.tells(T + 10 * CALM_MS), [], "it said nothing since");
        server.hears("proxy", Some(9), 9, T + 11 * CALM_MS);
        assert_eq!(server.tells(T + 11 * CALM_MS), [], "it still rejects, and is told already");
        server.hears("proxy", Some(9), 12, T + 11 * CALM_MS + 1);
        assert_eq!(server.tells(T + 13 * CALM_MS), [], "no calm time has passed by what it says");
        server.hears("proxy", Some(9), 20, T + 13 * CALM_MS);
        let says = "hall-2 rejects no more new messages, 9 so far";
        let told = server.tells(T + 14 * CALM_MS);
        assert_eq!(told, [("hall-2".to_owned(), State::Closed, says.to_owned())]);
    }

    // QUE-15: calls of integrators that a full queue rejected, and nothing else.
    #[test]
    fn what_is_turned_away_for_another_reason_or_by_another_tier_is_no_such_alarm() {
        let mut server = Server::new();
        server.hears("proxy", Some(0), 5, 1_000_000);
        assert_eq!(server.tells(1_000_000), []);
        // Of an older version: it does not say why.
        server.hears("proxy", None, 6, 2_000_000);
        assert_eq!(server.tells(2_000_000), []);
        // An MLM counts exchanges, which its children send again.
        server.hears("mlm", Some(4), 4, 3_000_000);
        assert_eq!(server.tells(3_000_000), []);
        server.hears("proxy", Some(4), 9, 4_000_000);
        assert_eq!(server.tells(4_000_000).len(), 1);
    }
}
