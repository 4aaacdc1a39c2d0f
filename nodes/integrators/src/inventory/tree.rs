//! Where facts are read: files below a root folder, and a few programs on the live host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// Bytes of one file read whole: kernel files are far smaller, a broken one must not fill memory.
pub const FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Names taken of one folder: no host has more disks or interfaces that matter.
pub const FOLDER_ENTRIES: usize = 16_384;
/// Seconds a helper program (`rpm`, `apt-helper`) may take: on a slow disk rpm takes seconds.
pub const PROGRAM_S: u64 = 60;
/// Chunks of 64 KiB a helper program may be ahead of us.
const PROGRAM_CHUNKS: usize = 4;
/// Bytes of one line: the longest in a package list is below 64 KiB.
const LINE_BYTES: usize = 1024 * 1024;

/// What is free on a file system, in bytes and in files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Space {
    /// Size of the file system in bytes.
    pub total_bytes: u64,
    /// Bytes that programs without privileges can still use.
    pub available_bytes: u64,
    /// Files (inodes) it can hold; 0 where that has no limit.
    pub files: u64,
    /// Of these free.
    pub files_free: u64,
}

/// Says when something changed: length and modification time in nanoseconds.
pub type Stamp = (u64, i64);

/// A host as files: the live one, a copy of one, or a test's. Paths have no leading slash.
pub trait Tree: Send + Sync {
    /// The file's bytes, at most [`FILE_BYTES`]; none when it cannot be read.
    fn read(&self, path: &str) -> Option<Vec<u8>>;
    /// The names in a folder, sorted; empty when it cannot be read.
    fn list(&self, path: &str) -> Vec<String>;
    /// Each line of a file of any size, compressed package lists too; false when it cannot be read.
    fn lines(&self, path: &str, each: &mut dyn FnMut(&[u8])) -> bool;
    /// Each line that a program prints; false when it is not there, fails, or this is not live.
    fn program(&self, program: &str, arguments: &[&str], each: &mut dyn FnMut(&[u8])) -> bool;
    /// Room on the file system mounted there; none unless live.
    fn space(&self, mount: &str) -> Option<Space>;
    /// Length and time of a file, to see cheaply whether it changed.
    fn stamp(&self, path: &str) -> Option<Stamp>;

    /// The file as text, trimmed; none when absent or empty.
    fn text(&self, path: &str) -> Option<String> {
        let bytes = self.read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!text.is_empty()).then(|| text.to_string())
    }

    /// The file as an unsigned decimal number.
    fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }
}

/// Files below a folder; the folder `/` is the live host.
pub struct DiskTree {
    root: PathBuf,
    live: bool,
}

impl DiskTree {
    /// Opens a root folder.
    ///
    /// # Errors
    /// The folder's path cannot be resolved, or it is no folder.
    pub fn open(root: &Path) -> std::io::Result<Self> {
        let root = root.canonicalize()?;
        if !root.is_dir() {
            return Err(std::io::Error::other("it is not a folder"));
        }
        let live = root == Path::new("/");
        Ok(Self { root, live })
    }

    /// The real path, unless a link leads out of the root (it would tell of another host).
    fn inside(&self, path: &str) -> Option<PathBuf> {
        let relative = Path::new(path.trim_start_matches('/'));
        if relative.components().any(|part| matches!(part, Component::ParentDir)) {
            return None;
        }
        let real = self.root.join(relative).canonicalize().ok()?;
        real.starts_with(&self.root).then_some(real)
    }
}

impl Tree for DiskTree {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.inside(path)?).ok()?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        file.take(FILE_BYTES).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    fn list(&self, path: &str) -> Vec<String> {
        let Some(entries) = self.inside(path).and_then(|path| std::fs::read_dir(path).ok()) else {
            return Vec::new();
        };
        let names = entries.flatten().take(FOLDER_ENTRIES);
        let mut names: Vec<String> =
            names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    fn lines(&self, path: &str, each: &mut dyn FnMut(&[u8])) -> bool {
        let Some(real) = self.inside(path) else {
            return false;
        };
        if ["lz4", "gz", "xz", "bz2", "zst"]
            .iter()
            .any(|end| real.extension() == Some(end.as_ref()))
        {
            let Some(name) = real.to_str() else { return false };
            return self.program("/usr/lib/apt/apt-helper", &["cat-file", name], each);
        }
        let Ok(file) = File::open(real) else {
            return false;
        };
        each_line(&mut BufReader::with_capacity(64 * 1024, file), each).is_ok()
    }

    fn program(&self, program: &str, arguments: &[&str], each: &mut dyn FnMut(&[u8])) -> bool {
        self.live && run(program, arguments, each).unwrap_or(false)
    }

    fn space(&self, mount: &str) -> Option<Space> {
        if !self.live {
            return None;
        }
        let found = rustix::fs::statvfs(mount).ok()?;
        Some(Space {
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            available_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            files: found.f_files,
            files_free: found.f_ffree,
        })
    }

    fn stamp(&self, path: &str) -> Option<Stamp> {
        use std::os::unix::fs::MetadataExt as _;
        let found = self.inside(path)?.metadata().ok()?;
        Some((found.len(), found.mtime().saturating_mul(1_000_000_000) + found.mtime_nsec()))
    }
}

