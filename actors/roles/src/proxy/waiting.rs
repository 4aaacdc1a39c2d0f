//! Registers the instances of an integrator that are not registered yet (PRX-21).
use extension::storage::{Change, QueueStore};
use protocol::{Refusal, registration::InstanceRegistration};

use super::{
    batch::{CAPABILITIES, digest},
    identifiers::{Identifiers, Instance, key_of},
    normalize::Integrator,
};
use crate::delivery::{
    author::Author,
    orders::Keep,
    queue_routes::{QueueError, QueueRoutes},
};

/// Instances looked at in one step.
const PAGE: usize = 512;
/// Capabilities in one message, bytes: with its names a registration stays below its bound.
const CAPABILITIES_BYTES_MAX: usize = 256 << 10;

/// What it takes to register instances.
pub struct Waiting<'a> {
    /// For rows that are read.
    pub store: &'a dyn QueueStore,
    /// Knows the numbers.
    pub identifiers: &'a Identifiers,
    /// Writes messages.
    pub author: &'a Author,
    /// The way to the queue.
    pub queue: &'a QueueRoutes,
    /// Whose instances.
    pub integrator: &'a Integrator,
    /// Its number.
    pub number: u32,
}

type Page = Vec<(String, Instance, Option<String>)>;

impl Waiting<'_> {
    /// Registers all that are not registered under the node's id, page by page.
    pub async fn register(&self) -> Result<(), QueueError> {
        let mut after = String::new();
        loop {
            let page = self.identifiers.page(self.number, &after, PAGE);
            let page = page.map_err(|_| Refusal::StorageDown)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after.clone_from(last);
            let node = self.author.identity().id;
            let mut waiting = Page::new();
            let mut bytes = 0;
            for (name, instance) in page {
                if instance.under == Some(node) {
                    continue;
                }
                let capabilities = self.capabilities(&name)?;
                bytes += capabilities.as_ref().map_or(0, String::len);
                waiting.push((name, instance, capabilities));
                if bytes > CAPABILITIES_BYTES_MAX {
                    self.send(std::mem::take(&mut waiting)).await?;
                    bytes = 0;
                }
            }
            if !waiting.is_empty() {
                self.send(waiting).await?;
            }
        }
    }

    fn capabilities(&self, name: &str) -> Result<Option<String>, QueueError> {
        let row = self.store.row(CAPABILITIES, &key_of(self.number, name));
        let row = row.map_err(|_| Refusal::StorageDown)?;
        Ok(row.and_then(|row| String::from_utf8(row.to_vec()).ok()))
    }

    async fn send(&self, page: Page) -> Result<(), QueueError> {
        let node = self.author.identity().id;
        let mut registrations = Vec::with_capacity(page.len());
        let mut each = Vec::new();
        let mut registered = Vec::new();
        for (name, instance, capabilities) in page {
            let id = self.integrator.id.child(instance.number).unwrap_or(self.integrator.id);
            if capabilities.is_some() {
                let key = key_of(self.number, &name);
                each.push((0, Change::RemoveRow { table: CAPABILITIES, key }));
            }
            let digest = capabilities.as_deref().map(digest);
            let capabilities_digest = digest.unwrap_or(instance.capabilities);
            let instance =
                Instance { under: Some(node), capabilities: capabilities_digest, ..instance };
            each.push((0, instance.row(self.number, &name)));
            let external_id = name.clone();
            registrations.push(InstanceRegistration { id, external_id, capabilities });
            registered.push((name, instance));
        }
        let (draft, service) = self.integrator.registration(registrations);
        let message = self.author.write(&draft, &service);
        let keep = Keep { messages: vec![message], changes: Vec::new(), ends: Vec::new() };
        match self.queue.keep(keep, each).await?.into_iter().next() {
            Some(Ok(_)) => {}
            Some(Err(refusal)) => return Err(refusal.into()),
            None => return Err(Refusal::Internal.into()),
        }
        for (name, instance) in registered {
            self.identifiers.committed(self.number, &name, instance);
        }
        Ok(())
    }
}
