//! `QueueStore` over redb: one checked file a node, opened whatever happened to it (DESIGN §4.5).
//!
//! Files of a folder, all the owner's alone: `lock` (the pid), `store.redb`, `damaged/` (what was
//! cut out, each with a .json why); and for the store itself: `store.proof` (that this machine had
//! it last), `store.acked` (the last commit answered), `store.opening` and `store.suspect` (marks
//! of an opening that did not end, of damage seen while it served), `store.new` and `store.first`
//! (a salvaged or new store before it gets its name).
mod aside;
mod backend;
mod engine;
mod examine;
mod frame;
mod fsck;
mod held;
mod home;
mod key;
mod open;
mod probe;
mod proof;
mod read;
mod salvage;
mod store;
mod trouble;

pub use backend::Medium;
pub use fsck::{FsckReport, Looked, fsck, salvageable};
pub use home::{DAMAGED, LOCK, STORE};
pub use open::{OpenError, OpenReport, Opened, Options, Salvaged, SetAside};
pub use probe::probe;
pub use store::RedbStore;
