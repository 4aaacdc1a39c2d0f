//! What a full queue does with newcomers, on a real store: who is kept, who goes, who is told.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod disk;
mod sandbox;

use disk::{Like, Node, exchange, knock, pass_s, run, total};
use protocol::{
    Precedence::{Bulk, Normal, Urgent},
    Refusal,
    ends::End,
    exchange::Outcome,
    message::Persistence,
};
use roles::delivery::{
    eviction::Limits,
    orders::{Kept, Release},
};

const PLAIN: Persistence = Persistence::Normal;
const ASSURED: Persistence = Persistence::Assured;
/// Wire bytes of a message.
const SIZE: usize = 1000;

// QUE-10: what has expired goes first, the oldest before all, though it is urgent and assured and
// there is bulk that could go. QUE-16: it has ended, and is told upward.
#[test]
fn what_has_expired_makes_room_first() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (node, _) = Node::open(folder.path(), total(5 * SIZE as u64));
        node.kept(1, SIZE, Like(Bulk, PLAIN, None)).await;
        node.kept(1, SIZE, Like(Normal, PLAIN, Some(2))).await;
        node.kept(1, SIZE, Like(Urgent, ASSURED, Some(1))).await;
        node.kept(1, SIZE, Like(Normal, PLAIN, Some(3600))).await;
        node.kept(1, SIZE, Like(Urgent, PLAIN, None)).await;
        pass_s(10);
        // The normal one is older, though the urgent one expired before it.
        node.kept(1, SIZE, Like(Normal, PLAIN, None)).await;
        assert_eq!(node.ended(Normal, End::Expired), [1]);
        assert_eq!((node.on_disk(Normal), node.on_disk(Urgent)), (vec![2, 3], vec![1, 2]));
        node.kept(1, SIZE, Like(Normal, PLAIN, None)).await;
        assert_eq!(node.ended(Urgent, End::Expired), [1]);
        assert_eq!((node.on_disk(Urgent), node.on_disk(Bulk)), (vec![2], vec![1]));
        // Nothing more has expired: now bulk goes.
        node.kept(1, SIZE, Like(Normal, PLAIN, None)).await;
        assert_eq!(node.ended(Bulk, End::Evicted), [1]);
        let account = node.is_sound().await.account;
        assert_eq!((account.expired, account.evicted, account.queued), (2, 1, 5));
        // What expires later is found, too, also what was old when it came.
        pass_s(3600);
        node.kept(1, SIZE, Like(Normal, PLAIN, None)).await;
        assert_eq!(node.ended(Normal, End::Expired), [1, 2]);
        node.is_sound().await;
        node.stop().await;
    });
}

// QUE-11: of bulk only what is of normal persistence goes; QUE-13: an urgent newcomer displaces
// normal ones of normal persistence and no others; QUE-14: all else is rejected.
#[test]
fn assured_and_urgent_messages_are_never_evicted() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (node, _) = Node::open(folder.path(), total(6 * SIZE as u64));
        node.kept(1, SIZE, Like(Bulk, ASSURED, None)).await;
        node.kept(1, SIZE, Like(Bulk, PLAIN, None)).await;
        node.kept(1, SIZE, Like(Normal, ASSURED, None)).await;
        node.kept(2, SIZE, Like(Normal, PLAIN, None)).await;
        node.kept(1, SIZE, Like(Urgent, PLAIN, None)).await;
        node.kept(1, SIZE, Like(Normal, PLAIN, None)).await;
        assert_eq!((node.on_disk(Bulk), node.ended(Bulk, End::Evicted)), (vec![1], vec![2]));
        let normal = node.keep(1, SIZE, Like(Normal, ASSURED, None)).await;
        assert_eq!(normal, [Err(Refusal::QueueFull)]);
        node.kept(2, SIZE, Like(Urgent, PLAIN, None)).await;
        assert_eq!(node.on_disk(Normal), [1, 4]);
        node.kept(1, SIZE, Like(Urgent, ASSURED, None)).await;
        let urgent = node.keep(1, SIZE, Like(Urgent, ASSURED, None)).await;
        assert_eq!(urgent, [Err(Refusal::QueueFull)]);
        assert_eq!(node.ended(Normal, End::Evicted), [2, 3, 4]);
        assert_eq!((node.on_disk(Bulk), node.on_disk(Normal)), (vec![1], vec![1]));
        assert_eq!(node.on_disk(Urgent), [1, 2, 3, 4]);
        let figures = node.is_sound().await;
        assert_eq!((figures.account.evicted, figures.account.queued), (4, 6));
        assert_eq!(figures.turned_away, [("queue_full".to_owned(), 2)]);
        // A restart finds the same, and what came to stand below the mark is found again.
        node.stop().await;
        let (node, _) = Node::open(folder.path(), total(6 * SIZE as u64));
        let urgent = node.keep(1, SIZE, Like(Urgent, ASSURED, None)).await;
        assert_eq!(urgent, [Err(Refusal::QueueFull)]);
        node.is_sound().await;
        node.stop().await;
    });
}

