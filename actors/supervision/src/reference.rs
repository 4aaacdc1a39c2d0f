//! References to a supervised actor, with a bound that holds and a time limit on each answer.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix::{
    Actor, Addr, Handler, MailboxError, Message,
    dev::{Request, ToEnvelope},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reaches a supervised actor, from any thread. Stays good over restarts of it and of the
/// supervisors above.
///
/// Counts the messages waiting for an answer itself: actix bounds a mailbox per sender, so every
/// clone of an `Addr` may add one message more.
pub struct ActorRef<A: Actor> {
    pub(crate) addr: Addr<A>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) answer_within: Duration,
}

/// Why an actor did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It did not get the message.
    #[error("actor has as many messages waiting as it may: try again later")]
    Full,
    /// It may get the message yet, for instance after its restart.
    #[error("actor did not answer in time: ask again what is safe to do twice")]
    TimedOut,
    /// It may have acted on the message.
    #[error("actor ended while it held the message: ask again what is safe to do twice")]
    Ended,
}

impl<A: Actor> ActorRef<A> {
    /// Sends `message` and waits for the answer. A message to an actor that is down waits for
    /// its restart.
    ///
    /// After [`AskError::TimedOut`] and [`AskError::Ended`] nobody knows whether the actor acted;
    /// ask again only what is safe to do twice. A message nobody waits for any more still counts
    /// against the bound until the actor is done with it.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask<M>(&self, message: M) -> Result<M::Result, AskError>
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| AskError::Full)?;
        let asked = Asked { waits: Some((Box::pin(self.addr.send(message)), permit)) };
        match tokio::time::timeout(self.answer_within, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_mailbox_closed)) => Err(AskError::Ended),
            Err(_elapsed) => Err(AskError::TimedOut),
        }
    }

    /// Narrows the reference to one message type, for an actor that needs to know no more.
    pub fn route<M>(&self) -> Route<M>
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let actor = self.clone();
        Route::new(move |message| {
            let actor = actor.clone();
            Box::pin(async move { actor.ask(message).await })
        })
    }
}

type Waits<A, M> = (Pin<Box<Request<A, M>>>, OwnedSemaphorePermit);

/// A message on its way to its answer, with its share of the bound.
///
/// When the asker goes away first (its time is up, or it was dropped), the message is still in
/// the mailbox; the share is given back when the actor is done with it and not before.
struct Asked<A, M>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    waits: Option<Waits<A, M>>,
}

impl<A, M> Future for Asked<A, M>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    type Output = Result<M::Result, MailboxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((request, _permit)) = &mut self.waits else {
            return Poll::Ready(Err(MailboxError::Closed));
        };
        let answer = request.as_mut().poll(cx);
        if answer.is_ready() {
            self.waits = None;
        }
        answer
    }
}

impl<A, M> Drop for Asked<A, M>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn drop(&mut self) {
        let Some((request, permit)) = self.waits.take() else { return };
        // Without a runtime the process is on its way out, and the bound with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _nobody_waits = request.await;
                drop(permit);
            });
        }
    }
}

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self {
            addr: self.addr.clone(),
            permits: self.permits.clone(),
            answer_within: self.answer_within,
        }
    }
}

impl<A: Actor> fmt::Debug for ActorRef<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorRef<{}>", std::any::type_name::<A>())
    }
}

type Answer<M> = Pin<Box<dyn Future<Output = Result<<M as Message>::Result, AskError>> + Send>>;

/// Reaches whoever takes messages of one type: an actor, or a probe in a test.
pub struct Route<M: Message>(Arc<dyn Fn(M) -> Answer<M> + Send + Sync>);

impl<M: Message> Route<M> {
    /// Makes a route out of a function, as tests do.
    pub fn new(ask: impl Fn(M) -> Answer<M> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Sends `message` and waits for the answer; see [`ActorRef::ask`].
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask(&self, message: M) -> Result<M::Result, AskError> {
        (self.0)(message).await
    }
}

impl<M: Message> Clone for Route<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Message> fmt::Debug for Route<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route<{}>", std::any::type_name::<M>())
    }
}
