//! Ends messages in the account of the top: delivered when every module is done with them,
//! refused when one set them aside (contract §6).
use std::{ops::ControlFlow, sync::Arc, time::Duration};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use extension::storage::{Change, QueueStore, StoreError};
use protocol::{Precedence, ends::End};
use supervision::{AskError, Lifeline, Route};

use super::{
    cursors::{CLOSED, Cursor, counted, slowest},
    publish::Feed,
    rows::{CURSORS, POISON, from_row, number_at, poison_key},
};
use crate::delivery::orders::Keep;

/// Steps of cursors that come within this time end messages in one commit.
const GATHER: Duration = Duration::from_millis(50);
/// How often it looks where nobody says anything.
const LOOK: Duration = Duration::from_secs(1);

/// What a closer needs; cloned for each restart.
#[derive(Clone)]
pub struct CloserSpec {
    /// Reads.
    pub store: Arc<dyn QueueStore>,
    /// Commits.
    pub keep: Route<Keep>,
    /// Hears of steps.
    pub feed: Feed,
    /// Names of the modules that are loaded.
    pub modules: Arc<[String]>,
}

/// Ends messages.
pub struct Closer {
    spec: CloserSpec,
    lifeline: Lifeline,
}

supervision::supervised!(Closer);

impl Closer {
    /// A closer that goes on where the row on disk stands.
    pub fn new(spec: CloserSpec, lifeline: Lifeline) -> Self {
        Self { spec, lifeline }
    }
}

impl Actor for Closer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let spec = self.spec.clone();
        let run = async move { run(spec).await };
        let end = |error: StoreError, closer: &mut Self, ctx: &mut Self::Context| {
            closer.lifeline.fail(ctx, error);
        };
        ctx.spawn(run.into_actor(self).map(end));
    }
}

async fn run(spec: CloserSpec) -> StoreError {
    let mut stepped = spec.feed.on_stepped();
    let mut stored = spec.feed.on_stored();
    // What an earlier instance asked for is on disk or never will be.
    barrier(&spec).await;
    loop {
        match plan(&*spec.store, &spec.modules) {
            Err(error) => return error,
            Ok(None) => {}
            Ok(Some((ends, change))) => {
                let keep = Keep { messages: Vec::new(), changes: vec![change], ends };
                match spec.keep.ask(keep).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(AskError::Full) => tokio::time::sleep(LOOK).await,
                    // The plan is made from what is on disk then.
                    Err(AskError::TimedOut | AskError::Ended) => barrier(&spec).await,
                }
            }
        }
        // Errors mean that the feed is gone, which this holds.
        let told = async {
            tokio::select! { _ = stepped.changed() => {}, _ = stored.changed() => {} }
        };
        let _ = tokio::time::timeout(LOOK, told).await;
        tokio::time::sleep(GATHER).await;
    }
}

async fn barrier(spec: &CloserSpec) {
    let empty = || Keep { messages: Vec::new(), changes: Vec::new(), ends: Vec::new() };
    while spec.keep.ask(empty()).await.is_err() {
        tokio::time::sleep(GATHER).await;
    }
}

/// How messages ended, each with how many.
type Ends = Vec<(End, u64)>;

/// What has ended since the last time, and the row that says so.
pub fn plan(
    store: &dyn QueueStore,
    modules: &[String],
) -> Result<Option<(Ends, Change)>, StoreError> {
    let counted = counted(store)?;
    let mut closed = closed(store)?;
    let mut cursors = Vec::with_capacity(modules.len());
    for module in modules {
        let row = store.row(CURSORS, module.as_bytes())?;
        // One that has not begun stands where messages have not ended.
        cursors.push(row.and_then(|r| from_row(&r)).unwrap_or(closed));
    }
    let reached = slowest(&cursors, &counted);
    let (mut delivered, mut refused) = (0, 0);
    for precedence in Precedence::ALL {
        let p = *precedence as usize;
        let passed = reached.done[p].saturating_sub(closed.done[p]);
        if passed == 0 {
            continue;
        }
        let poison = poisoned(store, *precedence, closed.next[p], reached.next[p])?.min(passed);
        refused += poison;
        delivered += passed - poison;
        (closed.done[p], closed.next[p]) = (reached.done[p], reached.next[p]);
    }
    if delivered + refused == 0 {
        return Ok(None);
    }
    let ends = [(End::Delivered, delivered), (End::Refused, refused)];
    let ends = ends.into_iter().filter(|(_, count)| *count > 0).collect();
    Ok(Some((ends, closed.change(CLOSED))))
}

/// The cursor behind which messages have ended.
pub fn closed(store: &dyn QueueStore) -> Result<Cursor, StoreError> {
    let row = store.row(CURSORS, CLOSED.as_bytes())?;
    Ok(row.and_then(|r| from_row(&r)).unwrap_or_default())
}

fn poisoned(
    store: &dyn QueueStore,
    precedence: Precedence,
    from: u64,
    to: u64,
) -> Result<u64, StoreError> {
    let mut count = 0;
    let from = poison_key(precedence, from);
    store.rows(POISON, &[precedence as u8], &from, &mut |key, _| {
        match number_at(key, 1) {
            Some(seq) if seq < to => count += 1,
            _ => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    })?;
    Ok(count)
}
