//! What the operator's door answers when the answer is no: RFC 9457 problems (contract §5, §6).
use actix_web::{HttpRequest, HttpResponse, http::StatusCode, http::header};
use protocol::{Refusal, Verdict};
use serde_json::json;

/// Seconds until who was refused for now may come again: a restart of an actor, a commit.
const RETRY_AFTER_S: u32 = 2;

/// A name that is no refusal between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// A refusal of contract §6, with its status.
    Refused(Refusal),
    /// The path is there, the method is not.
    Method,
    /// No token, or a wrong one.
    Unauthenticated,
    /// Nothing has that name.
    NotFound,
}

impl Name {
    fn parts(self) -> (&'static str, u16, &'static str, Verdict) {
        match self {
            Self::Refused(refusal) => {
                (refusal.name(), refusal.http_status(), refusal.words().0, refusal.verdict())
            }
            Self::Method => {
                let refusal = Refusal::NotSupported;
                (refusal.name(), 405, refusal.words().0, refusal.verdict())
            }
            Self::Unauthenticated => {
                ("unauthenticated", 401, "The token is missing or not known", Verdict::GiveUp)
            }
            Self::NotFound => ("not_found", 404, "There is no such thing", Verdict::GiveUp),
        }
    }
}

/// The document; `detail` says what is wrong here and how to mend it.
pub fn problem(request: &HttpRequest, name: Name, detail: &str) -> HttpResponse {
    let (word, status, title, verdict) = name.parts();
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = HttpResponse::build(code);
    answer.content_type("application/problem+json");
    answer.insert_header((header::CACHE_CONTROL, "no-store"));
    match status {
        429 | 503 => {
            answer.insert_header((header::RETRY_AFTER, RETRY_AFTER_S.to_string()));
        }
        401 => {
            answer.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"callhome\""));
        }
        _ => {}
    }
    let body = json!({
        "type": format!("/problems/{word}"),
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request.path(),
        "verdict": verdict,
    });
    answer.body(body.to_string())
}

/// A refusal of contract §6.
pub fn refused(request: &HttpRequest, refusal: Refusal, detail: &str) -> HttpResponse {
    problem(request, Name::Refused(refusal), detail)
}
