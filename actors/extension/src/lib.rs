//! The doors for code that is not ours: traits, their promises, and tests of those promises.
pub mod communications;
pub mod integrators;
pub mod records;
pub mod service;
pub mod storage;
