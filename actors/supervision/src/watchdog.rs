//! Expects a tick from each arbiter and ends the process when one stands still for too long.
//!
//! A thread that hangs in synchronous code blocks every actor on its arbiter, a supervisor among
//! them too, and Rust cannot kill a thread. So an own OS thread watches; whoever supervises the
//! process starts it again.

use std::{
    cell::OnceCell,
    io,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::tree::{lock, path_of};

/// Silence after which the process ends, unless configured otherwise: many times the longest
/// commit on a bad disk, shorter than an operator's patience.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Exit code of a process that hung (`EX_SOFTWARE` of sysexits.h).
pub const EXIT_CODE: i32 = 70;

/// The log may hang with the arbiter; the end of the process does not wait longer for it.
const LOG_WITHIN: Duration = Duration::from_secs(1);

/// An arbiter that stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hung {
    /// `main`, or the path of the child that has the arbiter for its own.
    pub arbiter: String,
    /// Path of the actor that runs on it; none if it is not a supervised one.
    pub actor: Option<String>,
    /// Time since the last tick.
    pub silent_for: Duration,
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watchdog {
    over: Arc<AtomicBool>,
    thread: thread::Thread,
}

/// Silence that the running watchdog allows, in milliseconds; 0 while none runs.
static SILENCE_MAX_MS: AtomicU64 = AtomicU64::new(0);

static HEARTS: Mutex<Vec<Weak<Heart>>> = Mutex::new(Vec::new());

thread_local! {
    static HEART: OnceCell<Arc<Heart>> = const { OnceCell::new() };
}

/// What a thread shows of itself.
#[derive(Default)]
struct Heart {
    name: Mutex<String>,
    beat_at_ms: AtomicU64,
    /// Id of the actor that is being polled; 0 for none.
    running: AtomicU64,
    ticking: AtomicBool,
    reported: AtomicBool,
}

/// Starts the watchdog: it ends the process with [`EXIT_CODE`] when an arbiter is silent for
/// `silence_max`. To be called on the main arbiter before the first supervisor is started.
///
/// # Errors
/// When the system has no thread for it.
pub fn start(silence_max: Duration) -> io::Result<Watchdog> {
    start_with(silence_max, |_| end_process())
}

#[allow(clippy::exit, clippy::disallowed_methods, reason = "nobody else can act any more")]
fn end_process() {
    std::process::exit(EXIT_CODE);
}

/// As [`start`], but calls `on_hang` on its own thread, once for each time an arbiter hangs.
///
/// # Errors
/// When the system has no thread for it.
pub fn start_with(
    silence_max: Duration,
    on_hang: impl Fn(&Hung) + Send + 'static,
) -> io::Result<Watchdog> {
    let over = Arc::new(AtomicBool::new(false));
    let watching = over.clone();
    SILENCE_MAX_MS.store(millis(silence_max).max(1), Relaxed);
    let builder = thread::Builder::new().name("watchdog".to_owned());
    let watch = builder.spawn(move || watch(&watching, silence_max, &on_hang))?;
    attend("main");
    Ok(Watchdog { over, thread: watch.thread().clone() })
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        SILENCE_MAX_MS.store(0, Relaxed);
        self.over.store(true, Relaxed);
        self.thread.unpark();
    }
}

/// Lets the watchdog watch this thread's arbiter under `name`; nothing while no watchdog runs.
///
/// A supervisor does it for the arbiter it is started on, and for each it makes. Others, such as
/// the workers of an HTTP server, may.
pub fn attend(name: &str) {
    let silence_max_ms = SILENCE_MAX_MS.load(Relaxed);
    let Ok(heart) = HEART.try_with(|heart| heart.get_or_init(Arc::default).clone()) else {
        return;
    };
    if silence_max_ms == 0 || heart.ticking.swap(true, Relaxed) {
        return;
    }
    name.clone_into(&mut lock(&heart.name));
    heart.beat();
    let mut hearts = lock(&HEARTS);
    hearts.retain(|known| known.strong_count() > 0 && known.as_ptr() != Arc::as_ptr(&heart));
    hearts.push(Arc::downgrade(&heart));
    drop(hearts);
    actix::spawn(tick(Ticking(heart), tick_every(silence_max_ms)));
}

/// Arbiters that have been silent for a third of what is allowed, for the health of the node.
pub fn hung() -> Vec<Hung> {
    let silence_max_ms = SILENCE_MAX_MS.load(Relaxed);
    if silence_max_ms == 0 {
        return Vec::new();
    }
    let silent = silent_for_more_than(silence_max_ms / 3, now_ms());
    silent.iter().map(|(heart, silent_ms)| heart.describe(*silent_ms)).collect()
}

