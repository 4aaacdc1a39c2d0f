//! The counters of a node's store, one row, written with every commit that changes them.
use std::collections::BTreeMap;

use bytes::Bytes;
use extension::storage::Place;
use protocol::{Precedence, ends::End, heartbeat::Account};
use serde::{Deserialize, Serialize};

/// Table of the node's own small rows.
pub const STATE: &str = "state";
/// Key of [`State`] in [`STATE`].
pub const STATE_KEY: &[u8] = b"counters";
/// Side rows: what of a run is gone. Key: queue name, 0, precedence, position.
pub const GONE: &str = "gone";
/// What expires: a row a run of `up`. Key: when the first of its messages that is still there
/// expires, precedence, position.
pub const EXPIRY: &str = "expiry";
/// Exchange memory. Key: child's id, epoch where it has number 0, precedence.
pub const EXCHANGES: &str = "exchanges";
/// End reports that wait to travel up. Key: a counter.
pub const ENDS: &str = "ends";
/// Routes down. Key: id, epoch where it has number 0.
pub const ROUTES: &str = "routes";
/// Names of local queues. Key: an integrator's id.
pub const LOCAL: &str = "local";

/// Messages and bytes of one precedence of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Messages.
    pub messages: u64,
    /// Wire bytes.
    pub bytes: u64,
}

/// Counters that survive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Last sequence given, by precedence, in this epoch.
    pub sequence: [u64; 3],
    /// Last order given, in this epoch.
    pub order: u64,
    /// Last position given.
    pub position: u64,
    /// Last end report's number.
    pub end: u64,
    /// The account.
    pub account: Account,
    /// Refused within the account, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Refused at the door, by reason.
    pub turned_away: BTreeMap<String, u64>,
    /// What each queue holds, by precedence.
    pub held: BTreeMap<String, [Held; 3]>,
    /// When the parent acknowledged last, ms since 1970 UTC.
    pub last_acknowledged_at: i64,
}

impl State {
    /// Decodes the row.
    pub fn decode(row: &[u8]) -> Option<Self> {
        rmp_serde::from_slice(row).ok()
    }

    /// Encodes the row.
    pub fn encode(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        rmp_serde::to_vec_named(self)
    }

    /// What a queue holds.
    pub fn held(&self, queue: &str) -> [Held; 3] {
        self.held.get(queue).copied().unwrap_or_default()
    }

    /// Changes what a queue holds; an empty queue leaves no trace.
    pub fn change(&mut self, queue: &str, precedence: usize, messages: i64, bytes: i64) {
        let lanes = self.held.entry(queue.to_owned()).or_default();
        lanes[precedence].messages = lanes[precedence].messages.saturating_add_signed(messages);
        lanes[precedence].bytes = lanes[precedence].bytes.saturating_add_signed(bytes);
        if lanes.iter().all(|h| h.messages == 0) {
            self.held.remove(queue);
        }
    }

    /// Counts messages that came into custody.
    pub fn taken(&mut self, messages: u64) {
        self.account.taken += messages;
        self.account.queued += messages;
    }

    /// Counts messages that left the account's `queued`; `reason` of those that end refused.
    pub fn end(&mut self, end: End, messages: u64, reason: &str) {
        let account = &mut self.account;
        account.queued = account.queued.saturating_sub(messages);
        match end {
            End::Delivered => account.delivered += messages,
            End::Expired => account.expired += messages,
            End::Evicted => account.evicted += messages,
            End::Refused => account.refused += messages,
            End::Consumed => account.consumed += messages,
        }
        if end == End::Refused && messages > 0 {
            *self.refused.entry(reason.to_owned()).or_default() += messages;
        }
    }

    /// Counts a refusal at the door.
    pub fn turn_away(&mut self, reason: &str, messages: u64) {
        *self.turned_away.entry(reason.to_owned()).or_default() += messages;
        self.account.turned_away += messages;
    }
}

/// Key of a run in [`EXPIRY`].
pub fn expiry_key(at: i64, place: Place) -> Bytes {
    let mut key = at.max(0).to_be_bytes().to_vec();
    key.push(place.precedence as u8);
    key.extend_from_slice(&place.position.to_be_bytes());
    key.into()
}

/// When and where, of such a key.
pub fn parse_expiry_key(key: &[u8]) -> Option<(i64, Place)> {
    let (at, rest) = key.split_first_chunk()?;
    let (precedence, position) = rest.split_first()?;
    let precedence = Precedence::from_number(*precedence)?;
    let position = u64::from_be_bytes(position.try_into().ok()?);
    Some((i64::from_be_bytes(*at), Place { precedence, position }))
}
