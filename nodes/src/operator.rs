//! The operator's door: plain HTTP on loopback, because probes must work when certificates do not.
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::{Server, ServerHandle},
    web,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use supervision::drill::{self, Fault};

use crate::{
    health::NodeHealth, integrator_metrics, launch::LaunchError, node_view::Nodes, telemetry,
};

/// Largest body, bytes: a filter or an order.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Times one order repeats a drill.
const DRILL_TIMES_MAX: u32 = 10_000;
/// Longest wait between two, ms.
const DRILL_EVERY_MS_MAX: u64 = 60_000;
/// How long a hang lasts: longer than the watchdog's patience.
const HANG: Duration = Duration::from_secs(120);

/// Makes a sign-in URL; where a portal runs in this process.
pub type SignIn = Arc<dyn Fn() -> Result<String, LaunchError> + Send + Sync>;

/// What the door shows and does.
#[derive(Clone)]
pub struct Operator {
    /// The nodes of this process.
    pub nodes: Nodes,
    /// Wanted for what changes anything.
    pub token: Arc<str>,
    /// Whether drills were allowed at start.
    pub drills: bool,
    /// Makes a sign-in URL.
    pub sign_in: Arc<std::sync::OnceLock<SignIn>>,
}

/// A door that serves.
pub struct OperatorServer {
    /// Where.
    pub address: SocketAddr,
    /// Ends it.
    pub handle: ServerHandle,
    /// Runs it.
    pub server: Server,
}

/// Opens the door; port 0 picks a free one.
pub fn serve(address: SocketAddr, operator: Operator) -> io::Result<OperatorServer> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let operator = web::Data::new(operator);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(operator.clone())
            .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
            .route("/livez", web::get().to(livez))
            .route("/readyz", web::get().to(readyz))
            .route("/healthz", web::get().to(healthz))
            .route("/metrics", web::get().to(metrics))
            .route("/tree", web::get().to(tree))
            .route("/queue", web::get().to(queue))
            .route("/drill", web::post().to(order_drill))
            .route("/log", web::put().to(log))
            .route("/sign-in", web::post().to(sign_in))
            .default_service(web::to(nothing))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .listen(listener)?
    .run();
    Ok(OperatorServer { address, handle: server.handle(), server })
}

async fn healths(operator: &Operator) -> Vec<NodeHealth> {
    let mut healths = Vec::new();
    for node in operator.nodes.all() {
        healths.push(node.health().await);
    }
    healths
}

/// Says of each node what the parts named `parts` say; with `?verbose` also which checks passed.
async fn answer(request: &HttpRequest, operator: &Operator, parts: &[&str]) -> HttpResponse {
    let verbose = request.query_string().split('&').any(|part| part == "verbose");
    let mut ok = true;
    let mut nodes = Vec::new();
    for health in healths(operator).await {
        let mut node = json!({"node": health.node, "node_id": health.node_id});
        for part in parts {
            let said = health.part(part, verbose);
            ok &= said["ok"] == true;
            node[*part] = said;
        }
        nodes.push(node);
    }
    let body = json!({"status": if ok { "ok" } else { "failing" }, "nodes": nodes});
    match ok {
        true => HttpResponse::Ok().json(body),
        false => HttpResponse::ServiceUnavailable().json(body),
    }
}

async fn livez(request: HttpRequest, operator: web::Data<Operator>) -> HttpResponse {
    answer(&request, &operator, &["alive"]).await
}

async fn readyz(request: HttpRequest, operator: web::Data<Operator>) -> HttpResponse {
    answer(&request, &operator, &["ready"]).await
}

async fn healthz(request: HttpRequest, operator: web::Data<Operator>) -> HttpResponse {
    answer(&request, &operator, &["alive", "ready", "delivering"]).await
}

async fn metrics(operator: web::Data<Operator>) -> HttpResponse {
    let mut integrators = Vec::new();
    for node in operator.nodes.all() {
        node.gauge().await;
        let told = node.integrators.as_ref().map(|reports| reports.all());
        integrators.push((node.name.clone(), told.unwrap_or_default()));
        metrics::gauge!("callhome_build_info",
            "node" => node.name, "version" => env!("CARGO_PKG_VERSION"))
        .set(1.0);
    }
    let mut text = telemetry::metrics_text();
    text.push_str(&integrator_metrics::text(&integrators));
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text)
}

