//! RFC 3164 and what vendors make of it: as much of time, host and tag as can be found without
//! doubt; what cannot, stays text.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use super::message::{Form, Message};
use super::parse::{Clock, rfc3339};

/// Characters of a tag or host: RFC 3164 says 32, programs and domains are longer.
const NAME_CHARACTERS: usize = 255;
/// Months as RFC 3164 §4.1.2 writes them.
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The message behind the priority. Never fails: without a time all of it is the text (§4.3.2),
/// from which a tag is taken where one stands.
pub(super) fn parse(whole: &str, clock: &Clock) -> Message {
    let mut message = Message { form: Form::Rfc3164, text: None, ..Message::of_text(b"") };
    let start = whole.trim_start_matches(' ');
    let start = start.strip_prefix(':').map_or(start, |rest| rest.trim_start_matches(' '));
    let Some((time, rest)) = time(sequence(start), clock) else {
        message.take_tag(whole.trim_start_matches(' '));
        return message;
    };
    message.occurred_at_ms = Some(time);
    match behind_time(rest) {
        // "19:30:00: %ASA…": a colon behind the time says that no host follows.
        Behind::Text(text) => message.take_tag(text),
        Behind::Host(text) => match host(text) {
            Some((host, rest)) => {
                message.host = Some(host.to_string());
                // "host : %ASA…"
                let rest = rest.strip_prefix(": ").unwrap_or(rest);
                message.take_tag(rest);
                message.take_bare_tag(rest);
            }
            None => message.take_tag(text),
        },
    }
    message
}

impl Message {
    /// `tag: text` or `tag[pid]: text`, also with a blank before the colon; else all is text.
    fn take_tag(&mut self, text: &str) {
        let text = text.trim_start_matches(' ');
        match tag(text) {
            Some((tag, pid, rest)) => {
                self.app = Some(tag.to_string());
                self.pid = pid.filter(|pid| !pid.is_empty()).map(str::to_string);
                self.text = Some(rest.trim_start_matches(' ').to_string());
            }
            None => self.text = Some(text.to_string()),
        }
        self.text = self.text.take().filter(|text| !text.is_empty());
    }

    /// Behind a host a blank ends the tag too (§4.1.3). Whether the word is one cannot be known
    /// ("vm mdadm DegradedArray event" against "sw1 Detected an intruder"): rules may go by it, and
    /// it stays in the text for people.
    fn take_bare_tag(&mut self, text: &str) {
        if self.app.is_none() {
            let word = text.trim_start_matches(' ').split(' ').next().unwrap_or_default();
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
            let begins = word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
            if begins && word.len() <= 48 && word.bytes().all(plain) {
                self.app = Some(word.to_string());
            }
        }
    }
}

/// Passes over what Cisco puts before the time: a sequence number with a colon, and `*` or `.` for
/// a clock that is not in step.
fn sequence(text: &str) -> &str {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let text = match text[digits..].strip_prefix(": ") {
        Some(rest) if digits > 0 => rest.trim_start_matches(' '),
        _ => text,
    };
    text.strip_prefix(['*', '.']).unwrap_or(text)
}

/// A time at the start, in milliseconds since 1970, and what follows.
fn time<'t>(text: &'t str, clock: &Clock) -> Option<(i64, &'t str)> {
    if let Some((time, rest)) = rfc3339(text) {
        return Some((time, rest));
    }
    let month = text.get(..3)?;
    let month = i8::try_from(MONTHS.iter().position(|known| *known == month)? + 1).ok()?;
    let (day, rest) = number(text.get(3..)?.strip_prefix(' ')?.trim_start_matches(' '), 2)?;
    let rest = rest.strip_prefix(' ')?;
    // Cisco: "Nov 21 2026 19:30:00".
    let (year, rest) = match year(rest) {
        Some((year, after)) => (Some(year), after.strip_prefix(' ')?),
        None => (None, rest),
    };
    let (of_day, rest) = of_day(rest.trim_start_matches(' '))?;
    // Aruba: "Nov 21 19:30:00 2026 host".
    let (year, rest) = match rest.strip_prefix(' ').and_then(self::year) {
        Some((behind, after)) if year.is_none() && (after.is_empty() || after.starts_with(' ')) => {
            (Some(behind), after)
        }
        _ => (year, rest),
    };
    let (zone, rest) = zone(rest);
    let zone = zone.unwrap_or_else(|| clock.zone.clone());
    let of_year = |year: i16| {
        let date = Date::new(year, month, i8::try_from(day).ok()?).ok()?;
        let time = date.to_datetime(of_day).to_zoned(zone.clone()).ok()?;
        Some(time.timestamp().as_millisecond())
    };
    let time = match year {
        Some(year) => of_year(year)?,
        None => {
            let this = clock.now.to_zoned(zone.clone()).year();
            let now = clock.now.as_millisecond();
            // A 29th of February may be further off than a year.
            let years = (this.saturating_sub(4)..=this.saturating_add(4)).filter_map(of_year);
            years.min_by_key(|time| time.abs_diff(now))?
        }
    };
    Some((time, rest))
}

