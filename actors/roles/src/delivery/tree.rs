//! The part of the tree that every node has.
//!
//! ```text
//! delivery            rest_for_one   5 in 60 s
//! ├── queues          one_for_one   10 in 60 s
//! │   └── durable_queue              alone on its arbiter: commits block
//! └── link            to the parent, where there is one
//! ```
//!
//! `rest_for_one`, because a link without the queue has nothing to carry. Restarts multiply: 10
//! below and 5 here make 50 in a minute at most.
use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use extension::communications::Protocol;
use supervision::{ActorRef, Backoff, ChildSpec, Intensity, Strategy, Supervisor};
use tokio::sync::watch;

use super::{
    doorbell::Doorbell,
    durable_queue::{Clock, DurableQueue, QueueSettings},
    intake::Intake,
    link::{Link, LinkSettings, LinkStatus},
    orders::Identity,
};

/// Orders that may wait for an answer: each exchange, call and module step is one.
const QUEUE_WAITING_MAX: usize = 8192;
/// How long the queue may take to answer: a commit on a worn-out disk, and what waits before it.
pub const QUEUE_ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How long the queue may take to stop: the commit it is in.
const QUEUE_STOPS_WITHIN: Duration = Duration::from_secs(10);

/// The way up.
pub struct Uplink {
    /// Parents in order of preference, as URLs.
    pub parents: Vec<String>,
    /// A parent that fails so long is left for the next.
    pub unhealthy_after: Duration,
    /// How to reach them.
    pub protocol: Arc<dyn Protocol>,
}

/// What the rest of the node needs to reach.
#[derive(Clone)]
pub struct Delivery {
    /// Keeps messages.
    pub queue: ActorRef<DurableQueue>,
    /// Wakes who waits for a queue.
    pub doorbell: Arc<Doorbell>,
    /// Who the node is.
    pub identity: Arc<Mutex<Identity>>,
    /// Answers children.
    pub door: Arc<Intake>,
    /// How the link up is; none at the top.
    pub link: Option<watch::Receiver<LinkStatus>>,
    /// Set when the node goes down: nothing new is taken.
    pub stopping: Arc<AtomicBool>,
    /// The time.
    pub clock: Clock,
}

/// The subtree, and what reaches it.
pub fn tree(
    settings: QueueSettings,
    uplink: Option<Uplink>,
    random: fn() -> u64,
) -> (ChildSpec, Delivery) {
    let (doorbell, identity, clock) =
        (settings.doorbell.clone(), settings.identity.clone(), settings.clock);
    let (node, is_top) = (settings.node.clone(), settings.keeper.is_some());
    let turned_away = settings.turned_away.clone();
    let (queue_child, queue) = queue(settings);
    let queues =
        Supervisor::new("queues", Strategy::OneForOne, Intensity::a_minute(10), Backoff::default());
    let mut delivery = Supervisor::new(
        "delivery",
        Strategy::RestForOne,
        Intensity::a_minute(5),
        Backoff::default(),
    )
    .child(ChildSpec::supervisor(queues.child(queue_child)));
    let stopping = Arc::new(AtomicBool::new(false));
    let door = Arc::new(Intake {
        take: queue.route(),
        down: queue.route(),
        doorbell: doorbell.clone(),
        identity: identity.clone(),
        clock,
        is_top,
        stopping: stopping.clone(),
        turned_away,
    });
    let mut link = None;
    if let Some(uplink) = uplink {
        let url = uplink.parents.first().cloned().unwrap_or_default();
        let (status, statuses) = watch::channel(LinkStatus::of(url));
        let settings = LinkSettings {
            parents: uplink.parents,
            unhealthy_after: uplink.unhealthy_after,
            protocol: uplink.protocol,
            node,
            next: queue.route(),
            settle: queue.route(),
            release: queue.route(),
            take_down: queue.route(),
            ask: queue.route(),
            doorbell: doorbell.clone(),
            identity: identity.clone(),
            random,
            clock,
            status: Arc::new(status),
        };
        let (child, _) =
            ChildSpec::actor("link", 1, QUEUE_ANSWERS_WITHIN, move |_| Link::new(settings.clone()));
        delivery = delivery.child(child);
        link = Some(statuses);
    }
    let reached = Delivery { queue, doorbell, identity, door, link, stopping, clock };
    (ChildSpec::supervisor(delivery), reached)
}

/// The durable queue as a child. Opening reads the disk; where that fails the child fails, and is
/// tried again with backoff until the node gives up.
fn queue(settings: QueueSettings) -> (ChildSpec, ActorRef<DurableQueue>) {
    let (child, queue) =
        ChildSpec::actor("durable_queue", QUEUE_WAITING_MAX, QUEUE_ANSWERS_WITHIN, move |_| {
            match DurableQueue::open(settings.clone()) {
                Ok(queue) => queue,
                // Without its state a queue may not answer: the supervisor tries again.
                Err(error) => panic!("durable queue cannot read its state: {error}"),
            }
        });
    (child.on_own_arbiter().stop_within(QUEUE_STOPS_WITHIN), queue)
}
