//! The inventory integrator: what the host is made of, as changes, and samples of how it does.
//!
//! All of it is `data` with class [`snapshot::CLASS`] (`inventory`) and the section as subclass
//! (`packages`, `patches`, `disks`, `system`), or class [`snapshot::PERFORMANCE`] and subclass
//! `host`. The header's subclass is `inventory/packages`, the service block's `type` and `subtype`
//! are its two parts: `<subscribe class="data" subclass="inventory"/>` gets all of them,
//! `subclass="inventory/patches"` only those (DAT-15, APS-7).

pub mod changes;
mod disks;
mod packages;
mod patches;
pub mod performance;
mod rounds;
pub mod snapshot;
pub mod state;
mod system;
pub mod tree;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::time::{MissedTickBehavior, interval};

use crate::common::{Hangups, IntegratorError, stop_asked};
use crate::sink::Sink;

use rounds::Rounds;
use tree::DiskTree;

/// Flags of `callhome integrator inventory`.
#[derive(Args, Clone, Debug)]
pub struct InventoryArgs {
    /// The proxy's socket [default: DATA/proxy/integrator.sock, /run/callhome/integrator.sock]
    #[arg(long, env = "CALLHOME_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The name by which the proxy knows this integrator
    #[arg(long, default_value = "inventory")]
    pub name: String,
    /// Where to keep what the proxy cannot take now, and what it knows already
    #[arg(long, env = "CALLHOME_SPILL", value_name = "DIR")]
    pub spill: Option<PathBuf>,
    /// The folder below which the host's files lie
    #[arg(long, default_value = "/", value_name = "DIR")]
    pub root: PathBuf,
    /// Seconds from one look to the next
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub every_s: u64,
    /// Seconds after which all is sent again, not only what changed
    #[arg(long, default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..))]
    pub full_every_s: u64,
    /// Look once, and end when the proxy has taken it, or with 75 after a minute
    #[arg(long)]
    pub once: bool,
    /// Where to keep what is known already without `--spill`; whoever runs it says so.
    #[arg(skip)]
    pub state: Option<PathBuf>,
}

/// Looks, and sends what is new, until told to stop (or once). Looks at once, since the sink keeps
/// what the proxy cannot take; says `ready` when the sink is connected.
///
/// # Errors
/// The root folder or the state's folder cannot be used; with `--once`, what was sent is refused.
pub async fn run(args: InventoryArgs, sink: Arc<dyn Sink>) -> Result<(), IntegratorError> {
    let tree = DiskTree::open(&args.root).map_err(|error| IntegratorError::Configuration {
        message: format!("cannot look below {}: {error}", args.root.display()),
        help: "--root takes a folder with the host's etc, proc, sys and var".into(),
    })?;
    // It has no rules to read again, and SIGHUP must not end it.
    let _hangups = Hangups::listen()?;
    let mut rounds = Rounds::open(&args, Arc::new(tree), sink.clone())?;
    let mut ticks = interval(Duration::from_secs(args.every_s));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = stop_asked();
    let connected = say_ready(sink.as_ref());
    tokio::pin!(stop, connected);
    loop {
        let round = async {
            ticks.tick().await;
            rounds.round().await
        };
        // A round that is given up in the middle is as if the process died: the next one sends
        // what was not accepted.
        let done = tokio::select! {
            stopped = &mut stop => return stopped,
            error = &mut connected => return Err(error),
            done = round => done,
        };
        match done {
            Err(refused) if args.once => {
                return Err(IntegratorError::Unavailable {
                    message: format!("the proxy did not take the inventory: {refused}"),
                    help: "--spill DIR keeps it until the proxy can".into(),
                });
            }
            Err(refused) => {
                tracing::warn!(refusal = %refused.refusal, detail = %refused.detail,
                    "the inventory waits for the next look");
            }
            Ok(()) => {}
        }
        if args.once {
            return Ok(());
        }
    }
}

/// Says `ready` when the sink is connected; ends only when that fails.
async fn say_ready(sink: &dyn Sink) -> IntegratorError {
    sink.connected().await;
    let mut out = std::io::stdout();
    match out.write_all(b"ready integrator=inventory\n").and_then(|()| out.flush()) {
        Ok(()) => std::future::pending().await,
        Err(error) => IntegratorError::Internal(format!("cannot print: {error}")),
    }
}
