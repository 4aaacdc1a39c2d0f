//! The check at the door: what a message may say of itself, and how much of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use bytes::Bytes;
use protocol::{
    Message, MessageId, Precedence, Refusal, VERSION,
    codec::{Reader, Writer},
    exchange::{Answer, Exchange},
    limits,
    message::{Blocks, Channel, Messages},
    run::{Run, RunHeader},
    service::{Service, Severity, State},
};

mod common;

fn checked(message: &Message, run: &RunHeader, number: u64) -> Result<Message, Refusal> {
    let (bytes, _) = message.encode();
    let blocks = Blocks::take(&mut Reader::new(&bytes)).unwrap();
    blocks.check(run, number, common::AT).map(|parts| parts.message())
}

fn refused(change: impl FnOnce(&mut Message)) -> Result<(), Refusal> {
    let mut message = common::message(common::alarm(), 100);
    change(&mut message);
    checked(&message, &common::run().header, 100).map(|_| ())
}

#[test]
fn message_that_fits_its_run_is_taken_as_it_is() {
    let message = common::message(common::alarm(), 100);
    assert_eq!(checked(&message, &common::run().header, 100), Ok(message));
}

#[test]
fn message_of_another_number_origin_epoch_or_precedence_than_its_run_says_is_malformed() {
    let malformed = Err(Refusal::Malformed);
    assert_eq!(refused(|m| m.header.id.sequence = 101), malformed);
    assert_eq!(refused(|m| m.header.id.epoch += 1), malformed);
    assert_eq!(refused(|m| m.header.id.precedence = Precedence::Urgent), malformed);
    assert_eq!(refused(|m| m.header.id.origin = common::id("/4")), malformed);
    let numberless = RunHeader { first: 0, ..common::run().header };
    assert_eq!(
        checked(&common::message(common::alarm(), 0), &numberless, 0),
        Err(Refusal::Malformed)
    );
}

#[test]
fn message_about_somebody_elses_instance_is_refused_by_identity() {
    let other = Err(Refusal::IdentityMismatch);
    assert_eq!(refused(|m| m.header.source = common::id("/4/1")), other);
    assert_eq!(refused(|m| m.infrastructure.instance = Some(common::id("/4/1/1"))), other);
    assert_eq!(refused(|m| m.infrastructure.customer = common::id("/3")), other);
    // What comes down speaks of instances that are not under the server that wrote it.
    let back = |m: &mut Message| {
        m.header.channel = Channel::Back;
        m.infrastructure.instance = Some(common::id("/4/1/1"));
    };
    assert_eq!(refused(back), Ok(()));
}

#[test]
fn clock_wrong_by_more_than_ten_years_is_malformed() {
    for at in [i64::MIN, 0, common::AT + limits::CLOCK_TOLERANCE_MS + 1, i64::MAX] {
        assert_eq!(refused(|m| m.header.occurred_at = at), Err(Refusal::Malformed), "{at}");
        assert_eq!(refused(|m| m.header.accepted_at = at), Err(Refusal::Malformed), "{at}");
    }
    let far = common::AT - limits::CLOCK_TOLERANCE_MS;
    assert_eq!(refused(|m| m.header.occurred_at = far), Ok(()));
}

#[test]
fn block_above_its_limit_is_too_large_whatever_stands_in_it() {
    let run = common::run().header;
    let block = |bytes: usize| vec![0_u8; bytes];
    let small = block(1);
    let too_large = [
        (block(limits::HEADER_BYTES_MAX + 1), small.clone(), small.clone()),
        (small.clone(), block(limits::INFRASTRUCTURE_BYTES_MAX + 1), small.clone()),
        (small.clone(), small.clone(), block(limits::REGISTRATION_BYTES_MAX + 1)),
    ];
    for (header, infrastructure, service) in &too_large {
        let blocks = Blocks { header, infrastructure, service };
        assert_eq!(blocks.check(&run, 100, common::AT), Err(Refusal::TooLarge));
    }
    let with_data = |bytes: usize| {
        refused(|m| match &mut m.service {
            Service::Alarm(a) => a.payload.data = vec![7; bytes].into(),
            _ => unreachable!("an alarm"),
        })
    };
    assert_eq!(with_data(limits::DATA_BYTES_MAX), Ok(()));
    assert_eq!(with_data(limits::DATA_BYTES_MAX + 1), Err(Refusal::Malformed));
}

