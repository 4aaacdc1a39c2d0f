//! Which ends are followed by a restart: every cell of the table in the crate's documentation.
//!
//! Cut off children are in `drill.rs`, as it takes a drill to stop an actor behind the back of
//! its supervisor.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]

mod common;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use common::{Count, Counter, End, Fail, Log, Panic, SECOND, counter, supervisor, virtual_time};
use supervision::{
    ActorRef, AskError, Backoff, ChildSpec, Exit, Intensity, Restart, State, Strategy, Supervisor,
};
use tokio::time::sleep;

/// What became of a child that ended in a way it is made to: its state and its restarts.
async fn after_end(
    restart: Restart,
    (child, actor): (ChildSpec, ActorRef<Counter>),
    end: impl AsyncFn(&ActorRef<Counter>),
) -> (State, u64) {
    let tree = supervisor("root", Strategy::OneForOne).child(child.restart(restart)).start();
    end(&actor).await;
    sleep(10 * SECOND).await;
    let seen = tree.tree().children[0].clone();
    tree.stop().await;
    (seen.state, seen.restarts)
}

const AGAIN: (State, u64) = (State::Running, 1);
const DONE: (State, u64) = (State::Stopped, 0);

/// What is expected of permanent, transient and temporary children.
fn each(permanent: (State, u64), transient: (State, u64)) -> [(Restart, (State, u64)); 3] {
    [(Restart::Permanent, permanent), (Restart::Transient, transient), (Restart::Temporary, DONE)]
}

#[test]
fn child_that_ended_of_its_own_will_is_restarted_if_permanent() {
    virtual_time(async {
        for (restart, expected) in each(AGAIN, DONE) {
            let end = async |a: &ActorRef<Counter>| a.ask(End).await.unwrap();
            let child = counter("a", &Log::default());
            assert_eq!(after_end(restart, child, end).await, expected, "{restart:?}");
        }
    });
}

#[test]
fn child_that_failed_is_restarted_unless_temporary() {
    virtual_time(async {
        for (restart, expected) in each(AGAIN, AGAIN) {
            let end = async |a: &ActorRef<Counter>| a.ask(Fail).await.unwrap();
            let child = counter("a", &Log::default());
            assert_eq!(after_end(restart, child, end).await, expected, "{restart:?}");
        }
    });
}

#[test]
fn child_that_panicked_is_restarted_unless_temporary() {
    virtual_time(async {
        for (restart, expected) in each(AGAIN, AGAIN) {
            let end = async |a: &ActorRef<Counter>| {
                assert_eq!(a.ask(Panic).await, Err(AskError::Ended));
            };
            let child = counter("a", &Log::default());
            assert_eq!(after_end(restart, child, end).await, expected, "{restart:?}");
        }
    });
}

#[test]
fn child_whose_factory_panicked_is_restarted_unless_temporary() {
    virtual_time(async {
        for (restart, expected) in each(AGAIN, AGAIN) {
            let made = AtomicU32::new(0);
            let child = ChildSpec::actor("a", 4, SECOND, move |lifeline| {
                assert!(made.fetch_add(1, Relaxed) > 0, "no disk yet");
                Counter::new("a", &Log::default(), lifeline)
            });
            assert_eq!(after_end(restart, child, async |_| {}).await, expected, "{restart:?}");
        }
    });
}

#[test]
fn supervisor_that_gave_up_is_restarted_unless_temporary() {
    virtual_time(async {
        for (restart, expected) in each(AGAIN, AGAIN) {
            let (a, actor) = counter("a", &Log::default());
            let none = Intensity { restarts_max: 0, window: SECOND };
            let below = Supervisor::new("below", Strategy::OneForOne, none, Backoff::default());
            let child = (ChildSpec::supervisor(below.child(a)), actor);
            let end = async |a: &ActorRef<Counter>| {
                let _ = a.ask(Panic).await;
            };
            assert_eq!(after_end(restart, child, end).await, expected, "{restart:?}");
        }
    });
}

#[test]
fn restart_type_alone_decides_what_follows_an_exit() {
    let text = || "why".to_owned();
    let abnormal = [Exit::Failed(text()), Exit::Panicked(text()), Exit::CutOff, Exit::Escalated];
    for exit in &abnormal {
        let [permanent, transient, temporary] =
            [Restart::Permanent, Restart::Transient, Restart::Temporary].map(|r| r.follows(exit));
        assert!(permanent && transient && !temporary, "{exit:?}");
    }
    assert!(Restart::Permanent.follows(&Exit::Normal));
    assert!(!Restart::Transient.follows(&Exit::Normal));
    assert!(!Restart::Temporary.follows(&Exit::Normal));
}

#[test]
fn supervisor_whose_children_have_all_ended_waits_for_orders() {
    virtual_time(async {
        let (a, actor) = counter("a", &Log::default());
        let root = supervisor("root", Strategy::OneForOne).child(a.restart(Restart::Transient));
        let tree = root.start();
        actor.ask(End).await.unwrap();
        sleep(10 * SECOND).await;
        let (b, b_ref) = counter("b", &Log::default());
        tree.add(b).await.unwrap();
        assert_eq!(b_ref.ask(Count).await, Ok(1));
        assert_eq!(tree.stop().await, Exit::Normal);
    });
}
