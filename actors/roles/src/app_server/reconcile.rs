//! The ledger end to end: every number is stored, explained by an end, or held; else it is a gap
//! (`delivery.md` §4).
use std::{collections::BTreeMap, ops::ControlFlow};

use extension::{
    records::Gap,
    storage::{QueueStore, StoreError},
};
use protocol::{Precedence, RemoteId, codec::Reader, heartbeat::Heartbeat};

use super::{
    duplicates::Intervals,
    rows::{ENDED, EndRow, SEEN, STATUS, StatusRow, from_row, number_at, stream_of},
};

/// Numbers missing below the highest known that no end explains. `held`: how many messages of the
/// stream nodes say they hold; so many of the newest missing ones are no gap.
pub fn gaps(seen: &Intervals, ends: &[(u64, u64)], mut held: u64) -> Vec<(u64, u64)> {
    let mut known = Intervals::of(seen.iter());
    for (first, last) in ends {
        known.insert(*first, *last);
    }
    let mut gaps = known.holes();
    while let Some((first, last)) = gaps.pop() {
        let missing = last - first + 1;
        if missing > held {
            gaps.push((first, last - held));
            break;
        }
        held -= missing;
    }
    gaps
}

/// The gaps of all sources but this server itself: what it numbers for others is not stored here.
pub fn all_gaps(store: &dyn QueueStore, own: &RemoteId) -> Result<Vec<Gap>, StoreError> {
    let seen =
        intervals(store, SEEN, |key, value| Some((number_at(key, 0)?, number_at(value, 0)?)))?;
    let ends = intervals(store, ENDED, |key, value| {
        let row: EndRow = from_row(value)?;
        let first = number_at(key, 0)?;
        Some((first, first + u64::from(row.count) - 1))
    })?;
    let held = held(store)?;
    let mut all = Vec::new();
    for (stream, seen) in seen {
        let Some((origin, epoch, precedence)) = stream_of(&stream) else { continue };
        if origin == *own {
            continue;
        }
        let none = Vec::new();
        let ended = ends.get(&stream).unwrap_or(&none);
        if seen.len() == 1 && seen[0].0 == 1 {
            continue;
        }
        let held = held_for(&held, &origin, precedence);
        for (first, last) in gaps(&Intervals::of(seen), ended, held) {
            let epoch = format!("{epoch:x}");
            all.push(Gap { origin, epoch, precedence, first, last });
        }
    }
    Ok(all)
}

type Streams = BTreeMap<Vec<u8>, Vec<(u64, u64)>>;

fn intervals(
    store: &dyn QueueStore,
    table: &'static str,
    read: impl Fn(&[u8], &[u8]) -> Option<(u64, u64)>,
) -> Result<Streams, StoreError> {
    let mut streams = Streams::new();
    store.rows(table, &[], &[], &mut |key, value| {
        // Length, id, epoch, precedence.
        let stream = key.first().map_or(0, |length| usize::from(*length) + 10);
        if let Some(interval) = key.get(stream..).and_then(|numbers| read(numbers, value)) {
            streams.entry(key[..stream].to_vec()).or_default().push(interval);
        }
        ControlFlow::Continue(())
    })?;
    Ok(streams)
}

/// What nodes said they hold: node, its path up, messages by precedence.
type Held = Vec<(RemoteId, Vec<RemoteId>, [u64; 3])>;

fn held(store: &dyn QueueStore) -> Result<Held, StoreError> {
    let mut held = Held::new();
    store.rows(STATUS, &[], &[], &mut |_, value| {
        let row: Option<StatusRow> = from_row(value);
        let beat = row.and_then(|r| Heartbeat::read(&mut Reader::new(&r.beat)).ok());
        if let Some(beat) = beat {
            held.push((beat.node, beat.path.clone(), beat.depths.map(|d| d.messages)));
        }
        ControlFlow::Continue(())
    })?;
    Ok(held)
}

/// Messages that may be of that origin: held by it or by a node on its way up.
fn held_for(held: &Held, origin: &RemoteId, precedence: Precedence) -> u64 {
    let path = held.iter().find(|(node, ..)| node == origin).map(|(_, path, _)| path.clone());
    let path = path.unwrap_or_default();
    let on_the_way = held.iter().filter(|(node, ..)| node == origin || path.contains(node));
    on_the_way.map(|(.., depths)| depths[precedence as usize]).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_stored_explained_held_or_a_gap() {
        let seen = Intervals::of([(1, 10), (15, 20), (23, 30)]);
        assert_eq!(gaps(&seen, &[], 0), [(11, 14), (21, 22)]);
        assert_eq!(gaps(&seen, &[(11, 12), (21, 22)], 0), [(13, 14)]);
        assert_eq!(gaps(&seen, &[(11, 14), (21, 22)], 0), []);
        // The newest may be on their way.
        assert_eq!(gaps(&seen, &[], 2), [(11, 14)]);
        assert_eq!(gaps(&seen, &[], 3), [(11, 13)]);
        assert_eq!(gaps(&seen, &[], 6), []);
    }

    #[test]
    fn an_end_that_was_overtaken_by_its_message_explains_no_other() {
        // Delivered wins: 5 came after it was reported as expired.
        let seen = Intervals::of([(1, 5), (8, 8)]);
        assert_eq!(gaps(&seen, &[(5, 6)], 0), [(7, 7)]);
    }

    #[test]
    fn numbers_before_the_first_stored_one_are_missed_too() {
        assert_eq!(gaps(&Intervals::of([(4, 9)]), &[(1, 1)], 0), [(2, 3)]);
    }
}
