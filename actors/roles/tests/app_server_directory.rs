//! Who is there: registrations and their answers, heartbeats, actions down and their answers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod top;

use std::sync::Arc;

use extension::records::{
    ActionFilter, ActionRequest, ActionState, AlarmFilter, Gap, InstanceFilter, InstanceState,
    IntegratorState, LedgerFilter, Node, NodeFilter, NodeState, Paging, Records, RecordsError,
};
use module_memory::MemoryStore;
use protocol::{
    Message, Precedence, RemoteId,
    exchange::Sender,
    heartbeat::{Account, Condition, Depth, Heartbeat, IntegratorStatus, Mode},
    message::Messages,
    registration::{InstanceRegistration, Registration, RegistrationAnswer},
    service::{ActionAnswer, Notice, Removal, Service},
};
use roles::delivery::orders::DownFor;
use top::{Top, alarm, clock, customer, instance, message, proxy, run, sender, server, until};
use uuid::Uuid;

fn node(name: &str, nonce: u64) -> Registration {
    let (name, version) = (name.to_owned(), "1.0".to_owned());
    Registration::Node { name, roles: vec!["proxy".to_owned()], version, nonce }
}

fn unregistered(epoch: u64) -> Sender {
    Sender { id: proxy(0), epoch }
}

/// A registration before there is an id.
fn registration(epoch: u64, sequence: u64, said: Registration) -> Message {
    let mut message = message(proxy(0), sequence, Service::Registration(said));
    message.header.id.epoch = epoch;
    message
}

/// What waits for a child.
async fn down(top: &Top, child: Sender) -> Vec<Message> {
    let runs = top.delivery.queue.ask(DownFor(child)).await.unwrap().unwrap().runs;
    let messages = runs.iter().flat_map(|run| Messages::of(&run.messages));
    messages.map(|m| m.unwrap().1.decode().unwrap()).collect()
}

/// Waits for as many messages on the back-channel.
async fn down_to(top: &Top, child: Sender, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    until(async || {
        messages.extend(down(top, child).await);
        messages.len() >= count
    })
    .await;
    messages
}

fn answer(message: &Message) -> &RegistrationAnswer {
    let Service::RegistrationAnswer(answer) = &message.service else { panic!("{message:?}") };
    answer
}

async fn register(top: &Top, epoch: u64, sequence: u64, said: Registration) -> RegistrationAnswer {
    let message = registration(epoch, sequence, said);
    top.arrive(unregistered(epoch), std::slice::from_ref(&message)).await;
    let answers = down_to(top, unregistered(epoch), 1).await;
    assert_eq!(answers[0].header.answers, Some(message.header.id));
    answer(&answers[0]).clone()
}

// IDM-1, IDM-3: ids are made at registration, each another, and name their customer.
#[test]
fn a_node_gets_one_id_by_its_customer_name_and_store() {
    run(async {
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        let first = register(&top, 1, 1, node("site-a", 11)).await;
        assert_eq!((first.id, &*first.refusal), (proxy(1), ""));
        assert_eq!(register(&top, 2, 1, node("site-b", 12)).await.id, proxy(2));
        // Again, also in another epoch: the same.
        assert_eq!(register(&top, 3, 1, node("site-a", 11)).await.id, proxy(1));
        // The name with another store: a new number, an alarm, and the old one is no more.
        assert_eq!(register(&top, 4, 1, node("site-a", 13)).await.id, proxy(3));
        let replaced =
            AlarmFilter { kind: vec!["node_replaced".to_owned()], ..AlarmFilter::default() };
        until(async || {
            let page = top.records.alarms(&replaced, &Paging::default()).await.unwrap();
            page.items.len() == 1
        })
        .await;
        assert_eq!(top.records.node(proxy(1)).await.unwrap().state, NodeState::Removed);
        let filter = NodeFilter { customer: Some("northwind".to_owned()), ..Default::default() };
        let nodes = top.records.nodes(&filter, &Paging::default()).await.unwrap();
        let ids: Vec<_> = nodes.items.iter().map(|n| n.node_id).collect();
        assert_eq!(ids, [proxy(3), proxy(2), proxy(1)]);
        assert!(nodes.items.iter().all(|n| n.customer_id == customer()));
        top.stop().await;
    });
}

