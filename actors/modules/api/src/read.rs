//! The GETs: lists, single objects, traces, ledgers.
use actix_web::{HttpRequest, HttpResponse, http::header, web};
use protocol::{MessageId, RemoteId, media::is_media_type};
use uuid::Uuid;

use crate::{
    Api,
    answer::{Answered, beside, page, shown, tagged},
    filters,
    problem::{Problem, Wrong},
    query::decode,
};

type Shared = web::Data<Api>;

/// The id in the path; `/` may be written `.`, or escaped.
pub(crate) fn id<T: std::str::FromStr>(request: &HttpRequest, form: &str) -> Result<T, Problem> {
    let raw = request.match_info().get("id").unwrap_or_default();
    let parsed = decode(raw, false).and_then(|text| text.trim_end_matches('/').parse().ok());
    parsed.ok_or_else(|| {
        Problem::malformed(vec![Wrong::at("id", format!("is {raw:?}, which is not {form}"))])
    })
}

/// A remote services id of `levels` levels; another level has no such object.
fn remote(request: &HttpRequest, what: &str, levels: u8) -> Result<RemoteId, Problem> {
    let id: RemoteId =
        id(request, "a remote services id: customer UUID, then up to three numbers")?;
    if id.levels() == levels { Ok(id) } else { Err(Problem::not_found(format!("{what} {id}"))) }
}

pub(crate) fn uuid(request: &HttpRequest) -> Result<Uuid, Problem> {
    id(request, "a UUID")
}

fn message_id(request: &HttpRequest) -> Result<MessageId, Problem> {
    id(request, "a message id: origin:epoch:precedence:sequence, as in 018f…c2.3:7:u:1042")
}

pub(crate) async fn openapi(request: HttpRequest) -> HttpResponse {
    tagged(&request, "application/json", bytes::Bytes::from_static(crate::OPENAPI.as_bytes()))
}

pub(crate) async fn customers(request: HttpRequest, api: Shared) -> Answered {
    let paging = filters::read(request.query_string(), filters::paging)?;
    page(&request, &api.ask("customer", 0, api.records.customers(&paging)).await?)
}

pub(crate) async fn customer(request: HttpRequest, api: Shared) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let id = uuid(&request)?;
    let what = format!("customer {id}");
    shown(&request, &api.ask(&what, 0, api.records.customer(id)).await?)
}

pub(crate) async fn nodes(request: HttpRequest, api: Shared) -> Answered {
    let (filter, paging) = filters::read(request.query_string(), filters::nodes)?;
    page(&request, &api.ask("node", 0, api.records.nodes(&filter, &paging)).await?)
}

pub(crate) async fn node(request: HttpRequest, api: Shared) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let id = remote(&request, "node", 1)?;
    shown(&request, &api.ask(&format!("node {id}"), 0, api.records.node(id)).await?)
}

pub(crate) async fn integrators(request: HttpRequest, api: Shared) -> Answered {
    let (filter, paging) = filters::read(request.query_string(), filters::integrators)?;
    page(&request, &api.ask("integrator", 0, api.records.integrators(&filter, &paging)).await?)
}

pub(crate) async fn integrator(request: HttpRequest, api: Shared) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let id = remote(&request, "integrator", 2)?;
    shown(&request, &api.ask(&format!("integrator {id}"), 0, api.records.integrator(id)).await?)
}

pub(crate) async fn instances(request: HttpRequest, api: Shared) -> Answered {
    let (filter, paging) = filters::read(request.query_string(), filters::instances)?;
    page(&request, &api.ask("instance", 0, api.records.instances(&filter, &paging)).await?)
}

pub(crate) async fn instance(request: HttpRequest, api: Shared) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let id = remote(&request, "instance", 3)?;
    shown(&request, &api.ask(&format!("instance {id}"), 0, api.records.instance(id)).await?)
}

pub(crate) async fn alarms(request: HttpRequest, api: Shared) -> Answered {
    let (filter, paging) = filters::read(request.query_string(), filters::alarms)?;
    page(&request, &api.ask("alarm", 0, api.records.alarms(&filter, &paging)).await?)
}

pub(crate) async fn alarm(request: HttpRequest, api: Shared) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let id = uuid(&request)?;
    shown(&request, &api.ask(&format!("alarm {id}"), 0, api.records.alarm(id)).await?)
}

pub(crate) async fn alarm_history(request: HttpRequest, api: Shared) -> Answered {
    let paging = filters::read(request.query_string(), filters::paging)?;
    let id = uuid(&request)?;
    let history = api.records.alarm_history(id, &paging);
    page(&request, &api.ask(&format!("alarm {id}"), 0, history).await?)
}

pub(crate) async fn events(request: HttpRequest, api: Shared) -> Answered {
    let (filter, paging) = filters::read(request.query_string(), filters::events)?;
    page(&request, &api.ask("event", 0, api.records.events(&filter, &paging)).await?)
}

pub(crate) async fn messages(request: HttpRequest, api: Shared) -> Answered {
    let (filter, paging) = filters::read(request.query_string(), filters::messages)?;
    page(&request, &api.ask("message", 0, api.records.messages(&filter, &paging)).await?)
}

pub(crate) async fn message(request: HttpRequest, api: Shared) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let id = message_id(&request)?;
    shown(&request, &api.ask(&format!("message {id}"), 0, api.records.message(id)).await?)
}

/// The data as the platform gave it: hostile bytes, so never more than an attachment.
pub(crate) async fn message_data(request: HttpRequest, api: Shared) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let id = message_id(&request)?;
    let what = format!("message {id}");
    let data = api.ask(&what, 0, api.records.message_data(id)).await?;
    let mut answer = tagged(&request, "application/octet-stream", data.data);
    let headers = answer.headers_mut();
    // Nodes of another version may have let in what is no media type.
    if is_media_type(&data.encoding)
        && let Ok(media) = header::HeaderValue::from_str(&data.encoding)
    {
        headers.insert(header::CONTENT_TYPE, media);
    }
    let name = id.to_string().replace(['/', ':'], "-");
    let disposition = format!("attachment; filename=\"{name}\"");
    if let Ok(disposition) = header::HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(answer)
}

pub(crate) async fn trace(request: HttpRequest, api: Shared) -> Answered {
    let wait_s = filters::read(request.query_string(), filters::wait_s)?;
    let id = message_id(&request)?;
    let trace = api.records.trace(id, wait_s);
    let traced = api.ask(&format!("message {id}"), wait_s, trace).await?;
    Ok(beside(shown(&request, &traced.answer)?, &traced))
}

pub(crate) async fn ledger(request: HttpRequest, api: Shared) -> Answered {
    let (filter, paging, wait_s) = filters::read(request.query_string(), filters::ledger)?;
    let ledger = api.records.ledger(&filter, &paging, wait_s);
    let ledger = api.ask("node", wait_s, ledger).await?;
    Ok(beside(page(&request, &ledger.answer)?, &ledger))
}

pub(crate) async fn actions(request: HttpRequest, api: Shared) -> Answered {
    let (filter, paging) = filters::read(request.query_string(), filters::actions)?;
    page(&request, &api.ask("action", 0, api.records.actions(&filter, &paging)).await?)
}

pub(crate) async fn action(request: HttpRequest, api: Shared) -> Answered {
    filters::read(request.query_string(), filters::none)?;
    let id = uuid(&request)?;
    shown(&request, &api.ask(&format!("action {id}"), 0, api.records.action(id)).await?)
}
