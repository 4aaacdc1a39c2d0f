//! An integrator's side of the callbacks, as slow as a test wants it.
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use extension::integrators::Callbacks;
use protocol::{
    heartbeat::Condition,
    socket::{
        ActionRequest, Callback, CallbackError, CapabilitiesRequest, Registered, StatusAnswer,
        StatusPart, StatusRequest, UpdateRequest,
    },
};
use tokio::sync::Notify;

/// An integrator's side of the callbacks.
pub struct Client {
    pub takes: Vec<Callback>,
    /// How long each callback takes.
    pub takes_time: Duration,
    pub actions: Mutex<Vec<(String, String)>>,
    pub running: AtomicUsize,
    pub most: AtomicUsize,
    pub states: Mutex<Vec<Registered>>,
    pub asked_to_end: Arc<Notify>,
    pub statuses: AtomicUsize,
}

impl Client {
    pub fn new(takes: &[Callback], takes_time: Duration) -> Arc<Self> {
        Arc::new(Self {
            takes: takes.to_vec(),
            takes_time,
            actions: Mutex::default(),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            states: Mutex::default(),
            asked_to_end: Arc::default(),
            statuses: AtomicUsize::new(0),
        })
    }

    /// Takes all callbacks and answers at once.
    pub fn quick() -> Arc<Self> {
        Self::new(Callback::ALL, Duration::ZERO)
    }

    pub fn acted(&self) -> usize {
        self.actions.lock().unwrap().len()
    }
}

#[async_trait]
impl Callbacks for Client {
    fn has(&self, callback: Callback) -> bool {
        self.takes.contains(&callback)
    }

    async fn status(&self, _: StatusRequest) -> Result<StatusAnswer, CallbackError> {
        self.statuses.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.takes_time).await;
        let (module, platform) = (
            StatusPart::new(Condition::Ok, ""),
            StatusPart::new(Condition::Degraded, "1 of 3 silent"),
        );
        Ok(StatusAnswer { module, platform, instances: Vec::new() })
    }

    async fn action(&self, request: ActionRequest) -> Result<i64, CallbackError> {
        self.actions.lock().unwrap().push((request.action_id, request.instance));
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        tokio::time::sleep(self.takes_time).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        Ok(0)
    }

    async fn update(&self, _: UpdateRequest) -> Result<(), CallbackError> {
        Err(CallbackError::NotSupported("update".into()))
    }

    async fn capabilities(&self, request: CapabilitiesRequest) -> Result<i64, CallbackError> {
        self.actions.lock().unwrap().push((request.message_id.to_string(), request.instance));
        Ok(0)
    }

    fn registration(&self, state: Registered) {
        self.states.lock().unwrap().push(state);
    }

    fn end(&self) {
        self.asked_to_end.notify_one();
    }
}
