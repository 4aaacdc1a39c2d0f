//! Hands what came down to integrators, five at once over all (ACT-3, ACT-4, RTE).
//!
//! ```text
//! main ─┬─ one loop an integrator: takes from `local/NAME`, judges, starts callbacks
//!       └─ a callback: leave ▶ started on disk ▶ callback ▶ answer and "done" in one commit ▶ end
//! ```
//!
//! An integrator's loop never waits for a callback, and callbacks of different instances do not
//! wait for each other; what is for one instance is done in order.
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use actix::prelude::*;
use extension::{
    integrators::Callbacks,
    storage::{Change, QueueStore},
};
use futures_util::stream::{FuturesUnordered, StreamExt};
use protocol::{
    Message, MessageId, Refusal, RemoteId,
    ends::End,
    message::{Destination, SourceType},
    service::Service,
    socket::CallbackError,
};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{
    consent::Consent,
    forwarding::{self, Facts, Mark, Request, Todo, judge, mark_key},
    identifiers::Identifiers,
    registration::local_name,
    switchboard::Switchboard,
};
use crate::delivery::{
    author::{Author, Draft},
    done::Done,
    doorbell::Doorbell,
    orders::LocalMessage,
    queue_routes::{QueueError, QueueRoutes},
    registration::OWN_QUEUE,
};

/// What is known of messages on their way to an integrator. Key: the message's id as text.
pub const MARKS: &str = "forwarding";
/// How long what came down waits for who is away, unless configured (DESIGN §15).
pub const KEEP: Duration = Duration::from_secs(24 * 3600);
/// How long a callback may take; after that its outcome is unknown and its place free.
pub const CALLBACK_WITHIN: Duration = Duration::from_secs(600);
/// Messages of one integrator looked at together.
const MESSAGES_MAX: usize = 64;
/// Queues served, connected or not; each loop costs some KiB.
const QUEUES_MAX: usize = 1024;
/// How long an order that failed waits to be tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often queues are looked for that nobody serves yet, and the net below the doorbell.
const LOOK: Duration = Duration::from_secs(10);

/// What a forwarder is made of.
#[derive(Clone)]
pub struct ForwarderSettings {
    /// Writes answers.
    pub author: Author,
    /// The way to the queue.
    pub queue: QueueRoutes,
    /// For rows that are read.
    pub store: Arc<dyn QueueStore>,
    /// Knows the numbers.
    pub identifiers: Arc<Identifiers>,
    /// The customer's word.
    pub consent: Arc<dyn Consent>,
    /// Who is connected.
    pub switchboard: Arc<Switchboard>,
    /// Rings when something comes down.
    pub doorbell: Arc<Doorbell>,
    /// What was acted on.
    pub done: Arc<Done>,
    /// How long what came down waits for who is away.
    pub keep: Duration,
    /// Callbacks at once over all, and so the most of one integrator that wait for leave: others
    /// wait behind no more (ACT-3).
    pub at_once: usize,
}

/// Forwards.
pub struct Forwarder {
    settings: ForwarderSettings,
}

supervision::supervised!(Forwarder);

impl Forwarder {
    /// One that begins with what the disk holds.
    pub fn new(settings: ForwarderSettings) -> Self {
        Self { settings }
    }
}

impl Actor for Forwarder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let settings = Arc::new(self.settings.clone());
        ctx.spawn(run(settings).into_actor(self));
    }
}

/// Serves every local queue there is or may be.
async fn run(settings: Arc<ForwarderSettings>) {
    let mut changes = settings.switchboard.changes();
    let mut served = BTreeSet::new();
    let mut loops = FuturesUnordered::new();
    loop {
        let connected = settings.switchboard.names();
        let mut queues: BTreeSet<String> =
            connected.iter().map(|name| format!("local/{}", local_name(name))).collect();
        match settings.queue.figures().await {
            Ok(figures) => queues.extend(
                figures
                    .queues
                    .into_iter()
                    .map(|(name, _)| name)
                    .filter(|n| n.starts_with("local/")),
            ),
            Err(error) => warn!(target: "proxy", %error, "forwarder waits for the queue"),
        }
        for queue in queues {
            if queue != OWN_QUEUE && served.len() < QUEUES_MAX && served.insert(queue.clone()) {
                loops.push(serve(settings.clone(), queue));
            }
        }
        tokio::select! {
            Ok(()) = changes.changed() => {}
            () = sleep(LOOK) => {}
            Some(()) = loops.next() => {}
        }
    }
}

