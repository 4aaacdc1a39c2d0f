//! One actor for each connected integrator: its calls, one commit a batch (ACT-1, IPC-5).
use std::sync::{Arc, atomic::AtomicBool};

use actix::prelude::*;
use extension::{
    integrators::Callbacks,
    storage::{Change, QueueStore},
};
use protocol::{
    RemoteId,
    socket::{Call, CallAnswer, CallError, Registered},
};
use supervision::Route;
use tokio::sync::watch;
use tracing::warn;

use super::{
    batch::{Answers, Batch, Desk, refused},
    consent::Consent,
    counted::Reports,
    identifiers::Identifiers,
    normalize::Integrator,
    once::Once,
    registration::SendWaiting,
    streams::{Stream, StreamId},
    switchboard::Switchboard,
};
use crate::delivery::{
    author::Author,
    orders::{Keep, KeepWith, NoteDropped},
    queue_routes::{QueueError, QueueRoutes},
};

/// What all integrators' actors share.
#[derive(Clone)]
pub struct Shared {
    /// Writes messages.
    pub author: Author,
    /// The way to the queue.
    pub queue: QueueRoutes,
    /// For rows that are read.
    pub store: Arc<dyn QueueStore>,
    /// Knows the numbers.
    pub identifiers: Arc<Identifiers>,
    /// Calls that said what tells them from all others.
    pub once: Arc<Once>,
    /// The customer's word.
    pub consent: Arc<dyn Consent>,
    /// Who is connected.
    pub switchboard: Arc<Switchboard>,
    /// What integrators count.
    pub reports: Arc<Reports>,
    /// Registers instances that wait.
    pub send_waiting: Route<SendWaiting>,
    /// Largest message, bytes; none: the protocol's own bound.
    pub bytes_per_message: Option<usize>,
    /// Set when the node goes down: nothing new is taken.
    pub stopping: Arc<AtomicBool>,
}

/// Whom an actor serves.
#[derive(Clone)]
pub struct Seat {
    /// The integrator's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its number.
    pub number: u32,
    /// Its stream.
    pub stream: Option<StreamId>,
    /// The way back.
    pub callbacks: Arc<dyn Callbacks>,
    /// How far its registration has got.
    pub state: watch::Receiver<Registered>,
}

impl Seat {
    /// The integrator as it stands under `node`.
    pub fn integrator(&self, node: RemoteId) -> Integrator {
        Integrator {
            id: node.child(self.number).unwrap_or(node),
            name: self.name.clone(),
            version: self.version.clone(),
        }
    }
}

/// Calls that arrived together. `Ok`: one answer a call, in order; what is said to be stored is on
/// disk.
#[derive(Message)]
#[rtype(result = "Result<Vec<Result<CallAnswer, CallError>>, OutcomeUnknown>")]
pub struct Calls(pub Vec<Call>);

/// The queue did not say what became of the calls: the connection must end, so that the client
/// sends them again after the next hello and repeats are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what became of the calls is not known")]
pub struct OutcomeUnknown;

/// What one instance of the actor remembers; the next reads it from disk.
#[derive(Default)]
struct Work {
    stream: Option<Stream>,
    /// Rows of the stream that are too old, removed with the next commit.
    owed: Vec<Change>,
}

/// Serves one connected integrator.
pub struct IntegratorHandler {
    shared: Arc<Shared>,
    seat: Arc<Seat>,
    work: Option<Work>,
}

supervision::supervised!(IntegratorHandler);

impl IntegratorHandler {
    /// One for that seat.
    pub fn new(shared: Arc<Shared>, seat: Arc<Seat>) -> Self {
        Self { shared, seat, work: None }
    }
}

impl Actor for IntegratorHandler {
    type Context = Context<Self>;

    /// Tells the integrator when its registration gets further.
    fn started(&mut self, ctx: &mut Context<Self>) {
        let (mut state, callbacks) = (self.seat.state.clone(), self.seat.callbacks.clone());
        let tell = async move {
            while state.changed().await.is_ok() {
                callbacks.registration(*state.borrow_and_update());
            }
        };
        ctx.spawn(tell.into_actor(self));
    }
}

impl Handler<Calls> for IntegratorHandler {
    type Result = AtomicResponse<Self, Result<Vec<Result<CallAnswer, CallError>>, OutcomeUnknown>>;

