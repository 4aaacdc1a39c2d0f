//! A call that says what tells it from all others (`once`) is stored once, however it comes again.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]
mod site;

use std::{sync::Arc, time::Duration};

use protocol::{
    Refusal,
    limits::ONCE_KEPT_MS,
    message::Persistence,
    service::Severity,
    socket::{AlarmCall, Call, CallAnswer, CallError, EventCall, Outcome},
};
use roles::delivery::eviction::Limits;
use site::{Client, Setup, Site, alarm, clock, settle, stalling, texts, virtual_time};

use Outcome::{Duplicate, Stored};

fn outcome(answer: &Result<CallAnswer, CallError>) -> Outcome {
    match answer {
        Ok(CallAnswer::Message { outcome, .. }) => *outcome,
        other => panic!("{other:?}"),
    }
}

/// One more connection of a name; only one has its callbacks.
fn without_callbacks() -> Arc<Client> {
    Client::new(&[], Duration::ZERO)
}

fn keyed(text: &str, once: &'static [u8], seq: Option<u64>) -> Call {
    let call = AlarmCall::new("a", clock(), "t", Severity::Major, text);
    Call::Alarm(AlarmCall { once: Some(once.into()), seq, ..call })
}

/// An alarm or event of an instance, with a key and without a number.
fn of(class: &str, instance: &str, once: &'static [u8]) -> Call {
    let (text, once) = (format!("{class} of {instance}"), Some(once.into()));
    match class {
        "event" => {
            let call = EventCall::new(instance, clock(), "t", Severity::Major, &text);
            Call::Event(EventCall { once, ..call })
        }
        _ => {
            let call = AlarmCall::new(instance, clock(), "t", Severity::Major, &text);
            Call::Alarm(AlarmCall { once, ..call })
        }
    }
}

#[test]
fn a_repeat_is_found_over_streams_and_restarts_of_both_sides_for_ten_minutes() {
    virtual_time(async {
        let setup = Setup::default();
        let site = Site::registered(&setup, 3).await;
        let snmp = site.connect("snmp", Some(1), &Client::quick()).await.unwrap();
        let other = site.connect("other", Some(2), &Client::quick()).await.unwrap();
        site.answer_registrations(3).await;
        snmp.instance("a").await;
        other.instance("a").await;
        assert_eq!(outcome(&snmp.call(keyed("one", b"1", Some(1))).await), Stored);
        assert_eq!(outcome(&snmp.call(keyed("again", b"1", Some(2))).await), Duplicate);
        assert_eq!(outcome(&snmp.call(keyed("two", b"2", Some(3))).await), Stored);
        assert_eq!(outcome(&snmp.call(alarm("a", "none", Some(4))).await), Stored);
        assert_eq!(outcome(&snmp.call(alarm("a", "none", Some(5))).await), Stored);
        let theirs = other.call(keyed("theirs", b"1", Some(1))).await;
        assert_eq!(outcome(&theirs), Stored, "keys are an integrator's own");
        other.instance("b").await;
        for (class, instance) in [("event", "a"), ("alarm", "b"), ("event", "b")] {
            for expected in [Stored, Duplicate] {
                let again = other.call(of(class, instance, b"1")).await;
                assert_eq!(outcome(&again), expected, "{class} of {instance}");
            }
        }
        // The next process of the integrator, in a stream of its own or in none.
        let next = site.connect("snmp", Some(7), &without_callbacks()).await.unwrap();
        assert_eq!(outcome(&next.call(keyed("again", b"1", Some(1))).await), Duplicate);
        let plain = site.connect("snmp", None, &without_callbacks()).await.unwrap();
        assert_eq!(outcome(&plain.call(keyed("again", b"2", None)).await), Duplicate);
        let sent = texts(&site.sent().await);
        let theirs = ["theirs", "event of a", "alarm of b", "event of b"];
        assert_eq!(sent, [&["one", "two", "none", "none"][..], &theirs].concat());
        site.stop().await;

        let site = Site::start(&setup).await;
        let snmp = site.connect("snmp", None, &Client::quick()).await.unwrap();
        assert_eq!(outcome(&snmp.call(keyed("again", b"1", None)).await), Duplicate);
        tokio::time::sleep(Duration::from_millis(ONCE_KEPT_MS as u64 + 1)).await;
        assert_eq!(outcome(&snmp.call(keyed("anew", b"1", None)).await), Stored);
        assert_eq!(outcome(&snmp.call(keyed("again", b"1", None)).await), Duplicate);
        assert_eq!(texts(&site.sent().await), ["anew"]);
        site.stop().await;
    });
}

