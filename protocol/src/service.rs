//! The service block: what a message says, by class (DAT-6, DAT-7, DAT-11).
use serde::{Deserialize, Serialize};

use crate::{
    RemoteId, VERSION,
    codec::{Items, Malformed, Reader, Writer},
    limits,
    message::wire_enum,
    parts::{PayloadParts, ServiceParts},
    registration::{Registration, RegistrationAnswer},
};

wire_enum! {
    /// CIM perceived severity, in rank.
    Severity {
        /// Not known.
        Unknown = "unknown",
        /// None of the others.
        Other = "other",
        /// Nobody need act.
        Information = "information",
        /// Degraded.
        Warning = "warning",
        /// Minor.
        Minor = "minor",
        /// Major.
        Major = "major",
        /// Act now.
        Critical = "critical",
        /// Too late.
        Fatal = "fatal",
    }
}
wire_enum! {
    /// What an alarm or event is in.
    State {
        /// It began.
        Opened = "opened",
        /// It goes on.
        Updated = "updated",
        /// Somebody has seen it.
        Acknowledged = "acknowledged",
        /// It is over.
        Closed = "closed",
    }
}

/// An opaque payload with its MIME type (DAT-11).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// MIME type; empty where there is no payload.
    pub encoding: String,
    /// Any bytes, at most `DATA_BYTES_MAX`; in JSON an array of numbers.
    pub data: bytes::Bytes,
}

/// An alarm: (instance, type, key) has a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// The platform's own word.
    #[serde(rename = "type")]
    pub kind: String,
    /// Tells apart the alarms of one type on one instance.
    pub key: String,
    /// How bad.
    pub severity: Severity,
    /// One line.
    pub text: String,
    /// Opened, updated, acknowledged or closed.
    pub state: State,
    /// Seconds without a repeat after which it closes by itself.
    pub close_after_s: Option<u32>,
    /// Details.
    #[serde(flatten)]
    pub payload: Payload,
}

/// An event: something that happened; events with one id are one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The platform's own word.
    #[serde(rename = "type")]
    pub kind: String,
    /// Ties repeats together; empty: an event of its own.
    pub event_id: String,
    /// How bad.
    pub severity: Severity,
    /// Opened, updated, acknowledged or closed.
    pub state: State,
    /// One line.
    pub text: String,
    /// Details.
    #[serde(flatten)]
    pub payload: Payload,
}

/// Data of a class, such as an inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// The integrator's class: inventory, performance…
    #[serde(rename = "type")]
    pub kind: String,
    /// Finer: packages, disks…
    pub subtype: String,
    /// The data.
    #[serde(flatten)]
    pub payload: Payload,
}

/// What an instance can do, in XML, answering a request or with a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// A capabilities document.
    #[serde(flatten)]
    pub payload: Payload,
}

/// An order to an integrator or instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// UUID that the answer and the audit log quote.
    pub action_id: String,
    /// Its name; empty: only the XML says.
    pub name: String,
    /// The action document (`action.dtd`).
    pub xml: String,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionAnswer {
    /// The order's id.
    pub action_id: String,
    /// The callback's status; none when it was not called or never returned.
    pub status: Option<i64>,
    /// Why there is no status: a refusal's name or `outcome_unknown`.
    pub reason: String,
}

/// That something became of a message, told to who sent it (RTE-4, RTE-6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// A refusal's name.
    pub reason: String,
    /// For people.
    pub detail: String,
}

/// That an instance or integrator is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Who.
    pub subject: RemoteId,
}

/// What a message says. The class of the header says which it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "class", rename_all = "kebab-case")]
pub enum Service {
    /// `alarm`
    Alarm(Alarm),
    /// `event`
    Event(Event),
    /// `data`
    Data(Data),
    /// `registration`
    Registration(Registration),
    /// `registration-answer`, back
    RegistrationAnswer(RegistrationAnswer),
    /// `capabilities`
    Capabilities(Capabilities),
    /// `action`, back
    Action(Action),
    /// `action-answer`
    ActionAnswer(ActionAnswer),
    /// `notice`, both ways
    Notice(Notice),
    /// `removal`
    Removal(Removal),
}

impl Payload {
    fn write(&self, to: &mut Writer) {
        to.text(&self.encoding).bin(&self.data);
    }

    fn read(i: &mut Items<'_, '_>) -> Result<Self, Malformed> {
        PayloadParts::read(i).map(|payload| payload.owned())
    }
}

