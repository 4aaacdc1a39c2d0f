//! `callhome queue ls|show|fsck`: what stands in a node's queues, running or stopped.
use std::{
    io::{self, Write},
    path::Path,
};

use extension::records::Time;
use jiff::Timestamp;
use protocol::{Message, MessageId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    client::Client,
    common::{Common, Failure, exit, finish},
    ls::{Rows, show},
    table::plain,
    trace::message_id,
};

/// Messages that `queue show` lists without an id: a look, not an export.
pub const SHOWN_MAX: usize = 1000;

/// Where messages stand that a service module failed at again and again.
const SET_ASIDE: &str = "set-aside";
const QUEUES: &[&str] = &["node", "queue", "precedence", "messages", "bytes", "oldest_age_s"];
const MESSAGES: &[&str] =
    &["node", "queue", "state", "class", "precedence", "instance", "accepted_at", "message_id"];
const CHECKED: &[&str] = &["node", "ok", "messages", "salvaged", "damaged", "set_aside"];

/// One precedence of one queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueRow {
    /// Name of the node.
    pub node: String,
    /// `up`, `down/ID`, `local/NAME`, `serve/MODULE`, `set-aside`.
    pub queue: String,
    /// `urgent`, `normal`, `bulk`.
    pub precedence: String,
    /// Messages that stand in it.
    pub messages: u64,
    /// On the wire.
    pub bytes: u64,
    /// Age of the oldest, seconds; none where it is empty.
    pub oldest_age_s: Option<f64>,
}

/// What a look at every value of a store found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsckRow {
    /// Name of the node.
    pub node: String,
    /// Nothing is damaged, and the counters say what stands there.
    pub ok: bool,
    /// Messages that are whole.
    pub messages: u64,
    /// Messages that would be salvaged from a damaged file.
    pub salvaged: u64,
    /// Values that are damaged.
    pub damaged: u64,
    /// Messages set aside.
    pub set_aside: u64,
}

/// Reads the stores of nodes that do not run. A store that is in use is a failure 69, a folder
/// without one 66; nothing is changed.
pub trait StoppedStores: Sync {
    /// The queues of `node`, or of all nodes under `data`.
    fn queues(&self, data: &Path, node: Option<&str>) -> Result<Vec<QueueRow>, Failure>;

