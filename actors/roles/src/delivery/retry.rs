//! What follows a try of the link (pure): settle, send the same again, wait, fail over.
use std::time::Duration;

use extension::communications::ExchangeError;
use protocol::{Refusal, Verdict, exchange::Answer};

/// First wait after a failure.
pub const WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest wait: a link that comes back is in use again within so long.
pub const WAIT_MAX: Duration = Duration::from_secs(15);
/// Waits a parent may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// First wait for the acknowledgement of a back-channel message before it goes again, ms: a child
/// acknowledges in the exchange after its commit.
const DOWN_AGAIN_MIN_MS: i64 = 1_000;
/// Longest such wait, ms, beside what its bytes take.
const DOWN_AGAIN_MAX_MS: i64 = 10_000;
/// The slowest line that is reckoned with, bytes a millisecond (64 kB/s): what is still on its way
/// does not go again.
const DOWN_BYTES_PER_MS: i64 = 64;

/// How long after it was sent the `times`-th time (1: the first) a back-channel message of so many
/// bytes goes again, ms.
pub fn down_again_ms(times: u32, bytes: usize) -> i64 {
    let wait = DOWN_AGAIN_MIN_MS << times.saturating_sub(1).min(16);
    wait.min(DOWN_AGAIN_MAX_MS) + bytes as i64 / DOWN_BYTES_PER_MS
}

/// What the link does after a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The answer is for what was sent: settle it, then wait so long.
    Settle(Duration),
    /// The outcome is unknown: the same bytes again, after so long or as soon as the parent
    /// answers anything.
    Again(Duration),
    /// The parent speaks for its state only and asks to be left alone: the same bytes again, not
    /// before.
    Later(Duration),
    /// The parent does not know these numbers: a new incarnation, all that is held goes again.
    NewIncarnation,
    /// The parent refuses the whole for good: its messages go one by one to find which it is.
    Split,
}

/// Full-jitter backoff: `random` is in 0..=u64::MAX, `failures` counts from 1.
pub fn backoff(failures: u32, random: u64) -> Duration {
    let most = WAIT_MIN.saturating_mul(1 << failures.min(12)).min(WAIT_MAX);
    let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
    WAIT_MIN.max(most.mul_f64(share))
}

/// Decides after one try. `matches`: the answer quotes what was sent, and covers it.
pub fn plan(tried: Result<(&Answer, bool), &ExchangeError>, failures: u32, random: u64) -> Next {
    match tried {
        Ok((answer, true)) => {
            let new = answer
                .outcomes
                .iter()
                .any(|(o, _)| *o == protocol::exchange::Outcome::Refused(Refusal::NewIncarnation));
            match new {
                true => Next::NewIncarnation,
                false => {
                    Next::Settle(Duration::from_millis(answer.retry_after_ms).min(RETRY_AFTER_MAX))
                }
            }
        }
        // An answer to something else counts for nothing.
        Ok((_, false)) => Next::Again(backoff(failures, random)),
        Err(ExchangeError::Refused { refusal, .. }) if refusal.verdict() == Verdict::GiveUp => {
            Next::Split
        }
        Err(ExchangeError::Refused { refusal: Refusal::NewIncarnation, .. }) => {
            Next::NewIncarnation
        }
        Err(ExchangeError::Refused { retry_after, .. }) => {
            let wait = retry_after.unwrap_or_else(|| backoff(failures, random));
            Next::Later(wait.min(RETRY_AFTER_MAX))
        }
        Err(ExchangeError::Unreachable(_) | ExchangeError::Unknown(_)) => {
            Next::Again(backoff(failures, random))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_limit_and_never_is_nothing() {
        assert_eq!(backoff(1, 0), WAIT_MIN);
        assert!(backoff(40, u64::MAX) <= WAIT_MAX);
        assert!(backoff(40, u64::MAX) > WAIT_MAX / 2);
    }

    #[test]
    fn dead_connection_means_the_same_bytes_again() {
        let died = ExchangeError::Unknown("reset".to_owned());
        assert_eq!(plan(Err(&died), 1, 0), Next::Again(WAIT_MIN));
        let refused = ExchangeError::Refused { refusal: Refusal::Malformed, retry_after: None };
        assert_eq!(plan(Err(&refused), 1, 0), Next::Split);
    }

    #[test]
    fn a_parent_that_asks_to_be_left_alone_is() {
        let retry_after = Some(Duration::from_secs(7));
        let busy = ExchangeError::Refused { refusal: Refusal::Busy, retry_after };
        assert_eq!(plan(Err(&busy), 9, u64::MAX), Next::Later(Duration::from_secs(7)));
        let retry_after = Some(Duration::from_secs(7_000));
        let busy = ExchangeError::Refused { refusal: Refusal::Busy, retry_after };
        assert_eq!(plan(Err(&busy), 9, u64::MAX), Next::Later(RETRY_AFTER_MAX));
    }

    #[test]
    fn a_lost_answer_goes_again_soon_then_ever_more_seldom() {
        let waits: Vec<i64> = (1..=6).map(|times| down_again_ms(times, 100)).collect();
        assert_eq!(waits, [1_001, 2_001, 4_001, 8_001, 10_001, 10_001]);
        // A megabyte needs 16 s on the slowest line: it is not sent twice meanwhile.
        assert_eq!(down_again_ms(1, 1 << 20), 1_000 + 16_384);
    }
}
