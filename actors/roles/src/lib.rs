//! Every actor of a node, and one supervision tree a role. No module, no file, no web server.
pub mod app_server;
pub mod delivery;
pub mod proxy;
