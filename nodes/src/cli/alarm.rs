//! `callhome alarm ack|silence|close ID`: what an operator does about an alarm.
use std::io::{self, Write};

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    client::Client,
    common::{Common, Failure, exit, finish},
    ls::{Direction, Kind, moment, show},
};

/// Flags of `callhome alarm`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Example: callhome alarm ack 01a20a03-e88d-7000-8000-000000000008 --comment looking"
)]
pub struct Args {
    /// What to do
    #[arg(value_enum)]
    pub what: What,
    /// Alarm id
    pub id: String,
    /// Words for who looks at it next
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
    /// Of silence: a time in RFC 3339, or how long from now, such as 30m 2h 7d
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// What is done about an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Somebody looks after it; holds until it is closed or more severe
    Ack,
    /// No notifications until then; the state does not change
    Silence,
    /// It is over
    Close,
}

/// Runs `callhome alarm`; the exit code.
pub async fn run(args: &Args, common: &Common) -> u8 {
    finish(act(args, common, &mut io::stdout().lock()).await)
}

/// The path and the body of what is asked.
fn order(args: &Args, now: Timestamp) -> Result<(String, Value), Failure> {
    let id: Uuid = args.id.parse().map_err(|_| {
        Failure::usage(
            format!("{:?} is no alarm id", args.id),
            "the last column of `callhome ls alarms` is, a UUID",
        )
    })?;
    let mut body = Map::new();
    if let Some(comment) = &args.comment {
        body.insert("comment".to_owned(), comment.as_str().into());
    }
    match (args.what, &args.until) {
        (What::Silence, Some(until)) => {
            body.insert("until".to_owned(), moment(until, now, Direction::Future)?.into());
        }
        (What::Silence, None) => {
            return Err(Failure::usage("silence has an end", "say it with --until, such as 2h"));
        }
        (_, Some(_)) => {
            return Err(Failure::usage("--until belongs to silence alone", "leave it out"));
        }
        (_, None) => (),
    }
    let what = match args.what {
        What::Ack => "acknowledgement",
        What::Silence => "silence",
        What::Close => "closure",
    };
    Ok((format!("/api/v1/alarms/{id}/{what}"), Value::Object(body)))
}

/// As `run`, printing to `out`.
pub async fn act(args: &Args, common: &Common, out: &mut dyn Write) -> Result<u8, Failure> {
    let (path, body) = order(args, Timestamp::now())?;
    let client = Client::server(common)?;
    let alarm = client.give(Method::PUT, &path, &body, &[], 0).await?;
    show(&alarm, Kind::Alarms.columns(), common, out)?;
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{common::Format, recorded::Recorded};
    use super::*;
    use serde_json::json;

    const ID: &str = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e43";

    fn args(what: What, id: &str, until: Option<&str>) -> Args {
        let comment = Some("on it".to_owned());
        Args { what, id: id.to_owned(), comment, until: until.map(str::to_owned) }
    }

    #[test]
    fn only_a_silence_has_an_end_and_it_must() {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let (path, body) = order(&args(What::Silence, ID, Some("2h")), now).unwrap();
        assert_eq!(path, format!("/api/v1/alarms/{ID}/silence"));
        assert_eq!(body, json!({"comment": "on it", "until": "2026-11-22T14:00:00.000Z"}));
        for wrong in [
            args(What::Silence, ID, None),
            args(What::Ack, ID, Some("2h")),
            args(What::Close, "17", None),
        ] {
            assert_eq!(order(&wrong, now).unwrap_err().code, exit::USAGE);
        }
    }

    #[actix_web::test]
    async fn the_answer_is_the_alarm() {
        let line = format!("PUT /api/v1/alarms/{ID}/acknowledgement");
        let alarm = json!({"alarm_id": ID, "state": "acknowledged"});
        let server = Recorded::start(&[(&line, 200, alarm.clone())]);
        let mut out = Vec::new();
        let common = server.common(Format::Json);
        let code = act(&args(What::Ack, ID, None), &common, &mut out).await.unwrap();
        assert_eq!(code, exit::OK);
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), alarm);
        assert_eq!(server.asked()[0].body, r#"{"comment":"on it"}"#);
        let failure =
            act(&args(What::Close, ID, None), &common, &mut Vec::new()).await.unwrap_err();
        assert_eq!(failure.code, exit::NO_SUCH_ID);
    }
}
