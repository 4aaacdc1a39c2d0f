//! `/instances?instance=…`: either identifier of an instance of a proxy here gives the other
//! (IDM-6), also while no parent can be reached.
use actix_web::{Error, HttpRequest, HttpResponse, web};
use protocol::Refusal;
use roles::proxy::lookup::find;
use serde::Deserialize;
use serde_json::json;

use super::{
    Operator,
    problem::{Name, problem, refused},
};

/// What is looked for.
#[derive(Deserialize)]
pub(super) struct Wanted {
    node: Option<String>,
    instance: String,
}

/// The instances that the platform's own identifier or a remote services id names, in the words of
/// the API's list of instances.
pub(super) async fn instances(
    request: HttpRequest,
    operator: web::Data<Operator>,
    wanted: Result<web::Query<Wanted>, Error>,
) -> HttpResponse {
    let Ok(web::Query(Wanted { node, instance })) = wanted else {
        let detail = "there are the parameters instance, a platform's identifier or a remote \
            services id, and node, each once";
        return refused(&request, Refusal::Malformed, detail);
    };
    let mut nodes = operator.nodes.all();
    nodes.retain(|known| node.as_ref().is_none_or(|node| *node == known.name));
    if nodes.is_empty() {
        return problem(&request, Name::NotFound, "no node of that name runs in this process");
    }
    let mut rows = Vec::new();
    let mut registering = false;
    for node in nodes {
        let Some(identifiers) = &node.identifiers else { continue };
        let Some(id) = node.status.borrow().id else {
            registering = true;
            continue;
        };
        let Ok(found) = find(identifiers, &id, &instance) else {
            let detail = format!("the store of {} cannot be read; see its health", node.name);
            return refused(&request, Refusal::StorageDown, &detail);
        };
        rows.extend(found.into_iter().map(|found| {
            json!({
                "node": node.name,
                "integrator": found.integrator,
                "integrator_id": found.integrator_id,
                "instance": found.instance,
                "instance_id": found.instance_id,
                "state": if found.is_registered { "active" } else { "registering" },
            })
        }));
    }
    match (rows.is_empty(), registering) {
        (false, _) => HttpResponse::Ok().json(rows),
        (true, true) => {
            let detail = "the proxy is not registered yet, so its instances have no id";
            refused(&request, Refusal::NotRegistered, detail)
        }
        (true, false) => {
            let detail = "no proxy of this process knows an instance of that identifier; \
                callhome ls instances asks the application server";
            problem(&request, Name::NotFound, detail)
        }
    }
}
