//! What is answered when the answer is no: RFC 9457 problems with a stable name and a verdict.
use std::fmt;

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use extension::records::RecordsError;
use protocol::{Refusal, Verdict};
use serde::Serialize;

/// Seconds a client waits when nothing better is known: one heartbeat of a busy disk or queue.
pub const RETRY_AFTER_S: u32 = 2;
/// Entries of `errors`: more do not help anybody to mend a request.
pub const ERRORS_MAX: usize = 16;

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// Query parameter, or JSON pointer into the body.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl Wrong {
    /// Of a parameter or pointer.
    pub fn at(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// A request refused (contract §5): names as §6, and `unauthenticated`, `not_found`, `conflict`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The stable name behind `/problems/`.
    pub name: &'static str,
    /// HTTP status.
    pub status: u16,
    /// What is wrong here and how to mend it.
    pub detail: String,
    /// What the client does.
    pub verdict: Verdict,
    /// Which parameters or fields are wrong.
    pub errors: Vec<Wrong>,
    /// Seconds, sent as `Retry-After`.
    pub retry_after_s: Option<u32>,
}

impl Problem {
    fn new(name: &'static str, status: u16, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self {
            name,
            status,
            detail: detail.into(),
            verdict,
            errors: Vec::new(),
            retry_after_s: matches!(status, 429 | 503).then_some(RETRY_AFTER_S),
        }
    }

    /// 400, with all that is wrong at once.
    pub fn malformed(mut errors: Vec<Wrong>) -> Self {
        errors.truncate(ERRORS_MAX);
        let detail = errors
            .iter()
            .map(|wrong| format!("{}: {}", wrong.pointer, wrong.detail))
            .collect::<Vec<_>>()
            .join("; ");
        Self { errors, ..Self::new("malformed", 400, Verdict::GiveUp, detail) }
    }

    /// 401: no token, or one that is not known.
    pub fn unauthenticated() -> Self {
        let detail = "send the header \"Authorization: Bearer TOKEN\" with the content of \
                      operator.token in the server's data directory";
        Self::new("unauthenticated", 401, Verdict::GiveUp, detail)
    }

    /// 404.
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new("not_found", 404, Verdict::GiveUp, format!("there is no {what}"))
    }

    /// 405: the path is there, the method is not.
    pub fn method(detail: impl Into<String>) -> Self {
        Self::new("not_supported", 405, Verdict::GiveUp, detail)
    }

    /// 409: not in this state.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new("conflict", 409, Verdict::GiveUp, detail)
    }

    /// 413: a body above its limit, bytes.
    pub fn too_large(limit_bytes: usize) -> Self {
        let detail = format!("the body is larger than {limit_bytes} bytes");
        Self::new("too_large", 413, Verdict::GiveUp, detail)
    }

    /// 429, and when to come again.
    pub fn busy(detail: impl Into<String>, retry_after_s: u32) -> Self {
        let busy = Self::new("busy", 429, Verdict::TryAgain, detail);
        Self { retry_after_s: Some(retry_after_s.max(1)), ..busy }
    }

    /// Any refusal of the protocol, with the status of contract §6.
    pub fn refused(refusal: Refusal, detail: impl Into<String>) -> Self {
        Self::new(refusal.name(), refusal.http_status(), refusal.verdict(), detail)
    }

    /// Of what the records say; `what` stands in the place of what was not found.
    pub fn of(error: RecordsError, what: &str) -> Self {
        match error {
            RecordsError::NotFound => Self::not_found(what),
            RecordsError::BadRequest { field, detail } => {
                Self::malformed(vec![Wrong::at(field, detail)])
            }
            RecordsError::Conflict(detail) => Self::conflict(detail),
            RecordsError::Busy => Self::busy("too much at once; ask again in a second", 1),
            RecordsError::StorageDown(why) => {
                let (_, advice) = Refusal::StorageDown.words();
                Self::refused(Refusal::StorageDown, format!("{why}: {advice}"))
            }
        }
    }

    /// The answer; `request` is the id that also stands in the log.
    pub fn answer(&self, request: &str) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = HttpResponse::build(status);
        answer.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        answer.insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(seconds) = self.retry_after_s {
            answer.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if self.status == 401 {
            answer.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"callhome\""));
        }
        answer.body(self.body(request))
    }

    /// The JSON body.
    pub fn body(&self, request: &str) -> String {
        let mut body = serde_json::json!({
            "type": format!("/problems/{}", self.name),
            "title": title(self.name),
            "status": self.status,
            "detail": self.detail,
            "instance": request,
            "verdict": self.verdict,
        });
        if let (Some(object), false) = (body.as_object_mut(), self.errors.is_empty()) {
            object.insert("errors".to_owned(), serde_json::json!(self.errors));
        }
        body.to_string()
    }
}

/// The sentence that is the same for every problem of that name.
pub(crate) fn title(name: &str) -> &'static str {
    match name {
        "malformed" => "The request is malformed",
        "unauthenticated" => "The token is missing or not known",
        "denied" | "identity_mismatch" => "This is not allowed",
        "not_found" => "There is no such thing",
        "not_supported" => "This is not supported",
        "conflict" => "It is not in that state",
        "too_large" => "The request is too large",
        "unknown_instance" => "The instance is not known",
        "unknown_destination" => "The target is not known",
        "busy" => "Too many requests",
        "storage_down" => "The store cannot be used now",
        "stopping" => "The server is stopping",
        "queue_full" => "The queue is full",
        "unknown_version" => "The version is not spoken here",
        "loop" => "The message went in a circle",
        "expired" => "The time to live ran out",
        "poison" => "A service module failed at the message",
        "not_registered" => "The node is not registered yet",
        "name_in_use" => "The name is in use",
        "moved" => "The records are elsewhere",
        "new_incarnation" => "The numbers of the sender are not known",
        _ => "The server could not do it",
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        self.answer(&uuid::Uuid::now_v7().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_its_name_verdict_and_every_wrong_parameter() {
        let problem =
            Problem::malformed(vec![Wrong::at("limit", "is \"x\""), Wrong::at("wat", "unknown")]);
        let body: serde_json::Value = serde_json::from_str(&problem.body("r1")).expect("JSON");
        assert_eq!(body["type"], "/problems/malformed");
        assert_eq!(body["status"], 400);
        assert_eq!(body["verdict"], "give_up");
        assert_eq!(body["instance"], "r1");
        assert_eq!(body["errors"][1]["pointer"], "wat");
        assert!(body["title"].is_string() && body["detail"].is_string());
    }

    #[test]
    fn what_may_be_tried_again_says_when() {
        for problem in [
            Problem::busy("too fast", 0),
            Problem::refused(Refusal::StorageDown, "the disk is full"),
            Problem::refused(Refusal::Stopping, "going down"),
        ] {
            let answer = problem.answer("r");
            assert!(answer.headers().contains_key(header::RETRY_AFTER), "{problem}");
            assert_eq!(problem.verdict, Verdict::TryAgain);
        }
        assert!(Problem::unauthenticated().answer("r").headers().contains_key("www-authenticate"));
    }
}
