//! Integrator processes that a proxy starts, and starts again when they end.
use std::{
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tracing::{info, warn};

/// First wait before an ended integrator is started again.
const AGAIN_MIN: Duration = Duration::from_millis(200);
/// Longest wait.
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// An integrator that ran so long had not failed at its start.
const STARTED_WELL: Duration = Duration::from_secs(10);
/// How long an integrator may take to stop before it is killed.
const STOPS_WITHIN: Duration = Duration::from_secs(5);
/// Exit code of a configuration that is wrong: starting again mends nothing quickly.
const CONFIGURATION: i32 = 78;
/// Exit codes (sysexits.h) of a start that would go no better a moment later: usage, an address in
/// use, configuration.
const CANNOT_START: [i32; 3] = [64, 69, CONFIGURATION];

/// One program and its arguments.
#[derive(Clone, Debug)]
pub struct Program {
    /// Name of the integrator.
    pub name: String,
    /// What to run.
    pub path: PathBuf,
    /// With which flags.
    pub arguments: Vec<String>,
    /// With which variables beside ours.
    pub variables: Vec<(String, String)>,
}

/// A program that ended before it was ever ready, and says that it cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAtStart {
    /// Name of the integrator.
    pub name: String,
    /// Its exit code.
    pub code: i32,
}

/// What the programs have shown of themselves so far.
#[derive(Debug, Default)]
struct Shown {
    /// Names, and the line behind `ready ` of each.
    ready: Vec<(String, String)>,
    /// The first that could not start.
    failed: Option<FailedAtStart>,
}

type Known = Arc<Mutex<Shown>>;

fn known(shown: &Known) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Programs that run until they are stopped.
pub struct Programs {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    shown: Known,
}

impl Programs {
    /// Starts them all.
    pub fn start(programs: Vec<Program>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let shown = Known::default();
        let tasks = programs
            .into_iter()
            .map(|p| actix_web::rt::spawn(keep_running(p, stopped.clone(), shown.clone())))
            .collect();
        Self { stop, tasks, shown }
    }

    /// What each said when it was ready: its name and the line behind `ready `.
    pub fn ready(&self) -> Vec<(String, String)> {
        known(&self.shown).ready.clone()
    }

    /// The first that ended before it was ready and would do so again; it is tried again all the
    /// same.
    pub fn failed_at_start(&self) -> Option<FailedAtStart> {
        known(&self.shown).failed.clone()
    }

    /// Whether each has said that it is ready at least once.
    pub fn all_ready(&self) -> bool {
        self.ready().len() >= self.tasks.len()
    }

