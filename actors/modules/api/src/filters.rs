//! The filters of each list: which parameters it knows, and how they are read.
use extension::records::{
    ActionFilter, AlarmFilter, EventFilter, InstanceFilter, IntegratorFilter, LedgerFilter,
    MessageFilter, NodeFilter, Paging, StreamFilter, Topic, WAIT_S_MAX,
};

use crate::{
    problem::{Problem, Wrong},
    query::Query,
};

/// Seconds to wait for nodes where the caller says nothing (openapi.json).
pub const WAIT_S_DEFAULT: u64 = 5;

const PAGING: &[&str] = &["limit", "cursor"];
const NODES: &[&str] = &["limit", "cursor", "customer", "state"];
const INTEGRATORS: &[&str] = &["limit", "cursor", "customer", "node", "state"];
const INSTANCES: &[&str] =
    &["limit", "cursor", "customer", "node", "integrator", "instance", "state"];
const ALARMS: &[&str] = &[
    "limit",
    "cursor",
    "customer",
    "node",
    "integrator",
    "instance",
    "type",
    "severity",
    "severity_min",
    "state",
    "text",
    "since",
    "until",
];
const MESSAGES: &[&str] = &[
    "limit",
    "cursor",
    "customer",
    "node",
    "integrator",
    "instance",
    "class",
    "subclass",
    "text",
    "since",
    "until",
];
const LEDGER: &[&str] = &["limit", "cursor", "customer", "node", "wait_s"];
const ACTIONS: &[&str] =
    &["limit", "cursor", "customer", "node", "instance", "state", "since", "until"];
const TRACE: &[&str] = &["wait_s"];
const STREAM: &[&str] = &["topic", "customer", "instance", "severity_min", "class"];

/// No parameters at all.
pub fn none(raw: &str) -> Result<(), Problem> {
    Query::parse(raw, &[]).end(())
}

/// Paging alone.
pub fn paging(raw: &str) -> Result<Paging, Problem> {
    let mut query = Query::parse(raw, PAGING);
    let paging = query.paging();
    query.end(paging)
}

/// Of nodes.
pub fn nodes(raw: &str) -> Result<(NodeFilter, Paging), Problem> {
    let mut query = Query::parse(raw, NODES);
    let filter = NodeFilter {
        customer: query.one("customer"),
        state: query.words("state", &["registering", "operational", "silent", "removed", "all"]),
    };
    let paging = query.paging();
    query.end((filter, paging))
}

/// Of integrators.
pub fn integrators(raw: &str) -> Result<(IntegratorFilter, Paging), Problem> {
    let mut query = Query::parse(raw, INTEGRATORS);
    let filter = IntegratorFilter {
        customer: query.one("customer"),
        node: query.one("node"),
        state: query.words("state", &["registering", "connected", "away", "all"]),
    };
    let paging = query.paging();
    query.end((filter, paging))
}

/// Of support instances.
pub fn instances(raw: &str) -> Result<(InstanceFilter, Paging), Problem> {
    let mut query = Query::parse(raw, INSTANCES);
    let filter = InstanceFilter {
        customer: query.one("customer"),
        node: query.one("node"),
        integrator: query.many("integrator"),
        instance: query.many("instance"),
        state: query.words("state", &["registering", "active", "removed", "deleting", "all"]),
    };
    let paging = query.paging();
    query.end((filter, paging))
}

/// Of alarms.
pub fn alarms(raw: &str) -> Result<(AlarmFilter, Paging), Problem> {
    alarms_or_events(raw, &["opened", "acknowledged", "closed", "all"])
}

/// Of events.
pub fn events(raw: &str) -> Result<(EventFilter, Paging), Problem> {
    alarms_or_events(raw, &["opened", "updated", "acknowledged", "closed", "all"])
}

fn alarms_or_events(raw: &str, states: &[&str]) -> Result<(AlarmFilter, Paging), Problem> {
    let mut query = Query::parse(raw, ALARMS);
    let filter = AlarmFilter {
        customer: query.one("customer"),
        node: query.one("node"),
        integrator: query.many("integrator"),
        instance: query.many("instance"),
        kind: query.many("type"),
        severity: query.read_many("severity"),
        severity_min: query.read("severity_min"),
        state: query.words("state", states),
        text: query.text(),
        since: query.read("since"),
        until: query.read("until"),
    };
    let paging = query.paging();
    query.end((filter, paging))
}

/// Of messages.
pub fn messages(raw: &str) -> Result<(MessageFilter, Paging), Problem> {
    let mut query = Query::parse(raw, MESSAGES);
    let filter = MessageFilter {
        customer: query.one("customer"),
        node: query.one("node"),
        integrator: query.many("integrator"),
        instance: query.many("instance"),
        class: query.many("class"),
        subclass: query.many("subclass"),
        text: query.text(),
        since: query.read("since"),
        until: query.read("until"),
    };
    let paging = query.paging();
    query.end((filter, paging))
}

/// Of ledgers, and how long to wait for nodes, seconds.
pub fn ledger(raw: &str) -> Result<(LedgerFilter, Paging, u64), Problem> {
    let mut query = Query::parse(raw, LEDGER);
    let filter = LedgerFilter { customer: query.one("customer"), node: query.one("node") };
    let paging = query.paging();
    let wait_s = query.number("wait_s", 0, WAIT_S_MAX).unwrap_or(WAIT_S_DEFAULT);
    query.end((filter, paging, wait_s))
}

