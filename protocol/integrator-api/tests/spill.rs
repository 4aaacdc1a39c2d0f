//! The spill against a scripted proxy: what was taken while it was away arrives once, in order.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod proxy;

use std::{fs, path::Path, time::Duration};

use integrator_api::*;
use proxy::{Proxy, Step};

const SOON: Duration = Duration::from_secs(20);

fn alarm(text: impl ToString) -> Call {
    let at = 1_795_348_800_000;
    Call::Alarm(AlarmCall::new("press-1", at, "oil", Severity::Major, &text.to_string()))
}

fn options(folder: &Path) -> Options {
    Options::new(folder.join("s"), "plant/1", "1").spill(folder.join("spill"))
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

fn segments(folder: &Path) -> Vec<std::path::PathBuf> {
    let all = fs::read_dir(folder.join("spill")).unwrap().map(|e| e.unwrap().path());
    let mut all: Vec<_> = all.filter(|p| p.extension().is_some_and(|e| e == "spill")).collect();
    all.sort();
    all
}

fn send(client: &Client, range: std::ops::Range<usize>) {
    let tickets: Vec<_> = range.map(|n| client.send(alarm(n))).collect();
    for ticket in tickets {
        ticket.wait_for(SOON).unwrap().unwrap();
    }
}

fn wait_empty(client: &Client, folder: &Path) {
    let until = std::time::Instant::now() + SOON;
    while client.spill_bytes() > 0 || !segments(folder).is_empty() {
        assert!(std::time::Instant::now() < until, "{} bytes left", client.spill_bytes());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_is_sent_while_the_proxy_is_away_is_on_disk_and_arrives_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::open(options(folder.path())).unwrap();
    let accepted = client.send(alarm(0)).wait_for(SOON).unwrap().unwrap();
    assert_eq!(accepted, Accepted::Spilled);
    send(&client, 1..2000);
    assert!(client.spill_bytes() > 100_000);
    let proxy = Proxy::start(&folder.path().join("s"));
    proxy.wait("all arrive", |kept| kept.calls.len() == 2000);
    assert_eq!(proxy.texts(), numbers(0..2000));
    wait_empty(&client, folder.path());
    let direct = client.send(alarm("direct")).wait_for(SOON).unwrap().unwrap();
    assert_eq!(direct.outcome(), Some(Outcome::Stored));
}

#[test]
fn a_restart_of_the_integrator_goes_on_under_the_same_stream() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::open(options(folder.path())).unwrap();
    send(&client, 0..1500);
    drop(client);
    // The proxy dies again and again, so that replays cross restarts of both.
    let mut count = 0;
    let proxy = Proxy::scripted(&folder.path().join("s"), move |_| {
        count += 1;
        if u32::is_multiple_of(count, 97) { Step::KeepAndDie } else { Step::Keep }
    });
    for part in 1..6 {
        let client = reopen(folder.path());
        proxy.wait("some arrive", |kept| kept.calls.len() >= part * 200);
        client.close(Duration::ZERO);
        drop(client);
    }
    let client = reopen(folder.path());
    proxy.wait("all arrive", |kept| kept.calls.len() >= 1500);
    wait_empty(&client, folder.path());
    assert_eq!(proxy.texts(), numbers(0..1500));
    let kept = proxy.kept.0.lock().unwrap();
    assert!(kept.hellos.iter().all(|h| h.stream == kept.hellos[0].stream));
}

/// Opens again as soon as the threads of the last one let go of the lock.
fn reopen(folder: &Path) -> Client {
    let until = std::time::Instant::now() + SOON;
    loop {
        match Client::open(options(folder)) {
            Ok(client) => return client,
            Err(error) => assert!(std::time::Instant::now() < until, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn calls_in_flight_when_the_proxy_dies_are_told_spilled_and_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&folder.path().join("s"));
    let client = Client::open(options(folder.path())).unwrap();
    client.wait_registered(SOON).unwrap();
    send(&client, 0..1);
    wait_empty(&client, folder.path());
    let mut count = 0;
    proxy.script(move |call| {
        count += 1;
        match call {
            Call::Alarm(_) if count == 50 => Step::KeepAndDie,
            _ => Step::Keep,
        }
    });
    send(&client, 1..400);
    proxy.wait("all arrive", |kept| kept.calls.len() >= 400);
    wait_empty(&client, folder.path());
    assert_eq!(proxy.texts(), numbers(0..400));
}

#[test]
fn what_the_proxy_cannot_take_now_is_kept_and_sent_again_under_a_new_number() {
    let folder = tempfile::tempdir().unwrap();
    let mut refusals = 700;
    let proxy = Proxy::scripted(&folder.path().join("s"), move |call| match call {
        Call::Alarm(_) if refusals > 0 => {
            refusals -= 1;
            Step::Refuse(CallError::new(Refusal::QueueFull, "full").after(1))
        }
        _ => Step::Keep,
    });
    let client = Client::open(options(folder.path())).unwrap();
    client.wait_registered(SOON).unwrap();
    send(&client, 0..1000);
    proxy.wait("all arrive", |kept| kept.calls.len() >= 1000);
    wait_empty(&client, folder.path());
    let mut texts = proxy.texts();
    texts.sort_by_key(|t| t.parse::<usize>().unwrap());
    assert_eq!(texts, numbers(0..1000));
}

#[test]
fn a_torn_tail_costs_only_what_was_never_answered() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::open(options(folder.path())).unwrap();
    send(&client, 0..20);
    drop(client);
    // A crash in the middle of a write: bytes of a record that was never synced.
    let last = segments(folder.path()).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    bytes.extend_from_slice(b"CHs\x01\0\0\x01\0half a record");
    fs::write(&last, &bytes).unwrap();
    let client = reopen(folder.path());
    assert_eq!(client.spill_damaged(), 21);
    send(&client, 20..30);
    let proxy = Proxy::start(&folder.path().join("s"));
    proxy.wait("all arrive", |kept| kept.calls.len() >= 30);
    wait_empty(&client, folder.path());
    assert_eq!(proxy.texts(), numbers(0..30));
}

#[test]
fn damage_in_the_middle_costs_only_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::open(options(folder.path())).unwrap();
    send(&client, 0..20);
    drop(client);
    let last = segments(folder.path()).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(&last, &bytes).unwrap();
    let client = reopen(folder.path());
    assert!(client.spill_damaged() > 0);
    let proxy = Proxy::start(&folder.path().join("s"));
    proxy.wait("the rest arrives", |kept| kept.calls.len() >= 19);
    wait_empty(&client, folder.path());
    assert_eq!(proxy.texts().len(), 19);
}

#[test]
fn a_full_spill_refuses_and_takes_again_when_the_proxy_took_some() {
    let folder = tempfile::tempdir().unwrap();
    let small = Options { spill_bytes_max: 4096, ..options(folder.path()) };
    let client = Client::open(small).unwrap();
    let tickets: Vec<_> = (0..100).map(|n| client.send(alarm(n))).collect();
    let results: Vec<_> = tickets.into_iter().map(|t| t.wait_for(SOON).unwrap()).collect();
    let taken = results.iter().filter(|r| r.is_ok()).count();
    assert!((5..90).contains(&taken), "{taken}");
    let error = results.into_iter().find_map(Result::err).unwrap();
    assert_eq!((error.name, error.rs_errno), (Refusal::QueueFull, Some(rs::EFULL)));
    let proxy = Proxy::start(&folder.path().join("s"));
    proxy.wait("all arrive", |kept| kept.calls.len() >= taken);
    wait_empty(&client, folder.path());
    assert!(client.send(alarm("more")).wait_for(SOON).unwrap().is_ok());
}

#[test]
fn a_spill_is_for_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::open(options(folder.path())).unwrap();
    let Err(error) = Client::open(options(folder.path())) else { panic!("two have it") };
    assert!(error.to_string().contains("in use"), "{error}");
    drop(client);
}

