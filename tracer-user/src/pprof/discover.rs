//! `--pprof auto`: which of a process's listening sockets serves `net/http/pprof`, looked for in its own network namespace.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    base::Base,
    client::{BRIEF, Client, ClientError, MAX_INDEX},
    index,
    sockets::{self, Listening},
};
use crate::id::Tgid;

/// Descriptors of a process that are looked at.
const MAX_DESCRIPTORS: usize = 1 << 17;
/// Sockets that are asked in one search, and how long that may take.
const MAX_ASKED: usize = 32;
const MAX_SEARCH: Duration = Duration::from_secs(5);
/// How often a socket is asked that did not answer in time, or said that it is in trouble.
const TRIES: u32 = 3;

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    #[error(
        "process {tgid} is in another network namespace, which only CAP_SYS_ADMIN may enter: run as root, or give --pprof a URL that can be reached from here"
    )]
    OtherNamespace { tgid: Tgid },
    #[error("the sockets of process {tgid} cannot be listed")]
    Sockets {
        tgid: Tgid,
        #[source]
        source: io::Error,
    },
    #[error("no pprof server found at {base}")]
    Unreachable {
        base: Base,
        #[source]
        source: ClientError,
    },
    #[error("no pprof server found in process {tgid}: {what}; if it serves profiles elsewhere, name the place with --pprof URL")]
    None { tgid: Tgid, what: String },
}

/// A server that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub base: Base,
    pub socket: Listening,
}

/// Goes where the process is, for good: for a thread that does nothing else. True if that is elsewhere than before.
pub fn enter_network(tgid: Tgid) -> Result<bool, DiscoverError> {
    let sockets = |source| DiscoverError::Sockets { tgid, source };
    if same_network(tgid).map_err(sockets)? {
        return Ok(false);
    }
    let namespace = File::open(format!("/proc/{tgid}/ns/net")).map_err(sockets)?;
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|_| DiscoverError::OtherNamespace { tgid })?;
    Ok(true)
}

/// Whether a process sees the network that this thread sees.
pub fn same_network(tgid: Tgid) -> io::Result<bool> {
    let of = |path: &str| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    Ok(of(&format!("/proc/{tgid}/ns/net"))? == of("/proc/thread-self/ns/net")?)
}

/// The listening sockets of a process, those that should be asked first first.
pub fn listening(tgid: Tgid) -> io::Result<Vec<Listening>> {
    let mut own = FxHashSet::default();
    for entry in fs::read_dir(format!("/proc/{tgid}/fd"))?.take(MAX_DESCRIPTORS) {
        let target = entry.and_then(|entry| fs::read_link(entry.path()));
        let inode = target.ok().and_then(|path| path.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok());
        own.extend(inode);
    }
    let mut found = Vec::new();
    for list in ["tcp", "tcp6"] {
        // There is no list of a kind that the kernel does not speak.
        if let Ok(list) = File::open(format!("/proc/{tgid}/net/{list}")) {
            found.extend(sockets::listening(BufReader::new(list)));
        }
    }
    found.retain(|socket| own.contains(&socket.inode));
    found.sort_by_key(Listening::rank);
    Ok(found)
}

/// Whether what is asked at a URL is this process's own socket.
pub fn owns(tgid: Tgid, base: &Base) -> bool {
    let authority = base.authority();
    let with_port = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let named = with_port.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let Ok(address) = named.unwrap_or(with_port).parse::<SocketAddr>() else { return false };
    same_network(tgid).unwrap_or(false)
        && listening(tgid).is_ok_and(|sockets| sockets.iter().any(|socket| socket.answers(address)))
}

/// Whether anything answers at a URL, be it slowly or badly: what is wrong shows when it is asked for profiles.
pub fn reach(base: &Base, client: &Client) -> Result<(), DiscoverError> {
    match client.get(&base.index(), MAX_INDEX, BRIEF) {
        Err(source @ (ClientError::Refused | ClientError::Io(_))) => {
            Err(DiscoverError::Unreachable { base: base.clone(), source })
        }
        _ => Ok(()),
    }
}

/// A search that goes on as long as the process opens sockets.
#[derive(Default)]
pub struct Search {
    /// How often each socket was asked in vain; [`TRIES`] once it is known to be something else.
    asked: FxHashMap<u64, u32>,
    /// What the last ones said.
    said: Vec<String>,
}

impl Search {
    /// Asks the sockets that are new, or had no answer yet.
    pub fn look(&mut self, tgid: Tgid, client: &Client) -> Result<Found, DiscoverError> {
        let sockets = listening(tgid).map_err(|source| DiscoverError::Sockets { tgid, source })?;
        let began = Instant::now();
        let open: Vec<Listening> = sockets
            .iter()
            .filter(|socket| self.asked.get(&socket.inode).is_none_or(|tries| *tries < TRIES))
            .take(MAX_ASKED)
            .copied()
            .collect();
        for socket in open {
            if began.elapsed() > MAX_SEARCH {
                break;
            }
            if let Some(base) = self.ask(&socket, client) {
                return Ok(Found { base, socket });
            }
        }
        let what = match (sockets.len(), self.said.join("; ")) {
            (0, _) => "it listens on no TCP socket".to_owned(),
            (some, said) if said.is_empty() => format!("it listens on {some} TCP socket(s), none of which serves profiles"),
            (_, said) => said,
        };
        Err(DiscoverError::None { tgid, what })
    }

    fn ask(&mut self, socket: &Listening, client: &Client) -> Option<Base> {
        for address in socket.ask_at() {
            let base = Base::at(address);
            let why = match client.get(&base.index(), MAX_INDEX, BRIEF) {
                Ok(page) if index::parse(&String::from_utf8_lossy(&page)).is_some() => return Some(base),
                Ok(_) => (TRIES, "serves something else at /debug/pprof/".to_owned()),
                Err(error @ (ClientError::Slow(_) | ClientError::Endless(..))) => (1, error.to_string()),
                Err(error @ ClientError::Status { status: 500.., .. }) => (1, error.to_string()),
                Err(ClientError::Stopped) => return None,
                Err(error) => (TRIES, error.to_string()),
            };
            *self.asked.entry(socket.inode).or_default() += why.0;
            self.said.retain(|said| !said.starts_with(&format!("{address} ")));
            if self.said.len() < 4 {
                self.said.push(format!("{address} {}", why.1));
            }
        }
        None
    }
}
