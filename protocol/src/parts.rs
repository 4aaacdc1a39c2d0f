//! A message's blocks read without copying: texts and data stand in the bytes they were read from.
use bytes::Bytes;

use crate::{
    RemoteId, VERSION,
    codec::{Items, Malformed, Reader, Writer},
    limits,
    message::{
        Blanks, Blocks, Channel, Classification, Destination, Header, Infrastructure, Message,
        MessageId, Persistence, Precedence, SourceType,
    },
    service::{Alarm, Data, Event, Payload, Service, Severity, State},
};

const NAME: usize = limits::NAME_BYTES_MAX;

/// All of a message. What the fields mean stands at [`Message`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as of `Message`")]
pub struct Parts<'a> {
    pub header: HeaderParts<'a>,
    pub infrastructure: InfrastructureParts<'a>,
    pub service: ServiceParts<'a>,
}

/// A header block; see [`Header`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as of `Header`")]
pub struct HeaderParts<'a> {
    pub id: MessageId,
    pub order: u64,
    pub source: RemoteId,
    pub source_type: SourceType,
    pub destination: Option<DestinationParts<'a>>,
    pub channel: Channel,
    pub answers: Option<MessageId>,
    pub class: &'a str,
    pub subclass: &'a str,
    pub occurred_at: i64,
    pub accepted_at: i64,
    pub persistence: Persistence,
    pub time_to_live_s: Option<u32>,
    pub traceparent: Option<&'a str>,
}

/// Whom a message is for; see [`Destination`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as of `Destination`")]
pub enum DestinationParts<'a> {
    Id(RemoteId),
    Class(&'a str),
}

/// An infrastructure block; see [`Infrastructure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as of `Infrastructure`")]
pub struct InfrastructureParts<'a> {
    pub classification: Classification,
    pub customer: RemoteId,
    pub group: &'a str,
    pub integrator: &'a str,
    pub integrator_version: &'a str,
    pub instance: Option<RemoteId>,
    pub external_id: &'a str,
}

/// A service block. What comes in great numbers is borrowed, the rest is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceParts<'a> {
    /// `alarm`
    Alarm(AlarmParts<'a>),
    /// `event`
    Event(EventParts<'a>),
    /// `data`
    Data(DataParts<'a>),
    /// Any other class.
    Other(Box<Service>),
}

/// A payload; see [`Payload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as of `Payload`")]
pub struct PayloadParts<'a> {
    pub encoding: &'a str,
    pub data: &'a [u8],
}

/// An alarm; see [`Alarm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as of `Alarm`")]
pub struct AlarmParts<'a> {
    pub kind: &'a str,
    pub key: &'a str,
    pub severity: Severity,
    pub text: &'a str,
    pub state: State,
    pub close_after_s: Option<u32>,
    pub payload: PayloadParts<'a>,
}

/// An event; see [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as of `Event`")]
pub struct EventParts<'a> {
    pub kind: &'a str,
    pub event_id: &'a str,
    pub severity: Severity,
    pub state: State,
    pub text: &'a str,
    pub payload: PayloadParts<'a>,
}

/// Data of a class; see [`Data`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as of `Data`")]
pub struct DataParts<'a> {
    pub kind: &'a str,
    pub subtype: &'a str,
    pub payload: PayloadParts<'a>,
}

impl<'a> Blocks<'a> {
    /// Reads all three.
    ///
    /// # Errors
    /// A block is not what it should be.
    pub fn parts(&self) -> Result<Parts<'a>, Malformed> {
        let header = HeaderParts::read(self.header)?;
        let service = ServiceParts::read(header.class, self.service)?;
        let infrastructure = InfrastructureParts::read(self.infrastructure)?;
        Ok(Parts { header, infrastructure, service })
    }
}

impl Parts<'_> {
    /// A copy that stands by itself.
    pub fn message(&self) -> Message {
        Message {
            header: self.header.owned(),
            infrastructure: self.infrastructure.owned(),
            service: self.service.owned(),
        }
    }
}