#[test]
fn repeats_in_one_batch_are_found_and_share_the_fate_of_the_first() {
    virtual_time(async {
        let limits = Limits { total: 20_000, each: [u64::MAX; 3] };
        let setup = Setup { limits, ..Setup::default() };
        let site = Site::registered(&setup, 3).await;
        let snmp = site.connect("snmp", Some(1), &Client::quick()).await.unwrap();
        site.answer_registrations(3).await;
        snmp.instance("a").await;
        let calls = |from| {
            let large = |text: &str, once, seq| {
                let Call::Alarm(mut call) = keyed(text, once, Some(seq)) else { panic!() };
                call.qos.persistence = Persistence::Assured;
                call.data = vec![7; 6_000].into();
                Call::Alarm(call)
            };
            let keys: [&[u8]; 6] = [b"1", b"1", b"2", b"3", b"4", b"4"];
            (from..).zip(keys).map(|(seq, key)| large("x", key, seq)).collect::<Vec<_>>()
        };
        let answers = snmp.session.calls(calls(1)).await;
        let first: Vec<Outcome> = answers[..4].iter().map(outcome).collect();
        assert_eq!(first, [Stored, Duplicate, Stored, Stored]);
        for refused in &answers[4..] {
            assert_eq!(refused.as_ref().unwrap_err().name, Refusal::QueueFull);
        }
        // What found no room is not known; what was a duplicate is known by its number, too.
        assert_eq!(texts(&site.sent().await).len(), 3);
        let again: Vec<_> = snmp.session.calls(calls(1)).await.iter().map(outcome).collect();
        assert_eq!(again, [Duplicate, Duplicate, Duplicate, Duplicate, Stored, Duplicate]);
        site.stop().await;
    });
}

#[test]
fn the_number_of_a_repeat_is_known_when_its_key_is_forgotten_and_after_a_restart() {
    virtual_time(async {
        let setup = Setup::default();
        let site = Site::registered(&setup, 3).await;
        let snmp = site.connect("snmp", Some(1), &Client::quick()).await.unwrap();
        site.answer_registrations(3).await;
        snmp.instance("a").await;
        assert_eq!(outcome(&snmp.call(keyed("one", b"1", Some(1))).await), Stored);
        assert_eq!(outcome(&snmp.call(keyed("again", b"1", Some(2))).await), Duplicate);
        tokio::time::sleep(Duration::from_millis(ONCE_KEPT_MS as u64 + 1)).await;
        assert_eq!(outcome(&snmp.call(keyed("again", b"1", Some(2))).await), Duplicate);
        site.stop().await;
        let site = Site::start(&setup).await;
        let snmp = site.connect("snmp", Some(1), &Client::quick()).await.unwrap();
        assert_eq!(outcome(&snmp.call(keyed("again", b"1", Some(2))).await), Duplicate);
        assert_eq!(outcome(&snmp.call(keyed("three", b"3", Some(3))).await), Stored);
        site.stop().await;
    });
}

#[test]
fn a_commit_that_failed_or_broke_off_leaves_its_keys_to_who_comes_next() {
    virtual_time(async {
        let setup = Setup::default();
        let site = Site::registered(&setup, 3).await;
        let snmp = site.connect("snmp", Some(1), &Client::quick()).await.unwrap();
        site.answer_registrations(3).await;
        snmp.instance("a").await;
        snmp.instance("panic").await;
        setup.store.fail_next_commit();
        let failed = snmp.call(keyed("one", b"1", Some(1))).await.unwrap_err();
        assert_eq!(failed.name, Refusal::StorageDown);
        assert_eq!(outcome(&snmp.call(keyed("one", b"1", Some(1))).await), Stored);
        // The actor panics with a claimed key in hand.
        let calls = vec![keyed("two", b"2", Some(2)), alarm("panic", "x", Some(3))];
        assert!(snmp.session.calls(calls).await.iter().all(Result::is_err));
        settle().await;
        let again = site.connect("snmp", Some(2), &Client::quick()).await.unwrap();
        assert_eq!(outcome(&again.call(keyed("two", b"2", Some(1))).await), Stored);
        assert_eq!(outcome(&again.call(keyed("one", b"1", Some(2))).await), Duplicate);
        assert_eq!(texts(&site.sent().await), ["one", "two"]);
        site.stop().await;
    });
}

#[test]
fn a_repeat_that_meets_the_first_on_its_way_to_disk_is_to_come_again() {
    virtual_time(async {
        let setup = Setup { wrap: stalling, ..Setup::default() };
        let site = Site::registered(&setup, 3).await;
        let dead = site.connect("snmp", None, &Client::quick()).await.unwrap();
        let next = site.connect("snmp", None, &without_callbacks()).await.unwrap();
        site.answer_registrations(3).await;
        next.instance("a").await;
        let session = dead.session.clone();
        let first =
            tokio::spawn(
                async move { session.calls(vec![keyed("stall", b"1", None)]).await.remove(0) },
            );
        settle().await;
        let busy = next.call(keyed("again", b"1", None)).await.unwrap_err();
        assert_eq!(busy.name, Refusal::Busy);
        assert!(!first.is_finished());
        assert_eq!(outcome(&first.await.unwrap()), Stored);
        assert_eq!(outcome(&next.call(keyed("again", b"1", None)).await), Duplicate);
        assert_eq!(texts(&site.sent().await), ["stall"]);
        site.stop().await;
    });
}
