//! `callhome ls KIND`: lists of the application server, newest first.
use std::io::{self, Write};

use clap::ValueEnum;
use jiff::Timestamp;
use protocol::service::Severity;
use serde_json::Value;

use super::{
    client::Client,
    common::{Common, Failure, coloured, exit, finish, note},
    table::{Look, Table},
};

/// Rows asked for at once: a megabyte or so, shown as it comes.
const PAGE_ROWS: usize = 1000;

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Organisations served
    Customers,
    /// Proxies, MLMs, application servers
    Nodes,
    /// Processes that speak with management systems
    Integrators,
    /// Devices, hosts and software components managed
    Instances,
    /// Alarms that are not closed, unless --state says which
    Alarms,
    /// Events
    Events,
    /// Messages as they were stored
    Messages,
    /// Management actions
    Actions,
}

impl Kind {
    /// The name in the API's path.
    pub fn path(self) -> &'static str {
        match self {
            Self::Customers => "/api/v1/customers",
            Self::Nodes => "/api/v1/nodes",
            Self::Integrators => "/api/v1/integrators",
            Self::Instances => "/api/v1/instances",
            Self::Alarms => "/api/v1/alarms",
            Self::Events => "/api/v1/events",
            Self::Messages => "/api/v1/messages",
            Self::Actions => "/api/v1/actions",
        }
    }

    /// The columns of contract §2, the id last.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Customers => &["customer", "nodes", "instances", "alarms", "customer_id"],
            Self::Nodes => {
                &["node", "roles", "state", "delivering", "queued", "oldest_age_s", "node_id"]
            }
            Self::Integrators => &["integrator", "version", "state", "instances", "integrator_id"],
            Self::Instances => &["instance", "integrator", "state", "alarms", "instance_id"],
            Self::Alarms => &[
                "severity",
                "state",
                "instance",
                "type",
                "key",
                "text",
                "count",
                "occurred_at",
                "alarm_id",
            ],
            Self::Events => &[
                "severity",
                "state",
                "instance",
                "type",
                "event_id",
                "text",
                "occurred_at",
                "message_id",
            ],
            Self::Messages => {
                &["class", "subclass", "precedence", "instance", "stored_at", "message_id"]
            }
            Self::Actions => &["name", "target_id", "state", "status", "action_id"],
        }
    }
}

/// Flags of `callhome ls`: the API's filters. A repeated filter takes any of its values.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: callhome ls alarms --severity-min major --since 2h")]
pub struct Args {
    /// What to list
    #[arg(value_enum)]
    pub kind: Kind,
    /// Rows at most; 0: all
    #[arg(long, value_name = "ROWS", default_value_t = 1000)]
    pub limit: usize,
    /// Customer id or name
    #[arg(long, value_name = "CUSTOMER")]
    pub customer: Option<String>,
    /// Node id or name
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Integrator name
    #[arg(long, value_name = "NAME")]
    pub integrator: Vec<String>,
    /// The platform's identifier of an instance, or an instance id
    #[arg(long, value_name = "INSTANCE")]
    pub instance: Vec<String>,
    /// Exact type of alarms or events
    #[arg(long = "type", value_name = "TYPE")]
    pub types: Vec<String>,
    /// Exact severity
    #[arg(long, value_name = "SEVERITY")]
    pub severity: Vec<Severity>,
    /// This severe or worse
    #[arg(long, value_name = "SEVERITY", alias = "severity_min")]
    pub severity_min: Option<Severity>,
    /// State; all for every state
    #[arg(long, value_name = "STATE")]
    pub state: Vec<String>,
    /// Data class of messages
    #[arg(long, value_name = "CLASS")]
    pub class: Vec<String>,
    /// Subclass of messages
    #[arg(long, value_name = "SUBCLASS")]
    pub subclass: Vec<String>,
    /// Words of the text, any order, case ignored
    #[arg(long, value_name = "WORDS")]
    pub text: Option<String>,
    /// Occurred then or later: a time in RFC 3339, or how long ago, such as 90s 15m 2h 7d
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Occurred before then
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

impl Args {
    /// The parameters of the API; relative times go by `now`.
    pub fn query(&self, now: Timestamp) -> Result<Vec<(&'static str, String)>, Failure> {
        let mut query = Vec::new();
        let once = [("customer", &self.customer), ("node", &self.node), ("text", &self.text)];
        for (name, value) in once {
            query.extend(value.iter().map(|value| (name, value.clone())));
        }
        let many = [
            ("integrator", &self.integrator),
            ("instance", &self.instance),
            ("type", &self.types),
            ("state", &self.state),
            ("class", &self.class),
            ("subclass", &self.subclass),
        ];
        for (name, values) in many {
            query.extend(values.iter().map(|value| (name, value.clone())));
        }
        query.extend(self.severity.iter().map(|value| ("severity", value.to_string())));
        query.extend(self.severity_min.iter().map(|value| ("severity_min", value.to_string())));
        for (name, value) in [("since", &self.since), ("until", &self.until)] {
            if let Some(value) = value {
                query.push((name, moment(value, now, Direction::Past)?));
            }
        }
        Ok(query)
    }
}

/// Which way a length of time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `2h` is two hours ago.
    Past,
    /// `2h` is in two hours.
    Future,
}

