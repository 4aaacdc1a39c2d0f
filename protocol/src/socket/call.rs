//! The calls of the integrator API, typed, to and from their maps (API-8…13, DAT-12).
use bytes::Bytes;

use super::{
    CallError,
    fields::{Fields, Map, missing},
    qos::Qos,
};
use crate::{
    MessageId, Refusal,
    limits::{DATA_BYTES_MAX, NAME_BYTES_MAX, ONCE_BYTES_MAX, TEXT_BYTES_MAX},
    message::Precedence,
    registration::INSTANCES_MAX,
    service::{Severity, State},
};

/// Makes one instance known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceCall {
    /// The platform's own name of it.
    pub instance: String,
    /// A capabilities document, XML; none leaves what is known.
    pub capabilities: Option<String>,
}

/// Makes many instances known, in one message (API-9).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstancesCall {
    /// The platform's own names of them.
    pub instances: Vec<String>,
}

/// Takes an instance away (API-10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoveCall {
    /// The platform's own name of it.
    pub instance: String,
}

/// Opens, repeats or closes an alarm (API-11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlarmCall {
    /// Whose it is.
    pub instance: String,
    /// When it happened, by the platform's clock, ms since 1970 UTC (API-15).
    pub occurred_at_ms: i64,
    /// The platform's own word (API-16).
    pub kind: String,
    /// How bad (API-17).
    pub severity: Severity,
    /// One line.
    pub text: String,
    /// Tells apart alarms of one type on one instance.
    pub key: String,
    /// Opened, unless it says otherwise.
    pub state: State,
    /// Seconds without a repeat after which it closes by itself.
    pub close_after_s: Option<u32>,
    /// Any bytes (DAT-11).
    pub data: Bytes,
    /// Their MIME type.
    pub encoding: String,
    /// How it is queued.
    pub qos: Qos,
    /// The request it answers.
    pub answers: Option<MessageId>,
    /// Tells it from all others of its integrator, see [`Call::once`].
    pub once: Option<Bytes>,
    /// Its number in the stream; a client library gives it.
    pub seq: Option<u64>,
}

/// Tells an event (API-12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventCall {
    /// Whose it is.
    pub instance: String,
    /// When it happened, by the platform's clock, ms since 1970 UTC (API-15).
    pub occurred_at_ms: i64,
    /// The platform's own word (API-16).
    pub kind: String,
    /// Ties repeats together (API-19); empty: an event of its own.
    pub event_id: String,
    /// How bad (API-17).
    pub severity: Severity,
    /// Opened, unless it says otherwise.
    pub state: State,
    /// One line.
    pub text: String,
    /// Any bytes (DAT-11).
    pub data: Bytes,
    /// Their MIME type.
    pub encoding: String,
    /// How it is queued.
    pub qos: Qos,
    /// The request it answers.
    pub answers: Option<MessageId>,
    /// Tells it from all others of its integrator, see [`Call::once`].
    pub once: Option<Bytes>,
    /// Its number in the stream; a client library gives it.
    pub seq: Option<u64>,
}

/// Sends data of a class (API-13, API-21).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataCall {
    /// Whose it is.
    pub instance: String,
    /// The integrator's class, such as `inventory`; never empty.
    pub class: String,
    /// Finer, such as `packages`.
    pub subclass: String,
    /// Any bytes (DAT-11).
    pub data: Bytes,
    /// Their MIME type.
    pub encoding: String,
    /// How it is queued.
    pub qos: Qos,
    /// The request it answers.
    pub answers: Option<MessageId>,
    /// Tells it from all others of its integrator, see [`Call::once`].
    pub once: Option<Bytes>,
    /// Its number in the stream; a client library gives it.
    pub seq: Option<u64>,
}

/// Sends the capabilities of an instance (API-24).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilitiesCall {
    /// Whose they are.
    pub instance: String,
    /// A capabilities document, XML (API-25).
    pub capabilities: String,
    /// The request it answers.
    pub answers: Option<MessageId>,
    /// Its number in the stream; a client library gives it.
    pub seq: Option<u64>,
}

/// One call of the integrator API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `instance`
    Instance(InstanceCall),
    /// `instances`
    Instances(InstancesCall),
    /// `remove`
    Remove(RemoveCall),
    /// `alarm`
    Alarm(AlarmCall),
    /// `event`
    Event(EventCall),
    /// `data`
    Data(DataCall),
    /// `capabilities`
    Capabilities(CapabilitiesCall),
}

