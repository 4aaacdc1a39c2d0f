//! `callhome send`: one message through the integrator API, for scripts.
#![allow(rustdoc::broken_intra_doc_links, reason = "brackets in the help are defaults, not links")]
use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use integrator_api::{
    Accepted, AlarmCall, Call, CallError, Client, DataCall, EventCall, MessageId, Options, Outcome,
    Persistence, Precedence, Qos, Registered, Severity, State, Verdict,
};
use protocol::{
    limits::{DATA_BYTES_MAX, ONCE_BYTES_MAX},
    media::is_media_type,
};

use super::common::{Common, Failure, Format, Given, exit, finish, note};

/// Where a proxy under `node` has its socket, unless its configuration says otherwise.
const SOCKET: &str = "/run/callhome/integrator.sock";
/// After that, somebody who waits at a terminal is told for what.
const TELL_AFTER: Duration = Duration::from_secs(1);
/// How long the end of the conversation may take; the answer is there by then.
const BYE_WITHIN: Duration = Duration::from_millis(500);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Opens, repeats or closes an alarm
    Alarm,
    /// Tells an event
    Event,
    /// Sends data of a class
    Data,
}

/// Flags of `callhome send`. Here `--data` is the payload: the folder of the nodes goes before the
/// command's name, or into $CALLHOME_DATA.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Example: callhome send alarm --instance press-1 --type oil --severity major --text low"
)]
pub struct SendArgs {
    /// What to send
    #[arg(value_enum)]
    pub kind: Kind,
    /// The proxy's socket [$CALLHOME_SOCKET, DATA/proxy/integrator.sock, /run/callhome/…]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The instance it is about; registered if it is new
    #[arg(long, value_name = "NAME")]
    pub instance: String,
    /// Type of an alarm or event: the platform's own word
    #[arg(long = "type", value_name = "TYPE")]
    #[arg(required_if_eq_any = [("kind", "alarm"), ("kind", "event")])]
    pub type_: Option<String>,
    /// Tells apart alarms of one type on one instance
    #[arg(long)]
    pub key: Option<String>,
    /// unknown, other, information, warning, minor, major, critical or fatal
    #[arg(long, value_parser = word::<Severity>)]
    #[arg(required_if_eq_any = [("kind", "alarm"), ("kind", "event")])]
    pub severity: Option<Severity>,
    /// One line for people
    #[arg(long, required_if_eq_any = [("kind", "alarm"), ("kind", "event")])]
    pub text: Option<String>,
    /// opened, updated, acknowledged or closed [opened]
    #[arg(long, value_parser = word::<State>)]
    pub state: Option<State>,
    /// Ties repeats of an event together
    #[arg(long, value_name = "ID")]
    pub event_id: Option<String>,
    /// Class of data, such as inventory
    #[arg(long, required_if_eq("kind", "data"))]
    pub class: Option<String>,
    /// Finer class of data, such as packages
    #[arg(long)]
    pub subclass: Option<String>,
    /// File with the payload; -: standard input
    #[arg(long = "data", id = "payload", value_name = "FILE")]
    pub payload: Option<PathBuf>,
    /// MIME type of the payload [application/octet-stream]
    #[arg(long, value_name = "MIME", value_parser = media_type)]
    pub encoding: Option<String>,
    /// When it happened, such as 2026-11-23T08:00:00Z [now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<jiff::Timestamp>,
    /// urgent, normal or bulk [urgent for fatal and critical alarms, else normal]
    #[arg(long, value_parser = word::<Precedence>)]
    pub precedence: Option<Precedence>,
    /// Seconds until it is of no use [for ever]
    #[arg(long, value_name = "S")]
    pub ttl: Option<u32>,
    /// Never evict it from a full queue
    #[arg(long)]
    pub assured: bool,
    /// Stored once, though it comes again within 10 minutes: what tells it from all others of its
    /// class (alarm, event, data) and instance. All scripts on this host under one --integrator
    /// share these keys
    #[arg(long, value_name = "KEY", value_parser = once)]
    pub once: Option<String>,
    /// The request it answers
    #[arg(long, value_name = "MESSAGE-ID")]
    pub answers: Option<MessageId>,
    /// Name of the integrator it comes from
    #[arg(long, value_name = "NAME", default_value = "send")]
    pub integrator: String,
    /// Seconds to wait for the proxy's answer
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub wait: u64,
    /// How the result looks [table]
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT", help_heading = "Everywhere")]
    pub format: Option<Format>,
    /// What this command logs to stderr, such as info or callhome=debug [$CALLHOME_LOG]
    #[arg(long, value_name = "FILTER", help_heading = "Everywhere")]
    pub log: Option<String>,
    /// The application server; `send` asks none
    #[arg(long, value_name = "URL", hide = true)]
    pub server: Option<String>,
    /// The token it wants; `send` asks none
    #[arg(long, value_name = "FILE", hide = true)]
    pub token_file: Option<PathBuf>,
}

