//! What people and programs read: reports, flamegraphs, profiles.
//!
//! Each kind of output is a [`crate::correlate::Sink`] that gathers while a recording is replayed, and a writer that names
//! addresses and says it. Nothing here reads a recording itself.

pub mod flamegraph;
pub mod pprof;
pub mod report;
pub mod sites;