#[test]
fn a_node_of_a_customer_nobody_knows_is_not_registered() {
    run(async {
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        let stranger = RemoteId::customer(Uuid::from_u128(0xbad)).child(0).unwrap();
        let mut said = message(stranger, 1, Service::Registration(node("x", 1)));
        said.header.id.epoch = 9;
        let child = Sender { id: stranger, epoch: 9 };
        top.arrive(child, &[said]).await;
        let answers = down_to(&top, child, 1).await;
        assert_eq!(answer(&answers[0]).refusal, "not_registered");
        let filter =
            AlarmFilter { kind: vec!["unknown_customer".to_owned()], ..AlarmFilter::default() };
        until(async || {
            let page = top.records.alarms(&filter, &Paging::default()).await.unwrap();
            page.items.iter().any(|a| a.instance_id == server())
        })
        .await;
        top.stop().await;
    });
}

// IDM-2: a customer's id is created when it registers.
#[test]
fn a_customer_is_registered_once_for_one_key_and_name() {
    run(async {
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        let made = top.records.register_customer("kestrel", Some("k1")).await.unwrap();
        let again = top.records.register_customer("kestrel", Some("k1")).await.unwrap();
        assert_eq!(made, again);
        let taken = top.records.register_customer("kestrel", Some("k2")).await;
        assert!(matches!(taken, Err(RecordsError::Conflict(_))));
        let page = top.records.customers(&Paging::default()).await.unwrap();
        assert_eq!(page.items.len(), 3);
        top.stop().await;
    });
}

fn beat(of: RemoteId, beat: u64) -> Heartbeat {
    Heartbeat {
        node: of,
        epoch: 7,
        beat,
        order: beat,
        at: clock(),
        name: "site-a".to_owned(),
        roles: vec!["proxy".to_owned()],
        version: "1.1".to_owned(),
        mode: Mode::Session,
        account: Account { taken: 10, delivered: 7, queued: 3, ..Account::default() },
        depths: [
            Depth::default(),
            Depth { messages: 3, bytes: 300, oldest_age_ms: 1500 },
            Depth::default(),
        ],
        reasons: Vec::new(),
        configuration: "abc".to_owned(),
        done: Vec::new(),
        integrators: vec![IntegratorStatus {
            id: of.child(1).unwrap(),
            connected: true,
            module: Condition::Ok,
            platform: Condition::Ok,
            text: String::new(),
        }],
        path: Vec::new(),
        says: Vec::new(),
        ready: None,
        rejected: None,
    }
}

// HBT-1: heartbeats make a node operational, and its account is known by them.
#[test]
fn what_nodes_integrators_and_instances_say_of_themselves_is_listed() {
    run(async {
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        assert_eq!(register(&top, 1, 1, node("site-a", 11)).await.id, proxy(1));
        let of = proxy(1);
        let integrator = of.child(1).unwrap();
        let said = [
            message(
                of,
                1,
                Service::Registration(Registration::Integrator {
                    id: integrator,
                    name: "snmp".to_owned(),
                    version: "2".to_owned(),
                    callbacks: Vec::new(),
                }),
            ),
            message(
                of,
                2,
                Service::Registration(Registration::Instances(vec![
                    InstanceRegistration {
                        id: instance(of, 17),
                        external_id: "192.0.2.7".to_owned(),
                        capabilities: Some("<capabilities/>".to_owned()),
                    },
                    InstanceRegistration {
                        id: instance(of, 18),
                        external_id: "192.0.2.8".to_owned(),
                        capabilities: None,
                    },
                ])),
            ),
        ];
        assert_eq!(top.records.node(of).await.unwrap().state, NodeState::Registering);
        top.arrive_with(sender(of), &said, vec![beat(of, 1)]).await;
        top.arrive(sender(of), &[alarm(of, 1, "a")]).await;
        top.arrive(
            sender(of),
            &[message(of, 3, Service::Removal(Removal { subject: instance(of, 18) }))],
        )
        .await;
        until(async || top.records.node(of).await.unwrap().state == NodeState::Operational).await;
        let node = top.records.node(of).await.unwrap();
        assert_eq!((node.queued, node.queued_bytes, &*node.version), (3, 300, "1.1"));
        assert_eq!((node.oldest_age_s, node.delivering.ok), (Some(1.5), true));
        let ledger = LedgerFilter { node: Some("site-a".to_owned()), ..Default::default() };
        let ledger = top.records.ledger(&ledger, &Paging::default(), 0).await.unwrap().answer;
        assert_eq!((ledger.items[0].taken, ledger.items[0].balanced), (10, true));
        let listed = top.records.integrator(integrator).await.unwrap();
        assert_eq!((listed.state, listed.instances), (IntegratorState::Connected, 2));
        top.settled_but(3).await;
        let filter = InstanceFilter { integrator: vec!["snmp".to_owned()], ..Default::default() };
        let page = top.records.instances(&filter, &Paging::default()).await.unwrap();
        let [removed, active] = &page.items[..] else { panic!("two instances") };
        assert_eq!((removed.state, active.state), (InstanceState::Removed, InstanceState::Active));
        assert_eq!((&*active.instance, active.alarms), ("192.0.2.7", 1));
        assert!(active.last_message_at.is_some() && active.capabilities.is_some());
        let customer = top.records.customer(customer()).await.unwrap();
        assert_eq!((customer.nodes, customer.instances, customer.alarms), (1, 2, 1));
        top.stop().await;
    });
}

