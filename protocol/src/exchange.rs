//! The one request between nodes, and its answer (`delivery.md` §2, §12).
use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    MessageId, Precedence, Refusal, RemoteId, VERSION, Verdict,
    codec::{Malformed, Reader, Writer},
    ends::EndReport,
    limits,
    question::Question,
    run::Run,
};

/// Who a child says it is. Where the connection is authenticated it must say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sender {
    /// Its id; number 0 before it has one.
    pub id: RemoteId,
    /// Which life of its store; tells apart those that have number 0.
    pub epoch: u64,
}

/// That a back-channel message is on this child's disk. `received` is when the parent took it: an
/// acknowledgement of an earlier attempt does not end a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Acknowledgement {
    /// The message.
    pub id: MessageId,
    /// The last hop's `received` in the run that brought it.
    pub received: i64,
}

/// What a child says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Drawn at each start of the child's process.
    pub incarnation: u64,
    /// Precedence of all its runs.
    pub precedence: Precedence,
    /// From 1 per link and precedence; 0: empty, carries no runs.
    pub number: u64,
    /// Digest of the runs' bytes.
    pub digest: u64,
    /// The number before it, 0: none.
    pub previous: u64,
    /// The oldest number still in flight.
    pub oldest: u64,
    /// Heartbeats, encoded.
    pub beats: Vec<Bytes>,
    /// How messages ended below.
    pub ends: Vec<EndReport>,
    /// Back-channel messages that are on the child's disk.
    pub acknowledgements: Vec<Acknowledgement>,
    /// What it carries.
    pub runs: Vec<Run>,
    /// Who sends it.
    pub sender: Sender,
}

/// What became of one message of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// On the parent's disk now.
    Stored,
    /// It was there, with the same digest.
    Duplicate,
    /// Refused; the verdict says whether it ends.
    Refused(Refusal),
}

/// What a parent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As asked.
    pub incarnation: u64,
    /// As asked.
    pub precedence: Precedence,
    /// As asked.
    pub number: u64,
    /// As asked.
    pub digest: u64,
    /// By position, as (outcome, how many in a row).
    pub outcomes: Vec<(Outcome, u32)>,
    /// Wait so long before the next, ms.
    pub retry_after_ms: u64,
    /// Bytes the parent can take now.
    pub credit_bytes: u64,
    /// Back-channel messages.
    pub down: Vec<Run>,
    /// What the child and those below it are asked.
    pub questions: Vec<Question>,
}

const STORED: u64 = 0;
const DUPLICATE: u64 = 1;
const REFUSED_FROM: u64 = 16;

impl Outcome {
    /// Whether the message stays with the child, which sends it again.
    pub fn is_try_again(self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.verdict() == Verdict::TryAgain)
    }

    fn number(self) -> u64 {
        match self {
            Self::Stored => STORED,
            Self::Duplicate => DUPLICATE,
            Self::Refused(refusal) => REFUSED_FROM + refusal as u64,
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        match number {
            STORED => Some(Self::Stored),
            DUPLICATE => Some(Self::Duplicate),
            _ => {
                let refusal = number.checked_sub(REFUSED_FROM)?.try_into().ok()?;
                Refusal::from_number(refusal).map(Self::Refused)
            }
        }
    }
}

/// Outcomes in the answer's form: each with how many in a row.
pub fn in_rows(outcomes: impl IntoIterator<Item = Outcome>) -> Vec<(Outcome, u32)> {
    let mut rows: Vec<(Outcome, u32)> = Vec::new();
    for outcome in outcomes {
        match rows.last_mut() {
            Some((last, count)) if *last == outcome => *count += 1,
            _ => rows.push((outcome, 1)),
        }
    }
    rows
}

/// Digest over the encoded runs of an exchange.
pub fn digest_of(runs: &[Run]) -> u64 {
    let mut digest = Xxh3::new();
    for run in runs {
        let mut header = Writer::new();
        run.header.write(&mut header);
        digest.update(&header.into_vec());
        digest.update(&run.messages);
    }
    digest.digest()
}

impl Exchange {
    /// The wire bytes.
    pub fn encode(&self) -> Bytes {
        let size: usize = self.runs.iter().map(|r| r.messages.len() + 128).sum();
        let mut to = Writer::on(Vec::with_capacity(size + 512));
        to.array(12).uint(VERSION.into()).uint(self.incarnation);
        to.uint(self.precedence as u64).uint(self.number).uint(self.digest);
        to.uint(self.previous).uint(self.oldest);
        to.list(&self.beats, |to, beat| {
            to.bin(beat);
        });
        to.list(&self.ends, |to, end| end.write(to));
        to.list(&self.acknowledgements, |to, a| {
            to.array(2);
            a.id.write(to);
            to.int(a.received);
        });
        to.list(&self.runs, |to, run| run.write(to));
        to.array(2).id(&self.sender.id).uint(self.sender.epoch);
        to.into_bytes()
    }

