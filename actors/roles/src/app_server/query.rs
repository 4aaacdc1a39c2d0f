//! Answers what API and portal ask, from what is on disk.
use std::{collections::VecDeque, ops::ControlFlow, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use extension::{
    records::{
        Action, ActionFilter, ActionRequest, Alarm, AlarmFilter, Answer, Changed, Customer, Event,
        EventFilter, FromNodes, Gap, Instance, InstanceFilter, Integrator, IntegratorFilter,
        Ledger, LedgerFilter, Message, MessageData, MessageFilter, Node, NodeFilter, Page, Paging,
        Records, RecordsError, StreamFilter, Time, Trace,
    },
    service::{ByHandError, Handwork},
    storage::{QueueStore, StoreError},
};
use futures_util::stream::BoxStream;
use protocol::{MessageId, Refusal, RemoteId};
use supervision::{AskError, Route};
use uuid::Uuid;

use super::{
    asking::Asking,
    indexer::Index,
    publish::Feed,
    reconcile,
    reel::Recent,
    service_host::DoByHand,
    service_work::{Who, identity_of},
    status::{LastMessages, OwnFigures},
};
use crate::delivery::orders::{Apply, Ask, AskFigures, Find, Identity, Keep};

/// Rows or messages looked at for one page; then the page ends with a cursor.
pub(crate) const WORK_MAX: usize = 200_000;
/// Rows read at a time.
const CHUNK: usize = 512;

/// The records of this server.
#[derive(Clone)]
pub struct AppRecords {
    pub(crate) desk: Arc<Desk>,
}

/// What questions are answered with.
pub struct Desk {
    /// Reads.
    pub store: Arc<dyn QueueStore>,
    /// Commits with messages.
    pub keep: Route<Keep>,
    /// Commits without.
    pub apply: Route<Apply>,
    /// Reads the own figures.
    pub figures: Route<AskFigures>,
    /// Asks nodes.
    pub ask: Route<Ask>,
    /// Finds messages on their way down.
    pub find: Route<Find>,
    /// Hears what nodes say.
    pub asking: Asking,
    /// The host of the module `alarms`, where it is loaded.
    pub alarms: Option<Route<DoByHand>>,
    /// Names of the loaded modules.
    pub modules: Arc<[String]>,
    /// The newest runs.
    pub recent: Recent,
    /// Where stored messages are.
    pub index: Index,
    /// What changes.
    pub feed: Feed,
    /// Own account.
    pub own: OwnFigures,
    /// Newest messages of instances.
    pub last: LastMessages,
    /// Who this server is.
    pub identity: Who,
    /// ms since 1970 UTC.
    pub clock: fn() -> i64,
    /// Requests that make something are done one at a time: a repeat must find the first.
    pub making: tokio::sync::Mutex<()>,
}

impl AppRecords {
    /// Answers with what `desk` holds.
    pub fn new(desk: Desk) -> Self {
        Self { desk: Arc::new(desk) }
    }

    /// Reads on a thread where blocking is allowed.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Desk) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let desk = self.desk.clone();
        let read = tokio::task::spawn_blocking(move || read(&desk)).await;
        read.unwrap_or_else(|_| Err(RecordsError::StorageDown("a read failed".to_owned())))
    }
}

impl Desk {
    /// Who this server is now.
    pub(crate) fn identity(&self) -> Identity {
        identity_of(&self.identity)
    }

    /// Now, ms since 1970 UTC.
    pub(crate) fn now(&self) -> i64 {
        (self.clock)()
    }

    /// Makes changes.
    pub(crate) async fn apply(&self, changes: Vec<extension::storage::Change>) -> Answer<()> {
        match self.apply.ask(Apply(changes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => Err(refused(refusal)),
            Err(error) => Err(unasked(error)),
        }
    }
}

/// What a refusal of the queue is to who asks.
pub(crate) fn refused(refusal: Refusal) -> RecordsError {
    match refusal {
        Refusal::Busy => RecordsError::Busy,
        other => RecordsError::StorageDown(other.to_string()),
    }
}

/// What an order that was not answered is to who asks.
pub(crate) fn unasked(error: AskError) -> RecordsError {
    match error {
        AskError::Full => RecordsError::Busy,
        other => RecordsError::StorageDown(other.to_string()),
    }
}

/// What a failing store is to who asks.
pub(crate) fn failed(error: StoreError) -> RecordsError {
    RecordsError::StorageDown(error.to_string())
}

/// A page of a table from its end back. `view` gives none for rows that are not wanted.
pub(crate) fn page_back<T>(
    store: &dyn QueueStore,
    table: &'static str,
    prefix: &[u8],
    paging: &Paging,
    mut view: impl FnMut(&[u8], &[u8]) -> Answer<Option<T>>,
) -> Answer<Page<T>> {
    let behind = match &paging.cursor {
        Some(cursor) => Some(Bytes::from(from_hex(cursor)?)),
        None => None,
    };
    let mut rows = RowsBack::new(store, table, prefix, behind);
    let mut page = Page { items: Vec::new(), next: None };
    let (mut last, mut looked) = (None, 0);
    while let Some((key, value)) = rows.next_back()? {
        looked += 1;
        if let Some(item) = view(&key, &value)? {
            if page.items.len() == paging.limit {
                // Something follows: the page goes on behind its last row.
                page.next = last.as_deref().map(to_hex);
                return Ok(page);
            }
            page.items.push(item);
            last = Some(key.clone());
        }
        if looked >= WORK_MAX {
            page.next = Some(to_hex(&key));
            return Ok(page);
        }
    }
    Ok(page)
}

/// Rows of a table from its end back, read some at a time.
pub(crate) struct RowsBack<'s> {
    store: &'s dyn QueueStore,
    table: &'static str,
    prefix: &'s [u8],
    /// All from this key on was read.
    behind: Option<Bytes>,
    read: VecDeque<(Bytes, Bytes)>,
    ended: bool,
}

