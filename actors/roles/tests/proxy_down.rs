//! What comes down to a proxy, and what it says of itself: forwarding and heartbeats.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]
mod site;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use extension::integrators::Ended;
use protocol::{
    Message, RemoteId,
    heartbeat::Condition,
    service::{ActionAnswer, Capabilities, Payload, Service},
    socket::Callback,
};
use roles::delivery::orders::AskFigures;
use site::{Client, Connected, SECOND, Setup, Site, alarm, settle, texts, virtual_time};

/// A registered proxy with connected and registered integrators.
async fn site_with(setup: &Setup, clients: &[(&str, &Arc<Client>)]) -> (Site, Vec<Connected>) {
    let site = Site::registered(setup, 3).await;
    let mut connected = Vec::new();
    for (name, client) in clients {
        connected.push(site.connect(name, None, client).await.unwrap());
    }
    site.answer_registrations(3).await;
    settle().await;
    (site, connected)
}

fn answers(messages: &[Message]) -> Vec<(&ActionAnswer, Option<protocol::MessageId>)> {
    let answer = |m| match m {
        &Message { service: Service::ActionAnswer(ref a), ref header, .. } => {
            Some((a, header.answers))
        }
        _ => None,
    };
    messages.iter().filter_map(answer).collect()
}

fn notices(messages: &[Message]) -> Vec<(&str, Option<protocol::MessageId>)> {
    let notice = |m| match m {
        &Message { service: Service::Notice(ref n), ref header, .. } => {
            Some((n.reason.as_str(), header.answers))
        }
        _ => None,
    };
    messages.iter().filter_map(notice).collect()
}

fn integrator(site: &Site, number: u32) -> RemoteId {
    site.id().child(number).unwrap()
}

// PRX-34, IPC-7
#[test]
fn ten_integrators_each_get_what_is_theirs() {
    virtual_time(async {
        let clients: Vec<Arc<Client>> = (0..10).map(|_| Client::quick()).collect();
        let names: Vec<String> = (0..10).map(|n| format!("kind-{n}")).collect();
        let named: Vec<(&str, &Arc<Client>)> =
            names.iter().map(String::as_str).zip(&clients).collect();
        let (site, connected) = site_with(&Setup::default(), &named).await;
        let mut sent = Vec::new();
        for (n, connected) in connected.iter().enumerate() {
            let instance = connected.instance(&format!("device-{n}")).await;
            sent.push(site.act(instance, "restart", 60).await);
        }
        settle().await;
        for (n, client) in clients.iter().enumerate() {
            let actions = client.actions.lock().unwrap();
            assert_eq!(*actions, [(format!("action-{}", n + 1), format!("device-{n}"))]);
        }
        let up = site.sent().await;
        assert_eq!(answers(&up).len(), 10);
        for (message, (answer, quoted)) in sent.iter().zip(answers(&up)) {
            assert_eq!((quoted, answer.status), (Some(message.header.id), Some(0)));
        }
        assert_eq!(site.queue.ask(AskFigures).await.unwrap().account.queued, 0);
        site.stop().await;
    });
}

async fn most_at_once(at_once: usize) -> (usize, usize) {
    let setup = Setup { at_once, ..Setup::default() };
    let slow = Client::new(&[Callback::Action], 60 * SECOND);
    let (site, connected) = site_with(&setup, &[("slow", &slow)]).await;
    for n in 0..6 {
        let instance = connected[0].instance(&format!("device-{n}")).await;
        site.act(instance, "restart", 3600).await;
    }
    settle().await;
    let running = slow.running.load(Ordering::SeqCst);
    tokio::time::sleep(300 * SECOND).await;
    assert_eq!(slow.acted(), 6);
    site.stop().await;
    (running, slow.most.load(Ordering::SeqCst))
}

// ACT-4
#[test]
fn of_six_slow_callbacks_five_run_and_one_waits_and_the_setting_changes_it() {
    virtual_time(async {
        assert_eq!(most_at_once(5).await, (5, 5));
        assert_eq!(most_at_once(2).await, (2, 2));
    });
}

