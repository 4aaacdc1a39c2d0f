//! A scripted proxy: keeps what it is sent as a real one would, and dies when it is told to.
#![allow(dead_code, reason = "each test uses its part")]
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use protocol::{
    heartbeat::Mode,
    limits::STREAM_RESULTS_MAX,
    socket::{
        Call, CallAnswer, CallError, Frame, Frames, Hello, HelloAnswer, Map, Outcome, Registered,
    },
};

/// What a test scripts: sees each call before it is kept.
pub enum Step {
    /// Keep it and answer.
    Keep,
    /// Keep it and hang up before the answer.
    KeepAndDie,
    /// Answer with that.
    Refuse(CallError),
    /// Keep it, answer nothing.
    Silent,
}

type Script = Box<dyn FnMut(&Call) -> Step + Send>;

#[derive(Default)]
pub struct Kept {
    /// Calls in the order they were stored, each once.
    pub calls: Vec<Call>,
    /// What is known of each stream: as much as a real proxy remembers, and no more.
    seen: HashMap<[u8; 16], VecDeque<u64>>,
    pub duplicates: usize,
    pub hellos: Vec<Hello>,
    /// Instances of the connection that is served.
    pub instances: Vec<String>,
    /// The largest number of requests that were unanswered at once.
    pub unanswered_max: usize,
    pub answers: Vec<Frame>,
    pub byes: Vec<bool>,
}

pub struct Proxy {
    pub path: PathBuf,
    pub kept: Arc<(Mutex<Kept>, Condvar)>,
    script: Arc<Mutex<Script>>,
    registered: Arc<Mutex<Registered>>,
    streams: Arc<Mutex<Vec<UnixStream>>>,
}

impl Proxy {
    pub fn start(path: &Path) -> Self {
        Self::scripted(path, |_| Step::Keep)
    }

    pub fn scripted(path: &Path, script: impl FnMut(&Call) -> Step + Send + 'static) -> Self {
        let proxy = Self {
            path: path.to_owned(),
            kept: Arc::default(),
            script: Arc::new(Mutex::new(Box::new(script))),
            registered: Arc::new(Mutex::new(Registered::Registered)),
            streams: Arc::default(),
        };
        proxy.listen();
        proxy
    }

    pub fn script(&self, script: impl FnMut(&Call) -> Step + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub fn registered(&self, state: Registered) {
        *self.registered.lock().unwrap() = state;
    }

    fn listen(&self) {
        let listener = UnixListener::bind(&self.path).unwrap();
        let (kept, script) = (self.kept.clone(), self.script.clone());
        let (registered, streams) = (self.registered.clone(), self.streams.clone());
        thread::spawn(move || {
            // A clone of each, so that a test can hang up.
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                streams.lock().unwrap().push(stream.try_clone().unwrap());
                let (kept, script) = (kept.clone(), script.clone());
                let registered = *registered.lock().unwrap();
                thread::spawn(move || serve(stream, &kept, &script, registered));
            }
        });
    }

