//! Writes the XML of a node that needs no administrator: for `up`, read by the same checker.

use std::net::SocketAddr;
use std::path::Path;

use uuid::Uuid;

use super::xml::NAMESPACE;
use crate::role::RoleSet;

/// A node on this machine with plain links over loopback.
#[derive(Clone, Debug)]
pub struct LocalNode<'n> {
    /// Its name; lower-case letters, digits, `.`, `_`, `-`.
    pub name: &'n str,
    /// What it is for.
    pub roles: RoleSet,
    /// Whose it is.
    pub customer: Uuid,
    /// Security group.
    pub group: Option<&'n str>,
    /// Where it sends: `http://127.0.0.1:…`.
    pub parent: Option<&'n str>,
    /// Where children come in; port 0 is any free one.
    pub exchange: Option<SocketAddr>,
    /// The operator's door.
    pub operator: SocketAddr,
    /// The application server's API.
    pub api: Option<SocketAddr>,
    /// The portal.
    pub portal: Option<SocketAddr>,
    /// Where a content MLM gets what it shows.
    pub content: Option<&'n str>,
    /// The integrators' socket.
    pub socket: Option<&'n Path>,
    /// Integrators by kind, each with its options.
    pub integrators: &'n [(&'n str, Vec<(&'n str, String)>)],
}

/// The file of a local node, for [`super::Config::parse`].
pub fn node_xml(node: &LocalNode<'_>) -> String {
    let mut xml = Lines(String::new());
    xml.line(
        0,
        "node",
        &[
            ("xmlns", Some(NAMESPACE)),
            ("name", Some(node.name)),
            ("roles", Some(&node.roles.to_string())),
        ],
    );
    let customer = node.customer.to_string();
    xml.leaf(1, "identity", &[("customer", Some(&customer)), ("group", node.group)]);
    xml.line(1, "communications", &[]);
    xml.leaf(
        2,
        "module",
        &[
            ("name", Some("local")),
            ("protocol", Some("http")),
            ("encryption", Some("none")),
            ("authentication", Some("none")),
        ],
    );
    xml.end(1, "communications");
    if let Some(url) = node.parent {
        xml.line(1, "parents", &[]);
        xml.leaf(2, "parent", &[("url", Some(url)), ("via", Some("local"))]);
        xml.end(1, "parents");
    }
    doors(&mut xml, node);
    if !node.integrators.is_empty() {
        xml.line(1, "integrators", &[]);
        for (kind, options) in node.integrators {
            xml.line(2, "integrator", &[("name", Some(kind)), ("kind", Some(kind))]);
            for (name, value) in options {
                xml.leaf(3, "option", &[("name", Some(name)), ("value", Some(value))]);
            }
            xml.end(2, "integrator");
        }
        xml.end(1, "integrators");
    }
    xml.leaf_if(1, "content", &[("server", node.content)]);
    xml.end(0, "node");
    xml.0
}

fn doors(xml: &mut Lines, node: &LocalNode<'_>) {
    let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
    xml.line(1, "doors", &[]);
    if let Some(bind) = text(node.exchange) {
        xml.leaf(2, "exchange", &[("bind", Some(&bind)), ("via", Some("local"))]);
    }
    xml.leaf_if(2, "api", &[("bind", text(node.api).as_deref())]);
    xml.leaf_if(2, "portal", &[("bind", text(node.portal).as_deref())]);
    xml.leaf_if(2, "operator", &[("bind", text(Some(node.operator)).as_deref())]);
    let socket = node.socket.map(|socket| socket.to_string_lossy());
    xml.leaf_if(2, "integrator", &[("socket", socket.as_deref())]);
    xml.end(1, "doors");
}

/// XML, a line an element.
struct Lines(String);

type Values<'v> = [(&'v str, Option<&'v str>)];

impl Lines {
    fn line(&mut self, depth: usize, name: &str, values: &Values<'_>) {
        self.tag(depth, name, values, ">\n");
    }

    fn leaf(&mut self, depth: usize, name: &str, values: &Values<'_>) {
        self.tag(depth, name, values, "/>\n");
    }

    /// Writes nothing when no attribute has a value.
    fn leaf_if(&mut self, depth: usize, name: &str, values: &Values<'_>) {
        if values.iter().any(|(_, value)| value.is_some()) {
            self.leaf(depth, name, values);
        }
    }

    fn end(&mut self, depth: usize, name: &str) {
        self.0.push_str(&format!("{}</{name}>\n", "  ".repeat(depth)));
    }

    fn tag(&mut self, depth: usize, name: &str, values: &Values<'_>, end: &str) {
        self.0.push_str(&format!("{}<{name}", "  ".repeat(depth)));
        for (name, value) in values {
            let Some(value) = value else { continue };
            let value = value.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
            self.0.push_str(&format!(" {name}=\"{value}\""));
        }
        self.0.push_str(end);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Config, Environment, IntegratorProgram};
    use crate::role::Role;

    #[test]
    fn a_local_node_passes_the_checker() {
        let options = vec![("listen", "127.0.0.1:1162".to_owned())];
        let xml = node_xml(&LocalNode {
            name: "proxy",
            roles: RoleSet::of([Role::Proxy]),
            customer: Uuid::from_u128(7),
            group: None,
            parent: Some("http://127.0.0.1:7443"),
            exchange: None,
            operator: ([127, 0, 0, 1], 0).into(),
            api: None,
            portal: None,
            content: None,
            socket: Some(Path::new("./a \"b\" & <c>/integrator.sock")),
            integrators: &[("snmp", options)],
        });
        let config = Config::parse(&xml, "proxy", &Environment::of([], "h")).unwrap();
        assert_eq!(config.parents.list[0].url, "http://127.0.0.1:7443");
        let socket = config.doors.integrator.as_ref().unwrap().socket.as_ref().unwrap();
        assert_eq!(socket, Path::new("./a \"b\" & <c>/integrator.sock"));
        assert_eq!(config.integrators[0].program, IntegratorProgram::Kind("snmp".into()));
        assert!(config.needs_insecure());
        assert!(config.launch_problems(true).is_empty());
        assert_eq!(config.launch_problems(false).len(), 1);
    }
}
