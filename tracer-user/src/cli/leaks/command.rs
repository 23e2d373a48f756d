//! `lifetrace leaks -- CMD`: runs a command, records it, and judges the recording. Where probes are not allowed it is watched without.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{
    Bench, Seen,
    go_test::{self, Ear},
};
use crate::{
    cli::{
        Failure,
        args::{Global, LeaksArgs},
        begin::may_trace,
        progress::Progress,
        run::{self, Asked},
        watch,
    },
    id::Tgid,
    recording::contract::Tier,
};

/// CMD's own status where it is not 0, else what the gate says.
pub fn judge(args: &LeaksArgs, global: Global) -> Result<u8> {
    let bench = Bench { to_stderr: true, ..Bench::open(args, global)? };
    let no_probes = may_trace().err();
    if let Some(why) = &no_probes
        && let Some(tier) = args.require_tier
    {
        let tier = Tier::from(tier);
        return Err(Failure::ours(anyhow::anyhow!("{tier:?} is required, and there can be no probes: {why:#}")).into());
    }
    let place = Place::of(args)?;
    let recording = place.recording();
    let (ear, stdout) = match go_test::is_go_test(&args.command) {
        true => Ear::open().map(|(ear, stdout)| (Some(ear), Some(stdout)))?,
        false => (None, None),
    };
    let asked = Asked { how: &args.how, command: &args.command, output: recording, spare_toolchain: true, stdout };
    let command = match no_probes {
        None => run::recorded(asked)?.whole(recording)?,
        Some(why) => {
            let (ended, outcome) = watch::command(asked, &format!("{why:#}"))?;
            run::whole(&ended, outcome, recording)?
        }
    };
    let verdict = bench.judge(recording, &Seen { not_run: ear.map(Ear::cached).unwrap_or_default() })?;
    Ok(if command == 0 { verdict } else { command })
}

/// `lifetrace leaks --pid N`: watches a process, and judges what was seen.
pub fn judge_process(args: &LeaksArgs, pid: u32, global: Global) -> Result<u8> {
    let bench = Bench::open(args, global)?;
    if let Some(tier) = args.require_tier {
        let tier = Tier::from(tier);
        let error = anyhow::anyhow!(
            "{tier:?} is required, and a process is watched without probes: `lifetrace attach --pid {pid}` records it, and `lifetrace leaks REC` judges that"
        );
        return Err(Failure::environment(error).into());
    }
    let place = Place::of(args)?;
    let watching = Progress::of_time(format!("watching process {pid}"), Some(args.watch), global);
    watch::process(Tgid(pid), args.watch, &args.how.pprof, place.recording())?;
    drop(watching);
    Ok(bench.judge(place.recording(), &Seen::default())?)
}

/// Where the recording goes: nobody asked for it, or it is kept.
enum Place<'a> {
    Kept(&'a Path),
    /// It goes when it has been read.
    Passing {
        _folder: TempDir,
        path: PathBuf,
    },
}

impl<'a> Place<'a> {
    fn of(args: &'a LeaksArgs) -> Result<Self> {
        if let Some(path) = &args.record {
            return Ok(Self::Kept(path));
        }
        let folder = tempfile::Builder::new().prefix("lifetrace-").tempdir();
        let folder = folder.context("no place for a recording").map_err(Failure::environment)?;
        let path = folder.path().join("leaks.rec");
        Ok(Self::Passing { _folder: folder, path })
    }

    fn recording(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Passing { path, .. } => path,
        }
    }
}
