//! What supervision promises, on virtual time: restart, order, giving up, stopping.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]

mod common;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use common::{
    BeStubborn, Count, Counter, Fail, Log, Panic, Rest, SECOND, counter, supervisor, virtual_time,
};
use futures_util::future::join_all;
use supervision::{
    AskError, Backoff, ChildSpec, Exit, Intensity, Restart, Route, Strategy, Supervisor,
};
use tokio::time::{Instant, sleep};

#[test]
fn restarted_child_is_new_and_its_reference_stays_good() {
    virtual_time(async {
        let log = Log::default();
        let (spec, a) = counter("a", &log);
        let tree = supervisor("root", Strategy::OneForOne).child(spec).start();
        assert_eq!(a.ask(Count).await, Ok(1));
        assert_eq!(a.ask(Count).await, Ok(2));
        assert_eq!(a.ask(Panic).await, Err(AskError::Ended));
        assert_eq!(a.ask(Count).await, Ok(1));
        assert_eq!(tree.stop().await, Exit::Normal);
        assert_eq!(log.take(), ["+a", "+a", "-a"], "a panicked instance gets no last words");
    });
}

#[test]
fn message_behind_a_panic_is_answered_by_the_next_instance() {
    virtual_time(async {
        let (spec, a) = counter("a", &Log::default());
        let tree = supervisor("root", Strategy::OneForOne).child(spec).start();
        let (panicked, counted) = tokio::join!(a.ask(Panic), a.ask(Count));
        assert_eq!((panicked, counted), (Err(AskError::Ended), Ok(1)));
        tree.stop().await;
    });
}

#[test]
fn rest_for_one_stops_later_children_in_reverse_and_starts_them_in_order() {
    virtual_time(async {
        let log = Log::default();
        let ((a, _a), (b, b_ref), (c, c_ref)) =
            (counter("a", &log), counter("b", &log), counter("c", &log));
        let (d, _d) = counter("d", &log);
        let root = supervisor("root", Strategy::RestForOne).child(a).child(b).child(c).child(d);
        let tree = root.start();
        assert_eq!(c_ref.ask(Count).await, Ok(1));
        assert!(tree.started().await);
        assert_eq!(log.take(), ["+a", "+b", "+c", "+d"]);
        b_ref.ask(Fail).await.unwrap();
        assert_eq!(c_ref.ask(Count).await, Ok(1), "began anew as well");
        sleep(SECOND).await;
        assert_eq!(log.take(), ["-b", "-d", "-c", "+b", "+c", "+d"]);
        tree.stop().await;
        assert_eq!(log.take(), ["-d", "-c", "-b", "-a"]);
    });
}

#[test]
fn one_for_all_stops_every_child_in_reverse_and_starts_them_in_order() {
    virtual_time(async {
        let log = Log::default();
        let ((a, _a), (b, b_ref), (c, _c)) =
            (counter("a", &log), counter("b", &log), counter("c", &log));
        let root = supervisor("root", Strategy::OneForAll).child(a).child(b).child(c);
        let tree = root.start();
        assert!(tree.started().await);
        log.take();
        assert_eq!(b_ref.ask(Panic).await, Err(AskError::Ended));
        sleep(2 * SECOND).await;
        assert_eq!(log.take(), ["-c", "-a", "+a", "+b", "+c"]);
        tree.stop().await;
    });
}

#[test]
fn one_for_one_leaves_the_others_alone() {
    virtual_time(async {
        let log = Log::default();
        let ((a, a_ref), (b, b_ref)) = (counter("a", &log), counter("b", &log));
        let tree = supervisor("root", Strategy::OneForOne).child(a).child(b).start();
        assert_eq!(b_ref.ask(Count).await, Ok(1));
        assert_eq!(a_ref.ask(Panic).await, Err(AskError::Ended));
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        assert_eq!(b_ref.ask(Count).await, Ok(2), "kept its count");
        assert_eq!(log.take(), ["+a", "+b", "+a"]);
        tree.stop().await;
    });
}

#[test]
fn child_that_ends_while_others_are_stopped_is_restarted_too() {
    virtual_time(async {
        let log = Log::default();
        let ((a, a_ref), (b, b_ref), (c, c_ref)) =
            (counter("a", &log), counter("b", &log), counter("c", &log));
        let root = supervisor("root", Strategy::RestForOne);
        let tree = root.child(a).child(b).child(c.stop_within(3 * SECOND)).start();
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        c_ref.ask(BeStubborn).await.unwrap();
        // The end of `b` has `c` stopped, which takes 3 s; `a` ends meanwhile.
        let _ = b_ref.ask(Panic).await;
        sleep(SECOND).await;
        let _ = a_ref.ask(Panic).await;
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        assert_eq!(c_ref.ask(Count).await, Ok(1));
        assert_eq!(tree.stop().await, Exit::Normal);
    });
}

