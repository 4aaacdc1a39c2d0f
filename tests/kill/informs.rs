//! A sender of SNMP informs that knows which were answered: what is answered is on a disk.
use std::{
    collections::BTreeMap,
    net::UdpSocket,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The rule that makes an event of each.
pub const RULES: &str = "format = 1\nkind = \"snmp\"\n\
    [names]\nloadText = \"1.3.6.1.4.1.8072.2.3.2.2\"\n\
    [[rule]]\nid = \"load/inform\"\nmatch = { trap = \"1.3.6.1.4.1.8072.2.3.0.1\" }\n\
    becomes = \"event\"\nseverity = \"minor\"\ntext = \"{loadText}\"\n";

/// Informs that wait for their answers at once.
const OPEN_MAX: usize = 128;
/// An inform without an answer is sent again after that, as net-snmp does.
const AGAIN: Duration = Duration::from_secs(1);

const UPTIME: &[u8] = &[0x2b, 6, 1, 2, 1, 1, 3, 0];
const TRAP_OID: &[u8] = &[0x2b, 6, 1, 6, 3, 1, 1, 4, 1, 0];
const TRAP: &[u8] = &[0x2b, 6, 1, 4, 1, 0xbf, 8, 2, 3, 0, 1];
const TEXT: &[u8] = &[0x2b, 6, 1, 4, 1, 0xbf, 8, 2, 3, 2, 2];

/// One that was answered.
pub struct Answered {
    pub text: String,
    /// Whether the integrator was killed between its first sending and its answer: the one that
    /// died may have had it stored, and the next one cannot know.
    pub met_a_kill: bool,
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 128, "short form");
    [&[tag, content.len() as u8], content].concat()
}

fn binding(oid: &[u8], value: Vec<u8>) -> Vec<u8> {
    tlv(0x30, &[tlv(6, oid), value].concat())
}

/// The datagram of an inform. Its id stands in four bytes, so that an answer's is found.
fn inform(id: u32, text: &str) -> Vec<u8> {
    let bindings = [
        binding(UPTIME, tlv(0x43, &[1])),
        binding(TRAP_OID, tlv(6, TRAP)),
        binding(TEXT, tlv(4, text.as_bytes())),
    ];
    let id = tlv(2, &id.to_be_bytes());
    let pdu = [id, tlv(2, &[0]), tlv(2, &[0]), tlv(0x30, &bindings.concat())].concat();
    tlv(0x30, &[tlv(2, &[1]), tlv(4, b"public"), tlv(0xa6, &pdu)].concat())
}

/// The id of an answer: behind version, community and the head of the response.
fn answered(datagram: &[u8]) -> Option<u32> {
    let at = 2 + 3 + 8 + 2;
    let is_response = datagram.get(at - 2) == Some(&0xa2);
    let id: [u8; 4] = datagram.get(at + 2..at + 6)?.try_into().ok()?;
    is_response.then_some(u32::from_be_bytes(id))
}

struct Open {
    text: String,
    bytes: Vec<u8>,
    life: usize,
    sent_at: Instant,
}

/// Sends `rate` informs a second until told to stop, and each again until it is answered. `lives`
/// is raised before each kill of the integrator.
pub fn send(
    to: String,
    rate: u64,
    stop: Arc<AtomicBool>,
    lives: Arc<AtomicUsize>,
) -> JoinHandle<Vec<Answered>> {
    std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(5))).expect("a socket");
        let (started, mut next) = (Instant::now(), 0_u64);
        let mut open: BTreeMap<u32, Open> = BTreeMap::new();
        let mut done = Vec::new();
        while !stop.load(Ordering::Relaxed) || !open.is_empty() {
            let due = started.elapsed().as_millis() as u64 * rate / 1000;
            while next < due && open.len() < OPEN_MAX && !stop.load(Ordering::Relaxed) {
                let (id, text) = (0x0100_0000 + next as u32, format!("i{next}"));
                let bytes = inform(id, &text);
                let life = lives.load(Ordering::SeqCst);
                let _ = socket.send_to(&bytes, &to);
                open.insert(id, Open { text, bytes, life, sent_at: Instant::now() });
                next += 1;
            }
            for waiting in open.values_mut().filter(|open| open.sent_at.elapsed() > AGAIN) {
                waiting.sent_at = Instant::now();
                let _ = socket.send_to(&waiting.bytes, &to);
            }
            let mut answer = [0; 1500];
            let Ok((length, _)) = socket.recv_from(&mut answer) else { continue };
            // An answer to a repeat finds it gone.
            let id = answered(&answer[..length]);
            let Some(open) = id.and_then(|id| open.remove(&id)) else { continue };
            let met_a_kill = lives.load(Ordering::SeqCst) > open.life;
            done.push(Answered { text: open.text, met_a_kill });
        }
        done
    })
}

/// The same by net-snmp's own `snmpinform`, one after the other.
pub fn send_by_net_snmp(
    to: String,
    stop: Arc<AtomicBool>,
    lives: Arc<AtomicUsize>,
) -> JoinHandle<Vec<Answered>> {
    std::thread::spawn(move || {
        let mut done = Vec::new();
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let (text, life) = (format!("j{n}"), lives.load(Ordering::SeqCst));
            let mut command = Command::new("snmpinform");
            command.env("MIBS", "").args(["-v", "2c", "-c", "public", "-r", "60", "-t", "1", &to]);
            command.args(["", "1.3.6.1.4.1.8072.2.3.0.1", "1.3.6.1.4.1.8072.2.3.2.2", "s", &text]);
            let output = command.output().expect("snmpinform runs: apt-get install snmp");
            assert!(output.status.success(), "{}", super::sandbox::text(&output.stderr));
            let met_a_kill = lives.load(Ordering::SeqCst) > life;
            done.push(Answered { text, met_a_kill });
            std::thread::sleep(Duration::from_millis(500));
        }
        done
    })
}
