//! Times, spans, figures and ids in words (pure): units always stand beside them.
use jiff::{Timestamp, tz::TimeZone};

/// A span of seconds, as `live.js` writes it: `48 s`, `5 min`, `1 h 01 min`, `3 days`.
pub fn span(seconds: f64) -> String {
    let s = if seconds.is_finite() { seconds.max(0.0).floor() as u64 } else { u64::MAX };
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..86_400 => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
        _ if s / 86_400 == 1 => "1 day".to_owned(),
        _ => format!("{} days", s / 86_400),
    }
}

/// A short span in milliseconds: `243 ms`, `0.9 s`, then as [`span`].
pub fn short(ms: i64) -> String {
    match ms.max(0) {
        ms @ 0..950 => format!("{ms} ms"),
        ms @ 950..10_000 => format!("{:.1} s", ms as f64 / 1000.0),
        ms => span(ms as f64 / 1000.0),
    }
}

/// Thousands apart: `11,840`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 message`, `2 messages`.
pub fn counted(number: u64, word: &str) -> String {
    format!("{} {word}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Bytes in binary units: `412 B`, `25.1 MiB`.
pub fn bytes(number: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

fn zoned(ms: i64) -> jiff::Zoned {
    Timestamp::from_millisecond(ms).unwrap_or_default().to_zoned(TimeZone::UTC)
}

/// The clock: `12:09:51 UTC` on the day of `now`, else `2026-11-20 17:02 UTC`.
pub fn clock(ms: i64, now_ms: i64) -> String {
    let at = zoned(ms);
    if at.date() == zoned(now_ms).date() {
        at.strftime("%H:%M:%S UTC").to_string()
    } else {
        at.strftime("%Y-%m-%d %H:%M UTC").to_string()
    }
}

/// The clock with milliseconds: `12:09:51.204`.
pub fn fine(ms: i64) -> String {
    zoned(ms).strftime("%H:%M:%S.%3f").to_string()
}

/// The day: `2026-11-22`.
pub fn day(ms: i64) -> String {
    zoned(ms).strftime("%Y-%m-%d").to_string()
}

/// For `datetime=`.
pub fn iso(ms: i64) -> String {
    extension::records::Time(ms).to_string()
}

/// An id short enough for a column: `018f…c2/3/1/17`; whole where it is not so long.
pub fn short_id(id: &str) -> String {
    let end = id.find(['/', ':']).unwrap_or(id.len());
    match (id.get(..4), id.get(end.saturating_sub(2)..)) {
        (Some(head), Some(tail)) if end == 36 => format!("{head}…{tail}"),
        _ => id.to_owned(),
    }
}

/// A value in a query or a path: everything but the unreserved characters is escaped.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// An id in a path: `/` is written `.` (contract §1).
pub fn in_path(id: &str) -> String {
    id.replace('/', ".")
}

/// Pairs as a query with its `?`; nothing where there are none.
pub fn query(pairs: &[(String, String)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        out.push(if out.is_empty() { '?' } else { '&' });
        out.push_str(&format!("{}={}", escaped(name), escaped(value)));
    }
    out
}

/// Until what waits is gone, for a column that is named "empty in": messages queued, and seconds
/// until they are out.
pub(crate) fn until_empty(queued: u64, drain_eta_s: Option<f64>) -> String {
    match drain_eta_s {
        _ if queued == 0 => "empty".to_owned(),
        Some(seconds) if seconds < 60.0 => "under 1 min".to_owned(),
        Some(seconds) => span(seconds),
        None => "not draining".to_owned(),
    }
}

/// As [`until_empty`], in a sentence.
pub(crate) fn empty_in(queued: u64, drain_eta_s: Option<f64>) -> String {
    let until = until_empty(queued, drain_eta_s);
    let known = queued > 0 && drain_eta_s.is_some();
    if known { format!("empty in {until}") } else { until }
}

/// A count where there is little room.
pub(crate) fn compact(count: u64) -> String {
    match count {
        0..100_000 => self::count(count),
        100_000..1_000_000 => format!("{} k", count / 1000),
        _ => format!("{:.1} M", count as f64 / 1e6),
    }
}

/// Words as the begin of a sentence.
pub(crate) fn sentence(words: &str) -> String {
    let mut letters = words.trim_end_matches('.').chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_counts_take_little_room_in_a_picture() {
        let words = [0, 11_840, 99_999, 100_000, 999_999, 1_234_567].map(compact);
        assert_eq!(words, ["0", "11,840", "99,999", "100 k", "999 k", "1.2 M"]);
    }

    #[test]
    fn spans_are_as_the_script_writes_them() {
        let cases = [
            (-1.0, "0 s"),
            (59.9, "59 s"),
            (60.0, "1 min"),
            (3660.0, "1 h 01 min"),
            (86_400.0, "1 day"),
            (300_000.0, "3 days"),
        ];
        for (seconds, words) in cases {
            assert_eq!(span(seconds), words);
        }
        assert_eq!(
            (short(243), short(950), short(61_000)),
            ("243 ms".into(), "0.9 s".into(), "1 min".into())
        );
    }

    #[test]
    fn figures_have_units_and_thousands() {
        assert_eq!(
            (count(0), count(999), count(11_840)),
            ("0".into(), "999".into(), "11,840".into())
        );
        assert_eq!(
            (counted(1, "alarm"), counted(2, "alarm")),
            ("1 alarm".into(), "2 alarms".into())
        );
        assert_eq!((bytes(412), bytes(26_319_258)), ("412 B".into(), "25.1 MiB".into()));
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn the_clock_says_the_day_where_it_is_another() {
        let at = 1_795_349_391_204;
        assert_eq!(clock(at, at + 1000), "12:09:51 UTC");
        assert_eq!(clock(at, at + 86_400_000), "2026-11-22 12:09 UTC");
        assert_eq!(fine(at), "12:09:51.204");
        assert_eq!(clock(i64::MAX, at), "1970-01-01 00:00 UTC");
    }

    #[test]
    fn ids_are_short_in_columns_and_dotted_in_paths() {
        let id = "018f3a6e-9b1d-7c55-a1f0-6d20b4c7e8c2/3:7:u:1042";
        assert_eq!(short_id(id), "018f…c2/3:7:u:1042");
        assert_eq!(short_id("ünïcode"), "ünïcode");
        assert_eq!(in_path(id), "018f3a6e-9b1d-7c55-a1f0-6d20b4c7e8c2.3:7:u:1042");
        assert_eq!(query(&[("a b".into(), "ü&=".into())]), "?a%20b=%C3%BC%26%3D");
    }
}
