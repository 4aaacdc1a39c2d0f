//! `callhome ledger [NODE]`: the account of what became of every message, and whether it balances.
use std::io::{self, Write};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    client::Client,
    common::{Common, Failure, exit, finish, note},
    ls::{Rows, items},
    table::plain,
    trace::WAIT_S_MAX,
};

/// Nodes a page; the account of a fleet comes in several.
const PAGE_ROWS: usize = 1000;
const COLUMNS: &[&str] = &[
    "node",
    "in",
    "delivered",
    "expired",
    "evicted",
    "refused",
    "consumed",
    "queued",
    "balanced",
    "node_id",
];

/// Flags of `callhome ledger`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: callhome ledger --check")]
pub struct Args {
    /// One node, by id or name; without it all
    pub node: Option<String>,
    /// End with 65 unless all balance
    #[arg(long)]
    pub check: bool,
    /// Seconds to wait for nodes to answer
    #[arg(long, value_name = "S", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(..=WAIT_S_MAX))]
    pub wait: u64,
}

/// Runs `callhome ledger`; the exit code.
pub async fn run(args: &Args, common: &Common) -> u8 {
    finish(ledger(args, common, &mut io::stdout().lock()).await)
}

/// As `run`, printing to `out`.
pub async fn ledger(args: &Args, common: &Common, out: &mut dyn Write) -> Result<u8, Failure> {
    let client = Client::server(common)?;
    let mut rows = Rows::new(COLUMNS, common, Timestamp::now());
    let (mut seen, mut wrong, mut cursor) = (0, Vec::new(), None::<String>);
    loop {
        let mut query = vec![("limit", PAGE_ROWS.to_string())];
        query.push(("wait_s", args.wait.to_string()));
        query.extend(args.node.iter().map(|node| ("node", node.clone())));
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let (page, beside) = client.get_waiting("/api/v1/ledger", &query, args.wait).await?;
        if let Some(silent) = beside.silent(&client).await {
            note(&format!("{silent} did not answer: the account is its last heartbeat's"));
        }
        let ledgers = items(&page)?;
        seen += ledgers.len();
        wrong.extend(ledgers.iter().filter(|ledger| ledger["balanced"] != true).map(words));
        rows.print(ledgers, out)?;
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    if let Some(node) = args.node.as_ref().filter(|_| seen == 0) {
        return Err(Failure::new(
            exit::NO_SUCH_ID,
            format!("there is no node {node:?} with an account"),
            "callhome ls nodes lists them",
        ));
    }
    rows.end(out)?;
    if args.check && !wrong.is_empty() {
        return Err(Failure::new(
            exit::REFUSED,
            format!("not balanced: {}", wrong.join("; ")),
            "messages of these nodes are not accounted for: keep their data folders, and see \
             `callhome ls messages` and their logs",
        ));
    }
    if args.check && seen == 0 {
        return Err(Failure::new(
            exit::REFUSED,
            "no node has given an account yet",
            "nodes say it when they are asked: is one registered? callhome ls nodes",
        ));
    }
    Ok(exit::OK)
}

/// Which node, and by how much.
fn words(ledger: &Value) -> String {
    let figure = |key: &str| ledger[key].as_i64().unwrap_or_default();
    let out: i64 = ["delivered", "expired", "evicted", "refused", "consumed", "queued"]
        .into_iter()
        .map(figure)
        .sum();
    let name = ledger["node"].as_str().map(plain).unwrap_or_default();
    format!("{name} by {}", figure("in").saturating_sub(out))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{common::Format, recorded::Recorded};
    use super::*;
    use serde_json::json;

    fn account(node: &str, taken: u64) -> Value {
        json!({"node": node, "node_id": "x", "in": taken, "delivered": 7, "expired": 1,
            "evicted": 0, "refused": 0, "consumed": 0, "queued": 2, "balanced": taken == 10})
    }

    async fn code(node: Option<&str>, check: bool, items: Value) -> u8 {
        let query = node.map(|node| format!("&node={node}")).unwrap_or_default();
        let line = format!("GET /api/v1/ledger?limit=1000&wait_s=5{query}");
        let server = Recorded::start(&[(&line, 200, json!({"items": items, "next": null}))]);
        let args = Args { node: node.map(str::to_owned), check, wait: 5 };
        match ledger(&args, &server.common(Format::Json), &mut Vec::new()).await {
            Ok(code) => code,
            Err(failure) => failure.code,
        }
    }

    #[actix_web::test]
    async fn the_check_says_no_unless_all_balance() {
        let balanced = json!([account("proxy", 10)]);
        let gap = json!([account("proxy", 10), account("mlm", 12)]);
        assert_eq!(code(None, true, balanced.clone()).await, exit::OK);
        assert_eq!(code(None, true, gap.clone()).await, exit::REFUSED);
        assert_eq!(code(None, false, gap).await, exit::OK);
        assert_eq!(code(None, true, json!([])).await, exit::REFUSED);
        assert_eq!(code(Some("proxy"), true, balanced).await, exit::OK);
        assert_eq!(code(Some("nobody"), false, json!([])).await, exit::NO_SUCH_ID);
    }

    #[actix_web::test]
    async fn of_a_node_that_is_not_there_nothing_is_shown() {
        let line = "GET /api/v1/ledger?limit=1000&wait_s=5&node=nobody";
        for format in [Format::Table, Format::Json] {
            let nothing = json!({"items": [], "next": null});
            let server = Recorded::start(&[(line, 200, nothing)]);
            let args = Args { node: Some("nobody".to_owned()), check: false, wait: 5 };
            let mut out = Vec::new();
            let failure = ledger(&args, &server.common(format), &mut out).await.unwrap_err();
            assert_eq!((failure.code, out), (exit::NO_SUCH_ID, Vec::new()));
        }
    }

    #[test]
    fn a_gap_is_told_by_node_and_number() {
        assert_eq!(words(&account("mlm", 12)), "mlm by 2");
    }
}
