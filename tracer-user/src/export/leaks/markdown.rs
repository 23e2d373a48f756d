//! Leaks as Markdown: a summary for a job's page.

use std::io::{self, Write};

use super::{LeakOut, LeaksOut, text};
use crate::timeline::human::{count, duration};

/// Groups that are told of in full.
const MAX_TOLD: usize = 50;

/// Writes the page.
pub fn write(leaks: &LeaksOut, out: &mut impl Write) -> io::Result<()> {
    let verdict = if leaks.summary.failing > 0 { "failed" } else { "passed" };
    writeln!(out, "## Leaks: {verdict}\n\n{}  \n{}\n", escaped(&text::sum(leaks.summary)), escaped(&leaks.trust))?;
    let told: Vec<&LeakOut> = leaks.leaks.iter().filter(|leak| leak.strength != "watched").collect();
    if !told.is_empty() {
        writeln!(out, "| | what | how many | blocked on | born under | for | |\n| --- | --- | ---: | --- | --- | ---: | --- |")?;
    }
    for leak in told.iter().take(MAX_TOLD) {
        let mark = match (leak.fails, &leak.ignored) {
            (true, _) => leak.strength.to_owned(),
            (false, Some(ignored)) => format!("ignored until {}: {}", ignored.expires, ignored.reason),
            (false, None) if leak.known => "known".to_owned(),
            (false, None) => format!("{} (does not fail)", leak.strength),
        };
        let on = leak.blocked_on.as_ref().map_or("", |blocked| &blocked.reason);
        let tests: Vec<&str> = leak.born_under.iter().map(|test| test.name.as_str()).take(5).collect();
        let cells = [
            escaped(&mark),
            escaped(&format!("{}: {}", leak.kind, text::subject(leak))),
            count(leak.count as u64),
            escaped(on),
            escaped(&tests.join(", ")),
            duration(leak.oldest_ns),
            escaped(&leak.fingerprint),
        ];
        writeln!(out, "| {} |", cells.join(" | "))?;
    }
    if told.len() > MAX_TOLD {
        writeln!(out, "\nand {} more", told.len() - MAX_TOLD)?;
    }
    for leak in told.iter().filter(|leak| leak.fails).take(MAX_TOLD) {
        let mut story = Vec::new();
        text::one(leak, leak.strength, &mut story)?;
        // A fence that is longer than any run of backticks a name could have.
        writeln!(out, "\n<details><summary>{}</summary>\n\n````````", html(&text::headline(leak)))?;
        writeln!(out, "{}````````\n\n</details>", String::from_utf8_lossy(&story))?;
    }
    if !leaks.not_watched.is_empty() {
        let packages: Vec<String> = leaks.not_watched.iter().map(|package| escaped(package)).collect();
        writeln!(out, "\nNot run, from go's test cache: {}", packages.join(", "))?;
    }
    if !leaks.not_seen.is_empty() {
        writeln!(out, "\nNot seen: {}", escaped(&leaks.not_seen.join("; ")))?;
    }
    for entry in &leaks.expired {
        let what = entry.fingerprint.as_ref().or(entry.function.as_ref()).map_or("", String::as_str);
        writeln!(out, "\nIgnored no more since {}: {} ({})", escaped(&entry.expires), escaped(what), escaped(&entry.reason))?;
    }
    Ok(())
}

/// Text in which nothing is markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
