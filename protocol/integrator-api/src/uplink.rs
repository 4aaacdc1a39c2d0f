//! The threads: one connects and writes, one a connection reads, one writes the spill.
use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, PoisonError},
    thread,
    time::{Duration, Instant},
};

use protocol::socket::{CallError, Frame, Frames, Hello, HelloAnswer, Notice, PROTOCOL};

use crate::{callbacks, client::Shared, lock, spill::Spill, state::State};

/// The proxy answers hello within that, or is not there.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// The proxy takes bytes within that, or is not there.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// First pause between two attempts to connect; doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest pause: the socket is local, a proxy that is back is found soon.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Longest pause after a refusal to give up on, such as an unknown version.
const PAUSE_REFUSED: Duration = Duration::from_secs(10);
/// How often an idle writer looks whether an answer is overdue.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Read at once, bytes.
const READ_BYTES: usize = 64 << 10;

/// Starts the threads of a client. They end when it is stopped.
pub(crate) fn start(shared: Arc<Shared>, spills: bool) -> io::Result<()> {
    if spills {
        let shared = shared.clone();
        thread::Builder::new().name("spill".into()).spawn(move || spill(&shared))?;
    }
    thread::Builder::new().name("uplink".into()).spawn(move || uplink(&shared))?;
    Ok(())
}

fn spill(shared: &Shared) {
    let mut state = lock(&shared.state);
    loop {
        let (stream, next_seq) = (state.stream, state.next_seq);
        let mut failed = false;
        let job = state.spill.as_mut().and_then(|spill| spill.job(stream, next_seq));
        if let Some(job) = job {
            drop(state);
            let written = job.run();
            state = lock(&shared.state);
            let back = state.spill.as_mut().map(|spill| spill.written(written));
            failed = back.as_ref().is_some_and(|b| !b.is_empty());
            state.put_back(back.unwrap_or_default());
            shared.changed(&state);
            if !failed {
                continue;
            }
        }
        shared.changed(&state);
        if state.uplink_ended && (failed || state.spill.as_ref().is_none_or(Spill::is_synced)) {
            state.fail_waiting();
            return;
        }
        let waited = shared.spiller.wait_timeout(state, LOOK_EVERY);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    }
}

/// Why there is no connection.
enum Trouble {
    Socket(io::Error),
    Refused(CallError),
    Protocol(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(error) => write!(f, "{error}"),
            Self::Refused(error) => write!(f, "the proxy refuses: {error}"),
            Self::Protocol(detail) => write!(f, "the proxy breaks the protocol: {detail}"),
        }
    }
}

fn uplink(shared: &Arc<Shared>) {
    let mut pause = PAUSE_MIN;
    let mut away_since = Instant::now();
    for generation in 1.. {
        let longest = match connect(shared) {
            Ok((stream, frames, answer)) => {
                pause = PAUSE_MIN;
                serve(shared, stream, frames, answer, generation);
                away_since = Instant::now();
                PAUSE_MAX
            }
            Err(trouble) => {
                let mut state = lock(&shared.state);
                state.trouble = Some(format!("{}: {trouble}", shared.options.socket.display()));
                state.refusal = match &trouble {
                    Trouble::Refused(error) => Some(error.clone()),
                    _ => None,
                };
                shared.changed(&state);
                match trouble {
                    Trouble::Refused(e) if e.verdict == protocol::Verdict::GiveUp => PAUSE_REFUSED,
                    _ => PAUSE_MAX,
                }
            }
        };
        if rest(shared, jittered(pause), away_since) {
            // Nobody waits for a ticket of a client that is gone.
            let mut state = lock(&shared.state);
            state.fail_waiting();
            state.uplink_ended = true;
            shared.spiller.notify_all();
            return;
        }
        pause = (pause * 2).min(longest);
    }
}

