//! Callbacks: what the proxy asks an integrator, and what it answers (BCK rows).
use super::{
    CallError, Callback,
    fields::{Fields, Map, missing},
};
use crate::{
    MessageId,
    heartbeat::Condition,
    limits::{DATA_BYTES_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX},
    registration::INSTANCES_MAX,
};

/// Length of the path of an update, bytes: what Linux takes.
const PATH_BYTES_MAX: usize = 4096;

/// How are you?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusRequest {
    /// Each instance is wanted, too.
    pub instances: bool,
}

/// State of one thing, with a word for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPart {
    /// How it is.
    pub state: Condition,
    /// For people.
    pub text: String,
}

/// State of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceStatus {
    /// The platform's own name of it.
    pub instance: String,
    /// How it is.
    pub status: StatusPart,
}

/// Answers a status request: all three levels (BCK-3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusAnswer {
    /// The integrator.
    pub module: StatusPart,
    /// The management system it stands for.
    pub platform: StatusPart,
    /// Instances, where they were asked for.
    pub instances: Vec<InstanceStatus>,
}

/// Do something (BCK-4, BCK-11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionRequest {
    /// UUID; the same twice: act once.
    pub action_id: String,
    /// The order's message; what answers it quotes this.
    pub message_id: MessageId,
    /// At whom; `IntegrationModule` is the integrator.
    pub instance: String,
    /// The action document, XML (BCK-5).
    pub action: String,
    /// After that it is not wanted, ms since 1970 UTC.
    pub expires_at_ms: i64,
}

/// Install a file (BCK-6, BCK-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateRequest {
    /// UUID; the same twice: act once.
    pub action_id: String,
    /// At whom; `IntegrationModule` is the integrator.
    pub instance: String,
    /// Where the file lies.
    pub path: String,
    /// Its digest, hexadecimal.
    pub sha256: String,
}

/// Send the capabilities of an instance (BCK-8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilitiesRequest {
    /// The request; the call that follows quotes it in `answers`.
    pub message_id: MessageId,
    /// Of whom.
    pub instance: String,
}

/// One request of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallbackRequest {
    /// `status`
    Status(StatusRequest),
    /// `action`
    Action(ActionRequest),
    /// `update`
    Update(UpdateRequest),
    /// `capabilities`
    Capabilities(CapabilitiesRequest),
}

/// What an integrator answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallbackAnswer {
    /// To `status`.
    Status(StatusAnswer),
    /// To `action` and `capabilities`: the integrator's own number, 0 for done.
    Done {
        /// The number.
        status: i64,
    },
    /// To `update`.
    Taken,
}

/// Why a callback has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// The integrator has no such callback (BCK-1).
    #[error("not_supported: {0}")]
    NotSupported(String),
    /// It tried and failed (BCK-10).
    #[error("failed: {0}")]
    Failed(String),
    /// It did not answer in time; it may have acted. Never on the wire.
    #[error("no answer in time")]
    TimedOut,
    /// The connection ended first; it may have acted. Never on the wire.
    #[error("integrator went away")]
    Gone,
}

impl StatusPart {
    /// A state with its text.
    pub fn new(state: Condition, text: impl Into<String>) -> Self {
        Self { state, text: text.into() }
    }

    fn write(&self, map: Map) -> Map {
        map.text("state", self.state.word()).text("text", &self.text)
    }

    fn read(fields: &Fields<'_>) -> Result<Self, CallError> {
        Ok(Self {
            state: fields.word("state")?.unwrap_or(Condition::Unknown),
            text: fields.text("text", TEXT_BYTES_MAX)?.unwrap_or_default().to_owned(),
        })
    }
}

impl CallbackRequest {
    /// Which callback it is for.
    pub fn callback(&self) -> Callback {
        match self {
            Self::Status(_) => Callback::Status,
            Self::Action(_) => Callback::Action,
            Self::Update(_) => Callback::Update,
            Self::Capabilities(_) => Callback::Capabilities,
        }
    }

    /// What makes a repeat a repeat; a status may be asked as often as one likes.
    pub fn once(&self) -> Option<String> {
        match self {
            Self::Status(_) => None,
            Self::Action(r) => Some(format!("action {}", r.action_id)),
            Self::Update(r) => Some(format!("update {}", r.action_id)),
            Self::Capabilities(r) => Some(format!("capabilities {}", r.message_id)),
        }
    }

