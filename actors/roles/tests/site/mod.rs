//! A proxy with its real durable queue over a store in memory; the test plays parent and clients.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]
mod client;

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use extension::integrators::{Ended, IntegratorSession, PeerCredentials};
use module_memory::MemoryStore;
use protocol::{
    Header, Infrastructure, Message, MessageId, Precedence, RemoteId,
    exchange::Outcome as Exchanged,
    heartbeat::{Heartbeat, Mode},
    message::{Channel, Classification, Destination, Persistence, SourceType},
    registration::{Registration, RegistrationAnswer},
    run::{Hop, Run, RunHeader},
    service::{Action, Service, Severity},
    socket::{AlarmCall, Call, CallAnswer, CallError, Hello, HelloAnswer},
};
use roles::{
    delivery::{
        author::Author,
        doorbell::Doorbell,
        durable_queue::{DurableQueue, QueueSettings},
        eviction::Limits,
        orders::{Identity, NextBatch, Settle, TakeDown},
        queue_routes::QueueRoutes,
        upkeep::{NodeParts, NodeSettings},
    },
    proxy::{
        consent::Consent,
        tree::{Proxy, ProxySettings, tree},
    },
};
use supervision::{
    ActorRef, Backoff, ChildSpec, Intensity, Strategy, Supervisor, SupervisorHandle,
};
use tokio::time::Instant;
use uuid::Uuid;

pub const SECOND: Duration = Duration::from_secs(1);
pub use client::Client;

const BASE: i64 = 1_795_348_800_000;

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
    static JUMPED: Cell<i64> = const { Cell::new(0) };
}

/// The time of a test: it goes on while nobody works.
pub fn clock() -> i64 {
    let began = BEGAN.get().unwrap_or_else(Instant::now);
    BASE + JUMPED.get() + began.elapsed().as_millis() as i64
}

/// Sets the clock forward, as an administrator does, or the battery of a machine.
pub fn clock_jumps(by: Duration) {
    JUMPED.set(JUMPED.get() + by.as_millis() as i64);
}

fn random() -> u64 {
    42
}

/// Runs a test on a clock that jumps.
pub fn virtual_time<F: Future<Output = ()>>(test: F) {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    actix::System::with_tokio_rt(runtime).block_on(async {
        BEGAN.set(Some(Instant::now()));
        test.await;
    });
}

/// Everything may be done; what concerns an instance `panic` panics.
pub struct AllowAll;

impl Consent for AllowAll {
    fn may_send(&self, _: &str, _: &str, instance: &str) -> bool {
        assert!(instance != "panic", "a fault in the actor of an integrator");
        true
    }

    fn may_act(&self, action: &str, _: &str) -> bool {
        action != "erase"
    }
}

/// How a site is set up.
#[derive(Clone)]
pub struct Setup {
    pub store: Arc<MemoryStore>,
    pub customer: Uuid,
    pub at_once: usize,
    pub keep: Duration,
    pub again_after_beats: u32,
    pub limits: Limits,
    pub bytes_per_message: Option<usize>,
    pub mode: Mode,
    /// Changes the ways to the queue.
    pub wrap: fn(QueueRoutes) -> QueueRoutes,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            customer: Uuid::from_u128(7),
            at_once: 5,
            keep: Duration::from_secs(24 * 3600),
            again_after_beats: 10,
            limits: Limits { total: 1 << 30, each: [u64::MAX; 3] },
            bytes_per_message: None,
            mode: Mode::Session,
            wrap: |routes| routes,
        }
    }
}

/// A running proxy.
pub struct Site {
    pub proxy: Proxy,
    pub queue: ActorRef<DurableQueue>,
    pub identity: Arc<Mutex<Identity>>,
    pub handle: SupervisorHandle,
    beats: Mutex<Vec<Heartbeat>>,
    sequence: AtomicU64,
}

static SITES: AtomicUsize = AtomicUsize::new(0);
static SEQUENCE: AtomicU64 = AtomicU64::new(0);

