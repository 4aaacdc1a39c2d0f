//! Rules in force: which one decides of a message, and what it makes of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use protocol::message::Persistence;
use protocol::service::Severity;
use protocol::{Precedence, limits};
use regex::{Captures, Regex};

use super::matcher::Matcher;
use super::problem::Place;
use super::template::{Lookup, Template};
use super::{Becomes, Facts, Kind, TestInput};

/// A rule in force, checked and with its defaults.
#[derive(Debug)]
pub struct Rule {
    /// Unique among the rules in force.
    pub id: String,
    /// Of its `[[rule]]`.
    pub place: Place,
    /// Whether it came with the program.
    pub shipped: bool,
    /// What it makes of a message.
    pub becomes: Becomes,
    pub(crate) matcher: Matcher,
    pub(crate) wheres: Vec<(String, Regex)>,
    /// Ids of alarm rules in force whose alarms it closes.
    pub clears: Vec<String>,
    pub(crate) type_: Template,
    pub(crate) key: Template,
    pub(crate) severity: Template,
    pub(crate) text: Template,
    pub(crate) event_id: Option<Template>,
    pub(crate) class: Template,
    pub(crate) subclass: Template,
    pub(crate) instance: Template,
    pub(crate) precedence: Option<Precedence>,
    pub(crate) persistence: Persistence,
    pub(crate) ttl_s: Option<u32>,
    pub(crate) close_after_s: Option<u32>,
}

/// A `[[test]]` of a file in force.
#[derive(Debug)]
pub(crate) struct Test {
    pub(crate) place: Place,
    pub(crate) shipped: bool,
    pub(crate) input: TestInput,
    pub(crate) gives: Vec<(&'static str, String)>,
}

/// All rules of one integrator, in the order in which they are asked.
#[derive(Debug)]
pub struct Rules {
    pub(crate) kind: Kind,
    pub(crate) rules: Vec<Rule>,
    /// Position of each id in `rules`.
    pub(crate) by_id: HashMap<String, usize>,
    pub(crate) names: BTreeMap<String, String>,
    pub(crate) tables: HashMap<String, HashMap<String, String>>,
    pub(crate) tests: Vec<Test>,
}

/// What becomes of one message. Fields that its kind (`becomes`) does not have are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement<'r> {
    /// The id of the rule that decided.
    pub rule: &'r str,
    /// Where that rule stands.
    pub place: &'r Place,
    /// What the message becomes.
    pub becomes: Becomes,
    /// Never empty unless the message does not even tell its sender.
    pub instance: String,
    /// Of an alarm or event; of a clear, the type of the first alarm that it closes.
    pub type_: String,
    /// Of an alarm, and of the alarms in `closes`.
    pub key: String,
    /// Of an alarm, clear or event.
    pub severity: Severity,
    /// One line of at most [`limits::TEXT_BYTES_MAX`] bytes.
    pub text: String,
    /// `None`: an event of its own.
    pub event_id: Option<String>,
    /// Of data.
    pub class: String,
    /// Of data.
    pub subclass: String,
    /// Which queue it takes.
    pub precedence: Precedence,
    /// Whether a full queue may evict it.
    pub persistence: Persistence,
    /// Seconds.
    pub ttl_s: Option<u32>,
    /// Seconds; of alarms only.
    pub close_after_s: Option<u32>,
    /// Types of the alarms to close, with the same instance and key, before anything is opened.
    pub closes: Vec<String>,
    /// What templates named and the message did not have, each once.
    pub gaps: Vec<String>,
}

impl Rules {
    /// The rules in the order in which they are asked.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The integrator they are for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the first rule that matches makes of a message; `None` when none does.
    pub fn judge(&self, facts: &dyn Facts) -> Option<Judgement<'_>> {
        self.rules.iter().find_map(|rule| self.judge_by(rule, facts))
    }

    fn judge_by<'r>(&'r self, rule: &'r Rule, facts: &dyn Facts) -> Option<Judgement<'r>> {
        let regex = rule.matcher.matches(facts)?;
        let text = regex.and_then(|_| facts.value("text"));
        let captures = regex.zip(text.as_ref()).and_then(|(regex, text)| regex.captures(text));
        let values = Values { rules: self, facts, captures };
        let holds = |(name, regex): &(String, Regex)| {
            values.value(name).is_some_and(|value| regex.is_match(&value))
        };
        rule.wheres.iter().all(holds).then(|| self.fill(rule, &values))
    }

    fn fill<'r>(&'r self, rule: &'r Rule, values: &Values<'_>) -> Judgement<'r> {
        let mut gaps = Vec::new();
        let mut fill = |template: &Template| template.fill(values, &mut gaps);
        let mut judged = Judgement::of(rule);
        if rule.becomes == Becomes::Ignore {
            return judged;
        }
        judged.instance = name_of(fill(&rule.instance));
        if judged.instance.is_empty() {
            judged.instance = values.value("source").map_or_else(String::new, Cow::into_owned);
        }
        let cleared = rule.clears.iter().filter_map(|id| self.by_id.get(id));
        let cleared = cleared.filter_map(|at| self.rules.get(*at));
        judged.closes = cleared.map(|alarm| self.type_of(fill(&alarm.type_))).collect();
        if rule.becomes == Becomes::Data {
            judged.class = self.type_of(fill(&rule.class));
            judged.subclass = self.type_of(fill(&rule.subclass));
        } else {
            judged.type_ = match judged.closes.first() {
                Some(first) if rule.becomes == Becomes::Clear => first.clone(),
                _ => self.type_of(fill(&rule.type_)),
            };
            judged.text = text_of(&fill(&rule.text));
            let severity = fill(&rule.severity).parse();
            judged.severity = severity.unwrap_or(Severity::Warning);
            judged.event_id = rule.event_id.as_ref().map(|id| name_of(fill(id)));
        }
        if rule.becomes != Becomes::Data || !judged.closes.is_empty() {
            judged.key = name_of(fill(&rule.key));
        }
        let grave = rule.becomes != Becomes::Data && judged.severity >= Severity::Critical;
        let usual = if grave { Precedence::Urgent } else { Precedence::Normal };
        judged.precedence = rule.precedence.unwrap_or(usual);
        judged.event_id = judged.event_id.filter(|id| !id.is_empty());
        gaps.sort_unstable();
        gaps.dedup();
        judged.gaps = gaps;
        judged
    }

    /// A type, class or subclass may not be empty: the kind stands in.
    fn type_of(&self, filled: String) -> String {
        if filled.is_empty() { self.kind.name().to_owned() } else { name_of(filled) }
    }

    /// Whether a template or `where` of a rule with `matcher` may use `name`.
    pub(crate) fn resolves(&self, name: &str, matcher: &Matcher) -> bool {
        let plain = name.strip_suffix(".index").unwrap_or(name);
        self.kind.own_names().contains(&name)
            || self.names.contains_key(plain)
            || matcher.groups().any(|group| group == name)
            || self.kind == Kind::Syslog
                && name.strip_prefix("sd.").is_some_and(|n| n.contains('.'))
    }
}