/// RFC 3339 as it is, or a length of time from `now`, in the API's form.
pub fn moment(text: &str, now: Timestamp, direction: Direction) -> Result<String, Failure> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(format!("{at:.3}"));
    }
    let wrong = || {
        Failure::usage(
            format!("{text:?} is no time"),
            "write RFC 3339, such as 2026-11-22T12:00:00Z, or a length such as 90s 15m 2h 7d",
        )
    };
    let split = text.trim_start_matches(['+', '-']);
    let digits = split.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_s = match &split[digits.len()..] {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let length = digits.parse::<u32>().ok().map(|n| i64::from(n) * unit_s).ok_or_else(wrong)?;
    let second = match direction {
        Direction::Past => now.as_second().saturating_sub(length),
        Direction::Future => now.as_second().saturating_add(length),
    };
    let at = Timestamp::from_second(second).map_err(|_| wrong())?;
    Ok(format!("{at:.3}"))
}

/// Runs `callhome ls`; the exit code.
pub async fn run(args: &Args, common: &Common) -> u8 {
    finish(list(args, common, &mut io::stdout().lock()).await)
}

/// As `run`, printing to `out`.
pub async fn list(args: &Args, common: &Common, out: &mut dyn Write) -> Result<u8, Failure> {
    let now = Timestamp::now();
    let query = args.query(now)?;
    let client = Client::server(common)?;
    let mut sink = Rows::new(args.kind.columns(), common, now);
    let more = pages(&client, args.kind.path(), query, args.limit, &mut sink, out).await?;
    if sink.printed == 0 {
        known(&client, args).await?;
    }
    sink.end(out)?;
    if more {
        let kind = args.kind.path().rsplit('/').next().unwrap_or_default();
        note(&format!("there are more {kind} than {}; --limit 0 lists all", args.limit));
    }
    Ok(exit::OK)
}

/// That a list is empty because a filter names nobody there is, is told apart from a list of
/// nothing: 66.
async fn known(client: &Client, args: &Args) -> Result<(), Failure> {
    let named = args.customer.iter().map(|name| (Kind::Customers, "customer", name));
    let named = named.chain(args.node.iter().map(|name| (Kind::Nodes, "node", name)));
    let integrators = args.integrator.iter();
    let named = named.chain(integrators.map(|name| (Kind::Integrators, "integrator", name)));
    for (kind, what, name) in named {
        if !is_known(client, kind.path(), what, name).await? {
            return Err(Failure::new(
                exit::NO_SUCH_ID,
                format!("there is no {what} {name:?}"),
                format!("callhome ls {what}s lists them"),
            ));
        }
    }
    Ok(())
}

