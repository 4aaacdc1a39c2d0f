//! What the application server is asked, by API and portal.
//!
//! What the lists show and take has the words of `openapi.json`.
mod accounts;
mod filters;
pub mod kept;
mod views;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use protocol::{MessageId, RemoteId};
use uuid::Uuid;

pub use accounts::*;
pub use filters::*;
pub use views::*;

/// Rows of one page at most (contract §5).
pub const LIMIT_MAX: usize = 10_000;
/// Rows of a page where the caller says nothing.
pub const LIMIT_DEFAULT: usize = 1_000;
/// Longest wait for nodes to answer a trace or a ledger, seconds.
pub const WAIT_S_MAX: u64 = 45;
/// Targets of one request for actions.
pub const TARGETS_MAX: usize = 10_000;
/// Longest life of an action, seconds: 30 days.
pub const ACTION_LIFE_S_MAX: u32 = 2_592_000;
/// Life of an action where the caller says nothing, seconds.
pub const ACTION_LIFE_S_DEFAULT: u32 = 3_600;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// Nothing has that id. HTTP 404 `not_found`.
    #[error("not found")]
    NotFound,
    /// A parameter or a field is wrong. HTTP 400 `malformed`.
    #[error("{field}: {detail}")]
    BadRequest {
        /// Query parameter, or JSON pointer into the body.
        field: String,
        /// What is wrong and how to mend it.
        detail: String,
    },
    /// Not in this state. HTTP 409 `conflict`.
    #[error("{0}")]
    Conflict(String),
    /// Too much at once. HTTP 429 `busy`.
    #[error("busy: ask again in a second")]
    Busy,
    /// The store does not read or write now. HTTP 503 `storage_down`.
    #[error("storage is down: {0}")]
    StorageDown(String),
}

impl RecordsError {
    /// A wrong parameter or field.
    pub fn bad(field: &str, detail: impl Into<String>) -> Self {
        Self::BadRequest { field: field.to_owned(), detail: detail.into() }
    }
}

/// An answer, or why not.
pub type Answer<T> = Result<T, RecordsError>;

/// The records of the application server. Lists are newest first; a filter with several values
/// takes any of them. Cheap to clone behind an `Arc`; reads never wait for writes.
#[async_trait]
pub trait Records: Send + Sync {
    /// Customers.
    async fn customers(&self, paging: &Paging) -> Answer<Page<Customer>>;
    /// One customer.
    async fn customer(&self, id: Uuid) -> Answer<Customer>;
    /// Makes a customer's id (IDM-2). `Conflict` where the name is taken. The same
    /// `idempotency` key within 24 h gets the first answer again.
    async fn register_customer(&self, name: &str, idempotency: Option<&str>) -> Answer<Customer>;

    /// Nodes.
    async fn nodes(&self, filter: &NodeFilter, paging: &Paging) -> Answer<Page<Node>>;
    /// One node.
    async fn node(&self, id: RemoteId) -> Answer<Node>;

    /// Integrators.
    async fn integrators(
        &self,
        filter: &IntegratorFilter,
        paging: &Paging,
    ) -> Answer<Page<Integrator>>;
    /// One integrator.
    async fn integrator(&self, id: RemoteId) -> Answer<Integrator>;

    /// Support instances.
    async fn instances(&self, filter: &InstanceFilter, paging: &Paging) -> Answer<Page<Instance>>;
    /// One support instance.
    async fn instance(&self, id: RemoteId) -> Answer<Instance>;

    /// Alarms; without `state` those that are not closed. Newest opened first; a page may hold
    /// fewer rows than asked for and still have a next one.
    async fn alarms(&self, filter: &AlarmFilter, paging: &Paging) -> Answer<Page<Alarm>>;
    /// One alarm.
    async fn alarm(&self, id: Uuid) -> Answer<Alarm>;
    /// The messages of one alarm, newest first.
    async fn alarm_history(&self, id: Uuid, paging: &Paging) -> Answer<Page<Message>>;
    /// Acknowledges; stands until closed or more severe. `Conflict` where it is closed.
    async fn acknowledge(&self, id: Uuid, by: &str, comment: Option<&str>) -> Answer<Alarm>;
    /// Takes the acknowledgement back.
    async fn unacknowledge(&self, id: Uuid, by: &str) -> Answer<Alarm>;
    /// No notifications until then; the state does not change.
    async fn silence(
        &self,
        id: Uuid,
        by: &str,
        until: Time,
        comment: Option<&str>,
    ) -> Answer<Alarm>;
    /// Ends the silence now.
    async fn unsilence(&self, id: Uuid, by: &str) -> Answer<Alarm>;
    /// Closes by hand; what is closed stays closed.
    async fn close(&self, id: Uuid, by: &str, comment: Option<&str>) -> Answer<Alarm>;

