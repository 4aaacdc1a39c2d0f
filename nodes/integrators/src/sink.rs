//! Where an integrator's results go: the proxy, by way of the integrator API.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use protocol::message::Persistence;
use protocol::service::{Alarm, Data, Event, Payload, State};
use protocol::{Precedence, Refusal};

use crate::counters::Counters;
use crate::rules::{Becomes, Judgement};

/// One call of the integrator API that sends something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The platform's name of the instance it is about.
    pub instance: String,
    /// Milliseconds since 1970, by the platform's clock.
    pub occurred_at_ms: i64,
    /// What is said.
    pub what: What,
    /// How it travels.
    pub quality: Quality,
    /// What tells it from all others, where its sender may repeat it to another process: the proxy
    /// stores it once.
    pub once: Option<Bytes>,
}

/// What a call says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// `alarm`
    Alarm(Alarm),
    /// `event`
    Event(Event),
    /// `data`
    Data(Data),
}

/// Quality of service of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// Which queue it takes.
    pub precedence: Precedence,
    /// Whether a full queue may evict it.
    pub persistence: Persistence,
    /// Seconds after which nobody wants it any more.
    pub time_to_live_s: Option<u32>,
}

/// That a call is on disk: at the proxy, or in the integrator's own spill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Where there is one yet.
    pub message_id: Option<String>,
}

/// That a call was refused; [`Refusal::verdict`] says whether it may be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}: {detail}")]
pub struct Refused {
    /// The stable name.
    pub refusal: Refusal,
    /// For people.
    pub detail: String,
}

/// The answer to a call, when it comes.
pub type Emitted = Pin<Box<dyn Future<Output = Result<Receipt, Refused>> + Send>>;

/// Takes calls. When a future of [`Sink::emit`] ends with a receipt, what was called is on disk,
/// and the sender may be answered. Calls are stored in the order in which `emit` was called, not
/// in that in which their futures are polled; `emit` itself does not block.
pub trait Sink: Send + Sync + 'static {
    /// Sends one call. A sink that can keep calls on disk does so while the proxy cannot take
    /// them, and answers with a receipt all the same.
    fn emit(&self, call: Call) -> Emitted;

    /// Where an integrator counts what becomes of its messages: the counts go where the calls do.
    /// Otherwise they are counted for nobody.
    fn counters(&self) -> Counters {
        Counters::default()
    }

    /// Ends when there is a connection for the first time; calls may be made before.
    fn connected(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

/// The calls that a judgement asks for, in order: alarms to close, then what is opened or said.
/// None for `ignore`.
pub fn calls_of(judged: &Judgement<'_>, occurred_at_ms: i64, payload: &Payload) -> Vec<Call> {
    let quality = Quality {
        precedence: judged.precedence,
        persistence: judged.persistence,
        time_to_live_s: judged.ttl_s,
    };
    let call = |what| {
        let instance = judged.instance.clone();
        Call { instance, occurred_at_ms, what, quality, once: None }
    };
    let alarm = |kind: &str, state, close_after_s| {
        What::Alarm(Alarm {
            kind: kind.to_owned(),
            key: judged.key.clone(),
            severity: judged.severity,
            text: judged.text.clone(),
            state,
            close_after_s,
            payload: payload.clone(),
        })
    };
    let closes = judged.closes.iter().map(|kind| call(alarm(kind, State::Closed, None)));
    let said = match judged.becomes {
        Becomes::Alarm => Some(alarm(&judged.type_, State::Opened, judged.close_after_s)),
        Becomes::Event => Some(What::Event(Event {
            kind: judged.type_.clone(),
            event_id: judged.event_id.clone().unwrap_or_default(),
            severity: judged.severity,
            state: State::Opened,
            text: judged.text.clone(),
            payload: payload.clone(),
        })),
        Becomes::Data => Some(What::Data(Data {
            kind: judged.class.clone(),
            subtype: judged.subclass.clone(),
            payload: payload.clone(),
        })),
        Becomes::Clear | Becomes::Ignore => None,
    };
    closes.chain(said.map(call)).collect()
}
