//! The schema as a table: which elements and attributes there are, in the order of callhome.xsd.

use super::value::Kind;
use super::value::Kind::{
    Any, Bind, Boolean, Clock, Customer, Days, Decimal, LogFilter, Name, Number, OneOf, Path,
    Roles, Secret, Sha256, Text, Url, Zone,
};

/// Whether an attribute has to be there.
#[derive(Debug)]
pub(crate) enum Need {
    /// It has; the help says how to get it.
    Required(&'static str),
    /// Left out it says nothing.
    Optional,
    /// Left out it is this.
    Default(&'static str),
}

/// One attribute of an element.
#[derive(Debug)]
pub(crate) struct AttributeRule {
    pub name: &'static str,
    pub kind: Kind,
    pub need: Need,
}

/// One kind of child of an element, and how many of it.
#[derive(Debug)]
pub(crate) struct ChildRule {
    pub element: &'static ElementRule,
    pub min: usize,
    pub max: usize,
}

/// One element.
#[derive(Debug)]
pub(crate) struct ElementRule {
    pub name: &'static str,
    pub attributes: &'static [AttributeRule],
    pub children: &'static [ChildRule],
    /// Most children of all kinds together.
    pub children_max: usize,
    /// Children of different kinds keep the order of the table.
    pub in_order: bool,
}

/// Ten years in seconds: no interval is longer.
const SECONDS_MAX: u64 = 315_576_000;
const COUNT: Kind = Number { min: 1, max: 0xffff_ffff };
const SECONDS: Kind = Number { min: 1, max: SECONDS_MAX };
const BYTES: Kind = Number { min: 1, max: u64::MAX };
const DAYS_KEPT: Kind = Number { min: 1, max: 36_525 };
const ANY_BYTES: Kind = Number { min: 0, max: u64::MAX };
const WEB: Kind = Url(&["https", "http"]);
const KEY: Kind = Secret("file:/var/lib/callhome/identity/key.pem");

const fn required(name: &'static str, kind: Kind, help: &'static str) -> AttributeRule {
    AttributeRule { name, kind, need: Need::Required(help) }
}
const fn optional(name: &'static str, kind: Kind) -> AttributeRule {
    AttributeRule { name, kind, need: Need::Optional }
}
const fn default(name: &'static str, kind: Kind, value: &'static str) -> AttributeRule {
    AttributeRule { name, kind, need: Need::Default(value) }
}
const fn leaf(name: &'static str, attributes: &'static [AttributeRule]) -> ElementRule {
    ElementRule { name, attributes, children: &[], children_max: 0, in_order: false }
}
const fn list(
    name: &'static str,
    attributes: &'static [AttributeRule],
    children: &'static [ChildRule],
    children_max: usize,
) -> ElementRule {
    ElementRule { name, attributes, children, children_max, in_order: false }
}
const fn one(element: &'static ElementRule) -> ChildRule {
    ChildRule { element, min: 0, max: 1 }
}
const fn many(element: &'static ElementRule, min: usize, max: usize) -> ChildRule {
    ChildRule { element, min, max }
}

const VIA: AttributeRule = required("via", Name, "name a module of <communications>: via=\"web\"");
const NAME_NEEDED: AttributeRule = required("name", Name, "give it a name: name=\"web\"");

/// The root of a node's configuration.
pub(crate) static NODE: ElementRule = list(
    "node",
    &[
        optional("name", Name),
        required("roles", Roles, "say what the node is for: roles=\"proxy\""),
        default("mlm", OneOf(&["customer", "aggregation"]), "customer"),
        default("drain-within-s", SECONDS, "30"),
    ],
    &[
        many(&IDENTITY, 1, 1),
        one(&COMMUNICATIONS),
        one(&PARENTS),
        one(&DOORS),
        one(&STORE),
        one(&THROTTLE),
        one(&BANDWIDTH),
        one(&HEARTBEAT),
        one(&BACK_CHANNEL),
        one(&BULK),
        one(&SERVICES),
        one(&INTEGRATORS),
        one(&RECORDS),
        one(&CONTENT),
        one(&CERTIFICATES),
        one(&TELEMETRY),
    ],
    16,
);

static IDENTITY: ElementRule = leaf(
    "identity",
    &[
        required(
            "customer",
            Customer,
            "copy the customer id from the portal: Customer, Installation",
        ),
        optional("component", Number { min: 0, max: 0xffff_ffff }),
        optional("group", Name),
        optional("certificate", Path),
        optional("key", KEY),
        optional("trust", Path),
        optional("enrolment-token", Secret("file:/etc/callhome/enrolment.token")),
    ],
);

static COMMUNICATIONS: ElementRule = list("communications", &[], &[many(&MODULE, 1, 16)], 16);
static MODULE: ElementRule = list(
    "module",
    &[
        NAME_NEEDED,
        required("protocol", OneOf(PROTOCOLS), "say how it travels: protocol=\"http\""),
        required("encryption", OneOf(ENCRYPTIONS), "say what protects it: encryption=\"tls\""),
        required(
            "authentication",
            OneOf(&["certificate", "none"]),
            "say who vouches for the other side: authentication=\"certificate\"",
        ),
        default("tls-min", OneOf(&["1.2", "1.3"]), "1.3"),
    ],
    &[one(&HTTP_PROXY), one(&MAIL)],
    1,
);
/// How a communications module travels (COM-4).
pub(crate) const PROTOCOLS: &[&str] = &["http", "mail", "file", "fax"];
/// What protects it (COM-6).
pub(crate) const ENCRYPTIONS: &[&str] = &["tls", "sealed", "smime", "pgp", "none"];
static HTTP_PROXY: ElementRule = leaf(
    "http-proxy",
    &[
        required("url", WEB, "say where it is: url=\"http://squid.customer.example:3128\""),
        optional("user", Text),
        optional("password", Secret("file:/etc/callhome/squid.password")),
    ],
);
static MAIL: ElementRule = leaf(
    "mail",
    &[
        required(
            "relay",
            Url(&["smtp", "smtps"]),
            "name the relay: relay=\"smtp://relay.customer.example:25\"",
        ),
        required("from", Text, "name the sender: from=\"callhome@customer.example\""),
        optional("user", Text),
        optional("password", Secret("file:/etc/callhome/relay.password")),
    ],
);

static PARENTS: ElementRule = list(
    "parents",
    &[
        default("unhealthy-after-s", SECONDS, "30"),
        default("return-after-s", SECONDS, "300"),
        optional("reconfigure", WEB),
    ],
    &[many(&PARENT, 1, 8)],
    8,
);
static PARENT: ElementRule = leaf(
    "parent",
    &[
        required(
            "url",
            Url(&["https", "http", "mailto", "file"]),
            "say where it is: url=\"https://…:7443\"",
        ),
        VIA,
    ],
);

static DOORS: ElementRule = list(
    "doors",
    &[],
    &[many(&EXCHANGE, 0, 16), one(&API), one(&PORTAL), one(&OPERATOR), one(&INTEGRATOR_DOOR)],
    16,
);
static EXCHANGE: ElementRule =
    leaf("exchange", &[required("bind", Bind, "say where it listens: bind=\"0.0.0.0:7443\""), VIA]);
static API: ElementRule = leaf("api", DOOR);
static PORTAL: ElementRule = leaf("portal", DOOR);
const DOOR: &[AttributeRule] = &[
    required("bind", Bind, "say where it listens: bind=\"127.0.0.1:7080\""),
    optional("certificate", Path),
    optional("key", Secret("file:/etc/callhome/portal.key")),
];
/// Where the operator's door is unless given.
pub(crate) const OPERATOR_BIND: &str = "127.0.0.1:7070";
static OPERATOR: ElementRule = leaf("operator", &[default("bind", Bind, OPERATOR_BIND)]);
static INTEGRATOR_DOOR: ElementRule = leaf(
    "integrator",
    &[default("socket", Path, "/run/callhome/integrator.sock"), optional("group", Text)],
);

static STORE: ElementRule = list(
    "store",
    &[
        optional("queue", Url(&["file", "nats"])),
        optional("bytes", BYTES),
        default("keep-free-bytes", ANY_BYTES, "268435456"),
        default("set-aside-bytes", BYTES, "67108864"),
    ],
    &[many(&LIMIT, 0, 3)],
    3,
);
static LIMIT: ElementRule = leaf(
    "limit",
    &[
        required(
            "precedence",
            OneOf(&["urgent", "normal", "bulk"]),
            "say what it limits: precedence=\"bulk\"",
        ),
        required("bytes", BYTES, "say how much: bytes=\"1073741824\" (1 GiB)"),
    ],
);

static THROTTLE: ElementRule = list(
    "throttle",
    &[
        default("zone", Zone, "UTC"),
        optional("bytes-per-message", BYTES),
        default("bulk-share-percent", Number { min: 0, max: 50 }, "5"),
        BYTES_PER_S,
        BYTES_PER_HOUR,
        BYTES_PER_DAY,
        MESSAGES_PER_HOUR,
        MESSAGES_PER_DAY,
    ],
    &[many(&WINDOW, 0, 32)],
    32,
);
const BYTES_PER_S: AttributeRule = optional("bytes-per-s", BYTES);
const BYTES_PER_HOUR: AttributeRule = optional("bytes-per-hour", BYTES);
const BYTES_PER_DAY: AttributeRule = optional("bytes-per-day", BYTES);
const MESSAGES_PER_HOUR: AttributeRule = optional("messages-per-hour", BYTES);
const MESSAGES_PER_DAY: AttributeRule = optional("messages-per-day", BYTES);
static WINDOW: ElementRule = leaf(
    "window",
    &[
        default("days", Days, "mon-sun"),
        required("from", Clock, "say when it opens: from=\"08:00\""),
        required("to", Clock, "say when it closes: to=\"18:00\""),
        default("send", OneOf(&["all", "not-bulk", "urgent", "nothing"]), "all"),
        BYTES_PER_S,
        BYTES_PER_HOUR,
        BYTES_PER_DAY,
        MESSAGES_PER_HOUR,
        MESSAGES_PER_DAY,
    ],
);

static BANDWIDTH: ElementRule = list(
    "bandwidth",
    &[optional("manager", WEB), optional("bytes-per-s", BYTES)],
    &[many(&ALLOCATION, 0, 100_000)],
    100_000,
);
static ALLOCATION: ElementRule = leaf(
    "allocation",
    &[
        optional("customer", Customer),
        optional("class", Text),
        required("bytes-per-s", BYTES, "say how much: bytes-per-s=\"250000\""),
        optional("bulk-bytes", BYTES),
    ],
);

static HEARTBEAT: ElementRule = leaf(
    "heartbeat",
    &[
        optional("every-s", SECONDS),
        default("register-again-after", COUNT, "10"),
        default("instances", Boolean, "true"),
        default("status-within-s", SECONDS, "5"),
    ],
);
static BACK_CHANNEL: ElementRule =
    leaf("back-channel", &[default("keep-s", SECONDS, "86400"), default("at-once", COUNT, "5")]);
static BULK: ElementRule = leaf("bulk", &[default("attempts", COUNT, "10")]);

static SERVICES: ElementRule = list("services", &[], &[many(&SERVICE, 0, 64)], 64);
static SERVICE: ElementRule = ElementRule {
    name: "service",
    attributes: &[
        required("name", Name, "give it a name: name=\"alarms\""),
        required("kind", Name, "say what it does: kind=\"filter\""),
        optional("program", Path),
        optional("sha256", Sha256),
        default("memory-bytes", BYTES, "16777216"),
        default("when-failing", OneOf(&["pass", "wait"]), "pass"),
    ],
    children: &[many(&SUBSCRIBE, 1, 64), many(&SET, 0, 64)],
    children_max: 128,
    in_order: true,
};
static SUBSCRIBE: ElementRule = leaf(
    "subscribe",
    &[
        required("class", Text, "say what it listens to: class=\"event\""),
        optional("subclass", Text),
        default("channel", OneOf(&["forward", "back"]), "forward"),
    ],
);
static SET: ElementRule = leaf(
    "set",
    &[
        required("name", Name, "say what is set: name=\"every-s\""),
        required("value", Any, "say to what it is set: value=\"3600\""),
    ],
);

static INTEGRATORS: ElementRule = list("integrators", &[], &[many(&INTEGRATOR, 0, 256)], 256);
static INTEGRATOR: ElementRule = list(
    "integrator",
    &[
        required("name", Name, "give it a name: name=\"snmp\""),
        optional("kind", Name),
        optional("program", Path),
    ],
    &[many(&OPTION, 0, 64)],
    64,
);
static OPTION: ElementRule = leaf(
    "option",
    &[
        required("name", Name, "name the flag: name=\"listen\""),
        required("value", Text, "give its value: value=\"0.0.0.0:162\""),
    ],
);

static RECORDS: ElementRule = leaf(
    "records",
    &[
        optional("url", Url(&["file", "postgres"])),
        default("keep-days", DAYS_KEPT, "400"),
        default("grace-days", DAYS_KEPT, "30"),
        optional("archive", Path),
    ],
);
static CONTENT: ElementRule = leaf(
    "content",
    &[
        required("server", WEB, "name the application server: server=\"http://127.0.0.1:7081\""),
        optional("token", Secret("file:/var/lib/callhome/content.token")),
        default("cache-s", Number { min: 0, max: SECONDS_MAX }, "5"),
    ],
);
static CERTIFICATES: ElementRule = leaf(
    "certificates",
    &[
        required("issuing-certificate", Path, "name it: /etc/callhome/ca/issuing.pem"),
        required(
            "issuing-key",
            Secret("file:/etc/callhome/ca/issuing.key"),
            "name it: file:/etc/callhome/ca/issuing.key",
        ),
        default("valid-days", DAYS_KEPT, "90"),
        default("renew-after-expiry", OneOf(&["never", "once"]), "once"),
    ],
);
static TELEMETRY: ElementRule = leaf(
    "telemetry",
    &[
        default("log", LogFilter, "info"),
        default("log-format", OneOf(&["auto", "json", "text"]), "auto"),
        optional("otlp", WEB),
        default("traces-percent", Decimal { max: 100 }, "1"),
        default("not-delivering-after-s", SECONDS, "60"),
    ],
);

/// The root of a customer's policy.
pub(crate) static POLICY: ElementRule = list(
    "policy",
    &[default("zone", Zone, "UTC"), default("ask-within-s", SECONDS, "3600")],
    &[many(&RULE, 0, 1_024)],
    1_024,
);
static RULE: ElementRule = leaf(
    "rule",
    &[
        required(
            "what",
            OneOf(&["send", "action", "update", "remote-access", "configuration"]),
            "say what it rules: what=\"action\"",
        ),
        default("name", Text, "*"),
        default("instance", Text, "*"),
        default("days", Days, "mon-sun"),
        default("from", Clock, "00:00"),
        default("to", Clock, "24:00"),
        required("decision", OneOf(&["allow", "ask", "deny"]), "say what holds: decision=\"ask\""),
    ],
);

impl ElementRule {
    /// The rule of an attribute.
    pub(crate) fn attribute(&self, name: &str) -> Option<&'static AttributeRule> {
        self.attributes.iter().find(|rule| rule.name == name)
    }

    /// The rule of a child, and where it stands in the order.
    pub(crate) fn child(&self, name: &str) -> Option<(usize, &'static ChildRule)> {
        self.children.iter().enumerate().find(|(_, rule)| rule.element.name == name)
    }

    /// The name of the element below `self` that has such children, to tell where one belongs.
    pub(crate) fn parent_of(&'static self, name: &str) -> Option<&'static str> {
        if self.child(name).is_some() {
            return Some(self.name);
        }
        self.children.iter().find_map(|rule| rule.element.parent_of(name))
    }
}

impl AttributeRule {
    /// What it is when left out.
    pub(crate) fn default_value(&self) -> Option<&'static str> {
        match self.need {
            Need::Default(value) => Some(value),
            _ => None,
        }
    }
}
