//! What is wrong with a file: where, why, and how to mend it.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// Most problems told of one file; whoever has more has the wrong file.
pub const PROBLEMS_MAX: usize = 1_000;

/// A place in a file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Character in the line, from 1.
    pub column: u32,
}

impl Place {
    /// The first character of a file.
    pub const START: Place = Place { line: 1, column: 1 };
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Nothing starts with it.
    Error,
    /// The node starts; someone should look.
    Warning,
}

impl Level {
    /// The word shown and written.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
        }
    }
}

/// What kind of mistake it is; the names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Not XML, or XML that is not read here; ends the reading.
    NotWellFormed,
    /// An element that does not belong here.
    UnknownElement,
    /// An attribute that does not belong here.
    UnknownAttribute,
    /// An element that has to be here.
    MissingElement,
    /// An attribute that has to be here.
    MissingAttribute,
    /// A value that cannot be what it should be.
    BadValue,
    /// The same thing a second time.
    Duplicate,
    /// A reference to nothing.
    Unresolved,
    /// Two settings that cannot both hold.
    Conflict,
    /// A secret in the open.
    Secret,
    /// A variable that is not set.
    Environment,
    /// A store that is damaged or cannot be read; used by the checks of stores.
    Damaged,
    /// A store of a version that this program does not know.
    UnknownFormat,
}

impl Code {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::NotWellFormed => "not_well_formed",
            Code::UnknownElement => "unknown_element",
            Code::UnknownAttribute => "unknown_attribute",
            Code::MissingElement => "missing_element",
            Code::MissingAttribute => "missing_attribute",
            Code::BadValue => "bad_value",
            Code::Duplicate => "duplicate",
            Code::Unresolved => "unresolved",
            Code::Conflict => "conflict",
            Code::Secret => "secret",
            Code::Environment => "environment",
            Code::Damaged => "damaged",
            Code::UnknownFormat => "unknown_format",
        }
    }
}

/// One thing that is wrong with a file.
///
/// Displayed as `file:line:column: error[code]: message`, then a line with the help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named by whoever asked.
    pub file: String,
    /// Line and column; `None` when the file as a whole is meant.
    pub place: Option<Place>,
    /// How bad it is.
    pub level: Level,
    /// What kind of mistake it is.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

impl Problem {
    /// An error at a place of a file.
    pub fn at(file: &str, place: Place, code: Code, message: String, help: String) -> Problem {
        let file = file.to_owned();
        Problem { file, place: Some(place), level: Level::Error, code, message, help }
    }

    /// An error of a file as a whole.
    pub fn of_file(file: &str, code: Code, message: String, help: String) -> Problem {
        Problem { file: file.to_owned(), place: None, level: Level::Error, code, message, help }
    }

    /// Line, from 1; `None` when the file as a whole is meant.
    pub fn line(&self) -> Option<u32> {
        self.place.map(|place| place.line)
    }

    /// Column in characters, from 1; `None` when the file as a whole is meant.
    pub fn column(&self) -> Option<u32> {
        self.place.map(|place| place.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(place) = self.place {
            write!(f, ":{place}")?;
        }
        write!(f, ": {}[{}]: {}", self.level.as_str(), self.code.as_str(), self.message)?;
        write!(f, "\n  help: {}", self.help)
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(7))?;
        map.serialize_entry("file", &self.file)?;
        map.serialize_entry("line", &self.line())?;
        map.serialize_entry("column", &self.column())?;
        map.serialize_entry("level", self.level.as_str())?;
        map.serialize_entry("code", self.code.as_str())?;
        map.serialize_entry("message", &self.message)?;
        map.serialize_entry("help", &self.help)?;
        map.end()
    }
}

/// Collects the problems of one file while it is checked.
#[derive(Debug)]
pub(crate) struct Report {
    file: String,
    problems: Vec<Problem>,
}

impl Report {
    pub(crate) fn of(file: &str) -> Report {
        Report { file: file.to_owned(), problems: Vec::new() }
    }

    /// Notes one problem; beyond [`PROBLEMS_MAX`] they are no longer told.
    pub(crate) fn add(
        &mut self,
        at: Place,
        code: Code,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem::at(&self.file, at, code, message.into(), help.into()));
        }
    }

    /// All problems in the order of the file.
    pub(crate) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.place);
        self.problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_a_whole_file_names_no_line() {
        let problem = Problem::of_file("x.redb", Code::Damaged, "torn".into(), "mend".into());
        assert_eq!(problem.to_string(), "x.redb: error[damaged]: torn\n  help: mend");
        let json = serde_json::to_string(&problem).unwrap_or_default();
        assert!(json.starts_with(r#"{"file":"x.redb","line":null,"column":null,"level":"error""#));
    }
}
