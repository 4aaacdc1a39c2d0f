//! Bounds of the socket: what one integrator, and all together, may take.
use std::time::Duration;

/// Connections at once; each integrator needs one, a script of `send`s some more.
pub const CONNECTIONS_MAX: usize = 256;
/// Connections beyond them that are told so at once; the kernel's backlog waits beyond that.
pub const TURNED_AWAY_MAX: usize = 64;
/// When one that was told so should come again.
pub const COME_AGAIN: Duration = Duration::from_secs(1);
/// A connection says hello within that, or ends (contract §7).
pub const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Requests that were read and not answered, of one connection, bytes. With all connections at it
/// this is a gigabyte, which only a flood of largest frames reaches; at least one frame is read.
pub const UNANSWERED_BYTES_MAX: usize = 4 << 20;
/// Read at once, bytes: what an idle connection holds.
pub const READ_BYTES: usize = 16 << 10;
/// Read at once of a connection that just filled that, bytes: a quarter of the wake-ups.
pub const READ_BYTES_BUSY: usize = 64 << 10;
/// A connection that takes no bytes for so long ends: its client hangs.
pub const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// Callbacks under way on one connection; the proxy has five over all.
pub const CALLBACKS_MAX: usize = 64;
/// An integrator says how it is within that (contract §7).
pub const STATUS_WITHIN: Duration = Duration::from_secs(5);
/// How long connections get to answer what they have read when the socket closes.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How often accepting is tried again when the process has no file handles left.
pub const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Length of a socket's path, bytes: what the kernel takes (contract §3).
pub const PATH_BYTES_MAX: usize = 107;
/// Connections the kernel holds until they are accepted.
pub const BACKLOG: i32 = 128;

const _: () = assert!(
    UNANSWERED_BYTES_MAX >= 2 * protocol::limits::FRAME_BYTES_MAX,
    "what is handed on at once, less than a largest frame and one more, is within the bound"
);
