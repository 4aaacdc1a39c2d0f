//! Runs one service module: hands it what is stored, commits its effects with its cursor's step,
//! sets aside what it cannot handle (APS-2, APS-5, DESIGN §4.9).
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture};
use bytes::Bytes;
use extension::{
    service::{ByHand, ByHandError, Manifest, ServiceError, ServiceModule},
    storage::{Change, QueueStore, StoreError},
};
use protocol::{
    Precedence,
    limits::POISON_ATTEMPTS_MAX,
    service::{Alarm, Payload, Service, Severity, State},
};
use serde::{Deserialize, Serialize};
use supervision::{AskError, Lifeline, Route};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    cursors::{Cursor, Piece},
    module_rows::ModuleRows,
    publish::{Feed, What, is_shown},
    reel::Recent,
    rows::{CURSORS, from_row, to_row},
    service_work::{Done, Failed, Hands, Outbox, Who, aside, guarded, identity_of, own_message},
};
use crate::delivery::orders::Keep;

/// Time between two ticks of a module.
const TICK: Duration = Duration::from_secs(1);
/// Wishes that wait for a module; who brings one more waits in turn.
const WISHES_MAX: usize = 64;
/// First pause after a commit that was refused, doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(20);
/// Longest pause after a commit that was refused.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long the cursor on disk may be behind what a module had no use for: a commit that says only
/// that is one in so long, not one a batch.
const BEHIND: Duration = Duration::from_millis(50);
/// Messages of one batch: what changes a row often in it is written once.
const MESSAGES_MAX: u64 = 8_192;
/// Bytes of one batch: half of what is kept in RAM for all modules.
const BYTES_MAX: usize = 4 << 20;
/// A batch of so many messages says that more are coming…
const BUSY: u64 = 64;
/// …and the next one is taken that long after it began: fewer and larger commits. A module that is
/// not busy takes each message at once.
const PACE: Duration = Duration::from_millis(25);
/// Pause before a message is tried again, times the attempts so far: what is short passes.
const AGAIN: Duration = Duration::from_millis(20);

/// What a host needs; cloned for each restart.
#[derive(Clone)]
pub struct HostSpec {
    /// Makes the module anew.
    pub make: Arc<dyn Fn() -> Box<dyn ServiceModule> + Send + Sync>,
    /// What it says of itself; checked.
    pub manifest: Arc<Manifest>,
    /// Reads.
    pub store: Arc<dyn QueueStore>,
    /// Commits.
    pub keep: Route<Keep>,
    /// The newest runs.
    pub recent: Recent,
    /// Hears and tells.
    pub feed: Feed,
    /// Who publishes.
    pub identity: Who,
    /// ms since 1970 UTC.
    pub clock: fn() -> i64,
    /// Whether an instance worked in this process already.
    pub begun: Arc<AtomicBool>,
    /// Held while a module is tried with what may have ended the process: one at a time, so that
    /// the next end is the fault of nobody else.
    pub care: Arc<Semaphore>,
}

/// Runs one module.
pub struct ServiceHost {
    spec: HostSpec,
    lifeline: Lifeline,
    wishes: Option<mpsc::Sender<Wish>>,
}

type Wish = (ByHand, oneshot::Sender<Result<(), ByHandError>>);

/// Has something done by hand. `Ok`: on disk.
#[derive(actix::Message)]
#[rtype(result = "Result<(), ByHandError>")]
pub struct DoByHand(pub ByHand);

/// What a module is tried with. It stands on disk while that may end the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct InHand {
    precedence: Precedence,
    seq: u64,
    /// More than one: the first batch of this start.
    count: u64,
    attempts: u32,
}

supervision::supervised!(ServiceHost);

impl ServiceHost {
    /// A host that begins where the cursor on disk stands.
    pub fn new(spec: HostSpec, lifeline: Lifeline) -> Self {
        Self { spec, lifeline, wishes: None }
    }
}

impl Actor for ServiceHost {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (sender, wishes) = mpsc::channel(WISHES_MAX);
        self.wishes = Some(sender);
        let work = Work::new(self.spec.clone(), wishes);
        let run = async move { work.run().await };
        let end = |error: StoreError, host: &mut Self, ctx: &mut Self::Context| {
            host.lifeline.fail(ctx, error);
        };
        ctx.spawn(run.into_actor(self).map(end));
    }
}

