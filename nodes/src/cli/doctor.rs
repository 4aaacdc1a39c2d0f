//! `callhome doctor`: does this installation stand as it should, and what to do where not.
use std::{
    io::{self, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::Path,
};

use jiff::Timestamp;
use protocol::heartbeat::only_warns;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    client::{Client, Look},
    common::{Common, Failure, exit, finish},
    ls::Rows,
    table::{plain, seconds},
};

/// Less free disk than this is a warning, bytes: an hour of a busy store.
const FREE_BYTES_WARN: u64 = 1 << 30;
/// Less free disk than this fails, bytes: a store stops soon.
const FREE_BYTES_FAIL: u64 = 128 << 20;
/// Clocks farther apart are a warning, seconds: times in lists begin to lie.
const CLOCK_S_WARN: i64 = 5;
/// Clocks farther apart fail, seconds: certificates and times to live go wrong.
const CLOCK_S_FAIL: i64 = 60;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Pass,
    /// Works, but look at it.
    Warn,
    /// Does not work.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it went.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do; empty where there is nothing to do.
    pub help: String,
}

impl Finding {
    fn pass(check: &str, found: impl Into<String>) -> Self {
        Self::of(check, Status::Pass, found, "")
    }

    fn of(check: &str, status: Status, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self { check: check.to_owned(), status, found: found.into(), help: help.into() }
    }

    fn failed(check: &str, failure: &Failure) -> Self {
        Self::of(check, Status::Fail, failure.message.clone(), failure.help.clone())
    }
}

/// `callhome doctor` has no flags of its own.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "Example: callhome doctor --data /var/lib/callhome")]
pub struct Args {}

/// Runs `callhome doctor`; the exit code: 65 where a check fails.
pub async fn run(_: &Args, common: &Common) -> u8 {
    finish(doctor(common, &mut io::stdout().lock()).await)
}

/// As `run`, printing to `out`.
pub async fn doctor(common: &Common, out: &mut dyn Write) -> Result<u8, Failure> {
    let findings = findings(common).await;
    let rows: Vec<Value> = findings.iter().map(|finding| json!(finding)).collect();
    let columns = &["check", "status", "found", "help"];
    let mut sink = Rows::new(columns, common, Timestamp::now());
    sink.print(&rows, out)?;
    sink.end(out)?;
    let failed = findings.iter().any(|finding| finding.status == Status::Fail);
    Ok(if failed { exit::REFUSED } else { exit::OK })
}

/// All checks, in the order in which one builds on the other.
pub async fn findings(common: &Common) -> Vec<Finding> {
    let data = &common.data;
    let mut findings = vec![folder(data)];
    if data.is_dir() {
        findings.push(disk(data));
        findings.push(token_file(&data.join("operator.token")));
    }
    findings.extend(server(common).await);
    findings.extend(door(common).await);
    findings.extend(socket(data));
    findings
}

fn folder(data: &Path) -> Finding {
    let shown = data.display();
    match std::fs::metadata(data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::of(
            "data folder",
            Status::Fail,
            format!("{shown} is not there"),
            "name it with --data DIR, or make it: callhome up",
        ),
        Err(error) => Finding::of("data folder", Status::Fail, error.to_string(), ""),
        Ok(found) if !found.is_dir() => Finding::of(
            "data folder",
            Status::Fail,
            format!("{shown} is no folder"),
            "name another one with --data DIR",
        ),
        Ok(found) if found.mode() & 0o007 != 0 => Finding::of(
            "data folder",
            Status::Warn,
            format!("{shown} is open to everybody (mode {:o})", found.mode() & 0o777),
            format!("chmod 0750 {shown}"),
        ),
        Ok(found) => {
            let mode = found.mode() & 0o777;
            Finding::pass("data folder", format!("{shown} (mode {mode:o})"))
        }
    }
}

fn disk(data: &Path) -> Finding {
    match rustix::fs::statvfs(data) {
        Err(error) => Finding::of("disk space", Status::Warn, error.to_string(), ""),
        Ok(disk) => free(disk.f_bavail.saturating_mul(disk.f_frsize)),
    }
}