    /// Messages as API objects with `node`, `queue` and `state`: of one id, or the `limit` that
    /// would go first.
    fn messages(
        &self,
        data: &Path,
        node: Option<&str>,
        id: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<Value>, Failure>;

    /// Checks every value of each store.
    fn fsck(&self, data: &Path, node: Option<&str>) -> Result<Vec<FsckRow>, Failure>;
}

/// Flags of `callhome queue`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: callhome queue ls --node proxy")]
pub struct Args {
    /// What to do
    #[arg(value_enum)]
    pub what: What,
    /// Of show: one message
    pub id: Option<String>,
    /// One node, by name; without it all
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// The queues of each node
    Ls,
    /// A message; of a stopped node without an id those that go first
    Show,
    /// Check every value of a stopped node's store
    Fsck,
}

/// Runs `callhome queue`; the exit code.
pub async fn run(args: &Args, common: &Common, stopped: &dyn StoppedStores) -> u8 {
    finish(queue(args, common, stopped, &mut io::stdout().lock()).await)
}

/// As `run`, printing to `out`.
pub async fn queue(
    args: &Args,
    common: &Common,
    stopped: &dyn StoppedStores,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    if args.id.is_some() && args.what != What::Show {
        return Err(Failure::usage("only show takes an id", "callhome queue show ID"));
    }
    match args.what {
        What::Ls => ls(args, common, stopped, out).await,
        What::Show => messages(args, common, stopped, out).await,
        What::Fsck => fsck(args, common, stopped, out).await,
    }
}

/// The door of the process that runs with the data folder; none where nothing runs.
async fn running(common: &Common) -> Result<Option<Client>, Failure> {
    match Client::operator(common) {
        Ok(client) => match client.look("/livez").await {
            Ok(_) => Ok(Some(client)),
            // What a kill leaves behind; the store's own lock has the last word.
            Err(failure) if failure.code == exit::UNREACHABLE => Ok(None),
            Err(failure) => Err(failure),
        },
        Err(failure) if failure.code == exit::UNREACHABLE => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn ls(
    args: &Args,
    common: &Common,
    stopped: &dyn StoppedStores,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let rows = match running(common).await? {
        Some(door) => {
            let query: Vec<_> = args.node.iter().map(|node| ("node", node.clone())).collect();
            rows(door.get("/queue", &query).await?)?
        }
        None => {
            let rows = stopped.queues(&common.data, args.node.as_deref())?;
            rows.iter().map(|row| json!(row)).collect()
        }
    };
    print(&rows, QUEUES, common, out)?;
    Ok(exit::OK)
}

async fn messages(
    args: &Args,
    common: &Common,
    stopped: &dyn StoppedStores,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let id = args.id.as_deref().map(message_id).transpose()?;
    let rows = match running(common).await? {
        Some(door) => {
            let Some(id) = id else { return ls(args, common, stopped, out).await };
            let mut query = vec![("id", id.to_string())];
            query.extend(args.node.iter().map(|node| ("node", node.clone())));
            vec![door.get("/queue", &query).await?]
        }
        None => stopped.messages(&common.data, args.node.as_deref(), id, SHOWN_MAX)?,
    };
    match (&id, rows.as_slice()) {
        (Some(id), []) => Err(Failure::new(
            exit::NO_SUCH_ID,
            format!("{id} stands in no queue here"),
            "it may have moved on: callhome trace",
        )),
        (Some(_), [one]) => show(one, MESSAGES, common, out).map(|()| exit::OK),
        _ => print(&rows, MESSAGES, common, out).map(|()| exit::OK),
    }
}

async fn fsck(
    args: &Args,
    common: &Common,
    stopped: &dyn StoppedStores,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    if let Some(door) = running(common).await? {
        return Err(Failure::new(
            exit::UNREACHABLE,
            format!("a node runs with {} ({})", common.data.display(), door.url()),
            "stop it first; a running node checks every value as it reads it",
        ));
    }
    let found = stopped.fsck(&common.data, args.node.as_deref())?;
    let rows: Vec<Value> = found.iter().map(|row| json!(row)).collect();
    print(&rows, CHECKED, common, out)?;
    let damaged: Vec<String> =
        found.iter().filter(|row| !row.ok).map(|row| plain(&row.node)).collect();
    if damaged.is_empty() {
        return Ok(exit::OK);
    }
    Err(Failure::new(
        exit::REFUSED,
        format!("damaged: {}", damaged.join(" ")),
        "the next start salvages what is whole, keeps the rest under damaged/ and counts anew",
    ))
}

/// A message that stands in a queue, as the API shows messages, with `node`, `queue`, `state`.
/// `bytes` are those on the wire.
pub fn queued(node: &str, queue: &str, bytes: u64, replayed: bool, message: &Message) -> Value {
    let (header, from) = (&message.header, &message.infrastructure);
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let payload = message.service.payload();
    json!({
        "node": node,
        "queue": queue,
        "state": if queue == SET_ASIDE { "refused" } else { "queued" },
        "seq": null,
        "message_id": header.id,
        "channel": header.channel,
        "class": header.class,
        "subclass": some(&header.subclass),
        "customer_id": header.id.origin.customer_id(),
        "instance": from.instance.and_then(|_| some(&from.external_id)),
        "instance_id": from.instance,
        "integrator": some(&from.integrator),
        "precedence": header.id.precedence,
        "persistence": header.persistence,
        "time_to_live_s": header.time_to_live_s,
        "answers": header.answers,
        "occurred_at": Time(header.occurred_at),
        "accepted_at": Time(header.accepted_at),
        "stored_at": null,
        "bytes": bytes,
        "encoding": payload.and_then(|payload| some(&payload.encoding)),
        "replayed": replayed,
    })
}

/// The rows of a door's answer.
fn rows(answer: Value) -> Result<Vec<Value>, Failure> {
    match answer {
        Value::Array(rows) => Ok(rows),
        _ => Err(Failure::new(
            exit::UNREACHABLE,
            "what answers at operator.url is not an operator's door",
            "look at operator.url in the data folder",
        )),
    }
}

fn print(
    rows: &[Value],
    columns: &'static [&'static str],
    common: &Common,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut sink = Rows::new(columns, common, Timestamp::now());
    sink.print(rows, out)?;
    sink.end(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{common::Format, recorded::Recorded};
    use super::*;

    /// A store with one queue, and one damaged value if `damaged`.
    struct Stopped {
        damaged: u64,
    }

    impl StoppedStores for Stopped {
        fn queues(&self, _: &Path, _: Option<&str>) -> Result<Vec<QueueRow>, Failure> {
            Ok(vec![QueueRow {
                node: "proxy".to_owned(),
                queue: "up".to_owned(),
                precedence: "urgent".to_owned(),
                messages: 3,
                bytes: 900,
                oldest_age_s: Some(1.5),
            }])
        }

        fn messages(
            &self,
            _: &Path,
            _: Option<&str>,
            _: Option<MessageId>,
            _: usize,
        ) -> Result<Vec<Value>, Failure> {
            Ok(Vec::new())
        }

        fn fsck(&self, _: &Path, _: Option<&str>) -> Result<Vec<FsckRow>, Failure> {
            let (ok, damaged) = (self.damaged == 0, self.damaged);
            let node = "proxy".to_owned();
            Ok(vec![FsckRow { node, ok, messages: 3, salvaged: 0, damaged, set_aside: 0 }])
        }
    }

    const ID: &str = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3:7:u:1042";

    fn args(what: What, id: Option<&str>) -> Args {
        Args { what, id: id.map(str::to_owned), node: None }
    }

    async fn done(args: &Args, common: &Common, damaged: u64) -> (u8, String) {
        let mut out = Vec::new();
        let code = match queue(args, common, &Stopped { damaged }, &mut out).await {
            Ok(code) => code,
            Err(failure) => failure.code,
        };
        (code, String::from_utf8(out).unwrap())
    }

    #[actix_web::test]
    async fn a_stopped_nodes_store_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut common = Recorded::start(&[]).common(Format::Json);
        common.data = dir.path().to_owned();
        let (code, out) = done(&args(What::Ls, None), &common, 0).await;
        assert_eq!(code, exit::OK);
        let rows: Vec<QueueRow> = serde_json::from_str(&out).unwrap();
        assert_eq!(rows[0].messages, 3);
        assert_eq!(done(&args(What::Fsck, None), &common, 0).await.0, exit::OK);
        assert_eq!(done(&args(What::Fsck, None), &common, 2).await.0, exit::REFUSED);
        assert_eq!(done(&args(What::Show, Some(ID)), &common, 0).await.0, exit::NO_SUCH_ID);
        assert_eq!(done(&args(What::Show, Some("x")), &common, 0).await.0, exit::USAGE);
        assert_eq!(done(&args(What::Ls, Some(ID)), &common, 0).await.0, exit::USAGE);
    }

    #[actix_web::test]
    async fn a_running_node_is_asked_and_not_checked() {
        let row = json!({"node": "proxy", "queue": "up", "precedence": "bulk", "messages": 1,
            "bytes": 9, "oldest_age_s": null});
        let server = Recorded::start(&[
            ("GET /livez", 200, json!({"status": "ok"})),
            ("GET /queue", 200, json!([row])),
        ]);
        let common = server.common(Format::Json);
        let (code, out) = done(&args(What::Ls, None), &common, 0).await;
        assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (exit::OK, json!([row])));
        assert_eq!(done(&args(What::Fsck, None), &common, 0).await.0, exit::UNREACHABLE);
    }
}
