//! A proxy as its integrators see it: numbers, registration, calls, replay, faults.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]
mod site;

use std::{collections::HashSet, time::Duration};

use extension::integrators::Ended;
use protocol::{
    Message, Refusal,
    registration::Registration,
    service::{Service, Severity},
    socket::{AlarmCall, Call, CallAnswer, Hello, InstancesCall, Outcome, Registered, RemoveCall},
};
use roles::delivery::orders::AskFigures;
use site::{Client, SECOND, Setup, Site, alarm, clock, settle, texts, virtual_time};
use uuid::Uuid;

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

// PRX-12, PRX-13
#[test]
fn before_the_node_is_registered_data_is_dropped_with_success_and_counted() {
    virtual_time(async {
        let site = Site::start(&Setup::default()).await;
        let connected = site.connect("snmp", None, &Client::quick()).await.unwrap();
        assert_eq!(connected.answer.registration, Registered::Registering);
        assert_eq!(connected.answer.node_id, None);
        settle().await;
        let dropped = connected.call(alarm("nobody", "early", None)).await;
        assert_eq!(outcome(&dropped), Outcome::Dropped);
        connected.instance("device-1").await;
        let sent = site.sent().await;
        assert!(matches!(registrations(&sent)[..], [Registration::Node { .. }]), "{sent:?}");
        assert!(texts(&sent).is_empty());
        assert_eq!(site.queue.ask(AskFigures).await.unwrap().account.dropped, 1);
        site.stop().await;
    });
}

// PRX-21, PRX-22, PRX-16
#[test]
fn until_its_integrator_is_acknowledged_data_is_refused_and_instances_wait() {
    virtual_time(async {
        let site = Site::registered(&Setup::default(), 3).await;
        let client = Client::quick();
        let connected = site.connect("snmp", None, &client).await.unwrap();
        assert_eq!(connected.answer.registration, Registered::ProxyRegistered);
        let id = connected.instance("device-1").await;
        assert_eq!(id.to_string(), format!("{}/1/1", site.id()));
        let refused = connected.call(alarm("device-1", "early", None)).await.unwrap_err();
        assert_eq!((refused.name, refused.code), (Refusal::NotRegistered, -2));
        let before = site.answer_registrations(3).await;
        let before = registrations(&before);
        let Registration::Integrator { id, name, version, .. } = before[0] else { panic!() };
        assert_eq!(
            (id, name.as_str(), version.as_str()),
            (&site.id().child(1).unwrap(), "snmp", "1")
        );
        let [_, Registration::Instances(instances)] = before[..] else { panic!("{before:?}") };
        assert_eq!(instances[0].external_id, "device-1");
        assert_eq!(*client.states.lock().unwrap(), [Registered::Registered]);
        let stored = connected.call(alarm("device-1", "now", None)).await;
        assert_eq!(outcome(&stored), Outcome::Stored);
        assert_eq!(texts(&site.sent().await), ["now"]);
        site.stop().await;
    });
}

// PRX-11
#[test]
fn an_unanswered_registration_goes_again_after_exactly_so_many_heartbeats() {
    virtual_time(async {
        let setup = Setup { again_after_beats: 3, ..Setup::default() };
        let site = Site::start(&setup).await;
        settle().await;
        assert_eq!(registrations(&site.sent().await).len(), 1);
        let first = site.proxy.registration.clone();
        // The first heartbeat went with the start.
        tokio::time::sleep(29 * SECOND).await;
        assert_eq!(registrations(&site.sent().await).len(), 0);
        tokio::time::sleep(30 * SECOND).await;
        assert_eq!(registrations(&site.sent().await).len(), 1);
        assert_eq!(first.borrow().id, None);
        site.stop().await;
    });
}

#[test]
fn a_registration_that_never_left_is_not_doubled() {
    virtual_time(async {
        let site = Site::start(&Setup { again_after_beats: 1, ..Setup::default() }).await;
        tokio::time::sleep(3600 * SECOND).await;
        assert_eq!(registrations(&site.sent().await).len(), 1);
        site.stop().await;
    });
}

// IDM-4, IDM-7, PRX-8, PRX-17, PRX-25, PRX-28
#[test]
fn known_integrators_and_instances_keep_their_ids_over_restarts_without_a_message() {
    virtual_time(async {
        let setup = Setup::default();
        let site = Site::registered(&setup, 3).await;
        let snmp = site.connect("snmp", None, &Client::quick()).await.unwrap();
        let syslog = site.connect("syslog", None, &Client::quick()).await.unwrap();
        site.answer_registrations(3).await;
        // From here on nobody answers.
        let mut ids = Vec::new();
        for n in 0..50 {
            ids.push(snmp.instance(&format!("device-{n}")).await);
        }
        ids.push(syslog.instance("device-1").await);
        assert!(ids.iter().all(|id| id.is_under(&site.id())));
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 51);
        assert_eq!(registrations(&site.sent().await).len(), 51);
        site.stop().await;

        let site = Site::start(&setup).await;
        let snmp = site.connect("snmp", None, &Client::quick()).await.unwrap();
        assert_eq!(snmp.answer.registration, Registered::Registered, "at once");
        assert_eq!(snmp.answer.integrator_id, site.id().child(1));
        for (n, id) in ids.iter().enumerate().take(50) {
            assert_eq!(snmp.instance(&format!("device-{n}")).await, *id);
        }
        settle().await;
        assert!(site.sent().await.is_empty());
        site.stop().await;
    });
}