// DESIGN §4.10: alive, ready and delivering are three answers, each with its reasons; what waits is
// told by precedence.
#[test]
fn whether_a_node_takes_messages_and_what_waits_by_precedence_is_listed() {
    run(async {
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        assert_eq!(register(&top, 1, 1, node("site-a", 11)).await.id, proxy(1));
        let of = proxy(1);
        let full = vec![("queue_full".to_owned(), "new ones are refused".to_owned())];
        let told = [None, Some(full), Some(Vec::new())];
        let mut seen = Vec::new();
        for (number, ready) in (1..).zip(told) {
            let beat = Heartbeat { ready, ..beat(of, number) };
            top.arrive_with(sender(of), &[], vec![beat.clone()]).await;
            let expected = beat.ready.as_ref().map(Vec::is_empty);
            until(async || {
                let node = top.records.node(of).await.unwrap();
                let is_heard = node.state == NodeState::Operational;
                is_heard && node.ready.as_ref().map(|ready| ready.ok) == expected
            })
            .await;
            seen.push(top.records.node(of).await.unwrap());
        }
        // An older node does not say it.
        assert_eq!(seen[0].ready, None);
        let reasons = &seen[1].ready.as_ref().unwrap().reasons;
        assert_eq!(
            (&*reasons[0].name, &*reasons[0].detail),
            ("queue_full", "new ones are refused")
        );
        assert!(!reasons[0].help.is_empty());
        assert!(seen[1].delivering.ok, "what it holds leaves all the same");
        let waiting = |node: &Node| -> Vec<_> {
            node.waiting.iter().map(|w| (w.precedence, w.messages, w.bytes)).collect()
        };
        let told = [(Precedence::Urgent, 0, 0), (Precedence::Normal, 3, 300)];
        assert_eq!(waiting(&seen[2])[..2], told);
        assert_eq!(waiting(&seen[2])[2], (Precedence::Bulk, 0, 0));
        let ages: Vec<_> = seen[2].waiting.iter().map(|w| w.oldest_age_s).collect();
        assert_eq!(ages, [None, Some(1.5), None]);
        let own = top.records.node(server()).await.unwrap();
        assert!(own.ready.is_some_and(|ready| ready.ok) && own.waiting.len() == 3);
        top.stop().await;
    });
}

