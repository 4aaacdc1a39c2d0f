//! Lists of customers, nodes, integrators, instances, and the ledgers of nodes.
use std::{collections::BTreeMap, ops::ControlFlow};

use bytes::Bytes;
use extension::{
    records::{
        Answer, Customer, Instance, InstanceFilter, InstanceState, Integrator, IntegratorFilter,
        IntegratorState, Ledger, LedgerFilter, Page, Paging, Records, RecordsError, Time,
        kept::{ALARMS, count_key, count_of},
    },
    storage::Change,
};
use protocol::{RemoteId, heartbeat::Account};
use uuid::Uuid;

use super::{
    query::{AppRecords, Desk, failed, page_back, takes},
    rows::{
        CUSTOMERS, CustomerRow, INSTANCES, INTEGRATORS, InstanceRow, IntegratorRow, LAST, NODES,
        NodeRow, REPEATS, Repeat, SERVICES, from_row, number_at, service_key, to_row,
    },
};

/// Time between heartbeats where it is not known yet, ms (DESIGN §15).
pub(crate) const INTERVAL_MS: (i64, i64) = (30_000, 15 * 60_000);
/// How long a request with an Idempotency-Key is remembered, ms.
pub(crate) const REPEAT_MS: i64 = 24 * 3600 * 1000;

/// Who is meant by a filter: prefixes of ids; none: all.
pub(crate) struct Whose(Option<Vec<RemoteId>>);

impl Whose {
    /// Whether an id is meant.
    pub(crate) fn takes(&self, id: &RemoteId) -> bool {
        self.0.as_ref().is_none_or(|prefixes| prefixes.iter().any(|p| id.is_under(p)))
    }

    /// The prefix all that is meant shares, for a scan.
    pub(crate) fn prefix(&self) -> &[u8] {
        match self.0.as_deref() {
            Some([one]) => one.as_bytes(),
            _ => &[],
        }
    }
}

impl Desk {
    /// Who is under a customer (id or name) and a node (id or name).
    pub(crate) fn whose(&self, customer: Option<&str>, node: Option<&str>) -> Answer<Whose> {
        let mut prefixes = match customer {
            None => None,
            Some(word) => Some(self.named_customers(word)?),
        };
        if let Some(word) = node {
            let nodes = match word.parse::<RemoteId>() {
                Ok(id) => vec![id],
                Err(_) => self.named_nodes(word)?,
            };
            let under = |n: &RemoteId| {
                prefixes.as_ref().is_none_or(|p: &Vec<RemoteId>| p.iter().any(|p| n.is_under(p)))
            };
            prefixes = Some(nodes.into_iter().filter(under).collect());
        }
        Ok(Whose(prefixes))
    }

