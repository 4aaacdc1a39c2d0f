//! `callhome integrator KIND`: which there are, and how one runs from its flags to its end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{
    CommonArgs, Dialect, Format, IntegratorError, answer, note, socket_path, stop_asked,
};
use crate::inventory::{self, InventoryArgs};
use crate::proxy::{CLOSE_WITHIN, ProxySink};
use crate::sink::Sink;
use crate::snmp::{self, SnmpArgs};
use crate::syslog::{self, SyslogArgs};

/// How long `inventory --once` waits until the proxy has taken all: a proxy that starts just now is
/// registered within that.
const ONCE_WITHIN: Duration = Duration::from_secs(60);

/// After that, somebody who waits at a terminal is told for what.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// The kinds of integrators.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum IntegratorCommand {
    /// Receive SNMP traps and informs
    #[command(after_help = "Example: callhome integrator snmp --listen 127.0.0.1:1162")]
    Snmp(SnmpArgs),
    /// Receive syslog lines
    #[command(after_help = "Example: callhome integrator syslog --listen-udp 127.0.0.1:1514")]
    Syslog(SyslogArgs),
    /// Tell what this host is made of, and how it does
    #[command(after_help = "Example: callhome integrator inventory --every-s 600")]
    Inventory(InventoryArgs),
}

/// Runs one until it is told to stop, or answers what was asked about its rules. `data` is the
/// data directory, where socket and spill lie unless the flags say otherwise; `format` is how
/// answers about rules look. An error knows its exit code and what to do about it.
///
/// # Errors
/// Flags, rules, addresses or the spill cannot be used.
pub async fn run(
    command: IntegratorCommand,
    data: &Path,
    format: Format,
) -> Result<(), IntegratorError> {
    match command {
        IntegratorCommand::Snmp(mut args) => {
            args.common.format = format;
            let Some(sink) = open(&snmp::DIALECT, &args.common, data)? else { return Ok(()) };
            let ended = snmp::run(args, sink.clone()).await;
            close(&sink, ended).await
        }
        IntegratorCommand::Syslog(mut args) => {
            args.common.format = format;
            let Some(sink) = open(&syslog::DIALECT, &args.common, data)? else { return Ok(()) };
            let ended = syslog::run(args, sink.clone()).await;
            close(&sink, ended).await
        }
        IntegratorCommand::Inventory(mut args) => {
            args.state = Some(data.join("spill"));
            let socket = socket_path(args.socket.as_deref(), data);
            let name = args.name.clone();
            let sink = ProxySink::open_at(socket, &name, args.spill.as_deref(), data)?;
            if args.once {
                return once(args, &sink).await;
            }
            let ended = tokio::select! {
                stopped = stop_asked() => stopped,
                () = sink.connected() => inventory::run(args, sink.clone()).await,
            };
            close(&sink, ended).await
        }
    }
}

/// The sink; `None` when a question about rules was asked, and is answered.
fn open(
    dialect: &Dialect,
    args: &CommonArgs,
    data: &Path,
) -> Result<Option<Arc<ProxySink>>, IntegratorError> {
    if answer(dialect, args)? {
        return Ok(None);
    }
    ProxySink::open(dialect.kind.name(), args, data).map(Some)
}

/// Looks once, and waits until the proxy has taken what was found.
async fn once(args: InventoryArgs, sink: &Arc<ProxySink>) -> Result<(), IntegratorError> {
    let look = async {
        let look = async {
            inventory::run(args, sink.clone()).await?;
            sink.taken().await;
            Ok(())
        };
        let looked = tokio::time::timeout(ONCE_WITHIN, look).await;
        looked.unwrap_or_else(|_| Err(sink.not_taken()))
    };
    let tell = async {
        tokio::time::sleep(TELL_AFTER).await;
        let (socket, within) = (sink.socket().display(), ONCE_WITHIN.as_secs());
        note(&format!("waiting until the proxy at {socket} has taken all, up to {within} s"));
        std::future::pending().await
    };
    let looked = tokio::select! {
        looked = look => looked,
        stopped = stop_asked() => stopped.and_then(|()| Err(sink.not_taken())),
        never = tell => never,
    };
    // What is in the spill is synced; after a failure there is nothing else to wait for.
    let within = if looked.is_ok() { CLOSE_WITHIN } else { Duration::ZERO };
    sink.close(within).await;
    looked
}

async fn close(
    sink: &ProxySink,
    ended: Result<(), IntegratorError>,
) -> Result<(), IntegratorError> {
    if !sink.close(CLOSE_WITHIN).await {
        tracing::error!("stopped before the proxy or the spill had taken all calls");
    }
    ended
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_is_75_and_says_where_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let spill = folder.path().join("spill");
        let sink = ProxySink::open_at(folder.path().join("none"), "i", Some(&spill), folder.path());
        let error = sink.unwrap().not_taken();
        assert_eq!(error.exit_code(), 75);
        let help = error.help().unwrap();
        assert!(
            help.contains(&spill.display().to_string()) && help.contains("next start"),
            "{help}"
        );
    }
}
