//! The `match` of a rule: its conditions, whether they hold, and whether one takes all of another.

use std::net::{IpAddr, Ipv6Addr};

use regex::Regex;
use toml::Spanned;
use toml::de::DeTable;

use super::reader::{Reader, Value};
use super::{Facts, Kind, SYSLOG_FACILITIES, SYSLOG_SEVERITIES};

/// One field of `match`.
#[derive(Clone, Debug)]
enum Condition {
    Trap(Vec<OidPattern>),
    Source(Vec<Net>),
    Version(Vec<String>),
    App(Vec<String>),
    Facility(Vec<String>),
    /// The greatest syslog severity number that still matches (0 is the worst).
    Severity(usize),
    Host(Vec<String>),
    Msgid(Vec<String>),
    Text(Vec<Regex>),
}

/// All conditions of a rule; none: matches always.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matcher {
    conditions: Vec<Condition>,
}

/// An OID, or all OIDs below one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OidPattern {
    oid: String,
    below: bool,
}

/// An address with the number of its bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Net {
    bits: u128,
    prefix: u32,
}

impl Matcher {
    /// Reads the table `match`; what is wrong goes to the reader.
    pub(crate) fn read(kind: Kind, value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let table = reader.table(value, "match")?;
        let problems_before = reader.problems.len();
        let mut conditions = read_conditions(kind, table, reader);
        // The regular expressions are the dearest, so they are asked last.
        conditions.sort_by_key(|condition| matches!(condition, Condition::Text(_)));
        (reader.problems.len() == problems_before).then_some(Self { conditions })
    }

    /// Whether all conditions hold; `Some` carries the regular expression of `text` that did.
    pub(crate) fn matches(&self, facts: &dyn Facts) -> Option<Option<&Regex>> {
        let mut matched = None;
        for condition in &self.conditions {
            match condition {
                Condition::Text(regexes) => {
                    let text = facts.value("text")?;
                    matched = Some(regexes.iter().find(|regex| regex.is_match(&text))?);
                }
                _ if condition.holds(facts) => {}
                _ => return None,
            }
        }
        Some(matched)
    }

    /// Whether this matches all that `later` matches; `false` when it cannot be told.
    pub(crate) fn covers(&self, later: &Self) -> bool {
        self.conditions.iter().all(|mine| {
            mine.is_trivial() || later.conditions.iter().any(|theirs| mine.contains(theirs))
        })
    }

    /// The names of the groups in the regular expressions of `text`.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &str> {
        self.conditions
            .iter()
            .flat_map(|condition| match condition {
                Condition::Text(regexes) => regexes.as_slice(),
                _ => &[],
            })
            .flat_map(|regex| regex.capture_names().flatten())
    }

    /// What the type of an alarm is where the rule does not say: the first OID, or the received.
    pub(crate) fn default_type(&self, kind: Kind) -> String {
        if kind == Kind::Syslog {
            return "syslog/{app}".to_owned();
        }
        let first = self.conditions.iter().find_map(|condition| match condition {
            Condition::Trap(patterns) => patterns.first(),
            _ => None,
        });
        match first {
            Some(OidPattern { oid, below: false }) => oid.clone(),
            _ => "{trap}".to_owned(),
        }
    }

    /// As JSON, for `--print-rules`.
    pub(crate) fn shown(&self) -> serde_json::Value {
        let fields = self.conditions.iter().map(|condition| {
            let (name, value) = condition.shown();
            (name.to_owned(), value)
        });
        serde_json::Value::Object(fields.collect())
    }
}

fn read_conditions(kind: Kind, table: &DeTable<'_>, reader: &mut Reader<'_>) -> Vec<Condition> {
    let known: &[&str] = match kind {
        Kind::Snmp => &["trap", "source", "version"],
        Kind::Syslog => &["app", "facility", "severity", "host", "msgid", "source", "text"],
    };
    let mut conditions = Vec::new();
    for (key, value) in table {
        let field = key.get_ref().as_ref();
        if !known.contains(&field) {
            reader.unknown(key, known);
            continue;
        }
        let Some(words) = reader.words(value, &format!("match.{field}")) else { continue };
        let plain = || words.iter().map(|word| word.get_ref().clone()).collect::<Vec<_>>();
        conditions.extend(match field {
            "trap" => each(&words, |word| OidPattern::read(word, reader)).map(Condition::Trap),
            "source" => each(&words, |word| Net::read(word, reader)).map(Condition::Source),
            "version" => each(&words, |word| read_version(word, reader)).map(Condition::Version),
            "facility" => {
                each(&words, |word| listed(word, field, &SYSLOG_FACILITIES, reader).map(|_| word))
                    .map(|_| Condition::Facility(plain()))
            }
            "severity" => each(&words, |word| listed(word, field, &SYSLOG_SEVERITIES, reader))
                .map(|levels| Condition::Severity(levels.into_iter().max().unwrap_or(0))),
            "text" => each(&words, |word| reader.regex(word, "match.text")).map(Condition::Text),
            "app" => Some(Condition::App(plain())),
            "host" => Some(Condition::Host(plain())),
            _ => Some(Condition::Msgid(plain())),
        });
    }
    conditions
}

