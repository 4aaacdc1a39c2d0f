//! Processes are killed under load, nodes and integrators: nothing accepted is lost, nothing is
//! stored twice.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

#[path = "kill/informs.rs"]
mod informs;
#[path = "kill/load.rs"]
mod load;
mod sandbox;

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use load::Load;
use sandbox::{LONG, Process, chain::Chain, told, wait_for, wait_within};

/// Messages a second of the load: calls of an integrator with a spill, informs, and lines.
const RATES: [u64; 3] = [600, 250, 150];
/// Who is killed in turn: four nodes, then three integrators.
const VICTIMS: usize = 7;
const SNMP: usize = 4;
const SYSLOG: usize = 5;

const PROXY: usize = 0;
const MLM: usize = 1;
/// How soon the MLM is back in flow: three times the goal, the machine may be busy.
const BACK_WITHIN: Duration = Duration::from_secs(3 * 2);

/// Kills of a run: a thousand with `CALLHOME_FULL`, fewer in the daily one.
fn kills() -> usize {
    if std::env::var_os("CALLHOME_FULL").is_some() { 1000 } else { 28 }
}

/// One of the shipped integrators, killed and started again at the same address.
struct Collector {
    arguments: Vec<String>,
    process: Option<Process>,
    to: String,
}

impl Collector {
    fn start(chain: &Chain, kind: &str, listen: &str, rules: &str) -> Self {
        let folder = &chain.nodes[0].folder;
        let file = folder.join(format!("{kind}.toml"));
        std::fs::write(&file, rules).expect("written");
        let free = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let to = free.local_addr().expect("an address").to_string();
        drop(free);
        let (socket, spill) = (chain.socket(), folder.join("spill"));
        let path = |path: &std::path::Path| path.display().to_string();
        let words = ["integrator", kind, "--socket", &path(&socket), "--spill", &path(&spill)];
        let more = ["--rules", &path(&file), listen, &to, "--log", "error"];
        let arguments = words.iter().chain(&more).map(|word| (*word).to_owned()).collect();
        let mut collector = Self { arguments, process: None, to };
        collector.kill();
        collector
    }

    /// KILL, then started again.
    fn kill(&mut self) {
        self.process = None;
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.process = Some(Process::start(&arguments));
    }
}

const LINES: &str = "format = 1\nkind = \"syslog\"\n\n[[rule]]\nid = \"load/line\"\n\
    match = { app = \"load\" }\nbecomes = \"event\"\nseverity = \"minor\"\ntext = \"{text}\"\n";

/// Sends numbered lines by UDP, which nobody acknowledges; returns how many.
fn lines(to: String, rate: u64, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (started, mut next) = (Instant::now(), 0);
        while !stop.load(Ordering::Relaxed) {
            let due = started.elapsed().as_millis() as u64 * rate / 1000;
            while next < due {
                let line = format!("<13>1 - web1 load - - - s{next}");
                let _ = socket.send_to(line.as_bytes(), &to);
                next += 1;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        next
    })
}

/// Waits until nothing is under way: spills and queues are empty.
fn settle(chain: &Chain, within: Duration) {
    wait_within(within, "the spills to be empty", || {
        let metrics = chain.operator(0, "/metrics");
        let lines = metrics.lines().filter(|l| l.starts_with("callhome_integrator_spill_bytes{"));
        let spills: Vec<&str> = lines.collect();
        (spills.len() >= 2 && spills.iter().all(|line| line.ends_with(" 0"))).then_some(())
    });
    told::settle(chain, within);
}

/// Kills the MLM; how long until it is back in flow, its start included: until the first message
/// that it acknowledges to the proxy once it says that it serves. What it acknowledged before it
/// died is counted by then.
fn kill_mlm(chain: &mut Chain) -> Duration {
    let killed = Instant::now();
    chain.kill(MLM);
    let delivered = |chain: &Chain| -> u64 {
        let metrics = chain.operator(PROXY, "/metrics");
        let line = metrics.lines().find(|l| l.starts_with("callhome_ledger_delivered_total{"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0) as u64
    };
    let before = delivered(chain);
    wait_for("the MLM to be back in flow", || (delivered(chain) > before).then_some(()));
    killed.elapsed()
}

// QUE-2, MLM-2 (plain HTTP), MLM-3, IPC-1: what was accepted survives kills of every tier and of
// integrators, once each, and the accounts balance.
#[test]
fn kills_over_all_tiers_and_integrators_lose_nothing_and_double_nothing() {
    let mut chain = Chain::start("");
    let mut snmp = Collector::start(&chain, "snmp", "--listen", informs::RULES);
    let mut syslog = Collector::start(&chain, "syslog", "--listen-udp", LINES);
    let folder = tempfile::tempdir().unwrap();
    let mut load = Load::start(folder.path(), &chain.socket(), RATES[0]);
    let (stop, lives) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let informing = informs::send(snmp.to.clone(), RATES[1], stop.clone(), lives.clone());
    let net_snmp = informs::send_by_net_snmp(snmp.to.clone(), stop.clone(), lives.clone());
    let lining = lines(syslog.to.clone(), RATES[2], stop.clone());
    wait_for("the first messages", || (told::stored(&chain).len() > 100).then_some(()));
    let (started, mut back) = (Instant::now(), Vec::new());
    for kill in 0..kills() {
        std::thread::sleep(Duration::from_millis(150));
        match kill % VICTIMS {
            SNMP => {
                lives.fetch_add(1, Ordering::SeqCst);
                snmp.kill();
            }
            SYSLOG => syslog.kill(),
            MLM => back.push(kill_mlm(&mut chain)),
            node if node < SNMP => chain.kill(node),
            _ => load.kill(),
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let mut answered = informing.join().expect("the informs end");
    answered.extend(net_snmp.join().expect("snmpinform ends"));
    let lines = lining.join().expect("the lines end");
    let accepted = load.finish();
    // The more was sent, the longer it takes.
    let within = LONG + started.elapsed();
    settle(&chain, within);
    let wanted: Vec<String> =
        accepted.iter().chain(answered.iter().map(|a| &a.text)).cloned().collect();
    let texts = told::all_of(&chain, within, &wanted);
    settle(&chain, within);
    let twice: Vec<_> = texts.iter().filter(|(_, copies)| **copies > 1).collect();
    assert!(twice.is_empty(), "stored more than once: {} such as {:?}", twice.len(), twice[0]);
    let met_kills = answered.iter().filter(|a| a.met_a_kill).count();
    assert!(met_kills > 0, "no inform was under way when its integrator was killed");
    let of = |first: char| texts.keys().filter(|text| text.starts_with(first)).count();
    assert!(of('s') > 0, "some lines arrive");
    println!(
        "{} kills in {seconds:.0} s: {} calls and {} informs accepted, {} of {lines} lines arrived \
        by UDP, {} stored; 0 lost, 0 twice, {met_kills} informs met a kill of the integrator",
        kills(),
        accepted.len(),
        answered.len(),
        of('s'),
        texts.len(),
    );
    back.sort_unstable();
    let at = |share: usize| back[(back.len() * share).div_ceil(100).max(1) - 1];
    let (median, p99, longest) = (at(50), at(99), at(100));
    println!("the MLM back in flow after {median:.1?}, {p99:.1?} p99, {longest:.1?} at most");
    assert!(p99 <= BACK_WITHIN, "{p99:?}");
}