// ACT-3
#[test]
fn a_slow_callback_does_not_delay_another_integrators() {
    virtual_time(async {
        let (slow, quick) = (Client::new(&[Callback::Action], 300 * SECOND), Client::quick());
        let (site, _connected) =
            site_with(&Setup::default(), &[("slow", &slow), ("quick", &quick)]).await;
        site.act(integrator(&site, 1), "restart", 3600).await;
        settle().await;
        site.act(integrator(&site, 2), "restart", 3600).await;
        settle().await;
        assert_eq!((slow.running.load(Ordering::SeqCst), quick.acted()), (1, 1));
        assert_eq!(answers(&site.sent().await).len(), 1);
        site.stop().await;
    });
}

#[test]
fn what_is_for_one_instance_is_done_in_order() {
    virtual_time(async {
        let client = Client::new(Callback::ALL, SECOND);
        let (site, connected) = site_with(&Setup::default(), &[("kind", &client)]).await;
        let instance = connected[0].instance("device").await;
        for _ in 0..4 {
            site.act(instance, "restart", 3600).await;
        }
        tokio::time::sleep(30 * SECOND).await;
        assert_eq!(client.most.load(Ordering::SeqCst), 1);
        let done: Vec<String> =
            client.actions.lock().unwrap().iter().map(|(id, _)| id.clone()).collect();
        assert_eq!(done, ["action-1", "action-2", "action-3", "action-4"]);
        site.stop().await;
    });
}

#[test]
fn an_action_that_a_crash_met_is_answered_outcome_unknown_and_never_repeated() {
    virtual_time(async {
        let setup = Setup::default();
        let slow = Client::new(&[Callback::Action], 300 * SECOND);
        let (site, _connected) = site_with(&setup, &[("kind", &slow)]).await;
        let action = site.act(integrator(&site, 1), "restart", 3600).await;
        settle().await;
        assert_eq!(slow.acted(), 1);
        site.stop().await;

        let site = Site::start(&setup).await;
        let client = Client::quick();
        let connected = site.connect("kind", None, &client).await.unwrap();
        tokio::time::sleep(20 * SECOND).await;
        assert_eq!(client.acted(), 0);
        let up = site.sent().await;
        let [(answer, quoted)] = answers(&up)[..] else { panic!("{up:?}") };
        assert_eq!((answer.status, answer.reason.as_str()), (None, "outcome_unknown"));
        assert_eq!(quoted, Some(action.header.id));
        // The server sends it again, because it has not heard: it is done, and named.
        site.beats().await;
        site.down(&action).await;
        tokio::time::sleep(40 * SECOND).await;
        assert_eq!((client.acted(), site.sent().await.len()), (0, 0));
        let named = site.beats().await.into_iter().any(|b| b.done.contains(&action.header.id));
        assert!(named);
        drop(connected);
        site.stop().await;
    });
}

// RTE-5
#[test]
fn what_is_for_who_is_away_is_delivered_once_when_it_comes() {
    virtual_time(async {
        let setup = Setup::default();
        let first = Client::quick();
        let (site, connected) = site_with(&setup, &[("kind", &first)]).await;
        for connected in connected {
            connected.end(Ended::Lost).await;
        }
        site.act(integrator(&site, 1), "restart", 3600).await;
        tokio::time::sleep(60 * SECOND).await;
        assert!(site.sent().await.is_empty());
        site.stop().await;

        let site = Site::start(&setup).await;
        let client = Client::quick();
        let connected = site.connect("kind", None, &client).await.unwrap();
        settle().await;
        assert_eq!((first.acted(), client.acted()), (0, 1));
        connected.end(Ended::Lost).await;
        let again = Client::quick();
        site.connect("kind", None, &again).await.unwrap();
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!((again.acted(), answers(&site.sent().await).len()), (0, 1));
        site.stop().await;
    });
}

// RTE-6
#[test]
fn after_its_time_the_server_is_told_and_the_integrator_gets_nothing() {
    virtual_time(async {
        let setup = Setup { keep: 10 * SECOND, ..Setup::default() };
        let (site, connected) = site_with(&setup, &[("kind", &Client::quick())]).await;
        for connected in connected {
            connected.end(Ended::Lost).await;
        }
        let action = site.act(integrator(&site, 1), "restart", 3600).await;
        tokio::time::sleep(9 * SECOND).await;
        assert!(site.sent().await.is_empty());
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(notices(&site.sent().await), [("expired", Some(action.header.id))]);
        let client = Client::quick();
        site.connect("kind", None, &client).await.unwrap();
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!(client.acted(), 0);
        let account = site.queue.ask(AskFigures).await.unwrap().account;
        assert_eq!((account.expired, account.balanced()), (1, true));
        site.stop().await;
    });
}

