//! `callhome action TARGET NAME`: a management action, and its answer where somebody waits for it.
use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use protocol::RemoteId;
use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    client::Client,
    common::{Common, Failure, exit, finish},
    ls::{Kind, items, show},
};

/// Largest action document that is sent, bytes: it becomes one message.
const XML_BYTES_MAX: u64 = 256 << 10;
/// Between two looks at an action that is waited for.
const LOOK_EACH: Duration = Duration::from_millis(500);
/// Nodes, integrators or instances looked through for a name.
const NAMES_MAX: usize = 10_000;
/// Ids listed where a name fits several.
const LISTED_MAX: usize = 20;

/// Flags of `callhome action`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: callhome action press-1 collect-now --param depth=3 --wait 30")]
pub struct Args {
    /// Remote services id, or the name of an instance, an integrator or a node
    pub target: String,
    /// What to do
    #[arg(required_unless_present = "xml", conflicts_with = "xml")]
    pub name: Option<String>,
    /// A parameter of the action
    #[arg(long = "param", value_name = "KEY=VALUE", conflicts_with = "xml")]
    pub parameters: Vec<String>,
    /// A whole action document instead of a name and parameters
    #[arg(long, value_name = "FILE")]
    pub xml: Option<PathBuf>,
    /// Seconds until it is no longer wanted
    #[arg(long, value_name = "S", default_value_t = 3600,
        value_parser = clap::value_parser!(u32).range(1..=2_592_000))]
    pub ttl: u32,
    /// Seconds to wait for the answer
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub wait: u32,
}

/// Runs `callhome action`; the exit code.
pub async fn run(args: &Args, common: &Common) -> u8 {
    finish(act(args, common, &mut io::stdout().lock()).await)
}

/// The request without its target.
fn request(args: &Args) -> Result<Map<String, Value>, Failure> {
    let mut request = Map::new();
    request.insert("time_to_live_s".to_owned(), args.ttl.into());
    if let Some(file) = &args.xml {
        request.insert("xml".to_owned(), document(file)?.into());
        return Ok(request);
    }
    let mut parameters = Map::new();
    for parameter in &args.parameters {
        let (key, value) =
            parameter.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
                Failure::usage(format!("{parameter:?} is no parameter"), "write --param key=value")
            })?;
        if parameters.insert(key.to_owned(), value.into()).is_some() {
            return Err(Failure::usage(format!("{key:?} is given twice"), ""));
        }
    }
    request.insert("name".to_owned(), args.name.clone().unwrap_or_default().into());
    request.insert("parameters".to_owned(), Value::Object(parameters));
    Ok(request)
}

fn document(file: &PathBuf) -> Result<String, Failure> {
    use io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(file)
        .and_then(|file| file.take(XML_BYTES_MAX + 1).read_to_string(&mut text));
    let failed = |why: String| Failure::usage(format!("{}: {why}", file.display()), "");
    match read {
        Err(error) => Err(failed(error.to_string())),
        Ok(_) if text.len() as u64 > XML_BYTES_MAX => {
            Err(failed(format!("is larger than {XML_BYTES_MAX} bytes")))
        }
        Ok(_) => Ok(text),
    }
}

/// As `run`, printing to `out`.
pub async fn act(args: &Args, common: &Common, out: &mut dyn Write) -> Result<u8, Failure> {
    let mut request = request(args)?;
    let client = Client::server(common)?;
    let target = target(&client, &args.target).await?;
    request.insert("targets".to_owned(), json!([target]));
    let key = [("idempotency-key", Uuid::now_v7().to_string())];
    let path = "/api/v1/actions";
    let made = client.give(Method::POST, path, &Value::Object(request), &key, 0).await?;
    let mut action = items(&made)?.first().cloned().unwrap_or_default();
    let until = Instant::now() + Duration::from_secs(args.wait.into());
    while args.wait > 0 && !ended(&action) && Instant::now() < until {
        tokio::time::sleep(LOOK_EACH.min(until - Instant::now())).await;
        let id = action["action_id"].as_str().unwrap_or_default();
        action = client.get(&format!("{path}/{id}"), &[]).await?;
    }
    show(&action, Kind::Actions.columns(), common, out)?;
    if args.wait == 0 { Ok(exit::OK) } else { outcome(&action, args.wait) }
}

fn ended(action: &Value) -> bool {
    matches!(action["state"].as_str(), Some("answered" | "refused" | "expired"))
}

/// What it means to somebody who waited.
fn outcome(action: &Value, wait_s: u32) -> Result<u8, Failure> {
    let reason = action["reason"].as_str().unwrap_or("no reason given");
    match action["state"].as_str() {
        Some("answered") if action["status"].as_i64().unwrap_or_default() == 0 => Ok(exit::OK),
        Some("answered") => {
            let message = format!("the action failed with status {}", action["status"]);
            Err(Failure::new(exit::REFUSED, message, ""))
        }
        Some("refused") => {
            Err(Failure::new(exit::REFUSED, format!("the action was refused: {reason}"), ""))
        }
        Some("expired") => Err(Failure::new(
            exit::REFUSED,
            "the action expired before it arrived",
            "give it longer with --ttl",
        )),
        _ => Err(Failure::new(
            exit::TRY_AGAIN,
            format!("there is no answer after {wait_s} s; the action is still on its way"),
            format!(
                "see later: callhome ls actions; it ends by itself at {}",
                action["expires_at"]
            ),
        )),
    }
}

