//! A tree held against the schema: what is unknown, missing, wrong or twice is told, all at once.

use super::environment::{Environment, ExpandError, expand};
use super::problem::{Code, Place, Report};
use super::schema::{AttributeRule, ElementRule, Need};
use super::suggest;
use super::value::{self, shown};
use super::xml::{Attribute, Element, NAMESPACE};

/// An attribute that belongs where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub name: &'static str,
    /// Of its value.
    pub at: Place,
    /// With references put in; as written when they could not be.
    pub text: String,
    /// Whether it is what it should be.
    pub valid: bool,
    /// References stand in it and were not to be looked up; it counts as right.
    pub open: bool,
}

/// An element of the schema, as given.
#[derive(Debug)]
pub(crate) struct Checked {
    pub rule: &'static ElementRule,
    /// Of its `<`.
    pub at: Place,
    pub given: Vec<Given>,
    pub children: Vec<Checked>,
}

impl Checked {
    /// An attribute that was given, right or wrong.
    pub(crate) fn given(&self, name: &str) -> Option<&Given> {
        self.given.iter().find(|given| given.name == name)
    }

    /// The text of an attribute, or its default; `None` when it is wrong, open or absent.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.given(name) {
            Some(given) => (given.valid && !given.open).then_some(given.text.as_str()),
            None => self.rule.attribute(name)?.default_value(),
        }
    }

    /// The number of an attribute, or its default.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        value::parse_number(self.text(name)?)
    }

    /// Where the value of an attribute stands; the element itself when it was left out.
    pub(crate) fn place(&self, name: &str) -> Place {
        self.given(name).map_or(self.at, |given| given.at)
    }

    /// Its children of one name.
    pub(crate) fn all<'c>(&'c self, name: &'c str) -> impl Iterator<Item = &'c Checked> {
        self.children.iter().filter(move |child| child.rule.name == name)
    }

    /// A child that was left out, with its defaults alone.
    pub(crate) fn implied(&self, name: &str) -> Option<Checked> {
        let (_, child) = self.rule.child(name)?;
        let rule = child.element;
        Some(Checked { rule, at: self.at, given: Vec::new(), children: Vec::new() })
    }

    /// Whether references stand in it that were not to be looked up.
    pub(crate) fn has_open_references(&self) -> bool {
        self.given.iter().any(|given| given.open)
            || self.children.iter().any(Checked::has_open_references)
    }

    /// Its first child of one name.
    pub(crate) fn child(&self, name: &str) -> Option<&Checked> {
        self.children.iter().find(|child| child.rule.name == name)
    }
}

/// Holds a root element against the rule of the root that is wanted.
pub(crate) fn check_root(
    root: &Element,
    rule: &'static ElementRule,
    environment: &Environment,
    report: &mut Report,
) -> Option<Checked> {
    let name = rule.name;
    if root.name != name {
        let message = format!("<{}> stands where <{name}> belongs", root.written);
        let help = format!("write <{name} xmlns=\"{NAMESPACE}\" …>");
        report.add(root.at, Code::UnknownElement, message, help);
        return None;
    }
    if root.namespace.as_deref() != Some(NAMESPACE) {
        let message = match &root.namespace {
            Some(other) => format!("<{name}> is of the namespace {}", shown(other)),
            None => format!("<{name}> without the namespace {NAMESPACE}"),
        };
        let help = format!("write <{name} xmlns=\"{NAMESPACE}\" …>");
        report.add(root.at, Code::UnknownElement, message, help);
        return None;
    }
    Some(Walk { root: rule, environment, report }.element(root, rule))
}

struct Walk<'w> {
    root: &'static ElementRule,
    environment: &'w Environment,
    report: &'w mut Report,
}

