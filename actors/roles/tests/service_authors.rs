//! What the author of a service module has to know, and what is left to the infrastructure.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sample;
mod top;

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use extension::{
    records::{AlarmFilter, Paging, Records},
    service::{
        Carrier, Effect, Manifest, Part, Received, Rows, ServiceError, ServiceModule, Subscription,
    },
};
use protocol::{
    Message,
    message::Classification,
    parts::ServiceParts,
    service::{Data, Payload, Service},
};
use roles::app_server::tree::Make;
use top::{Top, alarm, message, proxy, run, sender, until};

/// A module that reads JSON reports of a subclass, and notes each it is handed.
struct Reader {
    name: &'static str,
    subclass: &'static str,
    handed: Arc<Mutex<Vec<String>>>,
}

fn reader(name: &'static str, subclass: &'static str) -> (Make, Arc<Mutex<Vec<String>>>) {
    let handed = Arc::new(Mutex::new(Vec::new()));
    let given = handed.clone();
    (Arc::new(move || Box::new(Reader { name, subclass, handed: given.clone() })), handed)
}

impl ServiceModule for Reader {
    fn manifest(&self) -> Manifest {
        let subclass = Some(self.subclass.to_owned());
        Manifest {
            name: self.name.to_owned(),
            classification: Classification::DataCollection,
            parts: vec![Part::AnalysisAndStorage],
            carriers: vec![Carrier::Http],
            needs_session: false,
            subscriptions: vec![Subscription { class: "data".to_owned(), subclass }],
        }
    }

    fn handle(
        &mut self,
        received: &Received<'_>,
        _: &dyn Rows,
    ) -> Result<Vec<Effect>, ServiceError> {
        let ServiceParts::Data(data) = &received.message.service else { return Ok(Vec::new()) };
        let text = String::from_utf8_lossy(data.payload.data).into_owned();
        self.handed.lock().unwrap().push(text);
        let read = serde_json::from_slice::<serde_json::Value>(data.payload.data);
        read.map(|_| Vec::new()).map_err(|e| ServiceError(e.to_string()))
    }
}

fn report(sequence: u64, subclass: &str, body: &str) -> Message {
    let payload = Payload { encoding: "application/json".to_owned(), data: body.to_owned().into() };
    let (kind, subtype) = subclass.split_once('/').unwrap();
    let data = Data { kind: kind.to_owned(), subtype: subtype.to_owned(), payload };
    let mut message = message(proxy(3), sequence, Service::Data(data));
    message.header.subclass = subclass.to_owned();
    message
}

/// Words of those who carry, queue and address; no module's source has one.
const NOT_THEIRS: [&str; 17] = [
    "std::net",
    "std::fs",
    "tokio",
    "actix",
    "reqwest",
    "http:",
    "https:",
    "url",
    "socket",
    "QueueStore",
    "QueueName",
    "DurableQueue",
    "extension::storage",
    "extension::communications",
    "protocol::exchange",
    "Destination",
    "retry",
];

// ARC-8: the source has no transport, queue or address; the module is given data, and what it
// publishes gets to others.
#[test]
fn author_of_a_module_sees_messages_and_rows_only() {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = crate_root.join("../modules/services/src");
    let mut files = vec![crate_root.join("tests/sample/mod.rs")];
    files.extend(std::fs::read_dir(shipped).unwrap().map(|f| f.unwrap().path()));
    assert!(files.len() > 3);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for (n, line) in code.enumerate() {
            for word in NOT_THEIRS {
                assert!(!line.contains(word), "{}:{}: {word}", file.display(), n + 1);
            }
        }
    }
    run(async {
        let counter: Make = Arc::new(|| Box::new(sample::Counter));
        let (module, handed) = reader("reports", "report/alarms");
        let top = Top::start(&Arc::default(), vec![counter, module]).await;
        let alarms: Vec<_> = (1..=20).map(|n| alarm(proxy(3), n, &format!("k{n}"))).collect();
        top.arrive(sender(proxy(3)), &alarms).await;
        until(async || handed.lock().unwrap().len() == 2).await;
        assert_eq!(*handed.lock().unwrap(), ["10", "20"]);
        top.stop().await;
    });
}

// DAT-3: a body that nobody can read changes nothing about where the message goes; the module it
// was meant for reports it.
#[test]
fn unreadable_body_gets_to_the_same_module_and_is_reported_by_it() {
    run(async {
        let (meant, handed) = reader("meant", "inventory/disks");
        let (other, not_handed) = reader("other", "inventory/packages");
        let top = Top::start(&Arc::default(), vec![meant, other]).await;
        let bodies = ["{\"disk\":1}", "\u{1}\u{2} encrypted \u{3}"];
        let messages: Vec<_> =
            (1..).zip(bodies).map(|(n, body)| report(n, "inventory/disks", body)).collect();
        top.arrive(sender(proxy(3)), &messages).await;
        let poison = AlarmFilter { kind: vec!["poison".to_owned()], ..AlarmFilter::default() };
        let mut told = Vec::new();
        until(async || {
            told = top.records.alarms(&poison, &Paging::default()).await.unwrap().items;
            !told.is_empty()
        })
        .await;
        assert_eq!(told[0].key, "meant", "the module's name");
        let mut seen = handed.lock().unwrap().clone();
        seen.dedup();
        assert_eq!(seen, bodies, "both came to it");
        assert!(not_handed.lock().unwrap().is_empty());
        top.stop().await;
    });
}
