//! A disk that is soon full.
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::text;

/// A small tmpfs, unmounted when dropped.
pub struct Small(TempDir);

impl Small {
    /// One of so many bytes; `None` where this machine allows no mount, which is said.
    pub fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let size = format!("size={bytes}");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output()
            .ok()?;
        if !done.status.success() {
            println!("skipped: full disk: mount is refused here: {}", text(&done.stderr).trim());
            return None;
        }
        Some(Self(folder))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut file = File::create(self.ballast()).expect("a file");
        let block = vec![0x5a_u8; 64 << 10];
        while file.write_all(&block).is_ok() {}
    }

    /// Takes away what filled it.
    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("it was filled");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
