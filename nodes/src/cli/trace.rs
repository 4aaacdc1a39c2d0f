//! `callhome trace ID`: where a message is or what became of it, hop by hop with times.
use std::io::{self, Write};

use jiff::Timestamp;
use protocol::MessageId;
use serde_json::{Value, json};

use super::{
    beside::Beside,
    client::Client,
    common::{Common, Failure, coloured, exit, finish, note},
    table::{Look, Table, plain, seconds, time},
};

/// Longest wait for nodes, seconds (openapi.json).
pub const WAIT_S_MAX: u64 = 45;

/// Flags of `callhome trace`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: callhome trace 018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3:7:u:1042")]
pub struct Args {
    /// Message id, in full
    pub id: String,
    /// Seconds to wait for nodes to answer
    #[arg(long, value_name = "S", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(..=WAIT_S_MAX))]
    pub wait: u64,
}

/// Runs `callhome trace`; the exit code.
pub async fn run(args: &Args, common: &Common) -> u8 {
    finish(trace(args, common, &mut io::stdout().lock()).await)
}

/// The message id in `text`, or a usage failure.
pub fn message_id(text: &str) -> Result<MessageId, Failure> {
    text.parse().map_err(|_| {
        Failure::usage(
            format!("{text:?} is no message id"),
            "an id looks like 018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3:7:u:1042; \
             `callhome ls messages` lists them",
        )
    })
}

/// As `run`, printing to `out`.
pub async fn trace(args: &Args, common: &Common, out: &mut dyn Write) -> Result<u8, Failure> {
    let id = message_id(&args.id)?;
    let client = Client::server(common)?;
    let path = format!("/api/v1/trace/{}", id.to_string().replace('/', "."));
    let query = [("wait_s", args.wait.to_string())];
    let (trace, beside) = client.get_waiting(&path, &query, args.wait).await?;
    let silent = beside.silent(&client).await;
    if common.json() {
        writeln!(out, "{trace}")?;
    } else {
        let look = Look { coloured: coloured(), now: Timestamp::now() };
        write!(out, "{}", head(&trace, &beside, look.now))?;
        hops(&trace, look, out)?;
    }
    out.flush()?;
    if trace["state"] == "unknown" {
        let help = match silent {
            Some(silent) => format!("{silent} did not answer and may have it; ask again, or there"),
            None if args.wait == 0 => "nobody was asked: ask nodes with --wait 5".to_owned(),
            None => "callhome ls messages lists what arrived".to_owned(),
        };
        let message = format!("no node that was asked has {id}");
        return Err(Failure::new(exit::NO_SUCH_ID, message, help));
    }
    if let Some(silent) = silent {
        note(&format!("{silent} did not answer"));
    }
    Ok(exit::OK)
}

/// What is said above the hops.
fn head(trace: &Value, beside: &Beside, now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<12}{value}\n"));
    let word = |key: &str| trace[key].as_str().map(plain);
    if let Some(id) = word("message_id") {
        line("message", id);
    }
    let reason = word("reason").map(|reason| format!(" ({reason})")).unwrap_or_default();
    line("state", format!("{}{reason}", word("state").unwrap_or_else(|| "-".to_owned())));
    if let Some(node) = word("node_id") {
        let queue = beside.queue.as_ref().map(|queue| format!(" in {queue}"));
        let tries = beside.attempts.filter(|tries| *tries > 0);
        let tries = tries.map(|tries| format!(", {tries} tries of its link failed"));
        line("at", [Some(node), queue, tries].into_iter().flatten().collect());
    }
    if let Some(class) = word("class") {
        line("class", class);
    }
    for (name, key) in
        [("occurred", "occurred_at"), ("accepted", "accepted_at"), ("stored", "stored_at")]
    {
        if let Some(at) = trace[key].as_str() {
            line(name, time(at, now));
        }
    }
    if let Some(took) = between(&trace["accepted_at"], &trace["stored_at"]) {
        line("took", seconds(took));
    }
    text
}

/// Seconds from one time to another.
fn between(from: &Value, to: &Value) -> Option<f64> {
    let at = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
    Some((at(to)?.as_millisecond() - at(from)?.as_millisecond()) as f64 / 1000.0)
}

