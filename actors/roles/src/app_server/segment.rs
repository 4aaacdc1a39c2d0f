//! The index of up to 65,536 stored messages: what each is, whom it is about, when it happened, and
//! its words. Pure; it never hides a message: where it cannot tell, the message is looked at.
mod bytes_of;
mod words;

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use protocol::{
    Precedence, RemoteId,
    parts::{Parts, ServiceParts},
    service::Severity,
};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

pub use bytes_of::{ROWS_VERSION, key, tags};
pub use words::Words;

/// Messages of one segment (DESIGN §11).
pub const SEGMENT_MESSAGES: u64 = 65_536;
/// Bytes of names in one segment: thousands of instances. What is beyond is looked at in the
/// messages themselves.
const NAMES_BYTES_MAX: usize = 8 << 20;
/// Bytes of words in one segment, as above: 128 a message where no two are alike.
const WORDS_BYTES_MAX: usize = 8 << 20;
/// In a column: it is not noted; look at the message itself.
const LOOK: u16 = u16::MAX;
/// In a column: there is no message of that number, or it has no words.
const NOTHING: u16 = u16::MAX - 1;
/// Entries of one dictionary.
const ENTRIES_MAX: usize = NOTHING as usize;

/// What a message is: few in a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    /// Where it stands in the records.
    pub precedence: Precedence,
    /// Data class.
    pub class: String,
    /// Finer.
    pub subclass: String,
    /// The platform's own word, of alarms and events.
    pub kind: String,
    /// How bad, of alarms and events.
    pub severity: Option<Severity>,
    /// An event that no other message repeats.
    pub alone: bool,
}

/// Whom a message is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Source of the header.
    pub source: RemoteId,
    /// The instance, where there is one.
    pub instance: Option<RemoteId>,
    /// Name of the integrator.
    pub integrator: String,
    /// The platform's own name of the instance.
    pub external_id: String,
}

/// The dictionaries of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    kinds: Vec<Kind>,
    abouts: Vec<About>,
    /// Whether any message is to be looked at for want of room here.
    overflows: bool,
    /// Earliest and latest second at which anything happened.
    seconds: Option<(u32, u32)>,
}

/// One entry a message; the first is the segment's first number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    kind: Vec<u16>,
    about: Vec<u16>,
    text: Vec<u16>,
    second: Vec<u32>,
}

/// What is sought. The predicates see each entry of a dictionary once.
pub struct Sought<'s> {
    /// Whether messages of that kind are meant.
    pub kind: &'s dyn Fn(&Kind) -> bool,
    /// Whether messages about that are meant.
    pub about: &'s dyn Fn(&About) -> bool,
    /// Lower case; all of them stand in the text.
    pub words: &'s [String],
    /// From this second on, …
    pub since: u32,
    /// … up to this one, both included.
    pub until: u32,
}

/// A message that may be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its number in the records.
    pub seq: u64,
    /// Where it stands; none: to be found out.
    pub precedence: Option<Precedence>,
}

/// A second of a column: `ms` since 1970 UTC, what is outside of 1970 to 2106 at the ends.
pub fn second(ms: i64) -> u32 {
    u32::try_from(ms.div_euclid(1000).max(0)).unwrap_or(u32::MAX)
}

/// Number of the segment that holds a message.
pub fn segment_of(seq: u64) -> u64 {
    (seq - 1) / SEGMENT_MESSAGES
}

/// First number of a segment.
pub fn first_of(segment: u64) -> u64 {
    segment * SEGMENT_MESSAGES + 1
}

/// Which entries of the dictionaries are meant.
pub struct Meant {
    kinds: Vec<bool>,
    abouts: Vec<bool>,
}

impl Names {
    /// Which entries are meant; none where no message of the segment can be.
    pub fn meant(&self, sought: &Sought<'_>) -> Option<Meant> {
        let kinds: Vec<bool> = self.kinds.iter().map(sought.kind).collect();
        let abouts: Vec<bool> = self.abouts.iter().map(sought.about).collect();
        let in_time =
            self.seconds.is_some_and(|(first, last)| first <= sought.until && last >= sought.since);
        let any = in_time && kinds.contains(&true) && abouts.contains(&true);
        (any || self.overflows).then_some(Meant { kinds, abouts })
    }
}

