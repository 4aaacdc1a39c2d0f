//! The load: integrators that pipeline frames of the socket's protocol, encoded beforehand, so
//! that the client is not what is measured.
use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use protocol::{
    limits::WINDOW,
    service::Severity,
    socket::{
        Call, CallError, EventCall, Frame, Frames, Hello, HelloAnswer, InstanceCall, Notice,
        PROTOCOL, Registered, STREAM_BYTES,
    },
};

/// Instances of an integrator.
const INSTANCES: usize = 7;
/// Calls written at once.
const CHUNK: usize = 256;
/// Numbers that stand in the encoded frames until they are patched; both fill their full width.
const ID_MARK: u32 = 0xfedc_ba98;
const SEQ_MARK: u64 = 0xfedc_ba98_7654_3210;
/// How long anything may take that is not the load itself.
const WITHIN: Duration = Duration::from_secs(60);

/// A frame with two blanks.
struct Template {
    frame: Vec<u8>,
    id_at: usize,
    seq_at: usize,
}

/// One integrator.
pub struct Integrator {
    stream: UnixStream,
    frames: Frames,
    templates: Vec<Template>,
    id: u32,
    seq: u64,
    /// Results that were not `stored`.
    pub other: u64,
}

/// How fast and how long.
#[derive(Clone, Copy)]
pub struct Plan {
    pub started: Instant,
    pub time: Duration,
    /// Calls a second of one integrator; 0: as fast as it goes.
    pub rate: f64,
}

fn template(instance: &str, bytes: usize) -> Template {
    let now = jiff::Timestamp::now().as_millisecond();
    let mut event = EventCall::new(instance, now, "load", Severity::Information, "");
    event.data = Bytes::from(vec![0x5a; bytes]);
    event.encoding = "application/octet-stream".to_owned();
    event.seq = Some(SEQ_MARK);
    let frame = Frame::request(ID_MARK, "event", Call::Event(event).map());
    let find = |mark: &[u8]| frame.windows(mark.len()).position(|w| w == mark).expect("a mark");
    let (id_at, seq_at) = (find(&ID_MARK.to_be_bytes()), find(&SEQ_MARK.to_be_bytes()));
    Template { frame, id_at, seq_at }
}

impl Integrator {
    /// Connects, waits until it is registered, and names its instances.
    pub fn connect(socket: &Path, name: &str, bytes: usize) -> Self {
        let stream = UnixStream::connect(socket).expect("a socket");
        let names: Vec<String> = (0..INSTANCES).map(|n| format!("{name}-{n}")).collect();
        let templates = names.iter().map(|n| template(n, bytes)).collect();
        let frames = Frames::new();
        let mut own = Self { stream, frames, templates, id: 0, seq: 0, other: 0 };
        let mut id = [0; STREAM_BYTES];
        getrandom::fill(&mut id).expect("random bytes");
        let hello = Hello {
            protocols: vec![PROTOCOL],
            name: name.to_owned(),
            version: "1".to_owned(),
            callbacks: Vec::new(),
            stream: Some(id),
        };
        let answer = own.ask("hello", hello.map());
        let answer = HelloAnswer::read(&answer).expect("an answer to hello");
        let until = Instant::now() + WITHIN;
        let mut state = answer.registration;
        while state != Registered::Registered {
            assert!(Instant::now() < until, "{name} is not registered in time");
            if let Frame::Notice { method, params } = own.frame(until)
                && let Ok(Notice::Registration(now)) = Notice::read(&method, &params)
            {
                state = now;
            }
        }
        for instance in names {
            let call = Call::Instance(InstanceCall { instance, capabilities: None });
            own.ask("instance", call.map());
        }
        own
    }

    fn ask(&mut self, method: &str, params: protocol::socket::Map) -> Bytes {
        self.id += 1;
        self.stream.write_all(&Frame::request(self.id, method, params)).expect("written");
        let until = Instant::now() + WITHIN;
        loop {
            if let Frame::Answer { id, result } = self.frame(until)
                && id == self.id
            {
                return result.unwrap_or_else(|e| panic!("{method}: {:?}", CallError::read(&e)));
            }
        }
    }

    fn frame(&mut self, until: Instant) -> Frame {
        loop {
            if let Some(frame) = self.frames.next_frame().expect("a frame") {
                return frame;
            }
            assert!(Instant::now() < until, "the proxy does not answer");
            self.read(Duration::from_millis(100));
        }
    }

    fn read(&mut self, within: Duration) {
        self.stream.set_read_timeout(Some(within)).expect("a socket");
        let mut part = [0; 64 << 10];
        match self.stream.read(&mut part) {
            Ok(0) => panic!("the proxy hung up"),
            Ok(n) => self.frames.buffer().extend_from_slice(&part[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => panic!("reading from the proxy: {e}"),
        }
    }

    /// Sends by the plan, waits for all answers; how many were stored.
    pub fn run(&mut self, plan: Plan) -> u64 {
        let (mut sent, mut open, mut stored) = (0_u64, 0_usize, 0_u64);
        let mut bytes = Vec::new();
        let mut last = Instant::now();
        loop {
            let elapsed = plan.started.elapsed();
            let sending = elapsed < plan.time;
            if !sending && open == 0 {
                return stored;
            }
            assert!(last.elapsed() < WITHIN, "the proxy does not answer");
            if sending {
                let due = match plan.rate > 0.0 {
                    true => ((elapsed.as_secs_f64() * plan.rate) as u64).saturating_sub(sent),
                    false => u64::MAX,
                };
                let count = due.min((WINDOW - open) as u64).min(CHUNK as u64);
                bytes.clear();
                (0..count).for_each(|_| self.append(&mut bytes));
                self.stream.write_all(&bytes).expect("written");
                (sent, open) = (sent + count, open + count as usize);
            }
            self.read(Duration::from_millis(1));
            while let Some(frame) = self.frames.next_frame().expect("a frame") {
                if let Frame::Answer { result, .. } = frame {
                    (open, last) = (open - 1, Instant::now());
                    match result {
                        Ok(map) if map.windows(6).any(|w| w == b"stored") => stored += 1,
                        _ => self.other += 1,
                    }
                }
            }
        }
    }

    fn append(&mut self, to: &mut Vec<u8>) {
        self.seq += 1;
        self.id = self.id.wrapping_add(1);
        let template = &self.templates[self.seq as usize % self.templates.len()];
        let at = to.len();
        to.extend_from_slice(&template.frame);
        to[at + template.id_at..][..4].copy_from_slice(&self.id.to_be_bytes());
        to[at + template.seq_at..][..8].copy_from_slice(&self.seq.to_be_bytes());
    }

    /// One call, and its answer.
    pub fn call(&mut self) {
        let mut bytes = Vec::new();
        self.append(&mut bytes);
        let id = self.id;
        self.stream.write_all(&bytes).expect("written");
        let until = Instant::now() + WITHIN;
        loop {
            match self.frame(until) {
                Frame::Answer { id: of, result } if of == id => {
                    return drop(result.expect("stored"));
                }
                _ => {}
            }
        }
    }
}
