//! `lifetrace leaks`: of a recording, of a process that is watched for it, or of a command that is run for it.

#[cfg(feature = "live")]
pub mod command;
#[cfg(feature = "live")]
mod go_test;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{
    Failure,
    args::{FailOn, GateArgs, Global, Judge, LeaksArgs, LeaksFormat},
    colored, live, load, page, write_output,
};
use crate::{
    correlate::{Both, replay::Replayed},
    export::{
        html::First,
        leaks::{
            self as formats, LeakOut, LeaksOut,
            flame::{Flame, Format},
            sources::Sources,
        },
    },
    finding::{FindingTally, findings},
    leak::{
        baseline::{Baseline, Known},
        gate::Gate,
        ignore::IgnoreList,
        tally::LeakTally,
        verdict::{Judged, Leak, Strength, leaks},
    },
    recording::contract::Tier,
    timeline::{Collector, Timeline},
};

/// There are leaks.
const LEAKS: u8 = 1;

pub fn main(args: &LeaksArgs, global: Global) -> Result<u8, Failure> {
    match &args.recording {
        Some(recording) => Bench::open(args, global)?.judge(recording, &Seen::default()),
        None => live::leaks(args, global),
    }
}

/// Where recordings are judged.
struct Bench<'a> {
    args: &'a GateArgs,
    require_tier: Option<Tier>,
    global: Global,
    gate: Gate,
    /// Stdout is a command's own: what people read goes to stderr, as time(1) does.
    to_stderr: bool,
}

/// What is known of what is judged besides its recording.
#[derive(Debug, Default)]
struct Seen {
    /// Packages whose tests did not run: go's cache answered.
    not_run: BTreeSet<String>,
}

impl<'a> Bench<'a> {
    /// Reads what was decided before. Before anything is run: a file that cannot be read is a slip of the caller's.
    fn open(args: &'a LeaksArgs, global: Global) -> Result<Self, Failure> {
        let require_tier = args.require_tier.map(Tier::from);
        let args = &args.gate;
        let at = args.baseline.as_deref().filter(|_| !args.update_baseline);
        let baseline = at.map(|path| Baseline::read(path).with_context(|| format!("baseline {}", path.display())));
        let ignore =
            args.ignore.as_deref().map(|path| IgnoreList::read(path).with_context(|| format!("ignore file {}", path.display())));
        let fail_from = match args.fail_on {
            FailOn::Proven => Some(Strength::Proven),
            FailOn::Suspected => Some(Strength::Suspected),
            FailOn::Never => None,
        };
        let baseline = baseline.transpose().map_err(Failure::usage)?;
        let ignore = ignore.transpose().map_err(Failure::usage)?.unwrap_or_default();
        Ok(Self { args, require_tier, global, gate: Gate::new(baseline, ignore, fail_from), to_stderr: false })
    }

    /// Tells of the leaks of a recording, and of what is not in it; what to exit with.
    fn judge(&self, recording: &Path, seen: &Seen) -> Result<u8, Failure> {
        let view = self.args.view.view();
        let told = if self.args.format == LeaksFormat::Html {
            let (replayed, gathered) = page::replayed(recording, view, Collector::default(), self.global)?;
            let (leaks, told) = self.judged(&replayed, (&gathered.leaks, &gathered.tally.findings), seen)?;
            let timeline = |collector| Timeline::new(&replayed, collector, None).map_err(Failure::usage);
            gathered.write_judged(&replayed, timeline, (&leaks, &told), First::Leaks, &self.args.output)?;
            told
        } else {
            let mut both = Both::<LeakTally, FindingTally>::default();
            let replayed = load(recording, view, self.global, &mut both)?;
            let (_, told) = self.judged(&replayed, (&both.0, &both.1), seen)?;
            self.tell(&told)?;
            told
        };
        Ok(if told.summary.failing > 0 && !self.args.update_baseline { LEAKS } else { 0 })
    }

