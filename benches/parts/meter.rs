//! What the kernel counts: CPU and memory of processes, and what one sync costs.
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// Microseconds in a tick of `/proc`: USER_HZ is 100 on Linux whatever the kernel's own is.
const TICK_US: u64 = 10_000;

/// CPU of a process and its threads since it began, user and system, µs.
pub fn cpu_us(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    // The name before may hold blanks.
    let fields = stat.rsplit(')').next().expect("fields");
    fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|f| f.parse::<u64>().expect("ticks"))
        .sum::<u64>()
        * TICK_US
}

/// CPU of all processes of the machine, µs.
pub fn machine_cpu_us() -> u64 {
    let stat = fs::read_to_string("/proc/stat").expect("Linux");
    let line = stat.lines().next().expect("a line");
    let fields: Vec<u64> =
        line.split_whitespace().skip(1).map(|f| f.parse().expect("ticks")).collect();
    // All but idle and waiting for the disk; guests stand in user already.
    (fields.iter().take(8).sum::<u64>() - fields[3] - fields[4]) * TICK_US
}

/// Most memory a process had, MiB.
pub fn peak_mib(pid: u32) -> f64 {
    status_mib(pid, "VmHWM:")
}

/// Memory a process has, MiB.
pub fn rss_mib(pid: u32) -> f64 {
    status_mib(pid, "VmRSS:")
}

/// A process and those it started.
pub fn with_children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let of_task =
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: String = of_task.collect();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    std::iter::once(pid).chain(children).collect()
}

fn status_mib(pid: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find(|l| l.starts_with(name)).expect("a line of that name");
    let kib: f64 = line.split_whitespace().nth(1).expect("a value").parse().expect("kB");
    kib / 1024.0
}

/// Appends `bytes` and syncs, one after the other, for `time`; how many a second.
pub fn appends_per_s(folder: &Path, bytes: usize, time: Duration) -> f64 {
    let path = folder.join("reference");
    let mut file = File::create(&path).expect("a file");
    let (block, started, mut count) = (vec![0x5a; bytes], Instant::now(), 0_u32);
    while started.elapsed() < time {
        file.write_all(&block).expect("written");
        file.sync_data().expect("synced");
        count += 1;
    }
    let rate = f64::from(count) / started.elapsed().as_secs_f64();
    fs::remove_file(path).expect("removed");
    rate
}
