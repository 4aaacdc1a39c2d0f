//! The client against a scripted proxy: nothing is lost, nothing stored twice.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod proxy;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use integrator_api::*;
use protocol::socket::{CallbackRequest, Frame, Notice};
use proxy::{Proxy, Step};

const SOON: Duration = Duration::from_secs(20);

fn alarm(text: impl ToString) -> Call {
    let at = 1_795_348_800_000;
    Call::Alarm(AlarmCall::new("press-1", at, "oil", Severity::Major, &text.to_string()))
}

fn options(folder: &tempfile::TempDir) -> Options {
    Options::new(folder.path().join("s"), "plant", "1")
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[test]
fn calls_are_stored_in_the_order_they_were_sent_and_answered() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&folder.path().join("s"));
    let client = Client::open(options(&folder)).unwrap();
    let tickets: Vec<_> = (0..3000).map(|n| client.send(alarm(n))).collect();
    for ticket in tickets {
        assert_eq!(ticket.wait().unwrap().outcome(), Some(Outcome::Stored));
    }
    assert_eq!(proxy.texts(), numbers(0..3000));
    assert_eq!(proxy.kept.0.lock().unwrap().instances, ["press-1"]);
    assert!(client.close(SOON));
    assert_eq!(proxy.kept.0.lock().unwrap().byes, [true]);
}

#[test]
fn a_proxy_killed_between_commit_and_answer_loses_nothing_and_stores_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    let proxy = Proxy::scripted(&folder.path().join("s"), move |call| {
        count += 1;
        match call {
            Call::Alarm(_) if count % 17 == 0 => Step::KeepAndDie,
            _ => Step::Keep,
        }
    });
    let client = Client::open(options(&folder)).unwrap();
    let tickets: Vec<_> = (0..200).map(|n| client.send(alarm(n))).collect();
    for ticket in tickets {
        assert!(ticket.wait_for(SOON).unwrap().is_ok());
    }
    assert_eq!(proxy.texts(), numbers(0..200));
    let kept = proxy.kept.0.lock().unwrap();
    assert!(kept.hellos.len() > 5 && kept.duplicates > 5);
    assert!(kept.hellos.iter().all(|h| h.stream == kept.hellos[0].stream));
}

#[test]
fn a_ticket_is_a_future_for_any_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&folder.path().join("s"));
    let client = Client::open(options(&folder)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let accepted = runtime.block_on(client.send(alarm("a"))).unwrap();
    assert_eq!(accepted.outcome(), Some(Outcome::Stored));
    assert_eq!(proxy.texts(), ["a"]);
}

#[test]
fn the_client_is_never_the_window_ahead_of_the_oldest_unanswered() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::scripted(&folder.path().join("s"), |call| match call {
        Call::Alarm(_) => Step::Silent,
        _ => Step::Keep,
    });
    let client = Client::open(options(&folder)).unwrap();
    let tickets: Vec<_> = (0..2000).map(|n| client.send(alarm(n))).collect();
    proxy.wait("the window fills", |kept| kept.unanswered_max >= 1022);
    assert!(tickets[0].wait_for(Duration::from_millis(50)).is_none());
    assert!(proxy.kept.0.lock().unwrap().unanswered_max <= 1024);
    assert_eq!(client.unanswered(), 2000);
}

#[test]
fn calls_wait_until_proxy_and_integrator_are_registered() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&folder.path().join("s"));
    proxy.registered(Registered::Registering);
    let client = Client::open(options(&folder)).unwrap();
    let ticket = client.send(alarm("early"));
    client.wait_connected(SOON).unwrap();
    assert!(client.wait_registered(Duration::from_millis(20)).is_err());
    assert!(ticket.wait_for(Duration::from_millis(20)).is_none());
    assert!(proxy.texts().is_empty());
    proxy.say(&Notice::Registration(Registered::Registered).frame());
    client.wait_registered(SOON).unwrap();
    assert!(ticket.wait_for(SOON).unwrap().is_ok());
}

