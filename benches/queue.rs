//! Messages a second through the queue's store, put and taken, by how many commit together, beside
//! one append and one `fdatasync` a message in the same folder.
//!
//! `cargo bench --bench queue [-- --bytes B --seconds S --runs N]`. The last line is JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod parts;
#[path = "../tests/sandbox/mod.rs"]
mod sandbox;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use extension::storage::{Change, Place, QueueName, QueueStore};
use module_redb::{Options, RedbStore};
use parts::{median, meter, option, rounded};
use protocol::Precedence;
use serde_json::json;

/// Messages that commit together.
const BATCHES: [usize; 4] = [1, 16, 128, 1024];
/// Largest value, as the queue cuts its runs, bytes.
const RUN_BYTES_MAX: usize = 255 << 10;
/// How long the reference is measured before each run.
const REFERENCE: Duration = Duration::from_secs(1);

fn main() {
    let bytes: usize = option("--bytes", 1024).max(1);
    let time = Duration::from_secs_f64(option("--seconds", 2.0));
    let runs = option("--runs", 3_usize).max(1);
    let place = parts::place();
    let mut lines = Vec::new();
    for batch in BATCHES {
        let (mut rates, mut costs, mut references) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..runs {
            let folder = tempfile::tempdir_in(&place).expect("a folder");
            references.push(meter::appends_per_s(folder.path(), bytes, REFERENCE));
            let (rate, cost) = measure(folder.path(), batch, bytes, time);
            rates.push(rate);
            costs.push(cost);
        }
        rates.sort_by(f64::total_cmp);
        let spread = [rounded(rates[0]), rounded(rates[rates.len() - 1])];
        let (rate, reference) = (median(rates), median(references));
        println!(
            "{batch} together: {rate:.0} messages/s, {:.2} × the reference, {:.2} µs of CPU each",
            rate / reference,
            median(costs.clone())
        );
        lines.push(json!({
            "together": batch,
            "messages_per_s": rounded(rate),
            "reference_per_s": rounded(reference),
            "ratio": rounded(rate / reference),
            "cpu_us_per_message": rounded(median(costs)),
            "spread": spread,
        }));
    }
    println!("{}", json!({ "bench": "queue", "bytes": bytes, "runs": runs, "by_batch": lines }));
}

/// Puts a batch in one commit that also removes the batch before it, as a node under way does.
fn measure(folder: &Path, batch: usize, bytes: usize, time: Duration) -> (f64, f64) {
    let opened = RedbStore::open(folder, &Options::default()).expect("a store");
    let (store, queue) = (opened.store, QueueName::new("up"));
    let each = (RUN_BYTES_MAX / bytes).max(1);
    let (mut position, mut count, mut before) = (0, 0, Vec::new());
    let (started, cpu) = (Instant::now(), meter::cpu_us(std::process::id()));
    while started.elapsed() < time {
        let mut changes: Vec<Change> = std::mem::take(&mut before)
            .into_iter()
            .map(|place| Change::RemoveRun { queue: queue.clone(), place })
            .collect();
        let mut left = batch;
        while left > 0 {
            let messages = left.min(each);
            position += 1;
            let place = Place { precedence: Precedence::Normal, position };
            let value = Bytes::from(vec![0x5a; messages * bytes]);
            changes.push(Change::PutRun { queue: queue.clone(), place, value });
            before.push(place);
            left -= messages;
        }
        store.commit(&changes).expect("committed");
        count += batch as u64;
    }
    let took = started.elapsed().as_secs_f64();
    let cpu = meter::cpu_us(std::process::id()) - cpu;
    (count as f64 / took, cpu as f64 / count as f64)
}