#[test]
fn temporary_child_that_a_group_restart_stops_stays_stopped() {
    virtual_time(async {
        let log = Log::default();
        let ((a, a_ref), (b, _b)) = (counter("a", &log), counter("b", &log));
        let root = supervisor("root", Strategy::OneForAll);
        let tree = root.child(a).child(b.restart(Restart::Temporary)).start();
        assert!(tree.started().await);
        let _ = a_ref.ask(Panic).await;
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        assert_eq!(log.take(), ["+a", "+b", "-b", "+a"]);
        tree.stop().await;
    });
}

#[test]
fn child_that_always_fails_makes_the_supervisor_give_up() {
    virtual_time(async {
        let (spec, a) = counter("a", &Log::default());
        let tree = supervisor("root", Strategy::OneForOne).child(spec).start();
        for _ in 0..3 {
            assert_eq!(a.ask(Panic).await, Err(AskError::Ended));
        }
        assert_eq!(tree.ended().await, Exit::Escalated);
        assert_eq!(a.ask(Count).await, Err(AskError::Ended), "nobody will restart it");
    });
}

#[test]
fn supervisor_that_gives_up_stops_its_other_children_as_planned() {
    virtual_time(async {
        let log = Log::default();
        let ((a, _a), (b, b_ref)) = (counter("a", &log), counter("b", &log));
        let tree = supervisor("root", Strategy::OneForOne).child(a).child(b).start();
        for _ in 0..3 {
            let _ = b_ref.ask(Panic).await;
        }
        assert_eq!(tree.ended().await, Exit::Escalated);
        assert_eq!(log.take().last().unwrap(), "-a");
    });
}

#[test]
fn restarts_that_are_far_apart_never_make_it_give_up() {
    virtual_time(async {
        let (spec, a) = counter("a", &Log::default());
        let tree = supervisor("root", Strategy::OneForOne).child(spec).start();
        for _ in 0..20 {
            assert_eq!(a.ask(Panic).await, Err(AskError::Ended));
            sleep(31 * SECOND).await;
        }
        assert_eq!(a.ask(Count).await, Ok(1));
        assert_eq!(tree.stop().await, Exit::Normal);
    });
}

#[test]
fn wait_before_a_restart_doubles_with_the_restarts_of_the_window() {
    virtual_time(async {
        let backoff = Backoff { min: SECOND, max: 4 * SECOND };
        let root = Supervisor::new("root", Strategy::OneForOne, Intensity::a_minute(10), backoff);
        let (spec, a) = counter("a", &Log::default());
        let tree = root.child(spec).start();
        let mut waits = Vec::new();
        for _ in 0..4 {
            let _ = a.ask(Panic).await;
            let ended_at = Instant::now();
            assert_eq!(a.ask(Count).await, Ok(1));
            waits.push(ended_at.elapsed().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 4]);
        tree.stop().await;
    });
}

#[test]
#[should_panic(expected = "backoff outlasts the restart window")]
fn supervisor_that_could_never_give_up_is_refused() {
    let backoff = Backoff { min: 30 * SECOND, max: 30 * SECOND };
    Supervisor::new("root", Strategy::OneForOne, Intensity::a_minute(2), backoff);
}

#[test]
fn escalation_restarts_the_whole_subtree_and_references_stay_good() {
    virtual_time(async {
        let log = Log::default();
        let ((a, a_ref), (b, b_ref)) = (counter("a", &log), counter("b", &log));
        let below = supervisor("below", Strategy::OneForOne).child(a).child(b);
        let root = supervisor("root", Strategy::OneForOne).child(ChildSpec::supervisor(below));
        let tree = root.start();
        assert_eq!(b_ref.ask(Count).await, Ok(1));
        for _ in 0..3 {
            let _ = a_ref.ask(Panic).await;
        }
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        assert_eq!(b_ref.ask(Count).await, Ok(1), "the sibling began anew as well");
        assert_eq!(tree.stop().await, Exit::Normal);
    });
}

