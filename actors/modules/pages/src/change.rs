//! Forms that change an alarm: acknowledge, silence, close.
use actix_web::{HttpRequest, HttpResponse, http::header, web};
use extension::records::Time;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Portal, error, guard,
    source::SourceError,
    view::{Query, ROWS},
};

/// Longest silence, seconds: 7 days. What should be silent for longer should be closed.
const SILENCE_S_MAX: i64 = 7 * 86_400;

/// What a form asks for.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    method: Method,
    /// Below the alarm.
    path: &'static str,
    body: Option<Value>,
}

/// Reads a form (pure); the error says what is wrong.
fn wanted(form: &Query, now_ms: i64) -> Result<Wanted, String> {
    let comment = form.one("comment").map(str::trim).filter(|comment| !comment.is_empty());
    let mut body = match comment {
        Some(comment) => json!({ "comment": comment }),
        None => json!({}),
    };
    let put = |path, body| Wanted { method: Method::PUT, path, body: Some(body) };
    let delete = |path| Wanted { method: Method::DELETE, path, body: None };
    Ok(match form.one("do") {
        Some("acknowledge") => put("/acknowledgement", body),
        Some("unacknowledge") => delete("/acknowledgement"),
        Some("unsilence") => delete("/silence"),
        Some("close") => put("/closure", body),
        Some("silence") => {
            let seconds: Option<i64> = form.one("for_s").and_then(|s| s.parse().ok());
            let seconds = seconds.filter(|s| (60..=SILENCE_S_MAX).contains(s));
            let seconds = seconds.ok_or("say for how long: from 1 minute to 7 days")?;
            body["until"] = json!(Time(now_ms + seconds * 1000).to_string());
            put("/silence", body)
        }
        _ => return Err("the form does not say what to do; go back and press one button".into()),
    })
}

/// `POST /alarms/ID`
pub(crate) async fn alarm(
    request: HttpRequest,
    portal: web::Data<Portal>,
    id: web::Path<String>,
    form: web::Bytes,
) -> HttpResponse {
    let form = match form_of(&request, &portal, &form) {
        Ok(form) => form,
        Err(refused) => return *refused,
    };
    let Ok(id) = id.parse::<Uuid>() else { return error::not_found() };
    let wanted = match wanted(&form, crate::now_ms()) {
        Ok(wanted) => wanted,
        Err(what) => return error::malformed(&what),
    };
    let path = format!("/alarms/{id}");
    match change(&portal, id, &wanted).await {
        Ok(()) => done(&Query::default().with("done", form.one("do").unwrap_or_default()), &path),
        Err(error) => error::of(&error, &path),
    }
}

/// `POST /alarms`: the same for all that are selected.
pub(crate) async fn alarms(
    request: HttpRequest,
    portal: web::Data<Portal>,
    form: web::Bytes,
) -> HttpResponse {
    let form = match form_of(&request, &portal, &form) {
        Ok(form) => form,
        Err(refused) => return *refused,
    };
    let ids: Result<Vec<Uuid>, _> = form.many("a").map(str::parse).collect();
    let ids = match ids {
        Ok(ids) if !ids.is_empty() && ids.len() <= ROWS => ids,
        _ => return error::malformed("Select at least one alarm, and then press the button."),
    };
    let wanted = match wanted(&form, crate::now_ms()) {
        Ok(wanted) => wanted,
        Err(what) => return error::malformed(&what),
    };
    let mut count = 0;
    for id in ids {
        match change(&portal, id, &wanted).await {
            Ok(()) => count += 1,
            // Closed meanwhile: nothing is left to do for this one.
            Err(SourceError::Problem { status: 404 | 409, .. }) => (),
            Err(error) => return error::of(&error, "/alarms"),
        }
    }
    let query = Query::read(request.query_string()).without(&["done", "at"]);
    done(&query.with("done", count.to_string()), "/alarms")
}

async fn change(portal: &Portal, id: Uuid, wanted: &Wanted) -> Result<(), SourceError> {
    let path = format!("/alarms/{id}{}", wanted.path);
    portal.source.change(wanted.method.clone(), &path, wanted.body.clone()).await
}

/// The form of a session's own page.
pub(crate) fn form_of(
    request: &HttpRequest,
    portal: &Portal,
    form: &[u8],
) -> Result<Query, Box<HttpResponse>> {
    let Some(session) = guard::session(request, portal) else {
        return Err(Box::new(crate::to_sign_in("/")));
    };
    let form = Query::read(&String::from_utf8_lossy(form));
    if guard::is_ours(request, &session, form.one("csrf")) {
        Ok(form)
    } else {
        Err(Box::new(error::forged()))
    }
}

/// To a page that no cache has: `at` makes it another one each time.
pub(crate) fn done(query: &Query, path: &str) -> HttpResponse {
    let query = query.clone().with("at", crate::now_ms().to_string());
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, format!("{path}{}", query.words())))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_form_says_what_to_do_and_a_silence_has_an_end() {
        let form = Query::read("do=silence&for_s=3600&comment=+works+");
        let wanted = super::wanted(&form, 0).unwrap();
        assert_eq!((wanted.method, wanted.path), (Method::PUT, "/silence"));
        let body = wanted.body.unwrap();
        assert_eq!(body, json!({"comment": "works", "until": "1970-01-01T01:00:00.000Z"}));
        for wrong in ["", "do=x", "do=silence", "do=silence&for_s=0", "do=silence&for_s=9e9"] {
            assert!(super::wanted(&Query::read(wrong), 0).is_err(), "{wrong}");
        }
        let taken_back = super::wanted(&Query::read("do=unacknowledge"), 0).unwrap();
        assert_eq!((taken_back.method, taken_back.body), (Method::DELETE, None));
    }
}
