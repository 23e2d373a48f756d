//! Goroutines one by one, as `runtime.Stack` writes them all: `/debug/pprof/goroutine?debug=2`, from Go 1.21 on.
//!
//! Source: `runtime/traceback.go` (`goroutineheader`, `traceback2`, `printcreatedby`, `printAncestorTraceback`).

use super::{AnswerError, quoted::quoted};

/// Goroutines of one dump; 64 MiB of text hold fewer that have a stack.
const MAX_GOROUTINES: usize = 1 << 20;
/// Frames of all of them.
const MAX_FRAMES: usize = 4 << 20;
/// Labels of one goroutine.
const MAX_LABELS: usize = 1024;
/// Go gives up at this size, and writes what it has (`runtime/pprof`, `writeGoroutineStacks`).
const GO_LIMIT: usize = 64 << 20;

/// A dump.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dump<'t> {
    pub goroutines: Vec<Goroutine<'t>>,
    /// It stops in the middle: more may have been there.
    pub cut: bool,
}

/// One goroutine, as it describes itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Goroutine<'t> {
    pub goid: u64,
    /// Status (`running`), or what it waits for (`chan receive`).
    pub state: &'t str,
    /// Found by the garbage collector to wait for what nobody can reach.
    pub leaked: bool,
    /// How long it has waited, if that is a minute or more and known.
    pub minutes: Option<u64>,
    pub locked_to_thread: bool,
    /// The bubble of `testing/synctest` it lives in: its number, or (Go 1.24) the goroutine that made it.
    pub bubble: Option<u64>,
    /// `None`: the dump says nothing of labels, which need not mean that there are none.
    pub labels: Option<Vec<(String, String)>>,
    /// Innermost first, without most of the runtime's own.
    pub frames: Vec<Frame<'t>>,
    pub creator: Option<Creator<'t>>,
    /// `frames` are not all there is: some were left out, or it ran on another thread.
    pub partial: bool,
}

/// A call. Those that were inlined have no offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'t> {
    /// Without its arguments; type arguments stand as `[...]`.
    pub function: &'t str,
    pub file: &'t str,
    pub line: u32,
    /// From the function's entry to the return address, or to the instruction it runs.
    pub offset: Option<u64>,
}

/// The go statement that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Creator<'t> {
    pub frame: Frame<'t>,
    pub goid: Option<u64>,
}

/// Reads a dump.
pub fn parse(text: &str) -> Result<Dump<'_>, AnswerError> {
    if !text.starts_with("goroutine ") {
        return Err(AnswerError::NoDump);
    }
    let mut dump = Dump { cut: !text.ends_with('\n') || text.len() >= GO_LIMIT, ..Dump::default() };
    let mut frames = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (record, behind) = rest.split_once("\n\n").unwrap_or((rest, ""));
        rest = behind.trim_start_matches('\n');
        if rest.is_empty() && dump.cut {
            // The last one is not whole.
            break;
        }
        let goroutine = goroutine(record).ok_or(AnswerError::NoDump)?;
        frames += goroutine.frames.len();
        if dump.goroutines.len() >= MAX_GOROUTINES || frames > MAX_FRAMES {
            return Err(AnswerError::TooMany("goroutines"));
        }
        dump.goroutines.push(goroutine);
    }
    Ok(dump)
}

fn goroutine(record: &str) -> Option<Goroutine<'_>> {
    let mut lines = record.lines();
    let mut this = header(lines.next()?)?;
    while let Some(line) = lines.next() {
        if line.starts_with("[originating from goroutine ") {
            // Its ancestors' stacks follow.
            break;
        }
        if line.starts_with("...") || line.starts_with('\t') || line.starts_with("non-Go function at ") {
            this.partial = true;
            continue;
        }
        let Some(place) = lines.next().and_then(place) else {
            this.partial = true;
            continue;
        };
        let Some(created) = line.strip_prefix("created by ") else {
            // No argument holds a parenthesis.
            let (function, arguments) = line.rfind('(').map_or((line, ""), |at| line.split_at(at));
            // Only inlined calls have no offset, but for one at the first instruction of its function.
            this.partial |= place.offset.is_none() && arguments != "(...)";
            this.frames.push(Frame { function, ..place });
            continue;
        };
        let (function, goid) = match created.rsplit_once(" in goroutine ") {
            Some((function, goid)) => (function, goid.parse().ok()),
            None => (created, None),
        };
        this.creator = Some(Creator { frame: Frame { function, ..place }, goid });
    }
    Some(this)
}

