//! Receives datagrams, lets rules decide, and answers informs once the proxy has what they say.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use protocol::refusal::Verdict;
use protocol::service::Payload;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use xxhash_rust::xxh3::xxh3_128;

use super::facts::TrapFacts;
use super::message::{self, Message};
use super::recent::Recent;
use crate::common::LiveRules;
use crate::counters::Counters;
use crate::quiet::Quiet;
use crate::sink::{Call, Emitted, Refused, Sink, calls_of};

/// The largest UDP payload, bytes.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Traps whose acceptance is awaited, over all sockets: what the proxy takes unanswered. Beyond
/// it nothing is read, and the kernel's buffers hold what comes.
pub const IN_FLIGHT_MAX: usize = protocol::limits::WINDOW;

/// How long to wait before a trap that the proxy could not take is offered again: from short
/// enough not to hold up a healthy proxy, to long enough for one that restarts.
const RETRY_FROM: Duration = Duration::from_millis(250);
const RETRY_UP_TO: Duration = Duration::from_secs(5);

/// How long a stop waits for what was received, as the nodes' drain does by default.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// What was passed over in the log.
const COMPLAINTS: &str = "datagrams that were not taken";

/// Whether what a trap said was accepted: not known yet, yes, or no.
type Fate = watch::Receiver<Option<bool>>;

/// Receives on any number of sockets.
pub struct Receiver {
    rules: Arc<LiveRules>,
    sink: Arc<dyn Sink>,
    counters: Counters,
    /// Empty: any.
    communities: Vec<Vec<u8>>,
    recent: Mutex<Recent<Fate>>,
    in_flight: Arc<Semaphore>,
    complaints: Quiet,
    started: Instant,
}

/// What is to be done for one datagram once its calls are answered.
struct Pending {
    emitted: Vec<(Call, Emitted)>,
    fate: watch::Sender<Option<bool>>,
    is_inform: bool,
}

/// What a datagram leads to.
enum Taken {
    /// Nothing more.
    Done,
    /// Wait for the calls, then answer.
    New(Pending, Option<Vec<u8>>),
    /// It was there already: answer when that one is accepted.
    Again(Fate, Vec<u8>),
}

impl Receiver {
    /// A receiver that lets `rules` decide and sends to `sink`; `communities` empty: any.
    pub fn new(rules: Arc<LiveRules>, sink: Arc<dyn Sink>, communities: &[String]) -> Arc<Self> {
        Arc::new(Self {
            rules,
            counters: sink.counters(),
            sink,
            communities: communities.iter().map(|community| community.clone().into()).collect(),
            recent: Mutex::new(Recent::default()),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            complaints: Quiet::default(),
            started: Instant::now(),
        })
    }

