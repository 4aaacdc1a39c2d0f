//! What changes, as the stream of the API shows it: bounded, with ids to go on from.
use std::collections::VecDeque;

use extension::records::{
    Answer, Change, Changed, MessageFilter, RecordsError, StreamFilter, Topic,
};
use futures_util::stream::{self, BoxStream, StreamExt};
use protocol::{Precedence, service::Severity};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{
    back_channel::ACTIONS,
    index::{Found, reel_at},
    publish::{Item, What},
    query::{AppRecords, Desk, failed},
    query_actions::action_in,
    query_alarms::Row,
    query_directory::{Whose, is_instance},
    query_events::alone,
};

/// Place behind all changes of an item.
const ALL: usize = u32::MAX as usize;

/// One reader.
struct Reader {
    records: AppRecords,
    filter: StreamFilter,
    missed: VecDeque<Item>,
    receiver: Receiver<Item>,
    ready: VecDeque<Changed>,
    /// Changes of the first item that the reader has already.
    skip: Option<(u64, usize)>,
}

impl AppRecords {
    pub(crate) fn stream(
        &self,
        filter: StreamFilter,
        after: Option<&str>,
    ) -> BoxStream<'static, Changed> {
        let after = after.map(|id| self.place_of(id));
        // An id that is none of ours is older than all we have.
        let from = after.map(|place| place.map_or(0, |(number, _)| number));
        let listening = self.desk.feed.listen(from);
        let mut ready = VecDeque::new();
        if listening.gap {
            // Who comes back with the id of the gap goes on behind it.
            let id = self.id_of(listening.newest, ALL);
            ready.push_back(Changed { id, change: Change::Gap });
        }
        let reader = Reader {
            records: self.clone(),
            filter,
            missed: if listening.gap { VecDeque::new() } else { listening.missed.into() },
            receiver: listening.receiver,
            ready,
            skip: after.flatten(),
        };
        stream::unfold(reader, |mut reader| async move {
            let next = reader.next().await?;
            Some((next, reader))
        })
        .boxed()
    }

    /// Life of the process, number of the item, place in it.
    fn id_of(&self, number: u64, at: usize) -> String {
        format!("{:x}-{number}-{at}", self.desk.feed.life())
    }

    fn place_of(&self, id: &str) -> Option<(u64, usize)> {
        let mut parts = id.splitn(3, '-');
        let life = u64::from_str_radix(parts.next()?, 16).ok()?;
        let place = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        (life == self.desk.feed.life()).then_some(place)
    }
}

impl Reader {
    async fn next(&mut self) -> Option<Changed> {
        loop {
            if let Some(changed) = self.ready.pop_front() {
                return Some(changed);
            }
            let item = match self.missed.pop_front() {
                Some(item) => item,
                None => match self.receiver.recv().await {
                    Ok(item) => item,
                    Err(RecvError::Closed) => return None,
                    Err(RecvError::Lagged(_)) => {
                        let id = self.records.id_of(0, 0);
                        return Some(Changed { id, change: Change::Gap });
                    }
                },
            };
            let number = item.number;
            let filter = self.filter.clone();
            let read = move |desk: &Desk| desk.changes(&filter, &item.what);
            // What cannot be read now shows in the lists later.
            let changes = self.records.read(read).await.unwrap_or_default();
            let skip = self.skip.filter(|(n, _)| *n == number);
            let seen = skip.map_or(0, |(_, at)| at.saturating_add(1));
            let named = changes.into_iter().enumerate().skip(seen);
            let records = &self.records;
            self.ready.extend(
                named.map(|(at, change)| Changed { id: records.id_of(number, at), change }),
            );
        }
    }
}

impl Desk {
    /// What an item of the feed is to a reader.
    fn changes(&self, filter: &StreamFilter, what: &What) -> Answer<Vec<Change>> {
        let has = |topic| filter.topics.contains(&topic);
        let whose = self.whose(filter.customer.as_deref(), None)?;
        Ok(match what {
            What::Stored { precedence, position, .. }
                if has(Topic::Messages) || has(Topic::Events) =>
            {
                self.changes_stored(filter, &whose, *precedence, *position)?
            }
            What::Row { module, key } if **module == *extension::records::kept::ALARMS => {
                let wanted = key.first().is_some_and(|tag| match tag {
                    b'e' => has(Topic::Alarms),
                    b'w' => has(Topic::Events),
                    _ => false,
                });
                let row = if wanted { self.changed_row(key)? } else { None };
                row.and_then(|row| wanted_row(filter, &whose, row)).into_iter().collect()
            }
            What::Row { module, key } if **module == *ACTIONS && has(Topic::Actions) => {
                let Some(id) = action_in(key) else { return Ok(Vec::new()) };
                let action = self.action(id)?;
                let takes = whose.takes(&action.target_id);
                takes.then_some(Change::Action(action)).into_iter().collect()
            }
            What::Node(id) if whose.takes(id) => {
                let mut changes = Vec::new();
                if has(Topic::Nodes) {
                    match self.node(*id) {
                        Ok(node) => changes.push(Change::Node(node)),
                        Err(RecordsError::NotFound) => {}
                        Err(error) => return Err(error),
                    }
                }
                if has(Topic::Ledger) {
                    changes.extend(self.ledger_of(id)?.map(Change::Ledger));
                }
                changes
            }
            _ => Vec::new(),
        })
    }
}

impl Desk {
    /// What a stored run is to a reader: messages, and events that are their messages.
    fn changes_stored(
        &self,
        filter: &StreamFilter,
        whose: &Whose,
        precedence: Precedence,
        position: u64,
    ) -> Answer<Vec<Change>> {
        let reel = reel_at(&*self.store, &self.recent, precedence, position).map_err(failed)?;
        let Some(reel) = reel.filter(|reel| reel.stored.position == position) else {
            return Ok(Vec::new());
        };
        let wanted = MessageFilter {
            customer: filter.customer.clone(),
            instance: filter.instance.clone(),
            class: filter.class.clone(),
            ..MessageFilter::default()
        };
        let wanted = self.wanted_messages(&wanted)?;
        let mut changes = Vec::new();
        for at in 0..reel.len() {
            let found = Found { reel: reel.clone(), at };
            if filter.topics.contains(&Topic::Events)
                && let Some(event) = alone(&found)
            {
                changes.extend(wanted_row(filter, whose, Row::Event(Box::new(event))));
            }
            if filter.topics.contains(&Topic::Messages) {
                changes.extend(wanted.view(&found).map(Change::Message));
            }
        }
        Ok(changes)
    }
}

fn wanted_row(filter: &StreamFilter, whose: &Whose, row: Row) -> Option<Change> {
    let severe = |severity: Severity| filter.severity_min.is_none_or(|least| severity >= least);
    match row {
        Row::Alarm(a) => {
            let takes = severe(a.severity)
                && whose.takes(&a.instance_id)
                && is_instance(&filter.instance, &a.instance, &a.instance_id);
            takes.then_some(Change::Alarm(*a))
        }
        Row::Event(e) => {
            let takes = severe(e.severity)
                && whose.takes(&e.instance_id)
                && is_instance(&filter.instance, &e.instance, &e.instance_id);
            takes.then_some(Change::Event(*e))
        }
    }
}
