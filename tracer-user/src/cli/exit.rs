//! STUB
use std::{fmt, os::unix::process::ExitStatusExt, process::ExitStatus};
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub u8);
impl Exit {
    pub const FINE: Self = Self(0);
    pub const OURS: Self = Self(125);
    pub const NOT_EXECUTABLE: Self = Self(126);
    pub const NOT_FOUND: Self = Self(127);
    pub fn of_status(s: ExitStatus) -> Self {
        match (s.code(), s.signal()) {
            (Some(c), _) => Self(c as u8),
            (None, Some(n)) => Self(128 + n as u8),
            _ => Self(125),
        }
    }
}
#[derive(Debug)]
pub struct CliError {
    pub exit: Exit,
    pub source: anyhow::Error,
}
impl CliError {
    pub fn new(exit: Exit, e: impl Into<anyhow::Error>) -> Self {
        Self { exit, source: e.into() }
    }
    pub fn ours(m: String) -> Self {
        Self::new(Exit::OURS, anyhow::anyhow!(m))
    }
    pub fn ours_from(e: anyhow::Error) -> Self {
        Self::new(Exit::OURS, e)
    }
}
impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.source)
    }
}
impl std::error::Error for CliError {}
