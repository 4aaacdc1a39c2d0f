//! Passes `/api` on to the application server: one origin for portal and API (DESIGN §13).
use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use futures_util::TryStreamExt;

use crate::{Portal, guard};

/// Largest body that is passed on: the API's own limit.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Where a session's page puts its form token in a request to the API.
pub const CSRF_HEADER: &str = "x-callhome-csrf";
/// Seconds until a server that does not answer is asked again: it may be starting.
const RETRY_AFTER_S: u32 = 5;
/// Headers that are passed on to the server.
const UP: &[&str] = &[
    "accept",
    "accept-encoding",
    "authorization",
    "content-type",
    "content-encoding",
    "idempotency-key",
    "if-none-match",
    "if-match",
    "last-event-id",
    "range",
    "traceparent",
    "user-agent",
];
/// Headers between two neighbours only: not passed on to the client.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
];

/// Anything under `/api`, and `/problems/NAME`.
pub(crate) async fn pass_on(
    request: HttpRequest,
    portal: web::Data<Portal>,
    body: web::Bytes,
) -> HttpResponse {
    let session = guard::session(&request, &portal);
    let has_token = request.headers().contains_key(header::AUTHORIZATION);
    let reads = request.method().is_safe();
    if let Some(session) = session.as_ref().filter(|_| !has_token && !reads) {
        let csrf = request.headers().get(CSRF_HEADER).and_then(|value| value.to_str().ok());
        if !guard::is_ours(&request, session, csrf) {
            let detail = format!("send the form token of your session as {CSRF_HEADER}");
            let title = ("denied", "This is not allowed");
            return problem(&request, StatusCode::FORBIDDEN, title, "give_up", &detail);
        }
    }
    let Ok(method) = reqwest::Method::from_bytes(request.method().as_str().as_bytes()) else {
        let title = ("not_supported", "This is not supported");
        let detail = "the server knows no such method";
        return problem(&request, StatusCode::METHOD_NOT_ALLOWED, title, "give_up", detail);
    };
    let path = request.uri().path_and_query().map_or("/api", |path| path.as_str());
    let mut up = portal.source.bare(method, path);
    for (name, value) in request.headers() {
        if UP.contains(&name.as_str()) {
            up = up.header(name.as_str(), value.as_bytes());
        }
    }
    if session.is_some() && !has_token {
        up = up.bearer_auth(portal.source.token());
    }
    if !body.is_empty() {
        up = up.body(body);
    }
    match up.send().await {
        Ok(answer) => down(answer),
        Err(error) => {
            tracing::warn!(%error, "a request could not be passed on");
            let detail = "the application server does not answer; ask again";
            let title = ("stopping", "The application server does not answer");
            problem(&request, StatusCode::SERVICE_UNAVAILABLE, title, "try_again", detail)
        }
    }
}

/// The answer as it comes, so that streams stay streams.
fn down(answer: reqwest::Response) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut out = HttpResponse::build(status);
    for (name, value) in answer.headers() {
        if !HOP_BY_HOP.contains(&name.as_str()) {
            out.append_header((name.as_str(), value.as_bytes()));
        }
    }
    // To HEAD the length is that of what GET would give: the header's, not that of the body.
    let told = answer.headers().get(header::CONTENT_LENGTH.as_str());
    let told = told.and_then(|value| value.to_str().ok()?.parse().ok());
    let length = told.or_else(|| answer.content_length());
    let body = answer.bytes_stream().map_err(|error| {
        tracing::debug!(%error, "an answer of the application server ended early");
        std::io::Error::other("the application server's answer ended early")
    });
    match length {
        Some(length) => out.no_chunking(length).streaming(body),
        None => out.streaming(body),
    }
}

/// A refusal in the API's form (RFC 9457): its name and title, what is wrong and how to mend it.
pub(crate) fn problem(
    request: &HttpRequest,
    status: StatusCode,
    (name, title): (&str, &str),
    verdict: &str,
    detail: &str,
) -> HttpResponse {
    let mut out = HttpResponse::build(status);
    out.insert_header((header::CACHE_CONTROL, "no-store"));
    if matches!(status.as_u16(), 429 | 503) {
        out.insert_header((header::RETRY_AFTER, RETRY_AFTER_S.to_string()));
    }
    let body = serde_json::json!({
        "type": format!("/problems/{name}"), "title": title, "status": status.as_u16(),
        "detail": detail, "instance": request.path(), "verdict": verdict,
    });
    out.content_type("application/problem+json").body(body.to_string())
}

/// Nobody is signed in.
pub(crate) fn unauthenticated(request: &HttpRequest) -> HttpResponse {
    let detail = "sign in at /sign-in, or send a bearer token";
    let title = ("unauthenticated", "Nobody is signed in");
    let mut answer = problem(request, StatusCode::UNAUTHORIZED, title, "give_up", detail);
    let bearer = header::HeaderValue::from_static("Bearer realm=\"callhome\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
    answer
}
