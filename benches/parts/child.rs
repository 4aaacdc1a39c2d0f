//! A child of the provider, played: hands over runs of messages encoded as a proxy would.
use std::{
    io::{Read, Write},
    net::TcpStream,
};

use bytes::Bytes;
use protocol::{
    Header, Infrastructure, Message, MessageId, Precedence, RemoteId,
    exchange::{Answer, Exchange, Outcome, Sender, digest_of},
    limits::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX},
    message::{Channel, Classification, Persistence, SourceType},
    run::{Hop, Run, RunHeader},
    service::{Alarm, Data, Event, Payload, Service, Severity, State},
};

/// Instances of one integrator.
const INSTANCES_EACH: u64 = 500;
/// Number of the child below its customer: one that real nodes of a bench do not get to.
const NUMBER: u32 = 1_000;
/// Which life of its store the child has.
pub const EPOCH: u64 = 7;

/// What the messages are.
#[derive(Clone, Copy)]
pub struct Mix {
    /// Bytes of data.
    pub bytes: usize,
    /// Instances.
    pub instances: u64,
    /// Of a hundred messages so many are alarms, and as many are data; the rest are events.
    pub alarms: u64,
}

/// The child.
pub struct Child {
    stream: TcpStream,
    host: String,
    id: RemoteId,
    mix: Mix,
    incarnation: u64,
    exchanges: u64,
    /// Messages that were stored.
    pub sent: u64,
}

impl Child {
    /// Connects as a proxy of a customer.
    pub fn connect(host: &str, customer: &str, mix: Mix) -> Self {
        let stream = TcpStream::connect(host).expect("a door");
        stream.set_nodelay(true).expect("a socket");
        let id: RemoteId = customer.parse().expect("an id");
        let mut incarnation = [0; 8];
        getrandom::fill(&mut incarnation).expect("random bytes");
        Self {
            stream,
            host: host.to_owned(),
            id: id.child(NUMBER).expect("a proxy"),
            mix,
            incarnation: u64::from_be_bytes(incarnation),
            exchanges: 0,
            sent: 0,
        }
    }

    /// Id of a message by its number.
    pub fn id_of(&self, sequence: u64) -> MessageId {
        id_of(self.id, sequence)
    }

    /// The platform's name of the instance that a message is about.
    pub fn instance_of(&self, sequence: u64) -> String {
        instance_of(self.mix, sequence)
    }

    /// Words that only this message has.
    pub fn words_of(sequence: u64) -> String {
        format!("serial-{sequence:09}")
    }

    /// Sends until so many were stored.
    pub fn send(&mut self, until: u64) {
        while self.sent < until {
            let (mut bytes, mut count) = (Vec::with_capacity(BATCH_BYTES_MAX), 0);
            while count < BATCH_MESSAGES_MAX as u64 && self.sent + count < until {
                let (message, _) = self.message(self.sent + count + 1).encode();
                if bytes.len() + message.len() > BATCH_BYTES_MAX {
                    break;
                }
                bytes.extend_from_slice(&message);
                count += 1;
            }
            self.exchange(bytes.into(), count as u32);
            self.sent += count;
        }
    }

    fn exchange(&mut self, messages: Bytes, count: u32) {
        self.exchanges += 1;
        let now = jiff::Timestamp::now().as_millisecond();
        let header = RunHeader {
            origin: self.id,
            epoch: EPOCH,
            precedence: Precedence::Normal,
            first: self.sent + 1,
            count,
            left_out: Vec::new(),
            replayed: false,
            changed: false,
            path: vec![Hop { node: self.id, received: now, sent: now }],
        };
        let runs = vec![Run { header, messages }];
        let exchange = Exchange {
            incarnation: self.incarnation,
            precedence: Precedence::Normal,
            number: self.exchanges,
            digest: digest_of(&runs),
            previous: self.exchanges - 1,
            oldest: self.exchanges,
            beats: Vec::new(),
            ends: Vec::new(),
            acknowledgements: Vec::new(),
            runs,
            sender: Sender { id: self.id, epoch: EPOCH },
        };
        let answer = self.post(&exchange.encode());
        let stored = answer.outcomes.iter().filter(|(o, _)| *o == Outcome::Stored);
        assert_eq!(stored.map(|(_, n)| n).sum::<u32>(), count, "{:?}", answer.outcomes);
    }

