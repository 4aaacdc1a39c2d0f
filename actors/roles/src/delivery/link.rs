//! The link: empties `up` towards the parent, and files what comes down (ACT-2).
//!
//! Two exchanges may carry and one waits. What follows a try is `retry::plan`.
mod status;

pub use status::LinkStatus;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix::prelude::*;
use bytes::Bytes;
use extension::communications::{ExchangeError, Protocol};
use protocol::{
    Precedence, Refusal,
    codec::Writer,
    exchange::{Answer, Exchange, Outcome, digest_of},
    heartbeat::Mode,
    limits,
};
use supervision::Route;
use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tracing::{Instrument, warn};

use super::{
    doorbell::Doorbell,
    durable_queue::{Clock, UP, identity_of},
    exchanges::{LinkNumbers, Numbered},
    orders::{Ask, Batch, Identity, NextBatch, Release, Settle, TakeDown},
    retry::{self, Next},
};

/// How long an idle carrier sleeps without a ring: the bell is the rule, this the net below it.
const IDLE: Duration = Duration::from_secs(1);
/// How long the parent holds an exchange of a node that has no id yet.
const HELD_NAMELESS: Duration = Duration::from_millis(250);
/// A link that was away so long marks what waited as replayed, ms.
const REPLAYED_AFTER_MS: i64 = 5_000;

/// What a link is made of.
#[derive(Clone)]
pub struct LinkSettings {
    /// Parents in order of preference, as URLs.
    pub parents: Vec<String>,
    /// A parent that fails so long is left for the next.
    pub unhealthy_after: Duration,
    /// How to reach them.
    pub protocol: Arc<dyn Protocol>,
    /// Name of the node, for its metrics.
    pub node: Arc<str>,
    /// Takes the head of the queue.
    pub next: Route<NextBatch>,
    /// Says what became of it.
    pub settle: Route<Settle>,
    /// Puts back what was in flight.
    pub release: Route<Release>,
    /// Files what comes down.
    pub take_down: Route<TakeDown>,
    /// Takes what the node and those below it are asked.
    pub ask: Route<Ask>,
    /// Rings when something stands in `up`.
    pub doorbell: Arc<Doorbell>,
    /// Who the node is.
    pub identity: Arc<Mutex<Identity>>,
    /// Draws random numbers.
    pub random: fn() -> u64,
    /// The time.
    pub clock: Clock,
    /// How the link is.
    pub status: Arc<watch::Sender<LinkStatus>>,
}

/// What the carriers of one link share.
struct Shared {
    settings: LinkSettings,
    /// Taken while a batch is drawn and numbered, so that numbers follow the queue's order.
    turn: AsyncMutex<()>,
    /// Held by the one carrier that tries while the parent does not answer.
    alone: AsyncMutex<()>,
    /// Cloned for each batch that the parent may get, or have, without having said so.
    unsure: Arc<()>,
    /// Rings when the parent answers after it did not: nobody sits out a backoff any more.
    answers: Notify,
    now: Mutex<Now>,
}

struct Now {
    incarnation: u64,
    numbers: LinkNumbers,
    parent: usize,
    failures: u32,
    failing_since: Option<i64>,
    replay_before: i64,
    one_run: bool,
}

/// Empties `up` towards the parent.
pub struct Link {
    settings: LinkSettings,
}

supervision::supervised!(Link);

impl Link {
    /// A link that starts with the first parent.
    pub fn new(settings: LinkSettings) -> Self {
        Self { settings }
    }
}

impl Actor for Link {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let settings = self.settings.clone();
        let now = Now {
            incarnation: (settings.random)(),
            numbers: LinkNumbers::default(),
            parent: 0,
            failures: 0,
            failing_since: None,
            replay_before: 0,
            one_run: false,
        };
        let (turn, alone) = (AsyncMutex::new(()), AsyncMutex::new(()));
        let (unsure, now) = (Arc::new(()), Mutex::new(now));
        let answers = Notify::new();
        let shared = Arc::new(Shared { settings, turn, alone, unsure, answers, now });
        let starting = shared.clone();
        // What the last instance had in flight goes again, in a new incarnation.
        let start = async move { starting.settings.release.ask(Release).await };
        ctx.wait(start.into_actor(self).map(|_, _, _| ()));
        for _carrier in 0..limits::IN_FLIGHT {
            ctx.spawn(carry(shared.clone()).into_actor(self));
        }
        if shared.settings.protocol.mode() == Mode::Session {
            ctx.spawn(hold(shared).into_actor(self));
        }
    }
}

