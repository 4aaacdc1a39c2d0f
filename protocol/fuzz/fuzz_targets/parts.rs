//! Any bytes, read as blocks, heartbeats or end reports: an error or a valid value, never a panic.
#![no_main]

#[path = "../../tests/common/everything.rs"]
#[allow(dead_code, reason = "each target uses one of the readers")]
mod everything;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    everything::parts(bytes);
});
