//! Starts one node: store, delivery, role, doors; stops it in reverse.
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use extension::{records::Records, storage::QueueStore};
use protocol::{RemoteId, heartbeat::Mode, message::SourceType};
use roles::{
    app_server::{directory, query::AppRecords, tree as app_tree},
    delivery::{
        author::Author,
        doorbell::Doorbell,
        durable_queue::{MakeKeeper, QueueSettings},
        eviction::Limits,
        heartbeat::AskHealth,
        identity,
        orders::Identity,
        queue_routes::QueueRoutes,
        recount,
        registration::NodeStatus,
        state::STATE,
        tree::{Delivery, Uplink, tree},
        upkeep::{NodeParts, NodeSettings, Upkeep},
    },
};
use supervision::{Backoff, ChildSpec, Exit, Intensity, Strategy, Supervisor, SupervisorHandle};
use tokio::sync::watch;
use tracing::{Instrument, info};
use uuid::Uuid;

use crate::{
    assemble::{self, OpenDoor},
    config::Config,
    health::{Seen, judge},
    node_view::{NodeView, Nodes},
    proxy_door::{self, ProxyDoor},
    role::Role,
};

/// Number of an application server within its provider: it allots the others.
const APP_SERVER_NUMBER: u32 = 1;

/// How far a drill has set the clock of this process off, ms.
static CLOCK_OFF_MS: AtomicI64 = AtomicI64::new(0);

/// The clock of this process, ms since 1970 UTC: the stamp of messages.
#[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn clock() -> i64 {
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    now + CLOCK_OFF_MS.load(Ordering::Relaxed)
}

/// Sets the clock of this process off from the machine's, until it ends: a drill, for where the
/// machine's clock is not ours to set, as in a container.
pub fn set_clock_off(ms: i64) {
    CLOCK_OFF_MS.store(ms, Ordering::Relaxed);
}

/// A random number; where the kernel has none, one from the clock and a counter.
pub fn random() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    getrandom::u64().unwrap_or_else(|_| {
        let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
        (clock() as u64).rotate_left(32) ^ drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// Why a node does not start: its exit code, what happened and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct LaunchError {
    /// Of sysexits.h (contract §2).
    pub code: u8,
    /// What happened.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl LaunchError {
    /// With its code.
    pub fn new(code: u8, message: impl ToString, help: impl ToString) -> Self {
        Self { code, message: message.to_string(), help: help.to_string() }
    }
}

/// What a node is started with, beside its configuration.
pub struct Settings<'s> {
    /// Its folder.
    pub folder: &'s Path,
    /// Where its integrator socket is when the configuration does not say.
    pub socket: PathBuf,
    /// Customers that the top knows from the start, with their names.
    pub customers: Vec<(Uuid, String)>,
    /// Bearer token of the operator.
    pub token: Arc<str>,
    /// Where the node is shown.
    pub nodes: Nodes,
    /// What of its links nothing protects, by `node --insecure`.
    pub plain: Option<String>,
}

/// A node that runs.
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where children come in.
    pub exchange: Option<SocketAddr>,
    /// Where the API is.
    pub api: Option<SocketAddr>,
    /// How registration stands.
    pub status: watch::Receiver<NodeStatus>,
    /// Who it is.
    pub identity: Arc<Mutex<Identity>>,
    /// The integrators' socket.
    pub socket: Option<PathBuf>,
    delivery: Delivery,
    doors: Vec<OpenDoor>,
    proxy: Option<ProxyDoor>,
    handle: SupervisorHandle,
}

impl Node {
    /// How its tree ended; pending while it runs.
    pub async fn ended(&self) -> Exit {
        self.handle.ended().await
    }

    /// Stops doors first, so that nothing new is taken, and storage last.
    pub async fn stop(self) -> Exit {
        self.delivery.stopping.store(true, Ordering::Relaxed);
        if let Some(proxy) = self.proxy {
            proxy.stop().await;
        }
        for door in &self.doors {
            door.handle.stop(false).await;
        }
        self.handle.stop().await
    }
}

/// Starts a node by its checked configuration.
pub async fn launch(config: &Config, settings: Settings<'_>) -> Result<Node, LaunchError> {
    // Whatever its parts log, says whose it is.
    let span = tracing::info_span!("node", node = config.name, role = %config.roles);
    launch_parts(config, settings).instrument(span).await
}