/// Calls `each` with every line, without its end; a line above 1 MiB is an error.
fn each_line(reader: &mut impl BufRead, each: &mut dyn FnMut(&[u8])) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let taken = reader.by_ref().take(LINE_BYTES as u64).read_until(b'\n', &mut line)?;
        if taken == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if taken == LINE_BYTES {
            return Err(std::io::Error::other("a line above 1 MiB"));
        }
        each(&line);
    }
}

/// Runs a program without a shell, without input, in the C locale, for at most [`PROGRAM_S`].
fn run(program: &str, arguments: &[&str], each: &mut dyn FnMut(&[u8])) -> std::io::Result<bool> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Ended(command.spawn()?);
    let output = child.0.stdout.take().ok_or_else(|| std::io::Error::other("no output"))?;
    let (sender, chunks) = sync_channel::<Vec<u8>>(PROGRAM_CHUNKS);
    std::thread::spawn(move || {
        let mut output = output;
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(taken) = output.read(&mut chunk) {
            if taken == 0 || sender.send(chunk[..taken].to_vec()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + Duration::from_secs(PROGRAM_S);
    let mut reader = BufReader::new(Chunks { chunks, deadline, rest: Vec::new(), used: 0 });
    each_line(&mut reader, each)?;
    Ok(child.0.wait()?.success())
}

/// A child process that does not outlive its reader.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What another thread reads, with a deadline on each wait.
struct Chunks {
    chunks: Receiver<Vec<u8>>,
    deadline: Instant,
    rest: Vec<u8>,
    used: usize,
}

impl Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        if self.used == self.rest.len() {
            let left = self.deadline.saturating_duration_since(Instant::now());
            self.rest = match self.chunks.recv_timeout(left) {
                Ok(chunk) => chunk,
                Err(Disconnected) => return Ok(0),
                Err(Timeout) => return Err(std::io::ErrorKind::TimedOut.into()),
            };
            self.used = 0;
        }
        let taken = into.len().min(self.rest.len() - self.used);
        into[..taken].copy_from_slice(&self.rest[self.used..self.used + taken]);
        self.used += taken;
        Ok(taken)
    }
}

/// A tree in memory: path to content. Programs are found by name and arguments joined by spaces.
#[derive(Clone, Debug, Default)]
pub struct MapTree {
    /// Files by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What programs print.
    pub programs: BTreeMap<String, Vec<u8>>,
}

impl MapTree {
    /// A tree of these files.
    #[must_use]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_string(), (*text).into()));
        Self { files: files.collect(), programs: BTreeMap::new() }
    }
}

impl Tree for MapTree {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.files.get(path).cloned()
    }

    fn list(&self, path: &str) -> Vec<String> {
        let below = format!("{path}/");
        let inside = self.files.keys().filter_map(|file| file.strip_prefix(&below));
        let mut names: Vec<String> =
            inside.filter_map(|rest| rest.split('/').next()).map(str::to_string).collect();
        names.dedup();
        names
    }

    fn lines(&self, path: &str, each: &mut dyn FnMut(&[u8])) -> bool {
        let Some(bytes) = self.files.get(path) else {
            return false;
        };
        each_line(&mut bytes.as_slice(), each).is_ok()
    }

    fn program(&self, program: &str, arguments: &[&str], each: &mut dyn FnMut(&[u8])) -> bool {
        let Some(printed) = self.programs.get(&format!("{program} {}", arguments.join(" "))) else {
            return false;
        };
        each_line(&mut printed.as_slice(), each).is_ok()
    }

    fn space(&self, _mount: &str) -> Option<Space> {
        None
    }

    fn stamp(&self, path: &str) -> Option<Stamp> {
        Some((self.files.get(path)?.len() as u64, 0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panic")]
    use super::*;

    #[test]
    fn a_link_that_leads_out_of_the_root_is_not_followed() {
        let folder = std::env::temp_dir().join(format!("callhome-tree-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("etc")).unwrap();
        std::fs::write(folder.join("etc/real"), "inside\n").unwrap();
        let _ = std::os::unix::fs::symlink("/proc/version", folder.join("etc/out"));
        let _ = std::os::unix::fs::symlink("real", folder.join("etc/in"));
        let tree = DiskTree::open(&folder).unwrap();
        assert_eq!(tree.text("etc/in").as_deref(), Some("inside"));
        assert_eq!(tree.text("etc/out"), None);
        assert_eq!(tree.text("../../etc/hostname"), None);
        assert_eq!(tree.list("etc"), ["in", "out", "real"]);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_program_that_is_not_there_or_fails_gives_false() {
        let tree = DiskTree { root: "/".into(), live: true };
        let mut seen = Vec::new();
        assert!(tree.program("/bin/echo", &["one"], &mut |line| seen.push(line.to_vec())));
        assert_eq!(seen, [b"one".to_vec()]);
        assert!(!tree.program("/bin/false", &[], &mut |_| {}));
        assert!(!tree.program("/does/not/exist", &[], &mut |_| {}));
    }
}
