//! Registers this node, and takes what comes down for the node itself (PRX-4…11, RTE-3).
//!
//! The same at every node that has a parent. `registering` decides; here it is done.
use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use bytes::Bytes;
use extension::storage::{Change, QueueStore};
use protocol::{
    MessageId, Refusal, RemoteId,
    ends::End,
    heartbeat::Mode,
    registration::{Registration, RegistrationAnswer},
    service::{ActionAnswer, Notice, Service},
};
use supervision::Route;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{
    author::{Author, Draft},
    done::Done,
    doorbell::Doorbell,
    orders::LocalMessage,
    queue_routes::{QueueError, QueueRoutes},
    registering::{Registering, explain},
};

/// Queue of what is for the node itself.
pub const OWN_QUEUE: &str = "local/node";
/// Table of what a registration needs to be the same again.
const REGISTRATION: &str = "registration";
/// Key of the number drawn when the store was made.
const NONCE: &[u8] = b"nonce";
/// Messages taken at once.
const MESSAGES_MAX: usize = 64;
/// How long an order that failed waits to be tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The net below the doorbell.
const IDLE: Duration = Duration::from_secs(30);

/// How registration stands, for sessions, health and heartbeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node's id; none until it is registered.
    pub id: Option<RemoteId>,
    /// Why not, for people; a refusal explained.
    pub detail: String,
}

impl NodeStatus {
    /// Before anything is known.
    pub fn registering() -> Self {
        Self { id: None, detail: "waiting for the provider to acknowledge the node".to_owned() }
    }
}

/// An answer to the registration of something below this node.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<(), Refusal>")]
pub struct Answered(pub RegistrationAnswer);

/// What registration is made of.
#[derive(Clone)]
pub struct RegistrationSettings {
    /// Name of the node, unique within the customer.
    pub name: String,
    /// What it is for.
    pub roles: Vec<String>,
    /// Version of the program.
    pub version: String,
    /// Whether the link up has a back-channel.
    pub mode: Mode,
    /// Heartbeats without an acknowledgement after which it registers again (PRX-11).
    pub again_after_beats: u32,
    /// Writes the node's messages.
    pub author: Author,
    /// The way to the queue.
    pub queue: QueueRoutes,
    /// For the rows that are read.
    pub store: Arc<dyn QueueStore>,
    /// Rings when something for the node comes.
    pub doorbell: Arc<Doorbell>,
    /// Counts heartbeats that went up.
    pub beats: watch::Receiver<u64>,
    /// What was acted on.
    pub done: Arc<Done>,
    /// Where it tells how it stands.
    pub status: Arc<watch::Sender<NodeStatus>>,
    /// Who takes answers to registrations of integrators; a proxy only.
    pub below: Option<Route<Answered>>,
    /// Random numbers, for backoff and the nonce.
    pub random: fn() -> u64,
}

/// Registers the node.
pub struct NodeRegistration {
    settings: RegistrationSettings,
}

supervision::supervised!(NodeRegistration);

impl NodeRegistration {
    /// One that begins where the disk says it stands.
    pub fn new(settings: RegistrationSettings) -> Self {
        Self { settings }
    }
}

impl Actor for NodeRegistration {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let run = Run::new(self.settings.clone()).run();
        ctx.spawn(run.into_actor(self));
    }
}

/// One life of the actor.
struct Run {
    settings: RegistrationSettings,
    registering: Registering,
    last: Option<MessageId>,
}

impl Run {
    fn new(settings: RegistrationSettings) -> Self {
        let registered = !settings.author.identity().id.is_unregistered();
        let registering = Registering::new(registered, settings.again_after_beats);
        Self { settings, registering, last: None }
    }

    async fn run(mut self) {
        let bell = self.settings.doorbell.bell(OWN_QUEUE);
        let mut beats = self.settings.beats.clone();
        loop {
            self.tell();
            let mut wait = match self.turn().await {
                Ok(()) => IDLE,
                Err(failed) => {
                    warn!(target: "delivery", error = %failed, "registration waits for the queue");
                    AGAIN
                }
            };
            self.tell();
            if let Some(at) = self.registering.wakes_at() {
                let until = at.saturating_sub(self.settings.author.now()).max(1).unsigned_abs();
                wait = wait.min(Duration::from_millis(until));
            }
            tokio::select! {
                () = bell.notified() => {}
                () = tokio::time::sleep(wait) => {}
                Ok(()) = beats.changed() => self.registering.beat(),
            }
        }
    }

    fn tell(&self) {
        let identity = self.settings.author.identity();
        let status = match self.registering.is_acknowledged() {
            true => NodeStatus { id: Some(identity.id), detail: String::new() },
            false => match self.registering.refusal() {
                Some(refusal) => NodeStatus { id: None, detail: explain(refusal) },
                None => NodeStatus::registering(),
            },
        };
        self.settings.status.send_if_modified(|known| {
            let changed = *known != status;
            *known = status;
            changed
        });
    }

    async fn turn(&mut self) -> Result<(), QueueError> {
        if self.registering.wants_sending(self.settings.author.now()) {
            self.register().await?;
        }
        let messages = self.settings.queue.next_local(OWN_QUEUE, MESSAGES_MAX).await?;
        for message in messages {
            self.take(message).await?;
        }
        Ok(())
    }