impl Service {
    /// The header's word for it.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Alarm(_) => "alarm",
            Self::Event(_) => "event",
            Self::Data(_) => "data",
            Self::Registration(_) => "registration",
            Self::RegistrationAnswer(_) => "registration-answer",
            Self::Capabilities(_) => "capabilities",
            Self::Action(_) => "action",
            Self::ActionAnswer(_) => "action-answer",
            Self::Notice(_) => "notice",
            Self::Removal(_) => "removal",
        }
    }

    /// Writes the block.
    pub fn write(&self, to: &mut Writer) {
        const V: u64 = VERSION as u64;
        match self {
            Self::Alarm(a) => {
                to.array(9).uint(V).text(&a.kind).text(&a.key).uint(a.severity as u64);
                to.text(&a.text).uint(a.state as u64);
                to.optional(a.close_after_s, |to, s| {
                    to.uint(s.into());
                });
                a.payload.write(to);
            }
            Self::Event(e) => {
                to.array(8).uint(V).text(&e.kind).text(&e.event_id).uint(e.severity as u64);
                to.uint(e.state as u64).text(&e.text);
                e.payload.write(to);
            }
            Self::Data(d) => {
                to.array(5).uint(V).text(&d.kind).text(&d.subtype);
                d.payload.write(to);
            }
            Self::Registration(r) => r.write(to),
            Self::RegistrationAnswer(r) => r.write(to),
            Self::Capabilities(c) => {
                to.array(3).uint(V);
                c.payload.write(to);
            }
            Self::Action(a) => {
                to.array(4).uint(V).text(&a.action_id).text(&a.name).text(&a.xml);
            }
            Self::ActionAnswer(a) => {
                to.array(4).uint(V).text(&a.action_id);
                to.optional(a.status, |to, s| {
                    to.int(s);
                });
                to.text(&a.reason);
            }
            Self::Notice(n) => {
                to.array(3).uint(V).text(&n.reason).text(&n.detail);
            }
            Self::Removal(r) => {
                to.array(2).uint(V).id(&r.subject);
            }
        }
    }

    /// Reads the block of a message of `class`.
    pub fn read(class: &str, block: &[u8]) -> Result<Self, Malformed> {
        const NAME: usize = limits::NAME_BYTES_MAX;
        let from = Reader::new(block);
        let known = match class {
            "alarm" | "event" | "data" => {
                return ServiceParts::read(class, block).map(|parts| parts.owned());
            }
            "registration" => return Registration::read(from).map(Self::Registration),
            "registration-answer" => {
                return RegistrationAnswer::read(from).map(Self::RegistrationAnswer);
            }
            "action" | "action-answer" => 4,
            "capabilities" | "notice" => 3,
            "removal" => 2,
            _ => return Err(Malformed("class")),
        };
        from.only("service block", known, |i| {
            if i.u8()? != VERSION {
                return Err(Malformed("service block version"));
            }
            Ok(match class {
                "capabilities" => Self::Capabilities(Capabilities { payload: Payload::read(i)? }),
                "action" => Self::Action(Action {
                    action_id: i.text(NAME)?.to_owned(),
                    name: i.text(NAME)?.to_owned(),
                    xml: i.text(limits::DATA_BYTES_MAX)?.to_owned(),
                }),
                "action-answer" => Self::ActionAnswer(ActionAnswer {
                    action_id: i.text(NAME)?.to_owned(),
                    status: i.optional(|i| i.int())?,
                    reason: i.text(NAME)?.to_owned(),
                }),
                "notice" => Self::Notice(Notice {
                    reason: i.text(NAME)?.to_owned(),
                    detail: i.text(limits::TEXT_BYTES_MAX)?.to_owned(),
                }),
                _ => Self::Removal(Removal { subject: i.id()? }),
            })
        })
    }

    /// Instance-independent words of an alarm or event, for lists: severity and text.
    pub fn headline(&self) -> Option<(Severity, &str)> {
        match self {
            Self::Alarm(a) => Some((a.severity, &a.text)),
            Self::Event(e) => Some((e.severity, &e.text)),
            _ => None,
        }
    }

    /// The payload, where the class has one.
    pub fn payload(&self) -> Option<&Payload> {
        match self {
            Self::Alarm(a) => Some(&a.payload),
            Self::Event(e) => Some(&e.payload),
            Self::Data(d) => Some(&d.payload),
            Self::Capabilities(c) => Some(&c.payload),
            _ => None,
        }
    }
}
