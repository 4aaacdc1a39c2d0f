//! What keeps a sound configuration from being launched: what is not built yet, and plain links.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use super::Config;
use super::problem::{Code, Place, Problem};
use super::reach::{is_private, own_addresses};
use super::settings::{Authentication, CommunicationsModule, Encryption, Protocol, WebDoor};
use super::value::is_loopback;

/// One link without encryption.
struct Plain {
    /// In a sentence.
    what: String,
    at: Place,
    to: Reach,
    /// A browser on this machine needs no TLS; nodes do.
    fine_on_loopback: bool,
}

enum Reach {
    Bind(SocketAddr),
    Url(String),
}

impl Config {
    /// All that keeps this node from starting here and now: what is not built yet, plain links
    /// without `--insecure`, and plain links on public addresses with it. Resolves names, so it
    /// may block on DNS.
    pub fn launch_problems(&self, insecure: bool) -> Vec<Problem> {
        let mut problems = self.not_built_problems();
        if self.needs_insecure() && !insecure {
            let plain = self.plain_links();
            for plain in plain.iter().filter(|plain| !plain.is_fine()) {
                let message = format!("{} is plain: nothing protects it", plain.what);
                let help = "until mTLS exists, start with --insecure: it allows plain links on \
                            loopback and private addresses";
                problems.push(self.problem(plain.at, message, help));
            }
        } else {
            problems.extend(self.insecure_problems());
        }
        problems.sort_by_key(|problem| problem.place);
        problems
    }

    /// Whether it has a plain link that `--insecure` has to allow: an exchange door or parent
    /// without encryption anywhere, a plain API, portal or server beyond loopback.
    pub fn needs_insecure(&self) -> bool {
        self.plain_links().iter().any(|plain| !plain.is_fine())
    }

    /// What nothing protects, in a sentence; `None` where `--insecure` is not needed.
    pub fn plain_told(&self) -> Option<String> {
        let plain = self.plain_links();
        let open: Vec<&str> =
            plain.iter().filter(|link| !link.is_fine()).map(|link| link.what.as_str()).collect();
        let (be, who) = if open.len() == 1 { ("is", "it") } else { ("are", "them") };
        let told =
            || format!("{} {be} plain: the network can read and change {who}", open.join(", "));
        (!open.is_empty()).then(told)
    }

    /// Plain links on public addresses, which `--insecure` does not allow either. Resolves the
    /// names of parents; one that has no address now is not judged, as nothing can be sent there.
    pub fn insecure_problems(&self) -> Vec<Problem> {
        let resolve = |host: &str| -> Vec<IpAddr> {
            let found = (host, 0).to_socket_addrs();
            found.map(|all| all.map(|address| address.ip()).collect()).unwrap_or_default()
        };
        self.insecure_problems_with(&own_addresses(), &resolve)
    }

    /// As [`Config::insecure_problems`], with this host's addresses and a resolver of names.
    pub fn insecure_problems_with(
        &self,
        own: &[IpAddr],
        resolve: &dyn Fn(&str) -> Vec<IpAddr>,
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        for plain in self.plain_links() {
            let (public, shown) = match &plain.to {
                Reach::Bind(bind) => (public_bind(*bind, own), bind.ip().to_string()),
                Reach::Url(url) => {
                    let host = host_of(url).unwrap_or_default();
                    let addresses = match host.parse() {
                        Ok(address) => vec![address],
                        Err(_) => resolve(&host),
                    };
                    (addresses.into_iter().any(|address| !is_private(address)), host)
                }
            };
            if public {
                let message = format!("{} is plain, and {shown} is public", plain.what);
                let help =
                    "use a private or loopback address, or encryption=\"tls\" when it exists";
                problems.push(self.problem(plain.at, message, help));
            }
        }
        problems
    }

