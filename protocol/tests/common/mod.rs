//! Values the tests of the protocol share: one of each kind, and a reader of anything.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by several tests, which fail by panicking"
)]
use bytes::Bytes;
use protocol::{
    Header, Infrastructure, Message, MessageId, Precedence, RemoteId,
    codec::Writer,
    ends::{End, EndReport},
    exchange::{Acknowledgement, Answer, Exchange, Outcome, Sender, digest_of},
    heartbeat::{Account, Condition, Depth, Heartbeat, IntegratorStatus, Mode},
    message::{Channel, Classification, Destination, Persistence, SourceType},
    question::{Found, Question, Said},
    registration::{InstanceRegistration, Registration, RegistrationAnswer},
    run::{Hop, Run, RunHeader},
    service::{
        Action, ActionAnswer, Alarm, Capabilities, Data, Event, Notice, Payload, Removal, Service,
        Severity, State,
    },
};

pub mod everything;
pub mod strategies;

/// A moment, ms since 1970 UTC: 2026-11-23 12:00.
pub const AT: i64 = 1_795_435_200_000;
/// An epoch: its upper half are seconds.
pub const EPOCH: u64 = 0x6b03_9f40_1c2d_3e4f;

pub fn id(text: &str) -> RemoteId {
    format!("018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42{text}").parse().unwrap()
}

pub fn message_id(sequence: u64) -> MessageId {
    MessageId { origin: id("/3"), epoch: EPOCH, precedence: Precedence::Normal, sequence }
}

pub fn payload(encoding: &str, data: &[u8]) -> Payload {
    Payload { encoding: encoding.into(), data: Bytes::copy_from_slice(data) }
}

pub fn message(service: Service, sequence: u64) -> Message {
    let data = matches!(service, Service::Data(_));
    Message {
        header: Header {
            id: message_id(sequence),
            order: sequence + 7,
            source: id("/3/1/17"),
            source_type: SourceType::Instance,
            destination: None,
            channel: Channel::Forward,
            answers: None,
            class: service.class().into(),
            subclass: if data { "inventory/packages".into() } else { String::new() },
            occurred_at: AT - 250,
            accepted_at: AT,
            persistence: Persistence::Normal,
            time_to_live_s: None,
            traceparent: None,
        },
        infrastructure: Infrastructure {
            classification: Classification::Monitoring,
            customer: id(""),
            group: "customer".into(),
            integrator: "snmp".into(),
            integrator_version: "0.1.0".into(),
            instance: Some(id("/3/1/17")),
            external_id: "192.0.2.7".into(),
        },
        service,
    }
}

pub fn alarm() -> Service {
    Service::Alarm(Alarm {
        kind: "linkDown".into(),
        key: "eth0".into(),
        severity: Severity::Major,
        text: "link eth0 is down".into(),
        state: State::Opened,
        close_after_s: Some(3600),
        payload: payload("application/octet-stream", &[0, 1, 0xff, 0]),
    })
}

pub fn event() -> Service {
    Service::Event(Event {
        kind: "job".into(),
        event_id: "backup-77".into(),
        severity: Severity::Information,
        state: State::Closed,
        text: "backup done".into(),
        payload: payload("application/xml", b"<done/>"),
    })
}

