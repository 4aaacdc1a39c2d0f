//! The integrator door: lets integrators in, and gives each an actor of its own (IPC-5, IPC-7).
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use extension::integrators::{
    Callbacks, Ended, IntegratorDoor, IntegratorSession, PeerCredentials,
};
use protocol::{
    Refusal,
    heartbeat::Mode,
    limits::WINDOW,
    socket::{Call, CallAnswer, CallError, Counters, Hello, HelloAnswer, PROTOCOL},
};
use supervision::{ActorRef, AskError, ChildSpec, ChildrenError, Route, SupervisorRef};
use tracing::{info, warn};

use super::{
    batch::refused,
    handler::{Calls, IntegratorHandler, Seat, Shared},
    registration::{Enlist, Enlisted},
    streams::{self, StreamId},
    switchboard::{Connection, ConnectionId, Entry, Switchboard},
};

/// Integrators connected at once: processes of one host.
pub const CONNECTIONS_MAX: usize = 1024;
/// Batches of one connection that wait: the door hands over one at a time.
const WAITING_MAX: usize = 2;
/// How long a batch may take: several commits of a worn-out disk.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// How long a newcomer waits for the connection whose stream it has: a batch, and its stop.
const OVER_WITHIN: Duration = Duration::from_secs(70);
/// What a newcomer that found no room is told to wait, ms.
const TRY_AGAIN_MS: u64 = 1_000;

/// The door of a proxy.
pub struct Door {
    /// What the actors share.
    pub shared: Arc<Shared>,
    /// Puts names on the roll.
    pub enlist: Route<Enlist>,
    /// The supervisor of the actors.
    pub handlers: SupervisorRef,
    /// Whether the link up has a back-channel.
    pub mode: Mode,
    /// Numbers of children, for their names.
    pub served: AtomicU64,
}

/// A seat that is given up when nobody holds it any more.
struct Seated {
    switchboard: Arc<Switchboard>,
    id: ConnectionId,
    connection: Connection,
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.switchboard.leave(self.id, &self.connection);
    }
}

#[async_trait]
impl IntegratorDoor for Door {
    async fn hello(
        &self,
        peer: PeerCredentials,
        hello: Hello,
        callbacks: Arc<dyn Callbacks>,
    ) -> Result<(HelloAnswer, Arc<dyn IntegratorSession>), CallError> {
        if self.shared.stopping.load(Ordering::Relaxed) {
            return Err(refused(Refusal::Stopping));
        }
        if hello.name.chars().any(char::is_control) {
            return Err(CallError::malformed("name has a control character"));
        }
        let seated = self.seat(&hello, &callbacks).await?;
        self.settle_stream(&hello).await?;
        let callback_words = hello.callbacks.iter().map(|c| c.word().to_owned()).collect();
        let (name, version) = (hello.name.clone(), hello.version.clone());
        let enlist = Enlist { name: name.clone(), version, callbacks: callback_words };
        let enlisted = match self.enlist.ask(enlist).await {
            Ok(enlisted) => enlisted.map_err(refused)?,
            Err(AskError::Full) => return Err(refused(Refusal::Busy)),
            Err(_) => return Err(refused(Refusal::Internal)),
        };
        let (child, handler) = self.handler(&hello, &callbacks, &enlisted).await?;
        info!(target: "proxy", integrator = name, version = hello.version, uid = peer.uid,
            pid = peer.pid, "integrator connected");
        let identity = self.shared.author.identity();
        let node_id = (!identity.id.is_unregistered()).then_some(identity.id);
        let answer = HelloAnswer {
            protocol: PROTOCOL,
            node_id,
            integrator_id: node_id.and_then(|node| node.child(enlisted.number)),
            mode: self.mode,
            registration: *enlisted.state.borrow(),
            window: WINDOW as u32,
        };
        let session = Session {
            handler,
            child,
            name,
            stream: hello.stream,
            callbacks,
            shared: self.shared.clone(),
            handlers: self.handlers.clone(),
            seated: std::sync::Mutex::new(Some(seated)),
        };
        Ok((answer, Arc::new(session)))
    }
}

impl Door {
    async fn seat(
        &self,
        hello: &Hello,
        callbacks: &Arc<dyn Callbacks>,
    ) -> Result<Seated, CallError> {
        let switchboard = &self.shared.switchboard;
        let has_callbacks = !hello.callbacks.is_empty();
        let entry = switchboard.enter(&hello.name, hello.stream, has_callbacks, callbacks.clone());
        let (id, older) = match entry {
            Entry::Seated(id) => (id, None),
            Entry::After(id, older) => (id, Some(older)),
            Entry::NameInUse => {
                let detail = format!("another connection has the callbacks of {:?}", hello.name);
                return Err(CallError::new(Refusal::NameInUse, detail).after(TRY_AGAIN_MS));
            }
            Entry::Full => return Err(refused(Refusal::Busy)),
        };
        let Some(connection) = switchboard.connection(id) else {
            return Err(refused(Refusal::Busy));
        };
        let seated = Seated { switchboard: switchboard.clone(), id, connection };
        if let Some(older) = older {
            older.callbacks.end();
            // What it has under way must be on disk before repeats of it are looked for.
            if tokio::time::timeout(OVER_WITHIN, older.is_over()).await.is_err() {
                return Err(refused(Refusal::Busy));
            }
            if switchboard.connection(id).is_none() {
                let detail = "a newer connection has this stream";
                return Err(CallError::new(Refusal::NameInUse, detail).after(TRY_AGAIN_MS));
            }
        }
        Ok(seated)
    }

