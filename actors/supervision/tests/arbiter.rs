//! Children on a thread of their own, in real time: all is as on their supervisor's.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]

mod common;

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use common::{Block, Count, Counter, Fail, Log, Panic, SECOND, WhichThread, counter, real_time};
use supervision::{AskError, Backoff, ChildSpec, Exit, Intensity, State, Strategy, Supervisor};

fn supervisor(name: &'static str, strategy: Strategy) -> Supervisor {
    Supervisor::new(name, strategy, Intensity::a_minute(2), Backoff::default())
}

fn this_thread() -> String {
    format!("{:?}", std::thread::current().id())
}

#[test]
fn child_restarts_on_its_own_thread_after_a_panic() {
    real_time(async {
        let log = Log::default();
        let (store, store_ref) = counter("store", &log);
        let root = supervisor("root", Strategy::OneForOne);
        let tree = root.child(store.on_own_arbiter()).start();
        let thread = store_ref.ask(WhichThread).await.unwrap();
        assert_ne!(thread, this_thread());

        assert_eq!(store_ref.ask(Count).await, Ok(1));
        let (panicked, counted) = tokio::join!(store_ref.ask(Panic), store_ref.ask(Count));
        assert_eq!((panicked, counted), (Err(AskError::Ended), Ok(1)), "mailbox outlives a panic");
        store_ref.ask(Fail).await.unwrap();
        assert_eq!(store_ref.ask(Count).await, Ok(1));
        assert_eq!(store_ref.ask(WhichThread).await.unwrap(), thread);
        assert_eq!(tree.tree().children[0].restarts, 2);

        assert_eq!(tree.stop().await, Exit::Normal);
        assert_eq!(log.take(), ["+store", "+store", "-store", "+store", "-store"]);
        assert_eq!(store_ref.ask(Count).await, Err(AskError::Ended));
    });
}

#[test]
fn thread_ends_when_nobody_can_start_its_child_any_more() {
    real_time(async {
        let held = Arc::new(());
        let (seen, log) = (Arc::downgrade(&held), Log::default());
        let (store, store_ref) = ChildSpec::actor("store", 4, 10 * SECOND, move |lifeline| {
            let _kept_by_the_thread = &held;
            Counter::new("store", &log, lifeline)
        });
        let root = supervisor("root", Strategy::OneForOne);
        let tree = root.child(store.on_own_arbiter()).start();
        assert_eq!(store_ref.ask(Count).await, Ok(1));
        assert!(seen.upgrade().is_some());
        tree.stop().await;
        let patience = Instant::now() + 10 * SECOND;
        while seen.upgrade().is_some() {
            assert!(Instant::now() < patience, "the factory is still there");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn children_after_it_are_started_when_it_is_up_and_stopped_before_it() {
    real_time(async {
        let log = Log::default();
        let ((store, store_ref), (link, link_ref)) =
            (counter("store", &log), counter("link", &log));
        let root = supervisor("root", Strategy::RestForOne);
        let tree = root.child(store.on_own_arbiter()).child(link).start();
        assert!(tree.started().await);
        assert_eq!(log.take(), ["+store", "+link"]);
        assert_eq!(store_ref.ask(Panic).await, Err(AskError::Ended));
        while log.take().last().is_none_or(|line| line != "+link") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(link_ref.ask(Count).await, Ok(1));
        tree.stop().await;
        assert_eq!(log.take(), ["-link", "-store"]);
    });
}

#[test]
fn supervisor_on_its_own_thread_has_its_children_there() {
    real_time(async {
        let log = Log::default();
        let ((a, a_ref), (b, b_ref)) = (counter("a", &log), counter("b", &log));
        let below = supervisor("below", Strategy::OneForOne).child(a).child(b);
        let root = supervisor("root", Strategy::OneForOne);
        let tree = root.child(ChildSpec::supervisor(below).on_own_arbiter()).start();
        let thread = a_ref.ask(WhichThread).await.unwrap();
        assert_ne!(thread, this_thread());
        assert_eq!(b_ref.ask(WhichThread).await.unwrap(), thread);
        for _ in 0..3 {
            let _ = a_ref.ask(Panic).await;
        }
        assert_eq!(b_ref.ask(Count).await, Ok(1), "escalated and began anew");
        assert_eq!(b_ref.ask(WhichThread).await.unwrap(), thread);
        assert_eq!(tree.stop().await, Exit::Normal);
    });
}

#[test]
fn child_that_hangs_is_left_behind_and_does_not_hold_up_the_stop() {
    real_time(async {
        let log = Log::default();
        let ((a, a_ref), (store, store_ref)) = (counter("a", &log), counter("store", &log));
        let root = supervisor("root", Strategy::OneForOne);
        let within = Duration::from_millis(10);
        let tree = root.child(a).child(store.on_own_arbiter().stop_within(within)).start();
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        assert!(tree.started().await);
        let (release, until) = mpsc::channel();
        let blocked = actix::spawn(async move { store_ref.ask(Block(until)).await });
        while tree.tree().children[1].mailbox == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(a_ref.ask(Count).await, Ok(2), "others go on");
        assert_eq!(tree.tree().children[1].state, State::Running);
        assert_eq!(tree.stop().await, Exit::Normal);
        assert_eq!(log.take().last().unwrap(), "-a");
        drop(release);
        let _ = blocked.await;
    });
}
