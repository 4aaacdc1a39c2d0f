//! A sink that remembers what it was given, for tests of whole integrators.
#![allow(dead_code, reason = "each test uses its part of it")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use integrators::sink::{Call, Emitted, Receipt, Refused, Sink, What};
use protocol::Refusal;
use protocol::service::Data;
use tokio::sync::{Notify, Semaphore};

/// Remembers calls in their order; may refuse, or hold back its answers.
pub struct Recording {
    calls: Mutex<Vec<Call>>,
    refuse: Mutex<Option<Refusal>>,
    refused: Mutex<usize>,
    answers: Arc<Semaphore>,
    came: Notify,
}

impl Recording {
    /// One that takes all at once.
    pub fn new() -> Self {
        Self {
            calls: Mutex::default(),
            refuse: Mutex::default(),
            refused: Mutex::default(),
            answers: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            came: Notify::new(),
        }
    }

    /// One that answers nothing until [`Self::answer`] lets it.
    pub fn holding() -> Self {
        Self { answers: Arc::new(Semaphore::new(0)), ..Self::new() }
    }

    /// Lets so many answers go.
    pub fn answer(&self, answers: usize) {
        self.answers.add_permits(answers);
    }

    /// Refuses all from now on, or nothing.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        *self.refuse.lock().unwrap() = refusal;
    }

    /// All that came so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// What came since the last time, as data.
    pub fn take_data(&self) -> Vec<Data> {
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        let data = calls.into_iter().filter_map(|call| match call.what {
            What::Data(data) => Some(data),
            _ => None,
        });
        data.collect()
    }

    /// Waits until so many calls came; fails after 20 s with what did.
    pub async fn wait_for(&self, calls: usize) -> Vec<Call> {
        self.wait(|| self.calls().len() >= calls).await;
        self.calls()
    }

    /// Waits until so many calls were refused.
    pub async fn wait_for_refusals(&self, refusals: usize) {
        self.wait(|| *self.refused.lock().unwrap() >= refusals).await;
    }

    async fn wait(&self, enough: impl Fn() -> bool) {
        let waits = async {
            loop {
                let came = self.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                if enough() {
                    return;
                }
                came.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waits).await;
        assert!(waited.is_ok(), "not enough came: {:#?}", self.calls());
    }
}

impl Sink for Recording {
    fn emit(&self, call: Call) -> Emitted {
        let refusal = *self.refuse.lock().unwrap();
        match refusal {
            None => self.calls.lock().unwrap().push(call),
            Some(_) => *self.refused.lock().unwrap() += 1,
        }
        self.came.notify_waiters();
        let answers = self.answers.clone();
        Box::pin(async move {
            if let Some(refusal) = refusal {
                return Err(Refused { refusal, detail: "as the test wants".into() });
            }
            answers.acquire().await.unwrap().forget();
            Ok(Receipt { message_id: None })
        })
    }
}
