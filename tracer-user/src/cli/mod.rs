//! The command line: arguments, exit codes, and one file a subcommand.

pub mod args;
#[cfg(feature = "live")]
pub mod doctor;
pub mod exit;
pub mod flame;
#[cfg(feature = "live")]
mod follow;
mod output;
#[cfg(feature = "live")]
mod relay;
pub mod report;
#[cfg(feature = "live")]
pub mod run;
pub mod timeline;
