//! The agent: follows the programs that a file chooses for as long as it runs, and serves what they do (docs/agent.md).
//!
//! ```text
//! discovery → cli::piped (an attach that records into a pipe) → top::model → ledger → metrics → doors → Prometheus
//! ```
//! Everything that grows with time belongs to one recording, and recordings are renewed; what outlives them is the [`ledger`], which is bounded.

pub mod census;
pub mod config;
pub mod discovery;
pub mod doors;
pub mod exponential;
pub mod exports;
pub mod flight;
pub mod folder;
pub mod kubernetes;
pub mod ledger;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod policy;
pub mod record;
#[cfg(feature = "segments")]
pub mod segments;
#[cfg(feature = "segments")]
pub mod spool;