fn media_type(text: &str) -> Result<String, String> {
    match text.is_empty() || is_media_type(text) {
        true => Ok(text.to_owned()),
        false => Err("not a media type, such as text/plain or application/json".to_owned()),
    }
}

fn once(text: &str) -> Result<String, String> {
    match (1..=ONCE_BYTES_MAX).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err(format!("it has 1 to {ONCE_BYTES_MAX} bytes")),
    }
}

fn word<T: FromStr<Err = String>>(text: &str) -> Result<T, String> {
    text.parse()
}

/// Sends one message and prints its id; `outer` stood before the command's name. Exit codes as
/// contract §2: 0, 64, 65 a refusal to give up on, 69 nobody answers, 75 a refusal to try again.
pub fn run(args: &SendArgs, outer: &Given) -> u8 {
    let given = Given {
        data: None,
        format: args.format,
        log: args.log.clone(),
        server: args.server.clone(),
        token_file: args.token_file.clone(),
    };
    finish(send(args, &Common::from_environment(outer, &given)))
}

fn send(args: &SendArgs, common: &Common) -> Result<u8, Failure> {
    let payload = match &args.payload {
        Some(file) => read_payload(file)?,
        None => Vec::new(),
    };
    let call = call(args, payload, jiff::Timestamp::now())?;
    let variable = std::env::var_os("CALLHOME_SOCKET").map(PathBuf::from);
    let (passed_over, socket) =
        socket(args.socket.clone(), variable, &common.data, |path| path.exists());
    let options = Options::new(&socket, &args.integrator, env!("CARGO_PKG_VERSION"));
    let client = Client::open(options).map_err(|error| {
        Failure::new(exit::INTERNAL, format!("no thread for the connection: {error}"), "")
    })?;
    let within = Duration::from_secs(args.wait);
    let ticket = client.send(call);
    let mut answer = ticket.wait_for(within.min(TELL_AFTER));
    if answer.is_none() && within > TELL_AFTER {
        note(&format!("waiting for the proxy at {}, up to {} s", socket.display(), args.wait));
        answer = ticket.wait_for(within - TELL_AFTER);
    }
    match answer {
        Some(Ok(accepted)) => {
            client.close(BYE_WITHIN);
            print(&accepted, common.json())?;
            Ok(exit::OK)
        }
        Some(Err(error)) => {
            client.close(BYE_WITHIN);
            Err(refused(&error))
        }
        None => Err(unanswered(&client, passed_over.as_deref(), &socket, args.wait)),
    }
}

/// The socket: flag, variable, under `up`, under `node`; of the last two the first that is there.
/// Before it that of `up`, where it was looked for and is not there.
fn socket(
    flag: Option<PathBuf>,
    variable: Option<PathBuf>,
    data: &Path,
    exists: impl Fn(&Path) -> bool,
) -> (Option<PathBuf>, PathBuf) {
    let variable = variable.filter(|path| !path.as_os_str().is_empty());
    if let Some(told) = flag.or(variable) {
        return (None, told);
    }
    let under_up = data.join("proxy/integrator.sock");
    if exists(&under_up) { (None, under_up) } else { (Some(under_up), PathBuf::from(SOCKET)) }
}

fn read_payload(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut payload = Vec::new();
    // One byte more than may be, so that the refusal can say so.
    let most = DATA_BYTES_MAX as u64 + 1;
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().lock().take(most).read_to_end(&mut payload),
        false => {
            std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut payload))
        }
    };
    read.map_err(|error| {
        let message = format!("payload {} cannot be read: {error}", file.display());
        Failure::usage(message, "--data names a file here; nodes' folders go into $CALLHOME_DATA")
    })?;
    if payload.len() > DATA_BYTES_MAX {
        let message = format!("the payload has more than {DATA_BYTES_MAX} bytes");
        return Err(Failure::new(exit::REFUSED, message, "send larger data as a bulk transfer"));
    }
    Ok(payload)
}

