//! Accepts connections until it is told to stop, then lets them end in order.
use std::{future::Future, sync::Arc};

use extension::integrators::{IntegratorDoor, PeerCredentials};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::Instrument;

use crate::{
    Socket, connection,
    limits::{ACCEPT_AGAIN, CONNECTIONS_MAX, STOP_WITHIN, TURNED_AWAY_MAX},
};

impl Socket {
    /// Serves until `stop` is done; then tells every integrator `stopping`, answers what was read,
    /// and removes the file. Takes `STOP_WITHIN` at most for that. Fails where the listener does
    /// not fit this runtime. Needs tokio's I/O and time, and nothing of actix.
    pub async fn serve(
        self,
        door: Arc<dyn IntegratorDoor>,
        stop: impl Future<Output = ()>,
    ) -> std::io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let (close, closing) = watch::channel(false);
        let mut connections = JoinSet::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let doorstep = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
        tokio::pin!(stop);
        loop {
            // With the doorstep full, too, the kernel's backlog waits, and beyond it who connects.
            let accepted = async {
                let step = doorstep.clone().acquire_owned().await;
                (listener.accept().await, step)
            };
            let (accepted, step) = tokio::select! {
                biased;
                () = &mut stop => break,
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection's task failed");
                    }
                    continue;
                }
                accepted = accepted => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an integrator");
                    sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let Some(peer) = credentials(&stream) else { continue };
            let Ok(permit) = room.clone().try_acquire_owned() else {
                let told = async move {
                    connection::turn_away(stream, peer).await;
                    drop(step);
                };
                connections.spawn(told.in_current_span());
                continue;
            };
            let (door, closing) = (door.clone(), closing.clone());
            let rule = self.rule;
            let served = async move {
                connection::serve(stream, peer, rule, door, closing).await;
                drop(permit);
            };
            connections.spawn(served.in_current_span());
        }
        drop(listener);
        drop(self);
        close.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(STOP_WITHIN, all).await.is_err() {
            tracing::warn!("integrators did not end in time; cutting them off");
        }
        Ok(())
    }
}

fn credentials(stream: &UnixStream) -> Option<PeerCredentials> {
    let peer = stream.peer_cred().ok()?;
    Some(PeerCredentials { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() })
}
