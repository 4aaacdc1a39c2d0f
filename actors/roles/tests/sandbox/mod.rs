//! Several nodes in one process: a store in memory, a link that loses what a seed says.
#![allow(dead_code, reason = "each test file uses a part of it")]
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use extension::{
    communications::{Door, ExchangeError, Peer, Protocol},
    storage::{Change, StoreError},
};
use module_memory::MemoryStore;
use protocol::{
    Header, Infrastructure, Message, MessageId, Precedence, RemoteId,
    ends::EndReport,
    exchange::{Exchange, Outcome},
    heartbeat::Mode,
    message::{Channel, Classification, Messages, Persistence, SourceType, Unnumbered},
    service::{Alarm, Payload, Service, Severity, State},
};
use roles::delivery::{
    doorbell::Doorbell,
    durable_queue::QueueSettings,
    eviction::Limits,
    intake::Intake,
    orders::{Arrived, AskFigures, Figures, Identity, Keep, Keeper, KeeperPlan, Kept},
    tree::{Delivery, Uplink, tree},
};
use supervision::{Backoff, Exit, Intensity, Strategy, Supervisor, SupervisorHandle};
use uuid::Uuid;

/// The clock of all nodes: real time, so that ages grow.
#[allow(clippy::disallowed_methods, reason = "stamps what a test sends")]
pub fn clock() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |s| s.as_millis() as i64)
}

static SEED: AtomicU64 = AtomicU64::new(1);

/// A splitmix sequence: enough to vary schedules, repeatable by its seed.
pub fn random() -> u64 {
    let mut z = SEED.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The id of a component of the one customer.
pub fn id(component: u32) -> RemoteId {
    RemoteId::customer(Uuid::from_u128(7)).child(component).expect("a component")
}

/// An alarm of a node's own, numbered by its text.
pub fn alarm(of: Identity, text: &str, precedence: Precedence) -> Message {
    let source = of.id;
    let header = Header {
        id: MessageId { origin: of.id, epoch: of.epoch, precedence, sequence: 0 },
        order: 0,
        source,
        source_type: SourceType::Proxy,
        destination: None,
        channel: Channel::Forward,
        answers: None,
        class: "alarm".to_owned(),
        subclass: String::new(),
        occurred_at: clock(),
        accepted_at: clock(),
        persistence: Persistence::Normal,
        time_to_live_s: None,
        traceparent: None,
    };
    let infrastructure = Infrastructure {
        classification: Classification::Monitoring,
        customer: of.id.cut(0),
        group: String::new(),
        integrator: "test".to_owned(),
        integrator_version: "1".to_owned(),
        instance: None,
        external_id: String::new(),
    };
    let service = Service::Alarm(Alarm {
        kind: "test".to_owned(),
        key: String::new(),
        severity: Severity::Major,
        text: text.to_owned(),
        state: State::Opened,
        close_after_s: None,
        payload: Payload::default(),
    });
    Message { header, infrastructure, service }
}

/// What the top has seen: texts with how often, ids once.
#[derive(Default)]
pub struct Seen {
    pub ids: BTreeSet<MessageId>,
    pub texts: Vec<String>,
    pub ends: Vec<EndReport>,
}

/// A top that remembers in memory; a commit that fails forgets.
pub struct TestKeeper {
    seen: Arc<Mutex<Seen>>,
    planned: Vec<(MessageId, String)>,
}

impl Keeper for TestKeeper {
    fn plan(&mut self, arrived: Arrived) -> Result<KeeperPlan, StoreError> {
        let seen = self.seen.lock().expect("test");
        let mut plan = KeeperPlan::default();
        let messages = Messages::of(&arrived.run.messages);
        for message in messages.map(|m| m.and_then(|(_, blocks)| blocks.decode()).expect("test")) {
            let id = message.header.id;
            let known = seen.ids.contains(&id) || self.planned.iter().any(|p| p.0 == id);
            if !known {
                let text = message.service.headline().map_or("", |h| h.1).to_owned();
                self.planned.push((id, text));
            }
            plan.outcomes.push(if known { Outcome::Duplicate } else { Outcome::Stored });
        }
        Ok(plan)
    }

    fn ends(&mut self, reports: &[EndReport]) -> Result<Vec<Change>, StoreError> {
        self.seen.lock().expect("test").ends.extend_from_slice(reports);
        Ok(Vec::new())
    }

    fn committed(&mut self) {
        let mut seen = self.seen.lock().expect("test");
        for (id, text) in self.planned.drain(..) {
            seen.ids.insert(id);
            seen.texts.push(text);
        }
    }

    fn rolled_back(&mut self) {
        self.planned.clear();
    }
}

/// Faults of a link, out of 1,000 exchanges each.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub lose_request: u64,
    pub lose_answer: u64,
    pub away: Away,
}

/// Whom a parent that is away leaves alone.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Away {
    /// It is there.
    #[default]
    No,
    /// Nobody reaches it.
    All,
    /// It is there again for what carries nothing; and then for all.
    UntilEmpty,
}

/// A link in memory to the doors of other nodes by name.
pub struct MemoryLink {
    pub doors: Arc<Mutex<BTreeMap<String, Arc<Intake>>>>,
    pub faults: Arc<Mutex<Faults>>,
}

