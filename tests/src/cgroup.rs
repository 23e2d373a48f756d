//! A cgroup of the unified hierarchy for one test.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::deadline::{PATIENCE, wait_for};

/// A cgroup that goes with the test; whoever is in it must have ended by then.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes `lifetrace-NAME` at the top of the hierarchy.
    pub fn new(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (at, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(at))
        });
        let path = mount.context("no cgroup file system of version 2")?.join(format!("lifetrace-{name}-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Makes one below it, which must be dropped before it.
    pub fn below(&self, name: &str) -> Result<Self> {
        let path = self.0.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    #[must_use]
    pub fn path(&self) -> &PathBuf {
        &self.0
    }

    /// A command that moves into the cgroup and then becomes `program`.
    #[must_use]
    pub fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.0).arg(program);
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its last process may still be on its way out.
        let _ = wait_for("the cgroup to be empty", PATIENCE, || Ok(fs::remove_dir(&self.0).ok()));
    }
}
