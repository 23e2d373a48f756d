//! What the emulated machines boot into: one archive for all kernels, and a small one for each with its modules and what it is to do.
//!
//! lifetrace is linked statically, so that it runs on any kernel with no file beside it. The test programs are those that `cargo test` has built here, and
//! bring the host's own C library along, as fixtures with C in them do: so nothing is built twice, and of lifetrace the last step alone.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::scenarios::Program;
use crate::{
    go, place,
    setup::{self, which},
    shell::{output, run},
};

const INIT: &str = include_str!("init.sh");
/// Tools of the host that busybox's own do not stand for.
const TOOLS: [&str; 8] = ["bash", "chroot", "ip", "mount", "setpriv", "taskset", "umount", "unshare"];
/// Users as tests know them.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// The root of the emulated machines, as a folder of the host.
pub struct Root {
    dir: PathBuf,
}

/// What one machine does.
pub struct Orders<'a> {
    pub programs: &'a [Program],
    pub modules: &'a [PathBuf],
    /// How many times longer than usual the tests wait.
    pub patience: u32,
}

impl Root {
    /// Builds lifetrace, tests and fixtures, and puts them together.
    pub fn build() -> Result<Self> {
        let dir = place::target().join("vm/root");
        let _ = fs::remove_dir_all(&dir);
        for sub in ["bin", "dev", "etc", "fixtures", "proc", "root", "run", "sys", "tests", "tmp", "usr/bin", "vm"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let this = Self { dir };
        this.write("init", INIT.as_bytes(), 0o755)?;
        this.write("etc/passwd", PASSWD.as_bytes(), 0o644)?;
        this.write("etc/group", GROUP.as_bytes(), 0o644)?;
        this.copy(&which("busybox").context("no busybox: install busybox-static")?, "bin/busybox")?;
        this.copy_stripped(&static_lifetrace()?, "usr/bin/lifetrace")?;
        let mut linked = BTreeSet::new();
        for (name, program) in test_programs()? {
            this.copy_stripped(&program, &format!("tests/{name}"))?;
            linked.insert(program);
        }
        for fixture in files(&fixtures()?)? {
            let name = fixture.file_name().context("a fixture has a name")?.to_string_lossy().into_owned();
            this.copy(&fixture, &format!("fixtures/{name}"))?;
            linked.insert(fixture);
        }
        for name in TOOLS {
            let tool = which(name).with_context(|| format!("no {name} command"))?;
            this.copy(&tool, &format!("usr/bin/{name}"))?;
            linked.insert(tool);
        }
        // busybox's own shell takes its own tools before those of PATH.
        let shell = which("sh").context("no sh command")?;
        this.copy(&shell, "bin/sh")?;
        linked.insert(shell);
        for library in libraries(&linked)? {
            this.copy(&library, library.strip_prefix("/").unwrap_or(&library).to_str().context("a library's path")?)?;
        }
        Ok(this)
    }

    /// Where lifetrace is.
    pub fn lifetrace(&self) -> PathBuf {
        self.dir.join("usr/bin/lifetrace")
    }

    /// Where the fixtures are.
    pub fn fixtures(&self) -> PathBuf {
        self.dir.join("fixtures")
    }

    /// The names of the test programs.
    pub fn tests(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = files(&self.dir.join("tests"))?
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        Ok(names)
    }

    /// A test program.
    pub fn test(&self, name: &str) -> PathBuf {
        self.dir.join("tests").join(name)
    }

    /// The archive that is the same for every kernel.
    pub fn archive(&self) -> Result<PathBuf> {
        let archive = self.dir.with_extension("cpio");
        pack(&self.dir, &archive)?;
        Ok(archive)
    }

    fn write(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let path = self.dir.join(path);
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
    }

    fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.dir.join(to);
        fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
        fs::copy(from, to).with_context(|| from.display().to_string())?;
        Ok(())
    }

    /// Without what only a debugger reads: the archive lies in the machine's memory, twice for a moment.
    fn copy_stripped(&self, from: &Path, to: &str) -> Result<()> {
        run(Command::new("strip").arg("--strip-debug").arg("-o").arg(self.dir.join(to)).arg(from))
    }
}

/// The whole archive for one machine: the common one, and its own orders behind it, as the kernel allows.
pub fn with_orders(common: &Path, orders: &Orders<'_>, into: &Path) -> Result<()> {
    let dir = into.with_extension("orders");
    let _ = fs::remove_dir_all(&dir);
    let modules = dir.join("vm/modules");
    fs::create_dir_all(&modules)?;
    for module in orders.modules {
        fs::copy(module, modules.join(module.file_name().context("a module has a name")?))?;
    }
    let lines = orders.programs.iter().map(|program| format!("{} {} {}\n", program.seconds, program.name, program.filter));
    fs::write(dir.join("vm/list"), lines.collect::<String>())?;
    fs::write(dir.join("vm/patience"), orders.patience.to_string())?;
    let own = into.with_extension("own");
    pack(&dir, &own)?;
    fs::copy(common, into)?;
    fs::OpenOptions::new().append(true).open(into)?.write_all(&fs::read(&own)?)?;
    fs::remove_dir_all(dir)?;
    Ok(fs::remove_file(own)?)
}

/// An archive of the form that the kernel unpacks, not compressed: an emulated machine would be long about it.
fn pack(dir: &Path, into: &Path) -> Result<()> {
    let mut names = Vec::new();
    list(dir, Path::new("."), &mut names)?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--quiet", "--create", "--format=newc", "--owner=0:0", "--dereference"]).current_dir(dir);
    let mut cpio = cpio.stdin(Stdio::piped()).stdout(fs::File::create(into)?).spawn().context("cannot start cpio")?;
    cpio.stdin.take().context("cpio has no input")?.write_all(names.join("\n").as_bytes())?;
    let status = cpio.wait()?;
    if !status.success() {
        bail!("cpio: {status}");
    }
    Ok(())
}

fn list(top: &Path, below: &Path, names: &mut Vec<String>) -> Result<()> {
    names.push(below.display().to_string());
    for entry in fs::read_dir(top.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(top, &path, names)?;
        } else {
            names.push(path.display().to_string());
        }
    }
    Ok(())
}

fn static_lifetrace() -> Result<PathBuf> {
    let program = place::target().join("vm/lifetrace");
    fs::create_dir_all(place::target().join("vm"))?;
    setup::linked_statically(false, &program)?;
    Ok(program)
}

/// The end-to-end tests by name, built as `cargo test` builds them.
fn test_programs() -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--no-run", "--package", "lifetrace-tests", "--tests", "--message-format=json"]);
    let messages = output(cargo.current_dir(place::root()))?;
    let program = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let target = &message["target"];
        (target["kind"] == serde_json::json!(["test"])).then_some(())?;
        Some((target["name"].as_str()?.to_owned(), PathBuf::from(message["executable"].as_str()?)))
    };
    Ok(messages.lines().filter_map(program).collect())
}

fn fixtures() -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--package", "lifetrace-tests", "--bin", "fixtures"]).env("LIFETRACE_GO", go::go()?);
    Ok(output(cargo.current_dir(place::root()))?.into())
}

/// The files in a folder; not the empty ones, which are locks.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(entries.filter(|path| path.metadata().is_ok_and(|file| file.is_file() && file.len() > 0)).collect())
}

/// Every shared library that these programs load, the loader included.
fn libraries(programs: &BTreeSet<PathBuf>) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for program in programs {
        // It fails on programs that are linked statically.
        let said = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let paths = said.lines().flat_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
        found.extend(paths.map(PathBuf::from));
    }
    Ok(found)
}
