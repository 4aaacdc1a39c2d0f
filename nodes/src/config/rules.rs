//! What the schema cannot say: rules between the elements of a node and with its roles.

use std::collections::HashMap;

use super::checked::Checked;
use super::problem::{Code, Place, Report};
use super::value::shown;
use super::{doors, links, suggest};
use crate::role::{Role, RoleSet};

/// Longest path of a Unix socket, in bytes: the kernel's 108 with the closing zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Kinds of integrators that `callhome integrator` knows by name (contract, commands).
pub const INTEGRATOR_KINDS: [&str; 9] =
    ["snmp", "syslog", "inventory", "alertmanager", "otlp", "redfish", "wbem", "zabbix", "nagios"];

/// Flags of an integrator that the proxy gives itself.
const OPTIONS_GIVEN: [&str; 2] = ["name", "socket"];

/// A node held against its rules. `roles` is `None` while they are wrong; what depends on them is
/// then not told.
pub(crate) struct Rules<'c> {
    pub node: &'c Checked,
    /// Read by `node --insecure`, which allows plain links until mTLS exists.
    pub insecure: bool,
    pub roles: Option<RoleSet>,
    pub report: &'c mut Report,
}

/// Tells all that is wrong between the parts of a node.
pub(crate) fn check(node: &Checked, insecure: bool, report: &mut Report) {
    let roles = node.text("roles").map(roles_of);
    let mut rules = Rules { node, insecure, roles, report };
    rules.roles();
    rules.services();
    rules.integrators();
    rules.store();
    rules.bandwidth();
    if let Some(throttle) = node.child("throttle") {
        for window in throttle.all("window") {
            hours(window, rules.report);
        }
    }
    links::check(&mut rules);
    doors::check(&mut rules);
}

/// Roles of a text that was checked; unknown words are passed over.
pub(crate) fn roles_of(text: &str) -> RoleSet {
    RoleSet::of(text.split_ascii_whitespace().filter_map(|word| word.parse().ok()))
}

/// Roles in a sentence, with the article.
pub(crate) fn described(roles: &RoleSet) -> String {
    let names: Vec<&str> = roles.iter().map(Role::as_str).collect();
    let article = match names.first().map(|name| name.as_bytes()) {
        Some([b'a', ..] | b"mlm") => "an",
        _ => "a",
    };
    format!("{article} {}", names.join(" and "))
}

/// Tells a window or rule that opens and closes at the same minute.
pub(crate) fn hours(element: &Checked, report: &mut Report) {
    let (Some(from), Some(to)) = (element.text("from"), element.text("to")) else { return };
    if from == to || from == "24:00" {
        let message = format!("from {from} to {to} is never");
        let help = "for a whole day write from=\"00:00\" to=\"24:00\"";
        report.add(element.place("to"), Code::BadValue, message, help);
    }
}

impl<'c> Rules<'c> {
    /// Whether one of these roles is among the node's; true while the roles are not known.
    pub(crate) fn may(&self, roles: &[Role]) -> bool {
        self.roles.as_ref().is_none_or(|set| set.is_empty() || set.has_any(roles))
    }

