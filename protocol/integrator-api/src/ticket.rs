//! The answer to a call, when it comes: waited for on a thread, or awaited.
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use protocol::{
    MessageId,
    socket::{CallAnswer, CallError, Outcome},
};

use crate::lock;

/// That a call was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The proxy answered.
    Answered(CallAnswer),
    /// It is in the integrator's spill, synced; the proxy gets it later.
    Spilled,
}

impl Accepted {
    /// The message's id, where the proxy gave one.
    pub fn message_id(&self) -> Option<MessageId> {
        match self {
            Self::Answered(CallAnswer::Message { message_id, .. }) => *message_id,
            _ => None,
        }
    }

    /// What became of the message, where the proxy said.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Answered(CallAnswer::Message { outcome, .. }) => Some(*outcome),
            _ => None,
        }
    }
}

type Result = std::result::Result<Accepted, CallError>;

#[derive(Default)]
struct Inside {
    result: Option<Result>,
    waker: Option<Waker>,
}

/// Where the result of a call is put.
#[derive(Default)]
pub(crate) struct Slot {
    inside: Mutex<Inside>,
    came: Condvar,
}

impl Slot {
    /// Puts the result; the first counts.
    pub(crate) fn put(&self, result: Result) {
        let mut inside = lock(&self.inside);
        inside.result.get_or_insert(result);
        let waker = inside.waker.take();
        drop(inside);
        self.came.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The answer to one call, when it comes. Dropping it changes nothing for the call.
#[must_use = "without its ticket nobody knows whether a call was accepted"]
pub struct Ticket {
    slot: Arc<Slot>,
}

impl Ticket {
    pub(crate) fn new() -> (Self, Arc<Slot>) {
        let slot = Arc::new(Slot::default());
        (Self { slot: slot.clone() }, slot)
    }

    /// Waits on this thread, as long as it takes.
    pub fn wait(self) -> Result {
        let mut inside = lock(&self.slot.inside);
        loop {
            if let Some(result) = &inside.result {
                return result.clone();
            }
            inside = self.slot.came.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits on this thread for at most `within`; `None`: no answer yet, the call goes on.
    pub fn wait_for(&self, within: Duration) -> Option<Result> {
        let inside = lock(&self.slot.inside);
        let waiting = |inside: &mut Inside| inside.result.is_none();
        let waited = self.slot.came.wait_timeout_while(inside, within, waiting);
        let (inside, _) = waited.unwrap_or_else(PoisonError::into_inner);
        inside.result.clone()
    }
}

impl Future for Ticket {
    type Output = Result;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result> {
        let mut inside = lock(&self.slot.inside);
        if let Some(result) = &inside.result {
            return Poll::Ready(result.clone());
        }
        inside.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
