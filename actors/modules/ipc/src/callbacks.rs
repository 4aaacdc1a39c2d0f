//! The way back: asks the integrator on its connection and waits for the answer.
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use extension::integrators::Callbacks;
use protocol::socket::{
    ActionRequest, Callback, CallbackAnswer, CallbackError, CallbackRequest, CapabilitiesRequest,
    Frame, Registered, StatusAnswer, StatusRequest, UpdateRequest,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::{
    connection::Out,
    limits::{CALLBACKS_MAX, STATUS_WITHIN},
};

type Result<T> = std::result::Result<T, CallbackError>;
type Reply = std::result::Result<Bytes, Bytes>;

/// Requests that wait for their answers.
#[derive(Default)]
struct Pending {
    waiting: HashMap<u32, oneshot::Sender<Reply>>,
    last_id: u32,
    ended: bool,
}

/// The callbacks of one connection.
pub(crate) struct Connected {
    callbacks: Vec<Callback>,
    pending: Mutex<Pending>,
    /// Weak: whoever keeps this must not keep the connection open.
    out: mpsc::WeakSender<Out>,
    registration: watch::Sender<Option<Registered>>,
    end: watch::Sender<bool>,
}

/// Forgets a request whose caller went away.
struct Asked<'a> {
    connected: &'a Connected,
    id: u32,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.connected.lock().waiting.remove(&self.id);
    }
}

impl Connected {
    pub(crate) fn new(
        callbacks: Vec<Callback>,
        out: mpsc::WeakSender<Out>,
        registration: watch::Sender<Option<Registered>>,
        end: watch::Sender<bool>,
    ) -> Self {
        Self { callbacks, pending: Mutex::default(), out, registration, end }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands on an answer; one nobody waits for is dropped.
    pub(crate) fn answered(&self, id: u32, reply: Reply) {
        if let Some(waiting) = self.lock().waiting.remove(&id) {
            // Whoever asked may have gone.
            let _ = waiting.send(reply);
        }
    }

    /// The connection is over: nobody gets an answer any more.
    pub(crate) fn ended(&self) {
        let mut pending = self.lock();
        pending.ended = true;
        pending.waiting.clear();
    }

    fn begin(&self) -> Result<(Asked<'_>, oneshot::Receiver<Reply>)> {
        let mut pending = self.lock();
        if pending.ended {
            return Err(CallbackError::Gone);
        }
        if pending.waiting.len() >= CALLBACKS_MAX {
            let detail = format!("{CALLBACKS_MAX} callbacks wait for the integrator");
            return Err(CallbackError::Failed(detail));
        }
        pending.last_id = pending.last_id.checked_add(1).unwrap_or(1);
        let id = pending.last_id;
        let (answer, answered) = oneshot::channel();
        pending.waiting.insert(id, answer);
        Ok((Asked { connected: self, id }, answered))
    }

    async fn ask(&self, request: CallbackRequest) -> Result<CallbackAnswer> {
        let callback = request.callback();
        if !self.has(callback) {
            let detail = format!("no {callback} callback");
            return Err(CallbackError::NotSupported(detail));
        }
        let (asked, answered) = self.begin()?;
        let frame = Frame::request(asked.id, callback.word(), request.map());
        let out = self.out.upgrade().ok_or(CallbackError::Gone)?;
        out.send(Out::of(frame)).await.map_err(|_| CallbackError::Gone)?;
        drop(out);
        match answered.await.map_err(|_| CallbackError::Gone)? {
            Ok(result) => CallbackAnswer::read(callback, &result)
                .map_err(|e| CallbackError::Failed(format!("the answer cannot be read: {e}"))),
            Err(error) => Err(CallbackError::read(&error)
                .unwrap_or_else(|e| CallbackError::Failed(format!("cannot be read: {e}")))),
        }
    }

    async fn status_of(&self, request: CallbackRequest) -> Result<i64> {
        match self.ask(request).await? {
            CallbackAnswer::Done { status } => Ok(status),
            _ => Err(CallbackError::Failed("another answer was expected".to_owned())),
        }
    }
}

#[async_trait]
impl Callbacks for Connected {
    fn has(&self, callback: Callback) -> bool {
        self.callbacks.contains(&callback)
    }

    async fn status(&self, request: StatusRequest) -> Result<StatusAnswer> {
        let asked = timeout(STATUS_WITHIN, self.ask(CallbackRequest::Status(request)));
        match asked.await.map_err(|_| CallbackError::TimedOut)?? {
            CallbackAnswer::Status(status) => Ok(status),
            _ => Err(CallbackError::Failed("another answer was expected".to_owned())),
        }
    }

    async fn action(&self, request: ActionRequest) -> Result<i64> {
        self.status_of(CallbackRequest::Action(request)).await
    }

    async fn update(&self, request: UpdateRequest) -> Result<()> {
        self.ask(CallbackRequest::Update(request)).await.map(|_| ())
    }

    async fn capabilities(&self, request: CapabilitiesRequest) -> Result<i64> {
        self.status_of(CallbackRequest::Capabilities(request)).await
    }

    fn registration(&self, state: Registered) {
        self.registration.send_replace(Some(state));
    }

    fn end(&self) {
        self.end.send_replace(true);
    }
}
