//! `cargo xtask bench leaks`: verdicts on the labelled set (tests/leakset) and on real programs, precision and recall of each half, and
//! docs/leakset.md.
//!
//! Each program is judged in five ways: from a recording of its whole life; from one that lost a tenth of its records; by attaching to it while it
//! runs, with that loss and with snapshots; by looks at its memory alone; and by Go's own `goroutineleak` profile, for comparison.

mod page;
mod real;
mod set;

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use self::set::{Entry, Said};
use super::process::Running;
use crate::{go, place, shell::run};

/// Programs that run side by side; they idle most of the time.
const AT_ONCE: usize = 4;
/// A tenth of all records.
const LOSS: [&str; 2] = ["--knob", "drop-permille=100"];

/// What was found out about one program.
struct Judged {
    entry: Entry,
    whole: Said,
    /// With a tenth of the records lost: of its whole life without snapshots, and live with them.
    lossy: Said,
    live: Said,
    /// By looks alone.
    looks: Said,
    /// How many goroutines Go's profile counts; `None`: this Go has none.
    profiled: Option<u64>,
}

impl Judged {
    /// What is wrong with the verdicts, if anything is.
    fn wrong(&self) -> Option<String> {
        let leaking = self.entry.leaking;
        // Without what was lost, and without a look, a leak may be watched; nobody may be accused.
        let lossy = self.lossy.verdict(leaking).starts_with('*') && self.lossy.sure > self.lossy.at_label;
        let wrong: Vec<String> = [("whole", &self.whole), ("live with loss", &self.live), ("looks", &self.looks)]
            .into_iter()
            .filter(|(_, said)| !matches!(said.verdict(leaking), "found" | "silent"))
            .map(|(what, said)| format!("{what}: {} {}", said.verdict(leaking), said.named))
            .chain(lossy.then(|| format!("with loss: {} {}", self.lossy.verdict(leaking), self.lossy.named)))
            .collect();
        (!wrong.is_empty()).then(|| format!("{}: {}", self.entry.name, wrong.join("; ")))
    }
}

/// `only`: the programs whose name holds this; then no page is written.
pub fn bench(lifetrace: &Path, only: &str) -> Result<()> {
    let set = place::root().join("tests/leakset");
    let mut entries: Vec<Entry> = serde_json::from_str(&fs::read_to_string(set.join("set.json"))?)?;
    entries.retain(|entry| entry.name.contains(only));
    let programs = place::target().join("bench/leakset");
    let bench = Bench { lifetrace, set: &set, programs: &programs, profiles: build(&set, &programs)? };
    let judged = bench.all(entries)?;
    let real = if only.is_empty() { real::all(lifetrace)? } else { Vec::new() };
    let page = page::page(&judged, &real);
    println!("\n{}", page.split("\n\n").nth(2).unwrap_or_default());
    if only.is_empty() {
        fs::write(place::root().join("docs/leakset.md"), page)?;
    }
    let wrong: Vec<String> = judged.iter().filter_map(Judged::wrong).chain(real.iter().filter_map(real::Judged::wrong)).collect();
    if !wrong.is_empty() {
        bail!("{} of {} are judged wrongly:\n{}", wrong.len(), judged.len() + real.len(), wrong.join("\n"));
    }
    Ok(())
}

/// Builds the programs, and once more by a Go that has the profile; whether there is one.
fn build(set: &Path, programs: &Path) -> Result<bool> {
    let build = |go: &Path, into: &Path| {
        fs::create_dir_all(into)?;
        let mut build = Command::new(go);
        build.args(["build", "-o"]).arg(into).args(["./leaking/...", "./healthy/..."]);
        run(go::local(build.current_dir(set).env("GOWORK", "off")).env("GOFLAGS", "-mod=mod"))
    };
    build(&go::go()?, programs)?;
    let newest = go::RELEASES[go::RELEASES.len() - 1];
    let profiled = go::toolchain(newest).and_then(|go| build(&go, &programs.join("profiled")));
    if let Err(error) = &profiled {
        println!("no Go {newest}, so Go's own profile is not asked: {error:#}");
    }
    Ok(profiled.is_ok())
}

struct Bench<'a> {
    lifetrace: &'a Path,
    set: &'a Path,
    programs: &'a Path,
    /// Programs that write Go's own profile are there, too.
    profiles: bool,
}