impl<'s> RowsBack<'s> {
    /// From behind a key; none: from the end.
    pub(crate) fn new(
        store: &'s dyn QueueStore,
        table: &'static str,
        prefix: &'s [u8],
        behind: Option<Bytes>,
    ) -> Self {
        Self { store, table, prefix, behind, read: VecDeque::new(), ended: false }
    }

    /// The next row back: key and value.
    pub(crate) fn next_back(&mut self) -> Answer<Option<(Bytes, Bytes)>> {
        if self.read.is_empty() && !self.ended {
            let (rows, behind) = (&mut self.read, self.behind.as_deref());
            let visit = &mut |key: &[u8], value: &[u8]| {
                if behind != Some(key) {
                    rows.push_back((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                }
                if rows.len() < CHUNK { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let to = behind.unwrap_or_default();
            self.store.rows_back(self.table, self.prefix, to, visit).map_err(failed)?;
            self.ended = self.read.len() < CHUNK;
            self.behind = self.read.back().map(|(key, _)| key.clone());
        }
        Ok(self.read.pop_front())
    }
}

/// Bytes in words.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A cursor's bytes.
pub(crate) fn from_hex(text: &str) -> Answer<Vec<u8>> {
    let wrong = || RecordsError::bad("cursor", "is not one of ours: take it from next, as it is");
    if !text.len().is_multiple_of(2) || text.len() > 1024 || !text.is_ascii() {
        return Err(wrong());
    }
    let byte = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).map_err(|_| wrong());
    (0..text.len()).step_by(2).map(byte).collect()
}

/// Whether a state is asked for; none and `all` take every one.
pub(crate) fn takes<T: serde::Serialize>(states: &[String], state: &T) -> bool {
    if states.is_empty() || states.iter().any(|s| s == "all") {
        return true;
    }
    let word = serde_json::to_value(state).ok();
    states.iter().any(|s| word.as_ref().and_then(|w| w.as_str()) == Some(s))
}

/// Whether all words of `wanted` are in `text`, any order, case ignored.
pub(crate) fn has_words(wanted: &[String], text: &str) -> bool {
    let text = text.to_lowercase();
    wanted.iter().all(|word| text.contains(word))
}

/// The words of a filter.
pub(crate) fn words(text: Option<&str>) -> Vec<String> {
    text.unwrap_or_default().split_whitespace().map(str::to_lowercase).collect()
}

#[async_trait]
impl Records for AppRecords {
    async fn customers(&self, paging: &Paging) -> Answer<Page<Customer>> {
        let paging = paging.clone();
        self.read(move |desk| desk.customers(&paging)).await
    }

    async fn customer(&self, id: Uuid) -> Answer<Customer> {
        self.read(move |desk| desk.customer(id)).await
    }

    async fn register_customer(&self, name: &str, idempotency: Option<&str>) -> Answer<Customer> {
        self.make_customer(name, idempotency).await
    }

    async fn nodes(&self, filter: &NodeFilter, paging: &Paging) -> Answer<Page<Node>> {
        let (filter, paging) = (filter.clone(), paging.clone());
        self.read(move |desk| desk.nodes(&filter, &paging)).await
    }

    async fn node(&self, id: RemoteId) -> Answer<Node> {
        self.read(move |desk| desk.node(id)).await
    }

    async fn integrators(
        &self,
        filter: &IntegratorFilter,
        paging: &Paging,
    ) -> Answer<Page<Integrator>> {
        let (filter, paging) = (filter.clone(), paging.clone());
        self.read(move |desk| desk.integrators(&filter, &paging)).await
    }

    async fn integrator(&self, id: RemoteId) -> Answer<Integrator> {
        self.read(move |desk| desk.integrator(id)).await
    }

    async fn instances(&self, filter: &InstanceFilter, paging: &Paging) -> Answer<Page<Instance>> {
        let (filter, paging) = (filter.clone(), paging.clone());
        self.read(move |desk| desk.instances(&filter, &paging)).await
    }

    async fn instance(&self, id: RemoteId) -> Answer<Instance> {
        self.read(move |desk| desk.instance(id)).await
    }

    async fn alarms(&self, filter: &AlarmFilter, paging: &Paging) -> Answer<Page<Alarm>> {
        let (filter, paging) = (filter.clone(), paging.clone());
        self.read(move |desk| desk.alarms(&filter, &paging)).await
    }

    async fn alarm(&self, id: Uuid) -> Answer<Alarm> {
        self.read(move |desk| desk.alarm(id)).await
    }

    async fn alarm_history(&self, id: Uuid, paging: &Paging) -> Answer<Page<Message>> {
        let paging = paging.clone();
        self.read(move |desk| desk.alarm_history(id, &paging)).await
    }

    async fn acknowledge(&self, id: Uuid, by: &str, comment: Option<&str>) -> Answer<Alarm> {
        let comment = comment.map(str::to_owned);
        self.by_hand(id, by, Handwork::Acknowledge { comment }).await
    }

    async fn unacknowledge(&self, id: Uuid, by: &str) -> Answer<Alarm> {
        self.by_hand(id, by, Handwork::Unacknowledge).await
    }

    async fn silence(
        &self,
        id: Uuid,
        by: &str,
        until: Time,
        comment: Option<&str>,
    ) -> Answer<Alarm> {
        let comment = comment.map(str::to_owned);
        self.by_hand(id, by, Handwork::Silence { until: until.0, comment }).await
    }

    async fn unsilence(&self, id: Uuid, by: &str) -> Answer<Alarm> {
        self.by_hand(id, by, Handwork::Unsilence).await
    }

    async fn close(&self, id: Uuid, by: &str, comment: Option<&str>) -> Answer<Alarm> {
        let comment = comment.map(str::to_owned);
        self.by_hand(id, by, Handwork::Close { comment }).await
    }

    async fn events(&self, filter: &EventFilter, paging: &Paging) -> Answer<Page<Event>> {
        let (filter, paging) = (filter.clone(), paging.clone());
        self.read(move |desk| desk.events(&filter, &paging)).await
    }

    async fn messages(&self, filter: &MessageFilter, paging: &Paging) -> Answer<Page<Message>> {
        let (filter, paging) = (filter.clone(), paging.clone());
        self.read(move |desk| desk.messages(&filter, &paging)).await
    }

    async fn message(&self, id: MessageId) -> Answer<Message> {
        self.read(move |desk| desk.message(id)).await
    }

    async fn message_data(&self, id: MessageId) -> Answer<MessageData> {
        self.read(move |desk| desk.message_data(id)).await
    }

    async fn message_whole(&self, id: MessageId) -> Answer<protocol::Message> {
        self.read(move |desk| desk.message_whole(id)).await
    }

    async fn trace(&self, id: MessageId, wait_s: u64) -> Answer<FromNodes<Trace>> {
        self.trace_for(id, wait_s).await
    }

    async fn ledger(
        &self,
        filter: &LedgerFilter,
        paging: &Paging,
        wait_s: u64,
    ) -> Answer<FromNodes<Page<Ledger>>> {
        self.ledger_of_nodes(filter, paging, wait_s).await
    }

    async fn gaps(&self) -> Answer<Vec<Gap>> {
        self.read(|desk| reconcile::all_gaps(&*desk.store, &desk.identity().id).map_err(failed))
            .await
    }

    async fn actions(&self, filter: &ActionFilter, paging: &Paging) -> Answer<Page<Action>> {
        let (filter, paging) = (filter.clone(), paging.clone());
        self.read(move |desk| desk.actions(&filter, &paging)).await
    }

    async fn action(&self, id: Uuid) -> Answer<Action> {
        self.read(move |desk| desk.action(id)).await
    }

    async fn request_actions(
        &self,
        request: &ActionRequest,
        by: &str,
        idempotency: Option<&str>,
    ) -> Answer<Vec<Action>> {
        self.make_actions(request, by, idempotency).await
    }

    fn subscribe(&self, filter: &StreamFilter, after: Option<&str>) -> BoxStream<'static, Changed> {
        self.stream(filter.clone(), after)
    }
}

impl AppRecords {
    async fn by_hand(&self, id: Uuid, by: &str, what: Handwork) -> Answer<Alarm> {
        let alarms = self.desk.alarms.as_ref().ok_or(RecordsError::NotFound)?;
        let (by, now) = (by.to_owned(), self.desk.now());
        let wish = extension::service::ByHand { subject: id, by, now, what };
        match alarms.ask(DoByHand(wish)).await {
            Ok(Ok(())) => {}
            Ok(Err(ByHandError::NotFound)) => return Err(RecordsError::NotFound),
            Ok(Err(ByHandError::Conflict(why))) => return Err(RecordsError::Conflict(why)),
            Ok(Err(ByHandError::Failed(why))) => {
                return Err(RecordsError::StorageDown(why.to_string()));
            }
            Err(error) => return Err(unasked(error)),
        }
        Records::alarm(self, id).await
    }
}
