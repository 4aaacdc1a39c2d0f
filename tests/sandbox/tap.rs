//! Listens on the wire between two nodes: passes every byte on, keeps what the child sends.
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use protocol::{
    Message, codec::Reader, exchange::Exchange, heartbeat::Heartbeat, message::Messages,
};

/// Bytes of the child, a connection each.
type Heard = Arc<Mutex<Vec<Arc<Mutex<Vec<u8>>>>>>;

/// A relay to a port of this machine; it ends with the test's process.
pub struct Tap {
    pub port: u16,
    heard: Heard,
}

impl Tap {
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let heard = Heard::default();
        let keep = heard.clone();
        std::thread::spawn(move || {
            for child in listener.incoming().flatten() {
                let Ok(parent) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let kept = Arc::<Mutex<Vec<u8>>>::default();
                keep.lock().expect("kept").push(kept.clone());
                let (from, to) = (child.try_clone().expect("up"), parent.try_clone().expect("up"));
                std::thread::spawn(move || pass(from, to, Some(&kept)));
                std::thread::spawn(move || pass(parent, child, None));
            }
        });
        Self { port: own, heard }
    }

    /// All exchanges so far, whole ones, each connection in its order.
    pub fn exchanges(&self) -> Vec<Exchange> {
        let connections: Vec<_> = self.heard.lock().expect("kept").clone();
        let bodies = connections.iter().flat_map(|kept| bodies(&kept.lock().expect("kept")));
        bodies.filter_map(|body| Exchange::decode(&body.into()).ok()).collect()
    }

    /// All messages so far.
    pub fn messages(&self) -> Vec<Message> {
        let mut all = Vec::new();
        for run in self.exchanges().into_iter().flat_map(|exchange| exchange.runs) {
            for message in Messages::of(&run.messages) {
                let (range, _) = message.expect("a message on the wire");
                all.push(Message::decode(&run.messages[range]).expect("a whole message"));
            }
        }
        all
    }

    /// All heartbeats so far.
    pub fn heartbeats(&self) -> Vec<Heartbeat> {
        let beats = self.exchanges().into_iter().flat_map(|exchange| exchange.beats);
        beats.map(|beat| Heartbeat::read(&mut Reader::new(&beat)).expect("a heartbeat")).collect()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, kept: Option<&Mutex<Vec<u8>>>) {
    let mut part = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut part) {
        if let Some(kept) = kept {
            kept.lock().expect("kept").extend_from_slice(&part[..count]);
        }
        if to.write_all(&part[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Bodies of the requests of one connection, as far as they are whole.
fn bodies(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
        let Some(body) = bytes.get(end + 4..end + 4 + length) else { break };
        all.push(body.to_vec());
        bytes = &bytes[end + 4 + length..];
    }
    all
}
