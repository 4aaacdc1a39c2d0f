//! Own messages of one commit are one run: their numbers and their origin are what the run says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod disk;
mod sandbox;

use disk::{Like, Node, run, total};
use protocol::{
    MessageId,
    Precedence::{Bulk, Normal},
    Refusal,
    ends::End,
    message::{Messages, Persistence, Unnumbered},
};
use roles::delivery::orders::{Adopt, Batch, Keep, Kept};

const PLAIN: Persistence = Persistence::Normal;
const SIZE: usize = 1000;

/// Ids of the messages of a batch by their own headers, which must be those that their runs say.
fn ids(batch: &Batch) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for run in &batch.runs {
        let h = &run.header;
        for (number, message) in h.numbers().zip(Messages::of(&run.messages)) {
            let id = message.unwrap().1.parts().unwrap().header.id;
            assert_eq!((id.origin, id.epoch, id.sequence), (h.origin, h.epoch, number));
            ids.push(id);
        }
    }
    ids
}

fn stored(kept: Vec<Result<Kept, Refusal>>) -> Vec<MessageId> {
    let id = |kept: Result<Kept, Refusal>| match kept {
        Ok(Kept::Stored(id)) => id,
        other => panic!("{other:?}"),
    };
    kept.into_iter().map(id).collect()
}

// QUE-12, DAT-13: a number that went to a message that ended leaves the others theirs.
#[test]
fn a_message_that_is_not_kept_ends_the_run_before_it() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (node, _) = Node::open(folder.path(), total(4 * SIZE as u64));
        let of = |bytes| Unnumbered::from(&node.message(bytes, Like(Bulk, PLAIN, None)));
        let messages = vec![of(SIZE), of(5 * SIZE), of(SIZE)];
        let keep = Keep { messages, changes: vec![], ends: vec![] };
        let mut kept = node.delivery.queue.ask(keep).await.unwrap().unwrap();
        assert!(matches!(kept.remove(1), Ok(Kept::Evicted(id)) if id.sequence == 2), "{kept:?}");
        let kept = stored(kept);
        assert_eq!((node.on_disk(Bulk), node.ended(Bulk, End::Evicted)), (vec![1, 3], vec![2]));
        assert_eq!(ids(&node.next(1 << 20).await), kept);
        node.is_sound().await;
        node.stop().await;
    });
}

// IDM-4: what was numbered before the node got its id stays under the id of before, though both
// are in one commit.
#[test]
fn an_id_that_comes_in_the_same_commit_is_for_what_comes_after_it() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (node, _) = Node::open(folder.path(), total(100 * SIZE as u64));
        let before = node.delivery.door.identity();
        // A commit just now makes the next one wait: all three orders go into that.
        node.kept(1, SIZE, Like(Normal, PLAIN, None)).await;
        let queue = &node.delivery.queue;
        let keep = || {
            let messages = vec![Unnumbered::from(&node.message(SIZE, Like(Normal, PLAIN, None)))];
            Keep { messages, changes: vec![], ends: vec![] }
        };
        let (kept, adopted) =
            futures_util::join!(queue.ask(keep()), queue.ask(Adopt(sandbox::id(2))));
        adopted.unwrap().unwrap();
        let kept = stored(kept.unwrap().unwrap());
        assert_eq!((kept[0].origin, kept[0].sequence), (before.id, 2));
        let after = stored(queue.ask(keep()).await.unwrap().unwrap());
        assert_eq!((after[0].origin, after[0].sequence), (sandbox::id(2), 1));
        let all = ids(&node.next(1 << 20).await);
        assert_eq!(all[1..], [kept[0], after[0]]);
        node.is_sound().await;
        node.stop().await;
    });
}
