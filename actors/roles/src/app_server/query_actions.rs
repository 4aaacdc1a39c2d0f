//! Management actions: asked for, listed, found by id and by the message that carries them.
use std::collections::BTreeMap;

use bytes::Bytes;
use extension::{
    records::{
        ACTION_LIFE_S_DEFAULT, ACTION_LIFE_S_MAX, Action, ActionFilter, ActionRequest, ActionState,
        Answer, Page, Paging, RecordsError, TARGETS_MAX, Time, kept::tagged,
    },
    storage::Change,
};
use protocol::{
    MessageId, Precedence, Refusal, RemoteId, limits,
    message::{Channel, Destination, Unnumbered},
    service::{self, Service},
};
use uuid::Uuid;

use super::{
    back_channel::{
        ACTION, ACTIONS, CARRIED_BY, SENT, carried_rows, carries_key, document, new_rows,
    },
    publish::What,
    query::{AppRecords, Desk, page_back, refused, takes, unasked},
    query_directory::{is_instance, repeat_key, repeat_row},
    rows::{INSTANCES, InstanceRow, SERVICES, from_row, service_key},
    service_work::own_message,
};
use crate::delivery::orders::{Keep, Kept};

impl Desk {
    pub(crate) fn actions(&self, filter: &ActionFilter, paging: &Paging) -> Answer<Page<Action>> {
        let whose = self.whose(filter.customer.as_deref(), filter.node.as_deref())?;
        let prefix = service_key(ACTIONS, &[ACTION]);
        page_back(&*self.store, SERVICES, &prefix, paging, |_, value| {
            let Some(action) = from_row::<Action>(value) else { return Ok(None) };
            let in_time = filter.since.is_none_or(|since| action.requested_at >= since)
                && filter.until.is_none_or(|until| action.requested_at < until);
            if !in_time || !whose.takes(&action.target_id) {
                return Ok(None);
            }
            if !filter.instance.is_empty() {
                let row: Option<InstanceRow> =
                    self.value(INSTANCES, action.target_id.as_bytes())?;
                let name = row.map(|r| r.external_id).unwrap_or_default();
                if !is_instance(&filter.instance, &name, &action.target_id) {
                    return Ok(None);
                }
            }
            let action = self.with_message(action)?;
            Ok(takes(&filter.state, &action.state).then_some(action))
        })
    }

    pub(crate) fn action(&self, id: Uuid) -> Answer<Action> {
        let key = service_key(ACTIONS, &tagged(ACTION, id.as_bytes()));
        let action = self.value(SERVICES, &key)?.ok_or(RecordsError::NotFound)?;
        self.with_message(action)
    }

    /// The action that a message carries.
    pub(crate) fn action_of(&self, message: &MessageId) -> Answer<Option<Action>> {
        let row = self.row(SERVICES, &service_key(ACTIONS, &carries_key(message)))?;
        let id = row.and_then(|r| Uuid::from_slice(&r).ok());
        id.map(|id| self.action(id)).transpose()
    }

    /// Adds what stands in rows of its own: the carrying message, and that it was handed down.
    fn with_message(&self, mut action: Action) -> Answer<Action> {
        let id = action.action_id;
        let row = |tag| self.row(SERVICES, &service_key(ACTIONS, &tagged(tag, id.as_bytes())));
        let carried_by = row(CARRIED_BY)?.and_then(|r| String::from_utf8(r.to_vec()).ok());
        if let Some(message) = carried_by.and_then(|text| text.parse().ok()) {
            action.message_id = message;
        }
        if action.state == ActionState::Queued && row(SENT)?.is_some() {
            action.state = ActionState::Sent;
        }
        Ok(action)
    }
}

