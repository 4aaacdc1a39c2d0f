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

/// What the link does after a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The answer is for what was sent: settle it, then wait so long.
    Settle(Duration),
    /// The outcome is unknown, or the parent speaks for its state only: the same bytes again.
    Again(Duration),
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
            Next::Again(wait.min(RETRY_AFTER_MAX))
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
}