impl Handler<DoByHand> for ServiceHost {
    type Result = ResponseActFuture<Self, Result<(), ByHandError>>;

    fn handle(&mut self, DoByHand(wish): DoByHand, _: &mut Self::Context) -> Self::Result {
        let wishes = self.wishes.clone();
        let done = async move {
            let gone = || ByHandError::Failed(ServiceError("the module starts anew".to_owned()));
            let (reply, answer) = oneshot::channel();
            let wishes = wishes.ok_or_else(gone)?;
            wishes.send((wish, reply)).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        Box::pin(done.into_actor(self))
    }
}

/// The module at work.
struct Work {
    spec: HostSpec,
    name: String,
    module: Box<dyn ServiceModule>,
    cursor: Cursor,
    /// A message that failed, or the first batch of a start: what is tried with care.
    in_hand: Option<InHand>,
    /// While only this module is tried with care.
    care: Option<OwnedSemaphorePermit>,
    wishes: mpsc::Receiver<Wish>,
    stored: watch::Receiver<u64>,
    /// Since when the cursor on disk is behind what the module had no use for.
    behind_since: Option<Instant>,
    /// No batch is taken before; none: the last one was small.
    paced_until: Option<Instant>,
}

/// What a commit carries beside the module's rows.
#[derive(Default)]
struct Commit {
    messages: Outbox,
    changes: Vec<Change>,
    put: Vec<Bytes>,
}

impl Work {
    fn new(spec: HostSpec, wishes: mpsc::Receiver<Wish>) -> Self {
        let (name, module) = (spec.manifest.name.clone(), (spec.make)());
        let stored = spec.feed.on_stored();
        let cursor = Cursor::default();
        Self {
            spec,
            name,
            module,
            cursor,
            in_hand: None,
            care: None,
            wishes,
            stored,
            behind_since: None,
            paced_until: None,
        }
    }

    /// Works until the store fails.
    async fn run(mut self) -> StoreError {
        match self.work().await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    async fn work(&mut self) -> Result<std::convert::Infallible, StoreError> {
        // What an earlier instance asked for is on disk or never will be.
        self.barrier().await;
        self.cursor = Cursor::read(&*self.spec.store, &self.name)?;
        self.begin_with_care().await?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.stored.mark_unchanged();
            let paced = self.paced_until.filter(|until| *until > Instant::now());
            let worked = paced.is_none() && self.batch().await?;
            let behind = self.behind_since.map(|since| since + BEHIND);
            tokio::select! {
                biased;
                _ = tick.tick() => self.tick().await?,
                wish = self.wishes.recv() => if let Some(wish) = wish { self.wish(wish).await? },
                () = due(behind) => self.commit(Commit::default()).await?,
                () = due(paced), if paced.is_some() => {}
                () = std::future::ready(()), if worked => {}
                changed = self.stored.changed(), if paced.is_none() => {
                    if changed.is_err() {
                        tick.tick().await;
                    }
                }
            }
        }
    }

    fn hands<'s>(&self, spec: &'s HostSpec, name: &'s str) -> Hands<'s> {
        Hands {
            store: &*spec.store,
            name,
            subscriptions: &spec.manifest.subscriptions,
            identity: identity_of(&spec.identity),
            now: (spec.clock)(),
        }
    }

    /// Finds out whether the last start ended with something in hand. If so, its messages are
    /// tried one by one; if not, the first batch is noted, so that the next start can tell.
    async fn begin_with_care(&mut self) -> Result<(), StoreError> {
        let row = self.spec.store.row(CURSORS, &self.hand_key())?;
        let before: Option<InHand> = row.and_then(|r| from_row(&r));
        let ahead = self.ahead(MESSAGES_MAX)?;
        let Some(first) = ahead.first() else {
            self.spec.begun.store(true, SeqCst);
            return Ok(());
        };
        let same = |b: &InHand| (b.precedence, b.seq) == (first.precedence, first.seq);
        if self.spec.begun.swap(true, SeqCst) {
            // Panics of the module are caught: it was not the message that ended the instance.
            self.in_hand = before.filter(same).filter(|one| one.count == 1);
            return Ok(());
        }
        let before = before.filter(same);
        if before.is_some() {
            // The attempt counts from here on. Nobody closes it, so there is always an answer.
            self.care = self.spec.care.clone().acquire_owned().await.ok();
        }
        self.in_hand = Some(match before {
            Some(one) if one.count == 1 => InHand { attempts: one.attempts + 1, ..one },
            Some(batch) => InHand { count: 1, attempts: 0, ..batch },
            None => InHand {
                precedence: first.precedence,
                seq: first.seq,
                count: ahead.iter().map(|p| p.count).sum(),
                attempts: 0,
            },
        });
        self.commit(Commit::default()).await
    }

