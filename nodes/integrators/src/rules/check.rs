//! What people ask of rules: do they pass their tests, which one fires, which are in force.

use serde_json::json;

use super::engine::{Judgement, Rule, Rules, Test};
use super::load::Loaded;
use super::problem::{Code, Problem};
use super::{Becomes, Facts, FactsOf};

/// What `--check-rules` found.
#[derive(Debug)]
pub struct Checked {
    /// Rules in force.
    pub rules: usize,
    /// Tests that were run.
    pub tests: usize,
    /// Tests that came out otherwise.
    pub failed: usize,
    /// Every mistake, tests among them, in the order of the files.
    pub problems: Vec<Problem>,
    /// Shipped tests that the site's own rules now decide: no mistakes, but worth knowing.
    pub notes: Vec<String>,
}

impl Checked {
    /// For people: problems, then one line that sums up.
    pub fn to_text(&self) -> String {
        let mut text: String = self.problems.iter().map(|problem| format!("{problem}\n")).collect();
        let (rules, tests, failed) = (self.rules, self.tests, self.failed);
        text.push_str(&format!("{rules} rules, {tests} tests, {failed} failed\n"));
        text
    }

    /// One JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        json!({
            "rules": self.rules,
            "tests": self.tests,
            "failed": self.failed,
            "problems": self.problems,
            "notes": self.notes,
        })
    }
}

/// Runs the tests of all files on the rules in force. `facts_of` makes facts of a test's input.
pub fn check(loaded: &Loaded, facts_of: FactsOf) -> Checked {
    let rules = &loaded.rules;
    let mut checked = Checked {
        rules: rules.rules.len(),
        tests: 0,
        failed: 0,
        problems: loaded.problems.clone(),
        notes: Vec::new(),
    };
    for test in &rules.tests {
        let expected = test.gives.iter().find(|(field, _)| *field == "rule").map(|(_, id)| id);
        if expected.is_some_and(|id| loaded.broken.contains(id)) {
            continue; // The mistake in that rule is told already.
        }
        checked.tests += 1;
        match run(rules, test, facts_of) {
            Ok(()) => {}
            Err(problem) if test.shipped && overruled(rules, test, facts_of) => {
                checked.notes.push(format!("{}: your rules now decide this", problem.place));
            }
            Err(problem) => {
                checked.failed += 1;
                checked.problems.push(problem);
            }
        }
    }
    checked
}

/// Whether a shipped test comes out otherwise because the site's own rules say so.
fn overruled(rules: &Rules, test: &Test, facts_of: FactsOf) -> bool {
    Rules::shipped(rules.kind).is_ok_and(|shipped| run(&shipped, test, facts_of).is_ok())
}

