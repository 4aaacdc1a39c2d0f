//! The durable queue: one actor a node, alone on its arbiter, natural group commit.
//!
//! All that waits while a commit runs goes into the next. A commit that fails leaves nothing
//! behind in memory: the queue reads its state from disk again, as after a restart.
mod asked;
mod damaged;
mod down;
mod handlers;
mod hunt;
mod keep;
mod keep_with;
mod look;
mod put;
mod recounting;
mod settle;
mod take;
mod walk;

pub use asked::QUESTIONS;
pub use down::local_name;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use actix::prelude::*;
use extension::storage::{Change, Place, QueueName, QueueStore, StoreError};
use protocol::{Precedence, Refusal, RemoteId, exchange::Acknowledgement, heartbeat::Heartbeat};
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::{
    doorbell::Doorbell,
    eviction::Limits,
    exchanges::ChildMemory,
    lanes::{DamagedRun, Head, Lane},
    orders::*,
    questions::Questions,
    recount::RECORDS,
    router::Route,
    runs::Gone,
    state::{self, STATE, STATE_KEY, State},
    turned_away::TurnedAway,
};

/// Least time between two commits of a busy store: 14 to 27 % less CPU than none, 3 ms more delay.
const PACE: Duration = Duration::from_millis(3);
/// How long removals wait for a put to ride on.
const REMOVALS_WAIT: Duration = Duration::from_millis(50);
/// Orders of one commit: bounds what a failed commit throws back, and the memory of one.
const JOBS_MAX: usize = 4096;
/// How long an exchange waits for the one before it, which travels on another connection.
const EARLY_WAIT: Duration = Duration::from_millis(250);
/// Nodes below whose newest heartbeat is kept; those beyond pass unseen.
const BEATS_MAX: usize = 10_000;

/// Name of the queue towards the parent.
pub const UP: &str = "up";
/// Name of the queue of what nobody will take.
pub const SET_ASIDE: &str = "set-aside";

/// The clock of a node, ms since 1970 UTC; injected, so that tests decide the time.
pub type Clock = fn() -> i64;
/// Makes the top's keeper from the store, at each start of the queue.
pub type MakeKeeper = Arc<dyn Fn() -> Result<Box<dyn Keeper>, StoreError> + Send + Sync>;

/// What a durable queue is made of.
#[derive(Clone)]
pub struct QueueSettings {
    /// Name of the node, for its metrics.
    pub node: Arc<str>,
    /// Where it keeps all.
    pub store: Arc<dyn QueueStore>,
    /// Who the node is; the queue changes it on [`Adopt`].
    pub identity: Arc<Mutex<Identity>>,
    /// Bytes `up` may hold.
    pub limits: Limits,
    /// Bytes of messages that nobody will take, the oldest go first.
    pub set_aside_bytes: u64,
    /// The start has counted what stands in the store; if not, it is counted while it serves.
    pub counted: bool,
    /// At the top of the chain: what takes messages instead of `up`.
    pub keeper: Option<MakeKeeper>,
    /// Wakes the link and held answers.
    pub doorbell: Arc<Doorbell>,
    /// Exchanges that the door refused as a whole; the next commit takes them along.
    pub turned_away: Arc<TurnedAway>,
    /// The time.
    pub clock: Clock,
}

/// Who the node is now.
pub(super) fn identity_of(cell: &Mutex<Identity>) -> Identity {
    // A poisoned lock holds a whole `Identity` all the same: it is set in one step.
    *cell.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// An order that waits for the next commit.
enum Job {
    Keep(KeepWith, Reply<Vec<Result<Kept, Refusal>>>),
    Take(Box<Take>, Instant, Reply<Taken>),
    Apply(Vec<Change>, Reply<()>),
    TakeDown(TakeDown, Reply<Vec<Acknowledgement>>),
    Settle(Settle, Reply<()>),
    Finish(FinishLocal, Reply<()>),
    Adopt(RemoteId, Reply<()>),
    Beat(Box<Heartbeat>, Reply<()>),
}

/// An answer that is sent when its commit is on disk.
type Ready = Box<dyn FnOnce(Result<(), Refusal>) + Send>;

/// One commit in the making.
#[derive(Default)]
struct Group {
    changes: Vec<Change>,
    ready: Vec<Ready>,
    state_changed: bool,
    bells: Vec<String>,
    /// Own messages, by precedence, that no run holds yet.
    own: [keep::Numbered; 3],
    /// Bytes admitted to `up` by precedence that no run holds yet.
    admitted: [u64; 3],
    /// What is gone of runs when this commit is made.
    gone: HashMap<Place, Gone>,
    /// The time at which it looks for what has expired.
    now: Option<i64>,
    /// Runs of `up` in flight while it was planned, once somebody asked.
    flying: Option<HashSet<Place>>,
}

impl Group {
    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, value: Result<T, Refusal>) {
        self.ready.push(Box::new(move |committed| {
            // Nobody waits any more: the order was carried out all the same.
            let _ = reply.send(committed.and(value));
        }));
    }
}

