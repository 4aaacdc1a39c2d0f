//! Any bytes, read as frames of the integrator socket: an error or a valid value, never a panic.
#![no_main]

#[path = "../../tests/common/everything.rs"]
#[allow(dead_code, reason = "each target uses one of the readers")]
mod everything;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    everything::frames(bytes);
});