impl AlarmCall {
    /// An opened alarm; the rest are defaults, to be set as fields.
    pub fn new(
        instance: &str,
        occurred_at_ms: i64,
        kind: &str,
        severity: Severity,
        text: &str,
    ) -> Self {
        Self {
            instance: instance.to_owned(),
            occurred_at_ms,
            kind: kind.to_owned(),
            severity,
            text: text.to_owned(),
            key: String::new(),
            state: State::Opened,
            close_after_s: None,
            data: Bytes::new(),
            encoding: String::new(),
            qos: Qos::default(),
            answers: None,
            once: None,
            seq: None,
        }
    }
}

impl EventCall {
    /// An opened event; the rest are defaults, to be set as fields.
    pub fn new(
        instance: &str,
        occurred_at_ms: i64,
        kind: &str,
        severity: Severity,
        text: &str,
    ) -> Self {
        Self {
            instance: instance.to_owned(),
            occurred_at_ms,
            kind: kind.to_owned(),
            event_id: String::new(),
            severity,
            state: State::Opened,
            text: text.to_owned(),
            data: Bytes::new(),
            encoding: String::new(),
            qos: Qos::default(),
            answers: None,
            once: None,
            seq: None,
        }
    }
}

/// The end that alarm, event and data share.
fn tail(
    map: Map,
    qos: &Qos,
    answers: &Option<MessageId>,
    once: Option<&Bytes>,
    seq: Option<u64>,
) -> Map {
    let map = if *qos == Qos::default() { map } else { map.map("qos", qos.map()) };
    let answers = answers.map(|id| id.to_string());
    let map = map.text_if("answers", answers.as_deref());
    let map = if let Some(once) = once { map.bin("once", once) } else { map };
    map.uint_if("seq", seq)
}

fn payload(map: Map, data: &Bytes, encoding: &str) -> Map {
    let map = if data.is_empty() { map } else { map.bin("data", data) };
    map.text_or_empty("encoding", encoding)
}

fn instance(fields: &Fields<'_>) -> Result<String, CallError> {
    fields.needed_text("instance", NAME_BYTES_MAX).map(str::to_owned)
}

fn name(fields: &Fields<'_>, key: &str) -> Result<String, CallError> {
    Ok(fields.text(key, NAME_BYTES_MAX)?.unwrap_or_default().to_owned())
}

fn needed_name(fields: &Fields<'_>, key: &str) -> Result<String, CallError> {
    fields.needed_text(key, NAME_BYTES_MAX).map(str::to_owned)
}

fn once(fields: &Fields<'_>) -> Result<Option<Bytes>, CallError> {
    Ok(fields.bin("once", ONCE_BYTES_MAX)?.map(Bytes::copy_from_slice))
}

/// The data, as a slice of the params: it is copied once, into the message.
fn data(fields: &Fields<'_>, params: &Bytes) -> Result<Bytes, CallError> {
    let data = fields.bin("data", DATA_BYTES_MAX)?;
    Ok(data.map(|data| params.slice_ref(data)).unwrap_or_default())
}

