//! What a full queue does with a newcomer (pure, QUE-7…15).
use extension::storage::Place;
use protocol::{Precedence, ends::End};

/// Bytes a queue may hold, in wire bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All precedences together (QUE-7).
    pub total: u64,
    /// Each precedence alone; `u64::MAX`: only the total counts (QUE-8).
    pub each: [u64; 3],
}

/// One message that may have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Its run.
    pub place: Place,
    /// Its position in the run.
    pub at: u32,
    /// Its wire bytes.
    pub bytes: u64,
}

/// What the plan needs to see of a queue. Each call gives the next victim of its kind, oldest
/// first; what was given once is not given again.
pub trait Held<E> {
    /// The oldest message whose time to live ran out, in one precedence or in all.
    fn next_expired(&mut self, within: Option<Precedence>) -> Result<Option<Victim>, E>;
    /// The oldest message of that precedence with normal persistence that has not expired.
    fn next_evictable(&mut self, precedence: Precedence) -> Result<Option<Victim>, E>;
}

/// What becomes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is kept.
    Admit,
    /// Bulk that found no room: the call succeeds, the ledger says evicted (QUE-12).
    Discard,
    /// An error to the caller, and an alarm (QUE-14, QUE-15).
    Reject,
}

/// The plan: who goes, and what becomes of the newcomer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Who goes, with how it ended.
    pub victims: Vec<(Victim, End)>,
    /// The newcomer.
    pub decision: Decision,
}

