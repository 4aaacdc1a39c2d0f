//! A store too large to be counted at its start is counted while it serves, and wrong counters are
//! corrected (DESIGN §4.4).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod disk;
mod sandbox;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use disk::{Like, Node, run, total};
use extension::storage::{Change, Place, QueueName, QueueStore};
use module_memory::MemoryStore;
use protocol::{
    Precedence::{Bulk, Normal, Urgent},
    ends::End,
    message::Persistence,
};
use roles::delivery::{
    orders::Identity,
    recount,
    state::{Held, STATE, STATE_KEY, State},
};

const PLAIN: Persistence = Persistence::Normal;
const SIZE: usize = 300;
/// Runs of the long lane: several steps of the count.
const RUNS: u64 = 600;

fn who() -> Identity {
    Identity { id: sandbox::id(1), epoch: 7 }
}

fn state(store: &MemoryStore) -> State {
    State::decode(&store.row(STATE, STATE_KEY).unwrap().unwrap()).unwrap()
}

fn set_state(store: &MemoryStore, state: &State) {
    let (key, value) = (Bytes::from_static(STATE_KEY), state.encode().unwrap().into());
    store.commit(&[Change::PutRow { table: STATE, key, value }]).unwrap();
}

/// Whether counters and account say what stands on disk.
fn agrees(store: &MemoryStore) -> bool {
    let state = state(store);
    let count = recount::count(store, &state).unwrap();
    count.differences.is_empty()
        && count.queued == Some(state.account.queued)
        && state.account.balanced()
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let limit = tokio::time::Instant::now() + Duration::from_secs(60);
    while !done().await {
        assert!(tokio::time::Instant::now() < limit, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The parent takes so many messages at most; answers how many.
async fn leave(node: &Node, at_most: u64) -> u64 {
    let batch = node.next(at_most as usize * SIZE).await;
    let count = batch.runs.iter().map(|run| run.header.count).sum::<u32>();
    node.settle(&batch, count).await;
    count.into()
}

/// A stopped store with a long lane of normal messages and a few others.
async fn filled() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    let node = Node::on(store.clone(), who(), total(1 << 30));
    for _ in 0..RUNS {
        node.kept(1, SIZE, Like(Normal, PLAIN, None)).await;
    }
    node.kept(5, SIZE, Like(Urgent, PLAIN, None)).await;
    node.kept(4, SIZE, Like(Bulk, PLAIN, None)).await;
    node.is_sound().await;
    node.stop().await;
    store
}

/// Counters that are wrong are corrected, though so many messages leave at once when the first step
/// is done, and then one comes and one leaves now and then.
fn is_corrected_though(leave_at_once: u64) {
    run(async {
        let store = filled().await;
        let mut wrong = state(&store);
        // 70 phantoms that take room, and 3 messages that nobody knows of.
        let lanes = wrong.held.get_mut("up").unwrap();
        lanes[Normal as usize].messages += 70;
        lanes[Normal as usize].bytes += 70 * SIZE as u64;
        lanes[Bulk as usize] = Held { messages: 1, bytes: SIZE as u64 };
        wrong.account.queued += 67;
        wrong.account.taken += 67;
        set_state(&store, &wrong);
        let taken = wrong.account.taken;
        assert!(!agrees(&store));
        let node = Node::counted(store.clone(), who(), total(1 << 30), false);
        // Bulk is counted first; the same step reads some 250 normal messages from the end.
        let bulk = || state(&store).held["up"][Bulk as usize].messages;
        until("the first step", async || bulk() == 4).await;
        let (mut came, mut went) = (0, 0);
        while went < leave_at_once {
            went += leave(&node, leave_at_once - went).await;
        }
        until("the count", async || {
            node.kept(1, SIZE, Like(Normal, PLAIN, None)).await;
            came += 1;
            went += leave(&node, 1).await;
            agrees(&store)
        })
        .await;
        let figures = node.is_sound().await;
        let account = figures.account;
        assert_eq!((account.refused, account.taken), (70, taken + 3 + came), "{account:?}");
        assert_eq!(figures.refused, [("damaged".to_owned(), 70)]);
        assert_eq!(account.delivered, went);
        assert_eq!(account.queued, RUNS + 9 + came - went);
        node.stop().await;
    });
}

#[test]
fn wrong_counters_are_corrected_while_messages_come_and_go() {
    is_corrected_though(0);
}

// The head goes past what the count has read: what was read is no longer so.
#[test]
fn wrong_counters_are_corrected_while_what_was_counted_leaves() {
    is_corrected_though(RUNS - 150);
}

// What stands on disk goes out, whether the counters know of its queue or not.
#[test]
fn messages_of_which_no_counter_knows_are_taken_into_custody_and_leave() {
    run(async {
        let store = filled().await;
        let mut wrong = state(&store);
        wrong.held.clear();
        wrong.account.taken -= wrong.account.queued;
        wrong.account.queued = 0;
        set_state(&store, &wrong);
        let node = Node::counted(store.clone(), who(), total(1 << 30), false);
        let batch = node.next(5 * SIZE).await;
        assert_eq!(batch.runs[0].header.precedence, Urgent);
        node.settle(&batch, 5).await;
        until("the count", async || agrees(&store)).await;
        let account = node.is_sound().await.account;
        assert_eq!((account.taken, account.delivered), (RUNS + 9, 5), "{account:?}");
        node.stop().await;
    });
}

// DESIGN §4.5: damage deep in a queue is found before its turn comes, and told.
#[test]
fn damage_deep_in_a_queue_is_found_by_the_count_and_told_upward() {
    run(async {
        let store = filled().await;
        let up = QueueName::new("up");
        let hit = [200, 300].map(|position| Place { precedence: Normal, position });
        assert!(hit.iter().all(|place| store.damage_run(&up, *place)));
        let node = Node::counted(store.clone(), who(), total(1 << 30), false);
        until("what is damaged to be set aside", async || {
            let is_gone = |place: &Place| matches!(store.run(&up, *place), Ok(None));
            hit.iter().all(is_gone) && agrees(&store)
        })
        .await;
        assert_eq!(node.is_sound().await.account.refused, 2);
        assert_eq!(node.ended(Normal, End::Refused), [200, 300]);
        node.stop().await;
    });
}
