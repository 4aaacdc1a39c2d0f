//! What a message is about, as the lists name it: instance or node, and keys made of it.
use extension::{
    records::Time,
    service::{Effect, Received, Rows, ServiceError},
};
use protocol::RemoteId;
use uuid::Uuid;

/// The fields of a view that say what it is about.
pub(crate) struct Subject {
    /// Of a node's own message the node.
    pub(crate) id: RemoteId,
    pub(crate) customer: Uuid,
    pub(crate) instance: String,
    pub(crate) integrator: String,
    pub(crate) occurred_at: Time,
    pub(crate) accepted_at: Time,
    pub(crate) stored_at: Time,
    /// What is newer of one origin (`delivery.md` §1).
    pub(crate) order: (u64, u64),
}

impl Subject {
    pub(crate) fn of(received: &Received<'_>) -> Self {
        let (h, i) = (&received.message.header, &received.message.infrastructure);
        let id = i.instance.unwrap_or(h.source);
        let instance = match i.external_id.is_empty() {
            true => id.to_string(),
            false => i.external_id.to_owned(),
        };
        Self {
            id,
            customer: id.customer_id(),
            instance,
            integrator: i.integrator.to_owned(),
            occurred_at: Time(h.occurred_at),
            accepted_at: Time(h.accepted_at),
            stored_at: Time(received.stored_at),
            order: (h.id.epoch, h.order),
        }
    }

    /// A key under `tag` of what it is about.
    pub(crate) fn key(&self, tag: u8, words: &[&str]) -> Vec<u8> {
        key(tag, &self.id, words)
    }
}

/// A key under `tag`: the id with its length, then words, each with its length, so that
/// ("ab", "c") and ("a", "bc") are two.
pub(crate) fn key(tag: u8, id: &RemoteId, words: &[&str]) -> Vec<u8> {
    let id = id.as_bytes();
    let mut key =
        Vec::with_capacity(2 + id.len() + words.iter().map(|w| w.len() + 2).sum::<usize>());
    key.extend([tag, id.len() as u8]);
    key.extend_from_slice(id);
    for word in words {
        key.extend_from_slice(&(word.len() as u16).to_be_bytes());
        key.extend_from_slice(word.as_bytes());
    }
    key
}

/// Rows as they will be with the effects a call has gathered so far.
pub(crate) struct Draft<'r> {
    below: &'r dyn Rows,
    pub(crate) effects: Vec<Effect>,
}

impl<'r> Draft<'r> {
    pub(crate) fn on(below: &'r dyn Rows) -> Self {
        Self { below, effects: Vec::new() }
    }

    pub(crate) fn row(&self, wanted: &[u8]) -> Result<Option<bytes::Bytes>, ServiceError> {
        for effect in self.effects.iter().rev() {
            match effect {
                Effect::Put { key, value } if key == wanted => return Ok(Some(value.clone())),
                Effect::Remove { key } if key == wanted => return Ok(None),
                _ => {}
            }
        }
        self.below.row(wanted)
    }

    pub(crate) fn put(&mut self, key: impl Into<bytes::Bytes>, value: impl Into<bytes::Bytes>) {
        self.effects.push(Effect::Put { key: key.into(), value: value.into() });
    }

    pub(crate) fn remove(&mut self, key: impl Into<bytes::Bytes>) {
        self.effects.push(Effect::Remove { key: key.into() });
    }

    /// Adds to a count; a row that reaches 0 goes.
    pub(crate) fn count(&mut self, id: &RemoteId, by: i64) -> Result<(), ServiceError> {
        let key = extension::records::kept::count_key(id);
        let now = extension::records::kept::count_of(self.row(&key)?.as_deref());
        match now.saturating_add_signed(by) {
            0 => self.remove(key),
            count => self.put(key, count.to_be_bytes().to_vec()),
        }
        Ok(())
    }
}
