//! Why a node says no, and what the sender does then (contract §6).
use serde::{Deserialize, Serialize};

/// What the sender of a refused message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It still has the message and sends it again later: only the node's state spoke.
    TryAgain,
    /// The message ends as `refused`: it would be refused for ever, by every member of a farm.
    GiveUp,
}

/// The stable names of refusals. New ones are appended.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    thiserror::Error,
)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Refusal {
    /// Bytes, blocks or values that break the format.
    #[error("malformed")]
    Malformed = 0,
    /// Larger than a named limit.
    #[error("too_large")]
    TooLarge = 1,
    /// An instance nobody registered.
    #[error("unknown_instance")]
    UnknownInstance = 2,
    /// A version this node does not speak.
    #[error("unknown_version")]
    UnknownVersion = 3,
    /// What the message says of its sender and what the connection says differ (REL-1…3).
    #[error("identity_mismatch")]
    IdentityMismatch = 4,
    /// The customer or a right forbids it.
    #[error("denied")]
    Denied = 5,
    /// This node is in the message's path already; a slip in configuration.
    #[error("loop")]
    Loop = 6,
    /// Its time to live ran out.
    #[error("expired")]
    Expired = 7,
    /// A service module failed at it `POISON_ATTEMPTS_MAX` times.
    #[error("poison")]
    Poison = 8,
    /// Nobody has that id.
    #[error("unknown_destination")]
    UnknownDestination = 9,
    /// The receiver has no such function.
    #[error("not_supported")]
    NotSupported = 10,
    /// The sender is not registered (yet).
    #[error("not_registered")]
    NotRegistered = 11,
    /// Another connection has that name's callbacks.
    #[error("name_in_use")]
    NameInUse = 12,
    /// The queue is full and nothing may be evicted (QUE-14).
    #[error("queue_full")]
    QueueFull = 13,
    /// Too many requests at once, or the exchange before this one is missing.
    #[error("busy")]
    Busy = 14,
    /// The node is going down.
    #[error("stopping")]
    Stopping = 15,
    /// The disk is full or fails.
    #[error("storage_down")]
    StorageDown = 16,
    /// A fault of the node.
    #[error("internal")]
    Internal = 17,
    /// The customer's records moved to another server.
    #[error("moved")]
    Moved = 18,
    /// The exchange's numbers are unknown here: draw a new incarnation and send again what is held.
    #[error("new_incarnation")]
    NewIncarnation = 19,
}

impl Refusal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Refusal; 20] = [
        Self::Malformed,
        Self::TooLarge,
        Self::UnknownInstance,
        Self::UnknownVersion,
        Self::IdentityMismatch,
        Self::Denied,
        Self::Loop,
        Self::Expired,
        Self::Poison,
        Self::UnknownDestination,
        Self::NotSupported,
        Self::NotRegistered,
        Self::NameInUse,
        Self::QueueFull,
        Self::Busy,
        Self::Stopping,
        Self::StorageDown,
        Self::Internal,
        Self::Moved,
        Self::NewIncarnation,
    ];

    /// What the sender does. A loop tries again, with an alarm: it is a slip in a configuration,
    /// not in the message (`delivery.md` §5).
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Malformed
            | Self::TooLarge
            | Self::UnknownInstance
            | Self::UnknownVersion
            | Self::IdentityMismatch
            | Self::Denied
            | Self::Expired
            | Self::Poison
            | Self::UnknownDestination
            | Self::NotSupported => Verdict::GiveUp,
            Self::Loop
            | Self::NotRegistered
            | Self::NameInUse
            | Self::QueueFull
            | Self::Busy
            | Self::Stopping
            | Self::StorageDown
            | Self::Internal
            | Self::Moved
            | Self::NewIncarnation => Verdict::TryAgain,
        }
    }

    /// The name outsiders see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::UnknownInstance => "unknown_instance",
            Self::UnknownVersion => "unknown_version",
            Self::IdentityMismatch => "identity_mismatch",
            Self::Denied => "denied",
            Self::Loop => "loop",
            Self::Expired => "expired",
            Self::Poison => "poison",
            Self::UnknownDestination => "unknown_destination",
            Self::NotSupported => "not_supported",
            Self::NotRegistered => "not_registered",
            Self::NameInUse => "name_in_use",
            Self::QueueFull => "queue_full",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
            Self::StorageDown => "storage_down",
            Self::Internal => "internal",
            Self::Moved => "moved",
            Self::NewIncarnation => "new_incarnation",
        }
    }

    /// What happened and what to do, in a sentence each, for a problem document (RFC 9457).
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Malformed => ("The request breaks the format", "mend what sends it"),
            Self::TooLarge => ("The request is too large", "send less at once"),
            Self::UnknownInstance => ("The instance is not known", "register it first"),
            Self::UnknownVersion => ("The version is not spoken here", "update the older side"),
            Self::IdentityMismatch => {
                ("This is not who it says it is", "look at the sender's certificate and its id")
            }
            Self::Denied => ("This is not allowed", "ask who may allow it"),
            Self::Loop => ("The message was here before", "look for a circle among the parents"),
            Self::Expired => ("Its time to live ran out", "send it anew if it is still of use"),
            Self::Poison => ("No module can handle it", "look at the queue set-aside"),
            Self::UnknownDestination => ("Nobody has that id", "look at the destination"),
            Self::NotSupported => ("This is not supported here", "look at what is offered here"),
            Self::NotRegistered => ("The sender is not registered", "wait until it is"),
            Self::NameInUse => ("The name is in use", "choose another, or end who has it"),
            Self::QueueFull => ("The queue is full", "try again when it has drained"),
            Self::Busy => ("Too much at once", "try again after Retry-After"),
            Self::Stopping => ("The node is going down", "try again after Retry-After"),
            Self::StorageDown => {
                ("The store cannot be used now", "make room on the node's disk; try again then")
            }
            Self::Internal => ("A fault of the node", "see its log; try again"),
            Self::Moved => ("The customer's records moved", "ask the server that has them now"),
            Self::NewIncarnation => {
                ("The numbers are not known here", "draw a new incarnation and send again")
            }
        }
    }

    /// The refusal of that number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// HTTP status of a whole request refused so (contract §6).
    pub fn http_status(self) -> u16 {
        match self {
            Self::Malformed | Self::UnknownVersion => 400,
            Self::IdentityMismatch | Self::Denied => 403,
            Self::UnknownInstance | Self::UnknownDestination => 404,
            Self::TooLarge => 413,
            Self::Busy => 429,
            Self::Internal => 500,
            _ => 503,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_stable() {
        for (i, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(*refusal as usize, i);
            assert_eq!(Refusal::from_number(i as u8), Some(*refusal));
            assert_eq!(refusal.to_string(), refusal.name());
            let (title, advice) = refusal.words();
            assert!(title.len() > 10 && advice.len() > 10, "{refusal}");
        }
        assert_eq!(Refusal::from_number(Refusal::ALL.len() as u8), None);
    }
}