impl<'r> Judgement<'r> {
    fn of(rule: &'r Rule) -> Self {
        Self {
            rule: &rule.id,
            place: &rule.place,
            becomes: rule.becomes,
            instance: String::new(),
            type_: String::new(),
            key: String::new(),
            severity: Severity::Warning,
            text: String::new(),
            event_id: None,
            class: String::new(),
            subclass: String::new(),
            precedence: Precedence::Normal,
            persistence: rule.persistence,
            ttl_s: rule.ttl_s,
            close_after_s: rule.close_after_s.filter(|_| rule.becomes == Becomes::Alarm),
            closes: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// The value of a field by its name in `gives`, as text; `None`: it has none.
    pub fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        let value = match name {
            "rule" => self.rule,
            "becomes" => self.becomes.word(),
            "instance" => &self.instance,
            "type" => &self.type_,
            "key" => &self.key,
            "severity" => self.severity.word(),
            "text" => &self.text,
            "event_id" => self.event_id.as_deref()?,
            "class" => &self.class,
            "subclass" => &self.subclass,
            "precedence" => self.precedence.word(),
            "persistence" => self.persistence.word(),
            "ttl_s" => return self.ttl_s.map(|s| s.to_string().into()),
            "close_after_s" => return self.close_after_s.map(|s| s.to_string().into()),
            _ => return None,
        };
        Some(Cow::Borrowed(value))
    }
}

/// The values a rule sees: groups of its regular expression, the message's own, `[names]`.
struct Values<'a> {
    rules: &'a Rules,
    facts: &'a dyn Facts,
    captures: Option<Captures<'a>>,
}

impl Lookup for Values<'_> {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        let group = self.captures.as_ref().and_then(|captures| captures.name(name));
        if let Some(group) = group {
            return Some(Cow::Borrowed(group.as_str()));
        }
        if let Some(value) = self.facts.value(name) {
            return Some(value);
        }
        if let Some(oid) = self.rules.names.get(name) {
            return self.facts.below(oid).map(|(value, _)| value);
        }
        let oid = self.rules.names.get(name.strip_suffix(".index")?)?;
        self.facts.below(oid).map(|(_, index)| index)
    }

    fn entry(&self, table: &str, key: &str) -> Option<&str> {
        self.rules.tables.get(table)?.get(key).map(String::as_str)
    }
}

/// One line of at most [`limits::TEXT_BYTES_MAX`] bytes, cut between characters.
fn text_of(filled: &str) -> String {
    let ended = filled.trim_end_matches(char::is_control);
    let line: String = ended.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line[..line.floor_char_boundary(limits::TEXT_BYTES_MAX)].to_owned()
}

/// A name, type, key or id of at most [`limits::NAME_BYTES_MAX`] bytes. What is longer is cut and
/// ends in a digest of the whole, so that two long keys stay two alarms.
fn name_of(filled: String) -> String {
    let clean = if filled.contains(char::is_control) {
        filled.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    } else {
        filled
    };
    if clean.len() <= limits::NAME_BYTES_MAX {
        return clean;
    }
    let digest = format!("~{:016x}", fnv1a(clean.as_bytes()));
    let cut = clean.floor_char_boundary(limits::NAME_BYTES_MAX - digest.len());
    format!("{}{digest}", &clean[..cut])
}

/// FNV-1a, 64 bits: the same in every build, which a key must be.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_one_line_cut_between_characters() {
        assert_eq!(text_of("a\nb\u{7}c\r\n"), "a b c");
        let long = text_of(&"é".repeat(2000));
        assert_eq!(long.len(), limits::TEXT_BYTES_MAX);
        let odd = text_of(&format!("x{}", "é".repeat(2000)));
        assert_eq!(odd.len(), limits::TEXT_BYTES_MAX - 1);
    }

    #[test]
    fn two_long_keys_that_differ_at_the_end_stay_two() {
        let (a, b) = (name_of("é".repeat(300) + "a"), name_of("é".repeat(300) + "b"));
        assert!(a.len() <= limits::NAME_BYTES_MAX && b.len() <= limits::NAME_BYTES_MAX);
        assert_ne!(a, b);
        assert_eq!(name_of("short".to_owned()), "short");
    }
}
