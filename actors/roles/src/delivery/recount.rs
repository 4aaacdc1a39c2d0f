//! Counts what stands on disk anew and brings the counters back to it: what damage took ends
//! refused, what a salvage brought back is in custody again (DESIGN §4.4, §4.5).
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use bytes::Bytes;
use extension::storage::{CUT, Change, Place, QueueName, QueueStore, StoreError, Value};
use protocol::{
    MessageId, Precedence, RemoteId,
    codec::{Reader, Writer},
    ends::{End, EndReport, join},
    limits,
    message::{Blocks, Messages},
    parts::HeaderParts,
    run::RunHeader,
};
use tracing::error;

use super::{
    durable_queue::{SET_ASIDE, UP},
    lanes::{gone_key, parse_gone_key},
    runs::{Gone, StoredRun},
    state::{ENDS, EXPIRY, GONE, Held, State, expiry_key},
};

/// Why messages end that stood in a damaged run.
pub const DAMAGED: &str = "damaged";
/// The queue of an application server's records, which the records count themselves.
pub(super) const RECORDS: &str = "records";
/// A store whose file is smaller, bytes, is counted at each start; that takes less than the check
/// of every value, which goes up to the same size. A larger one is counted while it serves
/// (`durable_queue/recounting.rs`).
pub const COUNTED_BELOW: u64 = 256 << 20;
/// What a message begins with: an array of three blocks.
const MESSAGE: u8 = 0x93;

/// One precedence of a queue whose counters are not what stands on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Name of the queue.
    pub queue: String,
    /// Which precedence.
    pub precedence: Precedence,
    /// What the counters say.
    pub known: Held,
    /// What stands on disk.
    pub found: Held,
}

/// What a count of all queues gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Where the counters are wrong.
    pub differences: Vec<Difference>,
    /// What the account should call queued; none at an application server, whose records are
    /// queued, too.
    pub queued: Option<u64>,
    /// Highest position that is taken.
    position: u64,
}

/// What one precedence of a queue holds on disk, and the highest position there. Damaged runs hold
/// nothing.
pub fn lane(
    store: &dyn QueueStore,
    queue: &QueueName,
    precedence: Precedence,
) -> Result<(Held, u64), StoreError> {
    let (mut held, mut last) = (Held::default(), 0);
    each(store, queue, precedence, &mut |position, stored, gone| {
        last = position;
        let here = stored.map_or(Held::default(), |stored| held_in(stored, gone));
        held.messages += here.messages;
        held.bytes += here.bytes;
    })?;
    Ok((held, last))
}

/// What one run holds.
pub(super) fn held_in(stored: &StoredRun, gone: &Gone) -> Held {
    let (mut held, header) = (Held::default(), &stored.run.header);
    let there = (0..header.count).filter(|at| !header.is_left_out(*at));
    for (at, message) in there.zip(Messages::of(&stored.run.messages)) {
        if let (Ok((range, _)), false) = (message, gone.has(at)) {
            held.messages += 1;
            held.bytes += range.len() as u64;
        }
    }
    held
}

/// Is shown the position of each run, the run where it is good, and what of it is gone.
type Each<'e> = &'e mut dyn FnMut(u64, Option<&StoredRun>, &Gone);

