//! The inventory's collector on copies of other hosts, and on this one beside its own tools.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use integrators::inventory::performance::sample;
use integrators::inventory::snapshot::{Cache, Items, Section, Snapshot, collect};
use integrators::inventory::tree::DiskTree;
use serde_json::Value;

/// The folder of fixtures by others; none (said aloud) where they are not there.
fn fixtures(below: &str, cases: usize) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures");
    let folder =
        std::env::var_os("CALLHOME_FIXTURES").map_or_else(|| default.into(), PathBuf::from);
    let found = folder.join("inventory").join(below);
    if !found.is_dir() {
        eprintln!("{cases} cases left out: no {}; set CALLHOME_FIXTURES", found.display());
        return None;
    }
    Some(found)
}

fn look(root: &Path) -> Snapshot {
    collect(&DiskTree::open(root).unwrap(), &Snapshot::default(), &mut Cache::default())
}

fn section(snapshot: &Snapshot, section: Section) -> &Items {
    snapshot.sections.get(&section).unwrap_or_else(|| panic!("no {}", section.name()))
}

fn json(path: PathBuf) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn kernel_files_of_another_host_give_its_disks_system_and_performance() {
    let Some(root) = fixtures("procfs", 1) else { return };
    let found = look(&root);
    let system = section(&found, Section::System);
    let processors = &system["processors"];
    assert_eq!(processors["model"], "Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz");
    assert_eq!((processors["threads"].clone(), processors["cores"].clone()), (8.into(), 4.into()));
    assert_eq!(processors["sockets"], 1);
    assert_eq!(system["memory"]["total_bytes"], 15_666_184_u64 * 1024);
    let interface = &system["interface/eth0"];
    assert_eq!(interface["address"], "01:01:01:01:01:01");
    assert_eq!(
        (interface["mtu"].clone(), interface["speed_mbit_s"].clone()),
        (1500.into(), 1000.into())
    );
    for field in ["product_name", "bios_vendor", "product_uuid", "sys_vendor"] {
        let file = std::fs::read_to_string(root.join("sys/class/dmi/id").join(field)).unwrap();
        assert_eq!(system["firmware"][field], file.trim(), "{field}");
    }

    let disks = section(&found, Section::Disks);
    let controller = &disks["controller/nvme0"];
    assert_eq!(controller["model"], "Samsung SSD 970 PRO 512GB");
    assert_eq!(controller["firmware"], "1B2QEXP7");
    let mdstat = std::fs::read_to_string(root.join("proc/mdstat")).unwrap();
    let arrays = mdstat.lines().filter(|line| line.starts_with("md")).count();
    assert_eq!(disks.keys().filter(|name| name.starts_with("array/")).count(), arrays);
    assert_eq!(disks["array/md7"]["members_wanted"], 4);
    assert_eq!(disks["array/md7"]["members_working"], 3);

    let sample = sample(&DiskTree::open(&root).unwrap());
    assert_eq!(sample["load"]["15_min"], 0.05);
    assert_eq!(sample["processors"]["user_ms"], 3_018_540);
    assert_eq!(sample["tasks"]["blocked"], 1);
    assert_eq!(sample["disk/nvme0n1"]["read_bytes"], 4_643_973_u64 * 512);
    assert_eq!(sample["interface/eth0"]["sent_bytes"], 563_352_563_u64);
    assert!(!sample.contains_key("interface/vethf345468"));
}

/// The same for memory, interfaces, names.
fn lay_out_system(jc: &Path, root: &Path) {
    let free = json(jc.join("free.json"));
    put(
        root,
        "proc/meminfo",
        &format!("MemTotal: {} kB\nSwapTotal: {} kB\n", free[0]["total"], free[1]["total"]),
    );
    for interface in json(jc.join("ifconfig.json")) {
        let folder = format!("sys/class/net/{}", interface["name"].as_str().unwrap());
        let address = interface["mac_addr"].as_str().unwrap_or("00:00:00:00:00:00");
        put(root, &format!("{folder}/address"), address);
        put(root, &format!("{folder}/mtu"), &interface["mtu"].to_string());
    }
    let uname: Value =
        serde_json::from_slice(&std::fs::read(jc.join("uname-a.json")).unwrap()).unwrap();
    put(root, "etc/hostname", uname["node_name"].as_str().unwrap());
    put(root, "proc/sys/kernel/osrelease", uname["kernel_release"].as_str().unwrap());
}

