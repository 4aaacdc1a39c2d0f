//! A supervisor as it is written down, and what one may do with it while it runs.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::Instrument;

use crate::{
    Backoff, ChildSpec, Exit, Intensity, State, TreeNode,
    running::{Order, Running, Slot},
    tree::Entry,
    watchdog,
};

/// Children a supervisor may have unless it says otherwise; keeps a flood of transfers or
/// integrators from taking all memory.
const CHILDREN_MAX: usize = 4_096;

/// Orders that may wait for a supervisor; whoever gives one more waits in turn.
const ORDERS_MAX: usize = 64;

/// Time in which a supervisor carries out an order. Longer than an actor has to stop (5 s), as
/// removing one includes that.
const ORDER_WITHIN: Duration = Duration::from_secs(10);

/// Which children are restarted when one ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// That child.
    OneForOne,
    /// All of them.
    OneForAll,
    /// That child and those started after it.
    RestForOne,
}

/// Starts, watches and restarts children; ends with [`Exit::Escalated`] when that is not enough,
/// else when it is told to, be there children or not.
///
/// A child is started when the one before it is up: its state made and its `started` run.
pub struct Supervisor {
    pub(crate) entry: Arc<Entry>,
    pub(crate) strategy: Strategy,
    pub(crate) intensity: Intensity,
    pub(crate) backoff: Backoff,
    pub(crate) children_max: usize,
    pub(crate) slots: Vec<Slot>,
    pub(crate) orders: mpsc::Receiver<Order>,
    reference: SupervisorRef,
}

/// Adds children to a supervisor and removes them, from any thread; good before it is started
/// and over its restarts.
///
/// A child added so is forgotten when it has ended and its restart type says no more; so is one
/// that is [`Temporary`](crate::Restart::Temporary) when the supervisor stops it. Others begin
/// anew with their supervisor.
#[derive(Clone, Debug)]
pub struct SupervisorRef {
    orders: mpsc::Sender<Order>,
}

/// Why a child was not added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChildrenError {
    /// The supervisor has as many children as it may.
    #[error("supervisor has as many children as it may: try again when one has ended")]
    Full,
    /// Another child has that name.
    #[error("another child has that name: remove it or wait for its end")]
    NameTaken,
    /// No child has that name.
    #[error("no child has that name: it may have ended")]
    NoSuchChild,
    /// The supervisor did not say; it may do as ordered yet.
    #[error("supervisor did not answer in time: see the tree for what became of the child")]
    TimedOut,
    /// The supervisor has ended for good.
    #[error("supervisor has ended: start its tree again")]
    Ended,
}

/// A running tree: tells it to stop, and says how it ended. Dropping the handle stops the tree.
#[derive(Debug)]
pub struct SupervisorHandle {
    stop: oneshot::Sender<()>,
    phase: watch::Receiver<Phase>,
    reference: SupervisorRef,
    entry: Arc<Entry>,
}

#[derive(Clone, Debug)]
enum Phase {
    Starting,
    Started,
    Ended(Exit),
}

impl Supervisor {
    /// A supervisor without children.
    ///
    /// # Panics
    /// If `backoff` would keep a child that always fails from ever using up `intensity`.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        strategy: Strategy,
        intensity: Intensity,
        backoff: Backoff,
    ) -> Self {
        let name = name.into();
        assert!(backoff.lets_through(intensity), "{name}: backoff outlasts the restart window");
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        Self {
            entry: Entry::supervisor(name),
            strategy,
            intensity,
            backoff,
            children_max: CHILDREN_MAX,
            slots: Vec::new(),
            orders,
            reference: SupervisorRef { orders: sender },
        }
    }

    /// Adds a child; children start in the order they are added and stop in the reverse one.
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.entry.adopt(&child.entry);
        self.slots.push(Slot::fixed(child));
        self
    }

    /// How many children may be added while it runs, those given before included; 4,096 if unsaid.
    pub fn children_max(mut self, children_max: usize) -> Self {
        self.children_max = children_max;
        self
    }

    /// Adds and removes children while it runs.
    pub fn reference(&self) -> SupervisorRef {
        self.reference.clone()
    }

    /// Starts the tree on this arbiter; in `/tree` it is a node of the supervisor's name.
    ///
    /// # Panics
    /// Outside an actix system.
    pub fn start(mut self) -> SupervisorHandle {
        watchdog::attend("main");
        self.entry.take_root();
        let (stop, stop_rx) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let (phase, phase_rx) = watch::channel(Phase::Starting);
        let (reference, entry) = (self.reference(), self.entry.clone());
        let tree = async move {
            self.entry.started();
            let begin = async {
                if is_ready.await.is_ok() {
                    phase.send_replace(Phase::Started);
                }
            };
            let (exit, ()) = tokio::join!(self.run(stop_rx, ready), begin);
            self.entry.set_state(State::Stopped);
            drop(self);
            phase.send_replace(Phase::Ended(exit));
        };
        actix::spawn(tree.in_current_span());
        SupervisorHandle { stop, phase: phase_rx, reference, entry }
    }

    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// Runs until it is told to stop or gives up.
    pub(crate) async fn run(
        &mut self,
        stop: oneshot::Receiver<()>,
        ready: oneshot::Sender<()>,
    ) -> Exit {
        Running::new(self, ready).run(stop).await
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor")
            .field("name", &self.entry.name)
            .field("strategy", &self.strategy)
            .field("intensity", &self.intensity)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}