fn free(bytes: u64) -> Finding {
    let found = format!("{} MiB free", bytes >> 20);
    let help = "free some: a node stops taking messages when the disk is full";
    match bytes {
        b if b < FREE_BYTES_FAIL => Finding::of("disk space", Status::Fail, found, help),
        b if b < FREE_BYTES_WARN => Finding::of("disk space", Status::Warn, found, help),
        _ => Finding::pass("disk space", found),
    }
}

fn token_file(file: &Path) -> Finding {
    let shown = file.display();
    match std::fs::metadata(file) {
        Err(error) => Finding::of(
            "token file",
            Status::Warn,
            format!("{shown}: {error}"),
            "a node makes it at its first start; elsewhere name one with --token-file FILE",
        ),
        Ok(found) if found.mode() & 0o077 != 0 => Finding::of(
            "token file",
            Status::Fail,
            format!("{shown} can be read by others (mode {:o})", found.mode() & 0o777),
            format!("chmod 0600 {shown}, and replace the token: remove the file and restart"),
        ),
        Ok(_) => Finding::pass("token file", format!("{shown} (mode 600)")),
    }
}

async fn server(common: &Common) -> Vec<Finding> {
    let here = |file: &str| common.data.join(file).exists();
    if common.server.is_none() && !here("server.url") && here("operator.url") {
        let found = "the node that runs here has no API; --server URL checks one elsewhere";
        return vec![Finding::pass("server", found)];
    }
    let client = match Client::server(common) {
        Ok(client) => client,
        Err(failure) => return vec![Finding::failed("server", &failure)],
    };
    let look = match client.look("/api/openapi.json").await {
        Ok(look) => look,
        Err(failure) => return vec![Finding::failed("server", &failure)],
    };
    let mut findings = vec![if look.status == 200 && look.json()["openapi"].is_string() {
        Finding::pass("server", format!("answers at {}", client.url()))
    } else {
        Finding::of(
            "server",
            Status::Fail,
            format!("what answers at {} is none of ours (status {})", client.url(), look.status),
            "look at --server and at server.url in the data folder",
        )
    }];
    if let Some(date) = &look.date {
        findings.push(clock(date, Timestamp::now()));
    }
    findings.push(match client.get("/api/v1/customers", &[("limit", "1".to_owned())]).await {
        Ok(_) => Finding::pass("token", "the server knows it"),
        Err(failure) => Finding::failed("token", &failure),
    });
    findings
}

/// Compares a `Date` header, which has whole seconds, with this machine's clock.
fn clock(date: &str, now: Timestamp) -> Finding {
    let Ok(theirs) = jiff::fmt::rfc2822::parse(date) else {
        let found = format!("the server's date is {:?}", plain(date));
        return Finding::of("clock", Status::Warn, found, "");
    };
    let apart = (now.as_second() - theirs.timestamp().as_second()).abs();
    let found = format!("{} from the server's", seconds(apart as f64));
    let help = "set the clocks of both machines, best by NTP";
    match apart {
        s if s > CLOCK_S_FAIL => Finding::of("clock", Status::Fail, found, help),
        s if s > CLOCK_S_WARN => Finding::of("clock", Status::Warn, found, help),
        _ => Finding::pass("clock", found),
    }
}

async fn door(common: &Common) -> Vec<Finding> {
    let client = match Client::operator(common) {
        Ok(client) => client,
        // A server far away has no door here.
        Err(_) if common.server.is_some() => return Vec::new(),
        Err(failure) => return vec![Finding::failed("alive", &failure)],
    };
    let (mut findings, mut warnings) = (Vec::new(), Vec::new());
    for (check, path, part) in [
        ("alive", "/livez", "alive"),
        ("ready", "/readyz", "ready"),
        ("delivering", "/healthz", "delivering"),
    ] {
        findings.push(match client.look(path).await {
            Ok(look) => {
                warnings.extend(warned(part, &look));
                health(check, part, &look)
            }
            Err(failure) => Finding::failed(check, &failure),
        });
    }
    findings.extend(warnings);
    findings
}