#[async_trait]
impl Protocol for MemoryLink {
    fn mode(&self) -> Mode {
        Mode::Session
    }

    async fn exchange(
        &self,
        url: &str,
        body: Bytes,
        hold: Duration,
    ) -> Result<Bytes, ExchangeError> {
        let faults = *self.faults.lock().expect("test");
        let carries = Exchange::decode(&body).is_ok_and(|exchange| exchange.number > 0);
        if faults.away == Away::All || (faults.away == Away::UntilEmpty && carries) {
            return Err(ExchangeError::Unreachable("away".to_owned()));
        }
        let dice = random() % 1000;
        if dice < faults.lose_request {
            return Err(ExchangeError::Unknown("request lost".to_owned()));
        }
        let door = self.doors.lock().expect("test").get(url).cloned();
        let door = door.ok_or_else(|| ExchangeError::Unreachable(url.to_owned()))?;
        let peer = Peer { id: None, address: None };
        let answer = door.knock(peer, body, hold.min(Duration::from_millis(200))).await;
        if faults.away == Away::UntilEmpty {
            self.faults.lock().expect("test").away = Away::No;
        }
        if dice < faults.lose_request + faults.lose_answer {
            return Err(ExchangeError::Unknown("answer lost".to_owned()));
        }
        answer.map_err(|refusal| ExchangeError::Refused { refusal, retry_after: None })
    }
}

/// A node of a chain.
pub struct Node {
    pub delivery: Delivery,
    pub store: Arc<MemoryStore>,
    handle: SupervisorHandle,
}

impl Node {
    /// Keeps one message; `None` when it was refused or nobody knows.
    pub async fn keep(&self, message: &Message) -> Option<Kept> {
        let messages = vec![Unnumbered::from(message)];
        let keep = Keep { messages, changes: vec![], ends: vec![] };
        self.delivery.queue.ask(keep).await.ok()?.ok()?.pop()?.ok()
    }

    pub async fn figures(&self) -> Figures {
        loop {
            if let Ok(figures) = self.delivery.queue.ask(AskFigures).await {
                return figures;
            }
        }
    }

    pub fn identity(&self) -> Identity {
        self.delivery.door.identity()
    }

    pub async fn stop(self) -> Exit {
        self.handle.stop().await
    }
}

/// A chain of nodes, last one the top.
pub struct Chain {
    pub nodes: Vec<Node>,
    pub seen: Arc<Mutex<Seen>>,
    pub faults: Arc<Mutex<Faults>>,
    /// What the names of its trees begin with: drills find actors of the whole process.
    pub name: String,
}

static CHAINS: AtomicU64 = AtomicU64::new(0);

/// Room for a few thousand messages.
pub const ROOMY: Limits = Limits { total: 1 << 30, each: [u64::MAX; 3] };

impl Chain {
    /// Starts `length` nodes; node 0 is the lowest.
    pub fn start(length: u32, limits: Limits) -> Self {
        Self::start_with(length, limits, random)
    }

    /// As `start`, with other dice for the links.
    pub fn start_with(length: u32, limits: Limits, random: fn() -> u64) -> Self {
        let name = format!("chain-{}", CHAINS.fetch_add(1, Ordering::Relaxed));
        let doors = Arc::new(Mutex::new(BTreeMap::new()));
        let faults = Arc::new(Mutex::new(Faults::default()));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut nodes = Vec::new();
        for i in 0..length {
            let store = Arc::new(MemoryStore::new());
            let top = i + 1 == length;
            let seen = seen.clone();
            let link = MemoryLink { doors: doors.clone(), faults: faults.clone() };
            let settings = QueueSettings {
                node: format!("node-{i}").into(),
                store: store.clone(),
                identity: Arc::new(Mutex::new(Identity { id: id(i + 1), epoch: 77 })),
                limits,
                set_aside_bytes: 1 << 20,
                counted: true,
                keeper: top.then(|| -> roles::delivery::durable_queue::MakeKeeper {
                    Arc::new(move || {
                        Ok(Box::new(TestKeeper { seen: seen.clone(), planned: vec![] }))
                    })
                }),
                doorbell: Arc::new(Doorbell::default()),
                turned_away: Arc::default(),
                clock,
            };
            let uplink = (!top).then(|| Uplink {
                parents: vec![format!("node-{}", i + 1)],
                unhealthy_after: Duration::from_secs(30),
                protocol: Arc::new(link),
            });
            let (child, delivery) = tree(settings, uplink, random);
            doors.lock().expect("test").insert(format!("node-{i}"), delivery.door.clone());
            let root = Supervisor::new(
                format!("{name}.{i}"),
                Strategy::RestForOne,
                Intensity::a_minute(1000),
                Backoff::default(),
            );
            nodes.push(Node { delivery, store, handle: root.child(child).start() });
        }
        Self { nodes, seen, faults, name }
    }

    /// Waits until `done`, at most `within`.
    pub async fn until(&self, within: Duration, mut done: impl FnMut(&Seen) -> bool) -> bool {
        let end = tokio::time::Instant::now() + within;
        while tokio::time::Instant::now() < end {
            if done(&self.seen.lock().expect("test")) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }
}
