//! Processes are killed under load: nothing accepted is lost, nothing is stored twice.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use integrator_api::{AlarmCall, Call, Client, Options, Severity, Ticket};
use sandbox::{chain::Chain, wait_for};

/// Messages a second of the load.
const RATE: u64 = 1000;

/// Kills of a run: the hundred with `CALLHOME_FULL`, fewer in the daily one.
fn kills() -> usize {
    if std::env::var_os("CALLHOME_FULL").is_some() { 100 } else { 20 }
}

/// Sends numbered alarms at [`RATE`] until told to stop; returns how many were accepted.
fn load(
    chain: &Chain,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
) -> std::thread::JoinHandle<()> {
    let options = Options::new(chain.socket(), "load", "1");
    let client = Client::open(options).expect("a client");
    std::thread::spawn(move || {
        let started = Instant::now();
        let mut tickets: std::collections::VecDeque<Ticket> = Default::default();
        let mut number = 0_u64;
        while !stop.load(Ordering::Relaxed) || !tickets.is_empty() {
            let due = started.elapsed().as_millis() as u64 * RATE / 1000;
            while number < due && tickets.len() < 4000 && !stop.load(Ordering::Relaxed) {
                let at = jiff::Timestamp::now().as_millisecond();
                let alarm = AlarmCall::new(
                    &format!("host-{}", number % 7),
                    at,
                    "load",
                    Severity::Major,
                    &format!("n{number}"),
                );
                tickets.push_back(client.send(Call::Event(integrator_api::EventCall::new(
                    &alarm.instance,
                    at,
                    "load",
                    Severity::Major,
                    &alarm.text,
                ))));
                number += 1;
            }
            while let Some(ticket) = tickets.front() {
                match ticket.wait_for(Duration::from_millis(5)) {
                    Some(done) => {
                        done.expect("accepted in the end");
                        sent.fetch_add(1, Ordering::Relaxed);
                        tickets.pop_front();
                    }
                    None => break,
                }
            }
        }
    })
}

/// Each text in the store, with how often.
fn stored(chain: &Chain) -> HashMap<String, usize> {
    let mut texts = HashMap::new();
    let mut cursor = String::new();
    loop {
        let page = chain.api(&format!("/events?limit=5000{cursor}"));
        for item in page["items"].as_array().unwrap() {
            *texts.entry(item["text"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return texts,
        }
    }
}

// QUE-2, MLM-2 (plain HTTP), MLM-3, IPC-1: what was accepted survives kills of every tier, once
// each, and the accounts balance.
#[test]
fn kills_over_all_tiers_lose_nothing_and_double_nothing() {
    let mut chain = Chain::start("");
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let loading = load(&chain, stop.clone(), sent.clone());
    wait_for("the first messages", || (sent.load(Ordering::Relaxed) > 100).then_some(()));
    for kill in 0..kills() {
        std::thread::sleep(Duration::from_millis(150));
        chain.kill(kill % 4);
    }
    stop.store(true, Ordering::Relaxed);
    loading.join().expect("the load ends");
    let accepted = sent.load(Ordering::Relaxed);
    let texts = wait_for("all to arrive", || {
        let texts = stored(&chain);
        (texts.len() >= accepted).then_some(texts)
    });
    assert_eq!(texts.len(), accepted, "lost");
    assert!(texts.values().all(|n| *n == 1), "stored twice");
    for i in 0..4 {
        wait_for("the accounts to balance", || {
            let account = chain.account(i);
            assert!(account.balanced, "{i}: {account:?}");
            (account.queued == 0).then_some(())
        });
    }
    println!("{} kills, {accepted} messages accepted, 0 lost, 0 twice", kills());
}