    /// Events. Newest first; a page may hold fewer rows than asked for and still have a next one.
    async fn events(&self, filter: &EventFilter, paging: &Paging) -> Answer<Page<Event>>;

    /// Stored messages, newest stored first. A page may hold fewer rows than asked for and still
    /// have a next one: the work of one page is bounded.
    async fn messages(&self, filter: &MessageFilter, paging: &Paging) -> Answer<Page<Message>>;
    /// One message without its data.
    async fn message(&self, id: MessageId) -> Answer<Message>;
    /// Its data, byte for byte.
    async fn message_data(&self, id: MessageId) -> Answer<MessageData>;
    /// One message whole, decoded: for the export.
    async fn message_whole(&self, id: MessageId) -> Answer<protocol::Message>;

    /// Where a message is or what became of it. What has not arrived is asked for at the nodes
    /// that may have it; answers when it is found or all that can be reached have said no, at the
    /// latest after `wait_s` seconds. `Busy` where too many ask.
    async fn trace(&self, id: MessageId, wait_s: u64) -> Answer<FromNodes<Trace>>;
    /// The account of each node: by its own word now, where it is heard within `wait_s` seconds,
    /// else by its last heartbeat. `Busy` where too many ask.
    async fn ledger(
        &self,
        filter: &LedgerFilter,
        paging: &Paging,
        wait_s: u64,
    ) -> Answer<FromNodes<Page<Ledger>>>;
    /// Numbers that are neither stored, nor explained by an end, nor held (`delivery.md` §4).
    async fn gaps(&self) -> Answer<Vec<Gap>>;

    /// Management actions.
    async fn actions(&self, filter: &ActionFilter, paging: &Paging) -> Answer<Page<Action>>;
    /// One action.
    async fn action(&self, id: Uuid) -> Answer<Action>;
    /// Requests an action of one or many: one [`Action`] for each target, on disk when this
    /// returns. The same `idempotency` key within 24 h gets the first answer again.
    async fn request_actions(
        &self,
        request: &ActionRequest,
        by: &str,
        idempotency: Option<&str>,
    ) -> Answer<Vec<Action>>;

    /// What changes from now on, or after the change with the id `after` where that is still
    /// known; else [`Change::Gap`] comes first. A reader that is too slow gets a gap, too. Ends
    /// with the server.
    fn subscribe(&self, filter: &StreamFilter, after: Option<&str>) -> BoxStream<'static, Changed>;
}

/// The data of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageData {
    /// Declared media type; empty where the message has no data.
    pub encoding: String,
    /// Any bytes: hostile.
    pub data: Bytes,
}

/// A change with the id that `Last-Event-ID` quotes.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// Opaque.
    pub id: String,
    /// What changed, as it is now.
    pub change: Change,
}

/// The object of a list, as it is now.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// `alarm`
    Alarm(Alarm),
    /// `event`
    Event(Event),
    /// `message`
    Message(Message),
    /// `node`
    Node(Node),
    /// `ledger`
    Ledger(Ledger),
    /// `action`
    Action(Action),
    /// Older ones are gone: list again.
    Gap,
}

impl Change {
    /// Word of the event.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Alarm(_) => "alarm",
            Self::Event(_) => "event",
            Self::Message(_) => "message",
            Self::Node(_) => "node",
            Self::Ledger(_) => "ledger",
            Self::Action(_) => "action",
            Self::Gap => "gap",
        }
    }

    /// The object in JSON; an empty one for a gap.
    pub fn json(&self) -> String {
        let json = match self {
            Self::Alarm(object) => serde_json::to_string(object),
            Self::Event(object) => serde_json::to_string(object),
            Self::Message(object) => serde_json::to_string(object),
            Self::Node(object) => serde_json::to_string(object),
            Self::Ledger(object) => serde_json::to_string(object),
            Self::Action(object) => serde_json::to_string(object),
            Self::Gap => Ok("{}".to_owned()),
        };
        // The views hold nothing that JSON cannot say.
        json.unwrap_or_default()
    }
}
