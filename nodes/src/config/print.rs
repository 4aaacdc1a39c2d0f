//! The effective configuration as XML: what a node works with, defaults and all (pure).

use super::checked::Checked;
use super::environment::Environment;
use super::rules::roles_of;
use super::xml::NAMESPACE;
use super::{default_store_bytes, links};
use crate::role::{Role, RoleSet};

/// Interval of the heartbeat with a back-channel, seconds (DESIGN §15).
const SESSION_HEARTBEAT_S: u64 = 30;
/// Interval of the heartbeat without one, seconds (DESIGN §15).
const MESSAGE_HEARTBEAT_S: u64 = 900;

/// The interval of the heartbeat unless given: that of the mode of the first parent's module.
pub(crate) fn heartbeat_every_s(node: &Checked) -> u64 {
    let first = node.child("parents").and_then(|parents| parents.child("parent"));
    let via = first.and_then(|parent| parent.text("via"));
    let modules = links::modules(node);
    let module = modules.iter().find(|module| Some(module.name) == via);
    match module.and_then(|module| module.element.text("protocol")) {
        None | Some("http") => SESSION_HEARTBEAT_S,
        Some(_) => MESSAGE_HEARTBEAT_S,
    }
}

/// The whole node. Secrets stay references, and references that were not looked up stay too.
pub(crate) fn effective(node: &Checked, environment: &Environment) -> String {
    let roles = roles_of(node.text("roles").unwrap_or_default());
    let mut printer = Printer { node, environment, roles, out: String::new() };
    printer.out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    printer.element(node, 0);
    printer.out
}

struct Printer<'p> {
    node: &'p Checked,
    environment: &'p Environment,
    roles: RoleSet,
    out: String,
}

impl Printer<'_> {
    fn element(&mut self, element: &Checked, depth: usize) {
        let rule = element.rule;
        let indent = "  ".repeat(depth);
        self.out.push_str(&format!("{indent}<{}", rule.name));
        if depth == 0 {
            self.out.push_str(&format!(" xmlns=\"{NAMESPACE}\""));
        }
        for attribute in rule.attributes {
            if let Some(value) = self.value(element, attribute.name) {
                self.out.push_str(&format!(" {}=\"{}\"", attribute.name, escaped(&value)));
            }
        }
        let implied: Vec<Checked> = rule
            .children
            .iter()
            .filter(|child| element.child(child.element.name).is_none())
            .filter(|child| self.is_implied(rule.name, child.element.name))
            .filter_map(|child| element.implied(child.element.name))
            .collect();
        if element.children.is_empty() && implied.is_empty() {
            self.out.push_str("/>\n");
            return;
        }
        self.out.push_str(">\n");
        for child in rule.children {
            for each in element.all(child.element.name) {
                self.element(each, depth + 1);
            }
            for each in implied.iter().filter(|each| each.rule.name == child.element.name) {
                self.element(each, depth + 1);
            }
        }
        self.out.push_str(&format!("{indent}</{}>\n", rule.name));
    }

    fn value(&self, element: &Checked, name: &str) -> Option<String> {
        if let Some(given) = element.given(name) {
            return Some(given.text.clone());
        }
        match (element.rule.name, name) {
            ("node", "name") => Some(self.environment.node_name()),
            ("store", "bytes") => Some(default_store_bytes(&self.roles).to_string()),
            ("heartbeat", "every-s") => Some(heartbeat_every_s(self.node).to_string()),
            _ => element.rule.attribute(name)?.default_value().map(str::to_owned),
        }
    }

    /// Whether an element that was left out says something all the same.
    fn is_implied(&self, outer: &str, name: &str) -> bool {
        match (outer, name) {
            ("node", "doors" | "store" | "throttle" | "telemetry") => true,
            ("node", "heartbeat" | "back-channel" | "bulk") => self.roles.has_queue(),
            ("node", "records") => self.roles.has(Role::AppServer),
            ("doors", "operator") => true,
            ("doors", "integrator") => self.roles.has(Role::Proxy),
            _ => false,
        }
    }
}

fn escaped(value: &str) -> String {
    value.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
