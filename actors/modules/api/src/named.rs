//! `/problems/NAME`: what the `type` of a problem stands for, and what to do about it.
use actix_web::{HttpRequest, HttpResponse};
use protocol::{Refusal, Verdict};
use serde::Serialize;

use crate::{
    answer::{Answered, shown},
    problem::{Problem, title},
};

/// A kind of problem, for who follows its `type`.
#[derive(Debug, Serialize)]
struct Named {
    #[serde(rename = "type")]
    type_: String,
    title: &'static str,
    verdict: Verdict,
    /// Null where it is never an HTTP status: then it is the outcome of a message.
    status: Option<u16>,
    help: &'static str,
}

/// What is no refusal of the protocol, with its status.
const OWN: [(&str, u16); 3] = [("unauthenticated", 401), ("not_found", 404), ("conflict", 409)];

/// Answers without a token: it says nothing of this server.
pub(crate) async fn problem(request: HttpRequest) -> Answered {
    let name = request.match_info().get("name").unwrap_or_default();
    let named = of(name).ok_or_else(|| Problem::not_found(format!("problem {name:?}")))?;
    shown(&request, &named)
}

/// Where no name stands.
pub(crate) async fn none() -> HttpResponse {
    HttpResponse::from_error(Problem::not_found("problem without a name"))
}

fn of(name: &str) -> Option<Named> {
    let own = OWN.iter().find(|(own, _)| *own == name);
    let refusal = Refusal::ALL.into_iter().find(|refusal| refusal.name() == name);
    let (name, verdict, status) = match (own, refusal) {
        (Some((name, status)), _) => (*name, Verdict::GiveUp, Some(*status)),
        (None, Some(Refusal::NotSupported)) => ("not_supported", Verdict::GiveUp, Some(405)),
        (None, Some(refusal)) => {
            let status = (!is_outcome(refusal)).then(|| refusal.http_status());
            (refusal.name(), refusal.verdict(), status)
        }
        (None, None) => return None,
    };
    let type_ = format!("/problems/{name}");
    Some(Named { type_, title: title(name), verdict, status, help: help(name) })
}

/// What only ever becomes of a single message (contract §6).
fn is_outcome(refusal: Refusal) -> bool {
    use Refusal::{Expired, Loop, Moved, NameInUse, NewIncarnation, Poison, UnknownDestination};
    matches!(
        refusal,
        Loop | Expired | Poison | UnknownDestination | NameInUse | Moved | NewIncarnation
    )
}

fn help(name: &str) -> &'static str {
    match name {
        "malformed" => "mend what detail and errors name; the same request is refused again",
        "unauthenticated" => "send Authorization: Bearer with the token of operator.token",
        "denied" => "ask who runs the server, or the customer, for the right",
        "identity_mismatch" => "the sender is not who the connection says: look at its identity",
        "not_found" => "look at the id or path; lists show what there is",
        "not_supported" => "see Allow and /api/openapi.json, or the capabilities of the target",
        "conflict" => "read the object again: it is in another state than the request needs",
        "too_large" => "send less at once; the limit stands in detail",
        "unknown_instance" => "register the instance first",
        "unknown_version" => "use a version that both sides speak",
        "loop" => "two nodes are each other's parents: look at <parents> in their files",
        "expired" => "its time to live ran out before it arrived: give it longer, or none",
        "poison" => "a service module failed at it; it is set aside, see callhome queue show",
        "unknown_destination" => "nobody has that id any more: see callhome ls instances",
        "not_registered" => "wait: the node registers when its parent can be reached",
        "name_in_use" => "another connection has the name: end it, or choose another --name",
        "queue_full" | "busy" => "send it again after Retry-After seconds",
        "stopping" => "send it again after Retry-After seconds: the server comes back",
        "storage_down" => "send it again later; its operator makes room on the disk",
        "moved" => "send it to the server that has the customer's records now",
        "new_incarnation" => "nodes do it by themselves: they send again what they hold",
        _ => "send it again later; the server's log has the request's id, see instance",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_verdict_and_help() {
        for refusal in Refusal::ALL {
            let named = of(refusal.name()).unwrap_or_else(|| panic!("{refusal}"));
            assert_eq!(named.verdict, refusal.verdict(), "{refusal}");
            let is_internal = refusal == Refusal::Internal;
            assert_eq!(named.help.contains("the server's log"), is_internal, "{refusal}");
        }
        for (name, status) in OWN {
            assert_eq!(of(name).and_then(|named| named.status), Some(status), "{name}");
        }
        assert!(of("nothing").is_none());
    }
}
