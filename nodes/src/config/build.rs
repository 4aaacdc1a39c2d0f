//! From a checked tree to types. `None` anywhere means that the check let something through.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::calendar::Calendar;
use super::checked::Checked;
use super::environment::Environment;
use super::print::heartbeat_every_s;
use super::problem::Place;
use super::schema::OPERATOR_BIND;
use super::secret::SecretFile;
use super::settings::*;
use super::{Config, default_store_bytes, rules, value};
use crate::role::{Role, RoleSet};

/// Where in the file stands what a launch may have to complain about.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub roles: Place,
    /// Of the addresses of exchange doors, in order.
    pub exchange: Vec<Place>,
    /// Of the addresses of parents, in order.
    pub parents: Vec<Place>,
    pub api: Place,
    pub portal: Place,
    pub content: Place,
    pub queue: Place,
    pub records: Place,
    /// Of service modules, in order.
    pub services: Vec<Place>,
}

/// The configuration, but for its file, digest and print.
pub(crate) fn config(node: &Checked, environment: &Environment) -> Option<Config> {
    let roles = rules::roles_of(node.text("roles")?);
    let name = node.text("name").map_or_else(|| environment.node_name(), str::to_owned);
    Some(Config {
        file: String::new(),
        digest: String::new(),
        effective: String::new(),
        name,
        mlm: MlmKind::parse(node.text("mlm")?)?,
        drain_within: seconds(node, "drain-within-s")?,
        identity: identity(node.child("identity")?)?,
        modules: list(node, "communications", "module", module)?,
        parents: parents(node)?,
        doors: doors(node, &roles)?,
        store: store(node, &roles)?,
        throttle: throttle(node)?,
        bandwidth: bandwidth(node)?,
        heartbeat: heartbeat(node)?,
        back_channel: back_channel(node)?,
        bulk_attempts: implied(node, "bulk", |bulk| count(bulk, "attempts"))?,
        services: list(node, "services", "service", service)?,
        integrators: list(node, "integrators", "integrator", integrator)?,
        records: implied(node, "records", records)?,
        content: maybe(node.child("content"), content)?,
        certificates: maybe(node.child("certificates"), certificates)?,
        telemetry: implied(node, "telemetry", telemetry)?,
        places: places(node),
        roles,
    })
}

/// Reads a child, or what its absence says: its defaults.
fn implied<T>(node: &Checked, name: &str, read: impl Fn(&Checked) -> Option<T>) -> Option<T> {
    match node.child(name) {
        Some(child) => read(child),
        None => read(&node.implied(name)?),
    }
}

/// Reads a child that may be absent.
fn maybe<T>(child: Option<&Checked>, read: impl Fn(&Checked) -> Option<T>) -> Option<Option<T>> {
    match child {
        Some(child) => read(child).map(Some),
        None => Some(None),
    }
}

/// Reads all children of one name in a child that may be absent.
fn list<T>(
    node: &Checked,
    outer: &str,
    inner: &str,
    read: impl Fn(&Checked) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(outer) = node.child(outer) else { return Some(Vec::new()) };
    outer.all(inner).map(read).collect()
}

fn string(element: &Checked, name: &str) -> Option<String> {
    element.text(name).map(str::to_owned)
}

fn path(element: &Checked, name: &str) -> Option<PathBuf> {
    element.text(name).map(PathBuf::from)
}

fn secret(element: &Checked, name: &str) -> Option<SecretFile> {
    SecretFile::parse(element.text(name)?)
}

fn seconds(element: &Checked, name: &str) -> Option<Duration> {
    element.number(name).map(Duration::from_secs)
}

fn count(element: &Checked, name: &str) -> Option<u32> {
    u32::try_from(element.number(name)?).ok()
}

fn customer(element: &Checked) -> Option<Uuid> {
    Uuid::parse_str(element.text("customer")?).ok()
}

fn identity(element: &Checked) -> Option<Identity> {
    Some(Identity {
        customer: customer(element)?,
        component: count(element, "component"),
        group: string(element, "group"),
        certificate: path(element, "certificate"),
        key: secret(element, "key"),
        trust: path(element, "trust"),
        enrolment_token: secret(element, "enrolment-token"),
    })
}