/// Whether the list at `path` has an object of that name or id; in ids `/` may be written `.`.
async fn is_known(client: &Client, path: &str, what: &str, name: &str) -> Result<bool, Failure> {
    let (id, dotted) = (format!("{what}_id"), name.replace('.', "/"));
    let mut cursor = None::<String>;
    loop {
        let mut query = vec![("limit", PAGE_ROWS.to_string())];
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let page = client.get(path, &query).await?;
        if items(&page)?.iter().any(|row| row[what] == name || row[&id] == dotted.as_str()) {
            return Ok(true);
        }
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(false),
        }
    }
}

/// Reads a list page by page into `sink`, `limit` rows at most (0: all); whether there is more.
pub async fn pages(
    client: &Client,
    path: &str,
    query: Vec<(&'static str, String)>,
    limit: usize,
    sink: &mut Rows,
    out: &mut dyn Write,
) -> Result<bool, Failure> {
    let (mut seen, mut cursor) = (0, None::<String>);
    loop {
        let rows = if limit == 0 { PAGE_ROWS } else { PAGE_ROWS.min(limit - seen) };
        let mut asked = query.clone();
        asked.push(("limit", rows.to_string()));
        asked.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let page = client.get(path, &asked).await?;
        let items = items(&page)?;
        seen += items.len();
        sink.print(items, out)?;
        match page["next"].as_str() {
            None => return Ok(false),
            Some(_) if limit > 0 && seen >= limit => return Ok(true),
            Some(next) => cursor = Some(next.to_owned()),
        }
    }
}

/// The rows of a page.
pub fn items(page: &Value) -> Result<&[Value], Failure> {
    page["items"].as_array().map(Vec::as_slice).ok_or_else(|| {
        Failure::new(
            exit::UNREACHABLE,
            "what answers is not an application server: there are no items in its list",
            "look at --server, or at server.url in the data folder",
        )
    })
}

/// Rows as a table, or as one JSON array, written while they come.
#[derive(Debug)]
pub struct Rows {
    json: bool,
    table: Table,
    printed: usize,
}

impl Rows {
    /// In the format that was asked for.
    pub fn new(columns: &'static [&'static str], common: &Common, now: Timestamp) -> Self {
        let look = Look { coloured: coloured(), now };
        Self { json: common.json(), table: Table::new(columns, look), printed: 0 }
    }

    /// Some more of them. Of none not even a head is shown: an error may follow.
    pub fn print(&mut self, rows: &[Value], out: &mut dyn Write) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        if !self.json {
            self.table.print(rows, out)?;
        } else {
            for (i, row) in rows.iter().enumerate() {
                let before = if self.printed + i == 0 { "[\n" } else { ",\n" };
                write!(out, "{before}{row}")?;
            }
        }
        self.printed += rows.len();
        Ok(())
    }

    /// No more.
    pub fn end(&mut self, out: &mut dyn Write) -> Result<(), Failure> {
        if self.json {
            writeln!(out, "{}", if self.printed == 0 { "[]" } else { "\n]" })?;
        } else if self.printed == 0 {
            self.table.print(&[], out)?;
        }
        Ok(out.flush()?)
    }
}

