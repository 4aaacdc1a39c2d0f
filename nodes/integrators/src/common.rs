//! What all integrators with rules share: flags, rules in force, answers about rules, signals.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::rules::{self, FactsOf, Kind, Loaded, Problem, Rules, TestInput};
use crate::sink::Sink;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// The flags that every integrator with rules has.
#[derive(Clone, Debug, Default, Args)]
pub struct CommonArgs {
    /// The proxy's socket [default: DATA/proxy/integrator.sock, /run/callhome/integrator.sock]
    #[arg(long, env = "CALLHOME_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The name by which the proxy knows this integrator [default: its kind]
    #[arg(long)]
    pub name: Option<String>,
    /// Files of rules, or folders of them, in order [default: /etc/callhome/rules/KIND]
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub rules: Vec<PathBuf>,
    /// Where to keep what the proxy cannot take now
    #[arg(long, env = "CALLHOME_SPILL", value_name = "DIR")]
    pub spill: Option<PathBuf>,
    /// Load all rules, run their tests, and end
    #[arg(long, conflicts_with_all = ["try_", "print_rules"])]
    pub check_rules: bool,
    /// Say which rule fires on a line, or on TRAP-OID OID TYPE VALUE …
    #[arg(
        long = "try", value_name = "INPUT", num_args = 1.., allow_hyphen_values = true,
        conflicts_with = "print_rules"
    )]
    pub try_: Vec<String>,
    /// Print all rules in force, in order
    #[arg(long)]
    pub print_rules: bool,
    /// How to print results; a flag of all commands.
    #[arg(skip)]
    pub format: Format,
}

/// Why an integrator ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum IntegratorError {
    /// The command line.
    #[error("{0}")]
    Usage(String),
    /// `--try`, and no rule fires.
    #[error("no rule fires")]
    NoRule,
    /// The rules in use are wrong; each mistake is in it.
    #[error("{}", shown(.0))]
    Rules(Vec<Problem>),
    /// `--check-rules` found mistakes, and printed them.
    #[error("{0} problem(s) in the rules")]
    Checked(usize),
    /// A value of the configuration cannot be used.
    #[error("{message}")]
    Configuration {
        /// What is wrong.
        message: String,
        /// What to do.
        help: String,
    },
    /// An address is in use, or nobody answers.
    #[error("{message}")]
    Unavailable {
        /// What is wrong.
        message: String,
        /// What to do.
        help: String,
    },
    /// The proxy has not taken all: the rest is kept, and goes at the next start.
    #[error("{message}")]
    TryAgain {
        /// What is left.
        message: String,
        /// What to do.
        help: String,
    },
    /// Broken while running.
    #[error("{0}")]
    Internal(String),
}

impl IntegratorError {
    /// The exit code, as in sysexits.h.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::NoRule => 65,
            Self::Unavailable { .. } => 69,
            Self::Internal(_) => 70,
            Self::TryAgain { .. } => 75,
            Self::Rules(_) | Self::Checked(_) | Self::Configuration { .. } => 78,
        }
    }

    /// What to do about it, where there is more to say than the message does.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Configuration { help, .. }
            | Self::Unavailable { help, .. }
            | Self::TryAgain { help, .. } => Some(help),
            Self::Rules(_) => Some("--check-rules shows the same, and runs the tests"),
            _ => None,
        }
    }

    /// For an address that cannot be listened on; `flag` is the flag that named it.
    pub fn listen(flag: &str, address: std::net::SocketAddr, error: &std::io::Error) -> Self {
        let message = format!("cannot listen on {address}: {error}");
        match error.kind() {
            std::io::ErrorKind::AddrInUse => Self::Unavailable {
                message,
                help: format!("another program has that port: end it, or choose one with {flag}"),
            },
            std::io::ErrorKind::PermissionDenied => Self::Configuration {
                message,
                help: format!("give it CAP_NET_BIND_SERVICE, or {flag} with a port above 1023"),
            },
            _ => Self::Configuration {
                message,
                help: format!("{flag} takes an address of this host and a port"),
            },
        }
    }
}

fn shown(problems: &[Problem]) -> String {
    let lines = problems.iter().map(Problem::to_string).collect::<Vec<_>>();
    format!("{} problem(s) in the rules\n{}", problems.len(), lines.join("\n"))
}

/// What an integrator offers so that questions about its rules can be answered.
pub struct Dialect {
    /// Which integrator it is.
    pub kind: Kind,
    /// Facts of an input that did not come off the wire.
    pub facts_of: FactsOf,
    /// The input that the words after `--try` stand for.
    pub read_try: fn(&[String]) -> Result<TestInput, String>,
}