impl Columns {
    /// Numbers from the segment's first on that are covered.
    pub fn len(&self) -> u64 {
        self.kind.len() as u64
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.kind.is_empty()
    }

    /// What may be meant, newest first, below a number: at most so many.
    pub fn candidates(
        &self,
        first: u64,
        (names, meant): (&Names, &Meant),
        words: Option<&[bool]>,
        sought: &Sought<'_>,
        (below, most): (u64, usize),
    ) -> Vec<Candidate> {
        let mut found = Vec::new();
        let length = self.len().min(below.saturating_sub(first)) as usize;
        for at in (0..length).rev() {
            let (kind, about) = (self.kind[at], self.about[at]);
            let takes = |entry: u16, of: &[bool]| {
                entry == LOOK || of.get(entry as usize).is_some_and(|meant| *meant)
            };
            let second = self.second[at];
            if !takes(kind, &meant.kinds)
                || !takes(about, &meant.abouts)
                || !(sought.since..=sought.until).contains(&second)
                || !words.is_none_or(|of| takes(self.text[at], of))
            {
                continue;
            }
            let precedence = names.kinds.get(kind as usize).map(|k| k.precedence);
            found.push(Candidate { seq: first + at as u64, precedence });
            if found.len() >= most {
                break;
            }
        }
        found
    }
}

/// A segment in the making, or whole.
#[derive(Debug)]
pub struct Segment {
    first: u64,
    names: Names,
    columns: Columns,
    words: Words,
    known: Known,
}

/// Where entries stand in the dictionaries, by the digest of what they say. What is found is
/// compared: a digest that two share costs an entry, never a message.
#[derive(Debug, Default)]
struct Known {
    kinds: Entries,
    abouts: Entries,
    texts: Entries,
    /// Bytes of names.
    bytes: usize,
    /// An entry as bytes, in the making.
    key: Vec<u8>,
}

type Entries = HashMap<u64, u16, BuildHasherDefault<Digested>>;

/// The hash of what is a digest already.
#[derive(Clone, Copy, Debug, Default)]
struct Digested(u64);

impl Hasher for Digested {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= xxh3_64(bytes);
    }

    fn write_u64(&mut self, digest: u64) {
        self.0 ^= digest;
    }
}

impl Segment {
    /// Nothing noted yet.
    pub fn new(first: u64) -> Self {
        Self {
            first,
            names: Names::default(),
            columns: Columns::default(),
            words: Words::default(),
            known: Known::default(),
        }
    }

    /// Its first number.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Number behind the last one covered.
    pub fn next(&self) -> u64 {
        self.first + self.columns.len()
    }

    /// Whether all its numbers are covered.
    pub fn is_whole(&self) -> bool {
        self.columns.len() == SEGMENT_MESSAGES
    }

    /// Says that there is nothing that is not noted below that number.
    pub fn cover(&mut self, next: u64) {
        let length = next.saturating_sub(self.first).min(SEGMENT_MESSAGES) as usize;
        if length > self.columns.kind.len() {
            self.columns.kind.resize(length, NOTHING);
            self.columns.about.resize(length, NOTHING);
            self.columns.text.resize(length, NOTHING);
            self.columns.second.resize(length, 0);
        }
    }

    /// Notes a message; in any order, those of other segments are passed over.
    pub fn note(&mut self, seq: u64, message: &Parts<'_>) {
        let Some(at) = seq.checked_sub(self.first).filter(|at| *at < SEGMENT_MESSAGES) else {
            return;
        };
        self.cover(seq + 1);
        let at = at as usize;
        let second = second(message.header.occurred_at);
        let kind = self.kind_of(message);
        let about = self.about_of(message);
        let text = match message.service.headline() {
            Some((_, text)) => self.text_of(text),
            None => NOTHING,
        };
        self.names.overflows |= [kind, about, text].contains(&LOOK);
        let (first, last) = self.names.seconds.unwrap_or((second, second));
        self.names.seconds = Some((first.min(second), last.max(second)));
        self.columns.kind[at] = kind;
        self.columns.about[at] = about;
        self.columns.text[at] = text;
        self.columns.second[at] = second;
    }