    /// Receives on one socket until `stop` says so.
    pub async fn receive(self: Arc<Self>, socket: Arc<UdpSocket>, mut stop: watch::Receiver<bool>) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let next = async {
                let permit = self.in_flight.clone().acquire_owned().await.ok()?;
                Some((permit, socket.recv_from(&mut buffer).await))
            };
            let came = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                came = next => came,
            };
            match came {
                Some((permit, Ok((length, from)))) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    self.clone().handle(datagram, from, &socket, permit);
                }
                // An ICMP answer to one of our own responses: nothing is wrong with the socket.
                Some((_, Err(error))) => {
                    self.complain("not_received", |also| {
                        tracing::warn!(%error, also, "datagram not received");
                    });
                    tokio::task::yield_now().await;
                }
                None => return,
            }
        }
    }

    /// Waits until nothing is in flight any more, at most [`DRAIN_WITHIN`]; `false`: not in time.
    pub async fn drained(&self) -> bool {
        let all = u32::try_from(IN_FLIGHT_MAX).unwrap_or(u32::MAX);
        let acquired = tokio::time::timeout(DRAIN_WITHIN, self.in_flight.acquire_many(all)).await;
        acquired.is_ok()
    }

    fn handle(
        self: Arc<Self>,
        datagram: &[u8],
        from: SocketAddr,
        socket: &Arc<UdpSocket>,
        permit: OwnedSemaphorePermit,
    ) {
        let taken = self.take(datagram, from);
        let socket = socket.clone();
        match taken {
            Taken::Done => {}
            Taken::New(pending, response) => {
                tokio::spawn(async move {
                    let accepted = self.finish(pending).await;
                    if let Some(response) = response.filter(|_| accepted) {
                        self.respond(&socket, &response, from).await;
                    }
                    drop(permit);
                });
            }
            Taken::Again(mut fate, response) => {
                tokio::spawn(async move {
                    let known = fate.wait_for(Option::is_some).await;
                    let accepted = known.is_ok_and(|fate| *fate == Some(true));
                    if accepted {
                        self.respond(&socket, &response, from).await;
                    }
                    drop(permit);
                });
            }
        }
    }

    /// Decides what a datagram leads to, and makes its calls. Does not wait, so calls are made in
    /// the order of the datagrams.
    fn take(&self, datagram: &[u8], from: SocketAddr) -> Taken {
        let message = match message::read(datagram) {
            Ok(message) => message,
            Err(malformed) => {
                self.counters.malformed(malformed.reason());
                let reason = malformed.reason();
                self.complain(reason, |also| {
                    tracing::warn!(source = %from, reason, also, "datagram is no trap");
                });
                return Taken::Done;
            }
        };
        self.counters.received();
        if !self.communities.is_empty() && !self.communities.contains(&message.community) {
            self.counters.dropped();
            self.complain("community", |also| {
                tracing::warn!(source = %from, also, "trap with a community not allowed dropped");
            });
            return Taken::Done;
        }
        let response = message.response.clone();
        let inform = response.as_ref().map(|_| [from.to_string().as_bytes(), datagram].concat());
        self.sort(message, from, inform, response)
    }

    /// Tells a repeat from what is new.
    fn sort(
        &self,
        message: Message,
        from: SocketAddr,
        inform: Option<Vec<u8>>,
        response: Option<Vec<u8>>,
    ) -> Taken {
        let sent = inform.as_deref().map(xxh3_128);
        let facts =
            TrapFacts::new(message.version, from.ip(), &message.community, message.notification);
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (decided, fate) = watch::channel(None);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |fate: &Fate| *fate.borrow() == Some(false);
        let again = inform.as_ref().and_then(|inform| recent.repeated(now_ms, inform));
        let again = again
            .filter(|fate| !failed(fate))
            .or_else(|| recent.admit(now_ms, &facts, || fate.clone()).filter(|fate| !failed(fate)));
        if let Some(inform) = inform {
            recent.remember(now_ms, inform, again.clone().unwrap_or(fate));
        }
        drop(recent);
        if let Some(fate) = again {
            self.counters.ignored();
            return response.map_or(Taken::Done, |response| Taken::Again(fate, response));
        }
        let pending = self.judge(&facts, decided, sent);
        Taken::New(pending, response)
    }

    /// Asks the rules, and makes the calls that they want. `inform`: the digest of what its sender
    /// repeats until it is answered, be it to the next process. Each call of an inform says which
    /// it is, so that the proxy knows it again.
    fn judge(
        &self,
        facts: &TrapFacts,
        fate: watch::Sender<Option<bool>>,
        inform: Option<u128>,
    ) -> Pending {
        let rules = self.rules.current();
        let judged = rules.judge(facts);
        let mut calls = Vec::new();
        if let Some(judged) = &judged {
            if !judged.gaps.is_empty() {
                self.counters.rule_gaps(judged.gaps.len());
                let (rule, gaps) = (judged.rule, &judged.gaps);
                tracing::debug!(rule, ?gaps, "rule named what is absent");
            }
            let occurred_at_ms = jiff::Timestamp::now().as_millisecond();
            let payload =
                Payload { encoding: "application/json".to_owned(), data: facts.data().into() };
            calls = calls_of(judged, occurred_at_ms, &payload);
        }
        if let Some(inform) = inform {
            for (n, call) in (0_u32..).zip(&mut calls) {
                let once = [&inform.to_be_bytes()[..], &n.to_be_bytes()].concat();
                call.once = Some(once.into());
            }
        }
        if calls.is_empty() {
            self.counters.ignored();
        }
        let emitted = calls.into_iter().map(|call| (call.clone(), self.sink.emit(call)));
        Pending { emitted: emitted.collect(), fate, is_inform: inform.is_some() }
    }

    /// Waits until all calls are answered; `true`: all were accepted.
    async fn finish(&self, pending: Pending) -> bool {
        let Pending { emitted, fate, is_inform } = pending;
        let mut accepted = true;
        for (call, answer) in emitted {
            let answered = match answer.await {
                // The sender of an inform offers it again by itself.
                Err(refused) if !is_inform && refused.refusal.verdict() == Verdict::TryAgain => {
                    self.offer_again(&call).await
                }
                answered => answered.map(|_| ()),
            };
            if let Err(refused) = answered {
                accepted = false;
                self.counters.dropped();
                let refusal = refused.refusal.name();
                self.complain(refusal, |also| {
                    let instance = call.instance.as_str();
                    tracing::warn!(refusal, instance, also, "call refused");
                });
            }
        }
        // Nobody may be waiting for it.
        let _ = fate.send(Some(accepted));
        accepted
    }

    /// Offers a call until it is accepted or refused for ever. The permit is kept meanwhile, so a
    /// proxy that takes nothing stops the reading in the end.
    async fn offer_again(&self, call: &Call) -> Result<(), Refused> {
        let mut wait = RETRY_FROM;
        loop {
            tokio::time::sleep(wait).await;
            match self.sink.emit(call.clone()).await {
                Ok(_) => return Ok(()),
                Err(refused) if refused.refusal.verdict() == Verdict::TryAgain => {
                    wait = (wait * 2).min(RETRY_UP_TO);
                }
                Err(refused) => return Err(refused),
            }
        }
    }

    async fn respond(&self, socket: &UdpSocket, response: &[u8], to: SocketAddr) {
        if let Err(error) = socket.send_to(response, to).await {
            self.complain("not_answered", |also| {
                tracing::warn!(%error, peer = %to, also, "inform not answered");
            });
        }
    }

    /// Logs at most once a second; `say` is told how many were passed over since.
    fn complain(&self, about: &'static str, say: impl FnOnce(u64)) {
        if let Some(passed_over) = self.complaints.may_speak(about) {
            say(passed_over);
        }
    }

    /// Logs what the log passed over and no later line tells of, for as long as it is polled.
    pub async fn tell_rests(&self) {
        self.complaints.tell_rests(COMPLAINTS).await;
    }

    /// Logs what the log passed over: at the end.
    pub fn tell_rest(&self) {
        self.complaints.tell_rest(COMPLAINTS);
    }
}
