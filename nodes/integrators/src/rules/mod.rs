//! Rules: what becomes of a trap or a line. One format for all integrators (`rules/README.md`).

mod check;
mod engine;
mod file;
mod load;
mod matcher;
mod problem;
mod reader;
mod template;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::Serialize;

pub use check::{Checked, check, print, try_input};
pub use engine::{Judgement, Rule, Rules};
pub use load::{ETC_RULES, Loaded};
pub(crate) use matcher::read_oid;
pub use problem::{Code, Place, Problem};

/// The integrator that a rules file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// SNMP traps and informs.
    Snmp,
    /// Syslog lines.
    Syslog,
}

impl Kind {
    /// As it stands in `kind = "…"` and in `callhome integrator …`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snmp => "snmp",
            Self::Syslog => "syslog",
        }
    }

    /// The rules that come with the program.
    pub fn shipped(self) -> &'static str {
        match self {
            Self::Snmp => include_str!("../../rules/snmp.toml"),
            Self::Syslog => include_str!("../../rules/syslog.toml"),
        }
    }

    /// Names that templates and `where` may use without defining them.
    pub fn own_names(self) -> &'static [&'static str] {
        match self {
            Self::Snmp => &["trap", "source", "agent", "version", "uptime", "community", "vars"],
            Self::Syslog => {
                &["host", "app", "pid", "msgid", "facility", "severity", "text", "source"]
            }
        }
    }
}

/// The named values of one message, as rules see them. An empty value counts as there; what a
/// message does not have must be `None`.
pub trait Facts {
    /// The value of one of [`Kind::own_names`], or for syslog of `sd.ID.PARAM`.
    /// `severity` and `facility` are words of [`SYSLOG_SEVERITIES`] and [`SYSLOG_FACILITIES`].
    fn value(&self, name: &str) -> Option<Cow<'_, str>>;

    /// SNMP: the value of the first variable whose OID is `oid` or lies below it, and the rest of
    /// that OID without a leading dot (empty where it is `oid` itself).
    fn below(&self, oid: &str) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
        let _ = oid;
        None
    }
}

/// What an integrator must offer so that `[[test]]` and `--try` can be run: the facts of an input
/// that did not come off the wire. The error says what is wrong with the input.
pub type FactsOf = fn(&TestInput) -> Result<Box<dyn Facts>, String>;

/// The input of a `[[test]]` or of `--try`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestInput {
    /// A syslog line as it comes off the wire.
    Line {
        /// The line.
        line: String,
        /// The sender's address.
        source: Option<IpAddr>,
    },
    /// A trap in the notation of `snmptrap`.
    Trap {
        /// Its OID, as in SNMPv2.
        trap: String,
        /// Its variables, `[OID, TYPE, VALUE]`.
        vars: Vec<[String; 3]>,
        /// The agent's address.
        agent: Option<IpAddr>,
        /// `1`, `2c` or `3`.
        version: Option<String>,
    },
}

impl TestInput {
    /// A syslog line from `source`, or else from this host.
    pub fn line(line: String, source: Option<IpAddr>) -> Self {
        Self::Line { line, source: source.or(Some(IpAddr::V4(Ipv4Addr::LOCALHOST))) }
    }
}

/// What a rule makes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Becomes {
    /// Opens or repeats an alarm.
    Alarm,
    /// Closes alarms and says nothing else.
    Clear,
    /// Something that happened.
    Event,
    /// Kept as it is, for service modules.
    Data,
    /// Nothing; counted.
    Ignore,
}

impl Becomes {
    const ALL: [Self; 5] = [Self::Alarm, Self::Clear, Self::Event, Self::Data, Self::Ignore];

    /// As it stands in `becomes = "…"`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Clear => "clear",
            Self::Event => "event",
            Self::Data => "data",
            Self::Ignore => "ignore",
        }
    }
}

impl FromStr for Becomes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|becomes| becomes.word() == text);
        found.ok_or_else(|| format!("is {text:?}; one of alarm clear event data ignore"))
    }
}

/// Syslog severities by number, RFC 5424 §6.2.1.
pub const SYSLOG_SEVERITIES: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Syslog facilities by number, RFC 5424 §6.2.1, in the words of syslog.conf where it has some.
pub const SYSLOG_FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
