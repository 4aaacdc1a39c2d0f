//! What a client knows and does next: which calls wait, which are unanswered, under which numbers.
//! No threads and no socket; time is an argument.
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use protocol::{
    Refusal, Verdict,
    socket::{Call, CallAnswer, CallError, Counters, Frame, HelloAnswer, Registered, STREAM_BYTES},
};

use crate::{
    connection::{Connection, Known, Purpose, Sent},
    entry::Entry,
    spill::Spill,
    ticket::Accepted,
};

/// Calls that wait in memory; more are answered `queue_full`, or go into the spill.
const QUEUE_CALLS_MAX: usize = 4096;
/// Their payloads, bytes.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Written to the socket at once, bytes.
const WRITE_BYTES: usize = 256 << 10;
/// How long sending rests after a refusal that names no time.
const REST: Duration = Duration::from_millis(500);
/// A proxy that answers nothing for so long is taken for dead.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A call from the spill that was refused for good.
pub(crate) struct GivenUp {
    pub(crate) call: Call,
    pub(crate) error: CallError,
}

/// Everything the threads share.
pub(crate) struct State {
    pub(crate) stream: [u8; STREAM_BYTES],
    pub(crate) next_seq: u64,
    pub(crate) connection: Option<Connection>,
    pub(crate) spill: Option<Spill>,
    /// Frames that go out before any call: answers to callbacks.
    pub(crate) outgoing: VecDeque<Vec<u8>>,
    /// Why there is no connection.
    pub(crate) trouble: Option<String>,
    /// What the last hello was refused with.
    pub(crate) refusal: Option<CallError>,
    /// The proxy was away for too long: calls fail at once.
    pub(crate) failing: bool,
    /// No more calls; the connection ends when all is answered.
    pub(crate) closing: bool,
    /// The threads end now.
    pub(crate) stopped: bool,
    /// The connecting thread ended: nothing comes from it any more.
    pub(crate) uplink_ended: bool,
    wait_for_registered: bool,
    queue: VecDeque<Entry>,
    queue_bytes: usize,
    /// Nothing is sent before.
    rest_until: Option<Instant>,
}

impl State {
    pub(crate) fn new(
        stream: [u8; STREAM_BYTES],
        next_seq: u64,
        spill: Option<Spill>,
        wait_for_registered: bool,
    ) -> Self {
        Self {
            stream,
            next_seq,
            connection: None,
            spill,
            outgoing: VecDeque::new(),
            trouble: None,
            refusal: None,
            failing: false,
            closing: false,
            stopped: false,
            uplink_ended: false,
            wait_for_registered,
            queue: VecDeque::new(),
            queue_bytes: 0,
            rest_until: None,
        }
    }

    /// Whether calls may be sent now.
    fn ready(&self) -> bool {
        let fits = |answer: &HelloAnswer| {
            !self.wait_for_registered || answer.registration == Registered::Registered
        };
        self.connection.as_ref().is_some_and(|c| !c.dead && !c.said_bye && fits(&c.answer))
    }

    /// Calls that are unanswered or wait in memory.
    pub(crate) fn unanswered(&self) -> usize {
        let sent = self.connection.as_ref().map_or(0, |c| c.sent.len());
        self.queue.len() + sent
    }

    /// Whether nothing waits: all is answered, or in the spill and synced.
    pub(crate) fn settled(&self) -> bool {
        let in_memory = |entry: &Entry| entry.place.is_none();
        let sent = self.connection.as_ref().is_some_and(|c| c.calls_sent().any(in_memory));
        let synced = self.spill.as_ref().is_none_or(Spill::is_synced);
        synced && !sent && !self.queue.iter().any(in_memory)
    }

    /// Whether the proxy has answered everything, also what the spill holds.
    pub(crate) fn taken(&self) -> bool {
        self.unanswered() == 0 && self.spill.as_ref().is_none_or(|spill| spill.bytes() == 0)
    }

    /// Takes a call. The sender is told at once where it cannot be kept.
    pub(crate) fn take(&mut self, entry: Entry) {
        if self.closing || self.stopped {
            return entry.finish(Err(CallError::down("the client is closing")));
        }
        let room = self.queue.len() < QUEUE_CALLS_MAX && self.queue_bytes < QUEUE_BYTES_MAX;
        let ready = self.ready() && self.rest_until.is_none();
        match &self.spill {
            Some(spill) if ready && room && spill.is_empty() => self.push(entry),
            Some(_) => self.spill_call(entry, false),
            None if self.failing => {
                let trouble = self.trouble.clone().unwrap_or_default();
                entry.finish(Err(CallError::down(format!("no proxy: {trouble}"))));
            }
            None if room => self.push(entry),
            None => {
                let detail = format!("{QUEUE_CALLS_MAX} calls wait for the proxy");
                entry.finish(Err(CallError::new(Refusal::QueueFull, detail).after(1000)));
            }
        }
    }

