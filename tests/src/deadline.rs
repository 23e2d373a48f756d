//! Waiting for something to become true: polled, never slept for.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long anything may take: generous, because machines are slow and shared.
pub const PATIENCE: Duration = Duration::from_secs(60);

const STEP: Duration = Duration::from_millis(10);

/// How many times slower than usual this machine may be: `LIFETRACE_PATIENCE`, for one that is emulated.
#[must_use]
pub fn slowness() -> u32 {
    env::var("LIFETRACE_PATIENCE").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Asks `probe` until it answers, or fails with `what` after `patience`, which is stretched by [`slowness`].
pub fn wait_for<T>(what: &str, patience: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let patience = patience * slowness();
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

/// Asks for something that is measured in seconds of a machine that others may have had those seconds of: it must be so in one of three goes,
/// and fails with what the last one said.
pub fn once_in_three(mut go: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 1..3 {
        match go() {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("once more: {error:#}"),
        }
    }
    go()
}

/// Lets a given time pass: only where the moment itself is what is tested.
pub fn let_pass(time: Duration) {
    thread::sleep(time);
}