/// A queue in memory: one lane a precedence.
type Lanes = [Lane; 3];
/// How fast queues drain, by precedence.
type Drains = HashMap<QueueName, [asked::Drain; 3]>;

/// Keeps messages on disk until the receiver has them.
pub struct DurableQueue {
    settings: QueueSettings,
    state: State,
    lanes: HashMap<QueueName, Lanes>,
    memory: HashMap<Vec<u8>, ChildMemory>,
    routes: HashMap<Vec<u8>, Route>,
    local: HashMap<RemoteId, String>,
    beats: BTreeMap<RemoteId, (Heartbeat, bool)>,
    acknowledgements: Vec<Acknowledgement>,
    keeper: Option<Box<dyn Keeper>>,
    jobs: Vec<Job>,
    early: Vec<Job>,
    flush_asked: bool,
    removals_asked: bool,
    last_commit: Option<Instant>,
    bulk_owed: u64,
    storage: Option<String>,
    damaged: Vec<(QueueName, DamagedRun)>,
    hunt: hunt::Hunt,
    /// The run that was read from disk last, while a commit is planned.
    at_hand: Option<(QueueName, Place, Head)>,
    /// The id that the commit in the making gives the node.
    adopting: Option<RemoteId>,
    questions: Questions,
    drains: Drains,
    recount: recounting::Recount,
}

supervision::supervised!(DurableQueue);

impl DurableQueue {
    /// Reads the state from disk.
    pub fn open(settings: QueueSettings) -> Result<Self, StoreError> {
        let mut queue = Self {
            state: State::default(),
            lanes: HashMap::new(),
            memory: HashMap::new(),
            routes: HashMap::new(),
            local: HashMap::new(),
            beats: BTreeMap::new(),
            acknowledgements: Vec::new(),
            keeper: None,
            jobs: Vec::new(),
            early: Vec::new(),
            flush_asked: false,
            removals_asked: false,
            last_commit: None,
            bulk_owed: 0,
            storage: None,
            damaged: Vec::new(),
            hunt: hunt::Hunt::default(),
            at_hand: None,
            adopting: None,
            questions: Questions::default(),
            drains: Drains::default(),
            recount: recounting::Recount::default(),
            settings,
        };
        queue.reload()?;
        Ok(queue)
    }

    /// Forgets what is in memory and reads what is on disk.
    fn reload(&mut self) -> Result<(), StoreError> {
        let store = self.settings.store.clone();
        let row = store.row(STATE, STATE_KEY)?;
        let state = row.map(|row| State::decode(&row).ok_or(StoreError::Damaged(STATE)));
        self.state = state.transpose()?.unwrap_or_default();
        // What stands on disk goes out, whether the counters know of it or not.
        let known = self.state.held.keys().map(|n| QueueName::new(n));
        let names = known.chain(store.queues()?).filter(|name| &*name.0 != RECORDS);
        self.lanes = names.map(|name| (name, lanes_on_disk())).collect();
        self.memory.clear();
        self.hunt = hunt::Hunt::default();
        self.at_hand = None;
        self.damaged.clear();
        self.routes = down::read_routes(&*store)?;
        self.local = down::read_local_names(&*store)?;
        self.keeper = match &self.settings.keeper {
            Some(make) => Some(make()?),
            None => None,
        };
        Ok(())
    }

    /// Who the node is in the commit in the making. All others see an id when it is on disk.
    fn identity(&self) -> Identity {
        let now = identity_of(&self.settings.identity);
        Identity { id: self.adopting.unwrap_or(now.id), ..now }
    }

