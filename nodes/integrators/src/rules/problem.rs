//! What is wrong with a rules file: code, place and what to do about it.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// What kind of mistake it is; the names are those of `rules/README.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A value of the wrong type, outside its range, or not TOML at all.
    BadValue,
    /// A field that this format does not have.
    UnknownField,
    /// The same id or key twice in one file.
    Duplicate,
    /// A name, table or rule id that nothing defines.
    Unresolved,
    /// A rule that can never fire because an earlier one takes all that it matches.
    Unreachable,
    /// A `[[test]]` that came out otherwise.
    Test,
}

impl Code {
    /// The name as printed and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadValue => "bad_value",
            Self::UnknownField => "unknown_field",
            Self::Duplicate => "duplicate",
            Self::Unresolved => "unresolved",
            Self::Unreachable => "unreachable",
            Self::Test => "test",
        }
    }
}

/// Where something stands in a rules file; lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file as it was named to us; `shipped/KIND.toml` for the embedded ones.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One mistake in a rules file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What kind of mistake.
    pub code: Code,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do, or what is known about the cause.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: error[{}]: {}", self.place, self.code.name(), self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// The text of one file with its name: turns byte offsets into places.
pub(crate) struct Source {
    pub(crate) file: String,
    pub(crate) text: String,
    /// Byte offset at which each line begins.
    line_starts: Vec<usize>,
}

impl Source {
    pub(crate) fn new(file: &str, text: String) -> Self {
        let after_ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let line_starts = std::iter::once(0).chain(after_ends).collect();
        Self { file: file.to_owned(), text, line_starts }
    }

    /// The place at which `span` begins; outside of the text, its end.
    pub(crate) fn place(&self, span: &Range<usize>) -> Place {
        let at = span.start.min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= at).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..at).map_or(at - start, |s| s.chars().count()) + 1;
        Place { file: self.file.clone(), line, column }
    }

    pub(crate) fn problem(
        &self,
        code: Code,
        span: &Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Problem {
        Problem { code, place: self.place(span), message: message.into(), help }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_counts_lines_and_characters_from_one() {
        let source = Source::new("a.toml", "é = 1\nb = 2\n".to_owned());
        assert_eq!(source.place(&(0..1)).to_string(), "a.toml:1:1");
        assert_eq!(source.place(&(3..4)).to_string(), "a.toml:1:3");
        assert_eq!(source.place(&(7..8)).to_string(), "a.toml:2:1");
        assert_eq!(source.place(&(900..901)).to_string(), "a.toml:3:1");
    }
}