async fn tree() -> HttpResponse {
    HttpResponse::Ok().json(supervision::tree())
}

/// A row of `queue ls`.
#[derive(Serialize)]
struct QueueRow {
    node: String,
    queue: String,
    precedence: &'static str,
    messages: u64,
    bytes: u64,
    oldest_age_s: f64,
}

#[derive(Deserialize)]
struct QueueQuery {
    node: Option<String>,
    id: Option<String>,
}

/// Queues by depth, or with `id` one message.
async fn queue(operator: web::Data<Operator>, query: web::Query<QueueQuery>) -> HttpResponse {
    let wanted = |name: &str| query.node.as_deref().is_none_or(|node| node == name);
    let nodes = operator.nodes.all();
    if !nodes.iter().any(|node| wanted(&node.name)) {
        return problem(404, "not_found", "no node of that name runs in this process");
    }
    if let Some(id) = &query.id {
        let Ok(id) = id.parse() else {
            return problem(400, "malformed", "id is no message id, as in 018f…c2/3:7:u:1042");
        };
        for node in nodes.iter().filter(|n| wanted(&n.name)) {
            let found = node.delivery.queue.ask(roles::delivery::orders::Find(id)).await;
            if let Ok(Ok(Some((queue, run, message)))) = found {
                let hops: Vec<_> = run
                    .header
                    .path
                    .iter()
                    .map(|h| json!({"node_id": h.node, "received_ms": h.received, "sent_ms": h.sent}))
                    .collect();
                let mut body = json!({"node": node.name, "queue": queue, "state": "queued",
                    "message_id": id, "hops": hops});
                if let (Some(body), Ok(serde_json::Value::Object(fields))) =
                    (body.as_object_mut(), serde_json::to_value(&message))
                {
                    body.extend(fields);
                }
                return HttpResponse::Ok().json(body);
            }
        }
        return problem(404, "not_found", "no queue of this process holds that message");
    }
    let mut rows = Vec::new();
    for node in nodes.iter().filter(|n| wanted(&n.name)) {
        let Some(figures) = node.figures().await else { continue };
        for (queue, depths) in figures.queues {
            for (precedence, depth) in protocol::Precedence::ALL.iter().zip(depths) {
                if depth.messages > 0 {
                    rows.push(QueueRow {
                        node: node.name.clone(),
                        queue: queue.clone(),
                        precedence: precedence.word(),
                        messages: depth.messages,
                        bytes: depth.bytes,
                        oldest_age_s: depth.oldest_age_ms as f64 / 1000.0,
                    });
                }
            }
        }
    }
    HttpResponse::Ok().json(rows)
}

/// An order to a drill.
#[derive(Deserialize)]
struct DrillOrder {
    fault: String,
    actor: String,
    node: Option<String>,
    #[serde(default = "once")]
    times: u32,
    #[serde(default)]
    every_ms: u64,
}

fn once() -> u32 {
    1
}

async fn order_drill(
    request: HttpRequest,
    operator: web::Data<Operator>,
    body: web::Bytes,
) -> HttpResponse {
    if let Some(refused) = refuse_stranger(&request, &operator) {
        return refused;
    }
    let order: DrillOrder = match read(&body) {
        Ok(order) => order,
        Err(refused) => return refused,
    };
    if !operator.drills {
        return problem(403, "denied", "drills run only under up, or node --drills");
    }
    let fault = match order.fault.as_str() {
        "panic" => Fault::Panic,
        "hang" => Fault::Hang(HANG),
        "stop" => Fault::Stop,
        _ => return problem(400, "malformed", "fault is one of panic hang stop"),
    };
    if order.times > DRILL_TIMES_MAX || order.every_ms > DRILL_EVERY_MS_MAX {
        return problem(413, "too_large", "times at most 10000, every_ms at most 60000");
    }
    let actor = match &order.node {
        Some(node) if !order.actor.contains('/') => match path_of(node, &order.actor) {
            Some(path) => path,
            None => return problem(404, "not_found", "that node has no actor of that name"),
        },
        _ => order.actor.clone(),
    };
    let mut told = 0;
    for time in 0..order.times {
        match drill::order(&actor, fault) {
            Ok(actors) => told += actors,
            Err(error) => return problem(404, "not_found", &error.to_string()),
        }
        if time + 1 < order.times {
            tokio::time::sleep(Duration::from_millis(order.every_ms)).await;
        }
    }
    HttpResponse::Ok().json(json!({"actor": actor, "fault": order.fault, "told": told}))
}

