//! Stored messages: searched newest first, found by id, with their data.
use extension::{
    records::{Answer, Message, MessageData, MessageFilter, Page, Paging, RecordsError, Time},
    service::is_within,
};
use protocol::{
    MessageId, RemoteId,
    parts::{HeaderParts, Parts},
};

use super::{
    index::{Found, find},
    query::{Desk, failed, has_words, words},
    query_directory::{Whose, is_instance},
    search::Search,
    segment::{About, Kind, Sought, second},
};

/// Classes that are left out unless asked for.
const QUIET: &str = "status";

/// A filter, ready to be asked.
pub(crate) struct Wanted<'f> {
    filter: &'f MessageFilter,
    whose: Whose,
    words: Vec<String>,
}

impl Wanted<'_> {
    fn takes_class(&self, class: &str) -> bool {
        match self.filter.class.is_empty() {
            true => class != QUIET,
            false => self.filter.class.iter().any(|wanted| wanted == class),
        }
    }

    fn takes_subclass(&self, subclass: &str) -> bool {
        let wanted = &self.filter.subclass;
        wanted.is_empty() || wanted.iter().any(|wanted| is_within(subclass, wanted))
    }

    fn takes_about(
        &self,
        source: &RemoteId,
        instance: Option<&RemoteId>,
        integrator: &str,
        external_id: &str,
    ) -> bool {
        let f = self.filter;
        self.whose.takes(source)
            && (f.integrator.is_empty() || f.integrator.iter().any(|i| i == integrator))
            && is_instance(&f.instance, external_id, instance.unwrap_or(source))
    }

    /// The view of a message, if it is wanted.
    pub(crate) fn view(&self, found: &Found) -> Option<Message> {
        let (bytes, blocks) = found.blocks()?;
        let header = HeaderParts::read(blocks.header).ok()?;
        let occurred_at = Time(header.occurred_at);
        if !self.takes_class(header.class)
            || !self.takes_subclass(header.subclass)
            || self.filter.since.is_some_and(|since| occurred_at < since)
            || self.filter.until.is_some_and(|until| occurred_at >= until)
        {
            return None;
        }
        let parts = blocks.parts().ok()?;
        let from = &parts.infrastructure;
        let about = self.takes_about(
            &header.source,
            from.instance.as_ref(),
            from.integrator,
            from.external_id,
        );
        let text = parts.service.headline().map(|(_, text)| text);
        let worded = self.words.is_empty() || text.is_some_and(|t| has_words(&self.words, t));
        (about && worded).then(|| view(found, bytes, &parts))
    }
}

impl Desk {
    pub(crate) fn wanted_messages<'f>(&self, filter: &'f MessageFilter) -> Answer<Wanted<'f>> {
        let whose = self.whose(filter.customer.as_deref(), filter.node.as_deref())?;
        Ok(Wanted { filter, whose, words: words(filter.text.as_deref()) })
    }

    pub(crate) fn messages(
        &self,
        filter: &MessageFilter,
        paging: &Paging,
    ) -> Answer<Page<Message>> {
        let wanted = self.wanted_messages(filter)?;
        let kind = |k: &Kind| wanted.takes_class(&k.class) && wanted.takes_subclass(&k.subclass);
        let about = |a: &About| {
            wanted.takes_about(&a.source, a.instance.as_ref(), &a.integrator, &a.external_id)
        };
        let sought = Sought {
            kind: &kind,
            about: &about,
            words: &wanted.words,
            since: filter.since.map_or(0, |time| second(time.0)),
            until: filter.until.map_or(u32::MAX, |time| second(time.0)),
        };
        let below = number_cursor(paging)?;
        let mut search = Search::new(self, sought, below, paging.limit + 1)?;
        let mut page = Page { items: Vec::new(), next: None };
        loop {
            match search.next_back()? {
                Ok(None) => return Ok(page),
                Err(below) => {
                    page.next = Some(below.to_string());
                    return Ok(page);
                }
                Ok(Some(found)) => {
                    let Some(message) = wanted.view(&found) else { continue };
                    if page.items.len() == paging.limit {
                        page.next = page.items.last().map(|last: &Message| last.seq.to_string());
                        return Ok(page);
                    }
                    page.items.push(message);
                }
            }
        }
    }

    /// The stored message of an id; of several (cloned machines) the newest.
    pub(crate) fn found(&self, id: &MessageId) -> Answer<Found> {
        let found = find(&*self.store, id).map_err(failed)?;
        found.into_iter().max_by_key(Found::seq).ok_or(RecordsError::NotFound)
    }

    pub(crate) fn message(&self, id: MessageId) -> Answer<Message> {
        view_of(&self.found(&id)?).ok_or(RecordsError::NotFound)
    }

    pub(crate) fn message_whole(&self, id: MessageId) -> Answer<protocol::Message> {
        let found = self.found(&id)?;
        let message = found.blocks().and_then(|(_, blocks)| blocks.decode().ok());
        message.ok_or(RecordsError::NotFound)
    }

    pub(crate) fn message_data(&self, id: MessageId) -> Answer<MessageData> {
        let message = self.message_whole(id)?;
        let payload = message.service.payload().cloned().unwrap_or_default();
        Ok(MessageData { encoding: payload.encoding, data: payload.data })
    }
}

/// Where a page of a list by numbers goes on.
pub(crate) fn number_cursor(paging: &Paging) -> Answer<Option<u64>> {
    let cursor = paging.cursor.as_ref().map(|cursor| cursor.parse());
    cursor.transpose().map_err(|_| RecordsError::bad("cursor", "is not one of ours"))
}

/// The view of a found message.
pub(crate) fn view_of(found: &Found) -> Option<Message> {
    let (bytes, blocks) = found.blocks()?;
    Some(view(found, bytes, &blocks.parts().ok()?))
}

fn view(found: &Found, bytes: usize, parts: &Parts<'_>) -> Message {
    let some = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
    let (header, from) = (&parts.header, &parts.infrastructure);
    let stored = &found.reel.stored;
    Message {
        seq: found.seq(),
        message_id: header.id,
        channel: header.channel,
        class: header.class.to_owned(),
        subclass: some(header.subclass),
        customer_id: header.id.origin.customer_id(),
        instance: some(from.external_id).filter(|_| from.instance.is_some()),
        instance_id: from.instance,
        integrator: some(from.integrator),
        precedence: header.id.precedence,
        persistence: header.persistence,
        time_to_live_s: header.time_to_live_s,
        answers: header.answers,
        occurred_at: Time(header.occurred_at),
        accepted_at: Time(header.accepted_at),
        stored_at: Time(stored.stored_at()),
        bytes: bytes as u64,
        encoding: parts.service.encoding().and_then(some),
        replayed: stored.run.header.replayed,
    }
}
