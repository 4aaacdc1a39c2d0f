//! The operator's door: plain HTTP on loopback, because probes must work when certificates do not.
mod instances;
mod problem;
mod queue;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, Error, HttpRequest, HttpResponse, HttpServer, Resource, Route,
    dev::{Server, ServerHandle},
    http::header,
    web,
};
use protocol::Refusal;
use serde::Deserialize;
use serde_json::json;
use supervision::drill::{self, Fault};

use self::problem::{Name, problem, refused};
use crate::{
    health::NodeHealth,
    integrator_metrics,
    launch::{self, LaunchError},
    node_view::Nodes,
    telemetry,
};

/// Largest body, bytes: a filter or an order.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Times one order repeats a drill.
const DRILL_TIMES_MAX: u32 = 10_000;
/// Longest wait between two, ms.
const DRILL_EVERY_MS_MAX: u64 = 60_000;
/// Farthest that a drill sets the clock off, s: ten years, which DESIGN §5 tolerates.
pub const CLOCK_OFF_S_MAX: i64 = 10 * 366 * 86_400;
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
            .service(read("/livez", web::get().to(livez)))
            .service(read("/readyz", web::get().to(readyz)))
            .service(read("/healthz", web::get().to(healthz)))
            .service(read("/metrics", web::get().to(metrics)))
            .service(read("/tree", web::get().to(tree)))
            .service(read("/queue", web::get().to(queue::queue)))
            .service(read("/instances", web::get().to(instances::instances)))
            .service(changed("/drill", "POST", web::post().to(order_drill)))
            .service(changed("/log", "PUT", web::put().to(log)))
            .service(changed("/sign-in", "POST", web::post().to(sign_in)))
            .default_service(web::to(nothing))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .listen(listener)?
    .run();
    Ok(OperatorServer { address, handle: server.handle(), server })
}

/// A path that is read.
fn read(path: &str, route: Route) -> Resource {
    changed(path, "GET", route)
}

/// A path with the one method it takes.
fn changed(path: &str, method: &'static str, route: Route) -> Resource {
    let other = move |request: HttpRequest| async move {
        let detail = format!("{} takes {method}", request.path());
        let mut answer = problem(&request, Name::Method, &detail);
        answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(method));
        answer
    };
    web::resource(path).route(route).default_service(web::to(other))
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

/// An order to a drill.
#[derive(Deserialize)]
struct DrillOrder {
    fault: String,
    /// Of every fault but `clock`.
    #[serde(default)]
    actor: String,
    /// Of the fault `clock`: how far from the machine's.
    #[serde(default)]
    off_by_s: i64,
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
    body: Result<web::Bytes, Error>,
) -> HttpResponse {
    if let Some(refused) = refuse_stranger(&request, &operator) {
        return refused;
    }
    let order: DrillOrder = match order_in(&request, body) {
        Ok(order) => order,
        Err(refused) => return refused,
    };
    if !operator.drills {
        return refused(&request, Refusal::Denied, "drills run only under up, or node --drills");
    }
    if order.fault == "clock" {
        if order.off_by_s.abs() > CLOCK_OFF_S_MAX {
            return refused(&request, Refusal::TooLarge, "off_by_s at most ten years");
        }
        launch::set_clock_off(order.off_by_s * 1000);
        return HttpResponse::Ok().json(json!({"fault": "clock", "off_by_s": order.off_by_s}));
    }
    let fault = match order.fault.as_str() {
        "panic" => Fault::Panic,
        "hang" => Fault::Hang(HANG),
        "stop" => Fault::Stop,
        _ => return refused(&request, Refusal::Malformed, "fault is one of panic hang stop clock"),
    };
    if order.times > DRILL_TIMES_MAX || order.every_ms > DRILL_EVERY_MS_MAX {
        return refused(&request, Refusal::TooLarge, "times at most 10000, every_ms at most 60000");
    }
    let actor = match &order.node {
        Some(node) if !order.actor.contains('/') => match path_of(node, &order.actor) {
            Some(path) => path,
            None => {
                return problem(&request, Name::NotFound, "that node has no actor of that name");
            }
        },
        _ => order.actor.clone(),
    };
    let mut told = 0;
    for time in 0..order.times {
        match drill::order(&actor, fault) {
            Ok(actors) => told += actors,
            Err(error) => return problem(&request, Name::NotFound, &error.to_string()),
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
    body: Result<web::Bytes, Error>,
) -> HttpResponse {
    if let Some(refused) = refuse_stranger(&request, &operator) {
        return refused;
    }
    let order: LogOrder = match order_in(&request, body) {
        Ok(order) => order,
        Err(refused) => return refused,
    };
    match telemetry::set_filter(&order.filter) {
        Ok(()) => HttpResponse::Ok().json(json!({"filter": order.filter})),
        Err(why) => refused(&request, Refusal::Malformed, &why),
    }
}

async fn sign_in(request: HttpRequest, operator: web::Data<Operator>) -> HttpResponse {
    if let Some(refused) = refuse_stranger(&request, &operator) {
        return refused;
    }
    match operator.sign_in.get() {
        Some(make) => match make() {
            Ok(url) => HttpResponse::Ok().json(json!({"url": url})),
            Err(error) => refused(&request, Refusal::Internal, &error.to_string()),
        },
        None => problem(&request, Name::NotFound, "no portal runs in this process"),
    }
}

async fn nothing(request: HttpRequest) -> HttpResponse {
    problem(
        &request,
        Name::NotFound,
        "there are /livez /readyz /healthz /metrics /tree /queue /instances, and \
        with operator.token POST /drill, PUT /log, POST /sign-in",
    )
}

#[allow(clippy::result_large_err, reason = "the answer to a bad order, made once and sent")]
/// An order in JSON. It is read only after the token was looked at.
fn order_in<T: serde::de::DeserializeOwned>(
    request: &HttpRequest,
    body: Result<web::Bytes, Error>,
) -> Result<T, HttpResponse> {
    let body = body.map_err(|_| {
        let detail = format!("an order has at most {BODY_BYTES_MAX} bytes");
        refused(request, Refusal::TooLarge, &detail)
    })?;
    serde_json::from_slice(&body)
        .map_err(|error| refused(request, Refusal::Malformed, &error.to_string()))
}

/// Whether the request lacks the operator's token; compared in constant time.
fn refuse_stranger(request: &HttpRequest, operator: &Operator) -> Option<HttpResponse> {
    let header = request.headers().get("authorization").and_then(|v| v.to_str().ok());
    let given = header.and_then(|h| h.strip_prefix("Bearer ")).unwrap_or_default().as_bytes();
    let wanted = operator.token.as_bytes();
    let differs = given.iter().zip(wanted).fold(0, |differs, (a, b)| differs | (a ^ b));
    let same = given.len() == wanted.len() && differs == 0;
    (!same).then(|| {
        let detail = "send the content of operator.token: Authorization: Bearer TOKEN";
        problem(request, Name::Unauthenticated, detail)
    })
}
