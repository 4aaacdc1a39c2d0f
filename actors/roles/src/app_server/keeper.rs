//! Takes checked runs into the records: once, in the commit that takes them. Runs on the store's
//! thread.
use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use extension::storage::{Change, Place, QueueStore, StoreError};
use protocol::{
    MessageId, RemoteId,
    codec::Writer,
    ends::EndReport,
    exchange::Outcome,
    limits::BATCH_MESSAGES_MAX,
    message::Messages,
    run::{Run, RunHeader},
};

use super::{
    cursors::counted,
    directory,
    duplicates::{self, Intervals, Judged, Known, RowChange},
    index::{StoredRun, find, place_in},
    overlay::Overlay,
    publish::{Feed, What},
    reel::Recent,
    registrar,
    rows::{
        COUNTED, Counted, ENDED, EndRow, FOUND, SEEN, number_at, records, stream_key, to_row,
        with_numbers,
    },
    status::LastMessages,
};
use crate::delivery::{
    orders::{Arrived, Keeper, KeeperPlan},
    runs::cut,
};

/// Largest stored run, bytes: what is read for one message of it.
const PAGE_MAX: usize = 64 << 10;
/// Intervals held in RAM over all streams; above it they are read anew as needed.
const INTERVALS_MAX: usize = 100_000;

/// The [`Keeper`] of the application server.
pub struct RecordsKeeper {
    overlay: Overlay,
    counted: Option<Counted>,
    seen: HashMap<Vec<u8>, Intervals>,
    /// Runs planned since the last commit.
    planned: Vec<StoredRun>,
    /// Instances heard since the last commit.
    heard: HashMap<RemoteId, i64>,
    feed: Feed,
    last: LastMessages,
    recent: Recent,
}

impl RecordsKeeper {
    /// Keeps into `store`; tells `feed` what is on disk, `recent` what it is, and `last` whom it is
    /// about.
    pub fn new(store: Arc<dyn QueueStore>, feed: Feed, last: LastMessages, recent: Recent) -> Self {
        Self {
            overlay: Overlay::new(store),
            counted: None,
            seen: HashMap::new(),
            planned: Vec::new(),
            heard: HashMap::new(),
            feed,
            last,
            recent,
        }
    }

    fn counted(&mut self) -> Result<Counted, StoreError> {
        if let Some(counted) = self.counted {
            return Ok(counted);
        }
        let counted = counted(&**self.overlay.store())?;
        self.counted = Some(counted);
        Ok(counted)
    }

    fn load_seen(&mut self, stream: &[u8]) -> Result<(), StoreError> {
        if self.seen.contains_key(stream) {
            return Ok(());
        }
        if self.planned.is_empty()
            && self.seen.values().map(Intervals::len).sum::<usize>() > INTERVALS_MAX
        {
            self.seen.clear();
        }
        let intervals = read_seen(&**self.overlay.store(), stream)?;
        self.seen.insert(stream.to_vec(), intervals);
        Ok(())
    }

    /// Compares a message whose number is known with what is stored under it.
    fn known(&self, run: &Run, at: usize, number: u64) -> Result<Known, StoreError> {
        let Some(digest) = digest_at(run, at) else { return Ok(Known::Lost) };
        let h = &run.header;
        let id = MessageId {
            origin: h.origin,
            epoch: h.epoch,
            precedence: h.precedence,
            sequence: number,
        };
        let of_stream = |r: &&StoredRun| {
            let o = &r.run.header;
            (o.origin, o.epoch, o.precedence) == (h.origin, h.epoch, h.precedence)
        };
        let planned = self.planned.iter().filter(of_stream);
        let mut digests: Vec<u64> = planned
            .filter_map(|r| place_in(&r.run, number).and_then(|at| digest_at(&r.run, at)))
            .collect();
        for found in find(&**self.overlay.store(), &id)? {
            digests.extend(found.blocks().map(|(_, blocks)| blocks.digest()));
        }
        Ok(match digests.is_empty() {
            true => Known::Lost,
            false if digests.contains(&digest) => Known::Same,
            false => Known::Other,
        })
    }

    /// Plans that the run stands at the next number, in pieces of a page each.
    fn store(&mut self, run: Run, sizes: &[usize], stream: &[u8], counted: Counted) {
        let numbers = duplicates::numbers(&run.header);
        let mut after = counted;
        if run.header.left_out.is_empty() {
            let (mut at, mut from) = (0, 0);
            for count in cut(sizes, BATCH_MESSAGES_MAX, PAGE_MAX) {
                let bytes: usize = sizes[at..at + count].iter().sum();
                let first = run.header.first + at as u64;
                let header = RunHeader { first, count: count as u32, ..run.header.clone() };
                let messages = run.messages.slice(from..from + bytes);
                self.store_piece(Run { header, messages }, stream, &mut after);
                (at, from) = (at + count, from + bytes);
            }
        } else {
            self.store_piece(run, stream, &mut after);
        }
        self.counted = Some(after);
        let value = to_row(&after);
        self.overlay.push(Change::PutRow { table: COUNTED, key: Bytes::new(), value });
        let seen = self.seen.entry(stream.to_vec()).or_default();
        for (first, last) in numbers {
            for change in seen.insert(first, last) {
                self.overlay.push(match change {
                    RowChange::Put { first, last } => Change::PutRow {
                        table: SEEN,
                        key: with_numbers(stream, &[first]),
                        value: last.to_be_bytes().to_vec().into(),
                    },
                    RowChange::Remove { first } => {
                        Change::RemoveRow { table: SEEN, key: with_numbers(stream, &[first]) }
                    }
                });
            }
        }
    }