#[test]
fn a_busy_proxy_is_waited_for_under_a_new_number() {
    let folder = tempfile::tempdir().unwrap();
    let seqs = Arc::new(Mutex::new(Vec::new()));
    let seen = seqs.clone();
    let proxy = Proxy::scripted(&folder.path().join("s"), move |call| {
        let Some(seq) = call.seq() else { return Step::Keep };
        seen.lock().unwrap().push(seq);
        match seq {
            1 => Step::Refuse(CallError::new(Refusal::Busy, "soon").after(1)),
            _ => Step::Keep,
        }
    });
    let client = Client::open(options(&folder)).unwrap();
    assert!(client.send(alarm("a")).wait_for(SOON).unwrap().is_ok());
    assert_eq!(*seqs.lock().unwrap(), [1, 2]);
    assert_eq!(proxy.texts(), ["a"]);
}

#[test]
fn refusals_reach_the_caller_and_bad_values_never_leave() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::scripted(&folder.path().join("s"), |call| match call {
        Call::Alarm(_) => Step::Refuse(CallError::new(Refusal::QueueFull, "full")),
        _ => Step::Keep,
    });
    let client = Client::open(options(&folder)).unwrap();
    let error = client.send(alarm("a")).wait_for(SOON).unwrap().unwrap_err();
    assert_eq!((error.code, error.rs_errno), (-2, Some(rs::EFULL)));
    let error = client.send(alarm("x".repeat(1025))).wait().unwrap_err();
    assert_eq!((error.code, error.errno), (-1, Some(90)));
    assert!(proxy.texts().is_empty());
}

#[test]
fn an_instance_the_proxy_cannot_take_now_does_not_cost_its_messages() {
    let folder = tempfile::tempdir().unwrap();
    let mut refusals = 2;
    let proxy = Proxy::scripted(&folder.path().join("s"), move |call| match call {
        Call::Instance(_) if refusals > 0 => {
            refusals -= 1;
            Step::Refuse(CallError::new(Refusal::Busy, "soon").after(1))
        }
        _ => Step::Keep,
    });
    let client = Client::open(options(&folder)).unwrap();
    assert!(client.send(alarm("a")).wait_for(SOON).unwrap().is_ok());
    assert_eq!(proxy.texts(), ["a"]);
}

#[test]
fn without_a_proxy_calls_fail_when_they_are_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let patience = Some(Duration::from_millis(30));
    let options = Options { fail_when_away_for: patience, ..options(&folder) };
    let client = Client::open(options).unwrap();
    let error = client.send(alarm("a")).wait_for(SOON).unwrap().unwrap_err();
    assert_eq!((error.code, error.rs_errno), (-2, Some(rs::EDOWN)));
    let error = client.send(alarm("b")).wait_for(SOON).unwrap().unwrap_err();
    assert!(error.detail.contains("No such file"), "{error}");
    let proxy = Proxy::start(&folder.path().join("s"));
    client.wait_connected(SOON).unwrap();
    assert!(client.send(alarm("c")).wait_for(SOON).unwrap().is_ok());
    assert_eq!(proxy.texts(), ["c"]);
}

#[test]
fn tickets_of_a_dropped_client_end() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::open(options(&folder)).unwrap();
    let ticket = client.send(alarm("a"));
    drop(client);
    assert!(ticket.wait_for(SOON).unwrap().is_err());
}

struct Acts(Arc<AtomicUsize>);

impl Handler for Acts {
    fn callbacks(&self) -> Vec<Callback> {
        vec![Callback::Status, Callback::Action]
    }

    fn action(&self, request: ActionRequest) -> Result<i64, CallbackError> {
        if request.action == "<panic/>" {
            panic!("of the integrator");
        }
        Ok(self.0.fetch_add(1, Ordering::SeqCst) as i64)
    }
}