// QUE-12: bulk that finds no room is accepted, numbered and ends evicted; it displaces bulk only.
// QUE-9: a large newcomer takes as many as it needs and no more.
#[test]
fn bulk_displaces_bulk_only_and_a_large_newcomer_as_many_as_it_needs() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (node, _) = Node::open(folder.path(), total(6 * SIZE as u64));
        node.kept(1, SIZE, Like(Normal, PLAIN, None)).await;
        node.kept(5, SIZE, Like(Bulk, PLAIN, None)).await;
        node.kept(1, SIZE, Like(Bulk, PLAIN, None)).await;
        assert_eq!(node.on_disk(Bulk), [2, 3, 4, 5, 6]);
        node.kept(1, 2 * SIZE + 500, Like(Normal, PLAIN, None)).await;
        assert_eq!(node.ended(Bulk, End::Evicted), [1, 2, 3, 4]);
        node.kept(2, SIZE, Like(Normal, PLAIN, None)).await;
        assert_eq!((node.on_disk(Bulk), node.on_disk(Normal)), (vec![], vec![1, 2, 3, 4]));
        let bulk = node.keep(1, SIZE, Like(Bulk, ASSURED, None)).await;
        assert!(matches!(&bulk[..], [Ok(Kept::Evicted(id))] if id.sequence == 7), "{bulk:?}");
        assert_eq!(node.ended(Bulk, End::Evicted), [1, 2, 3, 4, 5, 6, 7]);
        let never = node.keep(1, 7 * SIZE, Like(Urgent, PLAIN, None)).await;
        assert_eq!(never, [Err(Refusal::QueueFull)], "nothing goes for what never fits");
        assert_eq!(node.on_disk(Normal), [1, 2, 3, 4]);
        assert_eq!(node.is_sound().await.account.evicted, 7);
        node.stop().await;
    });
}

// QUE-8: a precedence that has its own limit full evicts its own, and the others are accepted.
#[test]
fn a_full_precedence_is_its_own_affair() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (size, free) = (SIZE as u64, u64::MAX);
        let limits = Limits { total: 100 * size, each: [free, 2 * size, 2 * size] };
        let (node, _) = Node::open(folder.path(), limits);
        node.kept(2, SIZE, Like(Bulk, PLAIN, None)).await;
        node.kept(2, SIZE, Like(Normal, PLAIN, Some(60))).await;
        node.kept(5, SIZE, Like(Urgent, PLAIN, None)).await;
        node.kept(1, SIZE, Like(Bulk, PLAIN, None)).await;
        assert_eq!(node.on_disk(Bulk), [2, 3]);
        let normal = node.keep(1, SIZE, Like(Normal, PLAIN, None)).await;
        assert_eq!(normal, [Err(Refusal::QueueFull)]);
        pass_s(61);
        node.kept(1, SIZE, Like(Normal, PLAIN, None)).await;
        assert_eq!((node.on_disk(Normal), node.on_disk(Bulk)), (vec![2, 3], vec![2, 3]));
        node.is_sound().await;
        node.stop().await;
    });
}