    fn store_piece(&mut self, run: Run, stream: &[u8], counted: &mut Counted) {
        let header = &run.header;
        let (precedence, position) = (header.precedence, counted.next);
        let present = u64::from(header.present());
        let last = header.first + u64::from(header.count) - 1;
        let key = with_numbers(stream, &[header.first, position]);
        let mut value = Writer::on(Vec::with_capacity(run.messages.len() + 512));
        run.write(&mut value);
        let place = Place { precedence, position };
        let value = value.into_vec().into();
        self.overlay.push(Change::PutRun { queue: records(), place, value });
        let value = last.to_be_bytes().to_vec().into();
        self.overlay.push(Change::PutRow { table: FOUND, key, value });
        counted.next += present;
        counted.stored[precedence as usize] += present;
        self.planned.push(StoredRun { position, run });
    }
}

impl Keeper for RecordsKeeper {
    fn plan(&mut self, arrived: Arrived) -> Result<KeeperPlan, StoreError> {
        let Arrived { run, messages, now } = arrived;
        let header = &run.header;
        let stream = stream_key(&header.origin, header.epoch, header.precedence);
        self.load_seen(&stream)?;
        let counted = self.counted()?;
        let seen = self.seen.remove(&stream).unwrap_or_default();
        let judged =
            duplicates::judge(&seen, header, |at, number| self.known(&run, at as usize, number));
        self.seen.insert(stream.clone(), seen);
        let judged = judged?;
        for (checked, outcome) in messages.iter().zip(&judged.outcomes) {
            if *outcome != Outcome::Stored {
                continue;
            }
            if let Some(instance) = checked.instance {
                self.heard.insert(instance, now);
            }
            if let Some(message) = &checked.message {
                directory::note(&mut self.overlay, message, now)?;
            }
        }
        registrar::note_conflicts(&mut self.overlay, header, &judged.conflicts);
        if let Some(run) = left(run, &judged)? {
            let sizes: Vec<usize> = messages.iter().map(|checked| checked.traits.bytes).collect();
            self.store(run, &sizes, &stream, counted);
        }
        let changes = self.overlay.take_changes();
        Ok(KeeperPlan { outcomes: judged.outcomes, changes })
    }

    fn ends(&mut self, reports: &[EndReport]) -> Result<Vec<Change>, StoreError> {
        let row = |report: &EndReport| {
            let stream = stream_key(&report.origin, report.epoch, report.precedence);
            let mut key = with_numbers(&stream, &[report.first]).to_vec();
            key.extend_from_slice(report.node.as_bytes());
            let (count, end, node) = (report.count, report.end, report.node);
            let value = to_row(&EndRow { count, end, node, reason: report.reason.clone() });
            Change::PutRow { table: ENDED, key: key.into(), value }
        };
        Ok(reports.iter().map(row).collect())
    }

    fn committed(&mut self) {
        self.overlay.settled();
        for stored in std::mem::take(&mut self.planned) {
            self.feed.tell(What::Stored {
                precedence: stored.run.header.precedence,
                position: stored.position,
                count: stored.run.header.present(),
            });
            self.recent.keep(stored);
        }
        self.last.heard(self.heard.drain());
        if let Some(counted) = self.counted {
            self.feed.stored(counted.next);
        }
    }

    fn rolled_back(&mut self) {
        self.overlay.settled();
        self.planned.clear();
        self.heard.clear();
        // They were changed ahead of the disk: read them anew.
        self.seen.clear();
        self.counted = None;
    }
}

/// What of a run is stored.
fn left(run: Run, judged: &Judged) -> Result<Option<Run>, StoreError> {
    if judged.gone.is_empty() {
        return Ok(Some(run));
    }
    if !judged.stores() {
        return Ok(None);
    }
    let gone = |position| judged.gone.binary_search(&position).is_ok();
    // It was checked at the door.
    run.without(gone).map_err(|e| StoreError::Failed(format!("a checked run is {e}")))
}

fn digest_at(run: &Run, at: usize) -> Option<u64> {
    let message = Messages::of(&run.messages).nth(at)?;
    message.ok().map(|(_, blocks)| blocks.digest())
}

/// The intervals of a stream as they are on disk.
pub fn read_seen(store: &dyn QueueStore, stream: &[u8]) -> Result<Intervals, StoreError> {
    let mut rows = Vec::new();
    store.rows(SEEN, stream, &[], &mut |key, value| {
        if let (Some(first), Some(last)) = (number_at(key, stream.len()), number_at(value, 0)) {
            rows.push((first, last));
        }
        ControlFlow::Continue(())
    })?;
    Ok(Intervals::of(rows))
}