/// Half to the whole of a pause, so that integrators do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without chance it is the whole pause, which is right, too.
    let _ = getrandom::fill(&mut byte);
    pause - pause / 2 * u32::from(byte[0]) / 255
}

/// Waits between two attempts; `true`: the client is stopped.
fn rest(shared: &Shared, pause: Duration, away_since: Instant) -> bool {
    let until = Instant::now() + pause;
    let mut state = lock(&shared.state);
    loop {
        if state.stopped {
            return true;
        }
        let now = Instant::now();
        let patience = shared.options.fail_when_away_for;
        if patience.is_some_and(|p| now.saturating_duration_since(away_since) >= p) {
            state.fail_waiting();
            shared.watchers.notify_all();
        }
        if now >= until {
            return false;
        }
        let waited = shared.uplink.wait_timeout(state, until - now);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    }
}

fn connect(shared: &Shared) -> Result<(UnixStream, Frames, HelloAnswer), Trouble> {
    let options = &shared.options;
    let mut stream = UnixStream::connect(&options.socket).map_err(Trouble::Socket)?;
    let prepare = |stream: &UnixStream| {
        stream.set_read_timeout(Some(HELLO_WITHIN))?;
        stream.set_write_timeout(Some(WRITE_WITHIN))
    };
    prepare(&stream).map_err(Trouble::Socket)?;
    let hello = Hello {
        protocols: vec![PROTOCOL],
        name: options.name.clone(),
        version: options.version.clone(),
        callbacks: options.handler.callbacks(),
        stream: Some(lock(&shared.state).stream),
    };
    stream.write_all(&Frame::request(1, "hello", hello.map())).map_err(Trouble::Socket)?;
    let mut frames = Frames::new();
    let until = Instant::now() + HELLO_WITHIN;
    loop {
        let broken = |e: protocol::socket::BadFrame| Trouble::Protocol(e.to_string());
        match frames.next_frame().map_err(broken)? {
            Some(Frame::Answer { id: 1, result }) => {
                let answer = match result {
                    Ok(map) => HelloAnswer::read(&map),
                    Err(map) => {
                        let error = CallError::read(&map);
                        return Err(
                            error.map_or_else(|e| Trouble::Protocol(e.detail), Trouble::Refused)
                        );
                    }
                };
                let answer = answer.map_err(|e| Trouble::Protocol(e.detail))?;
                stream.set_read_timeout(None).map_err(Trouble::Socket)?;
                return Ok((stream, frames, answer));
            }
            Some(_) => continue,
            None if Instant::now() > until => {
                return Err(Trouble::Socket(io::ErrorKind::TimedOut.into()));
            }
            None => read_some(&mut stream, &mut frames).map_err(Trouble::Socket)?,
        }
    }
}

fn read_some(stream: &mut UnixStream, frames: &mut Frames) -> io::Result<()> {
    let mut bytes = [0; READ_BYTES];
    let count = loop {
        match stream.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => break read?,
        }
    };
    match bytes.get(..count) {
        Some(read) if count > 0 => frames.buffer().extend_from_slice(read),
        _ => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the proxy hung up")),
    }
    Ok(())
}

/// Serves one connection to its end.
fn serve(
    shared: &Arc<Shared>,
    mut stream: UnixStream,
    frames: Frames,
    answer: HelloAnswer,
    generation: u64,
) {
    shared.options.handler.registration(answer.registration);
    let mut state = lock(&shared.state);
    state.connected(generation, answer);
    shared.changed(&state);
    drop(state);
    let reader = stream.try_clone().and_then(|stream| {
        let shared = shared.clone();
        let read = move || read(&shared, stream, frames, generation);
        thread::Builder::new().name("reader".into()).spawn(read)
    });
    let ended = match &reader {
        Ok(_) => write(shared, &mut stream),
        Err(error) => format!("no thread: {error}"),
    };
    // The reader ends by this; it may have to be told, or ended first.
    let _ = stream.shutdown(Shutdown::Both);
    if let Ok(reader) = reader {
        // A reader that panicked has nothing to hand over.
        let _ = reader.join();
    }
    let mut state = lock(&shared.state);
    state.trouble.get_or_insert(ended);
    state.disconnected();
    shared.changed(&state);
}

