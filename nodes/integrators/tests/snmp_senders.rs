//! Real senders, net-snmp's snmptrap, snmpinform and snmpd, against the snmp integrator.
#![allow(clippy::unwrap_used, reason = "a test may end at what it did not expect")]

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use integrators::common::{CommonArgs, IntegratorError};
use integrators::proxy::ProxySink;
use integrators::sink::{Call, Emitted, Receipt, Refused, Sink, What};
use integrators::snmp::{self, SnmpArgs, sockets};
use protocol::Refusal;
use protocol::service::{Alarm, State};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// How long a sender or a call is waited for: far beyond what either takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps the calls for the test, and accepts each only when the test lets it.
struct Recorder {
    calls: mpsc::Sender<Call>,
    /// A permit for each call that may be accepted.
    may_accept: Arc<Semaphore>,
    /// Whether they are refused for ever instead.
    refuses: bool,
}

impl Sink for Recorder {
    fn emit(&self, call: Call) -> Emitted {
        self.calls.try_send(call).unwrap();
        let (may_accept, refuses) = (self.may_accept.clone(), self.refuses);
        Box::pin(async move {
            may_accept.acquire().await.unwrap().forget();
            match refuses {
                true => Err(Refused { refusal: Refusal::Denied, detail: String::new() }),
                false => Ok(Receipt { message_id: None }),
            }
        })
    }
}

/// An snmp integrator that runs, and what it told its sink.
struct Running {
    address: SocketAddr,
    calls: mpsc::Receiver<Call>,
    may_accept: Arc<Semaphore>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), IntegratorError>>,
}

impl Running {
    async fn start(listen: &str, communities: &[&str], refuses: bool) -> Self {
        let (calls_in, calls) = mpsc::channel(1024);
        let may_accept = Arc::new(Semaphore::new(0));
        let recorder = Recorder { calls: calls_in, may_accept: may_accept.clone(), refuses };
        let running = Self::with(Arc::new(recorder), listen, communities).await;
        Self { calls, may_accept, ..running }
    }

    /// One that tells `sink`; it has no calls of its own.
    async fn with(sink: Arc<dyn Sink>, listen: &str, communities: &[&str]) -> Self {
        let (_, calls) = mpsc::channel(1);
        let may_accept = Arc::new(Semaphore::new(0));
        let args = SnmpArgs {
            listen: vec![listen.to_owned()],
            community: communities.iter().map(|c| (*c).to_owned()).collect(),
            common: CommonArgs::default(),
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, told) = oneshot::channel();
        let task = tokio::spawn(async move {
            let ready = |pairs: &[String]| {
                ready.send(pairs.to_vec()).unwrap();
                Ok(())
            };
            let stop = async move { stopped.await.map_err(|_| unreachable!()) };
            snmp::run_until(args, sink, ready, stop).await
        });
        let pairs = tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
        let address = pairs[0].strip_prefix("udp=").unwrap().parse().unwrap();
        Self { address, calls, may_accept, stop, task }
    }

    /// One that accepts everything.
    async fn accepting(listen: &str) -> Self {
        let running = Self::start(listen, &[], false).await;
        running.may_accept.add_permits(1000);
        running
    }

    async fn call(&mut self) -> Call {
        let call = tokio::time::timeout(PATIENCE, self.calls.recv()).await;
        call.expect("no call came").expect("the integrator ended")
    }

    async fn alarm(&mut self) -> (String, Alarm) {
        let call = self.call().await;
        match call.what {
            What::Alarm(alarm) => (call.instance, alarm),
            other => panic!("{other:?} is no alarm"),
        }
    }

    /// Stops it; the calls that were still there.
    async fn end(mut self) -> Vec<Call> {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
        let mut rest = Vec::new();
        while let Ok(call) = self.calls.try_recv() {
            rest.push(call);
        }
        rest
    }

    /// `127.0.0.1:PORT` or `udp6:[::1]:PORT`, as net-snmp takes it.
    fn target(&self) -> String {
        match self.address {
            SocketAddr::V4(address) => address.to_string(),
            SocketAddr::V6(address) => format!("udp6:{address}"),
        }
    }
}

