//! The watchdog, in real time: it sees an arbiter that stands still and says who did it.
//!
//! One test a process would be cleanest; they go one by one, as there is one watchdog.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]

mod common;

use std::{
    env,
    process::Command,
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    time::Duration,
};

use common::{Block, Count, Log, counter, real_time, supervisor};
use supervision::{
    ChildSpec, Strategy,
    watchdog::{self, Hung},
};

static ONE_BY_ONE: Mutex<()> = Mutex::new(());

/// Short enough for a test, long enough for a busy machine to tick in between.
const SILENCE_MAX: Duration = Duration::from_millis(500);

#[test]
fn actor_that_hangs_on_its_own_arbiter_is_named() {
    let _turn = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    real_time(async {
        let (report, mut reports) = tokio::sync::mpsc::channel::<Hung>(8);
        let on_hang = move |hung: &Hung| report.try_send(hung.clone()).unwrap();
        let _watchdog = watchdog::start_with(SILENCE_MAX, on_hang).unwrap();
        let (store, store_ref) = counter("store", &Log::default());
        let storage = supervisor("storage", Strategy::OneForOne).child(store.on_own_arbiter());
        let node = supervisor("node", Strategy::OneForOne);
        let tree = node.child(ChildSpec::supervisor(storage)).start();
        assert_eq!(store_ref.ask(Count).await, Ok(1));
        assert_eq!(watchdog::hung(), []);

        let (release, until) = mpsc::channel();
        let asked = store_ref.clone();
        let blocked = actix::spawn(async move { asked.ask(Block(until)).await });
        let hung = reports.recv().await.unwrap();
        assert_eq!(hung.arbiter, "node/storage/store");
        assert_eq!(hung.actor.as_deref(), Some("node/storage/store"));
        assert!(hung.silent_for > SILENCE_MAX);
        assert_eq!(watchdog::hung()[0].arbiter, "node/storage/store");

        drop(release);
        assert_eq!(blocked.await.unwrap(), Ok(()));
        while !watchdog::hung().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(reports.try_recv().is_err(), "one hang is reported once");
        tree.stop().await;
    });
}

#[test]
fn actor_that_hangs_on_the_main_arbiter_is_named() {
    let _turn = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    real_time(async {
        static RELEASE: Mutex<Option<Sender<()>>> = Mutex::new(None);
        let (report, mut reports) = tokio::sync::mpsc::channel::<Hung>(8);
        let on_hang = move |hung: &Hung| {
            report.try_send(hung.clone()).unwrap();
            RELEASE.lock().unwrap().take();
        };
        let _watchdog = watchdog::start_with(SILENCE_MAX, on_hang).unwrap();
        let (link, link_ref) = counter("link", &Log::default());
        let tree = supervisor("node", Strategy::OneForOne).child(link).start();
        let (release, until) = mpsc::channel();
        *RELEASE.lock().unwrap() = Some(release);
        assert_eq!(link_ref.ask(Block(until)).await, Ok(()), "the watchdog's action released it");
        let hung = reports.recv().await.unwrap();
        assert_eq!(hung.arbiter, "main");
        assert_eq!(hung.actor.as_deref(), Some("node/link"));
        tree.stop().await;
    });
}

const IN_CHILD: &str = "SUPERVISION_TEST_HANGS";

#[test]
fn process_that_hangs_ends_with_code_70() {
    if env::var_os(IN_CHILD).is_some() {
        return hang_for_good();
    }
    let this = env::current_exe().unwrap();
    let output = Command::new(this)
        .args(["--exact", "process_that_hangs_ends_with_code_70"])
        .env(IN_CHILD, "1")
        .output();
    assert_eq!(output.unwrap().status.code(), Some(watchdog::EXIT_CODE));
}

fn hang_for_good() {
    real_time(async {
        let _watchdog = watchdog::start(SILENCE_MAX).unwrap();
        let (link, link_ref) = counter("link", &Log::default());
        let _tree = supervisor("node", Strategy::OneForOne).child(link).start();
        let (_never_released, until) = mpsc::channel();
        let _ = link_ref.ask(Block(until)).await;
    });
}