/// A decimal number of at most so many digits.
fn number(text: &str, digits: usize) -> Option<(u32, &str)> {
    let end = text.bytes().take(digits).take_while(u8::is_ascii_digit).count();
    let value = text.get(..end)?.parse().ok()?;
    Some((value, &text[end..]))
}

/// Four digits of a year from 1990 to 2099, that do not go on as a time or a number.
fn year(text: &str) -> Option<(i16, &str)> {
    let (year, rest) = number(text, 4)?;
    let ends = !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-');
    let year = i16::try_from(year).ok()?;
    ((1990..2100).contains(&year) && ends).then_some((year, rest))
}

/// `hh:mm:ss`, perhaps with a fraction.
fn of_day(text: &str) -> Option<(Time, &str)> {
    let (hour, rest) = number(text, 2)?;
    let (minute, rest) = number(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = number(rest.strip_prefix(':')?, 2)?;
    let part = |value: u32| i8::try_from(value).ok();
    let mut nanosecond = 0;
    let mut rest = rest;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if (1..=9).contains(&digits) {
            let padded = format!("{:0<9}", &fraction[..digits]);
            nanosecond = padded.parse().ok()?;
            rest = &fraction[digits..];
        }
    }
    // A leap second is the last of its minute.
    let time = Time::new(part(hour)?, part(minute)?, part(second.min(59))?, nanosecond).ok()?;
    Some((time, rest))
}

/// A zone behind the time: known when it is UTC; the abbreviation of another (`CET:`) is passed
/// over, since it names no zone without doubt, but only before a colon: else it may be a host.
fn zone(text: &str) -> (Option<TimeZone>, &str) {
    if let Some(rest) = text.strip_prefix('Z').filter(|rest| ends(rest)) {
        return (Some(TimeZone::UTC), rest);
    }
    let Some(word) = text.strip_prefix(' ') else {
        return (None, text);
    };
    for name in ["UTC", "GMT"] {
        if let Some(rest) = word.strip_prefix(name).filter(|rest| ends(rest)) {
            return (Some(TimeZone::UTC), rest);
        }
    }
    let letters = word.bytes().take_while(u8::is_ascii_uppercase).count();
    let rest = &word[letters..];
    if (3..=5).contains(&letters) && (rest.starts_with(": ") || rest.starts_with(" : ")) {
        return (None, rest);
    }
    (None, text)
}

/// Whether a word is over here.
fn ends(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with([' ', ':'])
}

/// What stands behind the time.
enum Behind<'t> {
    /// A host may.
    Host(&'t str),
    /// No host does.
    Text(&'t str),
}

fn behind_time(rest: &str) -> Behind<'_> {
    let plain = rest.trim_start_matches(' ');
    match plain.strip_prefix(':') {
        Some(text) => Behind::Text(text.trim_start_matches(' ')),
        None => Behind::Host(plain),
    }
}

/// A host at the start, and what follows its blank. A word that ends in a colon is a tag, unless it
/// is an address (Cisco ACE); so is one with brackets.
fn host(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let host = match word.strip_suffix(':') {
        Some(address) => address.parse::<std::net::IpAddr>().ok().map(|_| address)?,
        None => word,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:%".contains(&b) || b >= 0x80;
    let fits = !host.is_empty() && host.len() <= NAME_CHARACTERS && host.bytes().all(plain);
    // One word behind the time ("Nov 21 19:30:00 done") is text.
    (fits && !(rest.is_empty() && host == text)).then(|| (host, rest.trim_start_matches(' ')))
}

/// `tag`, `[pid]` and what follows the colon.
fn tag(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let end = text.find([' ', ':', '[', ']', '"', '\t'])?;
    let (tag, rest) = text.split_at(end);
    if tag.is_empty() || tag.len() > NAME_CHARACTERS {
        return None;
    }
    let (pid, rest) = match rest.strip_prefix('[') {
        Some(inside) => {
            let (pid, rest) = inside.split_once(']')?;
            if pid.len() > 128 || pid.contains(' ') {
                return None;
            }
            (Some(pid), rest)
        }
        None => (None, rest),
    };
    let rest = rest.strip_prefix(" :").filter(|r| ends(r)).or_else(|| rest.strip_prefix(':'))?;
    // "http://x", "a:b" and times are text.
    (rest.is_empty() || rest.starts_with([' ', '\t'])).then_some((tag, pid, rest))
}

#[cfg(test)]
#[path = "rfc3164_tests.rs"]
mod tests;
