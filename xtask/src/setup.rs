//! What the demo, the tests and the benchmarks need besides Go: lifetrace built, programs to trace, and root for probes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    go, place,
    shell::{output, run},
};

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
    run(Command::new(go::go()?)
        .args(["build", "-o"])
        .arg(into)
        .arg(".")
        .current_dir(source)
        .env("GOFLAGS", "-mod=mod")
        .env("GOWORK", "off"))
}
