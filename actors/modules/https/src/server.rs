//! The parent's side of an exchange: one actix-web route.
use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::{Server, ServerHandle, Service as _},
    http::{StatusCode, header},
    web,
};
use bytes::{Bytes, BytesMut};
use extension::communications::{Door, Peer};
use futures_util::StreamExt;
use protocol::{Refusal, Verdict, limits};
use tracing::{Instrument, Span};

use crate::{EXCHANGE_PATH, MEDIA_TYPE};

/// How long a request's head and body may take: a 2 MiB body over 64 kB/s.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);
/// Open connections of one door: ten thousand proxies that each hold one, and slack.
const CONNECTIONS_MAX: usize = 25_000;
/// Bytes reserved for a body before it comes: a full batch, so that its buffer does not grow.
const RESERVED_BYTES_MAX: usize = limits::BATCH_BYTES_MAX + (64 << 10);
/// What a child that was refused for now waits, seconds.
const RETRY_AFTER_S: u32 = 1;

/// A door that serves.
pub struct DoorServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Ends it.
    pub handle: ServerHandle,
    server: Server,
}

/// Why a door does not open.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not of this machine.
    #[error("exchange door cannot listen on {address}: {source}")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl DoorServer {
    /// Serves until the handle stops it.
    pub async fn run(self) -> std::io::Result<()> {
        self.server.await
    }
}

/// Opens a plain door at `address`; port 0 picks a free one.
pub fn serve(address: SocketAddr, door: Arc<dyn Door>) -> Result<DoorServer, ServeError> {
    let failed = |source| ServeError::Bind { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let door: web::Data<dyn Door> = web::Data::from(door);
    // Its workers have threads of their own; what they log stands in the span of who serves.
    let span = Span::current();
    let server = HttpServer::new(move || {
        let span = span.clone();
        App::new()
            .wrap_fn(move |request, next| next.call(request).instrument(span.clone()))
            .app_data(door.clone())
            .service(
                web::resource(EXCHANGE_PATH)
                    .route(web::post().to(exchange))
                    .default_service(web::to(other_method)),
            )
            .default_service(web::to(nothing_here))
    })
    .workers(1)
    .max_connections(CONNECTIONS_MAX)
    .keep_alive(Duration::from_secs(75))
    .client_request_timeout(REQUEST_WITHIN)
    // A child that hangs up is gone: what was held for it is let go at once.
    .h1_allow_half_closed(false)
    .disable_signals()
    .shutdown_timeout(5)
    .listen(listener)
    .map_err(failed)?
    .run();
    Ok(DoorServer { address, handle: server.handle(), server })
}

async fn nothing_here(request: HttpRequest) -> HttpResponse {
    let detail = format!("there is POST {EXCHANGE_PATH}");
    let words = ("There is no such thing", &*detail);
    problem(StatusCode::NOT_FOUND, "not_found", words, Verdict::GiveUp, request.path())
}

async fn other_method(request: HttpRequest) -> HttpResponse {
    let mut answer = refuse(Refusal::NotSupported, StatusCode::METHOD_NOT_ALLOWED, request.path());
    answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST"));
    answer
}

/// `POST /v1/exchange`. The work runs to its end even when the child hangs up: what has begun is
/// committed, and the child learns of it when it asks again.
async fn exchange(
    request: HttpRequest,
    payload: web::Payload,
    door: web::Data<dyn Door>,
) -> HttpResponse {
    let (body, hold) = match asked(&request, payload).await {
        Ok(asked) => asked,
        Err((refusal, status)) => {
            door.turned_away(refusal);
            return refuse(refusal, status, request.path());
        }
    };
    let peer = Peer { id: None, address: request.peer_addr() };
    let knocked = door.clone();
    let knock = async move { knocked.knock(peer, body, hold).await };
    let work = actix_web::rt::spawn(knock.in_current_span());
    // What is held for a child that is gone would take the next ring, and answer nobody.
    let _held = (!hold.is_zero()).then(|| AbortOnDrop(work.abort_handle()));
    let refusal = match work.await {
        Ok(Ok(answer)) => return HttpResponse::Ok().content_type(MEDIA_TYPE).body(answer),
        Ok(Err(refusal)) => refusal,
        Err(_panicked) => {
            door.turned_away(Refusal::Internal);
            Refusal::Internal
        }
    };
    refuse(refusal, status_of(refusal), request.path())
}

/// The body of a request and how long it may be held, or why it is none for this door.
async fn asked(
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(Bytes, Duration), (Refusal, StatusCode)> {
    const FORM: (Refusal, StatusCode) = (Refusal::NotSupported, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    if header("content-type").is_none_or(|t| t.split(';').next() != Some(MEDIA_TYPE)) {
        return Err(FORM);
    }
    let hold = header("prefer").and_then(|p| p.strip_prefix("wait=")?.parse().ok());
    let hold = Duration::from_secs(hold.unwrap_or(0).min(limits::HELD_S_MAX));
    let zstd = match header("content-encoding") {
        None | Some("identity") => false,
        Some("zstd") => true,
        Some(_) => return Err(FORM),
    };
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let body =
        read(payload, length, zstd).await.map_err(|refusal| (refusal, status_of(refusal)))?;
    Ok((body, hold))
}

/// Ends a task with the request that waits for it.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads a body of at most `EXCHANGE_BYTES_MAX`, also after decompression. `length` is what the
/// child says it has, or 0.
async fn read(mut payload: web::Payload, length: usize, zstd: bool) -> Result<Bytes, Refusal> {
    let mut body = BytesMut::with_capacity(length.min(RESERVED_BYTES_MAX));
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Refusal::Malformed)?;
        if body.len() + chunk.len() > limits::EXCHANGE_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    if !zstd {
        return Ok(body.freeze());
    }
    let plain = zstd::bulk::decompress(&body, limits::EXCHANGE_BYTES_MAX);
    plain.map(Bytes::from).map_err(|_| Refusal::Malformed)
}

/// HTTP status of a refusal (contract §6).
fn status_of(refusal: Refusal) -> StatusCode {
    StatusCode::from_u16(refusal.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A refusal as its problem document.
fn refuse(refusal: Refusal, status: StatusCode, path: &str) -> HttpResponse {
    let (title, advice) = refusal.words();
    // What a client of another kind gets wrong at this door is the form of what it sends.
    let advice = match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "send application/msgpack, as it is or with zstd",
        StatusCode::METHOD_NOT_ALLOWED => "exchanges come by POST",
        _ => advice,
    };
    problem(status, refusal.name(), (title, advice), refusal.verdict(), path)
}

/// A problem document (RFC 9457).
fn problem(
    status: StatusCode,
    name: &str,
    (title, detail): (&str, &str),
    verdict: Verdict,
    path: &str,
) -> HttpResponse {
    let mut answer = HttpResponse::build(status);
    answer.content_type("application/problem+json");
    if matches!(status.as_u16(), 429 | 503) {
        answer.insert_header(("retry-after", RETRY_AFTER_S.to_string()));
    }
    let body = serde_json::json!({
        "type": format!("/problems/{name}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "instance": path,
        "verdict": verdict,
    });
    answer.body(body.to_string())
}
