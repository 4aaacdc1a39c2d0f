//! Questions of people on their way down, and how fast queues drain.
use std::time::Duration;

use actix::prelude::*;
use extension::storage::QueueName;
use protocol::{exchange::Sender, question::Question};

use super::DurableQueue;
use crate::delivery::{
    drain::{SAMPLE_EVERY_MS, Samples},
    orders::{Ask, OpenQuestions},
    router,
};

/// Bell of the actor that says something to questions.
pub const QUESTIONS: &str = "questions";
/// Time between two samples of each queue.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_millis(SAMPLE_EVERY_MS.unsigned_abs());
/// Children that are woken for a question at once; the next follow after [`WAKE_EVERY`], so that
/// a fleet does not come in one moment.
const WAKE_AT_ONCE: usize = 256;
/// Time between two such groups.
const WAKE_EVERY: Duration = Duration::from_millis(20);

/// How fast one precedence of a queue drains.
#[derive(Debug, Default)]
pub(super) struct Drain {
    /// Messages that went away since this life of the queue began.
    gone: u64,
    samples: Samples,
}

impl DurableQueue {
    /// Counts messages that went away from a queue.
    pub(super) fn went(&mut self, queue: &QueueName, precedence: usize, count: u64) {
        self.drains.entry(queue.clone()).or_default()[precedence].gone += count;
    }

    /// Samples the queues that hold anything; the others are forgotten.
    pub(super) fn sample_drains(&mut self) {
        let now = self.now();
        self.drains.retain(|queue, _| self.state.held.contains_key(&*queue.0));
        for queue in self.state.held.keys() {
            for drain in self.drains.entry(QueueName::new(queue)).or_default() {
                drain.samples.note(now, drain.gone);
            }
        }
    }

    /// Seconds until one precedence of a queue is empty; none: it does not drain.
    pub(super) fn drains_in_s(&self, queue: &QueueName, precedence: usize) -> Option<f64> {
        let waiting = self.state.held(&queue.0)[precedence].messages;
        match self.drains.get(queue) {
            Some(lanes) => {
                let Drain { gone, samples } = &lanes[precedence];
                samples.eta_s(self.now(), *gone, waiting)
            }
            None => Samples::default().eta_s(0, 0, waiting),
        }
    }

    /// Wakes the children, a group at a time.
    fn wake(&mut self, mut children: Vec<Sender>, ctx: &mut Context<Self>) {
        let rest = children.split_off(children.len().min(WAKE_AT_ONCE));
        for child in &children {
            self.settings.doorbell.ring(&router::down_queue(child));
        }
        if !rest.is_empty() {
            ctx.run_later(WAKE_EVERY, move |queue, ctx| queue.wake(rest, ctx));
        }
    }
}

impl Handler<Ask> for DurableQueue {
    type Result = ();

    fn handle(&mut self, Ask(question): Ask, ctx: &mut Context<Self>) {
        let (own, now) = (self.identity().id, self.now());
        let goes = self.questions.open(question, now, &own, self.routes.iter());
        if goes.own {
            self.settings.doorbell.ring(QUESTIONS);
        }
        self.wake(goes.children, ctx);
    }
}

impl Handler<OpenQuestions> for DurableQueue {
    type Result = MessageResult<OpenQuestions>;

    fn handle(&mut self, _: OpenQuestions, _: &mut Context<Self>) -> Self::Result {
        let questions: Vec<Question> = self.questions.of_node(self.now());
        MessageResult(questions)
    }
}
