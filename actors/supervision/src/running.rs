//! A supervisor at work: starts children in order, restarts them by its strategy, gives up in time.

use std::{collections::VecDeque, ops::Range, pin::Pin, time::Duration};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::{
    ChildSpec, ChildrenError, Exit, Restart, State, Strategy, Supervisor, drill,
    intensity::Restarts, report,
};

/// How much longer than its own deadline a child's end is waited for; it keeps the deadline
/// itself unless its thread hangs.
const GRACE: Duration = Duration::from_secs(1);

type Reply = oneshot::Sender<Result<(), ChildrenError>>;

/// What a supervisor is told while it runs.
pub(crate) enum Order {
    Add(Box<ChildSpec>, Reply),
    Remove(String, Reply),
}

/// A child and what it is doing.
pub(crate) struct Slot {
    spec: ChildSpec,
    doing: Doing,
    /// Added while the supervisor ran; forgotten when it is done.
    is_dynamic: bool,
    /// To be forgotten when it has ended, whoever stops it.
    is_leaving: bool,
}

enum Doing {
    Up {
        stop: oneshot::Sender<()>,
    },
    Waiting {
        until: Instant,
    },
    /// Told to stop; to be forgotten then.
    Leaving {
        reply: Reply,
    },
    Ended,
}

impl Slot {
    /// A child that is there from the start.
    pub(crate) fn fixed(spec: ChildSpec) -> Self {
        Self { spec, doing: Doing::Ended, is_dynamic: false, is_leaving: false }
    }

    fn id(&self) -> u64 {
        self.spec.entry.id
    }

    fn wait(&mut self, until: Instant) {
        self.doing = Doing::Waiting { until };
        self.spec.entry.set_state(State::Waiting);
    }

    /// Notes its end, and says whether it is to be forgotten for that.
    fn end(&mut self) -> bool {
        self.spec.entry.set_state(State::Stopped);
        if let Doing::Leaving { reply } = std::mem::replace(&mut self.doing, Doing::Ended) {
            // Whoever had it removed may have gone.
            let _ = reply.send(Ok(()));
        }
        self.is_leaving
    }

    /// Whether nobody will start it again, so that it can be forgotten.
    fn is_over(&self) -> bool {
        let is_temporary = self.is_dynamic && self.spec.restart == Restart::Temporary;
        matches!(self.doing, Doing::Ended) && (self.is_leaving || is_temporary)
    }
}

type Exits = FuturesUnordered<Pin<Box<dyn Future<Output = (u64, Exit)>>>>;

/// One life of a supervisor.
pub(crate) struct Running<'a> {
    supervisor: &'a mut Supervisor,
    exits: Exits,
    /// Exits of children outside a group that came in while the group was being stopped.
    backlog: VecDeque<(u64, Exit)>,
    restarts: Restarts,
    /// The child that is starting; the next one waits for it.
    starting: Option<(u64, oneshot::Receiver<()>)>,
    /// Whom to tell when all children have been started.
    ready: Option<oneshot::Sender<()>>,
}

impl<'a> Running<'a> {
    pub(crate) fn new(supervisor: &'a mut Supervisor, ready: oneshot::Sender<()>) -> Self {
        let restarts = Restarts::new(drill::intensity(supervisor.intensity));
        Self {
            supervisor,
            exits: Exits::new(),
            backlog: VecDeque::new(),
            restarts,
            starting: None,
            ready: Some(ready),
        }
    }