    fn now(&self) -> i64 {
        (self.settings.clock)()
    }

    fn lanes(&mut self, queue: &QueueName) -> &mut Lanes {
        // A queue that held nothing has nothing on disk, so its lanes start empty.
        self.lanes.entry(queue.clone()).or_default()
    }

    fn lane(&mut self, queue: &QueueName, precedence: Precedence) -> &mut Lane {
        &mut self.lanes(queue)[precedence as usize]
    }

    /// Heads of a lane, filled so that at least `wanted` bytes are there if the disk has them.
    fn refill(
        &mut self,
        queue: &QueueName,
        precedence: Precedence,
        wanted: usize,
    ) -> Result<(), StoreError> {
        let store = self.settings.store.clone();
        let damaged = self.lane(queue, precedence).refill(&*store, queue, precedence, wanted)?;
        // They are dealt with between two commits: this may be in the middle of one.
        self.damaged.extend(damaged.into_iter().map(|run| (queue.clone(), run)));
        Ok(())
    }

    fn add(&mut self, job: Job, ctx: &mut Context<Self>) {
        self.jobs.push(job);
        self.ask_flush(ctx);
    }

    /// An idle store commits at once, a busy one at most every [`PACE`].
    fn ask_flush(&mut self, ctx: &mut Context<Self>) {
        if self.flush_asked {
            return;
        }
        self.flush_asked = true;
        let since = self.last_commit.map_or(PACE, |at| at.elapsed());
        match PACE.checked_sub(since) {
            Some(wait) if !wait.is_zero() => {
                ctx.run_later(wait, |queue, ctx| queue.flush(ctx));
            }
            _ => ctx.notify(Flush),
        }
    }

    fn flush(&mut self, ctx: &mut Context<Self>) {
        self.flush_asked = false;
        let more = self.jobs.len().saturating_sub(JOBS_MAX);
        let rest = self.jobs.split_off(self.jobs.len() - more);
        let jobs = std::mem::replace(&mut self.jobs, rest);
        if !jobs.is_empty() {
            self.commit(jobs, ctx);
        }
        self.last_commit = Some(Instant::now());
        if !self.jobs.is_empty() {
            self.ask_flush(ctx);
        }
    }

    fn commit(&mut self, jobs: Vec<Job>, ctx: &mut Context<Self>) {
        if let Err(failed) = self.set_damaged_aside() {
            self.failed(&failed);
        }
        self.hunt.begin();
        let mut group = Group::default();
        let mut removals: Vec<Settle> = Vec::new();
        let planned = jobs.into_iter().try_for_each(|job| {
            if let Job::Settle(settle, _) = &job {
                removals.push(settle.clone());
            }
            self.plan(job, &mut group, ctx)
        });
        let planned = planned.and_then(|()| self.keep_own(&mut group));
        let done = planned.and_then(|()| self.write(&mut group));
        let node = self.settings.node.to_string();
        metrics::histogram!("callhome_store_commit_jobs", "node" => node)
            .record(group.ready.len() as f64);
        match done {
            Ok(()) => {
                if let Some(keeper) = &mut self.keeper {
                    keeper.committed();
                }
                self.storage = None;
                self.adopted();
                group.ready.into_iter().for_each(|ready| ready(Ok(())));
                group.bells.iter().for_each(|bell| self.settings.doorbell.ring(bell));
            }
            Err(failed) => {
                self.failed(&failed);
                group.ready.into_iter().for_each(|ready| ready(Err(Refusal::StorageDown)));
                // Removals make room: they are tried alone, without what did not fit.
                if !removals.is_empty() && matches!(failed, StoreError::Full(_)) {
                    self.remove_only(removals);
                }
            }
        }
    }

