//! Leaks as annotations of GitHub Actions: commands that a step writes to its log.
//!
//! Source: the documentation of workflow commands; characters are escaped as `@actions/core` does.

use std::io::{self, Write};

use super::{
    LeakOut, LeaksOut,
    sources::{Sources, own},
    text,
};

/// Writes a line for each group that fails, is known, or is ignored; what is only watched would be noise.
pub fn write(leaks: &LeaksOut, sources: &Sources, out: &mut impl Write) -> io::Result<()> {
    for leak in leaks.leaks.iter().filter(|leak| leak.strength != "watched") {
        let command = if leak.fails { "error" } else { "notice" };
        let place = own(sources, leak.created_by.iter().chain(&leak.creation).chain(&leak.starts_at));
        let place = place.map_or_else(String::new, |(file, line)| format!("file={},line={line},", property(&file)));
        let title = property(&format!("{} leak ({})", leak.kind, leak.strength));
        writeln!(out, "::{command} {place}title={title}::{}", data(&message(leak)))?;
    }
    for package in &leaks.not_watched {
        writeln!(out, "::notice title=not run::{}", data(&format!("{package} was answered from go's test cache")))?;
    }
    for what in &leaks.not_seen {
        writeln!(out, "::notice title=not seen::{}", data(what))?;
    }
    let summary = format!("{}; {}", text::sum(leaks.summary), leaks.trust);
    writeln!(out, "::notice title=lifetrace::{}", data(&summary))
}

fn message(leak: &LeakOut) -> String {
    let mut message = text::headline(leak);
    if let Some(blocked) = &leak.blocked_on {
        message += &format!(", {}", blocked.reason);
    }
    let tests: Vec<&str> = leak.born_under.iter().map(|test| test.name.as_str()).take(5).collect();
    if !tests.is_empty() {
        message += &format!("; born under {}", tests.join(", "));
    }
    if let Some(advice) = leak.advice {
        message += &format!(". {advice}");
    }
    format!("{message} [{}]", leak.fingerprint)
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
