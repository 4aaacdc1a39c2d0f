//! Registers integrators, and tells their sessions how far that has got (PRX-12…22).
//!
//! `registering` decides when; the rows say what the provider acknowledged, so that a known
//! integrator is registered at once after any restart (PRX-17).
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix::prelude::*;
use extension::storage::{Change, QueueStore};
use protocol::{
    MessageId, Refusal, RemoteId,
    heartbeat::Mode,
    registration::{Registration, RegistrationAnswer},
    service::Service,
    socket::Registered,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{
    identifiers::{Identifiers, NoNumber},
    normalize::Integrator,
    waiting::Waiting,
};
use crate::delivery::{
    author::Author,
    queue_routes::{QueueError, QueueRoutes},
    registering::{Registering, explain},
    registration::{Answered, NodeStatus},
    state::LOCAL,
};

/// What the provider knows of integrators. Key: name.
pub const REGISTRATIONS: &str = "integrator-registrations";
/// Names on the roll; each costs some hundred bytes of memory for as long as the process lives.
const NAMES_MAX: usize = 4096;
/// How long an order that failed waits to be tried again, and the net below all else.
const AGAIN: Duration = Duration::from_secs(1);

/// Puts an integrator on the roll. `Ok`: its number is on disk.
#[derive(Message)]
#[rtype(result = "Result<Enlisted, Refusal>")]
pub struct Enlist {
    /// Its name.
    pub name: String,
    /// Its version; a new one registers anew.
    pub version: String,
    /// Callbacks it takes.
    pub callbacks: Vec<String>,
}

/// An integrator on the roll.
#[derive(Clone, Debug)]
pub struct Enlisted {
    /// Its number, for ever.
    pub number: u32,
    /// How far its registration has got.
    pub state: watch::Receiver<Registered>,
}

/// Registers the instances of an integrator that are not registered yet. `Ok`: on disk.
#[derive(Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct SendWaiting(pub String);

/// Something may be due.
#[derive(Message)]
#[rtype(result = "()")]
struct Turn;

/// What is on disk of an integrator's registration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    version: String,
    callbacks: Vec<String>,
    /// The node's id under which it was acknowledged in any version.
    accepted_under: Option<RemoteId>,
    /// Whether this version was.
    acknowledged: bool,
}

/// States of all that are on the roll. Outlives the actor, so that sessions go on hearing.
#[derive(Debug, Default)]
pub struct Roll(Mutex<BTreeMap<String, watch::Sender<Registered>>>);

impl Roll {
    fn tell(&self, name: &str, state: Registered) -> watch::Receiver<Registered> {
        let mut roll = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = roll.entry(name.to_owned()).or_insert_with(|| watch::channel(state).0);
        sender.send_if_modified(|known| std::mem::replace(known, state) != state);
        sender.subscribe()
    }

    /// Names on the roll.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

/// What registration of integrators is made of.
#[derive(Clone)]
pub struct IntegratorsSettings {
    /// Whether the link up has a back-channel.
    pub mode: Mode,
    /// Heartbeats without an acknowledgement after which one registers again (PRX-11).
    pub again_after_beats: u32,
    /// Writes messages.
    pub author: Author,
    /// The way to the queue.
    pub queue: QueueRoutes,
    /// For rows that are read.
    pub store: Arc<dyn QueueStore>,
    /// Knows the numbers.
    pub identifiers: Arc<Identifiers>,
    /// How the node's own registration stands.
    pub node: watch::Receiver<NodeStatus>,
    /// Counts heartbeats that went up.
    pub beats: watch::Receiver<u64>,
    /// Where sessions hear how it stands.
    pub roll: Arc<Roll>,
    /// Random numbers, for backoff.
    pub random: fn() -> u64,
}

/// Registers integrators.
pub struct IntegratorRegistration {
    settings: IntegratorsSettings,
    work: Option<Work>,
}

supervision::supervised!(IntegratorRegistration);

impl IntegratorRegistration {
    /// One that begins with those on the roll, as the disk says they stand.
    pub fn new(settings: IntegratorsSettings) -> Self {
        let work = Work { settings: settings.clone(), entries: BTreeMap::new(), beats: 0 };
        Self { settings, work: Some(work) }
    }