    /// The map of the wire.
    pub fn map(&self) -> Map {
        let map = Map::new();
        match self {
            Self::Status(r) => map.boolean("instances", r.instances),
            Self::Action(r) => map
                .text("action_id", &r.action_id)
                .text("message_id", &r.message_id.to_string())
                .text("instance", &r.instance)
                .text("action", &r.action)
                .int("expires_at_ms", r.expires_at_ms),
            Self::Update(r) => map
                .text("action_id", &r.action_id)
                .text("instance", &r.instance)
                .text("path", &r.path)
                .text("sha256", &r.sha256),
            Self::Capabilities(r) => {
                map.text("message_id", &r.message_id.to_string()).text("instance", &r.instance)
            }
        }
    }

    /// Reads a request of the proxy.
    pub fn read(method: &str, params: &[u8]) -> Result<Self, CallbackError> {
        let unknown = || CallbackError::NotSupported(format!("no {method} callback"));
        let callback: Callback = method.parse().map_err(|_| unknown())?;
        Self::read_params(callback, params).map_err(|e| CallbackError::Failed(e.detail))
    }

    fn read_params(callback: Callback, params: &[u8]) -> Result<Self, CallError> {
        let f = Fields::read(params)?;
        let needed = |key, most| f.needed_text(key, most).map(str::to_owned);
        let message_id = || f.parsed("message_id")?.ok_or_else(|| missing("message_id"));
        Ok(match callback {
            Callback::Status => {
                let instances = f.boolean("instances")?.unwrap_or_default();
                Self::Status(StatusRequest { instances })
            }
            Callback::Action => Self::Action(ActionRequest {
                action_id: needed("action_id", NAME_BYTES_MAX)?,
                message_id: message_id()?,
                instance: needed("instance", NAME_BYTES_MAX)?,
                action: needed("action", DATA_BYTES_MAX)?,
                expires_at_ms: f.int("expires_at_ms")?.unwrap_or(i64::MAX),
            }),
            Callback::Update => Self::Update(UpdateRequest {
                action_id: needed("action_id", NAME_BYTES_MAX)?,
                instance: needed("instance", NAME_BYTES_MAX)?,
                path: needed("path", PATH_BYTES_MAX)?,
                sha256: needed("sha256", NAME_BYTES_MAX)?,
            }),
            Callback::Capabilities => Self::Capabilities(CapabilitiesRequest {
                message_id: message_id()?,
                instance: needed("instance", NAME_BYTES_MAX)?,
            }),
        })
    }
}

impl CallbackAnswer {
    /// The map of the wire.
    pub fn map(&self) -> Map {
        let map = Map::new();
        match self {
            Self::Status(a) => map
                .map("module", a.module.write(Map::new()))
                .map("platform", a.platform.write(Map::new()))
                .list("instances", &a.instances, |to, i| {
                    i.status.write(Map::new().text("instance", &i.instance)).write(to);
                }),
            Self::Done { status } => map.int("status", *status),
            Self::Taken => map,
        }
    }

    /// Reads the answer to a request of `callback`.
    pub fn read(callback: Callback, result: &[u8]) -> Result<Self, CallError> {
        let f = Fields::read(result)?;
        Ok(match callback {
            Callback::Status => {
                let part = |key| match f.map(key)? {
                    Some(part) => StatusPart::read(&part),
                    None => Ok(StatusPart::new(Condition::Unknown, "")),
                };
                let mut instances = Vec::new();
                for item in f.list("instances", INSTANCES_MAX)? {
                    let item = Fields::read(item)?;
                    let instance = item.needed_text("instance", NAME_BYTES_MAX)?.to_owned();
                    instances.push(InstanceStatus { instance, status: StatusPart::read(&item)? });
                }
                let (module, platform) = (part("module")?, part("platform")?);
                Self::Status(StatusAnswer { module, platform, instances })
            }
            Callback::Action | Callback::Capabilities => {
                Self::Done { status: f.int("status")?.unwrap_or_default() }
            }
            Callback::Update => Self::Taken,
        })
    }
}

impl CallbackError {
    /// The map of the wire.
    pub fn map(&self) -> Map {
        let (name, detail) = match self {
            Self::NotSupported(detail) => ("not_supported", detail.as_str()),
            Self::Failed(detail) => ("failed", detail.as_str()),
            Self::TimedOut => ("failed", "no answer in time"),
            Self::Gone => ("failed", "integrator went away"),
        };
        Map::new().text("name", name).text("detail", detail)
    }

    /// Reads the map of the wire; a name of a later version is a failure.
    pub fn read(map: &[u8]) -> Result<Self, CallError> {
        let fields = Fields::read(map)?;
        let detail = fields.text("detail", 4 * TEXT_BYTES_MAX)?.unwrap_or_default().to_owned();
        Ok(match fields.needed_text("name", NAME_BYTES_MAX)? {
            "not_supported" => Self::NotSupported(detail),
            _ => Self::Failed(detail),
        })
    }
}