impl Site {
    pub async fn start(setup: &Setup) -> Self {
        let customer = RemoteId::customer(setup.customer);
        let identity =
            roles::delivery::identity::open(&*setup.store, customer, None, true, clock(), 1);
        let identity = Arc::new(Mutex::new(identity.unwrap()));
        let doorbell = Arc::new(Doorbell::default());
        let settings = QueueSettings {
            node: "proxy".into(),
            store: setup.store.clone(),
            identity: identity.clone(),
            limits: setup.limits,
            set_aside_bytes: 1 << 20,
            counted: true,
            keeper: None,
            doorbell: doorbell.clone(),
            turned_away: Arc::default(),
            clock,
        };
        let (queue_child, queue) =
            ChildSpec::actor("durable_queue", 8192, 10 * SECOND, move |_| {
                DurableQueue::open(settings.clone()).unwrap()
            });
        let parts = NodeParts {
            author: Author {
                identity: identity.clone(),
                source_type: SourceType::Proxy,
                group: String::new(),
                clock,
            },
            queue: (setup.wrap)(QueueRoutes::of(&queue)),
            store: setup.store.clone(),
            doorbell,
            link: None,
            stopping: Arc::new(AtomicBool::new(false)),
        };
        let node = NodeSettings {
            name: "proxy".into(),
            roles: vec!["proxy".into()],
            version: "1".into(),
            configuration: String::new(),
            mode: setup.mode,
            heartbeat_every: 30 * SECOND,
            again_after_beats: setup.again_after_beats,
            health: Arc::new(|_, _| Default::default()),
            random,
        };
        let proxy = ProxySettings {
            consent: Arc::new(AllowAll),
            at_once: setup.at_once,
            keep: setup.keep,
            status_within: 5 * SECOND,
            bytes_per_message: setup.bytes_per_message,
        };
        let (role, proxy) = tree(parts, node, proxy).unwrap();
        let name = format!("site-{}", SITES.fetch_add(1, Ordering::Relaxed));
        let intensity = Intensity::a_minute(100);
        let root = Supervisor::new(name, Strategy::OneForOne, intensity, Backoff::default());
        let handle = root.child(queue_child).child(role).start();
        assert!(handle.started().await);
        let (beats, sequence) = (Mutex::default(), AtomicU64::new(0));
        Self { proxy, queue, identity, handle, beats, sequence }
    }

    /// One whose node and integrators named are registered.
    pub async fn registered(setup: &Setup, component: u32) -> Self {
        let site = Self::start(setup).await;
        settle().await;
        site.answer_registrations(component).await;
        assert!(site.proxy.registration.borrow().id.is_some());
        site
    }

    pub async fn stop(self) {
        self.handle.stop().await;
    }

    pub fn id(&self) -> RemoteId {
        self.identity.lock().unwrap().id
    }

    /// Plays the parent: takes all that waits, and says it is stored.
    pub async fn sent(&self) -> Vec<Message> {
        let mut sent = Vec::new();
        loop {
            let next = NextBatch { allowed: [true; 3], bytes_max: 1 << 20, empty: false };
            let batch = self.queue.ask(next).await.unwrap().unwrap();
            let empty = batch.runs.is_empty();
            for run in &batch.runs {
                for (at, message) in protocol::message::Messages::of(&run.messages).enumerate() {
                    // As the parent's door does: identity, sizes, times.
                    let (_, blocks) = message.unwrap();
                    sent.push(
                        {
                            let n = run.header.first + at as u64;
                            blocks.check(&run.header, n, clock()).map(|parts| parts.message())
                        }
                        .unwrap(),
                    );
                }
            }
            let settle = Settle {
                outcomes: vec![(Exchanged::Stored, sent.len() as u32)],
                parts: batch.parts,
                ends: batch.ends.iter().map(|(key, _)| *key).collect(),
                beats: batch.beats.iter().map(|b| (b.node, b.beat)).collect(),
            };
            self.beats.lock().unwrap().extend(batch.beats);
            self.queue.ask(settle).await.unwrap().unwrap();
            if empty {
                return sent;
            }
        }
    }

    /// The heartbeats that went up so far.
    pub async fn beats(&self) -> Vec<Heartbeat> {
        assert!(self.sent().await.is_empty(), "messages are looked at first");
        std::mem::take(&mut self.beats.lock().unwrap())
    }

