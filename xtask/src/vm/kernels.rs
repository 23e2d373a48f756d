//! The kernels of the matrix, and how they are fetched: Debian's own packages, out of suites that this machine need not know, unpacked and not installed.
//!
//! apt gets a list of sources and a state of its own, below the cache: of the host's only the mirror is taken, and nothing changed. What it fetches is
//! proved by the keys of `debian-archive-keyring`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    place,
    shell::{output, patiently, run},
};

/// A kernel of the matrix.
pub struct Kernel {
    /// What it is called here: the series.
    pub name: &'static str,
    /// Suites that are looked into, each with its archive; the newest package wins.
    suites: &'static [(&'static str, &'static str)],
    /// What lifetrace must name when it refuses to run there; `None`: everything works.
    pub lacks: Option<&'static str>,
}

/// Debian's archives, by the last part of their addresses.
const DEBIAN: &str = "debian";
const SECURITY: &str = "debian-security";

/// Oldest first. The newest one follows Debian: its series is not known before it is fetched.
pub const KERNELS: [Kernel; 4] = [
    Kernel { name: "5.10", suites: &[(DEBIAN, "bullseye"), (SECURITY, "bullseye-security")], lacks: Some("attach cookies") },
    Kernel { name: "6.1", suites: &[(DEBIAN, "bookworm"), (SECURITY, "bookworm-security")], lacks: None },
    Kernel { name: "6.12", suites: &[(DEBIAN, "bookworm-backports")], lacks: None },
    Kernel { name: "newest", suites: &[(DEBIAN, "trixie-backports")], lacks: None },
];

/// Cloud kernels are small and have the drivers of a virtual machine built in.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// Newer releases put the kernel itself and its modules into packages of their own.
const PARTS: [&str; 3] = ["image", "binary", "modules"];
/// What the tests need that is not built in.
const MODULES: [&str; 1] = ["overlay"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel that is there.
pub struct Fetched {
    /// `uname -r`.
    pub release: String,
    pub image: PathBuf,
    /// Modules to load, uncompressed.
    pub modules: Vec<PathBuf>,
}

impl Kernel {
    /// The kernel of this name.
    pub fn named(name: &str) -> Result<&'static Self> {
        let names = || KERNELS.iter().map(|kernel| kernel.name).collect::<Vec<_>>().join(", ");
        KERNELS.iter().find(|kernel| kernel.name == name).with_context(|| format!("no kernel {name}; there are {}", names()))
    }

    /// The kernel out of the cache, fetched if it is not there yet, or if a newer one is wished for.
    pub fn fetch(&self, anew: bool) -> Result<Fetched> {
        let dir = place::cache().join("vm").join(self.name);
        fs::create_dir_all(place::cache().join("vm"))?;
        // Several checkouts may share the cache; whoever comes second finds it there.
        let lock = fs::File::create(place::cache().join("vm/lock"))?;
        lock.lock()?;
        if anew || !dir.join("release").is_file() {
            let fresh = place::cache().join(format!("vm/{}.new", self.name));
            eprintln!("fetching Linux {} into {}", self.name, dir.display());
            let fetched = patiently(self.name, || {
                let _ = fs::remove_dir_all(&fresh);
                self.fetch_into(&fresh)
            });
            fetched.with_context(|| format!("Linux {} cannot be fetched", self.name))?;
            let _ = fs::remove_dir_all(&dir);
            fs::rename(&fresh, &dir)?;
        }
        Ok(Fetched {
            release: fs::read_to_string(dir.join("release"))?,
            image: dir.join("vmlinuz"),
            modules: MODULES.iter().map(|name| dir.join(format!("{name}.ko"))).collect(),
        })
    }

    fn fetch_into(&self, dir: &Path) -> Result<()> {
        let (apt, unpacked) = (dir.join("apt"), dir.join("unpacked"));
        fs::create_dir_all(&apt)?;
        let apt = Apt::prepare(&apt, self.suites)?;
        let release = apt.release()?;
        for part in PARTS.map(|part| format!("linux-{part}-{release}")) {
            if apt.knows(&part) {
                apt.download(&part)?;
            }
        }
        for package in apt.packages()? {
            run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
        }
        let images = ["boot/vmlinuz-{}", "usr/lib/modules/{}/vmlinuz"].map(|path| unpacked.join(path.replace("{}", &release)));
        let image = images.iter().find(|path| path.is_file()).context("the packages hold no vmlinuz")?;
        fs::copy(image, dir.join("vmlinuz"))?;
        for name in MODULES {
            let module = find(&unpacked, &format!("{name}.ko")).with_context(|| format!("the packages hold no module {name}"))?;
            unpack_module(&module, &dir.join(format!("{name}.ko")))?;
        }
        fs::remove_dir_all(unpacked)?;
        fs::remove_dir_all(apt.dir)?;
        Ok(fs::write(dir.join("release"), release)?)
    }
}

