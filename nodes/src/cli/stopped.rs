//! The store half of `callhome queue`: reads the stores of nodes that do not run.
use std::{
    cell::RefCell,
    collections::HashMap,
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
    recount,
    runs::{Gone, StoredRun, received},
    state::{GONE, STATE, STATE_KEY, State},
};

use super::{
    common::{Failure, exit, note},
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

/// One message that waits: its queue, the run it stands in, its position there, and its bytes on
/// the wire.
struct Waiting<'w> {
    queue: &'w QueueName,
    stored: &'w StoredRun,
    at: u32,
    bytes: u64,
}

/// Is shown each message that waits, oldest first.
type EachMessage<'v> = &'v mut dyn FnMut(Waiting<'_>) -> ControlFlow<()>;

/// What `step` makes of the messages of a store. Of a damaged one it gets what can be read, and
/// stderr says so: reading changes nothing, and who looks wants to see what is left.
fn gathered<A: Default>(
    node: &str,
    folder: &Path,
    only: Option<Precedence>,
    step: &mut dyn FnMut(&mut A, Waiting<'_>) -> ControlFlow<()>,
) -> Result<A, Failure> {
    let (mut all, mut damaged) = (A::default(), 0);
    let wanted = |precedence| only.is_none_or(|only| only == precedence);
    let looked = stores::look(folder, &mut |store| {
        for (queue, precedence) in lanes(store)? {
            if wanted(precedence) {
                damaged += each(store, &queue, precedence, &mut |waiting| step(&mut all, waiting))?;
            }
        }
        Ok(())
    });
    match looked {
        Ok(()) if damaged > 0 => {
            note(&format!(
                "{node}: {damaged} damaged values are left out; callhome queue fsck tells more"
            ));
            Ok(all)
        }
        Ok(()) => Ok(all),
        Err(failure) if failure.code == exit::REFUSED => {
            note(&format!("{node}: {}", failure.message));
            note(&format!(
                "{node}: shown is what the next start salvages; callhome queue fsck tells more"
            ));
            let mut all = A::default();
            salvaged(folder, &wanted, &mut |waiting| step(&mut all, waiting))?;
            Ok(all)
        }
        Err(failure) => Err(failure),
    }
}

/// Shows the messages that would be salvaged from a damaged store.
fn salvaged(
    folder: &Path,
    wanted: &dyn Fn(Precedence) -> bool,
    visit: EachMessage<'_>,
) -> Result<(), Failure> {
    let gone: RefCell<HashMap<Vec<u8>, Gone>> = RefCell::default();
    let mut go_on = ControlFlow::Continue(());
    let mut row = |key: &[u8], value: &[u8]| {
        let key = key.strip_prefix(GONE.as_bytes()).and_then(|rest| rest.strip_prefix(&[0]));
        if let Some(key) = key {
            gone.borrow_mut().insert(key.to_vec(), Gone::from_bytes(value));
        }
    };
    stores::salvageable(folder, &mut row, &mut |queue, place, value| {
        let Value::Good(raw) = value else { return };
        if go_on.is_break() || &*queue.0 == RECORDS || !wanted(place.precedence) {
            return;
        }
        if let Ok(stored) = StoredRun::decode(&Bytes::copy_from_slice(raw)) {
            let gone = gone.borrow().get(&*gone_key(queue, place)).cloned().unwrap_or_default();
            go_on = present(queue, &stored, &gone, visit);
        }
    })
}

impl StoppedStores for Stores {
    fn queues(&self, data: &Path, node: Option<&str>) -> Result<Vec<QueueRow>, Failure> {
        let mut rows = Vec::new();
        let now = Timestamp::now().as_millisecond();
        for (name, folder) in nodes(data, node)? {
            rows.extend(gathered(
                &name,
                &folder,
                None,
                &mut |rows: &mut Vec<QueueRow>, waiting| {
                    count(rows, &name, now, &waiting);
                    ControlFlow::Continue(())
                },
            )?);
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
            let only = id.map(|id| id.precedence);
            let found = gathered(&name, &folder, only, &mut |rows: &mut Vec<_>, waiting| {
                let header = &waiting.stored.run.header;
                if id.is_some_and(|id| id != id_at(header, waiting.at)) {
                    return ControlFlow::Continue(());
                }
                if let Some(message) = message_at(&waiting.stored.run, waiting.at) {
                    let (queue, bytes) = (&waiting.queue.0, waiting.bytes);
                    rows.push(queued(&name, queue, bytes, header.replayed, &message));
                }
                if rows.len() >= limit {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            rows.extend(found);
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
            let ok = checked.ok && counters_agree(&node, &folder)?;
            rows.push(FsckRow { node, ok, messages, salvaged, damaged, set_aside });
        }
        Ok(rows)
    }
}

/// Whether the counters of a store say what stands in it; stderr tells where they do not.
fn counters_agree(node: &str, folder: &Path) -> Result<bool, Failure> {
    let mut wrong = Vec::new();
    stores::look(folder, &mut |store| {
        let row = store.row(STATE, STATE_KEY)?.and_then(|row| State::decode(&row));
        // A store without them gets them at the next start.
        let Some(state) = row else { return Ok(()) };
        let count = recount::count(store, &state)?;
        wrong.extend(count.differences.iter().map(|d| {
            format!(
                "{node}: counters of {} {} say {} messages, {} bytes; in it stand {}, {}",
                d.queue,
                d.precedence.word(),
                d.known.messages,
                d.known.bytes,
                d.found.messages,
                d.found.bytes
            )
        }));
        let queued = state.account.queued;
        if let Some(found) = count.queued.filter(|found| *found != queued) {
            wrong.push(format!("{node}: the account says {queued} queued; {found} are"));
        }
        if !state.account.balanced() {
            wrong.push(format!("{node}: the account does not balance"));
        }
        Ok(())
    })?;
    wrong.iter().for_each(|text| note(text));
    Ok(wrong.is_empty())
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

/// Counts a message in the row of its queue and precedence, which is the last one or a new one.
fn count(rows: &mut Vec<QueueRow>, node: &str, now: i64, waiting: &Waiting<'_>) {
    let header = &waiting.stored.run.header;
    let (queue, precedence) = (&*waiting.queue.0, header.precedence.word());
    if !rows.last().is_some_and(|row| row.queue == queue && row.precedence == precedence) {
        rows.push(QueueRow {
            node: node.to_owned(),
            queue: queue.to_owned(),
            precedence: precedence.to_owned(),
            messages: 0,
            bytes: 0,
            oldest_age_s: Some((now - received(header)).max(0) as f64 / 1000.0),
        });
    }
    if let Some(row) = rows.last_mut() {
        row.messages += 1;
        row.bytes += waiting.bytes;
    }
}

/// Visits the messages of one precedence of a queue, one run in memory at a time. Answers how many
/// values are damaged.
fn each(
    store: &dyn QueueStore,
    queue: &QueueName,
    precedence: Precedence,
    visit: EachMessage<'_>,
) -> Result<u64, StoreError> {
    let (mut failed, mut damaged) = (None, 0);
    store.runs(queue, precedence, 0, &mut |position, value| {
        let stored = match value {
            Value::Good(raw) => StoredRun::decode(&Bytes::copy_from_slice(raw)).ok(),
            Value::Damaged(_) => None,
        };
        let Some(stored) = stored else {
            damaged += 1;
            return ControlFlow::Continue(());
        };
        match store.row(GONE, &gone_key(queue, Place { precedence, position })) {
            Ok(row) => {
                let gone = row.map(|row| Gone::from_bytes(&row)).unwrap_or_default();
                present(queue, &stored, &gone, visit)
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(damaged), Err)
}

/// Visits the messages of a run that are not gone.
fn present(
    queue: &QueueName,
    stored: &StoredRun,
    gone: &Gone,
    visit: EachMessage<'_>,
) -> ControlFlow<()> {
    let header = &stored.run.header;
    let there = (0..header.count).filter(|at| !header.is_left_out(*at));
    for (at, message) in there.zip(Messages::of(&stored.run.messages)) {
        let Ok((range, _)) = message else { break };
        if !gone.has(at) {
            visit(Waiting { queue, stored, at, bytes: range.len() as u64 })?;
        }
    }
    ControlFlow::Continue(())
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
