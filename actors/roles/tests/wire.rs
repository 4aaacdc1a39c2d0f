//! What the link puts on the wire, and in which order.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use extension::communications::{ExchangeError, Protocol};
use module_memory::MemoryStore;
use protocol::{
    Message, MessageId, Precedence,
    Precedence::{Bulk, Normal, Urgent},
    exchange::{Answer, Exchange, Outcome},
    heartbeat::Mode,
    message::Unnumbered,
};
use roles::delivery::{
    doorbell::Doorbell,
    durable_queue::QueueSettings,
    orders::{Identity, Keep, Kept},
    tree::{Delivery, Uplink, tree},
};
use sandbox::{ROOMY, alarm, clock, id, random};
use supervision::{Backoff, Intensity, Strategy, Supervisor, SupervisorHandle};

const LONG: Duration = Duration::from_secs(20);

/// A parent that takes all when it is there, and notes what it is sent in the order of arrival.
#[derive(Clone)]
struct Parent {
    there: Arc<Mutex<bool>>,
    wire: Arc<Mutex<Vec<MessageId>>>,
}

#[async_trait]
impl Protocol for Parent {
    fn mode(&self) -> Mode {
        // Without a back-channel: nothing but what carries is sent.
        Mode::Message
    }

    async fn exchange(&self, _: &str, body: Bytes, _: Duration) -> Result<Bytes, ExchangeError> {
        if !*self.there.lock().unwrap() {
            return Err(ExchangeError::Unreachable("away".to_owned()));
        }
        let exchange = Exchange::decode(&body).unwrap();
        let mut sent = 0;
        for run in &exchange.runs {
            let header = &run.header;
            let of = |sequence| MessageId {
                origin: header.origin,
                epoch: header.epoch,
                precedence: header.precedence,
                sequence,
            };
            self.wire.lock().unwrap().extend(header.numbers().map(of));
            sent += header.present();
        }
        // Answers come in any order.
        tokio::time::sleep(Duration::from_millis(random() % 5)).await;
        let answer = Answer {
            incarnation: exchange.incarnation,
            precedence: exchange.precedence,
            number: exchange.number,
            digest: exchange.digest,
            outcomes: if sent > 0 { vec![(Outcome::Stored, sent)] } else { Vec::new() },
            retry_after_ms: 0,
            credit_bytes: 1 << 20,
            down: Vec::new(),
            questions: Vec::new(),
        };
        Ok(answer.encode())
    }
}

struct Child {
    delivery: Delivery,
    parent: Parent,
    handle: SupervisorHandle,
}

impl Child {
    fn start(name: &'static str) -> Self {
        let parent = Parent { there: Arc::new(Mutex::new(false)), wire: Arc::default() };
        let settings = QueueSettings {
            node: "child".into(),
            store: Arc::new(MemoryStore::new()),
            identity: Arc::new(Mutex::new(Identity { id: id(1), epoch: 77 })),
            limits: ROOMY,
            set_aside_bytes: 1 << 20,
            counted: true,
            keeper: None,
            doorbell: Arc::new(Doorbell::default()),
            turned_away: Arc::default(),
            clock,
        };
        let uplink = Uplink {
            parents: vec!["parent".to_owned()],
            unhealthy_after: Duration::from_secs(30),
            protocol: Arc::new(parent.clone()),
        };
        let (child, delivery) = tree(settings, Some(uplink), random);
        let intensity = Intensity::a_minute(10);
        let root = Supervisor::new(name, Strategy::RestForOne, intensity, Backoff::default());
        Self { delivery, parent, handle: root.child(child).start() }
    }

    /// Keeps so many alarms in one commit.
    async fn keep(&self, count: usize, precedence: Precedence, time_to_live_s: Option<u32>) {
        let mut message: Message = alarm(self.delivery.door.identity(), "text", precedence);
        message.header.time_to_live_s = time_to_live_s;
        let messages = (0..count).map(|_| Unnumbered::from(&message)).collect();
        let keep = Keep { messages, changes: vec![], ends: vec![] };
        let kept = self.delivery.queue.ask(keep).await.unwrap().unwrap();
        assert!(kept.iter().all(|k| matches!(k, Ok(Kept::Stored(_)))));
    }

    async fn come_back(&self, expected: usize) -> Vec<MessageId> {
        *self.parent.there.lock().unwrap() = true;
        let end = tokio::time::Instant::now() + LONG;
        while self.parent.wire.lock().unwrap().len() < expected {
            assert!(tokio::time::Instant::now() < end, "all are sent");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.parent.wire.lock().unwrap().clone()
    }
}

// ACT-2: order on the wire is the queue's order: within a precedence as they were kept, and after
// an outage the urgent ones before all else, also where bulk stood in the link's hands before.
#[test]
fn order_on_the_wire_is_the_order_of_the_queue() {
    actix::System::new().block_on(async {
        let child = Child::start("wire-order");
        for (precedence, count) in [(Bulk, 50), (Normal, 3000), (Urgent, 50)] {
            for _ in 0..10 {
                child.keep(count / 10, precedence, None).await;
            }
        }
        let wire = child.come_back(3100).await;
        for precedence in [Urgent, Normal, Bulk] {
            let sent: Vec<u64> =
                wire.iter().filter(|m| m.precedence == precedence).map(|m| m.sequence).collect();
            assert!(sent.windows(2).all(|w| w[0] < w[1]), "{precedence}: {sent:?}");
        }
        assert!(wire[..50].iter().all(|m| m.precedence == Urgent), "{:?}", &wire[..50]);
        assert_eq!(wire.len(), 3100, "each once");
        child.handle.stop().await;
    });
}

// QUE-16: neither is sent what outlived its time in the queue, nor what did in the link's hands.
#[test]
fn what_outlived_its_time_is_never_sent() {
    actix::System::new().block_on(async {
        let child = Child::start("wire-late");
        child.keep(1, Normal, Some(1)).await;
        let expires = tokio::time::Instant::now() + Duration::from_secs(1);
        child.keep(1, Normal, Some(3600)).await;
        // The time to live has to pass.
        tokio::time::sleep_until(expires).await;
        let wire = child.come_back(1).await;
        assert_eq!(wire.iter().map(|m| m.sequence).collect::<Vec<_>>(), [2]);
        let account = child.delivery.queue.ask(roles::delivery::orders::AskFigures).await.unwrap();
        let account = account.account;
        assert_eq!((account.taken, account.expired), (2, 1), "{account:?}");
        assert!(account.balanced());
        child.handle.stop().await;
    });
}
