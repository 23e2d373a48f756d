//! What may go wrong with a question.

use std::fmt;

use crate::{
    pprof::{AnswerError, MAX_TEXT_GOROUTINES, client::ClientError, verdict::Lie},
    snapshot::process::ProcessError,
};

/// Something that went wrong with a question.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("its answer is of no use")]
    Answer(#[from] AnswerError),
    #[error("its goroutines are those of another process, so what it says is left out")]
    Lie(#[from] Lie),
    #[error("it cannot be told whose goroutines these are, so they are left out")]
    Unverified(#[source] ProcessError),
    #[error(
        "{0} goroutines: debug=2 is not asked for above {MAX_TEXT_GOROUTINES}, because the process stands still while it answers; its memory is read instead"
    )]
    TooMany(u64),
}

impl Trouble {
    /// Troubles of one kind are told once.
    pub fn kind(&self, what: &str) -> String {
        match self {
            // What is not there is missed by its name.
            Self::Client(ClientError::Status { status: 404, .. }) => format!("status 404 {what}"),
            Self::Client(ClientError::Status { status, .. }) => format!("status {status}"),
            Self::Client(error) => format!("{:?}", std::mem::discriminant(error)),
            Self::Answer(error) => format!("{error:?}"),
            Self::Lie(_) => "lie".to_owned(),
            Self::Unverified(_) => "unverified".to_owned(),
            Self::TooMany(_) => "too many".to_owned(),
        }
    }
}

/// An error with its causes.
pub struct Chain<'e>(pub &'e dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
