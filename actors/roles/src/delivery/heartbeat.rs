//! Says regularly that the node is there and how it is (HBT, ACT-6), and at once when it is asked.
//!
//! The heartbeat is handed to the durable queue, where it is one slot before the urgent messages.
use std::{
    future::{Future, pending},
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use actix::prelude::*;
use bytes::Bytes;
use extension::storage::{Change, QueueStore};
use protocol::{
    MessageId, Refusal,
    codec::Writer,
    heartbeat::{DONE_MAX, Heartbeat, INTEGRATORS_MAX, IntegratorStatus, Mode, REASONS_MAX},
    limits::BEAT_BYTES_MAX,
    question::{Found, Said},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::warn;

use super::{
    author::Author,
    done::Done,
    doorbell::Doorbell,
    durable_queue::{QUESTIONS, UP},
    link::LinkStatus,
    orders::Figures,
    queue_routes::{QueueError, QueueRoutes},
    registration::NodeStatus,
};

/// Default time between two heartbeats where there is a back-channel (DESIGN §15).
pub const EVERY_SESSION: Duration = Duration::from_secs(30);
/// The same where there is none.
pub const EVERY_MESSAGE: Duration = Duration::from_secs(900);
/// An integrator that came or went is told of after that: scripts come and go within a second.
const SETTLE: Duration = Duration::from_secs(1);
/// Least time between two heartbeats for such news: each is a commit at every hop.
const NEWS_EVERY: Duration = Duration::from_secs(5);
/// Table of the last number. Key: the epoch.
const BEATS: &str = "beats";

/// How integrators are, once they have all said it or their time is over.
pub type Integrators = Pin<Box<dyn Future<Output = Vec<IntegratorStatus>> + Send>>;
/// A proxy's integrators, as heartbeats tell of them.
#[derive(Clone)]
pub struct AskIntegrators {
    /// Asks all how they are, within its own time limit.
    pub ask: Arc<dyn Fn() -> Integrators + Send + Sync>,
    /// Changes when one comes or goes.
    pub changes: watch::Receiver<u64>,
}
/// What health says (DESIGN §4.10), as (name, detail).
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Why the node takes no messages.
    pub ready: Vec<(String, String)>,
    /// Why messages do not get out, and what is only warned of.
    pub delivering: Vec<(String, String)>,
}
/// Judges the node's health by its queue's figures and its registration.
pub type AskHealth = Arc<dyn Fn(&Figures, &NodeStatus) -> Health + Send + Sync>;

/// What heartbeats are made of.
#[derive(Clone)]
pub struct HeartbeatSettings {
    /// Time between two.
    pub every: Duration,
    /// Name of the node.
    pub name: String,
    /// What it is for.
    pub roles: Vec<String>,
    /// Version of the program.
    pub version: String,
    /// Whether the link up has a back-channel.
    pub mode: Mode,
    /// Digest of its configuration.
    pub configuration: String,
    /// Who the node is, and the time.
    pub author: Author,
    /// The way to the queue.
    pub queue: QueueRoutes,
    /// For the row that is read.
    pub store: Arc<dyn QueueStore>,
    /// What was acted on.
    pub done: Arc<Done>,
    /// How registration stands: the first heartbeat under a new id goes at once.
    pub status: watch::Receiver<NodeStatus>,
    /// Counts heartbeats that went up by themselves.
    pub beats: Arc<watch::Sender<u64>>,
    /// Rings when the node is asked.
    pub doorbell: Arc<Doorbell>,
    /// Why the link does not deliver, for who asks; none at the top.
    pub link: Option<watch::Receiver<LinkStatus>>,
    /// At a proxy only.
    pub integrators: Option<AskIntegrators>,
    /// What health says.
    pub health: AskHealth,
}

/// Beats.
pub struct Heart {
    settings: HeartbeatSettings,
}

supervision::supervised!(Heart);

impl Heart {
    /// One that goes on counting where the disk says.
    pub fn new(settings: HeartbeatSettings) -> Self {
        Self { settings }
    }
}

impl Actor for Heart {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.spawn(run(self.settings.clone()).into_actor(self));
    }
}

