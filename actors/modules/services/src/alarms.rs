//! The module `alarms`: current state of (instance, type, key), its history, and events.
use std::collections::HashMap;

use bytes::Bytes;
use extension::{
    records::{
        AlarmState, Time,
        kept::{self, ALARMS, CHUNK_MESSAGES, Chunk, Episode},
    },
    service::{
        ByHand, ByHandError, Carrier, Effect, Handwork, Manifest, Part, Received, Rows,
        ServiceError, ServiceModule, Subscription,
    },
};
use protocol::{
    message::Classification,
    parts::{AlarmParts, ServiceParts},
};
use uuid::Uuid;

use crate::{
    episode::{self, Standing, Verdict},
    events,
    subject::{self, Draft, Subject},
};

/// Key of a [`Standing`]: `k`, id, type, key.
const STANDING: u8 = b'k';
/// Key of a deadline: `d`, when, alarm id.
const DEADLINE: u8 = b'd';
/// Alarms closed in one tick; the rest waits for the next.
const CLOSED_PER_TICK_MAX: usize = 1_000;

/// Alarms held decoded; above it they are read anew.
const KNOWN_MAX: usize = 20_000;

/// Keeps alarms and events.
#[derive(Debug, Default)]
pub struct Alarms {
    /// As the rows are with all effects so far. A host makes the module anew when effects it
    /// returned are not committed.
    known: HashMap<Bytes, Known>,
}

impl ServiceModule for Alarms {
    fn manifest(&self) -> Manifest {
        let class = |class: &str| Subscription { class: class.to_owned(), subclass: None };
        Manifest {
            name: ALARMS.to_owned(),
            classification: Classification::Monitoring,
            parts: vec![Part::AnalysisAndStorage, Part::Presentation],
            carriers: vec![Carrier::Http, Carrier::Mail, Carrier::Fax],
            needs_session: false,
            subscriptions: vec![class("alarm"), class("event")],
        }
    }

    fn handle(
        &mut self,
        received: &Received<'_>,
        rows: &dyn Rows,
    ) -> Result<Vec<Effect>, ServiceError> {
        let mut draft = Draft::on(rows);
        match &received.message.service {
            ServiceParts::Alarm(said) => {
                let about = Subject::of(received);
                let key: Bytes = about.key(STANDING, &[said.kind, said.key]).into();
                // Taken out: a failure on the way forgets it.
                let mut known = match self.known.remove(&key) {
                    Some(known) => known,
                    None => Known::read(&draft, &key)?,
                };
                alarm(&key, about, said, received, &mut known, &mut draft)?;
                if self.known.len() >= KNOWN_MAX {
                    self.known.clear();
                }
                self.known.insert(key, known);
            }
            ServiceParts::Event(said) => events::event(received, said, &mut draft)?,
            _ => {}
        }
        Ok(draft.effects)
    }

    fn tick(&mut self, now: i64, rows: &dyn Rows) -> Result<Vec<Effect>, ServiceError> {
        let mut draft = Draft::on(rows);
        for (key, _) in rows.rows(&[DEADLINE], CLOSED_PER_TICK_MAX)? {
            let due = key.get(1..9).and_then(|k| k.try_into().ok()).map_or(0, i64::from_be_bytes);
            if due > now {
                break;
            }
            draft.remove(key.clone());
            let Some(id) = key.get(9..).and_then(|k| Uuid::from_slice(k).ok()) else { continue };
            let Some(mut episode) = read(&draft, id)? else { continue };
            if episode.closes_at == Some(due) {
                self.forget(&episode);
                episode::closed(&mut episode, Time(now));
                close(&mut draft, &episode)?;
                draft.put(kept::episode_key(id), kept::to_row(&episode));
            }
        }
        Ok(draft.effects)
    }

    fn by_hand(&mut self, wish: &ByHand, rows: &dyn Rows) -> Result<Vec<Effect>, ByHandError> {
        let mut draft = Draft::on(rows);
        let mut episode = read(&draft, wish.subject)?.ok_or(ByHandError::NotFound)?;
        let before = episode.closes_at;
        self.forget(&episode);
        by_hand(&mut episode, wish)?;
        if episode.alarm.state == AlarmState::Closed
            && episode.alarm.closed_at == Some(Time(wish.now))
        {
            deadline(&mut draft, before, None, wish.subject);
            close(&mut draft, &episode)?;
        }
        draft.put(kept::episode_key(wish.subject), kept::to_row(&episode));
        Ok(draft.effects)
    }
}

impl Alarms {
    /// What is changed otherwise than by a message is read anew with the next one.
    fn forget(&mut self, episode: &Episode) {
        let alarm = &episode.alarm;
        let key = subject::key(STANDING, &alarm.instance_id, &[&alarm.kind, &alarm.key]);
        self.known.remove(&key[..]);
    }
}

fn by_hand(episode: &mut Episode, wish: &ByHand) -> Result<(), ByHandError> {
    let closed = episode.alarm.state == AlarmState::Closed;
    let conflict = |what: &str| Err(ByHandError::Conflict(what.to_owned()));
    match &wish.what {
        Handwork::Acknowledge { comment } => {
            if closed {
                return conflict("the alarm is closed: only an open one can be acknowledged");
            }
            episode.alarm.state = AlarmState::Acknowledged;
            episode.alarm.acknowledged_by = Some(wish.by.clone());
            episode.acknowledged_severity = Some(episode.alarm.severity);
            say(episode, comment);
        }
        Handwork::Unacknowledge => {
            if closed {
                return conflict("the alarm is closed: its acknowledgement stands");
            }
            episode::unacknowledged(episode);
        }
        Handwork::Silence { until, comment } => {
            if *until <= wish.now {
                return conflict("the end of the silence has passed: name a later one");
            }
            episode.alarm.silenced_until = Some(Time(*until));
            say(episode, comment);
        }
        Handwork::Unsilence => episode.alarm.silenced_until = None,
        Handwork::Close { comment } => {
            if !closed {
                episode::closed(episode, Time(wish.now));
            }
            say(episode, comment);
        }
    }
    Ok(())
}

