//! The module `inventory`: the latest set of each instance and subclass, and how it changed.
use bytes::Bytes;
use extension::{
    records::kept::{self, INVENTORY, SetChange},
    service::{
        Carrier, Effect, Manifest, Part, Received, Rows, ServiceError, ServiceModule, Subscription,
    },
};
use protocol::{
    message::Classification,
    parts::{DataParts, ServiceParts},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::subject::{Draft, Subject};

/// Key of an item: `i`, instance, subtype, NUL, item.
const ITEM: u8 = b'i';
/// Key of a change: `c`, instance, subtype, NUL, `seq`.
const CHANGE: u8 = b'c';
/// Key of what is known of a set: `s`, instance, subtype.
const SET: u8 = b's';
/// Items of one set that are looked through when a whole one replaces it.
const ITEMS_MAX: usize = 100_000;

/// Keeps inventories.
#[derive(Debug, Default)]
pub struct Inventory;

/// What is known of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, Deserialize)]
struct Known {
    /// Newest `(epoch, order)` that changed it.
    newest: (u64, u64),
    /// Digest that the integrator gave it.
    set: String,
    /// Parts of that set that came.
    parts: u64,
}

/// The document of an inventory.
#[derive(Deserialize)]
struct Document {
    kind: String,
    #[serde(default)]
    set: String,
    #[serde(default = "one")]
    part: u64,
    #[serde(default = "one")]
    parts: u64,
    #[serde(default)]
    items: Map<String, Value>,
    #[serde(default)]
    added: Map<String, Value>,
    #[serde(default)]
    removed: Map<String, Value>,
    #[serde(default)]
    changed: Map<String, Value>,
}

fn one() -> u64 {
    1
}

impl ServiceModule for Inventory {
    fn manifest(&self) -> Manifest {
        Manifest {
            name: INVENTORY.to_owned(),
            classification: Classification::DataCollection,
            parts: vec![Part::Detection, Part::AnalysisAndStorage],
            carriers: vec![Carrier::Http, Carrier::Mail, Carrier::Fax],
            needs_session: false,
            subscriptions: vec![Subscription {
                class: "data".to_owned(),
                subclass: Some("inventory".to_owned()),
            }],
        }
    }

    fn handle(
        &mut self,
        received: &Received<'_>,
        rows: &dyn Rows,
    ) -> Result<Vec<Effect>, ServiceError> {
        let ServiceParts::Data(data) = &received.message.service else { return Ok(Vec::new()) };
        // What is no document of ours stays in the records only.
        let Ok(document) = serde_json::from_slice::<Document>(data.payload.data) else {
            return Ok(Vec::new());
        };
        let mut draft = Draft::on(rows);
        take(received, data, document, &mut draft, rows)?;
        Ok(draft.effects)
    }
}

fn take(
    received: &Received<'_>,
    data: &DataParts<'_>,
    document: Document,
    draft: &mut Draft<'_>,
    rows: &dyn Rows,
) -> Result<(), ServiceError> {
    let about = Subject::of(received);
    let set_key = about.key(SET, &[data.subtype]);
    let known: Option<Known> = draft.row(&set_key)?.and_then(|r| kept::from_row(&r));
    let known = known.unwrap_or_default();
    if about.order <= known.newest {
        return Ok(());
    }
    let item_prefix = about.key(ITEM, &[&format!("{}\0", data.subtype)]);
    let mut change = SetChange {
        message_id: received.message.header.id,
        occurred_at: about.occurred_at.0,
        added: document.added.len() as u64,
        removed: document.removed.len() as u64,
        changed: document.changed.len() as u64,
        set: document.set.clone(),
    };
    match document.kind.as_str() {
        "full" => whole(&document, &item_prefix, draft, rows, &mut change)?,
        "changes" => {
            for name in document.removed.keys() {
                draft.remove(item_key(&item_prefix, name));
            }
            for (name, value) in &document.added {
                draft.put(item_key(&item_prefix, name), item(&document.set, value));
            }
            for (name, both) in &document.changed {
                let value = both.get("to").unwrap_or(both);
                draft.put(item_key(&item_prefix, name), item(&document.set, value));
            }
        }
        _ => return Ok(()),
    }
    let parts = if known.set == document.set { known.parts + 1 } else { 1 };
    if document.kind == "full" && parts >= document.parts && document.part == document.parts {
        forget_others(&document.set, &item_prefix, draft, rows, &mut change)?;
    }
    if change.added + change.removed + change.changed > 0 {
        let tail = format!("{}\0", data.subtype);
        let mut key = about.key(CHANGE, &[&tail]);
        key.extend_from_slice(&received.seq.to_be_bytes());
        draft.put(key, kept::to_row(&change));
    }
    let known = Known { newest: about.order, set: document.set, parts };
    draft.put(set_key, kept::to_row(&known));
    Ok(())
}

/// A part of a whole set: its items, and what of them is news.
fn whole(
    document: &Document,
    prefix: &[u8],
    draft: &mut Draft<'_>,
    rows: &dyn Rows,
    change: &mut SetChange,
) -> Result<(), ServiceError> {
    for (name, value) in &document.items {
        let key = item_key(prefix, name);
        match rows.row(&key)?.map(|row| value_of(&row) == Some(value.clone())) {
            None => change.added += 1,
            Some(false) => change.changed += 1,
            Some(true) => {}
        }
        draft.put(key, item(&document.set, value));
    }
    Ok(())
}

/// Removes items that are not in the whole set that has come.
fn forget_others(
    set: &str,
    prefix: &[u8],
    draft: &mut Draft<'_>,
    rows: &dyn Rows,
    change: &mut SetChange,
) -> Result<(), ServiceError> {
    let fresh: std::collections::HashSet<Bytes> = draft
        .effects
        .iter()
        .filter_map(|e| if let Effect::Put { key, .. } = e { Some(key.clone()) } else { None })
        .collect();
    for (key, row) in rows.rows(prefix, ITEMS_MAX)? {
        if !fresh.contains(&key) && set_of(&row).as_deref() != Some(set) {
            draft.remove(key);
            change.removed += 1;
        }
    }
    Ok(())
}

fn item_key(prefix: &[u8], name: &str) -> Bytes {
    [prefix, name.as_bytes()].concat().into()
}

/// An item with the digest of the set that named it last.
fn item(set: &str, value: &Value) -> Bytes {
    serde_json::json!({ "set": set, "value": value }).to_string().into()
}

fn value_of(row: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Value>(row).ok()?.get("value").cloned()
}

fn set_of(row: &[u8]) -> Option<String> {
    Some(serde_json::from_slice::<Value>(row).ok()?.get("set")?.as_str()?.to_owned())
}
