//! The labelled set: its programs, and what a verdict on one is worth.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

const LABEL: &str = "// leak";

/// An entry of `set.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    pub name: String,
    pub leaking: bool,
    pub half: String,
    pub kind: String,
}

/// What was said of one program.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Groups that are suspected or proven, and of these those at a labelled line.
    pub sure: usize,
    pub at_label: usize,
    pub proven: usize,
    /// Groups that would be stronger had nothing been lost.
    pub weakened: usize,
    /// Where the largest of them was made.
    pub named: String,
    /// Goroutines that are there at the end: what a check for those would have counted.
    pub alive: u64,
}

impl Entry {
    pub fn side(&self) -> &'static str {
        if self.leaking { "leaking" } else { "healthy" }
    }

    /// Reads what `lifetrace leaks --format json` said.
    pub fn said(&self, set: &Path, said: &Value) -> Result<Said> {
        let groups = said["leaks"].as_array().context("no leaks")?;
        let label = Label::of(self, set)?;
        let sure: Vec<&Value> = groups.iter().filter(|group| group["strength"] != "watched").collect();
        let place = |group: &&Value| match group["kind"].as_str() {
            Some("goroutine") => {
                let made = &group["created_by"];
                format!("{}:{}", made["function"].as_str().unwrap_or("?"), made["line"])
            }
            kind => format!("{} {}", kind.unwrap_or("?"), group["name"].as_str().unwrap_or("?")),
        };
        let goroutines = groups.iter().filter(|group| group["kind"] == "goroutine");
        Ok(Said {
            sure: sure.len(),
            at_label: sure.iter().filter(|group| label.is_on(group)).count(),
            proven: sure.iter().filter(|group| group["strength"] == "proven").count(),
            weakened: groups.iter().filter(|group| group["weakened_by_loss"] == true).count(),
            named: sure.first().map_or_else(String::new, place),
            alive: goroutines.filter_map(|group| group["count"].as_u64()).sum(),
        })
    }
}

impl Said {
    pub fn verdict(&self, leaking: bool) -> &'static str {
        match (leaking, self.sure, self.at_label) {
            (true, _, 1..) => "found",
            (true, 0, _) if self.weakened > 0 => "watched: loss",
            (true, 0, _) => "**missed**",
            (true, ..) => "**found elsewhere**",
            (false, 0, _) => "silent",
            (false, ..) => "**false**",
        }
    }
}

/// Where a program says that it leaks.
struct Label {
    /// The end of its source's path, and the labelled lines.
    file: String,
    lines: Vec<u64>,
    /// The package comment: of a library it names the function that has the `go` statement.
    comment: String,
}

impl Label {
    fn of(entry: &Entry, set: &Path) -> Result<Self> {
        let main: PathBuf = set.join(entry.side()).join(&entry.name).join("main.go");
        let source = fs::read_to_string(&main).with_context(|| main.display().to_string())?;
        let lines = (1..).zip(source.lines()).filter(|(_, line)| line.ends_with(LABEL)).map(|(at, _)| at).collect();
        let comment: Vec<&str> = source.lines().take_while(|line| line.starts_with("//")).collect();
        Ok(Self { file: format!("{}/{}/main.go", entry.side(), entry.name), lines, comment: comment.join(" ") })
    }

    fn is_on(&self, group: &Value) -> bool {
        if group["kind"] == "zombie" {
            // Children have no line: that they are left is what the comment says.
            return self.comment.contains("zombie");
        }
        let is_label = |frame: &Value| {
            let own = frame["file"].as_str().is_some_and(|file| file.ends_with(&self.file));
            own && frame["line"].as_u64().is_some_and(|line| self.lines.contains(&line))
        };
        let made = group["creation"].as_array().is_some_and(|frames| frames.iter().any(is_label))
            || is_label(&group["starts_at"])
            || is_label(&group["created_by"]);
        let function = group["created_by"]["function"].as_str().unwrap_or_default();
        let short = function.rsplit(['.', '/']).next().unwrap_or_default();
        made || (!function.starts_with("main.") && !short.is_empty() && self.comment.contains(short))
    }
}