impl AppRecords {
    /// Makes one action for each target, once for an Idempotency-Key.
    pub(crate) async fn make_actions(
        &self,
        request: &ActionRequest,
        by: &str,
        idempotency: Option<&str>,
    ) -> Answer<Vec<Action>> {
        let targets = checked(request)?;
        let _one_at_a_time = self.desk.making.lock().await;
        let key = repeat_key("actions", idempotency);
        if let Some(made) = self.made_before(&key).await? {
            return self
                .read(move |desk| made.into_iter().map(|id| desk.action(id)).collect())
                .await;
        }
        let now = self.desk.now();
        let life_s = request.time_to_live_s.unwrap_or(ACTION_LIFE_S_DEFAULT);
        let actions: Vec<Action> = targets
            .into_iter()
            .map(|target| self.action_for(target, request, by, now, life_s))
            .collect();
        let mut changes: Vec<Change> = actions.iter().flat_map(new_rows).collect();
        changes.extend(repeat_row(key, now, actions.iter().map(|a| a.action_id).collect()));
        let messages = actions.iter().map(|a| self.message_for(a, request, now, life_s)).collect();
        let keep = Keep { messages, changes, ends: Vec::new() };
        let kept = match self.desk.keep.ask(keep).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(refusal)) => return Err(refused(refusal)),
            Err(error) => return Err(unasked(error)),
        };
        self.settle(&actions, &kept).await?;
        let ids: Vec<Uuid> = actions.iter().map(|a| a.action_id).collect();
        for id in &ids {
            let key = tagged(ACTION, id.as_bytes());
            self.desk.feed.tell(What::Row { module: ACTIONS.into(), key });
        }
        self.read(move |desk| ids.into_iter().map(|id| desk.action(id)).collect()).await
    }

    /// Notes which message carries which action, and what was refused at once.
    async fn settle(&self, actions: &[Action], kept: &[Result<Kept, Refusal>]) -> Answer<()> {
        let mut changes = Vec::new();
        for (action, kept) in actions.iter().zip(kept) {
            match kept {
                Ok(Kept::Stored(id) | Kept::Evicted(id)) => {
                    changes.extend(carried_rows(action.action_id, id));
                }
                Err(refusal) => {
                    let mut action = action.clone();
                    action.state = ActionState::Refused;
                    action.reason = Some(refusal.name().to_owned());
                    action.answered_at = Some(Time(self.desk.now()));
                    changes.extend(new_rows(&action));
                }
            }
        }
        self.desk.apply(changes).await
    }

    fn action_for(
        &self,
        target_id: RemoteId,
        request: &ActionRequest,
        by: &str,
        now: i64,
        life_s: u32,
    ) -> Action {
        let origin = self.desk.identity();
        let (epoch, precedence) = (origin.epoch, Precedence::Normal);
        Action {
            action_id: Uuid::now_v7(),
            // Not numbered yet: a row of its own says the number.
            message_id: MessageId { origin: origin.id, epoch, precedence, sequence: 0 },
            target_id,
            name: request.name.clone().unwrap_or_default(),
            state: ActionState::Queued,
            requested_by: by.to_owned(),
            requested_at: Time(now),
            expires_at: Time(now + i64::from(life_s) * 1000),
            answered_at: None,
            status: None,
            reason: None,
            answers: Vec::new(),
        }
    }

    fn message_for(
        &self,
        action: &Action,
        request: &ActionRequest,
        now: i64,
        life_s: u32,
    ) -> Unnumbered {
        let xml = match &request.xml {
            Some(xml) => xml.clone(),
            None => document(action, &request.parameters),
        };
        let order = service::Action {
            action_id: action.action_id.to_string(),
            name: action.name.clone(),
            xml,
        };
        let identity = self.desk.identity();
        let mut message = own_message(identity, Service::Action(order), Precedence::Normal, now);
        message.header.channel = Channel::Back;
        message.header.destination = Some(Destination::Id(action.target_id));
        message.header.time_to_live_s = Some(life_s);
        (&message).into()
    }
}

/// The targets of a request, when all of it is right.
fn checked(request: &ActionRequest) -> Answer<Vec<RemoteId>> {
    let bad = |field: &str, detail: &str| RecordsError::bad(field, detail);
    let named = request.name.as_ref().is_some_and(|n| !n.is_empty());
    let xml = request.xml.as_ref().is_some_and(|x| !x.is_empty());
    if named == xml {
        return Err(bad("/name", "give either a name with parameters, or a whole document in xml"));
    }
    let name = request.name.as_deref().unwrap_or_default();
    let token = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if name.len() > limits::NAME_BYTES_MAX || !name.chars().all(token) {
        return Err(bad("/name", "is no name: letters, digits and . - _ : up to 256 bytes"));
    }
    let by_name: &BTreeMap<String, String> = &request.parameters;
    let wrong = |name: &String| name.is_empty() || !name.chars().all(token);
    if let Some(name) = by_name.keys().find(|name| wrong(name)) {
        return Err(bad(
            "/parameters",
            &format!("{name:?} is no name: letters, digits and . - _ :"),
        ));
    }
    let size: usize = by_name.iter().map(|(name, value)| name.len() + 6 * value.len() + 40).sum();
    let xml_bytes = request.xml.as_ref().map_or(size, String::len);
    if xml_bytes > limits::DATA_BYTES_MAX - 1024 {
        return Err(bad("/xml", "is longer than 255 KiB"));
    }
    if request.time_to_live_s.is_some_and(|s| s == 0 || s > ACTION_LIFE_S_MAX) {
        return Err(bad("/time_to_live_s", &format!("from 1 to {ACTION_LIFE_S_MAX}")));
    }
    if request.targets.is_empty() || request.targets.len() > TARGETS_MAX {
        return Err(bad("/targets", &format!("from 1 to {TARGETS_MAX} of them")));
    }
    let target = |(at, text): (usize, &String)| {
        let id: Option<RemoteId> = text.parse().ok().filter(|id: &RemoteId| id.levels() > 0);
        id.ok_or_else(|| {
            bad(&format!("/targets/{at}"), "is not the id of a node, integrator or instance")
        })
    };
    request.targets.iter().enumerate().map(target).collect()
}

/// The key of an action's row, for the stream.
pub(crate) fn action_in(key: &Bytes) -> Option<Uuid> {
    let (tag, id) = key.split_first()?;
    (*tag == ACTION).then(|| Uuid::from_slice(id).ok()).flatten()
}
