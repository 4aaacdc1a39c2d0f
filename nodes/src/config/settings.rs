//! The parts of a checked configuration as types: bytes are `u64`, times are `Duration`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::calendar::Calendar;
use super::secret::SecretFile;

/// Makes an enum of words of the schema.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$each])* $variant,)+ }

        impl $name {
            /// The word of the schema.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }

            /// Of a word of the schema.
            pub(crate) fn parse(word: &str) -> Option<$name> {
                match word { $($word => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

words!(
    /// Which kind of intermediate MLM a node is (MLM-1).
    MlmKind {
        /// At the customer.
        Customer = "customer",
        /// At the provider, for many customers.
        Aggregation = "aggregation",
    }
);
words!(
    /// How a communications module travels (COM-4).
    Protocol {
        /// HTTP: session mode.
        Http = "http",
        /// E-mail: message mode.
        Mail = "mail",
        /// A file carried by hand: message mode.
        File = "file",
        /// Fax: message mode.
        Fax = "fax",
    }
);
words!(
    /// What protects what travels (COM-6).
    Encryption {
        /// TLS below HTTP.
        Tls = "tls",
        /// A sealed body inside plain HTTP.
        Sealed = "sealed",
        /// S/MIME.
        Smime = "smime",
        /// PGP.
        Pgp = "pgp",
        /// Nothing.
        None = "none",
    }
);
words!(
    /// Who vouches for the other side.
    Authentication {
        /// Its certificate.
        Certificate = "certificate",
        /// Nobody.
        None = "none",
    }
);
words!(
    /// Oldest TLS taken.
    TlsVersion {
        /// TLS 1.2.
        V1_2 = "1.2",
        /// TLS 1.3.
        V1_3 = "1.3",
    }
);
words!(
    /// What may be sent while a window is open.
    WindowSend {
        /// Everything.
        All = "all",
        /// Urgent and normal.
        NotBulk = "not-bulk",
        /// Urgent alone.
        Urgent = "urgent",
        /// Nothing.
        Nothing = "nothing",
    }
);
words!(
    /// What becomes of messages while a service module fails.
    WhenFailing {
        /// They go on without it.
        Pass = "pass",
        /// They wait for it.
        Wait = "wait",
    }
);
words!(
    /// The channel a service module listens to.
    SubscribedChannel {
        /// Up.
        Forward = "forward",
        /// Down.
        Back = "back",
    }
);
words!(
    /// Whether a certificate is renewed with the old key after its end.
    RenewAfterExpiry {
        /// Not at all.
        Never = "never",
        /// One time.
        Once = "once",
    }
);
words!(
    /// How log lines look.
    LogFormat {
        /// Text on a terminal, JSON elsewhere.
        Auto = "auto",
        /// JSON lines.
        Json = "json",
        /// Text.
        Text = "text",
    }
);

/// Who the node is, and where it keeps what shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of the customer it serves; customer registration made it (IDM-2).
    pub customer: Uuid,
    /// Only to restore a lost component (INS-10).
    pub component: Option<u32>,
    /// Security group.
    pub group: Option<String>,
    /// Certificate chain; `None` is `identity/certificate.pem` in the node's folder.
    pub certificate: Option<PathBuf>,
    /// Private key; `None` is `identity/key.pem` in the node's folder.
    pub key: Option<SecretFile>,
    /// Whom it trusts; `None` is `identity/trust.pem` in the node's folder.
    pub trust: Option<PathBuf>,
    /// Used up by the first enrolment.
    pub enrolment_token: Option<SecretFile>,
}

/// Protocol, encryption and authentication, plugged together (COM-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommunicationsModule {
    /// What `via` says.
    pub name: String,
    /// How it travels.
    pub protocol: Protocol,
    /// What protects it.
    pub encryption: Encryption,
    /// Who vouches for the other side.
    pub authentication: Authentication,
    /// Oldest TLS taken.
    pub tls_min: TlsVersion,
    /// The customer's HTTP proxy.
    pub http_proxy: Option<HttpProxy>,
    /// The customer's mail relay.
    pub mail: Option<MailRelay>,
}

impl CommunicationsModule {
    /// Whether nothing protects it and nobody vouches: the plain door or parent of `--insecure`.
    pub fn is_plain(&self) -> bool {
        self.protocol == Protocol::Http && self.encryption == Encryption::None
    }
}

/// The customer's HTTP proxy on the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProxy {
    /// Where it is.
    pub url: String,
    /// User there.
    pub user: Option<String>,
    /// Password there.
    pub password: Option<SecretFile>,
}

/// The customer's mail relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailRelay {
    /// Where it is.
    pub relay: String,
    /// Sender.
    pub from: String,
    /// User there.
    pub user: Option<String>,
    /// Password there.
    pub password: Option<SecretFile>,
}

