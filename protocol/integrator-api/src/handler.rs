//! The back-channel: what the proxy may ask of an integrator (BCK rows).
use protocol::{
    heartbeat::Condition,
    socket::{
        ActionRequest, Call, CallError, Callback, CallbackError, CapabilitiesRequest, Counters,
        Registered, StatusAnswer, StatusPart, StatusRequest, UpdateRequest,
    },
};

/// Takes callbacks. Each runs on a thread of its own and may block; the proxy has at most five
/// under way. A panic is answered `failed` and goes no further (BCK-10). A repeat of an action, an
/// update or a capabilities request never reaches the handler: it gets the first one's answer.
pub trait Handler: Send + Sync + 'static {
    /// The callbacks it takes; the proxy answers others `not_supported` without asking.
    fn callbacks(&self) -> Vec<Callback> {
        Vec::new()
    }

    /// How the integrator, its platform and, where asked for, its instances are. Within 5 s.
    fn status(&self, _request: StatusRequest) -> Result<StatusAnswer, CallbackError> {
        Ok(StatusAnswer {
            module: StatusPart::new(Condition::Ok, ""),
            platform: StatusPart::new(Condition::Unknown, ""),
            instances: Vec::new(),
        })
    }

    /// Does something, and says with which status of its own: 0 for done.
    fn action(&self, _request: ActionRequest) -> Result<i64, CallbackError> {
        Err(CallbackError::NotSupported("no action callback".to_owned()))
    }

    /// Installs a file.
    fn update(&self, _request: UpdateRequest) -> Result<(), CallbackError> {
        Err(CallbackError::NotSupported("no update callback".to_owned()))
    }

    /// Sends the capabilities of an instance by a call of its own that quotes the request in
    /// `answers` (BCK-8).
    fn capabilities(&self, _request: CapabilitiesRequest) -> Result<i64, CallbackError> {
        Err(CallbackError::NotSupported("no capabilities callback".to_owned()))
    }

    /// What this integrator has counted since its process began; none: it does not count. Asked
    /// every few seconds while there is a connection; `spill_bytes` is filled in where there is a
    /// spill. Must not block.
    fn counters(&self) -> Option<Counters> {
        None
    }

    /// Registration got further or fell back. Must not block.
    fn registration(&self, _state: Registered) {}

    /// The proxy refused for good what the spill held: its sender was answered long ago, so this
    /// is the place to log it. Must not block.
    fn refused(&self, _call: &Call, _error: &CallError) {}
}

/// Takes none.
pub struct NoCallbacks;

impl Handler for NoCallbacks {}
