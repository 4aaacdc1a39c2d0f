//! The system configuration: operating system, kernel, processors, memory, interfaces, firmware.

use std::collections::BTreeSet;

use serde_json::Value;

use super::snapshot::{Items, cut, item};
use super::tree::Tree;

/// Bytes of an instance's name (CONTRACT §7).
const NAME_BYTES: usize = 256;
/// Fields of os-release that say what runs; the rest are addresses and colours.
const OS_FIELDS: [&str; 7] =
    ["ID", "NAME", "PRETTY_NAME", "VARIANT_ID", "VERSION", "VERSION_CODENAME", "VERSION_ID"];
/// Fields below /sys/class/dmi/id; serial numbers can be read by root alone.
const DMI_FIELDS: [&str; 18] = [
    "bios_date",
    "bios_release",
    "bios_vendor",
    "bios_version",
    "board_name",
    "board_serial",
    "board_vendor",
    "board_version",
    "chassis_serial",
    "chassis_type",
    "chassis_vendor",
    "product_family",
    "product_name",
    "product_serial",
    "product_sku",
    "product_uuid",
    "product_version",
    "sys_vendor",
];

/// What the host is called: the instance to which its state belongs.
#[must_use]
pub fn hostname(tree: &dyn Tree) -> String {
    let files = ["proc/sys/kernel/hostname", "etc/hostname"];
    let named = files.iter().find_map(|path| tree.text(path));
    let name = named.as_deref().and_then(|text| text.lines().next()).unwrap_or("localhost");
    let mut end = name.len().min(NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_string()
}

/// How the host is set up; nothing in it changes by itself from one look to the next (DAT-15).
#[must_use]
pub fn system(tree: &dyn Tree) -> Items {
    let mut items = Items::new();
    let mut put = |name: String, value: Value| {
        if value.as_object().is_some_and(|fields| !fields.is_empty()) {
            items.insert(name, value);
        }
    };
    put("os".into(), os(tree));
    put("kernel".into(), kernel(tree));
    put("processors".into(), processors(&tree.text("proc/cpuinfo").unwrap_or_default()));
    put("memory".into(), memory(tree));
    let named = ["proc/sys/kernel/hostname", "etc/hostname"].iter().find_map(|at| tree.text(at));
    put("host".into(), item([("name", named.map(|name| cut(&name)).into())]));
    for name in tree.list("sys/class/net") {
        // The host's ends of containers' cables come and go with them.
        if !name.starts_with("veth") {
            put(format!("interface/{name}"), interface(tree, &name));
        }
    }
    let fields = DMI_FIELDS.iter().filter_map(|field| {
        let value = tree.text(&format!("sys/class/dmi/id/{field}"))?;
        Some(((*field).to_string(), cut(&value).into()))
    });
    put("firmware".into(), Value::Object(fields.collect()));
    items
}

fn os(tree: &dyn Tree) -> Value {
    let files = ["etc/os-release", "usr/lib/os-release"];
    let text = files.iter().find_map(|path| tree.text(path)).unwrap_or_default();
    let fields = text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']);
        OS_FIELDS.contains(&name).then(|| (name.to_lowercase(), cut(value).into()))
    });
    Value::Object(fields.collect())
}

fn kernel(tree: &dyn Tree) -> Value {
    let version = tree.text("proc/version");
    // "Linux version 6.1.0 (who@where) …": the third word, where the newer file is not there.
    let third = version.as_deref().and_then(|text| text.split_whitespace().nth(2));
    let release = tree.text("proc/sys/kernel/osrelease").or_else(|| third.map(str::to_string));
    item([
        ("release", release.map(|text| cut(&text)).into()),
        ("version", version.map(|text| cut(&text)).into()),
    ])
}