/// Serves one local queue for ever.
async fn serve(settings: Arc<ForwarderSettings>, queue: String) {
    let bell = settings.doorbell.bell(&queue);
    let mut changes = settings.switchboard.changes();
    let mut running = FuturesUnordered::new();
    // Messages in hand, and whom they are for: one at a time each.
    let mut in_hand: HashSet<MessageId> = HashSet::new();
    let mut busy: HashSet<RemoteId> = HashSet::new();
    loop {
        let mut started = Vec::new();
        let looked = look(&settings, &queue, &in_hand, &busy, &mut started).await;
        let wait = looked.unwrap_or_else(|error| {
            warn!(target: "proxy", queue, %error, "forwarding waits for the queue");
            AGAIN
        });
        for (local, request) in started {
            in_hand.insert(local.message.header.id);
            busy.insert(target(&local.message));
            running.push(forward(&settings, &queue, local, request));
        }
        tokio::select! {
            () = bell.notified() => {}
            Ok(()) = changes.changed() => {}
            () = sleep(wait) => {}
            Some(message) = running.next() => {
                let message: Message = message;
                in_hand.remove(&message.header.id);
                busy.remove(&target(&message));
            }
        }
    }
}

/// Judges what waits: ends what is to end, and adds to `started` what is to be called back. Says
/// when to look again.
async fn look(
    settings: &ForwarderSettings,
    queue: &str,
    in_hand: &HashSet<MessageId>,
    busy: &HashSet<RemoteId>,
    started: &mut Vec<(LocalMessage, Request)>,
) -> Result<Duration, QueueError> {
    let name = owner(settings, queue)?;
    let mut wait = LOOK;
    // What stands behind a message for the same target waits with it.
    let mut behind = busy.clone();
    for local in settings.queue.next_local(queue, MESSAGES_MAX).await? {
        let to = target(&local.message);
        if in_hand.len() + started.len() >= settings.at_once {
            break;
        }
        if in_hand.contains(&local.message.header.id) || behind.contains(&to) {
            continue;
        }
        match judge_one(settings, name.as_ref(), &local.message)? {
            Todo::Wait(until) => {
                behind.insert(to);
                remember(settings, &local.message).await?;
                let left = until.saturating_sub(settings.author.now()).max(1).unsigned_abs();
                wait = wait.min(Duration::from_millis(left));
            }
            Todo::Call(request) => {
                behind.insert(to);
                started.push((local, request));
            }
            Todo::End(end, reason, said) => {
                finish(settings, queue, local, end, reason, said).await?
            }
        }
    }
    Ok(wait)
}

/// Name and number of the integrator whose queue it is.
fn owner(settings: &ForwarderSettings, queue: &str) -> Result<Option<(String, u32)>, QueueError> {
    let local = queue.strip_prefix("local/").unwrap_or(queue);
    let names = [local, "node"];
    for name in names.into_iter().filter(|name| local_name(name) == local) {
        let row = settings.store.row(super::identifiers::INTEGRATORS, name.as_bytes());
        let row = row.map_err(|_| Refusal::StorageDown)?;
        if let Some(number) = row.and_then(|row| row.as_ref().try_into().ok()) {
            return Ok(Some((name.to_owned(), u32::from_be_bytes(number))));
        }
    }
    Ok(None)
}

fn target(message: &Message) -> RemoteId {
    match &message.header.destination {
        Some(Destination::Id(id)) => *id,
        _ => message.header.source,
    }
}

fn judge_one(
    settings: &ForwarderSettings,
    owner: Option<&(String, u32)>,
    message: &Message,
) -> Result<Todo, QueueError> {
    let id = message.header.id;
    let is_done = settings.done.has(&id);
    if is_done {
        settings.done.note_repeat(id);
    }
    let row = settings.store.row(MARKS, &mark_key(&id)).map_err(|_| Refusal::StorageDown)?;
    let to = target(message);
    let instance = match (to.number(2), to.number(3)) {
        (Some(integrator), Some(instance)) => {
            let name = settings.identifiers.instance_name(integrator, instance);
            name.map_err(|_| Refusal::StorageDown)?
        }
        _ => None,
    };
    let todo = judge(
        message,
        &Facts {
            node: settings.author.identity().id,
            number: owner.map(|(_, number)| *number),
            instance: instance.as_deref(),
            is_done,
            mark: row.map(|row| Mark::decode(&row)),
            now: settings.author.now(),
            keep_ms: i64::try_from(settings.keep.as_millis()).unwrap_or(i64::MAX),
            is_connected: owner.is_some_and(|(name, _)| settings.switchboard.has_callbacks(name)),
        },
    );
    if let Todo::Call(Request::Action(request, names)) = &todo
        && !names.iter().all(|name| settings.consent.may_act(name, &request.instance))
    {
        return Ok(forwarding::denied(message));
    }
    Ok(todo)
}

