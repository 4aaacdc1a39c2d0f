//! Stored messages: searched newest first, found by id, with their data.
use bytes::Bytes;
use extension::{
    records::{Answer, Message, MessageData, MessageFilter, Page, Paging, RecordsError, Time},
    service::is_within,
};
use protocol::{Header, Infrastructure, MessageId, message::Blocks, service::Service};

use super::{
    index::{Backwards, Found, StoredRun, find},
    query::{Desk, WORK_MAX, failed, has_words, words},
    query_directory::{Whose, is_instance},
    rows::{COUNTED, Counted},
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
    /// The view of a message, if it is wanted: the header says no before more is decoded.
    pub(crate) fn view(
        &self,
        stored: &StoredRun,
        seq: u64,
        bytes: &Bytes,
        blocks: &Blocks<'_>,
    ) -> Option<Message> {
        let f = self.filter;
        let header = Header::read(blocks.header).ok()?;
        let occurred_at = Time(header.occurred_at);
        let class = match f.class.is_empty() {
            true => header.class != QUIET,
            false => f.class.contains(&header.class),
        };
        if !class
            || !(f.subclass.is_empty()
                || f.subclass.iter().any(|wanted| is_within(&header.subclass, wanted)))
            || !self.whose.takes(&header.source)
            || f.since.is_some_and(|since| occurred_at < since)
            || f.until.is_some_and(|until| occurred_at >= until)
        {
            return None;
        }
        let from = Infrastructure::read(blocks.infrastructure).ok()?;
        let instance = from.instance.unwrap_or(header.source);
        if !(f.integrator.is_empty() || f.integrator.contains(&from.integrator))
            || !is_instance(&f.instance, &from.external_id, &instance)
        {
            return None;
        }
        let service = Service::read(&header.class, blocks.service).ok();
        if !self.words.is_empty() {
            let text = service.as_ref().and_then(|s| s.headline()).map(|(_, text)| text);
            if !has_words(&self.words, text?) {
                return None;
            }
        }
        Some(view(stored, seq, bytes.len(), header, from, service.as_ref()))
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
        let mut before = match &paging.cursor {
            Some(cursor) => {
                cursor.parse().map_err(|_| RecordsError::bad("cursor", "is not one of ours"))?
            }
            None => self.value::<Counted>(COUNTED, b"")?.unwrap_or_default().next,
        };
        let (mut items, mut looked) = (Vec::new(), 0);
        let start = u64::saturating_sub(before, 1);
        let mut backwards = Backwards::from(&*self.store, start).map_err(failed)?;
        while let Some(stored) = backwards.next_run().map_err(failed)? {
            let messages: Vec<_> = stored.messages().collect();
            for (seq, bytes, blocks) in messages.iter().rev().filter(|m| m.0 < before) {
                looked += 1;
                items.extend(wanted.view(&stored, *seq, bytes, blocks));
                if items.len() >= paging.limit || looked >= WORK_MAX {
                    return Ok(Page { items, next: Some(seq.to_string()) });
                }
            }
            before = before.min(stored.position);
        }
        Ok(Page { items, next: None })
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

/// The view of a found message.
pub(crate) fn view_of(found: &Found) -> Option<Message> {
    let (bytes, blocks) = found.blocks()?;
    let header = Header::read(blocks.header).ok()?;
    let from = Infrastructure::read(blocks.infrastructure).ok()?;
    let service = Service::read(&header.class, blocks.service).ok();
    Some(view(&found.stored, found.seq(), bytes.len(), header, from, service.as_ref()))
}

fn view(
    stored: &StoredRun,
    seq: u64,
    bytes: usize,
    header: Header,
    from: Infrastructure,
    service: Option<&Service>,
) -> Message {
    let some = |text: String| Some(text).filter(|t| !t.is_empty());
    let encoding = service.and_then(Service::payload).map(|p| p.encoding.clone());
    Message {
        seq,
        message_id: header.id,
        channel: header.channel,
        class: header.class,
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
        encoding: encoding.and_then(some),
        replayed: stored.run.header.replayed,
    }
}
