//! What the customer allows: a file of its own, never pushed; the first rule that matches decides.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::{Calendar, Checked, Environment, Problem, digest};

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Sending data of a class: `class/subclass`.
    Send,
    /// A management action, by its name.
    Action,
    /// An update.
    Update,
    /// A remote session.
    RemoteAccess,
    /// A change of the configuration from above.
    Configuration,
}

impl Subject {
    /// The word of the schema.
    pub const fn as_str(self) -> &'static str {
        match self {
            Subject::Send => "send",
            Subject::Action => "action",
            Subject::Update => "update",
            Subject::RemoteAccess => "remote-access",
            Subject::Configuration => "configuration",
        }
    }

    fn parse(word: &str) -> Option<Subject> {
        use Subject::{Action, Configuration, RemoteAccess, Send, Update};
        [Send, Action, Update, RemoteAccess, Configuration]
            .into_iter()
            .find(|subject| subject.as_str() == word)
    }
}

/// What holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is done.
    Allow,
    /// Somebody of the customer is asked first.
    Ask,
    /// It is not done.
    Deny,
}

impl Decision {
    /// The word of the schema.
    pub const fn as_str(self) -> &'static str {
        match self {
            Decision::Allow => "allow",
            Decision::Ask => "ask",
            Decision::Deny => "deny",
        }
    }

    fn parse(word: &str) -> Option<Decision> {
        use Decision::{Allow, Ask, Deny};
        [Allow, Ask, Deny].into_iter().find(|decision| decision.as_str() == word)
    }
}

#[derive(Clone, Debug)]
struct Rule {
    subject: Subject,
    name: String,
    instance: String,
    calendar: Calendar,
    decision: Decision,
}

/// A customer's policy, checked.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `sha256:` and the digest of the file; empty for the policy of a customer without one.
    pub digest: String,
    /// How long an answer is waited for when somebody is asked.
    pub ask_within: Duration,
    zone: TimeZone,
    rules: Vec<Rule>,
}

impl Default for Policy {
    /// Of a customer without a file: sending and configuration go, updates ask, the rest does not.
    fn default() -> Policy {
        let ask_within = Duration::from_secs(3_600);
        Policy { digest: String::new(), ask_within, zone: TimeZone::UTC, rules: Vec::new() }
    }
}

impl Policy {
    /// Reads and checks the text of a file; `file` names it in problems.
    ///
    /// # Errors
    /// All problems of the file, in its order.
    pub fn parse(
        text: &str,
        file: &str,
        environment: &Environment,
    ) -> Result<Policy, Vec<Problem>> {
        let tree = crate::config::check_policy(text, file, environment)?;
        match Policy::build(&tree) {
            Some(policy) => Ok(Policy { digest: digest(text), ..policy }),
            None => Err(vec![Problem::of_file(
                file,
                crate::config::Code::Environment,
                "references were not looked up, so nothing can be decided by it".to_owned(),
                "read it with the environment".to_owned(),
            )]),
        }
    }

    fn build(tree: &Checked) -> Option<Policy> {
        let rule = |rule: &Checked| {
            Some(Rule {
                subject: Subject::parse(rule.text("what")?)?,
                name: rule.text("name")?.to_owned(),
                instance: rule.text("instance")?.to_owned(),
                calendar: Calendar::parse(
                    rule.text("days")?,
                    rule.text("from")?,
                    rule.text("to")?,
                )?,
                decision: Decision::parse(rule.text("decision")?)?,
            })
        };
        Some(Policy {
            digest: String::new(),
            ask_within: Duration::from_secs(tree.number("ask-within-s")?),
            zone: TimeZone::get(tree.text("zone")?).ok()?,
            rules: tree.all("rule").map(rule).collect::<Option<Vec<_>>>()?,
        })
    }

    /// Decides. `name` is the action's, or `class/subclass` of what is sent; `instance` the name of
    /// the instance concerned, empty when there is none; `now` is read by the policy's zone.
    pub fn decide(&self, subject: Subject, name: &str, instance: &str, now: Timestamp) -> Decision {
        let moment = now.to_zoned(self.zone.clone());
        let fits = |rule: &&Rule| {
            rule.subject == subject
                && matches(&rule.name, name)
                && matches(&rule.instance, instance)
                && rule.calendar.is_open_at(&moment)
        };
        match (self.rules.iter().find(fits), subject) {
            (Some(rule), _) => rule.decision,
            (None, Subject::Send | Subject::Configuration) => Decision::Allow,
            (None, Subject::Update) => Decision::Ask,
            (None, Subject::Action | Subject::RemoteAccess) => Decision::Deny,
        }
    }
}

/// Whether a text fits a pattern in which `*` stands for anything. Linear in pattern times text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn policy(rules: &str) -> Policy {
        let text = format!(
            "<policy xmlns=\"urn:callhome:config:1\" zone=\"Europe/Berlin\">{rules}</policy>"
        );
        Policy::parse(&text, "policy.xml", &Environment::of([], "h")).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn without_a_rule_what_would_hurt_is_off() {
        let now = at("2026-11-23T12:00:00Z");
        let decide = |subject| Policy::default().decide(subject, "x", "", now);
        assert_eq!(decide(Subject::Send), Decision::Allow);
        assert_eq!(decide(Subject::Configuration), Decision::Allow);
        assert_eq!(decide(Subject::Update), Decision::Ask);
        assert_eq!(decide(Subject::Action), Decision::Deny);
        assert_eq!(decide(Subject::RemoteAccess), Decision::Deny);
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = policy(
            "<rule what='action' name='run-diagnostic' instance='test-*' decision='allow'/>\
             <rule what='action' name='run-*' decision='ask'/>",
        );
        let now = at("2026-11-23T12:00:00Z");
        let decide = |name, instance| policy.decide(Subject::Action, name, instance, now);
        assert_eq!(decide("run-diagnostic", "test-1"), Decision::Allow);
        assert_eq!(decide("run-diagnostic", "prod-1"), Decision::Ask);
        assert_eq!(decide("reboot", "test-1"), Decision::Deny);
    }

    #[test]
    fn hours_are_those_of_the_policys_zone() {
        let policy = policy("<rule what='update' from='01:00' to='05:00' decision='allow'/>");
        let decide = |now| policy.decide(Subject::Update, "", "", at(now));
        assert_eq!(decide("2026-11-23T00:30:00Z"), Decision::Allow);
        assert_eq!(decide("2026-11-23T04:30:00Z"), Decision::Ask);
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text) in [("*", ""), ("a*c", "abc"), ("a*b*c", "a-b-b-c"), ("a", "a")] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*a", "a"), ("*b", "bc"), ("", "a")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_rule_that_is_never_open_is_told() {
        let text = "<policy xmlns='urn:callhome:config:1'>\
                    <rule what='send' from='08:00' to='08:00' decision='deny'/></policy>";
        let problems = Policy::parse(text, "p", &Environment::of([], "h")).unwrap_err();
        assert_eq!(problems.len(), 1);
    }
}