// RTE-4
#[test]
fn what_nobody_here_has_is_told_to_the_server() {
    virtual_time(async {
        let client = Client::new(&[Callback::Status], Duration::ZERO);
        let (site, _connected) = site_with(&Setup::default(), &[("kind", &client)]).await;
        let nobody = site.act(integrator(&site, 9), "restart", 60).await;
        tokio::time::sleep(20 * SECOND).await;
        assert_eq!(notices(&site.sent().await), [("unknown_destination", Some(nobody.header.id))]);
        let unknown = site.act(integrator(&site, 1).child(9).unwrap(), "restart", 60).await;
        settle().await;
        assert_eq!(notices(&site.sent().await), [("unknown_destination", Some(unknown.header.id))]);
        for (action, reason) in [("restart", "not_supported"), ("erase", "denied")] {
            site.act(integrator(&site, 1), action, 60).await;
            settle().await;
            let sent = site.sent().await;
            assert_eq!(answers(&sent)[0].0.reason, reason);
        }
        let own = site.act(site.id(), "restart", 60).await;
        settle().await;
        let sent = site.sent().await;
        assert_eq!(
            (answers(&sent)[0].0.reason.as_str(), answers(&sent)[0].1),
            ("not_supported", Some(own.header.id))
        );
        site.stop().await;
    });
}

#[test]
fn capabilities_are_asked_for_again() {
    virtual_time(async {
        let client = Client::quick();
        let (site, connected) = site_with(&Setup::default(), &[("kind", &client)]).await;
        let instance = connected[0].instance("device").await;
        site.sent().await;
        let request = Service::Capabilities(Capabilities { payload: Payload::default() });
        let request = site.down_to(instance, request, None, 60).await;
        settle().await;
        let asked = (request.header.id.to_string(), "device".to_owned());
        assert_eq!(*client.actions.lock().unwrap(), [asked]);
        assert!(site.sent().await.is_empty());
        site.stop().await;
    });
}

// ACT-6, HBT-1, HBT-6
#[test]
fn the_heartbeat_has_each_integrators_status_and_a_hung_one_does_not_hold_it_up() {
    virtual_time(async {
        let (well, hung) = (Client::quick(), Client::new(Callback::ALL, 3600 * SECOND));
        let none = Client::new(&[], Duration::ZERO);
        let clients = [("well", &well), ("hung", &hung), ("none", &none)];
        let (site, connected) = site_with(&Setup::default(), &clients).await;
        let instance = connected[0].instance("device").await;
        assert_eq!(instance.number(2), Some(1));
        connected[0].call(alarm("device", "waits", None)).await.unwrap();
        tokio::time::sleep(61 * SECOND).await;
        assert_eq!(texts(&site.sent().await), ["waits"]);
        let beats = site.beats().await;
        let last = beats.last().unwrap();
        assert_eq!((last.node, last.name.as_str()), (site.id(), "proxy"));
        assert!(last.account.balanced());
        assert_eq!(last.depths[1].messages, 1, "{:?}", last.depths);
        let status = |number| {
            let id = integrator(&site, number);
            last.integrators.iter().find(|i| i.id == id).unwrap()
        };
        assert_eq!((status(1).module, status(1).platform), (Condition::Ok, Condition::Degraded));
        assert_eq!(
            (status(2).module, status(2).text.as_str()),
            (Condition::Unknown, "no answer in time")
        );
        assert_eq!((status(3).connected, status(3).module), (true, Condition::Unknown));
        // A newer one replaces an older one in the queue, and each has a higher number.
        tokio::time::sleep(300 * SECOND).await;
        site.sent().await;
        let later = site.beats().await;
        assert_eq!(later.len(), 1);
        assert!(later[0].beat > last.beat && later[0].order > last.order);
        assert!(well.statuses.load(Ordering::SeqCst) >= 10);
        site.stop().await;
    });
}
