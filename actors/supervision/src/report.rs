//! What supervision tells the log and the metrics.
//!
//! Events have the target `supervision` and the fields `supervisor`, `child`, `exit`, `restarts`,
//! `backoff_ms`; counters are `callhome_supervision_restarts_total{node,supervisor,child,exit}`
//! and `callhome_supervision_escalations_total{node,supervisor}`.

use std::time::Duration;

use metrics::counter;
use tracing::{debug, error, info, warn};

use crate::{ChildSpec, Exit, tree::Entry};

const RESTARTS_TOTAL: &str = "callhome_supervision_restarts_total";
const ESCALATIONS_TOTAL: &str = "callhome_supervision_escalations_total";

pub(crate) fn start(supervisor: &Entry, child: &ChildSpec) {
    debug!(
        target: "supervision",
        supervisor = %supervisor.name,
        child = child.name(),
        "child started"
    );
}

/// A child ended as planned, or nobody wants it again.
pub(crate) fn end(supervisor: &Entry, child: &ChildSpec, exit: &Exit) {
    info!(
        target: "supervision",
        supervisor = %supervisor.name,
        child = child.name(),
        exit = exit.label(),
        reason = exit.reason(),
        "child ended"
    );
}

pub(crate) fn restart(
    supervisor: &Entry,
    child: &ChildSpec,
    exit: &Exit,
    restarts: u32,
    backoff: Duration,
) {
    warn!(
        target: "supervision",
        supervisor = %supervisor.name,
        child = child.name(),
        exit = exit.label(),
        reason = exit.reason(),
        restarts,
        backoff_ms = u64::try_from(backoff.as_millis()).unwrap_or(u64::MAX),
        "child ended and restarts"
    );
    let labels = [
        ("node", supervisor.root_name()),
        ("supervisor", supervisor.name.to_string()),
        ("child", child.label.to_string()),
        ("exit", exit.label().to_owned()),
    ];
    counter!(RESTARTS_TOTAL, &labels).increment(1);
}

/// The supervisor gives up over a child.
pub(crate) fn escalation(supervisor: &Entry, child: &ChildSpec, exit: &Exit, restarts: u32) {
    error!(
        target: "supervision",
        supervisor = %supervisor.name,
        child = child.name(),
        exit = exit.label(),
        reason = exit.reason(),
        restarts,
        "supervisor gave up: its child needed more restarts than are allowed"
    );
    let labels = [("node", supervisor.root_name()), ("supervisor", supervisor.name.to_string())];
    counter!(ESCALATIONS_TOTAL, &labels).increment(1);
}

/// A child did not even notice that it was cut off.
pub(crate) fn hang(supervisor: &Entry, child: &ChildSpec) {
    error!(
        target: "supervision",
        supervisor = %supervisor.name,
        child = child.name(),
        "child hangs and is left behind"
    );
}