/// `goroutine 7 gp=0x1 m=3 mp=0x2 [chan receive (leaked), 2 minutes, synctest bubble 3] {k: v}:`
fn header(line: &str) -> Option<Goroutine<'_>> {
    let rest = line.strip_prefix("goroutine ")?;
    let (number, mut rest) = rest.split_once('[')?;
    let goid = number.split(' ').next()?.parse().ok()?;
    let end = rest.find([',', ']'])?;
    // Labels of Go 1.26 stand right behind the state if nothing else does.
    let end = rest.find(" labels:{").map_or(end, |labels| labels.min(end));
    let mut this = Goroutine { goid, state: &rest[..end], ..Goroutine::default() };
    rest = &rest[end..];
    this.state_marks();
    loop {
        if let Some(labels) = rest.strip_prefix(" labels:{") {
            let (labels, behind) = self::labels(labels)?;
            this.labels = Some(labels);
            rest = behind;
        } else if let Some(attribute) = rest.strip_prefix(", ") {
            let end = attribute.find([',', ']'])?;
            let end = attribute.find(" labels:{").map_or(end, |labels| labels.min(end));
            this.attribute(&attribute[..end]);
            rest = &attribute[end..];
        } else {
            rest = rest.strip_prefix(']')?;
            break;
        }
    }
    if let Some(labels) = rest.strip_prefix(" {") {
        let (labels, behind) = self::labels(labels)?;
        this.labels = Some(labels);
        rest = behind;
    }
    (rest == ":").then_some(this)
}

impl Goroutine<'_> {
    /// Takes the marks off the state. `(durable)` is part of some wait reasons, and is left.
    fn state_marks(&mut self) {
        loop {
            if let Some(state) = self.state.strip_suffix(" (scan)") {
                self.state = state;
            } else if let Some(state) = self.state.strip_suffix(" (leaked)") {
                (self.state, self.leaked) = (state, true);
            } else {
                return;
            }
        }
    }

    fn attribute(&mut self, attribute: &str) {
        if attribute == "locked to thread" {
            self.locked_to_thread = true;
        } else if let Some(minutes) = attribute.strip_suffix(" minutes") {
            self.minutes = minutes.parse().ok();
        } else if let Some(bubble) =
            attribute.strip_prefix("synctest bubble ").or_else(|| attribute.strip_prefix("synctest group "))
        {
            self.bubble = bubble.parse().ok();
        }
    }
}

/// `"k": "v", a.b: c}` and what follows. Go 1.26 quotes everything, 1.27 only what needs it.
fn labels(mut text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        let (key, rest) = word(text)?;
        let (value, rest) = word(rest.strip_prefix(": ")?)?;
        if labels.len() >= MAX_LABELS {
            return None;
        }
        labels.push((key, value));
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        text = rest.strip_prefix(", ")?;
    }
}

fn word(text: &str) -> Option<(String, &str)> {
    if text.starts_with('"') {
        return quoted(text);
    }
    let end = text.find([':', ',', '}'])?;
    Some((text[..end].to_owned(), &text[end..]))
}

