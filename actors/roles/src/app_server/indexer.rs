//! Keeps the index by segments: follows what is stored, writes each whole segment in one commit,
//! and builds anew from the runs what is not there, after a crash or in an older store.
use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use bytes::Bytes;
use extension::storage::{Change, QueueStore, StoreError, Value};
use protocol::Precedence;
use supervision::{Lifeline, Route};

use super::{
    cursors::{counted, run_around},
    publish::Feed,
    reel::{Recent, Reel},
    rows::{INDEX, number_at, records},
    segment::{self, ROWS_VERSION, Segment, first_of, segment_of, tags},
};
use crate::delivery::orders::Apply;

/// What comes within this time is noted at once; a search reads the few that are not noted yet.
const GATHER: Duration = Duration::from_millis(10);
/// How often it looks where nothing is stored: for segments that are to be built anew.
const LOOK: Duration = Duration::from_secs(1);
/// Numbers that are read from disk at a time.
const SLICE: u64 = 4_096;
/// Pause after a commit that was refused.
const AGAIN: Duration = Duration::from_secs(1);

/// The part of the index that is in RAM. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Index(Arc<RwLock<Live>>);

/// See [`Index`].
#[derive(Debug, Default)]
pub struct Live {
    /// The newest segment, as far as it is noted; none: the indexer has not begun.
    pub tail: Option<Segment>,
    /// The one before it, until it is on disk.
    pub whole: Option<Arc<Segment>>,
    /// Segments whose rows a search found damaged.
    damaged: BTreeSet<u64>,
}

impl Index {
    /// For a search.
    pub fn live(&self) -> RwLockReadGuard<'_, Live> {
        // Each change leaves it whole: a panic elsewhere does not spoil it.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Live> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a segment built anew.
    pub fn damaged(&self, segment: u64) {
        self.change().damaged.insert(segment);
    }
}

/// What an indexer needs; cloned for each restart.
#[derive(Clone)]
pub struct IndexerSpec {
    /// Reads.
    pub store: Arc<dyn QueueStore>,
    /// Commits.
    pub apply: Route<Apply>,
    /// Hears what is stored.
    pub feed: Feed,
    /// The newest runs.
    pub recent: Recent,
    /// What it keeps.
    pub index: Index,
}

/// Keeps the index.
pub struct Indexer {
    spec: IndexerSpec,
    lifeline: Lifeline,
}

supervision::supervised!(Indexer);

impl Indexer {
    /// One that goes on where the disk stands.
    pub fn new(spec: IndexerSpec, lifeline: Lifeline) -> Self {
        Self { spec, lifeline }
    }
}

impl Actor for Indexer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let spec = self.spec.clone();
        let run = async move { run(spec).await };
        let end = |error: StoreError, indexer: &mut Self, ctx: &mut Self::Context| {
            indexer.lifeline.fail(ctx, error);
        };
        ctx.spawn(run.into_actor(self).map(end));
    }
}

