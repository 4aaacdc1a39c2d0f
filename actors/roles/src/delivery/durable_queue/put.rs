//! Putting runs into queues, making room, and what nobody will take.
use std::collections::HashSet;

use bytes::Bytes;
use extension::storage::{Change, Place, QueueName, QueueStore, StoreError};
use protocol::{
    MessageId, Precedence,
    ends::{End, EndReport},
    message::Messages,
    run::{Run, RunHeader},
};
use tracing::error;

use super::{DurableQueue, Group, SET_ASIDE, UP, place_of, walk::Walk};
use crate::delivery::{
    eviction::{self, Decision},
    lanes::{Head, gone_key},
    runs::{Gone, StoredRun, Traits, cut},
    state::{ENDS, EXPIRY, GONE},
};

/// Messages in one stored run; a batch is at least one run.
const RUN_MESSAGES_MAX: usize = protocol::limits::BATCH_MESSAGES_MAX;

impl DurableQueue {
    /// Puts a run into a queue, cut to pages; counts it as held there. Runs with positions left
    /// out are kept whole.
    pub(super) fn put_run(
        &mut self,
        queue: &QueueName,
        run: Run,
        traits: &[Traits],
        group: &mut Group,
    ) {
        let sizes: Vec<usize> = traits.iter().map(|t| t.bytes).collect();
        let whole = !run.header.left_out.is_empty();
        let pieces = if whole { vec![sizes.len()] } else { cut(&sizes, RUN_MESSAGES_MAX) };
        let (mut from, mut at) = (0, 0);
        for piece in pieces {
            let bytes: usize = sizes[at..at + piece].iter().sum();
            let header = if whole {
                run.header.clone()
            } else {
                let first = run.header.first + at as u64;
                RunHeader { first, count: piece as u32, ..run.header.clone() }
            };
            let messages = run.messages.slice(from..from + bytes);
            let stored = StoredRun::new(Run { header, messages }, &traits[at..at + piece]);
            self.put_stored(queue, stored, piece, group);
            from += bytes;
            at += piece;
        }
    }

    fn put_stored(
        &mut self,
        queue: &QueueName,
        stored: StoredRun,
        count: usize,
        group: &mut Group,
    ) {
        let precedence = stored.run.header.precedence;
        let position = self.next_position();
        let bytes = stored.run.messages.len() as i64;
        self.state.change(&queue.0, precedence as usize, count as i64, bytes);
        group.state_changed = true;
        if &*queue.0 == UP {
            let admitted = &mut group.admitted[precedence as usize];
            *admitted = admitted.saturating_sub(bytes.unsigned_abs());
        }
        let value = stored.encode();
        let place = place_of(precedence, position);
        if let (Some(at), UP) = (stored.expires_at, &*queue.0) {
            let (key, value) = (expiry_key(at, place), Bytes::new());
            group.changes.push(Change::PutRow { table: EXPIRY, key, value });
        }
        group.changes.push(Change::PutRun { queue: queue.clone(), place, value });
        let head = Head { position, stored, gone: Gone::default(), flight: None, sent: 0 };
        self.lane(queue, precedence).push(head);
    }

    /// Makes room in `up` for a newcomer (QUE-7…14).
    pub(super) fn admit(
        &mut self,
        precedence: Precedence,
        bytes: u64,
        group: &mut Group,
    ) -> Result<Decision, StoreError> {
        let held = self.state.held(UP);
        let used = [0, 1, 2].map(|i| held[i].bytes + group.admitted[i]);
        let limits = self.settings.limits;
        let fits = used.iter().sum::<u64>() + bytes <= limits.total
            && used[precedence as usize] + bytes <= limits.each[precedence as usize];
        if fits {
            group.admitted[precedence as usize] += bytes;
            return Ok(Decision::Admit);
        }
        let store = self.settings.store.clone();
        // What this group put is not on disk yet; it is the newest, and so the last to go.
        let mut walk = Walk {
            store: &*store,
            now: self.now(),
            flying: self.in_flight_places(),
            given: group.dropped.clone(),
            evict_from: self.evict_from,
        };
        let plan = eviction::plan(precedence, bytes, used, &limits, &mut walk)?;
        self.evict_from = walk.evict_from;
        for (victim, end) in &plan.victims {
            self.drop_one(&QueueName::new(UP), victim.place, victim.at, *end, "", group)?;
        }
        if plan.decision == Decision::Admit {
            group.admitted[precedence as usize] += bytes;
        }
        Ok(plan.decision)
    }

