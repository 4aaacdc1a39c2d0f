//! Customers, nodes, integrators, instances: what registrations and removals make of the rows.
use std::sync::Arc;

use bytes::Bytes;
use extension::storage::{Change, QueueStore, StoreError};
use protocol::{
    Message, RemoteId,
    registration::{InstanceRegistration, Registration},
    service::Service,
};
use uuid::Uuid;

use super::{
    overlay::Overlay,
    rows::{
        ALLOTMENTS, Allotment, CUSTOMERS, CustomerRow, INSTANCES, INTEGRATORS, InstanceRow,
        IntegratorRow, NODES, NUMBERS, NodeRow, allotment_key, numbers_key,
    },
};

/// A node as it registers.
pub struct NodeRegistration<'a> {
    /// Its name, unique within the customer.
    pub name: &'a str,
    /// What it is for.
    pub roles: &'a [String],
    /// Version of its program.
    pub version: &'a str,
    /// Drawn when its store was made.
    pub nonce: u64,
}

/// Rows of customers that the configuration names, where they are missing or have another name.
pub fn seed_customers(
    store: Arc<dyn QueueStore>,
    customers: &[(Uuid, String)],
    now: i64,
) -> Result<Vec<Change>, StoreError> {
    let mut overlay = Overlay::new(store);
    for (id, name) in customers {
        let known: Option<CustomerRow> = overlay.value(CUSTOMERS, id.as_bytes())?;
        if known.as_ref().is_none_or(|k| k.name != *name) {
            let registered_at = known.map_or(now, |k| k.registered_at);
            let row = CustomerRow { name: name.clone(), registered_at };
            overlay.put_value(CUSTOMERS, Bytes::copy_from_slice(id.as_bytes()), &row);
        }
    }
    Ok(overlay.take_changes())
}

/// Rows of a node that has its id by configuration, such as the application server itself: its
/// number is never given to another.
pub fn seed_node(
    store: Arc<dyn QueueStore>,
    id: RemoteId,
    node: &NodeRegistration<'_>,
    now: i64,
) -> Result<Vec<Change>, StoreError> {
    let mut overlay = Overlay::new(store);
    if let Some(number) = id.number(1) {
        settle(&mut overlay, id.customer_id(), number, None, node)?;
        put_node(&mut overlay, id.cut(1), node, now)?;
    }
    Ok(overlay.take_changes())
}

/// Plans what a message changes in the directory. The same message again changes nothing.
pub fn note(overlay: &mut Overlay, message: &Message, now: i64) -> Result<(), StoreError> {
    let header = &message.header;
    match &message.service {
        Service::Registration(Registration::Node { name, roles, version, nonce }) => {
            let node = NodeRegistration { name, roles, version, nonce: *nonce };
            note_node(overlay, header.id.origin, &node, now)
        }
        Service::Registration(Registration::Integrator { id, name, version, callbacks })
            if id.is_under(&header.id.origin) && id.levels() == 2 =>
        {
            let known: Option<IntegratorRow> = overlay.value(INTEGRATORS, id.as_bytes())?;
            let row = IntegratorRow {
                name: name.clone(),
                version: version.clone(),
                callbacks: callbacks.clone(),
                registered_at: known.as_ref().map_or(now, |k| k.registered_at),
                capabilities: known.and_then(|k| k.capabilities),
                removed_at: None,
            };
            overlay.put_value(INTEGRATORS, Bytes::copy_from_slice(id.as_bytes()), &row);
            Ok(())
        }
        Service::Registration(Registration::Instances(instances)) => {
            let ours = instances.iter().filter(|i| i.id.is_under(&header.id.origin));
            ours.filter(|i| i.id.levels() == 3).try_for_each(|i| note_instance(overlay, i, now))
        }
        Service::Removal(removal) if removal.subject.is_under(&header.id.origin) => {
            note_removal(overlay, &removal.subject, now)
        }
        Service::Capabilities(said) => {
            let xml = String::from_utf8_lossy(&said.payload.data).into_owned();
            note_capabilities(overlay, &header.source, xml)
        }
        _ => Ok(()),
    }
}

/// Allots a node its number by (customer, name, nonce), again and again the same (DESIGN §15).
/// A customer that nobody knows gets none.
fn note_node(
    overlay: &mut Overlay,
    origin: RemoteId,
    node: &NodeRegistration<'_>,
    now: i64,
) -> Result<(), StoreError> {
    let customer = origin.customer_id();
    if overlay.row(CUSTOMERS, customer.as_bytes())?.is_none() {
        return Ok(());
    }
    let key = allotment_key(customer, node.nonce, node.name);
    if let Some(known) = overlay.value::<Allotment>(ALLOTMENTS, &key)? {
        let id = origin.cut(0).child(known.number).unwrap_or(origin);
        return put_node(overlay, id, node, now);
    }
    let newest = overlay.row(NUMBERS, &numbers_key(customer, Some(node.name)))?;
    let replaced = newest.as_deref().and_then(number);
    let last = overlay.row(NUMBERS, &numbers_key(customer, None))?;
    let next = last.as_deref().and_then(number).unwrap_or(0).saturating_add(1);
    // A node that has an id, known to it and lost here, keeps it.
    let own = origin.number(1).filter(|n| *n > 0);
    let free = match own {
        Some(_) => overlay.row(NODES, origin.cut(1).as_bytes())?.is_none(),
        None => false,
    };
    let number = own.filter(|_| free).unwrap_or(next);
    settle(overlay, customer, number, replaced, node)?;
    if let Some(old) = replaced.and_then(|old| origin.cut(0).child(old)) {
        note_removal(overlay, &old, now)?;
    }
    let id = origin.cut(0).child(number).unwrap_or(origin);
    put_node(overlay, id, node, now)
}

