//! Damage of a queue's store: what is lost ends refused, is told, and the counters say what is
//! there (DESIGN §4.4, §4.5).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod disk;
mod sandbox;

use std::{os::unix::fs::FileExt, path::Path, sync::Arc};

use disk::{Like, Node, run, total};
use extension::storage::{Place, QueueName, QueueStore};
use module_memory::MemoryStore;
use module_redb::STORE;
use protocol::{
    Precedence::{self, Bulk, Normal, Urgent},
    Refusal,
    ends::End,
    message::Persistence,
};
use roles::delivery::orders::Identity;

const PLAIN: Persistence = Persistence::Normal;
const SIZE: usize = 1000;
/// A stored run without a time to live begins so: four fields, its version, no expiry, then how
/// many are assured, and run and run header as arrays.
const RUN: [u8; 7] = [0x94, 0x01, 0xc0, 0x00, 0x92, 0x98, 0xc4];

/// Changes the byte `behind` the begin of each run in the file but the last `left`.
fn damage(folder: &Path, behind: u64, left: usize) -> usize {
    let path = folder.join(STORE);
    let bytes = std::fs::read(&path).unwrap();
    let begins = bytes.windows(RUN.len()).enumerate().filter(|(_, w)| *w == RUN);
    let begins: Vec<u64> = begins.map(|(at, _)| at as u64).collect();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let damaged = begins.len() - left;
    for at in &begins[..damaged] {
        let byte = [!bytes[(at + behind) as usize]];
        file.write_all_at(&byte, at + behind).unwrap();
    }
    damaged
}

/// Three runs of ten messages each, of which the first run's first four have gone.
async fn thirty(folder: &Path) {
    let (node, _) = Node::open(folder, total(40 * SIZE as u64));
    for precedence in [Urgent, Normal, Bulk] {
        node.kept(10, 300, Like(precedence, PLAIN, None)).await;
    }
    let batch = node.next(3000).await;
    node.settle(&batch, 4).await;
    assert_eq!(node.is_sound().await.account.queued, 26);
    node.stop().await;
}

fn numbers(count: u64) -> Vec<u64> {
    (1..=count).collect()
}

// DESIGN §4.5: headers of all runs are unreadable, found at the opening.
#[test]
fn messages_of_damaged_runs_end_refused_and_room_is_free_again() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        thirty(folder.path()).await;
        assert!(damage(folder.path(), 5, 0) >= 3);
        let (node, report) = Node::open(folder.path(), total(40 * SIZE as u64));
        assert!(report.damaged >= 3, "{report:?}");
        let figures = node.is_sound().await;
        let account = figures.account;
        assert_eq!((account.taken, account.delivered, account.refused), (30, 4, 26));
        assert_eq!((account.queued, figures.queues.len()), (0, 0));
        assert_eq!(figures.refused, [("damaged".to_owned(), 26)]);
        // What the run's header said of those that went is lost: they are not told as lost.
        assert_eq!(node.ended(Urgent, End::Refused), [] as [u64; 0]);
        assert_eq!(node.ended(Normal, End::Refused), numbers(10));
        assert_eq!(node.ended(Bulk, End::Refused), numbers(10));
        assert!(node.ends().iter().all(|end| end.3 == "damaged"));
        // No phantom takes room.
        node.kept(40, SIZE, Like(Normal, PLAIN, None)).await;
        let full = node.keep(1, SIZE, Like(Normal, PLAIN, None)).await;
        assert_eq!(full, [Err(Refusal::QueueFull)]);
        node.is_sound().await;
        node.stop().await;
        // Told once: the next start finds all in order.
        let (node, _) = Node::open(folder.path(), total(40 * SIZE as u64));
        let again = node.is_sound().await;
        assert_eq!((again.account.refused, again.account.queued), (26, 40));
        assert_eq!(node.ends().len(), 2);
        node.stop().await;
    });
}

