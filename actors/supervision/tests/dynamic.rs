//! Children that come and go while their supervisor runs.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]

mod common;

use common::{Count, End, Log, Panic, SECOND, counter, real_time, supervisor, virtual_time};
use supervision::{
    AskError, ChildSpec, ChildrenError, Exit, Restart, State, Strategy, SupervisorHandle,
};
use tokio::time::sleep;

fn names(tree: &SupervisorHandle) -> Vec<String> {
    tree.tree().children.into_iter().map(|child| child.name).collect()
}

#[test]
fn temporary_child_is_forgotten_when_it_has_ended() {
    virtual_time(async {
        let tree = supervisor("root", Strategy::OneForOne).start();
        for transfer in 0..100 {
            let name = format!("transfer-{transfer}");
            let (child, worker) = counter(name.clone(), &Log::default());
            tree.add(child.restart(Restart::Temporary)).await.unwrap();
            assert_eq!(worker.ask(Count).await, Ok(1));
            assert_eq!(names(&tree), [name]);
            match transfer % 2 {
                0 => assert_eq!(worker.ask(End).await, Ok(())),
                _ => assert_eq!(worker.ask(Panic).await, Err(AskError::Ended)),
            }
            sleep(SECOND).await;
            assert!(names(&tree).is_empty());
            assert_eq!(worker.ask(Count).await, Err(AskError::Ended));
        }
        assert_eq!(tree.stop().await, Exit::Normal, "none of them counts as a restart");
    });
}

#[test]
fn permanent_child_added_later_is_restarted_and_stopped_like_the_others() {
    virtual_time(async {
        let log = Log::default();
        let ((a, _a), (b, b_ref)) = (counter("a", &log), counter("b", &log));
        let tree = supervisor("root", Strategy::OneForOne).child(a).start();
        tree.add(b).await.unwrap();
        assert_eq!(b_ref.ask(Panic).await, Err(AskError::Ended));
        assert_eq!(b_ref.ask(Count).await, Ok(1));
        tree.stop().await;
        assert_eq!(log.take(), ["+a", "+b", "+b", "-b", "-a"]);
    });
}

#[test]
fn removed_child_is_stopped_as_planned_and_its_references_say_so() {
    virtual_time(async {
        let log = Log::default();
        let (a, a_ref) = counter("a", &log);
        let tree = supervisor("root", Strategy::OneForOne).start();
        tree.add(a).await.unwrap();
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        assert_eq!(tree.remove("a").await, Ok(()));
        assert_eq!(log.take(), ["+a", "-a"]);
        assert_eq!(a_ref.ask(Count).await, Err(AskError::Ended));
        assert_eq!(tree.remove("a").await, Err(ChildrenError::NoSuchChild));
        let (again, again_ref) = counter("a", &log);
        tree.add(again).await.unwrap();
        assert_eq!(again_ref.ask(Count).await, Ok(1), "the name is free");
        tree.stop().await;
    });
}

#[test]
fn child_that_waits_for_its_restart_can_be_removed() {
    virtual_time(async {
        let (a, a_ref) = counter("a", &Log::default());
        let tree = supervisor("root", Strategy::OneForOne).child(a).start();
        let _ = a_ref.ask(Panic).await;
        while tree.tree().children[0].state != State::Waiting {
            tokio::task::yield_now().await;
        }
        assert_eq!(tree.remove("a").await, Ok(()));
        assert_eq!(a_ref.ask(Count).await, Err(AskError::Ended));
        tree.stop().await;
    });
}

#[test]
fn name_in_use_and_one_child_too_many_are_refused() {
    virtual_time(async {
        let tree = supervisor("root", Strategy::OneForOne).children_max(2).start();
        let child = |name| counter(name, &Log::default()).0;
        assert_eq!(tree.add(child("a")).await, Ok(()));
        assert_eq!(tree.add(child("a")).await, Err(ChildrenError::NameTaken));
        assert_eq!(tree.add(child("b")).await, Ok(()));
        assert_eq!(tree.add(child("c")).await, Err(ChildrenError::Full));
        assert_eq!(tree.remove("a").await, Ok(()));
        assert_eq!(tree.add(child("c")).await, Ok(()));
        let children = tree.reference();
        tree.stop().await;
        assert_eq!(children.add(child("d")).await, Err(ChildrenError::Ended));
    });
}

#[test]
fn child_added_later_begins_anew_with_its_supervisor_unless_temporary() {
    virtual_time(async {
        let log = Log::default();
        let below = supervisor("below", Strategy::OneForOne);
        let children = below.reference();
        let root = supervisor("root", Strategy::OneForOne).child(ChildSpec::supervisor(below));
        let tree = root.start();
        let ((a, a_ref), (b, b_ref)) = (counter("a", &log), counter("b", &log));
        children.add(a).await.unwrap();
        children.add(b.restart(Restart::Temporary)).await.unwrap();
        assert_eq!(b_ref.ask(Count).await, Ok(1));
        for _ in 0..3 {
            let _ = a_ref.ask(Panic).await;
        }
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        assert_eq!(b_ref.ask(Count).await, Err(AskError::Ended));
        let below = tree.tree().children.remove(0);
        assert_eq!((below.restarts, below.children.len()), (1, 1));
        let (c, c_ref) = counter("c", &log);
        assert_eq!(children.add(c).await, Ok(()), "the reference is good over the restart");
        assert_eq!(c_ref.ask(Count).await, Ok(1));
        tree.stop().await;
    });
}

#[test]
fn child_can_be_added_and_asked_from_another_thread() {
    real_time(async {
        let tree = supervisor("root", Strategy::OneForOne).start();
        let children = tree.reference();
        let elsewhere = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.unwrap().block_on(async {
                let (a, a_ref) = counter("a", &Log::default());
                children.add(a).await.unwrap();
                a_ref.ask(Count).await
            })
        };
        assert_eq!(tokio::task::spawn_blocking(elsewhere).await.unwrap(), Ok(1));
        tree.stop().await;
    });
}
