//! The integrator API for Rust: a client of the proxy's socket that keeps what it was given.
//!
//! ```no_run
//! use integrator_api::{AlarmCall, Call, Client, Options, Severity};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options::new("/run/callhome/integrator.sock", "plant", "2.1.0");
//! let client = Client::open(options)?;
//! let at = 1_795_348_800_000;
//! let alarm = AlarmCall::new("press-1", at, "oil-pressure", Severity::Major, "oil pressure low");
//! let accepted = client.send(Call::Alarm(alarm)).wait()?;
//! println!("{:?}", accepted.message_id());
//! # Ok(())
//! # }
//! ```
//!
//! - [`Client::send`] never blocks; the [`Ticket`] it gives is waited for on a thread
//!   ([`Ticket::wait`]) or awaited: it is a `Future` and wants no particular runtime. Calls are
//!   stored in the order of `send` within a precedence, whenever the tickets are polled.
//! - A ticket that ends `Ok` means: on disk, at the proxy or in this integrator's spill.
//! - The client connects by itself, again and again, says hello with the same stream and sends
//!   first and unchanged what was not answered; nothing is stored twice.
//! - Instances are registered before their first message, and again after a reconnect.
//!   [`Call::Instance`] is only needed to declare capabilities.
//! - It waits until the proxy and this integrator are registered (PRX-13, PRX-22).
//! - What an integrator counts ([`Handler::counters`]) is told to the proxy every few seconds, for
//!   its operator's door.
//! - With [`Options::spill`] set, what the proxy cannot take now is kept on disk, and its ticket
//!   ends `Ok(Accepted::Spilled)`; a restart of the integrator goes on from there.
//!
//! From tokio, callbacks of a [`Handler`] run on threads of their own and may block: hand the
//! request to a task through a channel, or use `Handle::block_on`.
//!
//! ```no_run
//! # async fn example(client: integrator_api::Client, call: integrator_api::Call) {
//! match client.send(call).await {
//!     Ok(accepted) => println!("on disk: {accepted:?}"),
//!     Err(error) => eprintln!("{error}"),
//! }
//! # }
//! ```

mod callbacks;
mod client;
mod connection;
mod entry;
mod handler;
mod options;
mod report;
mod spill;
mod state;
mod ticket;
mod uplink;

pub use client::Client;
pub use handler::{Handler, NoCallbacks};
pub use options::{Options, SPILL_BYTES_MAX};
pub use protocol::{
    MessageId, Precedence, Refusal, RemoteId, Verdict,
    heartbeat::Condition,
    message::Persistence,
    service::{Severity, State},
    socket::{
        ActionRequest, AlarmCall, Call, CallAnswer, CallError, Callback, CallbackError,
        CapabilitiesCall, CapabilitiesRequest, Counters, DataCall, EventCall, HelloAnswer,
        InstanceCall, InstanceStatus, InstancesCall, Outcome, Qos, Registered, RemoveCall,
        StatusAnswer, StatusPart, StatusRequest, UpdateRequest, is_integration_module, rs,
    },
};
pub use ticket::{Accepted, Ticket};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; a thread that panicked meanwhile left nothing half done that matters more than going on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