    fn push(&mut self, entry: Entry) {
        self.queue_bytes += entry.weight();
        self.queue.push_back(entry);
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.queue.pop_front()?;
        self.queue_bytes = self.queue_bytes.saturating_sub(entry.weight());
        Some(entry)
    }

    fn number(&mut self) -> u64 {
        let number = self.next_seq;
        self.next_seq += 1;
        number
    }

    fn spill_call(&mut self, mut entry: Entry, sent: bool) {
        if entry.seq.is_none() && entry.is_message() {
            entry.seq = Some(self.number());
        }
        if let Some(spill) = &mut self.spill {
            spill.take(entry, sent);
        }
    }

    /// A connection stands: its answer to hello is known.
    pub(crate) fn connected(&mut self, generation: u64, answer: HelloAnswer) {
        self.trouble = None;
        self.refusal = None;
        self.failing = false;
        self.rest_until = None;
        self.outgoing.clear();
        self.connection = Some(Connection::new(generation, answer));
    }

    /// The connection is gone: what is unanswered goes first and unchanged on the next, by way of
    /// the spill where there is one.
    pub(crate) fn disconnected(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let sent = connection.sent.into_values().filter_map(|sent| match sent.purpose {
            Purpose::Call(entry) => Some(*entry),
            Purpose::Register(_) | Purpose::Bye => None,
        });
        let queued = std::mem::take(&mut self.queue);
        self.queue_bytes = 0;
        if self.spill.is_none() {
            sent.chain(queued).for_each(|entry| self.push(entry));
            return;
        }
        // What came from the spill is still there.
        let memory: Vec<Entry> = sent.chain(queued).filter(|e| e.place.is_none()).collect();
        for entry in memory {
            let sent = entry.seq.is_some();
            self.spill_call(entry, sent);
        }
        if let Some(spill) = &mut self.spill {
            spill.rewind();
        }
    }

    /// The proxy was away for too long: calls in memory fail.
    pub(crate) fn fail_waiting(&mut self) {
        self.failing = true;
        let trouble = self.trouble.clone().unwrap_or_default();
        while let Some(entry) = self.pop() {
            entry.finish(Err(CallError::down(format!("no proxy: {trouble}"))));
        }
    }

    /// The bytes to write next; empty: nothing, now.
    pub(crate) fn next_bytes(&mut self, now: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(frame) = self.outgoing.pop_front() {
            out.extend(frame);
        }
        if self.rest_until.is_some_and(|until| until > now) {
            return out;
        }
        self.rest_until = None;
        while self.ready() && out.len() < WRITE_BYTES {
            if self.queue.is_empty() && !self.load() {
                break;
            }
            let number = self.queue.front().and_then(|entry| match entry.seq {
                None if entry.is_message() => Some(self.next_seq),
                seq => seq,
            });
            let Some(connection) = &self.connection else { break };
            if !connection.may_send(number) {
                break;
            }
            let Some(mut entry) = self.pop() else { break };
            if entry.seq.is_none() && entry.is_message() {
                entry.seq = Some(self.number());
            }
            if let Some(connection) = &mut self.connection {
                connection.write(entry, now, &mut out);
            }
        }
        self.say_bye(now, &mut out);
        out
    }

    /// Gets calls out of the spill; only when all from memory is answered, so that what was sent
    /// once is never behind what was not.
    fn load(&mut self) -> bool {
        let Some(spill) = &mut self.spill else { return false };
        let from_memory = |c: &Connection| c.calls_sent().any(|e| e.place.is_none());
        if self.connection.as_ref().is_none_or(from_memory) {
            return false;
        }
        match spill.load() {
            Ok(entries) => {
                let some = !entries.is_empty();
                entries.into_iter().for_each(|entry| self.push(entry));
                some
            }
            Err(error) => {
                self.trouble = Some(format!("spill cannot be read: {error}"));
                false
            }
        }
    }

    /// Whether all is done but the last report and the bye.
    fn is_ending(&self) -> bool {
        self.closing && self.settled()
    }

    /// Whether the counters are to be asked for, for [`count`](Self::count).
    pub(crate) fn wants_counters(&self, now: Instant) -> bool {
        let open = self.connection.as_ref().filter(|c| !c.dead && !c.said_bye);
        open.is_some_and(|c| c.report.is_due(now, self.is_ending()))
    }

    /// Takes what the integrator has counted, for the proxy.
    pub(crate) fn count(&mut self, counters: Option<Counters>, now: Instant) {
        let ending = self.is_ending();
        let spill_bytes = self.spill.as_ref().map(Spill::bytes);
        let counters =
            counters.map(|c| Counters { spill_bytes: c.spill_bytes.or(spill_bytes), ..c });
        let Some(connection) = &mut self.connection else { return };
        // At most one a connection waits: the next is made when the uplink has written this one.
        self.outgoing.extend(connection.report.take(counters, now, ending));
    }