fn hops(trace: &Value, look: Look, out: &mut dyn Write) -> Result<(), Failure> {
    let hops = trace["hops"].as_array().map(Vec::as_slice).unwrap_or_default();
    if hops.is_empty() {
        return Ok(());
    }
    let row = |hop: &Value| {
        let mut hop = hop.clone();
        hop["held_s"] = json!(between(&hop["received_at"], &hop["sent_at"]));
        // To the millisecond: the hops of one message are often within a second.
        for (shown, at) in [("received", "received_at"), ("sent", "sent_at")] {
            hop[shown] = hop[at].clone();
        }
        hop
    };
    let rows: Vec<Value> = hops.iter().map(row).collect();
    writeln!(out)?;
    let columns = &["node", "roles", "received", "sent", "held_s", "node_id"];
    Ok(Table::new(columns, look).print(&rows, out)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{common::Format, recorded::Recorded};
    use super::*;

    const ID: &str = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3:7:u:1042";
    const ASKED: &str =
        "GET /api/v1/trace/018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42.3:7:u:1042?wait_s=5";

    fn args(id: &str) -> Args {
        Args { id: id.to_owned(), wait: 5 }
    }

    fn recorded(state: &str) -> Value {
        json!({"message_id": ID, "state": state, "node_id": null, "reason": null,
            "class": "alarm", "occurred_at": "2026-11-22T12:00:00.000Z",
            "accepted_at": "2026-11-22T12:00:01.000Z", "stored_at": "2026-11-22T12:00:03.500Z",
            "hops": [{"node": "proxy", "node_id": "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3",
                "roles": ["proxy"], "received_at": "2026-11-22T12:00:01.000Z",
                "sent_at": "2026-11-22T12:00:01.250Z"}]})
    }

    #[actix_web::test]
    async fn a_trace_tells_each_hop_with_its_times() {
        let server = Recorded::start(&[(ASKED, 200, recorded("delivered"))]);
        let mut out = Vec::new();
        let code = trace(&args(ID), &server.common(Format::Table), &mut out).await.unwrap();
        assert_eq!(code, exit::OK);
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("state       delivered\n"), "{out}");
        assert!(out.contains("2.5 s") && out.contains("250 ms"), "{out}");
        let mut out = Vec::new();
        trace(&args(ID), &server.common(Format::Json), &mut out).await.unwrap();
        let json: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["hops"][0]["node"], "proxy");
    }

    #[actix_web::test]
    async fn where_it_stands_and_who_said_nothing_is_told() {
        let mut queued = recorded("queued");
        queued["node_id"] = json!("018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3");
        queued["reason"] = json!("storage_down");
        queued["headers"] = json!({"callhome-queue": "up", "callhome-attempts": "7",
            "callhome-unanswered-count": "2",
            "callhome-unanswered": "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/2, x"});
        let node = "GET /api/v1/nodes/018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42.2";
        let server = Recorded::start(&[(ASKED, 200, queued), (node, 200, json!({"node": "mlm"}))]);
        let common = server.common(Format::Table);
        let mut out = Vec::new();
        assert_eq!(trace(&args(ID), &common, &mut out).await.unwrap(), exit::OK);
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("state       queued (storage_down)\n"), "{out}");
        assert!(out.contains("/3 in up, 7 tries of its link failed\n"), "{out}");
        let (_, beside) = Client::server(&common)
            .unwrap()
            .get_waiting(ASKED.trim_start_matches("GET "), &[], 0)
            .await
            .unwrap();
        let silent = beside.silent(&Client::server(&common).unwrap()).await;
        assert_eq!(silent.as_deref(), Some("mlm, x"));
    }

    #[actix_web::test]
    async fn what_nobody_has_is_66_and_what_is_no_id_64() {
        let server = Recorded::start(&[(ASKED, 200, recorded("unknown"))]);
        let common = server.common(Format::Json);
        let failure = trace(&args(ID), &common, &mut Vec::new()).await.unwrap_err();
        assert_eq!(failure.code, exit::NO_SUCH_ID);
        let failure = trace(&args("x"), &common, &mut Vec::new()).await.unwrap_err();
        assert_eq!(failure.code, exit::USAGE);
    }
}