/// Full path of the actor of that name in a node's tree.
fn path_of(node: &str, actor: &str) -> Option<String> {
    fn find(tree: &serde_json::Value, path: &str, actor: &str) -> Option<String> {
        let name = tree.get("name")?.as_str()?;
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        if name == actor {
            return Some(path);
        }
        tree.get("children")?.as_array()?.iter().find_map(|child| find(child, &path, actor))
    }
    let trees = serde_json::to_value(supervision::tree()).ok()?;
    let mut trees = trees.as_array()?.iter();
    find(trees.find(|t| t.get("name").and_then(|n| n.as_str()) == Some(node))?, "", actor)
}

#[derive(Deserialize)]
struct LogOrder {
    filter: String,
}

async fn log(
    request: HttpRequest,
    operator: web::Data<Operator>,
    body: web::Bytes,
) -> HttpResponse {
    if let Some(refused) = refuse_stranger(&request, &operator) {
        return refused;
    }
    let order: LogOrder = match read(&body) {
        Ok(order) => order,
        Err(refused) => return refused,
    };
    match telemetry::set_filter(&order.filter) {
        Ok(()) => HttpResponse::Ok().json(json!({"filter": order.filter})),
        Err(why) => problem(400, "malformed", &why),
    }
}

async fn sign_in(request: HttpRequest, operator: web::Data<Operator>) -> HttpResponse {
    if let Some(refused) = refuse_stranger(&request, &operator) {
        return refused;
    }
    match operator.sign_in.get() {
        Some(make) => match make() {
            Ok(url) => HttpResponse::Ok().json(json!({"url": url})),
            Err(error) => problem(500, "internal", &error.to_string()),
        },
        None => problem(404, "not_supported", "no portal runs in this process"),
    }
}

async fn nothing() -> HttpResponse {
    problem(
        404,
        "not_found",
        "there are /livez /readyz /healthz /metrics /tree /queue, and with \
        operator.token POST /drill, PUT /log, POST /sign-in",
    )
}

#[allow(clippy::result_large_err, reason = "the answer to a bad order, made once and sent")]
/// An order in JSON. It is read only after the token was looked at.
fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, HttpResponse> {
    serde_json::from_slice(body).map_err(|error| problem(400, "malformed", &error.to_string()))
}

/// Whether the request lacks the operator's token; compared in constant time.
fn refuse_stranger(request: &HttpRequest, operator: &Operator) -> Option<HttpResponse> {
    let header = request.headers().get("authorization").and_then(|v| v.to_str().ok());
    let given = header.and_then(|h| h.strip_prefix("Bearer ")).unwrap_or_default().as_bytes();
    let wanted = operator.token.as_bytes();
    let differs = given.iter().zip(wanted).fold(0, |differs, (a, b)| differs | (a ^ b));
    let same = given.len() == wanted.len() && differs == 0;
    (!same).then(|| problem(401, "unauthenticated", "send operator.token as a bearer token"))
}

fn problem(status: u16, name: &str, detail: &str) -> HttpResponse {
    let code = actix_web::http::StatusCode::from_u16(status)
        .unwrap_or(actix_web::http::StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(code).content_type("application/problem+json").body(
        json!({"type": format!("/problems/{name}"), "title": name, "status": status,
            "detail": detail, "instance": uuid::Uuid::now_v7(), "verdict": "give_up"})
        .to_string(),
    )
}