/// All of them, or none when one could not be read; each is read, so each mistake is told.
fn each<'w, T>(
    words: &'w [Spanned<String>],
    mut read: impl FnMut(&'w Spanned<String>) -> Option<T>,
) -> Option<Vec<T>> {
    let read: Vec<Option<T>> = words.iter().map(&mut read).collect();
    read.into_iter().collect()
}

fn listed(
    word: &Spanned<String>,
    field: &str,
    list: &[&str],
    reader: &mut Reader<'_>,
) -> Option<usize> {
    let found = list.iter().position(|known| known == word.get_ref());
    if found.is_none() {
        let help = format!("one of: {}", list.join(" "));
        reader.bad(&word.span(), format!("match.{field} is {:?}", word.get_ref()), &help);
    }
    found
}

fn read_version(word: &Spanned<String>, reader: &mut Reader<'_>) -> Option<String> {
    let version = word.get_ref().strip_prefix('v').unwrap_or(word.get_ref());
    if ["1", "2c", "3"].contains(&version) {
        return Some(version.to_owned());
    }
    let message = format!("match.version is {:?}", word.get_ref());
    reader.bad(&word.span(), message, "one of: 1 2c 3");
    None
}

impl Condition {
    fn holds(&self, facts: &dyn Facts) -> bool {
        let is = |name: &str, words: &[String]| {
            facts.value(name).is_some_and(|value| words.iter().any(|word| *word == *value))
        };
        match self {
            Self::Trap(patterns) => facts
                .value("trap")
                .is_some_and(|trap| patterns.iter().any(|pattern| pattern.takes(&trap))),
            Self::Source(nets) => facts
                .value("source")
                .and_then(|source| source.parse().ok())
                .is_some_and(|source| nets.iter().any(|net| net.has(source))),
            Self::Version(versions) => is("version", versions),
            Self::App(apps) => is("app", apps),
            Self::Facility(facilities) => is("facility", facilities),
            Self::Severity(level) => facts
                .value("severity")
                .and_then(|name| SYSLOG_SEVERITIES.iter().position(|known| **known == *name))
                .is_some_and(|severity| severity <= *level),
            Self::Host(hosts) => facts
                .value("host")
                .is_some_and(|host| hosts.iter().any(|wanted| wanted.eq_ignore_ascii_case(&host))),
            Self::Msgid(ids) => is("msgid", ids),
            Self::Text(regexes) => facts
                .value("text")
                .is_some_and(|text| regexes.iter().any(|regex| regex.is_match(&text))),
        }
    }

    fn is_trivial(&self) -> bool {
        match self {
            Self::Trap(patterns) => {
                patterns.iter().any(|pattern| pattern.below && pattern.oid.is_empty())
            }
            Self::Severity(level) => *level + 1 == SYSLOG_SEVERITIES.len(),
            _ => false,
        }
    }

    /// Whether this holds wherever `other` does.
    fn contains(&self, other: &Self) -> bool {
        fn all_in<T: PartialEq>(theirs: &[T], mine: &[T]) -> bool {
            theirs.iter().all(|item| mine.contains(item))
        }
        match (self, other) {
            (Self::Trap(mine), Self::Trap(theirs)) => {
                theirs.iter().all(|pattern| mine.iter().any(|wider| wider.contains(pattern)))
            }
            (Self::Source(mine), Self::Source(theirs)) => {
                theirs.iter().all(|net| mine.iter().any(|wider| wider.contains(net)))
            }
            (Self::Severity(mine), Self::Severity(theirs)) => mine >= theirs,
            (Self::Version(mine), Self::Version(theirs))
            | (Self::App(mine), Self::App(theirs))
            | (Self::Facility(mine), Self::Facility(theirs))
            | (Self::Host(mine), Self::Host(theirs))
            | (Self::Msgid(mine), Self::Msgid(theirs)) => all_in(theirs, mine),
            (Self::Text(mine), Self::Text(theirs)) => {
                theirs.iter().all(|regex| mine.iter().any(|same| same.as_str() == regex.as_str()))
            }
            _ => false,
        }
    }