    fn handle(&mut self, calls: Calls, _: &mut Context<Self>) -> Self::Result {
        let (shared, seat) = (self.shared.clone(), self.seat.clone());
        let work = self.work.take();
        let served = async move { serve(&shared, &seat, work, calls.0).await };
        AtomicResponse::new(Box::pin(served.into_actor(self).map(|(work, answers), actor, _| {
            actor.work = work;
            answers
        })))
    }
}

type Served = (Option<Work>, Result<Vec<Result<CallAnswer, CallError>>, OutcomeUnknown>);

async fn serve(shared: &Shared, seat: &Seat, work: Option<Work>, calls: Vec<Call>) -> Served {
    let mut work = match work {
        Some(work) => work,
        None => match load(shared, seat) {
            Ok(work) => work,
            Err(error) => return (None, Ok(vec![Err(error); calls.len()])),
        },
    };
    let mut results = Vec::with_capacity(calls.len());
    let mut calls = calls.into_iter();
    let mut registered = true;
    while !calls.as_slice().is_empty() {
        let state = *seat.state.borrow();
        registered &= state == Registered::Registered;
        match serve_some(shared, seat, &mut work, state, &mut calls).await {
            Ok(answers) => results.extend(answers.results),
            Err(unknown) => return (None, Err(unknown)),
        }
    }
    if !registered && *seat.state.borrow() == Registered::Registered {
        // Instances that came meanwhile may have missed the moment they waited for.
        let sent = shared.send_waiting.ask(SendWaiting(seat.name.clone())).await;
        if !matches!(sent, Ok(Ok(()))) {
            warn!(target: "proxy", integrator = seat.name,
                "instances wait to be registered until they are named again");
        }
    }
    (Some(work), Ok(results))
}

fn load(shared: &Shared, seat: &Seat) -> Result<Work, CallError> {
    let stream = seat.stream.map(|id| Stream::load(&*shared.store, id)).transpose();
    let stream = stream.map_err(|_| refused(protocol::Refusal::StorageDown))?;
    Ok(Work { stream, owed: Vec::new() })
}

/// One commit.
async fn serve_some(
    shared: &Shared,
    seat: &Seat,
    work: &mut Work,
    state: Registered,
    calls: &mut std::vec::IntoIter<Call>,
) -> Result<Answers, OutcomeUnknown> {
    let author = &shared.author;
    let mut batch = Batch::plan(
        &Desk {
            author,
            identifiers: &shared.identifiers,
            consent: &*shared.consent,
            state,
            integrator: &seat.integrator(author.identity().id),
            number: seat.number,
            stream: work.stream.as_ref(),
            once: &shared.once,
            bytes_per_message: shared.bytes_per_message,
        },
        calls,
    );
    if batch.dropped > 0 {
        // The count is of no use to the caller; where the queue is away it is lost with it.
        let _ = shared.queue.note_dropped.ask(NoteDropped(batch.dropped)).await;
    }
    let mut kept = Ok(Vec::new());
    if !batch.is_empty() {
        let mut changes = std::mem::take(&mut batch.changes);
        changes.append(&mut work.owed);
        changes.extend(work.stream.as_mut().and_then(|stream| stream.used(author.now())));
        let messages = std::mem::take(&mut batch.messages);
        let keep = Keep { messages, changes, ends: Vec::new() };
        let numbers = batch.numbers();
        let noted = work.stream.as_ref().filter(|_| !numbers.is_empty());
        let noted = noted.map(|stream| stream.noted(numbers));
        let order = KeepWith { keep, each: std::mem::take(&mut batch.each), noted };
        kept = match shared.queue.keep_with(order).await {
            Ok(kept) => Ok(kept),
            Err(QueueError::Refused(refusal)) => Err(refusal),
            Err(QueueError::Unknown) => return Err(OutcomeUnknown),
        };
    }
    let mut answers = batch.answers(&shared.identifiers, seat.number, &kept);
    if let Some(stream) = &mut work.stream {
        work.owed.extend(stream.note(std::mem::take(&mut answers.stored)));
        let repeated = answers.repeated.iter();
        work.owed.extend(repeated.flat_map(|seq| stream.note([*seq])));
    }
    Ok(answers)
}