    async fn register(&mut self) -> Result<(), QueueError> {
        let s = &self.settings;
        if let Some(last) = self.last
            // Where the queue does not say, it is asked again, not sent again.
            && s.queue.is_in_up(last).await?
        {
            // It never left: a second one would only wait behind it.
            self.registering.sent();
            return Ok(());
        }
        let nonce = self.nonce().await?;
        let s = &self.settings;
        let (name, roles, version) = (s.name.clone(), s.roles.clone(), s.version.clone());
        let registration = Registration::Node { name, roles, version, nonce };
        let service = Service::Registration(registration);
        let message = s.author.write(&Draft::default(), &service);
        let id = s.queue.keep_one(message, Vec::new()).await?;
        info!(target: "delivery", message_id = %id, "registration sent");
        self.last = Some(id);
        match s.mode {
            Mode::Session => self.registering.sent(),
            // No answer can come: data may be sent at once (PRX-14).
            Mode::Message => self.registering.acknowledged(),
        }
        Ok(())
    }

    /// Drawn when the store was made, and kept with it.
    async fn nonce(&self) -> Result<u64, QueueError> {
        let s = &self.settings;
        let row = s.store.row(REGISTRATION, NONCE).map_err(|_| Refusal::StorageDown)?;
        let known = row.and_then(|row| row.as_ref().try_into().ok()).map(u64::from_be_bytes);
        if let Some(nonce) = known {
            return Ok(nonce);
        }
        let nonce = (s.random)();
        let value = Bytes::copy_from_slice(&nonce.to_be_bytes());
        let key = Bytes::from_static(NONCE);
        s.queue.apply(vec![Change::PutRow { table: REGISTRATION, key, value }]).await?;
        Ok(nonce)
    }

    async fn take(&mut self, local: LocalMessage) -> Result<(), QueueError> {
        let id = local.message.header.id;
        if self.settings.done.has(&id) {
            self.settings.done.note_repeat(id);
            return self.finish(local, (End::Delivered, "")).await;
        }
        match &local.message.service {
            Service::RegistrationAnswer(answer) => {
                self.answered(&answer.clone()).await?;
                self.finish(local, (End::Delivered, "")).await
            }
            Service::Notice(notice) => {
                info!(target: "delivery", message_id = %id, reason = notice.reason,
                    detail = notice.detail, "notice from above");
                self.finish(local, (End::Delivered, "")).await
            }
            other => {
                let answer = not_supported(other);
                let s = &self.settings;
                let draft = Draft { answers: Some(id), ..Draft::default() };
                let message = s.author.write(&draft, &answer);
                let now = s.author.now();
                s.queue.keep_one(message, s.done.changes(&id, now)).await?;
                s.done.note(id, now);
                self.finish(local, (End::Refused, Refusal::NotSupported.name())).await
            }
        }
    }

    async fn finish(&self, local: LocalMessage, end: (End, &str)) -> Result<(), QueueError> {
        let (id, now) = (local.message.header.id, self.settings.author.now());
        let done = &self.settings.done;
        let changes = if done.has(&id) { Vec::new() } else { done.changes(&id, now) };
        self.settings.queue.finish_local(OWN_QUEUE, local.part, end, changes).await?;
        done.note(id, now);
        Ok(())
    }

    async fn answered(&mut self, answer: &RegistrationAnswer) -> Result<(), QueueError> {
        let own = self.settings.author.identity().id;
        if answer.id.levels() > 1 {
            return match &self.settings.below {
                Some(below) => Ok(below.ask(Answered(answer.clone())).await??),
                None => Ok(()),
            };
        }
        if !answer.refusal.is_empty() {
            // An acknowledged node stays so: what it has, it has (PRX-8).
            if !self.registering.is_acknowledged() {
                error!(target: "delivery", refusal = answer.refusal,
                    help = explain(&answer.refusal), "registration refused");
                let now = self.settings.author.now();
                self.registering.refused(&answer.refusal, now, (self.settings.random)());
            }
            return Ok(());
        }
        if answer.id.is_unregistered() || answer.id.levels() != 1 || answer.id.cut(0) != own.cut(0)
        {
            error!(target: "delivery", id = %answer.id, "registration answered with a foreign id");
            return Ok(());
        }
        if !own.is_unregistered() && own != answer.id {
            error!(target: "delivery", id = %answer.id, own = %own,
                "another id was allotted to this node; it keeps its own");
            return Ok(());
        }
        self.settings.queue.adopt(answer.id).await?;
        self.registering.acknowledged();
        info!(target: "delivery", node_id = %answer.id, "node is registered");
        Ok(())
    }
}

/// What a node says to what it has no function for.
fn not_supported(service: &Service) -> Service {
    let reason = Refusal::NotSupported.name().to_owned();
    match service {
        Service::Action(action) => {
            let action_id = action.action_id.clone();
            Service::ActionAnswer(ActionAnswer { action_id, status: None, reason })
        }
        other => {
            let detail = format!("this node does nothing with {}", other.class());
            Service::Notice(Notice { reason, detail })
        }
    }
}