fn action(id: u32, action_id: &str, action: &str) -> Vec<u8> {
    let request = CallbackRequest::Action(ActionRequest {
        action_id: action_id.into(),
        message_id: "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/1:7:n:1".parse().unwrap(),
        instance: "press-1".into(),
        action: action.into(),
        expires_at_ms: i64::MAX,
    });
    Frame::request(id, "action", request.map())
}

// BCK-10
#[test]
fn an_action_sent_twice_acts_once_and_a_panic_is_an_error_answer() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&folder.path().join("s"));
    let acted = Arc::new(AtomicUsize::new(0));
    let client = Client::open(options(&folder).handler(Acts(acted.clone()))).unwrap();
    client.wait_connected(SOON).unwrap();
    proxy.say(&action(1, "a", "<do/>"));
    proxy.say(&action(2, "a", "<do/>"));
    proxy.say(&action(3, "b", "<panic/>"));
    proxy.say(&Frame::request(4, "update", protocol::socket::Map::new()));
    proxy.wait("four answers", |kept| kept.answers.len() == 4);
    proxy.hang_up();
    proxy.wait("it comes back", |kept| kept.hellos.len() == 2);
    proxy.say(&action(1, "a", "<do/>"));
    proxy.wait("five answers", |kept| kept.answers.len() == 5);
    assert_eq!(acted.load(Ordering::SeqCst), 1);
    let kept = proxy.kept.0.lock().unwrap();
    for frame in &kept.answers {
        let Frame::Answer { id, result } = frame else { panic!("an answer") };
        match (id, result) {
            (1 | 2, Ok(map)) => assert_eq!(map[..], *b"\x81\xa6status\x00"),
            (3, Err(map)) => assert!(String::from_utf8_lossy(map).contains("failed")),
            (4, Err(map)) => assert!(String::from_utf8_lossy(map).contains("not_supported")),
            other => panic!("{other:?}"),
        }
    }
}

/// Counts as it is told.
struct Counts(Arc<AtomicUsize>);

impl Handler for Counts {
    fn counters(&self) -> Option<Counters> {
        let received = self.0.load(Ordering::SeqCst) as u64;
        Some(Counters { received, ..Counters::default() })
    }
}

/// The reports that came, in their order.
fn reports(proxy: &Proxy) -> Vec<Counters> {
    let kept = proxy.kept.0.lock().unwrap();
    let read = |frame: &Frame| match frame {
        Frame::Notice { method, params } if method == "counters" => Counters::read(params).ok(),
        _ => None,
    };
    kept.answers.iter().filter_map(read).collect()
}

#[test]
fn what_an_integrator_counts_is_told_after_each_hello_and_before_its_bye() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&folder.path().join("s"));
    let count = Arc::new(AtomicUsize::new(1));
    let spill = folder.path().join("spill");
    let client =
        Client::open(options(&folder).handler(Counts(count.clone())).spill(spill)).unwrap();
    proxy.wait("a report", |kept| kept.answers.len() == 1);
    proxy.hang_up();
    proxy.wait("it comes back and tells again", |kept| kept.answers.len() == 2);
    count.store(7, Ordering::SeqCst);
    assert!(client.close(SOON));
    proxy.wait("the last report, and then bye", |kept| kept.byes.len() == 1);
    let told: Vec<_> = reports(&proxy).iter().map(|c| (c.received, c.spill_bytes)).collect();
    assert_eq!(told, [(1, Some(0)), (1, Some(0)), (7, Some(0))]);
}

#[test]
fn what_was_taken_is_waited_for_also_out_of_the_spill() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::open(options(&folder).spill(folder.path().join("spill"))).unwrap();
    assert!(client.wait_taken(Duration::ZERO), "nothing was sent");
    assert_eq!(client.send(alarm(1)).wait_for(SOON), Some(Ok(Accepted::Spilled)));
    assert!(!client.wait_taken(Duration::from_millis(50)));
    let proxy = Proxy::start(&folder.path().join("s"));
    assert!(client.wait_taken(SOON));
    assert_eq!(proxy.texts(), ["1"]);
}
