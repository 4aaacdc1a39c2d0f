//! The words of Callhome: what nodes, integrators and people say. No I/O, no clock, no actix.
//!
//! | version | change |
//! |---|---|
//! | 1 | first |
//! | 1 | appended to the exchange: `sender`, the id and epoch the child goes by (`exchange.rs`) |
//! | 1 | appended where there are any: `questions` to the answer, `says` to the heartbeat |
//! | 1 | appended to the heartbeat: `ready`, why the node takes no messages (`heartbeat.rs`) |
//! | 1 | appended to the heartbeat: `rejected`, what its full queue rejected (`heartbeat.rs`) |

mod door;

pub mod address;
pub mod codec;
pub mod ends;
pub mod exchange;
pub mod heartbeat;
pub mod limits;
pub mod media;
pub mod message;
pub mod parts;
pub mod question;
pub mod refusal;
pub mod registration;
pub mod run;
pub mod service;
pub mod socket;
pub mod words;
pub mod xml;

pub use address::RemoteId;
pub use message::{Header, Infrastructure, Message, MessageId, Precedence};
pub use refusal::{Refusal, Verdict};

/// The format version in every header, block and exchange.
pub const VERSION: u8 = 1;