/// Carries batches, and reports where there are none, until the link ends.
async fn carry(shared: Arc<Shared>) {
    let bell = shared.settings.doorbell.bell(UP);
    loop {
        // While the parent is away one carrier tries for all: what is most urgent then goes first.
        let failing = shared.now().failures > 0;
        let _alone = match failing {
            true => Some(shared.alone.lock().await),
            false => None,
        };
        let drawn = shared.draw().await;
        match drawn {
            Some((exchange, batch)) if exchange.number > 0 => {
                // The other carrier may have something to do as well.
                shared.settings.doorbell.ring(UP);
                shared.deliver(exchange, batch).await;
            }
            Some((exchange, batch)) if says_something(&batch) => {
                shared.report(exchange, batch, Duration::ZERO).await;
            }
            Some(_) => {
                let _ = tokio::time::timeout(IDLE, bell.notified()).await;
            }
            None => tokio::time::sleep(IDLE).await,
        }
    }
}

/// Keeps an empty exchange open at the parent: the back-channel. While the node has no id it asks
/// again and again: what comes for the id that it gets meanwhile must not wait for the end of an
/// exchange that was held open under number 0.
async fn hold(shared: Arc<Shared>) {
    loop {
        let Some((exchange, batch)) = shared.draw_empty().await else {
            tokio::time::sleep(IDLE).await;
            continue;
        };
        let held = match exchange.sender.id.is_unregistered() {
            true => HELD_NAMELESS,
            false => Duration::from_secs(limits::HELD_S_MAX),
        };
        shared.report(exchange, batch, held).await;
    }
}

fn says_something(batch: &Batch) -> bool {
    !batch.ends.is_empty() || !batch.beats.is_empty() || !batch.acknowledgements.is_empty()
}

impl Shared {
    fn now(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self) -> String {
        let parent = self.now().parent;
        self.settings.parents.get(parent).cloned().unwrap_or_default()
    }

    async fn next(&self, empty: bool) -> Option<Batch> {
        let bytes_max = if self.now().one_run { 1 } else { limits::BATCH_BYTES_MAX };
        let order = NextBatch { allowed: [true; 3], bytes_max, empty };
        self.settings.next.ask(order).await.ok()?.ok()
    }

    /// Draws the next batch and numbers it.
    async fn draw(&self) -> Option<(Exchange, Batch)> {
        let _turn = self.turn.lock().await;
        let batch = self.next(false).await?;
        Some((self.number(&batch), batch))
    }

    async fn draw_empty(&self) -> Option<(Exchange, Batch)> {
        let batch = self.next(true).await?;
        Some((self.number(&batch), batch))
    }

    fn number(&self, batch: &Batch) -> Exchange {
        let identity = identity_of(&self.settings.identity);
        let sent = (self.settings.clock)();
        let mut now = self.now();
        let precedence = batch.runs.first().map_or(Precedence::Urgent, |run| run.header.precedence);
        let mut runs = batch.runs.clone();
        for run in &mut runs {
            let replayed = now.replay_before;
            if let Some(hop) = run.header.path.last_mut() {
                run.header.replayed |= hop.received < replayed;
                hop.sent = sent;
                // A node that got its id meanwhile speaks by it.
                hop.node = identity.id;
            }
        }
        let numbered = match runs.is_empty() {
            true => Numbered { number: 0, previous: 0, oldest: 0 },
            false => now.numbers.of(precedence).draw(),
        };
        let beats = batch.beats.iter().map(|beat| {
            let mut to = Writer::new();
            beat.write(&mut to);
            to.into_bytes()
        });
        Exchange {
            incarnation: now.incarnation,
            precedence,
            number: numbered.number,
            digest: digest_of(&runs),
            previous: numbered.previous,
            oldest: numbered.oldest,
            beats: beats.filter(|b| b.len() <= limits::BEAT_BYTES_MAX).collect(),
            ends: batch.ends.iter().map(|(_, report)| report.clone()).collect(),
            acknowledgements: batch.acknowledgements.clone(),
            runs,
            sender: identity.into(),
        }
    }

