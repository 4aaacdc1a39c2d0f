//! Answers of the proxy: what became of a call, or why it was refused (contract §6, §7).
use serde::{Deserialize, Serialize};

use super::{
    Call,
    fields::{Fields, Map, missing},
};
use crate::{
    MessageId, Refusal, RemoteId, Verdict,
    limits::{NAME_BYTES_MAX, TEXT_BYTES_MAX},
    message::wire_enum,
};

wire_enum! {
    /// What became of a message.
    Outcome {
        /// On disk, synced.
        Stored = "stored",
        /// It was there: a repeat of the same stream and seq.
        Duplicate = "duplicate",
        /// Bulk that found no room (QUE-12).
        Evicted = "evicted",
        /// The proxy is not registered (PRX-13).
        Dropped = "dropped",
    }
}

/// Numbers of `rs_errno` (contract §6); a call that sets one of them returns -2.
pub mod rs {
    /// No proxy, or it is stopping.
    pub const EDOWN: i32 = 1;
    /// The queue is full.
    pub const EFULL: i32 = 2;
    /// The proxy is not registered.
    pub const ENOTREG: i32 = 3;
    /// The two speak different versions.
    pub const EPROTO: i32 = 4;
    /// Not allowed.
    pub const EDENIED: i32 = 5;
    /// A fault of the proxy.
    pub const EINTERNAL: i32 = 6;
}

/// `errno` of Linux, as numbers of the wire.
mod errno {
    pub(super) const ENOENT: i32 = 2;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const EBADMSG: i32 = 74;
    pub(super) const EMSGSIZE: i32 = 90;
}

/// Why a call was refused. `code` is -1 with an `errno` where a parameter is wrong (API-5), -2 with
/// an `rs_errno` where the infrastructure is (API-6).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {detail}")]
pub struct CallError {
    /// The stable name.
    pub name: Refusal,
    /// Whether to send it again.
    pub verdict: Verdict,
    /// What a C call returns.
    pub code: i32,
    /// With code -1.
    pub errno: Option<i32>,
    /// With code -2; one of [`rs`].
    pub rs_errno: Option<i32>,
    /// For people.
    pub detail: String,
    /// How long to wait before trying again.
    pub retry_after_ms: Option<u64>,
    /// Protocols the proxy speaks, with `unknown_version`.
    pub supported: Vec<u32>,
}

/// An answer that cannot be read: the other side breaks the protocol.
pub type ReadError = CallError;

impl CallError {
    /// A refusal with the code that goes with it (contract §6).
    pub fn new(name: Refusal, detail: impl Into<String>) -> Self {
        let (errno, rs_errno) = match name {
            Refusal::Malformed => (Some(errno::EINVAL), None),
            Refusal::TooLarge => (Some(errno::EMSGSIZE), None),
            Refusal::UnknownInstance => (Some(errno::ENOENT), None),
            Refusal::UnknownVersion | Refusal::NotSupported => (None, Some(rs::EPROTO)),
            Refusal::IdentityMismatch | Refusal::Denied | Refusal::NameInUse => {
                (None, Some(rs::EDENIED))
            }
            Refusal::NotRegistered => (None, Some(rs::ENOTREG)),
            Refusal::QueueFull | Refusal::Busy => (None, Some(rs::EFULL)),
            Refusal::Stopping => (None, Some(rs::EDOWN)),
            _ => (None, Some(rs::EINTERNAL)),
        };
        Self {
            name,
            verdict: name.verdict(),
            code: if errno.is_some() { -1 } else { -2 },
            errno,
            rs_errno,
            detail: detail.into(),
            retry_after_ms: None,
            supported: Vec::new(),
        }
    }

