//! The store half of `callhome queue`: reads the stores of nodes that do not run.
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use extension::storage::{Place, QueueName, QueueStore, StoreError, Value};
use jiff::Timestamp;
use protocol::{
    MessageId, Precedence,
    codec::Reader,
    message::Messages,
    run::{Run, RunHeader},
};
use roles::delivery::{
    lanes::gone_key,
    runs::{Gone, StoredRun, received},
    state::GONE,
};

use super::{
    common::{Failure, exit},
    queue::{FsckRow, QueueRow, StoppedStores, queued},
};
use crate::assemble::stores;

/// The queue of an application server's records, which are no queue to look at.
const RECORDS: &str = "records";
/// Nodes looked for in one data folder; `up` makes five.
const NODES_MAX: usize = 64;

/// The stores on this machine's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stores;

/// A node's folder and name: the data folder itself, or one folder in it for each node of `up`.
fn nodes(data: &Path, wanted: Option<&str>) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut found = Vec::new();
    if stores::is_there(data) {
        let full = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        let name = full.file_name().map(|name| name.to_string_lossy().into_owned());
        found.push((name.unwrap_or_else(|| "node".to_owned()), data.to_owned()));
    }
    for entry in std::fs::read_dir(data).into_iter().flatten().flatten().take(NODES_MAX) {
        if stores::is_there(&entry.path()) {
            found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    found.sort();
    // Directly under the data folder stands one node, whatever its name.
    let single = found.len() == 1 && stores::is_there(data);
    found.retain(|(name, _)| single || wanted.is_none_or(|wanted| wanted == name));
    if found.is_empty() {
        let whose = wanted.map(|node| format!(" of {node}")).unwrap_or_default();
        return Err(Failure::new(
            exit::NO_SUCH_ID,
            format!("there is no store{whose} under {}", data.display()),
            "name the folder with --data DIR; nodes of `up` are its folders",
        ));
    }
    Ok(found)
}

impl StoppedStores for Stores {
    fn queues(&self, data: &Path, node: Option<&str>) -> Result<Vec<QueueRow>, Failure> {
        let mut rows = Vec::new();
        let now = Timestamp::now().as_millisecond();
        for (name, folder) in nodes(data, node)? {
            stores::look(&folder, &mut |store| depths(store, &name, now, &mut rows))?;
        }
        Ok(rows)
    }

    fn messages(
        &self,
        data: &Path,
        node: Option<&str>,
        id: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<serde_json::Value>, Failure> {
        let mut rows = Vec::new();
        for (name, folder) in nodes(data, node)? {
            stores::look(&folder, &mut |store| {
                for (queue, precedence) in lanes(store)? {
                    if id.is_some_and(|id| id.precedence != precedence) {
                        continue;
                    }
                    each(store, &queue, precedence, &mut |stored, at, bytes| {
                        let header = &stored.run.header;
                        if id.is_some_and(|id| id != id_at(header, at)) {
                            return ControlFlow::Continue(());
                        }
                        if let Some(message) = message_at(&stored.run, at) {
                            let object = queued(&name, &queue.0, bytes, header.replayed, &message);
                            rows.push(object);
                        }
                        if rows.len() >= limit {
                            return ControlFlow::Break(());
                        }
                        ControlFlow::Continue(())
                    })?;
                }
                Ok(())
            })?;
            rows.truncate(limit);
        }
        Ok(rows)
    }

    fn fsck(&self, data: &Path, node: Option<&str>) -> Result<Vec<FsckRow>, Failure> {
        let mut rows = Vec::new();
        for (node, folder) in nodes(data, node)? {
            let mut good = 0;
            let checked = stores::check(&folder, &mut |queue, _, value| {
                if let Value::Good(raw) = value {
                    good += messages_in(queue, raw);
                }
            })?;
            let (messages, salvaged) = if checked.broken { (0, good) } else { (good, 0) };
            let (damaged, set_aside) = (checked.damaged, checked.set_aside);
            rows.push(FsckRow { node, ok: checked.ok, messages, salvaged, damaged, set_aside });
        }
        Ok(rows)
    }
}

/// Messages of a stored value; those that are gone since are counted, too.
fn messages_in(queue: &QueueName, raw: &[u8]) -> u64 {
    let value = Bytes::copy_from_slice(raw);
    let header = if &*queue.0 == RECORDS {
        Run::read(&mut Reader::new(&value), &value).ok().map(|run| run.header)
    } else {
        StoredRun::decode(&value).ok().map(|stored| stored.run.header)
    };
    header.map_or(0, |header| header.present().into())
}

/// The queues that hold anything, by precedence.
fn lanes(store: &dyn QueueStore) -> Result<Vec<(QueueName, Precedence)>, StoreError> {
    let queues = store.queues()?.into_iter().filter(|queue| &*queue.0 != RECORDS);
    Ok(queues.flat_map(|q| Precedence::ALL.iter().map(move |p| (q.clone(), *p))).collect())
}

fn depths(
    store: &dyn QueueStore,
    node: &str,
    now: i64,
    rows: &mut Vec<QueueRow>,
) -> Result<(), StoreError> {
    for (queue, precedence) in lanes(store)? {
        let (mut messages, mut all, mut oldest) = (0, 0, None::<i64>);
        each(store, &queue, precedence, &mut |stored, _, bytes| {
            messages += 1;
            all += bytes;
            oldest.get_or_insert_with(|| received(&stored.run.header));
            ControlFlow::Continue(())
        })?;
        if messages > 0 {
            rows.push(QueueRow {
                node: node.to_owned(),
                queue: queue.0.to_string(),
                precedence: precedence.word().to_owned(),
                messages,
                bytes: all,
                oldest_age_s: oldest.map(|at| (now - at).max(0) as f64 / 1000.0),
            });
        }
    }
    Ok(())
}

/// Run, position in it, and wire bytes of each message that waits, oldest first. One run is in
/// memory at a time.
type EachMessage<'v> = &'v mut dyn FnMut(&StoredRun, u32, u64) -> ControlFlow<()>;

fn each(
    store: &dyn QueueStore,
    queue: &QueueName,
    precedence: Precedence,
    visit: EachMessage<'_>,
) -> Result<(), StoreError> {
    let mut failed = None;
    store.runs(queue, precedence, 0, &mut |position, value| {
        // Damage is for fsck to tell.
        let Value::Good(raw) = value else { return ControlFlow::Continue(()) };
        let Ok(stored) = StoredRun::decode(&Bytes::copy_from_slice(raw)) else {
            return ControlFlow::Continue(());
        };
        let gone = match store.row(GONE, &gone_key(queue, Place { precedence, position })) {
            Ok(row) => row.map(|row| Gone::from_bytes(&row)).unwrap_or_default(),
            Err(error) => {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        };
        let header = &stored.run.header;
        let there = (0..header.count).filter(|at| !header.is_left_out(*at));
        for (at, message) in there.zip(Messages::of(&stored.run.messages)) {
            let Ok((range, _)) = message else { break };
            if !gone.has(at) {
                visit(&stored, at, range.len() as u64)?;
            }
        }
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(()), Err)
}

fn id_at(header: &RunHeader, at: u32) -> MessageId {
    MessageId {
        origin: header.origin,
        epoch: header.epoch,
        precedence: header.precedence,
        sequence: header.first + u64::from(at),
    }
}

/// The message at a position.
fn message_at(run: &Run, at: u32) -> Option<protocol::Message> {
    let before = (0..at).filter(|at| !run.header.is_left_out(*at)).count();
    Messages::of(&run.messages).nth(before)?.ok()?.1.decode().ok()
}
