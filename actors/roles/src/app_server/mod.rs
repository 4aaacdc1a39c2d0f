//! The application server: records, duplicates, service modules, publish and subscribe.
//!
//! A run is stored once, in the commit that takes it ([`keeper`]), at the number of its first
//! message. A service module is a cursor over the stored runs ([`service_host`]); its effects and
//! the step of its cursor are one commit. Lists are read from what both wrote ([`query`]); where
//! messages are says an index by segments that can be built anew from the runs ([`indexer`]).
pub mod asking;
pub mod back_channel;
pub mod closer;
pub mod cursors;
pub mod directory;
pub mod duplicates;
pub mod index;
pub mod indexer;
pub mod keeper;
mod module_rows;
pub mod newcomers;
pub mod overlay;
pub mod publish;
pub mod query;
mod query_actions;
mod query_alarms;
mod query_asked;
mod query_directory;
mod query_events;
mod query_messages;
mod query_nodes;
mod query_stream;
mod query_trace;
pub mod reconcile;
pub mod reel;
pub mod registrar;
pub mod rows;
mod search;
pub mod segment;
pub mod service_host;
pub mod service_work;
pub mod status;
pub mod tree;
