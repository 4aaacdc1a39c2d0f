//! What service modules that subscribe to parts of a host's inventory are given.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

#[path = "../nodes/integrators/tests/recording/mod.rs"]
mod recording;
#[path = "../actors/roles/tests/top/mod.rs"]
mod top;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
};

use extension::service::{
    Carrier, Effect, Manifest, Part, Received, Rows, ServiceError, ServiceModule, Subscription,
};
use integrators::inventory::{InventoryArgs, run};
use protocol::{
    message::Classification,
    service::{Data, Service},
};
use roles::app_server::tree::Make;
use top::{Top, alarm, message, proxy, sender};

type Seen = Arc<Mutex<Vec<String>>>;

/// A module that notes what it is handed.
struct Noting {
    name: &'static str,
    to: &'static [&'static str],
    seen: Seen,
}

fn noting(name: &'static str, to: &'static [&'static str]) -> (Make, Seen) {
    let seen = Seen::default();
    let given = seen.clone();
    (Arc::new(move || Box::new(Noting { name, to, seen: given.clone() })), seen)
}

impl ServiceModule for Noting {
    fn manifest(&self) -> Manifest {
        let subscription = |word: &&str| match word.split_once(' ') {
            None => Subscription { class: (*word).to_owned(), subclass: None },
            Some((class, sub)) => {
                Subscription { class: class.to_owned(), subclass: Some(sub.to_owned()) }
            }
        };
        Manifest {
            name: self.name.to_owned(),
            classification: Classification::Monitoring,
            parts: vec![Part::AnalysisAndStorage],
            carriers: vec![Carrier::Http],
            needs_session: false,
            subscriptions: self.to.iter().map(subscription).collect(),
        }
    }

    fn handle(
        &mut self,
        received: &Received<'_>,
        _: &dyn Rows,
    ) -> Result<Vec<Effect>, ServiceError> {
        let header = &received.message.header;
        self.seen.lock().unwrap().push(format!("{} {}", header.class, header.subclass));
        Ok(Vec::new())
    }
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// What the inventory integrator says of a host; its packages are this host's, where it has a list.
async fn inventory() -> Vec<Data> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let status = std::fs::read_to_string("/var/lib/dpkg/status").unwrap_or_else(|_| {
        "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2\n\n".into()
    });
    put(&root, "var/lib/dpkg/status", &status);
    let bash = status.split("\nPackage: bash\n").nth(1).unwrap_or(&status);
    let field = |name: &str| bash.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim();
    let (architecture, version) = (field("Architecture:"), field("Version:"));
    let line = format!("2026-01-01 00:00:00 upgrade bash:{architecture} 1.0 {version}\n");
    put(&root, "var/log/dpkg.log", &line);
    put(&root, "etc/os-release", "ID=debian\n");
    put(&root, "sys/block/sda/size", "2048\n");
    put(&root, "proc/loadavg", "0.1 0.2 0.3 1/2 3\n");
    let sink = Arc::new(recording::Recording::new());
    let args = InventoryArgs {
        socket: None,
        name: "inventory".to_owned(),
        spill: Some(folder.path().join("spill")),
        root,
        every_s: 300,
        full_every_s: 86_400,
        once: true,
        state: None,
    };
    run(args, sink.clone()).await.unwrap();
    sink.take_data()
}

// APS-7: the patch module gets patches and packages; the configuration module disks, patches,
// packages and the system; the storage module disks and alarms; none gets performance samples.
#[test]
fn modules_get_the_types_they_need() {
    top::run(async {
        let (patches, of_patches) =
            noting("patches", &["data inventory/patches", "data inventory/packages"]);
        let (configuration, of_configuration) = noting("configuration", &["data inventory"]);
        let (storage, of_storage) = noting("storage", &["data inventory/disks", "alarm"]);
        let modules = vec![patches, configuration, storage];
        let top = Top::start(&Arc::default(), modules).await;
        let published = inventory().await;
        let mut messages = vec![alarm(proxy(3), 1, "sda")];
        for (sequence, data) in (2..).zip(published) {
            let subclass = format!("{}/{}", data.kind, data.subtype);
            let mut one = message(proxy(3), sequence, Service::Data(data));
            one.header.subclass = subclass;
            messages.push(one);
        }
        for one in &messages {
            top.arrive(sender(proxy(3)), std::slice::from_ref(one)).await;
        }
        top.settled().await;
        let all = |seen: &Seen| -> BTreeSet<String> { seen.lock().unwrap().drain(..).collect() };
        let words = |words: &[&str]| -> BTreeSet<String> {
            words.iter().map(|w| (*w).to_owned()).collect()
        };
        let (disks, packages) = ("data inventory/disks", "data inventory/packages");
        let (patch, system) = ("data inventory/patches", "data inventory/system");
        assert!(messages.iter().any(|m| m.header.subclass == "performance/host"));
        assert_eq!(all(&of_patches), words(&[patch, packages]));
        assert_eq!(all(&of_configuration), words(&[disks, patch, packages, system]));
        assert_eq!(all(&of_storage), words(&[disks, "alarm "]));
        top.stop().await;
    });
}