    /// Runs until `stop` resolves or the supervisor gives up.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Exit {
        let now = Instant::now();
        self.supervisor.slots.iter_mut().for_each(|slot| slot.wait(now));
        loop {
            if let Some((id, exit)) = self.backlog.pop_front() {
                if !self.ended(id, &exit).await {
                    return self.give_up().await;
                }
                continue;
            }
            let due = self.next_due();
            tokio::select! {
                biased;
                _ = &mut stop => {
                    self.stop_range(0..self.supervisor.slots.len()).await;
                    self.forget_those_over();
                    return Exit::Normal;
                }
                Some(ended) = self.exits.next() => self.backlog.push_back(ended),
                Some(order) = self.supervisor.orders.recv() => self.obey(order),
                () = is_up(&mut self.starting) => self.starting = None,
                () = sleep_until(due) => self.start_next(),
            }
        }
    }

    /// When the next start is due; none while another start is under way.
    fn next_due(&mut self) -> Option<Instant> {
        if self.starting.is_some() {
            return None;
        }
        let due = self.supervisor.slots.iter().filter_map(|slot| match slot.doing {
            Doing::Waiting { until } => Some(until),
            _ => None,
        });
        let due = due.min();
        if due.is_none()
            && let Some(ready) = self.ready.take()
        {
            // An error means that nobody waits for it.
            let _ = ready.send(());
        }
        due
    }

    /// Starts the first child, in start order, whose time has come.
    fn start_next(&mut self) {
        let now = Instant::now();
        let is_due =
            |slot: &&mut Slot| matches!(slot.doing, Doing::Waiting { until } if until <= now);
        let Some(slot) = self.supervisor.slots.iter_mut().find(is_due) else { return };
        let started = slot.spec.start();
        slot.doing = Doing::Up { stop: started.stop };
        slot.spec.entry.started();
        let id = slot.id();
        // A child that goes without a word was cut off: its arbiter is gone.
        let exit = started.exit.map(move |exit| (id, exit.unwrap_or(Exit::CutOff)));
        self.exits.push(Box::pin(exit));
        self.starting = Some((id, started.ready));
        report::start(&self.supervisor.entry, &slot.spec);
    }

    fn obey(&mut self, order: Order) {
        // Whoever gave the order may have gone; what was ordered is done all the same.
        match order {
            Order::Add(child, reply) => {
                let _ = reply.send(self.add(*child));
            }
            Order::Remove(name, reply) => self.remove(&name, reply),
        }
    }

    fn add(&mut self, spec: ChildSpec) -> Result<(), ChildrenError> {
        let supervisor = &mut *self.supervisor;
        if supervisor.slots.iter().any(|slot| slot.spec.name() == spec.name()) {
            return Err(ChildrenError::NameTaken);
        }
        if supervisor.slots.len() >= supervisor.children_max {
            return Err(ChildrenError::Full);
        }
        supervisor.entry.adopt(&spec.entry);
        let doing = Doing::Waiting { until: Instant::now() };
        supervisor.slots.push(Slot { spec, doing, is_dynamic: true, is_leaving: false });
        Ok(())
    }

    fn remove(&mut self, name: &str, reply: Reply) {
        let mut slots = self.supervisor.slots.iter_mut();
        let named = slots.find(|slot| slot.spec.name() == name && !slot.is_leaving);
        let Some(slot) = named else {
            let _ = reply.send(Err(ChildrenError::NoSuchChild));
            return;
        };
        match std::mem::replace(&mut slot.doing, Doing::Ended) {
            Doing::Up { stop } => {
                slot.is_leaving = true;
                slot.doing = Doing::Leaving { reply };
                // An error means it ended just now; its exit is on its way.
                let _ = stop.send(());
            }
            _ => {
                let id = slot.id();
                self.forget(id);
                let _ = reply.send(Ok(()));
            }
        }
    }

    fn forget(&mut self, id: u64) {
        let supervisor = &mut *self.supervisor;
        if let Some(i) = supervisor.slots.iter().position(|slot| slot.id() == id) {
            let slot = supervisor.slots.remove(i);
            supervisor.entry.disown(&slot.spec.entry);
        }
    }

    /// Forgets children that nobody will start again.
    fn forget_those_over(&mut self) {
        let slots = self.supervisor.slots.iter();
        let over: Vec<u64> = slots.filter(|slot| slot.is_over()).map(Slot::id).collect();
        over.into_iter().for_each(|id| self.forget(id));
    }

    /// Decides what follows the end of a child; `false` means the intensity is used up.
    async fn ended(&mut self, id: u64, exit: &Exit) -> bool {
        let Some(i) = self.supervisor.slots.iter().position(|slot| slot.id() == id) else {
            return true;
        };
        let slot = &mut self.supervisor.slots[i];
        if slot.end() || !slot.spec.restart.follows(exit) {
            report::end(&self.supervisor.entry, &slot.spec, exit);
            if slot.is_dynamic || slot.is_leaving {
                self.forget(id);
            }
            return true;
        }
        let is_allowed = self.restarts.note(Instant::now());
        let restarts = self.restarts.count();
        if !is_allowed {
            report::escalation(&self.supervisor.entry, &slot.spec, exit, restarts);
            return false;
        }
        let backoff = self.supervisor.backoff.delay(restarts);
        report::restart(&self.supervisor.entry, &slot.spec, exit, restarts, backoff);
        let until = Instant::now() + backoff;
        let slots = self.supervisor.slots.len();
        let range = match self.supervisor.strategy {
            Strategy::OneForOne => i..i + 1,
            Strategy::OneForAll => 0..slots,
            Strategy::RestForOne => i..slots,
        };
        self.stop_range(range.clone()).await;
        for slot in &mut self.supervisor.slots[range] {
            if slot.spec.restart != Restart::Temporary && !slot.is_leaving {
                slot.wait(until);
            }
        }
        self.forget_those_over();
        true
    }

    async fn give_up(&mut self) -> Exit {
        self.stop_range(0..self.supervisor.slots.len()).await;
        self.forget_those_over();
        Exit::Escalated
    }

    /// Stops the children of a range one by one, last started first, each in its own time.
    async fn stop_range(&mut self, range: Range<usize>) {
        // Some may have ended already, their exits not yet dealt with.
        for (id, exit) in std::mem::take(&mut self.backlog) {
            self.note_end(id, exit, &range);
        }
        for i in range.clone().rev() {
            let slot = &mut self.supervisor.slots[i];
            let (id, limit) = (slot.id(), slot.spec.stop_within.saturating_add(GRACE));
            if self.starting.as_ref().is_some_and(|(starting, _)| *starting == id) {
                self.starting = None;
            }
            match std::mem::replace(&mut slot.doing, Doing::Ended) {
                Doing::Up { stop } => {
                    // An error means it ended just now; its exit is on its way.
                    let _ = stop.send(());
                }
                Doing::Leaving { reply } => slot.doing = Doing::Leaving { reply },
                Doing::Waiting { .. } | Doing::Ended => {
                    slot.end();
                    continue;
                }
            }
            self.wait_for_end(id, limit, &range).await;
            self.supervisor.slots[i].end();
        }
    }

    /// Waits for the end of one child of a range, and notes what else ends meanwhile.
    async fn wait_for_end(&mut self, id: u64, limit: Duration, range: &Range<usize>) {
        let until = Instant::now().checked_add(limit);
        loop {
            let left = until.map_or(Duration::MAX, |until| until - Instant::now());
            let Ok(Some((ended, exit))) = timeout(left, self.exits.next()).await else {
                let mut slots = self.supervisor.slots.iter();
                if let Some(slot) = slots.find(|slot| slot.id() == id) {
                    report::hang(&self.supervisor.entry, &slot.spec);
                }
                return;
            };
            if ended == id {
                return;
            }
            self.note_end(ended, exit, range);
        }
    }

    /// Within a range that is being stopped an end needs no answer; others get theirs later.
    fn note_end(&mut self, id: u64, exit: Exit, range: &Range<usize>) {
        let slots = &mut self.supervisor.slots;
        match slots.iter().position(|slot| slot.id() == id) {
            Some(i) if range.contains(&i) => {
                slots[i].end();
            }
            _ => self.backlog.push_back((id, exit)),
        }
    }
}

/// Waits until the starting child is up or has ended; for ever if none is starting.
async fn is_up(starting: &mut Option<(u64, oneshot::Receiver<()>)>) {
    match starting {
        // An error means that it ended, which its exit tells.
        Some((_, ready)) => drop(ready.await),
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
