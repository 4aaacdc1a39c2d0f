//! What a page is made of: the request, and what stands on every page.
use std::collections::BTreeMap;

use actix_web::web;
use extension::records::{Alarm, Customer, Ledger, Node, NodeState, Page as Listed};
use maud::Markup;
use protocol::{MessageId, RemoteId};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::{
    source::{Known, Source, SourceError},
    words,
};

/// Rows of one page: with them the largest page stays below 40 KB.
pub(crate) const ROWS: usize = 25;
/// Open alarms, nodes and accounts that are read for a page: the API's usual page. What is
/// beyond is said to be more.
pub(crate) const READ_MAX: usize = 1_000;

/// A page of the portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Overview,
    Alarms,
    Alarm(Uuid),
    Events,
    Instances,
    Nodes,
    Messages,
    Trace(MessageId),
    Ledger,
    Customers,
}

impl Page {
    /// Name in `/live?page=…`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Alarms => "alarms",
            Self::Alarm(_) => "alarm",
            Self::Events => "events",
            Self::Instances => "instances",
            Self::Nodes => "nodes",
            Self::Messages => "messages",
            Self::Trace(_) => "trace",
            Self::Ledger => "ledger",
            Self::Customers => "customers",
        }
    }

    /// The id in its path, if it has one.
    pub(crate) fn id(self) -> Option<String> {
        match self {
            Self::Alarm(id) => Some(id.to_string()),
            Self::Trace(id) => Some(words::in_path(&id.to_string())),
            _ => None,
        }
    }

    /// The page of that name.
    pub(crate) fn named(name: &str, id: &str) -> Option<Self> {
        Some(match name {
            "overview" => Self::Overview,
            "alarms" => Self::Alarms,
            "alarm" => Self::Alarm(id.parse().ok()?),
            "events" => Self::Events,
            "instances" => Self::Instances,
            "nodes" => Self::Nodes,
            "messages" => Self::Messages,
            "trace" => Self::Trace(id.parse().ok()?),
            "ledger" => Self::Ledger,
            "customers" => Self::Customers,
            _ => return None,
        })
    }
}

/// Parameters in their order; a name may come again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(pub(crate) Vec<(String, String)>);

impl Query {
    /// Of a URL; what cannot be read is left out. Empty values are fields left empty.
    pub(crate) fn read(raw: &str) -> Self {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(raw);
        let pairs = pairs.map(web::Query::into_inner).unwrap_or_default();
        Self(pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }

    /// The first value of a name.
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// All values of a name.
    pub(crate) fn many<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Only these names.
    pub(crate) fn only(&self, names: &[&str]) -> Self {
        Self(self.0.iter().filter(|(name, _)| names.contains(&name.as_str())).cloned().collect())
    }

    /// Without these names.
    pub(crate) fn without(&self, names: &[&str]) -> Self {
        Self(self.0.iter().filter(|(name, _)| !names.contains(&name.as_str())).cloned().collect())
    }

    /// With one more.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.push((name.to_owned(), value.into()));
        self
    }

    /// Without this value where it is there, else with it: what a chip's link asks for. Another
    /// filter begins at the first page.
    pub(crate) fn toggled(&self, name: &str, value: &str) -> Self {
        let is_it = |(n, v): &(String, String)| n == name && v == value;
        let base = self.without(&["cursor", "page", "done", "at"]);
        if base.0.iter().any(is_it) {
            Self(base.0.into_iter().filter(|pair| !is_it(pair)).collect())
        } else {
            base.with(name, value)
        }
    }

    /// With its `?`.
    pub(crate) fn words(&self) -> String {
        words::query(&self.0)
    }
}

/// What stands on every page: how the nodes deliver, the ledger, open alarms.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) nodes: Vec<Node>,
    pub(crate) ledgers: Vec<Ledger>,
    /// Not closed ones.
    pub(crate) alarms: Vec<Alarm>,
    /// There are more than were read.
    pub(crate) more_alarms: bool,
    pub(crate) more_nodes: bool,
    customers: BTreeMap<Uuid, Customer>,
}

/// One page being made.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) source: &'a Source,
    pub(crate) frame: Frame,
    pub(crate) query: Query,
    pub(crate) csrf: String,
    /// The clock, milliseconds since 1970.
    clock_ms: i64,
    /// Of what is not fresh, the oldest.
    pub(crate) stale_since_ms: Option<i64>,
}

