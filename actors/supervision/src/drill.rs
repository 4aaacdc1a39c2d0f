//! Fault drills: panics, hangs or stops a supervised actor by name. Off unless enabled.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;

use crate::{
    Intensity,
    tree::{lock, roots},
};

/// Restarts a supervisor allows while drills are enabled: a drill of some hundred panics shall
/// show restarts; giving up is tested without drills.
pub const RESTARTS_MAX: u32 = 1_000;

/// Longest hang that may be ordered, well past the watchdog's patience (30 s).
pub const HANG_MAX: Duration = Duration::from_secs(120);

/// What an actor is made to suffer. It comes over it while its context is polled, after the
/// messages that wait have been begun; an idle actor suffers at once, one between two instances
/// as soon as it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It panics, as in a handler: messages in hand are lost, those not begun are not.
    Panic,
    /// It blocks its thread for this long, and with it every actor there; at most [`HANG_MAX`].
    Hang(Duration),
    /// It is told to stop, as by its supervisor, and ends as planned.
    Stop,
}

/// Why no actor suffers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrillError {
    /// [`enable`] was not called.
    #[error("drills are off: start the node with --drills")]
    Off,
    /// The tree has no running actor of that name or path.
    #[error("no running actor is called {0:?}: see the names and paths in /tree")]
    NoSuchActor(String),
}

static ENABLED: AtomicBool = AtomicBool::new(false);

/// Allows drills in this process, for good. Supervisors started from now on allow
/// [`RESTARTS_MAX`] restarts.
pub fn enable() {
    ENABLED.store(true, SeqCst);
}

/// Whether [`enable`] was called.
pub fn enabled() -> bool {
    ENABLED.load(SeqCst)
}

/// Orders `fault` for every actor whose full path (`node/delivery/queues/durable_queue`) or whose
/// last part of it is `actor`; says how many that are. An order not yet carried out is replaced.
///
/// # Errors
/// [`DrillError::Off`], [`DrillError::NoSuchActor`].
pub fn order(actor: &str, fault: Fault) -> Result<usize, DrillError> {
    if !enabled() {
        return Err(DrillError::Off);
    }
    let mut actors = Vec::new();
    roots().iter().for_each(|root| root.actors(&mut actors));
    let is_meant = |name: &str, path: &str| {
        path == actor || name == actor || path.rsplit('/').next() == Some(actor)
    };
    actors.retain(|entry| !entry.is_stopped() && is_meant(&entry.name, &entry.path()));
    if actors.is_empty() {
        return Err(DrillError::NoSuchActor(actor.to_owned()));
    }
    for entry in &actors {
        tracing::warn!(target: "supervision", child = entry.path(), ?fault, "drill ordered");
        entry.drill.order(fault);
    }
    Ok(actors.len())
}

/// The intensity a supervisor goes by: `written`, unless drills are enabled.
pub(crate) fn intensity(written: Intensity) -> Intensity {
    match enabled() {
        true => Intensity { restarts_max: written.restarts_max.max(RESTARTS_MAX), ..written },
        false => written,
    }
}

/// The fault an actor is to suffer next.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    fault: Mutex<Option<Fault>>,
    waker: AtomicWaker,
}

impl Slot {
    fn order(&self, fault: Fault) {
        *lock(&self.fault) = Some(fault);
        self.waker.wake();
    }

    /// Whom to wake when a fault is ordered; to be called before [`take`](Self::take).
    pub(crate) fn listen(&self, waker: &Waker) {
        if enabled() {
            self.waker.register(waker);
        }
    }

    pub(crate) fn take(&self) -> Option<Fault> {
        if enabled() { lock(&self.fault).take() } else { None }
    }
}

/// Lets the caller, an actor that is being polled, suffer. `true` means it is to stop.
#[allow(clippy::panic, reason = "that is what the drill is for")]
pub(crate) fn suffer(fault: Fault) -> bool {
    match fault {
        Fault::Panic => panic!("drill: told to panic"),
        Fault::Hang(time) => std::thread::sleep(time.min(HANG_MAX)),
        Fault::Stop => return true,
    }
    false
}