/// The parents in order of preference; empty at the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parents {
    /// In order: the first that is healthy is used.
    pub list: Vec<Parent>,
    /// Without an answer for this long a parent is unhealthy.
    pub unhealthy_after: Duration,
    /// An earlier parent that was healthy for this long is taken again.
    pub return_after: Duration,
    /// Where reconfiguration begins (REC).
    pub reconfigure: Option<String>,
}

/// One parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Where it is.
    pub url: String,
    /// Name of the module that reaches it.
    pub via: String,
}

/// Where the node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doors {
    /// For children.
    pub exchange: Vec<ExchangeDoor>,
    /// The application server's API.
    pub api: Option<WebDoor>,
    /// The portal, one origin with the API.
    pub portal: Option<WebDoor>,
    /// Loopback, plain; 127.0.0.1:7070 unless given.
    pub operator: SocketAddr,
    /// A proxy has one, others none.
    pub integrator: Option<IntegratorDoor>,
}

/// A door for children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeDoor {
    /// Where it listens.
    pub bind: SocketAddr,
    /// Name of the module behind it.
    pub via: String,
}

/// A door for people and their programs; plain without a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebDoor {
    /// Where it listens.
    pub bind: SocketAddr,
    /// Its certificate; given together with the key or not at all.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<SecretFile>,
}

/// The Unix socket for integrators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegratorDoor {
    /// Its path; `None` when the file does not say (`/run/callhome/integrator.sock` under `node`).
    pub socket: Option<PathBuf>,
    /// The group that may connect.
    pub group: Option<String>,
}

impl IntegratorDoor {
    /// Where the socket of a node is when its file does not say.
    pub const SOCKET: &'static str = "/run/callhome/integrator.sock";
}

/// How much a node keeps, counted as messages go over the wire (QUE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Queue store; `None` is the embedded one in the node's folder.
    pub queue: Option<String>,
    /// In all, bytes.
    pub bytes: u64,
    /// For urgent, bytes.
    pub urgent_bytes: Option<u64>,
    /// For normal, bytes.
    pub normal_bytes: Option<u64>,
    /// For bulk, bytes.
    pub bulk_bytes: Option<u64>,
    /// With less free disk nothing is taken, bytes.
    pub keep_free_bytes: u64,
    /// For messages set aside, bytes.
    pub set_aside_bytes: u64,
}

/// What may leave in a period; `None` is without limit (THR).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ceilings {
    /// Bytes a second.
    pub bytes_per_s: Option<u64>,
    /// Bytes an hour of the calendar.
    pub bytes_per_hour: Option<u64>,
    /// Bytes a day of the calendar.
    pub bytes_per_day: Option<u64>,
    /// Messages an hour of the calendar.
    pub messages_per_hour: Option<u64>,
    /// Messages a day of the calendar.
    pub messages_per_day: Option<u64>,
}

/// What holds while it is open, over what holds else; the first open one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThrottleWindow {
    /// When it is open, by the throttle's zone.
    pub calendar: Calendar,
    /// What may go.
    pub send: WindowSend,
    /// How much may go; `None` leaves the throttle's own.
    pub ceilings: Ceilings,
}

