//! The agent's container image, as a runtime takes it: an archive (OCI image layout) unpacked into a bundle.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{fixture, process};

/// Of a container.
const NAME: &str = "lifetrace";

/// What `cargo xtask image` writes.
#[must_use]
pub fn archive() -> PathBuf {
    fixture::target_dir().join("image/lifetrace.tar")
}

/// The image, unpacked.
pub struct Image {
    dir: TempDir,
    /// Of its configuration (image-spec, config.md).
    pub config: Config,
}

#[derive(Deserialize)]
pub struct Config {
    pub architecture: String,
    pub config: Execution,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
}

/// What a container may do and sees of the host, beside what runtimes give to each.
pub struct Confinement {
    /// `CAP_BPF`, …
    pub rights: Vec<String>,
    /// Folders of the host, and where they are in the container; read-only.
    pub shared: Vec<(PathBuf, &'static str)>,
    /// The program and its arguments; the image's own where there are none.
    pub args: Vec<String>,
}

impl Image {
    pub fn unpack() -> Result<Self> {
        let dir = TempDir::new()?;
        let root = dir.path().join("rootfs");
        fs::create_dir(&root)?;
        untar(&archive(), dir.path())?;
        let index: Value = read(&dir.path().join("index.json"))?;
        let [image] = &index["manifests"].as_array().context("no images")?[..] else { anyhow::bail!("one image is enough") };
        let blob = |descriptor: &Value| -> Result<PathBuf> {
            let digest = descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).context("no digest")?;
            Ok(dir.path().join("blobs/sha256").join(digest))
        };
        let manifest: Value = read(&blob(image)?)?;
        for layer in manifest["layers"].as_array().context("no layers")? {
            untar(&blob(layer)?, &root)?;
        }
        let config = read(&blob(&manifest["config"])?)?;
        Ok(Self { config, dir })
    }

    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// What it holds, folders left out: paths within it.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut find = Command::new("find");
        find.arg(self.root()).args(["!", "-type", "d", "-printf", "/%P\n"]);
        let mut files: Vec<String> = process::run(find)?.expect_code(0)?.stdout.lines().map(str::to_owned).collect();
        files.sort();
        Ok(files)
    }

    /// The words that start a container: in the host's pid and network namespaces, on a root that nobody can write to.
    pub fn command(&self, confined: &Confinement) -> Result<Command> {
        let Execution { entrypoint, cmd } = &self.config.config;
        let own = || entrypoint.iter().chain(cmd).cloned().collect();
        let args: Vec<String> = if confined.args.is_empty() { own() } else { confined.args.clone() };
        let rights = &confined.rights;
        let mount =
            |kind: &str, to: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
        let mut mounts = vec![
            mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
            mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
            mount("tmpfs", "/tmp", &["nosuid", "nodev", "size=32m"]),
        ];
        let bind =
            |(from, to): &(PathBuf, &str)| json!({"destination": to, "type": "bind", "source": from, "options": ["bind", "ro"]});
        mounts.extend(confined.shared.iter().map(bind));
        let spec = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": ["NODE_NAME=n1"],
                "cwd": "/",
                "noNewPrivileges": true,
                "capabilities": {"bounding": rights, "effective": rights, "permitted": rights},
            },
            "root": {"path": "rootfs", "readonly": true},
            "mounts": mounts,
            "linux": {
                "namespaces": [{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        });
        fs::write(self.dir.path().join("config.json"), serde_json::to_vec(&spec)?)?;
        let mut crun = self.crun();
        crun.args(["run", "--bundle"]).arg(self.dir.path()).arg("--pid-file").arg(self.pid_file()).arg(NAME);
        Ok(crun)
    }

    fn crun(&self) -> Command {
        // It looks at the cgroups' file systems even if it is to leave them alone, and refuses two versions of them side by side.
        let mut crun = Command::new("unshare");
        crun.args(["--mount", "sh", "-c", "umount -l /sys/fs/cgroup/unified 2>/dev/null; exec crun \"$@\"", "sh"]);
        crun.arg("--root").arg(self.state()).arg("--cgroup-manager=disabled");
        crun
    }

    /// What crun knows of its containers: those of this image alone.
    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.path().join("pid")
    }

    /// Of the container's program, as the host numbers it.
    pub fn pid(&self) -> Result<u32> {
        Ok(fs::read_to_string(self.pid_file())?.trim().parse()?)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // The container's program is in a session of its own: it would outlive whoever has started it.
        if self.state().join(NAME).exists() {
            let _ = self.crun().args(["delete", "--force", NAME]).status();
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    serde_json::from_slice(&fs::read(path)?).with_context(|| path.display().to_string())
}

fn untar(archive: &Path, into: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(archive).arg("-C").arg(into);
    process::run(tar)?.expect_code(0)?;
    Ok(())
}

/// Whether a file can be executed, and by whom it can be written.
pub fn is_program(path: &Path) -> Result<bool> {
    let mode = fs::metadata(path)?.permissions().mode();
    ensure!(mode & 0o022 == 0, "{}: {mode:o}", path.display());
    Ok(mode & 0o111 == 0o111)
}