/// Decides about a newcomer of `bytes` in a queue that holds `used` bytes by precedence.
///
/// The order is that of QUE-10…14, repeated until the newcomer fits (QUE-9). Where the limit of
/// its own precedence is what is full, victims come from that precedence only (QUE-8). Expired
/// victims go whatever is decided; others only for a newcomer that is then kept: evicting for one
/// that is turned away all the same would lose data for nothing.
pub fn plan<E>(
    newcomer: Precedence,
    bytes: u64,
    used: [u64; 3],
    limits: &Limits,
    held: &mut dyn Held<E>,
) -> Result<Plan, E> {
    let mut used = used;
    let (mut expired, mut evicted) = (Vec::new(), Vec::new());
    let class = newcomer as usize;
    let never = bytes > limits.total || bytes > limits.each[class];
    let decision = loop {
        let own_full = used[class] + bytes > limits.each[class];
        let all_full = used.iter().sum::<u64>() + bytes > limits.total;
        if !own_full && !all_full {
            break Decision::Admit;
        }
        let within = own_full.then_some(newcomer);
        if let Some(victim) = held.next_expired(within)? {
            used[victim.place.precedence as usize] -= victim.bytes;
            expired.push((victim, End::Expired));
            continue;
        }
        let from = match newcomer {
            _ if never => None,
            Precedence::Bulk => Some(Precedence::Bulk),
            // Bulk goes first for anybody, but makes no room within another precedence's limit.
            _ if own_full && newcomer == Precedence::Urgent => None,
            Precedence::Normal if own_full => None,
            _ => Some(Precedence::Bulk),
        };
        let mut victim = match from {
            Some(precedence) => held.next_evictable(precedence)?,
            None => None,
        };
        if victim.is_none() && newcomer == Precedence::Urgent && !own_full && !never {
            victim = held.next_evictable(Precedence::Normal)?;
        }
        match victim {
            Some(victim) => {
                used[victim.place.precedence as usize] -= victim.bytes;
                evicted.push((victim, End::Evicted));
            }
            None if newcomer == Precedence::Bulk => break Decision::Discard,
            None => break Decision::Reject,
        }
    };
    let mut victims = expired;
    if decision == Decision::Admit {
        victims.append(&mut evicted);
    }
    Ok(Plan { victims, decision })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    struct Kept {
        precedence: Precedence,
        assured: bool,
        expired: bool,
        bytes: u64,
    }

    /// A queue as a list, oldest first; a message's place is its index.
    struct List {
        kept: Vec<Kept>,
        given: Vec<bool>,
    }

    impl List {
        fn next(&mut self, wanted: impl Fn(&Kept) -> bool) -> Option<Victim> {
            let i = (0..self.kept.len()).find(|i| !self.given[*i] && wanted(&self.kept[*i]))?;
            self.given[i] = true;
            let Kept { precedence, bytes, .. } = self.kept[i];
            Some(Victim { place: Place { precedence, position: i as u64 }, at: 0, bytes })
        }
    }

    impl Held<()> for List {
        fn next_expired(&mut self, within: Option<Precedence>) -> Result<Option<Victim>, ()> {
            Ok(self.next(|k| k.expired && within.is_none_or(|p| p == k.precedence)))
        }
        fn next_evictable(&mut self, precedence: Precedence) -> Result<Option<Victim>, ()> {
            Ok(self.next(|k| k.precedence == precedence && !k.assured && !k.expired))
        }
    }

    fn kept(precedence: Precedence, assured: bool, expired: bool, bytes: u64) -> Kept {
        Kept { precedence, assured, expired, bytes }
    }

    fn decide(
        kept: &[Kept],
        newcomer: Precedence,
        bytes: u64,
        limits: Limits,
    ) -> (Vec<u64>, Decision) {
        let mut used = [0; 3];
        kept.iter().for_each(|k| used[k.precedence as usize] += k.bytes);
        let mut list = List { kept: kept.to_vec(), given: vec![false; kept.len()] };
        let plan = plan(newcomer, bytes, used, &limits, &mut list).unwrap();
        (plan.victims.iter().map(|v| v.0.place.position).collect(), plan.decision)
    }

    fn total(total: u64) -> Limits {
        Limits { total, each: [u64::MAX; 3] }
    }

    use Precedence::{Bulk, Normal, Urgent};

    // QUE-10: expired victims go first, even urgent and assured ones.
    #[test]
    fn expired_goes_first_even_if_urgent() {
        let held = [kept(Bulk, false, false, 10), kept(Urgent, true, true, 10)];
        assert_eq!(decide(&held, Normal, 10, total(20)), (vec![1], Decision::Admit));
    }

    // QUE-11: bulk marked assured survives.
    #[test]
    fn oldest_bulk_with_normal_persistence_makes_room() {
        let held = [kept(Bulk, true, false, 10), kept(Bulk, false, false, 10)];
        assert_eq!(decide(&held, Normal, 10, total(20)), (vec![1], Decision::Admit));
    }

    // QUE-12: a bulk newcomer never displaces a normal message.
    #[test]
    fn bulk_newcomer_without_room_is_discarded() {
        let held = [kept(Normal, false, false, 20)];
        assert_eq!(decide(&held, Bulk, 10, total(20)), (vec![], Decision::Discard));
    }

    // QUE-13: urgent displaces normal/normal, not normal/assured and not urgent.
    #[test]
    fn urgent_newcomer_displaces_normal_with_normal_persistence() {
        let held = [
            kept(Urgent, false, false, 10),
            kept(Normal, true, false, 10),
            kept(Normal, false, false, 10),
        ];
        assert_eq!(decide(&held, Urgent, 10, total(30)), (vec![2], Decision::Admit));
        assert_eq!(decide(&held[..2], Urgent, 10, total(20)), (vec![], Decision::Reject));
    }

    // QUE-14: a normal newcomer facing only normal, urgent or assured content is rejected.
    #[test]
    fn normal_newcomer_is_rejected_where_nothing_may_go() {
        let held = [kept(Normal, false, false, 10), kept(Bulk, true, false, 10)];
        assert_eq!(decide(&held, Normal, 10, total(20)), (vec![], Decision::Reject));
    }

    // QUE-9: as many as needed and no more.
    #[test]
    fn large_newcomer_evicts_as_many_as_needed() {
        let held: Vec<_> = (0..5).map(|_| kept(Bulk, false, false, 10)).collect();
        assert_eq!(decide(&held, Normal, 25, total(50)), (vec![0, 1, 2], Decision::Admit));
    }

    // QUE-8: with only the bulk share full, others are accepted and bulk evicts bulk.
    #[test]
    fn limit_of_one_precedence_is_its_own_affair() {
        let limits = Limits { total: 100, each: [u64::MAX, u64::MAX, 20] };
        let held = [kept(Normal, false, false, 10), kept(Bulk, false, false, 20)];
        assert_eq!(decide(&held, Normal, 10, limits), (vec![], Decision::Admit));
        assert_eq!(decide(&held, Bulk, 10, limits), (vec![1], Decision::Admit));
        let full = Limits { total: 100, each: [u64::MAX, 10, u64::MAX] };
        assert_eq!(decide(&held, Normal, 10, full), (vec![], Decision::Reject));
    }

    /// The rows of the ledger, said as slowly as they can be said.
    fn naive(
        held: &[Kept],
        newcomer: Precedence,
        bytes: u64,
        limits: Limits,
    ) -> (Vec<u64>, Decision) {
        let mut left: Vec<(usize, Kept)> = held.iter().cloned().enumerate().collect();
        let (mut dead, mut gone) = (Vec::new(), Vec::new());
        loop {
            let own: u64 =
                left.iter().filter(|k| k.1.precedence == newcomer).map(|k| k.1.bytes).sum();
            let all: u64 = left.iter().map(|k| k.1.bytes).sum();
            let own_full = own + bytes > limits.each[newcomer as usize];
            if !own_full && all + bytes <= limits.total {
                dead.append(&mut gone);
                return (dead, Decision::Admit);
            }
            let in_scope = |k: &Kept| !own_full || k.precedence == newcomer;
            let hopeless = bytes > limits.total || bytes > limits.each[newcomer as usize];
            if let Some(i) = left.iter().position(|k| k.1.expired && in_scope(&k.1)) {
                dead.push(left.remove(i).0 as u64);
                continue;
            }
            let may_go = |k: &Kept, p| k.precedence == p && !k.assured && !k.expired && in_scope(k);
            let bulk = left.iter().position(|k| may_go(&k.1, Bulk));
            let normal = left.iter().position(|k| newcomer == Urgent && may_go(&k.1, Normal));
            match bulk.or(normal).filter(|_| !hopeless) {
                Some(i) => gone.push(left.remove(i).0 as u64),
                None if newcomer == Bulk => return (dead, Decision::Discard),
                None => return (dead, Decision::Reject),
            }
        }
    }

    fn precedence() -> impl Strategy<Value = Precedence> {
        prop_oneof![Just(Urgent), Just(Normal), Just(Bulk)]
    }

    proptest! {
        // QUE-8…14 against the naive model.
        #[test]
        fn plan_does_what_the_rows_say(
            held in prop::collection::vec(
                (precedence(), any::<bool>(), prop::bool::weighted(0.2), 1_u64..40)
                    .prop_map(|(p, a, e, b)| kept(p, a, e, b)), 0..24),
            newcomer in precedence(), bytes in 1_u64..60, total in 1_u64..300,
            each in prop::array::uniform3(prop_oneof![Just(u64::MAX), 1_u64..200]),
        ) {
            let limits = Limits { total, each };
            prop_assert_eq!(
                decide(&held, newcomer, bytes, limits),
                naive(&held, newcomer, bytes, limits)
            );
        }
    }
}
