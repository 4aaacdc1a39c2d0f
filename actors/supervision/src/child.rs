//! One child as its supervisor knows it: how it is started, told to stop, and when again.

use std::{borrow::Cow, future::Future, pin::Pin, sync::Arc, time::Duration};

use actix::{Actor, Addr, Arbiter, Context, Supervised, dev::channel::channel};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{Instrument, Span};

use crate::{ActorRef, Exit, Lifeline, Supervisor, actor::reside, tree::Entry, watchdog};

/// Time an actor has to stop unless its spec says otherwise: one commit on a slow disk.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// When an ended child is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always.
    Permanent,
    /// After an abnormal end only.
    Transient,
    /// Never.
    Temporary,
}

impl Restart {
    /// Whether a child that ended so is started again.
    pub fn follows(self, exit: &Exit) -> bool {
        match self {
            Restart::Permanent => true,
            Restart::Transient => exit.is_abnormal(),
            Restart::Temporary => false,
        }
    }
}

/// What a supervisor needs to know of a child.
pub struct ChildSpec {
    pub(crate) entry: Arc<Entry>,
    pub(crate) restart: Restart,
    pub(crate) stop_within: Duration,
    pub(crate) label: Cow<'static, str>,
    own_arbiter: bool,
    home: Home,
}

/// What runs a child through all its instances; ends when nobody can start it any more.
type Resident = Pin<Box<dyn Future<Output = ()>>>;

/// Where a child lives.
enum Home {
    /// Nowhere yet. The closure is called on the thread the child is to live on.
    Unborn(Box<dyn FnOnce(mpsc::Receiver<Start>) -> Resident + Send>),
    Settled(mpsc::Sender<Start>),
    /// No thread could be had for it.
    Homeless,
}

/// The order to run one instance.
pub(crate) struct Start {
    pub(crate) orders: Orders,
    pub(crate) report: oneshot::Sender<Exit>,
}

/// What an instance is told.
pub(crate) struct Orders {
    /// Resolves, with or without a value, when it is to stop.
    pub(crate) stop: oneshot::Receiver<()>,
    /// To be sent to when it is up.
    pub(crate) ready: oneshot::Sender<()>,
    pub(crate) stop_within: Duration,
}

/// A running instance, as its supervisor sees it.
pub(crate) struct Started {
    pub(crate) exit: oneshot::Receiver<Exit>,
    pub(crate) ready: oneshot::Receiver<()>,
    pub(crate) stop: oneshot::Sender<()>,
}

impl ChildSpec {
    /// An actor that may have `waiting_max` messages waiting and answers each `within` a time.
    ///
    /// `make` is called for the first start and for every restart, on the actor's own thread, and
    /// builds the whole state: nothing of a failed instance is kept but the messages it had not
    /// begun. The reference is good before the first start; what is asked waits for it.
    ///
    /// It is [`Restart::Permanent`] and has 5 s to stop, on its supervisor's arbiter.
    ///
    /// # Panics
    /// If `waiting_max` is 0.
    pub fn actor<A, F>(
        name: impl Into<Cow<'static, str>>,
        waiting_max: usize,
        within: Duration,
        make: F,
    ) -> (Self, ActorRef<A>)
    where
        A: Actor<Context = Context<A>> + Supervised,
        F: Fn(Lifeline) -> A + Send + 'static,
    {
        let name = name.into();
        assert!(waiting_max > 0, "{name}: an actor nobody may ask is not reachable");
        let (sender, mailbox) = channel(waiting_max);
        let addr = Addr::new(sender);
        let permits = Arc::new(Semaphore::new(waiting_max));
        let entry = Entry::actor(name, permits.clone(), waiting_max);
        let reference = ActorRef { addr: addr.clone(), permits, answer_within: within };
        let known = entry.clone();
        let home =
            move |starts| -> Resident { Box::pin(reside((addr, mailbox), make, known, starts)) };
        (Self::new(entry, STOP_WITHIN, Box::new(home)), reference)
    }