// IDM-5, IDM-6
#[test]
fn hosts_of_the_same_name_at_two_customers_never_collide() {
    virtual_time(async {
        let mut ids = HashSet::new();
        for customer in [Uuid::from_u128(7), Uuid::from_u128(8)] {
            let site = Site::registered(&Setup { customer, ..Setup::default() }, 1).await;
            let snmp = site.connect("snmp", None, &Client::quick()).await.unwrap();
            site.answer_registrations(1).await;
            assert!(ids.insert(snmp.instance("192.0.2.1").await));
            site.stop().await;
        }
    });
}

// PRX-31
#[test]
fn registering_many_makes_one_message_of_those_that_are_new() {
    virtual_time(async {
        let site = Site::registered(&Setup::default(), 3).await;
        let snmp = site.connect("snmp", None, &Client::quick()).await.unwrap();
        site.answer_registrations(3).await;
        let names = |n: u32| (0..n).map(|n| format!("device-{n}")).collect();
        let register = |n| Call::Instances(InstancesCall { instances: names(n) });
        let first = snmp.call(register(400)).await.unwrap();
        assert_eq!(first, CallAnswer::Instances { new: 400, known: 0 });
        site.sent().await;
        let second = snmp.call(register(500)).await.unwrap();
        assert_eq!(second, CallAnswer::Instances { new: 100, known: 400 });
        let sent = site.sent().await;
        let [Registration::Instances(listed)] = registrations(&sent)[..] else { panic!() };
        assert_eq!(listed.len(), 100);
        site.stop().await;
    });
}

#[test]
fn a_batch_is_one_commit_and_each_call_has_its_answer() {
    virtual_time(async {
        let setup = Setup { bytes_per_message: Some(10_000), ..Setup::default() };
        let site = Site::registered(&setup, 3).await;
        let snmp = site.connect("snmp", Some(1), &Client::quick()).await.unwrap();
        site.answer_registrations(3).await;
        let commits = setup.store.commits();
        let instance = |name: &str| {
            Call::Instance(protocol::socket::InstanceCall {
                instance: name.into(),
                capabilities: None,
            })
        };
        let remove = |name: &str| Call::Remove(RemoveCall { instance: name.into() });
        let large = AlarmCall {
            data: vec![0; 20_000].into(),
            seq: Some(4),
            ..AlarmCall::new("a", clock(), "t", Severity::Major, "large")
        };
        let old = AlarmCall::new("a", 0, "t", Severity::Major, "1970");
        let calls = vec![
            instance("a"),
            alarm("a", "one", Some(1)),
            alarm("b", "two", Some(2)),
            alarm("a", "three", Some(3)),
            alarm("a", "three", Some(3)),
            Call::Alarm(large),
            Call::Alarm(old),
            alarm("IntegrationModule", "own", Some(5)),
        ];
        let answers = snmp.session.calls(calls).await;
        assert_eq!(setup.store.commits(), commits + 1);
        assert!(matches!(answers[0], Ok(CallAnswer::Instance { known: false, .. })));
        assert_eq!(outcome(&answers[1]), Outcome::Stored);
        let refused = |n: usize| answers[n].as_ref().unwrap_err();
        assert_eq!((refused(2).name, refused(2).code), (Refusal::UnknownInstance, -1));
        assert_eq!(
            (outcome(&answers[3]), outcome(&answers[4])),
            (Outcome::Stored, Outcome::Duplicate)
        );
        assert_eq!(refused(5).name, Refusal::TooLarge);
        assert_eq!(refused(6).name, Refusal::Malformed);
        assert_eq!(outcome(&answers[7]), Outcome::Stored);
        let sent = site.sent().await;
        assert_eq!(texts(&sent), ["one", "three", "own"]);
        let a = sent.iter().find(|m| m.service.headline().is_some()).unwrap();
        assert_eq!(a.infrastructure.external_id, "a");
        assert_eq!(a.infrastructure.instance, Some(a.header.source));
        // What comes after a removal in the same batch finds it done.
        let calls = vec![remove("a"), alarm("a", "gone", Some(6)), instance("a")];
        let answers = snmp.session.calls(calls).await;
        assert_eq!(answers[0], Ok(CallAnswer::Done));
        assert_eq!(answers[1].as_ref().unwrap_err().name, Refusal::UnknownInstance);
        let Ok(CallAnswer::Instance { instance_id, known }) = &answers[2] else { panic!() };
        assert_eq!((instance_id.number(3), *known), (Some(2), false), "a number is for ever");
        site.stop().await;
    });
}

