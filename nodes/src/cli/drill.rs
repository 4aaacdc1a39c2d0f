//! `callhome drill`, `log`, `sign-in`: orders to the operator's door of a running process.
use std::io::{self, Write};

use reqwest::Method;
use serde_json::json;

use super::{
    client::Client,
    common::{Common, Failure, exit, finish},
    table::plain,
};
use crate::operator::CLOCK_OFF_S_MAX;

/// Faults of one drill; the door takes no more.
const TIMES_MAX: u32 = 10_000;
/// Longest pause between two faults, milliseconds.
const EVERY_MS_MAX: u32 = 60_000;

/// Flags of `callhome drill`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: callhome drill panic durable_queue --node proxy --times 3")]
pub struct DrillArgs {
    /// What shall happen to it
    #[arg(value_enum)]
    pub fault: Fault,
    /// The last part of its path in /tree, or all of it
    #[arg(required_if_eq_any = [("fault", "panic"), ("fault", "hang"), ("fault", "stop")])]
    #[arg(conflicts_with = "off_by_s")]
    pub actor: Option<String>,
    /// How far the clock shall be from the machine's, behind it if negative; 0 ends the drill
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    #[arg(required_if_eq("fault", "clock"), value_parser = clap::value_parser!(i64)
        .range(-CLOCK_OFF_S_MAX..=CLOCK_OFF_S_MAX))]
    pub off_by_s: Option<i64>,
    /// Of one node, by name; without it of all in the process
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=TIMES_MAX as i64))]
    pub times: u32,
    /// Milliseconds from one to the next
    #[arg(long, value_name = "MS", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(0..=EVERY_MS_MAX as i64))]
    pub every_ms: u32,
}

/// A fault of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// It panics
    Panic,
    /// It hangs
    Hang,
    /// It ends
    Stop,
    /// The clock of the whole process is off
    Clock,
}

impl Fault {
    fn word(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Hang => "hang",
            Self::Stop => "stop",
            Self::Clock => "clock",
        }
    }
}

/// Runs `callhome drill`; the exit code. The door does it `times` times and then answers.
pub async fn drill(args: &DrillArgs, common: &Common) -> u8 {
    finish(order_drill(args, common, &mut io::stdout().lock()).await)
}

async fn order_drill(
    args: &DrillArgs,
    common: &Common,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let door = Client::operator(common)?;
    let actor = match &args.actor {
        Some(actor) => actor,
        None => return set_clock_off(args.off_by_s.unwrap_or_default(), &door, common, out).await,
    };
    let body = json!({
        "fault": args.fault.word(),
        "actor": actor,
        "node": args.node,
        "times": args.times,
        "every_ms": args.every_ms,
    });
    let takes_s = u64::from(args.times) * u64::from(args.every_ms) / 1000;
    let done = door.give(Method::POST, "/drill", &body, &[], takes_s).await?;
    if common.json() {
        writeln!(out, "{done}")?;
    } else {
        let (word, actor) = (args.fault.word(), plain(actor));
        writeln!(out, "{word} {actor}: {} times", args.times)?;
    }
    Ok(exit::OK)
}

/// The drill of no actor: the clock.
async fn set_clock_off(
    off_by_s: i64,
    door: &Client,
    common: &Common,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let body = json!({"fault": Fault::Clock.word(), "off_by_s": off_by_s});
    let done = door.give(Method::POST, "/drill", &body, &[], 0).await?;
    if common.json() {
        writeln!(out, "{done}")?;
    } else {
        writeln!(out, "clock: {off_by_s} s off")?;
    }
    Ok(exit::OK)
}

/// Flags of `callhome log`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: callhome log info,supervision=debug")]
pub struct LogArgs {
    /// Such as info, or warn,supervision=debug; holds until the process ends
    pub filter: String,
}

/// Runs `callhome log`; the exit code.
pub async fn log(args: &LogArgs, common: &Common) -> u8 {
    finish(order_log(args, common, &mut io::stdout().lock()).await)
}

async fn order_log(args: &LogArgs, common: &Common, out: &mut dyn Write) -> Result<u8, Failure> {
    let door = Client::operator(common)?;
    let body = json!({"filter": args.filter});
    let wrong = |failure: Failure| match failure.code {
        // A filter that cannot be read is a slip on this command line.
        exit::REFUSED => Failure::usage(
            format!("{:?} is no log filter: {}", args.filter, failure.message),
            "levels are error warn info debug trace, as in info,delivery=debug",
        ),
        _ => failure,
    };
    door.give(Method::PUT, "/log", &body, &[], 0).await.map_err(wrong)?;
    if common.json() {
        writeln!(out, "{body}")?;
    } else {
        writeln!(out, "logs {}", plain(&args.filter))?;
    }
    Ok(exit::OK)
}

