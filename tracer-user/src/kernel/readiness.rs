//! Waiting on a kernel descriptor inside the runtime.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use tokio::io::unix::AsyncFd;

/// Tells when something can be read, through a descriptor of its own.
pub struct Readiness(AsyncFd<OwnedFd>);

impl Readiness {
    /// Must be called inside the runtime.
    pub fn of(source: &impl AsFd) -> io::Result<Self> {
        let own = source.as_fd().try_clone_to_owned()?;
        // SAFETY: an OwnedFd is open, stays open and keeps its number for as long as it lives, and AsyncFd owns it.
        Ok(Self(unsafe { AsyncFd::register(own) }?))
    }

    /// Waits until there is something to read. The caller must then read until there is nothing: the next wait is for
    /// what comes later.
    pub async fn ready(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

/// The same for a source that may be missing: it is never ready.
pub async fn ready(source: Option<&Readiness>) -> io::Result<()> {
    match source {
        Some(source) => source.ready().await,
        None => std::future::pending().await,
    }
}
