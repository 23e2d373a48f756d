//! Running commands, and saying what was run when one fails.

use std::{io, process::Command, thread, time::Duration};

use anyhow::{Context, Result, bail};

/// Runs a command to its end with its output shown; anything but success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Runs a command and returns its trimmed standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Does what asks somebody else's server: again after a while, and once more, where that fails.
pub fn patiently<T>(what: &str, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    for pause in [5, 30] {
        match work() {
            // What is not installed will not be there in a while.
            Err(error) if error.root_cause().downcast_ref::<io::Error>().is_none() => {
                eprintln!("{what}: {error:#}; again in {pause} s");
            }
            done => return done,
        }
        thread::sleep(Duration::from_secs(pause));
    }
    work()
}

fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
