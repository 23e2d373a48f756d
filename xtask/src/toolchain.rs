//! The toolchain of the BPF object: rustc 1.95.0 exactly, the sources of its standard library, and bpf-linker.
//!
//! Everything is fetched into the project's cache; nothing of the machine's own toolchain is changed.

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

/// The compiler that the committed object is built with.
pub const RUSTC: &str = "1.95.0";
/// Loads rustc's own LLVM 22; 0.11 and later want LLVM 23.
const BPF_LINKER: &str = "0.10.3";

/// What a build of the BPF object needs.
pub struct BpfToolchain {
    /// The `library` folder of the compiler's own sources.
    pub library: PathBuf,
    /// The folder that holds `bpf-linker`.
    pub linker_dir: PathBuf,
    /// Set for cargo and rustc; names the private toolchain where the machine's own is another version.
    pub env: Vec<(&'static str, PathBuf)>,
}

impl BpfToolchain {
    /// Finds or fetches all of it.
    pub fn prepare() -> Result<Self> {
        let linker_dir = bpf_linker()?;
        let own_is_right = own_rustc_version().is_ok_and(|version| version == RUSTC);
        if own_is_right && let Some(library) = given_or_present_sources()? {
            return Ok(Self { library, linker_dir, env: Vec::new() });
        }
        let refused = match private_rustup() {
            Ok((library, env)) => return Ok(Self { library, linker_dir, env }),
            Err(refused) => refused,
        };
        if !own_is_right {
            return Err(refused.context(format!("this machine's rustc is not {RUSTC}, and a private one cannot be fetched")));
        }
        let library = debian_sources().map_err(|debian| {
            anyhow::anyhow!(
                "no sources of rustc {RUSTC}'s standard library: rustup: {refused:#}; Debian: {debian:#}; \
                 LIFETRACE_RUST_SRC may name a folder that holds them"
            )
        })?;
        Ok(Self { library, linker_dir, env: Vec::new() })
    }
}

fn own_rustc_version() -> Result<String> {
    let text = output(Command::new("rustc").arg("--version"))?;
    text.split(' ').nth(1).map(str::to_owned).context("rustc --version says nothing")
}

/// `LIFETRACE_RUST_SRC`, or the component that is installed already.
fn given_or_present_sources() -> Result<Option<PathBuf>> {
    if let Some(given) = std::env::var_os("LIFETRACE_RUST_SRC").filter(|given| !given.is_empty()) {
        let library = library_below(Path::new(&given))
            .with_context(|| format!("LIFETRACE_RUST_SRC={}: no library/core in it", Path::new(&given).display()))?;
        return Ok(Some(library));
    }
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(library_below(&Path::new(&sysroot).join("lib/rustlib/src/rust")))
}

fn library_below(folder: &Path) -> Option<PathBuf> {
    [folder.to_path_buf(), folder.join("library")].into_iter().find(|library| library.join("core/src/lib.rs").is_file())
}

/// A rustup home of the project's own, with rustc and rust-src of the pinned version.
fn private_rustup() -> Result<(PathBuf, Vec<(&'static str, PathBuf)>)> {
    let home = place::cache().join("rustup");
    let env = vec![("RUSTUP_HOME", home.clone()), ("RUSTUP_TOOLCHAIN", PathBuf::from(RUSTC))];
    let host = output(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let source = home.join(format!("toolchains/{RUSTC}-{host}/lib/rustlib/src/rust"));
    if library_below(&source).is_none() {
        eprintln!("fetching rustc {RUSTC} and its sources into {}", home.display());
        let mut install = Command::new("rustup");
        install.args(["toolchain", "install", RUSTC, "--profile", "minimal", "--component", "rust-src", "--no-self-update"]);
        run(install.env("RUSTUP_HOME", &home).env_remove("RUSTUP_TOOLCHAIN"))?;
    }
    let library = library_below(&source).with_context(|| format!("no library/core below {}", source.display()))?;
    Ok((library, env))
}

/// Debian's `rust-src`, unpacked and not installed.
fn debian_sources() -> Result<PathBuf> {
    let dir = place::cache().join("rust-src");
    let unpacked = dir.join(format!("usr/src/rustc-{RUSTC}"));
    if let Some(library) = library_below(&unpacked) {
        return Ok(library);
    }
    fs::create_dir_all(&dir)?;
    let known = output(Command::new("apt-cache").args(["show", "rust-src"]))?;
    let version = known
        .lines()
        .filter_map(|line| line.strip_prefix("Version: "))
        .find(|version| version.starts_with(RUSTC))
        .with_context(|| format!("the archives configured here have no rust-src {RUSTC}"))?
        .to_owned();
    run(Command::new("apt-get").arg("download").arg(format!("rust-src={version}")).current_dir(&dir))?;
    let package = fs::read_dir(&dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .context("apt-get download left no package")?;
    run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&dir))?;
    library_below(&unpacked).with_context(|| format!("{} holds no library/core", package.display()))
}

/// bpf-linker, built once into the cache.
fn bpf_linker() -> Result<PathBuf> {
    let root = place::cache().join("bpf-linker");
    let dir = root.join("bin");
    let present = output(Command::new(dir.join("bpf-linker")).arg("--version"));
    if present.is_ok_and(|version| version.ends_with(BPF_LINKER)) {
        return Ok(dir);
    }
    eprintln!("building bpf-linker {BPF_LINKER} into {}", root.display());
    let mut install = Command::new("cargo");
    install.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force", "--root"]).arg(&root);
    run(install.arg("--target-dir").arg(place::cache().join("bpf-linker-build")))?;
    if !dir.join("bpf-linker").is_file() {
        bail!("cargo install left no {}", dir.join("bpf-linker").display());
    }
    Ok(dir)
}