    fn ahead(&mut self, messages_max: u64) -> Result<Vec<Piece>, StoreError> {
        let spec = &self.spec;
        self.cursor.ahead(&*spec.store, &spec.recent, messages_max, BYTES_MAX)
    }

    /// Hands over the next batch; `false` when there was none.
    async fn batch(&mut self) -> Result<bool, StoreError> {
        let careful = self.in_hand.filter(|h| h.count == 1);
        if careful.is_none() {
            self.care = None;
        }
        if let Some(hand) = careful.filter(|h| h.attempts >= POISON_ATTEMPTS_MAX) {
            let reason = "it failed in every attempt".to_owned();
            let failed = Failed { precedence: hand.precedence, seq: hand.seq, reason };
            return self.set_aside(failed).await.map(|()| true);
        }
        let began = Instant::now();
        let pieces = self.ahead(if careful.is_some() { 1 } else { MESSAGES_MAX })?;
        if pieces.is_empty() {
            return Ok(false);
        }
        let is_busy = pieces.iter().map(|piece| piece.count).sum::<u64>() >= BUSY;
        self.paced_until = is_busy.then_some(began + PACE);
        let (spec, name) = (self.spec.clone(), self.name.clone());
        let done = self.hands(&spec, &name).over(&mut *self.module, self.cursor, &pieces);
        self.finish(done, &pieces).await?;
        Ok(true)
    }

    /// Commits what was handled, and notes what was not.
    async fn finish(&mut self, done: Done, pieces: &[Piece]) -> Result<(), StoreError> {
        let Done { changes, put, messages, cursor, failed } = done;
        let before = self.in_hand;
        self.cursor = Cursor { step: self.cursor.step, ..cursor };
        self.in_hand = match &failed {
            Some(failed) => {
                let one = |h: &InHand| {
                    (h.precedence, h.seq, h.count) == (failed.precedence, failed.seq, 1)
                };
                let attempts = before.filter(one).map_or(0, |h| h.attempts) + 1;
                tracing::warn!(
                    module = self.name,
                    seq = failed.seq,
                    attempts,
                    reason = failed.reason,
                    "a service module could not handle a message"
                );
                let (precedence, seq) = (failed.precedence, failed.seq);
                Some(InHand { precedence, seq, count: 1, attempts })
            }
            // After the suspect batch of a start only the rest of it is tried one by one.
            None => self.next_of_suspects(before, pieces),
        };
        if changes.is_empty() && messages.is_empty() && before.or(self.in_hand).is_none() {
            // Nothing for this module: after a crash it is passed over once more.
            self.behind_since.get_or_insert_with(Instant::now);
            return Ok(());
        }
        self.commit(Commit { messages, changes, put }).await?;
        if failed.is_some() {
            // What a panic left of it is not to be used.
            self.module = (self.spec.make)();
            let attempts = self.in_hand.map_or(0, |h| h.attempts);
            tokio::time::sleep(AGAIN * attempts).await;
        }
        Ok(())
    }

    /// The next message to be tried alone: those of the piece in which one ended the process.
    fn next_of_suspects(&self, before: Option<InHand>, pieces: &[Piece]) -> Option<InHand> {
        let hand = before.filter(|h| h.count == 1 && h.attempts == 0)?;
        let piece = pieces.first()?;
        let stored = &piece.reel.as_ref()?.stored;
        let seq = hand.seq + 1;
        (seq < stored.end()).then_some(InHand { seq, ..hand })
    }

