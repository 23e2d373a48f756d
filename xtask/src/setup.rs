//! What the demo, the tests and the benchmarks need besides Go: lifetrace built, programs to trace, and root for probes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    go, place, programs,
    shell::{output, patiently, run},
};

/// Whether we are root: probes cannot be set otherwise.
pub fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|uid| uid == "0")
}

/// What the tests and the kernel matrix call, and the Debian package that has it.
const TOOLS: [(&str, &str); 20] = [
    ("gcc", "gcc"),
    ("strace", "strace"),
    ("perf", "linux-perf"),
    ("bpftrace", "bpftrace"),
    ("wrk", "wrk"),
    ("xmllint", "libxml2-utils"),
    ("jsonschema", "python3-jsonschema"),
    ("node", "nodejs"),
    ("chromium", "chromium"),
    ("javac", "openjdk-17-jdk-headless"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
    ("strip", "binutils"),
    ("ip", "iproute2"),
    ("systemd-analyze", "systemd"),
    ("buildah", "buildah"),
    ("crun", "crun"),
    ("faketime", "faketime"),
];

/// Installs those that are missing, where that can be done: as root, with apt. What is missing all the same is told by whoever needs it.
pub fn tools() {
    let packages: Vec<&str> = TOOLS.iter().filter(|(tool, _)| which(tool).is_none()).map(|(_, package)| *package).collect();
    if packages.is_empty() || !is_root() || which("apt-get").is_none() {
        return;
    }
    println!("installing {}", packages.join(" "));
    let apt = |args: &[&str]| {
        run(Command::new("apt-get").args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(args).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let install = [&["install", "--yes", "--no-install-recommends"], packages.as_slice()].concat();
    let installed = patiently("apt", || {
        // Old lists may do.
        let _ = apt(&["update"]);
        apt(&install)
    });
    if let Err(error) = installed {
        println!("{error:#}");
    }
}

/// The path of a command of the host; administrators' ones too.
pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Builds lifetrace and returns the program.
pub fn lifetrace() -> Result<PathBuf> {
    run(Command::new("cargo").args(["build", "--quiet", "--package", "tracer-user"]).current_dir(place::root()))?;
    Ok(place::target().join("debug/lifetrace"))
}

/// Has the agent watch programs come and go for so many minutes, so many at once, chosen by a seed.
pub fn soak(plan: [u64; 3]) -> Result<()> {
    tools();
    lifetrace()?;
    let programs = programs::receiver()?;
    let mut soak = Command::new("cargo");
    soak.args(["run", "--quiet", "--package", "lifetrace-tests", "--bin", "soak", "--"]);
    soak.args(plan.map(|number| number.to_string())).current_dir(place::root());
    run(soak.env("LIFETRACE_PROGRAMS", programs))
}

/// Writes the guide's screens and pictures anew.
pub fn guide() -> Result<()> {
    tools();
    lifetrace()?;
    let test = ["test", "--quiet", "--package", "lifetrace-tests", "--test", "guide"];
    run(Command::new("cargo").args(test).env("LIFETRACE_WRITE_GUIDE", "1").current_dir(place::root()))
}

/// Writes the man pages, and says where.
pub fn man() -> Result<()> {
    let dir = place::target().join("man");
    fs::create_dir_all(&dir)?;
    run(Command::new(lifetrace()?).arg("man").arg(&dir))?;
    println!("{}", dir.display());
    Ok(())
}

/// Builds lifetrace as it is installed (README), with what else is asked for, and returns where that is.
pub fn released(targets: &[&str]) -> Result<PathBuf> {
    let release = ["build", "--quiet", "--release", "--package", "tracer-user"];
    run(Command::new("cargo").args(release).args(targets).current_dir(place::root()))?;
    Ok(place::target().join("release"))
}

/// Lays lifetrace down as a program that needs nothing beside it. The same build but for its last step, with the C library in it. glibc's name services are part of `libc.a` as far as they are asked
/// for (files and DNS; glibc 2.34), so nothing is loaded later.
pub fn linked_statically(release: bool, into: &Path) -> Result<()> {
    let (profile, folder): (&[&str], _) = if release { (&["--release"], "release") } else { (&[], "debug") };
    let cargo = |words: &[&str]| {
        let mut cargo = Command::new("cargo");
        cargo.args(words).args(["--quiet", "--package", "tracer-user", "--bin", "lifetrace"]).args(profile);
        cargo.current_dir(place::root());
        cargo
    };
    // Both are called the same: what is there afterwards is the usual one.
    let linked = run(cargo(&["rustc"]).args(["--", "-C", "target-feature=+crt-static"]));
    let copied = linked.and_then(|()| Ok(fs::copy(place::target().join(folder).join("lifetrace"), into)?));
    run(&mut cargo(&["build"]))?;
    copied?;
    // Names of functions stay, for its own profile; lines do not.
    run(Command::new("strip").arg("--strip-debug").arg(into))
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
