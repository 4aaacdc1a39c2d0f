//! `/queue`: what stands in the queues of this process, and one message of them.
use actix_web::{Error, HttpRequest, HttpResponse, web};
use protocol::{Message, MessageId, Precedence, Refusal, run::Run};
use roles::delivery::orders::Find;
use serde::Deserialize;

use super::{
    Operator,
    problem::{Name, problem, refused},
};
use crate::{
    cli::queue::{QueueRow, queued},
    node_view::NodeView,
};

/// What is looked for.
#[derive(Deserialize)]
pub(super) struct Wanted {
    node: Option<String>,
    id: Option<String>,
}

/// Queues by depth, or with `id` one message, each in the form of `callhome queue`.
pub(super) async fn queue(
    request: HttpRequest,
    operator: web::Data<Operator>,
    wanted: Result<web::Query<Wanted>, Error>,
) -> HttpResponse {
    let Ok(web::Query(Wanted { node, id })) = wanted else {
        let detail = "there are the parameters node and id, each once";
        return refused(&request, Refusal::Malformed, detail);
    };
    let mut nodes = operator.nodes.all();
    nodes.retain(|known| node.as_ref().is_none_or(|node| *node == known.name));
    if nodes.is_empty() {
        return problem(&request, Name::NotFound, "no node of that name runs in this process");
    }
    match id.map(|id| id.parse::<MessageId>()) {
        None => rows(&request, &nodes).await,
        Some(Ok(id)) => one(&request, &nodes, id).await,
        Some(Err(_)) => {
            let detail = "id is no message id; one looks like 018f…c2/3:7:u:1042";
            refused(&request, Refusal::Malformed, detail)
        }
    }
}

async fn rows(request: &HttpRequest, nodes: &[NodeView]) -> HttpResponse {
    let mut rows = Vec::new();
    for node in nodes {
        let Some(figures) = node.figures().await else { return silent(request, node) };
        for (queue, depths) in figures.queues {
            let held = Precedence::ALL.iter().zip(depths).filter(|(_, depth)| depth.messages > 0);
            rows.extend(held.map(|(precedence, depth)| QueueRow {
                node: node.name.clone(),
                queue: queue.clone(),
                precedence: precedence.word().to_owned(),
                messages: depth.messages,
                bytes: depth.bytes,
                oldest_age_s: Some(depth.oldest_age_ms as f64 / 1000.0),
            }));
        }
    }
    HttpResponse::Ok().json(rows)
}

async fn one(request: &HttpRequest, nodes: &[NodeView], id: MessageId) -> HttpResponse {
    for node in nodes {
        match node.delivery.queue.ask(Find(id)).await {
            Ok(Ok(Some((queue, run, message)))) => {
                let bytes = wire_bytes(&run, &id, &message);
                let replayed = run.header.replayed;
                let found = queued(&node.name, &queue, bytes, replayed, &message);
                return HttpResponse::Ok().json(found);
            }
            Ok(Ok(None)) => {}
            Ok(Err(_)) | Err(_) => return silent(request, node),
        }
    }
    let detail = "no queue of this process holds that message; callhome trace asks other nodes";
    problem(request, Name::NotFound, detail)
}

/// The bytes of a message of a run; those it would have where the run cannot be read.
fn wire_bytes(run: &Run, id: &MessageId, message: &Message) -> u64 {
    let at = run.header.numbers().position(|number| number == id.sequence);
    let whole = at.and_then(|at| protocol::message::Messages::of(&run.messages).nth(at));
    let bytes = whole.and_then(|read| Some(read.ok()?.0.len()));
    bytes.unwrap_or_else(|| message.encode().0.len()) as u64
}

/// A list without this node would be no answer.
fn silent(request: &HttpRequest, node: &NodeView) -> HttpResponse {
    let detail =
        format!("the durable queue of {} does not answer; see /tree and its disk", node.name);
    refused(request, Refusal::StorageDown, &detail)
}
