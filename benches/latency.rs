//! How long one message takes through an idle system: call, stored at the provider, visible.
//!
//! `cargo bench --bench latency [-- --messages N --every-ms M --bytes B --runs R --tiers 3|4]`.
//! The last line is JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod parts;
#[path = "../tests/sandbox/mod.rs"]
mod sandbox;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use parts::{
    load::Integrator,
    meter,
    nodes::{Chain, Shape},
    option, percentile, rounded,
};
use serde_json::{Value, json};

/// How long the last message may take to be shown.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);
/// How long the reference is measured before each run.
const REFERENCE: Duration = Duration::from_secs(1);

/// Milliseconds of each message of one run.
#[derive(Default)]
struct Times {
    /// From the call to its answer: synced at the proxy.
    accepted: Vec<f64>,
    /// From the call to what the provider says is the time at which it stored it, rounded up.
    stored: Vec<f64>,
    /// From the call to its arrival in a stream of the API.
    visible: Vec<f64>,
}

fn main() {
    let messages = option("--messages", 300_usize).max(20);
    let every = Duration::from_millis(option("--every-ms", 20));
    let bytes = option("--bytes", 1024);
    let shape = if option("--tiers", 3_u32) == 4 { Shape::Four } else { Shape::Three };
    let place = parts::place();
    let mut all = Vec::new();
    for run in 1..=option("--runs", 3_usize).max(1) {
        let folder = tempfile::tempdir_in(&place).expect("a folder");
        let reference = 1e3 / meter::appends_per_s(folder.path(), bytes, REFERENCE);
        let times = measure(folder.path(), shape, (messages, every, bytes));
        let figures = figures(&times, reference);
        println!("run {run}: {figures}");
        all.push(figures);
    }
    let median = |name: &str| {
        let of = |at: usize| all.iter().map(move |f| f[name][at].as_f64().expect("a number"));
        json!([rounded(parts::median(of(0).collect())), rounded(parts::median(of(1).collect()))])
    };
    println!(
        "{}",
        json!({
            "bench": "latency",
            "accepted_ms": median("accepted_ms"),
            "stored_ms": median("stored_ms"),
            "visible_ms": median("visible_ms"),
            "visible_after_stored_ms": median("visible_after_stored_ms"),
            "runs": all,
            "messages": messages,
            "every_ms": every.as_millis() as u64,
            "bytes": bytes,
        })
    );
}

/// Median and 99th of a hundred, ms.
fn figures(times: &Times, reference: f64) -> Value {
    let of = |values: &[f64]| {
        json!([rounded(percentile(values, 50.0)), rounded(percentile(values, 99.0))])
    };
    // The provider's times are whole milliseconds: one may seem to be visible before.
    let after: Vec<f64> =
        times.visible.iter().zip(&times.stored).map(|(v, s)| (v - s + 1.0).max(0.0)).collect();
    json!({
        "accepted_ms": of(&times.accepted),
        "stored_ms": of(&times.stored),
        "visible_ms": of(&times.visible),
        "visible_after_stored_ms": of(&after),
        "reference_sync_ms": rounded(reference),
    })
}

fn measure(folder: &Path, shape: Shape, of: (usize, Duration, usize)) -> Times {
    let (messages, every, bytes) = of;
    let chain = Chain::start(folder, shape);
    let mut integrator = Integrator::connect(&chain.socket, "latency", bytes);
    chain.settle();
    let shown = listen(&chain);
    // Before the first is measured the stream stands and every path has been walked once.
    integrator.call();
    shown.recv_timeout(SHOWN_WITHIN).expect("the stream shows the first");
    let mut times = Times::default();
    let mut begun = Vec::with_capacity(messages);
    for _ in 0..messages {
        std::thread::sleep(every);
        let (at, started) = (wall_ms(), Instant::now());
        begun.push((at, started));
        integrator.call();
        times.accepted.push(ms(started.elapsed()));
    }
    for (at, started) in begun {
        let (seen, stored_at) = shown.recv_timeout(SHOWN_WITHIN).expect("all are shown");
        times.visible.push(ms(seen.duration_since(started)));
        times.stored.push(stored_at + 1.0 - at);
    }
    times
}

/// When each message of the load was seen in the API's stream, and what it says of when it was
/// stored, ms since 1970 UTC.
fn listen(chain: &Chain) -> mpsc::Receiver<(Instant, f64)> {
    let folder = &chain.top().folder;
    let token = std::fs::read_to_string(folder.join("operator.token")).expect("a token");
    let server = sandbox::server_in(folder);
    let mut stream = TcpStream::connect(&server).expect("the API");
    write!(
        stream,
        "GET /api/v1/stream?topic=messages&class=event HTTP/1.1\r\nHost: {server}\r\n\
        Authorization: Bearer {}\r\nAccept: text/event-stream\r\n\r\n",
        token.trim()
    )
    .expect("sent");
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let Some(data) = line.strip_prefix("data:") else { continue };
            let seen = Instant::now();
            let Ok(message) = serde_json::from_str::<Value>(data.trim()) else { continue };
            let stored = message["stored_at"].as_str().and_then(|at| at.parse().ok());
            let Some(stored) = stored.map(|at: jiff::Timestamp| at.as_millisecond() as f64) else {
                continue;
            };
            if tell.send((seen, stored)).is_err() {
                return;
            }
        }
    });
    told
}

fn wall_ms() -> f64 {
    jiff::Timestamp::now().as_microsecond() as f64 / 1000.0
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
