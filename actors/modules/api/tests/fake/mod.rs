//! A few records in memory, so that the tests see what HTTP does with them, and no more.
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use actix_web::web;
use async_trait::async_trait;
use bytes::Bytes;
use extension::records::*;
use futures_util::{StreamExt, stream, stream::BoxStream};
use module_api::{Api, Tokens};
use protocol::{MessageId, RemoteId};
use serde::de::DeserializeOwned;
use serde_json::json;
use uuid::Uuid;

pub const TOKEN: &str = "t0ken";
pub const CUSTOMER: &str = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42";
pub const NODE: &str = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/1";
pub const INTEGRATOR: &str = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/1/2";
pub const INSTANCE: &str = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/1/2/3";
pub const MESSAGE: &str = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/1:7:u:1042";
pub const ALARM: &str = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e43";
pub const ACTION: &str = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e44";
pub const DATA: &[u8] = b"<script>\xff</script>";
const AT: &str = "2026-11-22T12:09:51.000Z";

/// The records, and how they behave.
#[derive(Default)]
pub struct Fake {
    /// Every question fails.
    pub down: bool,
    /// Streams never end.
    pub endless: bool,
    /// Customers and actions made so far.
    pub made: AtomicU64,
}

/// The API over them, for the owner of `TOKEN`.
pub fn api(fake: Fake) -> web::Data<Api> {
    let mut tokens = Tokens::new();
    assert!(tokens.add("operator", TOKEN));
    web::Data::new(Api::new(Arc::new(fake), Arc::new(tokens)))
}

fn made<T: DeserializeOwned>(json: serde_json::Value) -> T {
    serde_json::from_value(json).expect("the shape of a view")
}

fn alarm(number: usize) -> Alarm {
    made(json!({
        "alarm_id": ALARM, "message_id": MESSAGE, "customer_id": CUSTOMER, "instance": "db1",
        "instance_id": INSTANCE, "integrator": "snmp", "type": "linkDown", "key": "",
        "severity": "critical", "text": format!("alarm {number}"), "state": "opened",
        "occurred_at": AT, "accepted_at": AT, "stored_at": AT, "opened_at": AT,
        "closed_at": null, "count": 1, "replayed": false, "acknowledged_by": null,
        "comment": null, "silenced_until": null,
    }))
}

fn message() -> Message {
    made(json!({
        "seq": 1, "message_id": MESSAGE, "channel": "forward", "class": "alarm",
        "subclass": null, "customer_id": CUSTOMER, "instance": "db1", "instance_id": INSTANCE,
        "integrator": "snmp", "precedence": "urgent", "persistence": "normal",
        "time_to_live_s": null, "answers": null, "occurred_at": AT, "accepted_at": AT,
        "stored_at": AT, "bytes": 300, "encoding": "text/html", "replayed": false,
    }))
}

fn node() -> Node {
    made(json!({
        "node_id": NODE, "node": "proxy", "customer_id": CUSTOMER, "roles": ["proxy"],
        "version": "0.1.0", "state": "operational", "mode": "session", "parent_id": null,
        "ready": {"ok": true, "reasons": []}, "waiting": [],
        "delivering": {"ok": true, "held": null, "oldest_age_s": null, "reasons": []},
        "queued": 0, "queued_bytes": 0, "oldest_age_s": null, "drain_eta_s": null,
        "configuration_digest": null, "last_heartbeat_at": AT,
    }))
}

fn action(number: u64) -> Action {
    made(json!({
        "action_id": Uuid::from_u128(u128::from(number)), "message_id": MESSAGE,
        "target_id": NODE, "name": "restart", "state": "queued", "requested_by": "operator",
        "requested_at": AT, "expires_at": AT, "answered_at": null, "status": null,
        "reason": null, "answers": [],
    }))
}

fn one<T>(right: bool, item: T) -> Answer<T> {
    if right { Ok(item) } else { Err(RecordsError::NotFound) }
}

fn is(id: impl ToString, text: &str) -> bool {
    id.to_string() == text
}

impl Fake {
    fn page<T>(&self, mut items: Vec<T>, paging: &Paging) -> Answer<Page<T>> {
        if self.down {
            return Err(RecordsError::StorageDown("the disk is gone".to_owned()));
        }
        let from = match &paging.cursor {
            None => 0,
            Some(cursor) => cursor
                .strip_prefix("from/")
                .and_then(|from| from.parse().ok())
                .filter(|from| *from <= items.len())
                .ok_or_else(|| RecordsError::bad("cursor", "is none of ours"))?,
        };
        let to = items.len().min(from + paging.limit);
        let next = (to < items.len()).then(|| format!("from/{to}"));
        Ok(Page { items: items.drain(from..to).collect(), next })
    }
}