    fn named_customers(&self, word: &str) -> Answer<Vec<RemoteId>> {
        if let Ok(id) = word.parse::<RemoteId>() {
            return Ok(vec![id.cut(0)]);
        }
        let mut ids = Vec::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            if from_row::<CustomerRow>(value).is_some_and(|c| c.name == word) {
                ids.extend(RemoteId::from_bytes(key));
            }
            ControlFlow::Continue(())
        };
        self.store.rows(CUSTOMERS, &[], &[], visit).map_err(failed)?;
        Ok(ids)
    }

    fn named_nodes(&self, word: &str) -> Answer<Vec<RemoteId>> {
        let mut ids = Vec::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            if from_row::<NodeRow>(value).is_some_and(|n| n.name == word) {
                ids.extend(RemoteId::from_bytes(key));
            }
            ControlFlow::Continue(())
        };
        self.store.rows(NODES, &[], &[], visit).map_err(failed)?;
        Ok(ids)
    }

    fn count_under(&self, table: &'static str, id: &RemoteId) -> Answer<u64> {
        let mut count = 0;
        let visit = &mut |_: &[u8], _: &[u8]| {
            count += 1;
            ControlFlow::Continue(())
        };
        self.store.rows(table, id.as_bytes(), &[], visit).map_err(failed)?;
        Ok(count)
    }

    fn open_alarms(&self, id: &RemoteId) -> Answer<u64> {
        let row = self.row(SERVICES, &service_key(ALARMS, &count_key(id)))?;
        Ok(count_of(row.as_deref()))
    }

    /// A row.
    pub(crate) fn row(&self, table: &'static str, key: &[u8]) -> Answer<Option<Bytes>> {
        self.store.row(table, key).map_err(failed)
    }

    /// A value.
    pub(crate) fn value<T: serde::de::DeserializeOwned>(
        &self,
        table: &'static str,
        key: &[u8],
    ) -> Answer<Option<T>> {
        Ok(self.row(table, key)?.and_then(|row| from_row(&row)))
    }

    pub(crate) fn customers(&self, paging: &Paging) -> Answer<Page<Customer>> {
        page_back(&*self.store, CUSTOMERS, &[], paging, |key, value| {
            let id = Uuid::from_slice(key).ok();
            id.zip(from_row(value)).map(|(id, row)| self.customer_view(id, row)).transpose()
        })
    }

    pub(crate) fn customer(&self, id: Uuid) -> Answer<Customer> {
        let row = self.value(CUSTOMERS, id.as_bytes())?.ok_or(RecordsError::NotFound)?;
        self.customer_view(id, row)
    }

    fn customer_view(&self, customer_id: Uuid, row: CustomerRow) -> Answer<Customer> {
        let id = RemoteId::customer(customer_id);
        Ok(Customer {
            customer_id,
            customer: row.name,
            registered_at: Time(row.registered_at),
            nodes: self.count_under(NODES, &id)?,
            instances: self.count_under(INSTANCES, &id)?,
            alarms: self.open_alarms(&id)?,
        })
    }

    pub(crate) fn integrators(
        &self,
        filter: &IntegratorFilter,
        paging: &Paging,
    ) -> Answer<Page<Integrator>> {
        let whose = self.whose(filter.customer.as_deref(), filter.node.as_deref())?;
        page_back(&*self.store, INTEGRATORS, whose.prefix(), paging, |key, value| {
            let id = RemoteId::from_bytes(key).ok().filter(|id| whose.takes(id));
            let Some((id, row)) = id.zip(from_row(value)) else { return Ok(None) };
            let integrator = self.integrator_view(id, row)?;
            Ok(takes(&filter.state, &integrator.state).then_some(integrator))
        })
    }

    pub(crate) fn integrator(&self, id: RemoteId) -> Answer<Integrator> {
        let row = self.value(INTEGRATORS, id.as_bytes())?.ok_or(RecordsError::NotFound)?;
        self.integrator_view(id, row)
    }

    fn integrator_view(&self, id: RemoteId, row: IntegratorRow) -> Answer<Integrator> {
        let node_id = id.cut(1);
        let heard = self.beat(&node_id)?;
        let said = heard.as_ref().and_then(|(status, beat)| {
            let said = beat.integrators.iter().find(|i| i.id == id)?;
            Some((status.heard_at, said.connected))
        });
        let state = match said {
            _ if row.removed_at.is_some() => IntegratorState::Away,
            None => IntegratorState::Registering,
            Some((_, true)) => IntegratorState::Connected,
            Some((_, false)) => IntegratorState::Away,
        };
        Ok(Integrator {
            integrator_id: id,
            integrator: row.name,
            version: row.version,
            node_id,
            customer_id: id.customer_id(),
            state,
            instances: self.count_under(INSTANCES, &id)?,
            capabilities: row.capabilities,
            last_seen_at: said.filter(|(_, connected)| *connected).map(|(at, _)| Time(at)),
        })
    }

    pub(crate) fn instances(
        &self,
        filter: &InstanceFilter,
        paging: &Paging,
    ) -> Answer<Page<Instance>> {
        let whose = self.whose(filter.customer.as_deref(), filter.node.as_deref())?;
        page_back(&*self.store, INSTANCES, whose.prefix(), paging, |key, value| {
            let id = RemoteId::from_bytes(key).ok().filter(|id| whose.takes(id));
            let Some((id, row)) = id.zip(from_row::<InstanceRow>(value)) else { return Ok(None) };
            if !is_instance(&filter.instance, &row.external_id, &id) {
                return Ok(None);
            }
            let instance = self.instance_view(id, row)?;
            let wanted =
                filter.integrator.is_empty() || filter.integrator.contains(&instance.integrator);
            Ok((wanted && takes(&filter.state, &instance.state)).then_some(instance))
        })
    }

    pub(crate) fn instance(&self, id: RemoteId) -> Answer<Instance> {
        let row = self.value(INSTANCES, id.as_bytes())?.ok_or(RecordsError::NotFound)?;
        self.instance_view(id, row)
    }

    fn instance_view(&self, id: RemoteId, row: InstanceRow) -> Answer<Instance> {
        let integrator_id = id.cut(2);
        let integrator: Option<IntegratorRow> =
            self.value(INTEGRATORS, integrator_id.as_bytes())?;
        let last = match self.last.of(&id) {
            Some(at) => Some(at),
            None => self.row(LAST, id.as_bytes())?.and_then(|r| number_at(&r, 0)).map(|n| n as i64),
        };
        let state =
            if row.removed_at.is_some() { InstanceState::Removed } else { InstanceState::Active };
        Ok(Instance {
            customer_id: id.customer_id(),
            instance: row.external_id,
            instance_id: id,
            integrator: integrator.map(|i| i.name).unwrap_or_default(),
            integrator_id,
            state,
            delete_after: None,
            capabilities: row.capabilities,
            alarms: self.open_alarms(&id)?,
            registered_at: Time(row.registered_at),
            last_message_at: last.map(Time),
        })
    }

    /// Name and roles of a node, for people.
    pub(crate) fn node_name(&self, id: &RemoteId) -> Answer<(String, Vec<String>)> {
        let row: Option<NodeRow> = self.value(NODES, id.as_bytes())?;
        Ok(row.map_or_else(|| (id.to_string(), Vec::new()), |row| (row.name, row.roles)))
    }

    /// Accounts, and all nodes that were looked at for them, with or without one.
    pub(crate) fn ledger(
        &self,
        filter: &LedgerFilter,
        paging: &Paging,
    ) -> Answer<(Page<Ledger>, Vec<RemoteId>)> {
        let whose = self.whose(filter.customer.as_deref(), filter.node.as_deref())?;
        let mut nodes = Vec::new();
        let page = page_back(&*self.store, NODES, whose.prefix(), paging, |key, _| {
            let id = RemoteId::from_bytes(key).ok().filter(|id| whose.takes(id));
            let Some(id) = id else { return Ok(None) };
            nodes.push(id);
            self.ledger_of(&id)
        })?;
        Ok((page, nodes))
    }

    /// The account of one node; none: it has not said any.
    pub(crate) fn ledger_of(&self, id: &RemoteId) -> Answer<Option<Ledger>> {
        let (node, _) = self.node_name(id)?;
        if *id == self.identity().id {
            return Ok(self.own.get().map(|(at, figures)| {
                let reasons = figures.refused.into_iter().collect();
                ledger(node, *id, at, &figures.account, reasons)
            }));
        }
        let heard = self.beat(id)?;
        Ok(heard.map(|(_, beat)| ledger(node, *id, beat.at, &beat.account, BTreeMap::new())))
    }
}

