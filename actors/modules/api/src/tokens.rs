//! Who may ask: bearer tokens, compared in constant time, and how much a token may ask.
use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

/// Requests a second and token (openapi.json, `Busy`): a page of a portal needs a handful.
pub const REQUESTS_PER_S: f64 = 100.0;
/// Requests at once before the rate holds: a script that lists everything starts in a burst.
pub const REQUESTS_BURST: f64 = 200.0;
/// Streams open at once, per token: each holds a connection and a buffer.
pub const STREAMS_MAX: usize = 16;
/// Tokens of a server: the operator's, and a few for machines.
pub const TOKENS_MAX: usize = 64;
/// Longest token that is looked at, bytes.
pub const TOKEN_BYTES_MAX: usize = 512;

/// One token that is known.
struct Known {
    who: String,
    digest: [u8; 32],
    bucket: Mutex<Bucket>,
    streams: std::sync::Arc<tokio::sync::Semaphore>,
}

/// The tokens a server knows. Only their digests are kept.
#[derive(Default)]
pub struct Tokens {
    known: Vec<Known>,
}

/// Whose token a request bears; index into [`Tokens`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name for `requested_by` and the audit log.
    pub who: String,
    index: usize,
}

impl Tokens {
    /// Knows no token: nobody may ask.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the token of `who`. White space around it is not part of it; an empty one, one above
    /// `TOKEN_BYTES_MAX` and one too many are not added (`false`).
    pub fn add(&mut self, who: &str, token: &str) -> bool {
        let token = token.trim();
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX || self.known.len() >= TOKENS_MAX {
            return false;
        }
        self.known.push(Known {
            who: who.to_owned(),
            digest: Sha256::digest(token.as_bytes()).into(),
            bucket: Mutex::new(Bucket::full(Instant::now())),
            streams: std::sync::Arc::new(tokio::sync::Semaphore::new(STREAMS_MAX)),
        });
        true
    }

    /// Whose token this is. Looks at every byte of every digest, so that time tells nothing.
    pub fn caller(&self, token: &str) -> Option<Caller> {
        let token = token.trim();
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = None;
        for (index, known) in self.known.iter().enumerate() {
            if same(&known.digest, &digest) {
                found = Some(index);
            }
        }
        found.map(|index| Caller { who: self.known[index].who.clone(), index })
    }

    /// Takes one request from the caller's rate; else the seconds until there is one.
    pub fn take(&self, caller: &Caller, now: Instant) -> Result<(), u32> {
        let Some(known) = self.known.get(caller.index) else { return Err(1) };
        let mut bucket = known.bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        bucket.take(now)
    }

    /// A place for one stream of the caller, held until dropped; `None` when all are taken.
    pub fn stream(&self, caller: &Caller) -> Option<tokio::sync::OwnedSemaphorePermit> {
        self.known.get(caller.index)?.streams.clone().try_acquire_owned().ok()
    }
}

/// Equality without a branch on the content.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let differing = a.iter().zip(b).fold(0u8, |sum, (x, y)| sum | (x ^ y));
    std::hint::black_box(differing) == 0
}

/// A token bucket; time is an argument.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self { left: REQUESTS_BURST, at: now }
    }

    fn take(&mut self, now: Instant) -> Result<(), u32> {
        let passed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.left = (self.left + passed.as_secs_f64() * REQUESTS_PER_S).min(REQUESTS_BURST);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        let wait = Duration::from_secs_f64((1.0 - self.left) / REQUESTS_PER_S);
        Err(wait.as_secs() as u32 + 1)
    }
}

/// The token of an `Authorization` header; the scheme's case does not matter (RFC 9110 §11.1).
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let mut tokens = Tokens::new();
        assert!(tokens.add("operator", "s3cret\n"));
        tokens
    }

    #[test]
    fn only_the_whole_token_is_known() {
        let tokens = tokens();
        assert_eq!(tokens.caller("s3cret").map(|c| c.who), Some("operator".to_owned()));
        for wrong in ["", "s3cre", "s3cret2", "S3CRET", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert_eq!(tokens.caller(wrong), None);
        }
        assert!(!Tokens::new().add("nobody", " "));
    }

    #[test]
    fn the_scheme_is_read_in_any_case() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for wrong in ["", "abc", "Bearer", "Bearer ", "Basic abc"] {
            assert_eq!(bearer(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_may_burst_and_then_waits() {
        let tokens = tokens();
        let caller = tokens.caller("s3cret").expect("known");
        let now = Instant::now() + Duration::from_secs(10);
        for _ in 0..REQUESTS_BURST as usize {
            assert_eq!(tokens.take(&caller, now), Ok(()));
        }
        assert_eq!(tokens.take(&caller, now), Err(1));
        assert_eq!(tokens.take(&caller, now + Duration::from_millis(10)), Ok(()));
    }

    #[test]
    fn streams_of_a_token_are_bounded() {
        let tokens = tokens();
        let caller = tokens.caller("s3cret").expect("known");
        let held: Vec<_> = (0..STREAMS_MAX).filter_map(|_| tokens.stream(&caller)).collect();
        assert_eq!(held.len(), STREAMS_MAX);
        assert!(tokens.stream(&caller).is_none());
        drop(held);
        assert!(tokens.stream(&caller).is_some());
    }
}