impl<'a> HeaderParts<'a> {
    pub(crate) fn write(&self, to: &mut Writer) -> Blanks {
        to.array(18).uint(VERSION.into()).id(&self.id.origin).uint(self.id.epoch);
        to.uint(self.id.precedence as u64);
        let sequence_at = to.len() + 1;
        to.u64(self.id.sequence);
        let order_at = to.len() + 1;
        to.u64(self.order).id(&self.source).uint(self.source_type as u64);
        match &self.destination {
            Some(DestinationParts::Id(id)) => to.id(id),
            Some(DestinationParts::Class(class)) => to.text(class),
            None => to.nil(),
        };
        to.uint(self.channel as u64);
        to.optional(self.answers, |to, id| id.write(to));
        to.text(self.class).text(self.subclass).int(self.occurred_at).int(self.accepted_at);
        to.uint(self.persistence as u64);
        to.optional(self.time_to_live_s, |to, s| {
            to.uint(s.into());
        });
        to.optional(self.traceparent, |to, t| {
            to.text(t);
        });
        Blanks { sequence_at, order_at }
    }

    /// Reads a header block.
    ///
    /// # Errors
    /// It is none.
    pub fn read(block: &'a [u8]) -> Result<Self, Malformed> {
        Reader::new(block).only("header", 18, |i| {
            if i.u8()? != VERSION {
                return Err(Malformed("header version"));
            }
            let origin = i.id()?;
            let epoch = i.uint()?;
            let precedence = i.one_of(Precedence::from_number)?;
            let sequence = i.uint()?;
            Ok(Self {
                id: MessageId { origin, epoch, precedence, sequence },
                order: i.uint()?,
                source: i.id()?,
                source_type: i.one_of(SourceType::from_number)?,
                destination: i.optional(|i| i.nested(read_destination))?,
                channel: i.one_of(Channel::from_number)?,
                answers: i.optional(|i| i.nested(MessageId::read))?,
                class: i.text(NAME)?,
                subclass: i.text(limits::SUBCLASS_BYTES_MAX)?,
                occurred_at: i.int()?,
                accepted_at: i.int()?,
                persistence: i.one_of(Persistence::from_number)?,
                time_to_live_s: i.optional(|i| i.u32())?,
                traceparent: i.optional(|i| i.text(NAME))?,
            })
        })
    }

    /// A copy that stands by itself.
    pub fn owned(&self) -> Header {
        let destination = self.destination.as_ref().map(|destination| match destination {
            DestinationParts::Id(id) => Destination::Id(*id),
            DestinationParts::Class(class) => Destination::Class((*class).to_owned()),
        });
        Header {
            id: self.id,
            order: self.order,
            source: self.source,
            source_type: self.source_type,
            destination,
            channel: self.channel,
            answers: self.answers,
            class: self.class.to_owned(),
            subclass: self.subclass.to_owned(),
            occurred_at: self.occurred_at,
            accepted_at: self.accepted_at,
            persistence: self.persistence,
            time_to_live_s: self.time_to_live_s,
            traceparent: self.traceparent.map(str::to_owned),
        }
    }
}

fn read_destination<'a>(from: &mut Reader<'a>) -> Result<DestinationParts<'a>, Malformed> {
    let mut id = *from;
    if let Some(bytes) = id.bin() {
        *from = id;
        return RemoteId::from_bytes(bytes)
            .map(DestinationParts::Id)
            .map_err(|_| Malformed("destination"));
    }
    let class = from.text().filter(|c| c.len() <= NAME);
    class.map(DestinationParts::Class).ok_or(Malformed("destination"))
}

impl<'a> InfrastructureParts<'a> {
    /// Writes the block.
    pub fn write(&self, to: &mut Writer) {
        to.array(8).uint(VERSION.into()).uint(self.classification as u64).id(&self.customer);
        to.text(self.group).text(self.integrator).text(self.integrator_version);
        to.optional(self.instance.as_ref(), |to, id| {
            to.id(id);
        });
        to.text(self.external_id);
    }

    /// Reads an infrastructure block.
    ///
    /// # Errors
    /// It is none.
    pub fn read(block: &'a [u8]) -> Result<Self, Malformed> {
        Reader::new(block).only("infrastructure block", 8, |i| {
            if i.u8()? != VERSION {
                return Err(Malformed("infrastructure version"));
            }
            Ok(Self {
                classification: i.one_of(Classification::from_number)?,
                customer: i.id()?,
                group: i.text(NAME)?,
                integrator: i.text(NAME)?,
                integrator_version: i.text(NAME)?,
                instance: i.optional(|i| i.id())?,
                external_id: i.text(NAME)?,
            })
        })
    }

    /// A copy that stands by itself.
    pub fn owned(&self) -> Infrastructure {
        Infrastructure {
            classification: self.classification,
            customer: self.customer,
            group: self.group.to_owned(),
            integrator: self.integrator.to_owned(),
            integrator_version: self.integrator_version.to_owned(),
            instance: self.instance,
            external_id: self.external_id.to_owned(),
        }
    }
}

