//! Tables of the application server, their keys and values. Numbers in keys are big-endian.
use bytes::Bytes;
use extension::storage::QueueName;
use protocol::{MessageId, Precedence, RemoteId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use extension::records::kept::{from_row, to_row};

/// Numbers seen: stream, first → last.
pub const SEEN: &str = "app_seen";
/// Where runs stand: stream, first number, position → last number.
pub const FOUND: &str = "app_found";
/// How many are stored: one row, [`Counted`].
pub const COUNTED: &str = "app_counted";
/// End reports: stream, first, node → [`EndRow`].
pub const ENDED: &str = "app_ended";
/// Customers by id: [`CustomerRow`].
pub const CUSTOMERS: &str = "app_customers";
/// Nodes by id: [`NodeRow`].
pub const NODES: &str = "app_nodes";
/// What nodes last said by id: [`StatusRow`].
pub const STATUS: &str = "app_status";
/// Numbers of nodes: customer, nonce, name → [`Allotment`].
pub const ALLOTMENTS: &str = "app_allotments";
/// Last number of a customer: customer → 4 bytes; newest of a name: customer, name → 4 bytes.
pub const NUMBERS: &str = "app_numbers";
/// Integrators by id: [`IntegratorRow`].
pub const INTEGRATORS: &str = "app_integrators";
/// Instances by id: [`InstanceRow`].
pub const INSTANCES: &str = "app_instances";
/// Rows of service modules: module, NUL, key of its own.
pub const SERVICES: &str = "app_services";
/// Cursors of service modules, and what they have in hand.
pub const CURSORS: &str = "app_cursors";
/// Messages set aside: precedence, seq → name of the module.
pub const POISON: &str = "app_poison";
/// When an instance's newest message was stored, by id: 8 bytes, ms since 1970 UTC.
pub const LAST: &str = "app_last";
/// The index by segments: tag, segment → see [`super::segment`].
pub const INDEX: &str = "app_index";
/// Answers by Idempotency-Key: [`Repeat`].
pub const REPEATS: &str = "app_repeats";

/// The queue that holds all that was stored.
pub fn records() -> QueueName {
    QueueName::new("records")
}

/// The queue of what no module could handle.
pub fn set_aside() -> QueueName {
    QueueName::new("set-aside")
}

/// How many messages are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Number of the next message, from 1.
    pub next: u64,
    /// Stored so far, by precedence.
    pub stored: [u64; 3],
}

impl Default for Counted {
    fn default() -> Self {
        Self { next: 1, stored: [0; 3] }
    }
}

/// How messages ended below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRow {
    /// How many from the first on.
    pub count: u32,
    /// How.
    pub end: protocol::ends::End,
    /// Where.
    pub node: RemoteId,
    /// A refusal's name, or empty.
    pub reason: String,
}

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerRow {
    /// Name.
    pub name: String,
    /// When its id was made, ms since 1970 UTC.
    pub registered_at: i64,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub roles: Vec<String>,
    /// Version of its program.
    pub version: String,
    /// Drawn when its store was made.
    pub nonce: u64,
    /// When, ms since 1970 UTC.
    pub registered_at: i64,
    /// When another store took its name, or it was removed.
    pub removed_at: Option<i64>,
}

/// The number of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allotment {
    /// Third part of the id.
    pub number: u32,
    /// The number that the name had with another store.
    pub replaced: Option<u32>,
}

/// An integrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntegratorRow {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Callbacks it takes.
    pub callbacks: Vec<String>,
    /// When first, ms since 1970 UTC.
    pub registered_at: i64,
    /// XML.
    pub capabilities: Option<String>,
    /// When it was removed.
    pub removed_at: Option<i64>,
}

/// A support instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRow {
    /// The platform's own name of it.
    pub external_id: String,
    /// XML.
    pub capabilities: Option<String>,
    /// When first, ms since 1970 UTC.
    pub registered_at: i64,
    /// When its integrator removed it (LIF-1); registering again takes that back.
    pub removed_at: Option<i64>,
}

/// What a node last said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRow {
    /// Its heartbeat, encoded.
    pub beat: Bytes,
    /// `(epoch, order)` of it.
    pub newest: (u64, u64),
    /// When it was heard, by this server's clock, ms since 1970 UTC.
    pub heard_at: i64,
    /// Time between its heartbeats, ms, smoothed; 0: one so far.
    pub interval_ms: i64,
    /// When one was heard that nobody had asked for: they alone say what the time between is.
    #[serde(default)]
    pub regular_at: i64,
}

/// The first answer to a request with an Idempotency-Key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    /// When, ms since 1970 UTC.
    pub at: i64,
    /// Ids of what it made.
    pub made: Vec<Uuid>,
}

/// Key of a stream: one origin, epoch and precedence.
pub fn stream_key(origin: &RemoteId, epoch: u64, precedence: Precedence) -> Vec<u8> {
    let id = origin.as_bytes();
    let mut key = Vec::with_capacity(id.len() + 10 + 16);
    key.push(id.len() as u8);
    key.extend_from_slice(id);
    key.extend_from_slice(&epoch.to_be_bytes());
    key.push(precedence as u8);
    key
}

/// The stream of that key.
pub fn stream_of(key: &[u8]) -> Option<(RemoteId, u64, Precedence)> {
    let (length, rest) = key.split_first()?;
    let (id, rest) = rest.split_at_checked(usize::from(*length))?;
    let epoch = u64::from_be_bytes(rest.get(..8)?.try_into().ok()?);
    let precedence = Precedence::from_number(*rest.get(8)?)?;
    Some((RemoteId::from_bytes(id).ok()?, epoch, precedence))
}

/// The stream of a message.
pub fn stream_of_id(id: &MessageId) -> Vec<u8> {
    stream_key(&id.origin, id.epoch, id.precedence)
}

/// A stream's key and numbers behind it.
pub fn with_numbers(stream: &[u8], numbers: &[u64]) -> Bytes {
    let mut key = Vec::with_capacity(stream.len() + 8 * numbers.len());
    key.extend_from_slice(stream);
    numbers.iter().for_each(|n| key.extend_from_slice(&n.to_be_bytes()));
    key.into()
}

/// The number at `at` in bytes.
pub fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
}

/// Key of a module's row.
pub fn service_key(module: &str, key: &[u8]) -> Bytes {
    let mut whole = Vec::with_capacity(module.len() + 1 + key.len());
    whole.extend_from_slice(module.as_bytes());
    whole.push(0);
    whole.extend_from_slice(key);
    whole.into()
}

/// Key of a message set aside.
pub fn poison_key(precedence: Precedence, seq: u64) -> Bytes {
    with_numbers(&[precedence as u8], &[seq])
}

/// Key of a node's number.
pub fn allotment_key(customer: Uuid, nonce: u64, name: &str) -> Bytes {
    [customer.as_bytes().as_slice(), &nonce.to_be_bytes(), name.as_bytes()].concat().into()
}

/// Key of the newest number of a name; without one, of the customer's last number.
pub fn numbers_key(customer: Uuid, name: Option<&str>) -> Bytes {
    let name = name.map(|n| [b"n", n.as_bytes()].concat()).unwrap_or_default();
    [customer.as_bytes().as_slice(), &name].concat().into()
}