    /// Sends an exchange that carries until it is settled or the incarnation is over.
    async fn deliver(&self, exchange: Exchange, batch: Batch) {
        let body = exchange.encode();
        let mut _unsure: Option<Arc<()>> = None;
        loop {
            let trying = self.unsure.clone();
            let tried = self.try_once(&body, Duration::ZERO).await;
            self.note_status(tried.as_ref().map(|_| ()));
            self.note_carried(tried.as_ref());
            let matches = tried.as_ref().map(|answer| (answer, fits(&exchange, answer)));
            let failures = self.note_try(matches.is_ok());
            let next = retry::plan(matches, failures, (self.settings.random)());
            if self.now().incarnation != exchange.incarnation {
                return;
            }
            let vague = matches!(tried, Ok(_) | Err(ExchangeError::Unknown(_)));
            match (next, tried) {
                (Next::Settle(wait), Ok(answer)) => {
                    self.settle(&exchange, batch, answer).await;
                    tokio::time::sleep(wait).await;
                    return;
                }
                (Next::Split, Err(ExchangeError::Refused { refusal, .. })) => {
                    return self.split(&exchange, batch, refusal).await;
                }
                (Next::NewIncarnation, _) => return self.new_incarnation().await,
                (next @ (Next::Again(_) | Next::Later(_)), _) => {
                    if self.fail_over() {
                        return self.new_incarnation().await;
                    }
                    _unsure = _unsure.or(vague.then_some(trying));
                    self.wait(next).await;
                    if self.now().incarnation != exchange.incarnation {
                        return;
                    }
                    if self.may_draw_anew(&batch) {
                        return self.new_incarnation().await;
                    }
                }
                (next, _) => self.wait(next).await,
            }
        }
    }

    /// Waits as planned; what is no wish of the parent's ends when it answers anything.
    async fn wait(&self, next: Next) {
        match next {
            Next::Again(wait) => {
                // It may have answered since this try failed.
                let answers = self.now().failures == 0;
                let wait = if answers { wait.min(retry::WAIT_MIN) } else { wait };
                let _ = tokio::time::timeout(wait, self.answers.notified()).await;
            }
            Next::Later(wait) | Next::Settle(wait) => tokio::time::sleep(wait).await,
            Next::Split | Next::NewIncarnation => tokio::time::sleep(retry::WAIT_MAX).await,
        }
    }

    /// Whether what was not answered is put back instead of being sent again: the parent certainly
    /// has none of it, and what is more urgent may have come; or some of it is of no use any more,
    /// and ends here (QUE-16). Should the parent have that after all, delivered wins.
    fn may_draw_anew(&self, batch: &Batch) -> bool {
        let late = batch.expires_at.is_some_and(|at| at <= (self.settings.clock)());
        late || Arc::strong_count(&self.unsure) == 1
    }

    async fn try_once(&self, body: &Bytes, hold: Duration) -> Result<Answer, ExchangeError> {
        let url = self.url();
        let started = std::time::Instant::now();
        let answer = self.settings.protocol.exchange(&url, body.clone(), hold).await?;
        let node = &self.settings.node;
        if hold.is_zero() {
            metrics::histogram!("callhome_exchange_seconds", "node" => node.to_string())
                .record(started.elapsed().as_secs_f64());
        }
        for (direction, bytes) in [("up", body.len()), ("down", answer.len())] {
            metrics::counter!("callhome_exchange_bytes_total",
                "node" => node.to_string(), "direction" => direction)
            .increment(bytes as u64);
        }
        Answer::decode(&answer).map_err(|e| ExchangeError::Unknown(e.to_string()))
    }

    async fn new_incarnation(&self) {
        {
            let mut now = self.now();
            now.incarnation = (self.settings.random)();
            now.numbers = LinkNumbers::default();
        }
        // A queue that cannot answer now has nothing in flight when it is back.
        let _ = self.settings.release.ask(Release).await;
        tokio::time::sleep(retry::WAIT_MIN).await;
    }