#[test]
fn one_connection_of_a_name_has_callbacks() {
    virtual_time(async {
        let site = Site::registered(&Setup::default(), 3).await;
        let first = site.connect("snmp", Some(1), &Client::quick()).await.unwrap();
        let taken = site.connect("snmp", Some(2), &Client::quick()).await.err().unwrap();
        assert_eq!(taken.name, Refusal::NameInUse);
        let none = Client::new(&[], Duration::ZERO);
        let beside = site.connect("snmp", Some(2), &none).await.unwrap();
        assert_eq!(beside.answer.integrator_id, first.answer.integrator_id);
        first.end(Ended::Lost).await;
        site.connect("snmp", Some(3), &Client::quick()).await.unwrap();
        site.stop().await;
    });
}

// PRX-20
#[test]
fn a_new_version_registers_anew_and_its_data_goes_on() {
    virtual_time(async {
        let site = Site::registered(&Setup::default(), 3).await;
        let old = site.connect("snmp", None, &Client::quick()).await.unwrap();
        site.answer_registrations(3).await;
        old.instance("a").await;
        old.end(Ended::Bye { forget: false }).await;
        site.sent().await;
        let hello = Hello {
            protocols: vec![1],
            name: "snmp".into(),
            version: "2".into(),
            callbacks: vec![],
            stream: None,
        };
        let new = site.hello(hello, &Client::quick()).await.unwrap();
        assert_eq!(new.answer.registration, Registered::Registered);
        assert_eq!(outcome(&new.call(alarm("a", "now", None)).await), Outcome::Stored);
        let sent = site.sent().await;
        let [Registration::Integrator { version, .. }] = registrations(&sent)[..] else { panic!() };
        assert_eq!(version, "2");
        site.stop().await;
    });
}

// ACT-1
#[test]
fn calls_return_at_once_while_nobody_takes_what_they_send() {
    virtual_time(async {
        let site = Site::registered(&Setup::default(), 3).await;
        let snmp = site.connect("snmp", Some(1), &Client::quick()).await.unwrap();
        site.answer_registrations(3).await;
        snmp.instance("a").await;
        for n in 1..=200 {
            let before = tokio::time::Instant::now();
            let stored = snmp.call(alarm("a", "text", Some(n))).await;
            assert_eq!(outcome(&stored), Outcome::Stored);
            assert!(before.elapsed() <= Duration::from_millis(5), "{:?}", before.elapsed());
        }
        site.stop().await;
    });
}

// DAT-13
#[test]
fn no_identifier_repeats_over_several_proxies_and_restarts() {
    virtual_time(async {
        let mut ids = HashSet::new();
        let sites = [(1, Setup::default()), (2, Setup::default())];
        for round in 0..3 {
            for (component, setup) in &sites {
                let site = Site::start(setup).await;
                settle().await;
                site.answer_registrations(*component).await;
                let snmp = site.connect("snmp", None, &Client::quick()).await.unwrap();
                site.answer_registrations(*component).await;
                snmp.instance("a").await;
                for _ in 0..17 {
                    let calls = (0..1000).map(|_| alarm("a", "text", None)).collect();
                    for answer in snmp.session.calls(calls).await {
                        let Ok(CallAnswer::Message { message_id: Some(id), .. }) = answer else {
                            panic!("{answer:?} in round {round}")
                        };
                        assert!(ids.insert(id), "{id}");
                    }
                }
                site.sent().await;
                site.stop().await;
            }
        }
        assert!(ids.len() > 100_000);
    });
}

// PRX-6, PRX-14, ACT-5
#[test]
fn without_a_back_channel_data_may_follow_its_registration_at_once() {
    virtual_time(async {
        let setup = Setup { mode: protocol::heartbeat::Mode::Message, ..Setup::default() };
        let site = Site::start(&setup).await;
        settle().await;
        let snmp = site.connect("snmp", None, &Client::quick()).await.unwrap();
        assert_eq!(snmp.answer.mode, protocol::heartbeat::Mode::Message);
        assert_eq!(snmp.answer.registration, Registered::Registered);
        snmp.instance("a").await;
        assert_eq!(outcome(&snmp.call(alarm("a", "now", None)).await), Outcome::Stored);
        let sent = site.sent().await;
        assert_eq!((registrations(&sent).len(), texts(&sent)), (3, vec!["now".to_owned()]));
        let role = site.handle.tree().children.into_iter().find(|c| c.name == "role").unwrap();
        assert!(role.children.iter().all(|c| c.name != "forwarder"));
        site.stop().await;
    });
}

// IPC-5