    fn shown(&self) -> (&'static str, serde_json::Value) {
        match self {
            Self::Trap(patterns) => {
                ("trap", patterns.iter().map(OidPattern::shown).collect::<Vec<_>>().into())
            }
            Self::Source(nets) => {
                ("source", nets.iter().map(Net::shown).collect::<Vec<_>>().into())
            }
            Self::Version(words) => ("version", words.clone().into()),
            Self::App(words) => ("app", words.clone().into()),
            Self::Facility(words) => ("facility", words.clone().into()),
            Self::Severity(level) => {
                ("severity", SYSLOG_SEVERITIES.get(*level).copied().unwrap_or("debug").into())
            }
            Self::Host(words) => ("host", words.clone().into()),
            Self::Msgid(words) => ("msgid", words.clone().into()),
            Self::Text(regexes) => {
                ("text", regexes.iter().map(|regex| regex.as_str()).collect::<Vec<_>>().into())
            }
        }
    }
}

/// An OID without a leading dot, if `text` is one.
pub(crate) fn read_oid(text: &str) -> Option<String> {
    let oid = text.strip_prefix('.').unwrap_or(text);
    let is_oid = oid.split('.').all(|part| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u32>().is_ok()
    });
    is_oid.then(|| oid.to_owned())
}

impl OidPattern {
    fn read(word: &Spanned<String>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = word.get_ref().as_str();
        if text == "*" {
            return Some(Self { oid: String::new(), below: true });
        }
        let (oid, below) = match text.strip_suffix(".*") {
            Some(oid) => (oid, true),
            None => (text, false),
        };
        match read_oid(oid) {
            Some(oid) => Some(Self { oid, below }),
            None => {
                let help = "write it in numbers, as 1.3.6.1.6.3.1.1.5.3 or 1.3.6.1.4.1.8072.*";
                reader.bad(&word.span(), format!("match.trap {text:?} is not an OID"), help);
                None
            }
        }
    }

    fn takes(&self, oid: &str) -> bool {
        if !self.below {
            return self.oid == oid;
        }
        self.oid.is_empty()
            || oid.strip_prefix(self.oid.as_str()).is_some_and(|rest| rest.starts_with('.'))
    }

    fn contains(&self, other: &Self) -> bool {
        self == other || self.below && self.takes(&other.oid)
    }

    fn shown(&self) -> String {
        match (self.below, self.oid.is_empty()) {
            (true, true) => "*".to_owned(),
            (true, false) => format!("{}.*", self.oid),
            (false, _) => self.oid.clone(),
        }
    }
}

impl Net {
    fn read(word: &Spanned<String>, reader: &mut Reader<'_>) -> Option<Self> {
        let net = Self::parse(word.get_ref());
        if net.is_none() {
            let message = format!("match.source {:?} is no address or net", word.get_ref());
            reader.bad(&word.span(), message, "as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32");
        }
        net
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        // IPv4 lies in IPv6 as ::ffff:0:0/96, so one comparison serves both.
        let offset = if address.is_ipv4() { 96 } else { 0 };
        let prefix = offset + prefix.unwrap_or(128 - offset);
        (prefix <= 128).then(|| Self { bits: bits_of(address) & mask(prefix), prefix })
    }

    fn has(&self, address: IpAddr) -> bool {
        bits_of(address) & mask(self.prefix) == self.bits
    }

    fn contains(&self, other: &Self) -> bool {
        other.prefix >= self.prefix && other.bits & mask(self.prefix) == self.bits
    }

    fn shown(&self) -> String {
        let address = Ipv6Addr::from_bits(self.bits);
        match address.to_ipv4_mapped().filter(|_| self.prefix >= 96) {
            Some(v4) => format!("{v4}/{}", self.prefix - 96),
            None => format!("{address}/{}", self.prefix),
        }
    }
}

fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn mask(prefix: u32) -> u128 {
    u128::MAX.checked_shl(128 - prefix).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn net_has_the_addresses_in_it() {
        let cases = [
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("192.0.2.0/24", "::ffff:192.0.2.1", true),
        ];
        for (net, address, expected) in cases {
            let has = Net::parse(net).unwrap().has(address.parse().unwrap());
            assert_eq!(has, expected, "{net} {address}");
        }
        for net in ["192.0.2.0/33", "2001:db8::/129", "host", "192.0.2/24", "", "1.2.3.4/x"] {
            assert!(Net::parse(net).is_none(), "{net}");
        }
    }

    #[test]
    fn star_takes_what_lies_below_and_not_its_neighbours() {
        let pattern = OidPattern { oid: "1.3.6".to_owned(), below: true };
        assert!(pattern.takes("1.3.6.1"));
        assert!(!pattern.takes("1.3.6"));
        assert!(!pattern.takes("1.3.61"));
    }
}
