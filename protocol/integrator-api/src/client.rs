//! The client: takes calls, tells how it stands, closes.
use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::socket::{Call, CallError, HelloAnswer, Registered, STREAM_BYTES};

use crate::{
    callbacks::Once, entry::Entry, lock, options::Options, spill, state::State, ticket::Ticket,
    uplink,
};

/// How long `close` waits for the answer to its bye.
const BYE_WITHIN: Duration = Duration::from_secs(2);

/// What the threads of a client share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) state: Mutex<State>,
    /// Wakes the thread that connects and writes.
    pub(crate) uplink: Condvar,
    /// Wakes the thread that writes the spill.
    pub(crate) spiller: Condvar,
    /// Wakes those who wait for a change of the connection, or for all to be answered.
    pub(crate) watchers: Condvar,
    pub(crate) once: Mutex<Once>,
    pub(crate) spill_bytes: AtomicU64,
    spill_damaged: u64,
}

impl Shared {
    /// Wakes whoever a change may concern.
    pub(crate) fn changed(&self, state: &State) {
        if let Some(spill) = &state.spill {
            self.spill_bytes.store(spill.bytes(), Ordering::Relaxed);
            if spill.wants_writing() {
                self.spiller.notify_one();
            }
        }
        self.uplink.notify_one();
        self.watchers.notify_all();
    }
}

/// Ends the threads when the last client is dropped.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.stopped = true;
        self.0.uplink.notify_all();
        self.0.spiller.notify_all();
        self.0.watchers.notify_all();
    }
}

/// An integrator's end of the socket. Cheap to clone; dropping the last one ends the connection
/// without waiting, see [`Client::close`].
#[derive(Clone)]
pub struct Client {
    owner: Arc<Owner>,
}

impl Client {
    /// Starts a client. It connects on a thread of its own, and again whenever the connection is
    /// lost. Fails only where the spill cannot be opened or no thread can be started.
    pub fn open(options: Options) -> io::Result<Self> {
        let mut stream = [0; STREAM_BYTES];
        getrandom::fill(&mut stream).map_err(|e| io::Error::other(e.to_string()))?;
        let mut next_seq = 1;
        let (mut spill, mut spill_damaged) = (None, 0);
        if let Some(folder) = &options.spill {
            let found = spill::open(folder, &options.name, options.spill_bytes_max)?;
            if !found.spill.is_empty()
                && let Some(left) = found.stream
            {
                (stream, next_seq) = (left, found.next_seq);
            }
            (spill, spill_damaged) = (Some(found.spill), found.damaged);
        }
        let spills = spill.is_some();
        let state = State::new(stream, next_seq, spill, options.wait_for_registered);
        let shared = Arc::new(Shared {
            options,
            state: Mutex::new(state),
            uplink: Condvar::new(),
            spiller: Condvar::new(),
            watchers: Condvar::new(),
            once: Mutex::new(Once::default()),
            spill_bytes: AtomicU64::new(0),
            spill_damaged,
        });
        shared.changed(&lock(&shared.state));
        uplink::start(shared.clone(), spills)?;
        Ok(Self { owner: Arc::new(Owner(shared)) })
    }

    fn shared(&self) -> &Shared {
        &self.owner.0
    }

    /// Sends a call; never blocks. A call outside the definitions is refused by its ticket with
    /// the proxy's own words (DAT-8).
    pub fn send(&self, call: Call) -> Ticket {
        let (ticket, slot) = Ticket::new();
        if let Err(error) = call.check() {
            slot.put(Err(error));
            return ticket;
        }
        let shared = self.shared();
        let mut state = lock(&shared.state);
        state.take(Entry::new(call, Some(slot)));
        shared.changed(&state);
        ticket
    }

    /// What the proxy said to hello, while there is a connection.
    pub fn connected(&self) -> Option<HelloAnswer> {
        let state = lock(&self.shared().state);
        state.connection.as_ref().filter(|c| !c.dead).map(|c| c.answer.clone())
    }

    /// Why there is no connection, or what else is wrong.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.shared().state).trouble.clone()
    }

    /// What the proxy refused hello with, where that is why there is no connection.
    pub fn refusal(&self) -> Option<CallError> {
        lock(&self.shared().state).refusal.clone()
    }

    /// Waits until a proxy answered hello; the error says why none did.
    pub fn wait_connected(&self, within: Duration) -> Result<HelloAnswer, String> {
        self.wait_until(within, |_| true)
    }

    /// Waits until proxy and integrator are registered; the error says what is missing.
    pub fn wait_registered(&self, within: Duration) -> Result<HelloAnswer, String> {
        self.wait_until(within, |answer| answer.registration == Registered::Registered)
    }

    fn wait_until(
        &self,
        within: Duration,
        good: impl Fn(&HelloAnswer) -> bool,
    ) -> Result<HelloAnswer, String> {
        let shared = self.shared();
        let state = lock(&shared.state);
        let answer = |state: &State| {
            let connection = state.connection.as_ref().filter(|c| !c.dead);
            connection.map(|c| c.answer.clone()).filter(|a| good(a))
        };
        let waiting = |state: &mut State| answer(state).is_none();
        let waited = shared.watchers.wait_timeout_while(state, within, waiting);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        answer(&state).ok_or_else(|| match &state.connection {
            Some(connection) => format!("the proxy is {}", connection.answer.registration),
            None => state.trouble.clone().unwrap_or_else(|| "no answer yet".to_owned()),
        })
    }

    /// Bytes of calls in the spill that the proxy has not answered
    /// (`callhome_integrator_spill_bytes`).
    pub fn spill_bytes(&self) -> u64 {
        self.shared().spill_bytes.load(Ordering::Relaxed)
    }

    /// Bytes the spill of an earlier run held that were no records: what a crash tore, whose
    /// senders were never answered, or damage that was passed over.
    pub fn spill_damaged(&self) -> u64 {
        self.shared().spill_damaged
    }

    /// Calls that wait in memory or for an answer of the proxy.
    pub fn unanswered(&self) -> usize {
        lock(&self.shared().state).unanswered()
    }

    /// Waits until the proxy has answered all calls, those in the spill too, also of earlier runs.
    /// `false`: `within` was not enough; what is in the spill goes on from there.
    pub fn wait_taken(&self, within: Duration) -> bool {
        let shared = self.shared();
        let state = lock(&shared.state);
        let open = |state: &mut State| !state.taken();
        let waited = shared.watchers.wait_timeout_while(state, within, open);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.taken()
    }

    /// Takes no more calls, waits until each is answered or in the spill, and says bye. `false`:
    /// `within` was not enough; what still waits fails.
    pub fn close(&self, within: Duration) -> bool {
        let shared = self.shared();
        let until = Instant::now() + within;
        let mut state = lock(&shared.state);
        state.closing = true;
        shared.changed(&state);
        let open = |state: &mut State| !state.settled();
        let waited = shared.watchers.wait_timeout_while(state, within, open);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let settled = state.settled();
        let left = until.saturating_duration_since(Instant::now()).min(BYE_WITHIN);
        let talks = |state: &mut State| {
            settled && state.connection.as_ref().is_some_and(|c| !c.dead && !c.bye_answered)
        };
        let waited = shared.watchers.wait_timeout_while(state, left, talks);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.stopped = true;
        if !settled {
            state.disconnected();
            state.fail_waiting();
        }
        shared.changed(&state);
        shared.spiller.notify_all();
        settled
    }
}