/// The target as an id. Names are looked up: of instances, of integrators, of nodes.
async fn target(client: &Client, text: &str) -> Result<String, Failure> {
    if text.starts_with("group:") {
        return Ok(text.to_owned());
    }
    if let Ok(id) = text.parse::<RemoteId>() {
        return Ok(id.to_string());
    }
    let mut ids = Vec::new();
    let named = [("limit", NAMES_MAX.to_string()), ("instance", text.to_owned())];
    let lists = [
        (Kind::Instances, "instance", "instance_id"),
        (Kind::Integrators, "integrator", "integrator_id"),
        (Kind::Nodes, "node", "node_id"),
    ];
    for (kind, name, id) in lists {
        // Of the three only instances are filtered by the server.
        let query = if kind == Kind::Instances { &named[..] } else { &named[..1] };
        let page = client.get(kind.path(), query).await?;
        let fits = items(&page)?.iter().filter(|row| row[name] == text);
        ids.extend(fits.filter_map(|row| row[id].as_str().map(str::to_owned)));
    }
    ids.dedup();
    match ids.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(Failure::new(
            exit::NO_SUCH_ID,
            format!("there is no instance, integrator or node {text:?}"),
            "callhome ls instances lists them; an id always works",
        )),
        several => Err(Failure::usage(
            format!("{text:?} fits {} targets", several.len()),
            format!("say which id:\n{}", several[..several.len().min(LISTED_MAX)].join("\n")),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{common::Format, recorded::Recorded};
    use super::*;

    const NODE: &str = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3";
    const ACTION: &str = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e44";

    fn args(target: &str, wait: u32) -> Args {
        Args {
            target: target.to_owned(),
            name: Some("restart".to_owned()),
            parameters: vec!["service=db=1".to_owned()],
            xml: None,
            ttl: 60,
            wait,
        }
    }

    fn action(state: &str) -> Value {
        json!({"action_id": ACTION, "name": "restart", "target_id": NODE, "state": state,
            "status": 0, "reason": null, "expires_at": "2026-11-22T12:00:00.000Z"})
    }

    fn list(items: Value) -> Value {
        json!({"items": items, "next": null})
    }

    async fn code(server: &Recorded, args: &Args) -> u8 {
        match act(args, &server.common(Format::Json), &mut Vec::new()).await {
            Ok(code) => code,
            Err(failure) => failure.code,
        }
    }

    #[actix_web::test]
    async fn an_action_is_posted_once_with_a_key_and_waited_for() {
        let server = Recorded::start(&[
            ("POST /api/v1/actions", 202, list(json!([action("queued")]))),
            (&format!("GET /api/v1/actions/{ACTION}"), 200, action("answered")),
        ]);
        assert_eq!(code(&server, &args(NODE, 5)).await, exit::OK);
        let body: Value = serde_json::from_str(&server.asked()[0].body).unwrap();
        let expected = json!({"targets": [NODE], "name": "restart", "time_to_live_s": 60,
            "parameters": {"service": "db=1"}});
        assert_eq!(body, expected);
        assert_eq!(server.asked().len(), 2);
    }

    #[actix_web::test]
    async fn a_name_that_fits_several_is_64_and_one_that_fits_none_66() {
        let instances = |name: &str, items: Value| {
            (format!("GET /api/v1/instances?limit=10000&instance={name}"), items)
        };
        let two = json!([{"instance": "db", "instance_id": "a"},
            {"instance": "db", "instance_id": "b"}]);
        let (many, two) = instances("db", two);
        let (none, zero) = instances("x", json!([]));
        let server = Recorded::start(&[
            (&many, 200, list(two)),
            (&none, 200, list(zero)),
            ("GET /api/v1/integrators?limit=10000", 200, list(json!([]))),
            ("GET /api/v1/nodes?limit=10000", 200, list(json!([{"node": "n", "node_id": "c"}]))),
        ]);
        let common = server.common(Format::Json);
        let failure = act(&args("db", 0), &common, &mut Vec::new()).await.unwrap_err();
        assert_eq!(failure.code, exit::USAGE);
        assert!(failure.help.ends_with("a\nb"), "{failure:?}");
        assert_eq!(code(&server, &args("x", 0)).await, exit::NO_SUCH_ID);
    }

    #[test]
    fn what_became_of_it_is_told_to_who_waited() {
        let code = |state: &str| match outcome(&action(state), 1) {
            Ok(code) => code,
            Err(failure) => failure.code,
        };
        assert_eq!(code("answered"), exit::OK);
        assert_eq!(code("refused"), exit::REFUSED);
        assert_eq!(code("expired"), exit::REFUSED);
        assert_eq!(code("sent"), exit::TRY_AGAIN);
    }

    #[test]
    fn a_parameter_has_a_key() {
        let mut wrong = args(NODE, 0);
        for parameters in [&["x"][..], &["=x"], &["a=1", "a=2"]] {
            wrong.parameters = parameters.iter().map(|p| (*p).to_owned()).collect();
            assert_eq!(request(&wrong).unwrap_err().code, exit::USAGE);
        }
    }
}
