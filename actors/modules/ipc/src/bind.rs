//! Makes the socket's file: rights first, a dead one's replaced, a live one's left alone.
use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::Gid,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};

use crate::{
    limits::{BACKLOG, PATH_BYTES_MAX},
    peer::Rule,
};

/// Rights of the socket's file: owner and group (contract §3).
const MODE: u32 = 0o660;

/// Where the socket is, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Its file.
    pub path: PathBuf,
    /// Group that may connect, by name or number; none: that of the process.
    pub group: Option<String>,
}

impl Options {
    /// A socket for the owner and the process's group.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), group: None }
    }

    /// The same for another group.
    #[must_use]
    pub fn group(self, group: &str) -> Self {
        Self { group: Some(group.to_owned()), ..self }
    }
}

/// Why there is no socket. Says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel takes 107 bytes.
    #[error(
        "socket path {} has {length} bytes; at most {PATH_BYTES_MAX}: choose a shorter folder",
        path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Another process serves it.
    #[error("socket {} is in use: stop its proxy, or choose another path", .0.display())]
    InUse(PathBuf),
    /// A file of another kind lies there; it is left alone.
    #[error("{} exists and is no socket: remove it, or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The group's name is not known here.
    #[error("group {0:?} does not exist: make it, or name another")]
    NoSuchGroup(String),
    /// Anything else.
    #[error("socket {}: cannot {doing}: {error}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl BindError {
    /// Whether the address is in use (exit code 69) and not the configuration wrong (78).
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::InUse(_))
    }
}

/// A socket that listens. Its file goes when it is dropped.
#[derive(Debug)]
pub struct Socket {
    pub(crate) listener: UnixListener,
    pub(crate) rule: Rule,
    path: PathBuf,
    inode: (u64, u64),
}

impl Socket {
    /// Makes the socket with mode 0660. The folder must exist. The file of a process that died is
    /// replaced, that of one that lives refused. Nobody can connect before the rights are right.
    pub fn bind(options: &Options) -> Result<Self, BindError> {
        let path = &options.path;
        let length = path.as_os_str().as_bytes().len();
        if length > PATH_BYTES_MAX {
            return Err(BindError::TooLong { path: path.clone(), length });
        }
        let group = options.group.as_deref().map(group_number).transpose()?;
        remove_dead(path)?;
        let (listener, inode, gid) = make(path, group).map_err(|(doing, error)| BindError::Io {
            path: path.clone(),
            doing,
            error,
        })?;
        let rule = Rule { owner: rustix::process::geteuid().as_raw(), group: gid };
        Ok(Self { listener, rule, path: path.clone(), inode })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Only our own: another process may have put its socket there meanwhile.
        let ours = fs::symlink_metadata(&self.path).map(|m| (m.dev(), m.ino()) == self.inode);
        if ours.unwrap_or(false) {
            // What stays is a dead socket, replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

type Step = (&'static str, io::Error);

fn make(path: &Path, group: Option<u32>) -> Result<(UnixListener, (u64, u64), u32), Step> {
    let step = |doing| move |error: rustix::io::Errno| (doing, io::Error::from(error));
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(step("make a socket"))?;
    let address = SocketAddrUnix::new(path).map_err(step("use the path"))?;
    bind(&socket, &address).map_err(step("make the file; is its folder there?"))?;
    let rights = || -> Result<_, Step> {
        if let Some(group) = group {
            rustix::fs::chown(path, None, Some(Gid::from_raw(group)))
                .map_err(step("give the file to the group"))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))
            .map_err(|e| ("set the rights of the file", e))?;
        let made = fs::symlink_metadata(path).map_err(|e| ("look at the file", e))?;
        // Only now can anybody connect.
        listen(&socket, BACKLOG).map_err(step("listen"))?;
        Ok(((made.dev(), made.ino()), made.gid()))
    };
    match rights() {
        Ok((inode, gid)) => Ok((UnixListener::from(socket), inode, gid)),
        Err(error) => {
            let _ = fs::remove_file(path);
            Err(error)
        }
    }
}

/// Removes the socket of a process that died.
fn remove_dead(path: &Path) -> Result<(), BindError> {
    let io = |doing| move |error| BindError::Io { path: path.to_owned(), doing, error };
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(io("look at the file"))?,
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io("remove the file of a dead process"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(BindError::InUse(path.to_owned())),
    }
}

fn group_number(group: &str) -> Result<u32, BindError> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    find_group(&groups, group).ok_or_else(|| BindError::NoSuchGroup(group.to_owned()))
}

fn find_group(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let number = (fields.next() == Some(name)).then(|| fields.nth(1)).flatten();
        number.and_then(|n| n.parse().ok())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // IPC-2
    #[test]
    fn the_file_is_for_owner_and_group_only_and_goes_with_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = Socket::bind(&Options::new(&path)).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a process that dies leaves its file");
        let live = Socket::bind(&Options::new(&path)).unwrap();
        let error = Socket::bind(&Options::new(&path)).unwrap_err();
        assert!(error.is_in_use() && error.to_string().contains("stop its proxy"), "{error}");
        assert!(UnixStream::connect(&path).is_ok());
        drop(live);
    }

    #[test]
    fn a_file_that_is_no_socket_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        fs::write(&path, "precious").unwrap();
        let error = Socket::bind(&Options::new(&path)).unwrap_err();
        assert!(matches!(error, BindError::NotASocket(_)));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_path_the_kernel_would_not_take_is_named_with_its_length() {
        let folder = tempfile::tempdir().unwrap();
        let at = |length: usize| {
            let name = "x".repeat(length - folder.path().as_os_str().len() - 1);
            Options::new(folder.path().join(name))
        };
        let error = Socket::bind(&at(108)).unwrap_err().to_string();
        assert!(error.contains("has 108 bytes; at most 107"), "{error}");
        assert!(Socket::bind(&at(107)).is_ok());
    }

    #[test]
    fn groups_are_found_by_name_and_unknown_ones_are_named() {
        let file = "root:x:0:\ndaemon:x:1:\ncallhome:x:998:snmp,syslog\nbroken\n";
        assert_eq!(find_group(file, "callhome"), Some(998));
        assert_eq!(find_group(file, "call"), None);
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(folder.path().join("s")).group("no-such-group");
        let error = Socket::bind(&options).unwrap_err().to_string();
        assert!(error.contains("\"no-such-group\" does not exist"), "{error}");
    }
}
