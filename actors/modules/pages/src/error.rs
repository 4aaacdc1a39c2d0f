//! Pages that say no: what is safe, what is not, what to do.
use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use maud::{Markup, html};

use crate::{layout, source::SourceError};

/// Seconds after which a page is asked for again.
const RETRY_AFTER_S: u32 = 10;

/// A page in place of the one asked for.
pub(crate) fn page(status: StatusCode, title: &str, text: &Markup) -> HttpResponse {
    let main = html! { h1 { (title) } (text) };
    let mut answer = HttpResponse::build(status);
    answer.insert_header((header::CACHE_CONTROL, "no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.insert_header((header::RETRY_AFTER, RETRY_AFTER_S.to_string()));
    }
    answer.content_type("text/html; charset=utf-8").body(layout::bare(title, &main))
}

/// Nothing is here.
pub(crate) fn not_found() -> HttpResponse {
    let text = html! {
        p { "Nothing has this address or id. It may be mistyped, or the message is not stored \
             yet." }
        p { a href="/" { "Overview" } ", " a href="/alarms" { "alarms" } ", "
            a href="/messages" { "messages" } }
    };
    page(StatusCode::NOT_FOUND, "Not found", &text)
}

/// A form that did not come from a page of this session.
pub(crate) fn forged() -> HttpResponse {
    let text = html! {
        p { "Nothing was changed. The form was not from a page of this session: it was open since \
             before you signed in, or another site sent it." }
        p { a href="/" { "Open the page anew" } " and try again." }
    };
    page(StatusCode::FORBIDDEN, "Not done", &text)
}

/// A form that says nothing we know.
pub(crate) fn malformed(what: &str) -> HttpResponse {
    let text = html! {
        div.note.bad role="alert" { p { (what) } }
        p { "Nothing was changed. " a href="/" { "Overview" } }
    };
    page(StatusCode::BAD_REQUEST, "This cannot be read", &text)
}

/// Why there is nothing to show.
pub(crate) fn of(error: &SourceError, path: &str) -> HttpResponse {
    match error {
        SourceError::Unreachable => unreachable(),
        SourceError::Problem { status: 404, .. } => not_found(),
        SourceError::Problem { status: 400, detail, .. } => {
            let text = html! {
                div.note.bad role="alert" { p { (detail) } }
                p { a href=(path) { "The same page without filters" } }
            };
            page(StatusCode::BAD_REQUEST, "This filter cannot be used", &text)
        }
        SourceError::Problem { status: 409, detail, .. } => {
            let text = html! {
                div.note.bad role="alert" { p { (detail) } }
                p { a href=(path) { "How it is now" } }
            };
            page(StatusCode::CONFLICT, "Not done", &text)
        }
        SourceError::Problem { status, name, detail } => {
            tracing::warn!(status, name, detail, "the application server refuses the portal");
            let text = html! {
                p { "The application server refuses to answer the portal." }
                div.note.bad role="alert" { p { (status) " " (name) ": " (detail) } }
                @if *status == 401 { p { "The portal’s token is not the server’s: check the \
                                          operator.token that it was started with." } }
                p { a href=(path) { "Ask again" } }
            };
            page(StatusCode::BAD_GATEWAY, "Refused", &text)
        }
        SourceError::Strange(detail) => {
            tracing::warn!(detail, "an answer that the portal does not understand");
            let text = html! {
                p { "The application server answered what this portal does not understand; their \
                     versions may be too far apart (N speaks with N−1 and N+1)." }
                p { a href=(path) { "Ask again" } }
            };
            page(StatusCode::BAD_GATEWAY, "Not understood", &text)
        }
    }
}

fn unreachable() -> HttpResponse {
    let text = html! {
        p { "The application server does not answer, and this portal has not read this page \
             before. It cannot show alarms, instances or messages now." }
        div.note { b { "No message is lost by this." }
            " The nodes below queue on disk what arrives, and send it when the server is back." }
        section aria-labelledby="do" {
            h2 id="do" { "What to do" }
            ol.steps {
                li { "On its machine, ask its own door: "
                    pre { "curl http://127.0.0.1:7070/healthz?verbose" } }
                li { "If nothing answers, start it again." }
                li { "If it tells of a damaged store, look before you restart: "
                    pre { "callhome check --data DIR" } }
            }
        }
        p.mt { a href="" { "Ask again" } }
    };
    page(StatusCode::SERVICE_UNAVAILABLE, "The application server does not answer", &text)
}