#[test]
fn an_action_goes_down_and_its_answer_is_shown() {
    run(async {
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        assert_eq!(register(&top, 1, 1, node("site-a", 11)).await.id, proxy(1));
        let of = proxy(1);
        // A registration under the new id teaches the way down.
        top.arrive(sender(of), &[message(of, 1, Service::Registration(node("site-a", 11)))]).await;
        down_to(&top, sender(of), 1).await;
        let request = ActionRequest {
            targets: vec![instance(of, 17).to_string(), proxy(9).dotted()],
            name: Some("restart".to_owned()),
            parameters: [("why".to_owned(), "a < b".to_owned())].into(),
            ..ActionRequest::default()
        };
        let made = top.records.request_actions(&request, "ada", Some("key")).await.unwrap();
        let again = top.records.request_actions(&request, "ada", Some("key")).await.unwrap();
        assert_eq!(made, again);
        let [one, lost] = &made[..] else { panic!("two actions") };
        assert_eq!((one.state, &*one.requested_by), (ActionState::Queued, "ada"));
        // Nobody knows the way to the other one.
        assert_eq!(lost.state, ActionState::Refused);
        assert_eq!(lost.reason.as_deref(), Some("unknown_destination"));
        let mut orders = Vec::new();
        until(async || {
            orders.extend(down(&top, sender(of)).await);
            orders.iter().any(|m| m.header.id == one.message_id)
        })
        .await;
        let order = orders.iter().find(|m| m.header.id == one.message_id).unwrap();
        let Service::Action(order) = &order.service else { panic!("{order:?}") };
        assert_eq!(order.action_id, one.action_id.to_string());
        assert!(
            order.xml.contains("<parameter name=\"why\">a &lt; b</parameter>"),
            "{}",
            order.xml
        );
        // Its target's heartbeat names it, then comes the answer.
        let done = Heartbeat { done: vec![one.message_id], ..beat(of, 1) };
        top.arrive_with(sender(of), &[], vec![done]).await;
        let state = async || top.records.action(one.action_id).await.unwrap().state;
        until(async || state().await == ActionState::Sent).await;
        let answer = ActionAnswer {
            action_id: one.action_id.to_string(),
            status: Some(0),
            reason: String::new(),
        };
        let mut answer = message(of, 1, Service::ActionAnswer(answer));
        answer.header.answers = Some(one.message_id);
        top.arrive(sender(of), &[answer]).await;
        until(async || state().await == ActionState::Answered).await;
        let shown = top.records.action(one.action_id).await.unwrap();
        assert_eq!((shown.status, shown.answers.len()), (Some(0), 1));
        let filter = ActionFilter { state: vec!["answered".to_owned()], ..Default::default() };
        let page = top.records.actions(&filter, &Paging::default()).await.unwrap();
        assert_eq!(page.items, [shown]);
        top.stop().await;
    });
}

// RTE-4, RTE-6: what was discarded below is told, with the id of what it was.
#[test]
fn a_notice_from_below_and_the_end_of_its_time_end_an_action() {
    run(async {
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        let of = proxy(1);
        register(&top, 1, 1, node("site-a", 11)).await;
        top.arrive(sender(of), &[message(of, 1, Service::Registration(node("site-a", 11)))]).await;
        down_to(&top, sender(of), 1).await;
        let request = ActionRequest {
            targets: vec![instance(of, 17).to_string(), instance(of, 18).to_string()],
            xml: Some("<action/>".to_owned()),
            time_to_live_s: Some(1),
            ..ActionRequest::default()
        };
        let made = top.records.request_actions(&request, "ada", None).await.unwrap();
        let notice = Notice { reason: "unknown_destination".to_owned(), detail: String::new() };
        let mut notice = message(of, 1, Service::Notice(notice));
        notice.header.answers = Some(made[0].message_id);
        top.arrive(sender(of), &[notice]).await;
        let state = async |at: usize| top.records.action(made[at].action_id).await.unwrap().state;
        until(async || state(0).await == ActionState::Refused).await;
        until(async || state(1).await == ActionState::Expired).await;
        let none = ActionRequest { targets: vec!["here".to_owned()], ..request };
        let wrong = top.records.request_actions(&none, "ada", None).await;
        assert!(
            matches!(wrong, Err(RecordsError::BadRequest { field, .. }) if field == "/targets/0")
        );
        top.stop().await;
    });
}

#[test]
fn numbers_that_never_came_are_gaps_until_an_end_explains_them() {
    run(async {
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        top.arrive(sender(proxy(3)), &[alarm(proxy(3), 1, "a")]).await;
        top.arrive(sender(proxy(3)), &[alarm(proxy(3), 5, "b")]).await;
        let gap = |first, last| Gap {
            origin: proxy(3),
            epoch: "7".to_owned(),
            precedence: Precedence::Normal,
            first,
            last,
        };
        assert_eq!(top.records.gaps().await.unwrap(), [gap(2, 4)]);
        top.explain(proxy(3), 3, 2).await;
        assert_eq!(top.records.gaps().await.unwrap(), [gap(2, 2)]);
        let mut id = alarm(proxy(3), 4, "").header.id;
        let trace = top.records.trace(id, 0).await.unwrap().answer;
        assert_eq!(trace.state, extension::records::MessageState::Expired);
        id.sequence = 2;
        let trace = top.records.trace(id, 0).await.unwrap().answer;
        assert_eq!(trace.state, extension::records::MessageState::Unknown);
        top.stop().await;
    });
}
