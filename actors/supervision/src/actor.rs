//! Runs one actor through all its instances and says how each ended.

use std::{
    any::Any,
    cell::RefCell,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{self, Poll},
};

use actix::{
    Actor, ActorContext, Addr, Context, Supervised,
    dev::{ContextFut, channel::AddressReceiver},
};
use tokio::sync::mpsc;

use crate::{
    Exit,
    child::{Orders, Start},
    drill,
    tree::{Entry, lock},
    watchdog,
};

/// Lets an actor end itself with a reason, so that a failure need not be a panic.
#[derive(Clone, Debug, Default)]
pub struct Lifeline(Arc<Mutex<Option<String>>>);

impl Lifeline {
    /// Ends the actor; its supervisor sees [`Exit::Failed`] with `reason`, which is logged.
    pub fn fail<A: Actor<Context = Context<A>>>(
        &self,
        ctx: &mut Context<A>,
        reason: impl std::fmt::Display,
    ) {
        *lock(&self.0) = Some(reason.to_string());
        ctx.stop();
    }
}

/// Runs an actor whenever it is ordered to start, until nobody can order it any more.
///
/// Lives on the actor's arbiter for as long as the actor's supervisor or one above it may start
/// the actor again, so the address and the messages that wait outlive every instance.
pub(crate) async fn reside<A, F>(
    (addr, mailbox): (Addr<A>, AddressReceiver<A>),
    make: F,
    entry: Arc<Entry>,
    mut starts: mpsc::Receiver<Start>,
) where
    A: Actor<Context = Context<A>> + Supervised,
    F: Fn(Lifeline) -> A,
{
    let mut body = Body::Unborn(Context::with_receiver(mailbox));
    while let Some(start) = starts.recv().await {
        let Start { orders, report } = start;
        let exit = run(&mut body, &make, &entry, orders).await;
        // An error means that its supervisor is gone, and so will be this.
        let _ = report.send(exit);
    }
    // Parts of a failed instance may panic while they are dropped.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(body)));
    // An actor stops when its last address goes; it shall stop by order only.
    drop(addr);
}

/// The context of an actor: one for all its instances.
enum Body<A: Actor<Context = Context<A>>> {
    Unborn(Context<A>),
    Ended(Instance<A>),
    Running,
}

/// A context with an instance of the actor in it.
struct Instance<A: Actor<Context = Context<A>>>(Pin<Box<ContextFut<A, Context<A>>>>);

impl<A: Actor<Context = Context<A>>> Drop for Instance<A> {
    fn drop(&mut self) {
        // Or actix calls `stopping` and `stopped` on what may be broken state.
        self.0.ctx().terminate();
    }
}

/// What becomes of an instance when it is polled.
enum Step {
    Ended,
    Panicked(String),
    OrderedToStop,
}

/// Runs one instance of an actor to its end.
///
/// The panic is caught here and not left to tokio: tokio would drop the context, and with it the
/// mailbox; and the drop would call the actor's `stopping` and `stopped` on broken state, where a
/// second panic, inside the unwinding, aborts the process (measured with actix 0.13.5).
async fn run<A, F>(body: &mut Body<A>, make: &F, entry: &Entry, orders: Orders) -> Exit
where
    A: Actor<Context = Context<A>> + Supervised,
    F: Fn(Lifeline) -> A,
{
    let Orders { mut stop, ready, stop_within } = orders;
    let lifeline = Lifeline::default();
    let making = watchdog::running(entry.id);
    let made = catch_unwind(AssertUnwindSafe(|| make(lifeline.clone())));
    let instance = made.and_then(|actor| embody(body, actor));
    drop(making);
    let mut instance = match instance {
        Ok(instance) => instance,
        Err(panic) => return Exit::Panicked(text_of(panic)),
    };

    let mut ready = Some(ready);
    let running = poll_fn(|cx| {
        if Pin::new(&mut stop).poll(cx).is_ready() {
            return Poll::Ready(Step::OrderedToStop);
        }
        let step = step(&mut instance, entry, cx);
        if let (Poll::Pending, Some(ready)) = (&step, ready.take()) {
            // An error means that nobody waits for it.
            let _ = ready.send(());
        }
        step
    });
    let ended = match running.await {
        Step::OrderedToStop => {
            instance.0.ctx().stop();
            let stopping = poll_fn(|cx| match step(&mut instance, entry, cx) {
                Poll::Ready(Step::OrderedToStop) => Poll::Pending,
                step => step,
            });
            tokio::time::timeout(stop_within, stopping).await.unwrap_or(Step::OrderedToStop)
        }
        step => step,
    };
    // Whatever becomes of the context, no hook of this instance runs any more.
    instance.0.ctx().terminate();
    *body = Body::Ended(instance);
    match ended {
        Step::Ended => match lock(&lifeline.0).take() {
            Some(reason) => Exit::Failed(reason),
            None => Exit::Normal,
        },
        Step::Panicked(text) => Exit::Panicked(text),
        Step::OrderedToStop => Exit::CutOff,
    }
}

/// Puts a new actor into the context, in place of the one that ended.
fn embody<A>(body: &mut Body<A>, actor: A) -> std::thread::Result<Instance<A>>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    match std::mem::replace(body, Body::Running) {
        Body::Unborn(ctx) => Ok(Instance(Box::pin(ctx.into_future(actor)))),
        Body::Ended(mut instance) => {
            NEXT_INSTANCE.set(Some(Box::new(actor)));
            // Drops the ended instance, whose parts may panic once more.
            match catch_unwind(AssertUnwindSafe(|| instance.0.restart())) {
                Ok(_) => Ok(instance),
                Err(panic) => {
                    instance.0.ctx().terminate();
                    *body = Body::Ended(instance);
                    Err(panic)
                }
            }
        }
        Body::Running => unreachable!("a child is started after its end only"),
    }
}

/// Polls an instance once. A drill comes over it in here, when the messages that waited have been
/// begun, so that it is met with messages in hand.
fn step<A>(instance: &mut Instance<A>, entry: &Entry, cx: &mut task::Context<'_>) -> Poll<Step>
where
    A: Actor<Context = Context<A>>,
{
    entry.drill.listen(cx.waker());
    let _marker = watchdog::running(entry.id);
    let polled = catch_unwind(AssertUnwindSafe(|| match instance.0.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(Step::Ended),
        Poll::Pending if entry.drill.take().is_some_and(drill::suffer) => {
            Poll::Ready(Step::OrderedToStop)
        }
        Poll::Pending => Poll::Pending,
    }));
    polled.unwrap_or_else(|panic| Poll::Ready(Step::Panicked(text_of(panic))))
}

thread_local! {
    static NEXT_INSTANCE: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

/// The instance that replaces an ended one; for [`supervised!`](crate::supervised) only.
///
/// # Panics
/// If anybody else calls it.
#[doc(hidden)]
pub fn next_instance<A: 'static>() -> A {
    let next = NEXT_INSTANCE.take().and_then(|next| next.downcast().ok());
    *next.expect("only a supervisor restarts a supervised actor")
}

/// Lets an actor be supervised: a restart replaces the whole of it.
#[macro_export]
macro_rules! supervised {
    ($actor:ty) => {
        impl ::actix::Supervised for $actor {
            fn restarting(&mut self, _: &mut ::actix::Context<Self>) {
                *self = $crate::next_instance();
            }
        }
    };
}

fn text_of(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => match panic.downcast::<&'static str>() {
            Ok(text) => (*text).to_owned(),
            Err(other) => {
                // It is foreign, and dropping it may panic in its turn.
                std::mem::forget(other);
                "panic without a text".to_owned()
            }
        },
    }
}