impl SupervisorRef {
    /// Adds a child and has it started.
    ///
    /// # Errors
    /// `Full`, `NameTaken`, `TimedOut`, `Ended`.
    pub async fn add(&self, child: ChildSpec) -> Result<(), ChildrenError> {
        self.give(|reply| Order::Add(Box::new(child), reply)).await
    }

    /// Has the child of that name stopped, in the time it has for it, and forgotten; its
    /// references say [`AskError::Ended`](crate::AskError::Ended) from then on.
    ///
    /// # Errors
    /// `NoSuchChild`, `TimedOut`, `Ended`.
    pub async fn remove(&self, name: &str) -> Result<(), ChildrenError> {
        self.give(|reply| Order::Remove(name.to_owned(), reply)).await
    }

    async fn give(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<(), ChildrenError>>) -> Order,
    ) -> Result<(), ChildrenError> {
        let (reply, answer) = oneshot::channel();
        let given = async {
            self.orders.send(order(reply)).await.map_err(|_| ChildrenError::Ended)?;
            answer.await.unwrap_or(Err(ChildrenError::Ended))
        };
        match tokio::time::timeout(ORDER_WITHIN, given).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(ChildrenError::TimedOut),
        }
    }
}

impl SupervisorHandle {
    /// Stops the children in reverse start order and says how the supervisor ended.
    pub async fn stop(self) -> Exit {
        let Self { stop, mut phase, .. } = self;
        // An error means it has ended already, and the phase says how.
        let _ = stop.send(());
        exit(&mut phase).await
    }

    /// Waits until the supervisor ends of itself.
    pub async fn ended(&self) -> Exit {
        exit(&mut self.phase.clone()).await
    }

    /// Waits until every child has been up, or the supervisor has ended (`false`).
    pub async fn started(&self) -> bool {
        let mut phase = self.phase.clone();
        let phase = phase.wait_for(|phase| !matches!(phase, Phase::Starting)).await;
        phase.is_ok_and(|phase| matches!(*phase, Phase::Started))
    }

    /// Adds a child and has it started; see [`SupervisorRef::add`].
    ///
    /// # Errors
    /// As there.
    pub async fn add(&self, child: ChildSpec) -> Result<(), ChildrenError> {
        self.reference.add(child).await
    }

    /// Stops and forgets a child; see [`SupervisorRef::remove`].
    ///
    /// # Errors
    /// As there.
    pub async fn remove(&self, name: &str) -> Result<(), ChildrenError> {
        self.reference.remove(name).await
    }

    /// Adds and removes children, from anywhere.
    pub fn reference(&self) -> SupervisorRef {
        self.reference.clone()
    }

    /// The tree as it is now.
    pub fn tree(&self) -> TreeNode {
        self.entry.snapshot(true)
    }
}

async fn exit(phase: &mut watch::Receiver<Phase>) -> Exit {
    match phase.wait_for(|phase| matches!(phase, Phase::Ended(_))).await.as_deref() {
        Ok(Phase::Ended(exit)) => exit.clone(),
        // The task is gone without a word: its arbiter ended.
        _ => Exit::CutOff,
    }
}