    /// Runs `todo` with all this actor knows, and nothing else meanwhile.
    fn with_work<T: 'static, F>(
        &mut self,
        todo: impl FnOnce(Work) -> F,
    ) -> AtomicResponse<Self, Result<T, Refusal>>
    where
        F: Future<Output = (Work, Result<T, QueueError>)> + 'static,
    {
        let Some(work) = self.work.take() else {
            let none = async { Err(Refusal::Internal) };
            return AtomicResponse::new(Box::pin(none.into_actor(self)));
        };
        let done = todo(work).into_actor(self).map(|(work, result), actor, _| {
            actor.work = Some(work);
            result.map_err(QueueError::refusal)
        });
        AtomicResponse::new(Box::pin(done))
    }
}

impl Actor for IntegratorRegistration {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let (mut node, mut beats) = (self.settings.node.clone(), self.settings.beats.clone());
        node.mark_changed();
        let addr = ctx.address();
        let watch = async move {
            loop {
                tokio::select! {
                    Ok(()) = node.changed() => { node.borrow_and_update(); }
                    Ok(()) = beats.changed() => { beats.borrow_and_update(); }
                    () = tokio::time::sleep(AGAIN) => {}
                }
                if addr.send(Turn).await.is_err() {
                    return;
                }
            }
        };
        ctx.spawn(watch.into_actor(self));
    }
}

impl Handler<Enlist> for IntegratorRegistration {
    type Result = AtomicResponse<Self, Result<Enlisted, Refusal>>;

    fn handle(&mut self, enlist: Enlist, _: &mut Context<Self>) -> Self::Result {
        self.with_work(|mut work| async move {
            let enlisted = work.enlist(enlist).await;
            (work, enlisted)
        })
    }
}

impl Handler<Answered> for IntegratorRegistration {
    type Result = AtomicResponse<Self, Result<(), Refusal>>;

    fn handle(&mut self, answered: Answered, _: &mut Context<Self>) -> Self::Result {
        self.with_work(|mut work| async move {
            let done = work.answered(&answered.0).await;
            (work, done)
        })
    }
}

impl Handler<SendWaiting> for IntegratorRegistration {
    type Result = AtomicResponse<Self, Result<(), Refusal>>;

    fn handle(&mut self, waiting: SendWaiting, _: &mut Context<Self>) -> Self::Result {
        self.with_work(|work| async move {
            let done = match work.entries.get(&waiting.0) {
                Some(entry) if work.state_of(entry) == Registered::Registered => {
                    work.send_waiting(&waiting.0, entry).await
                }
                _ => Ok(()),
            };
            (work, done)
        })
    }
}

impl Handler<Turn> for IntegratorRegistration {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: Turn, _: &mut Context<Self>) -> Self::Result {
        let Some(mut work) = self.work.take() else {
            return AtomicResponse::new(Box::pin(async {}.into_actor(self)));
        };
        let turned = async move {
            if let Err(error) = work.turn().await {
                warn!(target: "proxy", %error, "registration of integrators waits for the queue");
            }
            work
        };
        let done = turned.into_actor(self).map(|work, actor, _| actor.work = Some(work));
        AtomicResponse::new(Box::pin(done))
    }
}

struct Entry {
    number: u32,
    row: Row,
    registering: Registering,
    last: Option<MessageId>,
}

struct Work {
    settings: IntegratorsSettings,
    entries: BTreeMap<String, Entry>,
    beats: u64,
}

impl Work {
    fn node(&self) -> Option<RemoteId> {
        self.settings.node.borrow().id
    }

    fn state_of(&self, entry: &Entry) -> Registered {
        match self.node() {
            None => Registered::Registering,
            Some(node) if entry.row.accepted_under == Some(node) => Registered::Registered,
            Some(_) => Registered::ProxyRegistered,
        }
    }

    fn read_row(&self, name: &str) -> Result<Option<Row>, QueueError> {
        let row = self.settings.store.row(REGISTRATIONS, name.as_bytes());
        let row = row.map_err(|_| Refusal::StorageDown)?;
        // A row that cannot be read costs a registration, which is safe twice.
        Ok(row.and_then(|row| rmp_serde::from_slice(&row).ok()))
    }

