//! What changes something: alarms acknowledged, silenced, closed; customers and actions made.
use std::{future::Future, time::Instant};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use bytes::Bytes;
use extension::records::{ACTION_LIFE_S_MAX, ActionRequest, Page, TARGETS_MAX, Time};
use protocol::limits::{NAME_BYTES_MAX, TEXT_BYTES_MAX};
use serde::{Deserialize, de::DeserializeOwned};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Api,
    answer::{Answered, json, shown},
    filters,
    guard::caller,
    idempotency::{Given, KEY_BYTES_MAX, Seen},
    problem::{Problem, Wrong},
    read::uuid,
};

type Shared = web::Data<Api>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Comment {
    #[serde(default)]
    comment: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Silence {
    until: Time,
    #[serde(default)]
    comment: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCustomer {
    customer: String,
}

/// The body as JSON of a type; unknown keys are wrong.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::malformed(vec![Wrong::at("", error.to_string())]))
}

fn comment(comment: Option<&str>) -> Result<(), Problem> {
    match comment {
        Some(text) if text.len() > TEXT_BYTES_MAX => Err(Problem::malformed(vec![Wrong::at(
            "/comment",
            format!("is longer than {TEXT_BYTES_MAX} bytes"),
        )])),
        _ => Ok(()),
    }
}

/// No body at all is an empty object: a comment is optional.
fn read_comment(body: &[u8]) -> Result<Comment, Problem> {
    let read: Comment = if body.trim_ascii().is_empty() { Comment::default() } else { read(body)? };
    comment(read.comment.as_deref())?;
    Ok(read)
}

pub(crate) async fn acknowledge(request: HttpRequest, api: Shared, body: Bytes) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let (id, by, body) = (uuid(&request)?, caller(&request)?, read_comment(&body)?);
    let done = api.records.acknowledge(id, &by.who, body.comment.as_deref());
    shown(&request, &api.ask(&format!("alarm {id}"), 0, done).await?)
}

pub(crate) async fn unacknowledge(request: HttpRequest, api: Shared) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let (id, by) = (uuid(&request)?, caller(&request)?);
    let done = api.records.unacknowledge(id, &by.who);
    shown(&request, &api.ask(&format!("alarm {id}"), 0, done).await?)
}

pub(crate) async fn silence(request: HttpRequest, api: Shared, body: Bytes) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let (id, by, body) = (uuid(&request)?, caller(&request)?, read::<Silence>(&body)?);
    comment(body.comment.as_deref())?;
    if body.until.0 <= jiff::Timestamp::now().as_millisecond() {
        let detail = format!("is {}, which is in the past", body.until);
        return Err(Problem::malformed(vec![Wrong::at("/until", detail)]));
    }
    let done = api.records.silence(id, &by.who, body.until, body.comment.as_deref());
    shown(&request, &api.ask(&format!("alarm {id}"), 0, done).await?)
}

pub(crate) async fn unsilence(request: HttpRequest, api: Shared) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let (id, by) = (uuid(&request)?, caller(&request)?);
    let done = api.records.unsilence(id, &by.who);
    shown(&request, &api.ask(&format!("alarm {id}"), 0, done).await?)
}

pub(crate) async fn close(request: HttpRequest, api: Shared, body: Bytes) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let (id, by, body) = (uuid(&request)?, caller(&request)?, read_comment(&body)?);
    let done = api.records.close(id, &by.who, body.comment.as_deref());
    shown(&request, &api.ask(&format!("alarm {id}"), 0, done).await?)
}

pub(crate) async fn register_customer(request: HttpRequest, api: Shared, body: Bytes) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let new: NewCustomer = read(&body)?;
    if new.customer.trim().is_empty() || new.customer.len() > NAME_BYTES_MAX {
        let detail = format!("is a name of 1 to {NAME_BYTES_MAX} bytes");
        return Err(Problem::malformed(vec![Wrong::at("/customer", detail)]));
    }
    if new.customer.contains(char::is_control) {
        let detail = "has a control character; a name is one line of what can be seen";
        return Err(Problem::malformed(vec![Wrong::at("/customer", detail)]));
    }
    let key = key(&request)?;
    let work = async {
        let done = api.records.register_customer(&new.customer, key.as_deref());
        let customer = api.ask("customer", 0, done).await?;
        Ok(Given { status: 201, body: json(&customer)? })
    };
    once(&api, "customers", key.as_deref(), &body, work).await
}

pub(crate) async fn request_actions(request: HttpRequest, api: Shared, body: Bytes) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let by = caller(&request)?;
    let wanted: ActionRequest = read(&body)?;
    check(&wanted)?;
    let key = key(&request)?;
    let work = async {
        let done = api.records.request_actions(&wanted, &by.who, key.as_deref());
        let items = api.ask("target", 0, done).await?;
        Ok(Given { status: 202, body: json(&Page { items, next: None })? })
    };
    once(&api, "actions", key.as_deref(), &body, work).await
}

