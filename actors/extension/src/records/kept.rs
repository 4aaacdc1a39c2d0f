//! Rows that service modules keep and the records' lists read: the agreement between the two.
//!
//! | module | key | value |
//! |---|---|---|
//! | `alarms` | `e` alarm id | [`Episode`] |
//! | `alarms` | `p` alarm id | empty: the episode is not closed |
//! | `alarms` | `h` alarm id, number of the chunk | [`Chunk`] of its messages, when it is full |
//! | `alarms` | `n` id of an instance or customer | open alarms, 8 bytes |
//! | `alarms` | `w` first `seq` | [`Happening`], of events with an id: one without is its message |
//! | `inventory` | `i` instance, `\0` subtype, `\0` item | JSON of the item as it is now |
//! | `inventory` | `c` instance, `\0` subtype, `\0` `seq` | [`SetChange`] |
//!
//! Numbers in keys are big-endian. Later versions append fields with a default.
use bytes::Bytes;
use protocol::{
    Precedence, RemoteId,
    parts::{EventParts, Parts},
    service::Severity,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use uuid::Uuid;

use super::views::{Alarm, Event, Time};

/// Name of the module that keeps alarms and events.
pub const ALARMS: &str = "alarms";
/// Name of the module that keeps inventories.
pub const INVENTORY: &str = "inventory";
/// Messages in one chunk of an episode's history: until it is full, it is written with the episode.
pub const CHUNK_MESSAGES: usize = 64;

/// One alarm from opened to closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// As the lists show it.
    pub alarm: Alarm,
    /// How bad it was when it was acknowledged; worse ends that.
    pub acknowledged_severity: Option<Severity>,
    /// When it closes by itself, ms since 1970 UTC.
    pub closes_at: Option<i64>,
    /// Messages in its history: the late ones, too.
    pub history: u64,
    /// Newest `(epoch, order)` that changed it.
    pub newest: (u64, u64),
    /// The chunk of its history that is not full. None in rows of older versions: it has a row.
    #[serde(default)]
    pub recent: Chunk,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    /// As the lists show it.
    pub event: Event,
    /// `(epoch, order)` of the message shown.
    pub newest: (u64, u64),
}

impl Happening {
    /// What one message says of an event.
    pub fn of(message: &Parts<'_>, said: &EventParts<'_>, stored_at: Time, replayed: bool) -> Self {
        let (header, from) = (&message.header, &message.infrastructure);
        let about = from.instance.unwrap_or(header.source);
        let event = Event {
            message_id: header.id,
            customer_id: about.customer_id(),
            instance: match from.external_id.is_empty() {
                true => about.to_string(),
                false => from.external_id.to_owned(),
            },
            instance_id: about,
            integrator: from.integrator.to_owned(),
            event_id: said.event_id.to_owned(),
            kind: said.kind.to_owned(),
            severity: said.severity,
            text: said.text.to_owned(),
            state: said.state,
            occurred_at: Time(header.occurred_at),
            accepted_at: Time(header.accepted_at),
            stored_at,
            count: 1,
            replayed,
        };
        Self { event, newest: (header.id.epoch, header.order) }
    }
}

/// Where messages stand in the records, oldest first: precedence and `seq`, nine bytes each, so
/// that adding one needs no decoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk(Vec<u8>);

/// Bytes of one place in a [`Chunk`].
const PLACE_BYTES: usize = 9;

impl Chunk {
    /// As it stands in a row.
    pub fn of(row: Option<&[u8]>) -> Self {
        Self(row.unwrap_or_default().to_vec())
    }

    /// Adds a message.
    pub fn push(&mut self, precedence: Precedence, seq: u64) {
        self.0.push(precedence as u8);
        self.0.extend_from_slice(&seq.to_be_bytes());
    }

    /// How many messages.
    pub fn len(&self) -> usize {
        self.0.len() / PLACE_BYTES
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The message at that place.
    pub fn get(&self, at: usize) -> Option<(Precedence, u64)> {
        let place = self.0.chunks_exact(PLACE_BYTES).nth(at)?;
        let seq = place.get(1..)?.try_into().ok().map(u64::from_be_bytes)?;
        Some((Precedence::from_number(*place.first()?)?, seq))
    }

    /// The bytes of the row.
    pub fn into_row(self) -> Bytes {
        self.0.into()
    }
}

impl Serialize for Chunk {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Chunk {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Bytes::deserialize(from).map(|bytes| Self(bytes.into()))
    }
}

/// That an inventory became different.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetChange {
    /// The message that told it.
    pub message_id: protocol::MessageId,
    /// When, by the platform's clock, ms since 1970 UTC.
    pub occurred_at: i64,
    /// Items that are new.
    pub added: u64,
    /// Items that are gone.
    pub removed: u64,
    /// Items that differ.
    pub changed: u64,
    /// Digest after it, as the integrator names it.
    pub set: String,
}

/// What most rows take, bytes: one allocation.
const ROW_BYTES: usize = 512;

/// The bytes of a row.
pub fn to_row<T: Serialize>(value: &T) -> Bytes {
    let mut row = Vec::with_capacity(ROW_BYTES);
    // Types of rows are plain: nothing in them that MessagePack cannot say, nor memory refuse.
    let _ = value.serialize(&mut rmp_serde::Serializer::new(&mut row));
    row.into()
}

/// The value of a row; `None` where the bytes are none.
pub fn from_row<T: DeserializeOwned>(row: &[u8]) -> Option<T> {
    rmp_serde::from_slice(row).ok()
}

/// Key of an episode.
pub fn episode_key(alarm: Uuid) -> Bytes {
    tagged(b'e', alarm.as_bytes())
}

/// Key that says an episode is not closed.
pub fn open_key(alarm: Uuid) -> Bytes {
    tagged(b'p', alarm.as_bytes())
}

/// Key of a chunk of an episode's history.
pub fn history_key(alarm: Uuid, chunk: u64) -> Bytes {
    tagged(b'h', &[alarm.as_bytes().as_slice(), &chunk.to_be_bytes()].concat())
}

/// Key of a count of open alarms.
pub fn count_key(id: &RemoteId) -> Bytes {
    tagged(b'n', id.as_bytes())
}

/// Key of an event by the number of its first message.
pub fn happening_key(first_seq: u64) -> Bytes {
    tagged(b'w', &first_seq.to_be_bytes())
}

/// A key of one letter and more.
pub fn tagged(tag: u8, rest: &[u8]) -> Bytes {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(tag);
    key.extend_from_slice(rest);
    key.into()
}

/// A count as it stands in a row; nothing is 0.
pub fn count_of(row: Option<&[u8]>) -> u64 {
    row.and_then(|r| r.try_into().ok()).map_or(0, u64::from_be_bytes)
}
