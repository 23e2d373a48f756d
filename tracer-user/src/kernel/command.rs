//! Starting the command: found as a shell would find it, run as the user who called.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io,
    io::Read as _,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use nix::unistd::{Gid, Uid, User, getgrouplist, gettid};
use thiserror::Error;

use super::signals::Inherited;
use crate::{golang, id::Tid};

/// Why a command cannot be started. `env` and `timeout` use the same exit codes.
#[derive(Debug, Error)]
pub enum CommandError {
    #[error("{0}: command not found")]
    NotFound(String),
    #[error("{path}: cannot be executed: {reason}")]
    NotExecutable { path: String, reason: String },
    #[error("no user {0}")]
    NoUser(String),
    #[error("user {name}")]
    User { name: String, source: io::Error },
}

/// The file that `name` stands for: a path if it has a slash, else searched in `path_variable`.
pub fn resolve(name: &OsStr, path_variable: Option<&OsStr>) -> Result<PathBuf, CommandError> {
    let shown = || name.to_string_lossy().into_owned();
    if name.as_encoded_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CommandError::NotFound(shown())),
            Err(error) => Err(CommandError::NotExecutable { path: shown(), reason: plain(&error) }),
        };
    }
    let mut refused = None;
    for dir in std::env::split_paths(path_variable.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"))) {
        let path = dir.join(name);
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused = Some((path, error)),
            Err(_) => {}
        }
    }
    match refused {
        Some((path, error)) if !name.is_empty() => {
            Err(CommandError::NotExecutable { path: path.display().to_string(), reason: plain(&error) })
        }
        _ => Err(CommandError::NotFound(shown())),
    }
}

/// Whether `execve` can be expected to take it. (A file without a format that the kernel knows is run by the shell, as
/// execvp does; an ELF file that is broken or another machine's is not.)
fn executable(path: &Path) -> io::Result<()> {
    let meta = std::fs::metadata(path)?;
    if meta.is_dir() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is a directory"));
    }
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not a regular file"));
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "permission denied (no execute bit)"));
    }
    let mut head = Vec::new();
    match File::open(path).and_then(|file| file.take(64).read_to_end(&mut head)) {
        Ok(_) if head.starts_with(b"\x7fELF") && !golang::is_x86_64(&head) => {
            let what = format!("it is {}", golang::what_is(&head));
            Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
        }
        // A program need not be readable to be executed.
        _ => Ok(()),
    }
}

fn plain(error: &io::Error) -> String {
    error.get_ref().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Who the command runs as, where that is not who we are.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: String,
    pub uid: Uid,
    pub gid: Gid,
    pub groups: Vec<Gid>,
    pub home: PathBuf,
}

impl Identity {
    /// By `--user`, else by SUDO_UID, else nobody else: the command runs as we do.
    pub fn choose(user: Option<&str>, as_root: bool) -> Result<Option<Self>, CommandError> {
        if as_root || !nix::unistd::geteuid().is_root() {
            return Ok(None);
        }
        let found = match (user, std::env::var("SUDO_UID")) {
            (Some(name), _) => User::from_name(name)
                .map_err(|error| CommandError::User { name: name.to_owned(), source: error.into() })?
                .ok_or_else(|| CommandError::NoUser(name.to_owned()))?,
            (None, Ok(text)) => {
                let uid = text.parse().map(Uid::from_raw).map_err(|_| CommandError::NoUser(format!("SUDO_UID={text}")))?;
                if uid.is_root() {
                    return Ok(None);
                }
                User::from_uid(uid)
                    .map_err(|error| CommandError::User { name: text.clone(), source: error.into() })?
                    .ok_or(CommandError::NoUser(text))?
            }
            (None, Err(_)) => return Ok(None),
        };
        let name = CString::new(found.name.as_str()).unwrap_or_default();
        let groups = getgrouplist(&name, found.gid)
            .map_err(|error| CommandError::User { name: found.name.clone(), source: error.into() })?;
        Ok(Some(Self { name: found.name, uid: found.uid, gid: found.gid, groups, home: found.dir }))
    }
}

/// What to start.
pub struct Launch {
    pub program: PathBuf,
    /// The name by which the command was called (argv[0]).
    pub name: OsString,
    pub args: Vec<OsString>,
    pub identity: Option<Identity>,
    /// Signal state that the command is to have: what lifetrace was started with.
    pub inherited: Inherited,
    /// Its stdout, where that is not ours.
    pub stdout: Option<OwnedFd>,
}

/// A thread that waits to start the command, so that the BPF side can be told to follow what this very thread forks.
pub struct Launcher {
    pub tid: Tid,
    go: mpsc::Sender<()>,
    thread: JoinHandle<io::Result<Child>>,
}

impl Launcher {
    pub fn prepare(launch: Launch) -> io::Result<Self> {
        let (tell_tid, hear_tid) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let thread = thread::Builder::new().name("launcher".into()).spawn(move || {
            let _ = tell_tid.send(gettid());
            if wait.recv().is_err() {
                return Err(io::Error::other("not started"));
            }
            start(launch)
        })?;
        let tid = hear_tid.recv().map_err(io::Error::other)?;
        Ok(Self { tid: Tid(tid.as_raw().unsigned_abs()), go, thread })
    }

    /// Starts the command on the waiting thread. Its exec may be held by the exec gate, so this does not wait for it.
    pub fn go(self) -> JoinHandle<io::Result<Child>> {
        let _ = self.go.send(());
        self.thread
    }
}

fn start(launch: Launch) -> io::Result<Child> {
    let Launch { program, name, args, identity, inherited, stdout } = launch;
    let mut command = Command::new(program);
    command.arg0(name).args(args);
    if let Some(stdout) = stdout {
        command.stdout(stdout);
    }
    if let Some(identity) = &identity {
        command.env("HOME", &identity.home).env("USER", &identity.name).env("LOGNAME", &identity.name);
    }
    // SAFETY: the closure runs between fork and exec; it makes system calls only, on values made before the fork.
    unsafe {
        command.pre_exec(move || {
            if let Some(identity) = &identity {
                nix::unistd::setgroups(&identity.groups)?;
                nix::unistd::setgid(identity.gid)?;
                nix::unistd::setuid(identity.uid)?;
            }
            inherited.restore()
        });
    }
    command.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a missing command, a directory and a file without execute bit are told apart as `env` does.
    #[test]
    fn missing_and_unusable_commands() {
        let dir = tempfile::tempdir().unwrap();
        let plain_file = dir.path().join("plain");
        std::fs::write(&plain_file, "text").unwrap();
        let path = Some(dir.path().as_os_str());
        assert!(matches!(resolve(OsStr::new("nothing-here"), path), Err(CommandError::NotFound(_))));
        assert!(matches!(resolve(OsStr::new("/nothing/here"), path), Err(CommandError::NotFound(_))));
        assert!(matches!(resolve(OsStr::new("plain"), path), Err(CommandError::NotExecutable { .. })));
        assert!(matches!(resolve(plain_file.as_os_str(), path), Err(CommandError::NotExecutable { .. })));
        assert!(matches!(resolve(dir.path().as_os_str(), path), Err(CommandError::NotExecutable { .. })));
        assert!(matches!(resolve(OsStr::new(""), path), Err(CommandError::NotExecutable { .. } | CommandError::NotFound(_))));
    }
}
