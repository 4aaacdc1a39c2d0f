//! What the commands share: where things are, how results look, how a command ends.
#![allow(rustdoc::broken_intra_doc_links, reason = "brackets in the help are defaults, not links")]
use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

pub use super::check::Format;

/// Exit codes of sysexits.h (contract §2).
pub mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// The command line is wrong, or a name fits several.
    pub const USAGE: u8 = 64;
    /// A check says no, or a refusal to give up on.
    pub const REFUSED: u8 = 65;
    /// No such id.
    pub const NO_SUCH_ID: u8 = 66;
    /// Nobody answers; an address or data is in use.
    pub const UNREACHABLE: u8 = 69;
    /// A fault of ours, or of the machine.
    pub const INTERNAL: u8 = 70;
    /// A refusal to try again.
    pub const TRY_AGAIN: u8 = 75;
    /// The token was refused.
    pub const TOKEN: u8 = 77;
    /// Configuration.
    pub const CONFIGURATION: u8 = 78;
}

/// Longest `server.url`, `operator.url` or token that is read, bytes: one line each.
const LINE_BYTES_MAX: u64 = 4096;

/// Flags of every command, before or after its name.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Given {
    /// Where nodes keep their files [$CALLHOME_DATA, ./callhome-data]
    #[arg(long, value_name = "DIR", help_heading = "Everywhere")]
    pub data: Option<PathBuf>,
    /// How the result looks [table]
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT", help_heading = "Everywhere")]
    pub format: Option<Format>,
    /// What this command logs to stderr, such as info or callhome=debug [$CALLHOME_LOG]
    #[arg(long, value_name = "FILTER", help_heading = "Everywhere")]
    pub log: Option<String>,
    /// The application server [$CALLHOME_SERVER, DIR/server.url]
    #[arg(long, value_name = "URL", help_heading = "Everywhere")]
    pub server: Option<String>,
    /// The token it wants [$CALLHOME_TOKEN_FILE, DIR/operator.token]
    #[arg(long, value_name = "FILE", help_heading = "Everywhere")]
    pub token_file: Option<PathBuf>,
}

/// The flags of a command together with [`Given`].
#[derive(Clone, Debug, clap::Args)]
pub struct With<A: clap::Args> {
    /// Of the command.
    #[command(flatten)]
    pub args: A,
    /// Of all.
    #[command(flatten)]
    pub given: Given,
}

/// As [`With`], for a command that has commands of its own: the flags of all stand before or after
/// the names of these.
#[derive(Clone, Debug)]
pub struct Throughout<A> {
    /// Of the command.
    pub args: A,
    /// Of all.
    pub given: Given,
}

impl<A: clap::Subcommand> clap::FromArgMatches for Throughout<A> {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let (args, given) = (A::from_arg_matches(matches)?, Given::from_arg_matches(matches)?);
        Ok(Self { args, given })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        self.args.update_from_arg_matches(matches)?;
        self.given.update_from_arg_matches(matches)
    }
}

impl<A: clap::Subcommand> clap::Args for Throughout<A> {
    fn augment_args(command: clap::Command) -> clap::Command {
        // Only the flags of all are there yet; clap hands on what is global.
        let given = Given::augment_args(command).mut_args(|flag| flag.global(true));
        A::augment_subcommands(given).subcommand_required(true).arg_required_else_help(true)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// [`Given`] with variables and defaults filled in: flags beat variables, variables files.
#[derive(Clone, Debug)]
pub struct Common {
    /// Where nodes keep their files.
    pub data: PathBuf,
    /// How the result looks.
    pub format: Format,
    /// Log filter.
    pub log: Option<String>,
    /// Of a flag or a variable; else `server.url` is read when needed.
    pub server: Option<String>,
    /// Of a flag or a variable; else `operator.token` is read when needed.
    pub token_file: Option<PathBuf>,
}

impl Common {
    /// `inner` stood after the command's name and beats `outer`, which stood before it.
    pub fn of(outer: &Given, inner: &Given, variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let data = inner.data.clone().or_else(|| outer.data.clone());
        Self {
            data: data
                .or_else(|| path("CALLHOME_DATA"))
                .unwrap_or_else(|| PathBuf::from("./callhome-data")),
            format: inner.format.or(outer.format).unwrap_or_default(),
            log: inner
                .log
                .clone()
                .or_else(|| outer.log.clone())
                .or_else(|| variable("CALLHOME_LOG")),
            server: inner
                .server
                .clone()
                .or_else(|| outer.server.clone())
                .or_else(|| variable("CALLHOME_SERVER")),
            token_file: inner
                .token_file
                .clone()
                .or_else(|| outer.token_file.clone())
                .or_else(|| path("CALLHOME_TOKEN_FILE")),
        }
    }

    /// As `of`, with this process's environment.
    pub fn from_environment(outer: &Given, inner: &Given) -> Self {
        Self::of(outer, inner, |name| std::env::var(name).ok())
    }

    /// Whether the result is for programs.
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }
}

/// Why a command ends with something else than 0, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// One of [`exit`].
    pub code: u8,
    /// What happened.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
}