/// Writes until the connection is dead or the client stopped; says why.
fn write(shared: &Shared, stream: &mut UnixStream) -> String {
    let mut state = lock(&shared.state);
    loop {
        let now = Instant::now();
        if state.stopped {
            return "closed".to_owned();
        }
        if state.connection.as_ref().is_none_or(|c| c.dead) {
            return "the connection was lost".to_owned();
        }
        if state.overdue(now) {
            return "the proxy does not answer".to_owned();
        }
        if state.wants_counters(now) {
            drop(state);
            let counters = shared.options.handler.counters();
            state = lock(&shared.state);
            state.count(counters, now);
            continue;
        }
        let bytes = state.next_bytes(now);
        if state.spill.as_ref().is_some_and(Spill::wants_writing) {
            // Reading to the end may have found that all is answered.
            shared.spiller.notify_one();
        }
        if bytes.is_empty() {
            let wait = state.rests(now).unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
            let waited = shared.uplink.wait_timeout(state, wait.max(Duration::from_millis(1)));
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        drop(state);
        if let Err(error) = stream.write_all(&bytes) {
            return error.to_string();
        }
        state = lock(&shared.state);
    }
}

/// Reads until the connection ends.
fn read(shared: &Arc<Shared>, mut stream: UnixStream, mut frames: Frames, generation: u64) {
    let ended = loop {
        match frames.next_frame() {
            Ok(Some(frame)) => {
                if let Err(detail) = take(shared, frame, generation) {
                    break detail;
                }
            }
            Ok(None) => {
                if let Err(error) = read_some(&mut stream, &mut frames) {
                    break error.to_string();
                }
            }
            Err(bad) => break format!("the proxy breaks the protocol: {bad}"),
        }
    };
    let mut state = lock(&shared.state);
    mark_dead(&mut state, generation, ended);
    shared.changed(&state);
}

fn mark_dead(state: &mut State, generation: u64, why: String) {
    if let Some(connection) = state.connection.as_mut().filter(|c| c.generation == generation) {
        connection.dead = true;
        state.trouble = Some(why);
    }
}

fn take(shared: &Arc<Shared>, frame: Frame, generation: u64) -> Result<(), String> {
    match frame {
        Frame::Answer { id, result } => {
            let result = result.as_ref().map(|m| &m[..]).map_err(|m| &m[..]);
            let mut state = lock(&shared.state);
            if state.connection.as_ref().is_none_or(|c| c.generation != generation) {
                return Ok(());
            }
            let given_up = state.answered(id, result, Instant::now());
            shared.changed(&state);
            drop(state);
            match given_up {
                Ok(Some(lost)) => shared.options.handler.refused(&lost.call, &lost.error),
                Ok(None) => {}
                Err(error) => return Err(format!("the proxy breaks the protocol: {error}")),
            }
        }
        Frame::Request { id, method, params } => {
            callbacks::take(shared, generation, id, &method, &params);
        }
        Frame::Notice { method, params } => match Notice::read(&method, &params) {
            Ok(Notice::Registration(registered)) => {
                let mut state = lock(&shared.state);
                if let Some(connection) = &mut state.connection {
                    connection.answer.registration = registered;
                }
                shared.changed(&state);
                drop(state);
                shared.options.handler.registration(registered);
            }
            Ok(Notice::Malformed { detail }) => {
                return Err(format!("the proxy says malformed: {detail}"));
            }
            Ok(Notice::Stopping | Notice::Other(_)) => {}
            Err(error) => return Err(format!("the proxy breaks the protocol: {error}")),
        },
    }
    Ok(())
}