    fn say_bye(&mut self, now: Instant, out: &mut Vec<u8>) {
        if !self.is_ending() {
            return;
        }
        let forget = self.spill.as_ref().is_none_or(Spill::is_empty);
        let Some(connection) = &mut self.connection else { return };
        if connection.said_bye || connection.dead || !connection.report.has_ended() {
            return;
        }
        connection.said_bye = true;
        let id = connection.next_id();
        let bye = protocol::socket::Bye { forget };
        out.extend(Frame::request(id, "bye", bye.map()));
        connection.sent.insert(id, Sent { purpose: Purpose::Bye, at: now });
    }

    /// Until when [`next_bytes`](Self::next_bytes) has nothing, if no one else changes that.
    pub(crate) fn rests(&self, now: Instant) -> Option<Duration> {
        let rests = self.rest_until.map(|until| until.saturating_duration_since(now));
        let open = self.connection.as_ref().filter(|c| !c.dead && !c.said_bye);
        let report = open.map(|c| c.report.due_in(now));
        rests.into_iter().chain(report).min()
    }

    /// Whether the proxy owes an answer for too long.
    pub(crate) fn overdue(&self, now: Instant) -> bool {
        let first = self.connection.as_ref().and_then(|c| c.sent.values().next());
        first.is_some_and(|sent| now.saturating_duration_since(sent.at) > ANSWER_WITHIN)
    }

    /// Takes in an answer. `Err`: the other side breaks the protocol.
    pub(crate) fn answered(
        &mut self,
        id: u32,
        result: Result<&[u8], &[u8]>,
        now: Instant,
    ) -> Result<Option<GivenUp>, CallError> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        let Some(sent) = connection.sent.remove(&id) else { return Ok(None) };
        match sent.purpose {
            Purpose::Bye => connection.bye_answered = true,
            Purpose::Register(instance) => {
                let known = match result {
                    Ok(_) => Known::Yes,
                    Err(error) => Known::No(CallError::read(error)?),
                };
                connection.instances.insert(instance, known);
            }
            Purpose::Call(entry) => {
                let entry = *entry;
                if let Some(seq) = entry.seq {
                    connection.numbers.remove(&seq);
                }
                match result {
                    Ok(map) => {
                        let answer = CallAnswer::read(&entry.call, map);
                        connection.learn(&entry.call);
                        self.accepted(entry, answer)?;
                    }
                    Err(map) => return CallError::read(map).map(|e| self.refused(entry, e, now)),
                }
            }
        }
        Ok(None)
    }

    fn accepted(
        &mut self,
        entry: Entry,
        answer: Result<CallAnswer, CallError>,
    ) -> Result<(), CallError> {
        if let (Some(spill), Some(place)) = (&mut self.spill, entry.place) {
            spill.answered(place);
        }
        match answer {
            Ok(answer) => entry.finish(Ok(Accepted::Answered(answer))),
            Err(error) => {
                // It was taken, but how cannot be read; the connection ends, the call does not.
                entry.finish(Err(error.clone()));
                return Err(error);
            }
        }
        Ok(())
    }

    fn refused(&mut self, mut entry: Entry, error: CallError, now: Instant) -> Option<GivenUp> {
        let mut error = error;
        if error.name == Refusal::UnknownInstance {
            match self.forget_instance(entry.call.instance()) {
                Some(Known::No(why)) => error = why,
                _ if !entry.retried => {
                    // Somebody removed it, or the proxy forgot: it is registered once more.
                    entry.retried = true;
                    self.again(entry);
                    return None;
                }
                _ => {}
            }
        }
        let waits =
            matches!(error.name, Refusal::Busy | Refusal::Stopping | Refusal::NotRegistered);
        if error.verdict == Verdict::TryAgain && (self.spill.is_some() || waits) {
            let rest = error.retry_after_ms.map_or(REST, Duration::from_millis);
            let until = now + rest.min(ANSWER_WITHIN);
            self.rest_until = Some(self.rest_until.map_or(until, |at| at.max(until)));
            self.again(entry);
            return None;
        }
        if let (Some(spill), Some(place)) = (&mut self.spill, entry.place) {
            spill.answered(place);
        }
        let told = entry.slot.is_some();
        entry.finish(Err(error.clone()));
        (!told).then_some(GivenUp { call: entry.call, error })
    }

    /// What was refused goes again under a new number.
    fn again(&mut self, mut entry: Entry) {
        entry.seq = None;
        match self.spill.is_some() {
            true => self.spill_call(entry, false),
            false => self.push(entry),
        }
    }

    fn forget_instance(&mut self, instance: Option<&str>) -> Option<Known> {
        self.connection.as_mut()?.instances.remove(instance?)
    }

    /// What the writing thread could not write goes on in memory.
    pub(crate) fn put_back(&mut self, entries: Vec<Entry>) {
        entries.into_iter().for_each(|entry| self.push(entry));
    }
}
