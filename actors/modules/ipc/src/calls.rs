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

/// What a request takes of the connection's bounds until it is answered.
pub(crate) struct Permits {
    pub(crate) _call: OwnedSemaphorePermit,
    pub(crate) _bytes: OwnedSemaphorePermit,
}

/// A request as it was read.
pub(crate) struct Request {
    pub(crate) id: u32,
    pub(crate) method: String,
    pub(crate) params: Bytes,
    pub(crate) permits: Permits,
}

/// What is to be done with a request.
enum Asked {
    Call(Box<Call>),
    Bye(Bye),
}

/// Answers the requests of one connection, those that wait together, in the order they were sent;
/// until there are no more, a bye, or `end` turns true. Gives back what the bye said.
pub(crate) async fn answer_all(
    mut requests: mpsc::Receiver<Request>,
    session: Arc<dyn IntegratorSession>,
    out: mpsc::Sender<Out>,
    mut end: watch::Receiver<bool>,
) -> Option<Bye> {
    let mut waiting = Vec::new();
    loop {
        let more = tokio::select! {
            biased;
            _ = end.wait_for(|end| *end) => 0,
            count = requests.recv_many(&mut waiting, CALLS_MAX) => count,
        };
        if more == 0 {
            return None;
        }
        let now_ms = now_ms();
        let (mut calls, mut asked, mut bye) = (Vec::new(), Vec::new(), None);
        for request in waiting.drain(..) {
            // What follows a bye was sent to nobody.
            if bye.is_some() {
                break;
            }
            match read(&request, now_ms) {
                Ok(Asked::Call(call)) => {
                    calls.push(*call);
                    asked.push((request.id, request.permits));
                }
                Ok(Asked::Bye(said)) => bye = Some((request, said)),
                Err(error) => {
                    let frame = Frame::error(request.id, error.map());
                    // A writer that is gone answers nobody; what is stored stays stored.
                    let _ = out.send(Out::answer(frame, request.permits)).await;
                }
            }
        }
        answer(&*session, calls, asked, &out, &end).await;
        if let Some((request, said)) = bye {
            let frame = Frame::result(request.id, CallAnswer::Done.map());
            let _ = out.send(Out::answer(frame, request.permits)).await;
            return Some(said);
        }
    }
}

async fn answer(
    session: &dyn IntegratorSession,
    calls: Vec<Call>,
    asked: Vec<(u32, Permits)>,
    out: &mpsc::Sender<Out>,
    end: &watch::Receiver<bool>,
) {
    if calls.is_empty() {
        return;
    }
    let mut results = session.calls(calls).await.into_iter();
    if *end.borrow() {
        // What became of them is not known here. A refusal would say that nothing was stored;
        // silence makes the client ask again in the same stream.
        return;
    }
    for (id, permits) in asked {
        let missing = || Err(CallError::new(protocol::Refusal::Internal, "no result"));
        let frame = match results.next().unwrap_or_else(missing) {
            Ok(answer) => Frame::result(id, answer.map()),
            Err(error) => Frame::error(id, error.map()),
        };
        let _ = out.send(Out::answer(frame, permits)).await;
    }
}

fn read(request: &Request, now_ms: i64) -> Result<Asked, CallError> {
    if request.method == "bye" {
        return Bye::read(&request.params).map(Asked::Bye);
    }
    if request.method == "hello" {
        return Err(CallError::malformed("hello was said before; a connection says it once"));
    }
    let call = Call::read(&request.method, &request.params)?;
    call.check_time(now_ms)?;
    check_document(&call)?;
    Ok(Asked::Call(Box::new(call)))
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
