//! What service modules are promised: all they subscribe to, effects once, and that a message or
//! module that fails takes nothing with it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod top;

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use extension::{
    records::{AlarmFilter, MessageState, Paging, Records},
    service::{
        Carrier, Effect, Manifest, Part, Received, Rows, ServiceError, ServiceModule, Subscription,
    },
    storage::{QueueName, QueueStore, StoreError},
};
use module_memory::MemoryStore;
use protocol::{Precedence, message::Classification, parts::ServiceParts, service::State};
use roles::app_server::{
    registrar::Registrar,
    rows::{SERVICES, service_key},
    tree::Make,
};
use top::{Top, alarm, alarm_in, proxy, run, sender, until};

/// Counts what it is handed, in memory of the test and in a row; fails at what a text says.
struct Counting {
    name: &'static str,
    handed: Arc<AtomicU32>,
}

fn counting(name: &'static str) -> (Make, Arc<AtomicU32>) {
    let handed = Arc::new(AtomicU32::new(0));
    let given = handed.clone();
    (Arc::new(move || Box::new(Counting { name, handed: given.clone() })), handed)
}

impl ServiceModule for Counting {
    fn manifest(&self) -> Manifest {
        Manifest {
            name: self.name.to_owned(),
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
        if said.kind != "linkDown" {
            return Ok(Vec::new());
        }
        let times = self.handed.fetch_add(1, SeqCst) + 1;
        match said.key {
            "panics" => panic!("told to"),
            "fails" => return Err(ServiceError("told to".to_owned())),
            "fails twice" if times <= 2 => return Err(ServiceError("not yet".to_owned())),
            _ => {}
        }
        let key = Bytes::copy_from_slice(said.key.as_bytes());
        let count = rows.row(&key)?.map_or(0, |row| row[0]);
        Ok(vec![Effect::Put { key, value: vec![count + 1].into() }])
    }
}

/// The module's rows: key and count.
fn rows(store: &MemoryStore, module: &str) -> Result<Vec<(String, u8)>, StoreError> {
    let prefix = service_key(module, b"");
    let mut rows = Vec::new();
    store.rows(SERVICES, &prefix, &[], &mut |key, value| {
        rows.push((String::from_utf8_lossy(&key[prefix.len()..]).into_owned(), value[0]));
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

// APS-8: several subscribe to the same data, each gets every message once.
#[test]
fn three_modules_get_every_message_once() {
    run(async {
        let store = Arc::new(MemoryStore::new());
        let (first, _) = counting("first");
        let (second, _) = counting("second");
        let top = Top::start(&store, vec![first, second]).await;
        for n in 0..20 {
            let from = 1 + 50 * n;
            let keys = (from..from + 50).map(|s| alarm(proxy(3), s, &format!("k{s}")));
            top.arrive(sender(proxy(3)), &keys.collect::<Vec<_>>()).await;
        }
        let account = top.settled().await;
        assert_eq!((account.taken, account.delivered), (1000, 1000));
        for module in ["first", "second"] {
            let rows = rows(&store, module).unwrap();
            assert_eq!(rows.len(), 1000);
            assert!(rows.iter().all(|(_, count)| *count == 1));
        }
        let page = top.records.alarms(&AlarmFilter::default(), &Paging::default()).await.unwrap();
        assert_eq!((page.items.len(), page.next), (1000, None), "nothing follows");
        top.stop().await;
    });
}

#[test]
fn a_message_that_panics_a_module_is_set_aside_and_its_neighbours_are_not() {
    run(async {
        let store = Arc::new(MemoryStore::new());
        let (module, handed) = counting("fragile");
        let top = Top::start(&store, vec![module]).await;
        let keys = ["a", "panics", "b", "fails", "c"];
        let messages: Vec<_> = (1..).zip(keys).map(|(n, key)| alarm(proxy(3), n, key)).collect();
        top.arrive(sender(proxy(3)), &messages).await;
        let poison = AlarmFilter { kind: vec!["poison".to_owned()], ..AlarmFilter::default() };
        until(async || {
            let page = top.records.alarms(&poison, &Paging::default()).await.unwrap();
            page.items.first().is_some_and(|a| a.count == 2 && a.key == "fragile")
        })
        .await;
        let account = top.settled().await;
        // Two alarms of the server's own are among what was taken.
        assert_eq!((account.taken, account.delivered, account.refused), (7, 5, 2));
        let good = ["a", "b", "c"].map(|key| (key.to_owned(), 1));
        assert_eq!(rows(&store, "fragile").unwrap(), good);
        assert_eq!(handed.load(SeqCst), 3 + 5 + 5);
        let mut aside = Vec::new();
        let queue = QueueName::new("set-aside");
        store
            .runs(&queue, Precedence::Normal, 0, &mut |at, _| {
                aside.push(at);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(aside, [2, 4]);
        let trace = top.records.trace(messages[1].header.id, 0).await.unwrap().answer;
        assert_eq!((trace.state, trace.reason.as_deref()), (MessageState::Refused, Some("poison")));
        let trace = top.records.trace(messages[2].header.id, 0).await.unwrap().answer;
        assert_eq!(trace.state, MessageState::Delivered);
        top.stop().await;
    });
}

#[test]
fn what_fails_for_a_while_is_tried_again() {
    run(async {
        let store = Arc::new(MemoryStore::new());
        let (module, handed) = counting("patient");
        let top = Top::start(&store, vec![module]).await;
        top.arrive(sender(proxy(3)), &[alarm(proxy(3), 1, "fails twice")]).await;
        let account = top.settled().await;
        assert_eq!((account.delivered, account.refused, handed.load(SeqCst)), (1, 0, 3));
        top.stop().await;
    });
}

// APS-2: effects and the cursor's step are one commit.
#[test]
fn effects_happen_once_over_panics_of_hosts_failed_commits_and_restarts() {
    supervision::drill::enable();
    run(async {
        let store = Arc::new(MemoryStore::new());
        let (module, _) = counting("once");
        let mut top = Top::start(&store, vec![module.clone()]).await;
        let mut sequence = 0;
        for round in 0..8 {
            for _ in 0..10 {
                let batch: Vec<_> = (0..10)
                    .map(|_| {
                        sequence += 1;
                        alarm(proxy(3), sequence, &format!("k{sequence}"))
                    })
                    .collect();
                while top.arrive(sender(proxy(3)), &batch).await.is_empty() {}
                if round % 2 == 0 {
                    let panic = supervision::drill::Fault::Panic;
                    supervision::drill::order("service_host_once", panic).unwrap();
                }
                if round % 3 == 0 {
                    store.fail_next_commit();
                }
            }
            if round % 4 == 3 {
                top.stop().await;
                top = Top::start(&store, vec![module.clone()]).await;
            }
        }
        let account = top.settled().await;
        assert_eq!((account.taken, account.delivered), (800, 800));
        let rows = rows(&store, "once").unwrap();
        assert_eq!(rows.len(), 800);
        assert!(rows.iter().all(|(_, count)| *count == 1), "an effect happened twice");
        top.stop().await;
    });
}

// A run that cannot be read is passed, and counted: what follows it is handled.
#[test]
fn a_damaged_run_stops_no_module() {
    run(async {
        let store = Arc::new(MemoryStore::new());
        let top = Top::start(&store, Vec::new()).await;
        top.arrive(sender(proxy(3)), &[alarm(proxy(3), 1, "a"), alarm(proxy(3), 2, "b")]).await;
        top.arrive(sender(proxy(3)), &[alarm(proxy(3), 3, "c")]).await;
        top.settled().await;
        top.stop().await;
        let place = extension::storage::Place { precedence: Precedence::Normal, position: 1 };
        assert!(store.damage_run(&QueueName::new("records"), place));
        let (module, handed) = counting("late");
        let top = Top::start(&store, vec![module]).await;
        top.arrive(sender(proxy(3)), &[alarm(proxy(3), 4, "d")]).await;
        top.settled().await;
        // A module that is new begins where messages have not ended.
        assert_eq!(handed.load(SeqCst), 1);
        let page = top.records.messages(&Default::default(), &Paging::default()).await.unwrap();
        let left: Vec<u64> = page.items.iter().map(|m| m.seq).collect();
        assert_eq!(left, [4, 3]);
        top.stop().await;
    });
}

// CLS-5, ARC-10: a module declared with a forbidden combination is refused with a reason.
#[test]
fn a_module_that_breaks_its_classification_is_not_loaded() {
    let mut manifest = Counting { name: "m", handed: Arc::default() }.manifest();
    manifest.carriers = vec![Carrier::Physical];
    let refused = manifest.check().unwrap_err().to_string();
    assert!(refused.contains("monitoring") && refused.contains("http, mail or fax"), "{refused}");
    manifest.carriers.clear();
    manifest.parts.clear();
    assert!(manifest.check().unwrap_err().to_string().contains("has no part"));
    let store: Arc<MemoryStore> = Arc::default();
    let own = Arc::new(std::sync::Mutex::new(roles::delivery::orders::Identity {
        id: top::server(),
        epoch: 1,
    }));
    Registrar::new(store, own).manifest().check().unwrap();
    roles::app_server::back_channel::Actions.manifest().check().unwrap();
}

#[test]
fn by_hand_and_on_the_stream() {
    run(async {
        use extension::records::{AlarmState, Change, StreamFilter, Topic};
        use futures_util::StreamExt;
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        let filter = StreamFilter { topics: vec![Topic::Alarms], ..StreamFilter::default() };
        let mut stream = top.records.subscribe(&filter, None);
        top.arrive(sender(proxy(3)), &[alarm(proxy(3), 1, "a")]).await;
        let opened = stream.next().await.unwrap();
        let Change::Alarm(seen) = &opened.change else { panic!("{opened:?}") };
        let id = seen.alarm_id;
        let acknowledged = top.records.acknowledge(id, "ada", Some("mine")).await.unwrap();
        assert_eq!(acknowledged.state, AlarmState::Acknowledged);
        assert_eq!(acknowledged.acknowledged_by.as_deref(), Some("ada"));
        assert!(matches!(
            stream.next().await.unwrap().change,
            Change::Alarm(a) if a.state == AlarmState::Acknowledged
        ));
        top.arrive(sender(proxy(3)), &[alarm_in(proxy(3), 2, "a", State::Closed)]).await;
        stream.next().await.unwrap();
        let refused = top.records.acknowledge(id, "ada", None).await;
        assert!(matches!(refused, Err(extension::records::RecordsError::Conflict(_))));
        let gone = top.records.acknowledge(uuid::Uuid::nil(), "ada", None).await;
        assert_eq!(gone, Err(extension::records::RecordsError::NotFound));
        // Who comes back with an id goes on after it; with one of another life there is a gap.
        let mut again = top.records.subscribe(&filter, Some(&opened.id));
        assert!(matches!(
            again.next().await.unwrap().change,
            Change::Alarm(a) if a.state != AlarmState::Opened
        ));
        let mut lost = top.records.subscribe(&filter, Some("ff-3-0"));
        assert_eq!(lost.next().await.unwrap().change, Change::Gap);
        tokio::time::timeout(Duration::from_millis(1), lost.next()).await.unwrap_err();
        top.stop().await;
    });
}
