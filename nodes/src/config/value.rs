//! What an attribute may say, and what to tell when it says something else (pure).

use std::net::{IpAddr, SocketAddr};

use super::calendar;
use super::problem::Code;
use super::suggest;
use crate::role::Role;

/// Longest text, in characters.
pub const TEXT_MAX: usize = 256;

/// The type of an attribute, as callhome.xsd has it, and what the schema cannot say.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// 1 to 256 characters.
    Text,
    /// Any string.
    Any,
    /// Lower-case letters, digits, `.`, `_`, `-`.
    Name,
    /// A path from `/` or `./`.
    Path,
    /// An address of one of these schemes.
    Url(&'static [&'static str]),
    /// `file:` and a path; the example is for the help.
    Secret(&'static str),
    /// A UUID in lower case.
    Customer,
    /// IP address and port.
    Bind,
    /// HH:MM.
    Clock,
    /// Days of the week.
    Days,
    /// A whole number.
    Number {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A number from 0.
    Decimal {
        /// Most.
        max: u32,
    },
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Roles, apart by blanks.
    Roles,
    /// `true`, `false`, `1`, `0`.
    Boolean,
    /// 64 hexadecimal digits.
    Sha256,
    /// A text that names a time zone.
    Zone,
    /// A text that is a filter of the log.
    LogFilter,
}

/// What is wrong with a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Characters from the beginning of the value.
    pub offset: u32,
    pub code: Code,
    pub message: String,
    pub help: String,
}

fn wrong(message: impl Into<String>, help: impl Into<String>) -> Vec<Wrong> {
    vec![Wrong { offset: 0, code: Code::BadValue, message: message.into(), help: help.into() }]
}

impl Kind {
    /// Whether `${NAME}` is read in it.
    pub(crate) fn takes_references(self) -> bool {
        use Kind::{Customer, LogFilter, Path, Secret, Text, Url, Zone};
        matches!(self, Text | Path | Url(_) | Secret(_) | Customer | Zone | LogFilter)
    }

    /// Whether its value must not be shown.
    pub(crate) fn is_secret(self) -> bool {
        matches!(self, Kind::Secret(_))
    }

    /// All that is wrong with `text` as the value of the attribute `name`; empty when nothing is.
    pub(crate) fn check(self, name: &str, text: &str) -> Vec<Wrong> {
        let shown = shown(text);
        let is = format!("{name} is {shown}");
        match self {
            Kind::Any => Vec::new(),
            Kind::Text => check_text(name, text),
            Kind::Name if is_name(text) => Vec::new(),
            Kind::Name => wrong(
                format!("{is}, not a name"),
                "1 to 63 of a-z 0-9 . _ - with a letter or digit at both ends",
            ),
            Kind::Path if is_path(text) => Vec::new(),
            Kind::Path => wrong(format!("{is}, not a path"), "begin it with / or ./"),
            Kind::Url(schemes) => check_url(name, text, schemes),
            Kind::Secret(example) => check_secret(name, text, example),
            Kind::Customer if is_customer(text) => Vec::new(),
            Kind::Customer => wrong(
                format!("{is}, not a customer id"),
                "a customer id is a UUID in lower case, as in 018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42",
            ),
            Kind::Bind if parse_bind(text).is_some() => Vec::new(),
            Kind::Bind => wrong(
                format!("{is}, not an IP address and a port"),
                format!("as in {name}=\"127.0.0.1:7070\" or {name}=\"[::1]:7070\""),
            ),
            Kind::Clock if calendar::parse_clock(text).is_some() => Vec::new(),
            Kind::Clock => wrong(
                format!("{is}, not a time of day"),
                format!("from 00:00 to 24:00 with two digits each, as in {name}=\"08:00\""),
            ),
            Kind::Days if calendar::parse_days(text).is_some() => Vec::new(),
            Kind::Days => {
                wrong(format!("{is}, which is no days of the week"), "as in mon-fri, or sat sun")
            }
            Kind::Number { min, max } => check_number(name, text, min, max),
            Kind::Decimal { max } => match parse_decimal(text) {
                Some(number) if number <= f64::from(max) => Vec::new(),
                _ => wrong(
                    format!("{is}, not a number from 0 to {max}"),
                    format!("as in {name}=\"1\""),
                ),
            },
            Kind::OneOf(words) if words.contains(&text) => Vec::new(),
            Kind::OneOf(words) => wrong(format!("{is}, which is not known"), one_of(text, words)),
            Kind::Roles => check_roles(text),
            Kind::Boolean if parse_boolean(text).is_some() => Vec::new(),
            Kind::Boolean => wrong(format!("{is}, neither true nor false"), "write true or false"),
            Kind::Sha256 if is_sha256(text) => Vec::new(),
            Kind::Sha256 => wrong(
                format!("{is}, not a SHA-256"),
                "64 hexadecimal digits in lower case, as sha256sum prints",
            ),
            Kind::Zone => check_zone(text),
            Kind::LogFilter => check_filter(name, text),
        }
    }
}

