//! The integrator socket: a Unix stream socket in front of the integrator door (IPC-2).
//!
//! ```no_run
//! # async fn example(door: std::sync::Arc<dyn extension::integrators::IntegratorDoor>)
//! # -> Result<(), module_ipc::BindError> {
//! let options = module_ipc::Options::new("/run/callhome/integrator.sock").group("callhome");
//! let socket = module_ipc::Socket::bind(&options)?;
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! let serving = tokio::spawn(socket.serve(door, async {
//!     let _ = stopped.await;
//! }));
//! // … later: integrators are told `stopping`, what they sent is answered, the file is removed.
//! let _ = stop.send(());
//! let _ = serving.await;
//! # Ok(())
//! # }
//! ```
//!
//! One set of tasks a connection, so that one handler's stall slows no other (IPC-5). Knows
//! nothing of actors: everything goes through [`extension::integrators`].

mod bind;
mod callbacks;
mod calls;
mod connection;
pub mod limits;
mod peer;
mod serve;

pub use bind::{BindError, Options, Socket};