impl AppRecords {
    /// Makes a customer's id, once for an Idempotency-Key.
    pub(crate) async fn make_customer(
        &self,
        name: &str,
        idempotency: Option<&str>,
    ) -> Answer<Customer> {
        let name = name.trim();
        if name.is_empty() || name.len() > protocol::limits::NAME_BYTES_MAX {
            return Err(RecordsError::bad("/customer", "is empty or longer than 256 bytes"));
        }
        let _one_at_a_time = self.desk.making.lock().await;
        let key = repeat_key("customer", idempotency);
        if let Some(made) = self.made_before(&key).await?.and_then(|m| m.first().copied()) {
            return Records::customer(self, made).await;
        }
        let wanted = name.to_owned();
        let taken = self.read(move |desk| desk.named_customers(&wanted)).await?;
        if !taken.is_empty() {
            return Err(RecordsError::Conflict(format!("customer {name} is registered already")));
        }
        let now = self.desk.now();
        let id = Uuid::now_v7();
        let row = CustomerRow { name: name.to_owned(), registered_at: now };
        let key_of_row = Bytes::copy_from_slice(id.as_bytes());
        let mut changes =
            vec![Change::PutRow { table: CUSTOMERS, key: key_of_row, value: to_row(&row) }];
        changes.extend(repeat_row(key, now, vec![id]));
        self.desk.apply(changes).await?;
        Records::customer(self, id).await
    }

    /// What the first request with that key made.
    pub(crate) async fn made_before(&self, key: &Option<Bytes>) -> Answer<Option<Vec<Uuid>>> {
        let Some(key) = key.clone() else { return Ok(None) };
        let repeat: Option<Repeat> = self.read(move |desk| desk.value(REPEATS, &key)).await?;
        let now = self.desk.now();
        Ok(repeat.filter(|r| now - r.at < REPEAT_MS).map(|r| r.made))
    }
}

/// Key of a remembered request.
pub(crate) fn repeat_key(kind: &str, idempotency: Option<&str>) -> Option<Bytes> {
    idempotency.map(|key| format!("{kind}\0{key}").into())
}

/// What remembers a request.
pub(crate) fn repeat_row(key: Option<Bytes>, at: i64, made: Vec<Uuid>) -> Option<Change> {
    let value = to_row(&Repeat { at, made });
    key.map(|key| Change::PutRow { table: REPEATS, key, value })
}

/// Whether an instance is asked for, by the platform's identifier or by id.
pub(crate) fn is_instance(wanted: &[String], external_id: &str, id: &RemoteId) -> bool {
    let meant = |w: &String| w == external_id || w.parse::<RemoteId>().is_ok_and(|w| w == *id);
    wanted.is_empty() || wanted.iter().any(meant)
}

fn ledger(
    node: String,
    node_id: RemoteId,
    at: i64,
    account: &Account,
    reasons: BTreeMap<String, u64>,
) -> Ledger {
    Ledger {
        node,
        node_id,
        as_of: Time(at),
        taken: account.taken,
        delivered: account.delivered,
        expired: account.expired,
        evicted: account.evicted,
        refused: account.refused,
        consumed: account.consumed,
        queued: account.queued,
        balanced: account.balanced(),
        duplicates: account.duplicates,
        turned_away: account.turned_away,
        dropped: account.dropped,
        reasons,
    }
}
