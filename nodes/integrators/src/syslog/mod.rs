//! The syslog integrator: lines of any age become alarms, events and data.

pub mod framing;
mod intake;
mod listen;
pub mod message;
pub mod parse;
mod rfc3164;
mod rfc5424;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::common::{
    CommonArgs, Dialect, Hangups, IntegratorError, LiveRules, print_ready, say_ready, stop_asked,
};
use crate::rules::{Facts, Kind, TestInput};
use crate::sink::Sink;

use intake::Intake;
use listen::{CONNECTIONS, bind_udp, serve_tcp, serve_udp};
use message::Received;
use parse::{Clock, parse};

/// Flags of `callhome integrator syslog`.
#[derive(Args, Clone, Debug, Default)]
pub struct SyslogArgs {
    /// What all integrators with rules have.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Where to take datagrams [default, without any --listen: 0.0.0.0:514]
    #[arg(long, value_name = "A:P", num_args = 1..)]
    pub listen_udp: Vec<SocketAddr>,
    /// Where to take connections [default, without any --listen: 0.0.0.0:514]
    #[arg(long, value_name = "A:P", num_args = 1..)]
    pub listen_tcp: Vec<SocketAddr>,
    /// Where to take connections by TLS; not built yet, so not shown.
    #[arg(long, value_name = "A:P", num_args = 1.., hide = true)]
    pub listen_tls: Vec<SocketAddr>,
    /// The certificate for TLS; not built yet, so not shown.
    #[arg(long, value_name = "FILE", hide = true)]
    pub certificate: Option<PathBuf>,
    /// The key for TLS; not built yet, so not shown.
    #[arg(long, value_name = "FILE", hide = true)]
    pub key: Option<PathBuf>,
}

/// What the rules engine must know of syslog.
pub const DIALECT: Dialect = Dialect { kind: Kind::Syslog, facts_of, read_try };

fn facts_of(input: &TestInput) -> Result<Box<dyn Facts>, String> {
    match input {
        TestInput::Line { line, source } => {
            let clock = Clock { now: Timestamp::now(), zone: TimeZone::system() };
            let message = parse(line.as_bytes(), &clock);
            Ok(Box::new(Received { message, source: *source }))
        }
        TestInput::Trap { .. } => Err("a syslog rule is tried with a line".into()),
    }
}

fn read_try(words: &[String]) -> Result<TestInput, String> {
    Ok(TestInput::Line { line: words.join(" "), source: None })
}

/// The sockets, bound.
struct Bound {
    udp: Vec<tokio::net::UdpSocket>,
    tcp: Vec<TcpListener>,
}

/// How often a free port is drawn anew, where datagrams had one whose number connections had not:
/// on a machine that has half of its ports taken, all fail once in 65,536 starts.
const DRAWS_MAX: u32 = 16;

/// Binds all addresses; the two defaults when none is named.
async fn bind(args: &SyslogArgs) -> Result<Bound, IntegratorError> {
    let (mut udp, mut tcp) = (args.listen_udp.clone(), args.listen_tcp.clone());
    if udp.is_empty() && tcp.is_empty() {
        let any = SocketAddr::from(([0, 0, 0, 0], 514));
        (udp, tcp) = (vec![any], vec![any]);
    }
    let mut bound = Bound { udp: Vec::new(), tcp: Vec::new() };
    for address in udp {
        let shared = tcp.iter().position(|other| *other == address && address.port() == 0);
        if let Some(shared) = shared {
            let (socket, listener) = bind_one_port(tcp.remove(shared)).await?;
            bound.udp.push(socket);
            bound.tcp.push(listener);
            continue;
        }
        let socket = bind_udp(address).await;
        let error = |error| IntegratorError::listen("--listen-udp", address, &error);
        bound.udp.push(socket.map_err(error)?);
    }
    for address in tcp {
        let listener = TcpListener::bind(address).await;
        let error = |error| IntegratorError::listen("--listen-tcp", address, &error);
        bound.tcp.push(listener.map_err(error)?);
    }
    Ok(bound)
}

