//! A door that keeps calls in memory, for tests of the socket.
#![allow(dead_code, reason = "each test uses its part")]
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use extension::integrators::*;
use module_ipc::{Options, Socket};
use protocol::{heartbeat::Mode, socket::*};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{Semaphore, oneshot, watch},
    task::JoinHandle,
};

pub const SOON: Duration = Duration::from_secs(20);

/// What the door keeps; the gate holds calls back until it has permits.
pub struct Door {
    pub calls: Mutex<Vec<(String, Call)>>,
    pub batches: Mutex<Vec<usize>>,
    /// Calls that reached the session, be they let through or not.
    pub arrived: watch::Sender<usize>,
    seen: Mutex<HashSet<(Option<[u8; 16]>, u64)>>,
    pub ended: watch::Sender<Vec<(String, Ended)>>,
    pub callbacks: Mutex<Vec<(String, Arc<dyn Callbacks>)>>,
    pub peers: Mutex<Vec<PeerCredentials>>,
    pub counted: Mutex<Vec<(String, Result<Counters, CallError>)>>,
    pub gate: Semaphore,
    pub registration: Mutex<Registered>,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            calls: Mutex::default(),
            batches: Mutex::default(),
            arrived: watch::channel(0).0,
            seen: Mutex::default(),
            ended: watch::channel(Vec::new()).0,
            callbacks: Mutex::default(),
            peers: Mutex::default(),
            counted: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            registration: Mutex::new(Registered::Registered),
        }
    }
}

impl Door {
    pub fn closed() -> Self {
        Self { gate: Semaphore::new(0), ..Self::default() }
    }

    pub fn count(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    pub fn callbacks_of(&self, name: &str) -> Arc<dyn Callbacks> {
        let all = self.callbacks.lock().unwrap();
        all.iter().rev().find(|(n, _)| n == name).unwrap().1.clone()
    }

    pub async fn wait_arrived(&self, count: usize) {
        let mut arrived = self.arrived.subscribe();
        tokio::time::timeout(SOON, arrived.wait_for(|n| *n >= count)).await.unwrap().unwrap();
    }

    pub async fn wait_ended(&self, good: impl FnMut(&Vec<(String, Ended)>) -> bool) {
        let mut ended = self.ended.subscribe();
        tokio::time::timeout(SOON, ended.wait_for(good)).await.unwrap().unwrap();
    }
}

struct Session {
    door: Arc<Door>,
    name: String,
    stream: Option<[u8; 16]>,
}

/// The trait is ours, the `Arc` is not.
pub struct Shared(pub Arc<Door>);

#[async_trait]
impl IntegratorDoor for Shared {
    async fn hello(
        &self,
        peer: PeerCredentials,
        hello: Hello,
        callbacks: Arc<dyn Callbacks>,
    ) -> Result<(HelloAnswer, Arc<dyn IntegratorSession>), CallError> {
        self.0.peers.lock().unwrap().push(peer);
        self.0.callbacks.lock().unwrap().push((hello.name.clone(), callbacks));
        let answer = HelloAnswer {
            protocol: 1,
            node_id: None,
            integrator_id: None,
            mode: Mode::Session,
            registration: *self.0.registration.lock().unwrap(),
            window: 1024,
        };
        let session = Session { door: self.0.clone(), name: hello.name, stream: hello.stream };
        Ok((answer, Arc::new(session)))
    }
}

#[async_trait]
impl IntegratorSession for Session {
    async fn calls(&self, calls: Vec<Call>) -> Vec<Result<CallAnswer, CallError>> {
        self.door.arrived.send_modify(|arrived| *arrived += calls.len());
        let _open = self.door.gate.acquire().await.unwrap();
        self.door.batches.lock().unwrap().push(calls.len());
        let mut results = Vec::new();
        for call in calls {
            if matches!(call.instance(), Some("panic")) {
                panic!("of the session");
            }
            let new = call
                .seq()
                .is_none_or(|seq| self.door.seen.lock().unwrap().insert((self.stream, seq)));
            let outcome = if new { Outcome::Stored } else { Outcome::Duplicate };
            results.push(Ok(match &call {
                Call::Instance(_) => CallAnswer::Instance {
                    instance_id: "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3/4/1".parse().unwrap(),
                    known: false,
                },
                _ => CallAnswer::Message { outcome, message_id: None },
            }));
            if new {
                self.door.calls.lock().unwrap().push((self.name.clone(), call));
            }
        }
        results
    }

    fn counted(&self, report: Result<Counters, CallError>) {
        self.door.counted.lock().unwrap().push((self.name.clone(), report));
    }

    async fn ended(&self, how: Ended) {
        self.door.ended.send_modify(|all| all.push((self.name.clone(), how)));
    }
}

/// A socket that is served.
pub struct Served {
    pub folder: tempfile::TempDir,
    pub path: PathBuf,
    pub door: Arc<Door>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub async fn start(door: Door) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        Self::at(folder, &path, Arc::new(door)).await
    }

    pub async fn at(folder: tempfile::TempDir, path: &Path, door: Arc<Door>) -> Self {
        let socket = Socket::bind(&Options::new(path)).unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(socket.serve(Arc::new(Shared(door.clone())), async {
            let _ = stopped.await;
        }));
        Self { folder, path: path.to_owned(), door, stop, serving }
    }

    pub async fn stop(self) -> (tempfile::TempDir, Arc<Door>) {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap().unwrap();
        (self.folder, self.door)
    }

    pub async fn raw(&self) -> Raw {
        Raw { stream: UnixStream::connect(&self.path).await.unwrap(), frames: Frames::new() }
    }

    /// A connection that has said hello.
    pub async fn greeted(&self, name: &str, callbacks: Vec<Callback>) -> Raw {
        let mut raw = self.raw().await;
        raw.send(&hello(name, callbacks)).await;
        let Some(Frame::Answer { id: 1, result: Ok(_) }) = raw.next().await else {
            panic!("an answer to hello")
        };
        raw
    }
}

pub fn hello(name: &str, callbacks: Vec<Callback>) -> Vec<u8> {
    let hello = Hello {
        protocols: vec![1],
        name: name.into(),
        version: "1".into(),
        callbacks,
        stream: None,
    };
    Frame::request(1, "hello", hello.map())
}

/// A client of bytes.
pub struct Raw {
    pub stream: UnixStream,
    frames: Frames,
}

impl Raw {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame; `None`: the other side hung up.
    pub async fn next(&mut self) -> Option<Frame> {
        tokio::time::timeout(SOON, async {
            loop {
                if let Some(frame) = self.frames.next_frame().unwrap() {
                    return Some(frame);
                }
                match self.stream.read_buf(self.frames.buffer()).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        })
        .await
        .expect("a frame in time")
    }

    /// The next frame, read as a notice.
    pub async fn notice(&mut self) -> Notice {
        match self.next().await {
            Some(Frame::Notice { method, params }) => Notice::read(&method, &params).unwrap(),
            other => panic!("a notice, not {other:?}"),
        }
    }

    /// The next frame, read as an error answer.
    pub async fn error(&mut self) -> CallError {
        match self.next().await {
            Some(Frame::Answer { result: Err(error), .. }) => CallError::read(&error).unwrap(),
            other => panic!("an error, not {other:?}"),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "stamps what a test sends")]
pub fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_millis() as i64
}

pub fn alarm(id: u32, text: &str) -> Vec<u8> {
    let severity = protocol::service::Severity::Major;
    let call = Call::Alarm(AlarmCall::new("press-1", now_ms(), "oil", severity, text));
    Frame::request(id, "alarm", call.map())
}
