//! The contract, black box: the real binary against CONTRACT.md §1 to §7.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

#[path = "contract/action.rs"]
mod action;
#[path = "contract/addresses.rs"]
mod addresses;
#[path = "contract/api.rs"]
mod api;
#[path = "contract/commands.rs"]
mod commands;
#[path = "contract/configuration.rs"]
mod configuration;
#[path = "contract/files.rs"]
mod files;
#[path = "contract/lists.rs"]
mod lists;
#[path = "contract/names.rs"]
mod names;
#[path = "contract/node_door.rs"]
mod node_door;
#[path = "contract/operator.rs"]
mod operator;
#[path = "contract/queues.rs"]
mod queues;
#[path = "contract/refusals.rs"]
mod refusals;
#[path = "contract/schema.rs"]
mod schema;
#[path = "contract/socket.rs"]
mod socket;
#[path = "contract/support.rs"]
mod support;
