//! Who is connected: names, streams and the way back to each (IPC-7, contract §7).
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use extension::integrators::Callbacks;
use protocol::socket::Callback;
use tokio::sync::{Semaphore, watch};

use super::streams::StreamId;

/// Callbacks at once over all integrators, unless configured (ACT-4).
pub const AT_ONCE: usize = 5;

/// A connection, by a number that is not used again while the process lives.
pub type ConnectionId = u64;

/// One connected integrator.
#[derive(Clone)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// Its stream.
    pub stream: Option<StreamId>,
    /// Whether its hello named any callback.
    pub has_callbacks: bool,
    /// The way back.
    pub callbacks: Arc<dyn Callbacks>,
    /// Turns true when the connection is over and no call of it is under way.
    over: Arc<watch::Sender<bool>>,
}

/// What a newcomer meets.
pub enum Entry {
    /// It is in.
    Seated(ConnectionId),
    /// An older connection has its stream; it is in when that one is over.
    After(ConnectionId, Box<Connection>),
    /// Another connection has the callbacks of its name.
    NameInUse,
    /// There are as many as there may be.
    Full,
}

/// The connections of a proxy.
pub struct Switchboard {
    connections: Mutex<(ConnectionId, BTreeMap<ConnectionId, Connection>)>,
    connections_max: usize,
    changed: watch::Sender<u64>,
    /// Leave to call back: five at once over all (ACT-4).
    pub leave: Arc<Semaphore>,
}

impl Connection {
    /// Waits until the connection is over and no call of it is under way.
    pub async fn is_over(&self) {
        let mut over = self.over.subscribe();
        // An error means that its seat is gone, and so is it.
        let _ = over.wait_for(|over| *over).await;
    }
}

impl Switchboard {
    /// One without connections.
    pub fn new(connections_max: usize, at_once: usize) -> Self {
        Self {
            connections: Mutex::default(),
            connections_max,
            changed: watch::channel(0).0,
            leave: Arc::new(Semaphore::new(at_once.max(1))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (ConnectionId, BTreeMap<ConnectionId, Connection>)> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a newcomer in. An older connection with its stream loses its seat and is to be ended.
    pub fn enter(
        &self,
        name: &str,
        stream: Option<StreamId>,
        has_callbacks: bool,
        callbacks: Arc<dyn Callbacks>,
    ) -> Entry {
        let mut guard = self.lock();
        let (last, connections) = &mut *guard;
        let same = connections.iter().find(|(_, c)| stream.is_some() && c.stream == stream);
        let older = same.map(|(id, c)| (*id, c.clone()));
        let is_other = |id: &ConnectionId| older.as_ref().is_none_or(|(older, _)| older != id);
        let taken = |(id, c): (&ConnectionId, &Connection)| {
            is_other(id) && c.has_callbacks && c.name == name
        };
        if has_callbacks && connections.iter().any(taken) {
            return Entry::NameInUse;
        }
        if let Some((id, _)) = &older {
            connections.remove(id);
        } else if connections.len() >= self.connections_max {
            return Entry::Full;
        }
        *last += 1;
        let over = Arc::new(watch::channel(false).0);
        let name = name.to_owned();
        connections.insert(*last, Connection { name, stream, has_callbacks, callbacks, over });
        let id = *last;
        drop(guard);
        self.changed.send_modify(|n| *n += 1);
        match older {
            Some((_, older)) => Entry::After(id, Box::new(older)),
            None => Entry::Seated(id),
        }
    }

    /// The connection of that number, while it has its seat.
    pub fn connection(&self, id: ConnectionId) -> Option<Connection> {
        self.lock().1.get(&id).cloned()
    }

    /// The connection is over and no call of it is under way.
    pub fn leave(&self, id: ConnectionId, connection: &Connection) {
        self.lock().1.remove(&id);
        connection.over.send_replace(true);
        self.changed.send_modify(|n| *n += 1);
    }

    /// The way back to the integrator of that name, where it takes that callback.
    pub fn callbacks(&self, name: &str, callback: Callback) -> Option<Arc<dyn Callbacks>> {
        let guard = self.lock();
        let of_name = guard.1.values().find(|c| c.has_callbacks && c.name == name)?;
        of_name.callbacks.has(callback).then(|| of_name.callbacks.clone())
    }

    /// Whether a connection of that name has callbacks at all.
    pub fn has_callbacks(&self, name: &str) -> bool {
        self.lock().1.values().any(|c| c.has_callbacks && c.name == name)
    }

    /// Names of those who are connected.
    pub fn names(&self) -> BTreeSet<String> {
        self.lock().1.values().map(|c| c.name.clone()).collect()
    }

    /// Changes with each connection that comes or goes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
