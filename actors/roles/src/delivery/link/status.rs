//! What a link notes of its tries: for health, for the backoff, for the choice of the parent.
use extension::communications::ExchangeError;
use protocol::{
    Refusal,
    exchange::{Answer, Outcome},
};
use tracing::{info, warn};

use super::{REPLAYED_AFTER_MS, Shared};

/// How the link is, for health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// The parent in use.
    pub url: String,
    /// When it answered last, ms since 1970 UTC; 0: never.
    pub answered_at: i64,
    /// Since when it does not, and why; a refusal by its name.
    pub failing: Option<(i64, String)>,
    /// Tries that carried messages and were not taken, in a row.
    pub attempts: u32,
    /// Why the last of them was refused; none: it was not, or nobody knows.
    pub refused: Option<Refusal>,
}

impl LinkStatus {
    /// Of a link that has not tried its parent yet.
    pub fn of(url: String) -> Self {
        Self { url, answered_at: 0, failing: None, attempts: 0, refused: None }
    }
}

impl Shared {
    /// Notes how a try went; returns how many failed in a row.
    pub(super) fn note_try(&self, answered: bool) -> u32 {
        let at = (self.settings.clock)();
        let mut now = self.now();
        if answered {
            if let Some(since) = now.failing_since.take() {
                info!(target: "delivery", peer = %self.settings.parents[now.parent],
                    away_ms = at - since, "parent answers again");
                if at - since >= REPLAYED_AFTER_MS {
                    now.replay_before = at;
                }
            }
            if now.failures > 0 {
                self.answers.notify_waiters();
            }
            now.failures = 0;
        } else {
            now.failures = now.failures.saturating_add(1);
            now.failing_since.get_or_insert(at);
        }
        now.failures
    }

    pub(super) fn note_status(&self, tried: Result<(), &ExchangeError>) {
        let at = (self.settings.clock)();
        let url = self.url();
        self.settings.status.send_modify(|status| {
            status.url = url;
            match tried {
                Ok(()) => (status.answered_at, status.failing) = (at, None),
                Err(error) => {
                    let since = status.failing.as_ref().map_or(at, |(since, _)| *since);
                    status.failing = Some((since, error.to_string()));
                }
            }
        });
    }

    /// Notes whether an exchange that carries messages was taken.
    pub(super) fn note_carried(&self, tried: Result<&Answer, &ExchangeError>) {
        let refused = match tried {
            Ok(answer) => answer.outcomes.iter().find_map(|(outcome, _)| match outcome {
                Outcome::Refused(refusal) if outcome.is_try_again() => Some(*refusal),
                _ => None,
            }),
            Err(ExchangeError::Refused { refusal, .. }) => Some(*refusal),
            Err(_) => None,
        };
        let taken = tried.is_ok() && refused.is_none();
        self.settings.status.send_modify(|status| {
            status.attempts = if taken { 0 } else { status.attempts.saturating_add(1) };
            status.refused = refused;
        });
    }

    /// Goes on to the next parent when this one failed too long; `true` when it did.
    pub(super) fn fail_over(&self) -> bool {
        let at = (self.settings.clock)();
        let mut now = self.now();
        let patience = self.settings.unhealthy_after.as_millis() as i64;
        let long = now.failing_since.is_some_and(|since| at - since > patience);
        if !long || self.settings.parents.len() < 2 {
            return false;
        }
        now.parent = (now.parent + 1) % self.settings.parents.len();
        now.failing_since = Some(at);
        warn!(target: "delivery", peer = %self.settings.parents[now.parent], "next parent");
        true
    }
}