    async fn settle(&self, exchange: &Exchange, batch: Batch, answer: Answer) {
        let precedence = exchange.precedence;
        let again = answer.outcomes.iter().any(|(outcome, _)| outcome.is_try_again());
        for question in answer.questions {
            // One that the queue cannot take now is handed down once more.
            let _ = self.settings.ask.ask(Ask(question)).await;
        }
        self.file(answer.down).await;
        let settle = Settle {
            parts: batch.parts,
            outcomes: answer.outcomes,
            ends: batch.ends.iter().map(|(key, _)| *key).collect(),
            beats: batch.beats.iter().map(|b| (b.node, b.beat)).collect(),
        };
        let route = self.settings.settle.clone();
        let settled = async move {
            if let Err(error) = route.ask(settle).await {
                warn!(target: "delivery", %error, "settlement not confirmed; may go again");
            }
        };
        // The answer comes with the commit that forgets the messages: nobody need wait for it.
        // A report is drawn again until that commit, so the next one waits. What was turned away
        // must stand in the queue again, and its number be in flight until then, before anything
        // behind it is drawn: else it would be passed.
        let _turn = match again {
            true => Some(self.turn.lock().await),
            false => None,
        };
        match exchange.number == 0 || again {
            true => settled.await,
            false => drop(actix::spawn(settled.in_current_span())),
        }
        let mut now = self.now();
        now.one_run = false;
        if exchange.number > 0 {
            now.numbers.of(precedence).settled(exchange.number);
        }
    }

    /// The parent refused a whole exchange for good: run by run it shows which it is.
    async fn split(&self, exchange: &Exchange, batch: Batch, refusal: Refusal) {
        warn!(target: "delivery", %refusal, runs = batch.runs.len(), "parent refuses an exchange");
        let about_the_bytes = matches!(refusal, Refusal::Malformed | Refusal::TooLarge);
        if !about_the_bytes {
            // It speaks of who we are or what we speak, not of these messages.
            tokio::time::sleep(retry::WAIT_MAX).await;
        } else if let [run] = &batch.runs[..] {
            let outcomes = vec![(Outcome::Refused(refusal), run.header.present())];
            let answer = Answer { outcomes, ..empty_answer(exchange) };
            return self
                .settle(exchange, Batch { ends: vec![], beats: vec![], ..batch }, answer)
                .await;
        }
        self.now().one_run = true;
        self.new_incarnation().await;
    }

    /// Sends an exchange without messages: reports, heartbeats, and the open back-channel.
    async fn report(&self, exchange: Exchange, batch: Batch, hold: Duration) {
        let tried = self.try_once(&exchange.encode(), hold).await;
        self.note_status(tried.as_ref().map(|_| ()));
        match tried {
            Ok(answer) => {
                self.note_try(true);
                self.settle(&exchange, batch, answer).await;
            }
            Err(error) => {
                let failures = self.note_try(false);
                if failures == 1 {
                    warn!(target: "delivery", %error, "parent does not answer");
                }
                if self.fail_over() {
                    self.new_incarnation().await;
                }
                let random = (self.settings.random)();
                self.wait(match retry::plan(Err(&error), failures, random) {
                    later @ Next::Later(_) => later,
                    _ => Next::Again(retry::backoff(failures, random)),
                })
                .await;
            }
        }
    }

    /// Commits what came down; its acknowledgement rides in the next exchange.
    async fn file(&self, down: Vec<protocol::run::Run>) {
        if down.is_empty() {
            return;
        }
        if let Ok(Ok(_)) = self.settings.take_down.ask(TakeDown(down)).await {
            self.settings.doorbell.ring(UP);
        }
    }
}

/// Whether the answer is for this exchange and speaks of each of its messages.
fn fits(exchange: &Exchange, answer: &Answer) -> bool {
    let asked: u64 = exchange.runs.iter().map(|r| u64::from(r.header.present())).sum();
    let told: u64 = answer.outcomes.iter().map(|(_, n)| u64::from(*n)).sum();
    (answer.incarnation, answer.precedence, answer.number, answer.digest)
        == (exchange.incarnation, exchange.precedence, exchange.number, exchange.digest)
        && asked == told
}

fn empty_answer(exchange: &Exchange) -> Answer {
    Answer {
        incarnation: exchange.incarnation,
        precedence: exchange.precedence,
        number: exchange.number,
        digest: exchange.digest,
        outcomes: Vec::new(),
        retry_after_ms: 0,
        credit_bytes: 0,
        down: Vec::new(),
        questions: Vec::new(),
    }
}
