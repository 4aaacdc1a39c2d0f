//! Allots numbers to integrators and instances, and keeps them for ever (IDM-4…7).
//!
//! Not an actor: a number given out and not yet on disk must outlive a restart of whoever asked,
//! or two names could get it. What is shared here never fails half-way: each call reads rows or
//! counts. A number is stored in the commit of the first message that needs it.
use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use extension::storage::{Change, QueueStore, StoreError};
use protocol::RemoteId;

/// Numbers of integrators. Key: name.
pub const INTEGRATORS: &str = "integrators";
/// Names of integrators. Key: number.
pub const INTEGRATOR_NUMBERS: &str = "integrator-numbers";
/// Instances. Key: number of the integrator, then the platform's own name.
pub const INSTANCES: &str = "instances";
/// Platforms' own names. Key: numbers of integrator and instance. A number whose instance was
/// removed stays here without a name, so that it is never given again.
pub const INSTANCE_NUMBERS: &str = "instance-numbers";

/// Instances kept in memory, some 10 MiB; the rest is read from disk.
const CACHE_MAX: usize = 32_768;
/// Instances whose numbers are on their way to disk: what all windows together can bring.
const PENDING_MAX: usize = 65_536;

/// What is known of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its number at its integrator.
    pub number: u32,
    /// The node's id under which it was registered last; none: not yet.
    pub under: Option<RemoteId>,
    /// Digest of its capabilities as they were registered; 0: none were.
    pub capabilities: u64,
}

/// A number, and what must go into the commit that uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allotted<T> {
    /// The number, or the instance with its number.
    pub value: T,
    /// Whether it had it before.
    pub known: bool,
    /// Empty where it is on disk.
    pub changes: Vec<Change>,
}

/// Why there is no number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNumber {
    /// The rows cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too many numbers are on their way to disk, or none is left.
    #[error("no number can be given now: the store does not keep up")]
    Exhausted,
}

#[derive(Clone, Copy)]
struct Entry {
    instance: Instance,
    pending: bool,
}

#[derive(Default)]
struct Inner {
    /// By number of the integrator, then name.
    instances: HashMap<u32, HashMap<Box<str>, Entry>>,
    cached: usize,
    pending: usize,
    /// Last number given, by integrator.
    last: HashMap<u32, u32>,
    last_integrator: Option<u32>,
    /// Numbers of integrators that are not on disk yet.
    integrators: HashMap<Box<str>, u32>,
}

/// The tables of numbers. One per proxy.
pub struct Identifiers {
    store: Arc<dyn QueueStore>,
    inner: Mutex<Inner>,
}

