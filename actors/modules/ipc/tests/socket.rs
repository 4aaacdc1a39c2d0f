//! The socket from outside: good clients, bad ones, slow ones, and the end.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod door;

use std::{process::Command, sync::Arc, time::Duration};

use door::*;
use extension::integrators::Ended;
use integrator_api as api;
use proptest::prelude::{ProptestConfig, any, prop};
use protocol::{Refusal, socket::*};
use tokio::io::AsyncWriteExt;

fn open(path: &std::path::Path, name: &str) -> api::Client {
    api::Client::open(api::Options::new(path, name, "1")).unwrap()
}

fn call(text: impl ToString) -> Call {
    let severity = protocol::service::Severity::Major;
    Call::Alarm(AlarmCall::new("press-1", now_ms(), "oil", severity, &text.to_string()))
}

// IPC-7
#[tokio::test(flavor = "multi_thread")]
async fn ten_integrators_are_served_at_once_each_with_its_own_callbacks() {
    let served = Served::start(Door::default()).await;
    let mut raws = Vec::new();
    for n in 0..10 {
        raws.push(served.greeted(&format!("i{n}"), vec![Callback::Action]).await);
    }
    for (n, raw) in raws.iter_mut().enumerate() {
        raw.send(&alarm(2, &n.to_string())).await;
        assert!(matches!(raw.next().await, Some(Frame::Answer { id: 2, result: Ok(_) })));
        let callbacks = served.door.callbacks_of(&format!("i{n}"));
        let asked = tokio::spawn(async move { callbacks.action(action(n)).await });
        let Some(Frame::Request { id, method, params }) = raw.next().await else { panic!() };
        let got = CallbackRequest::read(&method, &params).unwrap();
        assert_eq!(got, CallbackRequest::Action(action(n)));
        raw.send(&Frame::result(id, CallbackAnswer::Done { status: n as i64 }.map())).await;
        assert_eq!(asked.await.unwrap(), Ok(n as i64));
    }
    assert_eq!(served.door.count(), 10);
}