fn say(episode: &mut Episode, comment: &Option<String>) {
    if comment.is_some() {
        episode.alarm.comment.clone_from(comment);
    }
}

/// What is known of (instance, type, key).
#[derive(Clone, Debug, Default)]
struct Known {
    standing: Standing,
    episode: Option<Episode>,
}

impl Known {
    fn read(draft: &Draft<'_>, key: &[u8]) -> Result<Self, ServiceError> {
        let standing: Option<Standing> = draft.row(key)?.and_then(|r| kept::from_row(&r));
        let mut known = Self { standing: standing.unwrap_or_default(), episode: None };
        let Some(id) = known.standing.episode else { return Ok(known) };
        known.episode = read(draft, id)?;
        if let Some(episode) = &mut known.episode {
            known.standing.follow(episode);
            if episode.recent.is_empty() && !episode.history.is_multiple_of(CHUNK_MESSAGES as u64) {
                let chunk = kept::history_key(id, episode.history / CHUNK_MESSAGES as u64);
                episode.recent = Chunk::of(draft.row(&chunk)?.as_deref());
            }
        }
        Ok(known)
    }

    /// Adds the message to the episode's history.
    fn remember(&mut self, draft: &mut Draft<'_>, received: &Received<'_>) {
        let Some(episode) = &mut self.episode else { return };
        let alarm = episode.alarm.alarm_id;
        episode.recent.push(received.message.header.id.precedence, received.seq);
        episode.history += 1;
        if episode.history.is_multiple_of(CHUNK_MESSAGES as u64) {
            let number = episode.history / CHUNK_MESSAGES as u64 - 1;
            let full = std::mem::take(&mut episode.recent);
            draft.put(kept::history_key(alarm, number), full.into_row());
        }
        draft.put(kept::episode_key(alarm), kept::to_row(episode));
    }
}

/// One alarm message.
fn alarm(
    key: &Bytes,
    about: Subject,
    said: &AlarmParts<'_>,
    received: &Received<'_>,
    known: &mut Known,
    draft: &mut Draft<'_>,
) -> Result<(), ServiceError> {
    let open = known.episode.as_ref().is_some_and(|e| e.alarm.state != AlarmState::Closed);
    let id = received.message.header.id;
    let verdict = episode::judge(&known.standing, open, &about, said.state);
    let (order, occurred_at) = (about.order, about.occurred_at.0);
    let before = known.episode.as_ref().and_then(|e| e.closes_at);
    // A closing message that closes nothing is remembered: what it overtook is late.
    let newer = order > known.standing.newest && occurred_at >= known.standing.occurred_at;
    let mut says = newer;
    match (verdict, &mut known.episode) {
        (Verdict::Opens, _) | (Verdict::Changes, None) => {
            let alarm = episode::alarm_id(received.stored_at, received.seq);
            draft.put(kept::open_key(alarm), Bytes::new());
            draft.count(&about.id, 1)?;
            draft.count(&protocol::RemoteId::customer(about.customer), 1)?;
            known.standing.episode = Some(alarm);
            known.episode = Some(episode::opened(alarm, id, about, said, received.replayed));
        }
        (Verdict::Changes, Some(episode)) => {
            episode::changed(episode, id, &about, said, received.replayed);
            // The episode says it.
            says = false;
        }
        (Verdict::History, _) => {}
    }
    if newer {
        (known.standing.newest, known.standing.occurred_at) = (order, occurred_at);
    }
    if says {
        draft.put(key.clone(), kept::to_row(&known.standing));
    }
    if let Some(episode) = &known.episode {
        let before = before.filter(|_| open);
        deadline(draft, before, episode.closes_at, episode.alarm.alarm_id);
        if open && episode.alarm.state == AlarmState::Closed {
            close(draft, episode)?;
        }
    }
    known.remember(draft, received);
    Ok(())
}

/// What goes with the end of an episode: it is no open one any more.
fn close(draft: &mut Draft<'_>, episode: &Episode) -> Result<(), ServiceError> {
    let alarm = &episode.alarm;
    draft.remove(kept::open_key(alarm.alarm_id));
    draft.count(&alarm.instance_id, -1)?;
    draft.count(&protocol::RemoteId::customer(alarm.customer_id), -1)
}

/// Moves the deadline of an episode.
fn deadline(draft: &mut Draft<'_>, before: Option<i64>, after: Option<i64>, alarm: Uuid) {
    if before == after {
        return;
    }
    let key = |at: i64| {
        let key = [at.to_be_bytes().as_slice(), alarm.as_bytes()].concat();
        kept::tagged(DEADLINE, &key)
    };
    if let Some(before) = before {
        draft.remove(key(before));
    }
    if let Some(after) = after {
        draft.put(key(after), Bytes::new());
    }
}

fn read(draft: &Draft<'_>, id: Uuid) -> Result<Option<Episode>, ServiceError> {
    let Some(row) = draft.row(&kept::episode_key(id))? else { return Ok(None) };
    match kept::from_row(&row) {
        Some(episode) => Ok(Some(episode)),
        None => Err(ServiceError(format!("row of alarm {id} cannot be read"))),
    }
}