impl Call {
    /// Its word on the wire.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Instance(_) => "instance",
            Self::Instances(_) => "instances",
            Self::Remove(_) => "remove",
            Self::Alarm(_) => "alarm",
            Self::Event(_) => "event",
            Self::Data(_) => "data",
            Self::Capabilities(_) => "capabilities",
        }
    }

    /// The one instance it is about.
    pub fn instance(&self) -> Option<&str> {
        match self {
            Self::Instance(c) => Some(&c.instance),
            Self::Instances(_) => None,
            Self::Remove(c) => Some(&c.instance),
            Self::Alarm(c) => Some(&c.instance),
            Self::Event(c) => Some(&c.instance),
            Self::Data(c) => Some(&c.instance),
            Self::Capabilities(c) => Some(&c.instance),
        }
    }

    /// Takes the name of the one instance it is about out of it; empty where there is none.
    pub fn take_instance(&mut self) -> String {
        match self {
            Self::Instance(c) => std::mem::take(&mut c.instance),
            Self::Instances(_) => String::new(),
            Self::Remove(c) => std::mem::take(&mut c.instance),
            Self::Alarm(c) => std::mem::take(&mut c.instance),
            Self::Event(c) => std::mem::take(&mut c.instance),
            Self::Data(c) => std::mem::take(&mut c.instance),
            Self::Capabilities(c) => std::mem::take(&mut c.instance),
        }
    }

    /// Whether the call sends a message about an instance that must be registered before.
    pub fn needs_instance(&self) -> bool {
        matches!(self, Self::Alarm(_) | Self::Event(_) | Self::Data(_) | Self::Capabilities(_))
    }

    /// Its number in the stream.
    pub fn seq(&self) -> Option<u64> {
        match self {
            Self::Alarm(c) => c.seq,
            Self::Event(c) => c.seq,
            Self::Data(c) => c.seq,
            Self::Capabilities(c) => c.seq,
            _ => None,
        }
    }

    /// Numbers it, where it is a message; others are safe twice as they are.
    pub fn set_seq(&mut self, number: u64) {
        match self {
            Self::Alarm(c) => c.seq = Some(number),
            Self::Event(c) => c.seq = Some(number),
            Self::Data(c) => c.seq = Some(number),
            Self::Capabilities(c) => c.seq = Some(number),
            _ => {}
        }
    }

    /// What tells it from all others of its integrator, where it may come again under another
    /// number: its sender repeats what an integrator that died had stored and not answered. The
    /// proxy stores such a call once, and answers the repeat `duplicate`, for
    /// [`crate::limits::ONCE_KEPT_MS`] and over restarts of either side. Any bytes, such as a
    /// digest of all that the sender sent.
    pub fn once(&self) -> Option<&Bytes> {
        match self {
            Self::Alarm(c) => c.once.as_ref(),
            Self::Event(c) => c.once.as_ref(),
            Self::Data(c) => c.once.as_ref(),
            _ => None,
        }
    }

    /// How urgent it is: as its qos says, else urgent for fatal and critical alarms, registrations
    /// and removals, and normal for the rest (contract §1).
    pub fn precedence(&self) -> Precedence {
        let by_default = |qos: &Qos, otherwise| qos.precedence.unwrap_or(otherwise);
        match self {
            Self::Alarm(c) if c.severity >= Severity::Critical => {
                by_default(&c.qos, Precedence::Urgent)
            }
            Self::Alarm(c) => by_default(&c.qos, Precedence::Normal),
            Self::Event(c) => by_default(&c.qos, Precedence::Normal),
            Self::Data(c) => by_default(&c.qos, Precedence::Normal),
            Self::Capabilities(_) => Precedence::Normal,
            Self::Instance(_) | Self::Instances(_) | Self::Remove(_) => Precedence::Urgent,
        }
    }

    /// The map of the wire. What has its default value is left out.
    pub fn map(&self) -> Map {
        let map = Map::new();
        match self {
            Self::Instance(c) => {
                map.text("instance", &c.instance).text_if("capabilities", c.capabilities.as_deref())
            }
            Self::Instances(c) => map.list("instances", &c.instances, |to, i| {
                to.text(i);
            }),
            Self::Remove(c) => map.text("instance", &c.instance),
            Self::Alarm(c) => {
                let map = map.text("instance", &c.instance).int("occurred_at_ms", c.occurred_at_ms);
                let map = map.text("type", &c.kind).text("severity", c.severity.word());
                let map = map.text("text", &c.text).text_or_empty("key", &c.key);
                let state = (c.state != State::Opened).then(|| c.state.word());
                let map = map.text_if("state", state);
                let map = map.uint_if("close_after_s", c.close_after_s.map(u64::from));
                let map = payload(map, &c.data, &c.encoding);
                tail(map, &c.qos, &c.answers, c.once.as_ref(), c.seq)
            }
            Self::Event(c) => {
                let map = map.text("instance", &c.instance).int("occurred_at_ms", c.occurred_at_ms);
                let map = map.text("type", &c.kind).text("severity", c.severity.word());
                let map = map.text("text", &c.text).text_or_empty("event_id", &c.event_id);
                let state = (c.state != State::Opened).then(|| c.state.word());
                let map = map.text_if("state", state);
                let map = payload(map, &c.data, &c.encoding);
                tail(map, &c.qos, &c.answers, c.once.as_ref(), c.seq)
            }
            Self::Data(c) => {
                let map = map.text("instance", &c.instance).text("class", &c.class);
                let map = map.text("subclass", &c.subclass).bin("data", &c.data);
                let map = map.text("encoding", &c.encoding);
                tail(map, &c.qos, &c.answers, c.once.as_ref(), c.seq)
            }
            Self::Capabilities(c) => {
                let map = map.text("instance", &c.instance).text("capabilities", &c.capabilities);
                tail(map, &Qos::default(), &c.answers, None, c.seq)
            }
        }
    }

    /// Reads a call and checks its values. A method that is none of these is `not_supported`.
    pub fn read(method: &str, params: &Bytes) -> Result<Self, CallError> {
        let f = Fields::read(params)?;
        let call = match method {
            "instance" => {
                let capabilities = f.text("capabilities", DATA_BYTES_MAX)?.map(str::to_owned);
                Self::Instance(InstanceCall { instance: instance(&f)?, capabilities })
            }
            "instances" => {
                if f.get("instances").is_none() {
                    return Err(missing("instances"));
                }
                let instances = f.texts("instances", INSTANCES_MAX, NAME_BYTES_MAX)?;
                Self::Instances(InstancesCall { instances })
            }
            "remove" => Self::Remove(RemoveCall { instance: instance(&f)? }),
            "alarm" => Self::Alarm(read_alarm(&f, params)?),
            "event" => Self::Event(read_event(&f, params)?),
            "data" => {
                if f.get("data").is_none() {
                    return Err(missing("data"));
                }
                Self::Data(DataCall {
                    instance: instance(&f)?,
                    class: needed_name(&f, "class")?,
                    subclass: needed_name(&f, "subclass")?,
                    data: data(&f, params)?,
                    encoding: needed_name(&f, "encoding")?,
                    qos: Qos::read(&f)?,
                    answers: f.parsed("answers")?,
                    once: once(&f)?,
                    seq: f.uint("seq")?,
                })
            }
            "capabilities" => Self::Capabilities(CapabilitiesCall {
                instance: instance(&f)?,
                capabilities: f.needed_text("capabilities", DATA_BYTES_MAX)?.to_owned(),
                answers: f.parsed("answers")?,
                seq: f.uint("seq")?,
            }),
            _ => {
                let known = "instance instances remove alarm event data capabilities bye";
                let method: String = method.chars().take(32).collect();
                let detail = format!("method is {method:?}; one of {known}");
                return Err(CallError::new(Refusal::NotSupported, detail));
            }
        };
        call.check()?;
        Ok(call)
    }
}

