//! What nodes last said: heartbeats become rows, so do times of instances' newest messages; the
//! server's own figures are read for its ledger.
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use bytes::Bytes;
use extension::storage::{Change, QueueStore, StoreError};
use protocol::{
    RemoteId,
    codec::{Reader, Writer},
    heartbeat::Heartbeat,
};
use supervision::{Lifeline, Route};

use super::{
    asking::Asking,
    back_channel::{self, ACTIONS},
    overlay::Overlay,
    publish::{Feed, What},
    rows::{LAST, SERVICES, STATUS, StatusRow, from_row, service_key, to_row},
    service_work::{Who, identity_of},
};
use crate::delivery::{
    doorbell::Doorbell,
    durable_queue::UP,
    orders::{Apply, AskFigures, Figures},
};

/// How often heartbeats are fetched from the queue.
const LOOK: Duration = Duration::from_secs(1);
/// The same while somebody waits for what nodes say, and the bell rings: what comes together is
/// looked at together.
const LOOK_SOON: Duration = Duration::from_millis(20);
/// How often the times of newest messages go to disk, in looks: a crash loses so many seconds.
const LAST_EVERY: u32 = 10;
/// Instances whose newest message is not on disk yet; more are written at once.
const LAST_MAX: usize = 50_000;

/// When each instance's newest message was stored, as far as it is not on disk.
#[derive(Clone, Debug, Default)]
pub struct LastMessages(Arc<Mutex<HashMap<RemoteId, i64>>>);

/// The server's own figures as they were read last.
#[derive(Clone, Debug, Default)]
pub struct OwnFigures(Arc<Mutex<Option<(i64, Figures)>>>);

impl LastMessages {
    /// Notes when instances were heard.
    pub fn heard(&self, instances: impl Iterator<Item = (RemoteId, i64)>) {
        lock(&self.0).extend(instances);
    }

    /// When one was heard, where that is not on disk yet.
    pub fn of(&self, instance: &RemoteId) -> Option<i64> {
        lock(&self.0).get(instance).copied()
    }

    fn len(&self) -> usize {
        lock(&self.0).len()
    }

    fn changes(&self) -> Vec<(RemoteId, i64)> {
        lock(&self.0).iter().map(|(id, at)| (*id, *at)).collect()
    }

    fn written(&self, rows: &[(RemoteId, i64)]) {
        let mut map = lock(&self.0);
        for (id, at) in rows {
            if map.get(id) == Some(at) {
                map.remove(id);
            }
        }
    }
}

impl OwnFigures {
    /// When they were read, ms since 1970 UTC, and what they are.
    pub fn get(&self) -> Option<(i64, Figures)> {
        lock(&self.0).clone()
    }

    /// Notes them.
    pub fn set(&self, at: i64, figures: Figures) {
        *lock(&self.0) = Some((at, figures));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is changed in one step: a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the actor needs; cloned for each restart.
#[derive(Clone)]
pub struct StatusSpec {
    /// Reads.
    pub store: Arc<dyn QueueStore>,
    /// Commits.
    pub apply: Route<Apply>,
    /// Where heartbeats wait.
    pub figures: Route<AskFigures>,
    /// Tells of nodes.
    pub feed: Feed,
    /// Where the own figures go.
    pub own: OwnFigures,
    /// Whom messages were about.
    pub last: LastMessages,
    /// Who waits for what nodes say.
    pub asking: Asking,
    /// Rings when a heartbeat comes.
    pub doorbell: Arc<Doorbell>,
    /// Who this server is.
    pub identity: Who,
    /// ms since 1970 UTC.
    pub clock: fn() -> i64,
}

/// Keeps the status of nodes.
pub struct StatusKeeper {
    spec: StatusSpec,
    lifeline: Lifeline,
}

supervision::supervised!(StatusKeeper);

impl StatusKeeper {
    /// One that knows nothing yet but what is on disk.
    pub fn new(spec: StatusSpec, lifeline: Lifeline) -> Self {
        Self { spec, lifeline }
    }
}

impl Actor for StatusKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let spec = self.spec.clone();
        let run = async move { run(spec).await };
        let end = |error: StoreError, keeper: &mut Self, ctx: &mut Self::Context| {
            keeper.lifeline.fail(ctx, error);
        };
        ctx.spawn(run.into_actor(self).map(end));
    }
}