pub fn data() -> Service {
    let payload = payload("application/json", br#"{"packages":[]}"#);
    Service::Data(Data { kind: "inventory".into(), subtype: "packages".into(), payload })
}

pub fn instances() -> Service {
    let one = |n, external: &str, capabilities: Option<&str>| InstanceRegistration {
        id: id(&format!("/3/1/{n}")),
        external_id: external.into(),
        capabilities: capabilities.map(str::to_owned),
    };
    let all = vec![one(17, "192.0.2.7", None), one(18, "2001:db8::7", Some("<capabilities/>"))];
    Service::Registration(Registration::Instances(all))
}

/// One of each class and form, with the name of its file.
pub fn services() -> Vec<(&'static str, Service)> {
    let action_id = "018f6f2b-0000-7000-8000-000000000001".to_owned();
    let node = Registration::Node {
        name: "proxy-hall-2".into(),
        roles: vec!["proxy".into()],
        version: "0.1.0".into(),
        nonce: 0x0102_0304_0506_0708,
    };
    let integrator = Registration::Integrator {
        id: id("/3/1"),
        name: "snmp".into(),
        version: "0.1.0".into(),
        callbacks: vec!["status".into(), "action".into()],
    };
    vec![
        ("alarm", alarm()),
        ("event", event()),
        ("data", data()),
        ("registration-node", Service::Registration(node)),
        ("registration-integrator", Service::Registration(integrator)),
        ("registration-instances", instances()),
        (
            "registration-answer",
            Service::RegistrationAnswer(RegistrationAnswer {
                id: id("/3"),
                refusal: String::new(),
            }),
        ),
        (
            "capabilities",
            Service::Capabilities(Capabilities {
                payload: payload("application/xml", b"<capabilities/>"),
            }),
        ),
        (
            "action",
            Service::Action(Action {
                action_id: action_id.clone(),
                name: "restart".into(),
                xml: "<action name=\"restart\"/>".into(),
            }),
        ),
        (
            "action-answer",
            Service::ActionAnswer(ActionAnswer {
                action_id,
                status: Some(-3),
                reason: String::new(),
            }),
        ),
        (
            "notice",
            Service::Notice(Notice {
                reason: "unknown_destination".into(),
                detail: "nobody has that id".into(),
            }),
        ),
        ("removal", Service::Removal(Removal { subject: id("/3/1/17") })),
    ]
}

/// The same alarm with each item of the header that may be absent.
pub fn full_header() -> Message {
    let mut message = message(alarm(), 1042);
    message.header.destination = Some(Destination::Id(id("/4/2")));
    message.header.answers = Some(message_id(9));
    message.header.channel = Channel::Back;
    message.header.source_type = SourceType::AppServer;
    message.header.persistence = Persistence::Assured;
    message.header.time_to_live_s = Some(86_400);
    message.header.traceparent =
        Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    message
}

/// Messages `numbers` of one origin, back to back.
pub fn wire(numbers: impl IntoIterator<Item = u64>) -> Bytes {
    numbers.into_iter().flat_map(|n| message(event(), n).encode().0).collect::<Vec<_>>().into()
}

pub fn run() -> Run {
    let path = vec![
        Hop { node: id("/3"), received: AT, sent: AT + 40 },
        Hop { node: id("/2"), received: AT - 3_000, sent: 0 },
    ];
    let header = RunHeader {
        origin: id("/3"),
        epoch: EPOCH,
        precedence: Precedence::Normal,
        first: 100,
        count: 3,
        left_out: Vec::new(),
        replayed: true,
        changed: false,
        path,
    };
    Run { header, messages: wire(100..103) }
}

/// The run without its second message.
pub fn partial_run() -> Run {
    run().without(|position| position == 1).unwrap().unwrap()
}

pub fn end_report() -> EndReport {
    EndReport {
        origin: id("/3"),
        epoch: EPOCH,
        precedence: Precedence::Bulk,
        first: 40,
        count: 12,
        end: End::Refused,
        node: id("/2"),
        reason: "poison".into(),
    }
}

pub fn heartbeat() -> Heartbeat {
    let account = Account {
        taken: 1000,
        delivered: 900,
        expired: 10,
        evicted: 5,
        refused: 4,
        consumed: 1,
        queued: 80,
        duplicates: 3,
        turned_away: 2,
        dropped: 6,
    };
    Heartbeat {
        node: id("/3"),
        epoch: EPOCH,
        beat: 17,
        order: 4711,
        at: AT,
        name: "proxy-hall-2".into(),
        roles: vec!["proxy".into()],
        version: "0.1.0".into(),
        mode: Mode::Session,
        account,
        depths: [
            Depth::default(),
            Depth { messages: 80, bytes: 65_536, oldest_age_ms: 12_000 },
            Depth::default(),
        ],
        reasons: vec![("parent_unreachable".into(), "no answer for 12 s".into())],
        configuration: "sha256:00".into(),
        done: vec![message_id(5)],
        integrators: vec![IntegratorStatus {
            id: id("/3/1"),
            connected: true,
            module: Condition::Ok,
            platform: Condition::Degraded,
            text: "one agent is silent".into(),
        }],
        path: vec![id("/2")],
        says: Vec::new(),
        ready: None,
        rejected: None,
    }
}

/// A heartbeat that says something to questions.
pub fn saying_heartbeat() -> Heartbeat {
    let found = Found {
        queue: "up".into(),
        attempts: 3,
        reason: "storage_down".into(),
        class: "alarm".into(),
        occurred_at: AT - 250,
        accepted_at: AT,
        path: vec![Hop { node: id("/3"), received: AT, sent: 0 }],
    };
    let says =
        vec![Said { question: u64::MAX, found: None }, Said { question: 7, found: Some(found) }];
    Heartbeat { says, ..heartbeat() }
}

/// A heartbeat that says why the node takes no messages.
pub fn unready_heartbeat() -> Heartbeat {
    let ready = vec![("queue_full".into(), "new messages are refused or evict older ones".into())];
    Heartbeat { ready: Some(ready), ..heartbeat() }
}

/// A heartbeat that says how many new messages its full queue rejected.
pub fn rejecting_heartbeat() -> Heartbeat {
    Heartbeat { rejected: Some(3), ..unready_heartbeat() }
}

pub fn exchange() -> Exchange {
    let runs = vec![run(), partial_run()];
    let mut beat = Writer::new();
    heartbeat().write(&mut beat);
    Exchange {
        incarnation: 0x1122_3344_5566_7788,
        precedence: Precedence::Normal,
        number: 6,
        digest: digest_of(&runs),
        previous: 5,
        oldest: 5,
        beats: vec![beat.into_bytes()],
        ends: vec![end_report()],
        acknowledgements: vec![Acknowledgement { id: message_id(5), received: AT }],
        runs,
        sender: Sender { id: id("/2"), epoch: EPOCH },
    }
}

pub fn empty_exchange() -> Exchange {
    Exchange {
        number: 0,
        digest: digest_of(&[]),
        previous: 0,
        oldest: 0,
        beats: Vec::new(),
        ends: Vec::new(),
        acknowledgements: Vec::new(),
        runs: Vec::new(),
        ..exchange()
    }
}

pub fn answer() -> Answer {
    let asked = exchange();
    Answer {
        incarnation: asked.incarnation,
        precedence: asked.precedence,
        number: asked.number,
        digest: asked.digest,
        outcomes: vec![
            (Outcome::Stored, 3),
            (Outcome::Duplicate, 1),
            (Outcome::Refused(protocol::Refusal::QueueFull), 1),
        ],
        retry_after_ms: 2_000,
        credit_bytes: 1 << 20,
        down: vec![partial_run()],
        questions: Vec::new(),
    }
}

/// An answer that asks the child, and those below it.
pub fn asking_answer() -> Answer {
    let everybody = Question { id: 7, wait_ms: 5_000, to: Vec::new(), about: None };
    let about = Some(message_id(1042));
    let to = vec![id("/3"), id("")];
    let questions = vec![everybody, Question { id: u64::MAX, wait_ms: 45_000, to, about }];
    Answer { questions, ..answer() }
}

/// Each kind that stands on the wire or on disk: name and bytes.
pub fn all() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for (n, (name, service)) in services().into_iter().enumerate() {
        all.push((format!("message-{name}"), message(service, 1 + n as u64).encode().0));
    }
    let mut to_class = full_header();
    to_class.header.destination = Some(Destination::Class("alarm".into()));
    all.push(("message-to-id".into(), full_header().encode().0));
    all.push(("message-to-class".into(), to_class.encode().0));
    let mut add = |name: &str, write: &dyn Fn(&mut Writer)| {
        let mut to = Writer::new();
        write(&mut to);
        all.push((name.into(), to.into_vec()));
    };
    add("infrastructure", &|to| message(alarm(), 1).infrastructure.parts().write(to));
    add("run-header", &|to| run().header.write(to));
    add("run-header-partial", &|to| partial_run().header.write(to));
    add("run", &|to| run().write(to));
    add("run-partial", &|to| partial_run().write(to));
    add("end-report", &|to| end_report().write(to));
    add("heartbeat", &|to| heartbeat().write(to));
    add("heartbeat-saying", &|to| saying_heartbeat().write(to));
    add("heartbeat-unready", &|to| unready_heartbeat().write(to));
    add("heartbeat-rejecting", &|to| rejecting_heartbeat().write(to));
    all.push(("exchange".into(), exchange().encode().to_vec()));
    all.push(("exchange-empty".into(), empty_exchange().encode().to_vec()));
    all.push(("answer".into(), answer().encode().to_vec()));
    all.push(("answer-asking".into(), asking_answer().encode().to_vec()));
    all
}