/// A value in quotes for a message: at most 64 characters, control characters escaped.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars().take(64) {
        if letter.is_control() { out.extend(letter.escape_default()) } else { out.push(letter) }
    }
    if text.chars().nth(64).is_some() {
        out.push('…');
    }
    out.push('"');
    out
}

/// What an attribute counts, by its name; empty for a plain number.
pub(crate) fn unit(name: &str) -> &'static str {
    if name.contains("bytes") {
        "bytes"
    } else if name.starts_with("messages-") {
        "messages"
    } else if name.ends_with("-s") {
        "seconds"
    } else if name.ends_with("-days") {
        "days"
    } else if name.ends_with("-percent") {
        "percent"
    } else {
        ""
    }
}

/// A whole number as XML Schema writes it: blanks around and a plus are allowed.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.strip_prefix('+').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

/// A decimal number from 0 on; no exponent.
pub(crate) fn parse_decimal(text: &str) -> Option<f64> {
    let text = text.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then(|| text.parse().ok())?
}

/// `true`, `false`, `1`, `0`.
pub(crate) fn parse_boolean(text: &str) -> Option<bool> {
    match text.trim() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Address and port of a door.
pub(crate) fn parse_bind(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    // A scope or an embedded IPv4 address is more than the schema takes.
    let plain = !text.contains('%') && (address.is_ipv4() || !text.contains('.'));
    plain.then_some(address)
}

/// Whether only this machine reaches the address.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn is_name(text: &str) -> bool {
    let end = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let middle = |b: u8| end(b) || matches!(b, b'.' | b'_' | b'-');
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| middle(*b))
        && bytes.first().is_some_and(|b| end(*b))
        && bytes.last().is_some_and(|b| end(*b))
}

fn is_path(text: &str) -> bool {
    (text.starts_with('/') || text.starts_with("./")) && !text.contains('\0')
}

