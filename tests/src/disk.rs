//! A disk so small that it fills up.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// A tmpfs of a given size, unmounted when it is dropped.
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Mounts one; needs root.
    pub fn mount(size: &str) -> Result<Self> {
        let dir = TempDir::new()?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "lifetrace-test"])
            .arg(dir.path())
            .status()
            .context("cannot start mount")?;
        ensure!(status.success(), "mount: {status}");
        Ok(Self { dir })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a file that is still open must not keep the mount in everybody's way.
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}
