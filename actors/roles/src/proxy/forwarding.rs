//! What is to be done with a message that came down for an integrator (pure, RTE-1…7, ACT-3).
use protocol::{
    Message, MessageId, Refusal, RemoteId,
    ends::End,
    message::Destination,
    service::{Action, ActionAnswer, Notice, Service},
    socket::{ActionRequest, Callback, CallbackError, CapabilitiesRequest, INTEGRATION_MODULE},
    xml::{Doctype, NotWellFormed, well_formed},
};

/// Reason of an action nobody knows the outcome of; it is never done again (`delivery.md` §7).
pub const OUTCOME_UNKNOWN: &str = "outcome_unknown";
/// Reason of an action that the integrator tried and that failed.
const FAILED: &str = "failed";
/// Longest detail of a notice, bytes; the protocol's bound.
const DETAIL_BYTES_MAX: usize = protocol::limits::TEXT_BYTES_MAX;

/// What the disk says of a message that was met before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It was seen first then, ms since 1970 UTC, and its integrator was away.
    Seen(i64),
    /// Its callback was about to be called.
    Started,
}

impl Mark {
    /// The value of its row.
    pub fn encode(self) -> Vec<u8> {
        let (kind, at) = match self {
            Self::Seen(at) => (0, at),
            Self::Started => (1, 0),
        };
        [&[kind], at.to_be_bytes().as_slice()].concat()
    }

    /// Reads the value of its row. One that cannot be read was started: nothing is done twice.
    pub fn decode(row: &[u8]) -> Self {
        match row.split_first_chunk::<1>() {
            Some(([0], at)) if at.len() == 8 => {
                Self::Seen(at.try_into().map(i64::from_be_bytes).unwrap_or_default())
            }
            _ => Self::Started,
        }
    }
}

/// How things stand with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The node's id.
    pub node: RemoteId,
    /// The number of the integrator whose queue it is; none: nobody has that queue.
    pub number: Option<u32>,
    /// The platform's own name of the destination, where it is an instance that is known.
    pub instance: Option<&'a str>,
    /// It was acted on.
    pub is_done: bool,
    /// What the disk says.
    pub mark: Option<Mark>,
    /// The time, ms since 1970 UTC.
    pub now: i64,
    /// How long a message waits for who is away, ms (RTE-6).
    pub keep_ms: i64,
    /// An integrator of that name is connected and takes callbacks.
    pub is_connected: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Nothing until then, ms since 1970 UTC, or until its integrator connects.
    Wait(i64),
    /// Call back.
    Call(Request),
    /// It ends so, with that answer.
    End(End, &'static str, Option<Service>),
}

/// A callback to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// An action, under the names the policy is asked for.
    Action(ActionRequest, Vec<String>),
    /// Capabilities of an instance.
    Capabilities(CapabilitiesRequest),
}

impl Request {
    /// Which callback.
    pub fn callback(&self) -> Callback {
        match self {
            Self::Action(..) => Callback::Action,
            Self::Capabilities(_) => Callback::Capabilities,
        }
    }
}

/// Decides.
pub fn judge(message: &Message, facts: &Facts<'_>) -> Todo {
    if facts.is_done {
        return Todo::End(End::Delivered, "", None);
    }
    if facts.mark == Some(Mark::Started) {
        return Todo::End(End::Delivered, "", answer(message, None, OUTCOME_UNKNOWN));
    }
    let Some(Destination::Id(to)) = &message.header.destination else {
        return misrouted(message);
    };
    let integrator = facts.number.and_then(|number| facts.node.child(number));
    if integrator != Some(to.cut(2)) {
        return misrouted(message);
    }
    let instance = match to.levels() {
        3 => match facts.instance {
            Some(name) => name,
            None => return misrouted(message),
        },
        _ => INTEGRATION_MODULE,
    };
    let since = match facts.mark {
        Some(Mark::Seen(at)) => at,
        _ => facts.now,
    };
    let live_ms = message.header.time_to_live_s.map_or(i64::MAX, |s| i64::from(s) * 1000);
    let until = since.saturating_add(live_ms.min(facts.keep_ms));
    if until <= facts.now {
        let detail = "its integrator did not come in time";
        return ended(message, End::Expired, Refusal::Expired, detail);
    }
    let request = match request(message, instance, until) {
        Ok(request) => request,
        Err(todo) => return *todo,
    };
    match facts.is_connected {
        true => Todo::Call(request),
        false => Todo::Wait(until),
    }
}

