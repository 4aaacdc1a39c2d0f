//! What the snmp integrator counts of what it receives, and what it finishes when told to stop.
#![allow(clippy::unwrap_used, reason = "a test may end at what it did not expect")]

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use integrators::common::CommonArgs;
use integrators::counters::Counters;
use integrators::sink::{Call, Emitted, Receipt, Sink};
use integrators::snmp::{self, SnmpArgs};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// How long anything is waited for: far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Passes calls on, and accepts as many as it has permits for.
struct Gate {
    calls: mpsc::Sender<Call>,
    permits: Arc<Semaphore>,
    counters: Counters,
}

impl Sink for Gate {
    fn counters(&self) -> Counters {
        self.counters.clone()
    }

    fn emit(&self, call: Call) -> Emitted {
        self.calls.try_send(call).unwrap();
        let permits = self.permits.clone();
        Box::pin(async move {
            permits.acquire().await.unwrap().forget();
            Ok(Receipt { message_id: None })
        })
    }
}

fn captured(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/snmp/captured");
    std::fs::read(folder.join(name)).unwrap()
}

/// Runs an integrator while `send` is awaited with its address, its calls and their permits.
async fn with_integrator<F: Future<Output = ()>>(
    communities: &[&str],
    counters: Counters,
    send: impl FnOnce(String, mpsc::Receiver<Call>, Arc<Semaphore>, oneshot::Sender<()>) -> F,
) {
    let args = SnmpArgs {
        listen: vec!["127.0.0.1:0".to_owned()],
        community: communities.iter().map(|c| (*c).to_owned()).collect(),
        common: CommonArgs::default(),
    };
    let (calls_in, calls) = mpsc::channel(1024);
    let permits = Arc::new(Semaphore::new(0));
    let sink = Arc::new(Gate { calls: calls_in, permits: permits.clone(), counters });
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, told) = oneshot::channel();
    let ready = |pairs: &[String]| {
        ready.send(pairs[0].trim_start_matches("udp=").to_owned()).unwrap();
        Ok(())
    };
    let stop_asked = async move { stopped.await.map_err(|_| unreachable!()) };
    let running = snmp::run_until(args, sink, ready, stop_asked);
    let sending = async move { send(told.await.unwrap(), calls, permits, stop).await };
    let both = async { tokio::join!(running, sending) };
    tokio::time::timeout(PATIENCE, both).await.unwrap().0.unwrap();
}

#[tokio::test]
async fn each_datagram_is_counted_as_what_it_was() {
    let counters = Counters::default();
    with_integrator(&["public"], counters.clone(), async |address, mut calls, permits, stop| {
        permits.add_permits(100);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let send = |datagram: &[u8]| sender.send_to(datagram, &address).unwrap();
        send(b"nonsense");
        send(&captured("v1-linkdown.bin")[..40]);
        send(&captured("v3-noauth.bin"));
        let mut foreign = captured("v2c-authfail.bin");
        let at = foreign.windows(6).position(|six| six == b"public").unwrap();
        foreign[at] = b'q';
        send(&foreign);
        send(&captured("snmpd-coldstart-v1.bin"));
        send(&captured("snmpd-coldstart-v2c.bin"));
        // A linkUp without the variables that its rule names in key and text.
        let mut up = captured("snmpd-shutdown-v1.bin");
        let generic = up.windows(3).position(|three| three == [2, 1, 6]).unwrap();
        up[generic + 2] = 3;
        send(&up);
        send(&captured("v1-linkdown.bin"));
        for _ in 0..3 {
            calls.recv().await.unwrap();
        }
        stop.send(()).unwrap();
    })
    .await;
    let told = counters.told();
    let counts = (told.received, told.dropped, told.ignored, told.rule_gaps);
    assert_eq!(counts, (5, 1, 1, 2), "{told:?}");
    let reasons: Vec<_> = told.malformed.iter().map(|(r, n)| (r.as_str(), *n)).collect();
    assert_eq!(reasons, [("not_snmp", 1), ("truncated", 1), ("unsupported_version", 1)]);
}

#[tokio::test]
async fn what_was_received_before_a_stop_is_finished() {
    with_integrator(&[], Counters::default(), async |address, mut calls, permits, stop| {
        let sender = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let inform = captured("v2c-inform.bin");
        sender.send_to(&inform, &address).await.unwrap();
        calls.recv().await.unwrap();
        stop.send(()).unwrap();
        tokio::task::yield_now().await;
        permits.add_permits(1);
        let mut answer = [0; 1500];
        let length = sender.recv(&mut answer).await.unwrap();
        assert_eq!(length, inform.len());
    })
    .await;
}