// DAT-7: severity, state and instance are there in each alarm that gets through a door.
#[test]
fn alarm_without_severity_or_state_is_no_alarm() {
    for severity in Severity::ALL {
        for state in State::ALL {
            let taken = refused(|m| match &mut m.service {
                Service::Alarm(a) => (a.severity, a.state) = (*severity, *state),
                _ => unreachable!("an alarm"),
            });
            assert_eq!(taken, Ok(()));
        }
    }
    // [version, type, key, severity, text, state, close_after_s, encoding, data]
    let alarm = |severity: Option<u64>, state: Option<u64>| {
        let mut to = Writer::new();
        to.array(9).uint(VERSION.into()).text("t").text("k");
        to.optional(severity, |to, n| {
            to.uint(n);
        });
        to.text("text").optional(state, |to, n| {
            to.uint(n);
        });
        to.nil().text("").bin(&[]);
        Service::read("alarm", &to.into_vec())
    };
    assert!(alarm(Some(5), Some(0)).is_ok());
    for (severity, state) in
        [(None, Some(0)), (Some(5), None), (Some(8), Some(0)), (Some(5), Some(4))]
    {
        assert!(alarm(severity, state).is_err(), "{severity:?} {state:?}");
    }
    let message = common::message(common::alarm(), 100);
    let taken = checked(&message, &common::run().header, 100).unwrap();
    assert!(taken.infrastructure.instance.is_some());
}

#[test]
fn more_messages_than_a_run_has_numbers_are_no_overflow() {
    let header = RunHeader { first: u64::MAX - 1, count: 1, ..common::run().header };
    let run = Run { header, messages: common::wire(1..4) };
    let mut to = Writer::new();
    run.write(&mut to);
    let bytes = to.into_bytes();
    let run = Run::read(&mut Reader::new(&bytes), &bytes).unwrap();
    assert_eq!(run.header.numbers().collect::<Vec<_>>(), [u64::MAX - 1]);
    assert_eq!(Messages::of(&run.messages).count(), 3);
}

#[test]
fn exchange_with_runs_and_no_number_or_a_number_and_no_runs_is_malformed() {
    let numberless = Exchange { number: 0, ..common::exchange() };
    assert_eq!(Exchange::decode(&numberless.encode()), Err(Refusal::Malformed));
    let empty = Exchange { number: 1, ..common::empty_exchange() };
    assert_eq!(Exchange::decode(&empty.encode()), Err(Refusal::Malformed));
    let mixed = Exchange { precedence: Precedence::Urgent, ..common::exchange() };
    assert_eq!(Exchange::decode(&mixed.encode()), Err(Refusal::Malformed));
}

#[test]
fn exchange_of_another_version_is_told_apart_from_a_damaged_one() {
    let mut bytes = common::exchange().encode().to_vec();
    bytes[1] = VERSION + 1;
    assert_eq!(Exchange::decode(&bytes.clone().into()), Err(Refusal::UnknownVersion));
    bytes.clear();
    assert_eq!(Exchange::decode(&bytes.into()), Err(Refusal::Malformed));
    let large = Bytes::from(vec![0_u8; limits::EXCHANGE_BYTES_MAX + 1]);
    assert_eq!(Exchange::decode(&large), Err(Refusal::TooLarge));
}

#[test]
fn bytes_that_follow_are_malformed() {
    let follow = |bytes: &[u8]| Bytes::from([bytes, &[0xc0]].concat());
    let exchange = follow(&common::exchange().encode());
    assert_eq!(Exchange::decode(&exchange), Err(Refusal::Malformed));
    assert!(Answer::decode(&follow(&common::answer().encode())).is_err());
    let message = common::message(common::alarm(), 1);
    assert!(Message::decode(&follow(&message.encode().0)).is_err());
    let mut block = Writer::new();
    message.service.write(&mut block);
    assert!(Service::read("alarm", &follow(&block.into_vec())).is_err());
}

// Found by the fuzz target `exchange`: the sum of such times overflowed.
#[test]
fn hop_with_an_impossible_time_is_malformed() {
    let read = |received, sent| {
        let mut exchange = common::exchange();
        let hop = exchange.runs[0].header.path.last_mut().unwrap();
        (hop.received, hop.sent) = (received, sent);
        Exchange::decode(&exchange.encode()).map(|_| ())
    };
    assert_eq!(read(0, limits::TIME_MS_MAX), Ok(()));
    for wrong in [i64::MIN, -1, limits::TIME_MS_MAX + 1, i64::MAX] {
        assert_eq!(read(0, wrong), Err(Refusal::Malformed), "{wrong}");
        assert_eq!(read(wrong, 0), Err(Refusal::Malformed), "{wrong}");
    }
}

// DAT-13: the text form names origin, epoch, precedence and number, and nothing else is one.
#[test]
fn message_id_has_one_text_form() {
    let id = MessageId { epoch: 7, sequence: 1042, ..common::message_id(1) };
    let text = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3:7:n:1042";
    assert_eq!(id.to_string(), text);
    assert_eq!(text.replace('/', ".").parse(), Ok(id));
    for wrong in ["", ":::", "x:7:n:1", "/3:7:n:1042", "/3:7:n"] {
        assert!(wrong.parse::<MessageId>().is_err(), "{wrong}");
    }
    for (right, wrong) in
        [(":7:", ":+7:"), (":1042", ":+1042"), (":n:", ":N:"), (":1042", ":1042:")]
    {
        assert!(text.replace(right, wrong).parse::<MessageId>().is_err(), "{wrong}");
    }
}
