//! The integrator socket: the conversation of ipc-frames.txt with a real proxy, and bad frames.
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use rmpv::Value;

use crate::{
    sandbox::{LONG, callhome, chain::Chain, wait_for},
    support::{alarm, shared},
};

/// A conversation byte by byte.
struct Raw {
    socket: UnixStream,
    notices: Vec<Value>,
    /// Answers to requests of the proxy, by method: result bytes behind `[1, id, nil`.
    asked: Vec<String>,
    status: Option<Value>,
}

impl Raw {
    fn open(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Self { socket, notices: Vec::new(), asked: Vec::new(), status: None }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    fn say(&mut self, value: &Value) {
        let mut body = Vec::new();
        rmpv::encode::write_value(&mut body, value).unwrap();
        let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(body);
        self.send(&frame);
    }

    fn ask(&mut self, id: u32, method: &str, params: Value) -> Value {
        self.say(&Value::Array(vec![0.into(), id.into(), method.into(), params]));
        self.answer(id)
    }

    /// The next frame; none when the proxy closed.
    fn frame(&mut self) -> Option<Value> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).ok()?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.socket.read_exact(&mut body).ok()?;
        Some(rmpv::decode::read_value(&mut &body[..]).expect("MessagePack"))
    }

    /// Takes one frame that may come at any time: a notice or a request of the proxy.
    fn other(&mut self, frame: Value) {
        if frame[0] == 2.into() {
            self.notices.push(frame);
            return;
        }
        let (id, method) = (frame[1].clone(), frame[2].as_str().unwrap().to_owned());
        if let (Some(result), "status") = (self.status.clone(), &*method) {
            self.say(&Value::Array(vec![1.into(), id, Value::Nil, result]));
        }
        self.asked.push(method);
    }

    /// The answer to request `id`.
    fn answer(&mut self, id: u32) -> Value {
        loop {
            let frame = self
                .frame()
                .unwrap_or_else(|| panic!("no answer to {id} before the end: {:?}", self.notices));
            if frame[0] == 1.into() && frame[1] == id.into() {
                return frame;
            }
            self.other(frame);
        }
    }

    /// Waits until its integrator is registered, by the notice that tells it.
    fn registered(&mut self, hello: &Value) {
        let mut state = field(&hello[3], "registration").clone();
        while state.as_str() != Some("registered") {
            let told = |n: &Value| n[1].as_str() == Some("registration");
            if let Some(last) = self.notices.iter().rev().find(|n| told(n)) {
                state = field(&last[2], "registration").clone();
            }
            if state.as_str() != Some("registered") {
                let frame = self.frame().expect("a notice before the end");
                self.other(frame);
            }
        }
    }

    /// Reads until the proxy closes.
    fn until_closed(&mut self) {
        while let Some(frame) = self.frame() {
            self.other(frame);
        }
    }

    fn hello(path: &Path, name: &str) -> Self {
        let mut raw = Self::open(path);
        let answer = raw.ask(
            1,
            "hello",
            map(&[
                ("protocols", Value::Array(vec![1.into()])),
                ("name", name.into()),
                ("version", "1".into()),
                ("callbacks", Value::Array(vec![])),
            ]),
        );
        assert!(answer[2].is_nil(), "{answer}");
        raw.registered(&answer);
        raw
    }
}

fn map(pairs: &[(&str, Value)]) -> Value {
    Value::Map(pairs.iter().map(|(k, v)| ((*k).into(), v.clone())).collect())
}

fn field<'v>(value: &'v Value, key: &str) -> &'v Value {
    let found = value.as_map().and_then(|m| m.iter().find(|(k, _)| k.as_str() == Some(key)));
    found.map_or_else(|| panic!("no {key} in {value}"), |(_, value)| value)
}

