//! The supervision trees of this process as they are now, for the operator's door and for drills.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::drill::Slot;

/// What a part of the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The supervisor at the top; its name is the node's.
    Node,
    /// A supervisor below it.
    Supervisor,
    /// An actor.
    Actor,
}

/// What a part of the tree is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has been started and has not ended.
    Running,
    /// It will be started: for the first time in its turn, or again after a wait.
    Waiting,
    /// It has ended and nobody will start it, unless a supervisor above it begins anew.
    Stopped,
}

/// A part of the supervision tree as it was when asked; one element of `/tree`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeNode {
    /// Name among its siblings.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What it is doing.
    pub state: State,
    /// Starts after the first one, for whatever reason.
    pub restarts: u64,
    /// When `state` began: RFC 3339, UTC, milliseconds.
    pub since_at: String,
    /// Asks that have no answer yet, the one in hand included. 0 for a supervisor.
    pub mailbox: usize,
    /// Children in start order.
    pub children: Vec<TreeNode>,
}

/// Every running tree of this process, one a node, in the order of their start.
pub fn tree() -> Vec<TreeNode> {
    roots().iter().map(|root| root.snapshot(true)).collect()
}

static ROOTS: Mutex<Vec<Weak<Entry>>> = Mutex::new(Vec::new());

/// The tops of all trees that still are.
pub(crate) fn roots() -> Vec<Arc<Entry>> {
    let mut roots = lock(&ROOTS);
    roots.retain(|root| root.strong_count() > 0);
    roots.iter().filter_map(Weak::upgrade).collect()
}

/// A thread that panicked while it held one of our locks left nothing half done.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of one child or supervisor, shared by whoever runs it and whoever looks.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Never 0; the watchdog's marker uses 0 for none.
    pub(crate) id: u64,
    pub(crate) name: Cow<'static, str>,
    is_actor: bool,
    seen: Mutex<Seen>,
    mailbox: Option<Mailbox>,
    parent: OnceLock<Weak<Entry>>,
    children: Mutex<Vec<Arc<Entry>>>,
    pub(crate) drill: Slot,
}

#[derive(Debug)]
struct Mailbox {
    permits: Arc<Semaphore>,
    waiting_max: usize,
}

#[derive(Debug)]
struct Seen {
    state: State,
    starts: u64,
    since: SystemTime,
}

impl Entry {
    pub(crate) fn actor(
        name: Cow<'static, str>,
        permits: Arc<Semaphore>,
        waiting_max: usize,
    ) -> Arc<Self> {
        Self::new(name, Some(Mailbox { permits, waiting_max }))
    }

    pub(crate) fn supervisor(name: Cow<'static, str>) -> Arc<Self> {
        Self::new(name, None)
    }

    fn new(name: Cow<'static, str>, mailbox: Option<Mailbox>) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let seen = Seen { state: State::Waiting, starts: 0, since: now() };
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            name,
            is_actor: mailbox.is_some(),
            seen: Mutex::new(seen),
            mailbox,
            parent: OnceLock::new(),
            children: Mutex::new(Vec::new()),
            drill: Slot::default(),
        })
    }

    /// Makes this the top of a tree that [`tree`] shows.
    pub(crate) fn take_root(self: &Arc<Self>) {
        lock(&ROOTS).push(Arc::downgrade(self));
    }

    pub(crate) fn adopt(self: &Arc<Self>, child: &Arc<Entry>) {
        // A spec is moved into its supervisor, so nobody can have set it before.
        let _ = child.parent.set(Arc::downgrade(self));
        lock(&self.children).push(child.clone());
    }

    pub(crate) fn disown(&self, child: &Entry) {
        lock(&self.children).retain(|known| known.id != child.id);
    }

    pub(crate) fn started(&self) {
        let mut seen = lock(&self.seen);
        seen.starts += 1;
        (seen.state, seen.since) = (State::Running, now());
    }

    pub(crate) fn set_state(&self, state: State) {
        let mut seen = lock(&self.seen);
        if seen.state != state {
            (seen.state, seen.since) = (state, now());
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        lock(&self.seen).state == State::Stopped
    }

    /// Names from the top down, joined by `/`.
    pub(crate) fn path(&self) -> String {
        match self.parent.get().and_then(Weak::upgrade) {
            Some(parent) => format!("{}/{}", parent.path(), self.name),
            None => self.name.to_string(),
        }
    }

    /// The name of the top of its tree, which is the node's.
    pub(crate) fn root_name(&self) -> String {
        match self.parent.get().and_then(Weak::upgrade) {
            Some(parent) => parent.root_name(),
            None => self.name.to_string(),
        }
    }

    pub(crate) fn snapshot(&self, is_root: bool) -> TreeNode {
        // Taken one after the other: no lock is held while another is waited for.
        let children = lock(&self.children).clone();
        let (state, restarts, since) = {
            let seen = lock(&self.seen);
            (seen.state, seen.starts.saturating_sub(1), seen.since)
        };
        let kind = match (self.is_actor, is_root) {
            (true, _) => Kind::Actor,
            (false, true) => Kind::Node,
            (false, false) => Kind::Supervisor,
        };
        let mailbox = self.mailbox.as_ref();
        TreeNode {
            name: self.name.to_string(),
            kind,
            state,
            restarts,
            since_at: rfc3339(since),
            mailbox: mailbox.map_or(0, |m| m.waiting_max - m.permits.available_permits()),
            children: children.iter().map(|child| child.snapshot(false)).collect(),
        }
    }

    /// Every actor here and below.
    pub(crate) fn actors(self: &Arc<Self>, found: &mut Vec<Arc<Entry>>) {
        if self.is_actor {
            found.push(self.clone());
        }
        let children = lock(&self.children).clone();
        for child in &children {
            child.actors(found);
        }
    }
}

/// The path of the actor with this id, unless it is gone.
pub(crate) fn path_of(id: u64) -> Option<String> {
    let mut actors = Vec::new();
    roots().iter().for_each(|root| root.actors(&mut actors));
    actors.iter().find(|actor| actor.id == id).map(|actor| actor.path())
}

#[allow(clippy::disallowed_methods, reason = "an operator reads it; nothing is decided by it")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// RFC 3339 in UTC with milliseconds; the epoch for what no calendar can show.
fn rfc3339(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or_default();
    format!("{at:.3}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_is_written_as_rfc_3339_in_utc_with_milliseconds() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_050);
        assert_eq!(rfc3339(at), "2023-11-14T22:13:20.050Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn node_is_written_as_the_contract_says() {
        let node = TreeNode {
            name: "durable_queue".to_owned(),
            kind: Kind::Actor,
            state: State::Running,
            restarts: 2,
            since_at: "2023-11-14T22:13:20.050Z".to_owned(),
            mailbox: 1,
            children: vec![],
        };
        let expected = concat!(
            r#"{"name":"durable_queue","kind":"actor","state":"running","restarts":2,"#,
            r#""since_at":"2023-11-14T22:13:20.050Z","mailbox":1,"children":[]}"#
        );
        assert_eq!(serde_json::to_string(&node).unwrap(), expected);
    }
}