    fn post(&mut self, body: &[u8]) -> Answer {
        let head = format!(
            "POST /v1/exchange HTTP/1.1\r\nHost: {}\r\nContent-Type: application/msgpack\r\n\
            Content-Length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        self.stream.write_all(&[head.as_bytes(), body].concat()).expect("sent");
        let mut answer = Vec::new();
        let mut part = [0; 16 << 10];
        loop {
            let read = self.stream.read(&mut part).expect("an answer");
            assert!(read > 0, "the door hung up");
            answer.extend_from_slice(&part[..read]);
            let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
            assert!(head.starts_with("http/1.1 200"), "{head}");
            let length = head.lines().find_map(|l| l.strip_prefix("content-length:"));
            let length: usize = length.expect("a length").trim().parse().expect("a number");
            if answer.len() >= end + 4 + length {
                let body = Bytes::copy_from_slice(&answer[end + 4..end + 4 + length]);
                return Answer::decode(&body).expect("an answer");
            }
        }
    }

    fn message(&self, sequence: u64) -> Message {
        message_of(self.id, self.mix, sequence)
    }
}

/// The message of that number of a proxy.
pub fn message_of(origin: RemoteId, mix: Mix, sequence: u64) -> Message {
    let number = sequence % mix.instances;
    let integrator = origin.child(1 + (number / INSTANCES_EACH) as u32).expect("an id");
    let instance = integrator.child(1 + (number % INSTANCES_EACH) as u32).expect("an id");
    let (service, subclass) = service(mix, sequence);
    let now = jiff::Timestamp::now().as_millisecond();
    Message {
        header: Header {
            id: id_of(origin, sequence),
            order: sequence,
            source: instance,
            source_type: SourceType::Instance,
            destination: None,
            channel: Channel::Forward,
            answers: None,
            class: service.class().to_owned(),
            subclass: subclass.to_owned(),
            occurred_at: now,
            accepted_at: now,
            persistence: Persistence::Normal,
            time_to_live_s: None,
            traceparent: None,
        },
        infrastructure: Infrastructure {
            classification: Classification::Monitoring,
            customer: origin.cut(0),
            group: String::new(),
            integrator: format!("load-{}", number / INSTANCES_EACH),
            integrator_version: "1".to_owned(),
            instance: Some(instance),
            external_id: instance_of(mix, sequence),
        },
        service,
    }
}

fn service(mix: Mix, sequence: u64) -> (Service, &'static str) {
    let payload = Payload {
        encoding: "application/octet-stream".to_owned(),
        data: vec![0x5a; mix.bytes].into(),
    };
    let text = format!("Fan {} of {} slows", sequence % 8, Child::words_of(sequence));
    let part = (sequence / mix.instances) % 100;
    if sequence.is_multiple_of(9_973) {
        let (kind, subtype) = ("audit".to_owned(), String::new());
        return (Service::Data(Data { kind, subtype, payload }), "audit");
    }
    if part < mix.alarms {
        let kind = "fanSlow".to_owned();
        let (severity, state) = (Severity::Minor, State::Opened);
        let (key, close_after_s) = (String::new(), None);
        let alarm = Alarm { kind, key, severity, text, state, close_after_s, payload };
        return (Service::Alarm(alarm), "");
    }
    if part < 2 * mix.alarms {
        let (kind, subtype) = ("performance".to_owned(), "fans".to_owned());
        return (Service::Data(Data { kind, subtype, payload }), "performance/fans");
    }
    let (kind, event_id) = ("fan".to_owned(), String::new());
    let (severity, state) = (Severity::Information, State::Opened);
    (Service::Event(Event { kind, event_id, severity, state, text, payload }), "")
}

fn id_of(origin: RemoteId, sequence: u64) -> MessageId {
    MessageId { origin, epoch: EPOCH, precedence: Precedence::Normal, sequence }
}

fn instance_of(mix: Mix, sequence: u64) -> String {
    format!("unit-{:05}", sequence % mix.instances)
}
