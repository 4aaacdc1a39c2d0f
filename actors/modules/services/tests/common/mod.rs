//! Messages as a module gets them, and rows in memory.
#![allow(clippy::unwrap_used, dead_code, reason = "a test fails by panic")]
use std::{cell::RefCell, collections::BTreeMap};

use bytes::Bytes;
use extension::service::{Effect, Received, Rows, ServiceError, ServiceModule};
use protocol::{
    Header, Infrastructure, Message, MessageId, Precedence, RemoteId,
    codec::Reader,
    message::{Blocks, Channel, Classification, Persistence, SourceType},
    parts::Parts,
    service::{Alarm, Payload, Service, Severity, State},
};

#[derive(Default)]
pub struct Table(pub RefCell<BTreeMap<Bytes, Bytes>>);

impl Rows for Table {
    fn row(&self, key: &[u8]) -> Result<Option<Bytes>, ServiceError> {
        Ok(self.0.borrow().get(key).cloned())
    }

    fn rows(&self, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, ServiceError> {
        let table = self.0.borrow();
        let from = table.range(Bytes::copy_from_slice(prefix)..);
        let under = from.take_while(|(key, _)| key.starts_with(prefix));
        Ok(under.take(limit).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}

impl Table {
    pub fn apply(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Put { key, value } => drop(self.0.borrow_mut().insert(key, value)),
                Effect::Remove { key } => drop(self.0.borrow_mut().remove(&key)),
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn under(&self, tag: u8) -> Vec<(Bytes, Bytes)> {
        self.rows(&[tag], usize::MAX).unwrap()
    }
}

/// A module, its rows, and the numbers of what it was given.
pub struct Bench<M> {
    pub module: M,
    pub table: Table,
    pub seq: u64,
}

impl<M: ServiceModule> Bench<M> {
    pub fn new(module: M) -> Self {
        Self { module, table: Table::default(), seq: 0 }
    }

    /// Hands over a message with that `order` and `occurred_at`.
    pub fn take(&mut self, order: u64, occurred_at: i64, service: Service) -> MessageId {
        self.seq += 1;
        let message = message(order, occurred_at, service);
        let id = message.header.id;
        let (bytes, _) = message.encode();
        let received = Received {
            seq: self.seq,
            message: parts(&bytes),
            stored_at: 1_800_000_000_000 + self.seq as i64,
            replayed: false,
        };
        let effects = self.module.handle(&received, &self.table).unwrap();
        self.table.apply(effects);
        id
    }
}

/// A message in wire bytes, as a host hands it over.
pub fn parts(bytes: &[u8]) -> Parts<'_> {
    Blocks::take(&mut Reader::new(bytes)).unwrap().parts().unwrap()
}

pub fn proxy() -> RemoteId {
    "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3".parse().unwrap()
}

pub fn message(order: u64, occurred_at: i64, service: Service) -> Message {
    let instance = proxy().child(1).unwrap().child(17).unwrap();
    let subclass = match &service {
        Service::Data(data) => data.kind.clone(),
        _ => String::new(),
    };
    Message {
        header: Header {
            id: MessageId {
                origin: proxy(),
                epoch: 7,
                precedence: Precedence::Normal,
                sequence: order,
            },
            order,
            source: instance,
            source_type: SourceType::Instance,
            destination: None,
            channel: Channel::Forward,
            answers: None,
            class: service.class().to_owned(),
            subclass,
            occurred_at,
            accepted_at: occurred_at + 1,
            persistence: Persistence::Normal,
            time_to_live_s: None,
            traceparent: None,
        },
        infrastructure: Infrastructure {
            classification: Classification::Monitoring,
            customer: proxy().cut(0),
            group: String::new(),
            integrator: "snmp".to_owned(),
            integrator_version: "1".to_owned(),
            instance: Some(instance),
            external_id: "192.0.2.7".to_owned(),
        },
        service,
    }
}

pub fn alarm(key: &str, severity: Severity, state: State) -> Service {
    Service::Alarm(Alarm {
        kind: "linkDown".to_owned(),
        key: key.to_owned(),
        severity,
        text: format!("port {key} is {state}"),
        state,
        close_after_s: None,
        payload: Payload::default(),
    })
}