    /// Ends them all, each in its own time.
    pub async fn stop(self) {
        // Nobody listens where none was started.
        let _ = self.stop.send(true);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

async fn keep_running(program: Program, mut stop: watch::Receiver<bool>, shown: Known) {
    let mut wait = AGAIN_MIN;
    let mut hangups = signal(SignalKind::hangup()).ok();
    if hangups.is_none() {
        warn!(target: "integrators", integrator = program.name, "HUP is not passed on to it");
    }
    loop {
        let started = tokio::time::Instant::now();
        match spawn(&program) {
            Ok(mut child) => {
                listen(&mut child, &program.name, &shown);
                let ended = loop {
                    tokio::select! {
                        ended = child.wait() => break ended,
                        () = hung_up(&mut hangups) => pass_on(&child, &program.name),
                        _ = stop.wait_for(|stop| *stop) => return end(child, &program.name).await,
                    }
                };
                let code = ended.as_ref().ok().and_then(|status| status.code());
                warn!(target: "integrators", integrator = program.name, ?code,
                    "integrator ended; starting it again");
                if code == Some(CONFIGURATION) {
                    wait = AGAIN_MAX;
                }
                note_failure(&shown, &program.name, code);
            }
            Err(error) => {
                warn!(target: "integrators", integrator = program.name, %error,
                    path = %program.path.display(), "integrator cannot be started");
            }
        }
        if started.elapsed() > STARTED_WELL {
            wait = AGAIN_MIN;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(AGAIN_MAX),
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Variable that tells an integrator whose child it is: it ends with that process, also by KILL.
pub const PARENT: &str = "CALLHOME_PARENT_PID";

fn spawn(program: &Program) -> std::io::Result<Child> {
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    command.env(PARENT, std::process::id().to_string()).kill_on_drop(true);
    command.envs(program.variables.iter().map(|(name, value)| (name, value)));
    command.spawn()
}

/// Passes on what it prints; remembers the line that says it is ready.
fn listen(child: &mut Child, name: &str, shown: &Known) {
    let Some(stdout) = child.stdout.take() else { return };
    let (name, shown) = (name.to_owned(), shown.clone());
    actix_web::rt::spawn(async move {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            info!(target: "integrators", integrator = name, "{line}");
            if let Some(words) = line.strip_prefix("ready ") {
                let ready = &mut known(&shown).ready;
                ready.retain(|(known, _)| *known != name);
                ready.push((name.clone(), words.to_owned()));
            }
        }
    });
}

/// Keeps that a program cannot start, where it was never ready.
fn note_failure(shown: &Known, name: &str, code: Option<i32>) {
    let mut shown = known(shown);
    let was_ready = shown.ready.iter().any(|(ready, _)| ready == name);
    if let Some(code) = code.filter(|code| CANNOT_START.contains(code) && !was_ready) {
        shown.failed.get_or_insert(FailedAtStart { name: name.to_owned(), code });
    }
}

/// Ends at the next HUP of this process.
async fn hung_up(hangups: &mut Option<Signal>) {
    if let Some(hangups) = hangups
        && hangups.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

/// Passes HUP on, so that an integrator reads its rules again (contract §2). One that has no
/// handler for it would end by it: it is starting, and has not read its rules yet, or has none.
fn pass_on(child: &Child, name: &str) {
    let Some(id) = child.id() else { return };
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let pid = rustix::process::Pid::from_raw(id as i32).filter(|_| handles_hangup(&status));
    match pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::HUP)) {
        Some(Ok(())) => info!(target: "integrators", integrator = name, "HUP passed on"),
        // It may have ended just now.
        Some(Err(_)) => {}
        None => info!(target: "integrators", integrator = name, "has no handler for HUP"),
    }
}

/// Whether a `/proc/PID/status` says that the process handles HUP, which is signal 1.
fn handles_hangup(status: &str) -> bool {
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & 1 == 1)
}

async fn end(mut child: Child, name: &str) {
    if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
        // It may have ended just now.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(STOPS_WITHIN, child.wait()).await.is_err() {
        warn!(target: "integrators", integrator = name, "integrator did not stop; killed");
        let _ = child.kill().await;
    }
}

/// For an integrator's own process: ends it when the node that started it ends, also by KILL.
#[allow(clippy::disallowed_methods, reason = "nothing of this process outlives its parent")]
pub fn end_with_parent() {
    let Some(parent) = std::env::var(PARENT).ok().and_then(|p| p.parse::<u32>().ok()) else {
        return;
    };
    let signal = Some(rustix::process::Signal::TERM);
    if let Err(error) = rustix::process::set_parent_process_death_signal(signal) {
        warn!(target: "integrators", %error, "may outlive the node that started it");
    }
    // The parent may have died before the line above.
    if std::os::unix::process::parent_id() != parent {
        warn!(target: "integrators", "the node that started this integrator is gone");
        std::process::exit(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_handles_hup_is_read_from_the_kernels_table() {
        let status = |mask: &str| format!("Name:\tx\nSigIgn:\t0000000000000001\nSigCgt:\t{mask}\n");
        assert!(handles_hangup(&status("0000000180004a03")));
        assert!(!handles_hangup(&status("0000000180004a02")));
        assert!(!handles_hangup("") && !handles_hangup(&status("what")));
    }
}
