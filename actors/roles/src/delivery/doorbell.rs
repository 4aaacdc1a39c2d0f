//! Wakes the link and held answers when something for them arrives.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

/// Bells by the name of a queue. A ring that nobody waits for is kept for the next who does.
#[derive(Default)]
pub struct Doorbell(Mutex<HashMap<String, Arc<Notify>>>);

impl Doorbell {
    /// The bell of a queue.
    pub fn bell(&self, queue: &str) -> Arc<Notify> {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.entry(queue.to_owned()).or_default().clone()
    }

    /// Something stands in that queue.
    pub fn ring(&self, queue: &str) {
        self.bell(queue).notify_one();
    }
}