/// What leaves the node, and when (THR).
#[derive(Clone, Debug)]
pub struct Throttle {
    /// The zone's name as given.
    pub zone_name: String,
    /// Whose calendar hours and days are.
    pub zone: TimeZone,
    /// Largest message taken, bytes; `None` is the protocol's own bound.
    pub bytes_per_message: Option<u64>,
    /// What bulk gets at least, percent.
    pub bulk_share_percent: u8,
    /// While no window is open.
    pub ceilings: Ceilings,
    /// In order.
    pub windows: Vec<ThrottleWindow>,
}

/// What the bandwidth manager hands out, or where it is (BWM).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Where the manager is.
    pub manager: Option<String>,
    /// All there is to hand out, bytes a second.
    pub bytes_per_s: Option<u64>,
    /// To whom how much.
    pub allocations: Vec<Allocation>,
}

/// One share of the bandwidth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// For whom; `None` is everybody.
    pub customer: Option<Uuid>,
    /// For what; `None` is everything.
    pub class: Option<String>,
    /// Bytes a second.
    pub bytes_per_s: u64,
    /// Largest bulk transfer, bytes.
    pub bulk_bytes: Option<u64>,
}

/// How often the node says that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// 30 s in session mode, 15 min in message mode unless given.
    pub every: Duration,
    /// Registers again after so many without an acknowledgement.
    pub register_again_after: u32,
    /// Tells of the instances too.
    pub instances: bool,
    /// An integrator's status is waited for so long.
    pub status_within: Duration,
}

/// What comes down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackChannel {
    /// Kept so long for who is away.
    pub keep: Duration,
    /// Callbacks at once (ACT-4).
    pub at_once: u32,
}

/// A service module of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name here.
    pub name: String,
    /// What it does.
    pub kind: String,
    /// A module loaded at run time.
    pub program: Option<PathBuf>,
    /// Digest of the module, lower-case hex.
    pub sha256: Option<String>,
    /// Memory it may take, bytes.
    pub memory_bytes: u64,
    /// What becomes of messages while it fails.
    pub when_failing: WhenFailing,
    /// What it listens to.
    pub subscriptions: Vec<Subscription>,
    /// Its own settings.
    pub settings: Vec<(String, String)>,
}

/// What a service module listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Data class.
    pub class: String,
    /// Data subclass; `None` is any.
    pub subclass: Option<String>,
    /// Up or down.
    pub channel: SubscribedChannel,
}

/// What an integrator is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntegratorProgram {
    /// One of ours: `callhome integrator KIND`.
    Kind(String),
    /// One of the customer's.
    Program(PathBuf),
}

/// A process the proxy starts and restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integrator {
    /// Keeps its identity.
    pub name: String,
    /// What is started.
    pub program: IntegratorProgram,
    /// Flags, without the two hyphens, and their values, in order.
    pub options: Vec<(String, String)>,
}

/// What the application server keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// Record store; `None` is the embedded one in the node's folder.
    pub url: Option<String>,
    /// Kept so many days.
    pub keep_days: u32,
    /// Of what was removed, so many days more.
    pub grace_days: u32,
    /// Where archives go; `None` is none.
    pub archive: Option<PathBuf>,
}

/// Where a content MLM gets what it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The application server's API.
    pub server: String,
    /// Token for it.
    pub token: Option<SecretFile>,
    /// How long pages are kept.
    pub cache: Duration,
}

/// What the certificate manager issues with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// The issuing certificate.
    pub issuing_certificate: PathBuf,
    /// Its key.
    pub issuing_key: SecretFile,
    /// Days a certificate is good for.
    pub valid_days: u32,
    /// Renewal with the old key after its end.
    pub renew_after_expiry: RenewAfterExpiry,
}

/// What the node tells of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// Filter of the log.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where traces and metrics go.
    pub otlp: Option<String>,
    /// How many of the messages are traced, percent.
    pub traces_percent: f64,
    /// Not delivering after this long without an acknowledgement.
    pub not_delivering_after: Duration,
}