fn processors(cpuinfo: &str) -> Value {
    let (mut model, mut vendor) = (Value::Null, Value::Null);
    let (mut sockets, mut cores) = (BTreeSet::new(), BTreeSet::new());
    let (mut threads, mut socket) = (0_u64, String::new());
    for line in cpuinfo.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match name.trim() {
            "processor" => threads += 1,
            "model name" if model.is_null() => model = cut(value).into(),
            "vendor_id" | "CPU implementer" if vendor.is_null() => vendor = cut(value).into(),
            "physical id" => {
                socket = value.to_string();
                sockets.insert(socket.clone());
            }
            "core id" => {
                cores.insert((socket.clone(), value.to_string()));
            }
            _ => {}
        }
    }
    let known = |count: usize| if count == 0 { Value::Null } else { count.into() };
    item([
        ("model", model),
        ("vendor", vendor),
        ("sockets", known(sockets.len())),
        ("cores", known(cores.len())),
        ("threads", if threads == 0 { Value::Null } else { threads.into() }),
    ])
}

/// A line `Name:  123 kB` of /proc/meminfo in bytes.
#[must_use]
pub fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

fn memory(tree: &dyn Tree) -> Value {
    let meminfo = tree.text("proc/meminfo").unwrap_or_default();
    item([
        ("total_bytes", meminfo_bytes(&meminfo, "MemTotal").into()),
        ("swap_total_bytes", meminfo_bytes(&meminfo, "SwapTotal").into()),
    ])
}

fn interface(tree: &dyn Tree, name: &str) -> Value {
    let at = |field: &str| format!("sys/class/net/{name}/{field}");
    let text = |field: &str| Value::from(tree.text(&at(field)).map(|text| cut(&text)));
    // −1 says that the speed is not known.
    let speed = tree.number(&at("speed"));
    item([
        ("address", text("address")),
        ("mtu", tree.number(&at("mtu")).into()),
        ("state", text("operstate")),
        ("duplex", text("duplex")),
        ("speed_mbit_s", speed.into()),
        ("hardware_type", tree.number(&at("type")).into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::super::tree::MapTree;
    use super::*;

    #[test]
    fn system_configuration_is_read_from_the_kernels_files() {
        let cpu = "processor\t: 0\nvendor_id\t: X\nmodel name\t: M\nphysical id\t: 0\n\
            core id\t\t: 0\n\nprocessor\t: 1\nphysical id\t: 0\ncore id\t\t: 0\n\n\
            processor\t: 2\nphysical id\t: 1\ncore id\t\t: 0\n";
        let tree = MapTree::of(&[
            ("proc/cpuinfo", cpu),
            ("proc/meminfo", "MemTotal:  2 kB\nSwapTotal:   0 kB\n"),
            ("proc/version", "Linux version 6.1.0-9 (a@b) #1 SMP\n"),
            ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nHOME_URL=x\n"),
            ("etc/hostname", "web1\n"),
            ("sys/class/net/eth0/address", "02:00:00:00:00:01\n"),
            ("sys/class/net/eth0/speed", "-1\n"),
            ("sys/class/net/veth1/address", "02:00:00:00:00:02\n"),
            ("sys/class/dmi/id/product_name", "Rack 1\n"),
        ]);
        let found = system(&tree);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        let wanted = ["firmware", "host", "interface/eth0", "kernel", "memory", "os", "processors"];
        assert_eq!(names, wanted);
        let processors = found["processors"].to_string();
        assert!(processors.contains(r#""sockets":2"#) && processors.contains(r#""cores":2"#));
        assert_eq!(found["processors"]["threads"], 3);
        assert_eq!(found["memory"]["total_bytes"], 2048);
        assert_eq!(found["kernel"]["release"], "6.1.0-9");
        assert_eq!(found["os"]["version_id"], "12");
        assert_eq!(found["interface/eth0"]["speed_mbit_s"], Value::Null);
        assert_eq!(hostname(&tree), "web1");
    }

    #[test]
    fn a_host_without_a_name_is_localhost() {
        assert_eq!(hostname(&MapTree::default()), "localhost");
        assert!(system(&MapTree::default()).is_empty());
    }
}