    /// A commit of its own: all that the older connection had handed over is on disk after it.
    async fn settle_stream(&self, hello: &Hello) -> Result<(), CallError> {
        let Some(stream) = hello.stream else { return Ok(()) };
        let used = streams::used_row(stream, self.shared.author.now());
        let applied = self.shared.queue.apply(vec![used]).await;
        applied.map_err(|error| refused(error.refusal()))
    }

    async fn handler(
        &self,
        hello: &Hello,
        callbacks: &Arc<dyn Callbacks>,
        enlisted: &Enlisted,
    ) -> Result<(String, ActorRef<IntegratorHandler>), CallError> {
        let seat = Arc::new(Seat {
            name: hello.name.clone(),
            version: hello.version.clone(),
            number: enlisted.number,
            stream: hello.stream,
            callbacks: callbacks.clone(),
            state: enlisted.state.clone(),
        });
        let served = self.served.fetch_add(1, Ordering::Relaxed) + 1;
        let child = format!("{}-{served}", hello.name.replace('/', "_"));
        let shared = self.shared.clone();
        let (spec, handler) =
            ChildSpec::actor(child.clone(), WAITING_MAX, ANSWERS_WITHIN, move |_| {
                IntegratorHandler::new(shared.clone(), seat.clone())
            });
        match self.handlers.add(spec.labelled("integrator")).await {
            Ok(()) => Ok((child, handler)),
            Err(ChildrenError::Full) => Err(refused(Refusal::Busy)),
            Err(ChildrenError::Ended) => Err(refused(Refusal::Stopping)),
            Err(error) => {
                warn!(target: "proxy", integrator = hello.name, %error, "no actor for it");
                Err(refused(Refusal::Internal))
            }
        }
    }
}

/// One connected integrator.
struct Session {
    handler: ActorRef<IntegratorHandler>,
    child: String,
    name: String,
    stream: Option<StreamId>,
    callbacks: Arc<dyn Callbacks>,
    shared: Arc<Shared>,
    handlers: SupervisorRef,
    seated: std::sync::Mutex<Option<Seated>>,
}

#[async_trait]
impl IntegratorSession for Session {
    async fn calls(&self, calls: Vec<Call>) -> Vec<Result<CallAnswer, CallError>> {
        let count = calls.len();
        if self.shared.stopping.load(Ordering::Relaxed) {
            return vec![Err(refused(Refusal::Stopping)); count];
        }
        match self.handler.ask(Calls(calls)).await {
            Ok(Ok(results)) => results,
            Err(AskError::Full) => vec![Err(refused(Refusal::Busy)); count],
            Ok(Err(_)) | Err(AskError::TimedOut | AskError::Ended) => {
                // A refusal would say that nothing was stored. The client hears nothing, and after
                // its next hello what was stored answers `duplicate`.
                warn!(target: "proxy", integrator = self.name,
                    "what became of its calls is not known; the connection ends");
                self.callbacks.end();
                vec![Err(refused(Refusal::Internal)); count]
            }
        }
    }

    fn counted(&self, report: Result<Counters, CallError>) {
        self.shared.reports.take(&self.name, report, self.shared.author.now());
    }

    async fn ended(&self, how: Ended) {
        info!(target: "proxy", integrator = self.name, ?how, "integrator disconnected");
        if let Err(error) = self.handlers.remove(&self.child).await {
            warn!(target: "proxy", integrator = self.name, %error, "its actor was not there");
        }
        if let (Ended::Bye { forget: true }, Some(stream)) = (how, self.stream) {
            self.forget(stream).await;
        }
        self.seated.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }
}

impl Session {
    async fn forget(&self, stream: StreamId) {
        let changes = match streams::forget(&*self.shared.store, &stream) {
            Ok(changes) => changes,
            Err(error) => {
                warn!(target: "proxy", integrator = self.name, %error, "stream is not forgotten");
                return;
            }
        };
        if let Err(error) = self.shared.queue.apply(changes).await {
            // It goes by itself when it was not used for 30 days.
            warn!(target: "proxy", integrator = self.name, %error, "stream is not forgotten");
        }
    }
}
