//! One call on its way: what was asked, by whom, under which number.
use std::sync::Arc;

use protocol::socket::{Call, CallError};

use crate::{
    spill::Position,
    ticket::{Accepted, Slot},
};

/// What a call takes in memory beside its payload, bytes; generous.
const CALL_BYTES: usize = 1024;

/// A call that was not answered yet.
pub(crate) struct Entry {
    pub(crate) call: Call,
    /// Whom to tell; none: it is in the spill, its sender was answered.
    pub(crate) slot: Option<Arc<Slot>>,
    /// Its number in the stream, once it has one.
    pub(crate) seq: Option<u64>,
    /// Where it stands in the spill.
    pub(crate) place: Option<Position>,
    /// It was refused for an unknown instance before.
    pub(crate) retried: bool,
}

impl Entry {
    pub(crate) fn new(call: Call, slot: Option<Arc<Slot>>) -> Self {
        Self { call, slot, seq: None, place: None, retried: false }
    }

    /// Whether it gets a number of the stream.
    pub(crate) fn is_message(&self) -> bool {
        self.call.needs_instance()
    }

    /// What it takes in memory, bytes.
    pub(crate) fn weight(&self) -> usize {
        CALL_BYTES
            + match &self.call {
                Call::Alarm(c) => c.data.len(),
                Call::Event(c) => c.data.len(),
                Call::Data(c) => c.data.len(),
                Call::Capabilities(c) => c.capabilities.len(),
                Call::Instance(c) => c.capabilities.as_ref().map_or(0, String::len),
                Call::Instances(c) => c.instances.iter().map(|i| i.len() + 24).sum(),
                Call::Remove(_) => 0,
            }
    }

    /// Tells the sender.
    pub(crate) fn finish(&self, result: Result<Accepted, CallError>) {
        if let Some(slot) = &self.slot {
            slot.put(result);
        }
    }
}