/// What nodes only warn of, each in a row of its own: it is no cause of what fails.
fn warned(part: &str, look: &Look) -> Vec<Finding> {
    let said = look.json();
    let mut findings: Vec<Finding> = Vec::new();
    for node in said["nodes"].as_array().into_iter().flatten() {
        let name = node["node"].as_str().map(plain).unwrap_or_default();
        for reason in node[part]["reasons"].as_array().into_iter().flatten() {
            let word = |key: &str| reason[key].as_str().map(plain).unwrap_or_default();
            let check = word("name");
            if only_warns(&check) {
                let found = format!("{name}: {}", word("detail"));
                findings.push(Finding::of(&check, Status::Warn, found, word("help")));
            }
        }
    }
    findings
}

/// What a door says of the nodes in its process.
fn health(check: &str, part: &str, look: &Look) -> Finding {
    let said = look.json();
    let nodes = said["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (mut found, mut help) = (Vec::new(), Vec::new());
    let mut failed = false;
    // A node that is well may say more than that.
    for node in nodes {
        let name = node["node"].as_str().map(plain).unwrap_or_default();
        let is_ok = node[part]["ok"] != false;
        failed |= !is_ok;
        for reason in node[part]["reasons"].as_array().into_iter().flatten() {
            let word = |key: &str| reason[key].as_str().map(plain).unwrap_or_default();
            if only_warns(&word("name")) {
                continue;
            }
            found.push(format!("{name}: {} ({})", word("name"), word("detail")));
            help.push(word("help"));
        }
        if !is_ok && node[part]["reasons"].as_array().is_none_or(Vec::is_empty) {
            found.push(format!("{name}: not {part}"));
        }
    }
    help.retain(|help| !help.is_empty());
    help.dedup();
    let status = if failed { Status::Fail } else { Status::Warn };
    match (found.is_empty(), look.status) {
        (false, _) => Finding::of(check, status, found.join("; "), help.join("; ")),
        (true, 200) => Finding::pass(check, format!("{} nodes", nodes.len())),
        // /healthz fails for another part, which has its own line.
        (true, 503) if check == "delivering" && !nodes.is_empty() => {
            Finding::pass(check, format!("{} nodes", nodes.len()))
        }
        (true, status) => {
            Finding::of(check, Status::Fail, format!("the door answers {status}"), "see the log")
        }
    }
}

/// The integrator socket, where a proxy keeps one under this folder.
fn socket(data: &Path) -> Option<Finding> {
    let path = data.join("proxy").join("integrator.sock");
    if !data.join("proxy").is_dir() {
        return None;
    }
    let shown = path.display();
    Some(match UnixStream::connect(&path) {
        Ok(_) => Finding::pass("integrator socket", shown.to_string()),
        Err(error) => Finding::of(
            "integrator socket",
            Status::Fail,
            format!("{shown}: {error}"),
            "the proxy makes it when it serves: see whether it runs, and its log",
        ),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{common::Format, recorded::Recorded};
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_token_that_others_can_read_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("operator.token");
        assert_eq!(token_file(&file).status, Status::Warn);
        std::fs::write(&file, "x").unwrap();
        chmod(&file, 0o644);
        let finding = token_file(&file);
        assert_eq!(finding.status, Status::Fail);
        assert!(finding.help.starts_with("chmod 0600"), "{finding:?}");
        chmod(&file, 0o600);
        assert_eq!(token_file(&file).status, Status::Pass);
    }

    #[test]
    fn disk_and_clock_have_two_bounds() {
        assert_eq!(free(FREE_BYTES_WARN).status, Status::Pass);
        assert_eq!(free(FREE_BYTES_WARN - 1).status, Status::Warn);
        assert_eq!(free(FREE_BYTES_FAIL - 1).status, Status::Fail);
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let status = |date| clock(date, now).status;
        assert_eq!(status("Sun, 22 Nov 2026 12:00:00 GMT"), Status::Pass);
        assert_eq!(status("Sun, 22 Nov 2026 11:59:50 GMT"), Status::Warn);
        assert_eq!(status("Sun, 22 Nov 2026 11:50:00 GMT"), Status::Fail);
        assert_eq!(status("now"), Status::Warn);
    }

    #[test]
    fn a_reason_of_a_node_is_passed_on_with_its_help() {
        let body = json!({"status": "failing", "nodes": [{"node": "proxy",
            "alive": {"ok": true, "reasons": []},
            "delivering": {"ok": false, "reasons": [{"name": "parent_unreachable",
                "detail": "refused", "help": "start the mlm"}]}}]});
        let look = Look { status: 503, date: None, body: body.to_string() };
        let finding = health("delivering", "delivering", &look);
        assert_eq!(finding.status, Status::Fail);
        assert_eq!(finding.found, "proxy: parent_unreachable (refused)");
        assert_eq!(finding.help, "start the mlm");
        let alive = Look { status: 200, ..look };
        assert_eq!(health("alive", "alive", &alive).status, Status::Pass);
        let body = alive.body.replace("\"ok\":false", "\"ok\":true");
        let warned = health("delivering", "delivering", &Look { body, ..alive });
        assert_eq!(warned.status, Status::Warn);
        assert_eq!(warned.found, "proxy: parent_unreachable (refused)");
    }

    #[test]
    fn a_warning_is_a_row_of_its_own_and_no_cause() {
        let reasons = json!([
            {"name": "parent_unreachable", "detail": "refused", "help": "start the mlm"},
            {"name": "plain_links", "detail": "plain HTTP", "help": "keep it private"}]);
        let node = json!({"node": "proxy", "delivering": {"ok": false, "reasons": reasons}});
        let body = json!({"status": "failing", "nodes": [node]}).to_string();
        let look = Look { status: 503, date: None, body };
        let failed = health("delivering", "delivering", &look);
        assert_eq!(failed.found, "proxy: parent_unreachable (refused)");
        assert_eq!(failed.help, "start the mlm");
        let warnings = warned("delivering", &look);
        let warning =
            Finding::of("plain_links", Status::Warn, "proxy: plain HTTP", "keep it private");
        assert_eq!(warnings, [warning]);
    }

    #[actix_web::test]
    async fn a_sound_installation_passes_and_a_dead_one_fails() {
        let sound = json!({"status": "ok", "nodes": [{"node": "proxy",
            "alive": {"ok": true}, "ready": {"ok": true}, "delivering": {"ok": true}}]});
        let server = Recorded::start(&[
            ("GET /api/openapi.json", 200, json!({"openapi": "3.1.0"})),
            ("GET /api/v1/customers?limit=1", 200, json!({"items": [], "next": null})),
            ("GET /livez", 200, sound.clone()),
            ("GET /readyz", 200, sound.clone()),
            ("GET /healthz", 200, sound),
        ]);
        let common = server.common(Format::Json);
        chmod(&common.data, 0o750);
        chmod(&common.data.join("operator.token"), 0o600);
        let mut out = Vec::new();
        let code = doctor(&common, &mut out).await.unwrap();
        let rows: Vec<Value> = serde_json::from_slice(&out).unwrap();
        // The disk of the machine that tests may be fuller than we like.
        let rest: Vec<_> = rows.iter().filter(|row| row["check"] != "disk space").collect();
        assert!(rest.iter().all(|row| row["status"] == "pass"), "{rest:?}");
        assert!(rest.len() >= 8, "{rest:?}");
        assert!(code == exit::OK || rows.iter().any(|row| row["status"] == "fail"));
        let mut dead = common.clone();
        let dir = tempfile::tempdir().unwrap();
        dead.data = dir.path().join("nowhere");
        assert_eq!(doctor(&dead, &mut Vec::new()).await.unwrap(), exit::REFUSED);
    }
}
