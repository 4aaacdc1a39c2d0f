//! The proxy's own part of the supervision tree (house §6, §7).
//!
//! ```text
//! role                  one_for_one    5 in 60 s
//! ├── integrators       one_for_one   10 in 60 s   a child a connected integrator
//! ├── registration      of the node
//! ├── registrations     of integrators
//! ├── forwarder
//! ├── heartbeat
//! └── streams           forgets what nobody uses any more
//! ```
//!
//! Asks go towards the durable queue and never back. Restarts multiply: 10 below and 5 here make
//! 50 in a minute at most.
use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use actix::prelude::*;
use extension::{
    integrators::IntegratorDoor,
    storage::{QueueStore, StoreError},
};
use protocol::{Refusal, heartbeat::Mode};
use supervision::{ActorRef, Backoff, ChildSpec, Intensity, Strategy, Supervisor};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    consent::Consent,
    counted::Reports,
    forwarder::{Forwarder, ForwarderSettings},
    handler::Shared,
    identifiers::Identifiers,
    integrators::{CONNECTIONS_MAX, Door},
    once::{self, Once},
    registration::{IntegratorRegistration, IntegratorsSettings},
    status::ask_integrators,
    streams,
    switchboard::Switchboard,
};
use crate::delivery::{
    queue_routes::{QueueError, QueueRoutes},
    registration::NodeStatus,
    upkeep::{NodeParts, NodeSettings, Upkeep},
};

/// Hellos and answers that wait for the registrations of integrators.
const WAITING_MAX: usize = 1024;
/// How long these may take: commits of a worn-out disk, and instances that are registered.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// Actors that are asked nothing.
const NOBODY_ASKS: usize = 1;
/// How often unused streams, and what is too old of other calls, are looked for.
const SWEEP: Duration = Duration::from_secs(6 * 3600);
/// The first look after a start waits until whoever is there has used its stream again, which it
/// does within the hour: a clock that jumped while the node was down makes every stream look old.
const FIRST_SWEEP: Duration = Duration::from_secs(3600);
/// Streams forgotten in one commit.
const SWEEP_MAX: usize = 64;
/// Rows of calls with a key forgotten in one commit.
const SWEEP_ROWS_MAX: usize = 1024;

/// What only a proxy needs to be told.
#[derive(Clone)]
pub struct ProxySettings {
    /// The customer's word.
    pub consent: Arc<dyn Consent>,
    /// Callbacks at once over all integrators (ACT-4).
    pub at_once: usize,
    /// How long what came down waits for who is away (RTE-6).
    pub keep: Duration,
    /// How long integrators have to say how they are.
    pub status_within: Duration,
    /// Largest message the throttle lets through, bytes.
    pub bytes_per_message: Option<usize>,
}

/// What the rest of the node needs to reach.
#[derive(Clone)]
pub struct Proxy {
    /// For `modules/ipc`.
    pub door: Arc<dyn IntegratorDoor>,
    /// How the node's registration stands, for health.
    pub registration: watch::Receiver<NodeStatus>,
    /// Who is connected.
    pub switchboard: Arc<Switchboard>,
    /// Numbers of integrators and instances, both ways (IDM-6).
    pub identifiers: Arc<Identifiers>,
    /// What integrators count, for the operator's door.
    pub reports: Arc<Reports>,
}

/// The subtree, and what reaches it. Reads the disk once; fails where it cannot be read.
pub fn tree(
    parts: NodeParts,
    node: NodeSettings,
    proxy: ProxySettings,
) -> Result<(ChildSpec, Proxy), StoreError> {
    let upkeep = Upkeep::new(parts.clone(), node.clone())?;
    let identifiers = Arc::new(Identifiers::new(parts.store.clone()));
    let switchboard = Arc::new(Switchboard::new(CONNECTIONS_MAX, proxy.at_once));
    let (registrations, registrar) = registrations(&parts, &node, &upkeep, &identifiers);
    let integrators = Supervisor::new(
        "integrators",
        Strategy::OneForOne,
        Intensity::a_minute(10),
        Backoff::default(),
    )
    .children_max(CONNECTIONS_MAX);
    let reports = Arc::new(Reports::default());
    let shared = Arc::new(Shared {
        author: parts.author.clone(),
        queue: parts.queue.clone(),
        store: parts.store.clone(),
        identifiers: identifiers.clone(),
        once: Arc::new(Once::new(parts.store.clone())),
        consent: proxy.consent.clone(),
        switchboard: switchboard.clone(),
        reports: reports.clone(),
        send_waiting: registrar.route(),
        bytes_per_message: proxy.bytes_per_message,
        stopping: parts.stopping.clone(),
    });
    let door = Door {
        shared,
        enlist: registrar.route(),
        handlers: integrators.reference(),
        mode: node.mode,
        served: AtomicU64::new(0),
    };
    let ask = ask_integrators(
        switchboard.clone(),
        parts.store.clone(),
        parts.author.clone(),
        proxy.status_within,
    );
    let mut role =
        Supervisor::new("role", Strategy::OneForOne, Intensity::a_minute(5), Backoff::default())
            .child(ChildSpec::supervisor(integrators))
            .child(registrations)
            .child(upkeep.registration(Some(registrar.route())));
    if node.mode == Mode::Session {
        // Without a back-channel nothing comes down (ACT-5).
        role = role.child(forwarder(&parts, &proxy, &upkeep, &switchboard, &identifiers));
    }
    let role = role.child(upkeep.heartbeat(Some(ask))).child(sweeper(&parts));
    let registration = upkeep.status();
    let door = Arc::new(door);
    let reached = Proxy { door, registration, switchboard, identifiers, reports };
    Ok((ChildSpec::supervisor(role), reached))
}

