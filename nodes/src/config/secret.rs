//! A secret as configuration has it: the path of a file, read only when it is needed.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Longest secret read, in bytes: a chain of keys, not a disk.
pub const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Names the file of a secret; shows no more than its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile(PathBuf);

/// Why a secret could not be read; says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file is not there, or not ours to read.
    #[error("{0}: {1}; make the file, readable by its owner alone")]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// Others than the owner may read it.
    #[error("{0} may be read by others; run chmod 600 {0}")]
    Open(PathBuf),
    /// Longer than `SECRET_BYTES_MAX`, or not text.
    #[error("{0} is not a text of at most {SECRET_BYTES_MAX} bytes")]
    Unfit(PathBuf),
}

impl SecretFile {
    /// Of a value `file:PATH`.
    pub(crate) fn parse(reference: &str) -> Option<SecretFile> {
        let path = reference.strip_prefix("file:")?;
        let path = if path.starts_with("///") { &path[2..] } else { path };
        Some(SecretFile(PathBuf::from(path)))
    }

    /// Where the secret is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The secret, without the line end of its last line. Blocks on the disk.
    ///
    /// # Errors
    /// The file cannot be read, is readable by others than its owner, or is no text.
    pub fn read(&self) -> Result<String, SecretError> {
        let unreadable = |error| SecretError::Unreadable(self.0.clone(), error);
        let file = std::fs::File::open(&self.0).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(SecretError::Open(self.0.clone()));
        }
        let mut text = String::new();
        let read = file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text);
        if read.is_err() || text.len() as u64 > SECRET_BYTES_MAX {
            return Err(SecretError::Unfit(self.0.clone()));
        }
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_secret_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        let secret = SecretFile::parse(&format!("file:{}", path.display())).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(secret.read(), Err(SecretError::Open(_))));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(secret.read().unwrap(), "s3cret");
        assert!(!format!("{secret:?}").contains("s3cret"));
    }
}
