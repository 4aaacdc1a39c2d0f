//! Faults on order: what a drill does to an actor, and what it leaves alone.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]

mod common;

use std::{sync::Mutex, time::Duration};

use common::{BeStubborn, Count, Log, Rest, SECOND, counter, supervisor, virtual_time};
use supervision::{
    AskError, Backoff, ChildSpec, Exit, Intensity, Restart, State, Strategy, Supervisor,
    drill::{self, DrillError, Fault},
};
use tokio::time::{Instant, sleep};

/// Names are looked up in the whole process, so the tests go one by one.
static ONE_BY_ONE: Mutex<()> = Mutex::new(());

fn drilled<F: Future<Output = ()>>(test: F) {
    let _turn = ONE_BY_ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    drill::enable();
    virtual_time(test);
}

/// Hits `actor` and waits until it has suffered.
async fn hit(actor: &str, fault: Fault) {
    assert_eq!(drill::order(actor, fault), Ok(1));
    sleep(Duration::from_millis(1)).await;
}

#[test]
fn idle_actor_panics_at_once_and_is_restarted() {
    drilled(async {
        let log = Log::default();
        let (a, a_ref) = counter("a", &log);
        let tree = supervisor("node", Strategy::OneForOne).child(a).start();
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        hit("a", Fault::Panic).await;
        assert_eq!(tree.tree().children[0].state, State::Waiting);
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        assert_eq!(log.take(), ["+a", "+a"]);
        tree.stop().await;
    });
}

#[test]
fn panic_takes_the_message_in_hand_and_leaves_those_that_wait() {
    drilled(async {
        let (a, a_ref) = counter("a", &Log::default());
        let tree = supervisor("node", Strategy::OneForOne).child(a).start();
        let drill = async {
            sleep(SECOND).await;
            hit("a", Fault::Panic).await;
        };
        let asks = tokio::join!(a_ref.ask(Rest(10 * SECOND)), a_ref.ask(Count), drill);
        assert_eq!((asks.0, asks.1), (Err(AskError::Ended), Ok(1)));
        tree.stop().await;
    });
}

#[test]
fn actor_that_is_told_to_stop_ends_as_planned() {
    drilled(async {
        let log = Log::default();
        let (a, _a) = counter("a", &log);
        let root = supervisor("node", Strategy::OneForOne);
        let tree = root.child(a.restart(Restart::Transient)).start();
        assert!(tree.started().await);
        hit("a", Fault::Stop).await;
        assert_eq!(log.take(), ["+a", "-a"]);
        assert_eq!(tree.tree().children[0].state, State::Stopped);
        assert_eq!(drill::order("a", Fault::Stop), Err(DrillError::NoSuchActor("a".to_owned())));
        tree.stop().await;
    });
}

#[test]
fn child_that_was_cut_off_is_restarted_unless_temporary() {
    drilled(async {
        let cases = [
            (Restart::Permanent, State::Running, 1),
            (Restart::Transient, State::Running, 1),
            (Restart::Temporary, State::Stopped, 0),
        ];
        for (restart, state, restarts) in cases {
            let (a, a_ref) = counter("a", &Log::default());
            let tree = supervisor("node", Strategy::OneForOne).child(a.restart(restart)).start();
            a_ref.ask(BeStubborn).await.unwrap();
            hit("a", Fault::Stop).await;
            // It has 5 s to stop and does not.
            sleep(10 * SECOND).await;
            let seen = tree.tree().children.remove(0);
            assert_eq!((seen.state, seen.restarts), (state, restarts), "{restart:?}");
            tree.stop().await;
        }
    });
}

#[test]
fn hang_blocks_the_thread_and_passes() {
    drilled(async {
        let (a, a_ref) = counter("a", &Log::default());
        let tree = supervisor("node", Strategy::OneForOne).child(a).start();
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        let time = Duration::from_millis(100);
        let began_at = std::time::Instant::now();
        assert_eq!(drill::order("a", Fault::Hang(time)), Ok(1));
        // Answered in the poll that hangs; on one thread nobody learns of it before that is over.
        assert_eq!(a_ref.ask(Count).await, Ok(2));
        assert!(began_at.elapsed() >= time);
        assert_eq!(a_ref.ask(Count).await, Ok(3), "it is the same instance");
        tree.stop().await;
    });
}

#[test]
fn name_hits_all_of_that_name_and_a_path_one() {
    drilled(async {
        let (one, _a) = counter("durable_queue", &Log::default());
        let (two, _b) = counter("durable_queue", &Log::default());
        let (third, _c) = counter("down/durable_queue", &Log::default());
        let queues = supervisor("queues", Strategy::OneForOne).child(one);
        let first = supervisor("proxy", Strategy::OneForOne).child(ChildSpec::supervisor(queues));
        let second = supervisor("mlm", Strategy::OneForOne).child(two).child(third);
        let (first, second) = (first.start(), second.start());
        assert!(first.started().await && second.started().await);
        assert_eq!(drill::order("durable_queue", Fault::Panic), Ok(3));
        sleep(2 * SECOND).await;
        assert_eq!(drill::order("proxy/queues/durable_queue", Fault::Panic), Ok(1));
        sleep(4 * SECOND).await;
        let restarts: Vec<u64> = second.tree().children.iter().map(|c| c.restarts).collect();
        assert_eq!((first.tree().children[0].children[0].restarts, restarts), (2, vec![1, 1]));
        for wrong in ["queues", "proxy", "durable", ""] {
            let error = DrillError::NoSuchActor(wrong.to_owned());
            assert_eq!(drill::order(wrong, Fault::Panic), Err(error));
        }
        first.stop().await;
        second.stop().await;
    });
}

#[test]
fn hundred_panics_are_survived_though_two_a_minute_are_allowed() {
    drilled(async {
        let (a, a_ref) = counter("a", &Log::default());
        let intensity = Intensity::a_minute(2);
        let below = Supervisor::new("queues", Strategy::OneForOne, intensity, Backoff::default());
        let below = ChildSpec::supervisor(below.child(a));
        let root = Supervisor::new("node", Strategy::OneForOne, intensity, Backoff::default());
        let tree = root.child(below).start();
        let began_at = Instant::now();
        for _ in 0..100 {
            hit("a", Fault::Panic).await;
            sleep(Duration::from_millis(100)).await;
        }
        assert!(began_at.elapsed() < 60 * SECOND, "within one window");
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        let below = tree.tree().children.remove(0);
        assert_eq!((below.restarts, below.children[0].restarts), (0, 100));
        assert_eq!(tree.stop().await, Exit::Normal);
    });
}
