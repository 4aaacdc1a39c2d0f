//! The check at the door (REL-1…3).
use crate::{
    Refusal, limits,
    message::{Blocks, Channel, MessageId},
    parts::{HeaderParts, InfrastructureParts, Parts, ServiceParts},
    run::RunHeader,
};

impl<'a> Blocks<'a> {
    /// The check at the door, once per node: sizes, format, identity, times. `sequence` is the
    /// number that the run gives the message ([`RunHeader::numbers`]), `now_ms` this node's clock.
    /// Nothing is copied. A refusal here is final for the message (REL-1…3).
    ///
    /// # Errors
    /// Why the message is not taken.
    pub fn check(&self, run: &RunHeader, sequence: u64, now_ms: i64) -> Result<Parts<'a>, Refusal> {
        if self.header.len() > limits::HEADER_BYTES_MAX
            || self.infrastructure.len() > limits::INFRASTRUCTURE_BYTES_MAX
            || self.service.len() > limits::REGISTRATION_BYTES_MAX
        {
            return Err(Refusal::TooLarge);
        }
        let h = HeaderParts::read(self.header).map_err(|_| Refusal::Malformed)?;
        let i = InfrastructureParts::read(self.infrastructure).map_err(|_| Refusal::Malformed)?;
        if h.class != "registration" && self.service.len() > limits::SERVICE_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let RunHeader { origin, epoch, precedence, .. } = *run;
        let id = MessageId { origin, epoch, precedence, sequence };
        if h.id != id || h.id.sequence == 0 {
            return Err(Refusal::Malformed);
        }
        let far = |t: i64| now_ms.abs_diff(t) > limits::CLOCK_TOLERANCE_MS.unsigned_abs();
        if far(h.occurred_at) || far(h.accepted_at) {
            return Err(Refusal::Malformed);
        }
        let instance_fits = i.instance.is_none_or(|n| n.is_under(&h.id.origin));
        if !h.source.is_under(&h.id.origin)
            || i.customer != h.id.origin.cut(0)
            || (h.channel == Channel::Forward && !instance_fits)
        {
            return Err(Refusal::IdentityMismatch);
        }
        let service = ServiceParts::read(h.class, self.service).map_err(|_| Refusal::Malformed)?;
        Ok(Parts { header: h, infrastructure: i, service })
    }
}
