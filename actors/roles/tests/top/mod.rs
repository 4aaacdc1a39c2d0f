//! An application server over a store in memory, and what children send it.
#![allow(dead_code, reason = "each test file uses a part of it")]
use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use extension::storage::QueueStore;
use module_memory::MemoryStore;
use module_services::Alarms;
use protocol::{
    Header, Infrastructure, Message, MessageId, Precedence, RemoteId,
    codec::Malformed,
    ends::{End, EndReport},
    exchange::{Exchange, Outcome, Sender},
    heartbeat::{Account, Heartbeat},
    message::{Blocks, Channel, Classification, Messages, Persistence, SourceType},
    run::{Hop, Run, RunHeader},
    service::{Alarm, Payload, Service, Severity, State},
};
use roles::{
    app_server::{
        directory::{self, NodeRegistration},
        query::AppRecords,
        tree::{Links, Make, Shared, build},
    },
    delivery::{
        doorbell::Doorbell,
        durable_queue::{MakeKeeper, QueueSettings},
        eviction::Limits,
        intake,
        orders::{AskFigures, Identity, Take},
        tree::{Delivery, tree},
    },
};
use supervision::{Backoff, ChildSpec, Intensity, Strategy, Supervisor, SupervisorHandle};
use uuid::Uuid;

/// When the messages of the tests occurred; the same message has the same digest.
pub const BEGUN: i64 = 1_795_000_000_000;
pub const LONG: Duration = Duration::from_secs(20);

#[allow(clippy::disallowed_methods, reason = "stamps what a test sends")]
pub fn clock() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |s| s.as_millis() as i64)
}

/// The customer of the field.
pub fn customer() -> Uuid {
    Uuid::from_u128(0x018f_6f2a_5c3e_7c11_9a54_3d2b_1a0f_9e42)
}

/// A proxy of that customer.
pub fn proxy(number: u32) -> RemoteId {
    RemoteId::customer(customer()).child(number).unwrap()
}

/// An instance at a proxy.
pub fn instance(proxy: RemoteId, number: u32) -> RemoteId {
    proxy.child(1).unwrap().child(number).unwrap()
}

/// The server itself.
pub fn server() -> RemoteId {
    RemoteId::customer(Uuid::from_u128(0x99)).child(1).unwrap()
}

pub struct Top {
    pub records: AppRecords,
    pub delivery: Delivery,
    pub store: Arc<dyn QueueStore>,
    handle: SupervisorHandle,
}

static TOPS: AtomicU64 = AtomicU64::new(1);

impl Top {
    /// Starts over that store, with the module `alarms` and these.
    pub async fn start(store: &Arc<MemoryStore>, modules: Vec<Make>) -> Self {
        Self::start_on(store.clone(), modules).await
    }

