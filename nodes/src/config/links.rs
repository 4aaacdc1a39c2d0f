//! Rules of communications modules and of the parents that are reached by them.

use super::checked::Checked;
use super::problem::{Code, Place};
use super::rules::Rules;
use super::{schema, suggest};

/// A module by its name, and where the name stands.
#[derive(Clone, Copy)]
pub(crate) struct Module<'c> {
    pub element: &'c Checked,
    pub name: &'c str,
    pub at: Place,
}

/// The modules of a node that have a proper name; of two of one name the first.
pub(crate) fn modules(node: &Checked) -> Vec<Module<'_>> {
    let mut modules: Vec<Module<'_>> = Vec::new();
    let Some(communications) = node.child("communications") else { return modules };
    for element in communications.all("module") {
        let Some(name) = element.text("name") else { continue };
        if modules.iter().all(|known| known.name != name) {
            modules.push(Module { element, name, at: element.place("name") });
        }
    }
    modules
}

/// The name of a module of protocol http, for examples in helps.
pub(crate) fn any_http_module(node: &Checked) -> Option<&str> {
    let http = |module: &Module<'_>| module.element.text("protocol") == Some("http");
    modules(node).into_iter().find(http).map(|module| module.name)
}

pub(crate) fn check(rules: &mut Rules<'_>) {
    let node = rules.node;
    if let Some(communications) = node.child("communications") {
        for module in communications.all("module") {
            combination(rules, module);
            companions(rules, module);
        }
        rules.unique(
            communications.all("module"),
            "name",
            |name| format!("a second module named \"{name}\""),
            |name, first| format!("the first is at {first}; name this one \"{name}-2\""),
        );
    }
    let modules = modules(node);
    if let Some(parents) = node.child("parents") {
        for parent in parents.all("parent") {
            if let Some(module) = resolve(rules, parent, &modules) {
                parent_and_module(rules, parent, module);
            }
        }
    }
}

/// Encryptions a protocol can take, as a phrase (COM-6 to COM-9).
fn encryptions(protocol: &str) -> &'static [&'static str] {
    match protocol {
        "http" => &["tls", "sealed", "none"],
        "mail" | "file" => &["smime", "pgp", "none"],
        _ => &["none"],
    }
}

fn phrase(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn combination(rules: &mut Rules<'_>, module: &Checked) {
    let (protocol, encryption) = (module.text("protocol"), module.text("encryption"));
    let (Some(protocol), Some(encryption)) = (protocol, encryption) else { return };
    let allowed = encryptions(protocol);
    if !allowed.contains(&encryption) {
        let message = format!("protocol {protocol} cannot take encryption {encryption}");
        let help = format!("for {protocol}: {}", phrase(allowed));
        rules.report.add(module.place("encryption"), Code::Conflict, message, help);
    } else if (protocol, encryption) == ("http", "none")
        && module.text("authentication") == Some("certificate")
    {
        let message = "http without encryption carries no certificate";
        let help = "encryption=\"tls\", or authentication=\"none\"";
        rules.report.add(module.place("authentication"), Code::Conflict, message, help);
    }
}

/// What stands in a module has to fit its protocol.
fn companions(rules: &mut Rules<'_>, module: &Checked) {
    let Some(protocol) = module.text("protocol") else { return };
    for (child, wanted) in [("http-proxy", "http"), ("mail", "mail")] {
        if let Some(child) = module.child(child).filter(|_| protocol != wanted) {
            let name = child.rule.name;
            let message = format!("<{name}> is for protocol {wanted}, and this one is {protocol}");
            let help = format!("take it out, or write protocol=\"{wanted}\"");
            rules.report.add(child.at, Code::Conflict, message, help);
        }
    }
    for child in &module.children {
        if let Some(password) = child.given("password").filter(|_| child.given("user").is_none()) {
            let message = format!("<{}> has a password and lacks user", child.rule.name);
            let help = "add user=\"…\", or take the password out";
            rules.report.add(password.at, Code::MissingAttribute, message, help);
        }
    }
}

/// The module an element names by `via`; tells when there is none.
pub(crate) fn resolve<'m, 'c>(
    rules: &mut Rules<'_>,
    element: &Checked,
    modules: &'m [Module<'c>],
) -> Option<&'m Module<'c>> {
    let via = element.text("via")?;
    if let Some(module) = modules.iter().find(|module| module.name == via) {
        return Some(module);
    }
    let near = suggest::nearest(via, modules.iter().map(|module| module.name));
    let near = near.and_then(|name| modules.iter().find(|module| module.name == name));
    let help = match near {
        Some(module) => format!("did you mean \"{}\" ({})?", module.name, module.at),
        None if modules.is_empty() => {
            format!("add <communications><module name=\"{via}\" …/></communications>")
        }
        None => {
            let names: Vec<&str> = modules.iter().map(|module| module.name).collect();
            format!("one of: {}", names.join(" "))
        }
    };
    let message = format!("via \"{via}\" names no module of <communications>");
    rules.report.add(element.place("via"), Code::Unresolved, message, help);
    None
}

fn parent_and_module(rules: &mut Rules<'_>, parent: &Checked, module: &Module<'_>) {
    let Some(url) = parent.text("url") else { return };
    let scheme = url.split(':').next().unwrap_or_default();
    let wanted = match scheme {
        "mailto" => "mail",
        "file" => "file",
        _ => "http",
    };
    let article = if wanted == "http" { "an" } else { "a" };
    let Module { element, name, at } = module;
    let Some(protocol) = element.text("protocol") else { return };
    let place = parent.place("via");
    if protocol != wanted {
        let message = format!(
            "{article} {scheme} address needs a module of protocol {wanted}; \"{name}\" ({at}) is \
             {protocol}"
        );
        let mut help = format!("add a module with protocol=\"{wanted}\"");
        match protocol {
            "http" => help.push_str(", or write url=\"https://…:7443\""),
            "mail" => help.push_str(", or write url=\"mailto:…\""),
            "file" => help.push_str(", or write url=\"file:/…\""),
            _ => {}
        }
        rules.report.add(place, Code::Conflict, message, help);
        return;
    }
    let Some(encryption) = element.text("encryption") else { return };
    // A combination that cannot be is told at the module itself.
    if !schema::ENCRYPTIONS.contains(&encryption) || !encryptions(protocol).contains(&encryption) {
        return;
    }
    if scheme == "https" && encryption != "tls" {
        let message =
            format!("an https address needs encryption tls; \"{name}\" ({at}) has {encryption}");
        let help = "use a module with encryption=\"tls\", or write url=\"http://…\"";
        rules.report.add(place, Code::Conflict, message, help);
    } else if scheme == "http" && encryption == "tls" {
        let message = format!("an http address is not encrypted, and \"{name}\" ({at}) wants tls");
        let help = "write url=\"https://…\", or use a module with encryption=\"sealed\"";
        rules.report.add(place, Code::Conflict, message, help);
    }
}