fn run(rules: &Rules, test: &Test, facts_of: FactsOf) -> Result<(), Problem> {
    let failed = |message: String, help: Option<String>| Problem {
        code: Code::Test,
        place: test.place.clone(),
        message,
        help,
    };
    let facts = match facts_of(&test.input) {
        Ok(facts) => facts,
        Err(why) => return Err(failed(format!("the input cannot be read: {why}"), None)),
    };
    let Some(judgement) = rules.judge(facts.as_ref()) else {
        return Err(failed("no rule fired".to_owned(), None));
    };
    let mut wrong = Vec::new();
    for (field, expected) in &test.gives {
        let is = judgement.field(field);
        if is.as_deref().unwrap_or_default() != expected {
            let is = is.map_or_else(|| "absent".to_owned(), |is| format!("{is:?}"));
            wrong.push(format!("{field} is {is}, expected {expected:?}"));
            if *field == "rule" {
                break; // The rest follows from that.
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let mut help = format!("rule {} ({}) fired", judgement.rule, judgement.place);
    if !judgement.gaps.is_empty() {
        let verb = if judgement.gaps.len() == 1 { "was" } else { "were" };
        help.push_str(&format!("; {} {verb} empty", judgement.gaps.join(", ")));
    }
    Err(failed(wrong.join("; "), Some(help)))
}

/// What `--try` says of one input: for people, and as JSON; `None` when no rule fires.
pub fn try_input(rules: &Rules, facts: &dyn Facts) -> Option<(String, serde_json::Value)> {
    let judged = rules.judge(facts)?;
    Some((line_of(&judged), json_of(&judged)))
}

fn line_of(judged: &Judgement<'_>) -> String {
    let severity = judged.severity.word();
    let mut columns = vec![judged.rule, judged.becomes.word()];
    match judged.becomes {
        Becomes::Alarm | Becomes::Clear => {
            columns.extend([&judged.instance, &judged.type_, &judged.key, severity, &judged.text]);
        }
        Becomes::Event => {
            let id = judged.event_id.as_deref().unwrap_or_default();
            columns.extend([&judged.instance, &judged.type_, id, severity, &judged.text]);
        }
        Becomes::Data => {
            columns.extend([&judged.instance, &judged.class, &judged.subclass].map(String::as_str))
        }
        Becomes::Ignore => {}
    }
    let shown: Vec<_> = columns.into_iter().map(|c| if c.is_empty() { "-" } else { c }).collect();
    shown.join("  ")
}

/// All fields; those that its kind does not have are `null`.
fn json_of(judged: &Judgement<'_>) -> serde_json::Value {
    let becomes = judged.becomes;
    let says = matches!(becomes, Becomes::Alarm | Becomes::Clear | Becomes::Event);
    let keyed = matches!(becomes, Becomes::Alarm | Becomes::Clear);
    let sent = becomes != Becomes::Ignore;
    json!({
        "rule": judged.rule,
        "file": judged.place.file,
        "line": judged.place.line,
        "becomes": becomes.word(),
        "instance": sent.then_some(&judged.instance),
        "type": says.then_some(&judged.type_),
        "key": keyed.then_some(&judged.key),
        "severity": says.then(|| judged.severity.word()),
        "text": says.then_some(&judged.text),
        "event_id": judged.event_id,
        "class": (becomes == Becomes::Data).then_some(&judged.class),
        "subclass": (becomes == Becomes::Data).then_some(&judged.subclass),
        "precedence": sent.then(|| judged.precedence.word()),
        "persistence": sent.then(|| judged.persistence.word()),
        "ttl_s": judged.ttl_s,
        "close_after_s": judged.close_after_s,
        "closes": judged.closes,
        "gaps": judged.gaps,
    })
}

/// What `--print-rules` says: all rules in force, in order; for people, and as JSON.
pub fn print(rules: &Rules) -> (String, serde_json::Value) {
    let width = rules.iter().map(|rule| rule.id.len()).max().unwrap_or(0);
    let lines = rules
        .iter()
        .map(|rule| format!("{:width$}  {:6}  {}\n", rule.id, rule.becomes.word(), rule.place));
    (lines.collect(), rules.iter().map(rule_json).collect())
}

fn rule_json(rule: &Rule) -> serde_json::Value {
    let wheres = rule.wheres.iter().map(|(name, regex)| (name.clone(), regex.as_str().into()));
    json!({
        "id": rule.id,
        "becomes": rule.becomes.word(),
        "file": rule.place.file,
        "line": rule.place.line,
        "column": rule.place.column,
        "shipped": rule.shipped,
        "match": rule.matcher.shown(),
        "where": serde_json::Value::Object(wheres.collect()),
        "clears": rule.clears,
        "type": rule.type_.written(),
        "key": rule.key.written(),
        "severity": rule.severity.written(),
        "text": rule.text.written(),
        "event_id": rule.event_id.as_ref().map(|id| id.written()),
        "class": rule.class.written(),
        "subclass": rule.subclass.written(),
        "instance": rule.instance.written(),
        "precedence": rule.precedence.map(|precedence| precedence.word()),
        "persistence": rule.persistence.word(),
        "ttl_s": rule.ttl_s,
        "close_after_s": rule.close_after_s,
    })
}