impl<'a> ServiceParts<'a> {
    /// Reads the block of a message of `class`.
    ///
    /// # Errors
    /// It is none, or the class is not known.
    pub fn read(class: &str, block: &'a [u8]) -> Result<Self, Malformed> {
        let known = match class {
            "alarm" => 9,
            "event" => 8,
            "data" => 5,
            _ => return Service::read(class, block).map(|s| Self::Other(Box::new(s))),
        };
        Reader::new(block).only("service block", known, |i| {
            if i.u8()? != VERSION {
                return Err(Malformed("service block version"));
            }
            Ok(match class {
                "alarm" => Self::Alarm(AlarmParts::read(i)?),
                "event" => Self::Event(EventParts::read(i)?),
                _ => Self::Data(DataParts::read(i)?),
            })
        })
    }

    /// A copy that stands by itself.
    pub fn owned(&self) -> Service {
        match self {
            Self::Alarm(alarm) => Service::Alarm(alarm.owned()),
            Self::Event(event) => Service::Event(event.owned()),
            Self::Data(data) => Service::Data(data.owned()),
            Self::Other(service) => (**service).clone(),
        }
    }

    /// Words of an alarm or event for lists: severity and text.
    pub fn headline(&self) -> Option<(Severity, &str)> {
        match self {
            Self::Alarm(a) => Some((a.severity, a.text)),
            Self::Event(e) => Some((e.severity, e.text)),
            Self::Data(_) => None,
            Self::Other(service) => service.headline(),
        }
    }

    /// The MIME type of the payload, where the class has one.
    pub fn encoding(&self) -> Option<&str> {
        match self {
            Self::Alarm(a) => Some(a.payload.encoding),
            Self::Event(e) => Some(e.payload.encoding),
            Self::Data(d) => Some(d.payload.encoding),
            Self::Other(service) => service.payload().map(|p| &*p.encoding),
        }
    }
}

impl<'a> PayloadParts<'a> {
    pub(crate) fn read(i: &mut Items<'_, 'a>) -> Result<Self, Malformed> {
        let (encoding, data) = (i.text(NAME)?, i.bin()?);
        if data.len() > limits::DATA_BYTES_MAX {
            return Err(Malformed("payload: too large"));
        }
        Ok(Self { encoding, data })
    }

    pub(crate) fn owned(&self) -> Payload {
        Payload { encoding: self.encoding.to_owned(), data: Bytes::copy_from_slice(self.data) }
    }
}

impl<'a> AlarmParts<'a> {
    fn read(i: &mut Items<'_, 'a>) -> Result<Self, Malformed> {
        Ok(Self {
            kind: i.text(NAME)?,
            key: i.text(NAME)?,
            severity: i.one_of(Severity::from_number)?,
            text: i.text(limits::TEXT_BYTES_MAX)?,
            state: i.one_of(State::from_number)?,
            close_after_s: i.optional(|i| i.u32())?,
            payload: PayloadParts::read(i)?,
        })
    }

    fn owned(&self) -> Alarm {
        Alarm {
            kind: self.kind.to_owned(),
            key: self.key.to_owned(),
            severity: self.severity,
            text: self.text.to_owned(),
            state: self.state,
            close_after_s: self.close_after_s,
            payload: self.payload.owned(),
        }
    }
}

impl<'a> EventParts<'a> {
    fn read(i: &mut Items<'_, 'a>) -> Result<Self, Malformed> {
        Ok(Self {
            kind: i.text(NAME)?,
            event_id: i.text(NAME)?,
            severity: i.one_of(Severity::from_number)?,
            state: i.one_of(State::from_number)?,
            text: i.text(limits::TEXT_BYTES_MAX)?,
            payload: PayloadParts::read(i)?,
        })
    }

    fn owned(&self) -> Event {
        Event {
            kind: self.kind.to_owned(),
            event_id: self.event_id.to_owned(),
            severity: self.severity,
            state: self.state,
            text: self.text.to_owned(),
            payload: self.payload.owned(),
        }
    }
}

impl<'a> DataParts<'a> {
    fn read(i: &mut Items<'_, 'a>) -> Result<Self, Malformed> {
        let (kind, subtype) = (i.text(NAME)?, i.text(NAME)?);
        Ok(Self { kind, subtype, payload: PayloadParts::read(i)? })
    }

    fn owned(&self) -> Data {
        Data {
            kind: self.kind.to_owned(),
            subtype: self.subtype.to_owned(),
            payload: self.payload.owned(),
        }
    }
}
