//! One registration on its way: sent, acknowledged, refused, sent again (pure, PRX-4…11).

/// Heartbeats without an acknowledgement after which a registration is sent again (PRX-11).
pub const AGAIN_AFTER_BEATS: u32 = 10;
/// First wait after a refusal, ms; it doubles.
const WAIT_MIN_MS: u64 = 5_000;
/// Longest wait after a refusal, ms: the cause is mended by a person, who then wants to see it.
const WAIT_MAX_MS: u64 = 300_000;

/// What has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// To be sent.
    Unsent,
    /// Sent, that many heartbeats ago.
    Sent(u32),
    /// Refused so, and to be sent again then, ms since 1970 UTC.
    Refused(String, i64),
    /// Nothing is left to do.
    Acknowledged,
}

/// A registration and its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registering {
    again_after_beats: u32,
    state: State,
    refusals: u32,
}

impl Registering {
    /// One that is to be sent, unless it was acknowledged in an earlier life.
    pub fn new(acknowledged: bool, again_after_beats: u32) -> Self {
        let state = if acknowledged { State::Acknowledged } else { State::Unsent };
        Self { again_after_beats: again_after_beats.max(1), state, refusals: 0 }
    }

    /// Whether it is to be sent at `now`, ms since 1970 UTC.
    pub fn wants_sending(&self, now: i64) -> bool {
        match &self.state {
            State::Unsent => true,
            State::Sent(beats) => *beats >= self.again_after_beats,
            State::Refused(_, again_at) => *again_at <= now,
            State::Acknowledged => false,
        }
    }

    /// It is on disk, on its way; or it still is from the last time.
    pub fn sent(&mut self) {
        self.state = State::Sent(0);
    }

    /// A heartbeat went up.
    pub fn beat(&mut self) {
        if let State::Sent(beats) = &mut self.state {
            *beats += 1;
        }
    }

    /// The server took it.
    pub fn acknowledged(&mut self) {
        self.state = State::Acknowledged;
        self.refusals = 0;
    }

    /// The server refused it; it goes again with backoff, spread by `random`.
    pub fn refused(&mut self, reason: &str, now: i64, random: u64) {
        let most = WAIT_MAX_MS.min(WAIT_MIN_MS << self.refusals.min(16));
        let wait = most / 2 + random % (most / 2 + 1);
        self.refusals += 1;
        self.state = State::Refused(reason.to_owned(), now.saturating_add_unsigned(wait));
    }

    /// It is to be sent anew: something in it changed.
    pub fn again(&mut self) {
        self.state = State::Unsent;
    }

    /// Whether nothing is left to do.
    pub fn is_acknowledged(&self) -> bool {
        self.state == State::Acknowledged
    }

    /// Why the server refused it last.
    pub fn refusal(&self) -> Option<&str> {
        match &self.state {
            State::Refused(reason, _) => Some(reason),
            _ => None,
        }
    }

    /// When it wants sending without anything happening, ms since 1970 UTC.
    pub fn wakes_at(&self) -> Option<i64> {
        match &self.state {
            State::Refused(_, again_at) => Some(*again_at),
            _ => None,
        }
    }
}

/// What a refusal of a registration means to the person who looks at health.
pub fn explain(refusal: &str) -> String {
    match refusal {
        "not_registered" => "the provider does not know this customer: check the customer id in \
            the configuration, or have the customer registered"
            .to_owned(),
        "denied" => "the provider does not allow this node: ask the provider".to_owned(),
        other => format!("the provider refuses the registration: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // PRX-11
    #[test]
    fn set_to_three_the_second_request_comes_after_exactly_the_third_heartbeat() {
        let mut registering = Registering::new(false, 3);
        assert!(registering.wants_sending(0));
        registering.sent();
        for beat in 1..=3 {
            assert!(!registering.wants_sending(0), "before heartbeat {beat}");
            registering.beat();
        }
        assert!(registering.wants_sending(0));
        registering.sent();
        assert!(!registering.wants_sending(0));
        assert_eq!(AGAIN_AFTER_BEATS, 10);
    }

    // PRX-4
    #[test]
    fn what_was_acknowledged_is_never_sent_again() {
        let mut registering = Registering::new(true, 3);
        (0..100).for_each(|_| registering.beat());
        assert!(!registering.wants_sending(i64::MAX));
        assert_eq!(registering.wakes_at(), None);
    }

    #[test]
    fn a_refusal_is_tried_again_later_and_later_and_named() {
        let mut registering = Registering::new(false, 10);
        let mut waits = Vec::new();
        for _ in 0..10 {
            registering.sent();
            registering.refused("not_registered", 1_000, u64::MAX);
            assert_eq!(registering.refusal(), Some("not_registered"));
            assert!(!registering.wants_sending(1_000));
            let at = registering.wakes_at().unwrap_or_default();
            assert!(registering.wants_sending(at));
            waits.push(at - 1_000);
        }
        assert!(waits.iter().all(|w| (2_500..=300_000).contains(w)), "{waits:?}");
        assert!(waits[9] >= 150_000);
        registering.acknowledged();
        assert_eq!((registering.refusal(), registering.wants_sending(i64::MAX)), (None, false));
    }
}
