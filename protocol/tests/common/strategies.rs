//! Strategies for ids, questions and what is said to them.
use proptest::{collection::vec, option, prelude::*, sample::select};
use protocol::{
    MessageId, Precedence, RemoteId,
    question::{Found, Question, Said},
    run::Hop,
};

/// Any id.
pub fn an_id() -> impl Strategy<Value = RemoteId> {
    (any::<[u8; 16]>(), vec(any::<u32>(), 0..4)).prop_map(|(customer, numbers)| {
        let customer = RemoteId::from_bytes(&customer).unwrap();
        numbers.into_iter().fold(customer, |id, n| id.child(n).unwrap_or(id))
    })
}

/// Any message id.
pub fn message_id() -> impl Strategy<Value = MessageId> {
    (an_id(), any::<u64>(), select(Precedence::ALL), any::<u64>()).prop_map(
        |(origin, epoch, precedence, sequence)| MessageId { origin, epoch, precedence, sequence },
    )
}

/// A short text.
pub fn name() -> impl Strategy<Value = String> {
    ".{0,40}"
}

fn found() -> impl Strategy<Value = Found> {
    let hop = (an_id(), any::<i64>(), any::<i64>());
    let hop = hop.prop_map(|(node, received, sent)| Hop { node, received, sent });
    (name(), any::<u32>(), name(), name(), any::<[i64; 2]>(), vec(hop, 0..8)).prop_map(
        |(queue, attempts, reason, class, [occurred_at, accepted_at], path)| Found {
            queue,
            attempts,
            reason,
            class,
            occurred_at,
            accepted_at,
            path,
        },
    )
}

/// Any question.
pub fn question() -> impl Strategy<Value = Question> {
    (any::<u64>(), 0..45_000_u64, vec(an_id(), 0..4), option::of(message_id()))
        .prop_map(|(id, wait_ms, to, about)| Question { id, wait_ms, to, about })
}

/// Anything said to one.
pub fn said() -> impl Strategy<Value = Said> {
    (any::<u64>(), option::of(found())).prop_map(|(question, found)| Said { question, found })
}
