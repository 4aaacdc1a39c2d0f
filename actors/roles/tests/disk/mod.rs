//! One node's queue on a real store, without a link: what it keeps is read from the disk itself.
#![allow(dead_code, reason = "each test file uses a part of it")]
pub mod counting;

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use extension::{
    communications::{Door, Peer},
    storage::{Place, QueueName, QueueStore, Value},
};
use module_redb::{OpenError, OpenReport, Options, RedbStore};
use protocol::{
    Message, Precedence, Refusal, RemoteId,
    codec::Reader,
    ends::{End, EndReport},
    exchange::{Answer, Exchange, Outcome, digest_of},
    message::{Persistence, Unnumbered, fill_in},
    run::{Hop, Run, RunHeader},
};
use roles::delivery::{
    doorbell::Doorbell,
    durable_queue::QueueSettings,
    eviction::Limits,
    identity,
    lanes::gone_key,
    orders::{AskFigures, Batch, Figures, Identity, Keep, Kept, NextBatch, Settle},
    recount,
    runs::{Gone, StoredRun},
    state::{ENDS, GONE, STATE, STATE_KEY, State},
    tree::{Delivery, tree},
};
use supervision::{Backoff, Intensity, Strategy, Supervisor, SupervisorHandle};

use crate::sandbox::{alarm, id, random};

/// How far the clock of these tests is ahead, ms.
static AHEAD: AtomicI64 = AtomicI64::new(0);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Real time and what a test added to it: a clock that only one test may have.
fn clock() -> i64 {
    crate::sandbox::clock() + AHEAD.load(Ordering::Relaxed)
}

/// Lets the clock of the running test go on at once.
pub fn pass_s(seconds: i64) {
    AHEAD.fetch_add(seconds * 1000, Ordering::Relaxed);
}

/// Runs a test with the clock to itself.
pub fn run(test: impl std::future::Future<Output = ()>) {
    let _only: MutexGuard<'_, ()> = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    AHEAD.store(0, Ordering::Relaxed);
    actix::System::new().block_on(test);
}

/// All precedences may be full.
pub fn total(total: u64) -> Limits {
    Limits { total, each: [u64::MAX; 3] }
}

pub fn customer() -> RemoteId {
    id(1).cut(0)
}

/// A queue that serves.
pub struct Node {
    pub delivery: Delivery,
    pub store: Arc<dyn QueueStore>,
    handle: SupervisorHandle,
}

/// What a message is like beside its text.
#[derive(Clone, Copy)]
pub struct Like(pub Precedence, pub Persistence, pub Option<u32>);

impl Node {
    /// Opens the store in a folder as a starting node does.
    pub fn open(folder: &Path, limits: Limits) -> (Self, OpenReport) {
        // Who had it before closes it on a thread of its own.
        let opened = loop {
            match RedbStore::open(folder, &Options::default()) {
                Err(OpenError::InUse { .. }) => std::thread::yield_now(),
                opened => break opened.unwrap(),
            }
        };
        let (store, proved) = (Arc::new(opened.store), opened.proved);
        let who = identity::open(&*store, customer(), Some(1), proved, clock(), random()).unwrap();
        (Self::on(store, who, limits), opened.report)
    }

    pub fn on(store: Arc<dyn QueueStore>, who: Identity, limits: Limits) -> Self {
        Self::counted(store, who, limits, true)
    }

    /// As [`Node::on`]; what the start has not counted is counted while it serves.
    pub fn counted(
        store: Arc<dyn QueueStore>,
        who: Identity,
        limits: Limits,
        counted: bool,
    ) -> Self {
        let settings = QueueSettings {
            node: "node".into(),
            store: store.clone(),
            identity: Arc::new(Mutex::new(who)),
            limits,
            set_aside_bytes: 1 << 20,
            counted,
            keeper: None,
            doorbell: Arc::new(Doorbell::default()),
            turned_away: Arc::default(),
            clock,
        };
        let (child, delivery) = tree(settings, None, random);
        let intensity = Intensity::a_minute(3);
        let root = Supervisor::new("disk", Strategy::RestForOne, intensity, Backoff::default());
        Self { delivery, store, handle: root.child(child).start() }
    }

    /// Stops it; its store is closed when nobody has it any more.
    pub async fn stop(self) {
        self.handle.stop().await;
    }

    pub fn message(&self, bytes: usize, like: Like) -> Message {
        let mut message = alarm(self.delivery.door.identity(), "", like.0);
        message.header.persistence = like.1;
        message.header.time_to_live_s = like.2;
        message.header.accepted_at = clock();
        message.header.occurred_at = clock();
        fill(&mut message, bytes);
        message
    }

    /// Keeps `count` messages of so many wire bytes in one commit.
    pub async fn keep(&self, count: usize, bytes: usize, like: Like) -> Vec<Result<Kept, Refusal>> {
        let message = self.message(bytes, like);
        let messages = (0..count).map(|_| Unnumbered::from(&message)).collect();
        let keep = Keep { messages, changes: vec![], ends: vec![] };
        self.delivery.queue.ask(keep).await.unwrap().unwrap()
    }

    pub async fn kept(&self, count: usize, bytes: usize, like: Like) {
        let kept = self.keep(count, bytes, like).await;
        assert!(kept.iter().all(|k| matches!(k, Ok(Kept::Stored(_)))), "{kept:?}");
    }

    pub async fn figures(&self) -> Figures {
        self.delivery.queue.ask(AskFigures).await.unwrap()
    }

    pub async fn next(&self, bytes_max: usize) -> Batch {
        let next = NextBatch { allowed: [true; 3], bytes_max, empty: false };
        self.delivery.queue.ask(next).await.unwrap().unwrap()
    }