/// What openapi.json says of an `ActionRequest`, all mistakes at once.
fn check(request: &ActionRequest) -> Result<(), Problem> {
    let mut wrong = Vec::new();
    let targets = request.targets.len();
    if targets == 0 || targets > TARGETS_MAX {
        wrong.push(Wrong::at("/targets", format!("has {targets}; from 1 to {TARGETS_MAX}")));
    }
    match (&request.name, &request.xml) {
        (None, None) => wrong.push(Wrong::at("/name", "is missing; give a name, or xml")),
        (Some(_), Some(_)) => wrong.push(Wrong::at("/xml", "leave out xml, or name")),
        (None, Some(_)) if !request.parameters.is_empty() => {
            wrong.push(Wrong::at("/parameters", "stand in the xml where there is one"));
        }
        (Some(name), None) if name.is_empty() || name.len() > NAME_BYTES_MAX => {
            wrong.push(Wrong::at("/name", format!("is a word of 1 to {NAME_BYTES_MAX} bytes")));
        }
        _ => (),
    }
    if let Some(life_s) = request.time_to_live_s
        && !(1..=ACTION_LIFE_S_MAX).contains(&life_s)
    {
        let detail = format!("is {life_s}; from 1 to {ACTION_LIFE_S_MAX} seconds");
        wrong.push(Wrong::at("/time_to_live_s", detail));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Problem::malformed(wrong)) }
}

/// The Idempotency-Key, if there is one.
fn key(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let Some(value) = request.headers().get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.trim().is_empty() && key.len() <= KEY_BYTES_MAX => {
            Ok(Some(key.trim().to_owned()))
        }
        _ => Err(Problem::malformed(vec![Wrong::at(
            "Idempotency-Key",
            format!("is 1 to {KEY_BYTES_MAX} printable characters, best a UUID"),
        )])),
    }
}

/// Does the work, or gives the answer that the same key got before.
async fn once(
    api: &Api,
    what: &str,
    key: Option<&str>,
    body: &[u8],
    work: impl Future<Output = Result<Given, Problem>>,
) -> Answered {
    let Some(key) = key else { return work.await.and_then(given) };
    let name = format!("{what} {key}");
    match api.answers.take(&name, xxh3_64(body), Instant::now()) {
        Seen::Answered(answer) => given(answer),
        Seen::Taken => Err(Problem::busy("a request with this Idempotency-Key is going on", 1)),
        Seen::Other => Err(Problem::conflict("this Idempotency-Key came with another request")),
        Seen::New => {
            // Also where the client is gone before the answer: the records know the key, too.
            let mut held = Held { api, name: Some(name) };
            let answer = work.await?;
            if let Some(name) = held.name.take() {
                api.answers.answered(&name, answer.clone());
            }
            given(answer)
        }
    }
}

/// A key that is given back unless the work was done.
struct Held<'a> {
    api: &'a Api,
    name: Option<String>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.api.answers.forget(&name);
        }
    }
}

fn given(given: Given) -> Answered {
    let status = StatusCode::from_u16(given.status).unwrap_or(StatusCode::OK);
    let mut answer = HttpResponse::build(status);
    answer.insert_header(("cache-control", "no-store"));
    Ok(answer.content_type("application/json").body(given.body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_a_name_or_a_document_for_somebody() {
        let right = ActionRequest {
            targets: vec!["a".to_owned()],
            name: Some("restart".to_owned()),
            ..ActionRequest::default()
        };
        assert_eq!(check(&right), Ok(()));
        let wrong = |change: fn(&mut ActionRequest)| {
            let mut request = right.clone();
            change(&mut request);
            check(&request).err().map(|problem| problem.errors[0].pointer.clone())
        };
        assert_eq!(wrong(|r| r.targets.clear()).as_deref(), Some("/targets"));
        assert_eq!(wrong(|r| r.name = None).as_deref(), Some("/name"));
        assert_eq!(wrong(|r| r.name = Some(String::new())).as_deref(), Some("/name"));
        assert_eq!(wrong(|r| r.xml = Some("<action/>".to_owned())).as_deref(), Some("/xml"));
        assert_eq!(wrong(|r| r.time_to_live_s = Some(0)).as_deref(), Some("/time_to_live_s"));
    }

    #[test]
    fn a_key_nobody_asked_for_is_wrong() {
        assert!(read_comment(b"{\"comment\": \"ok\"}").is_ok());
        assert!(read_comment(b" ").is_ok());
        for wrong in [&b"{\"coment\": \"ok\"}"[..], b"[", b"\"x\"", b"{\"comment\": 1}"] {
            assert!(read_comment(wrong).is_err());
        }
    }
}