/// Rows that keep a number for a node.
fn settle(
    overlay: &mut Overlay,
    customer: Uuid,
    given: u32,
    replaced: Option<u32>,
    node: &NodeRegistration<'_>,
) -> Result<(), StoreError> {
    let key = numbers_key(customer, None);
    let last = overlay.row(NUMBERS, &key)?.as_deref().and_then(number).unwrap_or(0);
    if given > last {
        overlay.put(NUMBERS, key, given.to_be_bytes().to_vec().into());
    }
    let of_name = numbers_key(customer, Some(node.name));
    overlay.put(NUMBERS, of_name, given.to_be_bytes().to_vec().into());
    let allotment = Allotment { number: given, replaced };
    overlay.put_value(ALLOTMENTS, allotment_key(customer, node.nonce, node.name), &allotment);
    Ok(())
}

fn number(row: &[u8]) -> Option<u32> {
    row.try_into().ok().map(u32::from_be_bytes)
}

fn put_node(
    overlay: &mut Overlay,
    id: RemoteId,
    node: &NodeRegistration<'_>,
    now: i64,
) -> Result<(), StoreError> {
    let known: Option<NodeRow> = overlay.value(NODES, id.as_bytes())?;
    let row = NodeRow {
        name: node.name.to_owned(),
        roles: node.roles.to_vec(),
        version: node.version.to_owned(),
        nonce: node.nonce,
        registered_at: known.as_ref().map_or(now, |k| k.registered_at),
        removed_at: None,
    };
    if known.as_ref() != Some(&row) {
        overlay.put_value(NODES, Bytes::copy_from_slice(id.as_bytes()), &row);
    }
    Ok(())
}

fn note_instance(
    overlay: &mut Overlay,
    said: &InstanceRegistration,
    now: i64,
) -> Result<(), StoreError> {
    let known: Option<InstanceRow> = overlay.value(INSTANCES, said.id.as_bytes())?;
    let before = known.as_ref().and_then(|k| k.capabilities.clone());
    let row = InstanceRow {
        external_id: said.external_id.clone(),
        capabilities: said.capabilities.clone().or(before),
        registered_at: known.as_ref().map_or(now, |k| k.registered_at),
        removed_at: None,
    };
    if known.as_ref() != Some(&row) {
        overlay.put_value(INSTANCES, Bytes::copy_from_slice(said.id.as_bytes()), &row);
    }
    Ok(())
}

/// Marks a record as removed; it stays with its history (LIF-1, LIF-2).
fn note_removal(overlay: &mut Overlay, id: &RemoteId, now: i64) -> Result<(), StoreError> {
    let key = Bytes::copy_from_slice(id.as_bytes());
    match id.levels() {
        3 => {
            if let Some(row) = overlay.value::<InstanceRow>(INSTANCES, &key)? {
                let removed_at = row.removed_at.or(Some(now));
                overlay.put_value(INSTANCES, key, &InstanceRow { removed_at, ..row });
            }
        }
        2 => {
            if let Some(row) = overlay.value::<IntegratorRow>(INTEGRATORS, &key)? {
                let removed_at = row.removed_at.or(Some(now));
                overlay.put_value(INTEGRATORS, key, &IntegratorRow { removed_at, ..row });
            }
        }
        1 => {
            if let Some(row) = overlay.value::<NodeRow>(NODES, &key)? {
                let removed_at = row.removed_at.or(Some(now));
                overlay.put_value(NODES, key, &NodeRow { removed_at, ..row });
            }
        }
        _ => {}
    }
    Ok(())
}

fn note_capabilities(overlay: &mut Overlay, of: &RemoteId, xml: String) -> Result<(), StoreError> {
    let key = Bytes::copy_from_slice(of.as_bytes());
    if let Some(row) = overlay.value::<InstanceRow>(INSTANCES, &key)? {
        overlay.put_value(INSTANCES, key, &InstanceRow { capabilities: Some(xml), ..row });
    } else if let Some(row) = overlay.value::<IntegratorRow>(INTEGRATORS, &key)? {
        overlay.put_value(INTEGRATORS, key, &IntegratorRow { capabilities: Some(xml), ..row });
    }
    Ok(())
}
