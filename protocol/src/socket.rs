//! The integrator socket, protocol 1: frames, requests, answers and notices (contract §7).
//!
//! A frame is a `u32` big-endian length and a MessagePack-RPC array; params and results are maps
//! whose unknown keys are ignored. What is written here is byte for byte what
//! `ipc-frames.txt` shows; what is read may have any valid form and order of keys.
//!
//! Beyond the contract's lists there are the notice `counters` ([`Counters`]), and with `alarm`,
//! `event` and `data` the key `once` ([`Call::once`]).

mod answer;
mod call;
mod callback;
mod check;
mod counters;
mod fields;
mod frame;
mod hello;
mod qos;

pub use answer::{CallAnswer, CallError, Outcome, ReadError, rs};
pub use call::{
    AlarmCall, Call, CapabilitiesCall, DataCall, EventCall, InstanceCall, InstancesCall, RemoveCall,
};
pub use callback::{
    ActionRequest, CallbackAnswer, CallbackError, CallbackRequest, CapabilitiesRequest,
    InstanceStatus, StatusAnswer, StatusPart, StatusRequest, UpdateRequest,
};
pub use counters::{Counters, REASON_BYTES_MAX, REASONS_MAX};
pub use fields::{Fields, Map};
pub use frame::{BadFrame, Frame, Frames};
pub use hello::{Bye, Callback, Hello, HelloAnswer, Notice, Registered};
pub use qos::Qos;

/// The version of the protocol spoken here.
pub const PROTOCOL: u32 = 1;
/// Bytes of a stream's id.
pub const STREAM_BYTES: usize = 16;
/// The integration module itself, as an instance in callbacks (BCK-7).
pub const INTEGRATION_MODULE: &str = "IntegrationModule";

/// Whether that instance name means the integrator itself; both spellings do (BCK-7).
pub fn is_integration_module(instance: &str) -> bool {
    instance == INTEGRATION_MODULE || instance == "Integration Module"
}
