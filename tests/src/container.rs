//! Containers as the kernel has them: an image on overlayfs, and processes in namespaces of their own.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{
    deadline::{PATIENCE, wait_for},
    fixture,
    process::{self, Running},
};

/// A folder with programs in it: what containers have in common.
pub struct Image {
    dir: TempDir,
}

/// A root file system of its own on top of an image; unmounted when it is dropped.
pub struct Container {
    dir: TempDir,
}

/// A process in a container.
pub struct Contained {
    pub running: Running,
    /// As the host numbers it.
    pub pid: Pid,
}

impl Image {
    /// With these programs at its top.
    pub fn of(programs: &[&Path]) -> Result<Self> {
        let dir = TempDir::new()?;
        for program in programs {
            let name = program.file_name().context("a program has a name")?;
            fixture::copied(program, &dir.path().join(name))?;
        }
        fs::create_dir(dir.path().join("proc"))?;
        Ok(Self { dir })
    }

    /// Mounts it once more; needs root.
    pub fn container(&self) -> Result<Container> {
        let container = Container::prepare()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "lifetrace-test", "-o", &self.mount_options(&container)]).arg(container.root());
        let status = mount.status().context("cannot start mount")?;
        ensure!(status.success(), "mount: {status}");
        Ok(container)
    }

    /// What mount(8) is told for a container.
    #[must_use]
    pub fn mount_options(&self, container: &Container) -> String {
        let dir = container.dir.path().display();
        format!("lowerdir={},upperdir={dir}/upper,workdir={dir}/work", self.dir.path().display())
    }
}

impl Container {
    /// The folders of a container that nobody has mounted yet.
    pub fn prepare() -> Result<Self> {
        let dir = TempDir::new()?;
        for name in ["upper", "work", "root"] {
            fs::create_dir(dir.path().join(name))?;
        }
        Ok(Self { dir })
    }

    /// Its root, as the host sees it.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// The words that start a program of the image in mount, pid and user namespaces of its own, with this file system as its root.
    #[must_use]
    pub fn command(&self, program: &str, args: &[&str]) -> Vec<String> {
        let root = self.root().display().to_string();
        let mut words =
            ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"].map(str::to_owned).to_vec();
        words.extend([format!("--mount-proc={root}/proc"), "chroot".to_owned(), root, program.to_owned()]);
        words.extend(args.iter().map(|arg| (*arg).to_owned()));
        words
    }

    /// Starts a program of the image.
    pub fn start(&self, program: &str, args: &[&str]) -> Result<Contained> {
        let words = self.command(program, args);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let running = Running::start(command, None)?;
        let unshare = running.pid();
        let pid = wait_for("the contained process", PATIENCE, || {
            let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap_or_default();
            let child = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).map(process::pid);
            Ok(child.filter(|child| runs(*child, program)))
        })?;
        Ok(Contained { running, pid })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Lazily: a process that is still ending must not keep the mount in everybody's way.
        let _ = Command::new("umount").arg("-ql").arg(self.root()).status();
    }
}

fn runs(pid: Pid, program: &str) -> bool {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    exe.file_name() == Path::new(program).file_name() && exe.file_name() != Some(OsStr::new("chroot"))
}
