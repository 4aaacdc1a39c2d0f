//! What the durable queue is asked that waits for a commit.
use std::time::Instant;

use actix::prelude::*;
use extension::storage::QueueName;
use protocol::{Precedence, Refusal, exchange::Acknowledgement};
use tokio::sync::oneshot;

use super::{DurableQueue, Job, REMOVALS_WAIT, UP};
use crate::delivery::orders::*;

/// An order that waits for a commit: the answer comes when it is on disk.
macro_rules! waits_for_commit {
    ($order:ty, $answer:ty, $job:expr) => {
        impl Handler<$order> for DurableQueue {
            type Result = ResponseFuture<Result<$answer, Refusal>>;

            fn handle(&mut self, order: $order, ctx: &mut Context<Self>) -> Self::Result {
                let (reply, answer) = oneshot::channel();
                #[allow(clippy::redundant_closure_call)]
                self.add(($job)(order, reply), ctx);
                // A reply that was dropped: the queue was restarted meanwhile, perhaps after the
                // commit. `QueueError` makes an unknown outcome of it.
                Box::pin(async move { answer.await.unwrap_or(Err(Refusal::Internal)) })
            }
        }
    };
}

waits_for_commit!(Keep, Vec<Result<Kept, Refusal>>, |k: Keep, r| Job::Keep(k.into(), r));
waits_for_commit!(KeepWith, Vec<Result<Kept, Refusal>>, Job::Keep);
waits_for_commit!(Take, Taken, |t, r| Job::Take(Box::new(t), Instant::now(), r));
waits_for_commit!(Apply, (), |a: Apply, r| Job::Apply(a.0, r));
waits_for_commit!(TakeDown, Vec<Acknowledgement>, Job::TakeDown);
waits_for_commit!(FinishLocal, (), Job::Finish);
waits_for_commit!(Adopt, (), |a: Adopt, r| Job::Adopt(a.0, r));
waits_for_commit!(Beat, (), |b: Beat, r| Job::Beat(b.0, r));

/// Removals ride on the next put; alone only when none comes, or the link waits for the room they
/// make.
impl Handler<Settle> for DurableQueue {
    type Result = ResponseFuture<Result<(), Refusal>>;

    fn handle(&mut self, settle: Settle, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        // The link waits for what was turned away to stand in the queue again.
        let again = settle.outcomes.iter().any(|(outcome, _)| outcome.is_try_again());
        self.jobs.push(Job::Settle(settle, reply));
        let up = QueueName::new(UP);
        let starves = Precedence::ALL.iter().any(|p| self.lane(&up, *p).starves());
        if again || starves {
            self.ask_flush(ctx);
        } else if !self.removals_asked {
            self.removals_asked = true;
            ctx.run_later(REMOVALS_WAIT, |queue, ctx| {
                queue.removals_asked = false;
                if !queue.jobs.is_empty() {
                    queue.ask_flush(ctx);
                }
            });
        }
        Box::pin(async move { answer.await.unwrap_or(Err(Refusal::Internal)) })
    }
}
