//! A message: header, infrastructure and service block; the check at the door is in `door.rs`.
use std::{fmt, ops::Range, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    RemoteId,
    address::NotAnId,
    codec::{Malformed, Reader, Writer},
    parts::{DestinationParts, HeaderParts, InfrastructureParts},
    service::Service,
};

pub(crate) use crate::words::wire_enum;
pub use crate::words::{Channel, Classification, Persistence, Precedence, SourceType};

/// `018f…c2/3:7:u:1042`: origin, epoch in hexadecimal, precedence, sequence (DAT-13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The component that numbered it.
    pub origin: RemoteId,
    /// Which life of the origin's store.
    pub epoch: u64,
    /// Each precedence has its own numbers.
    pub precedence: Precedence,
    /// From 1, without holes.
    pub sequence: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, epoch, precedence, sequence } = self;
        write!(f, "{origin}:{epoch:x}:{}:{sequence}", precedence.letter())
    }
}

/// Digits only: the standard parser takes a sign too.
fn number(digits: &str, radix: u32) -> Result<u64, NotAnId> {
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(NotAnId);
    }
    u64::from_str_radix(digits, radix).map_err(|_| NotAnId)
}

impl FromStr for MessageId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or(NotAnId);
        let (origin, epoch, precedence, sequence) = (next()?, next()?, next()?, next()?);
        let precedence =
            Precedence::ALL.iter().find(|p| precedence.chars().eq([p.letter()])).ok_or(NotAnId)?;
        let id = Self {
            origin: origin.parse()?,
            epoch: number(epoch, 16)?,
            precedence: *precedence,
            sequence: number(sequence, 10)?,
        };
        match parts.next() {
            Some(_) => Err(NotAnId),
            None => Ok(id),
        }
    }
}

impl Serialize for MessageId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl MessageId {
    pub(crate) fn write(&self, to: &mut Writer) {
        to.array(4).id(&self.origin).uint(self.epoch);
        to.uint(self.precedence as u64).uint(self.sequence);
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.array("message id", 4, |i| {
            Ok(Self {
                origin: i.id()?,
                epoch: i.uint()?,
                precedence: i.one_of(Precedence::from_number)?,
                sequence: i.uint()?,
            })
        })
    }
}

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// One component, integrator or instance.
    Id(RemoteId),
    /// Whoever subscribed to a class.
    Class(String),
}

/// Common to all messages, set once by the origin; enough to route by (DAT-1…4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Who numbered it, and its number.
    pub id: MessageId,
    /// One counter over all precedences of the origin; what is newer (`delivery.md` §1).
    pub order: u64,
    /// Who it is about: the origin or something under it.
    pub source: RemoteId,
    /// What kind of thing the source is.
    pub source_type: SourceType,
    /// Whom it is for; none: whoever subscribed to its class.
    pub destination: Option<Destination>,
    /// Up or down.
    pub channel: Channel,
    /// The request it answers (DAT-14).
    pub answers: Option<MessageId>,
    /// Data class: alarm, event, data, registration…
    pub class: String,
    /// Finer, what subscribers match: of data `class/subclass` as its integrator named them, such
    /// as `inventory/packages` (DAT-15); empty for most.
    pub subclass: String,
    /// When it happened, by the platform's clock, ms since 1970 UTC.
    pub occurred_at: i64,
    /// When the origin took it, by its clock, ms since 1970 UTC.
    pub accepted_at: i64,
    /// Whether it may be evicted.
    pub persistence: Persistence,
    /// Seconds from `accepted_at` until it is of no use; none: for ever.
    pub time_to_live_s: Option<u32>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// Where `sequence` and `order` stand in an encoded message, so that the commit fills them in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blanks {
    /// Offset of eight bytes, big-endian.
    pub sequence_at: usize,
    /// Offset of eight bytes, big-endian.
    pub order_at: usize,
}

impl Header {
    /// The same, borrowed.
    pub fn parts(&self) -> HeaderParts<'_> {
        let destination = self.destination.as_ref().map(|destination| match destination {
            Destination::Id(id) => DestinationParts::Id(*id),
            Destination::Class(class) => DestinationParts::Class(class),
        });
        HeaderParts {
            id: self.id,
            order: self.order,
            source: self.source,
            source_type: self.source_type,
            destination,
            channel: self.channel,
            answers: self.answers,
            class: &self.class,
            subclass: &self.subclass,
            occurred_at: self.occurred_at,
            accepted_at: self.accepted_at,
            persistence: self.persistence,
            time_to_live_s: self.time_to_live_s,
            traceparent: self.traceparent.as_deref(),
        }
    }

    /// Reads a header block.
    pub fn read(block: &[u8]) -> Result<Self, Malformed> {
        HeaderParts::read(block).map(|parts| parts.owned())
    }
}

/// Where the data comes from, free of what is special to a platform (DAT-5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Infrastructure {
    /// What the service is for.
    pub classification: Classification,
    /// Whose it is.
    pub customer: RemoteId,
    /// Security group; empty: none.
    pub group: String,
    /// Name of the integrator; empty for a node's own messages.
    pub integrator: String,
    /// Its version.
    pub integrator_version: String,
    /// The instance it is about; none for a node's or integrator's own.
    pub instance: Option<RemoteId>,
    /// The platform's own name of the instance, such as an address (IDM-6).
    pub external_id: String,
}

