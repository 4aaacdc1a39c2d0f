//! One rules file as it is written: every field read by type, nothing looked up yet.

use std::ops::Range;

use protocol::Precedence;
use protocol::message::Persistence;
use protocol::service::Severity;
use regex::Regex;
use toml::Spanned;
use toml::de::DeTable;

use super::matcher::{Matcher, read_oid};
use super::problem::{Code, Problem, Source};
use super::reader::{Reader, Value, whole};
use super::template::Template;
use super::{Becomes, Kind, TestInput};

/// Rules in one file: far more than anybody writes by hand, few enough to compare in pairs.
const RULES_PER_FILE_MAX: usize = 4096;

/// A file that was read.
#[derive(Default)]
pub(crate) struct RuleFile {
    pub(crate) names: Vec<(Spanned<String>, String)>,
    /// Table, key, value.
    pub(crate) tables: Vec<(String, String, String)>,
    pub(crate) rules: Vec<RawRule>,
    /// Ids of rules that were left out because something is wrong with them.
    pub(crate) broken: Vec<String>,
    pub(crate) tests: Vec<RawTest>,
}

/// A rule as written.
pub(crate) struct RawRule {
    /// Of its `[[rule]]`.
    pub(crate) at: Range<usize>,
    pub(crate) id: Spanned<String>,
    pub(crate) off: bool,
    pub(crate) matcher: Matcher,
    pub(crate) wheres: Vec<(Spanned<String>, Regex)>,
    pub(crate) becomes: Becomes,
    pub(crate) clears: Vec<Spanned<String>>,
    pub(crate) templates: Templates,
    pub(crate) precedence: Option<Precedence>,
    pub(crate) persistence: Option<Persistence>,
    pub(crate) ttl_s: Option<u32>,
    pub(crate) close_after_s: Option<u32>,
}

/// The templates of a rule; absent ones take the default.
#[derive(Default)]
pub(crate) struct Templates {
    pub(crate) type_: Option<Spanned<Template>>,
    pub(crate) key: Option<Spanned<Template>>,
    pub(crate) severity: Option<Spanned<Template>>,
    pub(crate) text: Option<Spanned<Template>>,
    pub(crate) event_id: Option<Spanned<Template>>,
    pub(crate) class: Option<Spanned<Template>>,
    pub(crate) subclass: Option<Spanned<Template>>,
    pub(crate) instance: Option<Spanned<Template>>,
}

