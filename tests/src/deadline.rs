//! Waiting for something to become true: polled, never slept for.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long anything may take: generous, because machines are slow and shared.
pub const PATIENCE: Duration = Duration::from_secs(60);

const STEP: Duration = Duration::from_millis(10);

/// Asks `probe` until it answers, or fails with `what` after `patience`.
pub fn wait_for<T>(what: &str, patience: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(answer) = probe()? {
            return Ok(answer);
        }
        if Instant::now() >= end {
            bail!("waited {} s for {what}", patience.as_secs());
        }
        thread::sleep(STEP);
    }
}

/// Lets a given time pass: only where the moment itself is what is tested.
pub fn let_pass(time: Duration) {
    thread::sleep(time);
}
