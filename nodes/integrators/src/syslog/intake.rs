//! From a line to calls of the sink, with a bound on what is not yet accepted.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use protocol::Verdict;
use protocol::limits::CLOCK_TOLERANCE_MS;
use protocol::service::Payload;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::message::Received;
use super::parse::{Clock, parse, trimmed};
use crate::common::LiveRules;
use crate::counters::Counters;
use crate::quiet::Quiet;
use crate::sink::{Call, Emitted, Refused, Sink, calls_of};

/// Bytes of lines that the sink has not accepted, over all listeners: while they are there nothing
/// more is read, so that senders by TCP wait and memory stays bounded.
pub const IN_FLIGHT_BYTES: usize = 16 * 1024 * 1024;
/// What a line costs in memory besides its bytes.
const LINE_BYTES: usize = 1024;
/// Milliseconds until a line that the proxy cannot take now is offered again.
const AGAIN_MS: u64 = 1000;
/// What was passed over in the log.
const MALFORMED: &str = "lines that could not be read";
const REFUSED: &str = "lines that the proxy refused";

/// Lines that the sink has, but has not accepted.
pub(super) type Pending<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>;

/// What all listeners share.
pub(super) struct Intake {
    rules: Arc<LiveRules>,
    sink: Arc<dyn Sink>,
    /// Counts what becomes of lines.
    pub(super) counters: Counters,
    zone: TimeZone,
    room: Arc<Semaphore>,
    refusals: Quiet,
    malformed: Quiet,
}

impl Intake {
    pub(super) fn new(rules: Arc<LiveRules>, sink: Arc<dyn Sink>) -> Self {
        Self {
            rules,
            counters: sink.counters(),
            sink,
            zone: TimeZone::system(),
            room: Arc::new(Semaphore::new(IN_FLIGHT_BYTES)),
            refusals: Quiet::default(),
            malformed: Quiet::default(),
        }
    }

    /// Takes one line; returns once there was room and the sink has it. None may be lost between:
    /// what waits for room is still the sender's, or the kernel's.
    pub(super) async fn take<'a>(&'a self, line: &[u8], from: IpAddr, pending: &mut Pending<'a>) {
        let cost = u32::try_from(line.len() + LINE_BYTES).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(cost);
        tokio::pin!(room);
        let permit = loop {
            tokio::select! {
                permit = &mut room => break permit,
                Some(()) = pending.next(), if !pending.is_empty() => {}
            }
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { return };
        let calls = self.calls(line, from, Timestamp::now());
        if !calls.is_empty() {
            pending.push(self.deliver(calls, permit));
        }
    }

    /// What rules make of a line. Decides only; the clock comes with the call.
    fn calls(&self, line: &[u8], from: IpAddr, now: Timestamp) -> Vec<Call> {
        self.counters.received();
        let line = trimmed(line);
        if line.is_empty() {
            self.counters.ignored();
            return Vec::new();
        }
        let message = parse(line, &Clock { now, zone: self.zone.clone() });
        let occurred_at_ms = occurred_at_ms(message.occurred_at_ms, now.as_millisecond());
        let received = Received { message, source: Some(from.to_canonical()) };
        let rules = self.rules.current();
        let Some(judged) = rules.judge(&received) else {
            self.counters.ignored();
            return Vec::new();
        };
        if !judged.gaps.is_empty() {
            self.counters.rule_gaps(judged.gaps.len());
        }
        let payload = Payload { encoding: "text/plain".into(), data: Bytes::copy_from_slice(line) };
        let calls = calls_of(&judged, occurred_at_ms, &payload);
        if calls.is_empty() {
            self.counters.ignored();
        }
        calls
    }

    /// Gives the calls to the sink at once, in their order; the future ends when all are accepted
    /// or refused for ever, and holds their room until then.
    fn deliver<'a>(
        &'a self,
        calls: Vec<Call>,
        permit: OwnedSemaphorePermit,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let emit = |call: Call| (self.sink.emit(call.clone()), call);
        let begun: Vec<(Emitted, Call)> = calls.into_iter().map(emit).collect();
        Box::pin(async move {
            for (first, call) in begun {
                let mut answer = first.await;
                // For as long as the proxy says "try again": the sender keeps what follows, and
                // IN_FLIGHT_BYTES bounds what is kept here.
                while let Err(refused) = &answer
                    && refused.refusal.verdict() == Verdict::TryAgain
                {
                    self.tell(refused, "the proxy cannot take lines now; they are offered again");
                    tokio::time::sleep(Duration::from_millis(AGAIN_MS)).await;
                    answer = self.sink.emit(call.clone()).await;
                }
                if let Err(refused) = &answer {
                    self.counters.dropped();
                    self.tell(refused, "the proxy refuses a line for good; look at its rule");
                }
            }
            drop(permit);
        })
    }

    fn tell(&self, refused: &Refused, what: &str) {
        if let Some(quiet) = self.refusals.may_speak(refused.refusal.name()) {
            let (refusal, detail) = (&refused.refusal, &refused.detail);
            tracing::warn!(%refusal, detail, quiet, "{what}");
        }
    }

    /// Counts what could not be read, and logs why.
    pub(super) fn malformed(&self, reason: &'static str, peer: IpAddr, detail: &str) {
        self.counters.malformed(reason);
        if let Some(quiet) = self.malformed.may_speak(reason) {
            tracing::warn!(reason, %peer, quiet, "{detail}");
        }
    }

    /// Logs what the log passed over and no later line tells of, for as long as it is polled.
    pub(super) async fn tell_rests(&self) {
        let malformed = self.malformed.tell_rests(MALFORMED);
        let refusals = self.refusals.tell_rests(REFUSED);
        futures_util::future::join(malformed, refusals).await;
    }

    /// Logs what the log passed over: at the end.
    pub(super) fn tell_rest(&self) {
        self.malformed.tell_rest(MALFORMED);
        self.refusals.tell_rest(REFUSED);
    }
}

/// When it happened: what the line says, unless that is so wrong that the proxy would refuse it.
fn occurred_at_ms(told: Option<i64>, now_ms: i64) -> i64 {
    told.filter(|told| told.abs_diff(now_ms) <= CLOCK_TOLERANCE_MS.unsigned_abs()).unwrap_or(now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_off_by_more_than_ten_years_gives_way_to_that_of_arrival() {
        let now = 1_795_000_000_000;
        assert_eq!(occurred_at_ms(Some(now - 5), now), now - 5);
        assert_eq!(occurred_at_ms(Some(1_065_910_455_003), now), now);
        assert_eq!(occurred_at_ms(Some(i64::MIN), now), now);
        assert_eq!(occurred_at_ms(None, now), now);
    }
}
