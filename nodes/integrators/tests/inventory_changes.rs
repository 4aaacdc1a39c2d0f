//! The inventory integrator from flags to calls: a host is altered, and its change is told.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod recording;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use integrators::common::IntegratorError;
use integrators::inventory::{InventoryArgs, run};
use protocol::Refusal;
use recording::Recording;
use serde_json::Value;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    inventory: InventoryArgs,
}

/// A host in a folder, with the integrator's own folder beside it.
struct Host {
    folder: tempfile::TempDir,
    sink: Arc<Recording>,
}

impl Host {
    fn new() -> Self {
        let host = Self { folder: tempfile::tempdir().unwrap(), sink: Arc::new(Recording::new()) };
        host.put("etc/hostname", "web1\n");
        host.put("etc/os-release", "ID=debian\n");
        host.put("proc/loadavg", "0.1 0.2 0.3 1/2 3\n");
        host.put("sys/block/sda/size", "2048\n");
        host.packages(&[("bash", "5.2"), ("dpkg", "1.21")]);
        host
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn packages(&self, packages: &[(&str, &str)]) {
        let paragraphs = packages.iter().map(|(name, version)| {
            format!(
                "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\n\
                 Version: {version}\n\n"
            )
        });
        self.put("var/lib/dpkg/status", &paragraphs.collect::<String>());
    }

    async fn look(&self, more: &[&str]) -> Result<(), IntegratorError> {
        let root = self.root();
        let spill = self.folder.path().join("spill");
        let path = |path: &Path| path.to_str().unwrap().to_string();
        let mut words = vec!["inventory".to_string(), "--once".into()];
        words.extend(["--root".into(), path(&root), "--spill".into(), path(&spill)]);
        words.extend(more.iter().map(ToString::to_string));
        run(Flags::parse_from(words).inventory, self.sink.clone()).await
    }

    /// (class, subclass, document) of what came since the last time.
    fn told(&self) -> Vec<(String, String, Value)> {
        let read = |data: &protocol::service::Data| {
            assert_eq!(data.payload.encoding, "application/json");
            serde_json::from_slice(&data.payload.data).unwrap()
        };
        let told = self.sink.take_data();
        told.into_iter()
            .map(|data| (data.kind.clone(), data.subtype.clone(), read(&data)))
            .collect()
    }

    /// The same without samples.
    fn told_of_state(&self) -> Vec<(String, Value)> {
        let told = self.told().into_iter().filter(|(class, ..)| class == "inventory");
        told.map(|(_, subclass, document)| (subclass, document)).collect()
    }
}

#[tokio::test]
async fn each_small_type_of_data_is_published_under_a_name_of_its_own() {
    let host = Host::new();
    host.put("var/log/dpkg.log", "2026-01-01 00:00:00 upgrade bash:amd64 5.1 5.2\n");
    host.look(&[]).await.unwrap();
    let told = host.told();
    let names: Vec<String> = told.iter().map(|(c, s, _)| format!("{c}/{s}")).collect();
    let wanted = [
        "inventory/system",
        "inventory/disks",
        "inventory/packages",
        "inventory/patches",
        "performance/host",
    ];
    assert_eq!(names, wanted);
    for (class, _, document) in &told {
        assert_eq!(document["kind"], if class == "inventory" { "full" } else { "sample" });
    }
    assert_eq!(told[3].2["items"]["applied/bash:amd64"]["from"], "5.1");
}

// ARC-5
#[tokio::test]
async fn an_added_package_and_disk_become_change_records_and_nothing_else_does() {
    let host = Host::new();
    host.look(&[]).await.unwrap();
    host.told();
    host.look(&[]).await.unwrap();
    assert_eq!(host.told_of_state(), []);

    host.packages(&[("bash", "5.3"), ("curl", "8.1"), ("dpkg", "1.21")]);
    host.put("sys/block/sdb/size", "4096\n");
    host.look(&[]).await.unwrap();
    let told = host.told_of_state();
    assert_eq!(
        told.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["disks", "packages"]
    );
    assert_eq!(told[0].1["kind"], "changes");
    assert_eq!(told[0].1["added"]["disk/sdb"]["size_bytes"], 4096 * 512);
    let packages = &told[1].1;
    assert_eq!(packages["added"]["curl:amd64"]["version"], "8.1");
    assert_eq!(packages["changed"]["bash:amd64"]["from"]["version"], "5.2");
    assert_eq!(packages["changed"]["bash:amd64"]["to"]["version"], "5.3");
    assert_eq!(packages["removed"], serde_json::json!({}));

    host.packages(&[]);
    host.look(&[]).await.unwrap();
    let told = host.told_of_state();
    assert_eq!(told[0].1["removed"].as_object().unwrap().len(), 3);
    assert_eq!(told[0].1["base"], packages["set"]);
}

#[tokio::test]
async fn what_was_refused_for_now_is_told_at_the_next_look() {
    let host = Host::new();
    host.look(&[]).await.unwrap();
    host.told();
    host.packages(&[("bash", "5.3")]);
    host.sink.refuse(Some(Refusal::QueueFull));
    let error = host.look(&[]).await.unwrap_err();
    assert_eq!(error.exit_code(), 69);
    host.sink.refuse(None);
    host.look(&[]).await.unwrap();
    assert_eq!(host.told_of_state()[0].1["changed"]["bash:amd64"]["to"]["version"], "5.3");
}

#[tokio::test]
async fn when_the_state_is_lost_or_damaged_all_is_sent_again_in_the_same_bytes() {
    let host = Host::new();
    host.look(&[]).await.unwrap();
    let first = host.told_of_state();
    let state = host.folder.path().join("spill/inventory.state");
    std::fs::write(&state, "callhome-inventory 1 0\nrubbish").unwrap();
    host.look(&[]).await.unwrap();
    assert_eq!(host.told_of_state(), first);
    std::fs::remove_file(&state).unwrap();
    host.look(&[]).await.unwrap();
    assert_eq!(host.told_of_state(), first);
}

#[tokio::test]
async fn a_root_that_is_no_folder_is_an_error_of_configuration() {
    let host = Host::new();
    std::fs::remove_dir_all(host.root()).unwrap();
    assert_eq!(host.look(&[]).await.unwrap_err().exit_code(), 78);
}
