//! What an operator sees: the tree, and the counters of restarts and escalations.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]

mod common;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use common::{Count, Log, Panic, Rest, SECOND, counter, supervisor, virtual_time};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use supervision::{ChildSpec, Exit, Kind, State, Strategy, TreeNode};
use tokio::time::sleep;

type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

/// Keeps counters as `name{label=value,…}`.
#[derive(Default)]
struct Kept(Counts);

struct One(Counts, String);

impl CounterFn for One {
    fn increment(&self, by: u64) {
        *self.0.lock().unwrap().entry(self.1.clone()).or_default() += by;
    }

    fn absolute(&self, _: u64) {}
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<String> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Counter::from_arc(Arc::new(One(self.0.clone(), name)))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn restarts_and_escalations_are_counted_by_whom_and_why() {
    let kept = Kept::default();
    let counts = kept.0.clone();
    let _recording = metrics::set_default_local_recorder(&kept);
    virtual_time(async {
        let (a, a_ref) = counter("transfer-7", &Log::default());
        let below = supervisor("bulk", Strategy::OneForOne).child(a.labelled("transfer"));
        let root = supervisor("proxy", Strategy::OneForOne).child(ChildSpec::supervisor(below));
        let tree = root.start();
        for _ in 0..3 {
            let _ = a_ref.ask(Panic).await;
        }
        assert_eq!(a_ref.ask(Count).await, Ok(1));
        assert_eq!(tree.stop().await, Exit::Normal);
    });
    let counts: Vec<(String, u64)> = counts.lock().unwrap().clone().into_iter().collect();
    let expected = [
        ("escalations_total{node=proxy,supervisor=bulk}", 1),
        ("restarts_total{node=proxy,supervisor=bulk,child=transfer,exit=panicked}", 2),
        ("restarts_total{node=proxy,supervisor=proxy,child=bulk,exit=escalated}", 1),
    ];
    let expected = expected.map(|(name, count)| (format!("callhome_supervision_{name}"), count));
    assert_eq!(counts, expected);
}

/// `name state restarts`, children indented.
fn drawn(node: &TreeNode, depth: usize) -> Vec<String> {
    let kind = match node.kind {
        Kind::Node => "node",
        Kind::Supervisor => "supervisor",
        Kind::Actor => "actor",
    };
    let indent = "  ".repeat(depth);
    let state = format!("{:?}", node.state).to_lowercase();
    let mut lines = vec![format!("{indent}{kind} {} {state} {}", node.name, node.restarts)];
    lines.extend(node.children.iter().flat_map(|child| drawn(child, depth + 1)));
    lines
}

#[test]
fn tree_shows_every_node_as_it_is_now() {
    virtual_time(async {
        let (a, a_ref) = counter("up", &Log::default());
        let (b, _b) = counter("link", &Log::default());
        let queues = supervisor("queues", Strategy::OneForOne).child(a);
        let root = supervisor("tree-proxy", Strategy::OneForOne);
        let tree = root.child(ChildSpec::supervisor(queues)).child(b).start();
        assert!(tree.started().await);
        let mine = || supervision::tree().into_iter().find(|node| node.name == "tree-proxy");
        assert_eq!(mine().unwrap(), tree.tree());
        let begun_at = tree.tree().children[0].since_at.clone();

        let (first, second) = (a_ref.clone(), a_ref.clone());
        let asks = [
            actix::spawn(async move { first.ask(Rest(2 * SECOND)).await.is_ok() }),
            actix::spawn(async move { second.ask(Count).await.is_ok() }),
        ];
        sleep(SECOND).await;
        assert_eq!(tree.tree().children[0].children[0].mailbox, 2, "one in hand, one waiting");
        for ask in asks {
            assert!(ask.await.unwrap());
        }

        let _ = a_ref.ask(Panic).await;
        sleep(SECOND / 2).await;
        let expected = [
            "node tree-proxy running 0",
            "  supervisor queues running 0",
            "    actor up waiting 0",
            "  actor link running 0",
        ];
        assert_eq!(drawn(&tree.tree(), 0), expected);
        sleep(SECOND).await;
        let queues = tree.tree().children.remove(0);
        assert_eq!((queues.children[0].state, queues.children[0].restarts), (State::Running, 1));
        assert_eq!(queues.since_at, begun_at, "its own state did not change");
        tree.stop().await;
        assert!(mine().is_none(), "a node that ended is gone");
    });
}
