//! Incarnations and numbers: what a parent answers a repeat, and how a child numbers (pure,
//! `delivery.md` §2).
use std::collections::BTreeMap;

use protocol::{
    Precedence, Refusal, Verdict,
    exchange::{Exchange, Outcome},
};
use serde::{Deserialize, Serialize};

/// What a parent remembers of one child and precedence, on disk with the messages it took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildMemory {
    incarnation: u64,
    oldest: u64,
    kept: BTreeMap<u64, Remembered>,
    /// Messages answered `stored` to this child in all its lives, for the reconciliation of links.
    pub taken: u64,
}

/// One exchange that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    digest: u64,
    /// As (number of the outcome's wire form, how many).
    outcomes: Vec<(u16, u32)>,
    /// Whether the whole of it was taken: only then may the next one be.
    whole: bool,
}

/// What to do with an exchange that carries runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Take it.
    Take,
    /// It was taken: the same answer again, nothing stored.
    Repeat(Vec<(Outcome, u32)>),
    /// The one before it is missing or was not wholly taken: try again, not remembered.
    Early,
    /// Its number cannot be known here.
    NewIncarnation,
}

/// Numbers an outcome for the memory's bytes.
fn number(outcome: Outcome) -> u16 {
    match outcome {
        Outcome::Stored => 0,
        Outcome::Duplicate => 1,
        Outcome::Refused(refusal) => 16 + refusal as u16,
    }
}

fn outcome(number: u16) -> Outcome {
    match number {
        0 => Outcome::Stored,
        1 => Outcome::Duplicate,
        n => {
            let refusal = n.checked_sub(16).and_then(|n| Refusal::from_number(n as u8));
            Outcome::Refused(refusal.unwrap_or(Refusal::Internal))
        }
    }
}

impl ChildMemory {
    /// Judges an exchange with a number above 0.
    pub fn judge(&self, exchange: &Exchange) -> Judgement {
        let Exchange { incarnation, number, digest, previous, oldest, .. } = *exchange;
        if number == 0 || oldest > number || previous >= number {
            return Judgement::NewIncarnation;
        }
        if incarnation != self.incarnation {
            // A child that is new here has nothing before its first; one that fails over does
            // not wait for what it sent to another parent.
            return if previous == 0 { Judgement::Take } else { Judgement::Early };
        }
        if let Some(kept) = self.kept.get(&number) {
            if kept.digest != digest {
                return Judgement::NewIncarnation;
            }
            let outcomes = kept.outcomes.iter().map(|(o, n)| (outcome(*o), *n)).collect();
            return Judgement::Repeat(outcomes);
        }
        if number < self.oldest {
            return Judgement::NewIncarnation;
        }
        match self.kept.get(&previous) {
            _ if previous == 0 => Judgement::Take,
            Some(before) if before.whole => Judgement::Take,
            _ => Judgement::Early,
        }
    }

    /// Remembers an exchange that was judged [`Judgement::Take`], in the commit of its messages.
    pub fn note(&mut self, exchange: &Exchange, outcomes: &[(Outcome, u32)]) {
        if self.incarnation != exchange.incarnation {
            let taken = self.taken;
            *self = Self { incarnation: exchange.incarnation, taken, ..Self::default() };
        }
        self.oldest = self.oldest.max(exchange.oldest);
        self.kept = self.kept.split_off(&self.oldest);
        let again = |(o, _): &(Outcome, u32)| match o {
            Outcome::Refused(refusal) => refusal.verdict() == Verdict::TryAgain,
            _ => false,
        };
        let whole = !outcomes.iter().any(again);
        let stored = outcomes.iter().filter(|(o, _)| *o == Outcome::Stored);
        self.taken += stored.map(|(_, n)| u64::from(*n)).sum::<u64>();
        let outcomes = outcomes.iter().map(|(o, n)| (number(*o), *n)).collect();
        let remembered = Remembered { digest: exchange.digest, outcomes, whole };
        self.kept.insert(exchange.number, remembered);
    }
}

/// A child's numbers on one link and precedence.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    last: u64,
    in_flight: Vec<u64>,
}

/// What stands in an exchange beside its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Its number.
    pub number: u64,
    /// The newest still in flight; 0: none.
    pub previous: u64,
    /// The oldest still in flight, itself where there is none.
    pub oldest: u64,
}

