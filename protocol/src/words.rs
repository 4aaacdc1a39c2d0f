//! The enums of header and infrastructure block: a number on the wire, a word for people.
use serde::{Deserialize, Serialize};

/// An enum of the wire: a `u8` in DESIGN's order, a word in JSON.
macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// All, in the order of their numbers.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The value of that number.
            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.get(usize::from(number)).copied()
            }

            /// The word of the vocabulary.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.word())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = String;

            /// The error names every word there is.
            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().find(|v| v.word() == text).copied().ok_or_else(|| {
                    let words: Vec<_> = Self::ALL.iter().map(|v| v.word()).collect();
                    format!("is {text:?}; one of {}", words.join(" "))
                })
            }
        }
    };
}
pub(crate) use wire_enum;

wire_enum! {
    /// What goes first (QUE-5).
    Precedence {
        /// Passes everything.
        Urgent = "urgent",
        /// The usual.
        Normal = "normal",
        /// Last, with a small guaranteed share.
        Bulk = "bulk",
    }
}
wire_enum! {
    /// Whether a full queue may evict it (QUE-11, QUE-13). Both are on disk.
    Persistence {
        /// May be evicted when the queue is full.
        Normal = "normal",
        /// Never evicted.
        Assured = "assured",
    }
}
wire_enum! {
    /// What made the message.
    SourceType {
        /// A proxy.
        Proxy = "proxy",
        /// An integrator.
        Integrator = "integrator",
        /// A support instance.
        Instance = "instance",
        /// An intermediate MLM.
        Mlm = "mlm",
        /// An applications MLM.
        ApplicationsMlm = "applications-mlm",
        /// An application server.
        AppServer = "app-server",
        /// A content MLM.
        ContentMlm = "content-mlm",
    }
}
wire_enum! {
    /// Up or down.
    Channel {
        /// Towards the application server.
        Forward = "forward",
        /// Towards the customer.
        Back = "back",
    }
}
wire_enum! {
    /// What the service is for (CLS rows).
    Classification {
        /// Inventory, performance.
        DataCollection = "data-collection",
        /// Alarms, events.
        Monitoring = "monitoring",
        /// Sessions.
        RemoteAccess = "remote-access",
        /// Registration, configuration, updates.
        InfrastructureAdministration = "infrastructure-administration",
    }
}

impl Precedence {
    /// One letter, in message ids.
    pub fn letter(self) -> char {
        match self {
            Self::Urgent => 'u',
            Self::Normal => 'n',
            Self::Bulk => 'b',
        }
    }
}
