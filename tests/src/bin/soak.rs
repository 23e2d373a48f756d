//! A soak of the agent: `soak MINUTES PROGRAMS SEED`. Prints what came of it; a failure is one of the agent's.

use std::{env, time::Duration};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::soak::{self, Plan};

/// Rising by more a minute is a leak of ours.
const MAX_RISE: f64 = 0.01;

fn main() -> Result<()> {
    let mut args = env::args().skip(1).map(|arg| arg.parse::<u64>());
    let mut next = || args.next().context("soak MINUTES PROGRAMS SEED")?.context("a number is wanted");
    let (minutes, programs, seed) = (next()?, next()?, next()?);
    let plan = Plan { lasting: Duration::from_secs(minutes * 60), programs: programs as usize, seed: seed.max(1) };
    let outcome = soak::run(plan)?;
    println!("{outcome}");
    if minutes < 10 { outcome.check() } else { outcome.check_all() }?;
    ensure!(outcome.rise_per_minute() < MAX_RISE, "memory rises by {:.2} % a minute", outcome.rise_per_minute() * 100.0);
    Ok(())
}
