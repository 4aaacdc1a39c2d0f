//! The application server's part of the supervision tree.
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use extension::{
    records::kept::ALARMS,
    service::{Manifest, ManifestError, ServiceModule},
    storage::QueueStore,
};
use supervision::{Backoff, ChildSpec, Intensity, Route, Strategy, Supervisor};
use tokio::sync::Semaphore;

use super::{
    asking::Asking,
    back_channel::Actions,
    closer::{Closer, CloserSpec},
    indexer::{Index, Indexer, IndexerSpec},
    keeper::RecordsKeeper,
    publish::Feed,
    query::{AppRecords, Desk},
    reel::Recent,
    registrar::Registrar,
    service_host::{DoByHand, HostSpec, ServiceHost},
    service_work::Who,
    status::{LastMessages, OwnFigures, StatusKeeper, StatusSpec},
};
use crate::delivery::{
    doorbell::Doorbell,
    orders::{Apply, Ask, AskFigures, Find, Keep},
};

/// Wishes that may wait for a module.
const WISHES_MAX: usize = 64;
/// Time in which a wish is done: a few commits on a slow disk.
const WISH_WITHIN: Duration = Duration::from_secs(10);
/// Orders that may wait for an actor that is asked nothing.
const NOTHING_ASKED: usize = 1;
/// Restarts of one module's host: a module's own panics need none.
const INTENSITY: Intensity = Intensity { restarts_max: 20, window: Duration::from_secs(60) };
/// Pause before a restart.
const BACKOFF: Backoff = Backoff { min: Duration::from_millis(5), max: Duration::from_millis(50) };

/// Makes a service module, at each start of its host.
pub type Make = Arc<dyn Fn() -> Box<dyn ServiceModule> + Send + Sync>;

/// What the store's thread and the rest of the server share.
#[derive(Clone)]
pub struct Shared {
    /// What changes.
    pub feed: Feed,
    /// Newest messages of instances.
    pub last: LastMessages,
    /// The newest runs.
    pub recent: Recent,
    /// Held by the one module that is tried with what may have ended the process.
    pub care: Arc<Semaphore>,
}

impl Shared {
    /// For one life of the process.
    pub fn new(life: u64) -> Self {
        let (feed, care) = (Feed::new(life), Arc::new(Semaphore::new(1)));
        Self { feed, last: LastMessages::default(), recent: Recent::default(), care }
    }

    /// The keeper that the durable queue of this server calls. Make one per start of the queue.
    pub fn keeper(&self, store: Arc<dyn QueueStore>) -> RecordsKeeper {
        RecordsKeeper::new(store, self.feed.clone(), self.last.clone(), self.recent.clone())
    }
}

/// What the server needs of its node.
#[derive(Clone)]
pub struct Links {
    /// Reads.
    pub store: Arc<dyn QueueStore>,
    /// Commits with messages.
    pub keep: Route<Keep>,
    /// Commits without.
    pub apply: Route<Apply>,
    /// Figures and heartbeats.
    pub figures: Route<AskFigures>,
    /// Asks nodes.
    pub ask: Route<Ask>,
    /// Finds messages on their way down.
    pub find: Route<Find>,
    /// Rings when a heartbeat comes.
    pub doorbell: Arc<Doorbell>,
    /// Who this server is.
    pub identity: Who,
    /// ms since 1970 UTC.
    pub clock: fn() -> i64,
}

