//! lifetrace as a library: the pipeline from the ring buffer to the exports.
//!
//! ```text
//! probes → ring buffer → kernel → decode → order → correlate → timeline → leak, finding → export → top → agent
//!                           ↘ recording (written) ↗   replay enters at decode
//! ```
//! A stage imports only what stands to its left in ARCHITECTURE.md, plus [`event`], [`id`], [`clock`], [`container`] and [`signal`]. `kernel` is the
//! only user of aya and stands behind the feature `live`.

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "live")]
pub mod capture;
pub mod cli;
pub mod clock;
pub mod container;
pub mod correlate;
pub mod decode;
pub mod event;
pub mod export;
pub mod finding;
pub mod golang;
pub mod governor;
pub mod id;
pub mod index;
#[cfg(feature = "live")]
pub mod kernel;
pub mod leak;
#[cfg(feature = "live")]
pub mod native;
pub mod order;
pub mod pprof;
pub mod recording;
pub mod signal;
pub mod snapshot;
pub mod symbolize;
#[cfg(feature = "live")]
pub mod target;
pub mod timeline;
pub mod top;
pub mod usdt;

#[cfg(test)]
mod direction_tests;
