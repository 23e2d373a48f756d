//! Which probes mean what: the table that makes of any runtime's probes a life (docs/usdt.md).

use std::fmt;

use serde::{Deserialize, Serialize, de::Error as _};

use super::object::{Probe, UsdtObject};
use crate::recording::contract::{UnitEvent, UnitId, UsdtMeaning};

/// What is built in.
const BUILT_IN: &str = include_str!("builtin.toml");
/// A table of more text than this is none of a person's.
const MAX_BYTES: usize = 1 << 20;
/// Names of other things that have a timeline.
const RESERVED: [&str; 4] = ["pid", "tid", "gc", "cgroup"];

/// Why a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("a table of {0} bytes is too long")]
    TooLong(usize),
    /// The message names line and column.
    #[error("{}", .0.to_string().trim_end())]
    Toml(#[from] Box<toml::de::Error>),
}

/// All probes that mean something, the newest first.
#[derive(Clone, Debug, Default)]
pub struct Table {
    mappings: Vec<Mapping>,
}

/// What one probe means.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Entry")]
pub struct Mapping {
    pub provider: String,
    pub name: String,
    pub meaning: UsdtMeaning,
    /// What has to be done for it to fire, in words; empty if nothing.
    pub needs: String,
}

/// The text of a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    probe: Vec<Mapping>,
}

/// An entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    runtime: String,
    probe: String,
    event: UnitEvent,
    id: Id,
    name: Option<ArgumentNumber>,
    name_len: Option<ArgumentNumber>,
    reason: Option<String>,
    reason_arg: Option<ArgumentNumber>,
    object: Option<ArgumentNumber>,
    #[serde(default)]
    needs: String,
}

/// Arguments are counted from 1, as their authors do.
#[derive(Clone, Copy)]
struct ArgumentNumber(u8);

impl<'de> Deserialize<'de> for ArgumentNumber {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        let last = tracer_common::usdt::MAX_ARGS as i64;
        if (1..=last).contains(&number) {
            Ok(Self(number as u8 - 1))
        } else {
            Err(D::Error::custom(format!("arguments are numbered from 1 to {last}, not {number}")))
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "the number of an argument from 1 to 6, or \"thread\"")]
enum Id {
    Argument(ArgumentNumber),
    Word(Thread),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Thread {
    Thread,
}

impl TryFrom<Entry> for Mapping {
    type Error = String;

    fn try_from(entry: Entry) -> Result<Self, String> {
        let word = |text: &str| {
            let first = text.chars().next().is_some_and(|c| c.is_ascii_lowercase());
            first
                && text.len() <= 32
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
        };
        if !word(&entry.runtime) || RESERVED.contains(&entry.runtime.as_str()) {
            return Err(format!("runtime {:?}: a name in small letters, and none of {}", entry.runtime, RESERVED.join(", ")));
        }
        let Some((provider, name)) =
            entry.probe.split_once(':').filter(|(provider, name)| !provider.is_empty() && !name.is_empty())
        else {
            return Err(format!("probe {:?}: write PROVIDER:NAME", entry.probe));
        };
        let only = |what: &str, given: bool, event: UnitEvent| {
            if given && entry.event != event { Err(format!("{what} is for event \"{event}\" only")) } else { Ok(()) }
        };
        only("name", entry.name.is_some() || entry.name_len.is_some(), UnitEvent::Start)?;
        only("reason", entry.reason.is_some() || entry.reason_arg.is_some(), UnitEvent::Block)?;
        only("object", entry.object.is_some(), UnitEvent::Block)?;
        if entry.name_len.is_some() && entry.name.is_none() {
            return Err("name_len without name".to_owned());
        }
        let at = |number: Option<ArgumentNumber>| number.map(|number| number.0);
        Ok(Self {
            provider: provider.to_owned(),
            name: name.to_owned(),
            needs: entry.needs,
            meaning: UsdtMeaning {
                runtime: entry.runtime,
                event: entry.event,
                id: match entry.id {
                    Id::Argument(number) => UnitId::Argument(number.0),
                    Id::Word(Thread::Thread) => UnitId::Thread,
                },
                text: at(entry.name.or(entry.reason_arg)),
                text_len: at(entry.name_len),
                reason: entry.reason,
                object: at(entry.object),
                wakes_are_seen: false,
            },
        })
    }
}

impl Table {
    /// What is built in.
    pub fn built_in() -> Self {
        let mut table = Self::default();
        // A test proves that it is well-formed.
        table.add(BUILT_IN).unwrap_or_default();
        table
    }

    /// Adds what a person wrote; of a probe that is there already, the new meaning holds.
    pub fn add(&mut self, text: &str) -> Result<(), TableError> {
        if text.len() > MAX_BYTES {
            return Err(TableError::TooLong(text.len()));
        }
        let Text { probe: mut fresh } = toml::from_str(text).map_err(Box::new)?;
        fresh.append(&mut self.mappings);
        self.mappings = fresh;
        Ok(())
    }

    /// What a probe of this name means, if anything.
    pub fn mapping(&self, provider: &str, name: &str) -> Option<&Mapping> {
        self.mappings.iter().find(|mapping| mapping.provider == provider && mapping.name == name)
    }