/// Says that the actor `id` runs on this thread until the marker is dropped.
pub(crate) fn running(id: u64) -> Marker {
    let _ = HEART.try_with(|heart| heart.get_or_init(Arc::default).running.store(id, Relaxed));
    Marker
}

pub(crate) struct Marker;

impl Drop for Marker {
    fn drop(&mut self) {
        let _ = HEART.try_with(|heart| {
            if let Some(heart) = heart.get() {
                heart.running.store(0, Relaxed);
            }
        });
    }
}

impl Heart {
    fn beat(&self) {
        self.beat_at_ms.store(now_ms(), Relaxed);
        self.reported.store(false, Relaxed);
    }

    fn describe(&self, silent_ms: u64) -> Hung {
        let id = self.running.load(Relaxed);
        let actor = if id == 0 { None } else { path_of(id) };
        let arbiter = lock(&self.name).clone();
        Hung { arbiter, actor, silent_for: Duration::from_millis(silent_ms) }
    }
}

/// A heart that beats; stops being watched when its arbiter ends, and not when that hangs.
struct Ticking(Arc<Heart>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.ticking.store(false, Relaxed);
    }
}

async fn tick(heart: Ticking, every: Duration) {
    while SILENCE_MAX_MS.load(Relaxed) != 0 {
        heart.0.beat();
        tokio::time::sleep(every).await;
    }
}

/// Ten ticks in the time allowed, but no more than a busy machine would mind.
fn tick_every(silence_max_ms: u64) -> Duration {
    Duration::from_millis((silence_max_ms / 10).clamp(1, 1_000))
}

fn watch(over: &AtomicBool, silence_max: Duration, on_hang: &(impl Fn(&Hung) + Send)) {
    let silence_max_ms = millis(silence_max);
    let every = tick_every(silence_max_ms);
    let mut looked_at_ms = now_ms();
    while !over.load(Relaxed) {
        thread::park_timeout(every);
        let now = now_ms();
        if stood_still(now - looked_at_ms, silence_max_ms) {
            // The whole process did, as when a machine is suspended: nobody could tick.
            for (heart, _) in silent_for_more_than(0, now) {
                heart.beat();
            }
        }
        looked_at_ms = now;
        for (heart, silent_ms) in silent_for_more_than(silence_max_ms, now) {
            if !heart.reported.swap(true, Relaxed) {
                let hung = heart.describe(silent_ms);
                log(&hung);
                on_hang(&hung);
            }
        }
    }
}

/// Whether the watchdog itself was held up for so long that silence says nothing.
fn stood_still(since_last_look_ms: u64, silence_max_ms: u64) -> bool {
    since_last_look_ms > silence_max_ms / 2
}

/// Logs on another thread: the one that hangs may hold the log's lock.
fn log(hung: &Hung) {
    let (done, is_done) = std::sync::mpsc::sync_channel(1);
    let hung = hung.clone();
    let logging = move || {
        tracing::error!(
            target: "supervision",
            arbiter = hung.arbiter,
            actor = hung.actor.as_deref().unwrap_or("none"),
            silent_ms = millis(hung.silent_for),
            "arbiter hangs"
        );
        let _ = done.send(());
    };
    if thread::Builder::new().name("watchdog-log".to_owned()).spawn(logging).is_ok() {
        let _ = is_done.recv_timeout(LOG_WITHIN);
    }
}

fn silent_for_more_than(limit_ms: u64, now_ms: u64) -> Vec<(Arc<Heart>, u64)> {
    let hearts: Vec<_> = lock(&HEARTS).iter().filter_map(Weak::upgrade).collect();
    let ticking = hearts.into_iter().filter(|heart| heart.ticking.load(Relaxed));
    let silent = ticking.map(|heart| {
        let silent_ms = now_ms.saturating_sub(heart.beat_at_ms.load(Relaxed));
        (heart, silent_ms)
    });
    silent.filter(|(_, silent_ms)| *silent_ms > limit_ms).collect()
}

/// Time since the first call, in real time also where tokio's clock is virtual.
fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    millis(START.get_or_init(Instant::now).elapsed())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_only_while_the_watchdog_itself_could_look() {
        assert!(!stood_still(1_000, 30_000));
        assert!(stood_still(15_001, 30_000));
    }

    #[test]
    fn arbiter_ticks_ten_times_in_the_time_allowed_and_at_least_once_a_second() {
        assert_eq!(tick_every(3_000), Duration::from_millis(300));
        assert_eq!(tick_every(30_000), Duration::from_secs(1));
        assert_eq!(tick_every(1), Duration::from_millis(1));
    }
}