// DESIGN §4.5: with its header readable a run tells which of its messages had gone before.
#[test]
fn only_what_still_stood_in_a_damaged_run_is_told() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        thirty(folder.path()).await;
        // A byte of the second message's header.
        assert!(damage(folder.path(), 420, 0) >= 3);
        let (node, _) = Node::open(folder.path(), total(40 * SIZE as u64));
        assert_eq!(node.ended(Urgent, End::Refused), [5, 6, 7, 8, 9, 10]);
        assert_eq!(node.ended(Bulk, End::Refused), [1, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(node.is_sound().await.account.refused, 26);
        node.stop().await;
    });
}

// DESIGN §4.5: the file itself cannot be read, and not all of it is good.
#[test]
fn a_salvaged_store_is_counted_anew() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        thirty(folder.path()).await;
        damage(folder.path(), 5, 1);
        let path = folder.path().join(STORE);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0; 64], 0).unwrap();
        let (node, report) = Node::open(folder.path(), total(40 * SIZE as u64));
        assert!(report.salvaged.rows > 0, "{report:?}");
        let figures = node.is_sound().await;
        let account = figures.account;
        assert!(account.refused > 0 && account.balanced(), "{account:?}");
        // Old copies may be told, too; of each queue no more than it lost.
        let told = [Urgent, Normal, Bulk].map(|p| node.ended(p, End::Refused).len() as u64);
        assert!(told.iter().sum::<u64>() <= account.refused, "{told:?}");
        // What is put now writes over nothing that was salvaged.
        let before = [Urgent, Normal, Bulk].map(|p| node.on_disk(p).len());
        node.kept(3, SIZE, Like(Urgent, PLAIN, None)).await;
        node.kept(3, SIZE, Like(Normal, PLAIN, None)).await;
        node.kept(3, SIZE, Like(Bulk, PLAIN, None)).await;
        let after = [Urgent, Normal, Bulk].map(|p| node.on_disk(p).len());
        assert_eq!(after, before.map(|count| count + 3));
        node.is_sound().await;
        node.stop().await;
    });
}

fn place(precedence: Precedence, position: u64) -> Place {
    Place { precedence, position }
}

// DESIGN §4.5: damage that shows while the queue serves, at the head and where victims are looked
// for; neighbours are unaffected.
#[test]
fn damage_met_while_serving_is_set_aside_and_counted() {
    run(async {
        let store = Arc::new(MemoryStore::new());
        let who = Identity { id: sandbox::id(1), epoch: 7 };
        let node = Node::on(store.clone(), who, total(30 * 300));
        for precedence in [Urgent, Normal, Bulk] {
            node.kept(5, 300, Like(precedence, PLAIN, None)).await;
            node.kept(5, 300, Like(precedence, PLAIN, None)).await;
        }
        node.stop().await;
        let up = QueueName::new("up");
        // Bulk is looked through for victims before anything of it is at hand.
        for (precedence, position) in [(Urgent, 1), (Bulk, 5)] {
            assert!(store.damage_run(&up, place(precedence, position)));
        }
        let node = Node::on(store.clone(), who, total(30 * 300));
        node.kept(1, 300, Like(Normal, PLAIN, None)).await;
        assert_eq!(node.ended(Bulk, End::Evicted), [6], "the damaged run is passed");
        let batch = node.next(100_000).await;
        assert_eq!(batch.runs[0].header.first, 6, "the head that is good");
        node.settle(&batch, 5).await;
        node.kept(1, 300, Like(Normal, PLAIN, None)).await;
        let figures = node.is_sound().await;
        assert_eq!((figures.account.refused, figures.account.delivered), (10, 5));
        assert_eq!(node.ended(Urgent, End::Refused), numbers(5));
        assert_eq!(node.ended(Bulk, End::Refused), numbers(5));
        assert!(store.run(&up, place(Bulk, 5)).unwrap().is_none());
        node.stop().await;
    });
}
