//! Management actions: orders to integrators and instances, and what came of them.
use bytes::Bytes;
use extension::{
    records::{Action, ActionState, Time, kept::tagged},
    service::{
        Carrier, Effect, Manifest, Part, Received, Rows, ServiceError, ServiceModule, Subscription,
    },
    storage::Change,
};
use protocol::{
    MessageId, Refusal,
    message::Classification,
    parts::ServiceParts,
    service::{ActionAnswer, Service},
};
use uuid::Uuid;

use super::rows::{SERVICES, from_row, service_key, to_row};

/// Its name among the service modules.
pub const ACTIONS: &str = "actions";
/// Key of an action: `a` and its id. The value is an [`Action`] whose `message_id` is not known.
pub const ACTION: u8 = b'a';
/// Key of the message that carries an action: `m` and the action's id.
pub const CARRIED_BY: u8 = b'm';
/// Key that leads from a message to its action: `i` and the message's id in words.
pub const CARRIES: u8 = b'i';
/// Key of an action that was handed down: `s` and its id.
pub const SENT: u8 = b's';
/// Key of an action's end: `x`, when, its id.
const ENDS: u8 = b'x';
/// Actions that expire in one tick; the rest waits for the next.
const EXPIRED_PER_TICK_MAX: usize = 1_000;

/// The module.
#[derive(Debug, Default)]
pub struct Actions;

impl ServiceModule for Actions {
    fn manifest(&self) -> Manifest {
        let class = |class: &str| Subscription { class: class.to_owned(), subclass: None };
        Manifest {
            name: ACTIONS.to_owned(),
            classification: Classification::InfrastructureAdministration,
            parts: vec![Part::AnalysisAndStorage, Part::Presentation],
            carriers: vec![Carrier::Http],
            needs_session: true,
            subscriptions: vec![class("action-answer"), class("notice")],
        }
    }

    fn handle(
        &mut self,
        received: &Received<'_>,
        rows: &dyn Rows,
    ) -> Result<Vec<Effect>, ServiceError> {
        let header = &received.message.header;
        let ServiceParts::Other(service) = &received.message.service else {
            return Ok(Vec::new());
        };
        let (id, answer) = match &**service {
            Service::ActionAnswer(answer) => (answer.action_id.parse().ok(), answer.clone()),
            Service::Notice(notice) => {
                let Some(about) = header.answers else { return Ok(Vec::new()) };
                let row = rows.row(&carries_key(&about))?;
                let reason = notice.reason.clone();
                let id = row.and_then(|r| Uuid::from_slice(&r).ok());
                (id, ActionAnswer { action_id: String::new(), status: None, reason })
            }
            _ => return Ok(Vec::new()),
        };
        let Some(id) = id else { return Ok(Vec::new()) };
        let key = tagged(ACTION, id.as_bytes());
        let Some(row) = rows.row(&key)? else { return Ok(Vec::new()) };
        let Some(mut action) = from_row::<Action>(&row) else {
            return Err(ServiceError(format!("row of action {id} cannot be read")));
        };
        // An answer comes from its target, or from above or below it; not from a stranger.
        let origin = header.id.origin;
        if !action.target_id.is_under(&origin) && action.target_id.cut(0) != origin.cut(0) {
            return Ok(Vec::new());
        }
        answered(&mut action, &answer, header.id, received.stored_at);
        Ok(vec![Effect::Put { key, value: to_row(&action) }])
    }

    fn tick(&mut self, now: i64, rows: &dyn Rows) -> Result<Vec<Effect>, ServiceError> {
        let mut effects = Vec::new();
        for (end, _) in rows.rows(&[ENDS], EXPIRED_PER_TICK_MAX)? {
            let due = end.get(1..9).and_then(|k| k.try_into().ok()).map_or(0, i64::from_be_bytes);
            if due > now {
                break;
            }
            let key = tagged(ACTION, end.get(9..).unwrap_or_default());
            effects.push(Effect::Remove { key: end });
            let Some(mut action) = rows.row(&key)?.and_then(|r| from_row::<Action>(&r)) else {
                continue;
            };
            if is_open(action.state) {
                action.state = ActionState::Expired;
                action.reason = Some(Refusal::Expired.name().to_owned());
                effects.push(Effect::Put { key, value: to_row(&action) });
            }
        }
        Ok(effects)
    }
}

/// Whether an action may still be answered.
pub fn is_open(state: ActionState) -> bool {
    matches!(state, ActionState::Queued | ActionState::Asked | ActionState::Sent)
}

/// What an answer makes of an action; the first one counts.
fn answered(action: &mut Action, answer: &ActionAnswer, id: MessageId, at: i64) {
    if !action.answers.contains(&id) {
        action.answers.push(id);
    }
    // An answer that was late is told all the same; a notice after an answer is not.
    let late = action.state == ActionState::Expired && answer.status.is_some();
    if !is_open(action.state) && !late {
        return;
    }
    action.status = answer.status;
    action.reason = (!answer.reason.is_empty()).then(|| answer.reason.clone());
    action.answered_at = Some(Time(at));
    let refused = Refusal::ALL.iter().any(|r| r.name() == answer.reason);
    action.state = match (answer.status, refused) {
        (None, true) if answer.reason == Refusal::Expired.name() => ActionState::Expired,
        (None, true) => ActionState::Refused,
        _ => ActionState::Answered,
    };
}

/// Rows of a new action.
pub fn new_rows(action: &Action) -> Vec<Change> {
    let id = action.action_id;
    let end = [action.expires_at.0.to_be_bytes().as_slice(), id.as_bytes()].concat();
    vec![
        put(&tagged(ACTION, id.as_bytes()), to_row(action)),
        put(&tagged(ENDS, &end), Bytes::new()),
    ]
}

/// Rows that tie an action and its message together.
pub fn carried_rows(action: Uuid, message: &MessageId) -> Vec<Change> {
    vec![
        put(&tagged(CARRIED_BY, action.as_bytes()), message.to_string().into()),
        put(&carries_key(message), Bytes::copy_from_slice(action.as_bytes())),
    ]
}

/// The row that says an action was handed down.
pub fn sent_row(action: Uuid) -> Change {
    put(&tagged(SENT, action.as_bytes()), Bytes::new())
}

/// Key that leads from a message to its action.
pub fn carries_key(message: &MessageId) -> Bytes {
    tagged(CARRIES, message.to_string().as_bytes())
}

fn put(key: &[u8], value: Bytes) -> Change {
    Change::PutRow { table: SERVICES, key: service_key(ACTIONS, key), value }
}

/// The action document (`action.dtd`) of a name and its parameters.
pub fn document<'p>(
    action: &Action,
    parameters: impl IntoIterator<Item = (&'p String, &'p String)>,
) -> String {
    let mut xml = format!(
        "<action id=\"{}\" target=\"{}\" name=\"{}\" expires=\"{}\">",
        action.action_id,
        action.target_id,
        escaped(&action.name),
        action.expires_at
    );
    for (name, value) in parameters {
        let (name, value) = (escaped(name), escaped(value));
        xml.push_str(&format!("<parameter name=\"{name}\">{value}</parameter>"));
    }
    xml.push_str("</action>");
    xml
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 has no way to say the other control characters.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
