//! UDP sockets on the addresses that `--listen` names.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use crate::common::IntegratorError;

/// Receive buffer of a socket, bytes: a storm of some ten thousand traps while the proxy commits.
/// The kernel may give less (`net.core.rmem_max`).
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Binds a socket for each of `listen` (`ADDRESS:PORT`, also with names). All or an error.
pub async fn bind_all(listen: &[String]) -> Result<Vec<tokio::net::UdpSocket>, IntegratorError> {
    let mut addresses = Vec::new();
    for text in listen {
        addresses.push(resolve(text).await?);
    }
    let mut sockets = Vec::new();
    for address in &addresses {
        // Where an IPv4 socket takes the port too, the IPv6 one must leave IPv4 to it.
        let only_v6 = address.is_ipv6()
            && addresses.iter().any(|other| other.is_ipv4() && other.port() == address.port());
        let bound = bind_one(*address, only_v6).and_then(tokio::net::UdpSocket::from_std);
        let socket =
            bound.map_err(|error| IntegratorError::listen("--listen", *address, &error))?;
        sockets.push(socket);
    }
    Ok(sockets)
}

async fn resolve(text: &str) -> Result<SocketAddr, IntegratorError> {
    let wrong = |why: String| IntegratorError::Configuration {
        message: format!("--listen {text}: {why}"),
        help: "write ADDRESS:PORT, as 0.0.0.0:162 or [::]:162".to_owned(),
    };
    let mut found =
        tokio::net::lookup_host(text).await.map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("no such name".to_owned()))
}

fn bind_one(address: SocketAddr, only_v6: bool) -> std::io::Result<UdpSocket> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(family, SocketType::DGRAM, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, only_v6)?;
    }
    // As much as the kernel allows is good enough.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES);
    bind(&socket, &address)?;
    Ok(socket.into())
}