/// The call that the flags mean; flags of another kind are refused, not passed over.
fn call(args: &SendArgs, payload: Vec<u8>, now: jiff::Timestamp) -> Result<Call, Failure> {
    let kind = args.kind;
    let others = [
        ("--key", args.key.is_some() && kind != Kind::Alarm),
        ("--event-id", args.event_id.is_some() && kind != Kind::Event),
        ("--class", args.class.is_some() && kind != Kind::Data),
        ("--subclass", args.subclass.is_some() && kind != Kind::Data),
        ("--type", args.type_.is_some() && kind == Kind::Data),
        ("--severity", args.severity.is_some() && kind == Kind::Data),
        ("--text", args.text.is_some() && kind == Kind::Data),
        ("--state", args.state.is_some() && kind == Kind::Data),
        ("--at", args.at.is_some() && kind == Kind::Data),
    ];
    if let Some((flag, _)) = others.iter().find(|(_, given)| *given) {
        let kind = format!("{kind:?}").to_lowercase();
        let help = format!("see callhome send --help; leave {flag} out of send {kind}");
        return Err(Failure::usage(format!("send {kind} has no {flag}"), help));
    }
    let persistence = if args.assured { Persistence::Assured } else { Persistence::Normal };
    let qos = Qos { precedence: args.precedence, persistence, time_to_live_s: args.ttl };
    let by_default = if args.payload.is_some() { "application/octet-stream" } else { "" };
    let encoding = args.encoding.clone().unwrap_or_else(|| by_default.to_owned());
    let at = args.at.unwrap_or(now).as_millisecond();
    let (data, answers) = (payload.into(), args.answers);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (type_, line) = (text(&args.type_), text(&args.text));
    let severity = args.severity.unwrap_or(Severity::Unknown);
    let state = args.state.unwrap_or(State::Opened);
    let instance = args.instance.as_str();
    let once = args.once.clone().map(Into::into);
    Ok(match kind {
        Kind::Alarm => {
            let key = text(&args.key);
            let alarm = AlarmCall::new(instance, at, &type_, severity, &line);
            Call::Alarm(AlarmCall { key, state, data, encoding, qos, answers, once, ..alarm })
        }
        Kind::Event => {
            let event_id = text(&args.event_id);
            let event = EventCall::new(instance, at, &type_, severity, &line);
            Call::Event(EventCall { event_id, state, data, encoding, qos, answers, once, ..event })
        }
        Kind::Data => Call::Data(DataCall {
            instance: instance.to_owned(),
            class: text(&args.class),
            subclass: text(&args.subclass),
            data,
            encoding,
            qos,
            answers,
            once,
            seq: None,
        }),
    })
}

fn print(accepted: &Accepted, json: bool) -> Result<(), Failure> {
    let id = accepted.message_id().map(|id| id.to_string());
    let outcome = accepted.outcome();
    let mut out = std::io::stdout().lock();
    if json {
        let word = outcome.map(Outcome::word);
        let object = serde_json::json!({ "message_id": id, "outcome": word });
        writeln!(out, "{object}")?;
    } else if let Some(id) = &id {
        writeln!(out, "{id}")?;
    }
    out.flush()?;
    match outcome {
        Some(Outcome::Evicted) => note("evicted: the proxy's queue has no room for bulk"),
        Some(Outcome::Duplicate) => note("duplicate: it is stored already"),
        Some(Outcome::Dropped) => note("dropped: the proxy is not registered yet"),
        _ => {}
    }
    Ok(())
}

fn refused(error: &CallError) -> Failure {
    let message = format!("the proxy refuses: {error}");
    match error.verdict {
        Verdict::GiveUp => {
            Failure::new(exit::REFUSED, message, "the same message would be refused again")
        }
        Verdict::TryAgain => {
            let help = match error.retry_after_ms {
                Some(ms) => format!("send it again in {} s", ms.div_ceil(1000)),
                None => "send it again later".to_owned(),
            };
            Failure::new(exit::TRY_AGAIN, message, help)
        }
    }
}

