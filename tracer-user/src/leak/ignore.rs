//! Leaks that somebody decided to live with for a while: each with a reason, and a day after which it fails the gate again.

use std::{fs, io, path::Path, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::verdict::Leak;

/// Bytes of a file that are read.
const MAX_BYTES: u64 = 1 << 20;

/// The file: `[[ignore]]` tables of TOML.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IgnoreList {
    #[serde(default, rename = "ignore")]
    entries: Vec<Entry>,
}

/// One decision. At least one of `fingerprint` and `function` names what it is about; where both do, both must fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// The function that the `go` statement is in.
    #[serde(default)]
    pub function: Option<String>,
    pub reason: String,
    /// The last day on which it counts: `2027-01-31`.
    pub expires: String,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IgnoreError {
    #[error("cannot read it")]
    Io(#[from] io::Error),
    #[error("it is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    #[error("{0}")]
    Toml(#[from] Box<toml::de::Error>),
    #[error("entry {0} names neither a fingerprint nor a function")]
    Everything(usize),
    #[error("entry {0} has no reason")]
    NoReason(usize),
    #[error("entry {entry} expires on {day:?}, which is no day like 2027-01-31")]
    NoDay { entry: usize, day: String },
}

impl IgnoreList {
    pub fn read(path: &Path) -> Result<Self, IgnoreError> {
        if fs::metadata(path)?.len() > MAX_BYTES {
            return Err(IgnoreError::TooLarge);
        }
        Self::parse(&fs::read_to_string(path)?)
    }

    fn parse(text: &str) -> Result<Self, IgnoreError> {
        let this: Self = toml::from_str(text).map_err(Box::new)?;
        for (entry, number) in this.entries.iter().zip(1..) {
            if entry.fingerprint.is_none() && entry.function.is_none() {
                return Err(IgnoreError::Everything(number));
            }
            if entry.reason.trim().is_empty() {
                return Err(IgnoreError::NoReason(number));
            }
            if !is_day(&entry.expires) {
                return Err(IgnoreError::NoDay { entry: number, day: entry.expires.clone() });
            }
        }
        Ok(this)
    }

    /// The decision about a leak that counts on `today`.
    pub fn about(&self, leak: &Leak, today: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.counts(today) && entry.fits(leak))
    }

    /// Those that count no more.
    pub fn expired<'a>(&'a self, today: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| !entry.counts(today))
    }
}

impl Entry {
    /// Days as they are written here have the order of their texts.
    fn counts(&self, today: &str) -> bool {
        self.expires.as_str() >= today
    }

    fn fits(&self, leak: &Leak) -> bool {
        let made_in = leak.created_by.as_ref().map(|frame| frame.function.as_str());
        self.fingerprint.as_ref().is_none_or(|fingerprint| *fingerprint == leak.fingerprint.0)
            && self.function.as_ref().is_none_or(|function| made_in == Some(function))
    }
}

/// Today's date (UTC), as `2027-01-31`.
pub fn today() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string().chars().take(10).collect()
}

fn is_day(text: &str) -> bool {
    text.len() == 10 && humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check what is refused, and the last day of an entry.
    #[test]
    fn files() {
        let entry = |fields: &str| IgnoreList::parse(&format!("[[ignore]]\n{fields}"));
        let whole = "function = \"main.open\"\nreason = \"#12\"\nexpires = \"2027-01-31\"";
        let list = entry(whole).unwrap();
        assert_eq!(list.expired("2027-01-31").count(), 0);
        assert_eq!(list.expired("2027-02-01").count(), 1);
        assert!(matches!(entry("reason = \"x\"\nexpires = \"2027-01-31\""), Err(IgnoreError::Everything(1))));
        assert!(matches!(entry(&whole.replace("#12", " ")), Err(IgnoreError::NoReason(1))));
        for day in ["2027-02-30", "31.1.2027", "2027-01-31T00:00:00Z", ""] {
            assert!(matches!(entry(&whole.replace("2027-01-31", day)), Err(IgnoreError::NoDay { entry: 1, .. })), "{day}");
        }
        assert!(matches!(entry(&format!("{whole}\nuntil = 3")), Err(IgnoreError::Toml(_))));
        assert!(matches!(entry("function = \"f\""), Err(IgnoreError::Toml(_))));
        assert!(is_day(&today()));
    }
}