    /// Writes the group with the counters, if they changed.
    fn write(&mut self, group: &mut Group) -> Result<(), StoreError> {
        // What was read before is not what stands there after it.
        self.at_hand = None;
        let turned_away = self.settings.turned_away.counts();
        if group.state_changed {
            turned_away.iter().for_each(|(reason, count)| self.state.turn_away(reason, *count));
            let row = self.state.encode().map_err(|e| StoreError::Failed(e.to_string()))?;
            let key = bytes::Bytes::from_static(STATE_KEY);
            group.changes.push(Change::PutRow { table: STATE, key, value: row.into() });
        }
        if group.changes.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let done = self.settings.store.commit(&group.changes);
        let node = self.settings.node.to_string();
        metrics::histogram!("callhome_store_commit_seconds", "node" => node)
            .record(started.elapsed().as_secs_f64());
        if group.state_changed && done.is_ok() {
            self.settings.turned_away.written(&turned_away);
        }
        if done.is_ok() {
            self.recount.note(&group.changes);
        }
        done
    }

    fn remove_only(&mut self, removals: Vec<Settle>) {
        let mut group = Group::default();
        let planned = removals.into_iter().try_for_each(|s| self.plan_settle(&s, &mut group));
        if let Err(failed) = planned.and_then(|()| self.write(&mut group)) {
            self.failed(&failed);
        }
    }

    /// Nothing of what was planned is on disk: memory is made anew from there.
    fn failed(&mut self, why: &StoreError) {
        if self.storage.is_none() {
            error!(target: "delivery", error = %why, "store refuses; the node answers storage_down");
        }
        self.storage = Some(why.to_string());
        self.adopting = None;
        if let Some(keeper) = &mut self.keeper {
            keeper.rolled_back();
        }
        if let Err(again) = self.reload() {
            warn!(target: "delivery", error = %again, "store cannot be read; trying again");
        }
    }

    fn plan(
        &mut self,
        job: Job,
        group: &mut Group,
        ctx: &mut Context<Self>,
    ) -> Result<(), StoreError> {
        match job {
            Job::Keep(keep, reply) => {
                let kept = self.plan_keep_with(keep, group);
                forward(group, reply, kept)
            }
            Job::Take(take, since, reply) => self.plan_take(take, since, reply, group, ctx),
            Job::Apply(changes, reply) => {
                let names = changes.iter().any(is_local_name);
                group.changes.extend(changes);
                group.answer(reply, Ok(()));
                if names {
                    ctx.notify(down::ReadNames);
                }
                Ok(())
            }
            Job::TakeDown(take, reply) => {
                let taken = self.plan_take_down(take, group);
                forward(group, reply, taken)
            }
            Job::Settle(settle, reply) => {
                let settled = self.plan_settle(&settle, group);
                forward(group, reply, settled)
            }
            Job::Finish(finish, reply) => {
                let finished = self.plan_finish(finish, group);
                forward(group, reply, finished)
            }
            Job::Adopt(id, reply) => {
                // What was numbered before stands under the id of before.
                self.keep_own(group)?;
                let adopted = self.plan_adopt(id, group);
                forward(group, reply, adopted)
            }
            Job::Beat(mut beat, reply) => {
                self.state.order += 1;
                group.state_changed = true;
                beat.order = self.state.order;
                self.note_beat(*beat);
                group.bells.push(UP.to_owned());
                group.answer(reply, Ok(()));
                Ok(())
            }
        }
    }

    fn next_position(&mut self) -> u64 {
        self.state.position += 1;
        self.state.position
    }
}

/// A plan that could not be made fails the whole group; the reply is dropped with it.
fn forward<T: Send + 'static>(
    group: &mut Group,
    reply: Reply<T>,
    planned: Result<T, StoreError>,
) -> Result<(), StoreError> {
    match planned {
        Ok(value) => {
            group.answer(reply, Ok(value));
            Ok(())
        }
        Err(failed) => {
            group.answer(reply, Err(Refusal::StorageDown));
            Err(failed)
        }
    }
}

fn is_local_name(change: &Change) -> bool {
    matches!(change, Change::PutRow { table, .. } if *table == state::LOCAL)
}

fn lanes_on_disk() -> Lanes {
    [Lane::on_disk(), Lane::on_disk(), Lane::on_disk()]
}

fn place_of(precedence: Precedence, position: u64) -> Place {
    Place { precedence, position }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

impl Actor for DurableQueue {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(asked::SAMPLE_EVERY, |queue, _| queue.sample_drains());
        self.plan_recount(ctx);
    }
}

impl Handler<Flush> for DurableQueue {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Context<Self>) {
        self.flush(ctx);
    }
}
