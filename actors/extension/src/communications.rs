//! Communications: protocol, encryption and authentication, chosen apart (COM-1).
use std::{net::SocketAddr, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use protocol::{Refusal, RemoteId, heartbeat::Mode};

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is by its certificate; `None` where the door does not authenticate (CML-3).
    pub id: Option<RemoteId>,
    /// Where it connects from.
    pub address: Option<SocketAddr>,
}

/// The parent's side of an exchange: bytes in, bytes out.
#[async_trait]
pub trait Door: Send + Sync {
    /// Answers one exchange; an empty one is held open for at most `hold`. The request runs to
    /// its end even when the child hangs up: what has begun is committed.
    async fn knock(&self, peer: Peer, body: Bytes, hold: Duration) -> Result<Bytes, Refusal>;

    /// An exchange was refused so before it could knock: too large, of another form, not
    /// authenticated. It is counted here, like those that `knock` refuses.
    fn turned_away(&self, refusal: Refusal);
}

/// Why an exchange has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// No connection: the parent has certainly not got it.
    #[error("parent cannot be reached: {0}")]
    Unreachable(String),
    /// It may have got it: send the same again, byte for byte.
    #[error("connection died: {0}")]
    Unknown(String),
    /// It refused the whole.
    #[error("parent refuses: {refusal}")]
    Refused {
        /// Why.
        refusal: Refusal,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
}

/// The child's side of an exchange.
#[async_trait]
pub trait Protocol: Send + Sync {
    /// Whether there is a back-channel.
    fn mode(&self) -> Mode;

    /// Sends one exchange to the parent at `url` and waits for the answer; `hold` asks the parent
    /// to keep an empty one open.
    async fn exchange(
        &self,
        url: &str,
        body: Bytes,
        hold: Duration,
    ) -> Result<Bytes, ExchangeError>;
}

/// Decides who a peer is, from what the connection shows.
pub trait Authentication: Send + Sync {
    /// The peer by its certificates, leaf first in DER; none where the connection has none.
    fn authenticate(&self, certificates: &[Bytes]) -> Result<Option<RemoteId>, Refusal>;
}

/// Believes everybody; for doors on loopback and private networks only (DESIGN §9).
pub struct NoAuthentication;

impl Authentication for NoAuthentication {
    fn authenticate(&self, _certificates: &[Bytes]) -> Result<Option<RemoteId>, Refusal> {
        Ok(None)
    }
}