fn module(element: &Checked) -> Option<CommunicationsModule> {
    let http_proxy = |proxy: &Checked| {
        let (url, user) = (string(proxy, "url")?, string(proxy, "user"));
        Some(HttpProxy { url, user, password: secret(proxy, "password") })
    };
    let mail = |mail: &Checked| {
        let (relay, from) = (string(mail, "relay")?, string(mail, "from")?);
        let (user, password) = (string(mail, "user"), secret(mail, "password"));
        Some(MailRelay { relay, from, user, password })
    };
    Some(CommunicationsModule {
        name: string(element, "name")?,
        protocol: Protocol::parse(element.text("protocol")?)?,
        encryption: Encryption::parse(element.text("encryption")?)?,
        authentication: Authentication::parse(element.text("authentication")?)?,
        tls_min: TlsVersion::parse(element.text("tls-min")?)?,
        http_proxy: maybe(element.child("http-proxy"), http_proxy)?,
        mail: maybe(element.child("mail"), mail)?,
    })
}

fn parents(node: &Checked) -> Option<Parents> {
    let parent = |parent: &Checked| {
        Some(Parent { url: string(parent, "url")?, via: string(parent, "via")? })
    };
    implied(node, "parents", |parents| {
        Some(Parents {
            list: parents.all("parent").map(parent).collect::<Option<Vec<_>>>()?,
            unhealthy_after: seconds(parents, "unhealthy-after-s")?,
            return_after: seconds(parents, "return-after-s")?,
            reconfigure: string(parents, "reconfigure"),
        })
    })
}

fn doors(node: &Checked, roles: &RoleSet) -> Option<Doors> {
    let exchange = |door: &Checked| {
        let bind = value::parse_bind(door.text("bind")?)?;
        Some(ExchangeDoor { bind, via: string(door, "via")? })
    };
    let web = |door: &Checked| {
        let (certificate, key) = (path(door, "certificate"), secret(door, "key"));
        Some(WebDoor { bind: value::parse_bind(door.text("bind")?)?, certificate, key })
    };
    let integrator = |door: Option<&Checked>| IntegratorDoor {
        socket: door
            .and_then(|door| door.given("socket"))
            .map(|socket| PathBuf::from(&socket.text)),
        group: door.and_then(|door| string(door, "group")),
    };
    implied(node, "doors", |doors| {
        let operator = doors.child("operator").and_then(|door| door.text("bind"));
        Some(Doors {
            exchange: doors.all("exchange").map(exchange).collect::<Option<Vec<_>>>()?,
            api: maybe(doors.child("api"), web)?,
            portal: maybe(doors.child("portal"), web)?,
            operator: value::parse_bind(operator.unwrap_or(OPERATOR_BIND))?,
            integrator: roles.has(Role::Proxy).then(|| integrator(doors.child("integrator"))),
        })
    })
}

fn store(node: &Checked, roles: &RoleSet) -> Option<Store> {
    implied(node, "store", |store| {
        let limit = |which: &str| {
            let mut limits = store.all("limit");
            limits.find(|limit| limit.text("precedence") == Some(which))?.number("bytes")
        };
        Some(Store {
            queue: string(store, "queue"),
            bytes: store.number("bytes").unwrap_or_else(|| default_store_bytes(roles)),
            urgent_bytes: limit("urgent"),
            normal_bytes: limit("normal"),
            bulk_bytes: limit("bulk"),
            keep_free_bytes: store.number("keep-free-bytes")?,
            set_aside_bytes: store.number("set-aside-bytes")?,
        })
    })
}

fn ceilings(element: &Checked) -> Ceilings {
    Ceilings {
        bytes_per_s: element.number("bytes-per-s"),
        bytes_per_hour: element.number("bytes-per-hour"),
        bytes_per_day: element.number("bytes-per-day"),
        messages_per_hour: element.number("messages-per-hour"),
        messages_per_day: element.number("messages-per-day"),
    }
}

/// Days and hours of a window or of a rule of the policy.
pub(crate) fn calendar(element: &Checked) -> Option<Calendar> {
    Calendar::parse(element.text("days")?, element.text("from")?, element.text("to")?)
}

fn throttle(node: &Checked) -> Option<Throttle> {
    let window = |window: &Checked| {
        Some(ThrottleWindow {
            calendar: calendar(window)?,
            send: WindowSend::parse(window.text("send")?)?,
            ceilings: ceilings(window),
        })
    };
    implied(node, "throttle", |throttle| {
        let zone_name = string(throttle, "zone")?;
        Some(Throttle {
            zone: TimeZone::get(&zone_name).ok()?,
            zone_name,
            bytes_per_message: throttle.number("bytes-per-message"),
            bulk_share_percent: u8::try_from(throttle.number("bulk-share-percent")?).ok()?,
            ceilings: ceilings(throttle),
            windows: throttle.all("window").map(window).collect::<Option<Vec<_>>>()?,
        })
    })
}

