//! How a yes is written: JSON with an entity tag, pages with a link to the next one.
use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
};
use bytes::Bytes;
use extension::records::{FromNodes, Page};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    problem::Problem,
    query::{decode, encode},
};

/// JSON of `value`.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<Bytes, Problem> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| {
        Problem::refused(protocol::Refusal::Internal, format!("no JSON of it: {error}"))
    })
}

/// 200 with JSON, or 304 where the client has this very state.
pub(crate) fn shown<T: Serialize>(request: &HttpRequest, value: &T) -> Answered {
    let body = json(value)?;
    Ok(tagged(request, "application/json", body))
}

/// What a handler gives.
pub(crate) type Answered = Result<HttpResponse, Problem>;

/// A page: as `shown`, with `Link: rel=next` where there is more (RFC 8288).
pub(crate) fn page<T: Serialize>(request: &HttpRequest, page: &Page<T>) -> Answered {
    let mut answer = shown(request, page)?;
    if let Some(next) = &page.next {
        let link = format!("<{}>; rel=\"next\"", next_url(request, next));
        if let Ok(link) = header::HeaderValue::from_str(&link) {
            answer.headers_mut().insert(header::LINK, link);
        }
    }
    Ok(answer)
}

/// Nodes named in a header at most: it stays below what middle boxes take.
const NAMED_MAX: usize = 50;

/// Says beside the answer who of the nodes that were asked said nothing, and where a message
/// stands: `Callhome-Unanswered-Count`, `Callhome-Unanswered`, `Callhome-Queue`,
/// `Callhome-Attempts`.
pub(crate) fn beside<T>(mut answer: HttpResponse, from: &FromNodes<T>) -> HttpResponse {
    let mut add = |name: &'static str, value: String| {
        if let Ok(value) = header::HeaderValue::from_str(&value) {
            answer.headers_mut().insert(header::HeaderName::from_static(name), value);
        }
    };
    if let Some(unanswered) = &from.unanswered {
        add("callhome-unanswered-count", unanswered.len().to_string());
        let named: Vec<String> =
            unanswered.iter().take(NAMED_MAX).map(|id| id.to_string()).collect();
        if !named.is_empty() {
            add("callhome-unanswered", named.join(", "));
        }
    }
    if let Some(stands) = &from.stands {
        // A name of an integrator may hold what a header may not.
        let plain = |c: char| if c.is_ascii_graphic() { c } else { '?' };
        add("callhome-queue", stands.queue.chars().map(plain).collect());
        add("callhome-attempts", stands.attempts.to_string());
    }
    answer
}

/// The same request with another cursor.
fn next_url(request: &HttpRequest, cursor: &str) -> String {
    let is_cursor = |part: &&str| {
        decode(part.split('=').next().unwrap_or(""), true).as_deref() == Some("cursor")
    };
    let mut parts: Vec<String> = request
        .query_string()
        .split('&')
        .filter(|part| !part.is_empty() && !is_cursor(part))
        .map(str::to_owned)
        .collect();
    parts.push(format!("cursor={}", encode(cursor)));
    format!("{}?{}", request.uri().path(), parts.join("&"))
}

/// `body` under its entity tag, to be asked for again each time (a token's answer is private).
pub(crate) fn tagged(request: &HttpRequest, media: &'static str, body: Bytes) -> HttpResponse {
    let tag = format!("\"{:032x}\"", xxh3_128(&body));
    let held = request
        .headers()
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|held| matches(held, &tag));
    let status = if held { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut answer = HttpResponse::build(status);
    answer.insert_header((header::ETAG, tag));
    answer.insert_header((header::CACHE_CONTROL, "private, no-cache"));
    answer.insert_header((header::VARY, "Authorization"));
    if held {
        return answer.finish();
    }
    answer.insert_header((header::CONTENT_TYPE, media));
    answer.body(body)
}

/// If-None-Match compares weakly (RFC 9110 §13.1.2).
fn matches(held: &str, tag: &str) -> bool {
    held.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_compared_weakly() {
        let tag = "\"abc\"";
        for (held, right) in [
            ("\"abc\"", true),
            ("W/\"abc\"", true),
            ("\"x\", \"abc\"", true),
            ("*", true),
            ("\"ab\"", false),
            ("abc", false),
            ("", false),
        ] {
            assert_eq!(matches(held, tag), right, "{held}");
        }
    }

    #[test]
    fn the_link_keeps_the_filters_and_replaces_the_cursor() {
        let request =
            actix_web::test::TestRequest::with_uri("/api/v1/alarms?type=a&cursor=x&limit=2")
                .to_http_request();
        assert_eq!(next_url(&request, "y/1"), "/api/v1/alarms?type=a&limit=2&cursor=y%2F1");
    }
}
