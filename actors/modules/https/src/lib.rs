//! HTTP between nodes: the parent's door over actix-web, the child's side over reqwest (COM-4).
mod client;
mod server;

pub use client::HttpProtocol;
pub use server::{DoorServer, ServeError, serve};

/// Path of the one request between nodes.
pub const EXCHANGE_PATH: &str = "/v1/exchange";
/// Media type of an exchange and its answer.
pub const MEDIA_TYPE: &str = "application/msgpack";
