//! What a list shows: the schemas of openapi.json, field by field. Absent is `null`.
use std::{fmt, str::FromStr};

use protocol::{
    MessageId, Precedence, RemoteId,
    heartbeat::Mode,
    message::{Channel, Persistence},
    service::{Severity, State},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// Milliseconds since 1970 UTC; RFC 3339 with milliseconds in words and JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

/// Why a text is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time in RFC 3339 such as 2026-11-22T12:09:51.000Z")]
pub struct NotATime;

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is beyond the calendar's ends is shown as 1970; the door lets nothing such in.
        let time = jiff::Timestamp::from_millisecond(self.0).unwrap_or_default();
        write!(f, "{time:.3}")
    }
}

impl FromStr for Time {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let time: jiff::Timestamp = text.parse().map_err(|_| NotATime)?;
        Ok(Self(time.as_millisecond()))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { to.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if !from.is_human_readable() {
            return i64::deserialize(from).map(Self);
        }
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// A customer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Customer {
    /// Its id.
    pub customer_id: Uuid,
    /// Name.
    pub customer: String,
    /// When its id was made.
    pub registered_at: Time,
    /// How many nodes.
    pub nodes: u64,
    /// How many support instances.
    pub instances: u64,
    /// Open alarms.
    pub alarms: u64,
}

/// Whether a node delivers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivering {
    /// It does.
    pub ok: bool,
    /// On purpose: `throttle` or `stopped`.
    pub held: Option<String>,
    /// Age of the oldest unsent message.
    pub oldest_age_s: Option<f64>,
    /// Why not.
    pub reasons: Vec<Reason>,
}

/// Whether a node takes messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// It does.
    pub ok: bool,
    /// Why not.
    pub reasons: Vec<Reason>,
}

/// What waits of one precedence at a node for the way up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Of which.
    pub precedence: Precedence,
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Age of the oldest; none where none waits.
    pub oldest_age_s: Option<f64>,
}

/// Why something is not as it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable name.
    pub name: String,
    /// For people.
    pub detail: String,
    /// What to do.
    pub help: String,
}

/// What a node is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// No heartbeat yet.
    Registering,
    /// Heartbeats come.
    Operational,
    /// They do not.
    Silent,
    /// It is no more.
    Removed,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub node_id: RemoteId,
    /// Name.
    pub node: String,
    /// Whose it is.
    pub customer_id: Uuid,
    /// What it is for.
    pub roles: Vec<String>,
    /// Version of its program.
    pub version: String,
    /// Whether it is heard.
    pub state: NodeState,
    /// Whether its link has a back-channel.
    pub mode: Mode,
    /// The next node up.
    pub parent_id: Option<RemoteId>,
    /// Whether it takes messages; none: it did not say.
    #[serde(default)]
    pub ready: Option<Ready>,
    /// Whether it delivers.
    pub delivering: Delivering,
    /// What waits for the way up, urgent first; empty: it did not say.
    #[serde(default)]
    pub waiting: Vec<Waiting>,
    /// Messages that wait.
    pub queued: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Age of the oldest.
    pub oldest_age_s: Option<f64>,
    /// Until they are gone; none: not draining.
    pub drain_eta_s: Option<f64>,
    /// Digest of its configuration.
    pub configuration_digest: Option<String>,
    /// When it was heard last, by this server's clock.
    pub last_heartbeat_at: Option<Time>,
}

/// What an integrator is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntegratorState {
    /// No heartbeat named it yet.
    Registering,
    /// It is connected to its proxy.
    Connected,
    /// It is not.
    Away,
}

/// An integrator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Integrator {
    /// Its id.
    pub integrator_id: RemoteId,
    /// Name.
    pub integrator: String,
    /// Its version.
    pub version: String,
    /// Its proxy.
    pub node_id: RemoteId,
    /// Whose it is.
    pub customer_id: Uuid,
    /// Whether it is connected.
    pub state: IntegratorState,
    /// How many instances it has.
    pub instances: u64,
    /// Its capabilities, XML.
    pub capabilities: Option<String>,
    /// When it was said to be connected last.
    pub last_seen_at: Option<Time>,
}

/// What a support instance is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// On its way.
    Registering,
    /// There.
    Active,
    /// Its integrator removed it.
    Removed,
    /// Removed for ever; its grace period runs.
    Deleting,
}