    /// A supervisor below this one. References to its children stay good when it is restarted.
    ///
    /// Its time to stop is what its children take.
    pub fn supervisor(mut supervisor: Supervisor) -> Self {
        let entry = supervisor.entry().clone();
        let home = move |mut starts: mpsc::Receiver<Start>| -> Resident {
            Box::pin(async move {
                while let Some(Start { orders, report }) = starts.recv().await {
                    let exit = supervisor.run(orders.stop, orders.ready).await;
                    // An error means that the supervisor above is gone, and so will be this.
                    let _ = report.send(exit);
                }
            })
        };
        Self::new(entry, Duration::MAX, Box::new(home))
    }

    fn new(
        entry: Arc<Entry>,
        stop_within: Duration,
        home: Box<dyn FnOnce(mpsc::Receiver<Start>) -> Resident + Send>,
    ) -> Self {
        let (restart, label) = (Restart::Permanent, entry.name.clone());
        Self { entry, restart, stop_within, label, own_arbiter: false, home: Home::Unborn(home) }
    }

    /// When it is started again.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// How long it may take to stop before it is cut off.
    pub fn stop_within(mut self, stop_within: Duration) -> Self {
        self.stop_within = stop_within;
        self
    }

    /// Gives it a thread of its own, for as long as anyone may start it: for work that blocks,
    /// or that must not wait for others. All else stays the same. Below a supervisor with an
    /// arbiter of its own, children live on that one.
    pub fn on_own_arbiter(mut self) -> Self {
        self.own_arbiter = true;
        self
    }

    /// What metrics call it, where names are many (one a transfer); else its name.
    pub fn labelled(mut self, label: impl Into<Cow<'static, str>>) -> Self {
        self.label = label.into();
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    pub(crate) fn start(&mut self) -> Started {
        let (stop, stop_rx) = oneshot::channel();
        let (ready, ready_rx) = oneshot::channel();
        let (report, exit) = oneshot::channel();
        let orders = Orders { stop: stop_rx, ready, stop_within: self.stop_within };
        if let Home::Settled(starts) = self.settle() {
            // An error drops the order, and with it `report`: the child is cut off. Its thread
            // is gone, or still hangs in the instance before the last.
            let _ = starts.try_send(Start { orders, report });
        }
        Started { exit, ready: ready_rx, stop }
    }

    fn settle(&mut self) -> &Home {
        if !matches!(self.home, Home::Unborn(_)) {
            return &self.home;
        }
        if let Home::Unborn(resident) = std::mem::replace(&mut self.home, Home::Homeless) {
            // One instance at a time is started.
            let (starts, orders) = mpsc::channel(1);
            // All that is logged below a supervisor stands in the span in which it was started.
            let span = Span::current();
            let settled = match self.own_arbiter {
                true => spawn_on_own_arbiter(self.entry.path(), move || {
                    Box::pin(resident(orders).instrument(span))
                }),
                false => {
                    actix::spawn(resident(orders).instrument(span));
                    true
                }
            };
            if settled {
                self.home = Home::Settled(starts);
            }
        }
        &self.home
    }
}

impl std::fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildSpec")
            .field("name", &self.entry.name)
            .field("restart", &self.restart)
            .field("stop_within", &self.stop_within)
            .field("own_arbiter", &self.own_arbiter)
            .finish_non_exhaustive()
    }
}

/// Whether there was a thread to be had.
fn spawn_on_own_arbiter(name: String, make: impl FnOnce() -> Resident + Send + 'static) -> bool {
    let arbiter = match Arbiter::try_new() {
        Ok(arbiter) => arbiter,
        Err(error) => {
            tracing::error!(
                target: "supervision",
                child = name,
                %error,
                "child has no arbiter: raise the limit of threads of the process"
            );
            return false;
        }
    };
    arbiter.spawn_fn(move || {
        watchdog::attend(&name);
        let end = EndOfArbiter;
        let resident = make();
        actix::spawn(async move {
            resident.await;
            drop(end);
        });
    })
}

/// Ends the arbiter's thread when its child is done, or when that panics.
struct EndOfArbiter;

impl Drop for EndOfArbiter {
    fn drop(&mut self) {
        if let Some(arbiter) = Arbiter::try_current() {
            arbiter.stop();
        }
    }
}
