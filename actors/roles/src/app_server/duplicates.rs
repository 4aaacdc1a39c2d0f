//! Which messages of a run are new: intervals for ever, digests where a number comes again. Pure.
use std::collections::BTreeMap;

use protocol::{exchange::Outcome, run::RunHeader};

/// Numbers of one stream that are stored, as intervals that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals(BTreeMap<u64, u64>);

/// What a changed set of intervals does to its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// The interval that begins there ends there.
    Put {
        /// First number; the row's key.
        first: u64,
        /// Last number.
        last: u64,
    },
    /// No interval begins there any more.
    Remove {
        /// First number.
        first: u64,
    },
}

impl Intervals {
    /// As they stand in rows.
    pub fn of(rows: impl IntoIterator<Item = (u64, u64)>) -> Self {
        Self(rows.into_iter().collect())
    }

    /// How many intervals.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The intervals in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// Whether a number is stored.
    pub fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// Whether any number from `first` to `last` is stored.
    pub fn touches(&self, first: u64, last: u64) -> bool {
        self.0.range(..=last).next_back().is_some_and(|(_, end)| *end >= first)
    }

    /// Adds `first` to `last`, both included, and says what becomes of the rows.
    pub fn insert(&mut self, first: u64, last: u64) -> Vec<RowChange> {
        let mut changes = Vec::new();
        let (mut from, mut to) = (first, last);
        if let Some((f, l)) = self.0.range(..=first).next_back() {
            if *l >= last {
                return changes;
            }
            if l.checked_add(1).is_none_or(|after| after >= first) {
                from = *f;
            }
        }
        let reach = last.saturating_add(1);
        let swallowed: Vec<u64> = self.0.range(first..=reach).map(|(f, _)| *f).collect();
        for begin in swallowed {
            if let Some(end) = self.0.remove(&begin) {
                to = to.max(end);
            }
            if begin != from {
                changes.push(RowChange::Remove { first: begin });
            }
        }
        self.0.insert(from, to);
        changes.push(RowChange::Put { first: from, last: to });
        changes
    }

    /// Numbers from 1 on that are missing below the highest.
    pub fn holes(&self) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut next = 1;
        for (first, last) in self.iter() {
            if first > next {
                holes.push((next, first - 1));
            }
            next = last.saturating_add(1);
        }
        holes
    }
}

/// What the records know of an id that came again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// A message with that id and that digest.
    Same,
    /// Only one with another digest: a cloned or rolled-back machine.
    Other,
    /// None: its record was lost.
    Lost,
}

/// What becomes of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// One per message that is there.
    pub outcomes: Vec<Outcome>,
    /// Positions, from the first number on, that are not stored again.
    pub gone: Vec<u32>,
    /// Numbers that came with another digest; stored all the same.
    pub conflicts: Vec<u64>,
}

impl Judged {
    /// Whether anything is to be stored.
    pub fn stores(&self) -> bool {
        self.gone.len() < self.outcomes.len()
    }
}

/// Judges the messages of a run. `known` is asked only of numbers that are stored already, with
/// the message's place among those that are there.
pub fn judge<E>(
    seen: &Intervals,
    run: &RunHeader,
    mut known: impl FnMut(u32, u64) -> Result<Known, E>,
) -> Result<Judged, E> {
    let mut judged = Judged::default();
    if !seen.touches(run.first, run.first.saturating_add(u64::from(run.count) - 1)) {
        judged.outcomes = vec![Outcome::Stored; run.present() as usize];
        return Ok(judged);
    }
    let there = (0..run.count).filter(|p| !run.is_left_out(*p));
    for (at, position) in (0..).zip(there) {
        let number = run.first + u64::from(position);
        let known = if seen.contains(number) { known(at, number)? } else { Known::Lost };
        judged.outcomes.push(match known {
            Known::Same => {
                judged.gone.push(position);
                Outcome::Duplicate
            }
            Known::Other => {
                judged.conflicts.push(number);
                Outcome::Stored
            }
            Known::Lost => Outcome::Stored,
        });
    }
    Ok(judged)
}

