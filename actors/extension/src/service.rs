//! Service modules: what is done with the data (ARC-8, ARC-10). No I/O; effects come back.
use std::time::Duration;

use bytes::Bytes;
use protocol::{
    MessageId, Precedence, RemoteId, message::Classification, parts::Parts, service::Service,
};
use uuid::Uuid;

/// A module is handed a message within this time of its arrival, which is when the application
/// server has it on disk (APS-5). One that is behind goes on with the oldest it has not seen.
pub const HANDED_WITHIN: Duration = Duration::from_millis(250);

/// What a module listens to (APS-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Class of the header.
    pub class: String,
    /// Subclass, or the part of one before a `/`; none: all of them.
    pub subclass: Option<String>,
}

impl Subscription {
    /// Whether a message of that class and subclass is meant. Looks at the header only (API-2).
    pub fn matches(&self, class: &str, subclass: &str) -> bool {
        self.class == class && self.subclass.as_ref().is_none_or(|s| is_within(subclass, s))
    }
}

/// Whether `subclass` is `wanted` or finer: `inventory` takes `inventory/packages`, which it does
/// not take the other way round (DAT-15). Filters go by the same rule.
pub fn is_within(subclass: &str, wanted: &str) -> bool {
    subclass.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The parts a module may consist of (ARC-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Lives in the management system: rules, integrator files.
    Detection,
    /// At an MLM.
    MidStream,
    /// At the application server.
    AnalysisAndStorage,
    /// Pages.
    Presentation,
}

/// How a module's data may travel (CLS-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// Session or message mode over HTTP.
    Http,
    /// Message mode.
    Mail,
    /// Message mode, forward only.
    Fax,
    /// By hand: a disk, a telephone call.
    Physical,
}

/// What a module says of itself before it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Name, unique in a node.
    pub name: String,
    /// What it is for; limits the carriers and orientation it may use.
    pub classification: Classification,
    /// At least one (ARC-10).
    pub parts: Vec<Part>,
    /// How its data may travel.
    pub carriers: Vec<Carrier>,
    /// Whether it needs a session (a back-channel).
    pub needs_session: bool,
    /// What it listens to.
    pub subscriptions: Vec<Subscription>,
}

/// Why a module is not loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// ARC-10.
    #[error(
        "service {0} has no part: name at least one of detection, mid-stream, analysis, presentation"
    )]
    NoPart(String),
    /// CLS-5.
    #[error(
        "service {name} is for {classification}, which may not travel by {carrier:?}: {allowed}"
    )]
    Carrier {
        /// Its name.
        name: String,
        /// What it is for.
        classification: Classification,
        /// What it asked for.
        carrier: Carrier,
        /// What it may use.
        allowed: &'static str,
    },
    /// CLS-5.
    #[error("service {name} is for {classification}, which is {orientation}")]
    Orientation {
        /// Its name.
        name: String,
        /// What it is for.
        classification: Classification,
        /// How it must be.
        orientation: &'static str,
    },
}

impl Manifest {
    /// Whether the module may be loaded: at least one part, and only carriers and the orientation
    /// that its classification allows (ARC-10, CLS-1…5).
    pub fn check(&self) -> Result<(), ManifestError> {
        let (name, classification) = (self.name.clone(), self.classification);
        if self.parts.is_empty() {
            return Err(ManifestError::NoPart(name));
        }
        let (allowed, words, session): (&[Carrier], _, _) = match classification {
            Classification::DataCollection | Classification::Monitoring => {
                (&[Carrier::Http, Carrier::Mail, Carrier::Fax], "http, mail or fax", false)
            }
            Classification::RemoteAccess => (&[Carrier::Http], "http only", true),
            Classification::InfrastructureAdministration => {
                (&[Carrier::Http, Carrier::Mail, Carrier::Physical], "http, mail or by hand", true)
            }
        };
        if let Some(carrier) = self.carriers.iter().find(|c| !allowed.contains(c)) {
            let (carrier, allowed) = (*carrier, words);
            return Err(ManifestError::Carrier { name, classification, carrier, allowed });
        }
        if self.needs_session && !session {
            let orientation = "message based and may not need a session";
            return Err(ManifestError::Orientation { name, classification, orientation });
        }
        Ok(())
    }
}

/// A message as a module gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received<'m> {
    /// Number in the application server's records, from 1 without repeats.
    pub seq: u64,
    /// The message, read where it stands: nothing of it was copied.
    pub message: Parts<'m>,
    /// When it was stored, ms since 1970 UTC.
    pub stored_at: i64,
    /// It waited while a link was down: nobody is to be paged.
    pub replayed: bool,
}

