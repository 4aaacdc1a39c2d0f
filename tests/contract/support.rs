//! What the tests of the contract share: one quiet `up` for many, exit codes, whole HTTP answers.
use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Output,
    sync::{Arc, Mutex, Weak},
};

use serde_json::Value;

use crate::sandbox::{LONG, Up, callhome, text};

/// Without what this machine would tell by itself.
pub const QUIET: [&str; 5] = ["--snmp", "off", "--syslog", "off", "--no-inventory"];

/// One `up` for all tests that only read, or touch instances of their own. It ends with the last
/// test that holds it.
pub fn shared() -> Arc<Up> {
    static RUNNING: Mutex<Weak<Up>> = Mutex::new(Weak::new());
    let mut running = RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(up) = running.upgrade() {
        return up;
    }
    let up = Arc::new(Up::start(&QUIET));
    *running = Arc::downgrade(&up);
    up
}

/// Runs a command against that `up`; flags of all commands stand before its name, as `send` has a
/// `--data` of its own.
pub fn against(up: &Up, arguments: &[&str]) -> Output {
    let data = up.data_text();
    let mut all = vec!["--data", &data];
    all.extend(arguments);
    callhome(&all)
}

/// Its standard output where it ends with 0.
pub fn done(up: &Up, arguments: &[&str]) -> String {
    let output = against(up, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Checks exit code and form of a failure: `callhome: error: …` on stderr. Returns what it said.
pub fn refused(output: &Output, code: i32) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}\n{}", text(&output.stdout));
    assert!(said.contains("callhome: error: "), "{said}");
    said
}

/// A whole HTTP answer.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", text(&self.body)))
    }

    /// Checks that it is that problem, with all keys of the schema.
    pub fn problem(&self, status: u16, name: &str, verdict: &str) -> Value {
        let told = text(&self.body);
        assert_eq!(self.status, status, "{told}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{told}");
        let problem = self.json();
        crate::schema::check("Problem", &problem);
        assert_eq!(problem["type"], format!("/problems/{name}"));
        assert_eq!(problem["verdict"], verdict);
        assert_eq!(problem["status"], status);
        problem
    }
}

/// One request with any bytes as its body. `head` is method and path.
pub fn http(host: &str, head: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(host).unwrap_or_else(|e| panic!("{host}: {e}"));
    stream.set_read_timeout(Some(LONG)).unwrap();
    let length = body.len();
    let sent = write!(
        stream,
        "{head} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\
         Content-Length: {length}\r\n\r\n"
    );
    sent.unwrap();
    // A door may answer and close before it has read a body that is too large.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let mut part = [0; 65_536];
    while let Ok(n @ 1..) = stream.read(&mut part) {
        answer.extend_from_slice(&part[..n]);
    }
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("{head}: no answer: {}", text(&answer)));
    let body = answer.split_off(end + 4);
    let head = text(&answer);
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Answer { status, head, body }
}

/// The header of the operator's token.
pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Sends one alarm; returns its message id.
pub fn alarm(up: &Up, instance: &str, rest: &[&str]) -> String {
    let mut all = vec!["send", "alarm", "--instance", instance, "--type", "oil"];
    all.extend(["--severity", "major", "--text", "oil pressure low"]);
    all.extend(rest);
    done(up, &all).trim().to_owned()
}

/// Values of a metric: labels in braces, and the figure.
pub fn metric(metrics: &str, name: &str) -> Vec<(String, f64)> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, labels) = series.split_once('{').unwrap_or((series, ""));
        (found == name).then(|| (labels.to_owned(), value.parse().ok()))
    });
    lines.filter_map(|(labels, value)| Some((labels, value?))).collect()
}
