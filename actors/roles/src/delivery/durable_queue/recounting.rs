//! Counts a store that is too large to be counted at its start, while it serves and in steps, and
//! corrects counters that are not what stands on disk (DESIGN §4.4).
//!
//! A lane is read from its end towards its head. What leaves at the head was not read yet, what
//! comes at the end is counted as it comes, so that the sum is that of one moment: the one at which
//! the head is reached. Where something goes away that was read before, the lane is read again.
use std::{ops::ControlFlow, time::Duration};

use actix::prelude::*;
use bytes::Bytes;
use extension::storage::{Change, Place, QueueName, StoreError, Value};
use protocol::{Precedence, ends::End};
use tracing::{error, info, warn};

use super::{DurableQueue, Group, SET_ASIDE};
use crate::delivery::{
    lanes::{DamagedRun, gone_key, parse_gone_key},
    recount::{DAMAGED, Difference, RECORDS, held_in},
    runs::{Gone, StoredRun},
    state::{GONE, Held},
};

/// How long after its start: what waits leaves first.
const AFTER: Duration = Duration::from_secs(5);
/// Time between two steps.
const EVERY: Duration = Duration::from_millis(50);
/// Bytes read in one step, 1 MiB: a millisecond or two, a twentieth of the queue's time.
const STEP_BYTES: usize = 1 << 20;
/// Least that a run or a lane counts in a step, bytes: a page.
const LEAST_BYTES: usize = 4096;
/// How often a lane is read again that is disturbed, before it is left to the next start.
const TRIES: u32 = 16;
/// Damaged runs of one lane that are kept at hand.
const DAMAGED_MAX: usize = 64;

/// A lane on its way to be counted.
struct Counting {
    queue: QueueName,
    precedence: Precedence,
    /// Behind this position stands what came since.
    last: u64,
    /// Up to this position nothing was read yet; 0: all was.
    unread: u64,
    found: Held,
    damaged: Vec<DamagedRun>,
    disturbed: bool,
    tries: u32,
}

/// What is still to be counted.
#[derive(Default)]
pub(super) struct Recount {
    lanes: Vec<(QueueName, Precedence)>,
    at: Option<Counting>,
}

impl Recount {
    /// What a commit changed of the lane that is being counted.
    pub(super) fn note(&mut self, changes: &[Change]) {
        let Some(at) = &mut self.at else { return };
        for change in changes {
            match change {
                Change::PutRun { queue, place, value } if at.is(queue, place.precedence) => {
                    at.put(place.position, value);
                }
                Change::RemoveRun { queue, place } if at.is(queue, place.precedence) => {
                    at.touched(place.position);
                }
                Change::PutRow { table, key, .. } if *table == GONE => {
                    let place = parse_gone_key(key);
                    if let Some((_, place)) = place.filter(|(q, p)| at.is(q, p.precedence)) {
                        at.touched(place.position);
                    }
                }
                _ => {}
            }
        }
    }
}

impl Counting {
    fn of(queue: QueueName, precedence: Precedence, last: u64, tries: u32) -> Self {
        Self {
            queue,
            precedence,
            last,
            unread: u64::MAX,
            found: Held::default(),
            damaged: Vec::new(),
            disturbed: false,
            tries,
        }
    }

    fn is(&self, queue: &QueueName, precedence: Precedence) -> bool {
        self.queue == *queue && self.precedence == precedence
    }

    fn put(&mut self, position: u64, value: &Bytes) {
        match StoredRun::decode(value) {
            Ok(stored) if position > self.last => self.add(held_in(&stored, &Gone::default())),
            _ => self.touched(position),
        }
    }

    fn add(&mut self, held: Held) {
        self.found.messages += held.messages;
        self.found.bytes += held.bytes;
    }

    /// What was read is no longer so.
    fn touched(&mut self, position: u64) {
        self.disturbed |= position > self.unread;
    }