impl Bench<'_> {
    fn all(&self, entries: Vec<Entry>) -> Result<Vec<Judged>> {
        let (waiting, judged) = (Mutex::new(VecDeque::from(entries)), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            let work = || -> Result<()> {
                loop {
                    let Some(entry) = waiting.lock().ok().and_then(|mut waiting| waiting.pop_front()) else { return Ok(()) };
                    let name = entry.name.clone();
                    let one = self.judge(entry).with_context(|| name)?;
                    let [whole, lossy, live, looks] =
                        [&one.whole, &one.lossy, &one.live, &one.looks].map(|said| said.verdict(one.entry.leaking));
                    println!(
                        "{:<18} {:<8} {whole:<8} {lossy:<14} {live:<8} {looks:<8} {}",
                        one.entry.name, one.entry.half, one.whole.named
                    );
                    judged.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                }
            };
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
        })?;
        let mut judged = judged.into_inner().unwrap_or_else(PoisonError::into_inner);
        judged.sort_by(|one, other| (!one.entry.leaking, &one.entry.name).cmp(&(!other.entry.leaking, &other.entry.name)));
        Ok(judged)
    }

    fn judge(&self, entry: Entry) -> Result<Judged> {
        let whole = self.said(&entry, &self.recorded(&entry, &[])?)?;
        let lossy = self.said(&entry, &self.recorded(&entry, &[&LOSS[..], &["--snapshot-every", "0"]].concat())?)?;
        let live = self.said(&entry, &self.attached(&entry)?)?;
        let looks = self.said(&entry, &self.watched(&entry)?)?;
        let profiled = if self.profiles { Some(self.profiled(&entry)?) } else { None };
        Ok(Judged { entry, whole, lossy, live, looks, profiled })
    }

    fn said(&self, entry: &Entry, said: &Value) -> Result<Said> {
        entry.said(self.set, said)
    }

    /// From a recording of its whole life.
    fn recorded(&self, entry: &Entry, options: &[&str]) -> Result<Value> {
        let recording = self.programs.join(format!("{}.lifetrace", entry.name));
        let mut traced = Command::new(self.lifetrace);
        traced.args(["run", "--quiet"]).args(options).arg("-o").arg(&recording).arg("--").arg(self.programs.join(&entry.name));
        let status = traced.stdout(Stdio::null()).status()?;
        if !status.success() {
            bail!("{status}");
        }
        self.judged(&recording)
    }

    /// While it runs, with a tenth lost.
    fn attached(&self, entry: &Entry) -> Result<Value> {
        let recording = self.programs.join(format!("{}.live.lifetrace", entry.name));
        let running = self.start(entry)?;
        let mut attach = Command::new(self.lifetrace);
        attach
            .args(["attach", "--quiet", "--tier", "T2", "--for", "9s", "--snapshot-every", "1s"])
            .args(LOSS)
            .arg("-o")
            .arg(&recording);
        let status = attach.args(["--pid", &running.0.id().to_string()]).status()?;
        drop(running);
        if !status.success() {
            bail!("attach: {status}");
        }
        self.judged(&recording)
    }

    /// By looks at its memory.
    fn watched(&self, entry: &Entry) -> Result<Value> {
        let running = self.start(entry)?;
        let mut watch = Command::new(self.lifetrace);
        watch.args(["leaks", "--quiet", "--fail-on", "never", "--format", "json", "--watch", "9s"]);
        json(watch.args(["--pid", &running.0.id().to_string()]))
    }

    /// How many goroutines Go's own profile counts.
    fn profiled(&self, entry: &Entry) -> Result<u64> {
        let path = self.programs.join(format!("{}.profile", entry.name));
        let mut program = Command::new(self.programs.join("profiled").join(&entry.name));
        run(program.env("LEAKSET_PROFILE", &path).args(["-linger", "0s"]).stdout(Stdio::null()))?;
        let text = fs::read_to_string(&path)?;
        fs::remove_file(path)?;
        let count = text.lines().next().and_then(|line| line.strip_prefix("goroutineleak profile: total "));
        count.and_then(|count| count.trim().parse().ok()).with_context(|| format!("no goroutineleak profile: {text:?}"))
    }

    /// Starts a program that stays a little longer than it is looked at.
    fn start(&self, entry: &Entry) -> Result<Running> {
        let program: PathBuf = self.programs.join(&entry.name);
        let mut command = Command::new(program);
        Ok(Running(command.args(["-for", "12s", "-linger", "30s"]).stdout(Stdio::null()).spawn()?))
    }

    fn judged(&self, recording: &Path) -> Result<Value> {
        let mut leaks = Command::new(self.lifetrace);
        let said = json(leaks.args(["leaks", "--quiet", "--fail-on", "never", "--format", "json"]).arg(recording))?;
        fs::remove_file(recording)?;
        Ok(said)
    }
}

fn json(command: &mut Command) -> Result<Value> {
    let said = command.stderr(Stdio::inherit()).output()?;
    serde_json::from_slice(&said.stdout).with_context(|| format!("{command:?} says nothing"))
}