fn registrations(
    parts: &NodeParts,
    node: &NodeSettings,
    upkeep: &Upkeep,
    identifiers: &Arc<Identifiers>,
) -> (ChildSpec, ActorRef<IntegratorRegistration>) {
    let settings = IntegratorsSettings {
        mode: node.mode,
        again_after_beats: node.again_after_beats,
        author: parts.author.clone(),
        queue: parts.queue.clone(),
        store: parts.store.clone(),
        identifiers: identifiers.clone(),
        node: upkeep.status(),
        beats: upkeep.beats(),
        roll: Arc::default(),
        random: node.random,
    };
    ChildSpec::actor("registrations", WAITING_MAX, ANSWERS_WITHIN, move |_| {
        IntegratorRegistration::new(settings.clone())
    })
}

fn forwarder(
    parts: &NodeParts,
    proxy: &ProxySettings,
    upkeep: &Upkeep,
    switchboard: &Arc<Switchboard>,
    identifiers: &Arc<Identifiers>,
) -> ChildSpec {
    let settings = ForwarderSettings {
        author: parts.author.clone(),
        queue: parts.queue.clone(),
        store: parts.store.clone(),
        identifiers: identifiers.clone(),
        consent: proxy.consent.clone(),
        switchboard: switchboard.clone(),
        doorbell: parts.doorbell.clone(),
        done: upkeep.done.clone(),
        keep: proxy.keep,
        at_once: proxy.at_once.max(1),
    };
    let make = move |_| Forwarder::new(settings.clone());
    ChildSpec::actor("forwarder", NOBODY_ASKS, ANSWERS_WITHIN, make).0
}

fn sweeper(parts: &NodeParts) -> ChildSpec {
    let parts = parts.clone();
    let make = move |_| Sweeper { parts: parts.clone() };
    ChildSpec::actor("streams", NOBODY_ASKS, ANSWERS_WITHIN, make).0
}

/// Forgets streams that nobody uses (contract §7), and calls with a key that are too old.
struct Sweeper {
    parts: NodeParts,
}

supervision::supervised!(Sweeper);

impl Actor for Sweeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let parts = self.parts.clone();
        let sweeps = async move {
            tokio::time::sleep(FIRST_SWEEP).await;
            loop {
                if let Err(error) = sweep(&*parts.store, &parts.queue, parts.author.now()).await {
                    warn!(target: "proxy", %error, "unused streams are looked for again later");
                }
                tokio::time::sleep(SWEEP).await;
            }
        };
        ctx.spawn(sweeps.into_actor(self));
    }
}

async fn sweep(store: &dyn QueueStore, queue: &QueueRoutes, now: i64) -> Result<(), QueueError> {
    let down = |_: StoreError| QueueError::Refused(Refusal::StorageDown);
    loop {
        let old = once::old(store, now, SWEEP_ROWS_MAX).map_err(down)?;
        if old.is_empty() {
            break;
        }
        queue.apply(old).await?;
    }
    loop {
        let unused = streams::unused(store, now, SWEEP_MAX).map_err(down)?;
        if unused.is_empty() {
            return Ok(());
        }
        let count = unused.len();
        let mut changes = Vec::new();
        for stream in unused {
            changes.extend(streams::forget(store, &stream).map_err(down)?);
        }
        queue.apply(changes).await?;
        info!(target: "proxy", count, "streams unused for 30 days are forgotten");
    }
}