    fn in_flight_places(&mut self) -> HashSet<Place> {
        let up = QueueName::new(UP);
        let mut places = HashSet::new();
        for precedence in Precedence::ALL {
            let flying = self.lane(&up, *precedence).heads.iter().filter(|h| h.flight.is_some());
            places.extend(flying.map(|h| place_of(*precedence, h.position)));
        }
        places
    }

    /// Ends one message of a run, wherever the run is; removes the run when it was the last.
    pub(super) fn drop_one(
        &mut self,
        queue: &QueueName,
        place: Place,
        at: u32,
        end: End,
        reason: &str,
        group: &mut Group,
    ) -> Result<(), StoreError> {
        let store = self.settings.store.clone();
        let head = self.lane(queue, place.precedence).head(place.position).cloned();
        let head = match head {
            Some(head) => head,
            None => match read_head(&*store, queue, place)? {
                Some(mut head) => {
                    let planned = group.gone.get(&place).cloned();
                    head.gone = planned.unwrap_or(head.gone);
                    head
                }
                None => return Ok(()),
            },
        };
        let id = id_at(&head.stored.run.header, at);
        group.dropped.insert((place, at));
        if self.gone_from(queue, place, head, &[at], group)? == 0 {
            return Ok(());
        }
        self.end(end, 1, reason);
        if end != End::Delivered {
            self.report(id, 1, end, reason, group);
        }
        Ok(())
    }

    /// Marks positions of a run gone, on disk and in memory.
    pub(super) fn gone_from(
        &mut self,
        queue: &QueueName,
        place: Place,
        mut head: Head,
        positions: &[u32],
        group: &mut Group,
    ) -> Result<u32, StoreError> {
        let sizes = sizes_of(&head.stored.run)?;
        let (mut count, mut bytes) = (0, 0);
        for position in positions {
            let size = sizes.iter().find(|s| s.0 == *position);
            if let Some((_, size)) = size
                && head.gone.mark(*position)
            {
                count += 1;
                bytes += *size as i64;
            }
        }
        if count == 0 {
            return Ok(0);
        }
        group.state_changed = true;
        self.state.change(&queue.0, place.precedence as usize, -i64::from(count), -bytes);
        self.went(queue, place.precedence as usize, count.into());
        let key = gone_key(queue, place);
        if head.present().next().is_none() {
            group.changes.push(Change::RemoveRun { queue: queue.clone(), place });
            group.changes.push(Change::RemoveRow { table: GONE, key });
            if let Some(at) = head.stored.expires_at {
                let key = expiry_key(at, place);
                group.changes.push(Change::RemoveRow { table: EXPIRY, key });
            }
            self.lane(queue, place.precedence).remove(place.position);
        } else {
            group.changes.push(Change::PutRow { table: GONE, key, value: head.gone.to_bytes() });
            group.gone.insert(place, head.gone.clone());
            if let Some(known) = self.lane(queue, place.precedence).head(place.position) {
                known.gone = head.gone;
            }
        }
        Ok(count)
    }

    /// Keeps what nobody will take, for people to look at; the oldest go when there is no room.
    pub(super) fn set_aside(
        &mut self,
        run: Run,
        traits: &[Traits],
        group: &mut Group,
    ) -> Result<(), StoreError> {
        let queue = QueueName::new(SET_ASIDE);
        self.put_run(&queue, run, traits, group);
        let used: u64 = self.state.held(SET_ASIDE).iter().map(|h| h.bytes).sum();
        let mut over = used.saturating_sub(self.settings.set_aside_bytes);
        for precedence in Precedence::ALL.iter().rev() {
            while over > 0 {
                self.refill(&queue, *precedence, 1)?;
                let Some(head) = self.lane(&queue, *precedence).heads.front().cloned() else {
                    break;
                };
                let present: Vec<u32> = head.present().collect();
                over = over.saturating_sub(head.bytes() as u64);
                let place = place_of(*precedence, head.position);
                self.gone_from(&queue, place, head, &present, group)?;
            }
        }
        Ok(())
    }

