//! What a message makes of an alarm (contract §1, `delivery.md` §1). Pure.
use extension::records::{
    Alarm, AlarmState, Time,
    kept::{Chunk, Episode},
};
use protocol::{MessageId, parts::AlarmParts, service::State};
use uuid::Uuid;

use crate::subject::Subject;

/// What is known of (instance, type, key) beside its current episode.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Standing {
    /// Newest `(epoch, order)` that changed it.
    pub(crate) newest: (u64, u64),
    /// `occurred_at` of that message.
    pub(crate) occurred_at: i64,
    /// The last episode; none: only a closing message came so far.
    pub(crate) episode: Option<Uuid>,
}

impl Standing {
    /// What changed the episode last may stand in its row only.
    pub(crate) fn follow(&mut self, episode: &Episode) {
        if episode.newest > self.newest {
            (self.newest, self.occurred_at) = (episode.newest, episode.alarm.occurred_at.0);
        }
    }
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Only history: late, or closes nothing.
    History,
    /// Begins an episode.
    Opens,
    /// Changes the one there is.
    Changes,
}

/// Decides what a message does. `open`: whether there is an episode that is not closed.
pub(crate) fn judge(standing: &Standing, open: bool, about: &Subject, state: State) -> Verdict {
    let late = about.order <= standing.newest || about.occurred_at.0 < standing.occurred_at;
    match (late, open, state) {
        (true, _, _) | (false, false, State::Closed) => Verdict::History,
        (false, false, _) => Verdict::Opens,
        (false, true, _) => Verdict::Changes,
    }
}

/// An id that the same message always gives: `seq` is never given twice by a server.
pub(crate) fn alarm_id(stored_at: i64, seq: u64) -> Uuid {
    let mut counter = [0_u8; 10];
    counter[2..].copy_from_slice(&seq.to_be_bytes());
    let millis = u64::try_from(stored_at).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &counter).into_uuid()
}

/// The first message of an episode.
pub(crate) fn opened(
    id: Uuid,
    message_id: MessageId,
    about: Subject,
    said: &AlarmParts<'_>,
    replayed: bool,
) -> Episode {
    let acknowledged = said.state == State::Acknowledged;
    let acknowledged_by = acknowledged.then(|| about.integrator.clone());
    Episode {
        acknowledged_severity: acknowledged.then_some(said.severity),
        closes_at: closes_at(&about, said),
        history: 0,
        newest: about.order,
        recent: Chunk::default(),
        alarm: Alarm {
            alarm_id: id,
            message_id,
            customer_id: about.customer,
            instance: about.instance,
            instance_id: about.id,
            integrator: about.integrator,
            kind: said.kind.to_owned(),
            key: said.key.to_owned(),
            severity: said.severity,
            text: said.text.to_owned(),
            state: if acknowledged { AlarmState::Acknowledged } else { AlarmState::Opened },
            occurred_at: about.occurred_at,
            accepted_at: about.accepted_at,
            stored_at: about.stored_at,
            opened_at: about.occurred_at,
            closed_at: None,
            count: 1,
            replayed,
            acknowledged_by,
            comment: None,
            silenced_until: None,
        },
    }
}

/// A further message of an episode.
pub(crate) fn changed(
    episode: &mut Episode,
    message_id: MessageId,
    about: &Subject,
    said: &AlarmParts<'_>,
    replayed: bool,
) {
    episode.newest = about.order;
    episode.closes_at = closes_at(about, said);
    let worse = episode.acknowledged_severity.is_some_and(|seen| said.severity > seen);
    let alarm = &mut episode.alarm;
    alarm.message_id = message_id;
    alarm.severity = said.severity;
    said.text.clone_into(&mut alarm.text);
    alarm.occurred_at = about.occurred_at;
    alarm.accepted_at = about.accepted_at;
    alarm.stored_at = about.stored_at;
    alarm.replayed = replayed;
    alarm.count += 1;
    match said.state {
        State::Closed => closed(episode, about.occurred_at),
        State::Acknowledged if alarm.state == AlarmState::Opened => {
            alarm.state = AlarmState::Acknowledged;
            alarm.acknowledged_by = Some(about.integrator.clone());
            episode.acknowledged_severity = Some(said.severity);
        }
        // Worse than what somebody has seen: nobody has seen that yet.
        _ if worse => unacknowledged(episode),
        _ => {}
    }
}

/// Ends an episode.
pub(crate) fn closed(episode: &mut Episode, at: Time) {
    episode.alarm.state = AlarmState::Closed;
    episode.alarm.closed_at = Some(at);
    episode.closes_at = None;
}

/// Takes an acknowledgement back.
pub(crate) fn unacknowledged(episode: &mut Episode) {
    episode.alarm.state = AlarmState::Opened;
    episode.alarm.acknowledged_by = None;
    episode.acknowledged_severity = None;
}

/// By this server's clock: the platform's may be wrong by years.
fn closes_at(about: &Subject, said: &AlarmParts<'_>) -> Option<i64> {
    let after = said.close_after_s.filter(|_| said.state != State::Closed)?;
    Some(about.stored_at.0.saturating_add(i64::from(after) * 1000))
}