/// Of actions.
pub fn actions(raw: &str) -> Result<(ActionFilter, Paging), Problem> {
    let mut query = Query::parse(raw, ACTIONS);
    let states = &["queued", "asked", "sent", "answered", "refused", "expired", "all"];
    let filter = ActionFilter {
        customer: query.one("customer"),
        node: query.one("node"),
        instance: query.many("instance"),
        state: query.words("state", states),
        since: query.read("since"),
        until: query.read("until"),
    };
    let paging = query.paging();
    query.end((filter, paging))
}

/// How long a trace waits for nodes, seconds.
pub fn trace(raw: &str) -> Result<u64, Problem> {
    let mut query = Query::parse(raw, TRACE);
    let wait_s = query.number("wait_s", 0, WAIT_S_MAX).unwrap_or(WAIT_S_DEFAULT);
    query.end(wait_s)
}

/// Of the stream; at least one topic.
pub fn stream(raw: &str) -> Result<StreamFilter, Problem> {
    let mut query = Query::parse(raw, STREAM);
    let words = ["alarms", "events", "messages", "nodes", "ledger", "actions"];
    let mut topics: Vec<Topic> = Vec::new();
    for word in query.words("topic", &words) {
        let topic = match word.as_str() {
            "alarms" => Topic::Alarms,
            "events" => Topic::Events,
            "messages" => Topic::Messages,
            "nodes" => Topic::Nodes,
            "ledger" => Topic::Ledger,
            "actions" => Topic::Actions,
            // `words` has said so already.
            _ => continue,
        };
        if !topics.contains(&topic) {
            topics.push(topic);
        }
    }
    let none = topics.is_empty();
    let filter = StreamFilter {
        topics,
        customer: query.one("customer"),
        instance: query.many("instance"),
        severity_min: query.read("severity_min"),
        class: query.many("class"),
    };
    let filter = query.end(filter)?;
    if none {
        let detail = format!("is missing; one or more of {}", words.join(" "));
        return Err(Problem::malformed(vec![Wrong::at("topic", detail)]));
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// The parameters of the GET at a path of openapi.json.
    fn known(path: &str) -> &'static [&'static str] {
        match path {
            "/customers" | "/alarms/{alarm_id}/history" => PAGING,
            "/nodes" => NODES,
            "/integrators" => INTEGRATORS,
            "/instances" => INSTANCES,
            "/alarms" | "/events" => ALARMS,
            "/messages" => MESSAGES,
            "/ledger" => LEDGER,
            "/actions" => ACTIONS,
            "/trace/{message_id}" => TRACE,
            "/stream" => STREAM,
            _ => &[],
        }
    }

    /// The document and the code name the same parameters.
    #[test]
    fn openapi_names_the_parameters_of_every_get_and_no_others() {
        let openapi: serde_json::Value = serde_json::from_str(crate::OPENAPI).unwrap();
        for served in crate::routes::SERVED {
            let get = &openapi["paths"][served.path]["get"];
            let mut named: Vec<&str> = Vec::new();
            for parameter in get["parameters"].as_array().into_iter().flatten() {
                let name = match parameter["$ref"].as_str() {
                    Some(reference) => reference.rsplit('/').next().unwrap(),
                    None if parameter["in"] == "query" => parameter["name"].as_str().unwrap(),
                    None => continue,
                };
                named.push(name);
            }
            named.sort_unstable();
            let mut known = known(served.path).to_vec();
            known.sort_unstable();
            assert_eq!(named, known, "{}", served.path);
        }
    }

    // The other direction is shown over HTTP in tests/api.rs.
    #[test]
    fn every_served_path_and_method_is_in_openapi() {
        let openapi: serde_json::Value = serde_json::from_str(crate::OPENAPI).unwrap();
        for served in crate::routes::SERVED {
            for method in served.methods {
                assert!(openapi["paths"][served.path][method].is_object(), "{}", served.path);
            }
        }
        assert_eq!(openapi["paths"].as_object().unwrap().len(), crate::routes::SERVED.len());
    }

    type Reader = fn(&str) -> Option<Problem>;
    const READERS: &[Reader] = &[
        |raw| none(raw).err(),
        |raw| paging(raw).err(),
        |raw| nodes(raw).err(),
        |raw| integrators(raw).err(),
        |raw| instances(raw).err(),
        |raw| alarms(raw).err(),
        |raw| events(raw).err(),
        |raw| messages(raw).err(),
        |raw| ledger(raw).err(),
        |raw| actions(raw).err(),
        |raw| trace(raw).err(),
        |raw| stream(raw).err(),
    ];

    #[test]
    fn a_repeated_filter_is_any_of_and_severities_are_words() {
        let raw = "severity=critical&severity=fatal&type=a&type=b&since=2026-11-22T12:00:00Z";
        let (filter, paging) = alarms(raw).unwrap();
        assert_eq!(filter.severity.len(), 2);
        assert_eq!(filter.kind, ["a", "b"]);
        assert!(filter.since.is_some() && filter.until.is_none() && filter.state.is_empty());
        assert_eq!(paging, Paging::default());
        let problem = alarms("severity=bad").unwrap_err();
        assert!(problem.detail.contains("critical"), "{problem}");
    }

    #[test]
    fn a_stream_without_a_topic_is_refused() {
        assert!(stream("").unwrap_err().detail.contains("topic"));
        assert!(stream("topic=bulk").is_err());
        assert_eq!(stream("topic=alarms&topic=alarms&topic=ledger").unwrap().topics.len(), 2);
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_answered_with_a_problem(
            raw in "([a-z_]{0,12}|limit|cursor|severity|state|since|topic|wait_s|text)\
                    (=[ -~]{0,16})?(&[!-~]{0,24}){0,4}",
        ) {
            for reader in READERS {
                if let Some(problem) = reader(&raw) {
                    prop_assert_eq!(problem.status, 400);
                    prop_assert!(!problem.errors.is_empty());
                }
            }
        }
    }
}