/// The archive of this name, where this machine's own apt has it.
fn address(archive: &str) -> Result<String> {
    let sites = output(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]))?;
    let named = |site: &&str| site.trim_end_matches('/').rsplit('/').next() == Some(archive);
    let site = sites.lines().find(named).with_context(|| format!("apt knows no archive …/{archive}: add it to its sources"))?;
    Ok(site.to_owned())
}

/// apt with nothing of the host's but its mirror.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn prepare(dir: &Path, suites: &[(&str, &str)]) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!("no {KEYRING}: install debian-archive-keyring");
        }
        for sub in ["state/lists/partial", "cache/archives/partial", "empty"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        fs::write(dir.join("status"), "")?;
        let line =
            |(archive, suite): &(&str, &str)| Ok(format!("deb [signed-by={KEYRING}] {} {suite} main\n", address(archive)?));
        fs::write(dir.join("sources.list"), suites.iter().map(line).collect::<Result<String>>()?)?;
        let this = Self { dir: dir.to_owned() };
        // Otherwise a suite that is not there would be a warning.
        run(this.command("apt-get").args(["-qq", "-o", "APT::Update::Error-Mode=any", "update"]))?;
        Ok(this)
    }

    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        let dir = self.dir.display();
        for option in [
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            format!("Dir::Etc::sourceparts={dir}/empty"),
            format!("Dir::Etc::preferences={dir}/empty/none"),
            format!("Dir::Etc::preferencesparts={dir}/empty"),
            format!("Dir::State={dir}/state"),
            format!("Dir::State::status={dir}/status"),
            format!("Dir::Cache={dir}/cache"),
            "APT::Architecture=amd64".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // An old suite gets no new dates any more; its signatures hold all the same.
            "Acquire::Check-Valid-Until=false".to_owned(),
            // Its unprivileged user may not see our cache.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.current_dir(&self.dir);
        command
    }

    /// What the package for the newest kernel depends on: `linux-image-6.1.0-56-cloud-amd64`, say, tells the release.
    fn release(&self) -> Result<String> {
        let known = output(self.command("apt-cache").args(["show", "--no-all-versions", PACKAGE]))?;
        let words = known.lines().filter_map(|line| line.strip_prefix("Depends: ")).flat_map(|line| line.split([' ', ',']));
        let releases = words.filter_map(|word| word.strip_prefix("linux-image-"));
        releases
            .map(str::to_owned)
            .find(|release| release.starts_with(|first: char| first.is_ascii_digit()))
            .with_context(|| format!("{PACKAGE} depends on no kernel"))
    }

    fn knows(&self, package: &str) -> bool {
        output(self.command("apt-cache").args(["show", package])).is_ok()
    }

    fn download(&self, package: &str) -> Result<()> {
        run(self.command("apt-get").args(["-qq", "download", package]))
    }

    fn packages(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.dir)?.filter_map(|entry| Some(entry.ok()?.path()));
        Ok(entries.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect())
    }
}

/// The file below `dir` whose name begins like this.
fn find(dir: &Path, beginning: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let named = |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning));
    entries.iter().find(named).cloned().or_else(|| {
        let folders = entries.iter().filter(|path| path.is_dir() && !path.is_symlink());
        folders.into_iter().find_map(|folder| find(folder, beginning))
    })
}

/// Newer packages compress each module.
fn unpack_module(module: &Path, into: &Path) -> Result<()> {
    if module.extension().is_some_and(|end| end == "ko") {
        fs::copy(module, into)?;
        return Ok(());
    }
    let unpacked = Command::new("xz").args(["-dc"]).arg(module).output().context("cannot start xz")?;
    if !unpacked.status.success() {
        bail!("xz: {}", String::from_utf8_lossy(&unpacked.stderr));
    }
    Ok(fs::write(into, unpacked.stdout)?)
}