    /// What a probe of an object means, as far as its arguments can be fetched. `Err`: what is missing for it to mean what the table
    /// says.
    pub fn meaning(&self, object: &UsdtObject, probe: &Probe) -> Option<Result<UsdtMeaning, Unusable>> {
        let mapping = self.mapping(&probe.provider, &probe.name)?;
        let fetched = |at: u8| {
            let argument = probe.arguments.get(usize::from(at));
            argument.is_some_and(|argument| object.is_fetchable(argument))
        };
        if let UnitId::Argument(at) = mapping.meaning.id
            && !fetched(at)
        {
            return Some(Err(Unusable { argument: at + 1, known: probe.arguments.get(usize::from(at)).map(|a| a.text.clone()) }));
        }
        let mut meaning = mapping.meaning.clone();
        // What is no more than nice to know may be missing.
        meaning.object = meaning.object.filter(|at| fetched(*at));
        meaning.text = meaning.text.filter(|at| fetched(*at) && meaning.text_len.is_none_or(fetched));
        meaning.text_len = meaning.text_len.filter(|_| meaning.text.is_some());
        let wakes = |other: &Probe| {
            let mapping = self.mapping(&other.provider, &other.name);
            mapping.is_some_and(|other| other.meaning.event == UnitEvent::Wake && other.meaning.runtime == meaning.runtime)
        };
        meaning.wakes_are_seen = object.probes.iter().any(wakes);
        Some(Ok(meaning))
    }
}

/// A probe that means something, but does not tell whom it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unusable {
    /// Which argument is missing, from 1.
    pub argument: u8,
    /// As the note has it, if it is there at all.
    pub known: Option<String>,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.known {
            Some(text) => write!(f, "argument {}, which is to be the id, cannot be fetched ({text})", self.argument),
            None => write!(f, "it has no argument {}, which is to be the id", self.argument),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that what is built in is well-formed, and says what the probes of hotspot and of the convention mean.
    #[test]
    fn built_in() {
        let mut table = Table::default();
        table.add(BUILT_IN).unwrap();
        for (provider, name, runtime, event) in [
            ("hotspot", "thread__start", "java", UnitEvent::Start),
            ("hotspot", "thread__stop", "java", UnitEvent::Exit),
            ("hotspot", "thread__park__begin", "java", UnitEvent::Block),
            ("hotspot", "thread__park__end", "java", UnitEvent::Wake),
            ("hotspot", "monitor__contended__enter", "java", UnitEvent::Block),
            ("hotspot", "monitor__contended__entered", "java", UnitEvent::Wake),
            ("go", "goroutine_start", "go", UnitEvent::Start),
            ("go", "goroutine_end", "go", UnitEvent::Exit),
            ("go", "sched_block", "go", UnitEvent::Block),
            ("go", "sched_wake", "go", UnitEvent::Wake),
        ] {
            let mapping = table.mapping(provider, name).unwrap_or_else(|| panic!("{provider}:{name}"));
            assert_eq!((mapping.meaning.runtime.as_str(), mapping.meaning.event), (runtime, event), "{provider}:{name}");
        }
        assert!(table.mapping("go", "nothing").is_none());
    }

    /// Check that a person's entry comes before what is built in.
    #[test]
    fn added() {
        let mut table = Table::built_in();
        let text = "[[probe]]\nruntime = 'job'\nprobe = 'go:sched_block'\nevent = 'block'\nid = 2\nreason = 'queue'\n";
        table.add(text).unwrap();
        let meaning = &table.mapping("go", "sched_block").unwrap().meaning;
        assert_eq!(
            (meaning.runtime.as_str(), &meaning.id, meaning.reason.as_deref()),
            ("job", &UnitId::Argument(1), Some("queue"))
        );
        assert_eq!(table.mapping("go", "goroutine_end").unwrap().meaning.runtime, "go");
    }

    /// Check that what is wrong is said with its line.
    #[test]
    fn mistakes() {
        let entry = "[[probe]]\nruntime = 'job'\nprobe = 'a:b'\nevent = 'start'\nid = 1\n";
        let with = |from: &str, to: &str| entry.replace(from, to);
        for (text, line, what) in [
            (with("id = 1", "id = 7"), 5, "\"thread\""),
            (with("id = 1", "id = 'self'"), 5, "\"thread\""),
            (with("id = 1", "id ="), 5, ""),
            (with("event = 'start'", "event = 'begin'"), 4, "begin"),
            (with("'a:b'", "'ab'"), 1, "PROVIDER:NAME"),
            (with("'job'", "'pid'"), 1, "pid"),
            (with("'job'", "'My Jobs'"), 1, "small letters"),
            (format!("{entry}colour = 'red'\n"), 6, "colour"),
            (format!("{entry}name = 0\n"), 6, "from 1 to 6"),
            (format!("{entry}name_len = 2\n"), 1, "name_len without name"),
            (format!("{entry}reason = 'x'\n"), 1, "event \"block\" only"),
            (format!("\n\n{}", with("runtime = 'job'\n", "")), 3, "runtime"),
        ] {
            let mut table = Table::default();
            let error = table.add(&text).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line}")) && error.contains(what), "{text}\n{error}");
        }
        assert!(Table::default().add(&" ".repeat(MAX_BYTES + 1)).is_err());
    }
}