    /// A value outside the definitions: -1, EINVAL.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Refusal::Malformed, detail)
    }

    /// XML that is not well-formed or text that is not UTF-8: -1, EBADMSG.
    pub fn bad_text(detail: impl Into<String>) -> Self {
        Self { errno: Some(errno::EBADMSG), ..Self::malformed(detail) }
    }

    /// Beyond a limit: -1, EMSGSIZE.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(Refusal::TooLarge, detail)
    }

    /// An instance nobody registered: -1, ENOENT.
    pub fn unknown_instance(instance: &str) -> Self {
        Self::new(Refusal::UnknownInstance, format!("instance {instance:?} is not registered"))
    }

    /// There is no proxy, or it is stopping: -2, RS_EDOWN.
    pub fn down(detail: impl Into<String>) -> Self {
        Self::new(Refusal::Stopping, detail)
    }

    /// The same, to be tried again after that many milliseconds.
    #[must_use]
    pub fn after(self, retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..self }
    }

    /// The map of the wire.
    pub fn map(&self) -> Map {
        let verdict = match self.verdict {
            Verdict::TryAgain => "try_again",
            Verdict::GiveUp => "give_up",
        };
        let map = Map::new().text("name", self.name.name()).text("verdict", verdict);
        let map = map.int("code", self.code.into());
        let map = match (self.errno, self.rs_errno) {
            (Some(errno), _) => map.int("errno", errno.into()),
            (None, Some(errno)) => map.int("rs_errno", errno.into()),
            (None, None) => map,
        };
        let map = map.text("detail", &self.detail);
        let map = map.uint_or_nil("retry_after_ms", self.retry_after_ms);
        match self.supported.is_empty() {
            true => map,
            false => map.list("supported", &self.supported, |to, version| {
                to.uint((*version).into());
            }),
        }
    }

    /// Reads the map of the wire. A name of a later version keeps its verdict and its codes.
    pub fn read(map: &[u8]) -> Result<Self, ReadError> {
        let fields = Fields::read(map)?;
        let name = fields.needed_text("name", NAME_BYTES_MAX)?;
        let detail = fields.text("detail", 4 * TEXT_BYTES_MAX)?.unwrap_or_default();
        let try_again = fields.text("verdict", NAME_BYTES_MAX)? == Some("try_again");
        let known = Refusal::ALL.into_iter().find(|r| r.name() == name);
        let mut error = match known {
            Some(known) => Self::new(known, detail),
            None if try_again => Self::new(Refusal::Internal, format!("{name}: {detail}")),
            None => Self::new(Refusal::NotSupported, format!("{name}: {detail}")),
        };
        let number = |key| fields.int(key).map(|n| n.and_then(|n| i32::try_from(n).ok()));
        if let Some(code) = number("code")? {
            error.code = code;
            error.errno = number("errno")?;
            error.rs_errno = number("rs_errno")?;
        }
        error.retry_after_ms = fields.uint("retry_after_ms")?;
        for version in fields.list("supported", 64)? {
            let version = crate::codec::Reader::new(version).uint();
            error.supported.extend(version.and_then(|v| u32::try_from(v).ok()));
        }
        Ok(error)
    }
}

/// What a call that was not refused is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallAnswer {
    /// To `instance`.
    Instance {
        /// The id it has for ever.
        instance_id: RemoteId,
        /// Whether it had it before.
        known: bool,
    },
    /// To `instances`.
    Instances {
        /// How many were new.
        new: u64,
        /// How many were known.
        known: u64,
    },
    /// To `alarm`, `event`, `data`, `capabilities`.
    Message {
        /// What became of it.
        outcome: Outcome,
        /// Its id; none where it was not numbered, or is known no more.
        message_id: Option<MessageId>,
    },
    /// To `remove` and `bye`.
    Done,
}

impl CallAnswer {
    /// The map of the wire.
    pub fn map(&self) -> Map {
        let map = Map::new();
        match self {
            Self::Instance { instance_id, known } => {
                map.text("instance_id", &instance_id.to_string()).boolean("known", *known)
            }
            Self::Instances { new, known } => map.uint("new", *new).uint("known", *known),
            Self::Message { outcome, message_id } => {
                let id = message_id.map(|id| id.to_string());
                map.text("outcome", outcome.word()).text_or_nil("message_id", id.as_deref())
            }
            Self::Done => map,
        }
    }

    /// Reads the map of the wire that answers `call`.
    pub fn read(call: &Call, map: &[u8]) -> Result<Self, ReadError> {
        Self::read_method(call.method(), map)
    }

    /// Reads the map of the wire that answers a call of that method.
    pub fn read_method(method: &str, map: &[u8]) -> Result<Self, ReadError> {
        let fields = Fields::read(map)?;
        Ok(match method {
            "instance" => Self::Instance {
                instance_id: fields.parsed("instance_id")?.ok_or_else(|| missing("instance_id"))?,
                known: fields.boolean("known")?.unwrap_or(true),
            },
            "instances" => Self::Instances {
                new: fields.uint("new")?.unwrap_or_default(),
                known: fields.uint("known")?.unwrap_or_default(),
            },
            "alarm" | "event" | "data" | "capabilities" => Self::Message {
                outcome: fields.word("outcome")?.ok_or_else(|| missing("outcome"))?,
                message_id: fields.parsed("message_id")?,
            },
            _ => Self::Done,
        })
    }
}