    /// The parent has the first so many messages of a batch, and was full for the rest.
    pub async fn settle(&self, batch: &Batch, stored: u32) {
        let all: u32 = batch.parts.iter().map(|p| p.positions.len() as u32).sum();
        let later = Outcome::Refused(Refusal::QueueFull);
        let outcomes = vec![(Outcome::Stored, stored), (later, all - stored)];
        let parts = batch.parts.clone();
        let settle = Settle { parts, outcomes, ends: vec![], beats: vec![] };
        self.delivery.queue.ask(settle).await.unwrap().unwrap();
    }

    /// Numbers of the messages that stand in `up` on disk.
    pub fn on_disk(&self, precedence: Precedence) -> Vec<u64> {
        let (up, mut numbers) = (QueueName::new("up"), Vec::new());
        let mut visit = |position: u64, value: Value<'_>| {
            if let Value::Good(raw) = value {
                let stored = StoredRun::decode(&bytes::Bytes::copy_from_slice(raw)).unwrap();
                let row = self.store.row(GONE, &gone_key(&up, Place { precedence, position }));
                let gone = row.unwrap().map(|r| Gone::from_bytes(&r)).unwrap_or_default();
                let first = stored.run.header.first;
                numbers.extend(stored.left(&gone).map(|(at, _)| first + u64::from(at)));
            }
            ControlFlow::Continue(())
        };
        self.store.runs(&up, precedence, 0, &mut visit).unwrap();
        numbers
    }

    /// End reports that wait: precedence, numbers, end, reason.
    pub fn ends(&self) -> Vec<(Precedence, Vec<u64>, End, String)> {
        let mut ends = Vec::new();
        let mut visit = |_: &[u8], value: &[u8]| {
            let r = EndReport::read(&mut Reader::new(value)).unwrap();
            let numbers = (r.first..r.first + u64::from(r.count)).collect();
            ends.push((r.precedence, numbers, r.end, r.reason));
            ControlFlow::Continue(())
        };
        self.store.rows(ENDS, &[], &[], &mut visit).unwrap();
        ends
    }

    /// Numbers that ended so, by the reports.
    pub fn ended(&self, precedence: Precedence, end: End) -> Vec<u64> {
        let mut all: Vec<u64> = Vec::new();
        for (_, numbers, ..) in self.ends().into_iter().filter(|e| (e.0, e.2) == (precedence, end))
        {
            all.extend(numbers);
        }
        all
    }

    /// The account balances, and counters, account and disk say the same.
    pub async fn is_sound(&self) -> Figures {
        let figures = self.figures().await;
        assert!(figures.account.balanced(), "{:?}", figures.account);
        let row = self.store.row(STATE, STATE_KEY).unwrap().unwrap();
        let state = State::decode(&row).unwrap();
        let count = recount::count(&*self.store, &state).unwrap();
        assert_eq!(count.differences, []);
        assert_eq!(count.queued, Some(state.account.queued));
        assert_eq!(figures.account.queued, state.account.queued);
        figures
    }
}

/// Hands an exchange to the node's door; what became of its messages.
pub async fn knock(node: &Node, exchange: &Exchange) -> Vec<(Outcome, u32)> {
    let peer = Peer { id: None, address: None };
    let body = exchange.encode();
    let answer = node.delivery.door.knock(peer, body, Duration::ZERO).await.unwrap();
    Answer::decode(&answer).unwrap().outcomes
}

/// Pads the text until the message has so many wire bytes.
pub fn fill(message: &mut Message, bytes: usize) {
    for _ in 0..4 {
        let missing = bytes as i64 - message.encode().0.len() as i64;
        if let protocol::service::Service::Alarm(alarm) = &mut message.service {
            let len = alarm.text.len() as i64 + missing;
            alarm.text = "x".repeat(len.max(0) as usize);
        }
    }
    assert_eq!(message.encode().0.len(), bytes);
}

/// An exchange of a child that carries as many runs of one message each.
pub fn exchange_of_runs(number: u64, first: u64, count: u64, message: &Message) -> Exchange {
    let one = |at| exchange(number, first + at, 1, message);
    let runs: Vec<Run> = (0..count).flat_map(|at| one(at).runs).collect();
    Exchange { digest: digest_of(&runs), runs, ..one(0) }
}

/// An exchange of a child that carries one run of `count` messages.
pub fn exchange(number: u64, first: u64, count: u32, message: &Message) -> Exchange {
    let sender = id(9);
    let mut bytes = Vec::new();
    let precedence = message.header.id.precedence;
    for at in 0..u64::from(count) {
        let mut own = message.clone();
        own.header.id.origin = sender;
        own.header.source = sender;
        let unnumbered = Unnumbered::from(&own);
        let from = bytes.len();
        bytes.extend_from_slice(&unnumbered.bytes);
        fill_in(&mut bytes[from..], unnumbered.blanks, first + at, first + at);
    }
    let header = RunHeader {
        origin: sender,
        epoch: message.header.id.epoch,
        precedence,
        first,
        count,
        left_out: Vec::new(),
        replayed: false,
        changed: false,
        path: vec![Hop { node: sender, received: clock(), sent: clock() }],
    };
    let epoch = header.epoch;
    let runs = vec![Run { header, messages: bytes.into() }];
    Exchange {
        incarnation: 5,
        precedence,
        number,
        digest: digest_of(&runs),
        previous: 0,
        oldest: number,
        beats: vec![],
        ends: vec![],
        acknowledgements: vec![],
        runs,
        sender: protocol::exchange::Sender { id: sender, epoch },
    }
}
