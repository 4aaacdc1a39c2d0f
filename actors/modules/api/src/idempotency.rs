//! The same POST twice is one: answers are remembered by Idempotency-Key for a day.
use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    time::{Duration, Instant},
};

use bytes::Bytes;

/// How long an answer is remembered (openapi.json): a client that was cut off asks again sooner.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);
/// Answers remembered at once; the oldest goes first. At `ANSWER_BYTES_MAX` each: 64 MiB.
pub const ANSWERS_MAX: usize = 1024;
/// Largest answer that is remembered, bytes; a larger one is not, and the key stays taken.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Longest key, bytes (openapi.json).
pub const KEY_BYTES_MAX: usize = 64;

/// An answer that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// HTTP status.
    pub status: u16,
    /// JSON.
    pub body: Bytes,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// New; it is taken now, and the caller ends with `answered` or `forget`.
    New,
    /// The same request got this answer.
    Answered(Given),
    /// The same request is being worked on, or its answer was too large to remember.
    Taken,
    /// The key came with another request.
    Other,
}

struct Entry {
    request: u64,
    at: Instant,
    given: Option<Given>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<String, Entry>,
    order: VecDeque<(Instant, String)>,
}

/// The memory. In RAM: what a restart forgets, the id of the action still shows in its list.
#[derive(Default)]
pub struct Answers(Mutex<Table>);

impl Answers {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes `key` for a request with this digest, or says what became of it.
    pub fn take(&self, key: &str, request: u64, now: Instant) -> Seen {
        let mut table = self.table();
        table.expire(now);
        if let Some(entry) = table.entries.get(key) {
            return match &entry.given {
                _ if entry.request != request => Seen::Other,
                Some(given) => Seen::Answered(given.clone()),
                None => Seen::Taken,
            };
        }
        table.entries.insert(key.to_owned(), Entry { request, at: now, given: None });
        table.order.push_back((now, key.to_owned()));
        Seen::New
    }

    /// Remembers the answer to a key taken before.
    pub fn answered(&self, key: &str, given: Given) {
        if given.body.len() > ANSWER_BYTES_MAX {
            return;
        }
        if let Some(entry) = self.table().entries.get_mut(key) {
            entry.given = Some(given);
        }
    }

    /// Gives a key back: nothing was done, it may be tried again.
    pub fn forget(&self, key: &str) {
        let mut table = self.table();
        if let Some(entry) = table.entries.remove(key) {
            table.order.retain(|(at, other)| *at != entry.at || other != key);
        }
    }
}

impl Table {
    /// Drops what is too old, and the oldest when there are too many.
    fn expire(&mut self, now: Instant) {
        while let Some((at, _)) = self.order.front() {
            let old = now.saturating_duration_since(*at) >= REMEMBERED_FOR;
            if !old && self.entries.len() < ANSWERS_MAX {
                break;
            }
            if let Some((_, key)) = self.order.pop_front() {
                self.entries.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Given {
        Given { status: 202, body: Bytes::from_static(b"{}") }
    }

    #[test]
    fn the_same_key_within_a_day_gets_the_first_answer_again() {
        let (answers, now) = (Answers::default(), Instant::now());
        assert_eq!(answers.take("k", 1, now), Seen::New);
        assert_eq!(answers.take("k", 1, now), Seen::Taken);
        answers.answered("k", given());
        let later = now + REMEMBERED_FOR - Duration::from_secs(1);
        assert_eq!(answers.take("k", 1, later), Seen::Answered(given()));
        assert_eq!(answers.take("k", 2, later), Seen::Other);
        assert_eq!(answers.take("k", 2, now + REMEMBERED_FOR), Seen::New);
    }

    #[test]
    fn a_request_that_did_nothing_gives_its_key_back() {
        let (answers, now) = (Answers::default(), Instant::now());
        assert_eq!(answers.take("k", 1, now), Seen::New);
        answers.forget("k");
        assert_eq!(answers.take("k", 2, now), Seen::New);
    }

    #[test]
    fn the_memory_is_bounded() {
        let (answers, now) = (Answers::default(), Instant::now());
        for i in 0..ANSWERS_MAX * 2 {
            assert_eq!(answers.take(&i.to_string(), 1, now), Seen::New);
        }
        let (ordered, kept) = {
            let table = answers.table();
            (table.order.len(), table.entries.len())
        };
        assert!(kept <= ANSWERS_MAX);
        assert_eq!(ordered, kept);
        assert_eq!(answers.take("0", 1, now), Seen::New);
    }
}