// QUE-13 with messages in the link's hands: those go last, and only for what would be turned away
// otherwise; a parent that is away must not hold them up. Of a run that went in part only what is
// left counts, and what the parent has all the same is not counted twice.
#[test]
fn what_is_in_flight_goes_last_and_what_is_gone_is_not_counted_twice() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (node, _) = Node::open(folder.path(), total(10 * SIZE as u64));
        node.kept(4, SIZE, Like(Normal, PLAIN, None)).await;
        node.kept(3, SIZE, Like(Normal, ASSURED, None)).await;
        let first = node.next(4 * SIZE).await;
        let flying: u32 = first.runs.iter().map(|run| run.header.present()).sum();
        assert_eq!(flying, 4);
        node.kept(3, SIZE, Like(Normal, PLAIN, None)).await;
        node.kept(3, SIZE, Like(Urgent, PLAIN, None)).await;
        assert_eq!(node.ended(Normal, End::Evicted), [8, 9, 10], "not those in flight");
        node.kept(1, SIZE, Like(Urgent, PLAIN, None)).await;
        assert_eq!(node.on_disk(Normal), [2, 3, 4, 5, 6, 7], "the oldest in flight");
        // Two of the four are with the parent, the one that was evicted, too; the rest is back.
        node.settle(&first, 2).await;
        node.kept(3, SIZE, Like(Urgent, PLAIN, None)).await;
        assert_eq!(node.on_disk(Normal), [5, 6, 7]);
        let urgent = node.keep(1, SIZE, Like(Urgent, PLAIN, None)).await;
        assert_eq!(urgent, [Err(Refusal::QueueFull)]);
        let account = node.is_sound().await.account;
        assert_eq!((account.delivered, account.evicted, account.queued), (1, 6, 10));
        // A link that starts anew has nothing in its hands.
        let batch = node.next(SIZE).await;
        node.delivery.queue.ask(Release).await.unwrap();
        node.settle(&batch, 1).await;
        node.is_sound().await;
        node.stop().await;
    });
}

// QUE-11: the mark below which nothing is looked at loses nothing that comes later.
#[test]
fn bulk_that_comes_after_a_fruitless_look_is_found() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (node, _) = Node::open(folder.path(), total(4 * SIZE as u64));
        node.kept(2, SIZE, Like(Bulk, ASSURED, None)).await;
        node.kept(2, SIZE, Like(Normal, ASSURED, None)).await;
        for _ in 0..2 {
            let normal = node.keep(1, SIZE, Like(Normal, PLAIN, None)).await;
            assert_eq!(normal, [Err(Refusal::QueueFull)]);
        }
        let batch = node.next(2 * SIZE).await;
        node.settle(&batch, 2).await;
        node.kept(2, SIZE, Like(Bulk, PLAIN, None)).await;
        node.kept(2, SIZE, Like(Normal, PLAIN, None)).await;
        assert_eq!(node.ended(Bulk, End::Evicted), [3, 4]);
        assert_eq!(node.on_disk(Bulk), [1, 2]);
        node.is_sound().await;
        node.stop().await;
    });
}

// QUE-13, QUE-14 at the door: a full node makes room for a child's messages as for its own, then
// says try again; bulk is not discarded in silence there.
#[test]
fn a_full_node_evicts_for_a_child_and_then_says_try_again() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (node, _) = Node::open(folder.path(), total(4 * SIZE as u64));
        node.kept(1, SIZE, Like(Bulk, PLAIN, None)).await;
        node.kept(1, SIZE, Like(Normal, PLAIN, None)).await;
        node.kept(2, SIZE, Like(Normal, ASSURED, None)).await;
        let urgent = node.message(SIZE, Like(Urgent, PLAIN, None));
        let full = Outcome::Refused(Refusal::QueueFull);
        let outcomes = knock(&node, &exchange(1, 1, 3, &urgent)).await;
        assert_eq!(outcomes, [(Outcome::Stored, 2), (full, 1)]);
        assert_eq!(node.ended(Bulk, End::Evicted), [1]);
        assert_eq!(node.ended(Normal, End::Evicted), [1]);
        for (class, number) in [(Bulk, 1), (Normal, 1), (Urgent, 2)] {
            let message = node.message(SIZE, Like(class, PLAIN, None));
            let outcomes = knock(&node, &exchange(number, 10, 1, &message)).await;
            assert_eq!(outcomes, [(full, 1)], "{class}");
        }
        let figures = node.is_sound().await;
        assert_eq!((figures.account.taken, figures.account.turned_away), (6, 4));
        node.stop().await;
    });
}

/// DESIGN §8: strict order, but for the small share that keeps bulk from starving.
#[test]
fn bulk_gets_its_share_while_others_wait() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (node, _) = Node::open(folder.path(), total(1 << 30));
        for _ in 0..300 {
            node.kept(10, SIZE, Like(Urgent, PLAIN, None)).await;
            node.kept(1, SIZE, Like(Bulk, PLAIN, None)).await;
        }
        let mut sent = [0_usize; 3];
        for _ in 0..200 {
            let batch = node.next(10 * SIZE).await;
            let class = batch.runs[0].header.precedence as usize;
            let messages: u32 = batch.runs.iter().map(|run| run.header.present()).sum();
            sent[class] += messages as usize;
            node.settle(&batch, messages).await;
        }
        let share = sent[2] as f64 / (sent[0] + sent[2]) as f64;
        assert!((0.04..=0.06).contains(&share), "{sent:?}");
        node.is_sound().await;
        node.stop().await;
    });
}
