//! Around every request: its id, the token, the rate, security headers, problems for all errors.
use std::time::Instant;

use actix_web::{
    Error, HttpMessage, HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{StatusCode, header},
    middleware::Next,
    web,
};
use uuid::Uuid;

use crate::{
    Api, BODY_BYTES_MAX,
    problem::Problem,
    tokens::{Caller, bearer},
};

/// Headers of every answer: nothing here is a page, and no other origin may read it.
const SECURITY: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; sandbox"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
];

/// Gives each request an id, and each error the form of a problem.
pub(crate) async fn around(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let id = Uuid::now_v7().to_string();
    // An error here is none of a handler's: those come as answers that hold their error.
    let response = match next.call(request).await {
        Ok(response) => response.map_into_boxed_body(),
        Err(error) => return Err(problem(&error).into()),
    };
    let told = response.response().error().map(problem);
    let mut response = match told {
        Some(problem) => {
            let answer = refused(&id, &problem);
            let kept = response.headers().get(header::ALLOW).cloned();
            let mut response = response.into_response(answer);
            if let Some(allow) = kept {
                response.headers_mut().insert(header::ALLOW, allow);
            }
            response
        }
        None => response,
    };
    for (name, value) in SECURITY {
        response
            .headers_mut()
            .insert(header::HeaderName::from_static(name), header::HeaderValue::from_static(value));
    }
    Ok(response)
}

fn refused(id: &str, problem: &Problem) -> HttpResponse {
    if problem.status >= 500 {
        tracing::warn!(request = id, refusal = problem.name, detail = %problem.detail, "refused");
    } else {
        tracing::debug!(request = id, refusal = problem.name, detail = %problem.detail, "refused");
    }
    problem.answer(id)
}

/// The problem in an error of a handler or of actix itself.
fn problem(error: &Error) -> Problem {
    if let Some(problem) = error.as_error::<Problem>() {
        return problem.clone();
    }
    match error.as_response_error().status_code() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(BODY_BYTES_MAX),
        status if status.is_client_error() => {
            Problem::malformed(vec![crate::problem::Wrong::at("", error.to_string())])
        }
        _ => Problem::refused(protocol::Refusal::Internal, "see the server's log"),
    }
}

/// Lets in who has a token, as often as its rate allows.
pub(crate) async fn authenticated(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match admitted(&request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.call(request).await.map(ServiceResponse::map_into_boxed_body)
        }
        Err(problem) => Ok(request.into_response(HttpResponse::from_error(problem))),
    }
}

fn admitted(request: &ServiceRequest) -> Result<Caller, Problem> {
    let Some(api) = request.app_data::<web::Data<Api>>() else {
        return Err(Problem::refused(protocol::Refusal::Internal, "not configured"));
    };
    let caller = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(bearer)
        .and_then(|token| api.tokens.caller(token))
        .ok_or_else(Problem::unauthenticated)?;
    api.tokens.take(&caller, Instant::now()).map_err(|seconds| {
        let rate = crate::tokens::REQUESTS_PER_S;
        Problem::busy(format!("more than {rate} requests a second with this token"), seconds)
    })?;
    Ok(caller)
}

/// Who asks; `authenticated` has seen to it that there is somebody.
pub(crate) fn caller(request: &HttpRequest) -> Result<Caller, Problem> {
    request.extensions().get::<Caller>().cloned().ok_or_else(Problem::unauthenticated)
}
