//! What makes one leak the same leak in another build, on another host.
//!
//! A fingerprint is a hash over the kind of leak, the creation site and the blocking stack, by names alone, and normalised: lines shift, type
//! arguments are instantiated, closures are numbered in the order of the source, modules have versions and folders have places. Frames of the runtime
//! and of `internal/` packages are left out, for they change from one Go release to the next.

use std::fmt;

use crate::{
    recording::contract::{Frame, IN_KERNEL},
    symbolize::UNKNOWN,
};

/// Frames of the blocking stack that count: what lies deeper is who called, and one leak has many callers.
const FRAMES: usize = 6;

/// 64 bits of FNV-1a, in hex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub String);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Fingerprint {
    /// Of goroutines made by `created_by` to run `start_function`, blocked for `reason` at `stack` (innermost first).
    pub fn of_goroutines(
        created_by: Option<&Frame>,
        start_function: Option<&str>,
        reason: Option<&str>,
        stack: Option<&[Frame]>,
    ) -> Self {
        let mut hash = Fnv::new();
        hash.word("goroutine");
        hash.word(&created_by.map_or_else(String::new, |frame| function(&frame.function)));
        hash.word(&start_function.map_or_else(String::new, function));
        hash.word(reason.unwrap_or_default());
        let own = stack.unwrap_or_default().iter().filter(|frame| !is_runtimes_own(&frame.function));
        for frame in own.take(FRAMES) {
            hash.word(&function(&frame.function));
        }
        hash.done()
    }

    /// Of threads with names like `name` of the program `exe`, off their CPU for `reason` at `stack` (innermost first).
    pub fn of_threads(exe: &str, name: &str, reason: Option<&str>, stack: Option<&[Frame]>) -> Self {
        let mut hash = Fnv::new();
        hash.word("thread");
        hash.word(exe);
        hash.word(name);
        hash.word(reason.unwrap_or_default());
        // What the kernel does below a system call is its own.
        let own = stack.unwrap_or_default().iter().filter(|frame| frame.file != IN_KERNEL && frame.function != UNKNOWN);
        for frame in own.take(FRAMES) {
            // `libc.so.6+0x1234` moves with every build.
            hash.word(frame.function.split('+').next().unwrap_or_default());
        }
        hash.done()
    }

    /// Of what belongs to a program and has no stack: its children of one program, its descriptors of one kind.
    pub fn of_children(kind: &str, of: &str, what: &str) -> Self {
        let mut hash = Fnv::new();
        [kind, of, what].into_iter().for_each(|word| hash.word(word));
        hash.done()
    }
}

/// A function's name without what differs from build to build: `example.com/a/v2@v2.0.1/pkg.(*Pool[...]).run.func2.1` becomes `example.com/a/v2/pkg.(*Pool).run.func`.
pub fn function(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut depth = 0usize;
    for letter in name.chars() {
        match letter {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(letter),
            _ => {}
        }
    }
    let (folders, rest) = plain.rsplit_once('/').map_or(("", plain.as_str()), |(folders, rest)| (folders, rest));
    let folders: Vec<&str> = folders.split('/').map(|part| part.split('@').next().unwrap_or(part)).collect();
    let mut parts = rest.split('.');
    let package = parts.next().unwrap_or_default().split('@').next().unwrap_or_default();
    let mut kept = vec![package.to_owned()];
    for part in parts {
        if is_closure(part) {
            // Closures in closures, and the wrapper of a `go` statement, are the function's own as well.
            if kept.last().is_some_and(|last| last != "func") {
                kept.push("func".to_owned());
            }
        } else if !part.is_empty() {
            kept.push(part.split('-').next().unwrap_or(part).to_owned());
        }
    }
    let folders = folders.join("/");
    let own = kept.join(".");
    if folders.is_empty() { own } else { format!("{folders}/{own}") }
}

/// `func1`, `1`, `gowrap2`, `deferwrap1`, and `func1-range2` of loops over functions.
fn is_closure(part: &str) -> bool {
    let part = part.split('-').next().unwrap_or(part);
    let number = ["func", "gowrap", "deferwrap", ""].iter().find_map(|prefix| part.strip_prefix(prefix)).unwrap_or(part);
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// What differs between Go releases.
fn is_runtimes_own(function: &str) -> bool {
    function.starts_with("runtime.") || function.starts_with("internal/") || function.starts_with("sync.runtime_")
}

struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn done(&self) -> Fingerprint {
        Fingerprint(format!("{:016x}", self.0))
    }

    /// A word and the end of it.
    fn word(&mut self, word: &str) {
        for byte in word.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, file: &str, line: u32) -> Frame {
        Frame { function: function.to_owned(), file: file.to_owned(), line }
    }

    /// Check what of a name is the same in every build.
    #[test]
    fn names() {
        for (name, plain) in [
            ("main.main", "main.main"),
            ("main.main.func1", "main.main.func"),
            ("main.main.func2.1", "main.main.func"),
            ("main.main.gowrap3", "main.main.func"),
            ("main.(*Pool[go.shape.int]).run", "main.(*Pool).run"),
            ("main.(*Pool[...]).run.func1", "main.(*Pool).run.func"),
            ("example.com/a.b/v2@v2.0.1/pkg.Run", "example.com/a.b/v2/pkg.Run"),
            ("example.com/a/pkg.Run.func1-range2", "example.com/a/pkg.Run.func"),
            ("main.all.deferwrap1", "main.all.func"),
            ("main.Map[main.K,map[string][]int]", "main.Map"),
            ("", ""),
            ("]]][[", ""),
        ] {
            assert_eq!(function(name), plain, "{name}");
        }
    }

    /// Check that lines, folders and the runtime's frames do not count, and that the place and the reason do.
    #[test]
    fn one_leak_is_one() {
        let of = |created: &str, line, reason, top: &str| {
            let stack = [frame(top, "r.go", 1), frame("main.wait.func1", "/src/a.go", line)];
            Fingerprint::of_goroutines(
                Some(&frame(created, "/build/1/a.go", line)),
                Some("main.wait.func1"),
                Some(reason),
                Some(&stack),
            )
        };
        let one = of("main.serve", 10, "chan receive", "runtime.gopark");
        assert_eq!(one, of("main.serve", 12, "chan receive", "runtime.chanrecv1"));
        assert_ne!(one, of("main.other", 10, "chan receive", "runtime.gopark"));
        assert_ne!(one, of("main.serve", 10, "chan send", "runtime.gopark"));
        assert_eq!(one.0.len(), 16);
    }
}