fn request(message: &Message, instance: &str, until: i64) -> Result<Request, Box<Todo>> {
    let instance = instance.to_owned();
    let message_id = message.header.id;
    match &message.service {
        Service::Action(action) => {
            let names = names_of(action).map_err(|why| {
                tracing::warn!(target: "proxy", message_id = %message_id, %why,
                    "action is not handed on");
                let reason = Refusal::Malformed.name();
                Box::new(Todo::End(End::Refused, reason, answer(message, None, reason)))
            })?;
            let (action_id, xml) = (action.action_id.clone(), action.xml.clone());
            let request = ActionRequest {
                action_id,
                message_id,
                instance,
                action: xml,
                expires_at_ms: until,
            };
            Ok(Request::Action(request, names))
        }
        Service::Capabilities(_) => {
            Ok(Request::Capabilities(CapabilitiesRequest { message_id, instance }))
        }
        Service::Notice(_) | Service::RegistrationAnswer(_) => {
            Err(Box::new(Todo::End(End::Delivered, "", None)))
        }
        other => {
            let detail = format!("nothing is done with {} here", other.class());
            Err(Box::new(ended(message, End::Refused, Refusal::NotSupported, &detail)))
        }
    }
}

/// Names under which the policy knows an action: what the message says and what the document
/// says, for it is the document that the integrator goes by.
fn names_of(action: &Action) -> Result<Vec<String>, NotWellFormed> {
    let mut names: Vec<String> = well_formed(&action.xml, Doctype::Refused)?.into_iter().collect();
    if !names.contains(&action.name) {
        names.push(action.name.clone());
    }
    Ok(names)
}

fn misrouted(message: &Message) -> Todo {
    ended(message, End::Refused, Refusal::UnknownDestination, "nobody here has that id")
}

/// It ends so, and who sent it hears of it. No notice about a notice.
fn ended(message: &Message, end: End, refusal: Refusal, detail: &str) -> Todo {
    let told = !matches!(message.service, Service::Notice(_) | Service::RegistrationAnswer(_));
    let notice = told.then(|| notice(refusal.name(), detail));
    let reason = if end == End::Refused { refusal.name() } else { "" };
    Todo::End(end, reason, notice)
}

fn notice(reason: &str, detail: &str) -> Service {
    let mut detail = detail.to_owned();
    detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
    Service::Notice(Notice { reason: reason.to_owned(), detail })
}

/// The answer to an action; none to anything else.
fn answer(message: &Message, status: Option<i64>, reason: &str) -> Option<Service> {
    let Service::Action(action) = &message.service else { return None };
    let (action_id, reason) = (action.action_id.clone(), reason.to_owned());
    Some(Service::ActionAnswer(ActionAnswer { action_id, status, reason }))
}

/// What follows from the outcome of a callback: the end of the message and what is said to it.
pub fn outcome(message: &Message, outcome: &Result<i64, CallbackError>) -> Todo {
    let refused = |reason: &'static str, detail: &str| {
        let end = End::Refused;
        match answer(message, None, reason) {
            Some(answer) => Todo::End(end, reason, Some(answer)),
            None => Todo::End(end, reason, Some(notice(reason, detail))),
        }
    };
    match outcome {
        Ok(status) => Todo::End(End::Delivered, "", answer(message, Some(*status), "")),
        Err(CallbackError::NotSupported(detail)) => refused(Refusal::NotSupported.name(), detail),
        Err(CallbackError::Failed(detail)) => {
            let said = answer(message, None, FAILED).unwrap_or_else(|| notice(FAILED, detail));
            Todo::End(End::Delivered, "", Some(said))
        }
        Err(CallbackError::TimedOut | CallbackError::Gone) => match answer(message, None, "") {
            Some(_) => Todo::End(End::Delivered, "", answer(message, None, OUTCOME_UNKNOWN)),
            // A request for capabilities does no harm twice: it waits for the next connection.
            None => Todo::Wait(i64::MAX),
        },
    }
}

/// What is said where the customer's policy does not allow an action.
pub fn denied(message: &Message) -> Todo {
    let reason = Refusal::Denied.name();
    Todo::End(End::Refused, reason, answer(message, None, reason))
}

/// Key of a message in the table of marks.
pub fn mark_key(id: &MessageId) -> bytes::Bytes {
    id.to_string().into_bytes().into()
}

#[cfg(test)]
#[path = "forwarding_tests.rs"]
mod tests;
