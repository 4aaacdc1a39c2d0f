//! The door of a node: bytes become types once, one request is one commit and one answer.
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use extension::communications::{Door, Peer};
use futures_util::future::select_all;
use protocol::{
    Refusal, Verdict,
    codec::Reader,
    exchange::{Exchange, Outcome, digest_of},
    heartbeat::Heartbeat,
    limits,
    message::{Blocks, Messages},
    parts::Parts,
    run::{Run, RunHeader},
};
use supervision::{AskError, Route};
use tracing::{Span, field, instrument, warn};

use super::{
    doorbell::Doorbell,
    durable_queue::{Clock, identity_of},
    orders::{Checked, DownFor, Downward, Identity, Take, answer_to},
    router,
    runs::Traits,
    turned_away::TurnedAway,
};

/// What a child that was turned away for now is asked to wait, ms.
const RETRY_AFTER_MS: u64 = 1000;
/// How often a held exchange looks without being rung for, at least: a net below the bell.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// And at most: what is due again just now is due in a moment, too.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(50);
/// What a child waits whose exchange overtook the one before it, ms.
const EARLY_AFTER_MS: u64 = 20;

/// Class of what teaches the nodes it passes the way down.
const REGISTRATION: &str = "registration";
/// Classes of what comes in great numbers and changes nothing on its way in.
const COMMON: [&str; 3] = ["alarm", "event", "data"];

/// The door of a node.
pub struct Intake {
    /// Takes exchanges into custody.
    pub take: Route<Take>,
    /// What waits for a child.
    pub down: Route<DownFor>,
    /// Wakes held answers.
    pub doorbell: Arc<Doorbell>,
    /// Who the node is.
    pub identity: Arc<Mutex<Identity>>,
    /// The time.
    pub clock: Clock,
    /// Whether messages end here and are decoded, or are passed on as they are.
    pub is_top: bool,
    /// The node is going down: nothing new is taken.
    pub stopping: Arc<AtomicBool>,
    /// Counts exchanges that are refused as a whole.
    pub turned_away: Arc<TurnedAway>,
}

#[async_trait]
impl Door for Intake {
    async fn knock(&self, peer: Peer, body: Bytes, hold: Duration) -> Result<Bytes, Refusal> {
        let answer = self.answer(peer, body, hold).await;
        if let Err(refusal) = &answer {
            self.turned_away.note(*refusal);
        }
        answer
    }

    fn turned_away(&self, refusal: Refusal) {
        self.turned_away.note(refusal);
    }
}

impl Intake {
    #[instrument(name = "exchange", target = "delivery", skip_all, err(level = "debug"),
        fields(peer = field::Empty, messages = field::Empty))]
    async fn answer(&self, peer: Peer, body: Bytes, hold: Duration) -> Result<Bytes, Refusal> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Refusal::Stopping);
        }
        let exchange = Exchange::decode(&body)?;
        if peer.id.is_some_and(|id| id != exchange.sender.id) {
            return Err(Refusal::IdentityMismatch);
        }
        if exchange.number > 0 && digest_of(&exchange.runs) != exchange.digest {
            return Err(Refusal::Malformed);
        }
        let now = (self.clock)();
        let checked: Vec<Vec<_>> =
            exchange.runs.iter().map(|run| self.check_run(&exchange, run, now)).collect();
        let beats = beats_of(&exchange)?;
        Span::current().record("peer", field::display(exchange.sender.id));
        Span::current().record("messages", checked.iter().map(Vec::len).sum::<usize>());
        let take = Take { exchange: exchange.clone(), checked, beats };
        let mut taken = self.take.ask(take).await.map_err(refuse)??;
        if exchange.number == 0 && taken.down.is_empty() && !hold.is_zero() {
            taken.down = self.held(&exchange, hold, taken.down.again_in_ms).await?;
        }
        let retry_after_ms = retry_after(&taken.outcomes);
        Ok(answer_to(&exchange, taken, retry_after_ms, 0).encode())
    }
}

