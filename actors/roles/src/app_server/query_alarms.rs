//! Lists of alarms, from the rows of the module `alarms`.
use bytes::Bytes;
use extension::records::{
    Alarm, AlarmFilter, Answer, Event, Message, Page, Paging, RecordsError, Time,
    kept::{self, ALARMS, CHUNK_MESSAGES, Chunk, Episode, Happening},
};
use protocol::{RemoteId, service::Severity};
use uuid::Uuid;

use super::{
    index,
    query::{Desk, failed, has_words, page_back, takes, words},
    query_directory::{Whose, is_instance},
    query_messages::view_of,
    rows::{SERVICES, from_row, service_key},
};

/// A filter of alarms or events, ready to be asked.
pub(crate) struct Wanted<'f> {
    pub(crate) filter: &'f AlarmFilter,
    pub(crate) whose: Whose,
    pub(crate) words: Vec<String>,
}

/// The fields that filters of alarms and events look at.
pub(crate) struct Fields<'v> {
    id: &'v RemoteId,
    instance: &'v str,
    integrator: &'v str,
    kind: &'v str,
    severity: Severity,
    text: &'v str,
    occurred_at: Time,
}

impl Wanted<'_> {
    pub(crate) fn takes(&self, of: &Fields<'_>) -> bool {
        let f = self.filter;
        let any = |of: &[String], word: &str| of.is_empty() || of.iter().any(|w| w == word);
        self.whose.takes(of.id)
            && any(&f.integrator, of.integrator)
            && any(&f.kind, of.kind)
            && is_instance(&f.instance, of.instance, of.id)
            && (f.severity.is_empty() || f.severity.contains(&of.severity))
            && f.severity_min.is_none_or(|least| of.severity >= least)
            && f.since.is_none_or(|since| of.occurred_at >= since)
            && f.until.is_none_or(|until| of.occurred_at < until)
            && has_words(&self.words, of.text)
    }
}

impl Desk {
    pub(crate) fn wanted<'f>(&self, filter: &'f AlarmFilter) -> Answer<Wanted<'f>> {
        let whose = self.whose(filter.customer.as_deref(), filter.node.as_deref())?;
        Ok(Wanted { filter, whose, words: words(filter.text.as_deref()) })
    }

    pub(crate) fn alarms(&self, filter: &AlarmFilter, paging: &Paging) -> Answer<Page<Alarm>> {
        let wanted = self.wanted(filter)?;
        // Those not closed have rows of their own: there are few of them among many.
        let only_open = !filter.state.iter().any(|s| s == "closed" || s == "all");
        let tag = if only_open { b'p' } else { b'e' };
        let prefix = service_key(ALARMS, &[tag]);
        page_back(&*self.store, SERVICES, &prefix, paging, |key, value| {
            let alarm = match only_open {
                true => {
                    let id = Uuid::from_slice(&key[prefix.len()..]).ok();
                    id.map(|id| self.episode(id)).transpose()?.flatten()
                }
                false => from_row::<Episode>(value).map(|episode| episode.alarm),
            };
            let state = |a: &Alarm| takes(&filter.state, &a.state);
            Ok(alarm.filter(|a| state(a) && wanted.takes(&fields(a))))
        })
    }

    pub(crate) fn alarm(&self, id: Uuid) -> Answer<Alarm> {
        self.episode(id)?.ok_or(RecordsError::NotFound)
    }

    fn episode(&self, id: Uuid) -> Answer<Option<Alarm>> {
        let key = service_key(ALARMS, &kept::episode_key(id));
        Ok(self.value::<Episode>(SERVICES, &key)?.map(|episode| episode.alarm))
    }

    pub(crate) fn alarm_history(&self, id: Uuid, paging: &Paging) -> Answer<Page<Message>> {
        let key = service_key(ALARMS, &kept::episode_key(id));
        let episode: Episode = self.value(SERVICES, &key)?.ok_or(RecordsError::NotFound)?;
        let from = match &paging.cursor {
            Some(cursor) => cursor
                .parse::<u64>()
                .map_err(|_| RecordsError::bad("cursor", "is not one of ours"))?
                .min(episode.history),
            None => episode.history,
        };
        let (mut items, mut at) = (Vec::new(), from);
        let mut chunk: Option<(u64, Chunk)> = None;
        while at > 0 && items.len() < paging.limit {
            at -= 1;
            let number = at / CHUNK_MESSAGES as u64;
            if chunk.is_none() && !episode.recent.is_empty() {
                chunk = Some((episode.history / CHUNK_MESSAGES as u64, episode.recent.clone()));
            }
            if chunk.as_ref().is_none_or(|(n, _)| *n != number) {
                let key = service_key(ALARMS, &kept::history_key(id, number));
                chunk = Some((number, Chunk::of(self.row(SERVICES, &key)?.as_deref())));
            }
            let place = chunk.as_ref().and_then(|(_, c)| c.get(at as usize % CHUNK_MESSAGES));
            let Some((precedence, seq)) = place else { continue };
            let found =
                index::at_seq(&*self.store, &self.recent, precedence, seq).map_err(failed)?;
            items.extend(found.and_then(|found| view_of(&found)));
        }
        Ok(Page { items, next: (at > 0).then(|| at.to_string()) })
    }

    /// The alarm or event behind a row of the module `alarms` that was put.
    pub(crate) fn changed_row(&self, key: &Bytes) -> Answer<Option<Row>> {
        let whole = service_key(ALARMS, key);
        Ok(match key.first() {
            Some(b'e') => {
                let episode: Option<Episode> = self.value(SERVICES, &whole)?;
                episode.map(|e| Row::Alarm(Box::new(e.alarm)))
            }
            Some(b'w') => {
                let happening: Option<Happening> = self.value(SERVICES, &whole)?;
                happening.map(|h| Row::Event(Box::new(h.event)))
            }
            _ => None,
        })
    }
}

/// What a row of the module `alarms` shows.
pub(crate) enum Row {
    Alarm(Box<Alarm>),
    Event(Box<Event>),
}

fn fields(alarm: &Alarm) -> Fields<'_> {
    Fields {
        id: &alarm.instance_id,
        instance: &alarm.instance,
        integrator: &alarm.integrator,
        kind: &alarm.kind,
        severity: alarm.severity,
        text: &alarm.text,
        occurred_at: alarm.occurred_at,
    }
}

pub(crate) fn event_fields(event: &Event) -> Fields<'_> {
    Fields {
        id: &event.instance_id,
        instance: &event.instance,
        integrator: &event.integrator,
        kind: &event.kind,
        severity: event.severity,
        text: &event.text,
        occurred_at: event.occurred_at,
    }
}