/// `callhome sign-in` has no flags of its own.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "Example: callhome sign-in --data /var/lib/callhome")]
pub struct SignInArgs {}

/// Runs `callhome sign-in`: prints a new address that signs in once; the exit code.
pub async fn sign_in(_: &SignInArgs, common: &Common) -> u8 {
    finish(order_sign_in(common, &mut io::stdout().lock()).await)
}

async fn order_sign_in(common: &Common, out: &mut dyn Write) -> Result<u8, Failure> {
    let door = Client::operator(common)?;
    let none = || {
        Failure::new(
            exit::UNREACHABLE,
            "this process serves no portal",
            "ask the one that does: --data DIR of `callhome up`, or of the content MLM",
        )
    };
    let made = match door.give(Method::POST, "/sign-in", &json!({}), &[], 0).await {
        Err(failure) if failure.code == exit::NO_SUCH_ID => return Err(none()),
        made => made?,
    };
    let url = made["url"].as_str().ok_or_else(none)?;
    if common.json() {
        writeln!(out, "{}", json!({"url": url}))?;
    } else {
        writeln!(out, "{}", plain(url))?;
    }
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{common::Format, recorded::Recorded};
    use super::*;
    use serde_json::Value;

    fn code(result: Result<u8, Failure>) -> u8 {
        result.unwrap_or_else(|failure| failure.code)
    }

    #[actix_web::test]
    async fn a_drill_says_what_shall_happen_and_is_refused_where_drills_are_off() {
        let args = DrillArgs {
            fault: Fault::Panic,
            actor: Some("durable_queue".to_owned()),
            off_by_s: None,
            node: None,
            times: 3,
            every_ms: 0,
        };
        let server = Recorded::start(&[("POST /drill", 200, json!({"ordered": 3}))]);
        let common = server.common(Format::Json);
        assert_eq!(code(order_drill(&args, &common, &mut Vec::new()).await), exit::OK);
        let body: Value = serde_json::from_str(&server.asked()[0].body).unwrap();
        assert_eq!(
            body,
            json!({"fault": "panic", "actor": "durable_queue", "node": null,
            "times": 3, "every_ms": 0})
        );
        assert_eq!(server.tokens(), ["Bearer t0ken"]);
        for (status, expected) in [(403, exit::REFUSED), (404, exit::NO_SUCH_ID), (401, 77)] {
            let problem = json!({"detail": "no", "verdict": "give_up"});
            let server = Recorded::start(&[("POST /drill", status, problem)]);
            let common = server.common(Format::Json);
            assert_eq!(code(order_drill(&args, &common, &mut Vec::new()).await), expected);
        }
    }

    #[actix_web::test]
    async fn a_drill_of_the_clock_names_no_actor() {
        let server = Recorded::start(&[("POST /drill", 200, json!({"off_by_s": -60}))]);
        let args = DrillArgs {
            fault: Fault::Clock,
            actor: None,
            off_by_s: Some(-60),
            node: None,
            times: 1,
            every_ms: 0,
        };
        let (common, mut out) = (server.common(Format::Table), Vec::new());
        assert_eq!(code(order_drill(&args, &common, &mut out).await), exit::OK);
        let body: Value = serde_json::from_str(&server.asked()[0].body).unwrap();
        assert_eq!(body, json!({"fault": "clock", "off_by_s": -60}));
        assert_eq!(out, b"clock: -60 s off\n");
    }

    #[actix_web::test]
    async fn a_filter_nobody_can_read_is_64() {
        let problem = json!({"detail": "no filter", "verdict": "give_up"});
        let server = Recorded::start(&[("PUT /log", 400, problem)]);
        let args = LogArgs { filter: "==".to_owned() };
        let common = server.common(Format::Table);
        let failure = order_log(&args, &common, &mut Vec::new()).await.unwrap_err();
        assert_eq!(failure.code, exit::USAGE);
        assert!(failure.message.contains("no log filter"), "{}", failure.message);
        assert!(failure.help.contains("info,delivery=debug"), "{}", failure.help);
        let server = Recorded::start(&[("PUT /log", 200, Value::Null)]);
        let common = server.common(Format::Table);
        let mut out = Vec::new();
        let args = LogArgs { filter: "info".to_owned() };
        assert_eq!(code(order_log(&args, &common, &mut out).await), exit::OK);
        assert_eq!(out, b"logs info\n");
    }

    #[actix_web::test]
    async fn sign_in_prints_the_address() {
        let url = "http://127.0.0.1:1/sign-in?code=x";
        let server = Recorded::start(&[("POST /sign-in", 200, json!({"url": url}))]);
        let mut out = Vec::new();
        let common = server.common(Format::Table);
        assert_eq!(code(order_sign_in(&common, &mut out).await), exit::OK);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{url}\n"));
    }
}
