//! The child's side of an exchange over HTTP/1.1 with keep-alive.
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use extension::communications::{ExchangeError, Protocol};
use protocol::{Refusal, heartbeat::Mode, limits};

use crate::{EXCHANGE_PATH, MEDIA_TYPE};

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long an answer may take beyond what it may be held: a busy disk at the parent.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Connections kept open to one parent: two that carry, one that waits, one to spare.
const IDLE_CONNECTIONS: usize = 4;

/// HTTP to a parent. Environment variables for proxies are ignored (contract §2).
pub struct HttpProtocol {
    client: reqwest::Client,
}

impl HttpProtocol {
    /// A client with its own connections.
    pub fn new() -> Result<Self, ExchangeError> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_WITHIN)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_only()
            .build()
            .map_err(|e| ExchangeError::Unreachable(e.to_string()))?;
        Ok(Self { client })
    }
}

#[async_trait]
impl Protocol for HttpProtocol {
    fn mode(&self) -> Mode {
        Mode::Session
    }

    async fn exchange(
        &self,
        url: &str,
        body: Bytes,
        hold: Duration,
    ) -> Result<Bytes, ExchangeError> {
        let to = format!("{}{EXCHANGE_PATH}", url.trim_end_matches('/'));
        let mut request = self
            .client
            .post(to)
            .timeout(hold + ANSWER_WITHIN)
            .header("content-type", MEDIA_TYPE)
            .body(body);
        if !hold.is_zero() {
            request = request.header("prefer", format!("wait={}", hold.as_secs()));
        }
        let answer = request.send().await.map_err(|e| why(&e))?;
        let status = answer.status();
        let retry_after = answer.headers().get("retry-after");
        let retry_after = retry_after.and_then(|v| v.to_str().ok()?.parse().ok());
        let too_long =
            answer.content_length().is_some_and(|n| n > limits::EXCHANGE_BYTES_MAX as u64);
        if too_long {
            return Err(ExchangeError::Unknown("answer is too large".to_owned()));
        }
        let body = answer.bytes().await.map_err(|e| why(&e))?;
        if status.is_success() {
            return Ok(body);
        }
        let refusal = refusal_in(&body).unwrap_or(match status.as_u16() {
            429 => Refusal::Busy,
            500..=599 => Refusal::Internal,
            _ => Refusal::Denied,
        });
        let retry_after = retry_after.map(Duration::from_secs);
        Err(ExchangeError::Refused { refusal, retry_after })
    }
}

/// The refusal that a problem document names.
fn refusal_in(body: &[u8]) -> Option<Refusal> {
    let text = std::str::from_utf8(body).ok()?;
    let name = text.split("/problems/").nth(1)?.split('"').next()?;
    Refusal::ALL.iter().copied().find(|r| r.name() == name)
}

fn why(error: &reqwest::Error) -> ExchangeError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    match error.is_connect() {
        true => ExchangeError::Unreachable(text),
        false => ExchangeError::Unknown(text),
    }
}
