//! Real processes for the tests: `up`, nodes apart, the API over HTTP, waiting with a limit.
#![allow(dead_code, reason = "each test file uses a part")]
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

pub mod chain;
pub mod disk;
pub mod small;
pub mod tap;
pub mod told;
pub mod traffic;

use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub const CALLHOME: &str = env!("CARGO_BIN_EXE_callhome");
/// Longest wait for anything: a busy machine with two cores.
pub const LONG: Duration = Duration::from_secs(60);

/// Bytes of what a process says that are kept.
const LOG_BYTES_MAX: usize = 16 << 20;

/// Waits until `done` gives something; panics with `what` after [`LONG`].
pub fn wait_for<T>(what: &str, done: impl FnMut() -> Option<T>) -> T {
    wait_within(LONG, what, done)
}

/// As [`wait_for`], for what takes longer.
pub fn wait_within<T>(within: Duration, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < end, "waited {within:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A child that is killed when the test ends, however it ends.
pub struct Process {
    pub child: Child,
    /// The words of its `ready` line.
    pub ready: String,
    log: Arc<Mutex<Vec<u8>>>,
}

impl Process {
    /// Starts the binary and waits for its `ready` line.
    pub fn start(arguments: &[&str]) -> Self {
        Self::try_start(arguments).unwrap_or_else(|output| panic!("{arguments:?}: {output}"))
    }

    /// As `start`; what it said where it was never ready.
    pub fn try_start(arguments: &[&str]) -> Result<Self, String> {
        Self::try_start_with(arguments, &[])
    }

    /// As `try_start`, with more variables.
    pub fn try_start_with(
        arguments: &[&str],
        variables: &[(String, String)],
    ) -> Result<Self, String> {
        let mut command = Command::new(CALLHOME);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).env_remove("CALLHOME_DATA");
        let mut child = command.spawn().expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut stderr = child.stderr.take().expect("piped");
        // Read on, so that a full pipe does not stop it; kept for the message of a failure.
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = log.clone();
        let errors = std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut part) {
                let mut text = kept.lock().expect("test");
                if text.len() < LOG_BYTES_MAX {
                    text.extend_from_slice(&part[..n]);
                }
                if std::env::var_os("CALLHOME_TEST_LOG").is_some() {
                    let _ = std::io::stderr().write_all(&part[..n]);
                }
            }
        });
        let mut ready = String::new();
        loop {
            let mut line = String::new();
            if stdout.read_line(&mut line).unwrap_or(0) == 0 {
                let _ = child.wait();
                let _ = errors.join();
                return Err(text(&log.lock().expect("test")));
            }
            if let Some(words) = line.strip_prefix("ready ") {
                ready.push_str(words.trim());
                break;
            }
        }
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Ok(Self { child, ready, log })
    }

    /// The value behind `key=` in its ready line.
    pub fn word(&self, key: &str) -> String {
        let value = self.ready.split(' ').find_map(|w| w.strip_prefix(&format!("{key}=")));
        value.unwrap_or_else(|| panic!("no {key} in {:?}", self.ready)).to_owned()
    }

    /// What it has said on stderr so far.
    pub fn log(&self) -> String {
        text(&self.log.lock().expect("test"))
    }

    /// How much that is, bytes.
    pub fn log_length(&self) -> usize {
        self.log.lock().expect("test").len()
    }

    /// What it has said behind the first `from` bytes.
    pub fn log_from(&self, from: usize) -> String {
        text(self.log.lock().expect("test").get(from..).unwrap_or_default())
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// TERM, then its exit code.
    pub fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(told.success());
        let end = Instant::now() + LONG;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("did not stop in {LONG:?}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs the binary to its end.
pub fn callhome(arguments: &[&str]) -> Output {
    let mut command = Command::new(CALLHOME);
    command.args(arguments).stdin(Stdio::null()).env_remove("CALLHOME_DATA");
    command.output().expect("the binary runs")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `callhome up` on free ports in a folder of its own.
pub struct Up {
    pub folder: TempDir,
    pub process: Process,
}

impl Up {
    pub fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let process = Self::process(folder.path(), more);
        Self { folder, process }
    }

    pub fn process(folder: &Path, more: &[&str]) -> Process {
        let data = folder.to_str().expect("a plain path");
        let mut arguments = vec!["up", "--listen", "127.0.0.1:0", "--data", data];
        arguments.extend(more);
        Process::start(&arguments)
    }

    pub fn data(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_text(&self) -> String {
        self.data().display().to_string()
    }

    /// Where API and portal are, without the scheme.
    pub fn server(&self) -> String {
        server_in(self.data())
    }

    pub fn operator(&self) -> String {
        line_of(&self.data().join("operator.url")).replace("http://", "")
    }

    pub fn token(&self) -> String {
        line_of(&self.data().join("operator.token"))
    }

    /// A list or object of the API.
    pub fn api(&self, path: &str) -> Value {
        let (status, body) = get(&self.server(), &format!("/api/v1{path}"), &self.token());
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// A JSON result of a command.
    pub fn cli(&self, arguments: &[&str]) -> Value {
        let data = self.data_text();
        let mut all = arguments.to_vec();
        all.extend(["--data", &data, "--format", "json"]);
        let output = callhome(&all);
        assert!(output.status.success(), "{all:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Waits for an alarm that `wanted` says yes to.
    pub fn alarm(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || {
            let list = self.api("/alarms?limit=1000");
            list["items"].as_array()?.iter().find(|a| wanted(a)).cloned()
        })
    }
}

pub fn server_in(data: &Path) -> String {
    line_of(&data.join("server.url")).replace("http://", "")
}

fn line_of(path: &PathBuf) -> String {
    let text = std::fs::read_to_string(path);
    text.unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

/// One HTTP request without a library, so that nothing is hidden: status and body.
pub fn request(host: &str, head: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(host).unwrap_or_else(|e| panic!("{host}: {e}"));
    stream.set_read_timeout(Some(LONG)).expect("a socket");
    let length = body.len();
    write!(
        stream,
        "{head} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\
        Content-Length: {length}\r\n\r\n{body}"
    )
    .expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answered");
    let answer = text(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    (status, if chunked { unchunk(body) } else { body.to_owned() })
}

fn unchunk(body: &str) -> String {
    let (mut rest, mut whole) = (body.as_bytes(), Vec::new());
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(text(&rest[..end]).trim(), 16).unwrap_or(0);
        if size == 0 || rest.len() < end + 2 + size {
            break;
        }
        whole.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
    text(&whole)
}

pub fn get(host: &str, path: &str, token: &str) -> (u16, String) {
    request(host, &format!("GET {path}"), &format!("Authorization: Bearer {token}\r\n"), "")
}