    /// Plays the server: answers every registration that was sent, and gives back all messages.
    pub async fn answer_registrations(&self, component: u32) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            let sent = self.sent().await;
            if sent.is_empty() {
                return all;
            }
            for message in &sent {
                self.answer(message, component).await;
            }
            all.extend(sent);
            settle().await;
        }
    }

    /// Plays the server: refuses a registration.
    pub async fn refuse(&self, message: &Message, refusal: &str) {
        let id = message.header.id;
        let answer = RegistrationAnswer { id: id.origin, refusal: refusal.to_owned() };
        self.down_to(id.origin, Service::RegistrationAnswer(answer), Some(id), 3600).await;
    }

    async fn answer(&self, message: &Message, component: u32) {
        let Service::Registration(registration) = &message.service else { return };
        let id = match registration {
            Registration::Node { .. } => message.header.id.origin.cut(0).child(component).unwrap(),
            Registration::Integrator { id, .. } => *id,
            Registration::Instances(_) => return,
        };
        let answer = RegistrationAnswer { id, refusal: String::new() };
        let answer = Service::RegistrationAnswer(answer);
        self.down_to(message.header.id.origin, answer, Some(message.header.id), 3600).await;
    }

    /// A message from the server.
    pub async fn down_to(
        &self,
        to: RemoteId,
        service: Service,
        answers: Option<MessageId>,
        time_to_live_s: u32,
    ) -> Message {
        let server = RemoteId::customer(Uuid::from_u128(1)).child(1).unwrap();
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed) + 1;
        let precedence = Precedence::Urgent;
        let id = MessageId { origin: server, epoch: 1, precedence, sequence };
        let message = Message {
            header: Header {
                id,
                order: sequence,
                source: server,
                source_type: SourceType::AppServer,
                destination: Some(Destination::Id(to)),
                channel: Channel::Back,
                answers,
                class: service.class().to_owned(),
                subclass: String::new(),
                occurred_at: clock(),
                accepted_at: clock(),
                persistence: Persistence::Normal,
                time_to_live_s: Some(time_to_live_s),
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
        };
        self.down(&message).await;
        message
    }

    /// Hands a message down, as often as one likes.
    pub async fn down(&self, message: &Message) {
        let id = message.header.id;
        let header = RunHeader {
            origin: id.origin,
            epoch: id.epoch,
            precedence: id.precedence,
            first: id.sequence,
            count: 1,
            left_out: Vec::new(),
            replayed: false,
            changed: false,
            path: vec![Hop { node: id.origin, received: clock(), sent: clock() }],
        };
        let run = Run { header, messages: message.encode().0.into() };
        self.queue.ask(TakeDown(vec![run])).await.unwrap().unwrap();
    }

    /// An action for an id.
    pub async fn act(&self, to: RemoteId, name: &str, time_to_live_s: u32) -> Message {
        let action_id = format!("action-{}", self.sequence.fetch_add(1, Ordering::Relaxed) + 1);
        let xml = format!("<action id='{action_id}' name='{name}'/>");
        let action = Service::Action(Action { action_id, name: name.into(), xml });
        self.down_to(to, action, None, time_to_live_s).await
    }

    /// Connects a client of that name.
    pub async fn connect(
        &self,
        name: &str,
        stream: Option<u8>,
        client: &Arc<Client>,
    ) -> Result<Connected, CallError> {
        let hello = Hello {
            protocols: vec![1],
            name: name.to_owned(),
            version: "1".to_owned(),
            callbacks: client.takes.clone(),
            stream: stream.map(|byte| [byte; 16]),
        };
        self.hello(hello, client).await
    }

    pub async fn hello(&self, hello: Hello, client: &Arc<Client>) -> Result<Connected, CallError> {
        let peer = PeerCredentials { uid: 0, gid: 0, pid: None };
        let (answer, session) = self.proxy.door.hello(peer, hello, client.clone()).await?;
        let (asked, of) = (client.asked_to_end.clone(), session.clone());
        let watch = tokio::spawn(async move {
            asked.notified().await;
            of.ended(Ended::Ended).await;
        });
        Ok(Connected { answer, session, watch })
    }
}

/// A connection.
pub struct Connected {
    pub answer: HelloAnswer,
    pub session: Arc<dyn IntegratorSession>,
    watch: tokio::task::JoinHandle<()>,
}

impl Connected {
    pub async fn call(&self, call: Call) -> Result<CallAnswer, CallError> {
        self.session.calls(vec![call]).await.pop().unwrap()
    }

    /// Makes an instance known; its id.
    pub async fn instance(&self, name: &str) -> RemoteId {
        let call = protocol::socket::InstanceCall { instance: name.into(), capabilities: None };
        match self.call(Call::Instance(call)).await {
            Ok(CallAnswer::Instance { instance_id, .. }) => instance_id,
            other => panic!("{other:?}"),
        }
    }

    pub async fn end(self, how: Ended) {
        self.watch.abort();
        self.session.ended(how).await;
    }
}

pub fn alarm(instance: &str, text: &str, seq: Option<u64>) -> Call {
    let call = AlarmCall::new(instance, clock(), "test", Severity::Major, text);
    Call::Alarm(AlarmCall { seq, ..call })
}

/// Lets everything happen that happens by itself.
pub async fn settle() {
    tokio::time::sleep(Duration::from_millis(1500)).await;
}

pub fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().filter_map(|m| m.service.headline()).map(|h| h.1.to_owned()).collect()
}

/// A queue that does not answer where a message says `stall`.
pub fn stalling(routes: QueueRoutes) -> QueueRoutes {
    let keep = routes.keep.clone();
    let stalls = supervision::Route::new(move |order: roles::delivery::orders::KeepWith| {
        let keep = keep.clone();
        Box::pin(async move {
            let says =
                |m: &protocol::message::Unnumbered| m.bytes.windows(5).any(|w| w == b"stall");
            if order.keep.messages.iter().any(says) {
                tokio::time::sleep(30 * SECOND).await;
            }
            keep.ask(order).await
        })
    });
    QueueRoutes { keep: stalls, ..routes }
}
