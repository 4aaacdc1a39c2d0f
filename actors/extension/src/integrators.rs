//! The integrator door: what the proxy does for a connected integrator.
//!
//! `modules/ipc` is the socket; behind these traits stand the proxy's actors. Values were checked
//! on the way in ([`protocol::socket::Call::check`]); what is left is the proxy's own state.
use std::sync::Arc;

use async_trait::async_trait;
use protocol::socket::{
    ActionRequest, Call, CallAnswer, CallError, Callback, CallbackError, CapabilitiesRequest,
    Counters, Hello, HelloAnswer, Registered, StatusAnswer, StatusRequest, UpdateRequest,
};

/// Who is at the other end of the socket, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process, where the platform tells.
    pub pid: Option<i32>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The integrator said so.
    Bye {
        /// Its stream will not come back: forget its results.
        forget: bool,
    },
    /// It hung up, or did not read for too long.
    Lost,
    /// It sent a bad frame; what was wrong with it.
    Malformed(&'static str),
    /// [`Callbacks::end`] was asked for.
    Ended,
    /// The socket is closing.
    Stopping,
}

/// Lets integrators in. One per proxy.
#[async_trait]
pub trait IntegratorDoor: Send + Sync {
    /// Answers the first request of a connection. The version was agreed on before
    /// ([`Hello::protocol`]). Refuses with `name_in_use` where `hello.callbacks` is not empty and
    /// another connection has the callbacks of that name. A hello with the stream of an older
    /// connection ends that one ([`Callbacks::end`]) before it is answered.
    async fn hello(
        &self,
        peer: PeerCredentials,
        hello: Hello,
        callbacks: Arc<dyn Callbacks>,
    ) -> Result<(HelloAnswer, Arc<dyn IntegratorSession>), CallError>;
}

/// One connected integrator. The connection is the handle.
#[async_trait]
pub trait IntegratorSession: Send + Sync {
    /// Answers calls that arrived together, in the order they were sent: one result for each, in
    /// the same order. `Ok(Message {Stored, ..})` only after a synced commit (one for all of them,
    /// if it can be). A repeated seq of the stream is answered with `Duplicate`. The next calls of
    /// this connection are handed over when these are answered, so storing as sent needs no care
    /// here. At most [`CALLS_MAX`] at once.
    async fn calls(&self, calls: Vec<Call>) -> Vec<Result<CallAnswer, CallError>>;

    /// The integrator told what it has counted so far, or something that is no such report, and why
    /// not. Only the newest counts. Must not wait.
    fn counted(&self, report: Result<Counters, CallError>);

    /// The connection is over and no call of it is under way. Called exactly once.
    async fn ended(&self, how: Ended);
}

/// Calls handed over together: the window (contract §7).
pub const CALLS_MAX: usize = protocol::limits::WINDOW;

/// The way back to one connected integrator. How many run at once is the proxy's to bound
/// (contract §7: five over all). A dropped future gives the answer up. `CallbackError::Gone` after
/// the connection ended.
#[async_trait]
pub trait Callbacks: Send + Sync {
    /// Whether its hello named that callback; others answer `not_supported` without asking.
    fn has(&self, callback: Callback) -> bool;

    /// How are you? Waits 5 s at most (`TimedOut`).
    async fn status(&self, request: StatusRequest) -> Result<StatusAnswer, CallbackError>;

    /// Do something; the integrator's own status comes back.
    async fn action(&self, request: ActionRequest) -> Result<i64, CallbackError>;

    /// Install a file.
    async fn update(&self, request: UpdateRequest) -> Result<(), CallbackError>;

    /// Send the capabilities of an instance as a call of your own.
    async fn capabilities(&self, request: CapabilitiesRequest) -> Result<i64, CallbackError>;

    /// Tells how far registration has got. Does not wait; only the newest counts.
    fn registration(&self, state: Registered);

    /// Ends the connection: a newer one has its stream. Does not wait; calls under way are
    /// answered to nobody.
    fn end(&self);
}
