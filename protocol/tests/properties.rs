//! What holds for any message and any bytes: identity of coding, no panic, room for later versions.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*, sample::select};
use protocol::{
    Header, Infrastructure, Message, MessageId, Precedence,
    codec::{Reader, Writer},
    ends::{End, EndReport, join},
    exchange::{Acknowledgement, Answer, Exchange, Outcome, Sender, digest_of, in_rows},
    heartbeat::{Account, Condition, Depth, Heartbeat, IntegratorStatus, Mode},
    limits,
    message::{
        Blocks, Channel, Classification, Destination, Messages, Persistence, SourceType, fill_in,
    },
    refusal::Refusal,
    registration::{InstanceRegistration, Registration, RegistrationAnswer},
    run::{Hop, Run, RunHeader},
    service::{
        Action, ActionAnswer, Alarm, Capabilities, Data, Event, Notice, Payload, Removal, Service,
        Severity, State,
    },
};

mod common;

use common::strategies::{an_id, message_id, name, question, said};

fn payload() -> impl Strategy<Value = Payload> {
    (name(), vec(any::<u8>(), 0..600))
        .prop_map(|(encoding, d)| Payload { encoding, data: d.into() })
}

fn data_class() -> impl Strategy<Value = Service> {
    let severity = || select(Severity::ALL);
    let state = || select(State::ALL);
    prop_oneof![
        (name(), name(), severity(), name(), state(), option::of(any::<u32>()), payload())
            .prop_map(|(kind, key, severity, text, state, close_after_s, payload)| {
                Service::Alarm(Alarm { kind, key, severity, text, state, close_after_s, payload })
            }),
        (name(), name(), severity(), state(), name(), payload()).prop_map(
            |(kind, event_id, severity, state, text, payload)| {
                Service::Event(Event { kind, event_id, severity, state, text, payload })
            }
        ),
        (name(), name(), payload()).prop_map(|(kind, subtype, payload)| {
            Service::Data(Data { kind, subtype, payload })
        }),
        payload().prop_map(|payload| Service::Capabilities(Capabilities { payload })),
    ]
}

