//! The socket's conversation byte for byte, as the contract shows it in `ipc-frames.txt`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use bytes::Bytes;
use proptest::prelude::*;
use protocol::{
    heartbeat::{Condition, Mode},
    service::Severity,
    socket::*,
};

/// The frames of the file: `true` for those to the proxy, title and bytes.
fn conversation() -> Vec<(bool, String, Vec<u8>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/ipc-frames.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let mut all: Vec<(bool, String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("> ") {
            all.push((true, title.to_owned(), String::new()));
        } else if let Some(title) = line.strip_prefix("< ") {
            all.push((false, title.to_owned(), String::new()));
        } else if let Some((_, _, hex)) = all.last_mut() {
            let digits = line.trim();
            // The first line of bytes begins with the length and a space.
            let digits: String = digits.split(' ').collect();
            if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit()) {
                hex.push_str(&digits);
            }
        }
    }
    all.into_iter().map(|(to, title, hex)| (to, title, unhex(&hex))).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn frame(bytes: &[u8]) -> Frame {
    let mut frames = Frames::new();
    frames.buffer().extend_from_slice(bytes);
    let frame = frames.next_frame().unwrap().unwrap();
    assert!(frames.buffer().is_empty());
    frame
}

fn alarm() -> AlarmCall {
    let at = 1_795_348_800_000;
    let text = "oil pressure low";
    let alarm = AlarmCall::new("press-1", at, "oil-pressure", Severity::Major, text);
    AlarmCall { seq: Some(1), ..alarm }
}

fn instance() -> Call {
    Call::Instance(InstanceCall { instance: "press-1".into(), capabilities: None })
}

/// What our own types write for each frame of the file, in its order.
fn ours() -> Vec<Vec<u8>> {
    let node = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3".parse().unwrap();
    let hello = Hello {
        protocols: vec![1],
        name: "plant".into(),
        version: "2.1.0".into(),
        callbacks: vec![Callback::Status, Callback::Action],
        stream: Some(unhex("00112233445566778899aabbccddeeff").try_into().unwrap()),
    };
    let answer = HelloAnswer {
        protocol: 1,
        node_id: Some(node),
        integrator_id: node.child(4),
        mode: Mode::Session,
        registration: Registered::Registered,
        window: 1024,
    };
    let instance_id = node.child(4).unwrap().child(1).unwrap();
    let id = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3:7:n:1042".parse().unwrap();
    let message = |outcome, message_id| CallAnswer::Message { outcome, message_id }.map();
    let words = "unknown other information warning minor major critical fatal";
    let bad = CallError::malformed(format!("severity is \"bad\"; one of {words}"));
    let status = StatusAnswer {
        module: StatusPart::new(Condition::Ok, ""),
        platform: StatusPart::new(Condition::Degraded, "1 of 3 controllers silent"),
        instances: Vec::new(),
    };
    let update = CallbackRequest::Update(UpdateRequest {
        action_id: "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e43".into(),
        instance: INTEGRATION_MODULE.into(),
        path: "/var/lib/callhome/updates/plant-2.2.0".into(),
        sha256: "0".repeat(64),
    });
    let none = CallbackError::NotSupported("no update callback".into());
    // No typed call can have an unknown severity: this one is written by hand.
    let unknown = Map::new()
        .text("instance", "press-1")
        .int("occurred_at_ms", 1_795_348_800_000)
        .text("type", "oil-pressure")
        .text("severity", "bad")
        .text("text", "x")
        .uint("seq", 2);
    let asked = CallbackRequest::Status(StatusRequest { instances: false });
    vec![
        Frame::request(1, "hello", hello.map()),
        Frame::result(1, answer.map()),
        Frame::request(2, "instance", instance().map()),
        Frame::result(2, CallAnswer::Instance { instance_id, known: false }.map()),
        Frame::request(3, "alarm", Call::Alarm(alarm()).map()),
        Frame::result(3, message(Outcome::Stored, Some(id))),
        Frame::request(2, "alarm", Call::Alarm(alarm()).map()),
        Frame::result(2, message(Outcome::Duplicate, None)),
        Frame::request(3, "alarm", unknown),
        Frame::error(3, bad.map()),
        Frame::request(1, "status", asked.map()),
        Frame::result(1, CallbackAnswer::Status(status).map()),
        Frame::request(2, "update", update.map()),
        Frame::error(2, none.map()),
        Frame::request(7, "bye", Bye::default().map()),
        Frame::result(7, CallAnswer::Done.map()),
    ]
}

#[test]
fn every_frame_is_written_byte_for_byte_as_the_contract_shows_it() {
    let theirs = conversation();
    let ours = ours();
    assert_eq!(theirs.len(), ours.len());
    for ((_, title, theirs), ours) in theirs.iter().zip(&ours) {
        assert_eq!(theirs, ours, "{title}");
    }
}