fn unanswered(client: &Client, passed_over: Option<&Path>, socket: &Path, wait: u64) -> Failure {
    // A proxy that says no is there.
    if let (None, Some(error)) = (client.connected(), client.refusal()) {
        return refused(&error);
    }
    match client.connected() {
        Some(answer) if answer.registration != Registered::Registered => Failure::new(
            exit::TRY_AGAIN,
            format!("not_registered: after {wait} s the proxy still is {}", answer.registration),
            "see callhome doctor; a proxy registers when its parent can be reached",
        ),
        Some(_) => Failure::new(
            exit::UNREACHABLE,
            format!("no answer from the proxy at {} in {wait} s", socket.display()),
            "it may have been stored: look with callhome ls messages before sending it again",
        ),
        None => {
            let trouble = client.trouble().unwrap_or_else(|| socket.display().to_string());
            let first = passed_over.map(|path| format!("{}: is not there; ", path.display()));
            let message = format!("no proxy answers: {}{trouble}", first.unwrap_or_default());
            let help = "start one with callhome up, or name its socket with --socket";
            Failure::new(exit::UNREACHABLE, message, help)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        send: SendArgs,
    }

    fn parse(line: &str) -> Result<SendArgs, String> {
        let words = std::iter::once("send").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.send).map_err(|e| e.to_string())
    }

    fn of(line: &str, payload: &[u8]) -> Call {
        call(&parse(line).unwrap(), payload.to_vec(), jiff::Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn an_alarm_is_what_its_flags_say() {
        let line = "alarm --instance press-1 --type oil --severity critical --text low --key 2 \
            --state closed --at 2026-11-22T12:00:00Z --ttl 60 --assured --data f";
        let Call::Alarm(alarm) = of(line, b"\0x") else { panic!("an alarm") };
        assert_eq!(alarm.occurred_at_ms, 1_795_348_800_000);
        assert_eq!((alarm.kind.as_str(), alarm.key.as_str()), ("oil", "2"));
        assert_eq!((alarm.severity, alarm.state), (Severity::Critical, State::Closed));
        assert_eq!(
            (alarm.qos.time_to_live_s, alarm.qos.persistence),
            (Some(60), Persistence::Assured)
        );
        assert_eq!(
            (&alarm.data[..], alarm.encoding.as_str()),
            (&b"\0x"[..], "application/octet-stream")
        );
        assert_eq!(Call::Alarm(alarm).precedence(), Precedence::Urgent);
    }

    // DAT-8
    #[test]
    fn values_outside_the_definitions_are_usage_errors() {
        let error = parse("alarm --instance a --type t --severity bad --text x").unwrap_err();
        assert!(error.contains("one of unknown other information warning"), "{error}");
        assert!(parse("data --instance a").unwrap_err().contains("--class"));
        assert!(
            parse("alarm --instance a --severity minor --text x").unwrap_err().contains("--type")
        );
        assert!(
            parse("event --type t --severity minor --text x").unwrap_err().contains("--instance")
        );
    }

    #[test]
    fn flags_of_another_kind_are_refused() {
        let args = parse("data --instance a --class c --key k").unwrap();
        let failure = call(&args, Vec::new(), jiff::Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!((failure.code, failure.message.as_str()), (64, "send data has no --key"));
    }

    #[test]
    fn the_socket_is_looked_for_in_the_contracts_order() {
        let path = |p: &str| Some(PathBuf::from(p));
        let found = |flag, variable, up| {
            let (passed_over, socket) = socket(flag, variable, Path::new("d"), |_| up);
            let all = passed_over.iter().chain([&socket]).map(|path| path.display().to_string());
            all.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(found(path("f"), path("v"), true), "f");
        assert_eq!(found(None, path("v"), true), "v");
        assert_eq!(found(None, path(""), true), "d/proxy/integrator.sock");
        assert_eq!(found(None, None, false), format!("d/proxy/integrator.sock {SOCKET}"));
    }

    #[test]
    fn refusals_end_with_the_verdicts_code() {
        let error = |name| CallError::new(name, "x");
        assert_eq!(refused(&error(integrator_api::Refusal::UnknownInstance)).code, 65);
        assert_eq!(refused(&error(integrator_api::Refusal::QueueFull).after(1500)).code, 75);
        let help = refused(&error(integrator_api::Refusal::QueueFull).after(1500)).help;
        assert_eq!(help, "send it again in 2 s");
    }
}
