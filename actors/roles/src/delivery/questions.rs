//! Questions that are open at a node: whom they go on to, how often, until when (pure).
//!
//! They stand in memory alone: one that a crash takes is one that nobody waits for much longer.
use std::collections::HashMap;

use protocol::{RemoteId, exchange::Sender, limits::QUESTIONS_MAX, question::Question};

use super::router::{self, Route};

/// First wait before a child that was handed a question is handed it again, ms: the answer that
/// carried it may have been lost. It doubles.
const AGAIN_MS: i64 = 1_000;
/// Times a child is handed a question.
const HANDED_MAX: u32 = 4;
/// Bytes of a component's id at the front of a route's key.
const COMPONENT_BYTES: usize = 20;

/// The questions of one node.
#[derive(Debug, Default)]
pub struct Questions(Vec<Open>);

#[derive(Debug)]
struct Open {
    question: Question,
    /// By this node's clock, ms since 1970 UTC.
    ends_at: i64,
    /// Whether this node is asked itself.
    own: bool,
    /// By the key of the child.
    below: HashMap<Vec<u8>, Below>,
}

/// What one child is asked.
#[derive(Debug)]
struct Below {
    /// Those of whom the question names that this child leads to: no child hears of others.
    to: Vec<RemoteId>,
    handed: u32,
    again_at: i64,
}

/// Whom a question that was opened goes on to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoesTo {
    /// This node itself.
    pub own: bool,
    /// Children that lead to somebody it asks.
    pub children: Vec<Sender>,
}