impl Infrastructure {
    /// The same, borrowed.
    pub fn parts(&self) -> InfrastructureParts<'_> {
        InfrastructureParts {
            classification: self.classification,
            customer: self.customer,
            group: &self.group,
            integrator: &self.integrator,
            integrator_version: &self.integrator_version,
            instance: self.instance,
            external_id: &self.external_id,
        }
    }

    /// Reads the block.
    pub fn read(block: &[u8]) -> Result<Self, Malformed> {
        InfrastructureParts::read(block).map(|parts| parts.owned())
    }
}

/// A message in hand, decoded; the JSON form of the API and of people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Routes it.
    pub header: Header,
    /// Says where its data comes from.
    pub infrastructure: Infrastructure,
    /// The data.
    pub service: Service,
}

impl Message {
    /// The wire bytes, and where its numbers stand in them.
    pub fn encode(&self) -> (Vec<u8>, Blanks) {
        encode(&self.header.parts(), &self.infrastructure.parts(), &self.service)
    }

    /// Decodes one whole message.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let blocks = Blocks::take(&mut reader)?;
        if !reader.is_empty() {
            return Err(Malformed("message: bytes follow it"));
        }
        blocks.decode()
    }
}

/// What a block without its payload usually takes, bytes.
const BLOCK_BYTES: usize = 256;

/// The wire bytes of a message, and where its numbers stand in them.
fn encode(
    header: &HeaderParts<'_>,
    infrastructure: &InfrastructureParts<'_>,
    service: &Service,
) -> (Vec<u8>, Blanks) {
    // Reserved at once: a buffer that grows is copied each time.
    let data = service.payload().map_or(0, |payload| payload.data.len());
    let mut block = Writer::on(Vec::with_capacity(BLOCK_BYTES + data));
    let mut to = Writer::on(Vec::with_capacity(2 * BLOCK_BYTES + data));
    let blanks = header.write(&mut block);
    to.array(3).bin_head(block.len());
    let at = to.len();
    to.raw(block.written());
    block.clear();
    infrastructure.write(&mut block);
    to.bin(block.written());
    block.clear();
    service.write(&mut block);
    to.bin(block.written());
    let blanks = Blanks { sequence_at: at + blanks.sequence_at, order_at: at + blanks.order_at };
    (to.into_vec(), blanks)
}

/// The three blocks of a message, none of them decoded.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    /// Header block.
    pub header: &'a [u8],
    /// Infrastructure block.
    pub infrastructure: &'a [u8],
    /// Service block.
    pub service: &'a [u8],
}

impl<'a> Blocks<'a> {
    /// One message off the front: three lengths find the next.
    #[inline]
    pub fn take(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        const WHAT: Malformed = Malformed("message");
        if from.array_len() != Some(3) {
            return Err(WHAT);
        }
        let mut block = || from.bin().ok_or(WHAT);
        Ok(Self { header: block()?, infrastructure: block()?, service: block()? })
    }

    /// Decodes all three.
    pub fn decode(&self) -> Result<Message, Malformed> {
        self.parts().map(|parts| parts.message())
    }

    /// Digest over all that the origin set once (`delivery.md` §1).
    pub fn digest(&self) -> u64 {
        let mut digest = Xxh3::new();
        digest.update(self.header);
        digest.update(self.infrastructure);
        digest.update(self.service);
        digest.digest()
    }
}

/// Walks the messages of a run; ends at the first that is none.
pub struct Messages<'a> {
    all: &'a [u8],
    reader: Reader<'a>,
}

impl<'a> Messages<'a> {
    /// Walks `bytes`, messages back to back.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { all: bytes, reader: Reader::new(bytes) }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<(Range<usize>, Blocks<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let from = self.all.len() - self.reader.rest().len();
        let blocks = Blocks::take(&mut self.reader);
        if blocks.is_err() {
            self.reader = Reader::new(&[]);
        }
        let to = self.all.len() - self.reader.rest().len();
        Some(blocks.map(|b| (from..to, b)))
    }
}

/// Fills in the numbers that the commit gives a message of this node's own.
pub fn fill_in(message: &mut [u8], blanks: Blanks, sequence: u64, order: u64) {
    for (at, number) in [(blanks.sequence_at, sequence), (blanks.order_at, order)] {
        if let Some(place) = message.get_mut(at..at + 8) {
            place.copy_from_slice(&number.to_be_bytes());
        }
    }
}

/// A message in its wire bytes, whose numbers are still blank.
#[derive(Clone, Debug)]
pub struct Unnumbered {
    /// Wire bytes.
    pub bytes: Bytes,
    /// Where its numbers go.
    pub blanks: Blanks,
    /// Its precedence.
    pub precedence: Precedence,
    /// Whether it may be evicted.
    pub persistence: Persistence,
    /// Seconds until it is of no use.
    pub time_to_live_s: Option<u32>,
    /// Who it was written as: a node that got another id meanwhile must write it anew.
    pub origin: RemoteId,
    /// Which life it was written under.
    pub epoch: u64,
}

impl Unnumbered {
    /// Writes a message from what it is made of; the numbers of its header are blanks.
    pub fn of(
        header: &HeaderParts<'_>,
        infrastructure: &InfrastructureParts<'_>,
        service: &Service,
    ) -> Self {
        let (bytes, blanks) = encode(header, infrastructure, service);
        let (precedence, persistence) = (header.id.precedence, header.persistence);
        let time_to_live_s = header.time_to_live_s;
        let (origin, epoch) = (header.id.origin, header.id.epoch);
        let bytes = bytes.into();
        Self { bytes, blanks, precedence, persistence, time_to_live_s, origin, epoch }
    }
}

impl From<&Message> for Unnumbered {
    fn from(message: &Message) -> Self {
        Self::of(&message.header.parts(), &message.infrastructure.parts(), &message.service)
    }
}
