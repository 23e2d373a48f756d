//! STUB
pub mod args;
pub mod exit;
#[cfg(feature = "live")]
mod follow;
#[cfg(feature = "live")]
mod relay;
#[cfg(feature = "live")]
pub mod run;
