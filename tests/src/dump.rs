//! Go's own list of goroutines: `/debug/pprof/goroutine?debug=2` over a Unix socket, and what it says.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use anyhow::{Context, Result, ensure};

use crate::deadline::{PATIENCE, slowness};

/// One goroutine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goroutine {
    /// Wait reason or status: `chan receive`, `running`.
    pub state: String,
    pub locked_to_thread: bool,
    /// Function, file and line, innermost first. Go leaves most of the runtime's own out.
    pub stack: Vec<Frame>,
    pub creator: Option<Creator>,
}

pub type Frame = (String, String, u32);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creator {
    pub goid: Option<u64>,
    pub frame: Frame,
}

/// Asks the process behind `socket` for its goroutines, by id. Its world is stopped meanwhile.
pub fn take(socket: &Path) -> Result<BTreeMap<u64, Goroutine>> {
    parse(&get(socket, "/debug/pprof/goroutine?debug=2")?)
}

fn get(socket: &Path, path: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE * slowness()))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    ensure!(head.starts_with("HTTP/1.0 200"), "{head}");
    Ok(body.to_owned())
}

/// Reads goroutines by id, as `runtime.Stack` writes them.
pub fn parse(text: &str) -> Result<BTreeMap<u64, Goroutine>> {
    text.trim_end().split("\n\n").map(|entry| goroutine(entry).with_context(|| format!("in {entry:?}"))).collect()
}

fn goroutine(entry: &str) -> Result<(u64, Goroutine)> {
    let (head, body) = entry.split_once('\n').unwrap_or((entry, ""));
    let rest = head.strip_prefix("goroutine ").context("no goroutine")?;
    let (goid, rest) = rest.split_once(" [").context("no state")?;
    let (state, _) = rest.split_once(']').context("no end of the state")?;
    let mut facts = state.split(", ");
    let state = facts.next().unwrap_or_default().trim_end_matches(" (scan)").to_owned();
    let mut goroutine =
        Goroutine { state, locked_to_thread: facts.any(|fact| fact == "locked to thread"), stack: vec![], creator: None };
    let mut lines = body.lines();
    while let Some(function) = lines.next() {
        if function.starts_with('\t') || function.starts_with("...") {
            continue;
        }
        let place = lines.next().context("a function without a place")?;
        match function.strip_prefix("created by ") {
            None => goroutine.stack.push(frame(without_arguments(function), place)?),
            Some(creator) => {
                let (name, goid) = match creator.split_once(" in goroutine ") {
                    Some((name, goid)) => (name, Some(goid.parse()?)),
                    None => (creator, None),
                };
                goroutine.creator = Some(Creator { goid, frame: frame(name, place)? });
            }
        }
    }
    Ok((goid.parse()?, goroutine))
}

/// `main.(*door).wait(0xc000012345?, {0x1, 0x2})` → `main.(*door).wait`.
fn without_arguments(function: &str) -> &str {
    function.rfind('(').map_or(function, |at| &function[..at])
}

/// `\t/src/main.go:12 +0x1d`
fn frame(function: &str, place: &str) -> Result<Frame> {
    let place = place.trim_start();
    let place = place.rsplit_once(" +0x").map_or(place, |(place, _)| place);
    let (file, line) = place.rsplit_once(':').context("no line")?;
    Ok((function.to_owned(), file.to_owned(), line.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a dump of Go 1.26 is understood: arguments, inlined calls, creators with and without a goroutine.
    #[test]
    fn dump() -> Result<()> {
        let text = "goroutine 1 [running]:\nmain.main()\n\t/src/a b.go:12 +0x1d\n\n\
                    goroutine 7 [select (no cases), 2 minutes, locked to thread]:\n\
                    main.(*door).wait(0xc000012345?, {0x1, 0x2})\n\t/src/main.go:5 +0x5\n\
                    sync.(*WaitGroup).Wait(...)\n\t/go/wg.go:9\n\
                    created by main.f[...] in goroutine 1\n\t/src/main.go:40 +0x11\n\n\
                    goroutine 9 [running]:\n\tgoroutine running on other thread; stack unavailable\n\
                    created by time.goFunc\n\t/go/sleep.go:215 +0x2d\n";
        let all = parse(text)?;
        let frame = |function: &str, file: &str, line| (function.to_owned(), file.to_owned(), line);
        assert_eq!(all[&1].stack, [frame("main.main", "/src/a b.go", 12)]);
        assert_eq!((all[&7].state.as_str(), all[&7].locked_to_thread), ("select (no cases)", true));
        let expected = [frame("main.(*door).wait", "/src/main.go", 5), frame("sync.(*WaitGroup).Wait", "/go/wg.go", 9)];
        assert_eq!(all[&7].stack, expected);
        assert_eq!(all[&7].creator, Some(Creator { goid: Some(1), frame: frame("main.f[...]", "/src/main.go", 40) }));
        assert_eq!(all[&9].creator.as_ref().map(|by| by.goid), Some(None));
        assert!(parse("nonsense").is_err());
        Ok(())
    }
}
