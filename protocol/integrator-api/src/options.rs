//! What a client is told when it is opened.
use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::handler::{Handler, NoCallbacks};

/// Bytes a spill may take on disk, unless told otherwise: a day of a busy site's alarms.
pub const SPILL_BYTES_MAX: u64 = 256 << 20;

/// How a client behaves.
#[derive(Clone)]
pub struct Options {
    /// The proxy's socket.
    pub socket: PathBuf,
    /// Name of the integrator; it keeps its id (API-7).
    pub name: String,
    /// Version of the integrator (API-23).
    pub version: String,
    /// Takes callbacks; none by default.
    pub handler: Arc<dyn Handler>,
    /// Folder of the spill; none: no spill. Several integrators may share one, each by its name.
    pub spill: Option<PathBuf>,
    /// Bytes the spill may take; more is answered `queue_full`.
    pub spill_bytes_max: u64,
    /// How long the proxy may be away until calls that wait in memory fail with `stopping`
    /// (-2, RS_EDOWN). None: they wait for ever.
    pub fail_when_away_for: Option<Duration>,
    /// Whether calls wait for `registered`; what we ship does (contract §7).
    pub wait_for_registered: bool,
}

impl Options {
    /// A client without callbacks and spill, which waits for its proxy.
    pub fn new(socket: impl Into<PathBuf>, name: &str, version: &str) -> Self {
        Self {
            socket: socket.into(),
            name: name.to_owned(),
            version: version.to_owned(),
            handler: Arc::new(NoCallbacks),
            spill: None,
            spill_bytes_max: SPILL_BYTES_MAX,
            fail_when_away_for: None,
            wait_for_registered: true,
        }
    }

    /// The same with a handler of callbacks.
    #[must_use]
    pub fn handler(self, handler: impl Handler) -> Self {
        Self { handler: Arc::new(handler), ..self }
    }

    /// The same with a spill in that folder.
    #[must_use]
    pub fn spill(self, folder: impl Into<PathBuf>) -> Self {
        Self { spill: Some(folder.into()), ..self }
    }
}