impl Identifiers {
    /// Those of a store.
    pub fn new(store: Arc<dyn QueueStore>) -> Self {
        Self { store, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of an integrator.
    pub fn integrator(&self, name: &str) -> Result<Allotted<u32>, NoNumber> {
        let mut inner = self.lock();
        if let Some(number) = self.store.row(INTEGRATORS, name.as_bytes())?.and_then(read_number) {
            inner.integrators.remove(name);
            return Ok(Allotted { value: number, known: true, changes: Vec::new() });
        }
        let number = match inner.integrators.get(name) {
            Some(number) => *number,
            None => {
                if inner.integrators.len() >= PENDING_MAX {
                    return Err(NoNumber::Exhausted);
                }
                let last = match inner.last_integrator {
                    Some(last) => last,
                    None => self.last_of(INTEGRATOR_NUMBERS, &[])?,
                };
                let number = last.checked_add(1).ok_or(NoNumber::Exhausted)?;
                inner.last_integrator = Some(number);
                inner.integrators.insert(name.into(), number);
                number
            }
        };
        let name = Bytes::copy_from_slice(name.as_bytes());
        let changes = vec![
            put(INTEGRATORS, name.clone(), number_bytes(number)),
            put(INTEGRATOR_NUMBERS, number_bytes(number), name),
        ];
        Ok(Allotted { value: number, known: false, changes })
    }

    /// Numbers and names of all integrators on disk.
    pub fn integrators(&self) -> Result<Vec<(u32, String)>, StoreError> {
        let mut all = Vec::new();
        self.store.rows(INTEGRATOR_NUMBERS, &[], &[], &mut |number, name| {
            let number = number.try_into().ok().map(u32::from_be_bytes);
            let name = std::str::from_utf8(name).ok().map(str::to_owned);
            all.extend(number.zip(name));
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    /// The name of the integrator with that number, once it is on disk (IDM-6).
    pub fn integrator_name(&self, number: u32) -> Result<Option<String>, StoreError> {
        let row = self.store.row(INTEGRATOR_NUMBERS, &number.to_be_bytes())?;
        Ok(row.and_then(|name| String::from_utf8(name.to_vec()).ok()))
    }

    /// The platform's own name of the instance with those numbers, once it is on disk (IDM-6).
    pub fn instance_name(
        &self,
        integrator: u32,
        instance: u32,
    ) -> Result<Option<String>, StoreError> {
        let row = self.store.row(INSTANCE_NUMBERS, &pair(integrator, instance))?;
        let name = row.and_then(|name| String::from_utf8(name.to_vec()).ok());
        Ok(name.filter(|name| !name.is_empty()))
    }

    /// What is known of an instance, be it on disk or on its way there.
    pub fn instance(&self, integrator: u32, name: &str) -> Result<Option<Instance>, StoreError> {
        let mut inner = self.lock();
        self.entry(&mut inner, integrator, name).map(|e| e.map(|e| e.instance))
    }

    fn entry(
        &self,
        inner: &mut Inner,
        integrator: u32,
        name: &str,
    ) -> Result<Option<Entry>, StoreError> {
        if let Some(entry) = inner.instances.get(&integrator).and_then(|of| of.get(name)) {
            return Ok(Some(*entry));
        }
        let row = self.store.row(INSTANCES, &key_of(integrator, name))?;
        let Some(instance) = row.and_then(|row| Instance::decode(&row)) else { return Ok(None) };
        let entry = Entry { instance, pending: false };
        inner.remember(integrator, name, entry);
        Ok(Some(entry))
    }

    /// The number of an instance; a new one where it has none.
    pub fn allot(&self, integrator: u32, name: &str) -> Result<Allotted<Instance>, NoNumber> {
        let mut inner = self.lock();
        if let Some(entry) = self.entry(&mut inner, integrator, name)? {
            let changes = match entry.pending {
                true => rows_of(integrator, name, &entry.instance),
                false => Vec::new(),
            };
            return Ok(Allotted { value: entry.instance, known: !entry.pending, changes });
        }
        if inner.pending >= PENDING_MAX {
            return Err(NoNumber::Exhausted);
        }
        let last = match inner.last.get(&integrator) {
            Some(last) => *last,
            None => self.last_of(INSTANCE_NUMBERS, &integrator.to_be_bytes())?,
        };
        let number = last.checked_add(1).ok_or(NoNumber::Exhausted)?;
        inner.last.insert(integrator, number);
        let instance = Instance { number, under: None, capabilities: 0 };
        inner.pending += 1;
        inner.remember(integrator, name, Entry { instance, pending: true });
        let changes = rows_of(integrator, name, &instance);
        Ok(Allotted { value: instance, known: false, changes })
    }

    /// The highest number in a table of numbers.
    fn last_of(&self, table: &'static str, prefix: &[u8]) -> Result<u32, StoreError> {
        let mut last = 0;
        self.store.rows_back(table, prefix, &[], &mut |key, _| {
            last = key.last_chunk().map(|n| u32::from_be_bytes(*n)).unwrap_or_default();
            ControlFlow::Break(())
        })?;
        Ok(last)
    }

    /// A row of that instance is on disk now and says this.
    pub fn committed(&self, integrator: u32, name: &str, instance: Instance) {
        let mut inner = self.lock();
        inner.forget(integrator, name);
        inner.remember(integrator, name, Entry { instance, pending: false });
    }

    /// The changes that remove an instance; its number stays taken.
    pub fn removal(integrator: u32, name: &str, instance: &Instance) -> Vec<Change> {
        let number = Bytes::copy_from_slice(&pair(integrator, instance.number));
        vec![
            Change::RemoveRow { table: INSTANCES, key: key_of(integrator, name) },
            put(INSTANCE_NUMBERS, number, Bytes::new()),
        ]
    }

    /// The removal of that instance is on disk.
    pub fn removed(&self, integrator: u32, name: &str) {
        self.lock().forget(integrator, name);
    }

    /// Instances of an integrator on disk, by name, that come after `after`; at most `most`.
    pub fn page(
        &self,
        integrator: u32,
        after: &str,
        most: usize,
    ) -> Result<Vec<(String, Instance)>, StoreError> {
        let mut page = Vec::new();
        let from = key_of(integrator, after);
        self.store.rows(INSTANCES, &integrator.to_be_bytes(), &from, &mut |key, value| {
            let name = key.get(4..).and_then(|name| std::str::from_utf8(name).ok());
            if let (Some(name), Some(instance)) = (name, Instance::decode(value))
                && name != after
            {
                page.push((name.to_owned(), instance));
            }
            match page.len() < most {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        Ok(page)
    }
}

impl Inner {
    fn remember(&mut self, integrator: u32, name: &str, entry: Entry) {
        if self.cached >= CACHE_MAX {
            // What is on its way to disk is known here only; the rest is read again.
            for of in self.instances.values_mut() {
                of.retain(|_, entry| entry.pending);
            }
            self.instances.retain(|_, of| !of.is_empty());
            self.cached = self.instances.values().map(HashMap::len).sum();
        }
        let of = self.instances.entry(integrator).or_default();
        if of.insert(name.into(), entry).is_none() {
            self.cached += 1;
        }
    }

    fn forget(&mut self, integrator: u32, name: &str) {
        let Some(of) = self.instances.get_mut(&integrator) else { return };
        if let Some(entry) = of.remove(name) {
            self.cached -= 1;
            self.pending -= usize::from(entry.pending);
        }
    }
}

impl Instance {
    /// The row that says this of the instance.
    pub fn row(&self, integrator: u32, name: &str) -> Change {
        let mut value = self.number.to_be_bytes().to_vec();
        value.extend_from_slice(&self.capabilities.to_be_bytes());
        if let Some(under) = &self.under {
            value.extend_from_slice(under.as_bytes());
        }
        put(INSTANCES, key_of(integrator, name), value.into())
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (number, rest) = row.split_first_chunk()?;
        let (capabilities, under) = rest.split_first_chunk()?;
        let under = match under {
            [] => None,
            under => Some(RemoteId::from_bytes(under).ok()?),
        };
        let (number, capabilities) =
            (u32::from_be_bytes(*number), u64::from_be_bytes(*capabilities));
        Some(Self { number, under, capabilities })
    }
}

fn rows_of(integrator: u32, name: &str, instance: &Instance) -> Vec<Change> {
    let number = Bytes::copy_from_slice(&pair(integrator, instance.number));
    let name_bytes = Bytes::copy_from_slice(name.as_bytes());
    vec![instance.row(integrator, name), put(INSTANCE_NUMBERS, number, name_bytes)]
}

fn put(table: &'static str, key: Bytes, value: Bytes) -> Change {
    Change::PutRow { table, key, value }
}

fn number_bytes(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn read_number(row: Bytes) -> Option<u32> {
    row.as_ref().try_into().ok().map(u32::from_be_bytes)
}

fn pair(integrator: u32, instance: u32) -> [u8; 8] {
    ((u64::from(integrator) << 32) | u64::from(instance)).to_be_bytes()
}

/// Key of an instance in tables by integrator and name.
pub fn key_of(integrator: u32, name: &str) -> Bytes {
    let mut key = integrator.to_be_bytes().to_vec();
    key.extend_from_slice(name.as_bytes());
    key.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use module_memory::MemoryStore;

    use super::*;

    fn identifiers(store: &Arc<MemoryStore>) -> Identifiers {
        Identifiers::new(store.clone())
    }

    fn allot(store: &Arc<MemoryStore>, ids: &Identifiers, integrator: u32, name: &str) -> u32 {
        let allotted = ids.allot(integrator, name).unwrap();
        store.commit(&allotted.changes).unwrap();
        ids.committed(integrator, name, allotted.value);
        allotted.value.number
    }

    // IDM-7
    #[test]
    fn integrators_and_instances_get_their_earlier_numbers_back_after_a_restart() {
        let store = Arc::new(MemoryStore::new());
        let first = identifiers(&store);
        let snmp = first.integrator("snmp").unwrap();
        store.commit(&snmp.changes).unwrap();
        let syslog = first.integrator("syslog").unwrap();
        store.commit(&syslog.changes).unwrap();
        assert_eq!((snmp.value, syslog.value), (1, 2));
        assert_eq!(allot(&store, &first, 1, "192.0.2.1"), 1);
        assert_eq!(allot(&store, &first, 1, "192.0.2.2"), 2);
        let again = identifiers(&store);
        let syslog = again.integrator("syslog").unwrap();
        assert_eq!((syslog.value, syslog.known, syslog.changes), (2, true, Vec::new()));
        let known = again.allot(1, "192.0.2.2").unwrap();
        assert_eq!((known.value.number, known.known, known.changes), (2, true, Vec::new()));
        assert_eq!(allot(&store, &again, 1, "192.0.2.3"), 3);
    }

    // IDM-6
    #[test]
    fn either_identifier_names_the_other() {
        let store = Arc::new(MemoryStore::new());
        let ids = identifiers(&store);
        store.commit(&ids.integrator("snmp").unwrap().changes).unwrap();
        let number = allot(&store, &ids, 1, "192.0.2.1");
        assert_eq!(ids.instance(1, "192.0.2.1").unwrap().unwrap().number, number);
        assert_eq!(ids.instance_name(1, number).unwrap().as_deref(), Some("192.0.2.1"));
        assert_eq!(ids.integrator_name(1).unwrap().as_deref(), Some("snmp"));
        assert_eq!(ids.instance_name(1, 99).unwrap(), None);
    }

    #[test]
    fn a_number_on_its_way_to_disk_is_not_given_twice_and_the_same_name_gets_it_again() {
        let store = Arc::new(MemoryStore::new());
        let ids = identifiers(&store);
        let first = ids.allot(1, "a").unwrap();
        assert_eq!(ids.allot(1, "b").unwrap().value.number, 2);
        let again = ids.allot(1, "a").unwrap();
        assert_eq!(again, first, "with the changes, whichever commit comes first");
        // The second is committed alone: numbers go on behind it all the same.
        store.commit(&ids.allot(1, "b").unwrap().changes).unwrap();
        assert_eq!(identifiers(&store).allot(1, "c").unwrap().value.number, 3);
    }

    #[test]
    fn the_number_of_a_removed_instance_is_never_given_again() {
        let store = Arc::new(MemoryStore::new());
        let ids = identifiers(&store);
        allot(&store, &ids, 1, "a");
        let instance = ids.instance(1, "a").unwrap().unwrap();
        store.commit(&Identifiers::removal(1, "a", &instance)).unwrap();
        ids.removed(1, "a");
        for ids in [ids, identifiers(&store)] {
            assert_eq!(ids.instance(1, "a").unwrap(), None);
            assert_eq!(ids.instance_name(1, 1).unwrap(), None);
            assert_eq!(ids.allot(1, "a").unwrap().value.number, 2);
        }
    }

    #[test]
    fn memory_is_bounded_and_numbers_are_right_all_the_same() {
        let store = Arc::new(MemoryStore::new());
        let ids = identifiers(&store);
        let many = CACHE_MAX as u32 + 100;
        for n in 1..=many {
            assert_eq!(allot(&store, &ids, 1, &format!("device-{n}")), n);
        }
        assert!(ids.lock().cached <= CACHE_MAX);
        assert_eq!(ids.lock().pending, 0);
        assert_eq!(ids.allot(1, "device-1").unwrap().value.number, 1);
        let page = ids.page(1, "device-9998", 2).unwrap();
        assert_eq!(page.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["device-9999"]);
    }
}
