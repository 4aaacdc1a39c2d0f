//! What the application server's store costs as it fills, and how long its searches take.
//!
//! `cargo bench --bench store [-- --messages N --bytes B --instances I --alarms P --searches S]`;
//! `--alarms P`: of a hundred messages P are alarms and P are data. The last line is JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod parts;
#[path = "../tests/sandbox/mod.rs"]
mod sandbox;

use std::time::{Duration, Instant};

use parts::{
    child::{Child, Mix},
    meter,
    nodes::{Chain, Shape},
    option, rounded,
};
use serde_json::{Value, json};

/// Messages over which the CPU of one is measured.
const WINDOW: u64 = 100_000;
/// How long modules may take to be done with all that came.
const DONE_WITHIN: Duration = Duration::from_secs(60);

fn main() {
    let messages = option("--messages", 1_000_000_u64).max(2 * WINDOW);
    let searches = option("--searches", 20_u64).max(1);
    let mix = Mix {
        bytes: option("--bytes", 1024),
        instances: option("--instances", 1000_u64).max(1),
        alarms: option("--alarms", 10_u64).min(45),
    };
    let place = parts::place();
    let folder = tempfile::tempdir_in(&place).expect("a folder");
    let mut chain = Chain::start(folder.path(), Shape::Top);
    let mut child = Child::connect(&chain.door, &chain.customer, mix);
    // The first of it makes the rows of every instance.
    fill(&chain, &mut child, WINDOW / 2);
    let first = cost(&chain, &mut child, WINDOW / 2 + WINDOW);
    fill(&chain, &mut child, messages - WINDOW);
    let last = cost(&chain, &mut child, messages);
    println!("CPU of a message: {first:.2} µs with {WINDOW} stored, {last:.2} with {messages}");
    let found = search_all(&chain, &child, messages, searches);
    chain.nodes[0].kill_and_start();
    let started = Instant::now();
    let text = format!("/api/v1/messages?text={}", Child::words_of(messages / 2));
    let after = took(&chain, &text, 1);
    println!(
        "after kill -9: a search by text {:.0} ms, {:.0} ms after the start",
        after,
        ms(started)
    );
    let store = std::fs::metadata(chain.nodes[0].folder.join("store.redb")).map_or(0, |m| m.len());
    println!(
        "{}",
        json!({
            "bench": "store",
            "messages": messages,
            "bytes": mix.bytes,
            "alarms_percent": mix.alarms,
            "cpu_us_per_message": {"first": rounded(first), "last": rounded(last)},
            "ratio": rounded(last / first),
            "search_ms": found,
            "search_after_kill_ms": rounded(after),
            "peak_mib": rounded(meter::peak_mib(chain.nodes[0].pid())),
            "store_bytes": store,
        })
    );
}

/// Sends until so many are stored, and waits until every module is done with them.
fn fill(chain: &Chain, child: &mut Child, until: u64) {
    child.send(until);
    let started = Instant::now();
    while chain.top().account().queued > 0 {
        assert!(started.elapsed() < DONE_WITHIN, "modules are not done");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// CPU of the provider for one message, µs, up to so many stored.
fn cost(chain: &Chain, child: &mut Child, until: u64) -> f64 {
    let (from, pid) = (child.sent, chain.top().pid());
    let before = meter::cpu_us(pid);
    let started = Instant::now();
    fill(chain, child, until);
    let rate = (until - from) as f64 / started.elapsed().as_secs_f64();
    println!("{until} stored, {rate:.0} messages/s");
    (meter::cpu_us(pid) - before) as f64 / (until - from) as f64
}

/// Median and most of each kind of search, ms.
fn search_all(chain: &Chain, child: &Child, messages: u64, times: u64) -> Value {
    let mut all = serde_json::Map::new();
    let spread = |n: u64| 1 + (n * 7_919 * 131 + messages / 3) % messages;
    let mut each = |name: &str, path: &dyn Fn(u64) -> String, least: usize| {
        let of = |n| took(chain, &path(spread(n)), least);
        let mut taken: Vec<f64> = (0..times).map(of).collect();
        taken.sort_by(f64::total_cmp);
        let (median, most) = (taken[taken.len() / 2], taken[taken.len() - 1]);
        println!("search {name}: {median:.1} ms, at most {most:.1}");
        all.insert(name.to_owned(), json!([rounded(median), rounded(most)]));
    };
    let list = "/api/v1/messages?";
    let text = |n| Child::words_of(n);
    each(
        "id",
        &|n| format!("/api/v1/messages/{}", child.id_of(n).to_string().replace('/', ".")),
        0,
    );
    each("newest 1000", &|_| format!("{list}limit=1000"), 1000);
    each("instance, 100", &|n| format!("{list}instance={}&limit=100", child.instance_of(n)), 100);
    each("instance, 1000", &|n| format!("{list}instance={}", child.instance_of(n)), 100);
    each("class", &|_| format!("{list}class=data&subclass=audit&limit=100"), 1);
    each("text", &|n| format!("{list}text={}", text(n - n % 1000 + 999)), 0);
    each("text of events", &|n| format!("/api/v1/events?text={}", text(n)), 0);
    each("text that nothing has", &|n| format!("{list}text=none-{n}"), 0);
    each(
        "events of an instance",
        &|n| format!("/api/v1/events?instance={}&limit=100", child.instance_of(n)),
        1,
    );
    Value::Object(all)
}

/// Time until an answer with at least so many items is there, ms.
fn took(chain: &Chain, path: &str, least: usize) -> f64 {
    let started = Instant::now();
    let (status, said) = chain.ask(path);
    let taken = ms(started);
    assert_eq!(status, 200, "{path}: {said}");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let items = said["items"].as_array().map_or(0, Vec::len);
    assert!(items >= least, "{path}: {items} items");
    taken
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
