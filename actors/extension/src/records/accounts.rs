//! What became of messages and orders: traces, ledgers, gaps, actions.
use std::collections::BTreeMap;

use protocol::{MessageId, Precedence, RemoteId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::views::Time;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// On its way, or a module is not done with it.
    Queued,
    /// All are done with it.
    Delivered,
    /// Its time to live ran out.
    Expired,
    /// A full queue made room.
    Evicted,
    /// Somebody gave it up.
    Refused,
    /// A module dropped it or made another of it.
    Consumed,
    /// No node that was asked has it.
    Unknown,
}

/// A node a message passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// Name.
    pub node: String,
    /// Its id.
    pub node_id: RemoteId,
    /// What it is for.
    pub roles: Vec<String>,
    /// When it took the message, by its clock.
    pub received_at: Time,
    /// When it sent it.
    pub sent_at: Option<Time>,
}

/// Where a message is or what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Its id.
    pub message_id: MessageId,
    /// What became of it.
    pub state: MessageState,
    /// Where it is, or ended.
    pub node_id: Option<RemoteId>,
    /// A refusal's name.
    pub reason: Option<String>,
    /// Data class.
    pub class: Option<String>,
    /// By the platform's clock.
    pub occurred_at: Option<Time>,
    /// On disk at the proxy.
    pub accepted_at: Option<Time>,
    /// On disk at the application server.
    pub stored_at: Option<Time>,
    /// Origin first.
    pub hops: Vec<Hop>,
}

/// An answer for which nodes were asked.
#[derive(Clone, Debug, PartialEq)]
pub struct FromNodes<T> {
    /// The answer.
    pub answer: T,
    /// Nodes that were asked and said nothing in time; none: nobody was asked.
    pub unanswered: Option<Vec<RemoteId>>,
    /// Where the message stands at the node that has it, where it was asked for one.
    pub stands: Option<Stands>,
}

impl<T> FromNodes<T> {
    /// An answer for which nobody was asked.
    pub fn of_records(answer: T) -> Self {
        Self { answer, unanswered: None, stands: None }
    }
}

/// Where a message stands at its node, beside what its trace says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stands {
    /// Name of the queue.
    pub queue: String,
    /// Tries of the node's link that failed, in a row.
    pub attempts: u32,
}

/// The account of a node (`delivery.md` §4).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Name.
    pub node: String,
    /// Its id.
    pub node_id: RemoteId,
    /// One reading of one transaction.
    pub as_of: Time,
    /// Taken into custody here.
    #[serde(rename = "in")]
    pub taken: u64,
    /// Handed on; at the top, every module is done with it.
    pub delivered: u64,
    /// Time to live ran out.
    pub expired: u64,
    /// Made room.
    pub evicted: u64,
    /// Given up or set aside.
    pub refused: u64,
    /// Dropped or replaced by a module.
    pub consumed: u64,
    /// Held.
    pub queued: u64,
    /// `in` is the sum of the others.
    pub balanced: bool,
    /// Outside the account: came again.
    pub duplicates: u64,
    /// Outside the account: refused at the door.
    pub turned_away: u64,
    /// Outside the account: before registration.
    pub dropped: u64,
    /// Refused, by refusal.
    pub reasons: BTreeMap<String, u64>,
}

/// Numbers of a source that nothing explains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Who numbered them.
    pub origin: RemoteId,
    /// Which life of its store, lower-case hexadecimal as in message ids.
    pub epoch: String,
    /// Their precedence.
    pub precedence: Precedence,
    /// First number.
    pub first: u64,
    /// Last number.
    pub last: u64,
}

/// What an action is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionState {
    /// On disk here.
    Queued,
    /// The customer is asked.
    Asked,
    /// Handed down.
    Sent,
    /// The callback returned, or its outcome is unknown.
    Answered,
    /// Somebody on the way refused it.
    Refused,
    /// Its time ran out.
    Expired,
}

/// An order to an integrator or instance, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Its id.
    pub action_id: Uuid,
    /// The message that carries it.
    pub message_id: MessageId,
    /// To whom.
    pub target_id: RemoteId,
    /// Name; empty: only the XML says.
    pub name: String,
    /// How far it is.
    pub state: ActionState,
    /// Who asked for it.
    pub requested_by: String,
    /// When.
    pub requested_at: Time,
    /// When it is of no use any more.
    pub expires_at: Time,
    /// When the answer was stored.
    pub answered_at: Option<Time>,
    /// What the callback returned.
    pub status: Option<i64>,
    /// A refusal's name.
    pub reason: Option<String>,
    /// Messages that answer it.
    pub answers: Vec<MessageId>,
}

/// A request for actions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionRequest {
    /// Remote services ids, or `group:NAME`.
    pub targets: Vec<String>,
    /// Name of the action.
    #[serde(default)]
    pub name: Option<String>,
    /// What it takes.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// A whole action document instead of name and parameters.
    #[serde(default)]
    pub xml: Option<String>,
    /// Seconds until it is of no use.
    #[serde(default)]
    pub time_to_live_s: Option<u32>,
}
