//! A database that is closed only where its trees are sound.
use std::{
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use redb::Database;

/// redb writes when a database is dropped; on damaged trees that may panic within a panic, which
/// ends the process. A database that is not sound is therefore left in memory (its cache, once per
/// damage), and its backend is shut before.
pub(crate) struct Held {
    /// `None` only within drop.
    db: Option<Database>,
    sound: AtomicBool,
}

impl Held {
    /// Not sound until it is said.
    pub(crate) fn new(db: Database) -> Self {
        Self { db: Some(db), sound: AtomicBool::new(false) }
    }

    /// Whether it may be closed.
    pub(crate) fn set_sound(&self, sound: bool) {
        self.sound.store(sound, Relaxed);
    }
}

impl Deref for Held {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.db.as_ref().unwrap_or_else(|| unreachable!("it is there until it is dropped"))
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Database {
        self.db.as_mut().unwrap_or_else(|| unreachable!("it is there until it is dropped"))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match self.db.take() {
            Some(db) if *self.sound.get_mut() => drop(db),
            other => std::mem::forget(other),
        }
    }
}
