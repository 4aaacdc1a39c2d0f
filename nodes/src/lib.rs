//! The launcher of Callhome: flags, configuration, order of start and stop.

pub mod assemble;
pub mod cli;
pub mod config;
pub mod health;
pub mod integrator_metrics;
pub mod launch;
pub mod log_lines;
pub mod metric_names;
pub mod node;
pub mod node_view;
pub mod operator;
pub mod policy;
pub mod portal;
pub mod process;
pub mod programs;
pub mod proxy_door;
pub mod role;
pub mod telemetry;
pub mod up;
