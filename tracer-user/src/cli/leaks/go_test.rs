//! What `go test` says while it is followed: packages that it answered from its cache ran nowhere, and so nothing was seen of them.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::Path,
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use nix::{fcntl::OFlag, sys::signal::SigSet, unistd::pipe2};

/// A line that is longer says nothing of packages.
const MAX_LINE: usize = 64 << 10;
/// Packages that are remembered.
const MAX_PACKAGES: usize = 10_000;
/// How long after the command's end somebody else may hold its stdout.
const REST: Duration = Duration::from_secs(1);

/// Listens to a command's stdout, and passes it on.
pub struct Ear {
    packages: Receiver<BTreeSet<String>>,
}

/// Whether a command is `go test …`.
pub fn is_go_test(command: &[OsString]) -> bool {
    let is_go = command.first().is_some_and(|name| Path::new(name).file_name().is_some_and(|name| name == "go"));
    // Flags of the go command itself stand before.
    let verb = command.iter().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    is_go && verb.is_some_and(|verb| verb == "test")
}

impl Ear {
    /// What the command is to write to, and who listens. The signals that are meant for the command's keeper do not come to the listener.
    pub fn open() -> io::Result<(Self, OwnedFd)> {
        let (from, to) = pipe2(OFlag::O_CLOEXEC)?;
        let (tell, packages) = mpsc::channel();
        let before = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK)?;
        let listening = thread::Builder::new().name("stdout".into()).spawn(move || {
            let mut heard = Heard::default();
            // Whoever does not read our stdout any more breaks the command's pipe too, as it would without us.
            let _ = pass_on(File::from(from), &mut io::stdout(), &mut heard);
            let _ = tell.send(heard.packages);
        });
        before.thread_set_mask()?;
        listening.map(|_| (Self { packages }, to))
    }

    /// Packages that were answered from the cache. After the command's end.
    pub fn cached(self) -> BTreeSet<String> {
        self.packages.recv_timeout(REST).unwrap_or_default()
    }
}

fn pass_on(mut from: impl Read, to: &mut impl Write, heard: &mut Heard) -> io::Result<()> {
    let mut bytes = [0; 1 << 14];
    loop {
        let read = match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(read) => &bytes[..read],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        heard.hear(read);
        to.write_all(read)?;
        to.flush()?;
    }
}

/// Lines as they come.
#[derive(Default)]
struct Heard {
    line: Vec<u8>,
    packages: BTreeSet<String>,
}

impl Heard {
    fn hear(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() < MAX_LINE {
                self.line.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                let package = cached_package(&String::from_utf8_lossy(&self.line));
                self.packages.extend(package.filter(|_| self.packages.len() < MAX_PACKAGES));
                self.line.clear();
            }
        }
    }
}

/// The package of a line like `ok  <TAB>example.com/shop<TAB>(cached)`, also inside an event of `go test -json`.
fn cached_package(line: &str) -> Option<String> {
    if line.starts_with('{') {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        return cached_package(event.get("Output")?.as_str().filter(|text| !text.starts_with('{'))?);
    }
    let mut words = line.trim_end().split('\t');
    let (ok, package, cached) = (words.next()?, words.next()?, words.next()?);
    (ok.trim_end() == "ok" && cached == "(cached)").then(|| package.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check what is heard of text and of JSON, however it comes, and that all of it is passed on.
    #[test]
    fn heard() {
        let said = "ok  \texample.com/a\t(cached)\n--- FAIL: x\nok  \texample.com/b\t0.01s\n\
            ok  \texample.com/c\t(cached)\tcoverage: 50.0% of statements\n\
            {\"Action\":\"output\",\"Package\":\"d\",\"Output\":\"ok  \\texample.com/d\\t(cached)\\n\"}\n\
            {\"Output\":\"{\"}\n{broken\nok  \texample.com/unfinished\t(cached)";
        for size in [1, 7, 4096] {
            let mut heard = Heard::default();
            said.as_bytes().chunks(size).for_each(|piece| heard.hear(piece));
            assert_eq!(
                heard.packages.iter().map(String::as_str).collect::<Vec<_>>(),
                ["example.com/a", "example.com/c", "example.com/d"]
            );
        }
        let mut out = Vec::new();
        pass_on(said.as_bytes(), &mut out, &mut Heard::default()).unwrap();
        assert_eq!(out, said.as_bytes());
    }

    /// Check which commands are go's tests.
    #[test]
    fn commands() {
        let is = |line: &str| is_go_test(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(is("go test ./...") && is("/usr/local/go/bin/go -C=x test") && is("go test -count=1"));
        assert!(!is("go build ./test") && !is("gotest x") && !is("go") && !is("env go test"));
    }
}
