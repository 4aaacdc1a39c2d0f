//! Either identifier of an instance names the other (IDM-6): the platform's own and the remote
//! services id.
use extension::storage::StoreError;
use protocol::RemoteId;

use super::identifiers::{Identifiers, Instance};

/// An instance that this proxy gave a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Name of its integrator.
    pub integrator: String,
    /// Id of its integrator.
    pub integrator_id: RemoteId,
    /// The platform's own identifier.
    pub instance: String,
    /// The remote services id.
    pub instance_id: RemoteId,
    /// Whether it was registered under the id that the proxy has now.
    pub is_registered: bool,
}

/// The instances of the proxy `node` that `asked` names, be it as the platform does (several
/// integrators may know one of that name) or by id.
pub fn find(
    identifiers: &Identifiers,
    node: &RemoteId,
    asked: &str,
) -> Result<Vec<Found>, StoreError> {
    let mut found = Vec::new();
    let mut add = |number: u32, integrator: &str, name: &str, instance: Instance| {
        let integrator_id = node.child(number);
        let instance_id = integrator_id.and_then(|id| id.child(instance.number));
        found.extend(integrator_id.zip(instance_id).map(|(integrator_id, instance_id)| Found {
            integrator: integrator.to_owned(),
            integrator_id,
            instance: name.to_owned(),
            instance_id,
            is_registered: instance.under == Some(*node),
        }));
    };
    for (number, integrator) in identifiers.integrators()? {
        if let Some(instance) = identifiers.instance(number, asked)? {
            add(number, &integrator, asked, instance);
        }
    }
    let id = asked.parse::<RemoteId>().ok().filter(|id| id.levels() == 3 && id.cut(1) == *node);
    let numbers = id.and_then(|id| id.number(2).zip(id.number(3)));
    if let Some((of, number)) = numbers
        && let Some(integrator) = identifiers.integrator_name(of)?
        && let Some(name) = identifiers.instance_name(of, number)?
        && let Some(instance) = identifiers.instance(of, &name)?
    {
        add(of, &integrator, &name, instance);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use extension::storage::QueueStore as _;
    use module_memory::MemoryStore;

    use super::*;

    // IDM-6
    #[test]
    fn a_name_finds_ids_and_an_id_finds_the_name() {
        let store = Arc::new(MemoryStore::new());
        let ids = Identifiers::new(store.clone());
        let node = RemoteId::customer(uuid::Uuid::from_u128(7)).child(3).unwrap();
        for integrator in ["snmp", "syslog"] {
            let number = ids.integrator(integrator).unwrap();
            store.commit(&number.changes).unwrap();
            for name in ["192.0.2.1", integrator] {
                let allotted = ids.allot(number.value, name).unwrap();
                store.commit(&allotted.changes).unwrap();
                ids.committed(
                    number.value,
                    name,
                    Instance { under: Some(node).filter(|_| name != integrator), ..allotted.value },
                );
            }
        }
        let found = |asked: &str| -> Vec<(String, String, bool)> {
            let found = find(&ids, &node, asked).unwrap().into_iter();
            found.map(|f| (f.instance, f.instance_id.to_string(), f.is_registered)).collect()
        };
        let of = |name: &str, id: &str, is_registered| {
            (name.to_owned(), format!("{node}/{id}"), is_registered)
        };
        let both = [of("192.0.2.1", "1/1", true), of("192.0.2.1", "2/1", true)];
        assert_eq!(found("192.0.2.1"), both);
        assert_eq!(found(&format!("{node}/2/1")), both[1..]);
        assert_eq!(found(&format!("{node}/2/2").replace('/', ".")), [of("syslog", "2/2", false)]);
        let elsewhere = node.parent().unwrap().child(4).unwrap();
        for nobody in ["192.0.2.9", &format!("{node}/2/9"), &format!("{elsewhere}/2/1"), ""] {
            assert_eq!(found(nobody), [], "{nobody}");
        }
    }
}
