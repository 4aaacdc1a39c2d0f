//! A segment against a naive search, and its rows.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]
use proptest::prelude::*;
use protocol::{
    Header, Infrastructure, Message, MessageId,
    codec::Reader,
    message::{Blocks, Channel, Classification, Persistence, SourceType},
    service::{Data, Event, Payload, Service, State},
};

use super::*;

fn customer() -> RemoteId {
    RemoteId::customer(uuid::Uuid::nil())
}

/// An event, or data where there is no text.
fn message(sequence: u64, unit: u32, text: Option<&str>) -> Message {
    let about = customer().child(1).unwrap().child(1).unwrap().child(unit).unwrap();
    let service = match text {
        Some(text) => Service::Event(Event {
            kind: "fan".to_owned(),
            event_id: String::new(),
            severity: Severity::Minor,
            state: State::Opened,
            text: text.to_owned(),
            payload: Payload::default(),
        }),
        None => Service::Data(Data {
            kind: "audit".to_owned(),
            subtype: String::new(),
            payload: Payload::default(),
        }),
    };
    Message {
        header: Header {
            id: MessageId {
                origin: customer(),
                epoch: 1,
                precedence: Precedence::Normal,
                sequence,
            },
            order: sequence,
            source: about,
            source_type: SourceType::Instance,
            destination: None,
            channel: Channel::Forward,
            answers: None,
            class: service.class().to_owned(),
            subclass: String::new(),
            occurred_at: sequence as i64 * 1000,
            accepted_at: 0,
            persistence: Persistence::Normal,
            time_to_live_s: None,
            traceparent: None,
        },
        infrastructure: Infrastructure {
            classification: Classification::Monitoring,
            customer: customer(),
            group: String::new(),
            integrator: "snmp".to_owned(),
            integrator_version: String::new(),
            instance: Some(about),
            external_id: format!("unit-{unit}"),
        },
        service,
    }
}

fn note(segment: &mut Segment, seq: u64, message: &Message) {
    let (bytes, _) = message.encode();
    segment.note(seq, &Blocks::take(&mut Reader::new(&bytes)).unwrap().parts().unwrap());
}

/// What is found by the rows, as a search reads them from a store.
fn by_rows(segment: &Segment, sought: &Sought<'_>, below: u64) -> Vec<Candidate> {
    let rows = segment.rows();
    let of = |tag: u8| rows.iter().filter(move |(key, _)| key[0] == tag).map(|(_, row)| row);
    let names = Names::of_row(of(tags::NAMES).next().unwrap()).unwrap();
    let columns = Columns::of_row(of(tags::COLUMNS).next().unwrap()).unwrap();
    let Some(meant) = names.meant(sought) else { return Vec::new() };
    let words = of(tags::WORDS).map(|row| Words::of_row(row).unwrap().with_all(sought.words));
    let words: Vec<bool> = words.flatten().collect();
    let words = (!sought.words.is_empty()).then_some(&words[..]);
    columns.candidates(segment.first(), (&names, &meant), words, sought, (below, usize::MAX))
}

fn numbers(candidates: &[Candidate]) -> Vec<u64> {
    candidates.iter().map(|candidate| candidate.seq).collect()
}

proptest! {
    #[test]
    fn what_is_meant_is_found_in_ram_and_in_rows(
        said in prop::collection::vec((0..5_u32, prop::option::of("(port|PORT|Ünit|a b)( [0-3])?")), 1..60),
        unit in prop::option::of(0..6_u32),
        words in prop::collection::vec("(port|ünit|b|2)", 0..3),
        (since, below) in (0..80_u32, 1..80_u64),
    ) {
        let mut segment = Segment::new(1);
        for (at, (of, text)) in said.iter().enumerate().rev() {
            let seq = at as u64 + 1;
            note(&mut segment, seq, &message(seq, *of, text.as_deref()));
        }
        let wanted = unit.map(|unit| format!("unit-{unit}"));
        let about = |a: &About| wanted.as_ref().is_none_or(|name| *name == a.external_id);
        let sought = Sought { kind: &|_| true, about: &about, words: &words, since, until: 70 };
        let has = |text: &Option<String>| {
            let text = text.as_ref().map(|text| text.to_lowercase());
            words.is_empty() || text.is_some_and(|t| words.iter().all(|w| t.contains(w)))
        };
        let mut meant: Vec<u64> = (1_u64..).zip(&said)
            .filter(|(seq, (of, text))| {
                unit.is_none_or(|unit| unit == *of)
                    && has(text)
                    && (since..=70).contains(&(*seq as u32))
                    && *seq < below
            })
            .map(|(seq, _)| seq)
            .collect();
        meant.reverse();
        prop_assert_eq!(numbers(&segment.candidates(&sought, below, usize::MAX)), &meant[..]);
        prop_assert_eq!(numbers(&by_rows(&segment, &sought, below)), meant);
    }

    #[test]
    fn any_bytes_are_rows_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (Names::of_row(&bytes), Columns::of_row(&bytes));
        if let Some(words) = Words::of_row(&bytes) {
            words.with_all(&["a".to_owned(), "b".to_owned()]);
        }
    }
}

#[test]
fn what_finds_no_room_is_looked_at_rather_than_hidden() {
    let mut segment = Segment::new(1);
    let long = "x".repeat(protocol::limits::TEXT_BYTES_MAX - 8);
    let last = (WORDS_BYTES_MAX / long.len()) as u64 + 10;
    for seq in 1..=last {
        note(&mut segment, seq, &message(seq, 1, Some(&format!("{long} {seq:07}"))));
    }
    let words = [format!("{last:07}")];
    let sought =
        Sought { kind: &|_| true, about: &|_| true, words: &words, since: 0, until: u32::MAX };
    let found = segment.candidates(&sought, u64::MAX, usize::MAX);
    assert!(numbers(&found).contains(&last) && found.len() < 100, "{}", found.len());
    assert_eq!(by_rows(&segment, &sought, u64::MAX), found);
    // Another instance is not among them: who a message is about had room.
    let other = |a: &About| a.external_id == "unit-2";
    let sought = Sought { about: &other, ..sought };
    assert_eq!(segment.candidates(&sought, u64::MAX, usize::MAX), []);
}

#[test]
fn a_number_without_a_message_is_in_no_list() {
    let mut segment = Segment::new(1);
    note(&mut segment, 3, &message(3, 1, Some("port")));
    note(&mut segment, SEGMENT_MESSAGES + 1, &message(1, 1, Some("of the next")));
    segment.cover(10);
    assert_eq!((segment.next(), segment.is_whole()), (10, false));
    let sought =
        Sought { kind: &|_| true, about: &|_| true, words: &[], since: 0, until: u32::MAX };
    assert_eq!(numbers(&segment.candidates(&sought, 10, usize::MAX)), [3]);
    assert_eq!((segment_of(1), segment_of(SEGMENT_MESSAGES), first_of(1)), (0, 0, 65_537));
    assert_eq!((second(-5), second(1_999), second(i64::MAX)), (0, 1, u32::MAX));
}
