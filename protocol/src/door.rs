//! The check at the door, and a message's blocks read without copying (REL-1…3).
use crate::{
    Refusal, RemoteId, VERSION,
    codec::{Malformed, Reader},
    limits,
    message::{
        Blocks, Channel, Classification, Destination, Header, Infrastructure, Message, MessageId,
        Persistence, Precedence, SourceType,
    },
    run::RunHeader,
    service::Service,
};

const NAME: usize = limits::NAME_BYTES_MAX;

enum DestinationParts<'a> {
    Id(RemoteId),
    Class(&'a str),
}

/// A header block whose texts stand in the bytes it was read from.
pub(crate) struct HeaderParts<'a> {
    id: MessageId,
    order: u64,
    source: RemoteId,
    source_type: SourceType,
    destination: Option<DestinationParts<'a>>,
    channel: Channel,
    answers: Option<MessageId>,
    class: &'a str,
    subclass: &'a str,
    occurred_at: i64,
    accepted_at: i64,
    persistence: Persistence,
    time_to_live_s: Option<u32>,
    traceparent: Option<&'a str>,
}

impl<'a> HeaderParts<'a> {
    pub(crate) fn read(block: &'a [u8]) -> Result<Self, Malformed> {
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

    pub(crate) fn to_owned(&self) -> Header {
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

/// An infrastructure block whose texts stand in the bytes it was read from.
pub(crate) struct InfrastructureParts<'a> {
    classification: Classification,
    customer: RemoteId,
    group: &'a str,
    integrator: &'a str,
    integrator_version: &'a str,
    instance: Option<RemoteId>,
    external_id: &'a str,
}

impl<'a> InfrastructureParts<'a> {
    pub(crate) fn read(block: &'a [u8]) -> Result<Self, Malformed> {
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

    pub(crate) fn to_owned(&self) -> Infrastructure {
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

/// What a node that passes a message on must know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief<'a> {
    /// Data class.
    pub class: &'a str,
    /// Whether it may be evicted.
    pub persistence: Persistence,
    /// Seconds from acceptance until it is of no use; none: for ever.
    pub time_to_live_s: Option<u32>,
}

impl<'a> Blocks<'a> {
    /// The check at the door, once per node: sizes, format, identity, times. `sequence` is the
    /// number that the run gives the message ([`RunHeader::numbers`]), `now_ms` this node's clock.
    /// A refusal here is final for the message (REL-1…3).
    pub fn check(&self, run: &RunHeader, sequence: u64, now_ms: i64) -> Result<Message, Refusal> {
        let (header, infrastructure) = self.checked_parts(run, sequence, now_ms)?;
        let service = Service::read(header.class, self.service).map_err(|_| Refusal::Malformed)?;
        let (header, infrastructure) = (header.to_owned(), infrastructure.to_owned());
        Ok(Message { header, infrastructure, service })
    }

    /// The same check, for a node that only passes the message on: nothing is copied.
    pub fn brief(&self, run: &RunHeader, sequence: u64, now_ms: i64) -> Result<Brief<'a>, Refusal> {
        let (header, _) = self.checked_parts(run, sequence, now_ms)?;
        Service::check(header.class, self.service).map_err(|_| Refusal::Malformed)?;
        let HeaderParts { class, persistence, time_to_live_s, .. } = header;
        Ok(Brief { class, persistence, time_to_live_s })
    }

    /// All of the check but what the service block says.
    fn checked_parts(
        &self,
        run: &RunHeader,
        sequence: u64,
        now_ms: i64,
    ) -> Result<(HeaderParts<'a>, InfrastructureParts<'a>), Refusal> {
        if self.header.len() > limits::HEADER_BYTES_MAX
            || self.infrastructure.len() > limits::INFRASTRUCTURE_BYTES_MAX
            || self.service.len() > limits::REGISTRATION_BYTES_MAX
        {
            return Err(Refusal::TooLarge);
        }
        let h = HeaderParts::read(self.header).map_err(|_| Refusal::Malformed)?;
        let i = InfrastructureParts::read(self.infrastructure).map_err(|_| Refusal::Malformed)?;
        if h.class != "registration" && self.service.len() > limits::SERVICE_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let RunHeader { origin, epoch, precedence, .. } = *run;
        let id = MessageId { origin, epoch, precedence, sequence };
        if h.id != id || h.id.sequence == 0 {
            return Err(Refusal::Malformed);
        }
        let far = |t: i64| now_ms.abs_diff(t) > limits::CLOCK_TOLERANCE_MS.unsigned_abs();
        if far(h.occurred_at) || far(h.accepted_at) {
            return Err(Refusal::Malformed);
        }
        let instance_fits = i.instance.is_none_or(|n| n.is_under(&h.id.origin));
        if !h.source.is_under(&h.id.origin)
            || i.customer != h.id.origin.cut(0)
            || (h.channel == Channel::Forward && !instance_fits)
        {
            return Err(Refusal::IdentityMismatch);
        }
        Ok((h, i))
    }
}