fn read_alarm(f: &Fields<'_>, params: &Bytes) -> Result<AlarmCall, CallError> {
    Ok(AlarmCall {
        instance: instance(f)?,
        occurred_at_ms: f.int("occurred_at_ms")?.ok_or_else(|| missing("occurred_at_ms"))?,
        kind: needed_name(f, "type")?,
        severity: f.word("severity")?.ok_or_else(|| missing("severity"))?,
        text: f.needed_text("text", TEXT_BYTES_MAX)?.to_owned(),
        key: name(f, "key")?,
        state: f.word("state")?.unwrap_or(State::Opened),
        close_after_s: f.u32("close_after_s")?,
        data: data(f, params)?,
        encoding: name(f, "encoding")?,
        qos: Qos::read(f)?,
        answers: f.parsed("answers")?,
        once: once(f)?,
        seq: f.uint("seq")?,
    })
}

fn read_event(f: &Fields<'_>, params: &Bytes) -> Result<EventCall, CallError> {
    Ok(EventCall {
        instance: instance(f)?,
        occurred_at_ms: f.int("occurred_at_ms")?.ok_or_else(|| missing("occurred_at_ms"))?,
        kind: needed_name(f, "type")?,
        event_id: name(f, "event_id")?,
        severity: f.word("severity")?.ok_or_else(|| missing("severity"))?,
        state: f.word("state")?.unwrap_or(State::Opened),
        text: f.needed_text("text", TEXT_BYTES_MAX)?.to_owned(),
        data: data(f, params)?,
        encoding: name(f, "encoding")?,
        qos: Qos::read(f)?,
        answers: f.parsed("answers")?,
        once: once(f)?,
        seq: f.uint("seq")?,
    })
}