    /// The verdicts; the baseline is brought up to date, and what leaked is drawn, where that was asked for.
    fn judged(
        &self,
        replayed: &Replayed,
        (tally, found): (&LeakTally, &FindingTally),
        seen: &Seen,
    ) -> Result<(Vec<Leak>, LeaksOut), Failure> {
        let judged = match self.args.judge {
            Judge::Tests => Judged::Tests,
            Judge::All => Judged::All,
        };
        if let Some(tier) = self.require_tier {
            required(replayed, tier).map_err(Failure::environment)?;
        }
        let leaks = leaks(replayed, tally, judged);
        let told = LeaksOut {
            not_watched: seen.not_run.clone(),
            findings: findings(replayed, found),
            ..formats::leaks(replayed, &leaks, &self.gate)
        };
        if let Some(path) = self.args.baseline.as_deref().filter(|_| self.args.update_baseline) {
            let sure = leaks.iter().zip(&told.leaks).filter(|(leak, _)| self.gate.is_sure(leak));
            let baseline = Baseline::of(sure.map(|(_, told)| (told.fingerprint.clone(), known(told))));
            write_output(Some(path), |out| {
                serde_json::to_writer_pretty(&mut *out, &baseline)?;
                out.write_all(b"\n")
            })?;
        }
        self.draw(&told)?;
        Ok((leaks, told))
    }

    /// Draws what leaked, and the difference to the baseline beside it.
    fn draw(&self, told: &LeaksOut) -> Result<(), Failure> {
        let Some(path) = self.args.flame.as_deref() else { return Ok(()) };
        let format = Format::of(path);
        write_output(Some(path), |mut out| Flame::now(told).write(format, &mut out))?;
        match &self.gate.baseline {
            Some(baseline) => {
                write_output(Some(&beside(path)), |mut out| Flame::difference(told, baseline).write(format, &mut out))
            }
            None => Ok(()),
        }
    }

    fn tell(&self, told: &LeaksOut) -> Result<(), Failure> {
        let output = self.args.output.output.as_deref();
        let root = || Sources::at(&fs::canonicalize(&self.args.source_root).unwrap_or_else(|_| self.args.source_root.clone()));
        let write = |mut out: &mut dyn Write| match self.args.format {
            // A page is written elsewhere: it tells of more than the verdicts.
            LeaksFormat::Text | LeaksFormat::Html => formats::text::write(told, colored(self.global, output), &mut out),
            LeaksFormat::Json => {
                serde_json::to_writer_pretty(&mut *out, told)?;
                out.write_all(b"\n")
            }
            LeaksFormat::Junit => formats::junit::write(told, &mut out),
            LeaksFormat::Sarif => formats::sarif::write(told, &root(), &mut out),
            LeaksFormat::Markdown => formats::markdown::write(told, &mut out),
            LeaksFormat::Github => formats::github::write(told, &root(), &mut out),
        };
        if self.to_stderr && self.args.format == LeaksFormat::Text && output.is_none_or(|path| path == OsStr::new("-")) {
            return write(&mut io::stderr().lock()).context("cannot write to stderr").map_err(Failure::environment);
        }
        write_output(output, write)
    }
}

/// Whether every Go program in a recording was followed in that detail, all the time.
fn required(replayed: &Replayed, tier: Tier) -> anyhow::Result<()> {
    for (id, image) in replayed.engine.processes().images().filter(|(_, image)| image.first_hit.is_some()) {
        let coverage = replayed.coverage(id);
        let least = coverage.iter().map(|part| part.tier).min().unwrap_or(Tier::T0);
        if least < tier {
            let tgid = replayed.engine.processes().process(image.process).tgid;
            anyhow::bail!("{tier:?} is required, and process {tgid} ({}) was followed at {least:?}", image.exe);
        }
    }
    Ok(())
}

/// Where the difference goes: `leaks.diff.svg`, `leaks.diff.pb.gz`.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (stem, endings) = name.split_once('.').unwrap_or((&name, "svg"));
    path.with_file_name(format!("{stem}.diff.{endings}"))
}

/// A leak as a baseline has it.
fn known(leak: &LeakOut) -> Known {
    Known {
        strength: leak.strength.to_owned(),
        created_by: leak.created_by.as_ref().map(|frame| frame.function.clone()),
        blocked_on: leak.blocked_on.as_ref().map(|blocked| blocked.reason.clone()),
        count: leak.count as u64,
        path: formats::flame::path(leak),
    }
}
