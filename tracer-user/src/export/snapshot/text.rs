//! A snapshot as `runtime.Stack` and a panic write one (`runtime/traceback.go`), without what only they can know: arguments.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use super::{Names, labels, stacks, waited};
use crate::{
    clock::KtimeNs,
    golang::GoBinary,
    recording::contract::Frame,
    snapshot::{Goroutine, Snapshot, StackRead, goroutine::State, labels::LabelSet},
    timeline::human::plain,
};

const MINUTE_NS: u64 = 60_000_000_000;

/// Writes all goroutines, an empty line between them.
pub fn write(snapshot: &Snapshot, binary: &GoBinary, bias: u64, out: &mut impl Write) -> io::Result<()> {
    let mut names = Names::new(binary, bias);
    let found = &snapshot.found;
    let texts = stacks(snapshot, &mut names).into_iter().zip(&found.stacks);
    let texts: Vec<String> = texts.map(|(frames, stack)| stack_text(&frames, stack.truncated)).collect();
    let known = |index: u32| texts.get(index as usize).map_or("", String::as_str);
    for (index, goroutine) in found.all.iter().enumerate() {
        if index > 0 {
            out.write_all(b"\n")?;
        }
        out.write_all(header(goroutine, labels(goroutine, snapshot), snapshot.taken_at_ktime).as_bytes())?;
        out.write_all(match goroutine.stack {
            StackRead::Known(index) => known(index).as_bytes(),
            StackRead::Running => b"\tgoroutine running; stack unavailable\n",
            StackRead::Changed => b"\tgoroutine changing; state and stack unavailable\n",
            StackRead::Unreadable | StackRead::TooMuch => b"\tstack unavailable\n",
            StackRead::LeftOut => b"",
        })?;
        // The first goroutine is made by the program's entry, which is no go statement.
        if goroutine.goid.0 != 1
            && let Some(frame) = names.go_statement(goroutine.gopc).first()
        {
            let parent = goroutine.parent.map(|goid| format!(" in goroutine {goid}")).unwrap_or_default();
            out.write_all(frame_text(&format!("created by {}{parent}", plain(&frame.function)), frame).as_bytes())?;
        }
    }
    Ok(())
}

/// `goroutine 7 [select, 2 minutes, locked to thread] {user: ann}:`; labels as Go 1.27 has them.
fn header(goroutine: &Goroutine, labels: Option<&LabelSet>, now: KtimeNs) -> String {
    let state = goroutine.state.map_or("unknown", State::name);
    let mut header = format!("goroutine {} [{}", goroutine.goid, goroutine.wait_reason.unwrap_or(state));
    if goroutine.state == Some(State::Leaked) {
        header.push_str(" (leaked)");
    }
    let minutes = waited(goroutine, now).unwrap_or(0) / MINUTE_NS;
    if minutes >= 1 {
        let _ = write!(header, ", {minutes} minutes");
    }
    if goroutine.locked_to_thread {
        header.push_str(", locked to thread");
    }
    header.push(']');
    let mut separator = " {";
    for (key, value) in labels.into_iter().flatten() {
        let _ = write!(header, "{separator}{}: {}", quoted(key), quoted(value));
        separator = ", ";
    }
    if separator == ", " {
        header.push('}');
    }
    header.push_str(":\n");
    header
}

/// A key or value of a label: as it is if it is plain, else as the runtime quotes it (`printquoted`).
fn quoted(text: &str) -> String {
    if text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_')) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        let _ = match (c, u32::from(c)) {
            ('\n', _) => out.write_str("\\n"),
            ('\r', _) => out.write_str("\\r"),
            ('\t', _) => out.write_str("\\t"),
            ('\\' | '"', _) => write!(out, "\\{c}"),
            (' '..='~', _) => out.write_char(c),
            (_, code @ 0..127) => write!(out, "\\x{code:02x}"),
            (_, code @ 127..0x1_0000) => write!(out, "\\u{code:04x}"),
            (_, code) => write!(out, "\\U{code:08x}"),
        };
    }
    out.push('"');
    out
}

fn stack_text(frames: &[Frame], truncated: bool) -> String {
    let mut text: String = frames.iter().map(|frame| frame_text(&format!("{}(...)", plain(&frame.function)), frame)).collect();
    if truncated {
        text.push_str("...additional frames elided...\n");
    }
    text
}

fn frame_text(function: &str, frame: &Frame) -> String {
    if frame.file.is_empty() { format!("{function}\n") } else { format!("{function}\n\t{}:{}\n", plain(&frame.file), frame.line) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        id::{Address, Goid},
        snapshot::{Alike, LabelsRead},
    };

    fn of(alike: Alike) -> Goroutine {
        let alike = Arc::new(alike);
        Goroutine { goid: Goid(7), waits_since: None, waits_on: None, parent: None, stack_hi: 0, alike }
    }

    fn alike(state: State) -> Alike {
        Alike {
            state: Some(state),
            wait_reason: state.waits().then_some("select"),
            gopc: Address(0),
            startpc: Address(0),
            locked_to_thread: false,
            stack_bytes: None,
            stack: StackRead::Running,
            labels: LabelsRead::None,
        }
    }

    /// Check the first line of a goroutine: state or reason, since when, thread, labels.
    #[test]
    fn headers() {
        let waiting = || alike(State::Waiting);
        let labels = LabelSet::from([("job".to_owned(), "7".to_owned()), ("path".to_owned(), "/a b".to_owned())]);
        let locked = Alike { locked_to_thread: true, ..waiting() };
        let long = Goroutine { waits_since: Some(KtimeNs(5)), ..of(locked) };
        let torn = of(Alike { state: None, wait_reason: None, ..waiting() });
        let now = KtimeNs(2 * MINUTE_NS + 6);
        for (goroutine, labels, expected) in [
            (of(waiting()), None, "goroutine 7 [select]:\n"),
            (of(alike(State::Runnable)), Some(&LabelSet::new()), "goroutine 7 [runnable]:\n"),
            (of(waiting()), Some(&labels), "goroutine 7 [select] {job: 7, path: \"/a b\"}:\n"),
            (long, None, "goroutine 7 [select, 2 minutes, locked to thread]:\n"),
            (of(alike(State::Leaked)), None, "goroutine 7 [select (leaked)]:\n"),
            (torn, None, "goroutine 7 [unknown]:\n"),
        ] {
            assert_eq!(header(&goroutine, labels, now), expected);
        }
    }

    /// Check that what could be taken for something else is quoted as the runtime quotes it.
    #[test]
    fn quoting() {
        for (text, expected) in [
            ("a.b/c_D9", "a.b/c_D9"),
            ("", ""),
            ("a-b", "\"a-b\""),
            ("\n\t\"\\\u{1}", "\"\\n\\t\\\"\\\\\\x01\""),
            ("é\u{1f600}", "\"\\u00e9\\U0001f600\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