fn bandwidth(node: &Checked) -> Option<Bandwidth> {
    let allocation = |allocation: &Checked| {
        Some(Allocation {
            customer: customer(allocation),
            class: string(allocation, "class"),
            bytes_per_s: allocation.number("bytes-per-s")?,
            bulk_bytes: allocation.number("bulk-bytes"),
        })
    };
    implied(node, "bandwidth", |bandwidth| {
        Some(Bandwidth {
            manager: string(bandwidth, "manager"),
            bytes_per_s: bandwidth.number("bytes-per-s"),
            allocations: bandwidth.all("allocation").map(allocation).collect::<Option<_>>()?,
        })
    })
}

fn heartbeat(node: &Checked) -> Option<Heartbeat> {
    implied(node, "heartbeat", |heartbeat| {
        let every_s = heartbeat.number("every-s").unwrap_or_else(|| heartbeat_every_s(node));
        Some(Heartbeat {
            every: Duration::from_secs(every_s),
            register_again_after: count(heartbeat, "register-again-after")?,
            instances: value::parse_boolean(heartbeat.text("instances")?)?,
            status_within: seconds(heartbeat, "status-within-s")?,
        })
    })
}

fn back_channel(node: &Checked) -> Option<BackChannel> {
    implied(node, "back-channel", |channel| {
        Some(BackChannel { keep: seconds(channel, "keep-s")?, at_once: count(channel, "at-once")? })
    })
}

fn pair(element: &Checked) -> Option<(String, String)> {
    Some((string(element, "name")?, string(element, "value")?))
}

fn service(element: &Checked) -> Option<Service> {
    let subscription = |subscribe: &Checked| {
        Some(Subscription {
            class: string(subscribe, "class")?,
            subclass: string(subscribe, "subclass"),
            channel: SubscribedChannel::parse(subscribe.text("channel")?)?,
        })
    };
    Some(Service {
        name: string(element, "name")?,
        kind: string(element, "kind")?,
        program: path(element, "program"),
        sha256: string(element, "sha256"),
        memory_bytes: element.number("memory-bytes")?,
        when_failing: WhenFailing::parse(element.text("when-failing")?)?,
        subscriptions: element.all("subscribe").map(subscription).collect::<Option<_>>()?,
        settings: element.all("set").map(pair).collect::<Option<_>>()?,
    })
}

fn integrator(element: &Checked) -> Option<Integrator> {
    let program = match element.text("kind") {
        Some(kind) => IntegratorProgram::Kind(kind.to_owned()),
        None => IntegratorProgram::Program(path(element, "program")?),
    };
    let options = element.all("option").map(pair).collect::<Option<_>>()?;
    Some(Integrator { name: string(element, "name")?, program, options })
}

fn records(element: &Checked) -> Option<Records> {
    Some(Records {
        url: string(element, "url"),
        keep_days: count(element, "keep-days")?,
        grace_days: count(element, "grace-days")?,
        archive: path(element, "archive"),
    })
}

fn content(element: &Checked) -> Option<Content> {
    let token = secret(element, "token");
    Some(Content { server: string(element, "server")?, token, cache: seconds(element, "cache-s")? })
}

fn certificates(element: &Checked) -> Option<Certificates> {
    Some(Certificates {
        issuing_certificate: path(element, "issuing-certificate")?,
        issuing_key: secret(element, "issuing-key")?,
        valid_days: count(element, "valid-days")?,
        renew_after_expiry: RenewAfterExpiry::parse(element.text("renew-after-expiry")?)?,
    })
}

fn telemetry(element: &Checked) -> Option<Telemetry> {
    Some(Telemetry {
        log: string(element, "log")?,
        log_format: LogFormat::parse(element.text("log-format")?)?,
        otlp: string(element, "otlp"),
        traces_percent: value::parse_decimal(element.text("traces-percent")?)?,
        not_delivering_after: seconds(element, "not-delivering-after-s")?,
    })
}

fn places(node: &Checked) -> Places {
    let of =
        |outer: &str, name: &str| node.child(outer).map_or(node.at, |element| element.place(name));
    let all = |outer: &str, inner: &str, name: &str| -> Vec<Place> {
        let outer = node.child(outer);
        outer.map(|o| o.all(inner).map(|e| e.place(name)).collect()).unwrap_or_default()
    };
    let door = |name: &str| {
        let door = node.child("doors").and_then(|doors| doors.child(name));
        door.map_or(node.at, |door| door.place("bind"))
    };
    Places {
        roles: node.place("roles"),
        exchange: all("doors", "exchange", "bind"),
        parents: all("parents", "parent", "url"),
        api: door("api"),
        portal: door("portal"),
        content: of("content", "server"),
        queue: of("store", "queue"),
        records: of("records", "url"),
        services: all("services", "service", "kind"),
    }
}
