//! Leaks that are known: they are told, and fail no gate.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;

const SCHEMA: &str = "lifetrace.baseline/1";
/// Bytes of a baseline that are read.
const MAX_BYTES: u64 = 64 << 20;

/// The file: one entry a fingerprint, sorted, so that changes read well in a review.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    schema: String,
    leaks: BTreeMap<String, Known>,
}

/// What it was when it was accepted; for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub strength: String,
    pub created_by: Option<String>,
    pub blocked_on: Option<String>,
    /// How many there were, and where in a flamegraph.
    #[serde(default)]
    pub count: u64,
    #[serde(default)]
    pub path: Vec<String>,
}

/// Why a baseline cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    #[error("cannot read it")]
    Io(#[from] io::Error),
    #[error("it is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    #[error("it is no baseline")]
    Json(#[from] serde_json::Error),
    #[error("its schema is {0:?}, not {SCHEMA:?}")]
    Schema(String),
}

impl Baseline {
    pub fn read(path: &Path) -> Result<Self, BaselineError> {
        if fs::metadata(path)?.len() > MAX_BYTES {
            return Err(BaselineError::TooLarge);
        }
        let this: Self = serde_json::from_slice(&fs::read(path)?)?;
        if this.schema == SCHEMA { Ok(this) } else { Err(BaselineError::Schema(this.schema)) }
    }

    /// All of these, by fingerprint. One that comes twice, of two processes for one, is one, and as many as both.
    pub fn of(leaks: impl Iterator<Item = (String, Known)>) -> Self {
        let mut this = Self { schema: SCHEMA.to_owned(), leaks: BTreeMap::new() };
        for (fingerprint, known) in leaks {
            let count = known.count;
            let before = this.leaks.insert(fingerprint.clone(), known).map_or(0, |before| before.count);
            if let Some(known) = this.leaks.get_mut(&fingerprint) {
                known.count = count.saturating_add(before);
            }
        }
        this
    }

    /// All that are known, by fingerprint.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Known)> {
        self.leaks.iter()
    }

    pub fn get(&self, fingerprint: &str) -> Option<&Known> {
        self.leaks.get(fingerprint)
    }

    pub fn knows(&self, fingerprint: &Fingerprint) -> bool {
        self.leaks.contains_key(&fingerprint.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check what is refused, and that what was written is read.
    #[test]
    fn files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leaks.json");
        let said = |text: &str| {
            fs::write(&path, text).unwrap();
            Baseline::read(&path)
        };
        let entry = r#"{"strength":"suspected","created_by":"main.f","blocked_on":null}"#;
        let known = said(&format!(r#"{{"schema":"{SCHEMA}","leaks":{{"00ff":{entry}}}}}"#)).unwrap();
        assert!(known.knows(&Fingerprint("00ff".to_owned())) && !known.knows(&Fingerprint("00fe".to_owned())));
        assert!(said(&serde_json::to_string(&known).unwrap()).is_ok_and(|again| again == known));
        let known = |count| {
            let (strength, path) = ("suspected".to_owned(), vec!["main.f".to_owned()]);
            Known { strength, created_by: None, blocked_on: None, count, path }
        };
        let both = Baseline::of([("01".to_owned(), known(3)), ("01".to_owned(), known(4))].into_iter());
        assert_eq!(both.get("01").map(|known| known.count), Some(7));
        assert!(matches!(said("{}"), Err(BaselineError::Json(_))));
        assert!(matches!(said(r#"{"schema":"other","leaks":{}}"#), Err(BaselineError::Schema(_))));
        fs::remove_file(&path).unwrap();
        assert!(matches!(Baseline::read(&path), Err(BaselineError::Io(_))));
    }
}
