//! The first request on a connection, its answer, and the notices of the proxy.
use serde::{Deserialize, Serialize};

use super::{
    CallError, STREAM_BYTES,
    fields::{Fields, Map, missing},
};
use crate::{
    Refusal, RemoteId, heartbeat::Mode, limits::NAME_BYTES_MAX, limits::TEXT_BYTES_MAX,
    message::wire_enum,
};

wire_enum! {
    /// What the proxy may ask of an integrator.
    Callback {
        /// How it and its platform are.
        Status = "status",
        /// Do something.
        Action = "action",
        /// Install a file.
        Update = "update",
        /// Send the capabilities of an instance.
        Capabilities = "capabilities",
    }
}
wire_enum! {
    /// How far registration has got (PRX-13, PRX-22).
    Registered {
        /// The proxy is not registered: data is dropped.
        Registering = "registering",
        /// The proxy is, this integrator is not: data is refused.
        ProxyRegistered = "proxy_registered",
        /// Both are.
        Registered = "registered",
    }
}

/// Lists in a hello are short.
const ITEMS_MAX: usize = 64;

/// Who connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Versions of the protocol it speaks.
    pub protocols: Vec<u32>,
    /// Name of the integrator; it keeps its id (API-7).
    pub name: String,
    /// Version of the integrator; a new one registers anew (API-23).
    pub version: String,
    /// Callbacks it takes. Words of later versions are left out.
    pub callbacks: Vec<Callback>,
    /// The stream its `seq` count in; the same after a lost connection.
    pub stream: Option<[u8; STREAM_BYTES]>,
}

impl Hello {
    /// The map of the wire.
    pub fn map(&self) -> Map {
        let map = Map::new().list("protocols", &self.protocols, |to, p| {
            to.uint((*p).into());
        });
        let map = map.text("name", &self.name).text("version", &self.version);
        let map = map.list("callbacks", &self.callbacks, |to, c| {
            to.text(c.word());
        });
        match &self.stream {
            Some(stream) => map.bin("stream", stream),
            None => map,
        }
    }

    /// Reads the map of the wire.
    pub fn read(map: &[u8]) -> Result<Self, CallError> {
        let fields = Fields::read(map)?;
        let mut protocols = Vec::new();
        for version in fields.list("protocols", ITEMS_MAX)? {
            let version = crate::codec::Reader::new(version).uint();
            protocols.extend(version.and_then(|v| u32::try_from(v).ok()));
        }
        let name = fields.needed_text("name", NAME_BYTES_MAX)?.to_owned();
        if name.is_empty() {
            return Err(CallError::malformed("name is empty"));
        }
        let version = fields.text("version", NAME_BYTES_MAX)?.unwrap_or_default().to_owned();
        let callbacks = fields.texts("callbacks", ITEMS_MAX, NAME_BYTES_MAX)?;
        let mut callbacks: Vec<Callback> =
            callbacks.iter().filter_map(|c| c.parse().ok()).collect();
        callbacks.sort_unstable();
        callbacks.dedup();
        let stream = fields.bin("stream", STREAM_BYTES)?;
        let wrong = |_| CallError::malformed("stream is not 16 bytes");
        let stream = stream.map(TryInto::try_into).transpose().map_err(wrong)?;
        Ok(Self { protocols, name, version, callbacks, stream })
    }

    /// The version both speak, or the refusal that names ours.
    pub fn protocol(&self) -> Result<u32, CallError> {
        if self.protocols.contains(&super::PROTOCOL) {
            return Ok(super::PROTOCOL);
        }
        let detail = format!("protocols are {:?}; this proxy speaks 1", self.protocols);
        let error = CallError::new(Refusal::UnknownVersion, detail);
        Err(CallError { supported: vec![super::PROTOCOL], ..error })
    }
}

/// What the proxy says to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloAnswer {
    /// The version spoken from here on.
    pub protocol: u32,
    /// The proxy; none before it was registered first.
    pub node_id: Option<RemoteId>,
    /// The integrator; none before the proxy was registered first.
    pub integrator_id: Option<RemoteId>,
    /// Whether there is a back-channel.
    pub mode: Mode,
    /// How far registration has got.
    pub registration: Registered,
    /// Unanswered requests at which the proxy stops reading.
    pub window: u32,
}

impl HelloAnswer {
    /// The map of the wire.
    pub fn map(&self) -> Map {
        let id = |id: &Option<RemoteId>| id.map(|id| id.to_string());
        Map::new()
            .uint("protocol", self.protocol.into())
            .text_or_nil("node_id", id(&self.node_id).as_deref())
            .text_or_nil("integrator_id", id(&self.integrator_id).as_deref())
            .text("mode", self.mode.word())
            .text("registration", self.registration.word())
            .uint("window", self.window.into())
    }

    /// Reads the map of the wire.
    pub fn read(map: &[u8]) -> Result<Self, CallError> {
        let fields = Fields::read(map)?;
        Ok(Self {
            protocol: fields.u32("protocol")?.ok_or_else(|| missing("protocol"))?,
            node_id: fields.parsed("node_id")?,
            integrator_id: fields.parsed("integrator_id")?,
            mode: fields.word("mode")?.unwrap_or(Mode::Session),
            registration: fields.word("registration")?.unwrap_or(Registered::Registered),
            window: fields.u32("window")?.unwrap_or(1).max(1),
        })
    }
}

/// What the proxy tells without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The last frame was bad; the connection ends.
    Malformed {
        /// What was wrong.
        detail: String,
    },
    /// Registration got further, or fell back.
    Registration(Registered),
    /// The proxy goes down; what is unanswered is sent again after the next hello.
    Stopping,
    /// Of a later version.
    Other(String),
}

impl Notice {
    /// The bytes of the frame.
    pub fn frame(&self) -> Vec<u8> {
        use super::Frame;
        match self {
            Self::Malformed { detail } => {
                Frame::notice("malformed", Map::new().text("detail", detail))
            }
            Self::Registration(state) => {
                Frame::notice("registration", Map::new().text("registration", state.word()))
            }
            Self::Stopping => Frame::notice("stopping", Map::new()),
            Self::Other(method) => Frame::notice(method, Map::new()),
        }
    }

    /// Reads a notice.
    pub fn read(method: &str, params: &[u8]) -> Result<Self, CallError> {
        let fields = Fields::read(params)?;
        Ok(match method {
            "malformed" => {
                let detail = fields.text("detail", 4 * TEXT_BYTES_MAX)?.unwrap_or_default();
                Self::Malformed { detail: detail.to_owned() }
            }
            "registration" => {
                let state = fields.word("registration")?;
                Self::Registration(state.ok_or_else(|| missing("registration"))?)
            }
            "stopping" => Self::Stopping,
            other => Self::Other(other.to_owned()),
        })
    }
}

/// Ends the conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bye {
    /// The stream will not come back.
    pub forget: bool,
}

impl Bye {
    /// The map of the wire.
    pub fn map(&self) -> Map {
        if self.forget { Map::new().boolean("forget", true) } else { Map::new() }
    }

    /// Reads the map of the wire.
    pub fn read(params: &[u8]) -> Result<Self, CallError> {
        Ok(Self { forget: Fields::read(params)?.boolean("forget")?.unwrap_or_default() })
    }
}
