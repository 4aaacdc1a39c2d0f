//! The quality of service of a call (API-20), to and from its map.
use super::{
    CallError,
    fields::{Fields, Map},
};
use crate::message::{Persistence, Precedence};

/// How a message is queued (API-20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qos {
    /// None: the contract's default, see [`super::Call::precedence`].
    pub precedence: Option<Precedence>,
    /// Whether a full queue may evict it.
    pub persistence: Persistence,
    /// Seconds until it is of no use; none: for ever.
    pub time_to_live_s: Option<u32>,
}

impl Default for Qos {
    fn default() -> Self {
        Self { precedence: None, persistence: Persistence::Normal, time_to_live_s: None }
    }
}

impl Qos {
    pub(super) fn map(&self) -> Map {
        let map = Map::new().text_if("precedence", self.precedence.map(Precedence::word));
        let assured = (self.persistence != Persistence::Normal).then(|| self.persistence.word());
        map.text_if("persistence", assured)
            .uint_if("time_to_live_s", self.time_to_live_s.map(u64::from))
    }

    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, CallError> {
        let Some(qos) = fields.map("qos")? else { return Ok(Self::default()) };
        Ok(Self {
            precedence: qos.word("precedence")?,
            persistence: qos.word("persistence")?.unwrap_or(Persistence::Normal),
            time_to_live_s: qos.u32("time_to_live_s")?,
        })
    }
}