    /// As `start`, over any store.
    pub async fn start_on(store: Arc<dyn QueueStore>, modules: Vec<Make>) -> Self {
        let life = TOPS.fetch_add(1, Ordering::Relaxed);
        let seeds = [(customer(), "northwind".to_owned()), (server().customer_id(), "us".into())];
        let node = NodeRegistration {
            name: "app-server",
            roles: &["app-server".to_owned()],
            version: "1",
            nonce: 1,
        };
        let seed = directory::seed_customers(store.clone(), &seeds, 1).unwrap();
        // A failure that was asked for and not met yet is met here.
        store.commit(&seed).or_else(|_| store.commit(&seed)).unwrap();
        let own = directory::seed_node(store.clone(), server(), &node, 1).unwrap();
        store.commit(&own).unwrap();
        let shared = Shared::new(life);
        let identity = Arc::new(Mutex::new(Identity { id: server(), epoch: 5 }));
        let (keeper_of, keeper_store) = (shared.clone(), store.clone());
        let keeper: MakeKeeper =
            Arc::new(move || Ok(Box::new(keeper_of.keeper(keeper_store.clone()))));
        let settings = QueueSettings {
            node: "top".into(),
            store: store.clone(),
            identity: identity.clone(),
            limits: Limits { total: 1 << 30, each: [u64::MAX; 3] },
            set_aside_bytes: 1 << 20,
            counted: true,
            keeper: Some(keeper),
            doorbell: Arc::new(Doorbell::default()),
            turned_away: Arc::default(),
            clock,
        };
        let (child, delivery) = tree(settings, None, || 7);
        let links = Links {
            store: store.clone(),
            keep: delivery.queue.route(),
            apply: delivery.queue.route(),
            figures: delivery.queue.route(),
            ask: delivery.queue.route(),
            find: delivery.queue.route(),
            doorbell: delivery.doorbell.clone(),
            identity,
            clock,
        };
        let alarms: Make = Arc::new(|| Box::new(Alarms::default()));
        let modules = std::iter::once(alarms).chain(modules).collect();
        let (supervisor, records) = build(links, &shared, modules).unwrap();
        let root = Supervisor::new(
            format!("top-{life}"),
            Strategy::RestForOne,
            Intensity::a_minute(100),
            Backoff::default(),
        );
        let handle = root.child(child).child(ChildSpec::supervisor(supervisor)).start();
        assert!(handle.started().await);
        Self { records, delivery, store, handle }
    }

    pub async fn stop(self) {
        self.handle.stop().await;
    }

    /// Hands over messages as one run of their origin, as a child's exchange would.
    pub async fn arrive(&self, sender: Sender, messages: &[Message]) -> Vec<Outcome> {
        self.arrive_with(sender, messages, Vec::new()).await
    }

    pub async fn arrive_with(
        &self,
        sender: Sender,
        messages: &[Message],
        beats: Vec<Heartbeat>,
    ) -> Vec<Outcome> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let runs = if messages.is_empty() { Vec::new() } else { vec![run_of(messages)] };
        let checked = runs.iter().map(|run| {
            let all = run.header.numbers().zip(Messages::of(&run.messages));
            let check = |n, m: Result<(std::ops::Range<usize>, Blocks<'_>), Malformed>| {
                let (range, blocks) = m.unwrap();
                intake::check(blocks, range.len(), &run.header, (n, clock()), true)
            };
            all.map(|(n, m)| check(n, m)).collect()
        });
        let checked = checked.collect();
        let precedence = messages.first().map_or(Precedence::Urgent, |m| m.header.id.precedence);
        let exchange = Exchange {
            // A fresh incarnation each time: numbers begin at one.
            incarnation: NUMBERS.fetch_add(1, Ordering::Relaxed),
            precedence,
            number: u64::from(!runs.is_empty()),
            digest: 0,
            previous: 0,
            oldest: 1,
            beats: Vec::new(),
            ends: Vec::new(),
            acknowledgements: Vec::new(),
            runs,
            sender,
        };
        let taken = self.delivery.queue.ask(Take { exchange, checked, beats }).await.unwrap();
        // A refusal of the whole: nothing was stored.
        let Ok(taken) = taken else { return Vec::new() };
        let outcomes = taken.outcomes;
        outcomes.iter().flat_map(|(o, n)| std::iter::repeat_n(*o, *n as usize)).collect()
    }

    /// Says that messages of an origin expired there.
    pub async fn explain(&self, origin: RemoteId, first: u64, count: u32) {
        let exchange = Exchange {
            incarnation: 1,
            precedence: Precedence::Normal,
            number: 0,
            digest: 0,
            previous: 0,
            oldest: 0,
            beats: Vec::new(),
            ends: vec![EndReport {
                origin,
                epoch: 7,
                precedence: Precedence::Normal,
                first,
                count,
                end: End::Expired,
                node: origin,
                reason: String::new(),
            }],
            acknowledgements: Vec::new(),
            runs: Vec::new(),
            sender: sender(origin),
        };
        let take = Take { exchange, checked: Vec::new(), beats: Vec::new() };
        self.delivery.queue.ask(take).await.unwrap().unwrap();
    }

    /// The account, once nothing is queued.
    pub async fn settled(&self) -> Account {
        self.settled_but(0).await
    }

    /// The account, once so much is queued as waits for children.
    pub async fn settled_but(&self, waiting: u64) -> Account {
        let mut account = Account::default();
        until(async || {
            account = self.delivery.queue.ask(AskFigures).await.unwrap().account;
            account.queued <= waiting && account.taken > 0
        })
        .await;
        assert!(account.balanced(), "{account:?}");
        account
    }
}

