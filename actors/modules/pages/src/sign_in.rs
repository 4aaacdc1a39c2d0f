//! Sign-in: GET shows a button, POST spends the code, so that a preview of the link spends
//! nothing (DESIGN §15).
use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite, time::Duration},
    http::{StatusCode, header},
    web,
};
use maud::{Markup, html};

use crate::{Portal, error, guard, layout, session::SESSION_LIFE_MS, view::Query};

/// `GET /sign-in`, with or without `?code=`.
pub(crate) async fn show(request: HttpRequest, portal: web::Data<Portal>) -> HttpResponse {
    let query = Query::read(request.query_string());
    let to = own_page(query.one("to"));
    let signed_in = guard::session(&request, &portal).is_some();
    match query.one("code") {
        Some(code) if portal.sessions().is_good(code, crate::now_ms()) => {
            page(StatusCode::OK, &with_code(code))
        }
        Some(_) => page(StatusCode::GONE, &html! { (refused()) (paste(to)) }),
        None if signed_in => {
            page(StatusCode::OK, &html! { p { "You are signed in. " a href="/" { "Overview" } } })
        }
        None => page(StatusCode::OK, &html! { (how()) (paste(to)) }),
    }
}

/// `POST /sign-in`, with a code.
pub(crate) async fn spend(
    request: HttpRequest,
    portal: web::Data<Portal>,
    form: web::Bytes,
) -> HttpResponse {
    if !guard::is_same_origin(&request) {
        return error::forged();
    }
    let form = Query::read(&String::from_utf8_lossy(&form));
    let code = form.one("code").unwrap_or_default().trim();
    let to = own_page(form.one("to"));
    match portal.sessions().spend(code, crate::now_ms()) {
        Ok(Some(id)) => {
            tracing::info!("an operator signed in");
            HttpResponse::SeeOther()
                .insert_header((header::LOCATION, to))
                .insert_header((header::CACHE_CONTROL, "no-store"))
                .cookie(cookie(&request, id, SESSION_LIFE_MS / 1000))
                .finish()
        }
        Ok(None) => page(StatusCode::GONE, &html! { (refused()) (paste(to)) }),
        Err(no_randomness) => error::malformed(&no_randomness.to_string()),
    }
}

/// `POST /sign-out`.
pub(crate) async fn sign_out(
    request: HttpRequest,
    portal: web::Data<Portal>,
    form: web::Bytes,
) -> HttpResponse {
    let form = Query::read(&String::from_utf8_lossy(&form));
    if let Some(session) = guard::session(&request, &portal) {
        if !guard::is_ours(&request, &session, form.one("csrf")) {
            return error::forged();
        }
        portal.sessions().end(&session);
    }
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, "/sign-in"))
        .cookie(cookie(&request, String::new(), 0))
        .finish()
}

/// Where to go after the sign-in: a page of this portal, whatever a link says; else the overview.
fn own_page(to: Option<&str>) -> &str {
    let is_own = |to: &&str| {
        let path = to.split('?').next().unwrap_or_default();
        to.bytes().all(|b| b.is_ascii_graphic()) && crate::page_of(path).is_some()
    };
    to.filter(is_own).unwrap_or("/")
}

fn cookie(request: &HttpRequest, value: String, life_s: i64) -> Cookie<'static> {
    Cookie::build(guard::COOKIE, value)
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(request.connection_info().scheme() == "https")
        .max_age(Duration::seconds(life_s))
        .finish()
}

fn page(status: StatusCode, text: &Markup) -> HttpResponse {
    let bad = status != StatusCode::OK;
    let title = if bad { "Error: Sign in" } else { "Sign in" };
    let main = html! { h1 { "Sign in" } (text) };
    HttpResponse::build(status)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .content_type("text/html; charset=utf-8")
        .body(layout::bare(title, &main))
}

fn with_code(code: &str) -> Markup {
    html! {
        p { "This link signs you in once, as operator with all rights, for 12 hours." }
        form method="post" action="/sign-in" {
            input type="hidden" name="code" value=(code);
            button.go { "Sign in" }
        }
    }
}

fn how() -> Markup {
    html! {
        p { "A sign-in needs a link that works once, for 10 minutes. Get one on the machine that \
             runs Callhome:" }
        pre { "callhome sign-in" }
        p { "and open what it prints, or put in its code." }
    }
}

fn refused() -> Markup {
    html! {
        div.note.bad role="alert" {
            h2 { "This code does not sign in" }
            p { "It was used before, is older than 10 minutes, or is not whole; or the portal was \
                 started again since. Get a new one on the machine that runs Callhome:" }
        }
        pre { "callhome sign-in" }
    }
}

fn paste(to: &str) -> Markup {
    html! {
        form.mt method="post" action="/sign-in" {
            div.field {
                label for="code" { "Code " span.hint { "the end of the link, after code=" } }
                input id="code" name="code" autocomplete="off" autocapitalize="none"
                    spellcheck="false" required;
            }
            @if to != "/" { input type="hidden" name="to" value=(to); }
            button.go { "Sign in" }
        }
    }
}