    /// The entry of a name, read from disk where it is not in memory.
    fn entry(&mut self, name: &str, number: u32) -> Result<&mut Entry, QueueError> {
        if !self.entries.contains_key(name) {
            if self.entries.len() >= NAMES_MAX {
                return Err(Refusal::Busy.into());
            }
            let row = self.read_row(name)?.unwrap_or_default();
            let is_done = row.acknowledged && row.accepted_under == self.node();
            let registering = Registering::new(is_done, self.settings.again_after_beats);
            let entry = Entry { number, row, registering, last: None };
            self.entries.insert(name.to_owned(), entry);
        }
        self.entries.get_mut(name).ok_or(QueueError::Refused(Refusal::Internal))
    }

    async fn enlist(&mut self, enlist: Enlist) -> Result<Enlisted, QueueError> {
        let Enlist { name, version, callbacks } = enlist;
        let allotted = self.settings.identifiers.integrator(&name).map_err(|e| match e {
            NoNumber::Store(_) => Refusal::StorageDown,
            NoNumber::Exhausted => Refusal::Busy,
        })?;
        let number = allotted.value;
        let known = self.entry(&name, number)?;
        let mut changes = allotted.changes;
        let mut row = known.row.clone();
        if row.version != version || !allotted.known {
            (row.version, row.callbacks, row.acknowledged) = (version, callbacks, false);
            changes.push(row_change(&name, &row)?);
        }
        if !changes.is_empty() {
            self.settings.queue.apply(changes).await?;
            let entry = self.entry(&name, number)?;
            entry.row = row;
            entry.registering.again();
        }
        // What keeps the registration back now is tried again; the hello need not wait for it.
        if let Err(error) = self.advance(&name).await {
            warn!(target: "proxy", integrator = name, %error, "registration waits for the queue");
        }
        let state = self.tell(&name);
        Ok(Enlisted { number, state })
    }

    fn tell(&self, name: &str) -> watch::Receiver<Registered> {
        let state = self.entries.get(name).map(|entry| self.state_of(entry));
        self.settings.roll.tell(name, state.unwrap_or(Registered::Registering))
    }

    async fn turn(&mut self) -> Result<(), QueueError> {
        for name in self.settings.roll.names() {
            // Those on the roll of an actor that ended; a number is on disk by then.
            let number = self.settings.identifiers.integrator(&name);
            let number = number.map_err(|_| Refusal::StorageDown)?.value;
            self.entry(&name, number)?;
        }
        let beats = *self.settings.beats.borrow();
        let new_beats = beats.saturating_sub(std::mem::replace(&mut self.beats, beats));
        let names: Vec<String> = self.entries.keys().cloned().collect();
        let mut failed = Ok(());
        for name in names {
            if let Some(entry) = self.entries.get_mut(&name) {
                (0..new_beats.min(1000)).for_each(|_| entry.registering.beat());
            }
            let advanced = self.advance(&name).await;
            self.tell(&name);
            failed = failed.and(advanced);
        }
        failed
    }

    /// Sends the registration of that name where it is due.
    async fn advance(&mut self, name: &str) -> Result<(), QueueError> {
        let Some(node) = self.node() else { return Ok(()) };
        let now = self.settings.author.now();
        let again_after_beats = self.settings.again_after_beats;
        let Some(entry) = self.entries.get_mut(name) else { return Ok(()) };
        if entry.registering.is_acknowledged()
            && (entry.row.accepted_under != Some(node) || !entry.row.acknowledged)
        {
            // The node goes by another id since: all of it is registered anew.
            entry.registering = Registering::new(false, again_after_beats);
        } else if entry.row.acknowledged && entry.row.accepted_under == Some(node) {
            entry.registering.acknowledged();
        }
        if !entry.registering.wants_sending(now) {
            return Ok(());
        }
        if let Some(last) = entry.last
            // Where the queue does not say, it is asked again, not sent again.
            && self.settings.queue.is_in_up(last).await?
        {
            // It never left: a second one would only wait behind it.
            entry.registering.sent();
            return Ok(());
        }
        let integrator = integrator_of(node, name, entry);
        let registration = Registration::Integrator {
            id: integrator.id,
            name: name.to_owned(),
            version: entry.row.version.clone(),
            callbacks: entry.row.callbacks.clone(),
        };
        let service = Service::Registration(registration);
        let message = self.settings.author.write(&integrator.draft(None), &service);
        // Whoever answers must find the way: the name of its queue is on disk before.
        let queue = &self.settings.queue;
        queue.apply(vec![local_row(&integrator.id, name)]).await?;
        let id = queue.keep_one(message, Vec::new()).await?;
        info!(target: "proxy", integrator = name, message_id = %id, "registration sent");
        entry.last = Some(id);
        entry.registering.sent();
        if self.settings.mode == Mode::Message {
            // No answer can come: data may follow its registration (PRX-14).
            self.acknowledge(name, node).await?;
        }
        Ok(())
    }

