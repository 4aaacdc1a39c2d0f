//! Reads values of a parsed TOML document by type, and notes each mistake with its place.

use std::ops::Range;
use std::str::FromStr;

use regex::Regex;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Code, Problem, Source};
use super::template::Template;

/// Compiled size of one regular expression, in bytes: enough for any sane rule, and a file of
/// thousands of them still fits the memory of a small host.
const REGEX_BYTES_MAX: usize = 4 << 20;

/// A value of a parsed file with the place where it stands.
pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

/// Notes problems of one file while its values are read.
pub(crate) struct Reader<'a> {
    pub(crate) source: &'a Source,
    pub(crate) problems: Vec<Problem>,
}

impl Reader<'_> {
    pub(crate) fn bad(&mut self, span: &Range<usize>, message: impl Into<String>, help: &str) {
        let help = (!help.is_empty()).then(|| help.to_owned());
        self.problems.push(self.source.problem(Code::BadValue, span, message, help));
    }

    pub(crate) fn unknown(&mut self, key: &Spanned<std::borrow::Cow<'_, str>>, known: &[&str]) {
        let message = format!("unknown field {}", key.get_ref());
        let help = format!("known here: {}", known.join(" "));
        let problem = self.source.problem(Code::UnknownField, &key.span(), message, Some(help));
        self.problems.push(problem);
    }

    fn wrong_type(&mut self, value: &Value<'_>, field: &str, wanted: &str) {
        let message = format!("{field} is {}, expected {wanted}", value.get_ref().type_str());
        self.bad(&value.span(), message, "");
    }

    pub(crate) fn string(&mut self, value: &Value<'_>, field: &str) -> Option<Spanned<String>> {
        match value.get_ref() {
            DeValue::String(text) => Some(Spanned::new(value.span(), text.to_string())),
            _ => {
                self.wrong_type(value, field, "a string");
                None
            }
        }
    }

    /// A string, or a whole number as the string of its digits.
    pub(crate) fn word(&mut self, value: &Value<'_>, field: &str) -> Option<Spanned<String>> {
        match (value.get_ref(), whole(value)) {
            (DeValue::Integer(_), Some(number)) => {
                Some(Spanned::new(value.span(), number.to_string()))
            }
            _ => self.string(value, field),
        }
    }

    /// One string, or a list of them.
    pub(crate) fn words(&mut self, value: &Value<'_>, field: &str) -> Option<Vec<Spanned<String>>> {
        let DeValue::Array(items) = value.get_ref() else {
            return self.word(value, field).map(|one| vec![one]);
        };
        if items.is_empty() {
            self.bad(&value.span(), format!("{field} is an empty list"), "leave the field out");
            return None;
        }
        let read: Vec<_> = items.iter().filter_map(|item| self.word(item, field)).collect();
        (read.len() == items.len()).then_some(read)
    }

    pub(crate) fn boolean(&mut self, value: &Value<'_>, field: &str) -> Option<bool> {
        let read = value.get_ref().as_bool();
        if read.is_none() {
            self.wrong_type(value, field, "true or false");
        }
        read
    }

    /// A number of seconds, at least one.
    pub(crate) fn seconds(&mut self, value: &Value<'_>, field: &str) -> Option<u32> {
        let read = whole(value).filter(|s| *s > 0).and_then(|s| u32::try_from(s).ok());
        if read.is_none() {
            let message = format!("{field} is not a number of seconds");
            self.bad(&value.span(), message, "a whole number from 1 to 4294967295");
        }
        read
    }

    pub(crate) fn table<'v, 'i>(
        &mut self,
        value: &'v Value<'i>,
        field: &str,
    ) -> Option<&'v DeTable<'i>> {
        let read = value.get_ref().as_table();
        if read.is_none() {
            self.wrong_type(value, field, "a table");
        }
        read
    }

    pub(crate) fn template(&mut self, value: &Value<'_>, field: &str) -> Option<Spanned<Template>> {
        let text = self.string(value, field)?;
        match Template::parse(text.get_ref()) {
            Ok(template) => Some(Spanned::new(value.span(), template)),
            Err(why) => {
                let help = "write {name}, {a|b|'literal'} or {name:table}; {{ is a brace";
                self.bad(&value.span(), format!("{field}: {why}"), help);
                None
            }
        }
    }

    pub(crate) fn regex(&mut self, text: &Spanned<String>, field: &str) -> Option<Regex> {
        let built = regex::RegexBuilder::new(text.get_ref()).size_limit(REGEX_BYTES_MAX).build();
        match built {
            Ok(regex) => Some(regex),
            Err(error) => {
                let shown = error.to_string();
                let why = shown.lines().last().unwrap_or("not a regular expression").trim();
                let message = format!("{field} is not a regular expression: {why}");
                let help = "as in the Rust crate regex: no look-around, no back-references";
                self.bad(&text.span(), message, help);
                None
            }
        }
    }

    /// One of a closed set of words.
    pub(crate) fn one_of<T: FromStr<Err = String>>(
        &mut self,
        value: &Value<'_>,
        field: &str,
    ) -> Option<T> {
        let text = self.string(value, field)?;
        match text.get_ref().parse() {
            Ok(read) => Some(read),
            Err(why) => {
                let (message, help) = why.split_once("; ").unwrap_or((why.as_str(), ""));
                self.bad(&value.span(), format!("{field} {message}"), help);
                None
            }
        }
    }
}

/// The whole number that a value is, if it is one that fits.
pub(crate) fn whole(value: &Value<'_>) -> Option<i64> {
    let integer = value.get_ref().as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}