impl<'a> View<'a> {
    /// Reads what stands on every page.
    pub(crate) async fn read(
        source: &'a Source,
        query: Query,
        csrf: &str,
    ) -> Result<Self, SourceError> {
        let limit = READ_MAX;
        let paths = [
            format!("/nodes?limit={limit}"),
            format!("/ledger?limit={limit}&wait_s=0"),
            format!("/alarms?limit={limit}"),
            format!("/customers?limit={limit}"),
        ];
        let (nodes, ledgers, alarms, customers) = futures_util::join!(
            source.get::<Listed<Node>>(&paths[0]),
            source.get::<Listed<Ledger>>(&paths[1]),
            source.get::<Listed<Alarm>>(&paths[2]),
            source.get::<Listed<Customer>>(&paths[3]),
        );
        let frame = Frame {
            nodes: Vec::new(),
            ledgers: Vec::new(),
            alarms: Vec::new(),
            more_alarms: false,
            more_nodes: false,
            customers: BTreeMap::new(),
        };
        let clock_ms = crate::now_ms();
        let mut view =
            Self { source, frame, query, csrf: csrf.to_owned(), clock_ms, stale_since_ms: None };
        let (nodes, alarms) = (view.take(nodes?), view.take(alarms?));
        (view.frame.more_nodes, view.frame.more_alarms) =
            (nodes.next.is_some(), alarms.next.is_some());
        view.frame.nodes = nodes.items;
        view.frame.nodes.retain(|node| node.state != NodeState::Removed);
        view.frame.alarms = alarms.items;
        view.frame.ledgers = view.take(ledgers?).items;
        let customers = view.take(customers?).items;
        view.frame.customers = customers.into_iter().map(|c| (c.customer_id, c)).collect();
        Ok(view)
    }

    /// Reads more for this page.
    pub(crate) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, SourceError> {
        let known = self.source.get(path).await?;
        Ok(self.take(known))
    }

    fn take<T>(&mut self, known: Known<T>) -> T {
        if !known.fresh {
            let oldest = self.stale_since_ms.unwrap_or(known.at_ms);
            self.stale_since_ms = Some(oldest.min(known.at_ms));
        }
        known.value
    }

    /// What durations count to: the clock, or the time of the oldest figure where the
    /// application server does not answer.
    pub(crate) fn now_ms(&self) -> i64 {
        self.stale_since_ms.unwrap_or(self.clock_ms)
    }

    /// How long the application server has not answered, milliseconds.
    pub(crate) fn stale_for_ms(&self) -> Option<i64> {
        self.stale_since_ms.map(|since| (self.clock_ms - since).max(0))
    }

    /// A customer's name, or its short id.
    pub(crate) fn customer(&self, id: Uuid) -> String {
        match self.frame.customers.get(&id) {
            Some(customer) => customer.customer.clone(),
            None => words::short_id(&id.to_string()),
        }
    }

    /// Names of the customers.
    pub(crate) fn customers(&self) -> impl Iterator<Item = &Customer> {
        self.frame.customers.values()
    }

    /// The node of an id.
    pub(crate) fn node(&self, id: &RemoteId) -> Option<&Node> {
        self.frame.nodes.iter().find(|node| node.node_id == *id)
    }
}

/// The middle of a page.
#[derive(Debug)]
pub(crate) struct Sheet {
    /// Without the product's name.
    pub(crate) title: String,
    /// Which line of the menu it belongs to.
    pub(crate) nav: &'static str,
    pub(crate) main: Markup,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_takes_its_filter_away_again() {
        let query = Query::read("severity=major&cursor=x&text=&state=closed");
        let on = query.toggled("severity", "fatal");
        assert_eq!(on.words(), "?severity=major&state=closed&severity=fatal");
        assert_eq!(on.toggled("severity", "major").words(), "?state=closed&severity=fatal");
        assert_eq!(query.one("text"), None);
        assert_eq!(Query::read("a&=").0, Query::default().0);
    }

    #[test]
    fn a_page_is_found_again_by_name_and_id() {
        let id = "018f3a6e-9b1d-7c55-a1f0-6d20b4c7e8c2/3:7:u:1042".parse();
        let Ok(id) = id else { panic!("an id") };
        for page in [Page::Overview, Page::Alarm(Uuid::nil()), Page::Trace(id), Page::Ledger] {
            assert_eq!(Page::named(page.name(), &page.id().unwrap_or_default()), Some(page));
        }
        assert_eq!(Page::named("alarm", "x"), None);
    }
}