impl Intake {
    /// Waits for something for this child, at most `hold`; `again_in_ms` is when something that it
    /// did not acknowledge goes again.
    async fn held(
        &self,
        exchange: &Exchange,
        hold: Duration,
        mut again_in_ms: Option<u64>,
    ) -> Result<Downward, Refusal> {
        let hold = hold.min(Duration::from_secs(limits::HELD_S_MAX));
        let queues = router::down_queues(&exchange.sender);
        let bells: Vec<_> = queues.iter().map(|queue| self.doorbell.bell(queue)).collect();
        let until = tokio::time::Instant::now() + hold;
        loop {
            let rung = select_all(bells.iter().map(|bell| Box::pin(bell.notified())));
            // Also without a ring: what went down with an answer that got lost goes again.
            let again = again_in_ms.map_or(LOOK_AGAIN, Duration::from_millis);
            let again = again.clamp(LOOK_AGAIN_MIN, LOOK_AGAIN);
            let look = until.min(tokio::time::Instant::now() + again);
            let rung = tokio::time::timeout_at(look, rung).await;
            if rung.is_err() && look == until {
                return Ok(Downward::default());
            }
            let down = self.down.ask(DownFor(exchange.sender)).await.map_err(refuse)??;
            again_in_ms = down.again_in_ms;
            if !down.is_empty() || self.stopping.load(Ordering::Relaxed) {
                return Ok(down);
            }
        }
    }

    /// Who this node is now.
    pub fn identity(&self) -> Identity {
        identity_of(&self.identity)
    }
}

impl Intake {
    /// Checks the messages of a run. The last hop is the child that speaks, and the run holds as
    /// many messages as it says; otherwise every one of them is refused. Without certificates the
    /// child is believed whose messages it relays (DESIGN §15).
    fn check_run(&self, exchange: &Exchange, run: &Run, now: i64) -> Vec<Result<Checked, Refusal>> {
        let expected = run.header.present();
        let refuse_all = |refusal| (0..expected).map(|_| Err(refusal)).collect::<Vec<_>>();
        let last = run.header.path.last();
        if last.is_none_or(|hop| hop.node != exchange.sender.id) {
            return refuse_all(Refusal::IdentityMismatch);
        }
        if run.header.path.len() >= limits::HOPS_MAX {
            // Only a circle makes a path so long, and it may be one that leaves this node out.
            warn!(target: "delivery", origin = %run.header.origin, hops = run.header.path.len(),
                "the path is too long: look for a circle among the parents");
            return refuse_all(Refusal::Loop);
        }
        let mut checked = Vec::with_capacity(expected as usize);
        let mut messages = Messages::of(&run.messages);
        for sequence in run.header.numbers() {
            let Some(Ok((range, blocks))) = messages.next() else {
                return refuse_all(Refusal::Malformed);
            };
            checked.push(check(blocks, range.len(), &run.header, (sequence, now), self.is_top));
        }
        match messages.next() {
            None => checked,
            Some(_) => refuse_all(Refusal::Malformed),
        }
    }
}

/// Checks a message of `bytes` wire bytes, with its number and the time.
pub fn check(
    blocks: Blocks<'_>,
    bytes: usize,
    run: &RunHeader,
    (sequence, now): (u64, i64),
    is_top: bool,
) -> Result<Checked, Refusal> {
    blocks.check(run, sequence, now).map(|parts| Checked::of(&parts, bytes, is_top))
}

impl Checked {
    /// Of a message of `bytes` wire bytes that was checked. Decoded is only what changes something
    /// on its way in: a node passes the rest on as it is, and so does the top to who subscribed.
    pub fn of(parts: &Parts<'_>, bytes: usize, is_top: bool) -> Self {
        let is_decoded = match is_top {
            true => !COMMON.contains(&parts.header.class),
            false => parts.header.class == REGISTRATION,
        };
        Self {
            traits: Traits::of(&parts.header, bytes),
            instance: parts.infrastructure.instance,
            message: is_decoded.then(|| Box::new(parts.message())),
        }
    }
}

fn beats_of(exchange: &Exchange) -> Result<Vec<Heartbeat>, Refusal> {
    let read = |beat: &Bytes| {
        let mut beat = Heartbeat::read(&mut Reader::new(beat)).map_err(|_| Refusal::Malformed)?;
        if beat.path.len() < limits::HOPS_MAX {
            beat.path.push(exchange.sender.id);
        }
        Ok(beat)
    };
    exchange.beats.iter().map(read).collect()
}

fn retry_after(outcomes: &[(Outcome, u32)]) -> u64 {
    let again = outcomes.iter().find_map(|(o, _)| match o {
        Outcome::Refused(r) if r.verdict() == Verdict::TryAgain => Some(*r),
        _ => None,
    });
    match again {
        None => 0,
        Some(Refusal::Busy | Refusal::NewIncarnation) => EARLY_AFTER_MS,
        Some(_) => RETRY_AFTER_MS,
    }
}

/// What a child is told when the queue did not answer.
fn refuse(error: AskError) -> Refusal {
    match error {
        AskError::Full => Refusal::Busy,
        // They may be on disk or not. The child sends the same again; a repeat is known.
        AskError::Ended | AskError::TimedOut => Refusal::StorageDown,
    }
}
