//! The BPF object: built, stripped of DWARF, committed, and proved to be what its sources give.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{
    place,
    shell::{output, run},
    toolchain::{BpfToolchain, RUSTC},
};

const TARGET: &str = "bpfel-unknown-none";

/// What the object is compiled with, wherever that is.
const FLAGS: [&str; 6] = [
    "-Clinker=bpf-linker",
    "-Clinker-plugin-lto",
    "-Cdebuginfo=2",
    "-Ctarget-cpu=v3",
    "-Clink-arg=--btf",
    "--cfg=bpf_target_arch=\"x86_64\"",
];

fn prebuilt() -> PathBuf {
    place::root().join("tracer-ebpf/prebuilt")
}

fn object_path() -> PathBuf {
    prebuilt().join("lifetrace.bpf.o")
}

fn hash_path() -> PathBuf {
    prebuilt().join("sources.sha256")
}

/// Builds the object and the hash of its sources into `tracer-ebpf/prebuilt/`.
pub fn build() -> Result<()> {
    let toolchain = BpfToolchain::prepare()?;
    let object = compile(&toolchain)?;
    fs::create_dir_all(prebuilt())?;
    fs::write(object_path(), &object)?;
    fs::write(hash_path(), format!("{}\n", source_hash()?))?;
    println!("{}: {} bytes, rustc {RUSTC}", object_path().display(), object.len());
    Ok(())
}

/// Proves that the committed object is what the sources give. Where the pinned toolchain cannot be had, that is a recorded
/// skip, and the hash of the sources must still match.
pub fn check() -> Result<()> {
    let committed_hash = fs::read_to_string(hash_path()).context("no hash of the sources beside the object")?;
    let hash = source_hash()?;
    if committed_hash.trim() != hash {
        bail!("the sources of tracer-ebpf or tracer-common changed after the object was built: run `cargo xtask build-ebpf`");
    }
    let toolchain = match BpfToolchain::prepare() {
        Ok(toolchain) => toolchain,
        Err(reason) => {
            println!("skipped: build-ebpf --check: the object was not rebuilt ({reason:#}); the hash of its sources matches");
            return Ok(());
        }
    };
    let rebuilt = compile(&toolchain)?;
    let committed = fs::read(object_path())?;
    if rebuilt != committed {
        let path = place::root().join("target/ebpf/rebuilt.bpf.o");
        fs::write(&path, &rebuilt)?;
        bail!(
            "the committed object ({} bytes) is not what the sources give ({} bytes, kept as {}): run `cargo xtask build-ebpf`",
            committed.len(),
            rebuilt.len(),
            path.display()
        );
    }
    println!("{}: identical to a fresh build by rustc {RUSTC} ({} bytes)", object_path().display(), committed.len());
    Ok(())
}

/// Compiles the programs and returns the object without DWARF.
fn compile(toolchain: &BpfToolchain) -> Result<Vec<u8>> {
    let root = place::root();
    let target_dir = root.join("target/ebpf");
    let mut path = std::ffi::OsString::from(&toolchain.linker_dir);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let registry = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .context("no home folder")?;
    let remap = [
        format!("--remap-path-prefix={}=/lifetrace", root.display()),
        format!("--remap-path-prefix={}=/cargo", registry.display()),
        format!("--remap-path-prefix={}=/rust/library", toolchain.library.display()),
    ];
    let flags: Vec<&str> = FLAGS.into_iter().chain(remap.iter().map(String::as_str)).collect();
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "--locked", "--package", "tracer-ebpf", "-Z", "build-std=core", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(&root)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", &toolchain.library)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("PATH", path)
        .envs(toolchain.env.iter().cloned());
    for name in ["RUSTC", "RUSTDOC", "CARGO", "RUSTFLAGS", "RUSTC_WRAPPER"] {
        cargo.env_remove(name);
    }
    run(&mut cargo)?;
    let built = target_dir.join(TARGET).join("release/tracer-ebpf");
    strip(toolchain, &built)
}

/// Drops DWARF (its crate hashes depend on where the sources lay); BTF stays. The tool is the one that comes with rustc.
fn strip(toolchain: &BpfToolchain, object: &Path) -> Result<Vec<u8>> {
    let stripped = object.with_extension("stripped");
    let sysroot = PathBuf::from(output(Command::new("rustc").args(["--print", "sysroot"]).envs(toolchain.env.iter().cloned()))?);
    let host = output(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let objcopy = sysroot.join("lib/rustlib").join(host).join("bin/rust-objcopy");
    let mut strip = Command::new(objcopy);
    strip.arg("--strip-debug").arg(object).arg(&stripped).env("LD_LIBRARY_PATH", sysroot.join("lib"));
    run(&mut strip)?;
    fs::read(&stripped).with_context(|| stripped.display().to_string())
}

/// A hash over everything the object is built from: both crates, the versions of what they use, compiler and flags.
fn source_hash() -> Result<String> {
    let root = place::root();
    let mut files = Vec::new();
    for dir in ["tracer-ebpf/src", "tracer-common/src"] {
        collect(&root.join(dir), &mut files)?;
    }
    files.extend(["tracer-ebpf/Cargo.toml", "tracer-common/Cargo.toml"].map(|file| root.join(file)));
    files.sort();
    let mut hasher = Sha256::new();
    hasher.update(format!("{RUSTC} {FLAGS:?} {}", locked_versions(&fs::read_to_string(root.join("Cargo.lock"))?)));
    for file in files {
        let name = file.strip_prefix(&root)?.to_string_lossy().into_owned();
        let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Names, versions and checksums of the locked packages that end up in the object.
fn locked_versions(lock: &str) -> String {
    let ours = |package: &&str| {
        package.trim_start().starts_with("name = \"aya-ebpf") || package.trim_start().starts_with("name = \"aya-log")
    };
    lock.split("[[package]]").filter(ours).flat_map(|package| package.lines().take(5)).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
