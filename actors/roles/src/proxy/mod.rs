//! The node at a site: numbers, integrators, registration, forwarding (DESIGN §6, house §6).
pub mod batch;
pub mod consent;
pub mod counted;
pub mod forwarder;
pub mod forwarding;
pub mod handler;
pub mod identifiers;
pub mod integrators;
pub mod lookup;
pub mod normalize;
pub mod once;
pub mod registration;
pub mod status;
pub mod streams;
pub mod switchboard;
pub mod tree;
pub mod waiting;