    /// Gives a message up: it ends as refused, in the queue `set-aside`, with an alarm.
    async fn set_aside(&mut self, failed: Failed) -> Result<(), StoreError> {
        let pieces = self.ahead(1)?;
        let piece =
            pieces.first().filter(|p| (p.precedence, p.seq) == (failed.precedence, failed.seq));
        self.in_hand = None;
        let Some(piece) = piece else { return self.commit(Commit::default()).await };
        let mut commit = Commit::default();
        if let Some(reel) = &piece.reel {
            commit.changes = aside(&self.name, &reel.stored, failed.seq);
        }
        tracing::error!(module = self.name, seq = failed.seq, "a message is set aside as poison");
        let alarm = Service::Alarm(Alarm {
            kind: "poison".to_owned(),
            key: self.name.clone(),
            severity: Severity::Major,
            text: format!(
                "service module {} cannot handle message {}: it stands in the queue set-aside",
                self.name, failed.seq
            ),
            state: State::Opened,
            close_after_s: None,
            payload: Payload::default(),
        });
        let now = (self.spec.clock)();
        let message = own_message(identity_of(&self.spec.identity), alarm, Precedence::Normal, now);
        commit.messages.published.push((&message).into());
        self.cursor.pass(failed.precedence, failed.seq, 1);
        self.commit(commit).await
    }

    async fn tick(&mut self) -> Result<(), StoreError> {
        let (spec, name) = (self.spec.clone(), self.name.clone());
        let done = self.hands(&spec, &name).tick(&mut *self.module, self.cursor);
        if let Some(failed) = done.failed {
            tracing::warn!(module = name, reason = failed.reason, "a tick of a module failed");
            self.module = (self.spec.make)();
        }
        if done.changes.is_empty() && done.messages.is_empty() {
            return Ok(());
        }
        self.commit(Commit { messages: done.messages, changes: done.changes, put: done.put }).await
    }

    async fn wish(&mut self, (wish, reply): Wish) -> Result<(), StoreError> {
        let (spec, name) = (self.spec.clone(), self.name.clone());
        let hands = self.hands(&spec, &name);
        let mut rows = ModuleRows::of(&*spec.store, &name);
        let effects = guarded(|| self.module.by_hand(&wish, &rows));
        let answer = match effects {
            Ok(effects) => {
                let mut messages = Outbox::default();
                hands.gather(effects, &mut rows, &mut messages);
                let (changes, put) = rows.into_changes();
                self.commit(Commit { messages, changes, put }).await?;
                Ok(())
            }
            Err(error) => {
                if matches!(error, ByHandError::Failed(_)) {
                    self.module = (self.spec.make)();
                }
                Err(error)
            }
        };
        // Who wished may have gone.
        let _ = reply.send(answer);
        Ok(())
    }

    fn hand_key(&self) -> Bytes {
        format!("{}\0hand", self.name).into()
    }

    /// Makes the commit, however often it is refused; the cursor's step tells one whose outcome
    /// is unknown.
    async fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        self.cursor.step += 1;
        self.behind_since = None;
        let mut changes = commit.changes;
        changes.push(self.cursor.change(&self.name));
        let key = self.hand_key();
        changes.push(match &self.in_hand {
            Some(hand) => Change::PutRow { table: CURSORS, key, value: to_row(hand) },
            None => Change::RemoveRow { table: CURSORS, key },
        });
        let mut pause = PAUSE;
        loop {
            let keep = Keep {
                messages: commit.messages.all(),
                changes: changes.clone(),
                ends: Vec::new(),
            };
            match self.spec.keep.ask(keep).await {
                Ok(Ok(kept)) => {
                    for refusal in kept.iter().filter_map(|k| k.as_ref().err()) {
                        tracing::warn!(module = self.name, %refusal, "its message is refused");
                    }
                    break;
                }
                Ok(Err(_)) | Err(AskError::Full) => {}
                Err(AskError::TimedOut | AskError::Ended) => {
                    self.barrier().await;
                    if Cursor::read(&*self.spec.store, &self.name)?.step == self.cursor.step {
                        break;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        for key in commit.put.into_iter().filter(|key| is_shown(key)) {
            self.spec.feed.tell(What::Row { module: self.name.as_str().into(), key });
        }
        self.spec.feed.stepped();
        Ok(())
    }

    /// Waits until the queue has answered: orders are done in turn, so that all asked before is
    /// on disk then, or will never be.
    async fn barrier(&self) {
        let empty = || Keep { messages: Vec::new(), changes: Vec::new(), ends: Vec::new() };
        while self.spec.keep.ask(empty()).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Ends at that time; never where there is none.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
