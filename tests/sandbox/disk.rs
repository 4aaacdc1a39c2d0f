//! A disk whose power can be cut: a file system on a loop device that is shut down without a flush
//! of its journal, so that what was not synced is gone.
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use super::{text, wait_for};

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`, by Python: ioctl is unsafe code here.
const CUT: &str = "import fcntl, os, struct, sys\n\
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
/// Bytes of what is written beside the store without a sync, to see that it is gone.
const UNSYNCED_BYTES: usize = 256 << 10;

/// An ext4 on a loop device, unmounted when dropped.
pub struct Disk {
    home: TempDir,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let done = Command::new(program).args(arguments).output();
    let Output { status, stderr, .. } = done.map_err(|e| format!("{program}: {e}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", text(&stderr).trim())),
    }
}

impl Disk {
    /// One of so many bytes, after a first cut that shows how it goes here. `None` where this
    /// machine does not allow it, which is said.
    pub fn make(bytes: u64) -> Option<Self> {
        let disk = Self { home: tempfile::tempdir().expect("a folder") };
        let made = disk.format(bytes).and_then(|()| disk.mount()).and_then(|()| disk.try_cut());
        if let Err(why) = made {
            println!(
                "skipped: power cut: a loop device cannot be mounted or shut down here: {why}"
            );
            return None;
        }
        disk.again();
        Some(disk)
    }

    fn image(&self) -> String {
        self.home.path().join("image").display().to_string()
    }

    fn mounted_at(&self) -> PathBuf {
        self.home.path().join("disk")
    }

    fn format(&self, bytes: u64) -> Result<(), String> {
        let image = File::create(self.image()).and_then(|file| file.set_len(bytes));
        image.map_err(|e| e.to_string())?;
        std::fs::create_dir_all(self.mounted_at()).map_err(|e| e.to_string())?;
        run("mkfs.ext4", &["-q", "-F", &self.image()])
    }

    fn mount(&self) -> Result<(), String> {
        let at = self.mounted_at().display().to_string();
        run("mount", &["-t", "ext4", "-o", "loop", &self.image(), &at])
    }

    fn try_cut(&self) -> Result<(), String> {
        run("python3", &["-c", CUT, &self.mounted_at().display().to_string()])
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.mounted_at()
    }

    /// Syncs all that is on it: what a test has prepared is there after the cut.
    pub fn settle(&self) {
        run("sync", &["-f", &self.mounted_at().display().to_string()]).expect("synced");
    }

    /// Writes a file without a sync, as who forgot it does.
    pub fn write_unsynced(&self) {
        std::fs::write(self.unsynced(), vec![0x5a; UNSYNCED_BYTES]).expect("written");
    }

    fn unsynced(&self) -> PathBuf {
        self.path().join("unsynced")
    }

    /// Whether what was written without a sync is gone; the file is taken away.
    pub fn lost_unsynced(&self) -> bool {
        let left = std::fs::read(self.unsynced()).unwrap_or_default();
        let _ = std::fs::remove_file(self.unsynced());
        left != vec![0x5a; UNSYNCED_BYTES]
    }

    /// Cuts the power: from now on nothing reaches the disk.
    pub fn cut(&self) {
        self.try_cut().expect("shut down");
    }

    /// Power again: the journal is replayed, the file system mounted. Nobody may use it.
    pub fn again(&self) {
        wait_for("the disk to be free", || unmount(&self.mounted_at(), &[]).ok());
        // 1: errors were corrected, as the journal's replay is.
        let checked = Command::new("e2fsck").args(["-p", &self.image()]).output().expect("e2fsck");
        assert!(checked.status.code().is_some_and(|code| code <= 1), "{}", text(&checked.stdout));
        self.mount().expect("mounted again");
    }
}

fn unmount(at: &Path, flags: &[&str]) -> Result<(), String> {
    run("umount", &[flags, &[&at.display().to_string()]].concat())
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.mounted_at(), &["-l"]);
    }
}
