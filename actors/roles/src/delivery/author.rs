//! Makes messages of a node's own: header and infrastructure block with what is always the same.
use std::sync::{Arc, Mutex};

use protocol::{
    MessageId, Precedence, RemoteId,
    message::{Channel, Classification, Persistence, SourceType, Unnumbered},
    parts::{HeaderParts, InfrastructureParts},
    service::Service,
};

use super::{
    durable_queue::{Clock, identity_of},
    orders::Identity,
};

/// Who writes.
#[derive(Clone)]
pub struct Author {
    /// Who the node is now; the durable queue changes it.
    pub identity: Arc<Mutex<Identity>>,
    /// What kind of node it is.
    pub source_type: SourceType,
    /// Its security group; empty: none.
    pub group: String,
    /// The time.
    pub clock: Clock,
}

/// What differs from message to message of one author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft<'a> {
    /// Who it is about; none: the node.
    pub source: Option<(RemoteId, SourceType)>,
    /// What it is for.
    pub classification: Classification,
    /// Name and version of the integrator; empty for the node's own.
    pub integrator: (&'a str, &'a str),
    /// The platform's own name of the instance; empty for the node's own.
    pub external_id: &'a str,
    /// Finer class.
    pub subclass: String,
    /// How urgent.
    pub precedence: Precedence,
    /// Whether it may be evicted.
    pub persistence: Persistence,
    /// Seconds until it is of no use.
    pub time_to_live_s: Option<u32>,
    /// The request it answers.
    pub answers: Option<MessageId>,
    /// By the platform's clock, ms since 1970 UTC; none: now.
    pub occurred_at: Option<i64>,
}

impl Default for Draft<'_> {
    /// What a node says of itself: urgent, never evicted.
    fn default() -> Self {
        Self {
            source: None,
            classification: Classification::InfrastructureAdministration,
            integrator: Default::default(),
            external_id: "",
            subclass: String::new(),
            precedence: Precedence::Urgent,
            persistence: Persistence::Assured,
            time_to_live_s: None,
            answers: None,
            occurred_at: None,
        }
    }
}

impl Author {
    /// Who the node is now.
    pub fn identity(&self) -> Identity {
        identity_of(&self.identity)
    }

    /// The time, ms since 1970 UTC.
    pub fn now(&self) -> i64 {
        (self.clock)()
    }

    /// A forward message that says `service`, in its wire bytes; its numbers are given by the
    /// commit.
    pub fn write(&self, draft: &Draft<'_>, service: &Service) -> Unnumbered {
        let (own, now) = (self.identity(), self.now());
        let (source, source_type) = draft.source.unwrap_or((own.id, self.source_type));
        let header = HeaderParts {
            id: MessageId {
                origin: own.id,
                epoch: own.epoch,
                precedence: draft.precedence,
                sequence: 0,
            },
            order: 0,
            source,
            source_type,
            destination: None,
            channel: Channel::Forward,
            answers: draft.answers,
            class: service.class(),
            subclass: &draft.subclass,
            occurred_at: draft.occurred_at.unwrap_or(now),
            accepted_at: now,
            persistence: draft.persistence,
            time_to_live_s: draft.time_to_live_s,
            traceparent: None,
        };
        let infrastructure = InfrastructureParts {
            classification: draft.classification,
            customer: own.id.cut(0),
            group: &self.group,
            integrator: draft.integrator.0,
            integrator_version: draft.integrator.1,
            instance: (source.levels() == 3).then_some(source),
            external_id: draft.external_id,
        };
        Unnumbered::of(&header, &infrastructure, service)
    }
}
