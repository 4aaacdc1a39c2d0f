//! From the bytes of a line to a message: RFC 5424, else RFC 3164, else text.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::message::Message;
use super::{rfc3164, rfc5424};

/// What a line's time is read against: this host's clock and zone, given by whoever calls.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Now: a 3164 time takes the year that makes it nearest to this.
    pub now: Timestamp,
    /// The zone of 3164 times that name none.
    pub zone: TimeZone,
}

/// The line without trailing NUL and line ends.
#[must_use]
pub fn trimmed(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !matches!(byte, 0 | b'\n' | b'\r'));
    &line[..end.map_or(0, |last| last + 1)]
}

/// What a line says; never fails: what is no syslog at all is text with `user.notice`.
#[must_use]
pub fn parse(line: &[u8], clock: &Clock) -> Message {
    let line = trimmed(line);
    let Some((priority, rest)) = priority(line) else {
        return Message::of_text(line);
    };
    let text = String::from_utf8_lossy(rest);
    let found = rfc5424::parse(&text).unwrap_or_else(|| rfc3164::parse(&text, clock));
    Message { facility: priority / 8, severity: priority % 8, ..found }
}

/// `<N>`, N from 0 to 191 (RFC 5424 §6.2.1), and what follows. Leading zeros are let pass: some
/// vendors fill with them.
fn priority(line: &[u8]) -> Option<(u8, &[u8])> {
    let rest = line.strip_prefix(b"<")?;
    let end = rest.iter().take(4).position(|byte| *byte == b'>')?;
    let digits = &rest[..end];
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0_u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let value = u8::try_from(value).ok().filter(|value| *value <= 191)?;
    Some((value, &rest[end + 1..]))
}

/// An RFC 3339 time at the start, in milliseconds since 1970, and what follows it. The offset must
/// be there; a blank or colon must follow, or nothing.
#[must_use]
pub fn rfc3339(text: &str) -> Option<(i64, &str)> {
    let end = text.find([' ', ',']).unwrap_or(text.len());
    // The offset holds a colon, so one behind the time ("…+01:00: text") is cut off by itself.
    let word = &text[..end];
    let word = word.strip_suffix(':').unwrap_or(word);
    let bytes = word.as_bytes();
    let shape = bytes.len() >= 20
        && bytes.len() <= 40
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && bytes[10] == b'T'
        && bytes[13] == b':'
        && bytes[16] == b':';
    if !shape {
        return None;
    }
    let time: Timestamp = word.parse().ok()?;
    Some((time.as_millisecond(), &text[word.len()..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panic")]
    use proptest::prelude::*;

    use super::super::message::Form;
    use super::*;

    fn clock() -> Clock {
        Clock { now: "2026-11-23T00:00:00Z".parse().unwrap(), zone: TimeZone::UTC }
    }

    #[test]
    fn what_has_no_priority_is_text_with_user_notice() {
        for line in ["", "hello", "<192>x", "<>x", "<1", "<1234>x", "< 1>x", "<a>x"] {
            let message = parse(line.as_bytes(), &clock());
            assert_eq!((message.form, message.facility, message.severity), (Form::Text, 1, 5));
            assert_eq!(message.text.as_deref(), Some(line));
        }
    }

    #[test]
    fn trailing_nul_and_line_ends_are_cut() {
        assert_eq!(trimmed(b"a\0\r\n\0"), b"a");
        assert_eq!(trimmed(b"\n\0"), b"");
        assert_eq!(trimmed(b" a \n"), b" a ");
    }

    #[test]
    fn facility_and_severity_come_of_the_priority() {
        let message = parse(b"<165>1 - - - - - - x", &clock());
        assert_eq!((message.form, message.facility, message.severity), (Form::Rfc5424(1), 20, 5));
        let message = parse(b"<0>x", &clock());
        assert_eq!((message.form, message.facility, message.severity), (Form::Rfc3164, 0, 0));
        assert_eq!(parse(b"<007>x", &clock()).severity, 7);
    }

    #[test]
    fn what_only_looks_like_rfc_5424_keeps_its_priority_and_its_text() {
        let line = b"<163>1 2003-10-11T22:14:15.003Z host x - ID47 [unclosed text";
        let message = parse(line, &clock());
        assert_eq!((message.form, message.severity), (Form::Rfc3164, 3));
        let text = String::from_utf8_lossy(&line[5..]).into_owned();
        assert_eq!(message.text, Some(text));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&line, &clock());
        }

        #[test]
        fn arbitrary_text_after_a_priority_never_panics_and_keeps_the_priority(
            priority in 0_u8..192,
            rest in "[ -~\u{e9}\n\t]{0,120}",
        ) {
            let message = parse(format!("<{priority}>{rest}").as_bytes(), &clock());
            prop_assert_eq!(message.facility * 8 + message.severity, priority);
        }

        #[test]
        fn well_formed_parts_in_odd_orders_never_panic(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("1 "), Just("Nov 21 19:30:00"), Just("2026-11-21T19:30:00.1Z"),
                    Just(" "), Just(":"), Just("["), Just("]"), Just("a=\"\\"), Just("\""),
                    Just("host"), Just("- "), Just("app[1]:"), Just("é"), Just("2026"),
                ],
                0..20,
            ),
        ) {
            let _ = parse(format!("<13>{}", parts.concat()).as_bytes(), &clock());
        }
    }
}
