//! Turns requests into calls of the session, and its results into answers.
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use extension::integrators::{CALLS_MAX, IntegratorSession};
use protocol::{
    socket::{Bye, Call, CallAnswer, CallError, Frame},
    xml::{Doctype, well_formed},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use crate::connection::Out;

/// Bytes reserved for the answer to one message.
const ANSWER_BYTES: usize = 128;

/// What requests take of the connection's bounds until they are answered.
pub(crate) struct Permits {
    pub(crate) calls: OwnedSemaphorePermit,
    pub(crate) bytes: OwnedSemaphorePermit,
}

impl Permits {
    /// Those of both, as one.
    fn joined(mut self, other: Self) -> Self {
        self.calls.merge(other.calls);
        self.bytes.merge(other.bytes);
        self
    }
}

/// A request as it was read.
pub(crate) struct Request {
    pub(crate) id: u32,
    pub(crate) method: String,
    pub(crate) params: Bytes,
}

/// Requests that were read together.
pub(crate) struct Requests {
    pub(crate) requests: Vec<Request>,
    pub(crate) permits: Permits,
}

/// Answers the requests of one connection, those that wait together, in the order they were sent;
/// until there are no more, a bye, or `end` turns true. Gives back what the bye said.
pub(crate) async fn answer_all(
    mut requests: mpsc::Receiver<Requests>,
    session: Arc<dyn IntegratorSession>,
    out: mpsc::Sender<Out>,
    mut end: watch::Receiver<bool>,
) -> Option<Bye> {
    let mut waiting = Vec::new();
    loop {
        let more = tokio::select! {
            biased;
            _ = end.wait_for(|end| *end) => 0,
            // Each holds permits of the window: together they are no more calls than that.
            count = requests.recv_many(&mut waiting, CALLS_MAX) => count,
        };
        if more == 0 {
            return None;
        }
        let (mut all, mut permits) = (Vec::new(), None);
        for read in waiting.drain(..) {
            all.extend(read.requests);
            permits = Some(match permits {
                None => read.permits,
                Some(permits) => read.permits.joined(permits),
            });
        }
        let mut answers = Vec::with_capacity(ANSWER_BYTES * all.len());
        let (calls, asked, bye) = sorted(all, &mut answers);
        answer(&*session, calls, &asked, &mut answers).await;
        if *end.borrow() {
            // What became of them is not known here. A refusal would say that nothing was stored;
            // silence makes the client ask again in the same stream.
            return None;
        }
        if let Some((id, _)) = &bye {
            Frame::answer_on(&mut answers, *id, Ok(CallAnswer::Done.map()));
        }
        if let Some(permits) = permits {
            // A writer that is gone answers nobody; what is stored stays stored.
            let _ = out.send(Out::answer(answers, permits)).await;
        }
        if let Some((_, said)) = bye {
            return Some(said);
        }
    }
}

type Sorted = (Vec<Call>, Vec<u32>, Option<(u32, Bye)>);

/// Calls, the ids of their requests, and the bye that ends it; what is no call is answered.
fn sorted(requests: Vec<Request>, answers: &mut Vec<u8>) -> Sorted {
    let now_ms = now_ms();
    let mut calls = Vec::with_capacity(requests.len());
    let mut asked = Vec::with_capacity(requests.len());
    for request in requests {
        let error = if request.method == "bye" {
            match Bye::read(&request.params) {
                // What follows a bye was sent to nobody.
                Ok(said) => return (calls, asked, Some((request.id, said))),
                Err(error) => error,
            }
        } else {
            match read(&request, now_ms) {
                Ok(call) => {
                    calls.push(call);
                    asked.push(request.id);
                    continue;
                }
                Err(error) => error,
            }
        };
        Frame::answer_on(answers, request.id, Err(error.map()));
    }
    (calls, asked, None)
}

async fn answer(
    session: &dyn IntegratorSession,
    calls: Vec<Call>,
    asked: &[u32],
    answers: &mut Vec<u8>,
) {
    if calls.is_empty() {
        return;
    }
    let mut results = session.calls(calls).await.into_iter();
    for id in asked {
        let missing = || Err(CallError::new(protocol::Refusal::Internal, "no result"));
        let result = results.next().unwrap_or_else(missing);
        let result = result.map(|answer| answer.map()).map_err(|error| error.map());
        Frame::answer_on(answers, *id, result);
    }
}

fn read(request: &Request, now_ms: i64) -> Result<Call, CallError> {
    if request.method == "hello" {
        return Err(CallError::malformed("hello was said before; a connection says it once"));
    }
    let call = Call::read(&request.method, &request.params)?;
    call.check_time(now_ms)?;
    check_document(&call)?;
    Ok(call)
}

/// Checks the document of a call that has one: -1, EBADMSG where it is not well-formed (API-8).
fn check_document(call: &Call) -> Result<(), CallError> {
    let document = match call {
        Call::Instance(c) => c.capabilities.as_deref(),
        Call::Capabilities(c) => Some(c.capabilities.as_str()),
        _ => None,
    };
    let Some(document) = document else { return Ok(()) };
    match well_formed(document, Doctype::Taken) {
        Ok(_) => Ok(()),
        Err(why) => Err(CallError::bad_text(format!("capabilities: {why}"))),
    }
}

/// The clock, ms since 1970 UTC.
#[allow(clippy::disallowed_methods, reason = "stamps what comes in at the door")]
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
