//! Looks at a suspicious file in a process of its own, which damage may then end.
use std::{
    ffi::OsString,
    io,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::examine::examine;

/// A probe that takes longer hangs: this much…
const LIMIT: Duration = Duration::from_secs(60);
/// …and one second for so many bytes: a slow disk, read twice.
const BYTES_A_SECOND: u64 = 16 << 20;
/// How often it is asked whether the probe ended.
const ASK_EACH: Duration = Duration::from_millis(5);

/// Reads a store's file as a whole and changes nothing; the file is good, or only runs in it are
/// damaged. It may panic or abort where the file is not: call it in a process of its own, named
/// by [`Options::probe`](crate::Options::probe), which exits 0 on `Ok` and otherwise on `Err`.
///
/// # Errors
/// What is wrong with the file, or with reading it.
pub fn probe(path: &Path) -> Result<(), String> {
    examine(path, true).map(drop).map_err(|trouble| trouble.to_string())
}

/// Runs the probe; `Ok(Some(why))` where it did not find the file good.
pub(crate) fn run(command: &[OsString], path: &Path) -> io::Result<Option<String>> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(probe(path).err());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let limit = LIMIT + Duration::from_secs(std::fs::metadata(path)?.len() / BYTES_A_SECOND);
    match wait(&mut child, limit)? {
        Some(status) if status.success() => Ok(None),
        Some(status) => Ok(Some(format!("reading it in a process of its own: {status}"))),
        None => Ok(Some(format!("reading it did not end within {} s", limit.as_secs()))),
    }
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<std::process::ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(ASK_EACH);
    }
}