fn is_customer(text: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let fits = |(at, b): (usize, u8)| match at {
        8 | 13 | 18 | 23 => b == b'-',
        _ => hex(b),
    };
    text.len() == 36 && text.bytes().enumerate().all(fits)
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn one_of(text: &str, words: &[&str]) -> String {
    match suggest::nearest(text, words.iter().copied()) {
        Some(word) => format!("did you mean {word}?"),
        None => format!("one of: {}", words.join(" ")),
    }
}

fn check_text(name: &str, text: &str) -> Vec<Wrong> {
    if text.is_empty() {
        return wrong(format!("{name} is empty"), "give it a value, or leave it out");
    }
    if text.chars().nth(TEXT_MAX).is_some() {
        let message = format!("{name} is longer than {TEXT_MAX} characters");
        return wrong(message, "make it shorter");
    }
    Vec::new()
}

fn check_url(name: &str, text: &str, schemes: &[&str]) -> Vec<Wrong> {
    let help = || match *schemes {
        ["https", "http", ..] => format!("as in {name}=\"https://home.provider.example:7443\""),
        _ => format!("one that begins with {}:", schemes.join(": or ")),
    };
    let message = || format!("{name} is {}, not an address", shown(text));
    let Ok(url) = reqwest::Url::parse(text) else { return wrong(message(), help()) };
    if url.password().is_some() {
        let message = format!("{name} holds a password");
        let help = "leave the password out of the address; secrets stand in files of their own";
        let code = Code::Secret;
        return vec![Wrong { offset: 0, code, message, help: help.to_owned() }];
    }
    if !schemes.contains(&url.scheme()) {
        let message = format!("{name} is {}, of a scheme not usable here", shown(text));
        return wrong(message, format!("one of: {}:", schemes.join(": ")));
    }
    let whole = match url.scheme() {
        "mailto" => url.path().split_once('@').is_some_and(|(l, r)| !l.is_empty() && !r.is_empty()),
        "file" => text.starts_with("file:/") && url.host_str().is_none_or(str::is_empty),
        scheme => {
            text.starts_with(&format!("{scheme}://"))
                && url.host_str().is_some_and(|host| !host.is_empty())
        }
    };
    if whole { Vec::new() } else { wrong(message(), help()) }
}

fn check_secret(name: &str, text: &str, example: &str) -> Vec<Wrong> {
    let fault = match text.strip_prefix("file:") {
        Some(path) if is_path(path) => return Vec::new(),
        Some(_) => "names no file: the path begins neither with / nor with ./",
        None => "holds the secret itself",
    };
    vec![Wrong {
        offset: 0,
        code: Code::Secret,
        message: format!("{name} {fault}"),
        help: format!("put it into a file only its owner can read, and write {name}=\"{example}\""),
    }]
}

fn check_roles(text: &str) -> Vec<Wrong> {
    let known = Role::ALL.map(Role::as_str);
    let all = format!("one or more of: {}", known.join(" "));
    let mut wrongs = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    let mut from = 0;
    for word in text.split_ascii_whitespace() {
        let at = text[from..].find(word).map_or(from, |found| from + found);
        from = at + word.len();
        let offset = u32::try_from(text[..at].chars().count()).unwrap_or(0);
        let (code, message, help) = if !known.contains(&word) {
            let near = suggest::nearest(word, known);
            let help = near.map_or(all.clone(), |near| format!("did you mean {near}?"));
            (Code::BadValue, format!("role {} is not known", shown(word)), help)
        } else if seen.contains(&word) {
            (Code::Duplicate, format!("role {word} stands twice"), "keep one".to_owned())
        } else {
            seen.push(word);
            continue;
        };
        wrongs.push(Wrong { offset, code, message, help });
    }
    if text.trim().is_empty() { wrong("roles is empty", all) } else { wrongs }
}

fn check_zone(text: &str) -> Vec<Wrong> {
    let unfit = check_text("zone", text);
    if !unfit.is_empty() || jiff::tz::TimeZone::get(text).is_ok() {
        return unfit;
    }
    let names: Vec<String> =
        jiff::tz::db().available().map(|zone| zone.as_str().to_owned()).collect();
    let help = match suggest::nearest(text, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => "as in Europe/Berlin; left out it is UTC".to_owned(),
    };
    wrong(format!("time zone {} is not known", shown(text)), help)
}

/// Levels of the log, from few lines to many.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

fn check_filter(name: &str, text: &str) -> Vec<Wrong> {
    let unfit = check_text(name, text);
    if !unfit.is_empty() {
        return unfit;
    }
    let message = format!("{name} is {}, not a filter", shown(text));
    if tracing_subscriber::EnvFilter::try_new(text).is_err() {
        return wrong(message, "levels are error warn info debug trace, as in info,delivery=debug");
    }
    // A word alone that is no level is taken as a target, and a slip would silence the log.
    let mut words = text.split(',').map(str::trim).filter(|word| !LEVELS.contains(word));
    match words.find_map(|word| suggest::nearest(word, LEVELS)) {
        Some(level) => wrong(message, format!("did you mean {level}?")),
        None => Vec::new(),
    }
}

fn check_number(name: &str, text: &str, min: u64, max: u64) -> Vec<Wrong> {
    match parse_number(text) {
        Some(number) if number < min => {
            wrong(format!("{name} is {number}, below {min}"), format!("{min} is the least"))
        }
        Some(number) if number > max => {
            wrong(format!("{name} is {number}, above {max}"), format!("{max} is the most"))
        }
        Some(_) => Vec::new(),
        None => {
            let of = match unit(name) {
                "" => String::new(),
                unit => format!(" of {unit}"),
            };
            let message = format!("{name} is {}, not a whole number{of}", shown(text));
            wrong(message, number_help(name, text))
        }
    }
}

/// What to write instead of a number with a unit, or of no number at all.
fn number_help(name: &str, text: &str) -> String {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let factor = factor(unit(name), suffix.trim_start());
    let product = digits.parse::<u64>().ok().zip(factor).and_then(|(n, f)| n.checked_mul(f));
    if let Some(product) = product {
        return format!("the unit stands in the name: {name}=\"{product}\"");
    }
    if text.contains("${") {
        return "write the number itself: ${…} is not read here".to_owned();
    }
    match (unit(name), name) {
        ("bytes", name) if name.contains("-per-") => format!("as in {name}=\"64000\""),
        ("bytes", _) => format!("as in {name}=\"4294967296\" (4 GiB)"),
        ("seconds", _) => format!("as in {name}=\"30\""),
        ("days", _) => format!("as in {name}=\"90\""),
        ("messages", _) => format!("as in {name}=\"1000\""),
        _ => format!("as in {name}=\"5\""),
    }
}

fn factor(unit: &str, suffix: &str) -> Option<u64> {
    Some(match (unit, suffix) {
        ("seconds", "s" | "sec" | "seconds") => 1,
        ("seconds", "m" | "min" | "minutes") => 60,
        ("seconds", "h" | "hours") => 3_600,
        ("seconds" | "days", "d" | "days") => {
            if unit == "days" {
                1
            } else {
                86_400
            }
        }
        ("bytes", "B" | "b" | "bytes") => 1,
        ("bytes", "k" | "kB" | "KB") => 1_000,
        ("bytes", "MB") => 1_000_000,
        ("bytes", "GB") => 1_000_000_000,
        ("bytes", "TB") => 1_000_000_000_000,
        ("bytes", "K" | "KiB" | "Ki") => 1 << 10,
        ("bytes", "M" | "MiB" | "Mi") => 1 << 20,
        ("bytes", "G" | "GiB" | "Gi") => 1 << 30,
        ("bytes", "T" | "TiB" | "Ti") => 1 << 40,
        ("percent", "%") => 1,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: Kind, name: &str, text: &str) -> Vec<String> {
        kind.check(name, text).into_iter().map(|w| format!("{}; {}", w.message, w.help)).collect()
    }

    #[test]
    fn a_unit_in_a_value_is_turned_into_the_number() {
        let bytes = Kind::Number { min: 1, max: u64::MAX };
        assert_eq!(
            told(bytes, "bytes", "4 GiB"),
            ["bytes is \"4 GiB\", not a whole number of bytes; the unit stands in the name: \
             bytes=\"4294967296\""]
        );
        assert!(told(bytes, "every-s", "5min")[0].ends_with("every-s=\"300\""));
        assert_eq!(told(bytes, "bytes", "0"), ["bytes is 0, below 1; 1 is the least"]);
        assert!(told(bytes, "bytes", " +17 ").is_empty());
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Kind::Secret("file:/x");
        for text in ["hunter2", "file:hunter2", "${HUNTER2}"] {
            let told = told(secret, "password", text).concat();
            assert!(told.starts_with("password") && !told.to_lowercase().contains("hunter2"));
        }
        let url = told(Kind::Url(&["postgres"]), "url", "postgres://me:hunter2@db/x").concat();
        assert!(url.starts_with("url holds a password") && !url.contains("hunter2"));
    }

    #[test]
    fn addresses_are_taken_apart() {
        let web = Kind::Url(&["https", "http"]);
        for good in ["http://localhost", "https://[::1]:7443/x", "http://mlm:80"] {
            assert!(told(web, "url", good).is_empty(), "{good}");
        }
        for bad in ["http:", "http://", "https:x", "mlm:7443", "ftp://x", "//x", "http://x:99999"] {
            assert!(!told(web, "url", bad).is_empty(), "{bad}");
        }
        let parent = Kind::Url(&["mailto", "file"]);
        for good in ["mailto:a@b", "file:/spool", "file:///spool"] {
            assert!(told(parent, "url", good).is_empty(), "{good}");
        }
        for bad in ["mailto:a", "file:spool", "file://host/spool"] {
            assert!(!told(parent, "url", bad).is_empty(), "{bad}");
        }
        for bad in ["localhost:1", "1.2.3.4", "1.2.3.4:65536", "[::1%1]:1", "[::ffff:1.2.3.4]:1"] {
            assert_eq!(parse_bind(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_wrong_role_is_told_at_its_place() {
        let wrongs = Kind::Roles.check("roles", " proxy mln proxy");
        let told: Vec<(u32, &str)> =
            wrongs.iter().map(|w| (w.offset, w.message.as_str())).collect();
        assert_eq!(told, [(7, "role \"mln\" is not known"), (11, "role proxy stands twice")]);
    }

    #[test]
    fn a_filter_of_the_log_is_tried() {
        assert!(told(Kind::LogFilter, "log", "info,delivery=debug").is_empty());
        assert!(!told(Kind::LogFilter, "log", "info,delivery=loud").is_empty());
    }
}