    /// Reads on towards the head; answers how much, in bytes.
    fn read(&mut self, queue: &DurableQueue, at_most: usize) -> Result<usize, StoreError> {
        let (name, precedence, to) = (self.queue.clone(), self.precedence, self.unread);
        let store = &*queue.settings.store;
        let (mut taken, mut failed, mut rest) = (LEAST_BYTES, None, 0);
        store.runs_back(&name, precedence, to, &mut |position, value| {
            if taken >= at_most {
                rest = position;
                return ControlFlow::Break(());
            }
            self.last = self.last.max(position);
            let (raw, is_good) = match value {
                Value::Good(raw) => (raw, true),
                Value::Damaged(raw) => (raw, false),
            };
            taken += raw.len().max(LEAST_BYTES);
            let place = Place { precedence, position };
            let bytes = Bytes::copy_from_slice(raw);
            match StoredRun::decode(&bytes) {
                Ok(stored) if is_good => match store.row(GONE, &gone_key(&name, place)) {
                    Ok(row) => {
                        let gone = row.map(|row| Gone::from_bytes(&row)).unwrap_or_default();
                        self.add(held_in(&stored, &gone));
                    }
                    Err(error) => failed = Some(error),
                },
                _ if self.damaged.len() < DAMAGED_MAX => {
                    self.damaged.push(DamagedRun { place, bytes });
                }
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        self.unread = rest;
        failed.map_or(Ok(taken), Err)
    }
}

impl DurableQueue {
    /// Plans the count of a store that the start did not count.
    pub(super) fn plan_recount(&mut self, ctx: &mut Context<Self>) {
        if !self.settings.counted {
            ctx.run_later(AFTER, |queue, ctx| queue.begin_recount(ctx));
        }
    }

    fn begin_recount(&mut self, ctx: &mut Context<Self>) {
        let top = self.keeper.is_some();
        let mut names = match self.settings.store.queues() {
            Ok(names) => names,
            Err(failed) => {
                warn!(target: "delivery", error = %failed, "queues cannot be counted now");
                return self.plan_recount(ctx);
            }
        };
        names.extend(self.state.held.keys().map(|name| QueueName::new(name)));
        names.sort();
        names.dedup();
        // What an application server sets aside is its modules' affair.
        names.retain(|name| &*name.0 != RECORDS && !(top && &*name.0 == SET_ASIDE));
        let lanes = names.iter().flat_map(|n| Precedence::ALL.iter().map(|p| (n.clone(), *p)));
        self.recount = Recount { lanes: lanes.collect(), at: None };
        self.step_recount(ctx);
    }

    fn step_recount(&mut self, ctx: &mut Context<Self>) {
        match self.count_on() {
            Ok(true) => {
                ctx.run_later(EVERY, |queue, ctx| queue.step_recount(ctx));
            }
            Ok(false) => info!(target: "delivery", "all queues are counted"),
            Err(failed) => {
                self.failed(&failed);
                self.plan_recount(ctx);
            }
        }
    }

    /// One step; answers whether something is left.
    fn count_on(&mut self) -> Result<bool, StoreError> {
        let mut left = STEP_BYTES;
        while left > 0 {
            let mut at = match self.recount.at.take() {
                Some(at) if at.disturbed => {
                    // Read anew from its end; by then less stands before it.
                    Counting::of(at.queue, at.precedence, self.state.position, at.tries + 1)
                }
                Some(at) => at,
                None => match self.recount.lanes.pop() {
                    Some((queue, precedence)) => {
                        Counting::of(queue, precedence, self.state.position, 0)
                    }
                    None => return self.correct_account().map(|()| false),
                },
            };
            left = left.saturating_sub(at.read(self, left)?);
            // The row of the counters may be an older one than what it counts.
            self.state.position = self.state.position.max(at.last);
            if at.unread > 0 {
                self.recount.at = Some(at);
                return Ok(true);
            }
            if !self.correct_lane(&mut at)? {
                if at.tries >= TRIES {
                    warn!(target: "delivery", queue = %at.queue, precedence = %at.precedence,
                        "is too busy to be counted; the next start counts it");
                    continue;
                }
                at.disturbed = true;
                self.recount.at = Some(at);
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// A lane was read as a whole. Answers whether that is settled: not while a run that is damaged
    /// on disk is still good in memory, from where it leaves.
    fn correct_lane(&mut self, at: &mut Counting) -> Result<bool, StoreError> {
        let (queue, precedence) = (at.queue.clone(), at.precedence);
        let known = self.state.held(&queue.0)[precedence as usize];
        if known == at.found && at.damaged.is_empty() {
            return Ok(true);
        }
        if !at.damaged.is_empty() {
            let heads = &self.lane(&queue, precedence).heads;
            let is_head = |run: &DamagedRun| heads.iter().any(|h| h.position == run.place.position);
            if at.damaged.iter().any(is_head) {
                return Ok(false);
            }
            // What is lost of them is counted and told upward where they are set aside.
            self.damaged.extend(at.damaged.drain(..).map(|run| (queue.clone(), run)));
            return self.set_damaged_aside().map(|()| true);
        }
        let name = queue.0.to_string();
        self.state.correct(&Difference { queue: name, precedence, known, found: at.found });
        let mut group = Group { state_changed: true, ..Group::default() };
        self.write(&mut group)?;
        self.settings.doorbell.ring(&queue.0);
        Ok(true)
    }

    /// The account calls queued what the queues hold; at an application server its records are
    /// queued, too.
    fn correct_account(&mut self) -> Result<(), StoreError> {
        if self.keeper.is_some() {
            return Ok(());
        }
        let lanes = self.state.held.iter().filter(|(name, _)| *name != SET_ASIDE);
        let held: u64 = lanes.flat_map(|(_, lanes)| lanes).map(|held| held.messages).sum();
        let known = self.state.account;
        if held == known.queued && known.balanced() {
            return Ok(());
        }
        error!(target: "delivery", ?known, held, "the account was not what stands on disk; corrected");
        self.state.end(End::Refused, known.queued.saturating_sub(held), DAMAGED);
        self.state.taken(held.saturating_sub(known.queued));
        // More went out than was known of: it left before it was counted.
        let account = &mut self.state.account;
        let ended = account.delivered + account.expired + account.evicted;
        let all = ended + account.refused + account.consumed + account.queued;
        account.taken = account.taken.max(all);
        let mut group = Group { state_changed: true, ..Group::default() };
        self.write(&mut group)
    }
}
