//! A proxy when something goes wrong: lost connections, restarts, panics, stalls, full and failing
//! stores, refusals.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]
mod site;

use std::time::Duration;

use extension::integrators::Ended;
use protocol::{
    Message, Refusal,
    registration::Registration,
    service::{Service, Severity},
    socket::{AlarmCall, Call, CallAnswer, Outcome},
};
use roles::delivery::eviction::Limits;
use site::{
    Client, SECOND, Setup, Site, alarm, clock, clock_jumps, settle, stalling, texts, virtual_time,
};

fn outcome(answer: &Result<CallAnswer, protocol::socket::CallError>) -> Outcome {
    match answer {
        Ok(CallAnswer::Message { outcome, .. }) => *outcome,
        other => panic!("{other:?}"),
    }
}

fn registrations(messages: &[Message]) -> Vec<&Registration> {
    let registration = |m| match m {
        &Message { service: Service::Registration(ref r), .. } => Some(r),
        _ => None,
    };
    messages.iter().filter_map(registration).collect()
}

#[test]
fn a_repeat_is_answered_duplicate_over_a_lost_connection_and_a_restart_of_the_proxy() {
    virtual_time(async {
        let setup = Setup::default();
        let site = Site::registered(&setup, 3).await;
        let client = Client::quick();
        let first = site.connect("snmp", Some(9), &client).await.unwrap();
        site.answer_registrations(3).await;
        first.instance("a").await;
        assert_eq!(outcome(&first.call(alarm("a", "one", Some(1))).await), Outcome::Stored);
        // The client comes again before the proxy knows that the old connection is lost.
        let second = site.connect("snmp", Some(9), &Client::quick()).await.unwrap();
        assert_eq!(outcome(&second.call(alarm("a", "one", Some(1))).await), Outcome::Duplicate);
        assert_eq!(outcome(&second.call(alarm("a", "two", Some(2))).await), Outcome::Stored);
        assert_eq!(texts(&site.sent().await), ["one", "two"]);
        site.stop().await;

        let site = Site::start(&setup).await;
        let third = site.connect("snmp", Some(9), &Client::quick()).await.unwrap();
        assert_eq!(outcome(&third.call(alarm("a", "two", Some(2))).await), Outcome::Duplicate);
        let other = site.connect("other", Some(8), &Client::quick()).await.unwrap();
        let early = other.call(alarm("a", "two", Some(2))).await.unwrap_err();
        assert_eq!(early.name, Refusal::NotRegistered, "another stream has its own numbers");
        third.end(Ended::Bye { forget: true }).await;
        let fourth = site.connect("snmp", Some(9), &Client::quick()).await.unwrap();
        assert_eq!(outcome(&fourth.call(alarm("a", "two", Some(2))).await), Outcome::Stored);
        site.stop().await;
    });
}

// A stream that was in use a moment ago is not one that nobody used for 30 days, whatever the clock
// says when the proxy starts again.
#[test]
fn a_repeat_is_answered_duplicate_though_the_clock_jumped_while_the_proxy_was_down() {
    virtual_time(async {
        let setup = Setup::default();
        let site = Site::registered(&setup, 3).await;
        let first = site.connect("snmp", Some(9), &Client::quick()).await.unwrap();
        site.answer_registrations(3).await;
        first.instance("a").await;
        assert_eq!(outcome(&first.call(alarm("a", "one", Some(1))).await), Outcome::Stored);
        site.stop().await;

        clock_jumps(3650 * 24 * 3600 * SECOND);
        let site = Site::start(&setup).await;
        settle().await;
        let again = site.connect("snmp", Some(9), &Client::quick()).await.unwrap();
        assert_eq!(outcome(&again.call(alarm("a", "one", Some(1))).await), Outcome::Duplicate);
        site.stop().await;
    });
}

#[test]
fn a_call_that_found_no_room_is_no_duplicate_when_it_comes_again() {
    virtual_time(async {
        let setup =
            Setup { limits: Limits { total: 20_000, each: [u64::MAX; 3] }, ..Setup::default() };
        let site = Site::registered(&setup, 3).await;
        let snmp = site.connect("snmp", Some(1), &Client::quick()).await.unwrap();
        site.answer_registrations(3).await;
        snmp.instance("a").await;
        let assured = |text: &str, seq| {
            let mut call = AlarmCall::new("a", clock(), "t", Severity::Major, text);
            call.qos.persistence = protocol::message::Persistence::Assured;
            call.data = vec![7; 6_000].into();
            Call::Alarm(AlarmCall { seq: Some(seq), ..call })
        };
        let calls = (1..=5).map(|n| assured(&n.to_string(), n)).collect();
        let answers = snmp.session.calls(calls).await;
        let refused: Vec<u64> = (1..=5).filter(|n| answers[*n as usize - 1].is_err()).collect();
        assert_eq!(refused, [4, 5]);
        let error = answers[4].as_ref().unwrap_err();
        assert_eq!((error.name, error.code), (Refusal::QueueFull, -2));
        snmp.end(Ended::Lost).await;
        assert_eq!(texts(&site.sent().await).len(), 3);
        let again = site.connect("snmp", Some(1), &Client::quick()).await.unwrap();
        let calls = (1..=5).map(|n| assured(&n.to_string(), n)).collect();
        let outcomes: Vec<_> = again.session.calls(calls).await.iter().map(outcome).collect();
        use Outcome::{Duplicate, Stored};
        assert_eq!(outcomes, [Duplicate, Duplicate, Duplicate, Stored, Stored]);
        site.stop().await;
    });
}

