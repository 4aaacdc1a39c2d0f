//! What is decided about messages that came down.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]
use protocol::{
    Header, Infrastructure, Precedence,
    message::{Channel, Classification, Persistence, SourceType},
};

use super::*;

const NOW: i64 = 1_795_348_800_000;
const DAY: i64 = 24 * 3600 * 1000;

fn node() -> RemoteId {
    "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3".parse().unwrap()
}

fn action() -> Service {
    let (action_id, name) = ("018f-1".to_owned(), "restart".to_owned());
    Service::Action(Action { action_id, name, xml: "<action name='restart'/>".to_owned() })
}

fn message(to: &str, service: Service) -> Message {
    let server: RemoteId = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e43/1".parse().unwrap();
    Message {
        header: Header {
            id: MessageId { origin: server, epoch: 7, precedence: Precedence::Urgent, sequence: 1 },
            order: 1,
            source: server,
            source_type: SourceType::AppServer,
            destination: Some(Destination::Id(to.parse().unwrap())),
            channel: Channel::Back,
            answers: None,
            class: service.class().to_owned(),
            subclass: String::new(),
            occurred_at: NOW,
            accepted_at: NOW,
            persistence: Persistence::Normal,
            time_to_live_s: Some(10),
            traceparent: None,
        },
        infrastructure: Infrastructure {
            classification: Classification::InfrastructureAdministration,
            customer: server.cut(0),
            group: String::new(),
            integrator: String::new(),
            integrator_version: String::new(),
            instance: None,
            external_id: String::new(),
        },
        service,
    }
}

fn facts() -> Facts<'static> {
    Facts {
        node: node(),
        number: Some(1),
        instance: Some("press-1"),
        is_done: false,
        mark: None,
        now: NOW,
        keep_ms: DAY,
        is_connected: true,
    }
}

fn at(path: &str) -> String {
    format!("{}/{path}", node())
}

fn said(todo: Todo) -> (End, String, Option<i64>) {
    match todo {
        Todo::End(end, _, Some(Service::ActionAnswer(a))) => (end, a.reason, a.status),
        Todo::End(end, _, Some(Service::Notice(n))) => (end, n.reason, None),
        other => panic!("{other:?}"),
    }
}

// RTE-1, RTE-2
#[test]
fn the_id_it_is_for_names_the_instance_that_the_callback_gets() {
    let Todo::Call(Request::Action(request, names)) =
        judge(&message(&at("1/17"), action()), &facts())
    else {
        panic!("not called");
    };
    assert_eq!((request.instance.as_str(), request.action_id.as_str()), ("press-1", "018f-1"));
    assert_eq!(request.expires_at_ms, NOW + 10_000);
    assert_eq!(names, ["restart"]);
    let todo = judge(&message(&at("1"), action()), &facts());
    assert!(
        matches!(&todo, Todo::Call(Request::Action(r, _)) if r.instance == INTEGRATION_MODULE),
        "{todo:?}"
    );
}

// RTE-4
#[test]
fn what_nobody_has_is_discarded_with_a_notice() {
    let unknown = (End::Refused, "unknown_destination".to_owned(), None);
    let other = judge(&message(&at("2/17"), action()), &facts());
    assert_eq!(said(other), unknown, "another integrator");
    let gone = Facts { instance: None, ..facts() };
    assert_eq!(said(judge(&message(&at("1/99"), action()), &gone)), unknown, "no such instance");
    let nobody = Facts { number: None, ..facts() };
    assert_eq!(said(judge(&message(&at("9"), action()), &nobody)), unknown);
    let notice = Service::Notice(Notice { reason: "expired".into(), detail: String::new() });
    let todo = judge(&message(&at("2"), notice), &facts());
    assert_eq!(todo, Todo::End(End::Refused, "unknown_destination", None), "none about a notice");
}

// RTE-5, RTE-6
#[test]
fn who_is_away_gets_it_within_its_time_or_never() {
    let away = Facts { is_connected: false, ..facts() };
    let message = message(&at("1/17"), action());
    assert_eq!(judge(&message, &away), Todo::Wait(NOW + 10_000));
    let later = Facts { mark: Some(Mark::Seen(NOW)), now: NOW + 9_999, ..facts() };
    assert!(matches!(judge(&message, &later), Todo::Call(_)));
    let late = Facts { now: NOW + 10_000, ..later };
    assert_eq!(said(judge(&message, &late)), (End::Expired, "expired".to_owned(), None));
    let short = Facts { keep_ms: 5_000, now: NOW + 5_000, ..late };
    assert_eq!(said(judge(&message, &short)).0, End::Expired, "the node's own bound counts too");
}

#[test]
fn an_action_that_was_started_in_an_earlier_life_is_answered_and_not_done_again() {
    let started = Facts { mark: Some(Mark::Started), ..facts() };
    let todo = judge(&message(&at("1/17"), action()), &started);
    assert_eq!(said(todo), (End::Delivered, OUTCOME_UNKNOWN.to_owned(), None));
    let done = Facts { is_done: true, ..started };
    let todo = judge(&message(&at("1/17"), action()), &done);
    assert_eq!(todo, Todo::End(End::Delivered, "", None));
    for mark in [Mark::Seen(NOW), Mark::Started] {
        assert_eq!(Mark::decode(&mark.encode()), mark);
    }
    assert_eq!(Mark::decode(b"?"), Mark::Started);
}

// RTE-7
#[test]
fn broken_xml_never_reaches_the_integrator() {
    let broken = Service::Action(Action {
        action_id: "018f-1".into(),
        name: "restart".into(),
        xml: "<action>".into(),
    });
    let todo = judge(&message(&at("1/17"), broken), &facts());
    assert_eq!(said(todo), (End::Refused, "malformed".to_owned(), None));
}

#[test]
fn the_policy_is_asked_for_what_the_document_says_too() {
    let disguised = Service::Action(Action {
        action_id: "018f-1".into(),
        name: "status".into(),
        xml: "<action name='erase'/>".into(),
    });
    let todo = judge(&message(&at("1"), disguised), &facts());
    assert!(
        matches!(&todo, Todo::Call(Request::Action(_, names)) if *names == ["erase", "status"]),
        "{todo:?}"
    );
    assert_eq!(said(denied(&message(&at("1"), action()))).1, "denied");
}

#[test]
fn each_outcome_of_a_callback_is_told() {
    let message = message(&at("1/17"), action());
    let told = |result| said(outcome(&message, &result));
    assert_eq!(told(Ok(4)), (End::Delivered, String::new(), Some(4)));
    let unknown = (End::Delivered, OUTCOME_UNKNOWN.to_owned(), None);
    assert_eq!(told(Err(CallbackError::Gone)), unknown);
    assert_eq!(told(Err(CallbackError::TimedOut)), unknown);
    assert_eq!(told(Err(CallbackError::Failed("x".into()))).1, "failed");
    let not_supported = told(Err(CallbackError::NotSupported("x".into())));
    assert_eq!(not_supported, (End::Refused, "not_supported".to_owned(), None));
}