    /// Reads the wire bytes; the runs are slices of them. The digest is not compared here.
    pub fn decode(bytes: &Bytes) -> Result<Self, Refusal> {
        if bytes.len() > limits::EXCHANGE_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let mut version = Reader::new(bytes);
        let known = version.array_len().is_some_and(|n| n > 0);
        match version.uint() {
            Some(v) if known && v != u64::from(VERSION) => return Err(Refusal::UnknownVersion),
            _ => {}
        }
        let mut reader = Reader::new(bytes);
        let exchange = Self::read(&mut reader, bytes).map_err(|_| Refusal::Malformed)?;
        let mixed = exchange.runs.iter().any(|r| r.header.precedence != exchange.precedence);
        if !reader.is_empty() || mixed || (exchange.number == 0) != exchange.runs.is_empty() {
            return Err(Refusal::Malformed);
        }
        Ok(exchange)
    }

    fn read(from: &mut Reader<'_>, all: &Bytes) -> Result<Self, Malformed> {
        from.array("exchange", 12, |i| {
            i.u8()?;
            Ok(Self {
                incarnation: i.uint()?,
                precedence: i.one_of(Precedence::from_number)?,
                number: i.uint()?,
                digest: i.uint()?,
                previous: i.uint()?,
                oldest: i.uint()?,
                beats: i.list(limits::BEATS_MAX, |r| {
                    let beat = r.bin().filter(|b| b.len() <= limits::BEAT_BYTES_MAX);
                    beat.map(|b| all.slice_ref(b)).ok_or(Malformed("heartbeat"))
                })?,
                ends: i.list(limits::ENDS_MAX, EndReport::read)?,
                acknowledgements: i.list(limits::ACKNOWLEDGEMENTS_MAX, |r| {
                    r.array("acknowledgement", 2, |i| {
                        Ok(Acknowledgement { id: i.nested(MessageId::read)?, received: i.int()? })
                    })
                })?,
                runs: i.list(limits::RUNS_MAX, |r| Run::read(r, all))?,
                sender: i.nested(|r| {
                    r.array("sender", 2, |i| Ok(Sender { id: i.id()?, epoch: i.uint()? }))
                })?,
            })
        })
    }
}

impl Answer {
    /// The wire bytes.
    pub fn encode(&self) -> Bytes {
        let mut to = Writer::new();
        let known = if self.questions.is_empty() { 9 } else { 10 };
        to.array(known).uint(VERSION.into()).uint(self.incarnation);
        to.uint(self.precedence as u64).uint(self.number).uint(self.digest);
        to.list(&self.outcomes, |to, (outcome, count)| {
            to.array(2).uint(outcome.number()).uint((*count).into());
        });
        to.uint(self.retry_after_ms).uint(self.credit_bytes);
        to.list(&self.down, |to, run| run.write(to));
        if !self.questions.is_empty() {
            to.list(&self.questions, |to, question| question.write(to));
        }
        to.into_bytes()
    }

    /// Reads the wire bytes; the runs are slices of them.
    pub fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        const WHAT: Malformed = Malformed("answer");
        if bytes.len() > limits::EXCHANGE_BYTES_MAX {
            return Err(WHAT);
        }
        Reader::new(bytes).only("answer", 9, |i| {
            if i.u8()? != VERSION {
                return Err(Malformed("answer version"));
            }
            Ok(Self {
                incarnation: i.uint()?,
                precedence: i.one_of(Precedence::from_number)?,
                number: i.uint()?,
                digest: i.uint()?,
                outcomes: i.list(limits::BATCH_MESSAGES_MAX, |r| {
                    r.array("outcome", 2, |i| {
                        let outcome = Outcome::from_number(i.uint()?).ok_or(WHAT)?;
                        Ok((outcome, i.u32()?))
                    })
                })?,
                retry_after_ms: i.uint()?,
                credit_bytes: i.uint()?,
                down: i.list(limits::RUNS_MAX, |r| Run::read(r, bytes))?,
                questions: match i.more() {
                    true => i.list(limits::QUESTIONS_MAX, Question::read)?,
                    false => Vec::new(),
                },
            })
        })
    }
}