#[test]
fn a_fault_of_one_integrators_actor_ends_its_connection_alone_and_loses_nothing() {
    virtual_time(async {
        let site = Site::registered(&Setup::default(), 3).await;
        let mut neighbours = Vec::new();
        let (bad, client) = ("bad", Client::quick());
        let faulty = site.connect(bad, Some(1), &client).await.unwrap();
        for n in 0..4 {
            let name = format!("good-{n}");
            neighbours.push(site.connect(&name, Some(10 + n), &Client::quick()).await.unwrap());
        }
        site.answer_registrations(3).await;
        let handlers = |site: &Site| {
            let role = site.handle.tree().children.into_iter().find(|c| c.name == "role").unwrap();
            role.children.into_iter().find(|c| c.name == "integrators").unwrap().children.len()
        };
        assert_eq!(handlers(&site), 5);
        faulty.instance("panic").await;
        faulty.instance("a").await;
        let stored = faulty.call(alarm("a", "one", Some(1))).await;
        assert_eq!(outcome(&stored), Outcome::Stored);
        // In hand when it panics: answered to nobody, the connection ends.
        let calls = vec![alarm("a", "two", Some(2)), alarm("panic", "three", Some(3))];
        assert!(faulty.session.calls(calls).await.iter().all(Result::is_err));
        for neighbour in &neighbours {
            neighbour.instance("a").await;
            let stored = neighbour.call(alarm("a", "good", Some(1))).await;
            assert_eq!(outcome(&stored), Outcome::Stored);
        }
        settle().await;
        assert_eq!(handlers(&site), 4);
        let again = site.connect(bad, Some(1), &Client::quick()).await.unwrap();
        assert_eq!(outcome(&again.call(alarm("a", "one", Some(1))).await), Outcome::Duplicate);
        assert_eq!(outcome(&again.call(alarm("a", "two", Some(2))).await), Outcome::Stored);
        let sent = texts(&site.sent().await);
        assert_eq!(sent, ["one", "good", "good", "good", "good", "two"]);
        site.stop().await;
    });
}

#[test]
fn a_store_that_fails_is_told_and_what_was_refused_is_taken_later() {
    virtual_time(async {
        let setup = Setup::default();
        let site = Site::registered(&setup, 3).await;
        let snmp = site.connect("snmp", Some(1), &Client::quick()).await.unwrap();
        site.answer_registrations(3).await;
        setup.store.fail_next_commit();
        let call = protocol::socket::InstanceCall { instance: "a".into(), capabilities: None };
        let failed = snmp.call(Call::Instance(call)).await.unwrap_err();
        assert_eq!(failed.name, Refusal::StorageDown);
        let id = snmp.instance("a").await;
        assert_eq!(id.number(3), Some(1));
        setup.store.fail_next_commit();
        let failed = snmp.call(alarm("a", "one", Some(1))).await.unwrap_err();
        assert_eq!((failed.name, failed.code), (Refusal::StorageDown, -2));
        assert_eq!(outcome(&snmp.call(alarm("a", "one", Some(1))).await), Outcome::Stored);
        let sent = site.sent().await;
        assert_eq!((registrations(&sent).len(), texts(&sent)), (1, vec!["one".to_owned()]));
        site.stop().await;
    });
}

#[test]
fn a_refused_registration_is_explained_and_tried_again() {
    virtual_time(async {
        let site = Site::start(&Setup::default()).await;
        settle().await;
        let sent = site.sent().await;
        site.refuse(&sent[0], "not_registered").await;
        settle().await;
        let status = site.proxy.registration.borrow().clone();
        assert_eq!(status.id, None);
        assert!(status.detail.contains("does not know this customer"), "{}", status.detail);
        assert!(site.sent().await.is_empty());
        tokio::time::sleep(6 * SECOND).await;
        site.answer_registrations(3).await;
        let status = site.proxy.registration.borrow().clone();
        assert_eq!((status.id, status.detail.as_str()), (Some(site.id()), ""));
        site.stop().await;
    });
}

#[test]
fn a_stall_of_one_integrators_actor_does_not_slow_another() {
    virtual_time(async {
        let setup = Setup { wrap: stalling, ..Setup::default() };
        let site = Site::registered(&setup, 3).await;
        let slow = site.connect("slow", None, &Client::quick()).await.unwrap();
        let well = site.connect("well", None, &Client::quick()).await.unwrap();
        site.answer_registrations(3).await;
        slow.instance("a").await;
        well.instance("a").await;
        let stalled = slow.session.clone();
        let stalled =
            tokio::spawn(async move { stalled.calls(vec![alarm("a", "stall", None)]).await });
        settle().await;
        for _ in 0..10 {
            let before = tokio::time::Instant::now();
            assert_eq!(outcome(&well.call(alarm("a", "text", None)).await), Outcome::Stored);
            assert!(before.elapsed() <= Duration::from_millis(5));
        }
        assert!(!stalled.is_finished());
        assert_eq!(outcome(&stalled.await.unwrap()[0]), Outcome::Stored);
        site.stop().await;
    });
}
