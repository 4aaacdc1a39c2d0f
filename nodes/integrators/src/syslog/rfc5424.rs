//! RFC 5424, as strict as its grammar, but for what a reader can forgive without doubt.

use super::message::{Element, Form, Message};
use super::parse::rfc3339;

/// Elements of structured data that are read: more is no log line but an attack on the reader.
const ELEMENTS: usize = 256;

/// The message behind the priority; none when it is not RFC 5424. Forgiven: more than six digits
/// of a second, an element that comes twice, blanks before the text.
pub(super) fn parse(text: &str) -> Option<Message> {
    let (version, rest) = text.split_once(' ')?;
    let well_formed = version.len() <= 3
        && version.bytes().all(|byte| byte.is_ascii_digit())
        && !version.starts_with('0');
    let version = version.parse().ok().filter(|_| well_formed)?;
    let (occurred_at_ms, rest) = match rest.strip_prefix("- ") {
        Some(rest) => (None, rest),
        None => {
            let (time, rest) = rfc3339(rest)?;
            (Some(time), rest.strip_prefix(' ')?)
        }
    };
    let (host, rest) = word(rest, 255)?;
    let (app, rest) = word(rest, 48)?;
    let (pid, rest) = word(rest, 128)?;
    let (msgid, rest) = word(rest, 32)?;
    let (structured, rest) = match rest.strip_prefix('-') {
        Some(rest) => (Vec::new(), rest),
        None => elements(rest)?,
    };
    let text = match rest.strip_prefix(' ') {
        Some(text) => Some(text.trim_start_matches('\u{feff}').trim_start_matches(' ')),
        None if rest.is_empty() => None,
        None => return None,
    };
    Some(Message {
        form: Form::Rfc5424(version),
        facility: 0,
        severity: 0,
        occurred_at_ms,
        host,
        app,
        pid,
        msgid,
        structured,
        text: text.filter(|text| !text.is_empty()).map(str::to_string),
    })
}

/// A field of at most `limit` printable US-ASCII characters, or `-` for none; then a blank.
fn word(text: &str, limit: usize) -> Option<(Option<String>, &str)> {
    let (word, rest) = text.split_once(' ')?;
    if word.is_empty() || word.len() > limit || !word.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    Some(((word != "-").then(|| word.to_string()), rest))
}

/// `1*SD-ELEMENT`, and what follows.
fn elements(mut text: &str) -> Option<(Vec<Element>, &str)> {
    let mut found = Vec::new();
    while let Some(rest) = text.strip_prefix('[') {
        let (element, rest) = element(rest)?;
        found.push(element);
        text = rest;
        if found.len() > ELEMENTS {
            return None;
        }
    }
    (!found.is_empty()).then_some((found, text))
}

/// The inside of `[id name="value" …]`, and what follows the bracket.
fn element(text: &str) -> Option<(Element, &str)> {
    let (id, mut text) = name(text)?;
    let mut parameters = Vec::new();
    loop {
        if let Some(rest) = text.strip_prefix(']') {
            return Some((Element { id: id.to_string(), parameters }, rest));
        }
        let (key, rest) = name(text.strip_prefix(' ')?)?;
        let (value, rest) = value(rest.strip_prefix("=\"")?)?;
        parameters.push((key.to_string(), value));
        text = rest;
    }
}

/// An SD-NAME: 1 to 32 printable characters but `=`, `]` and `"`.
fn name(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_graphic() || matches!(c, '=' | ']' | '"'))?;
    (1..=32).contains(&end).then(|| text.split_at(end))
}

/// A value up to its closing quote; `\"`, `\\`, `\]` lose their backslash, others keep it.
fn value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            ']' => return None,
            '\\' => match characters.next()?.1 {
                escaped @ ('"' | '\\' | ']') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panic")]
    use super::*;

    #[test]
    fn all_fields_are_read_and_escapes_undone() {
        let line = [
            "1 2026-11-21T19:19:44.750422+00:00 vm smartd 4711 DISKFAIL",
            r#"[a@1 x="1"][disk@32473 dev="/dev/sda" esc="a\]b\"c\\d\e"] Device: /dev/sda [SAT]"#,
        ];
        let message = parse(&line.join(" ")).unwrap();
        assert_eq!(message.occurred_at_ms, Some(1_795_288_784_750));
        assert_eq!(message.host.as_deref(), Some("vm"));
        assert_eq!(message.app.as_deref(), Some("smartd"));
        assert_eq!(message.pid.as_deref(), Some("4711"));
        assert_eq!(message.msgid.as_deref(), Some("DISKFAIL"));
        assert_eq!(message.structured[1].parameters[1].1, r#"a]b"c\d\e"#);
        assert_eq!(message.text.as_deref(), Some("Device: /dev/sda [SAT]"));
    }

    #[test]
    fn nil_fields_and_a_missing_text_are_absent() {
        let message = parse("11 - - - - - -").unwrap();
        assert_eq!(message.form, Form::Rfc5424(11));
        assert_eq!((message.host, message.app, message.text), (None, None, None));
        assert_eq!(parse("1 - - - - - - ").unwrap().text, None);
        assert_eq!(parse("1 - - - - - [a]").unwrap().structured[0].id, "a");
        let text = parse("1 - - - - - - \u{feff}  x").unwrap().text;
        assert_eq!(text.as_deref(), Some("x"));
    }

    #[test]
    fn what_the_grammar_does_not_allow_is_not_rfc_5424() {
        let long = "A".repeat(49);
        for line in [
            "0 - - - - - -",
            "1000 - - - - - -",
            "1 - - - - -",
            "1 2026-11-21 - - - - -",
            "1 2026-11-21T19:19:44 - - - - -",
            "1 2026-13-21T19:19:44Z - - - - -",
            "1 - - - - - x",
            "1 - - - - - []",
            "1 - - - - - [a b]",
            "1 - - - - - [a b=\"c]",
            "1 - - - - - [a b=\"c\"",
            "1 - - - - - -x",
            "1 - é - - - -",
            &format!("1 - h {long} - - -"),
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