    /// A run whose bytes are damaged is taken out of its queue and kept apart, so that it neither
    /// stops the queue nor is sent. Its messages end refused; which they were may not be readable.
    pub(super) fn set_damaged_aside(&mut self) -> Result<(), StoreError> {
        let mut group = Group::default();
        for (queue, run) in std::mem::take(&mut self.damaged) {
            let key = gone_key(&queue, run.place);
            let readable = StoredRun::decode(&run.bytes).ok();
            let header = readable.map(|s| s.run.header);
            error!(target: "delivery", queue = %queue, position = run.place.position,
                messages = header.as_ref().map(RunHeader::present),
                "run is damaged; set aside (fsck and queue show set-aside tell more)");
            if let Some(header) = header {
                let count = u64::from(header.present());
                let bytes = run.bytes.len() as i64;
                let lane = header.precedence as usize;
                self.state.change(&queue.0, lane, -(count as i64), -bytes);
                self.end(End::Refused, count, "damaged");
            }
            group.state_changed = true;
            group.changes.push(Change::PutRow { table: "damaged", key, value: run.bytes });
            group.changes.push(Change::RemoveRun { queue, place: run.place });
        }
        self.write(&mut group)
    }

    /// End reports into the queue of reports.
    pub(super) fn put_reports(&mut self, reports: Vec<EndReport>, group: &mut Group) {
        if self.keeper.is_some() {
            return;
        }
        for report in protocol::ends::join(reports) {
            self.state.end += 1;
            group.state_changed = true;
            let mut to = protocol::codec::Writer::new();
            report.write(&mut to);
            let key = Bytes::copy_from_slice(&self.state.end.to_be_bytes());
            group.changes.push(Change::PutRow { table: ENDS, key, value: to.into_bytes() });
        }
    }
}

/// The id of the message at a position of a run.
pub(super) fn id_at(header: &RunHeader, at: u32) -> MessageId {
    MessageId {
        origin: header.origin,
        epoch: header.epoch,
        precedence: header.precedence,
        sequence: header.first + u64::from(at),
    }
}

/// Position and wire bytes of each message that is in a run.
pub(super) fn sizes_of(run: &Run) -> Result<Vec<(u32, usize)>, StoreError> {
    let there = (0..run.header.count).filter(|p| !run.header.is_left_out(*p));
    let sizes = there.zip(Messages::of(&run.messages)).map(|(position, message)| {
        let (range, _) = message.map_err(|e| StoreError::Failed(e.to_string()))?;
        Ok((position, range.len()))
    });
    sizes.collect()
}

/// A run of a queue from disk, with what of it is gone.
pub(super) fn read_head(
    store: &dyn QueueStore,
    queue: &QueueName,
    place: Place,
) -> Result<Option<Head>, StoreError> {
    let Some(value) = store.run(queue, place)? else { return Ok(None) };
    let stored = StoredRun::decode(&value).map_err(|e| StoreError::Failed(e.to_string()))?;
    let row = store.row(GONE, &gone_key(queue, place))?;
    let gone = row.map(|row| Gone::from_bytes(&row)).unwrap_or_default();
    Ok(Some(Head { position: place.position, stored, gone, flight: None, sent: 0 }))
}

/// Key of a run in the table of what expires: when, then where.
pub(super) fn expiry_key(at: i64, place: Place) -> Bytes {
    let mut key = at.max(0).to_be_bytes().to_vec();
    key.push(place.precedence as u8);
    key.extend_from_slice(&place.position.to_be_bytes());
    key.into()
}
