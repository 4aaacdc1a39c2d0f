//! What the durable queue is asked: its orders, and what `Ok` promises of each.
use actix::Message as Order;
use bytes::Bytes;
use extension::storage::{Change, StoreError};
use protocol::{
    Message, MessageId, Refusal, RemoteId,
    ends::EndReport,
    exchange::{Acknowledgement, Answer, Exchange, Outcome, Sender},
    heartbeat::{Account, Depth, Heartbeat},
    message::Unnumbered,
    question::Question,
    run::Run,
};

use super::runs::Traits;

/// Keeps messages of this node's own: numbers them, puts forward ones into `up` (at the top: into
/// the records) and back ones into the queue that leads to their destination. `rows` and the
/// account's `ends` go into the same commit. `Ok`: all of it is on disk, one result a message.
#[derive(Order)]
#[rtype(result = "Result<Vec<Result<Kept, Refusal>>, Refusal>")]
pub struct Keep {
    /// The messages, in the order they are to leave in.
    pub messages: Vec<Unnumbered>,
    /// Changes that belong to them, such as results of an integrator's stream or the effects and
    /// cursor of a service module. They are made also where there is no message.
    pub changes: Vec<Change>,
    /// How messages of the records ended in the same commit (top of the chain only).
    pub ends: Vec<(protocol::ends::End, u64)>,
}

/// As [`Keep`], with changes that are made only where one of its messages is kept: what says "this
/// was stored" may not survive the message that found no room.
#[derive(Order)]
#[rtype(result = "Result<Vec<Result<Kept, Refusal>>, Refusal>")]
pub struct KeepWith {
    /// The messages, and the changes that are made in any case.
    pub keep: Keep,
    /// Position of a message, and a change that goes with it.
    pub each: Vec<(usize, Change)>,
    /// Numbers that are noted where their message is kept.
    pub noted: Option<Noted>,
}

/// Numbers of messages that are kept: a row for each unbroken row of numbers, for one a message
/// costs more than the message itself. Key: the prefix, then the first. Value: the last.
pub struct Noted {
    /// The table.
    pub table: &'static str,
    /// What the keys begin with.
    pub prefix: Bytes,
    /// Position of a message, and its number.
    pub numbers: Vec<(usize, u64)>,
}

/// Unbroken rows of numbers, in their order: the first and the last of each.
pub fn unbroken(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut rows: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match rows.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => rows.push((number, number)),
        }
    }
    rows
}

/// Counts messages that were accepted and not stored, because the node is not registered (PRX-13).
/// They stand outside the account. On disk with the next commit.
#[derive(Order)]
#[rtype(result = "()")]
pub struct NoteDropped(pub u64);

/// What became of a message of this node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It stands in its queue.
    Stored(MessageId),
    /// Bulk that found no room: numbered, ended `evicted` (QUE-12).
    Evicted(MessageId),
}

/// Takes an exchange of a child into custody. `Ok`: what the answer calls stored is on disk.
#[derive(Order)]
#[rtype(result = "Result<Taken, Refusal>")]
pub struct Take {
    /// As decoded; its digest was compared.
    pub exchange: Exchange,
    /// Its messages, run by run, checked at the door, or why the door refused them.
    pub checked: Vec<Vec<Result<Checked, Refusal>>>,
    /// Its heartbeats, decoded.
    pub beats: Vec<Heartbeat>,
}

/// A message that the door lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What the queue must know of it.
    pub traits: Traits,
    /// The instance it is about.
    pub instance: Option<RemoteId>,
    /// The message, decoded: where it changes routes or the directory.
    pub message: Option<Box<Message>>,
}

/// What a child is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// By position.
    pub outcomes: Vec<(Outcome, u32)>,
    /// What goes down with the answer.
    pub down: Downward,
}

/// What is handed to a child now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downward {
    /// Back-channel messages that wait for it.
    pub runs: Vec<Run>,
    /// What it and those below it are asked.
    pub questions: Vec<Question>,
    /// When something that it did not acknowledge goes again, ms; none: nothing waits.
    pub again_in_ms: Option<u64>,
}