/// Its integrator is away: the time it has left runs from now, also over restarts.
async fn remember(settings: &ForwarderSettings, message: &Message) -> Result<(), QueueError> {
    let key = mark_key(&message.header.id);
    if settings.store.row(MARKS, &key).map_err(|_| Refusal::StorageDown)?.is_some() {
        return Ok(());
    }
    let value = Mark::Seen(settings.author.now()).encode().into();
    settings.queue.apply(vec![Change::PutRow { table: MARKS, key, value }]).await
}

/// One callback from its leave to its end. Comes back with the message when it is out of hand.
async fn forward(
    settings: &ForwarderSettings,
    queue: &str,
    local: LocalMessage,
    request: Request,
) -> Message {
    let message = local.message.clone();
    let Ok(_leave) = settings.switchboard.leave.acquire().await else { return message };
    let name = owner(settings, queue).ok().flatten().map(|(name, _)| name).unwrap_or_default();
    if !settings.switchboard.has_callbacks(&name) {
        // It went away meanwhile; the next look finds the message waiting.
        return message;
    }
    let callbacks = settings.switchboard.callbacks(&name, request.callback());
    let outcome = match callbacks {
        None => {
            let detail = format!("{name} has no {} callback", request.callback());
            Err(CallbackError::NotSupported(detail))
        }
        Some(callbacks) => {
            if let Request::Action(..) = &request
                && let Err(error) = mark_started(settings, &message).await
            {
                warn!(target: "proxy", queue, %error, "an action waits for the queue");
                sleep(AGAIN).await;
                return message;
            }
            call(&*callbacks, request).await
        }
    };
    info!(target: "proxy", message_id = %message.header.id, integrator = name, ?outcome,
        "called back");
    match forwarding::outcome(&message, &outcome) {
        // From here on the outcome is in memory only: it is told until it is told.
        Todo::End(end, reason, said) => {
            while let Err(error) =
                finish(settings, queue, local.clone(), end, reason, said.clone()).await
            {
                warn!(target: "proxy", queue, %error, "an answer waits for the queue");
                sleep(AGAIN).await;
            }
        }
        Todo::Wait(_) | Todo::Call(_) => sleep(AGAIN).await,
    }
    message
}

async fn call(callbacks: &dyn Callbacks, request: Request) -> Result<i64, CallbackError> {
    let called = async {
        match request {
            Request::Action(request, _) => callbacks.action(request).await,
            Request::Capabilities(request) => callbacks.capabilities(request).await,
        }
    };
    timeout(CALLBACK_WITHIN, called).await.unwrap_or(Err(CallbackError::TimedOut))
}

async fn mark_started(settings: &ForwarderSettings, message: &Message) -> Result<(), QueueError> {
    let key = mark_key(&message.header.id);
    let value = Mark::Started.encode().into();
    settings.queue.apply(vec![Change::PutRow { table: MARKS, key, value }]).await
}

/// Says what is to be said, with "done" in the same commit, and then ends the message. After a
/// crash between the two it is done, and only ended.
async fn finish(
    settings: &ForwarderSettings,
    queue: &str,
    local: LocalMessage,
    end: End,
    reason: &str,
    said: Option<Service>,
) -> Result<(), QueueError> {
    let (id, now) = (local.message.header.id, settings.author.now());
    let is_done = settings.done.has(&id);
    let mut changes = if is_done { Vec::new() } else { settings.done.changes(&id, now) };
    if let (Some(said), false) = (said, is_done) {
        let draft =
            Draft { answers: Some(id), source: source(settings, &local), ..Draft::default() };
        let message = settings.author.write(&draft, &said);
        settings.queue.keep_one(message, std::mem::take(&mut changes)).await?;
        settings.done.note(id, now);
    }
    changes.push(Change::RemoveRow { table: MARKS, key: mark_key(&id) });
    settings.queue.finish_local(queue, local.part, (end, reason), changes).await?;
    settings.done.note(id, now);
    Ok(())
}

/// Who answers: whom the message was for, where that is somebody here.
fn source(settings: &ForwarderSettings, local: &LocalMessage) -> Option<(RemoteId, SourceType)> {
    let to = target(&local.message);
    let kind = match to.levels() {
        2 => SourceType::Integrator,
        3 => SourceType::Instance,
        _ => return None,
    };
    to.is_under(&settings.author.identity().id).then_some((to, kind))
}
