//! What a full queue costs that holds nothing but what has expired.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod disk;
mod sandbox;

use std::{sync::Arc, time::Instant};

use disk::{Like, Node, counting::Counting, exchange_of_runs, knock, pass_s, run, total};
use module_redb::{Options, RedbStore};
use protocol::{Precedence::Normal, exchange::Outcome, message::Persistence};
use roles::delivery::orders::Identity;

const PLAIN: Persistence = Persistence::Normal;
const SIZE: usize = 300;

/// Messages, each a run of its own: many more with `CALLHOME_FULL`.
fn many() -> usize {
    if std::env::var_os("CALLHOME_FULL").is_some() { 100_000 } else { 2_000 }
}

// QUE-10: each expired run is read once or twice, however many there are.
#[test]
fn room_among_expired_runs_costs_by_the_victim() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(RedbStore::open(folder.path(), &Options::default()).unwrap().store);
        let counting = Counting::new(store);
        let who = Identity { id: sandbox::id(1), epoch: 7 };
        let many = many();
        let node = Node::on(counting.clone(), who, total((many * SIZE) as u64));
        let like = Like(Normal, PLAIN, Some(60));
        let message = node.message(SIZE, like);
        for exchanges in 0..many as u64 / 100 {
            // What comes in runs is kept in runs: each message is one.
            let carried = exchange_of_runs(1 + exchanges, 1 + 100 * exchanges, 100, &message);
            assert_eq!(knock(&node, &carried).await, [(Outcome::Stored, 100)]);
        }
        pass_s(61);
        counting.read();
        let started = Instant::now();
        // First one by one, then as many as a commit takes.
        for _ in 0..50 {
            node.kept(1, SIZE, Like(Normal, PLAIN, None)).await;
        }
        for _ in 0..many / 1000 {
            node.kept(950, SIZE, Like(Normal, PLAIN, None)).await;
        }
        let (went, took) = (50 + many / 1000 * 950, started.elapsed());
        let (runs, rows) = counting.read();
        assert!(runs >= went as u64, "each of them is a run of its own");
        println!("{went} of {many} expired went in {took:?}; {runs} runs, {rows} rows read");
        assert_eq!(node.figures().await.account.expired, went as u64);
        assert!(runs <= 3 * went as u64 + 100, "{runs} runs read");
        assert!(rows <= 10 * many as u64, "{rows} rows read");
        node.is_sound().await;
        node.stop().await;
    });
}