    /// What the file asks for and this build does not have; each says `not built yet`.
    pub fn not_built_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |at: Place, message: String, help: &str| {
            problems.push(self.problem(at, message, help));
        };
        if let Some(message) = self.roles.not_built() {
            let help = "each role alone, or applications-mlm with app-server; not the managers";
            add(self.places.roles, message, help);
        }
        let exchange = self.doors.exchange.iter().map(|door| door.via.as_str());
        let parents = self.parents.list.iter().map(|parent| parent.via.as_str());
        let doors = exchange.zip(&self.places.exchange);
        for (via, at) in doors.chain(parents.zip(&self.places.parents)) {
            let Some(what) = self.module(via).and_then(not_built) else { continue };
            let help = "use protocol=\"http\" encryption=\"none\" authentication=\"none\"";
            add(*at, format!("module \"{via}\" has {what}, which is not built yet"), help);
        }
        let doors = [("API", &self.doors.api, self.places.api), {
            ("portal", &self.doors.portal, self.places.portal)
        }];
        for (name, door, at) in doors {
            if door.as_ref().is_some_and(|door| door.certificate.is_some()) {
                let message = format!("the {name} door has a certificate: TLS is not built yet");
                add(at, message, "take certificate and key out, and stay on loopback");
            }
        }
        let queue = (&self.store.queue, self.places.queue);
        for (url, at) in [queue, (&self.records.url, self.places.records)] {
            let Some(url) = url else { continue };
            let scheme = url.split(':').next().unwrap_or_default();
            let message = format!("a store at {scheme}: is not built yet");
            add(at, message, "take the attribute out: the embedded store is used");
        }
        for (service, at) in self.services.iter().zip(&self.places.services) {
            if service.kind == "wasm" {
                let message = "service modules of kind wasm are not built yet".to_owned();
                add(*at, message, "take the service out");
            }
        }
        problems
    }

    fn problem(&self, at: Place, message: String, help: &str) -> Problem {
        Problem::at(&self.file, at, Code::Conflict, message, help.to_owned())
    }

    fn plain_links(&self) -> Vec<Plain> {
        let mut plain = Vec::new();
        let is_plain = |via: &str| self.module(via).is_some_and(CommunicationsModule::is_plain);
        for (door, at) in self.doors.exchange.iter().zip(&self.places.exchange) {
            if is_plain(&door.via) {
                let what = "the exchange door".to_owned();
                let to = Reach::Bind(door.bind);
                plain.push(Plain { what, at: *at, to, fine_on_loopback: false });
            }
        }
        for (parent, at) in self.parents.list.iter().zip(&self.places.parents) {
            if is_plain(&parent.via) {
                let what = format!("the link to {}", parent.url);
                let to = Reach::Url(parent.url.clone());
                plain.push(Plain { what, at: *at, to, fine_on_loopback: false });
            }
        }
        let web = |door: &Option<WebDoor>| {
            door.as_ref().filter(|door| door.certificate.is_none()).map(|door| door.bind)
        };
        let doors = [("the API", &self.doors.api, self.places.api), {
            ("the portal", &self.doors.portal, self.places.portal)
        }];
        for (what, door, at) in doors {
            if let Some(bind) = web(door) {
                let to = Reach::Bind(bind);
                plain.push(Plain { what: what.to_owned(), at, to, fine_on_loopback: true });
            }
        }
        if let Some(content) = self.content.as_ref().filter(|c| c.server.starts_with("http:")) {
            let what = format!("the link to {}", content.server);
            let to = Reach::Url(content.server.clone());
            plain.push(Plain { what, at: self.places.content, to, fine_on_loopback: true });
        }
        plain
    }
}

impl Plain {
    /// Whether it needs no flag.
    fn is_fine(&self) -> bool {
        let loopback = match &self.to {
            Reach::Bind(bind) => is_loopback(bind.ip()),
            Reach::Url(url) => host_of(url)
                .is_some_and(|host| host == "localhost" || host.parse().is_ok_and(is_loopback)),
        };
        self.fine_on_loopback && loopback
    }
}

/// Every address of the host counts when a door listens on all of them.
fn public_bind(bind: SocketAddr, own: &[IpAddr]) -> bool {
    if !bind.ip().is_unspecified() {
        return !is_private(bind.ip());
    }
    let mut reached = own.iter().filter(|address| bind.is_ipv6() || address.is_ipv4());
    own.is_empty() || reached.any(|address| !is_private(*address))
}

/// The host of an address, without brackets.
fn host_of(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    let host = url.host_str()?;
    Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

/// What of a module this build does not have.
fn not_built(module: &CommunicationsModule) -> Option<String> {
    if module.protocol != Protocol::Http {
        return Some(format!("protocol {}", module.protocol.as_str()));
    }
    if module.encryption != Encryption::None {
        return Some(format!("encryption {}", module.encryption.as_str()));
    }
    if module.authentication != Authentication::None {
        return Some(format!("authentication {}", module.authentication.as_str()));
    }
    module.http_proxy.as_ref().map(|_| "an HTTP proxy".to_owned())
}
