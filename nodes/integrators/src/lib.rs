//! Integrators: processes that turn a management system's words into calls of the integrator API.
//!
//! Each is `callhome integrator KIND` and knows nothing beyond the proxy's socket. What becomes of
//! a trap or a line is decided by [`rules`], which are files (IPC-9, ARC-11).

pub mod command;
pub mod common;
pub mod counters;
pub mod inventory;
pub mod proxy;
pub mod quiet;
pub mod rules;
pub mod sink;
pub mod snmp;
pub mod syslog;
