//! What a node does when an answer was lost, a parent came back, an id could not be kept, or a
//! run was damaged.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use extension::storage::QueueName;
use module_memory::MemoryStore;
use protocol::{
    Message, Precedence, Refusal,
    exchange::Outcome,
    heartbeat::{Account, Heartbeat, Mode},
    message::{Channel, Destination, Unnumbered},
    service::{Action, Service},
};
use roles::delivery::{
    durable_queue::QueueSettings,
    orders::{Adopt, AskFigures, Beat, Figures, Identity, Keep, Kept, NextBatch, Settle},
    tree::tree,
};
use sandbox::{Away, Chain, Faults, Node, ROOMY, alarm, clock, id};
use supervision::{Backoff, Intensity, Strategy, Supervisor};

const LONG: Duration = Duration::from_secs(30);

fn run(test: impl std::future::Future<Output = ()>) {
    actix::System::new().block_on(test);
}

/// A heartbeat of the lowest node: it teaches the way down.
fn heartbeat(of: &Node) -> Heartbeat {
    let identity = of.identity();
    Heartbeat {
        node: identity.id,
        epoch: identity.epoch,
        beat: 1,
        order: 0,
        at: clock(),
        name: "lowest".to_owned(),
        roles: Vec::new(),
        version: "1".to_owned(),
        mode: Mode::Session,
        account: Account::default(),
        depths: Default::default(),
        reasons: Vec::new(),
        configuration: String::new(),
        done: Vec::new(),
        integrators: Vec::new(),
        path: Vec::new(),
        says: Vec::new(),
        ready: None,
        rejected: None,
    }
}

/// An order to the lowest node, by the top.
fn order(top: &Node) -> Message {
    let service = Service::Action(Action {
        action_id: "1".to_owned(),
        name: "restart".to_owned(),
        xml: String::new(),
    });
    let mut message = alarm(top.identity(), "", Precedence::Urgent);
    message.header.class = service.class().to_owned();
    message.header.channel = Channel::Back;
    message.header.destination = Some(Destination::Id(id(1)));
    message.service = service;
    message
}

