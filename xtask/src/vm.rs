//! `cargo xtask vm`: the end-to-end tests on the kernels that distributions ship, in emulated machines.
//!
//! - [`kernels`]: which ones, and where they come from; [`initramfs`]: what they boot into; [`machine`]: booting; `init.sh`: what runs in there;
//! - [`scenarios`]: which tests; [`outcome`]: what became of them; [`table`]: docs/kernels.md.

mod host;
mod initramfs;
mod kernels;
mod machine;
mod outcome;
mod scenarios;
mod table;

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};

use self::{
    initramfs::{Orders, Root},
    kernels::{KERNELS, Kernel},
    machine::{Machine, SLOWNESS},
    outcome::Outcome,
    scenarios::{Choice, choose},
};
use crate::{
    matrix, place,
    setup::{self, which},
};

/// The kernel that runs here, as a name among the others.
const HOST: &str = "host";
/// What a machine needs to boot, besides its tests' own time.
const BOOT: Duration = Duration::from_secs(120);

/// What to run.
pub struct Wish {
    /// One kernel, by its name or `host`; `None`: the one whose turn it is.
    pub kernel: Option<String>,
    /// All of them, the host's own included.
    pub all: bool,
    /// Only what [`slice`] runs; docs/kernels.md stays as it is.
    pub slice: bool,
    /// Test programs, each `NAME` or `NAME:FILTER`; only their rows of docs/kernels.md are renewed, and with a filter none.
    pub only: Vec<String>,
    /// Fetch the kernel again: there may be a newer one.
    pub fetch: bool,
    /// Keep the archive that the machine booted into.
    pub keep: bool,
}

impl Wish {
    fn choice(&self) -> Choice<'_> {
        match (&self.only[..], self.slice) {
            ([], true) => Choice::Slice,
            ([], false) => Choice::Whole,
            (only, _) => Choice::Only(only),
        }
    }
}

/// `cargo xtask vm`.
pub fn vm(wish: &Wish) -> Result<()> {
    setup::tools();
    if let Some(missing) = missing() {
        bail!("{missing}");
    }
    let root = Root::build()?;
    let common = root.archive()?;
    let names: Vec<&str> = match &wish.kernel {
        _ if wish.all => KERNELS.iter().map(|kernel| kernel.name).chain([HOST]).collect(),
        Some(name) => vec![name],
        None => vec![kernel_of_the_day().name],
    };
    let failures = Mutex::new(Vec::new());
    let conclude = |name: &str, outcome: Outcome| -> Result<()> {
        let mut failures = failures.lock().map_err(|_| anyhow!("another machine's end failed"))?;
        failures.extend(outcome.failures().into_iter().map(|failure| format!("{name}: {failure}")));
        // Of a program of which some tests ran, nothing can be said.
        match wish.slice || wish.only.iter().any(|only| only.contains(':')) {
            true => Ok(()),
            false => table::renew(name, outcome, !wish.only.is_empty()),
        }
    };
    let (here, machines): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| *name == HOST);
    side_by_side(&machines, |name| conclude(name, boot(Kernel::named(name)?, &root, &common, &wish.choice(), wish)?))?;
    for name in here {
        conclude(name, on_host(&root, wish)?)?;
    }
    let _ = fs::remove_file(common);
    verdict(&failures.into_inner().unwrap_or_default())
}

/// Does this for each machine, on as many CPUs as there are: each keeps one busy. The first failure is told when all have ended.
fn side_by_side(machines: &[&str], run: impl Fn(&str) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        let mut done = Ok(());
        while let Some(name) = machines.get(next.fetch_add(1, Ordering::Relaxed)) {
            done = done.and(run(name));
        }
        done
    };
    let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(machines.len());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cpus).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a machine's keeper failed")))
    })
}

/// A slice of the tests on the kernel whose turn it is, for `cargo xtask test`. The error of `Ok` is why it could not be tried.
pub fn slice() -> Result<Result<(), String>> {
    let kernel = kernel_of_the_day();
    println!("vm: Linux {} (of {})", kernel.name, KERNELS.map(|kernel| kernel.name).join(", "));
    if let Some(missing) = missing() {
        return Ok(Err(missing));
    }
    if let Err(error) = kernel.fetch(false) {
        return Ok(Err(format!("{error:#}")));
    }
    let root = Root::build()?;
    let common = root.archive()?;
    let wish = Wish { kernel: None, all: false, slice: true, only: Vec::new(), fetch: false, keep: false };
    let outcome = boot(kernel, &root, &common, &wish.choice(), &wish)?;
    let _ = fs::remove_file(common);
    verdict(&outcome.failures()).map(Ok)
}

fn verdict(failures: &[String]) -> Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{} failed:\n  {}", failures.len(), failures.join("\n  "))
}

/// Another one with each commit.
fn kernel_of_the_day() -> &'static Kernel {
    &KERNELS[matrix::turn() % KERNELS.len()]
}

/// Why no machine can be started here.
fn missing() -> Option<String> {
    [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("busybox", "busybox-static"),
        ("cpio", "cpio"),
        ("apt-get", "apt: kernels come from Debian"),
        ("dpkg-deb", "dpkg"),
        ("xz", "xz-utils"),
        ("strip", "binutils"),
    ]
    .into_iter()
    .find_map(|(tool, package)| which(tool).is_none().then(|| format!("no {tool}: install {package}")))
}

fn boot(kernel: &'static Kernel, root: &Root, common: &Path, choice: &Choice<'_>, wish: &Wish) -> Result<Outcome> {
    let fetched = kernel.fetch(wish.fetch)?;
    let choice = if kernel.lacks.is_some() { &Choice::Refused } else { choice };
    let programs = choose(choice, &root.tests()?);
    println!("== Linux {}: {}", kernel.name, fetched.release);
    let began = Instant::now();
    let initramfs = file(kernel, "cpio");
    initramfs::with_orders(common, &Orders { programs: &programs, modules: &fetched.modules, patience: SLOWNESS }, &initramfs)?;
    let tests = programs.iter().map(|program| Duration::from_secs(program.seconds.into())).sum::<Duration>();
    let limit = if matches!(choice, Choice::Slice) { Duration::from_secs(600) } else { Duration::from_secs(3600) };
    let machine = Machine {
        name: kernel.name,
        image: &fetched.image,
        initramfs: &initramfs,
        console: file(kernel, "console"),
        deadline: (BOOT + tests).min(limit),
    };
    let outcome = machine.run()?;
    if wish.keep {
        println!("   kept: {}", initramfs.display());
    } else {
        let _ = fs::remove_file(&initramfs);
    }
    println!("== Linux {}: {:.1} min", kernel.name, began.elapsed().as_secs_f64() / 60.0);
    Ok(outcome)
}

fn on_host(root: &Root, wish: &Wish) -> Result<Outcome> {
    if !setup::is_root() {
        bail!("the host's own kernel wants root");
    }
    println!("== the host's own kernel");
    host::run(root, &choose(&wish.choice(), &root.tests()?))
}

fn file(kernel: &Kernel, ending: &str) -> PathBuf {
    place::target().join(format!("vm/{}.{ending}", kernel.name))
}