fn each(
    store: &dyn QueueStore,
    queue: &QueueName,
    precedence: Precedence,
    visit: Each<'_>,
) -> Result<(), StoreError> {
    let mut failed = None;
    store.runs(queue, precedence, 0, &mut |position, value| {
        let stored = match value {
            Value::Good(raw) => StoredRun::decode(&Bytes::copy_from_slice(raw)).ok(),
            Value::Damaged(_) => None,
        };
        match store.row(GONE, &gone_key(queue, Place { precedence, position })) {
            Ok(row) => {
                let gone = row.map(|row| Gone::from_bytes(&row)).unwrap_or_default();
                visit(position, stored.as_ref(), &gone);
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// Counts all queues and compares.
pub fn count(store: &dyn QueueStore, state: &State) -> Result<Count, StoreError> {
    let on_disk = store.queues()?;
    let top = on_disk.iter().any(|queue| &*queue.0 == RECORDS);
    let mut names: BTreeSet<QueueName> = on_disk.into_iter().collect();
    names.extend(state.held.keys().map(|name| QueueName::new(name)));
    let mut count = Count::default();
    let mut queued = 0;
    for queue in &names {
        // What an application server sets aside is its modules' affair.
        if &*queue.0 == RECORDS || (top && &*queue.0 == SET_ASIDE) {
            continue;
        }
        let known = state.held(&queue.0);
        for precedence in Precedence::ALL {
            let (found, last) = lane(store, queue, *precedence)?;
            count.position = count.position.max(last);
            let known = known[*precedence as usize];
            if known != found {
                let (queue, precedence) = (queue.0.to_string(), *precedence);
                count.differences.push(Difference { queue, precedence, known, found });
            }
            queued += if &*queue.0 == SET_ASIDE { 0 } else { found.messages };
        }
    }
    count.queued = (!top).then_some(queued);
    Ok(count)
}

impl State {
    /// The counters of one precedence become what was found. What is missing ends refused, and
    /// what nobody knew of is taken into custody; the messages missing are answered.
    pub fn correct(&mut self, difference: &Difference) -> u64 {
        let Difference { queue, precedence, known, found } = difference;
        let by = |known: u64, found: u64| found as i64 - known as i64;
        let (messages, bytes) = (by(known.messages, found.messages), by(known.bytes, found.bytes));
        self.change(queue, *precedence as usize, messages, bytes);
        let lost = known.messages.saturating_sub(found.messages);
        error!(target: "delivery", queue, precedence = %precedence, lost,
            returned = found.messages.saturating_sub(known.messages), bytes,
            "counters of a queue were not what stands on disk; corrected");
        // What is set aside has ended before.
        if queue != SET_ASIDE {
            self.end(End::Refused, lost, DAMAGED);
            self.taken(found.messages.saturating_sub(known.messages));
        }
        lost
    }
}

/// Whether a store is to be counted at its start: what is not `proved` to be as this machine left
/// it, what was cut, and what is small.
pub fn is_due(store: &dyn QueueStore, proved: bool) -> Result<bool, StoreError> {
    if !proved {
        return Ok(true);
    }
    let mut cut = false;
    store.rows(CUT, &[], &[], &mut |_, _| {
        cut = true;
        ControlFlow::Break(())
    })?;
    Ok(cut || store.size()?.file_bytes < COUNTED_BELOW)
}

/// Brings the counters of a store that no queue uses yet back to what stands on disk, and accounts
/// for the runs that its opening cut out. Answers what is to be changed on disk together with the
/// state; none where all is as it should be. `node` tells upward what was lost.
pub fn mend(
    store: &dyn QueueStore,
    state: &mut State,
    node: RemoteId,
) -> Result<Option<Vec<Change>>, StoreError> {
    let mut changes = Vec::new();
    let mut lost = cut_runs(store, node, &mut changes)?;
    let count = count(store, state)?;
    let agrees = count.queued.is_none_or(|queued| queued == state.account.queued);
    if changes.is_empty() && count.differences.is_empty() && agrees {
        return Ok(None);
    }
    // The row of the counters may be an older one than what it counts.
    state.position = state.position.max(count.position);
    state.end = state.end.max(last_end(store)?);
    for difference in &count.differences {
        let missing = state.correct(difference);
        let lane = (difference.queue.clone(), difference.precedence);
        let reports = at_most(missing, lost.remove(&lane).unwrap_or_default());
        if count.queued.is_some() {
            changes.extend(reports.iter().map(|report| put_report(state, report)));
        }
    }
    if let Some(queued) = count.queued {
        state.end(End::Refused, state.account.queued.saturating_sub(queued), DAMAGED);
        state.taken(queued.saturating_sub(state.account.queued));
    }
    side_rows(store, &mut changes)?;
    Ok(Some(changes))
}

/// Reports of lost messages by queue and precedence.
type Lost = BTreeMap<(String, Precedence), Vec<EndReport>>;

/// Reads what the opening cut out, and removes it.
fn cut_runs(
    store: &dyn QueueStore,
    node: RemoteId,
    changes: &mut Vec<Change>,
) -> Result<Lost, StoreError> {
    let (mut lost, mut failed) = (Lost::new(), None);
    store.rows(CUT, &[], &[], &mut |key, value| {
        if let Some((queue, place)) = parse_gone_key(key) {
            match store.row(GONE, key) {
                Ok(row) => {
                    let gone = row.map(|row| Gone::from_bytes(&row)).unwrap_or_default();
                    let reports = reports(value, place.precedence, &gone, node);
                    lost.entry((queue.0.to_string(), place.precedence))
                        .or_default()
                        .extend(reports);
                }
                Err(error) => failed = Some(error),
            }
        }
        let key = Bytes::copy_from_slice(key);
        changes.push(Change::RemoveRow { table: CUT, key });
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(lost), Err)
}

/// End reports of the messages that can still be told apart in a damaged run, but for those that
/// were gone before.
pub(super) fn reports(
    value: &[u8],
    precedence: Precedence,
    gone: &Gone,
    node: RemoteId,
) -> Vec<EndReport> {
    let stored = StoredRun::decode(&Bytes::copy_from_slice(value)).ok();
    let header = stored.as_ref().map(|stored| &stored.run.header);
    let was_gone = |id: &MessageId| match header {
        Some(header) => gone.has((id.sequence - header.first) as u32),
        // Positions are not known without the run's header.
        None => !gone.is_empty(),
    };
    let ids = ids_in(value, precedence, header).into_iter().filter(|id| !was_gone(id));
    let report = |id: MessageId| EndReport {
        origin: id.origin,
        epoch: id.epoch,
        precedence,
        first: id.sequence,
        count: 1,
        end: End::Refused,
        node,
        reason: DAMAGED.to_owned(),
    };
    join(ids.map(report).collect())
}

/// Ids of the messages in damaged bytes: as the run's header says where it can be read, else of one
/// origin and close behind each other.
fn ids_in(value: &[u8], precedence: Precedence, header: Option<&RunHeader>) -> Vec<MessageId> {
    let mut ids: Vec<MessageId> = Vec::new();
    let fits = |id: &MessageId, last: Option<&MessageId>| {
        let of_run = header.is_none_or(|h| {
            (h.origin, h.epoch) == (id.origin, id.epoch)
                && (h.first..h.first.saturating_add(h.count.into())).contains(&id.sequence)
        });
        let follows = last.is_none_or(|last| {
            (last.origin, last.epoch) == (id.origin, id.epoch)
                && last.sequence < id.sequence
                && id.sequence - last.sequence <= limits::BATCH_MESSAGES_MAX as u64
        });
        id.precedence == precedence && of_run && follows
    };
    let mut at = 0;
    while let Some(ahead) = value.get(at..).and_then(|rest| rest.iter().position(|b| *b == MESSAGE))
    {
        at += ahead;
        let mut reader = Reader::new(&value[at..]);
        let read = Blocks::take(&mut reader).and_then(|b| HeaderParts::read(b.header));
        let id = read.ok().map(|header| header.id).filter(|id| fits(id, ids.last()));
        at = match id {
            Some(_) => value.len() - reader.rest().len(),
            None => at + 1,
        };
        ids.extend(id);
    }
    ids
}

/// The first of the reports that speak of no more than so many messages.
pub(super) fn at_most(mut messages: u64, reports: Vec<EndReport>) -> Vec<EndReport> {
    let mut kept = join(reports);
    kept.retain_mut(|report| {
        report.count = report.count.min(u32::try_from(messages).unwrap_or(u32::MAX));
        messages -= u64::from(report.count);
        report.count > 0
    });
    kept
}

/// The change that queues an end report.
pub(super) fn put_report(state: &mut State, report: &EndReport) -> Change {
    state.end += 1;
    let mut to = Writer::new();
    report.write(&mut to);
    let key = Bytes::copy_from_slice(&state.end.to_be_bytes());
    Change::PutRow { table: ENDS, key, value: to.into_bytes() }
}

/// Highest number of an end report that waits.
fn last_end(store: &dyn QueueStore) -> Result<u64, StoreError> {
    let mut last = 0;
    store.rows_back(ENDS, &[], &[], &mut |key, _| {
        last = key.try_into().map_or(0, u64::from_be_bytes);
        ControlFlow::Break(())
    })?;
    Ok(last)
}

/// Side rows go with their runs: those whose run is gone are removed, and every run that expires
/// has its row.
fn side_rows(store: &dyn QueueStore, changes: &mut Vec<Change>) -> Result<(), StoreError> {
    let up = QueueName::new(UP);
    let (mut expiring, mut gone, mut failed) = (BTreeSet::new(), Vec::new(), None);
    store.rows(EXPIRY, &[], &[], &mut |key, _| {
        expiring.insert(Bytes::copy_from_slice(key));
        ControlFlow::Continue(())
    })?;
    for precedence in Precedence::ALL {
        each(store, &up, *precedence, &mut |position, stored, gone| {
            let due = stored.and_then(|stored| stored.due(gone));
            let place = Place { precedence: *precedence, position };
            let key = due.map(|at| expiry_key(at, place));
            if let Some(key) = key.filter(|key| !expiring.remove(key)) {
                changes.push(Change::PutRow { table: EXPIRY, key, value: Bytes::new() });
            }
        })?;
    }
    changes.extend(expiring.into_iter().map(|key| Change::RemoveRow { table: EXPIRY, key }));
    store.rows(GONE, &[], &[], &mut |key, _| {
        let place = parse_gone_key(key);
        let there = place.map(|(queue, place)| match store.run(&queue, place) {
            // Damaged: it is met later, and set aside then.
            Ok(run) => Ok(run.is_some()),
            Err(StoreError::Damaged(_)) => Ok(true),
            Err(error) => Err(error),
        });
        match there {
            Some(Ok(true)) => {}
            Some(Err(error)) => failed = Some(error),
            _ => gone.push(Bytes::copy_from_slice(key)),
        }
        ControlFlow::Continue(())
    })?;
    changes.extend(gone.into_iter().map(|key| Change::RemoveRow { table: GONE, key }));
    failed.map_or(Ok(()), Err)
}
