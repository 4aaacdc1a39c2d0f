//! Putting runs into queues, making room, and what nobody will take.
use std::{collections::HashSet, ops::ControlFlow};

use bytes::Bytes;
use extension::storage::{Change, Place, QueueName, QueueStore, StoreError, Value};
use protocol::{
    MessageId, Precedence,
    ends::{End, EndReport},
    message::Messages,
    run::{Run, RunHeader},
};

use super::{DurableQueue, Group, SET_ASIDE, UP, place_of, walk::Walk};
use crate::delivery::{
    eviction::{self, Decision, Plan},
    lanes::{DamagedRun, Head, gone_key},
    recount::put_report,
    runs::{Gone, LARGEST, StoredRun, Traits, cut},
    state::{EXPIRY, GONE, expiry_key},
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
        let pieces = if whole { vec![sizes.len()] } else { cut(&sizes, RUN_MESSAGES_MAX, LARGEST) };
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
            self.hunt.note(at, place);
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
        let flying = group.flying.take().unwrap_or_else(|| self.in_flight_places());
        let mut plan = self.plan_room(precedence, bytes, used, &flying, group)?;
        if plan.decision != Decision::Admit && !flying.is_empty() {
            // A parent that is away holds up what was in flight to it: that may go, too, rather
            // than turn away what is more urgent (`delivery.md` §5).
            plan = self.plan_room(precedence, bytes, used, &HashSet::new(), group)?;
        }
        group.flying = Some(flying);
        let up = QueueName::new(UP);
        for (victim, end) in &plan.victims {
            self.drop_one(&up, victim.place, victim.at, *end, "", group)?;
        }
        if plan.decision == Decision::Admit {
            group.admitted[precedence as usize] += bytes;
        }
        Ok(plan.decision)
    }

    /// Who goes for a newcomer, were all runs on disk but those in `flying` to choose from. What
    /// this group put is not on disk yet; it is the newest, and so the last to go.
    fn plan_room(
        &mut self,
        precedence: Precedence,
        bytes: u64,
        used: [u64; 3],
        flying: &HashSet<Place>,
        group: &mut Group,
    ) -> Result<Plan, StoreError> {
        let store = self.settings.store.clone();
        let now = *group.now.get_or_insert((self.settings.clock)());
        self.hunt.at(now);
        let held = (flying, &group.gone);
        let mut walk = Walk::new(&*store, now, held, (&mut self.hunt, &mut self.at_hand));
        let plan = eviction::plan(precedence, bytes, used, &self.settings.limits, &mut walk);
        let up = QueueName::new(UP);
        self.damaged.extend(walk.damaged.into_iter().map(|run| (up.clone(), run)));
        plan
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
        let Some(head) = self.head_of(queue, place, group)? else { return Ok(()) };
        let id = id_at(&head.stored.run.header, at);
        if self.gone_from(queue, place, head, &[at], group)? == 0 {
            return Ok(());
        }
        self.end(end, 1, reason);
        if end != End::Delivered {
            self.report(id, 1, end, reason, group);
        }
        Ok(())
    }

    /// A run of a queue as it is after what was planned, from memory or disk. One that is damaged
    /// is none, and set aside before the next commit.
    pub(super) fn head_of(
        &mut self,
        queue: &QueueName,
        place: Place,
        group: &Group,
    ) -> Result<Option<Head>, StoreError> {
        if let Some(head) = self.lane(queue, place.precedence).head(place.position) {
            return Ok(Some(head.clone()));
        }
        let store = self.settings.store.clone();
        let head = match read_head(&*store, queue, place, &mut self.at_hand)? {
            Ok(head) => head,
            Err(damaged) => {
                self.damaged.push((queue.clone(), damaged));
                None
            }
        };
        Ok(head.map(|mut head| {
            head.gone = group.gone.get(&place).cloned().unwrap_or(head.gone);
            head
        }))
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
        let due = head.stored.due(&head.gone);
        let (count, bytes) = marked(&mut head, positions)?;
        if count == 0 {
            return Ok(0);
        }
        group.state_changed = true;
        self.state.change(&queue.0, place.precedence as usize, -i64::from(count), -bytes);
        self.went(queue, place.precedence as usize, count.into());
        let key = gone_key(queue, place);
        if &*queue.0 == UP {
            expires_anew(&head, place, due, group);
        }
        group.gone.insert(place, head.gone.clone());
        if head.present().next().is_none() {
            group.changes.push(Change::RemoveRun { queue: queue.clone(), place });
            group.changes.push(Change::RemoveRow { table: GONE, key });
            self.lane(queue, place.precedence).remove(place.position);
        } else {
            group.changes.push(Change::PutRow { table: GONE, key, value: head.gone.to_bytes() });
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

    /// End reports into the queue of reports.
    pub(super) fn put_reports(&mut self, reports: Vec<EndReport>, group: &mut Group) {
        if self.keeper.is_some() {
            return;
        }
        for report in protocol::ends::join(reports) {
            group.state_changed = true;
            group.changes.push(put_report(&mut self.state, &report));
        }
    }
}

/// Marks positions of a run gone; how many were not, and their bytes.
fn marked(head: &mut Head, positions: &[u32]) -> Result<(u32, i64), StoreError> {
    let run = &head.stored.run;
    let is_whole = run.header.left_out.is_empty() && head.gone.is_empty();
    if is_whole && positions.iter().copied().eq(0..run.header.count) {
        // What mostly happens: the parent has all of it.
        head.gone.mark_all(run.header.count);
        return Ok((run.header.count, run.messages.len() as i64));
    }
    let (mut count, mut bytes) = (0, 0);
    let sizes = sizes_of(run)?;
    for position in positions {
        let size = sizes.iter().find(|s| s.0 == *position);
        if let Some((_, size)) = size
            && head.gone.mark(*position)
        {
            count += 1;
            bytes += *size as i64;
        }
    }
    Ok((count, bytes))
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

/// Moves a run in the table of what expires: what was due first may be gone.
fn expires_anew(head: &Head, place: Place, due: Option<i64>, group: &mut Group) {
    let now_due = head.stored.due(&head.gone);
    if now_due == due {
        return;
    }
    // Older versions left the row where it was put first.
    let before = [due, head.stored.expires_at.filter(|at| Some(*at) != due)];
    for at in before.into_iter().flatten().filter(|at| Some(*at) != now_due) {
        let key = expiry_key(at, place);
        group.changes.push(Change::RemoveRow { table: EXPIRY, key });
    }
    if let Some(at) = now_due {
        let (key, value) = (expiry_key(at, place), Bytes::new());
        group.changes.push(Change::PutRow { table: EXPIRY, key, value });
    }
}

/// The run that was read last: who drops one message after the other reads it once.
pub(super) type AtHand = Option<(QueueName, Place, Head)>;

/// A run of a queue from disk, with what of it is gone; none where there is none, or what is there
/// instead.
pub(super) fn read_head(
    store: &dyn QueueStore,
    queue: &QueueName,
    place: Place,
    at_hand: &mut AtHand,
) -> Result<Result<Option<Head>, DamagedRun>, StoreError> {
    if let Some((_, _, head)) = at_hand.as_ref().filter(|(q, p, _)| (q, *p) == (queue, place)) {
        return Ok(Ok(Some(head.clone())));
    }
    let stored = match store.run(queue, place) {
        Ok(None) => return Ok(Ok(None)),
        Ok(Some(value)) => StoredRun::decode(&value).map_err(|_| value),
        Err(StoreError::Damaged(_)) => Err(what_is_there(store, queue, place)?),
        Err(error) => return Err(error),
    };
    let stored = match stored {
        Ok(stored) => stored,
        Err(bytes) => return Ok(Err(DamagedRun { place, bytes })),
    };
    let row = store.row(GONE, &gone_key(queue, place))?;
    let gone = row.map(|row| Gone::from_bytes(&row)).unwrap_or_default();
    let head = Head { position: place.position, stored, gone, flight: None, sent: 0 };
    *at_hand = Some((queue.clone(), place, head.clone()));
    Ok(Ok(Some(head)))
}

/// The bytes that stand where a run should.
fn what_is_there(
    store: &dyn QueueStore,
    queue: &QueueName,
    place: Place,
) -> Result<Bytes, StoreError> {
    let mut there = Bytes::new();
    store.runs(queue, place.precedence, place.position, &mut |position, value| {
        let (Value::Good(raw) | Value::Damaged(raw)) = value;
        if position == place.position {
            there = Bytes::copy_from_slice(raw);
        }
        ControlFlow::Break(())
    })?;
    Ok(there)
}