    /// Whether a role is known to be among the node's.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.as_ref().is_some_and(|set| set.has(role))
    }

    /// The node's roles in a sentence.
    pub(crate) fn who(&self) -> String {
        self.roles.as_ref().map(described).unwrap_or_default()
    }

    /// Tells the second of two things of one name.
    pub(crate) fn unique(
        &mut self,
        of: impl Iterator<Item = &'c Checked>,
        attribute: &'static str,
        message: impl Fn(&str) -> String,
        help: impl Fn(&str, Place) -> String,
    ) {
        let mut seen: HashMap<&str, Place> = HashMap::new();
        for element in of {
            let Some(name) = element.text(attribute) else { continue };
            let at = element.place(attribute);
            match seen.get(name) {
                Some(first) => {
                    self.report.add(at, Code::Duplicate, message(name), help(name, *first));
                }
                None => {
                    seen.insert(name, at);
                }
            }
        }
    }

    fn roles(&mut self) {
        use Role::{AppServer, ApplicationsMlm, CertificateManager, ContentMlm, Mlm, Proxy};
        let node = self.node;
        let top = self.has(AppServer);
        let sends = [Proxy, Mlm, ApplicationsMlm].into_iter().find(|role| self.has(*role));
        if let Some(role) = sends.filter(|_| !top && node.child("parents").is_none()) {
            let who = described(&RoleSet::of([role]));
            let via = links::any_http_module(node).unwrap_or("web");
            self.report.add(
                node.at,
                Code::MissingElement,
                format!("{who} needs <parents>: it has nobody to send to"),
                format!("add <parents><parent url=\"https://…:7443\" via=\"{via}\"/></parents>"),
            );
        }
        if let Some(parents) = node.child("parents").filter(|_| top) {
            let message = "the application server is the top: it has no parents";
            self.report.add(parents.at, Code::Conflict, message, "take <parents> out");
        }
        if self.has(ContentMlm) && !top && node.child("content").is_none() {
            let message = "a content-mlm needs <content>: it has no application server to ask";
            let help = "add <content server=\"http://127.0.0.1:7081\"/>";
            self.report.add(node.at, Code::MissingElement, message, help);
        }
        if self.has(CertificateManager) && node.child("certificates").is_none() {
            let message =
                "a certificate-manager needs <certificates>: it has nothing to issue with";
            let help = "add <certificates issuing-certificate=\"…\" issuing-key=\"file:…\"/>";
            self.report.add(node.at, Code::MissingElement, message, help);
        }
        let aggregation = node.given("mlm").is_some_and(|mlm| mlm.text == "aggregation");
        if aggregation && !self.may(&[Mlm]) {
            let message = format!("mlm=\"aggregation\" says nothing about {}", self.who());
            self.report.add(node.place("mlm"), Code::Conflict, message, "add the role mlm");
        }
        for (element, role) in
            [("records", AppServer), ("content", ContentMlm), ("certificates", CertificateManager)]
        {
            let Some(found) = node.child(element).filter(|_| !self.may(&[role])) else { continue };
            let for_whom = described(&RoleSet::of([role]));
            let message = format!("<{element}> is for {for_whom}, not for {}", self.who());
            let help = format!("take it out, or move it to the {role}");
            self.report.add(found.at, Code::Conflict, message, help);
        }
    }

    fn services(&mut self) {
        let Some(services) = self.node.child("services") else { return };
        let serves = self.may(&[Role::Mlm, Role::ApplicationsMlm, Role::AppServer]);
        for service in services.all("service") {
            let name = service.text("name").unwrap_or("…");
            if !serves {
                let message = format!(
                    "service modules run at an MLM or the application server, not at {}",
                    self.who()
                );
                let help = format!("move <service name=\"{name}\"> to the customer MLM");
                self.report.add(service.at, Code::Conflict, message, help);
            }
            if service.text("kind") == Some("wasm") {
                for needed in ["program", "sha256"] {
                    if service.given(needed).is_none() {
                        let message = format!("<service> of kind wasm lacks {needed}");
                        let help = "name the module and its digest: program=\"/…\" sha256=\"…\"";
                        self.report.add(service.at, Code::MissingAttribute, message, help);
                    }
                }
            }
            self.unique(
                service.all("set"),
                "name",
                |name| format!("{name} is set a second time"),
                |_, first| format!("the first is at {first}; keep one"),
            );
        }
        self.unique(
            services.all("service"),
            "name",
            |name| format!("a second service named \"{name}\""),
            |name, first| format!("the first is at {first}; name this one \"{name}-2\""),
        );
    }

    fn integrators(&mut self) {
        let Some(integrators) = self.node.child("integrators") else { return };
        let starts = self.may(&[Role::Proxy]);
        for integrator in integrators.all("integrator") {
            let name = integrator.text("name").unwrap_or("…");
            if !starts {
                let message = format!("integrators are started by a proxy, not by {}", self.who());
                let help = format!("move <integrator name=\"{name}\"> to the proxy");
                self.report.add(integrator.at, Code::Conflict, message, help);
            }
            self.program(integrator);
            for option in integrator.all("option") {
                let Some(name) = option.text("name").filter(|n| OPTIONS_GIVEN.contains(n)) else {
                    continue;
                };
                let message = format!("the proxy gives the flag {name} itself");
                let at = option.place("name");
                self.report.add(at, Code::Conflict, message, "take the option out");
            }
        }
        self.unique(
            integrators.all("integrator"),
            "name",
            |name| format!("a second integrator named \"{name}\""),
            |name, first| {
                format!(
                    "the first is at {first}; a name keeps one identity, so give this one its \
                     own, as \"{name}-lab\""
                )
            },
        );
    }

    fn program(&mut self, integrator: &Checked) {
        match (integrator.given("kind"), integrator.given("program")) {
            (None, None) => {
                let message = "<integrator> lacks kind or program";
                let help = "name one of ours, kind=\"snmp\", or your own, program=\"/opt/…\"";
                self.report.add(integrator.at, Code::MissingAttribute, message, help);
            }
            (Some(_), Some(program)) => {
                let message = "an integrator is of a kind or a program of its own, not both";
                self.report.add(program.at, Code::Conflict, message, "take one of them out");
            }
            (Some(kind), None) if kind.valid && !INTEGRATOR_KINDS.contains(&kind.text.as_str()) => {
                let message = format!("kind {} is not known", shown(&kind.text));
                let help = match suggest::nearest(&kind.text, INTEGRATOR_KINDS) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("one of: {}", INTEGRATOR_KINDS.join(" ")),
                };
                self.report.add(kind.at, Code::Unresolved, message, help);
            }
            _ => {}
        }
    }

    fn store(&mut self) {
        let Some(store) = self.node.child("store") else { return };
        let whole = match store.given("bytes") {
            Some(_) => store.number("bytes"),
            None => self.roles.as_ref().map(super::default_store_bytes),
        };
        let mend = match store.given("bytes") {
            Some(bytes) => format!("lower it, or raise bytes at {}", bytes.at),
            None => format!("lower it, or give bytes to <store> at {}", store.at),
        };
        for limit in store.all("limit") {
            let (Some(bytes), Some(whole)) = (limit.number("bytes"), whole) else { continue };
            if bytes > whole {
                let which = limit.text("precedence").unwrap_or("…");
                let message =
                    format!("the limit for {which}, {bytes}, is above the store's {whole} bytes");
                self.report.add(limit.place("bytes"), Code::BadValue, message, mend.as_str());
            }
        }
        self.unique(
            store.all("limit"),
            "precedence",
            |name| format!("a second limit for {name}"),
            |_, first| format!("the first is at {first}; keep one"),
        );
    }

    fn bandwidth(&mut self) {
        let Some(bandwidth) = self.node.child("bandwidth") else { return };
        let mut seen: HashMap<(Option<&str>, Option<&str>), Place> = HashMap::new();
        for allocation in bandwidth.all("allocation") {
            let right =
                |name| allocation.given(name).is_none_or(|given| given.valid && !given.open);
            let key = (allocation.text("customer"), allocation.text("class"));
            if !right("customer") || !right("class") {
                continue;
            }
            if key == (None, None) {
                let message = "<allocation> lacks customer or class";
                let help = "say whom or what it is for: customer=\"…\", class=\"bulk\", or both";
                self.report.add(allocation.at, Code::MissingAttribute, message, help);
            } else if let Some(first) = seen.get(&key) {
                let message = "a second allocation for the same customer and class";
                let help = format!("the first is at {first}; keep one");
                self.report.add(allocation.at, Code::Duplicate, message, help);
            } else {
                seen.insert(key, allocation.at);
            }
        }
        let first = bandwidth.child("allocation");
        if let Some(first) = first.filter(|_| !self.may(&[Role::BandwidthManager])) {
            let message = format!("a bandwidth-manager hands out bandwidth, not {}", self.who());
            let help = "move <allocation> there, and name it here by manager=\"https://…\"";
            self.report.add(first.at, Code::Conflict, message, help);
        }
    }
}
