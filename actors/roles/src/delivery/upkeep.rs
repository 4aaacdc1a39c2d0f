//! What every node with a parent does for itself: registers, and says how it is.
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use extension::storage::{QueueStore, StoreError};
use protocol::heartbeat::Mode;
use supervision::{ChildSpec, Route};
use tokio::sync::watch;

use super::{
    author::Author,
    done::Done,
    doorbell::Doorbell,
    heartbeat::{AskHealth, AskIntegrators, Heart, HeartbeatSettings},
    link::LinkStatus,
    queue_routes::QueueRoutes,
    registration::{Answered, NodeRegistration, NodeStatus, RegistrationSettings},
};

/// These actors are asked nothing.
const WAITING_MAX: usize = 1;
/// For the same reason of no effect.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// What a node with a parent says of itself.
#[derive(Clone)]
pub struct NodeSettings {
    /// Its name, unique within the customer.
    pub name: String,
    /// What it is for.
    pub roles: Vec<String>,
    /// Version of the program.
    pub version: String,
    /// Digest of its configuration.
    pub configuration: String,
    /// Whether the link up has a back-channel.
    pub mode: Mode,
    /// Time between two heartbeats.
    pub heartbeat_every: Duration,
    /// Heartbeats without an acknowledgement after which it registers again (PRX-11).
    pub again_after_beats: u32,
    /// What health says.
    pub health: AskHealth,
    /// Random numbers, for backoff and the nonce.
    pub random: fn() -> u64,
}

/// What the node already has.
#[derive(Clone)]
pub struct NodeParts {
    /// Writes messages; knows who the node is, and the time.
    pub author: Author,
    /// The way to the durable queue.
    pub queue: QueueRoutes,
    /// For rows that are read.
    pub store: Arc<dyn QueueStore>,
    /// Rings when something comes down.
    pub doorbell: Arc<Doorbell>,
    /// How the link up is; none at the top.
    pub link: Option<watch::Receiver<LinkStatus>>,
    /// Set when the node goes down: nothing new is taken.
    pub stopping: Arc<AtomicBool>,
}

/// Makes the children that do it. Hold one per node: what the actors share is in here.
#[derive(Clone)]
pub struct Upkeep {
    parts: NodeParts,
    node: NodeSettings,
    status: Arc<watch::Sender<NodeStatus>>,
    beats: Arc<watch::Sender<u64>>,
    /// Back-channel messages this node has acted on.
    pub done: Arc<Done>,
}

impl Upkeep {
    /// Reads the disk once; fails where it cannot be read.
    pub fn new(parts: NodeParts, node: NodeSettings) -> Result<Self, StoreError> {
        let done = Arc::new(Done::load(&*parts.store)?);
        let id = parts.author.identity().id;
        let status = match id.is_unregistered() {
            true => NodeStatus::registering(),
            false => NodeStatus { id: Some(id), detail: String::new() },
        };
        let (status, beats) = (Arc::new(watch::channel(status).0), Arc::new(watch::channel(0).0));
        Ok(Self { parts, node, status, beats, done })
    }

    /// How registration stands.
    pub fn status(&self) -> watch::Receiver<NodeStatus> {
        self.status.subscribe()
    }

    /// Counts heartbeats that went up.
    pub fn beats(&self) -> watch::Receiver<u64> {
        self.beats.subscribe()
    }

    /// The child `registration`. `below`: who takes answers to registrations of integrators.
    pub fn registration(&self, below: Option<Route<Answered>>) -> ChildSpec {
        let (parts, node) = (&self.parts, &self.node);
        let settings = RegistrationSettings {
            name: node.name.clone(),
            roles: node.roles.clone(),
            version: node.version.clone(),
            mode: node.mode,
            again_after_beats: node.again_after_beats,
            author: parts.author.clone(),
            queue: parts.queue.clone(),
            store: parts.store.clone(),
            doorbell: parts.doorbell.clone(),
            beats: self.beats(),
            done: self.done.clone(),
            status: self.status.clone(),
            below,
            random: node.random,
        };
        let make = move |_| NodeRegistration::new(settings.clone());
        ChildSpec::actor("registration", WAITING_MAX, ANSWERS_WITHIN, make).0
    }

    /// The child `heartbeat`. `integrators`: asks them how they are.
    pub fn heartbeat(&self, integrators: Option<AskIntegrators>) -> ChildSpec {
        let (parts, node) = (&self.parts, &self.node);
        let settings = HeartbeatSettings {
            every: node.heartbeat_every,
            name: node.name.clone(),
            roles: node.roles.clone(),
            version: node.version.clone(),
            mode: node.mode,
            configuration: node.configuration.clone(),
            author: parts.author.clone(),
            queue: parts.queue.clone(),
            store: parts.store.clone(),
            done: self.done.clone(),
            status: self.status(),
            beats: self.beats.clone(),
            doorbell: parts.doorbell.clone(),
            link: parts.link.clone(),
            integrators,
            health: node.health.clone(),
        };
        let make = move |_| Heart::new(settings.clone());
        ChildSpec::actor("heartbeat", WAITING_MAX, ANSWERS_WITHIN, make).0
    }
}