/// `\t/src/main.go:12 +0x1d`, in dumps of a crash with ` fp=… sp=… pc=…` behind it. The function is for the caller to add.
fn place(line: &str) -> Option<Frame<'_>> {
    let line = line.strip_prefix('\t')?;
    let (place, offset) = match line.rsplit_once(" +0x") {
        Some((place, offset)) => {
            let digits = offset.split(' ').next()?;
            (place, Some(u64::from_str_radix(digits, 16).ok()?))
        }
        None => (line, None),
    };
    let (file, number) = place.rsplit_once(':')?;
    Some(Frame { function: "", file, line: number.parse().ok()?, offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    /// Check every variant of the header line of Go 1.21 to 1.27.
    #[test]
    fn headers() {
        let bare = |goid, state| Goroutine { goid, state, ..Goroutine::default() };
        let labels = Some(vec![label("endpoint", "/a b"), label("x", "]}:")]);
        let cases = [
            ("goroutine 1 [running]:", bare(1, "running")),
            ("goroutine 8 [chan receive (nil chan)]:", bare(8, "chan receive (nil chan)")),
            (
                "goroutine 8 [select (no cases), 2 minutes, locked to thread]:",
                Goroutine { minutes: Some(2), locked_to_thread: true, ..bare(8, "select (no cases)") },
            ),
            ("goroutine 9 [IO wait (scan), 61 minutes]:", Goroutine { minutes: Some(61), ..bare(9, "IO wait") }),
            ("goroutine 9 [chan send (leaked) (scan)]:", Goroutine { leaked: true, ..bare(9, "chan send") }),
            (
                "goroutine 7 [chan receive (durable), synctest bubble 3]:",
                Goroutine { bubble: Some(3), ..bare(7, "chan receive (durable)") },
            ),
            ("goroutine 7 [select, synctest group 12]:", Goroutine { bubble: Some(12), ..bare(7, "select") }),
            ("goroutine 0 gp=0x5 m=0 mp=0x6 [idle]:", bare(0, "idle")),
            (
                r#"goroutine 5 [sleep labels:{"endpoint": "/a b", "x": "]}:"}]:"#,
                Goroutine { labels: labels.clone(), ..bare(5, "sleep") },
            ),
            (
                r#"goroutine 5 [sleep, 3 minutes, locked to thread labels:{"endpoint": "/a b", "x": "]}:"}]:"#,
                Goroutine { minutes: Some(3), locked_to_thread: true, labels: labels.clone(), ..bare(5, "sleep") },
            ),
            (r#"goroutine 5 [sleep] {endpoint: "/a b", x: "]}:"}:"#, Goroutine { labels, ..bare(5, "sleep") }),
            (
                "goroutine 5 [sleep] {empty: , path: /a/b.c_d}:",
                Goroutine { labels: Some(vec![label("empty", ""), label("path", "/a/b.c_d")]), ..bare(5, "sleep") },
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(header(line), Some(expected), "{line}");
        }
        let nonsense = [
            "goroutine [running]:",
            "goroutine 1 running:",
            "goroutine 1 [running",
            "goroutine 1 [running]",
            "goroutine x [running]:",
            r#"goroutine 1 [sleep labels:{"a"}]:"#,
            "goroutine 1 [sleep] {a: b:",
        ];
        for line in nonsense {
            assert_eq!(header(line), None, "{line}");
        }
    }

    /// Check that frames, inlined calls, creators, frames left out, ancestors and running goroutines are told apart.
    #[test]
    fn bodies() {
        let text = "goroutine 1 [running]:\n\tgoroutine running on other thread; stack unavailable\n\n\
                    goroutine 7 [select]:\n\
                    main.(*door).wait(0xc000012345?, {0x1, 0x2})\n\t/src/a b.go:5 +0x5\n\
                    main.f[...](...)\n\t/src/main.go:9\n\
                    ...additional frames elided...\n\
                    created by main.g[...] in goroutine 1\n\t/src/main.go:40 +0x11\n\
                    [originating from goroutine 1]:\nmain.main(...)\n\t/src/main.go:3 +0x1d\n\
                    created by nobody\n\t/x.go:1 +0x2\n\n\
                    goroutine 9 [syscall]:\nnon-Go function\n\tpc=0x7f00\nmain.c()\n\t_cgo_gotypes.go:44 +0x4c fp=0xc0 sp=0xc1 pc=0x1\n\
                    created by time.goFunc\n\t/go/sleep.go:215 +0x2d\n";
        let dump = parse(text).unwrap();
        assert!(!dump.cut);
        let [first, second, third] = &dump.goroutines[..] else { panic!("{dump:#?}") };
        assert!(first.partial && first.frames.is_empty() && first.creator.is_none());
        let frame = |function, file, line, offset| Frame { function, file, line, offset };
        assert_eq!(
            second.frames,
            [frame("main.(*door).wait", "/src/a b.go", 5, Some(5)), frame("main.f[...]", "/src/main.go", 9, None)]
        );
        assert!(second.partial);
        let creator = Creator { frame: frame("main.g[...]", "/src/main.go", 40, Some(0x11)), goid: Some(1) };
        assert_eq!(second.creator, Some(creator));
        assert_eq!(third.frames, [frame("main.c", "_cgo_gotypes.go", 44, Some(0x4c))]);
        assert!(third.partial);
        assert_eq!(third.creator.map(|creator| (creator.frame.function, creator.goid)), Some(("time.goFunc", None)));
    }

    /// Check that a dump cut anywhere gives the goroutines before the cut, says that it was cut, and never panics.
    #[test]
    fn cuts() {
        let text = "goroutine 1 [running]:\nmain.main()\n\t/src/main.go:12 +0x1d\n\n\
                    goroutine 70 [select]:\nmain.f()\n\t/src/main.go:13 +0x1d\n";
        let first_ends = text.find("\n\n").unwrap() + 1;
        for end in 0..text.len() {
            let dump = parse(&text[..end]);
            if end < "goroutine ".len() {
                assert_eq!(dump, Err(AnswerError::NoDump));
            } else if let Ok(dump) = dump
                && dump.cut
            {
                assert!(dump.goroutines.len() <= usize::from(end > first_ends), "cut at {end}: {dump:#?}");
            }
        }
        assert_eq!(parse(text).unwrap().goroutines.len(), 2);
        assert_eq!(parse("<html>"), Err(AnswerError::NoDump));
    }
}
