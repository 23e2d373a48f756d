//! The programs that are traced: built once a test binary, under a lock, and replaced only if they changed, so that a program another
//! test binary is running stays the same file.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    deadline::PATIENCE,
    process::Running,
    truth::{self, Births},
    usdt,
};

/// The folder of fixtures that somebody has built before: `LIFETRACE_FIXTURES`, for a machine that has no compilers.
#[must_use]
pub fn prebuilt() -> Option<PathBuf> {
    env::var_os("LIFETRACE_FIXTURES").map(PathBuf::from)
}

/// Builds all fixtures, and returns the folder that they are in.
pub fn all() -> Result<PathBuf> {
    build_all()
}

/// The path of a Go fixture (`tests/fixtures/go/NAME`).
pub fn go(name: &str) -> Result<PathBuf> {
    built(name)
}

/// Builds a Go fixture once more, elsewhere and in another way.
pub fn go_built_with(name: &str, into: &Path, flags: &[&str], cgo: &str) -> Result<PathBuf> {
    let mut command = Command::new(go_command().context("no go command")?);
    command.current_dir(workspace().join("tests/fixtures/go")).env("GOTOOLCHAIN", "local").env("CGO_ENABLED", cgo);
    command.args(["build", "-buildvcs=false", "-o"]).arg(into).args(flags).arg(format!("./{name}"));
    succeed(&mut command)?;
    Ok(into.to_owned())
}

/// The module that holds the Go fixtures.
#[must_use]
pub fn go_sources() -> PathBuf {
    workspace().join("tests/fixtures/go")
}

/// The checkout.
#[must_use]
pub fn workspace_root() -> PathBuf {
    workspace().to_owned()
}

/// The module of Go tests that are run under the tracer (`tests/gotests`).
#[must_use]
pub fn go_tests() -> PathBuf {
    workspace().join("tests/gotests")
}

/// The path of a C fixture (`tests/fixtures/c/NAME.c`).
pub fn c(name: &str) -> Result<PathBuf> {
    built(name)
}

/// The path of a file among the examples.
#[must_use]
pub fn example(path: &str) -> PathBuf {
    workspace().join("examples").join(path)
}

/// The path of the example service `examples/orders`.
pub fn orders() -> Result<PathBuf> {
    built("orders")
}

/// The path of an example among `examples/incidents`.
pub fn incident(name: &str) -> Result<PathBuf> {
    built(name)
}

/// The Go command: `LIFETRACE_GO`, or that of `PATH`, or where Go installs itself.
pub fn go_command() -> Option<PathBuf> {
    if let Some(path) = env::var_os("LIFETRACE_GO") {
        return Some(path.into());
    }
    let usual =
        env::join_paths(env::split_paths(&env::var_os("PATH").unwrap_or_default()).chain(["/usr/local/go/bin".into()])).ok()?;
    env::split_paths(&usual).map(|dir| dir.join("go")).find(|path| path.is_file())
}

/// Copies a program to a path of its own, folders included. By another process: no child of ours may hold it open for writing when it is
/// executed (execve(2), ETXTBSY).
pub fn copied(program: &Path, to: &Path) -> Result<PathBuf> {
    fs::create_dir_all(to.parent().context("no folder")?)?;
    succeed(Command::new("cp").arg(program).arg(to))?;
    Ok(to.to_owned())
}

/// Starts the order service under a path of its own.
pub fn orders_at(path: &Path, args: &[&str]) -> Result<Running> {
    let mut command = Command::new(copied(&orders()?, path)?);
    command.args(args);
    Running::start(command, None)
}

/// Copies a program to where every user may execute it.
pub fn copy_for_everyone(program: &Path, dir: &Path) -> Result<PathBuf> {
    let copy = copied(program, &dir.join(program.file_name().context("a program has a name")?))?;
    for path in [dir, &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(copy)
}

/// The workspace's target directory.
#[must_use]
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

pub(crate) fn workspace() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

pub(crate) fn built(name: &str) -> Result<PathBuf> {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match DIR.get_or_init(|| prebuilt().map_or_else(build_all, Ok).map_err(|error| format!("{error:#}"))) {
        Ok(dir) => {
            let path = dir.join(name);
            ensure!(path.is_file(), "no fixture {name}");
            Ok(path)
        }
        Err(error) => bail!("fixtures: {error}"),
    }
}

fn build_all() -> Result<PathBuf> {
    let dir = target_dir().join("fixtures");
    let fresh = dir.join("fresh");
    fs::create_dir_all(&fresh)?;
    let lock = fs::File::create(dir.join("lock"))?;
    lock.lock()?;

    let go = go_command().context("no go command")?;
    for module in ["tests/fixtures/go", "examples/orders", "examples/incidents"] {
        let mut command = Command::new(&go);
        command.current_dir(workspace().join(module)).env("GOTOOLCHAIN", "local").args(["build", "-buildvcs=false", "-o"]);
        succeed(command.arg(format!("{}/", fresh.display())).arg("./..."))?;
    }
    for entry in fs::read_dir(workspace().join("tests/fixtures/c"))? {
        let source = entry?.path();
        if let Some(name) = source.file_stem().filter(|_| source.extension().is_some_and(|extension| extension == "c")) {
            // With frame pointers: the stacks of C code are told by these.
            let flags = ["-O1", "-g", "-fno-omit-frame-pointer", "-pthread", "-Wall", "-Wextra", "-Werror", "-o"];
            succeed(Command::new("gcc").args(flags).arg(fresh.join(name)).arg(&source))?;
        }
    }
    usdt::build(&fresh)?;
    for entry in fs::read_dir(&fresh)? {
        let entry = entry?;
        let installed = dir.join(entry.file_name());
        if fs::read(&installed).ok() != Some(fs::read(entry.path())?) {
            fs::copy(entry.path(), dir.join("installing"))?;
            fs::rename(dir.join("installing"), installed)?;
        }
    }
    Ok(dir)
}

pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A `sleeper` with its goroutines parked, and its truth.
pub fn sleeper(args: &[&str]) -> Result<(Running, Births)> {
    let mut command = Command::new(go("sleeper")?);
    command.args(args);
    let mut running = Running::start(command, None)?;
    let births = truth::read(&running.line(0)?)?;
    Ok((running, births))
}

/// What Go's own tool makes of a profile.
pub fn go_pprof(args: &[&str]) -> Result<String> {
    let mut go = Command::new(go_command().context("no go command")?);
    go.args(["tool", "pprof"]).args(args);
    // Go builds it first, where it has not yet.
    Ok(Running::start(go, None)?.finish_within(PATIENCE * 5)?.expect_code(0)?.stdout)
}
