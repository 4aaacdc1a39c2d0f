//! Says a thing at most once a second, and what was passed over soon after.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The least time from one log line to the next: what a sender can cause at will must not fill a
/// log.
pub const BETWEEN: Duration = Duration::from_secs(1);
/// How long what was passed over waits, from the last line on, for a next complaint that tells of
/// it. More than [`BETWEEN`], so that in a flood the lines are those that name a sender.
const REST_AFTER: Duration = Duration::from_millis(1500);

/// Lets complaints through at most once a second.
#[derive(Debug, Default)]
pub struct Quiet {
    spoken: Mutex<Spoken>,
    passed_over: Notify,
}

#[derive(Debug, Default)]
struct Spoken {
    last: Option<Instant>,
    /// Passed over since, by what they were about: words of this program, so they are few.
    passed: BTreeMap<&'static str, u64>,
}

impl Quiet {
    /// Whether a complaint about that may be logged now; then how many were passed over since the
    /// last.
    pub fn may_speak(&self, about: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut spoken = self.lock();
        if spoken.last.is_some_and(|last| now < last + BETWEEN) {
            *spoken.passed.entry(about).or_default() += 1;
            drop(spoken);
            self.passed_over.notify_one();
            return None;
        }
        spoken.last = Some(now);
        Some(std::mem::take(&mut spoken.passed).values().sum())
    }

    /// Logs what was passed over and no later complaint told of, for as long as it is polled: the
    /// end of a burst would otherwise be told with the next burst, which may be next week.
    pub async fn tell_rests(&self, of: &str) {
        loop {
            self.passed_over.notified().await;
            while let Some(due) = self.rest_is_due() {
                sleep_until(due).await;
                if self.rest_is_due().is_some_and(|due| due <= Instant::now()) {
                    self.tell_rest(of);
                }
            }
        }
    }

    /// Logs what was passed over, if anything was: at the end, when no later line will.
    pub fn tell_rest(&self, of: &str) {
        let mut spoken = self.lock();
        let passed = std::mem::take(&mut spoken.passed);
        if passed.is_empty() {
            return;
        }
        spoken.last = Some(Instant::now());
        drop(spoken);
        let also: u64 = passed.values().sum();
        let reasons: Vec<String> = passed.iter().map(|(about, n)| format!("{about} {n}")).collect();
        let reasons = reasons.join(", ");
        tracing::warn!(also, reasons, "more {of}, passed over in the log");
    }

    /// When the rest is to be told; none: there is none.
    fn rest_is_due(&self) -> Option<Instant> {
        let spoken = self.lock();
        let last = spoken.last.filter(|_| !spoken.passed.is_empty());
        last.map(|last| last + REST_AFTER)
    }

    fn lock(&self) -> MutexGuard<'_, Spoken> {
        self.spoken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_once_a_second_with_its_size() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        assert!(runtime.is_ok_and(|runtime| runtime.block_on(async {
            let quiet = Quiet::default();
            let first = quiet.may_speak("a");
            let more: Vec<_> = (0..5).map(|_| quiet.may_speak("a")).collect();
            sleep_until(Instant::now() + BETWEEN).await;
            first == Some(0) && more == [None; 5] && quiet.may_speak("b") == Some(5)
        })));
    }

    #[test]
    fn the_rest_is_there_until_it_is_told() {
        let quiet = Quiet::default();
        assert_eq!(quiet.rest_is_due(), None);
        assert_eq!(quiet.may_speak("a"), Some(0));
        assert_eq!(quiet.rest_is_due(), None, "nothing was passed over");
        assert_eq!(quiet.may_speak("a"), None);
        assert!(quiet.rest_is_due().is_some_and(|due| due > Instant::now() + BETWEEN / 2));
        quiet.tell_rest("of it");
        assert_eq!(quiet.rest_is_due(), None);
        assert_eq!(quiet.may_speak("a"), None, "the rest was a line, too");
    }
}