/// Numbers of a run that are there, as intervals.
pub fn numbers(run: &RunHeader) -> Vec<(u64, u64)> {
    if run.left_out.is_empty() {
        return vec![(run.first, run.first + u64::from(run.count) - 1)];
    }
    let mut numbers: Vec<(u64, u64)> = Vec::new();
    for position in (0..run.count).filter(|p| !run.is_left_out(*p)) {
        let number = run.first + u64::from(position);
        match numbers.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => numbers.push((number, number)),
        }
    }
    numbers
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panic")]
mod tests {
    use protocol::{Precedence, RemoteId};

    use super::*;

    fn header(first: u64, count: u32, left_out: &[u8]) -> RunHeader {
        RunHeader {
            origin: RemoteId::customer(uuid::Uuid::nil()),
            epoch: 1,
            precedence: Precedence::Normal,
            first,
            count,
            left_out: left_out.to_vec(),
            replayed: false,
            changed: false,
            path: Vec::new(),
        }
    }

    #[test]
    fn intervals_grow_and_join_and_say_what_becomes_of_their_rows() {
        use RowChange::{Put, Remove};
        let mut seen = Intervals::default();
        assert_eq!(seen.insert(1, 3), [Put { first: 1, last: 3 }]);
        assert_eq!(seen.insert(4, 6), [Put { first: 1, last: 6 }]);
        assert_eq!(seen.insert(9, 9), [Put { first: 9, last: 9 }]);
        assert_eq!(seen.holes(), [(7, 8)]);
        assert_eq!(seen.insert(2, 5), []);
        assert_eq!(seen.insert(7, 8), [Remove { first: 9 }, Put { first: 1, last: 9 }]);
        assert_eq!(seen, Intervals::of([(1, 9)]));
        assert_eq!(seen.insert(20, 30).len() + seen.insert(15, 40).len(), 3);
        assert_eq!(seen.insert(41, 41), [Put { first: 15, last: 41 }]);
        assert!(seen.contains(9) && !seen.contains(10) && seen.contains(41));
    }

    #[test]
    fn random_inserts_hold_what_a_set_holds_and_rows_follow() {
        let mut state = 7_u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let (mut seen, mut rows, mut set) =
            (Intervals::default(), BTreeMap::new(), std::collections::BTreeSet::new());
        for _ in 0..2_000 {
            let first = 1 + draw(500);
            let last = first + draw(9);
            set.extend(first..=last);
            for change in seen.insert(first, last) {
                match change {
                    RowChange::Put { first, last } => drop(rows.insert(first, last)),
                    RowChange::Remove { first } => drop(rows.remove(&first)),
                }
            }
            assert_eq!(Intervals::of(rows.clone()), seen);
        }
        assert!((1..520).all(|n| seen.contains(n) == set.contains(&n)));
    }

    #[test]
    fn only_the_same_id_and_digest_is_a_duplicate() {
        let seen = Intervals::of([(1, 4)]);
        let judged = judge(&seen, &header(3, 4, &[]), |_, number| {
            Ok::<_, ()>(if number == 3 { Known::Same } else { Known::Other })
        });
        let judged = judged.unwrap();
        assert_eq!(judged.gone, [0]);
        assert_eq!(judged.conflicts, [4]);
        let [first, rest @ ..] = &judged.outcomes[..] else { panic!("four outcomes") };
        assert_eq!(*first, Outcome::Duplicate);
        assert!(rest.iter().all(|o| *o == Outcome::Stored) && rest.len() == 3);
    }

    #[test]
    fn what_is_left_out_of_a_run_is_not_asked_for() {
        let seen = Intervals::of([(1, 10)]);
        let run = header(1, 4, &[0b0110]);
        let mut asked = Vec::new();
        let judged = judge(&seen, &run, |at, number| {
            asked.push((at, number));
            Ok::<_, ()>(Known::Same)
        });
        assert_eq!(asked, [(0, 1), (1, 4)]);
        assert!(!judged.unwrap().stores());
        assert_eq!(numbers(&run), [(1, 1), (4, 4)]);
    }
}
