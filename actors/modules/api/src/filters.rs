//! The filters of each list: which parameters it knows, and how they are read.
use extension::records::{
    ActionFilter, AlarmFilter, EventFilter, InstanceFilter, IntegratorFilter, LedgerFilter,
    MessageFilter, NodeFilter, Paging, StreamFilter, Topic, WAIT_S_MAX,
};

use crate::{problem::Problem, query::Query};

/// Seconds to wait for nodes where the caller says nothing (openapi.json).
pub const WAIT_S_DEFAULT: u64 = 5;

/// Reads a query string with one of the functions below; all mistakes are told at once.
///
/// # Errors
/// Something in it is wrong, or not known there.
pub fn read<T>(raw: &str, of: impl FnOnce(&mut Query) -> T) -> Result<T, Problem> {
    let mut query = Query::parse(raw);
    let value = of(&mut query);
    query.end(value)
}

/// No parameters at all.
pub fn none(_: &mut Query) {}

/// Paging alone.
pub fn paging(query: &mut Query) -> Paging {
    query.paging()
}

/// Of nodes.
pub fn nodes(query: &mut Query) -> (NodeFilter, Paging) {
    let filter = NodeFilter {
        customer: query.one("customer"),
        state: query.words("state", &["registering", "operational", "silent", "removed", "all"]),
    };
    (filter, query.paging())
}

/// Of integrators.
pub fn integrators(query: &mut Query) -> (IntegratorFilter, Paging) {
    let filter = IntegratorFilter {
        customer: query.one("customer"),
        node: query.one("node"),
        state: query.words("state", &["registering", "connected", "away", "all"]),
    };
    (filter, query.paging())
}

/// Of support instances.
pub fn instances(query: &mut Query) -> (InstanceFilter, Paging) {
    let filter = InstanceFilter {
        customer: query.one("customer"),
        node: query.one("node"),
        integrator: query.many("integrator"),
        instance: query.many("instance"),
        state: query.words("state", &["registering", "active", "removed", "deleting", "all"]),
    };
    (filter, query.paging())
}

/// Of alarms.
pub fn alarms(query: &mut Query) -> (AlarmFilter, Paging) {
    alarms_or_events(query, &["opened", "acknowledged", "closed", "all"])
}

/// Of events.
pub fn events(query: &mut Query) -> (EventFilter, Paging) {
    alarms_or_events(query, &["opened", "updated", "acknowledged", "closed", "all"])
}

fn alarms_or_events(query: &mut Query, states: &[&str]) -> (AlarmFilter, Paging) {
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
    (filter, query.paging())
}

/// Of messages.
pub fn messages(query: &mut Query) -> (MessageFilter, Paging) {
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
    (filter, query.paging())
}

/// Of ledgers, and how long to wait for nodes, seconds.
pub fn ledger(query: &mut Query) -> (LedgerFilter, Paging, u64) {
    let filter = LedgerFilter { customer: query.one("customer"), node: query.one("node") };
    (filter, query.paging(), wait_s(query))
}

/// Of actions.
pub fn actions(query: &mut Query) -> (ActionFilter, Paging) {
    let states = &["queued", "asked", "sent", "answered", "refused", "expired", "all"];
    let filter = ActionFilter {
        customer: query.one("customer"),
        node: query.one("node"),
        instance: query.many("instance"),
        state: query.words("state", states),
        since: query.read("since"),
        until: query.read("until"),
    };
    (filter, query.paging())
}

/// How long a trace waits for nodes, seconds.
pub fn wait_s(query: &mut Query) -> u64 {
    query.number("wait_s", 0, WAIT_S_MAX).unwrap_or(WAIT_S_DEFAULT)
}

/// Of the stream; at least one topic.
pub fn stream(query: &mut Query) -> StreamFilter {
    const TOPICS: [(&str, Topic); 6] = [
        ("alarms", Topic::Alarms),
        ("events", Topic::Events),
        ("messages", Topic::Messages),
        ("nodes", Topic::Nodes),
        ("ledger", Topic::Ledger),
        ("actions", Topic::Actions),
    ];
    let words = TOPICS.map(|(word, _)| word);
    let asked = query.words("topic", &words);
    if asked.is_empty() {
        query.wrong("topic", format!("is missing; one or more of {}", words.join(" ")));
    }
    let is_asked = |(word, _): &(&str, Topic)| asked.iter().any(|asked| asked == word);
    StreamFilter {
        topics: TOPICS.into_iter().filter(is_asked).map(|(_, topic)| topic).collect(),
        customer: query.one("customer"),
        instance: query.many("instance"),
        severity_min: query.read("severity_min"),
        class: query.many("class"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// The parameters of the GET at a path of openapi.json.
    fn known(path: &str) -> Vec<&'static str> {
        let mut query = Query::default();
        match path {
            "/customers" | "/alarms/{alarm_id}/history" => drop(paging(&mut query)),
            "/nodes" => drop(nodes(&mut query)),
            "/integrators" => drop(integrators(&mut query)),
            "/instances" => drop(instances(&mut query)),
            "/alarms" => drop(alarms(&mut query)),
            "/events" => drop(events(&mut query)),
            "/messages" => drop(messages(&mut query)),
            "/ledger" => drop(ledger(&mut query)),
            "/actions" => drop(actions(&mut query)),
            "/trace/{message_id}" => {
                wait_s(&mut query);
            }
            "/stream" => drop(stream(&mut query)),
            _ => none(&mut query),
        }
        query.asked().to_vec()
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
            let mut known = known(served.path);
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
        |raw| read(raw, none).err(),
        |raw| read(raw, paging).err(),
        |raw| read(raw, nodes).err(),
        |raw| read(raw, integrators).err(),
        |raw| read(raw, instances).err(),
        |raw| read(raw, alarms).err(),
        |raw| read(raw, events).err(),
        |raw| read(raw, messages).err(),
        |raw| read(raw, ledger).err(),
        |raw| read(raw, actions).err(),
        |raw| read(raw, wait_s).err(),
        |raw| read(raw, stream).err(),
    ];

    #[test]
    fn a_repeated_filter_is_any_of_and_severities_are_words() {
        let raw = "severity=critical&severity=fatal&type=a&type=b&since=2026-11-22T12:00:00Z";
        let (filter, paging) = read(raw, alarms).unwrap();
        assert_eq!(filter.severity.len(), 2);
        assert_eq!(filter.kind, ["a", "b"]);
        assert!(filter.since.is_some() && filter.until.is_none() && filter.state.is_empty());
        assert_eq!(paging, Paging::default());
        let problem = read("severity=bad", alarms).unwrap_err();
        assert!(problem.detail.contains("critical"), "{problem}");
    }

    #[test]
    fn a_stream_without_a_topic_is_refused() {
        assert!(read("", stream).unwrap_err().detail.contains("topic"));
        assert!(read("topic=bulk", stream).is_err());
        let twice = read("topic=alarms&topic=alarms&topic=ledger", stream).unwrap();
        assert_eq!(twice.topics.len(), 2);
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