impl Questions {
    /// Opens a question at `now`, ms since 1970 UTC. One that is open already goes nowhere, nor
    /// does one more than [`QUESTIONS_MAX`].
    pub fn open<'r>(
        &mut self,
        question: Question,
        now: i64,
        own: &RemoteId,
        routes: impl Iterator<Item = (&'r Vec<u8>, &'r Route)>,
    ) -> GoesTo {
        self.0.retain(|open| open.ends_at > now);
        let known = self.0.iter().any(|open| open.question.id == question.id);
        if known || self.0.len() >= QUESTIONS_MAX || question.wait_ms == 0 {
            return GoesTo::default();
        }
        let mut goes =
            GoesTo { own: !own.is_unregistered() && question.asks(own), children: Vec::new() };
        let mut below: HashMap<Vec<u8>, Below> = HashMap::new();
        for (key, route) in routes {
            let node = RemoteId::from_bytes(key.get(..COMPONENT_BYTES).unwrap_or(key));
            let Some(node) = node.ok().filter(|node| question.asks(node)) else { continue };
            let child = Sender { id: route.child, epoch: route.child_epoch };
            let one = below.entry(router::key(&child.id, child.epoch)).or_insert_with(|| {
                goes.children.push(child);
                Below { to: Vec::new(), handed: 0, again_at: now }
            });
            for to in question.to.iter().filter(|to| node.is_under(to)) {
                if !one.to.contains(to) {
                    one.to.push(*to);
                }
            }
        }
        let ends_at = now.saturating_add_unsigned(question.wait_ms);
        self.0.push(Open { question, ends_at, own: goes.own, below });
        goes
    }

    /// Those that ask this node itself.
    pub fn of_node(&self, now: i64) -> Vec<Question> {
        let own = self.0.iter().filter(|open| open.own && open.ends_at > now);
        own.map(|open| open.question.clone()).collect()
    }

    /// Those that a child is to be handed now.
    pub fn of_child(&mut self, child: &Sender, now: i64) -> Vec<Question> {
        let mut handed = Vec::new();
        let key = router::key(&child.id, child.epoch);
        for open in self.0.iter_mut().filter(|open| open.ends_at > now) {
            let Some(below) = open.below.get_mut(&key) else { continue };
            if below.handed >= HANDED_MAX || below.again_at > now {
                continue;
            }
            below.again_at = now + (AGAIN_MS << below.handed);
            below.handed += 1;
            let wait_ms = (open.ends_at - now).unsigned_abs();
            let (id, about) = (open.question.id, open.question.about);
            handed.push(Question { id, wait_ms, to: below.to.clone(), about });
        }
        handed
    }

    /// When a child is to be handed one again, in ms; none: nothing is left for it.
    pub fn again_in_ms(&self, child: &Sender, now: i64) -> Option<u64> {
        let key = router::key(&child.id, child.epoch);
        let open = self.0.iter().filter(|open| open.ends_at > now);
        let below = open.filter_map(|open| open.below.get(&key));
        let again = below.filter(|b| b.handed < HANDED_MAX).map(|b| b.again_at);
        again.min().map(|at| (at - now).max(0).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn node(number: u32) -> RemoteId {
        let customer = RemoteId::customer(Uuid::from_u128(7));
        customer.child(number).unwrap_or(customer)
    }

    fn child(number: u32) -> Sender {
        Sender { id: node(number), epoch: 1 }
    }

    /// Nodes 3 and 4 below child 2, node 5 a child of its own.
    fn routes() -> HashMap<Vec<u8>, Route> {
        let leads = |to: u32, by: u32| {
            let route = Route { child: node(by), child_epoch: 1, epoch: 1, order: 1 };
            (router::key(&node(to), 1), route)
        };
        HashMap::from([leads(2, 2), leads(3, 2), leads(4, 2), leads(5, 5)])
    }

    fn question(id: u64, to: &[RemoteId]) -> Question {
        Question { id, wait_ms: 5_000, to: to.to_vec(), about: None }
    }

    #[test]
    fn a_question_goes_to_the_children_that_lead_to_whom_it_asks() {
        let (mut questions, routes) = (Questions::default(), routes());
        let mut all = questions.open(question(1, &[]), 0, &node(1), routes.iter());
        all.children.sort();
        assert_eq!(all, GoesTo { own: true, children: vec![child(2), child(5)] });
        let to = [node(3), node(9)];
        let some = questions.open(question(2, &to), 0, &node(1), routes.iter());
        assert_eq!(some, GoesTo { own: false, children: vec![child(2)] });
        assert_eq!(questions.of_node(0), [question(1, &[])]);
        // A child hears of nobody it does not lead to.
        let handed = questions.of_child(&child(2), 0);
        assert_eq!(handed, [question(1, &[]), question(2, &[node(3)])]);
        assert_eq!(questions.of_child(&child(5), 0), [question(1, &[])]);
        assert_eq!(questions.of_child(&child(7), 0), []);
    }

    #[test]
    fn a_child_is_handed_a_question_again_with_growing_waits_and_not_for_ever() {
        let (mut questions, routes) = (Questions::default(), routes());
        let asked = Question { wait_ms: 45_000, ..question(1, &[]) };
        questions.open(asked, 0, &node(1), routes.iter());
        let mut at = Vec::new();
        for now in 0..50_000 {
            if let [handed] = &questions.of_child(&child(5), now)[..] {
                assert_eq!(handed.wait_ms, 45_000 - now.unsigned_abs());
                at.push(now);
            }
        }
        assert_eq!(at, [0, 1_000, 3_000, 7_000]);
        assert_eq!(questions.again_in_ms(&child(2), 0), Some(0));
        assert_eq!(questions.again_in_ms(&child(5), 8_000), None);
    }

    #[test]
    fn questions_are_bounded_come_once_and_end() {
        let (mut questions, routes) = (Questions::default(), routes());
        for id in 0..2 * QUESTIONS_MAX as u64 {
            questions.open(question(id, &[]), 0, &node(1), routes.iter());
            questions.open(question(id, &[]), 1, &node(1), routes.iter());
        }
        assert_eq!(questions.of_node(4_999).len(), QUESTIONS_MAX);
        assert_eq!(questions.of_node(5_000), []);
        assert_eq!(questions.of_child(&child(5), 5_000), []);
        let late = questions.open(question(99, &[]), 5_000, &node(1), routes.iter());
        assert!(late.own, "there is room again");
    }
}