fn action(n: usize) -> ActionRequest {
    ActionRequest {
        action_id: format!("a{n}"),
        message_id: "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/1:7:n:1".parse().unwrap(),
        instance: "press-1".into(),
        action: "<do/>".into(),
        expires_at_ms: 1,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_pipelined_reach_the_proxy_together_and_in_order() {
    let served = Served::start(Door::closed()).await;
    let client = open(&served.path, "plant");
    let tickets: Vec<_> = (0..3000).map(|n| client.send(call(n))).collect();
    client.wait_connected(SOON).unwrap();
    served.door.gate.add_permits(1);
    for ticket in tickets {
        assert_eq!(ticket.await.unwrap().outcome(), Some(Outcome::Stored));
    }
    let calls = served.door.calls.lock().unwrap();
    let texts = calls.iter().filter_map(|(_, call)| match call {
        Call::Alarm(alarm) => alarm.text.parse::<i32>().ok(),
        _ => None,
    });
    assert!(texts.eq(0..3000));
    assert!(served.door.batches.lock().unwrap().len() < 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_window_the_proxy_stops_reading_and_goes_on_when_it_has_answered() {
    let served = Served::start(Door::closed()).await;
    let mut raw = served.greeted("flood", Vec::new()).await;
    let one = alarm(2, &"x".repeat(1000));
    let mut sent = 0;
    // Nothing is answered, so the socket fills: the window and what the kernel holds.
    while tokio::time::timeout(Duration::from_millis(200), raw.stream.write_all(&one)).await.is_ok()
    {
        sent += 1;
        assert!(sent < 5000, "the proxy goes on reading");
    }
    assert!(sent >= 1024, "{sent}");
    // Others are served meanwhile.
    served.door.gate.add_permits(1);
    for _ in 0..1024 {
        assert!(matches!(raw.next().await, Some(Frame::Answer { result: Ok(_), .. })));
    }
}

// One thread: all that the client wrote is there before the socket's tasks run.
#[tokio::test]
async fn exactly_the_window_reaches_the_proxy_before_anything_is_answered() {
    let served = Served::start(Door::closed()).await;
    let mut raw = served.greeted("flood", Vec::new()).await;
    let all: Vec<u8> = (0..1500).flat_map(|n| alarm(2 + n, "x")).collect();
    raw.send(&all).await;
    served.door.wait_arrived(1).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(*served.door.arrived.borrow(), 1024);
    served.door.gate.add_permits(1);
    for n in 0..1500 {
        assert!(matches!(raw.next().await, Some(Frame::Answer { id, .. }) if id == 2 + n));
    }
    assert_eq!(*served.door.arrived.borrow(), 1500);
}

#[tokio::test]
async fn calls_of_a_connection_that_is_ended_are_answered_by_silence() {
    let served = Served::start(Door::closed()).await;
    let mut raw = served.greeted("plant", Vec::new()).await;
    raw.send(&alarm(2, "x")).await;
    served.door.wait_arrived(1).await;
    served.door.callbacks_of("plant").end();
    served.door.gate.add_permits(1);
    assert_eq!(raw.next().await, None, "an answer would make the client forget the call");
    served.door.wait_ended(|all| all[..] == [("plant".into(), Ended::Ended)]).await;
}

#[tokio::test]
async fn a_client_that_takes_no_bytes_for_thirty_seconds_is_ended() {
    let served = Served::start(Door::default()).await;
    let _raw = served.greeted("hangs", vec![Callback::Action]).await;
    let callbacks = served.door.callbacks_of("hangs");
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    // More than the kernel holds.
    for n in 0..10 {
        let callbacks = callbacks.clone();
        let large = ActionRequest { action: "x".repeat(100_000), ..action(n) };
        tokio::spawn(async move { callbacks.action(large).await });
    }
    let mut ended = served.door.ended.subscribe();
    let waiting = ended.wait_for(|all| all[..] == [("hangs".into(), Ended::Ended)]);
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, waiting).await.is_ok(), "it is never ended");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(30) && took < Duration::from_secs(32), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_there_is_no_room_for_is_told_so_and_let_in_when_there_is() {
    let served = Served::start(Door::default()).await;
    let mut idle = Vec::new();
    for n in 0..module_ipc::limits::CONNECTIONS_MAX {
        idle.push(served.greeted(&format!("i{n}"), Vec::new()).await);
    }
    for _ in 0..2 {
        let mut late = served.raw().await;
        late.send(&hello("late", Vec::new())).await;
        let busy = late.error().await;
        assert_eq!((busy.name, busy.retry_after_ms), (Refusal::Busy, Some(1000)));
        assert!(busy.detail.contains("256 connections are open"), "{}", busy.detail);
        assert!(late.next().await.is_none());
    }
    let client = open(&served.path, "late");
    let refused = client.wait_connected(Duration::from_millis(500)).unwrap_err();
    assert!(refused.contains("busy"), "{refused}");
    assert_eq!(client.refusal().unwrap().name, Refusal::Busy);
    idle.truncate(200);
    client.wait_connected(SOON).unwrap();
    assert!(client.refusal().is_none());
}

// IPC-5
#[tokio::test(flavor = "multi_thread")]
async fn an_integrator_that_does_not_read_slows_no_other() {
    let served = Served::start(Door::default()).await;
    let mut stuck = served.greeted("stuck", Vec::new()).await;
    let one = alarm(2, "x");
    // It sends and never reads, until nobody takes its bytes any more.
    let within = Duration::from_millis(200);
    while tokio::time::timeout(within, stuck.stream.write_all(&one)).await.is_ok() {}
    let client = open(&served.path, "good");
    for n in 0..20 {
        assert!(client.send(call(n)).wait_for(SOON).unwrap().is_ok());
    }
}

// DAT-8
#[tokio::test]
async fn values_outside_the_definitions_are_refused_and_the_connection_goes_on() {
    let served = Served::start(Door::default()).await;
    let mut raw = served.greeted("plant", Vec::new()).await;
    let bad = Map::new().text("instance", "a").int("occurred_at_ms", now_ms());
    let bad = bad.text("type", "t").text("severity", "bad").text("text", "x");
    raw.send(&Frame::request(2, "alarm", bad)).await;
    assert_eq!(raw.error().await.errno, Some(22));
    let old = AlarmCall::new("a", 1, "t", protocol::service::Severity::Major, "x");
    raw.send(&Frame::request(3, "alarm", Call::Alarm(old).map())).await;
    assert!(raw.error().await.detail.contains("ten years"));
    let xml = InstanceCall { instance: "a".into(), capabilities: Some("<a>".into()) };
    raw.send(&Frame::request(4, "instance", Call::Instance(xml).map())).await;
    assert_eq!(raw.error().await.errno, Some(74));
    raw.send(&Frame::request(5, "reboot", Map::new())).await;
    assert_eq!(raw.error().await.name, Refusal::NotSupported);
    raw.send(&hello("again", Vec::new())).await;
    assert_eq!(raw.error().await.name, Refusal::Malformed);
    raw.send(&alarm(6, "good")).await;
    assert!(matches!(raw.next().await, Some(Frame::Answer { id: 6, result: Ok(_) })));
    assert_eq!(served.door.count(), 1);
}

#[tokio::test]
async fn a_bad_frame_is_told_and_ends_this_connection_only() {
    let served = Served::start(Door::default()).await;
    let mut good = served.greeted("good", Vec::new()).await;
    let mut bad = served.greeted("bad", Vec::new()).await;
    bad.send(&alarm(2, "before")).await;
    bad.send(&[0xff; 4]).await;
    assert!(matches!(bad.next().await, Some(Frame::Answer { id: 2, result: Ok(_) })));
    assert!(matches!(bad.notice().await, Notice::Malformed { .. }));
    assert!(bad.next().await.is_none());
    served.door.wait_ended(|all| matches!(all[..], [(_, Ended::Malformed(_))])).await;
    good.send(&alarm(2, "after")).await;
    assert!(matches!(good.next().await, Some(Frame::Answer { id: 2, result: Ok(_) })));
    assert_eq!(served.door.count(), 2);
}

#[tokio::test]
async fn a_connection_begins_with_hello_in_a_version_both_speak() {
    let served = Served::start(Door::default()).await;
    let mut raw = served.raw().await;
    raw.send(&alarm(1, "x")).await;
    assert!(matches!(raw.notice().await, Notice::Malformed { .. }));
    assert!(raw.next().await.is_none());
    let mut raw = served.raw().await;
    let later = Hello {
        protocols: vec![2, 3],
        name: "later".into(),
        version: String::new(),
        callbacks: Vec::new(),
        stream: None,
    };
    raw.send(&Frame::request(9, "hello", later.map())).await;
    let error = raw.error().await;
    assert_eq!((error.name, error.supported), (Refusal::UnknownVersion, vec![1]));
    assert!(raw.next().await.is_none());
    assert!(served.door.peers.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_says_no_hello_within_five_seconds_is_hung_up_on() {
    let served = Served::start(Door::default()).await;
    let mut raw = served.raw().await;
    raw.send(&[0, 0]).await;
    let began = tokio::time::Instant::now();
    assert!(raw.next().await.is_none());
    assert!(began.elapsed() >= Duration::from_secs(5) && began.elapsed() < Duration::from_secs(6));
}

// IPC-1
#[tokio::test(flavor = "multi_thread")]
async fn an_integrator_that_dies_or_breaks_the_session_takes_nothing_with_it() {
    let served = Served::start(Door::default()).await;
    let mut dies = served.greeted("dies", Vec::new()).await;
    dies.send(&alarm(2, "sent before it died")).await;
    dies.send(&alarm(3, "half")[..20]).await;
    drop(dies);
    let mut breaks = served.greeted("breaks", Vec::new()).await;
    let breaking = Call::Remove(RemoveCall { instance: "panic".into() });
    breaks.send(&Frame::request(2, "remove", breaking.map())).await;
    assert!(breaks.next().await.is_none());
    served.door.wait_ended(|all| all.len() == 2).await;
    assert!(served.door.ended.borrow().iter().all(|(_, how)| *how == Ended::Lost));
    let client = open(&served.path, "good");
    assert!(client.send(call("after")).await.is_ok());
    assert_eq!(served.door.count(), 3, "what arrived whole is stored");
}

#[tokio::test]
async fn callbacks_end_in_not_supported_time_out_or_gone() {
    let served = Served::start(Door::default()).await;
    let raw = served.greeted("plant", vec![Callback::Status, Callback::Action]).await;
    let callbacks = served.door.callbacks_of("plant");
    let update = UpdateRequest {
        action_id: "u".into(),
        instance: INTEGRATION_MODULE.into(),
        path: "/p".into(),
        sha256: String::new(),
    };
    assert!(matches!(callbacks.update(update).await, Err(CallbackError::NotSupported(_))));
    tokio::time::pause();
    let status = callbacks.status(StatusRequest::default()).await;
    assert_eq!(status, Err(CallbackError::TimedOut));
    tokio::time::resume();
    let asked = {
        let callbacks = callbacks.clone();
        tokio::spawn(async move { callbacks.action(action(1)).await })
    };
    tokio::task::yield_now().await;
    drop(raw);
    assert_eq!(asked.await.unwrap(), Err(CallbackError::Gone));
    served.door.wait_ended(|all| all.len() == 1).await;
    assert_eq!(callbacks.action(action(2)).await, Err(CallbackError::Gone));
}

#[tokio::test]
async fn registration_is_told_and_a_replaced_connection_ends() {
    let served = Served::start(Door::default()).await;
    *served.door.registration.lock().unwrap() = Registered::Registering;
    let mut raw = served.greeted("plant", Vec::new()).await;
    let callbacks = served.door.callbacks_of("plant");
    callbacks.registration(Registered::Registered);
    assert_eq!(raw.notice().await, Notice::Registration(Registered::Registered));
    callbacks.end();
    assert!(raw.next().await.is_none());
    served.door.wait_ended(|all| all[..] == [("plant".into(), Ended::Ended)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_proxy_stops_integrators_are_told_and_come_back_to_the_next() {
    let served = Served::start(Door::default()).await;
    let client = open(&served.path, "plant");
    assert!(client.send(call(1)).await.is_ok());
    let mut raw = served.greeted("raw", Vec::new()).await;
    let path = served.path.clone();
    let (folder, door) = served.stop().await;
    assert_eq!(raw.notice().await, Notice::Stopping);
    assert!(raw.next().await.is_none());
    assert!(!path.exists());
    let ticket = client.send(call(2));
    let served = Served::at(folder, &path, door).await;
    assert!(ticket.await.is_ok());
    assert_eq!(served.door.count(), 4, "two alarms, their instance on each connection");
}

#[tokio::test]
async fn bye_is_answered_after_all_before_it() {
    let served = Served::start(Door::default()).await;
    let mut raw = served.greeted("plant", Vec::new()).await;
    let bye = Frame::request(7, "bye", Bye { forget: true }.map());
    raw.send(&[alarm(2, "a"), alarm(3, "b"), bye].concat()).await;
    for expected in [2, 3, 7] {
        let Some(Frame::Answer { id, result: Ok(_) }) = raw.next().await else { panic!() };
        assert_eq!(id, expected);
    }
    assert!(raw.next().await.is_none());
    let bye = ("plant".to_owned(), Ended::Bye { forget: true });
    served.door.wait_ended(|all| all[..] == [bye.clone()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_by_the_kernel_and_by_the_socket() {
    use std::os::unix::{fs::PermissionsExt, process::CommandExt};
    let python = Command::new("python3").arg("--version").output();
    if !rustix::process::geteuid().is_root() || python.is_err() {
        eprintln!("left out: 2 cases, which need root and python3 to become another user");
        return;
    }
    let served = Served::start(Door::default()).await;
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(served.folder.path(), 0o755);
    let script = "import socket, sys\n\
        s = socket.socket(socket.AF_UNIX)\n\
        try: s.connect(sys.argv[1])\n\
        except PermissionError: print('kernel'); sys.exit()\n\
        s.sendall(bytes.fromhex(sys.argv[2]))\n\
        print(s.recv(4096))\n";
    let hello: String = hello("stranger", vec![]).iter().map(|b| format!("{b:02x}")).collect();
    let stranger = || {
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(&served.path).arg(&hello);
        python.current_dir("/").uid(65534).gid(65534);
        String::from_utf8_lossy(&python.output().unwrap().stdout).into_owned()
    };
    assert_eq!(stranger(), "kernel\n");
    open(&served.path, 0o666);
    let answer = stranger();
    assert!(answer.contains("denied") && answer.contains("user 65534"), "{answer}");
    assert!(served.door.peers.lock().unwrap().is_empty());
}

#[test]
fn no_bytes_bring_the_socket_down() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let served = runtime.block_on(Served::start(Door::default()));
    let served = Arc::new(served);
    let config = ProptestConfig { cases: 64, ..ProptestConfig::default() };
    let bytes = prop::collection::vec(any::<u8>(), 1..400);
    let framed = (prop::bool::ANY, prop::bool::ANY, bytes);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&framed, |(greeted, framed, bytes)| {
        runtime.block_on(async {
            let mut raw = match greeted {
                true => served.greeted("hostile", Vec::new()).await,
                false => served.raw().await,
            };
            let length = (bytes.len() as u32).to_be_bytes();
            let head: &[u8] = if framed { &length } else { &[] };
            let _ = raw.stream.write_all(&[head, &bytes].concat()).await;
            let _ = raw.stream.shutdown().await;
            while raw.next().await.is_some() {}
        });
        Ok(())
    });
    outcome.unwrap();
    let client = open(&served.path, "good");
    assert!(client.send(call("after")).wait_for(SOON).unwrap().is_ok());
}

#[tokio::test]
async fn counters_are_handed_on_and_bad_ones_told_apart_while_calls_go_on() {
    let served = Served::start(Door::default()).await;
    let mut raw = served.greeted("plant", Vec::new()).await;
    let told =
        Counters { received: 7, malformed: [("cut".into(), 2)].into(), ..Counters::default() };
    raw.send(&told.frame()).await;
    raw.send(&Frame::notice("counters", Map::new().text("received", "many"))).await;
    raw.send(&Frame::notice("of_a_later_version", Map::new().text("a", "b"))).await;
    let reason = Map::new().uint("a\"}\n", 1);
    raw.send(&Frame::notice("counters", Map::new().map("malformed", reason))).await;
    for n in 0..2000 {
        raw.send(&Counters { received: n, ..Counters::default() }.frame()).await;
    }
    // What follows on the connection is answered after all that.
    raw.send(&alarm(2, "still here")).await;
    assert!(matches!(raw.next().await, Some(Frame::Answer { id: 2, result: Ok(_) })));
    let counted = served.door.counted.lock().unwrap();
    assert_eq!(counted[0], ("plant".to_owned(), Ok(told)));
    assert!(counted[1].1.is_err() && counted[2].1.is_err());
    assert_eq!(counted.len(), 3 + 2000);
}
