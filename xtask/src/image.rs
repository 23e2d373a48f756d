//! `cargo xtask image`: the agent as a container image of one program, linked statically, on nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{place, setup, shell::output};

/// Where the program is in the image: what deploy/kubernetes/daemonset.yaml starts.
const PROGRAM: &str = "/usr/local/bin/lifetrace";
const COMMAND: &str = r#"["agent", "--config", "/etc/lifetrace/agent/agent.toml"]"#;
/// Whom receivers and stores are believed, where the agent's file names no authorities: what the Debian package ca-certificates makes.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Builds it and says where its archive (OCI) is, which skopeo, podman, buildah and `ctr images import` take.
pub fn image(name: &str, release: bool) -> Result<()> {
    let dir = place::target().join("image");
    let archive = dir.join("lifetrace.tar");
    // Whoever finds one afterwards has this one.
    let _ = fs::remove_file(&archive);
    if !setup::is_root() {
        bail!("an image is made as root (`sudo -E cargo xtask image`)");
    }
    setup::tools();
    fs::create_dir_all(&dir)?;
    let program = dir.join("lifetrace");
    setup::linked_statically(release, &program)?;
    let store = Store::new(&dir)?;
    store.pack(&program, &format!("oci-archive:{}:{name}", archive.display()))?;
    println!("{}", archive.display());
    Ok(())
}

/// Buildah's images and containers, in a folder that goes with it.
struct Store(PathBuf);

impl Store {
    fn new(dir: &Path) -> Result<Self> {
        let store = Self(dir.join("store"));
        fs::create_dir_all(&store.0)?;
        Ok(store)
    }

    fn buildah(&self, words: &[&str]) -> Result<String> {
        let mut buildah = Command::new("buildah");
        // Plain folders: nothing to mount.
        buildah.args(["--storage-driver", "vfs", "--root"]).arg(self.0.join("root")).arg("--runroot").arg(self.0.join("run"));
        output(buildah.args(words)).context("buildah")
    }

    fn pack(&self, program: &Path, to: &str) -> Result<()> {
        let container = self.buildah(&["from", "scratch"])?;
        let copy = |from: &str, to: &str, mode: &str| self.buildah(&["copy", "--quiet", "--chmod", mode, &container, from, to]);
        copy(program.to_str().context("a path in UTF-8")?, PROGRAM, "0755")?;
        if Path::new(AUTHORITIES).is_file() {
            copy(AUTHORITIES, AUTHORITIES, "0644")?;
        } else {
            println!("no {AUTHORITIES}: in this image `ca_file` has to name whom `https://` is believed");
        }
        let entry = format!("[\"{PROGRAM}\"]");
        let label = "org.opencontainers.image.title=lifetrace";
        self.buildah(&["config", "--entrypoint", &entry, "--cmd", COMMAND, "--label", label, &container])?;
        // The same files make the same image, whenever they are packed.
        self.buildah(&["commit", "--quiet", "--rm", "--timestamp", "0", &container, to])?;
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