    /// Hangs up on everybody.
    pub fn hang_up(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Sends a frame of its own to the newest connection.
    pub fn say(&self, frame: &[u8]) {
        self.streams.lock().unwrap().last().unwrap().write_all(frame).unwrap();
    }

    /// Waits until what is kept is as wanted.
    pub fn wait(&self, what: &str, mut good: impl FnMut(&Kept) -> bool) {
        let (kept, changed) = &*self.kept;
        let kept = kept.lock().unwrap();
        let within = Duration::from_secs(20);
        let waited = changed.wait_timeout_while(kept, within, |k| !good(k)).unwrap();
        assert!(!waited.1.timed_out(), "{what}");
    }

    /// The texts of alarms, in the order they were stored.
    pub fn texts(&self) -> Vec<String> {
        let kept = self.kept.0.lock().unwrap();
        kept.calls
            .iter()
            .filter_map(|call| match call {
                Call::Alarm(alarm) => Some(alarm.text.clone()),
                _ => None,
            })
            .collect()
    }
}

fn serve(
    mut stream: UnixStream,
    kept: &(Mutex<Kept>, Condvar),
    script: &Mutex<Script>,
    registered: Registered,
) {
    let mut frames = Frames::new();
    let mut current = [0; 16];
    let mut silent = 0;
    let mut names = BTreeSet::new();
    let mut bytes = [0; 4096];
    loop {
        while let Some(frame) = frames.next_frame().unwrap() {
            let (id, method, params) = match frame {
                Frame::Request { id, method, params } => (id, method, params),
                answer => {
                    kept.0.lock().unwrap().answers.push(answer);
                    kept.1.notify_all();
                    continue;
                }
            };
            let reply = match method.as_str() {
                "hello" => {
                    let hello = Hello::read(&params).unwrap();
                    current = hello.stream.unwrap();
                    kept.0.lock().unwrap().hellos.push(hello);
                    Reply::Frame(Frame::result(id, hello_answer(registered).map()))
                }
                "bye" => {
                    let bye = protocol::socket::Bye::read(&params).unwrap();
                    kept.0.lock().unwrap().byes.push(bye.forget);
                    Reply::Frame(Frame::result(id, Map::new()))
                }
                _ => {
                    let call = Call::read(&method, &params).unwrap();
                    take(id, call, current, kept, script, &mut names)
                }
            };
            match reply {
                Reply::Frame(answer) => {
                    if stream.write_all(&answer).is_err() {
                        return;
                    }
                }
                Reply::Silent => {
                    silent += 1;
                    let mut kept = kept.0.lock().unwrap();
                    kept.unanswered_max = kept.unanswered_max.max(silent);
                }
                Reply::Die => {
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
            }
            kept.1.notify_all();
        }
        kept.1.notify_all();
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(count) => frames.buffer().extend_from_slice(&bytes[..count]),
        }
    }
}

enum Reply {
    Frame(Vec<u8>),
    Silent,
    Die,
}

fn hello_answer(registration: Registered) -> HelloAnswer {
    HelloAnswer {
        protocol: 1,
        node_id: None,
        integrator_id: None,
        mode: Mode::Session,
        registration,
        window: 1024,
    }
}

fn take(
    id: u32,
    call: Call,
    stream: [u8; 16],
    kept: &(Mutex<Kept>, Condvar),
    script: &Mutex<Script>,
    names: &mut BTreeSet<String>,
) -> Reply {
    let error = |error: CallError| Reply::Frame(Frame::error(id, error.map()));
    let result = |answer: CallAnswer| Reply::Frame(Frame::result(id, answer.map()));
    let stored = |outcome| result(CallAnswer::Message { outcome, message_id: None });
    if let Call::Instance(instance) = &call {
        if let Step::Refuse(refusal) = script.lock().unwrap()(&call) {
            return error(refusal);
        }
        names.insert(instance.instance.clone());
        kept.0.lock().unwrap().instances.push(instance.instance.clone());
        let instance_id = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3/4/1".parse().unwrap();
        return result(CallAnswer::Instance { instance_id, known: false });
    }
    let name = call.instance().unwrap();
    if !names.contains(name) {
        return error(CallError::unknown_instance(name));
    }
    let seq = call.seq().unwrap();
    let seen = kept.0.lock().unwrap().seen.entry(stream).or_default().contains(&seq);
    if seen {
        kept.0.lock().unwrap().duplicates += 1;
        return stored(Outcome::Duplicate);
    }
    let step = script.lock().unwrap()(&call);
    if let Step::Refuse(refusal) = step {
        return error(refusal);
    }
    let mut kept = kept.0.lock().unwrap();
    let seen = kept.seen.entry(stream).or_default();
    seen.push_back(seq);
    if seen.len() > STREAM_RESULTS_MAX {
        seen.pop_front();
    }
    kept.calls.push(call);
    match step {
        Step::Keep | Step::Refuse(_) => stored(Outcome::Stored),
        Step::Silent => Reply::Silent,
        Step::KeepAndDie => Reply::Die,
    }
}