/// A support instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Whose it is.
    pub customer_id: Uuid,
    /// The platform's own identifier.
    pub instance: String,
    /// Its id.
    pub instance_id: RemoteId,
    /// Name of its integrator.
    pub integrator: String,
    /// Its integrator's id.
    pub integrator_id: RemoteId,
    /// Whether it is there.
    pub state: InstanceState,
    /// End of the grace period.
    pub delete_after: Option<Time>,
    /// XML; none: not known yet.
    pub capabilities: Option<String>,
    /// Open alarms.
    pub alarms: u64,
    /// When it was registered first.
    pub registered_at: Time,
    /// When its newest message was stored.
    pub last_message_at: Option<Time>,
}

/// What an alarm is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmState {
    /// It stands.
    Opened,
    /// Somebody has seen it.
    Acknowledged,
    /// It is over.
    Closed,
}

/// Current state of (instance, type, key). Id, severity, text and times are the newest message's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// One episode, from opened to closed.
    pub alarm_id: Uuid,
    /// Newest message.
    pub message_id: MessageId,
    /// Whose it is.
    pub customer_id: Uuid,
    /// The platform's own identifier.
    pub instance: String,
    /// Its id; of a node's own alarms the node's.
    pub instance_id: RemoteId,
    /// Name of the integrator; empty for a node's own.
    pub integrator: String,
    /// The platform's own vocabulary.
    #[serde(rename = "type")]
    pub kind: String,
    /// Tells alarms of one type on one instance apart.
    pub key: String,
    /// How bad.
    pub severity: Severity,
    /// One line.
    pub text: String,
    /// Opened, acknowledged or closed.
    pub state: AlarmState,
    /// By the platform's clock.
    pub occurred_at: Time,
    /// On disk at the proxy.
    pub accepted_at: Time,
    /// On disk at the application server.
    pub stored_at: Time,
    /// `occurred_at` of the first.
    pub opened_at: Time,
    /// When it was closed.
    pub closed_at: Option<Time>,
    /// Messages in this episode.
    pub count: u64,
    /// The newest message waited out an outage.
    pub replayed: bool,
    /// Who acknowledged it.
    pub acknowledged_by: Option<String>,
    /// What they said.
    pub comment: Option<String>,
    /// No notifications until then.
    pub silenced_until: Option<Time>,
}

/// One (instance, event_id); fields of the message with the latest `occurred_at`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// That message.
    pub message_id: MessageId,
    /// Whose it is.
    pub customer_id: Uuid,
    /// The platform's own identifier.
    pub instance: String,
    /// Its id.
    pub instance_id: RemoteId,
    /// Name of the integrator.
    pub integrator: String,
    /// Ties repeats together.
    pub event_id: String,
    /// The platform's own vocabulary.
    #[serde(rename = "type")]
    pub kind: String,
    /// How bad.
    pub severity: Severity,
    /// One line.
    pub text: String,
    /// Opened, updated, acknowledged or closed.
    pub state: State,
    /// By the platform's clock.
    pub occurred_at: Time,
    /// On disk at the proxy.
    pub accepted_at: Time,
    /// On disk at the application server.
    pub stored_at: Time,
    /// Messages with this event id.
    pub count: u64,
    /// It waited out an outage.
    pub replayed: bool,
}

/// A stored message, without its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Order of storing.
    pub seq: u64,
    /// Its id.
    pub message_id: MessageId,
    /// Up or down.
    pub channel: Channel,
    /// Data class.
    pub class: String,
    /// Finer.
    pub subclass: Option<String>,
    /// Whose it is.
    pub customer_id: Uuid,
    /// The platform's own identifier.
    pub instance: Option<String>,
    /// Its id.
    pub instance_id: Option<RemoteId>,
    /// Name of the integrator.
    pub integrator: Option<String>,
    /// How urgent.
    pub precedence: Precedence,
    /// Whether it may be evicted.
    pub persistence: Persistence,
    /// Seconds until it is of no use; none: for ever.
    pub time_to_live_s: Option<u32>,
    /// The request it answers.
    pub answers: Option<MessageId>,
    /// By the platform's clock.
    pub occurred_at: Time,
    /// On disk at the proxy.
    pub accepted_at: Time,
    /// On disk at the application server.
    pub stored_at: Time,
    /// On the wire.
    pub bytes: u64,
    /// Media type of the data.
    pub encoding: Option<String>,
    /// It waited out an outage.
    pub replayed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_are_read_back() {
        let time = Time(1_795_349_391_000);
        assert_eq!(time.to_string(), "2026-11-22T12:09:51.000Z");
        assert_eq!("2026-11-22T13:09:51+01:00".parse(), Ok(time));
        assert_eq!("yesterday".parse::<Time>(), Err(NotATime));
    }
}