/// One object: JSON as it is, or its row.
pub fn show(
    object: &Value,
    columns: &'static [&'static str],
    common: &Common,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if common.json() {
        writeln!(out, "{object}")?;
        return Ok(out.flush()?);
    }
    let mut rows = Rows::new(columns, common, Timestamp::now());
    rows.print(std::slice::from_ref(object), out)?;
    rows.end(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{common::Format, recorded::Recorded};
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Ls {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Ls::try_parse_from(line.split(' ')).map(|ls| ls.args).unwrap()
    }

    #[test]
    fn the_flags_are_the_filters_of_the_api() {
        let line = "ls alarms --severity fatal --severity critical --severity-min major \
                    --type linkDown --instance db1 --state all --since 1h --text link";
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let query = args(line).query(now).unwrap();
        for expected in [
            ("severity", "fatal"),
            ("severity", "critical"),
            ("severity_min", "major"),
            ("type", "linkDown"),
            ("instance", "db1"),
            ("state", "all"),
            ("text", "link"),
            ("since", "2026-11-22T11:00:00.000Z"),
        ] {
            assert!(query.iter().any(|(n, v)| (*n, v.as_str()) == expected), "{expected:?}");
        }
        assert!(Ls::try_parse_from(["ls", "alarms", "--severity", "bad"]).is_err());
        assert!(Ls::try_parse_from(["ls", "certificates"]).is_err());
    }

    #[test]
    fn times_are_absolute_or_a_length() {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let past = |text| moment(text, now, Direction::Past).map_err(|failure| failure.code);
        assert_eq!(past("90s").as_deref(), Ok("2026-11-22T11:58:30.000Z"));
        assert_eq!(past("7d").as_deref(), Ok("2026-11-15T12:00:00.000Z"));
        assert_eq!(past("2026-11-22T13:00:00+01:00").as_deref(), Ok("2026-11-22T12:00:00.000Z"));
        let future = moment("2h", now, Direction::Future).unwrap();
        assert_eq!(future, "2026-11-22T14:00:00.000Z");
        for wrong in ["", "h", "2", "2w", "yesterday", "99999999999h", "é"] {
            assert_eq!(past(wrong), Err(exit::USAGE), "{wrong}");
        }
    }

    fn page(from: usize, to: usize, next: Option<&str>) -> Value {
        let items: Vec<Value> = (from..to).map(|i| json!({"customer": i.to_string()})).collect();
        json!({"items": items, "next": next})
    }

    async fn listed(server: &Recorded, limit: usize, format: Format) -> (String, u8) {
        let mut out = Vec::new();
        let args = Args { limit, ..args("ls customers") };
        let code = match list(&args, &server.common(format), &mut out).await {
            Ok(code) => code,
            Err(failure) => failure.code,
        };
        (String::from_utf8(out).unwrap(), code)
    }

    #[actix_web::test]
    async fn all_pages_become_one_json_array() {
        let server = Recorded::start(&[
            ("GET /api/v1/customers?limit=1000&cursor=c1", 200, page(2, 3, None)),
            ("GET /api/v1/customers?limit=1000", 200, page(0, 2, Some("c1"))),
        ]);
        let (out, code) = listed(&server, 0, Format::Json).await;
        assert_eq!(code, exit::OK);
        let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(server.tokens(), ["Bearer t0ken", "Bearer t0ken"]);
    }

    #[actix_web::test]
    async fn no_rows_are_an_empty_array_and_a_heading() {
        let server = Recorded::start(&[("GET /api/v1/customers?limit=5", 200, page(0, 0, None))]);
        assert_eq!(listed(&server, 5, Format::Json).await.0, "[]\n");
        let (out, _) = listed(&server, 5, Format::Table).await;
        assert_eq!(out, "customer  nodes  instances  alarms  customer_id\n");
    }

    #[actix_web::test]
    async fn a_refusal_becomes_its_exit_code() {
        for (status, verdict, code) in
            [(401, "give_up", 77), (400, "give_up", 64), (503, "try_again", 75)]
        {
            let problem = json!({"detail": "no", "verdict": verdict});
            let server = Recorded::start(&[("GET /api/v1/customers?limit=5", status, problem)]);
            assert_eq!(listed(&server, 5, Format::Json).await.1, code);
        }
    }

    #[actix_web::test]
    async fn nobody_there_is_69() {
        let dir = tempfile::tempdir().unwrap();
        let mut common = Recorded::start(&[]).common(Format::Json);
        common.data = dir.path().to_owned();
        common.server = None;
        let failure = list(&args("ls alarms"), &common, &mut Vec::new()).await.unwrap_err();
        assert_eq!(failure.code, exit::UNREACHABLE);
        assert!(failure.help.contains("callhome up"), "{failure:?}");
        // A port that was free a moment ago: what server.url says after a kill.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::fs::write(dir.path().join("server.url"), format!("http://{port}\n")).unwrap();
        let failure = list(&args("ls alarms"), &common, &mut Vec::new()).await.unwrap_err();
        assert_eq!(failure.code, exit::UNREACHABLE);
        assert!(failure.message.contains("cannot be reached"), "{failure:?}");
    }
}
