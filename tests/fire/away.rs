//! A parent is away for many messages.
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use integrator_api::{Call, Client, EventCall, MessageId, Options, Precedence, Qos, Severity};

use crate::{
    full,
    sandbox::{LONG, chain::Chain, told, wait_for},
};

const PROXY: usize = 0;
const MLM: usize = 1;
/// Most memory of the proxy, KiB: three times 64 MiB.
const MEMORY_KIB_MAX: u64 = 3 * (64 << 10);
/// Calls that wait for their answers at once.
const OPEN_MAX: usize = 2000;
/// Messages a second that arrive at least once the parent is back, on a busy machine.
const ARRIVE_PER_S_MIN: u64 = 500;

/// How many it is away for: an hour at a thousand a second, or a part of that.
fn messages() -> u64 {
    if full() { 3_600_000 } else { 100_000 }
}

fn event(text: &str, precedence: Precedence) -> Call {
    let at = jiff::Timestamp::now().as_millisecond();
    let qos = Qos { precedence: Some(precedence), ..Qos::default() };
    Call::Event(EventCall { qos, ..EventCall::new("host-1", at, "t", Severity::Minor, text) })
}

fn accepted(client: &Client, text: &str, precedence: Precedence) -> MessageId {
    let answer = client.send(event(text, precedence)).wait().expect("accepted");
    answer.message_id().expect("an id")
}

/// Sends `count` numbered events and waits for the answers; each is accepted.
fn send(client: &Client, count: u64) {
    let mut open = VecDeque::new();
    for n in 0..count {
        open.push_back(client.send(event(&format!("a{n}"), Precedence::Normal)));
        while open.len() >= OPEN_MAX {
            open.pop_front().expect("a call").wait().expect("accepted");
        }
    }
    for call in open {
        call.wait().expect("accepted");
    }
}

/// Most memory that the process of a node had, KiB.
fn peak_kib(chain: &Chain, node: usize) -> u64 {
    let pid = chain.nodes[node].process.as_ref().expect("it runs").child.id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("its peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("kB")
}

/// When a message came to the MLM, as its trace says.
fn came(chain: &Chain, id: &MessageId) -> String {
    let trace = chain.api(&format!("/trace/{}", id.to_string().replace('/', ".")));
    trace["hops"][MLM]["received_at"].as_str().expect("the MLM's stamp").to_owned()
}

/// Reads all events: each number once.
fn count_once(chain: &Chain, count: u64) {
    let mut seen = vec![false; count as usize];
    let mut cursor = String::new();
    loop {
        let page = chain.api(&format!("/events?limit=10000{cursor}"));
        for item in page["items"].as_array().expect("a list") {
            let text = item["text"].as_str().expect("a text");
            let Some(n) = text.strip_prefix('a').and_then(|n| n.parse::<usize>().ok()) else {
                continue;
            };
            assert!(!std::mem::replace(&mut seen[n], true), "{text} is stored twice");
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let lost = seen.iter().filter(|seen| !**seen).count();
    assert_eq!(lost, 0, "of {count}");
}

// QUE-1, QUE-4, QUE-7: what comes while the parent is away waits on disk, not in memory; urgent,
// though it came last, leaves first; then all goes.
#[test]
fn parent_may_be_away_for_very_many_messages() {
    let _turn = crate::turn();
    let mut chain = Chain::start_three(&[], "");
    let client = Client::open(Options::new(chain.socket(), "plant", "1")).expect("a client");
    client.wait_registered(LONG).expect("registered");
    accepted(&client, "before", Precedence::Normal);
    wait_for("an empty queue", || (chain.account(PROXY).queued == 0).then_some(()));
    chain.stop(MLM);
    let (count, started) = (messages(), Instant::now());
    let first = accepted(&client, "first", Precedence::Normal);
    send(&client, count);
    let urgent = accepted(&client, "last", Precedence::Urgent);
    let accepted_in = started.elapsed();
    assert_eq!(chain.account(PROXY).queued, count + 2);
    let waiting_kib = peak_kib(&chain, PROXY);
    let back = Instant::now();
    chain.run(MLM);
    told::settle(&chain, LONG + Duration::from_secs(count / ARRIVE_PER_S_MIN));
    let drained_in = back.elapsed();
    let peak_kib = peak_kib(&chain, PROXY);
    assert!(peak_kib <= MEMORY_KIB_MAX, "the proxy took {} MiB", peak_kib >> 10);
    let (urgent, first) = (came(&chain, &urgent), came(&chain, &first));
    assert!(urgent <= first, "urgent came at {urgent}, the first normal one at {first}");
    count_once(&chain, count);
    println!(
        "{count} accepted in {accepted_in:.0?} while the parent was away, all at the top \
        {drained_in:.0?} after it was back, urgent first; 0 lost, 0 twice; the proxy took {} MiB \
        while they waited, {} MiB at most",
        waiting_kib >> 10,
        peak_kib >> 10,
    );
}