/// A `[[test]]` as written.
pub(crate) struct RawTest {
    pub(crate) at: Range<usize>,
    pub(crate) input: TestInput,
    /// Field and expected value, in the order of the file's keys.
    pub(crate) gives: Vec<(&'static str, String)>,
}

const RULE_FIELDS: [&str; 18] = [
    "id",
    "match",
    "where",
    "becomes",
    "clears",
    "type",
    "key",
    "severity",
    "text",
    "event_id",
    "class",
    "subclass",
    "instance",
    "precedence",
    "persistence",
    "ttl_s",
    "close_after_s",
    "off",
];

/// What `gives` may name; each is compared as text.
pub(crate) const GIVES_FIELDS: [&str; 14] = [
    "rule",
    "becomes",
    "instance",
    "type",
    "key",
    "severity",
    "text",
    "event_id",
    "class",
    "subclass",
    "precedence",
    "persistence",
    "ttl_s",
    "close_after_s",
];

/// Reads the text of one file of rules for `kind`; all its mistakes come with it.
pub(crate) fn read(kind: Kind, source: &Source) -> (RuleFile, Vec<Problem>) {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    if !errors.is_empty() {
        let told = errors.iter().map(|error| {
            let duplicate = error.message().contains("duplicate key");
            let code = if duplicate { Code::Duplicate } else { Code::BadValue };
            source.problem(code, &error.span().unwrap_or(0..0), error.message(), None)
        });
        return (RuleFile::default(), told.collect());
    }
    let mut reader = Reader { source, problems: Vec::new() };
    let file = read_document(kind, document.get_ref(), &mut reader);
    (file, reader.problems)
}

fn read_document(kind: Kind, document: &DeTable<'_>, reader: &mut Reader<'_>) -> RuleFile {
    let mut file = RuleFile::default();
    check_head(kind, document, reader);
    let known: &[&str] = match kind {
        Kind::Snmp => &["format", "kind", "names", "tables", "rule", "test"],
        Kind::Syslog => &["format", "kind", "tables", "rule", "test"],
    };
    for (key, value) in document {
        match key.get_ref().as_ref() {
            "format" | "kind" => {}
            "names" if kind == Kind::Snmp => read_names(value, &mut file, reader),
            "tables" => read_tables(value, &mut file, reader),
            "rule" => read_rules(kind, value, &mut file, reader),
            "test" => read_tests(kind, value, &mut file, reader),
            _ => reader.unknown(key, known),
        }
    }
    file
}

fn check_head(kind: Kind, document: &DeTable<'_>, reader: &mut Reader<'_>) {
    match document.get("format") {
        None => reader.bad(&(0..0), "format is missing", "begin the file with: format = 1"),
        Some(format) if whole(format) != Some(1) => {
            reader.bad(&format.span(), "format is not 1", "this program reads format = 1 only");
        }
        Some(_) => {}
    }
    let help = format!("write: kind = \"{}\"", kind.name());
    match document.get("kind") {
        None => reader.bad(&(0..0), "kind is missing", &help),
        Some(written) if written.get_ref().as_str() != Some(kind.name()) => {
            let message = format!("these are not rules for {}", kind.name());
            reader.bad(&written.span(), message, &help);
        }
        Some(_) => {}
    }
}

fn read_names(value: &Value<'_>, file: &mut RuleFile, reader: &mut Reader<'_>) {
    for (key, value) in reader.table(value, "names").into_iter().flatten() {
        let name = key.get_ref().to_string();
        if Kind::Snmp.own_names().contains(&name.as_str()) || name.ends_with(".index") {
            let message = format!("{name} is a name of its own already");
            reader.bad(&key.span(), message, "take another name");
        }
        let Some(text) = reader.string(value, &format!("names.{name}")) else { continue };
        match read_oid(text.get_ref()) {
            Some(oid) => file.names.push((Spanned::new(key.span(), name), oid)),
            None => {
                let message = format!("names.{name} is {:?}, not an OID", text.get_ref());
                reader.bad(&text.span(), message, "write it in numbers, as 1.3.6.1.2.1.2.2.1.2");
            }
        }
    }
}

fn read_tables(value: &Value<'_>, file: &mut RuleFile, reader: &mut Reader<'_>) {
    for (table_key, value) in reader.table(value, "tables").into_iter().flatten() {
        let table = table_key.get_ref().to_string();
        let field = format!("tables.{table}");
        for (key, value) in reader.table(value, &field).into_iter().flatten() {
            let entry = key.get_ref().to_string();
            if let Some(word) = reader.word(value, &format!("{field}.{entry}")) {
                file.tables.push((table.clone(), entry, word.into_inner()));
            }
        }
    }
}

fn read_rules(kind: Kind, value: &Value<'_>, file: &mut RuleFile, reader: &mut Reader<'_>) {
    let Some(items) = value.get_ref().as_array() else {
        return reader.bad(&value.span(), "rule is not a list", "begin each rule with [[rule]]");
    };
    if items.len() > RULES_PER_FILE_MAX {
        let message = format!("{} rules in one file", items.len());
        reader.bad(&value.span(), message, &format!("at most {RULES_PER_FILE_MAX}"));
        return;
    }
    for item in items.iter() {
        let Some(table) = reader.table(item, "rule") else { continue };
        let problems_before = reader.problems.len();
        let rule = read_rule(kind, item.span(), table, reader);
        match rule.filter(|_| reader.problems.len() == problems_before) {
            Some(rule) => file.rules.push(rule),
            None => file
                .broken
                .extend(table.get("id").and_then(|id| id.get_ref().as_str().map(str::to_owned))),
        }
    }
}

fn read_rule(
    kind: Kind,
    at: Range<usize>,
    table: &DeTable<'_>,
    reader: &mut Reader<'_>,
) -> Option<RawRule> {
    let off = table.get("off").and_then(|value| reader.boolean(value, "off")).unwrap_or(false);
    let mut rule = RawRule {
        at: at.clone(),
        id: Spanned::new(at.clone(), String::new()),
        off,
        matcher: Matcher::default(),
        wheres: Vec::new(),
        becomes: Becomes::Ignore,
        clears: Vec::new(),
        templates: Templates::default(),
        precedence: None,
        persistence: None,
        ttl_s: None,
        close_after_s: None,
    };
    for (key, value) in table {
        if RULE_FIELDS.contains(&key.get_ref().as_ref()) {
            read_rule_field(kind, key.get_ref(), value, &mut rule, reader);
        } else {
            reader.unknown(key, &RULE_FIELDS);
        }
    }
    if !table.contains_key("id") {
        reader.bad(&at, "a rule has no id", "give it one: id = \"area/what\"");
        return None;
    }
    if !off {
        check_whole(table, &rule, reader);
    }
    Some(rule)
}

/// What can only be said of a rule as a whole.
fn check_whole(table: &DeTable<'_>, rule: &RawRule, reader: &mut Reader<'_>) {
    let id = rule.id.get_ref();
    if !table.contains_key("becomes") {
        let help = "becomes is one of: alarm clear event data ignore";
        reader.bad(&rule.at, format!("rule {id} has no becomes"), help);
        return;
    }
    if rule.becomes == Becomes::Clear && !table.contains_key("clears") {
        let help = "name the rules whose alarms it closes: clears = [\"area/what\"]";
        reader.bad(&rule.at, format!("rule {id} clears nothing"), help);
    }
    if let Some(severity) = &rule.templates.severity {
        let template = severity.get_ref();
        let literal = template.literal().or_else(|| template.fallback());
        if let Some(Err(why)) = literal.map(str::parse::<Severity>) {
            let (message, help) = why.split_once("; ").unwrap_or((why.as_str(), ""));
            reader.bad(&severity.span(), format!("severity {message}"), help);
        }
    }
}

fn read_rule_field(
    kind: Kind,
    field: &str,
    value: &Value<'_>,
    rule: &mut RawRule,
    reader: &mut Reader<'_>,
) {
    let templates = &mut rule.templates;
    match field {
        "id" => rule.id = read_id(value, reader).unwrap_or_else(|| rule.id.clone()),
        "match" => rule.matcher = Matcher::read(kind, value, reader).unwrap_or_default(),
        "where" => rule.wheres = read_wheres(value, reader),
        "becomes" => {
            rule.becomes = reader.one_of(value, field).unwrap_or(Becomes::Ignore);
        }
        "clears" => rule.clears = read_clears(value, reader),
        "type" => templates.type_ = reader.template(value, field),
        "key" => templates.key = reader.template(value, field),
        "severity" => templates.severity = reader.template(value, field),
        "text" => templates.text = reader.template(value, field),
        "event_id" => templates.event_id = reader.template(value, field),
        "class" => templates.class = reader.template(value, field),
        "subclass" => templates.subclass = reader.template(value, field),
        "instance" => templates.instance = reader.template(value, field),
        "precedence" => rule.precedence = reader.one_of(value, field),
        "persistence" => rule.persistence = reader.one_of(value, field),
        "ttl_s" => rule.ttl_s = reader.seconds(value, field),
        "close_after_s" => rule.close_after_s = reader.seconds(value, field),
        _ => {}
    }
}

fn read_id(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Spanned<String>> {
    let id = reader.string(value, "id")?;
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/-_.".contains(&b);
    if id.get_ref().is_empty() || !id.get_ref().bytes().all(fine) {
        let help = "lower-case letters, digits and / - _ .";
        reader.bad(&id.span(), format!("id is {:?}", id.get_ref()), help);
        return None;
    }
    Some(id)
}

fn read_clears(value: &Value<'_>, reader: &mut Reader<'_>) -> Vec<Spanned<String>> {
    match value.get_ref().as_array() {
        Some(items) => items.iter().filter_map(|item| reader.string(item, "clears")).collect(),
        None => reader.string(value, "clears").into_iter().collect(),
    }
}

fn read_wheres(value: &Value<'_>, reader: &mut Reader<'_>) -> Vec<(Spanned<String>, Regex)> {
    let mut wheres = Vec::new();
    for (key, value) in reader.table(value, "where").into_iter().flatten() {
        let name = Spanned::new(key.span(), key.get_ref().to_string());
        let field = format!("where.{}", name.get_ref());
        let Some(text) = reader.word(value, &field) else { continue };
        wheres.extend(reader.regex(&text, &field).map(|regex| (name, regex)));
    }
    wheres
}

fn read_tests(kind: Kind, value: &Value<'_>, file: &mut RuleFile, reader: &mut Reader<'_>) {
    let Some(items) = value.get_ref().as_array() else {
        return reader.bad(&value.span(), "test is not a list", "begin each test with [[test]]");
    };
    for item in items.iter() {
        let Some(table) = reader.table(item, "test") else { continue };
        let problems_before = reader.problems.len();
        let test = read_test(kind, item.span(), table, reader);
        file.tests.extend(test.filter(|_| reader.problems.len() == problems_before));
    }
}

fn read_test(
    kind: Kind,
    at: Range<usize>,
    table: &DeTable<'_>,
    reader: &mut Reader<'_>,
) -> Option<RawTest> {
    let known: &[&str] = match kind {
        Kind::Snmp => &["trap", "vars", "agent", "version", "gives"],
        Kind::Syslog => &["line", "source", "gives"],
    };
    let (mut subject, mut vars, mut agent, mut version) = (None, Vec::new(), None, None);
    let mut gives = Vec::new();
    for (key, value) in table {
        let field = key.get_ref().as_ref();
        if !known.contains(&field) {
            reader.unknown(key, known);
            continue;
        }
        match field {
            "trap" | "line" => subject = reader.string(value, field),
            "vars" => vars = read_vars(value, reader),
            "agent" | "source" => agent = reader.string(value, field),
            "version" => version = reader.word(value, field).map(Spanned::into_inner),
            _ => gives = read_gives(value, reader),
        }
    }
    let what = if kind == Kind::Snmp { "trap" } else { "line" };
    if subject.is_none() && !table.contains_key(what) {
        reader.bad(&at, format!("a test has no {what}"), "a test is an input and what it gives");
    }
    let source = match agent.map(|text| (text.span(), text.get_ref().parse())) {
        Some((span, Err(_))) => {
            reader.bad(&span, "not an address", "as 192.0.2.7 or 2001:db8::7");
            None
        }
        Some((_, Ok(address))) => Some(address),
        None => None,
    };
    let input = match kind {
        Kind::Snmp => TestInput::Trap { trap: subject?.into_inner(), vars, agent: source, version },
        Kind::Syslog => TestInput::line(subject?.into_inner(), source),
    };
    Some(RawTest { at, input, gives })
}

fn read_vars(value: &Value<'_>, reader: &mut Reader<'_>) -> Vec<[String; 3]> {
    let help = "vars = [[\"OID\", \"TYPE\", \"VALUE\"], …], types as snmptrap takes them";
    let Some(items) = value.get_ref().as_array() else {
        reader.bad(&value.span(), "vars is not a list", help);
        return Vec::new();
    };
    let mut vars = Vec::new();
    for item in items.iter() {
        let words = reader.words(item, "vars").unwrap_or_default();
        match <[Spanned<String>; 3]>::try_from(words) {
            Ok(words) => vars.push(words.map(Spanned::into_inner)),
            Err(_) => reader.bad(&item.span(), "a variable is not [OID, TYPE, VALUE]", help),
        }
    }
    vars
}

fn read_gives(value: &Value<'_>, reader: &mut Reader<'_>) -> Vec<(&'static str, String)> {
    let mut gives = Vec::new();
    for (key, value) in reader.table(value, "gives").into_iter().flatten() {
        match GIVES_FIELDS.iter().find(|field| **field == key.get_ref().as_ref()) {
            Some(field) => gives
                .extend(reader.word(value, field).map(|expected| (*field, expected.into_inner()))),
            None => reader.unknown(key, &GIVES_FIELDS),
        }
    }
    // The rule first: when another one fired, the rest follows from that.
    gives.sort_by_key(|(field, _)| GIVES_FIELDS.iter().position(|known| known == field));
    gives
}
