//! Why redb did not do it, sorted by what helps: room, opening anew, or cutting out the damage.
use std::{
    cell::Cell,
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use extension::storage::StoreError;

/// What went wrong inside.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// No room. The database is opened anew before the next use.
    Full(String),
    /// The disk fails. The database is opened anew before the next use.
    Io(String),
    /// The file is not what was written. Only an opening with salvage helps.
    Damaged(String),
    /// One row is not what was written; the rest is as it was.
    Row(&'static str),
    /// The caller asked for what cannot be.
    Refused(String),
}

impl Trouble {
    pub(crate) fn io(error: &io::Error) -> Self {
        use io::ErrorKind::{InvalidData, QuotaExceeded, StorageFull, UnexpectedEof};
        match error.kind() {
            StorageFull | QuotaExceeded => Self::Full(error.to_string()),
            InvalidData | UnexpectedEof => Self::Damaged(error.to_string()),
            _ => Self::Io(error.to_string()),
        }
    }

    pub(crate) fn to_store_error(&self) -> StoreError {
        match self {
            Self::Full(text) => StoreError::Full(text.clone()),
            Self::Io(text) | Self::Refused(text) => StoreError::Failed(text.clone()),
            Self::Damaged(text) => {
                StoreError::Failed(format!("{text}; what is good is salvaged at the next opening"))
            }
            Self::Row(table) => StoreError::Damaged(table),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(text) | Self::Io(text) | Self::Damaged(text) | Self::Refused(text) => {
                f.write_str(text)
            }
            Self::Row(table) => write!(f, "row of table {table} is damaged"),
        }
    }
}

impl From<redb::Error> for Trouble {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => Self::io(&error),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => Self::Io(error.to_string()),
            error => Self::Damaged(error.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),+) => {
        $(impl From<$error> for Trouble {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        })+
    };
}
from_redb!(
    redb::CommitError,
    redb::DatabaseError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError
);

thread_local! {
    /// The caller's code runs, not redb's.
    static VISITING: Cell<bool> = const { Cell::new(false) };
}

/// Runs what calls redb: its panics are damage, the caller's own go on.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    let before = VISITING.replace(false);
    let result = catch_unwind(AssertUnwindSafe(work));
    let visiting = VISITING.replace(before);
    match result {
        Ok(result) => result,
        Err(panic) if visiting => resume_unwind(panic),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
            Err(Trouble::Damaged(format!("redb panicked: {text}")))
        }
    }
}

/// Runs the caller's code within [`guarded`].
pub(crate) fn visiting<T>(visit: impl FnOnce() -> T) -> T {
    VISITING.set(true);
    let result = visit();
    VISITING.set(false);
    result
}