impl Failure {
    /// With a code, what happened, and what to do.
    pub fn new(code: u8, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: help.into() }
    }

    /// 64.
    pub fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(exit::USAGE, message, help)
    }

    /// Of writing the result. A reader that is gone (`| head`) has what it wanted: 0, silent.
    pub fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(exit::OK, "", "");
        }
        Self::new(exit::INTERNAL, format!("the result could not be written: {error}"), "")
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::output(&error)
    }
}

/// Prints a failure to stderr as contract §2 has it; gives the exit code either way.
pub fn finish(result: Result<u8, Failure>) -> u8 {
    match result {
        Ok(code) => code,
        Err(failure) => {
            if !failure.message.is_empty() {
                complain(&failure.message, &failure.help);
            }
            failure.code
        }
    }
}

/// `callhome: error: …` and `  help: …` on stderr.
pub fn complain(message: &str, help: &str) {
    let mut text = format!("callhome: error: {message}\n");
    for line in help.lines() {
        text.push_str(&format!("  help: {line}\n"));
    }
    // Nobody is left to be told.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// A remark on stderr that changes nothing.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "callhome: {text}");
}

/// Whether stdout may be coloured: a terminal, and nobody said NO_COLOR.
pub fn coloured() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
}

/// The one line of a file; `None` where there is no such file.
pub fn line_of(path: &Path) -> Result<Option<String>, Failure> {
    use io::Read;
    let read = || -> io::Result<String> {
        let mut text = String::new();
        std::fs::File::open(path)?.take(LINE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) => Ok(Some(text.lines().next().unwrap_or("").trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(
            if error.kind() == io::ErrorKind::PermissionDenied {
                exit::TOKEN
            } else {
                exit::INTERNAL
            },
            format!("{} cannot be read: {error}", path.display()),
            "run the command as the user the node runs as",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn given(server: Option<&str>, data: Option<&str>) -> Given {
        Given {
            server: server.map(str::to_owned),
            data: data.map(PathBuf::from),
            ..Given::default()
        }
    }

    #[test]
    fn flags_beat_variables_and_the_flag_after_the_name_the_one_before() {
        let variable = |name: &str| match name {
            "CALLHOME_SERVER" => Some("http://variable".to_owned()),
            "CALLHOME_DATA" => Some("/variable".to_owned()),
            "CALLHOME_TOKEN_FILE" => Some(String::new()),
            _ => None,
        };
        let none = given(None, None);
        let common = Common::of(&none, &none, variable);
        assert_eq!(common.server.as_deref(), Some("http://variable"));
        assert_eq!(common.data, PathBuf::from("/variable"));
        assert_eq!(common.token_file, None);
        let outer = given(Some("http://outer"), Some("/outer"));
        let common = Common::of(&outer, &none, variable);
        assert_eq!(common.server.as_deref(), Some("http://outer"));
        let common = Common::of(&outer, &given(Some("http://inner"), None), variable);
        assert_eq!(common.server.as_deref(), Some("http://inner"));
        assert_eq!(common.data, PathBuf::from("/outer"));
        assert_eq!(Common::of(&none, &none, |_| None).data, PathBuf::from("./callhome-data"));
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error() {
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(finish(Err(gone.into())), exit::OK);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(finish(Err(full.into())), exit::INTERNAL);
    }

    #[test]
    fn a_file_that_is_not_there_is_no_line() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(line_of(&dir.path().join("server.url")).unwrap(), None);
        std::fs::write(dir.path().join("server.url"), "http://127.0.0.1:1\n").unwrap();
        let line = line_of(&dir.path().join("server.url")).unwrap();
        assert_eq!(line.as_deref(), Some("http://127.0.0.1:1"));
    }
}
