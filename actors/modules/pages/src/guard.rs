//! Who asks, from where; and the headers of every answer of the portal itself.
use actix_web::{
    Error, HttpRequest,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{HeaderName, HeaderValue},
    middleware::Next,
};

use crate::{Portal, session::Session};

/// The name of a session's cookie.
pub(crate) const COOKIE: &str = "callhome_session";

/// Headers of every page (design notes): no inline script, nothing from elsewhere, no frames.
const SECURITY: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'self'; img-src 'self' data:; style-src 'self'; style-src-attr \
         'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// Adds them where the answer does not say so itself: what the API says of its answers stands.
pub(crate) async fn headers(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let mut answer = next.call(request).await?;
    let headers = answer.headers_mut();
    for (name, value) in SECURITY {
        let name = HeaderName::from_static(name);
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    Ok(answer)
}

/// Who is signed in.
pub(crate) fn session(request: &HttpRequest, portal: &Portal) -> Option<Session> {
    let cookie = request.cookie(COOKIE)?;
    portal.sessions().of(cookie.value(), crate::now_ms())
}

/// Whether a change comes from our own pages, as far as the browser says.
pub(crate) fn is_same_origin(request: &HttpRequest) -> bool {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    if header("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return false;
    }
    match header("origin") {
        None => true,
        Some(origin) => {
            let host = header("host").unwrap_or_default();
            origin.split_once("://").is_some_and(|(_, from)| from == host)
        }
    }
}

/// Whether a change comes from a page of this session.
pub(crate) fn is_ours(request: &HttpRequest, session: &Session, csrf: Option<&str>) -> bool {
    is_same_origin(request) && csrf.is_some_and(|csrf| session.is_mine(csrf))
}
