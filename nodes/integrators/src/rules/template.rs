//! Templates of rules: `{name}`, `{a|b|'literal'}`, `{name:table}`, `{{` for a brace.

use std::borrow::Cow;

/// One part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// The first alternative that is there.
    FirstOf(Vec<Choice>),
}

/// One alternative between braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Literal(String),
    Name { name: String, table: Option<String> },
}

/// A template that was read; what it names is checked when rules are put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    written: String,
    parts: Vec<Part>,
}

/// Where a template finds the values of names and the entries of tables.
pub(crate) trait Lookup {
    fn value(&self, name: &str) -> Option<Cow<'_, str>>;
    fn entry(&self, table: &str, key: &str) -> Option<&str>;
}

impl Template {
    /// Reads a template; the error says what is wrong with it.
    pub(crate) fn parse(written: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = written;
        while let Some(open) = rest.find('{') {
            literal.push_str(&rest[..open]);
            let after = &rest[open + 1..];
            if let Some(after) = after.strip_prefix('{') {
                literal.push('{');
                rest = after;
                continue;
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            let (choices, after) = parse_choices(after)?;
            parts.push(Part::FirstOf(choices));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { written: written.to_owned(), parts })
    }

    /// A template of our own; one that cannot be read stands for itself.
    pub(crate) fn known(written: &str) -> Self {
        Self::parse(written).unwrap_or_else(|_| Self {
            written: written.to_owned(),
            parts: vec![Part::Literal(written.to_owned())],
        })
    }

    /// As it stands in the file.
    pub(crate) fn written(&self) -> &str {
        &self.written
    }

    /// The text, when it names nothing.
    pub(crate) fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The last word of a template that is one placeholder ending in a literal.
    pub(crate) fn fallback(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::FirstOf(choices)] => match choices.last() {
                Some(Choice::Literal(text)) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// All alternatives that are written in it.
    pub(crate) fn choices(&self) -> impl Iterator<Item = &Choice> {
        self.parts.iter().flat_map(|part| match part {
            Part::Literal(_) => [].iter(),
            Part::FirstOf(choices) => choices.iter(),
        })
    }

    /// Fills the template; what is absent is left empty, and its name goes to `gaps`.
    pub(crate) fn fill(&self, lookup: &impl Lookup, gaps: &mut Vec<String>) -> String {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => filled.push_str(text),
                Part::FirstOf(choices) => {
                    if !choices.iter().any(|choice| choice.fill(lookup, &mut filled)) {
                        gaps.push(choices.first().map_or_else(String::new, Choice::shown));
                    }
                }
            }
        }
        filled
    }
}

impl Choice {
    fn fill(&self, lookup: &impl Lookup, into: &mut String) -> bool {
        match self {
            Self::Literal(text) => into.push_str(text),
            Self::Name { name, table } => match (lookup.value(name), table) {
                (Some(value), None) => into.push_str(&value),
                (Some(value), Some(table)) => match lookup.entry(table, &value) {
                    Some(entry) => into.push_str(entry),
                    None => return false,
                },
                (None, _) => return false,
            },
        }
        true
    }

    fn shown(&self) -> String {
        match self {
            Self::Literal(text) => format!("'{text}'"),
            Self::Name { name, table: None } => name.clone(),
            Self::Name { name, table: Some(table) } => format!("{name}:{table}"),
        }
    }
}

/// Reads what stands between braces up to and with the closing one.
fn parse_choices(text: &str) -> Result<(Vec<Choice>, &str), String> {
    let mut choices = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if let Some(quoted) = rest.strip_prefix('\'') {
            let end = quoted.find('\'').ok_or("a literal has no closing quote")?;
            choices.push(Choice::Literal(quoted[..end].to_owned()));
            rest = quoted[end + 1..].trim_start();
        } else {
            let end = rest.find(['|', '}', '{', '\'']).ok_or("a brace is not closed")?;
            choices.push(parse_name(rest[..end].trim())?);
            rest = &rest[end..];
        }
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((choices, after));
        }
        rest = rest.strip_prefix('|').ok_or("a brace is not closed")?;
    }
}

fn parse_name(text: &str) -> Result<Choice, String> {
    let (name, table) = match text.split_once(':') {
        Some((name, table)) => (name.trim(), Some(table.trim().to_owned())),
        None => (text, None),
    };
    if name.is_empty() || table.as_deref() == Some("") {
        return Err("a brace names nothing".to_owned());
    }
    Ok(Choice::Name { name: name.to_owned(), table })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Case;

    impl Lookup for Case {
        fn value(&self, name: &str) -> Option<Cow<'_, str>> {
            match name {
                "a" => Some(Cow::Borrowed("1")),
                "empty" => Some(Cow::Borrowed("")),
                _ => None,
            }
        }

        fn entry(&self, table: &str, key: &str) -> Option<&str> {
            (table == "t" && key == "1").then_some("one")
        }
    }

    #[test]
    fn template_is_filled_with_the_first_alternative_that_is_there() {
        let cases = [
            ("plain", "plain", 0),
            ("{a}", "1", 0),
            ("x{a}y", "x1y", 0),
            ("{b|a}", "1", 0),
            ("{b|'none'}", "none", 0),
            ("{b| ' {|} ' }!", " {|} !", 0),
            ("{a:t}", "one", 0),
            ("{a:u|a}", "1", 0),
            ("{a:u|'?'}", "?", 0),
            ("{{a}", "{a}", 0),
            ("{b}", "", 1),
            ("{b}-{a:u}", "-", 2),
            ("{empty|a}", "", 0),
            ("", "", 0),
        ];
        for (written, expected, gaps_expected) in cases {
            let mut gaps = Vec::new();
            let filled = Template::parse(written).unwrap().fill(&Case, &mut gaps);
            assert_eq!((filled.as_str(), gaps.len()), (expected, gaps_expected), "{written}");
        }
    }

    #[test]
    fn template_with_a_slip_is_refused() {
        for written in ["{", "{a", "{}", "{a|", "{'a}", "{a:}", "{:t}", "{a'b'}", "{a{b}}"] {
            assert!(Template::parse(written).is_err(), "{written}");
        }
    }
}
