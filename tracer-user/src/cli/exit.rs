//! Exit codes: the contract that scripts rely on (README: "Exit codes").

use std::{fmt, os::unix::process::ExitStatusExt, process::ExitStatus};

/// A process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    pub const FINE: Self = Self(0);
    /// Wrong usage, or input that cannot be used.
    pub const BAD_INPUT: Self = Self(2);
    /// Privilege, kernel or target do not allow it.
    pub const ENVIRONMENT: Self = Self(3);
    /// With `-- CMD`: whatever failed was ours.
    pub const OURS: Self = Self(125);
    pub const NOT_EXECUTABLE: Self = Self(126);
    pub const NOT_FOUND: Self = Self(127);

    /// A command's own status, as a shell says it: 128+n for signal n.
    pub fn of_status(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self(code as u8),
            (None, Some(signal)) => Self(128u8.wrapping_add(signal as u8)),
            (None, None) => Self::OURS,
        }
    }
}

/// An error that knows its exit code.
#[derive(Debug)]
pub struct CliError {
    pub exit: Exit,
    pub source: anyhow::Error,
}

impl CliError {
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, source: error.into() }
    }

    pub fn bad_input(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::BAD_INPUT, error)
    }

    /// A failure of lifetrace's under `-- CMD`, in words.
    pub fn ours(what: String) -> Self {
        Self::new(Exit::OURS, anyhow::Error::msg(what))
    }

    pub fn ours_from(error: anyhow::Error) -> Self {
        Self::new(Exit::OURS, error)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.source)
    }
}

impl std::error::Error for CliError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a command's status is passed on as a shell would.
    #[test]
    fn statuses() {
        for (raw, code) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (9, 137), (15, 143), (11 | 0x80, 139)] {
            assert_eq!(Exit::of_status(ExitStatus::from_raw(raw)), Exit(code), "{raw:#x}");
        }
    }
}