/// Lays the listings of one host out as the files from which its tools made them.
fn lay_out(jc: &Path, root: &Path) {
    let mut status = String::new();
    for package in
        json(jc.join("dpkg-l-columns500.json")).iter().chain(&json(jc.join("dpkg-l-codes.json")))
    {
        let word = |field: &str| package[field].as_str().unwrap_or("unknown").to_string();
        let (name, _) = package["name"]
            .as_str()
            .unwrap()
            .split_once(':')
            .unwrap_or((package["name"].as_str().unwrap(), ""));
        let _ = writeln!(
            status,
            "Package: {name}\nStatus: {} ok {}\nArchitecture: {}\nVersion: {}\nDescription: {}\n",
            word("desired"),
            word("status"),
            word("architecture"),
            word("version"),
            word("description")
        );
    }
    put(root, "var/lib/dpkg/status", &status);
    for device in json(jc.join("lsblk-allcols.json")) {
        let name = device["name"].as_str().unwrap();
        let parent = device["pkname"].as_str();
        let folder = match parent {
            Some(disk) => format!("sys/block/{disk}/{name}"),
            None => format!("sys/block/{name}"),
        };
        let bytes = device["size_bytes"].as_u64().unwrap_or(0);
        put(root, &format!("{folder}/size"), &format!("{}\n", bytes / 512));
        if parent.is_some() {
            let number = name.trim_start_matches(|c: char| !c.is_ascii_digit());
            put(root, &format!("{folder}/partition"), number);
        }
        for (field, file) in
            [("model", "device/model"), ("vendor", "device/vendor"), ("serial", "device/serial")]
        {
            if let Some(text) = device[field].as_str() {
                put(root, &format!("{folder}/{file}"), &format!("{text}  \n"));
            }
        }
        let rotational = u8::from(device["rota"].as_bool().unwrap_or(false));
        put(root, &format!("{folder}/queue/rotational"), &format!("{rotational}\n"));
    }
    lay_out_system(jc, root);
    let mounts = json(jc.join("mount.json"));
    let mounts = mounts.iter().map(|mount| {
        let options = mount["options"].as_array().unwrap().iter().filter_map(Value::as_str);
        let options = options.collect::<Vec<_>>().join(",");
        let word = |field: &str| mount[field].as_str().unwrap().replace(' ', "\\040");
        format!("{} {} {} {options} 0 0\n", word("filesystem"), word("mount_point"), word("type"))
    });
    put(root, "proc/mounts", &mounts.collect::<String>());
}

#[test]
fn listings_of_an_ubuntu_host_are_found_again_in_what_is_collected_from_its_files() {
    let Some(jc) = fixtures("jc-ubuntu-18.04", 1) else { return };
    let root = tempfile::tempdir().unwrap();
    lay_out(&jc, root.path());
    let found = look(root.path());

    let packages = section(&found, Section::Packages);
    let listed = json(jc.join("dpkg-l-columns500.json"));
    assert!(listed.len() > 600);
    for package in &listed {
        let name = package["name"].as_str().unwrap().split(':').next().unwrap();
        let key = format!("{name}:{}", package["architecture"].as_str().unwrap());
        let collected = packages.get(&key).unwrap_or_else(|| panic!("{key}"));
        assert!(collected["version"].is_string(), "{key}");
    }

    let disks = section(&found, Section::Disks);
    for device in json(jc.join("lsblk-allcols.json")) {
        let name = device["name"].as_str().unwrap();
        let kind = if device["pkname"].is_null() { "disk" } else { "partition" };
        let collected = disks.get(&format!("{kind}/{name}")).unwrap_or_else(|| panic!("{name}"));
        let bytes = device["size_bytes"].as_u64().unwrap() / 512 * 512;
        assert_eq!(collected["size_bytes"], bytes, "{name}");
        if let Some(model) = device["model"].as_str().filter(|_| kind == "disk") {
            assert_eq!(collected["model"], model.trim(), "{name}");
        }
    }
    assert_eq!(disks["mount/"]["device"], "/dev/sda2");
    assert_eq!(disks["mount/"]["type"], "ext4");

    let system = section(&found, Section::System);
    assert_eq!(system["host"]["name"], "kbrazil-ubuntu");
    assert_eq!(system["kernel"]["release"], "4.15.0-65-generic");
    assert_eq!(system["memory"]["total_bytes"], 2_017_300_u64 * 1024);
    assert_eq!(system["interface/ens33"]["address"], "00:0c:29:99:45:17");
}

/// Lines that a program prints; none (said aloud) where it is missing.
fn printed(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output();
    let Ok(output) = output else {
        eprintln!("1 case left out: {program} is not installed here");
        return None;
    };
    assert!(output.status.success(), "{program} failed");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

// EXT-5
#[test]
fn packages_collected_on_this_host_are_those_of_dpkg_query() {
    let format = "${db:Status-Status}\\t${Package}:${Architecture}\\t${Version}\\n";
    let Some(listed) = printed("dpkg-query", &["-W", "-f", format]) else { return };
    let listed: BTreeSet<String> = listed
        .lines()
        .filter(|line| !line.starts_with("not-installed"))
        .map(str::to_string)
        .collect();
    let found = look(Path::new("/"));
    let packages =
        section(&found, Section::Packages).iter().filter(|(_, item)| item["manager"] == "dpkg");
    let collected: BTreeSet<String> = packages
        .map(|(key, item)| {
            format!(
                "{}\t{key}\t{}",
                item["status"].as_str().unwrap(),
                item["version"].as_str().unwrap()
            )
        })
        .collect();
    assert!(listed.len() > 50);
    assert_eq!(collected.symmetric_difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn disks_collected_on_this_host_are_those_of_lsblk() {
    let Some(listed) = printed("lsblk", &["-J", "-b", "-o", "NAME,SIZE,TYPE"]) else { return };
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let found = look(Path::new("/"));
    let disks = section(&found, Section::Disks);
    for device in listed["blockdevices"].as_array().unwrap() {
        let size = device["size"].as_u64().unwrap();
        if device["type"] == "disk" && size > 0 {
            let name = format!("disk/{}", device["name"].as_str().unwrap());
            assert_eq!(disks[&name]["size_bytes"], size, "{name}");
        }
    }
    assert!(!section(&found, Section::System)["os"]["id"].is_null());
}

#[test]
fn two_looks_at_a_quiet_host_read_packages_once_and_agree() {
    let tree = DiskTree::open(Path::new("/")).unwrap();
    let mut cache = Cache::default();
    let first = collect(&tree, &Snapshot::default(), &mut cache);
    let second = collect(&tree, &first, &mut cache);
    for section in [Section::Packages, Section::Patches] {
        assert_eq!(first.sections.get(&section), second.sections.get(&section));
    }
}
