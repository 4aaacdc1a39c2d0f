//! One connection: hello, then a reader, a worker and a writer until it ends.
//!
//! ```text
//!          ┌ reader ──requests──▶ worker ─▶ session (the proxy)
//! socket ──┤    └─answers─▶ callbacks  │answers
//!          └ writer ◀──────────────────┴──── callbacks' requests
//! ```
//!
//! What was read together is handed on, answered and written together. Requests hold permits of the
//! window and of the bytes until their answers are written: at either bound the reader stops
//! reading, and the kernel stops the integrator (contract §7).
use std::{panic::AssertUnwindSafe, sync::Arc};

use extension::integrators::{Ended, IntegratorDoor, IntegratorSession, PeerCredentials};
use futures_util::FutureExt;
use protocol::{
    Refusal,
    limits::{FRAME_BYTES_MAX, WINDOW},
    socket::{
        BadFrame, CallError, Counters, Frame, Frames, Hello, HelloAnswer, Notice, Registered,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};
use tracing::Instrument;

use crate::{
    callbacks::Connected,
    calls::{Permits, Request, Requests, answer_all},
    limits::{
        CALLBACKS_MAX, COME_AGAIN, CONNECTIONS_MAX, HELLO_WITHIN, READ_BYTES, READ_BYTES_BUSY,
        UNANSWERED_BYTES_MAX, WRITE_WITHIN,
    },
    peer::Rule,
};

/// Frames to write, and what their requests held.
pub(crate) struct Out {
    frames: Vec<u8>,
    permits: Option<Permits>,
}

impl Out {
    /// A frame of the proxy's own.
    pub(crate) fn of(frame: Vec<u8>) -> Self {
        Self { frames: frame, permits: None }
    }

    /// Answers; when they are written their requests are answered.
    pub(crate) fn answer(frames: Vec<u8>, permits: Permits) -> Self {
        Self { frames, permits: Some(permits) }
    }
}

/// Why reading ended.
enum Stop {
    Lost,
    Bad(BadFrame),
    Ended,
    Closing,
}

/// Serves one connection to its end; `closing` turns true when the socket closes.
pub(crate) async fn serve(
    stream: UnixStream,
    peer: PeerCredentials,
    rule: Rule,
    door: Arc<dyn IntegratorDoor>,
    closing: watch::Receiver<bool>,
) {
    let (mut read, mut write) = stream.into_split();
    let mut frames = Frames::new();
    let first = timeout(HELLO_WITHIN, next_frame(&mut read, &mut frames)).await;
    let (id, hello) = match first.map_err(|_| None).and_then(first_hello) {
        Ok(hello) => hello,
        Err(None) => return,
        Err(Some(detail)) => {
            tracing::warn!(pid = peer.pid, reason = %detail, "integrator refused");
            let notice = Notice::Malformed { detail: detail.to_string() };
            let _ = put(&mut write, &notice.frame()).await;
            return;
        }
    };
    let (out, outs) = mpsc::channel(WINDOW + CALLBACKS_MAX);
    let (registration, registrations) = watch::channel(None);
    let (end, ends) = watch::channel(false);
    let greeted = greet(hello, peer, rule, door, |hello| {
        Connected::new(hello.callbacks.clone(), out.downgrade(), registration, end.clone())
    });
    let (answer, session, connected, name) = match greeted.await {
        Ok(greeted) => greeted,
        Err(error) => {
            tracing::warn!(pid = peer.pid, refusal = %error.name, "integrator refused");
            let _ = put(&mut write, &Frame::error(id, error.map())).await;
            return;
        }
    };
    tracing::info!(integrator = %name, pid = peer.pid, "integrator connected");
    if put(&mut write, &Frame::result(id, answer.map())).await.is_err() {
        connected.ended();
        session.ended(Ended::Lost).await;
        return;
    }
    let registrations = (registrations, answer.registration);
    let writing = write_all(write, outs, registrations, end.clone());
    let writer = tokio::spawn(writing.in_current_span());
    let how = converse(read, frames, &session, &connected, out, end, ends, closing).await;
    connected.ended();
    // The proxy tells of it, too; how it ended is for who looks for the cause.
    tracing::debug!(integrator = %name, how = ?how, "integrator disconnected");
    session.ended(how).await;
    // Its answers are written when the last sender is gone; it panics for nobody.
    let _ = writer.await;
}

/// Tells one there is no room for to come again.
pub(crate) async fn turn_away(stream: UnixStream, peer: PeerCredentials) {
    let (mut read, mut write) = stream.into_split();
    let first = timeout(HELLO_WITHIN, next_frame(&mut read, &mut Frames::new())).await;
    // What is no hello is not worth an answer here.
    let Ok(Ok((id, _))) = first.map(first_hello) else { return };
    tracing::warn!(pid = peer.pid, refusal = %Refusal::Busy, "integrator refused");
    let detail = format!(
        "{CONNECTIONS_MAX} connections are open, the most the proxy takes: end some that are idle, \
         or try again"
    );
    let error = CallError::new(Refusal::Busy, detail).after(COME_AGAIN.as_millis() as u64);
    let _ = put(&mut write, &Frame::error(id, error.map())).await;
}

/// The hello a connection begins with. `None`: it hung up, or said nothing in time.
fn first_hello(
    first: Result<Frame, Stop>,
) -> Result<(u32, Result<Hello, CallError>), Option<BadFrame>> {
    match first {
        Ok(Frame::Request { id, method, params }) if method == "hello" => {
            Ok((id, Hello::read(&params)))
        }
        Ok(_) => Err(Some(BadFrame("a connection begins with the request hello"))),
        Err(Stop::Bad(bad)) => Err(Some(bad)),
        Err(_) => Err(None),
    }
}

type Greeted = (HelloAnswer, Arc<dyn IntegratorSession>, Arc<Connected>, String);

async fn greet(
    hello: Result<Hello, CallError>,
    peer: PeerCredentials,
    rule: Rule,
    door: Arc<dyn IntegratorDoor>,
    connected: impl FnOnce(&Hello) -> Connected,
) -> Result<Greeted, CallError> {
    let hello = hello?;
    hello.protocol()?;
    if !rule.lets_in(&peer) {
        let detail = format!("user {} is not in the socket's group {}", peer.uid, rule.group);
        return Err(CallError::new(Refusal::Denied, detail));
    }
    let name = hello.name.clone();
    let connected = Arc::new(connected(&hello));
    let (answer, session) = door.hello(peer, hello, connected.clone()).await?;
    Ok((answer, session, connected, name))
}

/// Reads and answers until one side ends it; says how it ended.
#[allow(clippy::too_many_arguments, reason = "the ends of one connection's channels")]
async fn converse(
    read: OwnedReadHalf,
    frames: Frames,
    session: &Arc<dyn IntegratorSession>,
    connected: &Connected,
    out: mpsc::Sender<Out>,
    end: watch::Sender<bool>,
    ends: watch::Receiver<bool>,
    closing: watch::Receiver<bool>,
) -> Ended {
    let (requests, requested) = mpsc::channel(WINDOW);
    let (said_bye, byes) = watch::channel(false);
    let reading = async {
        let takers = Takers { requests: &requests, connected, session: &**session };
        let stop = read_all(read, frames, takers, ends.clone(), closing, byes).await;
        if matches!(stop, Stop::Closing) {
            let _ = out.send(Out::of(Notice::Stopping.frame())).await;
        }
        // No more requests: the worker answers what it has and ends.
        drop(requests);
        stop
    };
    let working = async {
        let bye = answer_all(requested, session.clone(), out.clone(), ends.clone()).await;
        said_bye.send_replace(bye.is_some());
        bye
    };
    let both = AssertUnwindSafe(async { tokio::join!(reading, working) }).catch_unwind();
    let how = match both.await {
        Ok((_, Some(bye))) => Ended::Bye { forget: bye.forget },
        Ok((Stop::Bad(bad), None)) => {
            let notice = Notice::Malformed { detail: bad.to_string() };
            let _ = out.send(Out::of(notice.frame())).await;
            Ended::Malformed(bad.0)
        }
        Ok((Stop::Closing, None)) => Ended::Stopping,
        Ok((Stop::Ended, None)) => Ended::Ended,
        Ok((Stop::Lost, None)) | Err(_) => Ended::Lost,
    };
    drop(end);
    how
}

/// Who takes what is read: requests, answers, notices.
struct Takers<'a> {
    requests: &'a mpsc::Sender<Requests>,
    connected: &'a Connected,
    session: &'a dyn IntegratorSession,
}