/// Builds the supervisor of the server's actors, and what API and portal ask.
///
/// # Errors
/// A module may not be loaded (ARC-10, CLS-5): nothing is started.
pub fn build(
    links: Links,
    shared: &Shared,
    modules: Vec<Make>,
) -> Result<(Supervisor, AppRecords), ManifestError> {
    let (store, own_id) = (links.store.clone(), links.identity.clone());
    let mut makes: Vec<Make> = vec![
        Arc::new(move || Box::new(Registrar::new(store.clone(), own_id.clone()))),
        Arc::new(|| Box::new(Actions)),
    ];
    makes.extend(modules);
    let mut supervisor = Supervisor::new("app_server", Strategy::OneForOne, INTENSITY, BACKOFF);
    let mut names = Vec::new();
    let mut alarms = None;
    for make in makes {
        let manifest = checked(&make)?;
        let name = manifest.name.clone();
        let (host, wishes) = host(&links, shared, make, manifest);
        if name == ALARMS {
            alarms = Some(wishes);
        }
        names.push(name.clone());
        // A module that cannot go on takes nothing with it but itself, and is tried again.
        supervisor = supervisor.child(host);
    }
    let modules: Arc<[String]> = names.into();
    let (own, asking) = (OwnFigures::default(), Asking::default());
    let closer = CloserSpec {
        store: links.store.clone(),
        keep: links.keep.clone(),
        feed: shared.feed.clone(),
        modules: modules.clone(),
    };
    let (closer, _) = ChildSpec::actor("closer", NOTHING_ASKED, WISH_WITHIN, move |lifeline| {
        Closer::new(closer.clone(), lifeline)
    });
    let index = Index::default();
    let status = status(&links, shared, &own, &asking);
    let supervisor = supervisor
        .child(closer.on_own_arbiter())
        .child(indexer(&links, shared, &index))
        .child(status.on_own_arbiter());
    let records = AppRecords::new(Desk {
        store: links.store,
        keep: links.keep,
        apply: links.apply,
        figures: links.figures,
        ask: links.ask,
        find: links.find,
        asking,
        alarms,
        modules,
        recent: shared.recent.clone(),
        index,
        feed: shared.feed.clone(),
        own,
        last: shared.last.clone(),
        identity: links.identity,
        clock: links.clock,
        making: tokio::sync::Mutex::new(()),
    });
    Ok((supervisor, records))
}

/// The keeper of what nodes say.
fn status(links: &Links, shared: &Shared, own: &OwnFigures, asking: &Asking) -> ChildSpec {
    let spec = StatusSpec {
        store: links.store.clone(),
        apply: links.apply.clone(),
        figures: links.figures.clone(),
        feed: shared.feed.clone(),
        own: own.clone(),
        last: shared.last.clone(),
        asking: asking.clone(),
        doorbell: links.doorbell.clone(),
        identity: links.identity.clone(),
        clock: links.clock,
    };
    let (status, _) = ChildSpec::actor("status", NOTHING_ASKED, WISH_WITHIN, move |lifeline| {
        StatusKeeper::new(spec.clone(), lifeline)
    });
    status
}

fn indexer(links: &Links, shared: &Shared, index: &Index) -> ChildSpec {
    let spec = IndexerSpec {
        store: links.store.clone(),
        apply: links.apply.clone(),
        feed: shared.feed.clone(),
        recent: shared.recent.clone(),
        index: index.clone(),
    };
    let (indexer, _) = ChildSpec::actor("indexer", NOTHING_ASKED, WISH_WITHIN, move |lifeline| {
        Indexer::new(spec.clone(), lifeline)
    });
    indexer.on_own_arbiter()
}

/// The manifest of a module that may be loaded.
fn checked(make: &Make) -> Result<Manifest, ManifestError> {
    let manifest = make().manifest();
    manifest.check()?;
    Ok(manifest)
}

fn host(
    links: &Links,
    shared: &Shared,
    make: Make,
    manifest: Manifest,
) -> (ChildSpec, Route<DoByHand>) {
    let name = format!("service_host_{}", manifest.name);
    let spec = HostSpec {
        make,
        manifest: Arc::new(manifest),
        store: links.store.clone(),
        keep: links.keep.clone(),
        recent: shared.recent.clone(),
        feed: shared.feed.clone(),
        identity: links.identity.clone(),
        clock: links.clock,
        begun: Arc::new(AtomicBool::new(false)),
        care: shared.care.clone(),
    };
    let (child, host) = ChildSpec::actor(name, WISHES_MAX, WISH_WITHIN, move |lifeline| {
        ServiceHost::new(spec.clone(), lifeline)
    });
    (child.on_own_arbiter().labelled("service_host"), host.route())
}