async fn run(spec: StatusSpec) -> StoreError {
    // At the top nothing stands in `up`: its bell is that of the heartbeats.
    let bell = spec.doorbell.bell(UP);
    let mut looks = 0_u32;
    let mut looked = tokio::time::Instant::now();
    loop {
        // A queue that does not answer has its own supervisor.
        if let Ok(figures) = spec.figures.ask(AskFigures).await
            && let Err(error) = look(&spec, figures).await
        {
            return error;
        }
        // Those that somebody waits for are not counted: the times are to the second all the same.
        let second = looked.elapsed() >= LOOK;
        if second {
            (looks, looked) = (looks.wrapping_add(1), tokio::time::Instant::now());
        }
        if (second && looks.is_multiple_of(LAST_EVERY)) || spec.last.len() > LAST_MAX {
            let rows = spec.last.changes();
            let changes = rows.iter().map(|(id, at)| Change::PutRow {
                table: LAST,
                key: Bytes::copy_from_slice(id.as_bytes()),
                value: at.to_be_bytes().to_vec().into(),
            });
            let changes: Vec<_> = changes.collect();
            if changes.is_empty() || matches!(spec.apply.ask(Apply(changes)).await, Ok(Ok(()))) {
                spec.last.written(&rows);
            }
        }
        wait(&spec, &bell).await;
    }
}

/// Waits for the next look.
async fn wait(spec: &StatusSpec, bell: &tokio::sync::Notify) {
    let until = tokio::time::Instant::now() + LOOK;
    while tokio::time::timeout_at(until, bell.notified()).await.is_ok() {
        if spec.asking.is_open() {
            return tokio::time::sleep(LOOK_SOON).await;
        }
    }
}

/// Keeps what came since the last look.
async fn look(spec: &StatusSpec, figures: Figures) -> Result<(), StoreError> {
    let now = (spec.clock)();
    let beats = figures.beats.clone();
    let before = spec.own.get().map(|(_, figures)| figures.account);
    if before != Some(figures.account) {
        spec.feed.tell(What::Node(identity_of(&spec.identity).id));
    }
    spec.own.set(now, figures);
    let (changes, nodes) = plan(&spec.store, &beats, now)?;
    // What is refused now is newer at the next look.
    if changes.is_empty() || matches!(spec.apply.ask(Apply(changes)).await, Ok(Ok(()))) {
        nodes.into_iter().for_each(|node| spec.feed.tell(What::Node(node)));
        spec.asking.heard(beats.iter());
    }
    Ok(())
}