impl Numbers {
    /// Numbers an exchange; it is in flight until [`settled`](Self::settled).
    pub fn draw(&mut self) -> Numbered {
        self.last += 1;
        let number = self.last;
        let previous = self.in_flight.last().copied().unwrap_or(0);
        let oldest = self.in_flight.first().copied().unwrap_or(number);
        self.in_flight.push(number);
        Numbered { number, previous, oldest }
    }

    /// The parent answered it.
    pub fn settled(&mut self, number: u64) {
        self.in_flight.retain(|n| *n != number);
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

/// The numbers of the three precedences of a link.
#[derive(Clone, Debug, Default)]
pub struct LinkNumbers([Numbers; 3]);

impl LinkNumbers {
    /// The numbers of one precedence.
    pub fn of(&mut self, precedence: Precedence) -> &mut Numbers {
        &mut self.0[precedence as usize]
    }
}

#[cfg(test)]
mod tests {
    use protocol::{RemoteId, exchange::Sender};
    use uuid::Uuid;

    use super::*;

    fn exchange(incarnation: u64, numbered: Numbered, digest: u64) -> Exchange {
        let Numbered { number, previous, oldest } = numbered;
        Exchange {
            incarnation,
            precedence: Precedence::Normal,
            number,
            digest,
            previous,
            oldest,
            beats: vec![],
            ends: vec![],
            acknowledgements: vec![],
            runs: vec![],
            sender: Sender { id: RemoteId::customer(Uuid::nil()), epoch: 1 },
        }
    }

    const ALL: [(Outcome, u32); 1] = [(Outcome::Stored, 3)];

    #[test]
    fn same_exchange_again_gets_the_same_answer() {
        let (mut parent, mut child) = (ChildMemory::default(), Numbers::default());
        let first = exchange(7, child.draw(), 1);
        assert_eq!(parent.judge(&first), Judgement::Take);
        parent.note(&first, &ALL);
        assert_eq!(parent.judge(&first), Judgement::Repeat(ALL.to_vec()));
        assert_eq!(parent.judge(&Exchange { digest: 2, ..first }), Judgement::NewIncarnation);
    }

    #[test]
    fn exchange_that_overtook_the_one_before_waits() {
        let (mut parent, mut child) = (ChildMemory::default(), Numbers::default());
        let first = exchange(7, child.draw(), 1);
        let second = exchange(7, child.draw(), 2);
        assert_eq!(parent.judge(&second), Judgement::Early);
        parent.note(&first, &ALL);
        assert_eq!(parent.judge(&second), Judgement::Take);
    }

    // Order holds with several in flight: nothing passes what was turned away for now.
    #[test]
    fn after_a_try_again_the_next_one_waits_too() {
        let (mut parent, mut child) = (ChildMemory::default(), Numbers::default());
        let first = exchange(7, child.draw(), 1);
        let second = exchange(7, child.draw(), 2);
        parent.note(&first, &[(Outcome::Stored, 1), (Outcome::Refused(Refusal::QueueFull), 2)]);
        assert_eq!(parent.judge(&second), Judgement::Early);
        child.settled(1);
        child.settled(2);
        let third = exchange(7, child.draw(), 3);
        assert_eq!((third.previous, third.oldest), (0, 3));
        assert_eq!(parent.judge(&third), Judgement::Take);
        parent.note(&third, &ALL);
        assert_eq!(parent.judge(&second), Judgement::NewIncarnation, "a late copy is not stored");
    }

    #[test]
    fn another_incarnation_starts_afresh() {
        let mut parent = ChildMemory::default();
        let first = exchange(7, Numbers::default().draw(), 1);
        parent.note(&first, &ALL);
        let again = exchange(8, Numbers::default().draw(), 1);
        assert_eq!(parent.judge(&again), Judgement::Take);
        parent.note(&again, &ALL);
        assert_eq!(parent.taken, 6);
        assert_eq!(parent.judge(&first), Judgement::Take, "incarnations are random: no order");
    }

    #[test]
    fn memory_holds_no_more_than_what_is_in_flight() {
        let (mut parent, mut child) = (ChildMemory::default(), Numbers::default());
        for digest in 1..1000 {
            let next = exchange(7, child.draw(), digest);
            assert_eq!(parent.judge(&next), Judgement::Take);
            parent.note(&next, &ALL);
            child.settled(next.number);
            assert!(parent.kept.len() <= 2);
        }
    }
}
