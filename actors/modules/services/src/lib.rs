//! Service modules we ship: alarms with events, and inventory (ARC-8, APS-2).
pub mod alarms;
mod episode;
mod events;
pub mod inventory;
mod subject;

pub use alarms::Alarms;
pub use inventory::Inventory;
