//! Asks the application server's API, and knows what it answered last.
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use serde::{Deserialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    cache::{Cache, Entry},
    live::Feed,
};

/// Longest wait for a connection: the server is in the same machine room.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Longest wait for an answer to a page: after that the reader is told what is known.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// Largest answer that a page is made of: 1,000 rows with long texts.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// After a failure pages show what is known at once for so long, milliseconds, and ask again then.
const DOWN_FOR_MS: i64 = 2_000;

/// Why there is nothing to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The application server does not answer, and nothing is known from before.
    #[error("the application server does not answer")]
    Unreachable,
    /// It says no.
    #[error("{status} {name}: {detail}")]
    Problem {
        /// HTTP status.
        status: u16,
        /// The problem's name.
        name: String,
        /// For people.
        detail: String,
    },
    /// It answers what we do not understand.
    #[error("the application server's answer is not as its API says: {0}")]
    Strange(String),
}

impl SourceError {
    /// Nothing has that id.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Problem { status: 404, .. })
    }
}

/// An answer, and when it was true.
#[derive(Clone, Debug)]
pub struct Known<T> {
    /// What the server said.
    pub value: T,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// The server was asked within the cache's time; else it does not answer any more.
    pub fresh: bool,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<Wrong>,
}

#[derive(Deserialize)]
struct Wrong {
    #[serde(default)]
    pointer: String,
    #[serde(default)]
    detail: String,
}

/// The application server, seen from a portal.
pub struct Source {
    client: reqwest::Client,
    base: String,
    token: String,
    cache: Cache,
    fresh_ms: i64,
    failed_ms: AtomicI64,
    /// Says that something changed.
    pub(crate) feed: Arc<Feed>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Source {
    /// `base` is the origin of the API (`http://host:port`).
    pub fn new(base: &str, token: &str, fresh_ms: i64) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self {
            client,
            base: base.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
            cache: Cache::default(),
            fresh_ms,
            failed_ms: AtomicI64::new(i64::MIN),
            feed: Arc::new(Feed::default()),
        })
    }

    /// A request as it is, without a token.
    pub(crate) fn bare(&self, method: Method, path_and_query: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path_and_query}", self.base))
    }

    /// A request of the portal itself, with the operator's token; `path` is below `/api/v1`.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.bare(method, &format!("/api/v1{path}")).bearer_auth(&self.token)
    }

    /// The operator's token: for what a session passes on.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Reads, or gives what is known where the server does not answer.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Known<T>, SourceError> {
        let (entry, fresh) = self.entry(path).await?;
        let value = serde_json::from_slice(&entry.bytes)
            .map_err(|error| SourceError::Strange(format!("{path}: {error}")))?;
        Ok(Known { value, at_ms: entry.at_ms, fresh })
    }

    /// Bytes of an answer, at most `max` of them.
    pub async fn bytes(&self, path: &str) -> Result<Arc<[u8]>, SourceError> {
        self.entry(path).await.map(|(entry, _)| entry.bytes)
    }

    async fn entry(&self, path: &str) -> Result<(Entry, bool), SourceError> {
        let (now, version) = (crate::now_ms(), self.feed.version());
        let known = self.cache.get(path);
        if let Some(entry) = &known
            && entry.is_fresh(now, version, self.fresh_ms)
        {
            return Ok((entry.clone(), true));
        }
        let down = now.saturating_sub(self.failed_ms.load(Ordering::Relaxed)) < DOWN_FOR_MS;
        let read = match (&known, down) {
            (Some(_), true) => Err(SourceError::Unreachable),
            _ => self.read(path).await,
        };
        match (read, known) {
            (Ok(bytes), _) => {
                self.failed_ms.store(i64::MIN, Ordering::Relaxed);
                let entry = Entry { bytes, at_ms: crate::now_ms(), version };
                self.cache.put(path, entry.clone());
                Ok((entry, true))
            }
            (Err(SourceError::Unreachable), Some(entry)) => Ok((entry, false)),
            (Err(error), _) => Err(error),
        }
    }

    async fn read(&self, path: &str) -> Result<Arc<[u8]>, SourceError> {
        let answer = self.request(Method::GET, path).timeout(ANSWER_WITHIN).send().await;
        self.answer(answer).await
    }

    /// Changes something; the next read asks anew.
    pub async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Result<(), SourceError> {
        let mut request = self.request(method, path).timeout(ANSWER_WITHIN);
        if let Some(body) = body {
            // Each press of a button is one order.
            request = request.json(&body).header("Idempotency-Key", Uuid::now_v7().to_string());
        }
        let done = self.answer(request.send().await).await.map(|_| ());
        self.feed.changed();
        done
    }

    async fn answer(
        &self,
        answer: Result<reqwest::Response, reqwest::Error>,
    ) -> Result<Arc<[u8]>, SourceError> {
        let mut answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(SourceError::Strange(format!("more than {ANSWER_BYTES_MAX} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(bytes.into());
        }
        if matches!(status.as_u16(), 502..=504) {
            tracing::warn!(status = status.as_u16(), "the application server cannot answer");
            self.failed_ms.store(crate::now_ms(), Ordering::Relaxed);
            return Err(SourceError::Unreachable);
        }
        Err(problem(status.as_u16(), &bytes))
    }

    fn unreachable(&self, error: &reqwest::Error) -> SourceError {
        tracing::warn!(%error, "the application server does not answer");
        self.failed_ms.store(crate::now_ms(), Ordering::Relaxed);
        SourceError::Unreachable
    }
}

fn problem(status: u16, body: &[u8]) -> SourceError {
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        return SourceError::Strange(format!("status {status} without a problem"));
    };
    let name = problem.kind.rsplit('/').next().unwrap_or_default().to_owned();
    let mut detail = problem.detail;
    for wrong in problem.errors {
        let whole = format!("{} {}", wrong.pointer, wrong.detail);
        if !detail.contains(&wrong.detail) {
            detail = format!("{detail}; {whole}");
        }
    }
    SourceError::Problem { status, name, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_keeps_its_name_and_what_is_wrong_where() {
        let body = br#"{"type":"/problems/malformed","detail":"limit is 0","errors":[
            {"pointer":"limit","detail":"is 0"},{"pointer":"since","detail":"is no time"}]}"#;
        let SourceError::Problem { status, name, detail } = problem(400, body) else {
            panic!("a problem");
        };
        assert_eq!((status, name.as_str()), (400, "malformed"));
        assert_eq!(detail, "limit is 0; since is no time");
        assert!(matches!(problem(500, b"<html>"), SourceError::Strange(_)));
    }
}