/// Reads until the connection ends; hands on requests within the bounds.
async fn read_all(
    read: OwnedReadHalf,
    frames: Frames,
    takers: Takers<'_>,
    mut ends: watch::Receiver<bool>,
    mut closing: watch::Receiver<bool>,
    mut byes: watch::Receiver<bool>,
) -> Stop {
    tokio::select! {
        biased;
        _ = ends.wait_for(|end| *end) => Stop::Ended,
        _ = closing.wait_for(|closing| *closing) => Stop::Closing,
        _ = byes.wait_for(|bye| *bye) => Stop::Lost,
        stop = read_on(read, frames, takers) => stop,
    }
}

async fn read_on(mut read: OwnedReadHalf, mut frames: Frames, takers: Takers<'_>) -> Stop {
    let window = Arc::new(Semaphore::new(WINDOW));
    let bytes = Arc::new(Semaphore::new(UNANSWERED_BYTES_MAX));
    let mut at_once = READ_BYTES;
    loop {
        // At the bound it waits for one to be free, and goes on with as many as are.
        let Ok(first) = window.clone().acquire_owned().await else { return Stop::Lost };
        let (requests, size, bad) = takers.sort(&mut frames, 1 + window.available_permits());
        let count = requests.len();
        if count > 0 {
            let calls = window.clone().acquire_many_owned(count as u32 - 1).await;
            let bytes = bytes.clone().acquire_many_owned(size as u32).await;
            let (Ok(mut calls), Ok(bytes)) = (calls, bytes) else { return Stop::Lost };
            calls.merge(first);
            let requests = Requests { requests, permits: Permits { calls, bytes } };
            if takers.requests.send(requests).await.is_err() {
                return Stop::Lost;
            }
        }
        match bad {
            Some(bad) => return Stop::Bad(bad),
            None if count > 0 => continue,
            None => {}
        }
        frames.buffer().reserve(at_once);
        match read.read_buf(frames.buffer()).await {
            Ok(0) | Err(_) => return Stop::Lost,
            // Whoever sends much is read in larger pieces, whoever is idle holds little.
            Ok(count) => at_once = if count >= READ_BYTES { READ_BYTES_BUSY } else { READ_BYTES },
        }
    }
}