impl Downward {
    /// Whether there is nothing to hand over.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.questions.is_empty()
    }
}

/// Makes changes of a role's own rows. `Ok`: on disk.
#[derive(Order)]
#[rtype(result = "Result<(), Refusal>")]
pub struct Apply(pub Vec<Change>);

/// What the parent handed down: committed to the queue of whom it is for.
/// `Ok`: on disk; these acknowledgements may be sent.
#[derive(Order)]
#[rtype(result = "Result<Vec<Acknowledgement>, Refusal>")]
pub struct TakeDown(pub Vec<Run>);

/// The figures of now, for heartbeats, metrics and the operator's door.
#[derive(Order)]
#[rtype(result = "Figures")]
pub struct AskFigures;

/// Opens a question: it goes on to the children that lead to whom it asks, and to this node itself
/// where it is asked. In memory alone.
#[derive(Order)]
#[rtype(result = "()")]
pub struct Ask(pub Question);

/// The questions that are open and ask this node itself.
#[derive(Order)]
#[rtype(result = "Vec<Question>")]
pub struct OpenQuestions;

/// A queue's figures.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The account; outside counters too.
    pub account: Account,
    /// Refused by reason, inside the account.
    pub refused: Vec<(String, u64)>,
    /// Turned away at the door by reason, outside the account.
    pub turned_away: Vec<(String, u64)>,
    /// Every queue that holds anything: name, and depth by precedence.
    pub queues: Vec<(String, [Depth; 3])>,
    /// Seconds until each of them is empty, by precedence, in the order of `queues`; none: it does
    /// not drain.
    pub drains_in_s: Vec<[Option<f64>; 3]>,
    /// When the parent acknowledged last, ms since 1970 UTC; 0: never.
    pub last_acknowledged_at: i64,
    /// Whether the store takes new messages, and why not.
    pub storage: Option<String>,
    /// Newest heartbeats of the nodes below, as they came.
    pub beats: Vec<Heartbeat>,
}

/// A checked run that the top of the chain takes, or one of its own.
pub struct Arrived {
    /// Its path ends with this node.
    pub run: Run,
    /// Its messages in the order they stand.
    pub messages: Vec<Checked>,
    /// When it was taken, ms since 1970 UTC.
    pub now: i64,
}

/// What the top of the chain does with a run, in the commit that takes it: removes duplicates for
/// ever, stores what is new once, and writes what finds it again. Runs on the store's thread.
pub trait Keeper: Send {
    /// Plans one run. Plans of one commit are asked in order, and each sees what the ones before
    /// planned.
    fn plan(&mut self, arrived: Arrived) -> Result<KeeperPlan, StoreError>;

    /// Notes end reports from below, in the same commit.
    fn ends(&mut self, reports: &[EndReport]) -> Result<Vec<Change>, StoreError>;

    /// What was planned since the last call is on disk.
    fn committed(&mut self);

    /// What was planned since the last call is not on disk and will not be.
    fn rolled_back(&mut self);
}

/// What a [`Keeper`] wants done with a run.
#[derive(Default)]
pub struct KeeperPlan {
    /// One per message of the run: stored or duplicate.
    pub outcomes: Vec<Outcome>,
    /// What stores them.
    pub changes: Vec<Change>,
}

/// The answer to an exchange from what was taken.
pub fn answer_to(exchange: &Exchange, taken: Taken, retry_after_ms: u64, credit: u64) -> Answer {
    Answer {
        incarnation: exchange.incarnation,
        precedence: exchange.precedence,
        number: exchange.number,
        digest: exchange.digest,
        outcomes: taken.outcomes,
        retry_after_ms,
        credit_bytes: credit,
        down: taken.down.runs,
        questions: taken.down.questions,
    }
}

/// Who this node is now. Number 0 until it is registered (DESIGN §15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub id: RemoteId,
    /// Which life of its store.
    pub epoch: u64,
}