async fn run(spec: IndexerSpec) -> StoreError {
    // It has started before it reads: its supervisor starts the next child only then.
    tokio::task::yield_now().await;
    match keep(&spec).await {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

async fn keep(spec: &IndexerSpec) -> Result<std::convert::Infallible, StoreError> {
    let mut stored = spec.feed.on_stored();
    let next = stored_next(&*spec.store)?;
    let newest = segment_of(next);
    let mut tail = Segment::new(first_of(newest));
    read(spec, &mut tail, next).await?;
    *spec.index.change() = Live { tail: Some(tail), ..Live::default() };
    let mut missing = missing(&*spec.store, newest)?;
    loop {
        stored.mark_unchanged();
        follow(spec).await?;
        missing.append(&mut spec.index.change().damaged);
        if let Some(segment) = missing.pop_last() {
            build(spec, segment).await?;
            continue;
        }
        // An error means that the feed is gone, which this holds.
        let _ = tokio::time::timeout(LOOK, stored.changed()).await;
        tokio::time::sleep(GATHER).await;
    }
}

/// Number behind all that is stored.
pub fn stored_next(store: &dyn QueueStore) -> Result<u64, StoreError> {
    counted(store).map(|counted| counted.next)
}

/// Segments before `newest` that have no rows.
fn missing(store: &dyn QueueStore, newest: u64) -> Result<BTreeSet<u64>, StoreError> {
    let mut missing: BTreeSet<u64> = (0..newest).collect();
    let walked = store.rows(INDEX, &[tags::WHOLE], &[], &mut |key, value| {
        if let (Some(segment), [ROWS_VERSION]) = (number_at(key, 1), value) {
            missing.remove(&segment);
        }
        ControlFlow::Continue(())
    });
    match walked {
        // A damaged row is none.
        Ok(()) | Err(StoreError::Damaged(_)) => Ok(missing),
        Err(error) => Err(error),
    }
}

/// Notes what was stored since the last time.
async fn follow(spec: &IndexerSpec) -> Result<(), StoreError> {
    loop {
        let end = stored_next(&*spec.store)?;
        let from = match &spec.index.live().tail {
            Some(tail) => tail.next(),
            None => return Ok(()),
        };
        if from >= end {
            return Ok(());
        }
        let mut reels = Vec::new();
        let walked = spec.recent.walk(None, from, |reel| {
            reels.push(reel.clone());
            ControlFlow::Continue(())
        });
        let until = (first_of(segment_of(from) + 1)).min(walked.unwrap_or(end).min(from + SLICE));
        if walked.is_none() {
            reels = slice(&*spec.store, from, until)?;
        }
        let is_whole = {
            let mut live = spec.index.change();
            let Some(tail) = &mut live.tail else { return Ok(()) };
            reels.iter().for_each(|reel| note(tail, reel, from, until));
            tail.cover(until);
            tail.is_whole()
        };
        if is_whole {
            end_segment(spec).await;
        }
        // Searches and wishes of others come in between.
        tokio::task::yield_now().await;
    }
}

/// The tail is whole: it is written, and the next one begins.
async fn end_segment(spec: &IndexerSpec) {
    let whole = {
        let mut live = spec.index.change();
        let Some(tail) = live.tail.take() else { return };
        live.tail = Some(Segment::new(tail.next()));
        let whole = Arc::new(tail);
        live.whole = Some(whole.clone());
        whole
    };
    write(spec, &whole).await;
    spec.index.change().whole = None;
}

/// Builds the rows of a segment anew.
async fn build(spec: &IndexerSpec, number: u64) -> Result<(), StoreError> {
    tracing::info!(segment = number, "the index of a segment is built from the runs");
    let mut built = Segment::new(first_of(number));
    let end = first_of(number + 1);
    read(spec, &mut built, end).await?;
    write(spec, &built).await;
    Ok(())
}

/// Commits a segment, however often that is refused.
async fn write(spec: &IndexerSpec, whole: &Segment) {
    let put = |(key, value): (Bytes, Bytes)| Change::PutRow { table: INDEX, key, value };
    let changes: Vec<Change> = whole.rows().into_iter().map(put).collect();
    // The same rows again do no harm: it does not matter whether one that failed was made.
    while !matches!(spec.apply.ask(Apply(changes.clone())).await, Ok(Ok(()))) {
        tokio::time::sleep(AGAIN).await;
    }
}

/// Notes all that is stored of a segment below `end`, from disk, a slice at a time.
async fn read(spec: &IndexerSpec, into: &mut Segment, end: u64) -> Result<(), StoreError> {
    let end = end.min(first_of(segment_of(into.first()) + 1));
    while into.next() < end {
        let (from, until) = (into.next(), end.min(into.next() + SLICE));
        note_stored(&*spec.store, into, from, until)?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Notes what is stored from one number up to another, from disk.
pub fn note_stored(
    store: &dyn QueueStore,
    into: &mut Segment,
    from: u64,
    until: u64,
) -> Result<(), StoreError> {
    for reel in slice(store, from, until)? {
        note(into, &reel, from, until);
    }
    into.cover(until);
    Ok(())
}

/// Runs that hold anything from one number up to another. What is damaged is left out.
fn slice(store: &dyn QueueStore, from: u64, until: u64) -> Result<Vec<Arc<Reel>>, StoreError> {
    let mut reels = Vec::new();
    for precedence in Precedence::ALL {
        reels.extend(run_around(store, *precedence, from)?.map(Arc::new));
        store.runs(&records(), *precedence, from, &mut |position, value| {
            if position >= until {
                return ControlFlow::Break(());
            }
            if let Value::Good(bytes) = value {
                reels.extend(Reel::read(position, bytes).map(Arc::new));
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(reels)
}

/// Notes messages of a run, from one number up to another.
fn note(into: &mut Segment, reel: &Reel, from: u64, until: u64) {
    let position = reel.stored.position;
    for at in 0..reel.len() {
        let seq = position + at as u64;
        if !(from..until).contains(&seq) {
            continue;
        }
        // What cannot be read is in no list.
        if let Some(parts) = reel.message(at).and_then(|(_, blocks)| blocks.parts().ok()) {
            into.note(seq, &parts);
        }
    }
}

/// The row of a segment; a damaged one is built anew, and counts as none until then.
pub fn row(
    store: &dyn QueueStore,
    index: &Index,
    tag: u8,
    number: u64,
) -> Result<Option<Bytes>, StoreError> {
    match store.row(INDEX, &segment::key(tag, number)) {
        Err(StoreError::Damaged(_)) => {
            tracing::error!(segment = number, "a row of the index is damaged: it is built anew");
            index.damaged(number);
            Ok(None)
        }
        row => row,
    }
}
