//! What a message costs to write, find, check and read, ns, beside a copy and a digest of it.
//!
//! `cargo bench --bench codec [-- --bytes B --runs N]`. The last line is JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod parts;
#[path = "../tests/sandbox/mod.rs"]
mod sandbox;

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use parts::{
    child::{Mix, message_of},
    median, option, rounded,
};
use protocol::{
    Precedence, RemoteId,
    codec::Reader,
    exchange::digest_of,
    message::{Blocks, Messages},
    run::{Run, RunHeader},
};
use serde_json::{Map, json};

/// Messages of the run that is measured.
const MESSAGES: u64 = 512;
/// Rounds of one measurement.
const ROUNDS: usize = 200;

fn main() {
    let bytes = option("--bytes", 1024);
    let mix = Mix { bytes, instances: 7, alarms: 10 };
    let customer: RemoteId = sandbox::chain::PROVIDER.parse().expect("an id");
    let origin = customer.child(1).expect("a proxy");
    let messages: Vec<_> = (1..=MESSAGES).map(|n| message_of(origin, mix, n)).collect();
    let wire: Vec<u8> = messages.iter().flat_map(|m| m.encode().0).collect();
    let run = Run { header: header(&messages), messages: Bytes::from(wire) };
    let now = messages[0].header.accepted_at;
    let runs = option("--runs", 5_usize).max(1);
    let mut figures = Map::new();
    let mut measure = |name: &str, once: &mut dyn FnMut()| {
        let each = (0..runs).map(|_| {
            let started = Instant::now();
            (0..ROUNDS).for_each(|_| once());
            started.elapsed().as_secs_f64() * 1e9 / (ROUNDS as u64 * MESSAGES) as f64
        });
        let mut each: Vec<f64> = each.collect();
        each.sort_by(f64::total_cmp);
        let (least, most) = (each[0], each[each.len() - 1]);
        println!("{name}: {:.0} ns ({least:.0}–{most:.0})", median(each.clone()));
        figures
            .insert(name.to_owned(), json!([rounded(median(each)), rounded(least), rounded(most)]));
    };
    measure("copy", &mut || drop(black_box(run.messages.to_vec())));
    measure("digest", &mut || _ = black_box(digest_of(std::slice::from_ref(&run))));
    measure("encode", &mut || messages.iter().for_each(|m| drop(black_box(m.encode()))));
    measure("find", &mut || _ = black_box(Messages::of(&run.messages).count()));
    measure("check", &mut || {
        for (message, number) in Messages::of(&run.messages).zip(1..) {
            let (_, blocks) = message.expect("a message");
            black_box(blocks.check(&run.header, number, now).expect("a good one"));
        }
    });
    measure("decode", &mut || {
        let mut reader = Reader::new(&run.messages);
        while !reader.is_empty() {
            let blocks = Blocks::take(&mut reader).expect("a message");
            drop(black_box(blocks.decode().expect("a good one")));
        }
    });
    let size = run.messages.len() as u64 / MESSAGES;
    println!("{}", json!({ "bench": "codec", "ns": figures, "wire_bytes": size, "bytes": bytes }));
}

fn header(messages: &[protocol::Message]) -> RunHeader {
    let first = &messages[0].header.id;
    RunHeader {
        origin: first.origin,
        epoch: first.epoch,
        precedence: Precedence::Normal,
        first: first.sequence,
        count: messages.len() as u32,
        left_out: Vec::new(),
        replayed: false,
        changed: false,
        path: Vec::new(),
    }
}