impl Takers<'_> {
    /// Takes whole frames off the front, at most so many requests; gives back the requests, their
    /// bytes, and the bad frame that ends it.
    fn sort(&self, frames: &mut Frames, most: usize) -> (Vec<Request>, usize, Option<BadFrame>) {
        let (mut requests, mut size) = (Vec::new(), 0);
        while requests.len() < most && size < FRAME_BYTES_MAX {
            match frames.next_frame() {
                Ok(None) => break,
                Ok(Some(Frame::Request { id, method, params })) => {
                    size += params.len().max(1);
                    requests.push(Request { id, method, params });
                }
                Ok(Some(Frame::Answer { id, result })) => self.connected.answered(id, result),
                // Others are of a later version.
                Ok(Some(Frame::Notice { method, params })) if method == Counters::METHOD => {
                    self.session.counted(Counters::read(&params));
                }
                Ok(Some(Frame::Notice { .. })) => {}
                Err(bad) => return (requests, size, Some(bad)),
            }
        }
        (requests, size, None)
    }
}

async fn next_frame(read: &mut OwnedReadHalf, frames: &mut Frames) -> Result<Frame, Stop> {
    loop {
        if let Some(frame) = frames.next_frame().map_err(Stop::Bad)? {
            return Ok(frame);
        }
        frames.buffer().reserve(READ_BYTES);
        match read.read_buf(frames.buffer()).await {
            Ok(0) | Err(_) => return Err(Stop::Lost),
            Ok(_) => {}
        }
    }
}

/// Writes what comes until all senders are gone, and news of the registration in between.
async fn write_all(
    mut write: OwnedWriteHalf,
    mut outs: mpsc::Receiver<Out>,
    (mut registrations, mut told): (watch::Receiver<Option<Registered>>, Registered),
    end: watch::Sender<bool>,
) {
    loop {
        let news = *registrations.borrow_and_update();
        let out = match news.filter(|state| *state != told) {
            Some(state) => {
                told = state;
                Out::of(Notice::Registration(state).frame())
            }
            None => tokio::select! {
                out = outs.recv() => match out {
                    Some(out) => out,
                    None => return,
                },
                Ok(()) = registrations.changed() => continue,
            },
        };
        if put(&mut write, &out.frames).await.is_err() {
            end.send_replace(true);
            return;
        }
        // Only now are they answered, and their permits free.
        drop(out.permits);
    }
}

async fn put(write: &mut OwnedWriteHalf, bytes: &[u8]) -> Result<(), ()> {
    match timeout(WRITE_WITHIN, write.write_all(bytes)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(()),
    }
}
