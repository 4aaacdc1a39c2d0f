//! What a list is asked for. An empty list of values takes all.
use protocol::service::Severity;
use serde::{Deserialize, Serialize};

use super::{LIMIT_DEFAULT, LIMIT_MAX, RecordsError, views::Time};

/// Which page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paging {
    /// Rows at most, 1 to [`LIMIT_MAX`].
    pub limit: usize,
    /// From `next` of the page before; opaque.
    pub cursor: Option<String>,
}

impl Default for Paging {
    fn default() -> Self {
        Self { limit: LIMIT_DEFAULT, cursor: None }
    }
}

impl Paging {
    /// The first page of `limit` rows.
    pub fn first(limit: usize) -> Self {
        Self { limit, cursor: None }
    }

    /// As a caller asks; a limit outside of 1 to [`LIMIT_MAX`] is refused.
    pub fn new(limit: Option<usize>, cursor: Option<String>) -> Result<Self, RecordsError> {
        let limit = limit.unwrap_or(LIMIT_DEFAULT);
        if limit == 0 || limit > LIMIT_MAX {
            let detail = format!("is {limit}; from 1 to {LIMIT_MAX}");
            return Err(RecordsError::bad("limit", detail));
        }
        Ok(Self { limit, cursor })
    }
}

/// One page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// Its rows.
    pub items: Vec<T>,
    /// Cursor of the next page; none: no more.
    pub next: Option<String>,
}

/// Which nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFilter {
    /// Customer id or name.
    pub customer: Option<String>,
    /// `registering operational silent removed`; `all` or none: every one.
    pub state: Vec<String>,
}

/// Which integrators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntegratorFilter {
    /// Customer id or name.
    pub customer: Option<String>,
    /// Node id or name.
    pub node: Option<String>,
    /// `registering connected away`; `all` or none: every one.
    pub state: Vec<String>,
}

/// Which support instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceFilter {
    /// Customer id or name.
    pub customer: Option<String>,
    /// Node id or name.
    pub node: Option<String>,
    /// Names of integrators.
    pub integrator: Vec<String>,
    /// The platform's identifiers, or instance ids.
    pub instance: Vec<String>,
    /// `registering active removed deleting`; `all` or none: every one.
    pub state: Vec<String>,
}

/// Which alarms or events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlarmFilter {
    /// Customer id or name.
    pub customer: Option<String>,
    /// Node id or name.
    pub node: Option<String>,
    /// Names of integrators.
    pub integrator: Vec<String>,
    /// The platform's identifiers, or instance ids.
    pub instance: Vec<String>,
    /// Exact types.
    pub kind: Vec<String>,
    /// Exact severities.
    pub severity: Vec<Severity>,
    /// This severe or worse.
    pub severity_min: Option<Severity>,
    /// States; `all`: every one. None: of alarms those not closed, of events all.
    pub state: Vec<String>,
    /// Words of the text, any order, case ignored.
    pub text: Option<String>,
    /// `occurred_at` at or after.
    pub since: Option<Time>,
    /// `occurred_at` before.
    pub until: Option<Time>,
}

/// Events take the same parameters as alarms.
pub type EventFilter = AlarmFilter;

/// Which messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageFilter {
    /// Customer id or name.
    pub customer: Option<String>,
    /// Node id or name.
    pub node: Option<String>,
    /// Names of integrators.
    pub integrator: Vec<String>,
    /// The platform's identifiers, or instance ids.
    pub instance: Vec<String>,
    /// Data classes; none: all but status.
    pub class: Vec<String>,
    /// Subclasses.
    pub subclass: Vec<String>,
    /// Words of the text, any order, case ignored.
    pub text: Option<String>,
    /// `occurred_at` at or after.
    pub since: Option<Time>,
    /// `occurred_at` before.
    pub until: Option<Time>,
}

/// Whose account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerFilter {
    /// Customer id or name.
    pub customer: Option<String>,
    /// Node id or name.
    pub node: Option<String>,
}

/// Which actions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionFilter {
    /// Customer id or name.
    pub customer: Option<String>,
    /// Node id or name.
    pub node: Option<String>,
    /// The platform's identifiers, or instance ids.
    pub instance: Vec<String>,
    /// `queued asked sent answered refused expired`; `all` or none: every one.
    pub state: Vec<String>,
    /// `requested_at` at or after.
    pub since: Option<Time>,
    /// `requested_at` before.
    pub until: Option<Time>,
}

/// A topic of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Alarms.
    Alarms,
    /// Events.
    Events,
    /// Messages.
    Messages,
    /// Nodes.
    Nodes,
    /// Ledgers.
    Ledger,
    /// Actions.
    Actions,
}

/// Which changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFilter {
    /// At least one.
    pub topics: Vec<Topic>,
    /// Customer id or name.
    pub customer: Option<String>,
    /// The platform's identifiers, or instance ids.
    pub instance: Vec<String>,
    /// This severe or worse; of alarms and events.
    pub severity_min: Option<Severity>,
    /// Data classes; of messages.
    pub class: Vec<String>,
}
