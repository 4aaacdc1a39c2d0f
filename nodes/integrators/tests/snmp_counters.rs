//! What the snmp integrator counts of what it receives, and what it finishes when told to stop.
#![allow(clippy::unwrap_used, reason = "a test may end at what it did not expect")]

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use integrators::common::CommonArgs;
use integrators::sink::{Call, Emitted, Receipt, Sink};
use integrators::snmp::{self, SnmpArgs};
use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// How long anything is waited for: far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// The sums of all counters, by name and labels.
#[derive(Clone, Default)]
struct Sums(Arc<Mutex<BTreeMap<String, u64>>>);

struct One {
    name: String,
    sums: Sums,
}

impl CounterFn for One {
    fn increment(&self, value: u64) {
        *self.sums.0.lock().unwrap().entry(self.name.clone()).or_default() += value;
    }

    fn absolute(&self, value: u64) {
        self.sums.0.lock().unwrap().insert(self.name.clone(), value);
    }
}

impl metrics::Recorder for Sums {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
        let name = format!("{}{}", key.name(), labels.collect::<String>());
        Counter::from_arc(Arc::new(One { name, sums: self.clone() }))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// Passes calls on, and accepts as many as it has permits for.
struct Gate(mpsc::Sender<Call>, Arc<Semaphore>);

impl Sink for Gate {
    fn emit(&self, call: Call) -> Emitted {
        self.0.try_send(call).unwrap();
        let permits = self.1.clone();
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
    send: impl FnOnce(String, mpsc::Receiver<Call>, Arc<Semaphore>, oneshot::Sender<()>) -> F,
) {
    let args = SnmpArgs {
        listen: vec!["127.0.0.1:0".to_owned()],
        community: communities.iter().map(|c| (*c).to_owned()).collect(),
        common: CommonArgs::default(),
    };
    let (calls_in, calls) = mpsc::channel(1024);
    let permits = Arc::new(Semaphore::new(0));
    let sink = Arc::new(Gate(calls_in, permits.clone()));
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
    let sums = Sums::default();
    let _recording = metrics::set_default_local_recorder(&sums);
    with_integrator(&["public"], async |address, mut calls, permits, stop| {
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
    let sums = sums.0.lock().unwrap().clone();
    let count = |name: &str| {
        let full = format!("callhome_integrator_{name}");
        sums.get(&full).copied().unwrap_or_default()
    };
    assert_eq!(count("received_total integrator=snmp"), 5);
    assert_eq!(count("dropped_total integrator=snmp"), 1);
    assert_eq!(count("ignored_total integrator=snmp"), 1);
    assert_eq!(count("rule_gaps_total integrator=snmp"), 2);
    for reason in ["not_snmp", "truncated", "unsupported_version"] {
        let name = format!("malformed_total integrator=snmp reason={reason}");
        assert_eq!(count(&name), 1, "{name} of {sums:?}");
    }
}

#[tokio::test]
async fn what_was_received_before_a_stop_is_finished() {
    with_integrator(&[], async |address, mut calls, permits, stop| {
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
