//! A flamegraph of what leaked, and the difference to what a baseline knows.
//!
//! A stack leads from who made them to where they are stuck: the creation stack, the wait reason in brackets, the blocking stack.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use inferno::flamegraph::{self as inferno_flamegraph, Options};

use super::{LeakOut, LeaksOut, text};
use crate::{
    export::flamegraph::{folded_name, write_empty_svg},
    leak::baseline::Baseline,
    symbolize::label,
};

const TITLE: &str = "Leaked";

/// What is suspected or proven, by how many there are.
pub fn write(leaks: &LeaksOut, out: &mut impl Write) -> io::Result<()> {
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for leak in leaks.leaks.iter().filter(|leak| leak.strength != "watched") {
        *lines.entry(folded(&path(leak))).or_default() += leak.count;
    }
    let lines: Vec<String> = lines.into_iter().map(|(path, count)| format!("{path} {count}")).collect();
    svg(TITLE, &[text::sum(leaks.summary), leaks.trust.clone()].join("; "), &lines, out)
}

/// Red grew and blue shrank since the baseline was written; what leaks no more has no width, and is counted in the subtitle.
pub fn write_diff(leaks: &LeaksOut, baseline: &Baseline, out: &mut impl Write) -> io::Result<()> {
    let mut lines: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut gone = 0;
    for (fingerprint, known) in baseline.iter() {
        let here = leaks.leaks.iter().any(|leak| leak.strength != "watched" && leak.fingerprint == *fingerprint);
        gone += usize::from(!here);
        let before = &mut lines.entry(folded(&known.path)).or_default().0;
        *before = before.saturating_add(known.count);
    }
    for leak in leaks.leaks.iter().filter(|leak| leak.strength != "watched") {
        // Another build has other closures and lines of the same leak: it stands where it stood.
        let path = baseline.get(&leak.fingerprint).map_or_else(|| path(leak), |known| known.path.clone());
        let after = &mut lines.entry(folded(&path)).or_default().1;
        *after = after.saturating_add(leak.count as u64);
    }
    let some = lines.values().any(|(_, after)| *after > 0);
    let line = |(path, (before, after))| format!("{path} {before} {after}");
    let lines: Vec<String> = lines.into_iter().filter(|_| some).map(line).collect();
    let subtitle = format!("since the baseline; {gone} of it leak no more; {}", leaks.trust);
    svg("Leaked: difference to the baseline", &subtitle, &lines, out)
}

/// From the root to the leaf.
pub fn path(leak: &LeakOut) -> Vec<String> {
    if leak.kind != "goroutine" && leak.kind != "thread" {
        return vec![format!("[{}]", leak.kind), text::subject(leak)];
    }
    let mut path = vec![format!("[{}]", leak.kind)];
    path.extend(leak.name.clone());
    path.extend(leak.creation.iter().rev().map(label));
    if let Some(blocked) = &leak.blocked_on {
        path.push(format!("[{}]", blocked.reason));
        path.extend(blocked.stack.iter().rev().map(label));
    }
    path
}

fn folded(path: &[String]) -> String {
    if path.is_empty() {
        // A baseline that was written before it held places.
        return "[in the baseline]".to_owned();
    }
    path.iter().map(|name| folded_name(name)).collect::<Vec<_>>().join(";")
}

fn svg(title: &str, subtitle: &str, lines: &[String], out: &mut impl Write) -> io::Result<()> {
    if lines.is_empty() {
        return write_empty_svg(title, subtitle, out);
    }
    let mut options = Options::default();
    options.title = title.to_owned();
    options.subtitle = Some(subtitle.to_owned());
    options.count_name = "leaked".to_owned();
    options.name_type = "Frame:".to_owned();
    options.deterministic = true;
    inferno_flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out).map_err(io::Error::other)
}