/// What a module wants done, all in one commit with the step of its cursor (APS-2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Stores a row in the module's own table.
    Put {
        /// Ordered as bytes.
        key: Bytes,
        /// Any bytes.
        value: Bytes,
    },
    /// Removes a row of the module's own table.
    Remove {
        /// Its key.
        key: Bytes,
    },
    /// Publishes a message of the server's own: other modules may subscribe to it.
    Publish {
        /// What it says.
        service: Service,
        /// Finer class.
        subclass: String,
        /// Whom it is about, by the name that people know; empty: the server itself.
        about: String,
        /// How urgent.
        precedence: Precedence,
    },
    /// Sends a message down the back-channel.
    Send {
        /// To whom.
        to: RemoteId,
        /// What it says.
        service: Service,
        /// The message it answers (DAT-14).
        answers: Option<MessageId>,
        /// Seconds until it is of no use.
        time_to_live_s: u32,
    },
}

/// Why a module could not handle a message; it is tried again and then set aside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ServiceError(pub String);

/// What a module may read: its own rows, as they will be when the effects so far are committed.
pub trait Rows {
    /// The row of that key.
    fn row(&self, key: &[u8]) -> Result<Option<Bytes>, ServiceError>;

    /// At most `limit` rows whose keys start with `prefix`, in order.
    fn rows(&self, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ServiceError>;
}

/// What a person wants done with something a module keeps (ARC-14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByHand {
    /// With what; of the module `alarms` an alarm id.
    pub subject: Uuid,
    /// Who wants it.
    pub by: String,
    /// When, ms since 1970 UTC.
    pub now: i64,
    /// What.
    pub what: Handwork,
}

/// What can be done by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handwork {
    /// Somebody has seen it.
    Acknowledge {
        /// For people.
        comment: Option<String>,
    },
    /// Takes that back.
    Unacknowledge,
    /// No notifications for a time.
    Silence {
        /// Until then, ms since 1970 UTC.
        until: i64,
        /// For people.
        comment: Option<String>,
    },
    /// Ends the silence.
    Unsilence,
    /// It is over.
    Close {
        /// For people.
        comment: Option<String>,
    },
}

/// Why it is not done by hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ByHandError {
    /// Nothing has that id.
    #[error("not found")]
    NotFound,
    /// Not in this state.
    #[error("{0}")]
    Conflict(String),
    /// The module failed.
    #[error(transparent)]
    Failed(#[from] ServiceError),
}

/// Code that listens to classes of data. The same effects for the same message and rows. It may
/// remember what its rows are: effects it returned are committed before it is asked to read them
/// anew, or it is made anew.
pub trait ServiceModule: Send {
    /// What it says of itself.
    fn manifest(&self) -> Manifest;

    /// Handles one message. It may come twice; ids and `seq` make that harmless.
    fn handle(
        &mut self,
        message: &Received<'_>,
        rows: &dyn Rows,
    ) -> Result<Vec<Effect>, ServiceError>;

    /// Called about once a second with the clock (ms since 1970 UTC): what closes by itself.
    fn tick(&mut self, _now: i64, _rows: &dyn Rows) -> Result<Vec<Effect>, ServiceError> {
        Ok(Vec::new())
    }

    /// Does something by hand; the effects are committed before the person is answered.
    fn by_hand(&mut self, _wish: &ByHand, _rows: &dyn Rows) -> Result<Vec<Effect>, ByHandError> {
        Err(ByHandError::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // DAT-15: the small types of instrumentation are published and listened to apart.
    // APS-7: a module that needs several of them has several subscriptions, or their common part.
    #[test]
    fn subscription_takes_its_subclass_and_what_is_finer() {
        let to = |subclass: Option<&str>| Subscription {
            class: "data".to_owned(),
            subclass: subclass.map(str::to_owned),
        };
        let taken = |subclass: Option<&str>, of: &str| to(subclass).matches("data", of);
        assert!(taken(None, "inventory/packages"));
        assert!(taken(Some("inventory"), "inventory"));
        assert!(taken(Some("inventory"), "inventory/packages"));
        assert!(taken(Some("inventory/packages"), "inventory/packages"));
        assert!(!taken(Some("inventory/packages"), "inventory/patches"));
        assert!(!taken(Some("inventory/packages"), "inventory"));
        assert!(!taken(Some("inventory"), "inventory-of-tools"));
        assert!(!to(None).matches("alarm", "inventory"));
    }
}