#[test]
fn what_the_proxy_refuses_for_good_is_told_to_the_handler() {
    struct Refusals(std::sync::mpsc::SyncSender<String>);
    impl Handler for Refusals {
        fn refused(&self, call: &Call, error: &CallError) {
            self.0.send(format!("{} {}", call.method(), error.name)).unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (tell, told) = std::sync::mpsc::sync_channel(4);
    let client = Client::open(options(folder.path()).handler(Refusals(tell))).unwrap();
    send(&client, 0..1);
    let _proxy = Proxy::scripted(&folder.path().join("s"), |call| match call {
        Call::Alarm(_) => Step::Refuse(CallError::new(Refusal::Denied, "no")),
        _ => Step::Keep,
    });
    assert_eq!(told.recv_timeout(SOON).unwrap(), "alarm denied");
    wait_empty(&client, folder.path());
}

/// Runs only as the child of the test below: sends until it is killed, and says what was accepted.
#[test]
fn child_that_sends_until_it_is_killed() {
    let Some(folder) = std::env::var_os("CALLHOME_TEST_CHILD") else { return };
    let round = std::env::var("CALLHOME_TEST_ROUND").unwrap();
    let client = reopen(Path::new(&folder));
    for part in 0.. {
        let sent: Vec<_> = (0..40)
            .map(|n| format!("{round}.{part}.{n}"))
            .map(|text| (client.send(alarm(&text)), text))
            .collect();
        for (ticket, text) in sent {
            if ticket.wait().is_ok() {
                println!("accepted {text}");
            }
        }
    }
}

#[test]
fn an_integrator_that_is_killed_loses_nothing_it_accepted_and_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0_u32;
    let proxy = Proxy::scripted(&folder.path().join("s"), move |call| {
        count += 1;
        match call {
            Call::Alarm(_) if count.is_multiple_of(61) => Step::KeepAndDie,
            Call::Alarm(_) if count.is_multiple_of(23) => {
                Step::Refuse(CallError::new(Refusal::QueueFull, "full").after(1))
            }
            _ => Step::Keep,
        }
    });
    let mut accepted = Vec::new();
    for round in 0..6 {
        let stored = proxy.texts().len();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_sends_until_it_is_killed", "--nocapture"])
            .env("CALLHOME_TEST_CHILD", folder.path())
            .env("CALLHOME_TEST_ROUND", round.to_string())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let lines = std::thread::spawn(move || std::io::read_to_string(out).unwrap());
        proxy.wait("some arrive", |kept| kept.calls.len() > stored + 150);
        child.kill().unwrap();
        child.wait().unwrap();
        let lines = lines.join().unwrap();
        let said = lines.lines().filter_map(|line| line.split_once("accepted "));
        accepted.extend(said.map(|(_, text)| text.to_owned()));
    }
    let client = reopen(folder.path());
    wait_empty(&client, folder.path());
    let mut texts = proxy.texts();
    texts.sort_unstable();
    let all = texts.len();
    texts.dedup();
    assert_eq!(texts.len(), all, "nothing is stored twice");
    let lost: Vec<_> = accepted.iter().filter(|t| texts.binary_search(t).is_err()).collect();
    assert!(accepted.len() > 300 && lost.is_empty(), "{} of {}", lost.len(), accepted.len());
}
