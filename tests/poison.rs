//! A message at which the process dies, each time: what is in hand is counted over deaths, the
//! message is set aside after five attempts, and its neighbours have their effect once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

#[path = "../actors/roles/tests/top/mod.rs"]
mod top;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use bytes::Bytes;
use extension::{
    records::{AlarmFilter, Paging, Records},
    service::{
        Carrier, Effect, Manifest, Part, Received, Rows, ServiceError, ServiceModule, Subscription,
    },
    storage::QueueStore,
};
use module_redb::{Options, RedbStore};
use protocol::{limits::POISON_ATTEMPTS_MAX, message::Classification, parts::ServiceParts};
use roles::app_server::{
    rows::{SERVICES, service_key},
    tree::Make,
};
use top::{Top, alarm, proxy, sender};

/// Says to the test below that it is the process that dies, and where its store is.
const STORE: &str = "CALLHOME_TEST_POISON_STORE";
/// The alarm at which it dies.
const KILLS: &str = "kills";
/// What comes before it and behind it, in one run with it.
const KEYS: [&str; 6] = ["a", "b", KILLS, "c", "d", "e"];

/// Counts alarms by key; of one it dies.
struct Deadly;

impl ServiceModule for Deadly {
    fn manifest(&self) -> Manifest {
        Manifest {
            name: "deadly".to_owned(),
            classification: Classification::Monitoring,
            parts: vec![Part::AnalysisAndStorage],
            carriers: vec![Carrier::Http],
            needs_session: false,
            subscriptions: vec![Subscription { class: "alarm".to_owned(), subclass: None }],
        }
    }

    fn handle(
        &mut self,
        received: &Received<'_>,
        rows: &dyn Rows,
    ) -> Result<Vec<Effect>, ServiceError> {
        let ServiceParts::Alarm(said) = &received.message.service else { return Ok(Vec::new()) };
        if said.key == KILLS {
            // As the kernel would, or a library of the platform: nothing is closed, nothing caught.
            std::process::abort();
        }
        let key = Bytes::copy_from_slice(said.key.as_bytes());
        let times = rows.row(&key)?.map_or(0, |row| row[0]) + 1;
        Ok(vec![Effect::Put { key, value: Bytes::copy_from_slice(&[times]) }])
    }
}

/// One life of the server: takes the alarms where there are none yet, and ends when all have ended.
async fn live(folder: &Path) {
    let opened = RedbStore::open(folder, &Options::default()).unwrap();
    let created = opened.report.created;
    let store: Arc<dyn QueueStore> = Arc::new(opened.store);
    let deadly: Make = Arc::new(|| Box::new(Deadly));
    let top = Top::start_on(store.clone(), vec![deadly]).await;
    if created {
        let run: Vec<_> = (1..).zip(KEYS).map(|(n, key)| alarm(proxy(3), n, key)).collect();
        top.arrive(sender(proxy(3)), &run).await;
    }
    let account = top.settled().await;
    let mut counted = BTreeMap::new();
    let prefix = service_key("deadly", b"");
    let visit = &mut |key: &[u8], value: &[u8]| {
        counted.insert(String::from_utf8_lossy(&key[prefix.len()..]).into_owned(), value[0]);
        ControlFlow::Continue(())
    };
    store.rows(SERVICES, &prefix, &[], visit).unwrap();
    let alarms = top.records.alarms(&AlarmFilter::default(), &Paging::default()).await.unwrap();
    let shown: BTreeSet<(String, String)> =
        alarms.items.into_iter().map(|alarm| (alarm.kind, alarm.key)).collect();
    println!("counted {counted:?} refused {} shown {shown:?}", account.refused);
    top.stop().await;
}

// Only the process that the other test starts does anything here.
#[test]
fn a_life_that_may_end_anywhere() {
    if let Some(folder) = std::env::var_os(STORE) {
        top::run(async move { live(Path::new(&folder)).await });
    }
}

fn life(folder: &Path) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_life_that_may_end_anywhere", "--nocapture"]);
    command.env(STORE, folder).output().unwrap()
}

// DESIGN §4.9, APS-2: five attempts at a message that ends the process, then it is set aside.
#[test]
fn a_message_that_ends_the_process_is_set_aside_and_its_neighbours_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut deaths = 0;
    let last = loop {
        let life = life(folder.path());
        if life.status.success() {
            break life;
        }
        deaths += 1;
        let said = String::from_utf8_lossy(&life.stderr).into_owned();
        assert!(deaths <= 2 + POISON_ATTEMPTS_MAX, "it dies for ever: {said}");
    };
    // As it arrives, where the module worked already; with the batch that a start finds; alone.
    assert!(deaths > POISON_ATTEMPTS_MAX, "{deaths}");
    let said = String::from_utf8_lossy(&last.stdout).into_owned();
    // The module's own alarm about it, which is an alarm as well, is counted by its key, too.
    let neighbours = KEYS.iter().filter(|key| **key != KILLS).chain([&"deadly"]);
    let counted: BTreeMap<&str, u8> = neighbours.map(|key| (*key, 1)).collect();
    assert!(said.contains(&format!("counted {counted:?} refused 1 ")), "{said}");
    // Other modules were at work when it died, and are not blamed: they have all of it.
    let all = KEYS.iter().map(|key| ("linkDown", *key));
    let shown: BTreeSet<(&str, &str)> = all.chain([("poison", "deadly")]).collect();
    assert!(said.contains(&format!("shown {shown:?}")), "{said}");
    // From then on it lives.
    assert!(life(folder.path()).status.success());
}
