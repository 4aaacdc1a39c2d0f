//! Rules of the doors: who may have which, where they may listen, and that no two want one port.

use std::net::SocketAddr;

use super::checked::Checked;
use super::links::{self, Module};
use super::problem::{Code, Place};
use super::rules::{Rules, SOCKET_PATH_BYTES_MAX};
use super::schema::OPERATOR_BIND;
use super::value::{is_loopback, parse_bind};
use crate::role::Role;

pub(crate) fn check(rules: &mut Rules<'_>) {
    let modules = links::modules(rules.node);
    if let Some(doors) = rules.node.child("doors") {
        for door in &doors.children {
            fits_role(rules, door);
            match door.rule.name {
                "exchange" => exchange(rules, door, &modules),
                "operator" => operator(rules, door),
                "integrator" => integrator(rules, door),
                _ => certificate_and_key(rules, door),
            }
        }
    }
    ports(rules);
}

/// A door that nobody of this node stands behind is a mistake.
fn fits_role(rules: &mut Rules<'_>, door: &Checked) {
    use Role::{
        AppServer, ApplicationsMlm, BandwidthManager, CertificateManager, ContentMlm, Mlm, Proxy,
    };
    let (roles, help): (&[Role], &str) = match door.rule.name {
        "exchange" => (
            &[Mlm, ApplicationsMlm, AppServer, CertificateManager, BandwidthManager],
            "take it out: nothing is sent to this node over the network",
        ),
        "api" => (&[AppServer, ContentMlm], "move it to the app-server"),
        "portal" => (&[AppServer, ContentMlm], "move it to the content-mlm"),
        "integrator" => (&[Proxy], "move it to the proxy"),
        _ => return,
    };
    if !rules.may(roles) {
        let message = format!("{} has no {} door", rules.who(), door.rule.name);
        rules.report.add(door.at, Code::Conflict, message, help);
    }
}

fn exchange(rules: &mut Rules<'_>, door: &Checked, modules: &[Module<'_>]) {
    let Some(module) = links::resolve(rules, door, modules) else { return };
    let Module { element, name, at } = module;
    let place = door.place("via");
    if let Some(protocol) = element.text("protocol").filter(|protocol| *protocol != "http") {
        let message = format!(
            "an exchange door needs a module of protocol http; \"{name}\" ({at}) is {protocol}"
        );
        rules.report.add(place, Code::Conflict, message, "add a module with protocol=\"http\"");
        return;
    }
    // AGM-3: a shared MLM has to know whom it serves, but for `--insecure`.
    let aggregation = rules.node.text("mlm") == Some("aggregation") && rules.has(Role::Mlm);
    if aggregation && !rules.insecure && element.text("authentication") == Some("none") {
        let message = format!(
            "an aggregation MLM serves several customers and must authenticate them; module \
             \"{name}\" ({at}) does not"
        );
        let authenticates = |module: &&Module<'_>| {
            module.element.text("protocol") == Some("http")
                && module.element.text("authentication") == Some("certificate")
        };
        let help = match modules.iter().find(authenticates) {
            Some(module) => format!(
                "use a module with authentication=\"certificate\", as via=\"{}\"",
                module.name
            ),
            None => "add a module with authentication=\"certificate\", and name it here".to_owned(),
        };
        rules.report.add(place, Code::Conflict, message, help);
    }
}

fn operator(rules: &mut Rules<'_>, door: &Checked) {
    let Some(address) = door.text("bind").and_then(parse_bind) else { return };
    if is_loopback(address.ip()) {
        return;
    }
    let ip = address.ip();
    let reach = if ip.is_unspecified() { "every address" } else { "reached from elsewhere" };
    let message =
        format!("the operator's door is plain and must stay on this machine; {ip} is {reach}");
    let local = if ip.is_ipv4() { "127.0.0.1" } else { "[::1]" };
    let help = format!("bind=\"{local}:{}\"", address.port());
    rules.report.add(door.place("bind"), Code::Conflict, message, help);
}

fn integrator(rules: &mut Rules<'_>, door: &Checked) {
    let Some(socket) = door.text("socket").filter(|path| path.len() > SOCKET_PATH_BYTES_MAX) else {
        return;
    };
    let message =
        format!("the socket's path has {} bytes, above {SOCKET_PATH_BYTES_MAX}", socket.len());
    let help = "as in socket=\"/run/callhome/integrator.sock\"";
    rules.report.add(door.place("socket"), Code::BadValue, message, help);
}

fn certificate_and_key(rules: &mut Rules<'_>, door: &Checked) {
    for (given, missing) in [("certificate", "key"), ("key", "certificate")] {
        if door.given(given).is_some() && door.given(missing).is_none() {
            let message = format!("<{}> has a {given} and lacks {missing}", door.rule.name);
            let help = "name both, or neither for a plain door";
            rules.report.add(door.at, Code::MissingAttribute, message, help);
        }
    }
}

/// A door by its name, where its address stands, and the address.
struct Wanted {
    name: &'static str,
    at: Option<Place>,
    address: SocketAddr,
}

fn ports(rules: &mut Rules<'_>) {
    let mut wanted: Vec<Wanted> = Vec::new();
    let doors = rules.node.child("doors");
    for door in doors.map(|doors| doors.children.as_slice()).unwrap_or_default() {
        let Some(address) = door.text("bind").and_then(parse_bind) else { continue };
        wanted.push(Wanted { name: door.rule.name, at: Some(door.place("bind")), address });
    }
    let has_operator = doors.is_some_and(|doors| doors.child("operator").is_some());
    if let Some(address) = parse_bind(OPERATOR_BIND).filter(|_| !has_operator) {
        wanted.insert(0, Wanted { name: "operator", at: None, address });
    }
    for (index, later) in wanted.iter().enumerate() {
        let clash = wanted[..index].iter().find(|door| overlap(door.address, later.address));
        let (Some(earlier), Some(place)) = (clash, later.at) else { continue };
        let port = later.address.port();
        let first = match earlier.at {
            Some(at) => format!("{} ({at})", earlier.name),
            None => format!("{} ({OPERATOR_BIND} unless given)", earlier.name),
        };
        let message = format!("{} and {first} both want port {port}", later.name);
        let (whose, usual) = match later.name {
            "operator" => ("the operator's door", 7070),
            "portal" => ("the portal", 7080),
            "api" => ("the API", 7081),
            _ => ("the exchange door", 7443),
        };
        let help = if usual == port {
            format!("give {} a port of its own", earlier.name)
        } else {
            format!("give {whose} its own port; {usual} is usual")
        };
        rules.report.add(place, Code::Conflict, message, help);
    }
}

/// Whether two listeners cannot both be: port 0 is any free one, `[::]` takes IPv4 too.
fn overlap(left: SocketAddr, right: SocketAddr) -> bool {
    if left.port() != right.port() || left.port() == 0 {
        return false;
    }
    let covers = |all: SocketAddr, one: SocketAddr| {
        all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4())
    };
    left.ip() == right.ip() || covers(left, right) || covers(right, left)
}