/// The frames of the file: who speaks, what for, and the bytes.
fn conversation() -> Vec<(char, String, Vec<u8>)> {
    let text = include_str!("../fixtures/ipc-frames.txt");
    let mut told: Vec<(char, String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("> ").or_else(|| line.strip_prefix("< ")) {
            told.push((line.chars().next().unwrap(), title.to_owned(), String::new()));
        } else if line.starts_with("  ") && !line.trim_start().starts_with('[') {
            // A line may end within a byte.
            told.last_mut().unwrap().2.extend(line.chars().filter(char::is_ascii_hexdigit));
        }
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let bytes = |digits: String| digits.as_bytes().chunks(2).map(byte).collect();
    told.into_iter().map(|(who, title, digits)| (who, title, bytes(digits))).collect()
}

fn body(frame: &[u8]) -> Value {
    rmpv::decode::read_value(&mut &frame[4..]).unwrap()
}

/// The answer to a hello has the documented keys and values, but for ids and registration.
fn is_as_documented(hello: &Value, documented: &Value) {
    for (key, value) in documented.as_map().unwrap() {
        let key = key.as_str().unwrap();
        let said = field(hello, key);
        match key {
            "node_id" | "integrator_id" => assert!(said.is_str(), "{hello}"),
            "registration" => assert!(
                ["registering", "proxy_registered", "registered"].contains(&said.as_str().unwrap())
            ),
            _ => assert_eq!(said, value, "{key}"),
        }
    }
}

// The conversation of the contract, byte for byte as our clients write it, with a proxy.
#[test]
fn the_conversation_of_the_contract_is_understood() {
    let frames = conversation();
    let bytes = |title: &str| -> Vec<u8> {
        frames.iter().find(|(_, t, _)| t.starts_with(title)).expect(title).2.clone()
    };
    let chain = Chain::start("");
    wait_for("the proxy to be registered", || {
        let nodes = chain.api("/nodes");
        let proxy = nodes["items"].as_array()?.iter().find(|n| n["node"] == "proxy")?.clone();
        (proxy["state"] == "operational").then_some(())
    });
    let mut raw = Raw::open(&chain.socket());
    raw.send(&bytes("the integrator says who it is"));
    let hello = raw.answer(1);
    raw.registered(&hello);
    let hello = hello[3].clone();
    is_as_documented(&hello, &body(&frames[1].2)[3]);
    let (node, own) = (field(&hello, "node_id"), field(&hello, "integrator_id"));
    assert!(own.as_str().unwrap().starts_with(&format!("{}/", node.as_str().unwrap())));

    raw.send(&bytes("an instance"));
    let instance = raw.answer(2)[3].clone();
    assert_eq!(field(&instance, "known"), &false.into());
    let id = field(&instance, "instance_id").as_str().unwrap();
    assert!(id.starts_with(&format!("{}/", own.as_str().unwrap())));
    raw.send(&bytes("an alarm, first of the stream"));
    let stored = raw.answer(3)[3].clone();
    assert_eq!(field(&stored, "outcome").as_str(), Some("stored"));
    drop(raw);

    // The same stream again: the number is known.
    let mut raw = Raw::open(&chain.socket());
    let status = frames
        .iter()
        .find(|(who, _, b)| *who == '>' && body(b)[1] == 1.into() && body(b)[0] == 1.into())
        .map(|(_, _, b)| body(b)[3].clone());
    assert!(status.is_some());
    raw.status = status;
    raw.send(&bytes("the integrator says who it is"));
    assert_eq!(field(&raw.answer(1)[3], "integrator_id"), own);
    raw.send(&bytes("after a lost connection the same again"));
    let again = raw.answer(2);
    let place = frames.iter().position(|(_, t, _)| t.starts_with("answer: it was there")).unwrap();
    assert_eq!(again, body(&frames[place].2));
    raw.send(&bytes("an unknown severity"));
    assert_eq!(raw.answer(3), body(&bytes("refused: -1, EINVAL")));
    // The heartbeat asks for status by the callback that was offered.
    while !raw.asked.iter().any(|method| method == "status") {
        let frame = raw.frame().expect("a request for status");
        raw.other(frame);
    }
    raw.send(&bytes("the end"));
    let bye = raw.answer(7);
    assert_eq!(bye, body(&frames.last().unwrap().2));
    wait_for("the one alarm", || {
        let list = chain.api("/alarms");
        let items = list["items"].as_array()?;
        (items.len() == 1 && items[0]["count"] == 1 && items[0]["instance"] == "press-1")
            .then_some(())
    });
    wait_for("its integrator's platform", || {
        let list = chain.api("/integrators?node=proxy");
        list["items"].as_array()?.iter().any(|i| i["integrator"] == "plant").then_some(())
    });
}

#[test]
fn hello_comes_first_and_in_a_known_version() {
    let up = shared();
    let path = up.data().join("proxy/integrator.sock");
    let mut raw = Raw::open(&path);
    let answer = raw.ask(
        1,
        "hello",
        map(&[
            ("protocols", Value::Array(vec![99.into()])),
            ("name", "late".into()),
            ("version", "1".into()),
            ("callbacks", Value::Array(vec![])),
        ]),
    );
    let error = &answer[2];
    assert_eq!(field(error, "name").as_str(), Some("unknown_version"));
    assert_eq!(field(error, "verdict").as_str(), Some("give_up"));
    assert_eq!(field(error, "code").as_i64(), Some(-2));
    assert_eq!(field(error, "rs_errno").as_i64(), Some(4));
    assert_eq!(field(error, "supported"), &Value::Array(vec![1.into()]));
    let mut raw = Raw::open(&path);
    raw.say(&Value::Array(vec![0.into(), 1.into(), "instance".into(), map(&[])]));
    raw.until_closed();
    assert_eq!(raw.notices[0][1].as_str(), Some("malformed"), "{:?}", raw.notices);
    // Whoever says nothing is let go after 5 s.
    let mut raw = Raw::open(&path);
    raw.socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let started = std::time::Instant::now();
    raw.until_closed();
    assert!((3..13).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[test]
fn a_bad_frame_ends_its_connection_and_no_other() {
    let up = shared();
    let path: PathBuf = up.data().join("proxy/integrator.sock");
    let mut good = Raw::hello(&path, "good");
    let frames: [&[u8]; 6] = [
        &[0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 0],
        &[0, 0x10, 0, 1],
        &[0, 0, 0, 3, 0xc1, 0xc1, 0xc1],
        &[0, 0, 0, 2, 0x91, 0x09],
        &[0, 0, 0, 6, 0x94, 0x00, 0x01, 0x02, 0x03, 0x04],
    ];
    for (i, frame) in frames.iter().enumerate() {
        let mut bad = Raw::hello(&path, &format!("bad-{i}"));
        bad.send(frame);
        bad.until_closed();
        let told = bad.notices.iter().any(|n| n[1].as_str() == Some("malformed"));
        assert!(told, "{frame:x?}: {:?}", bad.notices);
    }
    let answer = good.ask(2, "instance", map(&[("instance", "good-1".into())]));
    assert!(answer[2].is_nil(), "{answer}");
    alarm(&up, "still-good", &[]);
}

#[test]
fn refusals_have_the_codes_of_the_c_library() {
    let up = shared();
    let mut raw = Raw::hello(&up.data().join("proxy/integrator.sock"), "codes");
    let event = |instance: &str, text: &str| {
        map(&[
            ("instance", instance.into()),
            ("occurred_at_ms", 1_795_348_800_000_i64.into()),
            ("event_id", "".into()),
            ("type", "t".into()),
            ("severity", "minor".into()),
            ("state", "opened".into()),
            ("text", text.into()),
        ])
    };
    let unknown = raw.ask(2, "event", event("nobody-1", "x"));
    assert_eq!(field(&unknown[2], "name").as_str(), Some("unknown_instance"), "{unknown}");
    assert_eq!(field(&unknown[2], "code").as_i64(), Some(-1));
    assert_eq!(field(&unknown[2], "errno").as_i64(), Some(2));
    raw.ask(3, "instance", map(&[("instance", "codes-1".into())]));
    let large = raw.ask(
        4,
        "data",
        map(&[
            ("instance", "codes-1".into()),
            ("class", "core".into()),
            ("subclass", "".into()),
            ("data", Value::Binary(vec![7; 262_145])),
            ("encoding", "application/x".into()),
        ]),
    );
    assert_eq!(field(&large[2], "name").as_str(), Some("too_large"), "{large}");
    assert_eq!(field(&large[2], "errno").as_i64(), Some(90));
    let long = raw.ask(5, "event", event("codes-1", &"x".repeat(1025)));
    assert!(["too_large", "malformed"].contains(&field(&long[2], "name").as_str().unwrap()));
    // What is shown and compared has no characters that cannot be seen; a media type is one.
    let odd = raw.ask(8, "instance", map(&[("instance", "codes\u{0}1".into())]));
    assert_eq!(field(&odd[2], "name").as_str(), Some("malformed"), "{odd}");
    let typed = [
        ("instance", "codes-1".into()),
        ("class", "core".into()),
        ("subclass", "".into()),
        ("data", Value::Binary(vec![7])),
        ("encoding", "bad mime".into()),
    ];
    let typed = raw.ask(9, "data", map(&typed));
    assert_eq!(field(&typed[2], "name").as_str(), Some("malformed"), "{typed}");
    assert_eq!(field(&typed[2], "errno").as_i64(), Some(22));
    let method = raw.ask(6, "dance", map(&[]));
    assert!(!method[2].is_nil(), "{method}");
    assert_eq!(raw.ask(7, "bye", map(&[]))[2], Value::Nil);
}

// A call that says what tells it from all others is stored once: under another number, over
// another connection, after the proxy was killed, and by the command for scripts.
#[test]
fn a_call_with_a_once_is_stored_once_however_it_comes_again() {
    let mut chain = Chain::start("");
    let alarm = |text: &str, once: &[u8]| {
        map(&[
            ("instance", "press-1".into()),
            ("occurred_at_ms", jiff::Timestamp::now().as_millisecond().into()),
            ("type", "oil".into()),
            ("severity", "major".into()),
            ("text", text.into()),
            ("once", Value::Binary(once.to_vec())),
        ])
    };
    let outcome = |answer: &Value| field(&answer[3], "outcome").as_str().unwrap().to_owned();
    let mut raw = Raw::hello(&chain.socket(), "plant");
    raw.ask(2, "instance", map(&[("instance", "press-1".into())]));
    assert_eq!(outcome(&raw.ask(3, "alarm", alarm("first", b"k1"))), "stored");
    assert_eq!(outcome(&raw.ask(4, "alarm", alarm("again", b"k1"))), "duplicate");
    assert_eq!(outcome(&raw.ask(5, "alarm", alarm("other", b"k2"))), "stored");
    for (once, errno) in [(&b""[..], 22), (&[7; 65], 90)] {
        let refused = raw.ask(6, "alarm", alarm("wrong", once));
        assert_eq!(field(&refused[2], "errno").as_i64(), Some(errno), "{refused}");
    }
    drop(raw);
    chain.kill(0);
    let mut raw = Raw::hello(&chain.socket(), "plant");
    assert_eq!(outcome(&raw.ask(2, "alarm", alarm("again", b"k1"))), "duplicate");
    assert_eq!(outcome(&raw.ask(3, "alarm", alarm("third", &[7; 64]))), "stored");
    let socket = chain.socket().display().to_string();
    let send = |text: &str| {
        let place = ["send", "event", "--socket", &socket, "--instance", "press-1", "-o", "json"];
        let what = ["--type", "t", "--severity", "minor", "--text", text, "--once", "run-7"];
        let output = callhome(&[&place[..], &what].concat());
        assert!(output.status.success(), "{}", crate::sandbox::text(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["outcome"].clone()
    };
    assert_eq!([send("by hand"), send("by hand again")], ["stored", "duplicate"]);
    wait_for("the last", || (chain.api("/events")["items"].as_array()?.len() == 1).then_some(()));
    let list = chain.api("/messages?class=alarm&limit=100");
    assert_eq!(list["items"].as_array().unwrap().len(), 3, "{list}");
}

// A proxy that has no room says so, and so does `send`: it is not looked for elsewhere.
#[test]
fn a_send_that_finds_no_room_is_told_to_come_again() {
    let chain = Chain::start("");
    let path = chain.socket();
    let idle: Vec<Raw> = (0..256).map(|n| Raw::hello(&path, &format!("i{n}"))).collect();
    let send = "send event --instance a --type t --severity minor --text x --wait 1 --socket";
    let mut send: Vec<&str> = send.split(' ').collect();
    send.push(path.to_str().unwrap());
    let said = crate::support::refused(&callhome(&send), 75);
    assert!(said.contains("busy") && said.contains("256 connections are open"), "{said}");
    assert!(said.contains("  help: send it again in 1 s") && !said.contains("no proxy"), "{said}");
    drop(idle);
    let output = callhome(&send);
    assert!(output.status.success(), "{}", crate::sandbox::text(&output.stderr));
}