/// A free port for datagrams and connections alike, as syslog senders take one number for both.
async fn bind_one_port(
    address: SocketAddr,
) -> Result<(tokio::net::UdpSocket, TcpListener), IntegratorError> {
    let error = |flag| move |error| IntegratorError::listen(flag, address, &error);
    let mut draws = 1;
    loop {
        let socket = bind_udp(address).await.map_err(error("--listen-udp"))?;
        let drawn = socket.local_addr().map_err(error("--listen-udp"))?;
        match TcpListener::bind(drawn).await {
            Ok(listener) => return Ok((socket, listener)),
            Err(taken) if taken.kind() == std::io::ErrorKind::AddrInUse && draws < DRAWS_MAX => {
                draws += 1;
            }
            Err(failed) => return Err(error("--listen-tcp")(failed)),
        }
    }
}

impl Bound {
    /// `udp=A:P tcp=A:P` as they really are.
    fn pairs(&self) -> Vec<String> {
        let udp = self.udp.iter().filter_map(|socket| socket.local_addr().ok());
        let tcp = self.tcp.iter().filter_map(|listener| listener.local_addr().ok());
        let udp = udp.map(|address| format!("udp={address}"));
        udp.chain(tcp.map(|address| format!("tcp={address}"))).collect()
    }
}

/// Serves until told to stop: binds, says `ready` once the sink is connected, reads rules again at
/// SIGHUP. Questions about rules are [`crate::common::answer`]'s, not asked here.
///
/// # Errors
/// Rules are wrong, an address cannot be had, or TLS is asked for, which is not built yet.
pub async fn run(args: SyslogArgs, sink: Arc<dyn Sink>) -> Result<(), IntegratorError> {
    let ready = |pairs: &[String]| print_ready(Kind::Syslog, pairs);
    run_until(args, sink, ready, stop_asked()).await
}

/// As [`run`], until `stop` ends; `ready` is given `udp=A:P` and `tcp=A:P` of what is bound.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    args: SyslogArgs,
    sink: Arc<dyn Sink>,
    ready: impl FnOnce(&[String]) -> Result<(), IntegratorError>,
    stop: impl Future<Output = Result<(), IntegratorError>>,
) -> Result<(), IntegratorError> {
    if !args.listen_tls.is_empty() || args.certificate.is_some() || args.key.is_some() {
        return Err(IntegratorError::Configuration {
            message: "syslog by TLS is not built yet".into(),
            help: "use --listen-tcp, behind a tunnel where the network is not yours".into(),
        });
    }
    let hangups = Hangups::listen()?;
    let rules = Arc::new(LiveRules::load(Kind::Syslog, &args.common.rules)?);
    let bound = bind(&args).await?;
    let intake = Arc::new(Intake::new(rules.clone(), sink.clone()));
    let (stopping, stopped) = watch::channel(false);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let pairs = bound.pairs();
    let mut listeners = JoinSet::new();
    for socket in bound.udp {
        listeners.spawn(serve_udp(socket, intake.clone(), stopped.clone()));
    }
    for listener in bound.tcp {
        let (intake, connections) = (intake.clone(), connections.clone());
        listeners.spawn(serve_tcp(listener, intake, connections, stopped.clone()));
    }
    let ended = tokio::select! {
        ended = stop => ended,
        ended = rules.reload_on(hangups) => ended,
        error = say_ready(sink, ready, pairs) => Err(error),
        Some(ended) = listeners.join_next() => Err(IntegratorError::Internal(match ended {
            Err(error) => format!("a listener broke off: {error}"),
            Ok(()) => "a listener ended by itself".into(),
        })),
        () = intake.tell_rests() => Ok(()),
    };
    let _ = stopping.send(true);
    while listeners.join_next().await.is_some() {}
    intake.tell_rest();
    ended
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panic")]
    use super::*;
    use crate::rules::{Loaded, check};

    #[test]
    fn shipped_rules_pass_their_tests_with_this_parser() {
        let checked = check(&Loaded::from_texts(Kind::Syslog, Vec::new()), facts_of);
        assert_eq!(checked.problems, []);
        assert!(checked.tests >= 9);
    }

    #[test]
    fn a_line_can_be_tried() {
        let words = ["<10>Nov", "21", "19:19:45", "vm", "kernel:", "x"].map(String::from);
        let facts = facts_of(&read_try(&words).unwrap()).unwrap();
        assert_eq!(facts.value("host").as_deref(), Some("vm"));
        assert_eq!(facts.value("source"), None);
    }
}
