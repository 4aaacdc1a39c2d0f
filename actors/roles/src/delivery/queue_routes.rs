//! The ways to the durable queue that a role's own actors need, as one thing to hand down.
use extension::storage::Change;
use protocol::{
    Message, MessageId, Refusal, RemoteId, ends::End, heartbeat::Heartbeat, message::Unnumbered,
    question::Question, run::Run,
};
use supervision::{ActorRef, AskError, Route};

use super::{
    durable_queue::DurableQueue,
    orders::{
        Adopt, Apply, AskFigures, Beat, Figures, Find, FinishLocal, Keep, KeepWith, Kept,
        LocalMessage, NextLocal, NoteDropped, OpenQuestions, Part,
    },
};

/// One route an order. Tests make them out of closures.
#[derive(Clone, Debug)]
pub struct QueueRoutes {
    /// Keeps messages of this node's own.
    pub keep: Route<KeepWith>,
    /// Changes rows.
    pub apply: Route<Apply>,
    /// Takes the node's id.
    pub adopt: Route<Adopt>,
    /// Takes the node's heartbeat.
    pub beat: Route<Beat>,
    /// Oldest messages of a local queue.
    pub next_local: Route<NextLocal>,
    /// Ends a message of a local queue.
    pub finish_local: Route<FinishLocal>,
    /// The figures of now.
    pub figures: Route<AskFigures>,
    /// Where a message is.
    pub find: Route<Find>,
    /// Counts what was dropped.
    pub note_dropped: Route<NoteDropped>,
    /// What this node is asked.
    pub questions: Route<OpenQuestions>,
}

/// Why an order has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Nothing was done.
    #[error("{0}")]
    Refused(Refusal),
    /// It may have been done, or be done yet.
    #[error("durable queue did not answer: what became of the order is not known")]
    Unknown,
}

impl QueueError {
    /// The refusal to answer with where an unknown outcome does no harm.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Unknown => Refusal::StorageDown,
        }
    }
}

impl From<AskError> for QueueError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Full => Self::Refused(Refusal::Busy),
            AskError::TimedOut | AskError::Ended => Self::Unknown,
        }
    }
}

impl From<Refusal> for QueueError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            // The queue went down with the order in hand.
            Refusal::Internal => Self::Unknown,
            refusal => Self::Refused(refusal),
        }
    }
}

impl QueueRoutes {
    /// Those that lead to that queue.
    pub fn of(queue: &ActorRef<DurableQueue>) -> Self {
        Self {
            keep: queue.route(),
            apply: queue.route(),
            adopt: queue.route(),
            beat: queue.route(),
            next_local: queue.route(),
            finish_local: queue.route(),
            figures: queue.route(),
            find: queue.route(),
            note_dropped: queue.route(),
            questions: queue.route(),
        }
    }

    /// Keeps messages and makes changes in one commit; `each` changes only where the message at
    /// that position is kept.
    pub async fn keep(
        &self,
        keep: Keep,
        each: Vec<(usize, Change)>,
    ) -> Result<Vec<Result<Kept, Refusal>>, QueueError> {
        self.keep_with(KeepWith { keep, each, noted: None }).await
    }

    /// As [`Self::keep`], and notes numbers of what is kept.
    pub async fn keep_with(
        &self,
        order: KeepWith,
    ) -> Result<Vec<Result<Kept, Refusal>>, QueueError> {
        Ok(self.keep.ask(order).await??)
    }

    /// Keeps one message, with changes that are made only where it is kept.
    pub async fn keep_one(
        &self,
        message: Unnumbered,
        changes: Vec<Change>,
    ) -> Result<MessageId, QueueError> {
        let keep = Keep { messages: vec![message], changes: Vec::new(), ends: Vec::new() };
        let each = changes.into_iter().map(|change| (0, change)).collect();
        match self.keep(keep, each).await?.into_iter().next() {
            Some(Ok(Kept::Stored(id) | Kept::Evicted(id))) => Ok(id),
            Some(Err(refusal)) => Err(refusal.into()),
            None => Err(Refusal::Internal.into()),
        }
    }

    /// Makes changes of rows. `Ok`: on disk.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<(), QueueError> {
        Ok(self.apply.ask(Apply(changes)).await??)
    }

    /// Adopts the node's id. `Ok`: on disk.
    pub async fn adopt(&self, id: RemoteId) -> Result<(), QueueError> {
        Ok(self.adopt.ask(Adopt(id)).await??)
    }

    /// Hands over a heartbeat.
    pub async fn beat(&self, beat: Heartbeat) -> Result<(), QueueError> {
        Ok(self.beat.ask(Beat(Box::new(beat))).await??)
    }

    /// The oldest messages of a local queue.
    pub async fn next_local(
        &self,
        queue: &str,
        messages_max: usize,
    ) -> Result<Vec<LocalMessage>, QueueError> {
        Ok(self.next_local.ask(NextLocal { queue: queue.to_owned(), messages_max }).await??)
    }

    /// Ends a message of a local queue, with changes that belong to it.
    pub async fn finish_local(
        &self,
        queue: &str,
        part: Part,
        end: (End, &str),
        changes: Vec<Change>,
    ) -> Result<(), QueueError> {
        let (end, reason) = (end.0, end.1.to_owned());
        let finish = FinishLocal { queue: queue.to_owned(), part, end, reason, changes };
        Ok(self.finish_local.ask(finish).await??)
    }

    /// The figures of now.
    pub async fn figures(&self) -> Result<Figures, QueueError> {
        Ok(self.figures.ask(AskFigures).await?)
    }

    /// Where a message stands in the queues here.
    pub async fn find(&self, id: MessageId) -> Result<Option<(String, Run, Message)>, QueueError> {
        Ok(self.find.ask(Find(id)).await??)
    }

    /// The questions that are open and ask this node itself.
    pub async fn questions(&self) -> Result<Vec<Question>, QueueError> {
        Ok(self.questions.ask(OpenQuestions).await?)
    }

    /// Whether a message still waits for the link.
    pub async fn is_in_up(&self, id: MessageId) -> Result<bool, QueueError> {
        let found = self.find(id).await?;
        Ok(found.is_some_and(|(queue, ..)| queue == super::durable_queue::UP))
    }
}
