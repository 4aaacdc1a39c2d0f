//! An integrator under load, whose own record says what was accepted.
use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use integrator_api::{Call, Client, EventCall, Options, Qos, Severity, Ticket, Verdict};

use super::wait_for;

/// Calls that wait for their answers at once.
const OPEN_MAX: usize = 2000;

/// Sends numbered events until it is finished, on a thread of its own.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<String>>,
}

impl Traffic {
    /// `rate` events a second, whose texts begin with `name`.
    pub fn start(socket: PathBuf, name: &'static str, rate: u64, qos: Qos) -> Self {
        let client = Client::open(Options::new(socket, name, "1")).expect("a client");
        let (stop, accepted) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopping, count) = (stop.clone(), accepted.clone());
        let send = move || send(&client, name, rate, qos, &stopping, &count);
        Self { stop, accepted, thread: std::thread::spawn(send) }
    }

    /// How many were accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Waits until `more` than now are accepted.
    pub fn flows(&self, more: usize) {
        let before = self.accepted();
        wait_for("calls to be accepted", || (self.accepted() >= before + more).then_some(()));
    }

    /// Waits until each call has its answer; the texts of those that were accepted.
    pub fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load ends")
    }
}

fn send(
    client: &Client,
    name: &str,
    rate: u64,
    qos: Qos,
    stop: &AtomicBool,
    count: &AtomicUsize,
) -> Vec<String> {
    let (started, mut next) = (Instant::now(), 0_u64);
    let mut open: VecDeque<(String, Ticket)> = VecDeque::new();
    let mut accepted = Vec::new();
    while !stop.load(Ordering::Relaxed) || !open.is_empty() {
        let due = started.elapsed().as_millis() as u64 * rate / 1000;
        while next < due && open.len() < OPEN_MAX && !stop.load(Ordering::Relaxed) {
            let text = format!("{name}{next}");
            let at = jiff::Timestamp::now().as_millisecond();
            let event = EventCall::new("host-1", at, "load", Severity::Minor, &text);
            let event = EventCall { qos, ..event };
            open.push_back((text, client.send(Call::Event(event))));
            next += 1;
        }
        while let Some((text, ticket)) = open.front() {
            match ticket.wait_for(Duration::from_millis(2)) {
                None => break,
                Some(Ok(_)) => accepted.push(text.clone()),
                // Refused for now: it was not accepted, and the next one goes.
                Some(Err(no)) => assert_eq!(no.verdict, Verdict::TryAgain, "{text}: {no:?}"),
            }
            open.pop_front();
            count.store(accepted.len(), Ordering::Relaxed);
        }
        if open.is_empty() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    accepted
}
