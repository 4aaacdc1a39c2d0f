//! The snmp integrator: receives traps and informs, and tells the proxy what rules make of them.

mod ber;
pub mod facts;
#[cfg(test)]
mod fixtures_tests;
pub mod listener;
pub mod message;
pub mod recent;
pub mod sockets;
pub mod value;

use std::future::Future;
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::common::{
    CommonArgs, Dialect, Hangups, IntegratorError, LiveRules, print_ready, say_ready, stop_asked,
};
use crate::rules::Kind;
use crate::sink::Sink;
use listener::Receiver;

/// `callhome integrator snmp`
#[derive(Clone, Debug, clap::Args)]
pub struct SnmpArgs {
    /// Where to receive traps and informs, UDP
    #[arg(long, value_name = "A:P", num_args = 1.., default_value = "0.0.0.0:162")]
    pub listen: Vec<String>,
    /// The communities to take traps from [default: any]
    #[arg(long, value_name = "C", num_args = 1..)]
    pub community: Vec<String>,
    /// What all integrators with rules have
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What the rules engine must know of SNMP.
pub const DIALECT: Dialect =
    Dialect { kind: Kind::Snmp, facts_of: facts::facts_of, read_try: facts::read_try };

/// Runs `callhome integrator snmp` until it is told to stop: binds, says `ready` once the sink is
/// connected, reads rules again at SIGHUP. Questions about rules are [`crate::common::answer`]'s,
/// and are not asked here.
///
/// # Errors
/// Rules are wrong, or an address cannot be had.
pub async fn run(args: SnmpArgs, sink: Arc<dyn Sink>) -> Result<(), IntegratorError> {
    let ready = |pairs: &[String]| print_ready(Kind::Snmp, pairs);
    run_until(args, sink, ready, stop_asked()).await
}

/// As [`run`], until `stop` ends; `ready` is given `udp=A:P` for each address that is bound.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    args: SnmpArgs,
    sink: Arc<dyn Sink>,
    ready: impl FnOnce(&[String]) -> Result<(), IntegratorError>,
    stop: impl Future<Output = Result<(), IntegratorError>>,
) -> Result<(), IntegratorError> {
    let hangups = Hangups::listen()?;
    let rules = Arc::new(LiveRules::load(Kind::Snmp, &args.common.rules)?);
    let sockets = sockets::bind_all(&args.listen).await?;
    let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<Result<Vec<_>, _>>();
    let no_address = |error| IntegratorError::Internal(format!("no address: {error}"));
    let pairs = addresses.map_err(no_address)?.iter().map(|a| format!("udp={a}")).collect();
    let receiver = Receiver::new(rules.clone(), sink.clone(), &args.community);
    let (stopping, stopped) = watch::channel(false);
    let mut receiving = tokio::task::JoinSet::new();
    for socket in sockets {
        receiving.spawn(receiver.clone().receive(Arc::new(socket), stopped.clone()));
    }
    let ended = tokio::select! {
        ended = stop => ended,
        ended = rules.reload_on(hangups) => ended,
        error = say_ready(sink, ready, pairs) => Err(error),
        // A receiver ends before its time only when it panics.
        _ = receiving.join_next() => {
            Err(IntegratorError::Internal("a receiver ended".to_owned()))
        }
        () = receiver.tell_rests() => Ok(()),
    };
    // Receivers that are gone already need not be told.
    let _ = stopping.send(true);
    while receiving.join_next().await.is_some() {}
    if !receiver.drained().await {
        tracing::error!("stopped before the proxy had taken all that was received");
    }
    receiver.tell_rest();
    ended
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::{Args, Command, FromArgMatches};

    fn read(line: &str) -> Result<SnmpArgs, clap::Error> {
        let command = SnmpArgs::augment_args(Command::new("snmp"));
        let words = std::iter::once("snmp").chain(line.split_whitespace());
        SnmpArgs::from_arg_matches(&command.try_get_matches_from(words)?)
    }

    #[test]
    fn flags_are_those_of_the_contract() {
        SnmpArgs::augment_args(Command::new("snmp")).debug_assert();
        assert_eq!(read("").unwrap().listen, ["0.0.0.0:162"]);
        let args = read("--listen [::]:162 127.0.0.1:1162 --community a b --name x").unwrap();
        assert_eq!(args.listen, ["[::]:162", "127.0.0.1:1162"]);
        assert_eq!(args.community, ["a", "b"]);
        let args = read("--try 1.3.6 1.3.6.1 i -7").unwrap();
        assert_eq!(args.common.try_, ["1.3.6", "1.3.6.1", "i", "-7"]);
        assert!(read("--check-rules --print-rules").is_err());
    }
}