    async fn answered(&mut self, answer: &RegistrationAnswer) -> Result<(), QueueError> {
        let Some(node) = self.node() else { return Ok(()) };
        let number = answer.id.number(2).unwrap_or_default();
        let name = self.settings.identifiers.integrator_name(number);
        let Some(name) = name.map_err(|_| Refusal::StorageDown)? else { return Ok(()) };
        if !answer.id.is_under(&node) {
            return Ok(());
        }
        let (now, random) = (self.settings.author.now(), (self.settings.random)());
        let entry = self.entry(&name, number)?;
        if !answer.refusal.is_empty() {
            if !entry.registering.is_acknowledged() {
                error!(target: "proxy", integrator = name, refusal = answer.refusal,
                    help = explain(&answer.refusal), "registration of an integrator refused");
                entry.registering.refused(&answer.refusal, now, random);
            }
            return Ok(());
        }
        if !entry.registering.is_acknowledged() {
            self.acknowledge(&name, node).await?;
        }
        Ok(())
    }

    /// Registers the instances that wait, and then lets data through.
    async fn acknowledge(&mut self, name: &str, node: RemoteId) -> Result<(), QueueError> {
        let Some(entry) = self.entries.get(name) else { return Ok(()) };
        self.send_waiting(name, entry).await?;
        let row = Row { accepted_under: Some(node), acknowledged: true, ..entry.row.clone() };
        self.settings.queue.apply(vec![row_change(name, &row)?]).await?;
        if let Some(entry) = self.entries.get_mut(name) {
            entry.row = row;
            entry.registering.acknowledged();
        }
        info!(target: "proxy", integrator = name, "integrator is registered");
        self.tell(name);
        Ok(())
    }

    async fn send_waiting(&self, name: &str, entry: &Entry) -> Result<(), QueueError> {
        let Some(node) = self.node() else { return Ok(()) };
        let s = &self.settings;
        let waiting = Waiting {
            store: &*s.store,
            identifiers: &s.identifiers,
            author: &s.author,
            queue: &s.queue,
            integrator: &integrator_of(node, name, entry),
            number: entry.number,
        };
        waiting.register().await
    }
}

fn integrator_of(node: RemoteId, name: &str, entry: &Entry) -> Integrator {
    let id = node.child(entry.number).unwrap_or(node);
    Integrator { id, name: name.to_owned(), version: entry.row.version.clone() }
}

fn row_change(name: &str, row: &Row) -> Result<Change, QueueError> {
    let value = rmp_serde::to_vec_named(row).map_err(|_| Refusal::Internal)?;
    let key = name.as_bytes().to_vec().into();
    Ok(Change::PutRow { table: REGISTRATIONS, key, value: value.into() })
}

/// The last part of the name of an integrator's queue: its name, but for one that is the node's.
pub fn local_name(integrator: &str) -> String {
    match integrator {
        "node" => "integrator node".to_owned(),
        name => name.to_owned(),
    }
}

/// The row that names the queue of an integrator.
fn local_row(id: &RemoteId, name: &str) -> Change {
    let key = id.as_bytes().to_vec().into();
    Change::PutRow { table: LOCAL, key, value: local_name(name).into_bytes().into() }
}