#[async_trait]
impl Records for Fake {
    async fn customers(&self, paging: &Paging) -> Answer<Page<Customer>> {
        self.page(Vec::new(), paging)
    }
    async fn customer(&self, id: Uuid) -> Answer<Customer> {
        one(is(id, CUSTOMER), self.register_customer("local", None).await?)
    }
    async fn register_customer(&self, name: &str, _: Option<&str>) -> Answer<Customer> {
        let id = Uuid::from_u128(u128::from(self.made.fetch_add(1, Ordering::Relaxed)));
        Ok(made(json!({"customer_id": id, "customer": name, "registered_at": AT, "nodes": 0,
            "instances": 0, "alarms": 0})))
    }
    async fn nodes(&self, _: &NodeFilter, paging: &Paging) -> Answer<Page<Node>> {
        self.page(vec![node()], paging)
    }
    async fn node(&self, id: RemoteId) -> Answer<Node> {
        one(is(id, NODE), node())
    }
    async fn integrators(&self, _: &IntegratorFilter, paging: &Paging) -> Answer<Page<Integrator>> {
        self.page(Vec::new(), paging)
    }
    async fn integrator(&self, id: RemoteId) -> Answer<Integrator> {
        let integrator = made(json!({"integrator_id": INTEGRATOR, "integrator": "snmp",
            "version": "1", "node_id": NODE, "customer_id": CUSTOMER, "state": "connected",
            "instances": 1, "capabilities": null, "last_seen_at": AT}));
        one(is(id, INTEGRATOR), integrator)
    }
    async fn instances(&self, _: &InstanceFilter, paging: &Paging) -> Answer<Page<Instance>> {
        self.page(Vec::new(), paging)
    }
    async fn instance(&self, id: RemoteId) -> Answer<Instance> {
        let instance = made(json!({"customer_id": CUSTOMER, "instance": "db1",
            "instance_id": INSTANCE, "integrator": "snmp", "integrator_id": INTEGRATOR,
            "state": "active", "delete_after": null, "capabilities": null, "alarms": 1,
            "registered_at": AT, "last_message_at": null}));
        one(is(id, INSTANCE), instance)
    }
    async fn alarms(&self, _: &AlarmFilter, paging: &Paging) -> Answer<Page<Alarm>> {
        self.page((0..5).rev().map(alarm).collect(), paging)
    }
    async fn alarm(&self, id: Uuid) -> Answer<Alarm> {
        one(is(id, ALARM), alarm(0))
    }
    async fn alarm_history(&self, id: Uuid, paging: &Paging) -> Answer<Page<Message>> {
        one(is(id, ALARM), self.page(vec![message()], paging)?)
    }
    async fn acknowledge(&self, id: Uuid, by: &str, comment: Option<&str>) -> Answer<Alarm> {
        let state = AlarmState::Acknowledged;
        let (acknowledged_by, comment) = (Some(by.to_owned()), comment.map(str::to_owned));
        one(is(id, ALARM), Alarm { state, acknowledged_by, comment, ..alarm(0) })
    }
    async fn unacknowledge(&self, id: Uuid, _: &str) -> Answer<Alarm> {
        self.alarm(id).await
    }
    async fn silence(&self, id: Uuid, _: &str, until: Time, _: Option<&str>) -> Answer<Alarm> {
        one(is(id, ALARM), Alarm { silenced_until: Some(until), ..alarm(0) })
    }
    async fn unsilence(&self, id: Uuid, _: &str) -> Answer<Alarm> {
        self.alarm(id).await
    }
    async fn close(&self, id: Uuid, _: &str, _: Option<&str>) -> Answer<Alarm> {
        one(is(id, ALARM), Alarm { state: AlarmState::Closed, ..alarm(0) })
    }
    async fn events(&self, _: &EventFilter, paging: &Paging) -> Answer<Page<Event>> {
        self.page(Vec::new(), paging)
    }
    async fn messages(&self, _: &MessageFilter, paging: &Paging) -> Answer<Page<Message>> {
        self.page(vec![message()], paging)
    }
    async fn message(&self, id: MessageId) -> Answer<Message> {
        one(is(id, MESSAGE), message())
    }
    async fn message_data(&self, id: MessageId) -> Answer<MessageData> {
        let data = Bytes::from_static(DATA);
        one(is(id, MESSAGE), MessageData { encoding: "text/html".to_owned(), data })
    }
    async fn message_whole(&self, _: MessageId) -> Answer<protocol::Message> {
        Err(RecordsError::NotFound)
    }
    async fn trace(&self, id: MessageId, wait_s: u64) -> Answer<FromNodes<Trace>> {
        let answer = made(json!({"message_id": id, "state": "queued", "node_id": null,
            "reason": null, "class": null, "occurred_at": null, "accepted_at": null,
            "stored_at": null, "hops": []}));
        let stands = Some(Stands { queue: "local/höhe".to_owned(), attempts: 3 });
        let unanswered = (wait_s > 0).then(|| vec![NODE.parse().expect("an id"); 60]);
        Ok(FromNodes { answer, unanswered, stands })
    }
    async fn ledger(
        &self,
        _: &LedgerFilter,
        paging: &Paging,
        wait_s: u64,
    ) -> Answer<FromNodes<Page<Ledger>>> {
        let page = FromNodes::of_records(self.page(Vec::new(), paging)?);
        Ok(FromNodes { unanswered: (wait_s > 0).then(Vec::new), ..page })
    }
    async fn gaps(&self) -> Answer<Vec<Gap>> {
        Ok(Vec::new())
    }
    async fn actions(&self, _: &ActionFilter, paging: &Paging) -> Answer<Page<Action>> {
        self.page(vec![action(1)], paging)
    }
    async fn action(&self, id: Uuid) -> Answer<Action> {
        one(is(id, ACTION), action(1))
    }
    async fn request_actions(
        &self,
        request: &ActionRequest,
        _: &str,
        _: Option<&str>,
    ) -> Answer<Vec<Action>> {
        let next = |_: &String| action(self.made.fetch_add(1, Ordering::Relaxed));
        Ok(request.targets.iter().map(next).collect())
    }
    fn subscribe(&self, _: &StreamFilter, after: Option<&str>) -> BoxStream<'static, Changed> {
        if self.endless {
            return stream::pending().boxed();
        }
        let all =
            ["1", "2"].map(|id| Changed { id: id.to_owned(), change: Change::Alarm(alarm(0)) });
        let from = match after {
            None => 0,
            Some("1") => 1,
            Some(_) => {
                return stream::iter([Changed { id: "2".to_owned(), change: Change::Gap }]).boxed();
            }
        };
        stream::iter(all.into_iter().skip(from)).boxed()
    }
}