/// Rows of heartbeats that are newer than those on disk, and whose they are.
pub fn plan(
    store: &Arc<dyn QueueStore>,
    beats: &[Heartbeat],
    now: i64,
) -> Result<(Vec<Change>, Vec<RemoteId>), StoreError> {
    let mut overlay = Overlay::new(store.clone());
    let mut nodes = Vec::new();
    for beat in beats {
        let key = Bytes::copy_from_slice(beat.node.as_bytes());
        let before: Option<StatusRow> = overlay.row(STATUS, &key)?.and_then(|r| from_row(&r));
        let newest = (beat.epoch, beat.beat.max(beat.order));
        if before.as_ref().is_some_and(|b| b.newest >= newest) {
            continue;
        }
        let mut bytes = Writer::new();
        beat.write(&mut bytes);
        let early = before.as_ref().filter(|before| is_early(before, beat));
        let regular_at = early.map_or(now, |before| before.regular_at);
        let row = StatusRow {
            beat: bytes.into_vec().into(),
            newest,
            heard_at: now,
            interval_ms: match (&before, early) {
                (None, _) => 0,
                (Some(before), None) => interval(before, now),
                (_, Some(before)) => before.interval_ms,
            },
            regular_at,
        };
        overlay.put(STATUS, key, to_row(&row));
        nodes.push(beat.node);
        for message in &beat.done {
            let carries = service_key(ACTIONS, &back_channel::carries_key(message));
            let action = overlay.row(SERVICES, &carries)?;
            let Some(action) = action.and_then(|r| uuid::Uuid::from_slice(&r).ok()) else {
                continue;
            };
            let sent = back_channel::sent_row(action);
            let known = match &sent {
                Change::PutRow { table, key, .. } => overlay.row(table, key)?.is_some(),
                _ => true,
            };
            if !known {
                overlay.push(sent);
            }
        }
    }
    Ok((overlay.take_changes(), nodes))
}

/// Whether a heartbeat came before its time: because the node was asked, or since an integrator
/// came or went. It says nothing about the time between heartbeats.
fn is_early(before: &StatusRow, beat: &Heartbeat) -> bool {
    let connected = |beat: &Heartbeat| -> BTreeSet<RemoteId> {
        beat.integrators.iter().filter(|i| i.connected).map(|i| i.id).collect()
    };
    let last = Heartbeat::read(&mut Reader::new(&before.beat));
    !beat.says.is_empty() || last.is_ok_and(|last| connected(&last) != connected(beat))
}

/// The time between heartbeats, smoothed.
fn interval(before: &StatusRow, now: i64) -> i64 {
    let since = if before.regular_at > 0 { before.regular_at } else { before.heard_at };
    let last = (now - since).max(1);
    if before.interval_ms == 0 { last } else { (3 * before.interval_ms + last) / 4 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use module_memory::MemoryStore;
    use protocol::heartbeat::{Account, Condition, Depth, IntegratorStatus, Mode};

    use super::*;

    fn beat(number: u64, connected: bool) -> Heartbeat {
        let customer = RemoteId::customer(uuid::Uuid::from_u128(7));
        let node = customer.child(3).unwrap();
        let integrator = IntegratorStatus {
            id: node.child(1).unwrap(),
            connected,
            module: Condition::Ok,
            platform: Condition::Ok,
            text: String::new(),
        };
        Heartbeat {
            node,
            epoch: 7,
            beat: number,
            order: number,
            at: 0,
            name: "site-a".to_owned(),
            roles: vec!["proxy".to_owned()],
            version: "1".to_owned(),
            mode: Mode::Session,
            account: Account::default(),
            depths: [Depth::default(); 3],
            reasons: Vec::new(),
            configuration: String::new(),
            done: Vec::new(),
            integrators: vec![integrator],
            path: Vec::new(),
            says: Vec::new(),
            ready: None,
            rejected: None,
        }
    }

    // A heartbeat for the sake of news must not make the node seem silent until the next.
    #[test]
    fn news_of_integrators_say_nothing_about_the_time_between_heartbeats() {
        let store: Arc<dyn QueueStore> = Arc::new(MemoryStore::new());
        let mut intervals = Vec::new();
        for (number, connected, at) in [
            (1, true, 1),
            (2, false, 5_001),
            (3, false, 30_001),
            (4, true, 31_001),
            (5, true, 60_001),
        ] {
            let (changes, _) = plan(&store, &[beat(number, connected)], at).unwrap();
            store.commit(&changes).unwrap();
            let row = store.row(STATUS, beat(1, true).node.as_bytes()).unwrap().unwrap();
            let row: StatusRow = from_row(&row).unwrap();
            assert_eq!(row.heard_at, at);
            intervals.push(row.interval_ms);
        }
        assert_eq!(intervals, [0, 0, 30_000, 30_000, 30_000]);
    }
}