/// Answers `--check-rules`, `--try` and `--print-rules` on stdout. `false`: none was asked, the
/// integrator is to run. Opens no port and needs no proxy.
pub fn answer(dialect: &Dialect, args: &CommonArgs) -> Result<bool, IntegratorError> {
    let kind = dialect.kind;
    if args.check_rules {
        let loaded = Loaded::from_paths(kind, &args.rules);
        let checked = rules::check(&loaded, dialect.facts_of);
        for note in &checked.notes {
            say(&mut std::io::stderr(), &format!("note: {note}\n"))?;
        }
        print(args.format, &checked.to_text(), &checked.to_json())?;
        return match checked.problems.len() {
            0 => Ok(true),
            problems => Err(IntegratorError::Checked(problems)),
        };
    }
    if args.print_rules {
        let in_force = Rules::load(kind, &args.rules).map_err(IntegratorError::Rules)?;
        let (text, json) = rules::print(&in_force);
        print(args.format, &text, &json)?;
        return Ok(true);
    }
    if args.try_.is_empty() {
        return Ok(false);
    }
    let in_force = Rules::load(kind, &args.rules).map_err(IntegratorError::Rules)?;
    let input = match (dialect.read_try)(&args.try_).map_err(IntegratorError::Usage)? {
        TestInput::Line { line, source } => TestInput::line(line, source),
        trap => trap,
    };
    let facts = (dialect.facts_of)(&input).map_err(IntegratorError::Usage)?;
    let (line, json) =
        rules::try_input(&in_force, facts.as_ref()).ok_or(IntegratorError::NoRule)?;
    print(args.format, &format!("{line}\n"), &json)?;
    Ok(true)
}

fn print(format: Format, text: &str, json: &serde_json::Value) -> Result<(), IntegratorError> {
    let mut out = std::io::stdout();
    match format {
        Format::Table => say(&mut out, text),
        Format::Json => say(&mut out, &format!("{json}\n")),
    }
}

/// A remark on stderr that changes nothing.
pub(crate) fn note(text: &str) {
    // Nobody is left to be told.
    let _ = say(&mut std::io::stderr(), &format!("callhome: {text}\n"));
}

fn say(to: &mut impl Write, text: &str) -> Result<(), IntegratorError> {
    let written = to.write_all(text.as_bytes()).and_then(|()| to.flush());
    written.map_err(|error| IntegratorError::Internal(format!("cannot print: {error}")))
}

/// Prints the line that says an integrator serves; `pairs` as `udp=127.0.0.1:1162`.
pub fn print_ready(kind: Kind, pairs: &[String]) -> Result<(), IntegratorError> {
    let line = format!("ready integrator={} {}\n", kind.name(), pairs.join(" "));
    say(&mut std::io::stdout(), &line)
}

/// Says `ready` when the sink is connected; ends only when saying so fails.
pub async fn say_ready(
    sink: Arc<dyn Sink>,
    ready: impl FnOnce(&[String]) -> Result<(), IntegratorError>,
    pairs: Vec<String>,
) -> IntegratorError {
    sink.connected().await;
    match ready(&pairs) {
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}

/// The proxy's socket: as told, else in the data directory if it is there, else the system's.
pub fn socket_path(told: Option<&Path>, data: &Path) -> PathBuf {
    let in_data = data.join("proxy/integrator.sock");
    match told {
        Some(path) => path.to_owned(),
        None if in_data.exists() => in_data,
        None => PathBuf::from("/run/callhome/integrator.sock"),
    }
}

/// The rules in force, which SIGHUP exchanges.
#[derive(Debug)]
pub struct LiveRules {
    kind: Kind,
    paths: Vec<PathBuf>,
    now: RwLock<Arc<Rules>>,
}

impl LiveRules {
    /// Loads them; every mistake is in the error.
    pub fn load(kind: Kind, paths: &[PathBuf]) -> Result<Self, IntegratorError> {
        let rules = Rules::load(kind, paths).map_err(IntegratorError::Rules)?;
        Ok(Self { kind, paths: paths.to_vec(), now: RwLock::new(Arc::new(rules)) })
    }

    /// Those in force now.
    pub fn current(&self) -> Arc<Rules> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again. When anything is wrong with one, all old rules stay.
    pub fn reload(&self) -> Result<usize, Vec<Problem>> {
        let rules = Rules::load(self.kind, &self.paths)?;
        let count = rules.iter().count();
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        Ok(count)
    }

    /// Reloads at each SIGHUP, for as long as it is polled, and logs what came of it.
    pub async fn reload_on(&self, mut hangups: Hangups) -> Result<(), IntegratorError> {
        while hangups.0.recv().await.is_some() {
            match self.reload() {
                Ok(count) => tracing::info!(rules = count, "rules read again"),
                Err(problems) => {
                    for problem in problems.iter() {
                        tracing::error!(%problem, "rules not read again, the old ones stay");
                    }
                }
            }
        }
        Ok(())
    }
}

/// SIGHUP, from the making on: a signal that comes before anybody looks is not lost, and none ends
/// the process. To be made before rules are read, so that a change in between is not missed.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Listens from now on.
    pub fn listen() -> Result<Self, IntegratorError> {
        signal(SignalKind::hangup()).map(Self).map_err(no_signals)
    }
}

/// Ends when the process is told to stop (SIGTERM or SIGINT).
pub async fn stop_asked() -> Result<(), IntegratorError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn no_signals(error: std::io::Error) -> IntegratorError {
    IntegratorError::Internal(format!("cannot listen for signals: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_exit_code() {
        let busy = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let address = "127.0.0.1:162".parse().unwrap_or_else(|_| unreachable!());
        let cases = [
            (IntegratorError::Usage(String::new()), 64),
            (IntegratorError::NoRule, 65),
            (IntegratorError::listen("--listen", address, &busy), 69),
            (IntegratorError::listen("--listen", address, &denied), 78),
            (IntegratorError::Internal(String::new()), 70),
            (IntegratorError::TryAgain { message: String::new(), help: String::new() }, 75),
            (IntegratorError::Rules(Vec::new()), 78),
            (IntegratorError::Checked(1), 78),
        ];
        for (error, code) in cases {
            assert_eq!(error.exit_code(), code, "{error:?}");
        }
    }
}