#[test]
fn failure_climbs_level_by_level_until_the_top_gives_up() {
    virtual_time(async {
        let (a, a_ref) = counter("a", &Log::default());
        let below = supervisor("below", Strategy::OneForOne).child(a);
        let root = supervisor("root", Strategy::OneForOne).child(ChildSpec::supervisor(below));
        let tree = root.start();
        // 3 lives of `below` with 3 panics each: the limits of the levels multiply.
        for _ in 0..9 {
            assert_eq!(a_ref.ask(Panic).await, Err(AskError::Ended));
        }
        assert_eq!(tree.ended().await, Exit::Escalated);
    });
}

#[test]
fn child_is_started_when_the_one_before_it_is_up() {
    virtual_time(async {
        let log = Log::default();
        let (made, seen) = (AtomicU32::new(0), log.clone());
        let (a, _a) = ChildSpec::actor("a", 1, SECOND, move |lifeline| {
            if made.fetch_add(1, Relaxed) == 0 {
                seen.add("a fails");
                panic!("no disk yet");
            }
            Counter::new("a", &seen, lifeline)
        });
        let (b, _b) = counter("b", &log);
        let below = supervisor("below", Strategy::OneForOne).child(a);
        let root = supervisor("root", Strategy::OneForOne);
        let tree = root.child(ChildSpec::supervisor(below)).child(b).start();
        assert!(tree.started().await);
        assert_eq!(log.take(), ["a fails", "+a", "+b"], "b waited for the tree before it");
        tree.stop().await;
    });
}

#[test]
fn child_that_does_not_stop_in_time_is_cut_off_and_those_before_it_still_stop() {
    virtual_time(async {
        let log = Log::default();
        let ((a, _a), (b, b_ref)) = (counter("a", &log), counter("b", &log));
        let root = supervisor("root", Strategy::OneForOne);
        let tree = root.child(a).child(b.stop_within(3 * SECOND)).start();
        b_ref.ask(BeStubborn).await.unwrap();
        log.take();
        let began_at = Instant::now();
        assert_eq!(tree.stop().await, Exit::Normal);
        assert_eq!(began_at.elapsed(), 3 * SECOND);
        assert_eq!(log.take(), ["-a"], "a child that is cut off gets no last words");
    });
}

#[test]
fn tree_whose_handle_is_dropped_stops() {
    virtual_time(async {
        let log = Log::default();
        let (a, a_ref) = counter("a", &log);
        let tree = supervisor("root", Strategy::OneForOne).child(a).start();
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        drop(tree);
        assert_eq!(a_ref.ask(Count).await, Err(AskError::Ended));
        assert_eq!(log.take(), ["+a", "-a"]);
    });
}

#[test]
fn more_messages_than_may_wait_are_refused() {
    virtual_time(async {
        // Never started, so nothing is answered; 4 may wait.
        let (_spec, a) = counter("a", &Log::default());
        let asks = (0..6).map(|_| a.clone()).map(|a| async move { a.ask(Count).await });
        let answers = join_all(asks).await;
        let refused = answers.iter().filter(|answer| **answer == Err(AskError::Full)).count();
        assert_eq!(refused, 2);
    });
}

#[test]
fn message_nobody_waits_for_any_more_counts_until_the_actor_is_done_with_it() {
    virtual_time(async {
        let (spec, a) = counter("a", &Log::default());
        let tree = supervisor("root", Strategy::OneForOne).child(spec).start();
        assert_eq!(a.ask(Rest(100 * SECOND)).await, Err(AskError::TimedOut));
        // 70 s more of rest: the askers lose patience after 30 s, their messages stay.
        let answers = join_all((0..4).map(|_| a.ask(Count))).await;
        assert_eq!(answers.iter().filter(|a| **a == Err(AskError::TimedOut)).count(), 3);
        assert_eq!(a.ask(Count).await, Err(AskError::Full), "the bound holds");
        sleep(50 * SECOND).await;
        assert_eq!(a.ask(Count).await, Ok(4), "all were answered in the end");
        tree.stop().await;
    });
}

#[test]
fn route_reaches_an_actor_or_whatever_a_test_puts_there() {
    virtual_time(async {
        let (spec, a) = counter("a", &Log::default());
        let tree = supervisor("root", Strategy::OneForOne).child(spec).start();
        assert_eq!(a.route::<Count>().ask(Count).await, Ok(1));
        let probe = Route::<Count>::new(|_| Box::pin(async { Ok(7) }));
        assert_eq!(probe.clone().ask(Count).await, Ok(7));
        tree.stop().await;
    });
}