#[test]
fn every_frame_is_read_and_written_again_unchanged() {
    let mut asked: Option<(u32, String)> = None;
    let (mut requests, mut answers) = (0, 0);
    for (_, title, bytes) in conversation() {
        match frame(&bytes) {
            Frame::Request { id, method, params } => {
                let again = match method.as_str() {
                    "hello" => Hello::read(&params).unwrap().map(),
                    "bye" => Bye::read(&params).unwrap().map(),
                    "status" | "update" => CallbackRequest::read(&method, &params).unwrap().map(),
                    _ => match Call::read(&method, &params) {
                        Ok(call) => call.map(),
                        Err(error) => {
                            assert!(title.contains("unknown severity"), "{title}: {error}");
                            asked = Some((id, method));
                            requests += 1;
                            continue;
                        }
                    },
                };
                assert_eq!(Frame::request(id, &method, again), bytes, "{title}");
                asked = Some((id, method));
                requests += 1;
            }
            Frame::Answer { id, result } => {
                let (asked_id, method) = asked.take().unwrap();
                assert_eq!(id, asked_id, "{title}");
                let again = match (method.as_str(), result) {
                    ("hello", Ok(map)) => Frame::result(id, HelloAnswer::read(&map).unwrap().map()),
                    ("status", Ok(map)) => {
                        let answer = CallbackAnswer::read(Callback::Status, &map).unwrap();
                        Frame::result(id, answer.map())
                    }
                    ("update", Err(map)) => {
                        Frame::error(id, CallbackError::read(&map).unwrap().map())
                    }
                    (_, Ok(map)) => {
                        Frame::result(id, CallAnswer::read_method(&method, &map).unwrap().map())
                    }
                    (_, Err(map)) => Frame::error(id, CallError::read(&map).unwrap().map()),
                };
                assert_eq!(again, bytes, "{title}");
                answers += 1;
            }
            Frame::Notice { .. } => panic!("no notice in this conversation"),
        }
    }
    assert_eq!((requests, answers), (8, 8));
}

// DAT-8
#[test]
fn the_unknown_severity_is_refused_in_the_contracts_words() {
    let all = conversation();
    let at = all.iter().position(|(_, title, _)| title.contains("unknown severity")).unwrap();
    let Frame::Request { id, method, params } = frame(&all[at].2) else { panic!("a request") };
    let error = Call::read(&method, &params).unwrap_err();
    assert_eq!(Frame::error(id, error.map()), all[at + 1].2);
}

#[test]
fn any_form_and_order_is_read_and_unknown_keys_are_ignored() {
    // An unknown key first, then seq in eight bytes, text as str 8, the time signed.
    let mut map = vec![0xde, 0, 7, 0xa3];
    map.extend_from_slice(
        b"new\x92\x01\x80\xa3seq\xcf\0\0\0\0\0\0\0\x01\xd9\x04text\xd9\x10oil pressure low",
    );
    map.extend_from_slice(b"\xa8severity\xa5major\xa4type\xacoil-pressure\xaeoccurred_at_ms\xd3");
    map.extend_from_slice(&1_795_348_800_000_i64.to_be_bytes());
    map.extend_from_slice(b"\xa8instance\xda\0\x07press-1");
    assert_eq!(Call::read("alarm", &map.into()).unwrap(), Call::Alarm(alarm()));
}

// DAT-11
#[test]
fn payloads_of_any_kind_come_through_byte_for_byte() {
    let every: Vec<u8> = (0..=255).chain([0, 0, 0]).collect();
    for (data, encoding) in [
        (every.as_slice(), "application/octet-stream"),
        ("größe".as_bytes(), "text/plain; charset=utf-8"),
        (b"<?xml version=\"1.0\"?><a/>", "application/xml"),
        (b"", ""),
    ] {
        let data = Bytes::copy_from_slice(data);
        let alarm = Call::Alarm(AlarmCall { data, encoding: encoding.into(), ..alarm() });
        assert_eq!(Call::read("alarm", &alarm.map().into_bytes()).unwrap(), alarm);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut frames = Frames::new();
        frames.buffer().extend_from_slice(&bytes);
        while let Ok(Some(_)) = frames.next_frame() {}
        read_all(&Bytes::from(bytes));
    }

    #[test]
    fn no_damage_to_a_good_frame_makes_the_reader_panic(
        which in 0..16_usize,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut frame = ours().swap_remove(which);
        let at = at.index(frame.len());
        frame[at] = byte;
        frame.truncate(keep.index(frame.len()) + 1);
        if let Some(body) = frame.get(4..) {
            read_all(&Bytes::copy_from_slice(body));
        }
    }
}

fn read_all(body: &Bytes) {
    let params = match Frame::read(body) {
        Ok(Frame::Request { params, .. } | Frame::Notice { params, .. }) => params,
        Ok(Frame::Answer { result: Ok(map) | Err(map), .. }) => map,
        Err(_) => body.clone(),
    };
    for method in ["instance", "instances", "remove", "alarm", "event", "data", "capabilities"] {
        let _ = Call::read(method, &params);
        let _ = CallAnswer::read_method(method, &params);
    }
    for method in ["status", "action", "update", "capabilities"] {
        let _ = CallbackRequest::read(method, &params);
        let _ = CallbackAnswer::read(method.parse().unwrap(), &params);
    }
    let _ = Hello::read(&params);
    let _ = HelloAnswer::read(&params);
    let _ = Bye::read(&params);
    let _ = CallError::read(&params);
    let _ = CallbackError::read(&params);
    let _ = Notice::read("registration", &params);
    let _ = Counters::read(&params);
}
