//! What the agent's file says of segments: where they go, and what may wait for that.

use std::{collections::BTreeMap, fmt, fs, io::Read, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::store::{Place, StoreError};

/// A secret is no longer than this.
const MAX_SECRET: u64 = 64 << 10;
/// The least that a recording may take in the spool.
const LEAST: u64 = 1 << 20;

/// Why they make no sense.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("segments.store")]
    Store(#[from] StoreError),
    #[error("segments.options: {key} cannot be read from {path}")]
    Secret {
        key: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("segments: {0}")]
    Wrong(&'static str),
}

/// Understood.
#[derive(Clone, PartialEq)]
pub struct Settings {
    pub place: Place,
    pub spool: PathBuf,
    /// How long a segment lasts, where that is not as long as a recording.
    pub every: Option<Duration>,
    pub recording_bytes: u64,
    pub spool_bytes: u64,
    pub keep: Keep,
}

/// What stays in a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    pub bytes: Option<u64>,
    pub time: Option<Duration>,
}

/// As it stands there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsText {
    store: String,
    #[serde(default = "spool")]
    spool: PathBuf,
    every: Option<Time>,
    #[serde(default = "recording_bytes")]
    recording_bytes: Bytes,
    #[serde(default = "spool_bytes")]
    spool_bytes: Bytes,
    keep_bytes: Option<Bytes>,
    keep_for: Option<Time>,
    #[serde(default)]
    options: BTreeMap<String, OptionText>,
}

fn spool() -> PathBuf {
    "/var/lib/lifetrace/spool".into()
}

fn recording_bytes() -> Bytes {
    Bytes(256_000_000)
}

fn spool_bytes() -> Bytes {
    Bytes(1_000_000_000)
}

/// What a store is told: `true` and `30` are as good as their texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum OptionText {
    Text(String),
    Number(i64),
    Is(bool),
}

impl From<OptionText> for String {
    fn from(text: OptionText) -> Self {
        match text {
            OptionText::Text(text) => text,
            OptionText::Number(number) => number.to_string(),
            OptionText::Is(is) => is.to_string(),
        }
    }
}

struct Time(Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        humantime::parse_duration(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

/// `"512 MB"`: powers of a thousand.
struct Bytes(u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        bytes(&text).map(Self).ok_or_else(|| D::Error::custom("an amount is wanted, such as \"512 MB\" or \"1 GB\""))
    }
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|sign: char| !sign.is_ascii_digit())?;
    let factor = match text[digits..].trim() {
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

impl SettingsText {
    /// Understands it, and reads the secrets that it names.
    pub fn understood(self) -> Result<Settings, SettingsError> {
        let mut options = BTreeMap::new();
        for (key, value) in self.options {
            let (key, value) = resolved(&self.store, key, value.into())?;
            options.insert(key, value);
        }
        let place = Place::new(&self.store, options)?;
        let keep = Keep { bytes: self.keep_bytes.map(|bytes| bytes.0), time: self.keep_for.map(|time| time.0) };
        if keep != Keep::default() && place.folder().is_none() {
            return Err(SettingsError::Wrong("keep_bytes and keep_for are for folders: a bucket has lifecycle rules of its own"));
        }
        if self.recording_bytes.0 < LEAST || self.spool_bytes.0 < self.recording_bytes.0 {
            return Err(SettingsError::Wrong("recording_bytes: 1 MB or more, and no more than spool_bytes"));
        }
        if !self.spool.is_absolute() {
            return Err(SettingsError::Wrong("spool: a path from / on"));
        }
        if place.folder().is_some_and(|folder| folder.starts_with(&self.spool) || self.spool.starts_with(folder)) {
            return Err(SettingsError::Wrong("spool and store: one is not to lie in the other"));
        }
        Ok(Settings {
            place,
            spool: self.spool,
            every: self.every.map(|time| time.0),
            recording_bytes: self.recording_bytes.0,
            spool_bytes: self.spool_bytes.0,
            keep,
        })
    }
}

/// An option by its own name: the content of a file where it is called `NAME_file`, unless that is a name as well.
fn resolved(store: &str, key: String, value: String) -> Result<(String, String), SettingsError> {
    let is_key = |key: &str| Place::knows(store, key);
    match key.strip_suffix("_file") {
        Some(name) if !is_key(&key) && is_key(name) => {
            let path = PathBuf::from(value);
            let mut text = String::new();
            let read = fs::File::open(&path).and_then(|file| file.take(MAX_SECRET).read_to_string(&mut text));
            match read {
                Ok(_) => Ok((name.to_owned(), text.trim().to_owned())),
                Err(source) => Err(SettingsError::Secret { key, path, source }),
            }
        }
        _ => Ok((key, value)),
    }
}

/// Where they go and by which spool; no option is told, for some are secret.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "into {}, by {}", self.place, self.spool.display())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        let text: SettingsText = toml::from_str(text).map_err(|error| error.to_string())?;
        text.understood().map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }

    /// Check what little has to be said, and all that can be; that a secret comes from its file, and is told to nobody.
    #[test]
    fn settings() {
        let least = parse("store = \"file:///srv/segments\"").unwrap();
        assert_eq!(least.to_string(), "into file:///srv/segments, by /var/lib/lifetrace/spool");
        assert_eq!((least.recording_bytes, least.spool_bytes, least.keep), (256_000_000, 1_000_000_000, Keep::default()));
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, "hush\n").unwrap();
        let text = format!(
            "store = \"s3://bucket/a/b\"\nspool = \"/s\"\nevery = \"10m\"\nrecording_bytes = \"5 MB\"\nspool_bytes = \"7MB\"\n\
             [options]\nendpoint = \"http://127.0.0.1:9\"\nallow_http = true\nregion = \"x\"\naccess_key_id = \"me\"\n\
             secret_access_key_file = {secret:?}\n"
        );
        let all = parse(&text).unwrap();
        assert_eq!(all.place.option("secret_access_key"), Some("hush"));
        assert_eq!((all.every, all.recording_bytes, all.spool_bytes), (Some(Duration::from_secs(600)), 5_000_000, 7_000_000));
        assert!(!format!("{all} {all:?}").contains("hush"), "{all:?}");
    }

    /// Check that what makes no sense is refused.
    #[test]
    fn refusals() {
        for (text, part) in [
            ("", "missing field `store`"),
            ("store = \"here\"", "relative URL"),
            ("store = \"ftp://a/b\"", "file:///folder, s3://"),
            ("store = \"http://a/b\"", "file:///folder, s3://"),
            ("store = \"file://host/b\"", "file:///folder, s3://"),
            ("store = \"s3://key:secret@bucket/a\"", "no user and no password"),
            ("store = \"file:///\"", "not / itself"),
            ("store = \"file:///a\"\n[options]\nregion = \"x\"", "no option `region`"),
            ("store = \"s3://b\"\n[options]\nendpiont = \"x\"", "no option `endpiont`"),
            ("store = \"s3://b\"\n[options]\nsecret_access_key_file = \"/nowhere/x\"", "/nowhere/x"),
            ("store = \"s3://b\"\nkeep_for = \"1d\"", "lifecycle rules"),
            ("store = \"file:///a\"\nspool_bytes = \"1 MB\"", "no more than spool_bytes"),
            ("store = \"file:///a\"\nspool_bytes = \"1 megabyte\"", "512 MB"),
            ("store = \"file:///a\"\nspool = \"here\"", "from / on"),
            ("store = \"file:///a\"\nspool = \"/a/b\"", "not to lie in the other"),
            ("store = \"file:///a\"\ncolour = \"red\"", "unknown field `colour`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
