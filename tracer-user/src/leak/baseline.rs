//! Leaks that are known: they are told, and fail no gate.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{fingerprint::Fingerprint, verdict::Leak};

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

    /// All of these.
    pub fn of<'a>(leaks: impl Iterator<Item = &'a Leak>) -> Self {
        let known = |leak: &Leak| Known {
            strength: leak.strength.name().to_owned(),
            created_by: leak.created_by.as_ref().map(|frame| frame.function.clone()),
            blocked_on: leak.blocked.as_ref().map(|blocked| blocked.reason.clone()),
        };
        let leaks = leaks.map(|leak| (leak.fingerprint.0.clone(), known(leak))).collect();
        Self { schema: SCHEMA.to_owned(), leaks }
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
        assert!(matches!(said("{}"), Err(BaselineError::Json(_))));
        assert!(matches!(said(r#"{"schema":"other","leaks":{}}"#), Err(BaselineError::Schema(_))));
        fs::remove_file(&path).unwrap();
        assert!(matches!(Baseline::read(&path), Err(BaselineError::Io(_))));
    }
}
