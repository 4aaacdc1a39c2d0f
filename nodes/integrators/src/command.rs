//! `callhome integrator KIND`: which there are, and how one runs from its flags to its end.

use std::path::Path;
use std::sync::Arc;

use crate::common::{CommonArgs, Dialect, IntegratorError, answer, socket_path, stop_asked};
use crate::inventory::{self, InventoryArgs};
use crate::proxy::ProxySink;
use crate::sink::Sink;
use crate::snmp::{self, SnmpArgs};
use crate::syslog::{self, SyslogArgs};

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
/// data directory, where socket and spill lie unless the flags say otherwise. An error knows its
/// exit code and what to do about it.
///
/// # Errors
/// Flags, rules, addresses or the spill cannot be used.
pub async fn run(command: IntegratorCommand, data: &Path) -> Result<(), IntegratorError> {
    match command {
        IntegratorCommand::Snmp(args) => {
            let Some(sink) = open(&snmp::DIALECT, &args.common, data)? else { return Ok(()) };
            let ended = snmp::run(args, sink.clone()).await;
            close(&sink, ended).await
        }
        IntegratorCommand::Syslog(args) => {
            let Some(sink) = open(&syslog::DIALECT, &args.common, data)? else { return Ok(()) };
            let ended = syslog::run(args, sink.clone()).await;
            close(&sink, ended).await
        }
        IntegratorCommand::Inventory(mut args) => {
            args.state = Some(data.join("spill"));
            let socket = socket_path(args.socket.as_deref(), data);
            let name = args.name.clone();
            let sink = ProxySink::open_at(socket, &name, args.spill.as_deref(), data)?;
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

async fn close(
    sink: &ProxySink,
    ended: Result<(), IntegratorError>,
) -> Result<(), IntegratorError> {
    if !sink.close().await {
        tracing::error!("stopped before the proxy or the spill had taken all calls");
    }
    ended
}
