//! The commands, one file each.

pub mod action;
pub mod alarm;
pub mod beside;
pub mod check;
pub mod client;
pub mod commands;
pub mod common;
pub mod doctor;
pub mod drill;
pub mod ledger;
pub mod ls;
pub mod queue;
pub mod send;
pub mod stopped;
pub mod support_bundle;
pub mod table;
pub mod trace;
pub mod usage;

#[cfg(test)]
mod recorded;
