//! `lifetrace leaks`: of a recording, or of a command that is run for it.

#[cfg(feature = "live")]
pub mod command;
#[cfg(feature = "live")]
mod go_test;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::{self, Write},
    path::Path,
};

use anyhow::Context;

use super::{
    Failure,
    args::{FailOn, GateArgs, Global, Judge, LeaksArgs, LeaksFormat},
    colored, live, load, write_output,
};
use crate::{
    correlate::replay::Replayed,
    export::{self, leaks::LeaksOut},
    leak::{
        baseline::Baseline,
        tally::LeakTally,
        verdict::{Judged, Leak, Strength, leaks},
    },
};

/// There are leaks.
const LEAKS: u8 = 1;

pub fn main(args: &LeaksArgs, global: Global) -> Result<u8, Failure> {
    match &args.recording {
        Some(recording) => Gate::open(&args.gate, global)?.judge(recording, BTreeSet::new()),
        None => live::leaks(args, global),
    }
}

/// What is asked of leaks, and what is known of them.
struct Gate<'a> {
    args: &'a GateArgs,
    global: Global,
    baseline: Option<Baseline>,
    /// Stdout is a command's own: what people read goes to stderr, as time(1) does.
    to_stderr: bool,
}

impl<'a> Gate<'a> {
    /// Reads what is known. Before anything is run: a baseline that cannot be read is a slip of the caller's.
    fn open(args: &'a GateArgs, global: Global) -> Result<Self, Failure> {
        let at = args.baseline.as_deref().filter(|_| !args.update_baseline);
        let read = |path: &Path| Baseline::read(path).with_context(|| format!("baseline {}", path.display()));
        Ok(Self { args, global, baseline: at.map(read).transpose().map_err(Failure::usage)?, to_stderr: false })
    }

    /// Tells of the leaks of a recording, and of what is not in it; what to exit with.
    fn judge(&self, recording: &Path, not_watched: BTreeSet<String>) -> Result<u8, Failure> {
        let mut tally = LeakTally::default();
        let replayed = load(recording, self.args.view.view(), self.global, &mut tally)?;
        let judged = match self.args.judge {
            Judge::Tests => Judged::Tests,
            Judge::All => Judged::All,
        };
        let leaks = leaks(&replayed, &tally, judged);
        if let Some(path) = self.args.baseline.as_deref().filter(|_| self.args.update_baseline) {
            let baseline = Baseline::of(leaks.iter().filter(|leak| self.fails(leak.strength)));
            write_output(Some(path), |out| {
                serde_json::to_writer_pretty(&mut *out, &baseline)?;
                out.write_all(b"\n")
            })?;
        }
        self.tell(&replayed, &leaks, not_watched)?;
        let is_new = |leak: &&Leak| !self.baseline.as_ref().is_some_and(|baseline| baseline.knows(&leak.fingerprint));
        if self.args.update_baseline {
            return Ok(0);
        }
        Ok(if leaks.iter().filter(is_new).any(|leak| self.fails(leak.strength)) { LEAKS } else { 0 })
    }

    fn fails(&self, strength: Strength) -> bool {
        match self.args.fail_on {
            FailOn::Suspected => strength >= Strength::Suspected,
            FailOn::Never => false,
        }
    }

    fn tell(&self, replayed: &Replayed, leaks: &[Leak], not_watched: BTreeSet<String>) -> Result<(), Failure> {
        let told = LeaksOut { not_watched, ..export::leaks::leaks(replayed, leaks, self.baseline.as_ref()) };
        let output = self.args.output.output.as_deref();
        let write = |out: &mut dyn Write| match self.args.format {
            LeaksFormat::Text => export::leaks_text::write(&told, colored(self.global, output), &mut &mut *out),
            LeaksFormat::Json => {
                serde_json::to_writer_pretty(&mut *out, &told)?;
                out.write_all(b"\n")
            }
        };
        if self.to_stderr && self.args.format == LeaksFormat::Text && output.is_none_or(|path| path == OsStr::new("-")) {
            return write(&mut io::stderr().lock()).context("cannot write to stderr").map_err(Failure::environment);
        }
        write_output(output, write)
    }
}
