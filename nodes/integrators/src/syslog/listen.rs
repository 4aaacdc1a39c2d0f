//! Sockets: datagrams and connections, with their limits.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::StreamExt as _;
use rustix::net::sockopt;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::framing::{FRAME_BYTES, Framer, FramingError};
use super::intake::{Intake, Pending};

/// Connections at once, over all listeners: each holds a file and up to 80 KiB.
pub const CONNECTIONS: usize = 512;
/// Seconds of silence after which a connection is closed. Senders keep theirs open for days and
/// lose a line when it was closed without their notice, so this is long; dead ones are found by
/// keep-alive.
pub const IDLE_S: u64 = 86_400;
/// Seconds of silence after which a peer is asked whether it is still there.
pub const KEEP_ALIVE_S: u64 = 60;
/// Seconds in which the rest of a counted frame must come.
pub const REST_OF_FRAME_S: u64 = 60;
/// Seconds for what is in flight when told to stop: below the ten that a supervisor grants.
pub const DRAIN_S: u64 = 8;
/// Bytes the kernel keeps of datagrams while we are at work: about 30,000 short lines.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Bytes read at once from a connection.
const READ_BYTES: usize = 16 * 1024;
/// Seconds from one look at what the kernel dropped to the next.
const KERNEL_DROPS_S: u64 = 10;

/// Binds a socket for datagrams with a large buffer, as large as the kernel allows.
pub(super) async fn bind_udp(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address).await?;
    let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES);
    Ok(socket)
}

/// Receives datagrams, one message each, until told to stop.
pub(super) async fn serve_udp(
    socket: UdpSocket,
    intake: Arc<Intake>,
    mut stop: watch::Receiver<bool>,
) {
    let mut pending = Pending::new();
    // One byte more than a frame, to see what is longer; no datagram is.
    let mut datagram = vec![0; FRAME_BYTES + 1];
    let mut drops = KernelDrops::of(&socket);
    let mut looks = interval(Duration::from_secs(KERNEL_DROPS_S));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let received = tokio::select! {
            () = told(&mut stop) => break,
            Some(()) = pending.next(), if !pending.is_empty() => continue,
            _ = looks.tick() => {
                drops.count(&intake);
                continue;
            }
            received = socket.recv_from(&mut datagram) => received,
        };
        match received {
            Ok((length, from)) => tokio::select! {
                () = told(&mut stop) => break,
                () = intake.take(&datagram[..length], from.ip(), &mut pending) => {}
            },
            // An answer of the network to something sent from this port; nothing was lost.
            Err(error) => tracing::debug!(%error, "no datagram"),
        }
    }
    drain(pending, &intake).await;
}

/// Ends when it is time to stop, or nobody is left to say so.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What the kernel dropped of a socket's datagrams since it was opened.
struct KernelDrops {
    inode: u64,
    counted: u64,
}

impl KernelDrops {
    fn of(socket: &UdpSocket) -> Self {
        use std::os::fd::AsRawFd as _;
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let inode = std::fs::metadata(path).map_or(0, |found| found.ino());
        Self { inode, counted: 0 }
    }

    fn count(&mut self, intake: &Intake) {
        let tables = ["/proc/net/udp", "/proc/net/udp6"].iter();
        let found = tables.filter_map(|table| std::fs::read_to_string(table).ok());
        let total = found.filter_map(|table| drops(&table, self.inode)).max().unwrap_or(0);
        for _ in self.counted..total {
            intake.counters.dropped();
        }
        if total > self.counted {
            let lost = total - self.counted;
            tracing::warn!(lost, "the kernel dropped datagrams: send by TCP, which waits");
        }
        self.counted = self.counted.max(total);
    }
}

/// The last column of the socket's line in /proc/net/udp.
fn drops(table: &str, inode: u64) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(9)?.parse() == Ok(inode)).then(|| words.last()?.parse().ok())?
    })
}

/// Accepts connections until told to stop, and waits for them to end.
pub(super) async fn serve_tcp(
    listener: TcpListener,
    intake: Arc<Intake>,
    connections: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    loop {
        let (stream, from) = tokio::select! {
            () = told(&mut stop) => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // No more file descriptors, most likely: waiting is all that helps.
                    if error.kind() != ErrorKind::ConnectionAborted {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    continue;
                }
            },
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            intake.malformed("connections", from.ip(), "too many connections: this one is closed");
            continue;
        };
        let (intake, stop) = (intake.clone(), stop.clone());
        tasks.spawn(async move {
            let mut pending = Pending::new();
            if let Err(error) = serve_one(stream, from.ip(), &intake, &mut pending, stop).await {
                intake.malformed(error.reason(), from.ip(), &error.to_string());
            }
            drain(pending, &intake).await;
            drop(permit);
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// Reads one connection to its end. While the sink is full nothing is read: the sender waits.
async fn serve_one<'a>(
    mut stream: TcpStream,
    from: IpAddr,
    intake: &'a Intake,
    pending: &mut Pending<'a>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), FramingError> {
    if sockopt::set_socket_keepalive(&stream, true).is_ok() {
        let _ = sockopt::set_tcp_keepidle(&stream, Duration::from_secs(KEEP_ALIVE_S));
    }
    let mut framer = Framer::default();
    let mut chunk = vec![0; READ_BYTES];
    loop {
        let patience = if framer.within_frame() { REST_OF_FRAME_S } else { IDLE_S };
        let read = tokio::select! {
            () = told(&mut stop) => return Ok(()),
            Some(()) = pending.next(), if !pending.is_empty() => continue,
            read = timeout(Duration::from_secs(patience), stream.read(&mut chunk)) => read,
        };
        let length = match read {
            Ok(Ok(length)) => length,
            // Reset, or silent for too long: as if it had ended.
            Ok(Err(_)) | Err(_) => 0,
        };
        framer.push(&chunk[..length]);
        while let Some(frame) = framer.next_frame()? {
            if frame.cut {
                intake.malformed("cut", from, "a message above 64 KiB was cut");
            }
            tokio::select! {
                () = told(&mut stop) => return Ok(()),
                () = intake.take(&frame.bytes, from, pending) => {}
            }
        }
        if length == 0 {
            if let Some(frame) = framer.finish()? {
                intake.take(&frame.bytes, from, pending).await;
            }
            return Ok(());
        }
    }
}

/// Waits for what the sink has; what it has not accepted when time is up is lost, and counted.
async fn drain(mut pending: Pending<'_>, intake: &Intake) {
    let all = async { while pending.next().await.is_some() {} };
    if timeout(Duration::from_secs(DRAIN_S), all).await.is_err() {
        let lost = pending.len();
        for _ in 0..lost {
            intake.counters.dropped();
        }
        tracing::warn!(lost, "lines were not accepted in time before the end");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_dropped_is_read_from_its_table() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt \
            uid  timeout inode ref pointer drops\n\
            \x20 90: 0100007F:05EA 00000000:0000 07 00000000:00000000 00:00000000 00000000     0 \
            0 4711 2 0000000000000000 12\n\
            \x20 91: 0100007F:05EB 00000000:0000 07 00000000:00000000 00:00000000 00000000     0 \
            0 4712 2 0000000000000000 0\n";
        assert_eq!(drops(table, 4711), Some(12));
        assert_eq!(drops(table, 4712), Some(0));
        assert_eq!(drops(table, 1), None);
    }
}