impl Walk<'_> {
    fn element(&mut self, element: &Element, rule: &'static ElementRule) -> Checked {
        if let Some(at) = element.text_at {
            let message = format!("text stands in <{}>", rule.name);
            self.report.add(at, Code::BadValue, message, "values stand in attributes; take it out");
        }
        let given =
            element.attributes.iter().filter_map(|a| self.attribute(a, rule)).collect::<Vec<_>>();
        for missing in rule.attributes {
            let Need::Required(help) = missing.need else { continue };
            if !given.iter().any(|given| given.name == missing.name) {
                let message = format!("<{}> lacks {}", rule.name, missing.name);
                self.report.add(element.at, Code::MissingAttribute, message, help);
            }
        }
        let children = self.children(element, rule);
        Checked { rule, at: element.at, given, children }
    }

    fn children(&mut self, element: &Element, rule: &'static ElementRule) -> Vec<Checked> {
        let mut children: Vec<Checked> = Vec::new();
        let mut furthest = 0;
        let mut counts = vec![0_usize; rule.children.len()];
        let mut told_too_many = false;
        for child in &element.children {
            let known = rule.child(&child.name);
            let known = known.filter(|_| child.namespace.as_deref() == Some(NAMESPACE));
            let Some((order, child_rule)) = known else {
                self.unknown_element(child, rule);
                continue;
            };
            let name = child_rule.element.name;
            counts[order] += 1;
            if child_rule.max == 1 && counts[order] > 1 {
                let first = children.iter().find(|c| c.rule.name == name).map(|c| c.at);
                let first = first.unwrap_or(element.at);
                let message = format!("a second <{name}> in <{}>", rule.name);
                let help = format!("the first is at {first}; keep one");
                self.report.add(child.at, Code::Duplicate, message, help);
            } else if (counts[order] > child_rule.max || element.children.len() > rule.children_max)
                && !std::mem::replace(&mut told_too_many, true)
            {
                self.too_many(child, element, rule, child_rule.max);
            }
            if rule.in_order && order < furthest {
                let before = rule.children[furthest].element.name;
                let message = format!("<{name}> stands behind <{before}>");
                let help = format!("move it before the first <{before}>");
                self.report.add(child.at, Code::Conflict, message, help);
            }
            furthest = furthest.max(order);
            let checked = self.element(child, child_rule.element);
            children.push(checked);
        }
        for (count, child) in counts.iter().zip(rule.children) {
            if *count < child.min {
                let name = child.element.name;
                let message = format!("<{}> lacks <{name}>", rule.name);
                let attributes = if child.element.attributes.is_empty() { "" } else { " …" };
                let help = format!("add <{name}{attributes}/>");
                self.report.add(element.at, Code::MissingElement, message, help);
            }
        }
        children
    }

    fn too_many(&mut self, child: &Element, parent: &Element, rule: &ElementRule, max: usize) {
        let max = max.min(rule.children_max);
        let message =
            format!("{} elements in <{}>, more than {max}", parent.children.len(), rule.name);
        self.report.add(child.at, Code::Conflict, message, "take some out");
    }

    fn unknown_element(&mut self, child: &Element, rule: &'static ElementRule) {
        let known = rule.children.iter().map(|child| child.element.name);
        let message = format!("<{}> is not known in <{}>", child.written, rule.name);
        let help =
            if child.namespace.as_deref() != Some(NAMESPACE) && rule.child(&child.name).is_some() {
                format!("it is not of the namespace {NAMESPACE}")
            } else if let Some(near) = suggest::nearest(&child.name, known.clone()) {
                format!("did you mean <{near}>?")
            } else if let Some(parent) = self.root.parent_of(&child.name) {
                format!("it belongs into <{parent}>")
            } else if rule.children.is_empty() {
                format!("<{}> has no elements in it; take it out", rule.name)
            } else {
                let known: Vec<String> = known.map(|name| format!("<{name}>")).collect();
                format!("known here: {}", known.join(" "))
            };
        self.report.add(child.at, Code::UnknownElement, message, help);
    }

    fn attribute(&mut self, attribute: &Attribute, rule: &'static ElementRule) -> Option<Given> {
        let Some(known) = rule.attribute(&attribute.name) else {
            self.unknown_attribute(attribute, rule);
            return None;
        };
        let value = &attribute.value;
        let mut given = Given {
            name: known.name,
            at: attribute.value_at,
            text: value.clone(),
            valid: false,
            open: false,
        };
        if known.kind.takes_references() && value.contains("${") && !self.in_the_open(known, value)
        {
            match expand(value, self.environment) {
                Ok(Some(text)) => given.text = text,
                Ok(None) => {
                    given.valid = true;
                    given.open = true;
                    return Some(given);
                }
                Err(error) => {
                    self.not_expanded(attribute, error);
                    return Some(given);
                }
            }
        }
        let wrongs = known.kind.check(known.name, &given.text);
        given.valid = wrongs.is_empty();
        for wrong in wrongs {
            let mut at = attribute.value_at;
            if attribute.verbatim {
                at.column = at.column.saturating_add(wrong.offset);
            }
            self.report.add(at, wrong.code, wrong.message, wrong.help);
        }
        Some(given)
    }

    /// A secret that is not `file:…` as written: a variable is as open as a value.
    fn in_the_open(&self, rule: &AttributeRule, value: &str) -> bool {
        rule.kind.is_secret() && !value.starts_with("file:")
    }

    fn not_expanded(&mut self, attribute: &Attribute, error: ExpandError) {
        let at = attribute.value_at;
        match error {
            ExpandError::Unset(name) => {
                let message = format!("the environment has no {name}");
                let mut help = format!("set it, or give a default: ${{{name}:-…}}");
                if let Some(near) = self.environment.near(&name) {
                    help.push_str(&format!("; {near} is set: a slip?"));
                }
                self.report.add(at, Code::Environment, message, help);
            }
            ExpandError::Malformed => {
                let message = format!("{} holds a broken reference", attribute.name);
                self.report.add(at, Code::BadValue, message, "write ${NAME} or ${NAME:-default}");
            }
            ExpandError::TooLong => {
                let message = format!("{} is too long with its references put in", attribute.name);
                self.report.add(at, Code::Environment, message, "set a shorter value");
            }
        }
    }

    fn unknown_attribute(&mut self, attribute: &Attribute, rule: &'static ElementRule) {
        let known = rule.attributes.iter().map(|attribute| attribute.name);
        let message = format!("attribute {} is not known in <{}>", attribute.name, rule.name);
        let help = if let Some(near) = suggest::nearest(&attribute.name, known.clone()) {
            match value::unit(near) {
                "" => format!("did you mean {near}?"),
                unit => format!("did you mean {near}? it counts {unit}"),
            }
        } else if rule.attributes.is_empty() {
            format!("<{}> has no attributes; take it out", rule.name)
        } else {
            format!("known here: {}", known.collect::<Vec<_>>().join(" "))
        };
        self.report.add(attribute.at, Code::UnknownAttribute, message, help);
    }
}