/// Runs one of net-snmp's tools. `MIBS` is empty: names are not wanted, only numbers.
async fn tool(program: &'static str, words: Vec<String>) -> Output {
    let run = move || {
        Command::new(program).env("MIBS", "").args(words).output().unwrap_or_else(|error| {
            panic!("{program} cannot be run ({error}): apt-get install snmp snmpd")
        })
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

const LINK_DOWN: &str = "1.3.6.1.6.3.1.1.5.3";
const IF_INDEX_7: &str = "1.3.6.1.2.1.2.2.1.1.7 i 7 1.3.6.1.2.1.2.2.1.2.7 s eth7";

// EXT-2
#[tokio::test]
async fn trap_of_each_version_becomes_an_alarm_with_its_oid_as_the_type() {
    let mut running = Running::accepting("127.0.0.1:0").await;
    let target = running.target();
    let v2c = format!("-v 2c -c public {target} 4711 {LINK_DOWN} {IF_INDEX_7}");
    assert!(tool("snmptrap", words(&v2c)).await.status.success());
    let (instance, alarm) = running.alarm().await;
    assert_eq!((instance.as_str(), alarm.key.as_str()), ("127.0.0.1", "7"));
    assert_eq!((alarm.kind.as_str(), alarm.state), (LINK_DOWN, State::Opened));
    assert_eq!(alarm.text, "interface eth7 is down");
    assert_eq!(alarm.severity.word(), "major");
    assert_eq!(alarm.payload.encoding, "application/json");
    let data = r#"[["1.3.6.1.2.1.2.2.1.1.7","i","7"],["1.3.6.1.2.1.2.2.1.2.7","s","eth7"]]"#;
    assert_eq!(alarm.payload.data, data);
    let v1 = format!("-v 1 -c public {target} 1.3.6.1.4.1.9.1 192.0.2.2 2 0 99 {IF_INDEX_7}");
    assert!(tool("snmptrap", words(&v1)).await.status.success());
    let (instance, alarm) = running.alarm().await;
    assert_eq!((instance.as_str(), alarm.kind.as_str()), ("192.0.2.2", LINK_DOWN));
    let up = format!("-v 2c -c public {target} 4800 1.3.6.1.6.3.1.1.5.4 {IF_INDEX_7}");
    assert!(tool("snmptrap", words(&up)).await.status.success());
    let (_, alarm) = running.alarm().await;
    assert_eq!((alarm.kind.as_str(), alarm.state), (LINK_DOWN, State::Closed));
    assert_eq!(running.end().await, []);
}

// EXT-2
#[tokio::test]
async fn inform_is_answered_only_when_what_it_says_is_accepted() {
    let mut running = Running::start("127.0.0.1:0", &[], false).await;
    let target = running.target();
    let inform = format!("-v 2c -c public -r 0 -t 1 {target} 4711 {LINK_DOWN} {IF_INDEX_7}");
    let unanswered = tool("snmpinform", words(&inform)).await;
    assert!(!unanswered.status.success(), "answered before it was accepted");
    running.call().await;
    // The same again, as snmpinform does by itself; accepted after its first attempt.
    let inform = format!("-v 2c -c public -r 5 -t 1 {target} 4712 {LINK_DOWN} {IF_INDEX_7}");
    let sender = tokio::spawn(tool("snmpinform", words(&inform)));
    running.call().await;
    running.may_accept.add_permits(1000);
    let answered = sender.await.unwrap();
    assert!(answered.status.success(), "{answered:?}");
    assert_eq!(running.end().await, [], "a repeated inform is one message");
}

#[tokio::test]
async fn inform_that_is_refused_for_ever_is_not_answered() {
    let mut running = Running::start("127.0.0.1:0", &[], true).await;
    running.may_accept.add_permits(1000);
    let inform =
        format!("-v 2c -c public -r 0 -t 1 {} 4711 {LINK_DOWN} {IF_INDEX_7}", running.target());
    assert!(!tool("snmpinform", words(&inform)).await.status.success());
    running.call().await;
    assert_eq!(running.end().await, []);
}

#[tokio::test]
async fn inform_over_ipv6_is_answered() {
    let mut running = Running::accepting("[::1]:0").await;
    let inform = format!("-v 2c -c public {} 4711 {LINK_DOWN} {IF_INDEX_7}", running.target());
    let answered = tool("snmpinform", words(&inform)).await;
    assert!(answered.status.success(), "{answered:?}");
    assert_eq!(running.call().await.instance, "::1");
    assert_eq!(running.end().await, []);
}

#[tokio::test]
async fn same_trap_in_two_versions_is_one_alarm() {
    let mut running = Running::accepting("127.0.0.1:0").await;
    let captured = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/snmp/captured");
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for version in ["v1", "v2c"] {
        let datagram = std::fs::read(captured.join(format!("snmpd-authfail-{version}.bin")));
        sender.send_to(&datagram.unwrap(), running.address).unwrap();
    }
    // Behind these another, so that the second of the pair has surely been handled.
    let last = std::fs::read(captured.join("v1-linkdown.bin")).unwrap();
    sender.send_to(&last, running.address).unwrap();
    assert_eq!(running.alarm().await.1.kind, "1.3.6.1.6.3.1.1.5.5");
    assert_eq!(running.alarm().await.1.kind, LINK_DOWN);
    assert_eq!(running.end().await, []);
}

#[tokio::test]
async fn trap_with_a_community_not_allowed_and_malformed_datagrams_go_no_further() {
    let mut running = Running::start("127.0.0.1:0", &["secret"], false).await;
    running.may_accept.add_permits(1000);
    let target = running.target();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for datagram in [&b""[..], b"GET / HTTP/1.1\r\n", &[0x30, 0x82, 0xff, 0xff, 0x02]] {
        sender.send_to(datagram, running.address).unwrap();
    }
    for community in ["public", "secret"] {
        let trap = format!("-v 2c -c {community} {target} 1 1.3.6.1.6.3.1.1.5.1");
        assert!(tool("snmptrap", words(&trap)).await.status.success());
    }
    assert!(matches!(running.call().await.what, What::Event(_)));
    assert_eq!(running.end().await, []);
}

// EXT-2
#[tokio::test]
async fn agent_that_starts_and_stops_is_told_once_each() {
    let mut running = Running::accepting("127.0.0.1:0").await;
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("snmpd.conf");
    let target = running.target();
    let text = format!(
        "rocommunity public\nagentaddress udp:127.0.0.1:0\ntrapsink {target} public\n\
         trap2sink {target} public\n"
    );
    std::fs::write(&configuration, text).unwrap();
    let mut agent = Command::new("snmpd")
        .env("MIBS", "")
        .env("SNMP_PERSISTENT_DIR", folder.path())
        .args(["-f", "-Ln", "-C", "-c"])
        .arg(&configuration)
        .spawn()
        .expect("snmpd cannot be run: apt-get install snmp snmpd");
    let started = running.call().await;
    let pid = agent.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let stopped = running.call().await;
    tokio::task::spawn_blocking(move || agent.wait()).await.unwrap().unwrap();
    let kinds = [started, stopped].map(|call| match call.what {
        What::Event(event) => event.kind,
        other => panic!("{other:?} is no event"),
    });
    assert_eq!(kinds, ["1.3.6.1.6.3.1.1.5.1", "1.3.6.1.4.1.8072.4.0.2"]);
    assert_eq!(running.end().await, []);
}

#[tokio::test]
async fn address_in_use_is_told_with_what_to_do() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = sockets::bind_all(&[address]).await.unwrap_err();
    assert_eq!(error.exit_code(), 69);
    assert!(error.help().unwrap().contains("--listen"));
    let error = sockets::bind_all(&["nonsense".to_owned()]).await.unwrap_err();
    assert_eq!(error.exit_code(), 78);
}

/// Whatever a sink keeps by itself, with a connection that is claimed so that `ready` is said.
struct Unconnected(Arc<ProxySink>);

impl Sink for Unconnected {
    fn emit(&self, call: Call) -> Emitted {
        self.0.emit(call)
    }
}

#[tokio::test]
async fn inform_is_answered_out_of_the_spill_while_no_proxy_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nobody.sock");
    let spill = folder.path().join("spill");
    let sink = ProxySink::open_at(socket, "snmp", Some(&spill), folder.path()).unwrap();
    let running = Running::with(Arc::new(Unconnected(sink.clone())), "127.0.0.1:0", &[]).await;
    let target = running.target();
    let inform = format!("-v 2c -c public -r 0 -t 10 {target} 4711 {LINK_DOWN} {IF_INDEX_7}");
    let answered = tool("snmpinform", words(&inform)).await;
    assert!(answered.status.success(), "{answered:?}");
    running.end().await;
    assert!(sink.close(Duration::from_secs(30)).await, "what is in the spill holds nobody up");
    assert!(std::fs::read_dir(&spill).unwrap().next().is_some());
}

// The sender of an inform repeats it to whichever process it finds: each makes the same of it, so
// that the proxy knows it again. A trap is not repeated, so two that look alike are two.
#[tokio::test]
async fn inform_is_the_same_call_to_the_next_process_and_a_trap_is_not() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/snmp/captured");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let (inform, trap) = (read("v2c-inform.bin"), read("v2c-authfail.bin"));
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let mut running = Running::accepting("127.0.0.1:0").await;
        for (socket, datagram) in [(&sender, &inform), (&sender, &trap), (&other, &inform)] {
            socket.send_to(datagram, running.address).unwrap();
            keys.push(running.call().await.once);
        }
        assert_eq!(running.end().await, []);
    }
    let [first, trap, other, again, trap_again, other_again] = &keys[..] else { panic!() };
    assert!(first.is_some() && first == again, "{keys:?}");
    assert_eq!((trap, trap_again), (&None, &None));
    assert!(other.is_some() && other == other_again && first != other, "{keys:?}");
}
