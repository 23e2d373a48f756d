//! Outputs of a whole recording: the report, flamegraphs, pprof profiles.
//!
//! Each is a [`crate::correlate::Sink`] that tallies while the recording is replayed, and a writer that names things at the
//! end. Every output says what is lost and what was covered ([`crate::correlate::replay::Replayed::trust`]).

pub mod cpu;
pub mod flame_diff;
pub mod flamegraph;
pub mod gc;
pub mod html;
mod interned;
pub mod labels;
mod labels_text;
pub mod leaks;
mod owner;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod pprof;
mod processes_text;
pub mod profile_flame;
pub mod report;
pub mod report_text;
mod runtime_text;
pub mod series;
pub mod snapshot;
pub mod tally;
pub mod thread_flame;
pub mod threads;
pub mod units;
pub mod windows;
