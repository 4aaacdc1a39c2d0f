//! Query strings: percent-encoding, known parameters, and every mistake told at once.
use std::{fmt::Display, str::FromStr};

use extension::records::{LIMIT_DEFAULT, LIMIT_MAX, Paging};

use crate::problem::{Problem, Wrong};

/// Parameters of one request; a filter of more values is a list of its own.
pub const PARAMETERS_MAX: usize = 256;
/// Longest cursor, bytes: a position and a digest of the filter.
pub const CURSOR_BYTES_MAX: usize = 1024;
/// Longest words that are searched for, bytes (openapi.json).
pub const TEXT_BYTES_MAX: usize = 256;
/// Shortest words that are searched for, characters (openapi.json).
pub const TEXT_CHARS_MIN: usize = 2;

/// The parameters of one request. Take what is known, then `end`: a parameter that nobody has asked
/// for is unknown.
#[derive(Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
    wrong: Vec<Wrong>,
    asked: Vec<&'static str>,
}

impl Query {
    /// Reads `raw` (without `?`). A parameter that is not UTF-8 is wrong.
    pub fn parse(raw: &str) -> Self {
        let mut query = Self::default();
        for part in raw.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let Some(name) = decode(name, true) else {
                query.wrong(name, "the name of the parameter is not UTF-8");
                continue;
            };
            if query.pairs.len() >= PARAMETERS_MAX {
                query.wrong(&name, format!("there are more than {PARAMETERS_MAX} parameters"));
                break;
            }
            match decode(value, true) {
                Some(value) => query.pairs.push((name, value)),
                None => query.wrong(&name, "the value is not UTF-8"),
            }
        }
        query
    }

    /// Tells that a parameter is wrong.
    pub fn wrong(&mut self, pointer: &str, detail: impl Into<String>) {
        self.wrong.push(Wrong::at(pointer, detail));
    }

    /// The values of a parameter that may be repeated.
    pub fn many(&mut self, name: &'static str) -> Vec<String> {
        self.asked.push(name);
        let of = |(n, v): &(String, String)| (n == name && !v.is_empty()).then(|| v.clone());
        self.pairs.iter().filter_map(of).collect()
    }

    /// The value of a parameter that stands once.
    pub fn one(&mut self, name: &'static str) -> Option<String> {
        let mut values = self.many(name);
        if values.len() > 1 {
            self.wrong(name, "is given more than once; once is enough");
        }
        values.pop()
    }

    /// As `one`, read as a `T`, whose error says what would be right.
    pub fn read<T: FromStr>(&mut self, name: &'static str) -> Option<T>
    where
        T::Err: Display,
    {
        let value = self.one(name)?;
        value.parse().map_err(|error: T::Err| self.wrong(name, error.to_string())).ok()
    }

    /// As `many`, each read as a `T`.
    pub fn read_many<T: FromStr>(&mut self, name: &'static str) -> Vec<T>
    where
        T::Err: Display,
    {
        let values = self.many(name);
        let mut read = Vec::with_capacity(values.len());
        for value in values {
            match value.parse::<T>() {
                Ok(value) => read.push(value),
                Err(error) => self.wrong(name, error.to_string()),
            }
        }
        read
    }

    /// As `many`, each one of `words`.
    pub fn words(&mut self, name: &'static str, words: &[&str]) -> Vec<String> {
        let values = self.many(name);
        for value in &values {
            if !words.contains(&value.as_str()) {
                self.wrong(name, format!("is {value:?}; one of {}", words.join(" ")));
            }
        }
        values
    }

    /// A whole number from `min` to `max`.
    pub fn number(&mut self, name: &'static str, min: u64, max: u64) -> Option<u64> {
        let value = self.one(name)?;
        // `parse` takes a leading plus; a number in a URL has digits only.
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse::<u64>() {
            Ok(number) if digits && (min..=max).contains(&number) => Some(number),
            _ => {
                self.wrong(name, format!("is {value:?}; a whole number from {min} to {max}"));
                None
            }
        }
    }

    /// The words to search for.
    pub fn text(&mut self) -> Option<String> {
        let text = self.one("text")?;
        if text.len() > TEXT_BYTES_MAX || text.trim().chars().count() < TEXT_CHARS_MIN {
            let detail = format!("from {TEXT_CHARS_MIN} characters to {TEXT_BYTES_MAX} bytes");
            self.wrong("text", detail);
        }
        Some(text)
    }

    /// `limit` and `cursor`.
    pub fn paging(&mut self) -> Paging {
        let limit = self.number("limit", 1, LIMIT_MAX as u64).unwrap_or(LIMIT_DEFAULT as u64);
        let cursor = self.one("cursor");
        if cursor.as_ref().is_some_and(|cursor| cursor.len() > CURSOR_BYTES_MAX) {
            self.wrong("cursor", "is none of ours; take it from next of the page before");
        }
        Paging { limit: limit as usize, cursor }
    }

    /// `value`, unless something was wrong.
    pub fn end<T>(mut self, value: T) -> Result<T, Problem> {
        for (name, value) in std::mem::take(&mut self.pairs) {
            if !self.asked.contains(&name.as_str()) {
                self.wrong(&name, unknown(&self.asked));
            } else if value.is_empty() {
                self.wrong(&name, "is empty; leave it out");
            }
        }
        if self.wrong.is_empty() { Ok(value) } else { Err(Problem::malformed(self.wrong)) }
    }

    /// Names of the parameters that were asked for.
    #[cfg(test)]
    pub fn asked(&self) -> &[&'static str] {
        &self.asked
    }
}

fn unknown(known: &[&str]) -> String {
    if known.is_empty() {
        "is not a parameter; there are none here".to_owned()
    } else {
        format!("is not a parameter; there are: {}", known.join(" "))
    }
}

/// Percent-decoding; `plus` reads `+` as a space, as forms write it. `None`: not UTF-8. A `%`
/// that starts no escape stands for itself.
pub fn decode(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = after;
                }
                _ => bytes.push(b'%'),
            },
            (b'+', _) if plus => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Percent-encoding of everything but letters, digits and `-._~`.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_unknown_parameter_is_named_and_so_are_the_known_ones() {
        let mut query = Query::parse("wat=1&limit=5");
        query.paging();
        let problem = query.end(()).unwrap_err();
        assert_eq!(problem.status, 400);
        assert_eq!(problem.errors[0].pointer, "wat");
        assert!(problem.errors[0].detail.contains("there are: limit cursor"));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let raw = "limit=0&text=a&state=x&state=opened&since=now&cursor=a&cursor=b&node=&wat=1";
        let mut query = Query::parse(raw);
        query.paging();
        query.text();
        query.words("state", &["opened"]);
        let _: Option<extension::records::Time> = query.read("since");
        query.one("node");
        let problem = query.end(()).unwrap_err();
        let wrong: Vec<_> = problem.errors.iter().map(|wrong| wrong.pointer.as_str()).collect();
        assert_eq!(wrong, ["limit", "cursor", "text", "state", "since", "node", "wat"]);
    }

    #[test]
    fn values_are_decoded_and_repeated_ones_kept_in_order() {
        let mut query = Query::parse("a=x%2Fy+z&a=%C3%A9&a=50%&");
        assert_eq!(query.many("a"), ["x/y z", "é", "50%"]);
    }

    #[test]
    fn a_number_has_digits_only() {
        for (raw, right) in [("7", true), ("+7", false), ("-1", false), ("1e3", false), ("", false)]
        {
            let mut query = Query::parse(&format!("n={}", encode(raw)));
            let number = query.number("n", 0, 100);
            assert_eq!(query.end(number).is_ok(), right, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_again(text in ".*") {
            prop_assert_eq!(decode(&encode(&text), true), Some(text));
        }
    }
}
