//! Puts what is damaged into `damaged/`, each with a .json that says why.
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use extension::storage::{Place, QueueName};
use serde::Serialize;

use crate::{
    home::{self, DAMAGED},
    open::{Salvaged, SetAside},
};

/// Damaged store files that are kept; what is good in them was salvaged.
const STORES_KEPT: usize = 3;
/// Damaged runs that are kept, and of how many the queue is told.
pub(crate) const RUNS_KEPT: usize = 1000;

/// The .json beside what was set aside.
#[derive(Serialize)]
struct Why<'w> {
    file: &'w str,
    why: &'w str,
    at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'w str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    precedence: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    salvaged_runs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    salvaged_rows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<u64>,
}

#[allow(clippy::disallowed_methods, reason = "names what is set aside by the time")]
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// A path in `damaged/` that is free, with the milliseconds in its name.
fn free(dir: &Path, stem: &str, extension: &str) -> io::Result<(PathBuf, u64)> {
    let folder = dir.join(DAMAGED);
    home::private_folder(&folder)?;
    let mut at_ms = now_ms();
    loop {
        let path = folder.join(format!("{stem}-{at_ms:013}.{extension}"));
        if !path.exists() {
            return Ok((path, at_ms));
        }
        at_ms += 1;
    }
}

fn explain(path: &Path, why: &Why<'_>) -> io::Result<()> {
    home::write_private(&path.with_extension("json"), &serde_json::to_vec_pretty(why)?)
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Keeps the newest; names end in the time, so they sort by it.
fn keep_newest(dir: &Path, stem: &str, extension: &str, kept: usize) -> io::Result<()> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir.join(DAMAGED))? {
        let path = entry?.path();
        if name(&path).starts_with(stem) && path.extension().is_some_and(|e| e == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths.iter().rev().skip(kept) {
        fs::remove_file(path)?;
        let _ = fs::remove_file(path.with_extension("json"));
    }
    Ok(())
}

/// Moves the store's file away. The .json is there first.
pub(crate) fn store(
    dir: &Path,
    why: &str,
    salvaged: Salvaged,
    damaged: u64,
) -> io::Result<SetAside> {
    let (path, at_ms) = free(dir, "store", "redb")?;
    let what = Why {
        file: name(&path),
        why,
        at_ms,
        queue: None,
        precedence: None,
        position: None,
        salvaged_runs: Some(salvaged.runs),
        salvaged_rows: Some(salvaged.rows),
        damaged: Some(damaged),
    };
    explain(&path, &what)?;
    fs::rename(dir.join(home::STORE), &path)?;
    home::sync_folder(&dir.join(DAMAGED))?;
    keep_newest(dir, "store-", "redb", STORES_KEPT)?;
    Ok(SetAside { path, why: why.to_owned() })
}

/// Writes a damaged run down.
pub(crate) fn run(
    dir: &Path,
    (queue, place): (&QueueName, Place),
    bytes: &[u8],
) -> io::Result<SetAside> {
    let why = "the run does not have its digest";
    let (path, at_ms) = free(dir, "run", "bin")?;
    let what = Why {
        file: name(&path),
        why,
        at_ms,
        queue: Some(&queue.0),
        precedence: Some(place.precedence.word()),
        position: Some(place.position),
        salvaged_runs: None,
        salvaged_rows: None,
        damaged: None,
    };
    home::write_private(&path, bytes)?;
    explain(&path, &what)?;
    keep_newest(dir, "run-", "bin", RUNS_KEPT)?;
    Ok(SetAside { path, why: why.to_owned() })
}

/// How many things lie there.
pub(crate) fn count(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir.join(DAMAGED)).into_iter().flatten().flatten();
    entries.filter(|e| e.path().extension().is_some_and(|e| e == "redb" || e == "bin")).count()
        as u64
}