async fn launch_parts(config: &Config, settings: Settings<'_>) -> Result<Node, LaunchError> {
    make_folder(settings.folder)?;
    let opened = assemble::open_store(settings.folder, config)?;
    let store = opened.store;
    let top = config.roles.has(Role::AppServer);
    let customer = RemoteId::customer(config.identity.customer);
    let component = config.identity.component.or(top.then_some(APP_SERVER_NUMBER));
    let counted = recount::is_due(&*store, opened.proved).map_err(|e| storage_failed(&e))?;
    let who = identity::open(&*store, customer, component, opened.proved, clock(), random())
        .map_err(|e| storage_failed(&e))?;
    let shared = top.then(|| app_tree::Shared::new(random()));
    if top {
        seed(&store, config, who, &settings.customers)?;
    }
    let (delivery_child, delivery) = delivery(config, &store, (who, counted), shared.as_ref())?;
    let (parts, node) = upkeep_of(config, &store, &delivery, &settings);
    let mut root = Supervisor::new(
        config.name.clone(),
        Strategy::RestForOne,
        Intensity { restarts_max: 3, window: Duration::from_secs(60) },
        Backoff::default(),
    )
    .child(delivery_child);
    let (mut records, mut proxy): (Option<Arc<dyn Records>>, _) = (None, None);
    let status;
    if config.roles.has(Role::Proxy) {
        let (child, door) = proxy_door::build(config, parts, node, &settings)?;
        root = root.child(child);
        status = door.registration.clone();
        proxy = Some(door);
    } else {
        let upkeep = Upkeep::new(parts, node).map_err(|e| storage_failed(&e))?;
        status = upkeep.status();
        let mut role = role_supervisor();
        if let Some(shared) = &shared {
            let (tree, answers) = app_server(&store, &delivery, shared)?;
            root = root.child(ChildSpec::supervisor(tree));
            records = Some(Arc::new(answers));
        } else {
            role = role.child(upkeep.registration(None));
        }
        root = root.child(ChildSpec::supervisor(role.child(upkeep.heartbeat(None))));
    }
    let handle = root.start();
    let mut doors = Vec::new();
    let exchange = open_exchange_doors(config, &delivery, &mut doors)?;
    let api = open_api(config, records, &settings.token, &mut doors)?;
    let mut socket = None;
    if let Some(proxy) = &mut proxy {
        socket = Some(proxy.open()?);
    }
    settings.nodes.add(NodeView {
        name: config.name.clone(),
        delivery: delivery.clone(),
        status: status.clone(),
        patience_ms: NOT_DELIVERING_AFTER_MS,
        bytes_max: config.store.bytes,
        plain: settings.plain.clone(),
        integrators: proxy.as_ref().map(|proxy| proxy.reports.clone()),
        identifiers: proxy.as_ref().map(|proxy| proxy.identifiers.clone()),
        told: Arc::default(),
    });
    info!(target: "node", node = config.name, id = %who.id, "started");
    let identity = delivery.identity.clone();
    let name = config.name.clone();
    Ok(Node { name, exchange, api, status, identity, socket, delivery, doors, proxy, handle })
}

fn role_supervisor() -> Supervisor {
    let intensity = Intensity { restarts_max: 5, window: Duration::from_secs(60) };
    Supervisor::new("role", Strategy::OneForOne, intensity, Backoff::default())
}

fn app_server(
    store: &Arc<dyn QueueStore>,
    delivery: &Delivery,
    shared: &app_tree::Shared,
) -> Result<(Supervisor, AppRecords), LaunchError> {
    let links = app_tree::Links {
        store: store.clone(),
        keep: delivery.queue.route(),
        apply: delivery.queue.route(),
        figures: delivery.queue.route(),
        ask: delivery.queue.route(),
        find: delivery.queue.route(),
        doorbell: delivery.doorbell.clone(),
        identity: delivery.identity.clone(),
        clock,
    };
    app_tree::build(links, shared, assemble::service_modules())
        .map_err(|e| LaunchError::new(78, e, "mend the module or leave it out"))
}

/// Something waited and nothing was acknowledged so long: the node is not delivering, ms.
const NOT_DELIVERING_AFTER_MS: i64 = 60_000;

/// What the node says of itself, and what its own actors reach.
fn upkeep_of(
    config: &Config,
    store: &Arc<dyn QueueStore>,
    delivery: &Delivery,
    settings: &Settings<'_>,
) -> (NodeParts, NodeSettings) {
    let author = Author {
        identity: delivery.identity.clone(),
        source_type: source_type(config),
        group: config.identity.group.clone().unwrap_or_default(),
        clock,
    };
    let parts = NodeParts {
        author,
        queue: QueueRoutes::of(&delivery.queue),
        store: store.clone(),
        doorbell: delivery.doorbell.clone(),
        link: delivery.link.clone(),
        stopping: delivery.stopping.clone(),
    };
    let node = NodeSettings {
        name: config.name.clone(),
        roles: config.roles.iter().map(|r| r.as_str().to_owned()).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        configuration: config.digest.clone(),
        mode: Mode::Session,
        heartbeat_every: config.heartbeat.every,
        again_after_beats: config.heartbeat.register_again_after,
        health: health_of(config, delivery, settings),
        random,
    };
    (parts, node)
}

