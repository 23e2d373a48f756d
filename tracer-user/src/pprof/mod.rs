//! Asking a Go process by HTTP, through the `net/http/pprof` that it serves.
//!
//! Owns the questions (`client`), where to put them (`discover`), the reading of every form of answer (`text`: goroutines one by one,
//! `debug=2`; `counted`: goroutines by stack, `debug=1`; `profile`: `profile.proto`; `mem_stats`), whether an answer is of the process
//! that was meant (`verdict`), and its translation into a recording's words (`resolve`). When to ask is for `cli::asker`.
//!
//! Whoever answers may be slow, broken or hostile: every answer is bounded in time and size while it comes, every parser in time and
//! memory, and none of them panics.

pub mod base;
#[cfg(feature = "live")]
pub mod client;
pub mod counted;
#[cfg(feature = "live")]
pub mod discover;
pub mod index;
#[cfg(all(test, feature = "live"))]
mod live_tests;
pub mod mem_stats;
pub mod profile;
mod quoted;
pub mod resolve;
#[cfg(test)]
mod sample_tests;
pub mod sockets;
pub mod text;
pub mod verdict;

use crate::recording::contract::ProfileKind;

/// More goroutines than this, and `debug=2` is not asked for: the world stands still while it is written (195 ms at 100,000
/// goroutines, 1.2 s at 300,000, measured).
pub const MAX_TEXT_GOROUTINES: u64 = 10_000;
/// Bytes of an answer as it comes. Go cuts `debug=2` at 64 MiB, and a block of a recording holds little less.
pub const MAX_ANSWER: usize = (64 << 20) - (64 << 10);
/// Bytes of a profile when unpacked.
pub const MAX_UNPACKED: usize = 256 << 20;
/// How long a CPU profile is taken.
pub const CPU_SECONDS: u64 = 5;

/// An answer that is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("it is no dump of goroutines")]
    NoDump,
    #[error("it is no gzipped profile")]
    NoProfile,
    #[error("it ends too early")]
    Cut,
    #[error("it unpacks to more than {MAX_UNPACKED} bytes")]
    UnpacksTooFar,
    #[error("it holds more {0} than are read")]
    TooMany(&'static str),
    #[error("it lacks {0}")]
    Lacks(&'static str),
}

/// Name of a profile below `/debug/pprof/`, and how it is asked for.
pub fn path_of(kind: ProfileKind) -> String {
    match kind {
        ProfileKind::Goroutine => "goroutine".to_owned(),
        ProfileKind::GoroutineLeak => "goroutineleak".to_owned(),
        ProfileKind::Heap => "heap".to_owned(),
        ProfileKind::Allocs => "allocs".to_owned(),
        ProfileKind::Mutex => "mutex".to_owned(),
        ProfileKind::Block => "block".to_owned(),
        ProfileKind::Cpu => format!("profile?seconds={CPU_SECONDS}"),
    }
}