impl From<Identity> for Sender {
    fn from(identity: Identity) -> Self {
        Sender { id: identity.id, epoch: identity.epoch }
    }
}

/// One run of a batch in the link's hands: which of its messages went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it stands.
    pub place: extension::storage::Place,
    /// Positions that went, in order.
    pub positions: Vec<u32>,
}

/// What the link sends next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Runs of one precedence, in order; empty: nothing waits.
    pub runs: Vec<Run>,
    /// Where they stand, one a run.
    pub parts: Vec<Part>,
    /// When the first of its messages is of no use any more, by this node's clock; none: never.
    pub expires_at: Option<i64>,
    /// End reports that wait, with the keys that settle them.
    pub ends: Vec<(u64, EndReport)>,
    /// Heartbeats that the parent has not seen.
    pub beats: Vec<Heartbeat>,
    /// Back-channel messages that are on disk here.
    pub acknowledgements: Vec<Acknowledgement>,
}

/// The head of the highest precedence that may go. What it gives is in flight until
/// [`Settle`]d or [`Release`]d.
#[derive(Order)]
#[rtype(result = "Result<Batch, Refusal>")]
pub struct NextBatch {
    /// Precedences that may go now, by number.
    pub allowed: [bool; 3],
    /// Bytes of messages at most; one message may be larger.
    pub bytes_max: usize,
    /// Nothing is wanted but reports and heartbeats.
    pub empty: bool,
}

/// What the parent answered. `Ok`: what it has is forgotten here; what it gave up is set aside.
#[derive(Order, Clone)]
#[rtype(result = "Result<(), Refusal>")]
pub struct Settle {
    /// The batch's parts.
    pub parts: Vec<Part>,
    /// By position over all parts.
    pub outcomes: Vec<(Outcome, u32)>,
    /// End reports it has.
    pub ends: Vec<u64>,
    /// Heartbeats it has.
    pub beats: Vec<(RemoteId, u64)>,
}

/// What was in flight is not any more: the link starts anew or failed over.
#[derive(Order)]
#[rtype(result = "()")]
pub struct Release;

/// What waits for a child on the back-channel.
#[derive(Order)]
#[rtype(result = "Result<Downward, Refusal>")]
pub struct DownFor(pub Sender);

/// A message of a local queue, for its consumer.
#[derive(Clone, Debug)]
pub struct LocalMessage {
    /// Settles it.
    pub part: Part,
    /// The message.
    pub message: Message,
}

/// The oldest messages of a local queue, at most so many, without removing them.
#[derive(Order)]
#[rtype(result = "Result<Vec<LocalMessage>, Refusal>")]
pub struct NextLocal {
    /// `local/NAME`.
    pub queue: String,
    /// How many at most.
    pub messages_max: usize,
}

/// A consumer is done with a message of a local queue: it ends as `end`.
#[derive(Order)]
#[rtype(result = "Result<(), Refusal>")]
pub struct FinishLocal {
    /// `local/NAME`.
    pub queue: String,
    /// Which.
    pub part: Part,
    /// How.
    pub end: protocol::ends::End,
    /// Why, for a refusal.
    pub reason: String,
    /// Changes that belong to it, such as "this action is done".
    pub changes: Vec<Change>,
}

/// The node has its id: the numbers start anew under it. `Ok`: on disk.
#[derive(Order)]
#[rtype(result = "Result<(), Refusal>")]
pub struct Adopt(pub RemoteId);

/// This node's own heartbeat; the queue gives it its `order`. It replaces an older one.
#[derive(Order)]
#[rtype(result = "Result<(), Refusal>")]
pub struct Beat(pub Box<Heartbeat>);

/// A message by its id in the queues here, for `trace` and `queue show`: the queue, the run it is
/// in, and the message.
#[derive(Order)]
#[rtype(result = "Result<Option<(String, Run, Message)>, Refusal>")]
pub struct Find(pub MessageId);