/// Waits until `done` says so.
pub async fn until(mut done: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + LONG;
    while !done().await {
        assert!(tokio::time::Instant::now() < end, "it did not come about in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Messages of one origin, in order and perhaps with holes, as one run.
pub fn run_of(messages: &[Message]) -> Run {
    let id = messages[0].header.id;
    let last = messages[messages.len() - 1].header.id.sequence;
    let count = (last - id.sequence + 1) as u32;
    let mut left_out = vec![0_u8; (count as usize).div_ceil(8)];
    for at in 0..count {
        if !messages.iter().any(|m| m.header.id.sequence == id.sequence + u64::from(at)) {
            left_out[at as usize / 8] |= 1 << (at % 8);
        }
    }
    let bytes: Vec<u8> = messages.iter().flat_map(|m| m.encode().0).collect();
    let now = clock();
    Run {
        header: RunHeader {
            origin: id.origin,
            epoch: id.epoch,
            precedence: id.precedence,
            first: id.sequence,
            count,
            left_out: if left_out.iter().all(|b| *b == 0) { Vec::new() } else { left_out },
            replayed: false,
            changed: false,
            path: vec![Hop { node: id.origin, received: now - 3, sent: now - 2 }],
        },
        messages: Bytes::from(bytes),
    }
}

/// A sender with that id.
pub fn sender(id: RemoteId) -> Sender {
    Sender { id, epoch: 7 }
}

/// A message of a proxy about one of its instances.
pub fn message(of: RemoteId, sequence: u64, service: Service) -> Message {
    let precedence = match service {
        Service::Registration(_) | Service::Removal(_) => Precedence::Urgent,
        _ => Precedence::Normal,
    };
    let about = (!of.is_unregistered()).then(|| instance(of, 17));
    Message {
        header: Header {
            id: MessageId { origin: of, epoch: 7, precedence, sequence },
            order: sequence,
            source: about.unwrap_or(of),
            source_type: SourceType::Instance,
            destination: None,
            channel: Channel::Forward,
            answers: None,
            class: service.class().to_owned(),
            subclass: String::new(),
            occurred_at: BEGUN + sequence as i64,
            accepted_at: BEGUN + sequence as i64 + 1,
            persistence: Persistence::Normal,
            time_to_live_s: None,
            traceparent: None,
        },
        infrastructure: Infrastructure {
            classification: Classification::Monitoring,
            customer: of.cut(0),
            group: String::new(),
            integrator: "snmp".to_owned(),
            integrator_version: "1".to_owned(),
            instance: about,
            external_id: if about.is_some() { "192.0.2.7".to_owned() } else { String::new() },
        },
        service,
    }
}

/// An alarm with that key as text, too.
pub fn alarm(of: RemoteId, sequence: u64, key: &str) -> Message {
    alarm_in(of, sequence, key, State::Opened)
}

pub fn alarm_in(of: RemoteId, sequence: u64, key: &str, state: State) -> Message {
    let alarm = Alarm {
        kind: "linkDown".to_owned(),
        key: key.to_owned(),
        severity: Severity::Major,
        text: format!("port {key}"),
        state,
        close_after_s: None,
        payload: Payload {
            encoding: "text/plain".to_owned(),
            data: Bytes::copy_from_slice(key.as_bytes()),
        },
    };
    message(of, sequence, Service::Alarm(alarm))
}

/// Runs a test in a system of its own.
pub fn run(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
}
