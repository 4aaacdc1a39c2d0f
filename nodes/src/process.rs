//! What a process of nodes shares: token, operator's door, files that say where it serves, signals.
use std::{
    io::Write,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use supervision::{drill, watchdog};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::{
    launch::{LaunchError, random},
    node_view::Nodes,
    operator::{self, Operator},
    telemetry,
};

/// Bytes of a token, written as twice as many hexadecimal digits.
const TOKEN_WORDS: usize = 4;
/// How long an arbiter may be silent until the process ends with 70.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A process of nodes.
pub struct Process {
    /// The folder of all.
    pub data: PathBuf,
    /// The operator's bearer token.
    pub token: Arc<str>,
    /// The nodes.
    pub nodes: Nodes,
    /// Where the operator's door is.
    pub operator: SocketAddr,
    /// Makes sign-in URLs where a portal runs.
    pub sign_in: Arc<OnceLock<operator::SignIn>>,
    files: Vec<PathBuf>,
    handle: actix_web::dev::ServerHandle,
    _watchdog: watchdog::Watchdog,
}

impl Process {
    /// Prepares the data folder and opens the operator's door.
    pub fn begin(data: &Path, bind: SocketAddr, drills: bool) -> Result<Self, LaunchError> {
        make_folder(data).map_err(|e| {
            LaunchError::new(69, format!("{}: {e}", data.display()), "choose another --data folder")
        })?;
        if drills {
            drill::enable();
        }
        let watchdog = watchdog::start(SILENCE_MAX)
            .map_err(|e| LaunchError::new(70, format!("watchdog: {e}"), "restart the node"))?;
        let token = token(&data.join("operator.token"))?;
        let nodes = Nodes::default();
        let sign_in = Arc::new(OnceLock::new());
        let door = Operator {
            nodes: nodes.clone(),
            token: token.clone(),
            drills,
            sign_in: sign_in.clone(),
        };
        let server = operator::serve(bind, door).map_err(|e| {
            LaunchError::new(
                69,
                format!("operator's door cannot listen on {bind}: {e}"),
                "another node of this machine may have it: end that one, give each its own \
                 <operator bind>, or let up take free ports: --listen 127.0.0.1:0",
            )
        })?;
        let (operator, handle) = (server.address, server.handle.clone());
        actix_web::rt::spawn(server.server);
        Ok(Self {
            data: data.to_owned(),
            token,
            nodes,
            operator,
            sign_in,
            files: Vec::new(),
            handle,
            _watchdog: watchdog,
        })
    }

    /// Writes a file of one line, renamed into place; a clean end removes it.
    pub fn announce(&mut self, name: &str, line: &str) -> Result<(), LaunchError> {
        let path = self.data.join(name);
        write_line(&path, line, 0o644).map_err(|e| cannot_write(&path, &e))?;
        self.files.push(path);
        Ok(())
    }

    /// Removes what said where it serves, and closes the operator's door.
    pub async fn end(self) {
        for file in &self.files {
            // It may be gone already.
            let _ = std::fs::remove_file(file);
        }
        self.handle.stop(false).await;
    }
}

/// Makes the folder, and those above it, with mode 0750 (contract §3); one that is there keeps its.
fn make_folder(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(path)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> LaunchError {
    LaunchError::new(69, format!("{}: {error}", path.display()), "look at the folder's rights")
}

/// The token in that file; made once and kept.
fn token(path: &Path) -> Result<Arc<str>, LaunchError> {
    if let Ok(kept) = std::fs::read_to_string(path)
        && !kept.trim().is_empty()
    {
        return Ok(kept.trim().into());
    }
    let token: String = (0..TOKEN_WORDS).map(|_| format!("{:016x}", random())).collect();
    write_line(path, &token, 0o600).map_err(|e| cannot_write(path, &e))?;
    Ok(token.into())
}

/// Writes one line beside the path and renames it into place.
pub fn write_line(path: &Path, line: &str, mode: u32) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    // A leftover of a crash would keep its own mode.
    let _ = std::fs::remove_file(&beside);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    writeln!(file, "{line}")?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

/// The signals of a process, listened to from its start: what comes before it serves is not lost.
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// Listens from now on.
    pub fn listen() -> Result<Self, LaunchError> {
        let listen = |kind| {
            let failed = |e| LaunchError::new(70, format!("signals: {e}"), "restart the node");
            signal(kind).map_err(failed)
        };
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            hup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for TERM or INT. A second one ends the process at once; HUP is noted.
    #[allow(clippy::disallowed_methods, reason = "a second signal ends it at once")]
    pub async fn told_to_stop(self) {
        let Self { mut term, mut int, mut hup } = self;
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hup.recv() => info!(target: "node", "HUP: the policy is read again"),
            }
        }
        actix_web::rt::spawn(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            warn!(target: "node", "told a second time: ending at once");
            std::process::exit(70);
        });
    }
}

/// Starts logging by flag, variable and configuration.
pub fn start_logging(flag: Option<&str>, configured: &str) {
    let format = std::env::var("CALLHOME_LOG_FORMAT").unwrap_or_else(|_| "auto".to_owned());
    telemetry::start(flag.unwrap_or(configured), &format);
}