    fn kind_of(&mut self, message: &Parts<'_>) -> u16 {
        let header = &message.header;
        let (kind, severity, alone) = match &message.service {
            ServiceParts::Alarm(a) => (a.kind, Some(a.severity), false),
            ServiceParts::Event(e) => (e.kind, Some(e.severity), e.event_id.is_empty()),
            ServiceParts::Data(_) | ServiceParts::Other(_) => ("", None, false),
        };
        let key = &mut self.known.key;
        key.clear();
        let severity_key = severity.map_or(u8::MAX, |s| s as u8);
        key.extend([header.id.precedence as u8, severity_key, u8::from(alone)]);
        for name in [header.class, header.subclass, kind] {
            key.extend((name.len() as u16).to_le_bytes());
            key.extend_from_slice(name.as_bytes());
        }
        let same = |k: &Kind| {
            (k.precedence, k.severity, k.alone) == (header.id.precedence, severity, alone)
                && (&*k.class, &*k.subclass, &*k.kind) == (header.class, header.subclass, kind)
        };
        entry(
            &mut self.known.kinds,
            &mut self.names.kinds,
            (key, &mut self.known.bytes),
            same,
            || Kind {
                precedence: header.id.precedence,
                class: header.class.to_owned(),
                subclass: header.subclass.to_owned(),
                kind: kind.to_owned(),
                severity,
                alone,
            },
        )
    }

    fn about_of(&mut self, message: &Parts<'_>) -> u16 {
        let (header, from) = (&message.header, &message.infrastructure);
        let key = &mut self.known.key;
        key.clear();
        let instance = from.instance.as_ref().map_or(&[][..], |id| id.as_bytes());
        for part in [header.source.as_bytes(), instance, from.integrator.as_bytes()] {
            key.extend((part.len() as u16).to_le_bytes());
            key.extend_from_slice(part);
        }
        key.extend_from_slice(from.external_id.as_bytes());
        let same = |a: &About| {
            (a.source, a.instance) == (header.source, from.instance)
                && (&*a.integrator, &*a.external_id) == (from.integrator, from.external_id)
        };
        let room = (&key[..], &mut self.known.bytes);
        entry(&mut self.known.abouts, &mut self.names.abouts, room, same, || About {
            source: header.source,
            instance: from.instance,
            integrator: from.integrator.to_owned(),
            external_id: from.external_id.to_owned(),
        })
    }

    fn text_of(&mut self, text: &str) -> u16 {
        let digest = xxh3_64(text.as_bytes());
        if let Some(known) = self.known.texts.get(&digest)
            && self.words.says(*known as usize, text)
        {
            return *known;
        }
        let number = self.words.len();
        if number >= ENTRIES_MAX || self.words.bytes() + text.len() > WORDS_BYTES_MAX {
            return LOOK;
        }
        self.words.push(text);
        self.known.texts.insert(digest, number as u16);
        number as u16
    }

    /// What may be meant, newest first, below a number: at most so many.
    pub fn candidates(&self, sought: &Sought<'_>, below: u64, most: usize) -> Vec<Candidate> {
        let Some(meant) = self.names.meant(sought) else { return Vec::new() };
        let words = (!sought.words.is_empty()).then(|| self.words.with_all(sought.words));
        let dictionaries = (&self.names, &meant);
        self.columns.candidates(self.first, dictionaries, words.as_deref(), sought, (below, most))
    }
}

/// The number of an entry that is there, or is added; [`LOOK`] where there is no room.
fn entry<T>(
    known: &mut Entries,
    entries: &mut Vec<T>,
    (key, bytes): (&[u8], &mut usize),
    same: impl FnOnce(&T) -> bool,
    new: impl FnOnce() -> T,
) -> u16 {
    let digest = xxh3_64(key);
    if let Some(number) = known.get(&digest)
        && entries.get(*number as usize).is_some_and(same)
    {
        return *number;
    }
    if entries.len() >= ENTRIES_MAX || *bytes + key.len() > NAMES_BYTES_MAX {
        return LOOK;
    }
    let number = entries.len() as u16;
    known.insert(digest, number);
    *bytes += key.len();
    entries.push(new());
    number
}

#[cfg(test)]
mod tests;