fn other_class() -> impl Strategy<Value = Service> {
    let instance =
        (an_id(), name(), option::of(name())).prop_map(|(id, external_id, capabilities)| {
            InstanceRegistration { id, external_id, capabilities }
        });
    prop_oneof![
        (name(), vec(name(), 0..5), name(), any::<u64>()).prop_map(
            |(name, roles, version, nonce)| {
                Service::Registration(Registration::Node { name, roles, version, nonce })
            }
        ),
        (an_id(), name(), name(), vec(name(), 0..5)).prop_map(|(id, name, version, callbacks)| {
            Service::Registration(Registration::Integrator { id, name, version, callbacks })
        }),
        vec(instance, 0..20)
            .prop_map(|instances| Service::Registration(Registration::Instances(instances))),
        (an_id(), name()).prop_map(|(id, refusal)| {
            Service::RegistrationAnswer(RegistrationAnswer { id, refusal })
        }),
        (name(), name(), name()).prop_map(|(action_id, name, xml)| {
            Service::Action(Action { action_id, name, xml })
        }),
        (name(), option::of(any::<i64>()), name()).prop_map(|(action_id, status, reason)| {
            Service::ActionAnswer(ActionAnswer { action_id, status, reason })
        }),
        (name(), name()).prop_map(|(reason, detail)| Service::Notice(Notice { reason, detail })),
        an_id().prop_map(|subject| Service::Removal(Removal { subject })),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    let destination =
        prop_oneof![an_id().prop_map(Destination::Id), name().prop_map(Destination::Class),];
    let who = (message_id(), any::<u64>(), an_id(), select(SourceType::ALL));
    let way = (option::of(destination), select(Channel::ALL), option::of(message_id()), name());
    let rest = (any::<i64>(), any::<i64>(), select(Persistence::ALL));
    (who, way, rest, option::of(any::<u32>()), option::of(name())).prop_map(
        |(who, way, rest, time_to_live_s, traceparent)| Header {
            id: who.0,
            order: who.1,
            source: who.2,
            source_type: who.3,
            destination: way.0,
            channel: way.1,
            answers: way.2,
            class: String::new(),
            subclass: way.3,
            occurred_at: rest.0,
            accepted_at: rest.1,
            persistence: rest.2,
            time_to_live_s,
            traceparent,
        },
    )
}

fn a_message() -> impl Strategy<Value = Message> {
    let platform = (name(), name(), name(), option::of(an_id()), name());
    let service = prop_oneof![data_class(), other_class()];
    (header(), select(Classification::ALL), an_id(), platform, service).prop_map(
        |(mut header, classification, customer, platform, service)| {
            let (group, integrator, integrator_version, instance, external_id) = platform;
            header.class = service.class().into();
            let infrastructure = Infrastructure {
                classification,
                customer,
                group,
                integrator,
                integrator_version,
                instance,
                external_id,
            };
            Message { header, infrastructure, service }
        },
    )
}

fn run_of(precedence: Precedence) -> impl Strategy<Value = Run> {
    let hop = (an_id(), 0..=limits::TIME_MS_MAX, 0..=limits::TIME_MS_MAX)
        .prop_map(|(node, received, sent)| Hop { node, received, sent });
    let path = vec(hop, 0..limits::HOPS_MAX);
    let flags = (any::<bool>(), any::<bool>());
    let numbers = (1..u64::MAX / 2, 1_u32..40, vec(any::<u8>(), 0..2));
    (an_id(), any::<u64>(), numbers, flags, path, vec(any::<u8>(), 0..200)).prop_map(
        move |(origin, epoch, (first, count, left_out), (replayed, changed), path, messages)| {
            let left_out: Vec<u8> = left_out.into_iter().take(count.div_ceil(8) as usize).collect();
            let header = RunHeader {
                origin,
                epoch,
                precedence,
                first,
                count,
                left_out,
                replayed,
                changed,
                path,
            };
            Run { header, messages: messages.into() }
        },
    )
}

fn end_report() -> impl Strategy<Value = EndReport> {
    let numbers = (1..u64::MAX / 2, 1..u32::MAX);
    let whose = (an_id(), any::<u64>(), select(Precedence::ALL));
    (whose, numbers, select(End::ALL), an_id(), name()).prop_map(
        |((origin, epoch, precedence), (first, count), end, node, reason)| EndReport {
            origin,
            epoch,
            precedence,
            first,
            count,
            end,
            node,
            reason,
        },
    )
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let runs = select(Precedence::ALL).prop_flat_map(|p| (Just(p), vec(run_of(p), 0..4)));
    let numbers = any::<[u64; 4]>();
    let acknowledged =
        (message_id(), any::<i64>()).prop_map(|(id, received)| Acknowledgement { id, received });
    let beat = vec(any::<u8>(), 0..100).prop_map(Bytes::from);
    let rest = (vec(beat, 0..3), vec(end_report(), 0..3), vec(acknowledged, 0..3));
    let sender = (an_id(), any::<u64>()).prop_map(|(id, epoch)| Sender { id, epoch });
    (runs, numbers, rest, sender).prop_map(|((precedence, runs), n, rest, sender)| Exchange {
        incarnation: n[0],
        precedence,
        number: if runs.is_empty() { 0 } else { n[1].max(1) },
        digest: digest_of(&runs),
        previous: n[2],
        oldest: n[3],
        beats: rest.0,
        ends: rest.1,
        acknowledgements: rest.2,
        runs,
        sender,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Stored),
        Just(Outcome::Duplicate),
        select(&Refusal::ALL[..]).prop_map(Outcome::Refused),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let down = vec(run_of(Precedence::Urgent), 0..3);
    let rest = (down, vec(question(), 0..3));
    (any::<[u64; 5]>(), select(Precedence::ALL), vec(outcome(), 0..50), rest).prop_map(
        |(n, precedence, outcomes, (down, questions))| Answer {
            incarnation: n[0],
            precedence,
            number: n[1],
            digest: n[2],
            outcomes: in_rows(outcomes),
            retry_after_ms: n[3],
            credit_bytes: n[4],
            down,
            questions,
        },
    )
}

fn heartbeat() -> impl Strategy<Value = Heartbeat> {
    let numbers = (any::<[u64; 10]>(), any::<[[u64; 3]; 3]>(), any::<[u64; 3]>(), any::<i64>());
    let integrator =
        (an_id(), any::<bool>(), select(Condition::ALL), select(Condition::ALL), name()).prop_map(
            |(id, connected, module, platform, text)| IntegratorStatus {
                id,
                connected,
                module,
                platform,
                text,
            },
        );
    let lists = (
        vec((name(), name()), 0..4),
        vec(message_id(), 0..4),
        vec(integrator, 0..4),
        vec(an_id(), 0..4),
        vec(said(), 0..3),
        option::of(vec((name(), name()), 0..4)),
        option::of(any::<u64>()),
    );
    (an_id(), name(), vec(name(), 0..4), select(Mode::ALL), numbers, lists).prop_map(
        |(
            node,
            name,
            roles,
            mode,
            (a, d, n, at),
            (reasons, done, integrators, path, says, ready, rejected),
        )| {
            Heartbeat {
                says,
                ready,
                rejected,
                node,
                epoch: n[0],
                beat: n[1],
                order: n[2],
                at,
                version: name.clone(),
                configuration: name.clone(),
                name,
                roles,
                mode,
                account: Account {
                    taken: a[0],
                    delivered: a[1],
                    expired: a[2],
                    evicted: a[3],
                    refused: a[4],
                    consumed: a[5],
                    queued: a[6],
                    duplicates: a[7],
                    turned_away: a[8],
                    dropped: a[9],
                },
                depths: d.map(|[messages, bytes, oldest_age_ms]| Depth {
                    messages,
                    bytes,
                    oldest_age_ms,
                }),
                reasons,
                done,
                integrators,
                path,
            }
        },
    )
}

/// An array of MessagePack with `more` items at its end.
fn appended(array: &[u8], more: usize) -> Vec<u8> {
    let mut reader = Reader::new(array);
    let len = reader.array_len().unwrap() as usize;
    let mut to = Writer::new();
    to.array(len + more).raw(reader.rest());
    for n in 0..more {
        match n % 3 {
            0 => to.text("of a later version"),
            1 => to.array(2).uint(7).nil(),
            _ => to.int(-1),
        };
    }
    to.into_vec()
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut to = Writer::new();
    write(&mut to);
    to.into_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn message_of_any_class_is_read_as_it_was_written(message in a_message()) {
        let (bytes, _) = message.encode();
        prop_assert_eq!(&Message::decode(&bytes).unwrap(), &message);
        let id = message.header.id;
        prop_assert_eq!(id.to_string().parse::<MessageId>(), Ok(id));
    }

    #[test]
    fn json_form_of_a_message_is_read_as_it_was_written(message in a_message()) {
        let text = serde_json::to_string(&message).unwrap();
        prop_assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), message);
    }

    #[test]
    fn json_form_of_heartbeats_and_end_reports_too(beat in heartbeat(), end in end_report()) {
        let text = serde_json::to_string(&beat).unwrap();
        prop_assert_eq!(serde_json::from_str::<Heartbeat>(&text).unwrap(), beat);
        let text = serde_json::to_string(&end).unwrap();
        prop_assert_eq!(serde_json::from_str::<EndReport>(&text).unwrap(), end);
    }

    #[test]
    fn run_and_exchange_are_read_as_they_were_written(exchange in exchange()) {
        let bytes = exchange.encode();
        prop_assert_eq!(&Exchange::decode(&bytes).unwrap(), &exchange);
    }

    #[test]
    fn answer_is_read_as_it_was_written(answer in answer()) {
        prop_assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
    }

    #[test]
    fn heartbeat_and_end_report_are_read_as_they_were_written(b in heartbeat(), e in end_report()) {
        let bytes = written(|to| b.write(to));
        prop_assert_eq!(Heartbeat::read(&mut Reader::new(&bytes)).unwrap(), b);
        let bytes = written(|to| e.write(to));
        prop_assert_eq!(EndReport::read(&mut Reader::new(&bytes)).unwrap(), e);
    }

    #[test]
    fn any_bytes_are_an_error_or_valid_and_never_a_panic(bytes in vec(any::<u8>(), 0..400)) {
        common::everything::read(&bytes);
    }

    #[test]
    fn damaged_golden_bytes_are_an_error_or_valid_and_never_a_panic(
        which in any::<prop::sample::Index>(),
        at in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let all = common::all();
        let mut bytes = which.get(&all).1.clone();
        for (at, value) in at {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        common::everything::read(&bytes);
        bytes.truncate(cut.index(bytes.len() + 1));
        common::everything::read(&bytes);
    }

    #[test]
    fn what_later_versions_append_is_ignored(more in 1_usize..20) {
        let exchange = common::exchange();
        let bytes = Bytes::from(appended(&exchange.encode(), more));
        prop_assert_eq!(Exchange::decode(&bytes).unwrap(), exchange);
        let answer = common::asking_answer();
        let bytes = Bytes::from(appended(&answer.encode(), more));
        prop_assert_eq!(Answer::decode(&bytes).unwrap(), answer);
        let ready = common::rejecting_heartbeat();
        let beat = Heartbeat { says: common::saying_heartbeat().says, ..ready };
        let bytes = appended(&written(|to| beat.write(to)), more);
        prop_assert_eq!(Heartbeat::read(&mut Reader::new(&bytes)).unwrap(), beat);
        let end = common::end_report();
        let bytes = appended(&written(|to| end.write(to)), more);
        prop_assert_eq!(EndReport::read(&mut Reader::new(&bytes)).unwrap(), end);
        let run = common::run();
        let bytes = appended(&written(|to| run.header.write(to)), more);
        prop_assert_eq!(RunHeader::read(&mut Reader::new(&bytes)).unwrap(), run.header);
        for (_, service) in common::services() {
            let bytes = appended(&written(|to| service.write(to)), more);
            prop_assert_eq!(Service::read(service.class(), &bytes).unwrap(), service);
        }
        let message = common::full_header();
        let (bytes, _) = message.encode();
        let blocks = Blocks::take(&mut Reader::new(&bytes)).unwrap();
        prop_assert_eq!(Header::read(&appended(blocks.header, more)).unwrap(), message.header);
        let block = appended(blocks.infrastructure, more);
        prop_assert_eq!(Infrastructure::read(&block).unwrap(), message.infrastructure);
    }

    // DAT-11: NULs, text, XML and nothing arrive byte for byte, with the type they came with.
    #[test]
    fn payload_is_opaque(payload in payload(), n in 0_usize..3) {
        let mut service = [common::alarm(), common::event(), common::data()][n].clone();
        match &mut service {
            Service::Alarm(a) => a.payload = payload.clone(),
            Service::Event(e) => e.payload = payload.clone(),
            Service::Data(d) => d.payload = payload.clone(),
            _ => unreachable!("one of the three above"),
        }
        let (bytes, _) = common::message(service, 1).encode();
        let message = Message::decode(&bytes).unwrap();
        prop_assert_eq!(message.service.payload(), Some(&payload));
    }

    #[test]
    fn run_without_some_messages_holds_the_others(gone in any::<u8>(), again in any::<u8>()) {
        let whole = Run { messages: common::wire(100..108), ..common::run() };
        let whole = Run { header: RunHeader { count: 8, ..whole.header }, ..whole };
        let bit = |bits: u8, p: u32| bits & (1 << p) != 0;
        let left = match whole.without(|p| bit(gone, p)).unwrap() {
            Some(first) => first.without(|p| bit(again, p)).unwrap(),
            None => None,
        };
        let kept: Vec<u64> =
            (0..8).filter(|p| !bit(gone | again, *p)).map(|p| 100 + u64::from(p)).collect();
        let Some(left) = left else {
            prop_assert!(kept.is_empty());
            return Ok(());
        };
        prop_assert_eq!(left.header.numbers().collect::<Vec<_>>(), kept.clone());
        prop_assert_eq!(left.header.present() as usize, kept.len());
        let there: Vec<u64> = Messages::of(&left.messages)
            .map(|m| Header::read(m.unwrap().1.header).unwrap().id.sequence)
            .collect();
        prop_assert_eq!(there, kept);
    }

    #[test]
    fn joined_end_reports_say_of_each_message_what_the_single_ones_said(
        ends in vec((0_u32..3, any::<bool>()), 1..40),
    ) {
        let mut first = 1;
        let mut single = Vec::new();
        for (gap, expired) in ends {
            first += u64::from(gap);
            let end = if expired { End::Expired } else { End::Evicted };
            single.push(EndReport { first, count: 1, end, ..common::end_report() });
            first += 1;
        }
        let joined = join(single.clone());
        let each: Vec<_> = joined
            .iter()
            .flat_map(|r| (0..u64::from(r.count)).map(|n| (r.first + n, r.end)))
            .collect();
        prop_assert_eq!(each, single.iter().map(|r| (r.first, r.end)).collect::<Vec<_>>());
        let follow = |a: &EndReport, b: &EndReport| {
            a.end == b.end && a.first + u64::from(a.count) == b.first
        };
        prop_assert!(joined.windows(2).all(|w| !follow(&w[0], &w[1])));
    }
}

#[test]
fn numbers_are_filled_into_the_bytes_of_a_message() {
    let message = common::message(common::alarm(), 0);
    let (mut bytes, blanks) = message.encode();
    fill_in(&mut bytes, blanks, 1042, u64::MAX);
    let filled = Message::decode(&bytes).unwrap();
    assert_eq!((filled.header.id.sequence, filled.header.order), (1042, u64::MAX));
    assert_eq!(filled.service, message.service);
}