async fn run(settings: HeartbeatSettings) {
    let mut status = settings.status.clone();
    let asked = settings.doorbell.bell(QUESTIONS);
    let mut ticks = interval(settings.every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = status.borrow_and_update().id;
    let mut integrators: Option<Vec<IntegratorStatus>> = None;
    let mut asking: Option<Asking> = None;
    let mut news = News::of(&settings);
    loop {
        let regular = tokio::select! {
            _ = ticks.tick() => {
                asking.get_or_insert_with(|| Asking::of(&settings)).regular = true;
                continue;
            }
            Ok(()) = status.changed() => {
                let now = status.borrow_and_update().id;
                if now != known {
                    known = now;
                    asking.get_or_insert_with(|| Asking::of(&settings)).regular = true;
                }
                continue;
            }
            () = news.are_due() => {
                asking.get_or_insert_with(|| Asking::of(&settings));
                continue;
            }
            (said, regular) = answer(&mut asking) => {
                (asking, integrators) = (None, Some(said));
                regular
            }
            // Who asks does not wait for integrators: what they said last is told again.
            () = asked.notified(), if integrators.is_some() => false,
        };
        let integrators = integrators.clone().unwrap_or_default();
        if let Err(failed) = beat(&settings, integrators, regular).await {
            warn!(target: "delivery", error = %failed, "no heartbeat this time");
        }
    }
}

/// Integrators that are being asked, and whether for a heartbeat whose time it is.
struct Asking {
    said: Integrators,
    regular: bool,
}

impl Asking {
    fn of(settings: &HeartbeatSettings) -> Self {
        let said = match &settings.integrators {
            Some(integrators) => (integrators.ask)(),
            None => Box::pin(std::future::ready(Vec::new())) as Integrators,
        };
        Self { said, regular: false }
    }
}

/// What the integrators say; pending while nobody asks them.
async fn answer(asking: &mut Option<Asking>) -> (Vec<IntegratorStatus>, bool) {
    match asking {
        Some(asking) => ((&mut asking.said).await, asking.regular),
        None => pending().await,
    }
}

/// Integrators that came or went since they were told of.
struct News {
    changes: Option<watch::Receiver<u64>>,
    due: Option<Instant>,
    told: Option<Instant>,
}

impl News {
    fn of(settings: &HeartbeatSettings) -> Self {
        let changes = settings.integrators.as_ref().map(|integrators| integrators.changes.clone());
        Self { changes, due: None, told: None }
    }

    /// Ends when it is time to tell; may be given up and begun anew.
    async fn are_due(&mut self) {
        let Some(changes) = &mut self.changes else { return pending().await };
        let due = match self.due {
            Some(due) => due,
            None => {
                if changes.changed().await.is_err() {
                    return pending().await;
                }
                let settled = Instant::now() + SETTLE;
                let due = self.told.map_or(settled, |told| settled.max(told + NEWS_EVERY));
                *self.due.insert(due)
            }
        };
        sleep_until(due).await;
        changes.borrow_and_update();
        (self.due, self.told) = (None, Some(Instant::now()));
    }
}

async fn beat(
    settings: &HeartbeatSettings,
    integrators: Vec<IntegratorStatus>,
    regular: bool,
) -> Result<(), QueueError> {
    let says = says(settings).await?;
    let figures = settings.queue.figures().await?;
    let identity = settings.author.identity();
    let beat = last_beat(&*settings.store, identity.epoch)? + 1;
    let (key, value) = (number(identity.epoch), number(beat));
    settings.queue.apply(vec![Change::PutRow { table: BEATS, key, value }]).await?;
    let mut written = write(settings, &figures, integrators, beat);
    written.says = says;
    settings.queue.beat(fit(written)).await?;
    if regular {
        settings.beats.send_modify(|beats| *beats += 1);
    }
    Ok(())
}

/// What the node says to the questions that are open.
async fn says(settings: &HeartbeatSettings) -> Result<Vec<Said>, QueueError> {
    let mut says = Vec::new();
    for question in settings.queue.questions().await? {
        let found = match question.about {
            Some(message) => where_it_stands(settings, message).await?,
            None => None,
        };
        says.push(Said { question: question.id, found });
    }
    Ok(says)
}

async fn where_it_stands(
    settings: &HeartbeatSettings,
    message: MessageId,
) -> Result<Option<Found>, QueueError> {
    let Some((queue, run, message)) = settings.queue.find(message).await? else { return Ok(None) };
    let link = settings.link.as_ref().filter(|_| queue == UP).map(|link| link.borrow().clone());
    let refused = link.as_ref().and_then(|link| link.refused);
    Ok(Some(Found {
        queue,
        attempts: link.map_or(0, |link| link.attempts),
        reason: refused.map(|refusal| refusal.name().to_owned()).unwrap_or_default(),
        class: message.header.class,
        occurred_at: message.header.occurred_at,
        accepted_at: message.header.accepted_at,
        path: run.header.path,
    }))
}

fn number(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn last_beat(store: &dyn QueueStore, epoch: u64) -> Result<u64, QueueError> {
    let mut last = 0;
    let seen = store.rows(BEATS, &number(epoch), &[], &mut |_, value| {
        last = value.try_into().map(u64::from_be_bytes).unwrap_or_default();
        ControlFlow::Break(())
    });
    seen.map(|()| last).map_err(|_| Refusal::StorageDown.into())
}

fn write(
    settings: &HeartbeatSettings,
    figures: &Figures,
    integrators: Vec<IntegratorStatus>,
    beat: u64,
) -> Heartbeat {
    let identity = settings.author.identity();
    let up = figures.queues.iter().find(|(name, _)| name == UP);
    let status = settings.status.borrow().clone();
    let health = (settings.health)(figures, &status);
    let full = Refusal::QueueFull.name();
    let rejected = figures.turned_away.iter().find(|(reason, _)| reason == full);
    let rejected = rejected.map_or(0, |(_, count)| *count);
    Heartbeat {
        node: identity.id,
        epoch: identity.epoch,
        beat,
        order: 0,
        at: settings.author.now(),
        name: settings.name.clone(),
        roles: settings.roles.clone(),
        version: settings.version.clone(),
        mode: settings.mode,
        account: figures.account,
        depths: up.map(|(_, depths)| *depths).unwrap_or_default(),
        reasons: health.delivering,
        configuration: settings.configuration.clone(),
        done: settings.done.for_heartbeat(DONE_MAX),
        integrators,
        path: Vec::new(),
        says: Vec::new(),
        ready: Some(health.ready),
        rejected: Some(rejected),
    }
}

/// Cuts a heartbeat to what the protocol takes: texts first, then reasons, integrators and done
/// ids, of which those left out are named when their repeat comes.
pub fn fit(mut beat: Heartbeat) -> Heartbeat {
    beat.integrators.truncate(INTEGRATORS_MAX);
    beat.done.truncate(DONE_MAX);
    beat.reasons.truncate(REASONS_MAX);
    if let Some(ready) = &mut beat.ready {
        ready.truncate(REASONS_MAX);
    }
    for text_bytes in [256, 64, 16, 0] {
        for (_, detail) in beat.reasons.iter_mut().chain(beat.ready.iter_mut().flatten()) {
            cut(detail, text_bytes.max(32));
        }
        for integrator in &mut beat.integrators {
            cut(&mut integrator.text, text_bytes);
        }
        if size(&beat) <= BEAT_BYTES_MAX {
            return beat;
        }
    }
    while size(&beat) > BEAT_BYTES_MAX {
        let (done, integrators) = (beat.done.len(), beat.integrators.len());
        beat.done.truncate(done / 2);
        beat.integrators.truncate(integrators - integrators / 4);
        beat.reasons.truncate(4);
        if let Some(ready) = &mut beat.ready {
            ready.truncate(4);
        }
        if done == 0 && integrators < 4 {
            break;
        }
    }
    while size(&beat) > BEAT_BYTES_MAX && beat.says.pop().is_some() {}
    beat
}

fn size(beat: &Heartbeat) -> usize {
    let mut to = Writer::new();
    beat.write(&mut to);
    to.len()
}

/// Cuts a text at a character's boundary.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let mut end = bytes_max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::{
        MessageId, Precedence, RemoteId,
        codec::Reader,
        heartbeat::{Account, Condition},
    };

    use super::*;

    #[test]
    fn the_largest_heartbeat_fits_and_still_names_something_of_each_kind() {
        let node: RemoteId = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3".parse().unwrap();
        let id = |sequence| MessageId {
            origin: node,
            epoch: u64::MAX,
            precedence: Precedence::Urgent,
            sequence,
        };
        let integrator = |n| IntegratorStatus {
            id: node.child(n).unwrap(),
            connected: true,
            module: Condition::Ok,
            platform: Condition::Failed,
            text: "ü".repeat(500),
        };
        let beat = fit(Heartbeat {
            node,
            epoch: u64::MAX,
            beat: 1,
            order: 0,
            at: 0,
            name: "n".repeat(256),
            roles: vec!["proxy".into()],
            version: "1".into(),
            mode: Mode::Session,
            account: Account::default(),
            depths: Default::default(),
            reasons: vec![("queue_full".into(), "x".repeat(1024)); 40],
            configuration: "c".repeat(256),
            done: (0..500).map(|n| id(u64::MAX - n)).collect(),
            integrators: (0..200).map(integrator).collect(),
            path: Vec::new(),
            says: Vec::new(),
            ready: Some(vec![("queue_full".into(), "x".repeat(1024)); 40]),
            rejected: Some(u64::MAX),
        });
        assert!(size(&beat) <= BEAT_BYTES_MAX, "{}", size(&beat));
        assert!(!beat.done.is_empty() && !beat.integrators.is_empty() && !beat.reasons.is_empty());
        assert!(!beat.ready.as_ref().unwrap().is_empty());
        let mut to = Writer::new();
        beat.write(&mut to);
        assert_eq!(Heartbeat::read(&mut Reader::new(&to.into_vec())).unwrap(), beat);
    }
}