/// What heartbeats tell of the node's health: the answers of its own door.
fn health_of(config: &Config, delivery: &Delivery, settings: &Settings<'_>) -> AskHealth {
    let (node, bytes_max) = (config.name.clone(), config.store.bytes);
    let (link, plain) = (delivery.link.clone(), settings.plain.clone());
    Arc::new(move |figures, status| {
        let link = link.as_ref().map(|link| link.borrow().clone());
        let seen = Seen {
            node: &node,
            status,
            figures: Some(figures),
            link: link.as_ref(),
            hung: &[],
            bytes_max,
            patience_ms: NOT_DELIVERING_AFTER_MS,
            plain: plain.as_deref(),
            now: clock(),
        };
        judge(&seen).for_heartbeat()
    })
}

fn source_type(config: &Config) -> SourceType {
    match config.roles.iter().last() {
        Some(Role::Proxy) => SourceType::Proxy,
        Some(Role::ApplicationsMlm) => SourceType::ApplicationsMlm,
        Some(Role::AppServer) => SourceType::AppServer,
        Some(Role::ContentMlm) => SourceType::ContentMlm,
        _ => SourceType::Mlm,
    }
}

fn delivery(
    config: &Config,
    store: &Arc<dyn QueueStore>,
    (who, counted): (Identity, bool),
    shared: Option<&app_tree::Shared>,
) -> Result<(ChildSpec, Delivery), LaunchError> {
    let limits = &config.store;
    let each = [limits.urgent_bytes, limits.normal_bytes, limits.bulk_bytes];
    let keeper = shared.cloned().map(|shared| -> MakeKeeper {
        let store = store.clone();
        Arc::new(move || Ok(Box::new(shared.keeper(store.clone()))))
    });
    let settings = QueueSettings {
        node: config.name.as_str().into(),
        store: store.clone(),
        identity: Arc::new(Mutex::new(who)),
        limits: Limits { total: limits.bytes, each: each.map(|e| e.unwrap_or(u64::MAX)) },
        set_aside_bytes: limits.set_aside_bytes,
        counted,
        keeper,
        doorbell: Arc::new(Doorbell::default()),
        turned_away: Arc::default(),
        clock,
    };
    let parents: Vec<String> = config.parents.list.iter().map(|p| p.url.clone()).collect();
    let uplink = match parents.is_empty() {
        true => None,
        false => Some(Uplink {
            parents,
            unhealthy_after: config.parents.unhealthy_after,
            protocol: assemble::uplink_protocol()?,
        }),
    };
    Ok(tree(settings, uplink, random))
}

/// What the top knows before anybody registers: its customers and itself.
fn seed(
    store: &Arc<dyn QueueStore>,
    config: &Config,
    who: Identity,
    customers: &[(Uuid, String)],
) -> Result<(), LaunchError> {
    let mut known = customers.to_vec();
    if !known.iter().any(|(id, _)| *id == config.identity.customer) {
        known.push((config.identity.customer, "provider".to_owned()));
    }
    let roles: Vec<String> = config.roles.iter().map(|r| r.as_str().to_owned()).collect();
    let node = directory::NodeRegistration {
        name: &config.name,
        roles: &roles,
        version: env!("CARGO_PKG_VERSION"),
        nonce: who.epoch,
    };
    let mut changes = directory::seed_customers(store.clone(), &known, clock())
        .map_err(|e| storage_failed(&e))?;
    let own = directory::seed_node(store.clone(), who.id, &node, clock());
    changes.extend(own.map_err(|e| storage_failed(&e))?);
    let id = extension::storage::Change::PutRow {
        table: STATE,
        key: bytes::Bytes::from_static(b"id"),
        value: who.id.as_bytes().to_vec().into(),
    };
    changes.push(id);
    store.commit(&changes).map_err(|e| storage_failed(&e))
}

fn open_exchange_doors(
    config: &Config,
    delivery: &Delivery,
    doors: &mut Vec<OpenDoor>,
) -> Result<Option<SocketAddr>, LaunchError> {
    for door in &config.doors.exchange {
        doors.push(assemble::exchange_door(door.bind, delivery.door.clone())?);
    }
    Ok(doors.first().map(|d| d.address))
}

fn open_api(
    config: &Config,
    records: Option<Arc<dyn Records>>,
    token: &str,
    doors: &mut Vec<OpenDoor>,
) -> Result<Option<SocketAddr>, LaunchError> {
    let (Some(records), Some(door)) = (records, &config.doors.api) else { return Ok(None) };
    let opened = assemble::api_door(door.bind, records, token).map_err(|e| {
        LaunchError::new(
            69,
            format!("api door cannot listen on {}: {e}", door.bind),
            "free the address, or bind another",
        )
    })?;
    let address = opened.address;
    doors.push(opened);
    Ok(Some(address))
}

fn make_folder(folder: &Path) -> Result<(), LaunchError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(folder);
    made.map_err(|e| {
        LaunchError::new(69, format!("{}: {e}", folder.display()), "choose another --data folder")
    })
}

fn storage_failed(error: &extension::storage::StoreError) -> LaunchError {
    LaunchError::new(70, error, "look at the disk; callhome queue fsck tells what is damaged")
}