/// What stands in a queue of a node.
async fn standing(node: &Node, queue: &str) -> u64 {
    let figures = node.figures().await;
    let lanes = figures.queues.iter().find(|(name, _)| name == queue);
    lanes.map_or(0, |(_, depths)| depths.iter().map(|d| d.messages).sum())
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !done().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn what_went_down_with_a_lost_answer_goes_again_soon_and_is_accounted_for_once() {
    run(async {
        let chain = Chain::start(2, ROOMY);
        let [lowest, top] = &chain.nodes[..] else { panic!("two nodes") };
        lowest.delivery.queue.ask(Beat(Box::new(heartbeat(lowest)))).await.unwrap().unwrap();
        until("the way down is known", async || !top.figures().await.beats.is_empty()).await;
        let lost = Faults { lose_request: 0, lose_answer: 1000, ..Faults::default() };
        *chain.faults.lock().unwrap() = lost;
        // What is held open now is not lost; it ends after 200 ms.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let keep =
            Keep { messages: vec![Unnumbered::from(&order(top))], changes: vec![], ends: vec![] };
        let kept = top.delivery.queue.ask(keep).await.unwrap().unwrap();
        assert!(matches!(kept[..], [Ok(Kept::Stored(_))]), "{kept:?}");
        // By now an exchange took the order with it, and was lost.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(standing(lowest, "local/node").await, 0);
        *chain.faults.lock().unwrap() = Faults::default();
        let back = Instant::now();
        until("it arrives", async || standing(lowest, "local/node").await == 1).await;
        assert!(back.elapsed() < Duration::from_secs(5), "it took {:?}", back.elapsed());
        until("it is acknowledged", async || standing(top, &format!("down/{}", id(1))).await == 0)
            .await;
        for node in [lowest, top] {
            let figures = node.figures().await;
            let queued: u64 =
                figures.queues.iter().flat_map(|(_, depths)| depths).map(|d| d.messages).sum();
            assert!(figures.account.balanced(), "{:?}", figures.account);
            assert_eq!(figures.account.queued, queued);
        }
        assert_eq!(top.figures().await.account.delivered, 1);
    });
}

#[test]
fn a_parent_that_answers_anything_is_carried_to_at_once() {
    run(async {
        // Every backoff is as long as it may be: 0.2 s, 0.4 s, 0.8 s… over both who try.
        let chain = Chain::start_with(2, ROOMY, || u64::MAX);
        let lowest = &chain.nodes[0];
        *chain.faults.lock().unwrap() = Faults { away: Away::All, ..Faults::default() };
        let message = alarm(lowest.identity(), "waits", Precedence::Normal);
        lowest.keep(&message).await.unwrap();
        // By now its carrier sits out one of 3 s, and who holds the back-channel open one of less.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        chain.faults.lock().unwrap().away = Away::UntilEmpty;
        until("an empty exchange is answered", async || {
            chain.faults.lock().unwrap().away == Away::No
        })
        .await;
        let soon = Duration::from_millis(500);
        assert!(chain.until(soon, |seen| seen.texts.len() == 1).await, "the carrier sleeps on");
    });
}

#[test]
fn an_id_that_could_not_be_kept_is_nobodys() {
    run(async {
        let chain = Chain::start(2, ROOMY);
        let lowest = &chain.nodes[0];
        let (before, adopt) = (lowest.identity(), || lowest.delivery.queue.ask(Adopt(id(9))));
        *chain.faults.lock().unwrap() = Faults { away: Away::All, ..Faults::default() };
        let number = async |text: &str| {
            let kept = lowest.keep(&alarm(lowest.identity(), text, Precedence::Normal)).await;
            let Some(Kept::Stored(id)) = kept else { panic!("{kept:?}") };
            (id.origin, id.sequence)
        };
        assert_eq!(number("one").await, (id(1), 1));
        lowest.store.fail_next_commit();
        assert!(adopt().await.unwrap().is_err());
        assert_eq!(lowest.identity(), before, "the disk does not know of another");
        assert_eq!(number("two").await, (id(1), 2));
        adopt().await.unwrap().unwrap();
        assert_eq!(lowest.identity().id, id(9));
        assert_eq!(number("three").await, (id(9), 1), "numbers start anew under it");
        // Again is no change: the numbers go on.
        adopt().await.unwrap().unwrap();
        assert_eq!(number("four").await, (id(9), 2));
    });
}

// DESIGN §4.4: of a damaged run only what was still there ends; the account balances.
#[test]
fn a_run_that_is_damaged_ends_as_many_as_were_left_of_it() {
    run(async {
        let store = Arc::new(MemoryStore::new());
        let settings = QueueSettings {
            node: "alone".into(),
            store: store.clone(),
            identity: Arc::new(Mutex::new(Identity { id: id(1), epoch: 77 })),
            limits: ROOMY,
            set_aside_bytes: 1 << 20,
            counted: true,
            keeper: None,
            doorbell: Arc::default(),
            turned_away: Arc::default(),
            clock,
        };
        let (child, delivery) = tree(settings, None, sandbox::random);
        let intensity = Intensity::a_minute(10);
        let root = Supervisor::new("alone", Strategy::RestForOne, intensity, Backoff::default());
        let handle = root.child(child).start();
        let queue = &delivery.queue;
        let message = alarm(delivery.door.identity(), "of three", Precedence::Normal);
        let keep = async |count: usize| {
            let messages = (0..count).map(|_| Unnumbered::from(&message)).collect();
            queue.ask(Keep { messages, changes: vec![], ends: vec![] }).await.unwrap()
        };
        keep(3).await.unwrap();
        let next = NextBatch { allowed: [true; 3], bytes_max: 1 << 20, empty: false };
        let batch = queue.ask(next).await.unwrap().unwrap();
        let place = batch.parts[0].place;
        let full = Outcome::Refused(Refusal::QueueFull);
        let outcomes = vec![(Outcome::Stored, 1), (full, 2)];
        let settle = Settle { parts: batch.parts, outcomes, ends: vec![], beats: vec![] };
        queue.ask(settle).await.unwrap().unwrap();
        assert!(store.damage_run(&QueueName::new("up"), place));
        // A commit that fails makes the queue read its disk again.
        store.fail_next_commit();
        keep(1).await.unwrap_err();
        let next = NextBatch { allowed: [true; 3], bytes_max: 1 << 20, empty: false };
        assert!(queue.ask(next).await.unwrap().unwrap().runs.is_empty());
        keep(1).await.unwrap();
        let Figures { account, queues, .. } = queue.ask(AskFigures).await.unwrap();
        assert!(account.balanced(), "{account:?}");
        assert_eq!((account.delivered, account.refused, account.queued), (1, 2, 1));
        assert_eq!(queues[0].1[Precedence::Normal as usize].messages, 1);
        handle.stop().await;
    });
}
