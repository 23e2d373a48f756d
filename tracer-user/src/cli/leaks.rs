//! `lifetrace leaks`.

use std::path::Path;

use anyhow::Context;

use super::{
    Failure,
    args::{FailOn, Global, LeaksArgs, LeaksFormat},
    colored, load, write_output,
};
use crate::{
    export::{leaks::leaks as leaks_out, leaks_text},
    leak::{
        baseline::Baseline,
        tally::LeakTally,
        verdict::{Leak, Strength, leaks},
    },
};

/// There are leaks.
const LEAKS: u8 = 1;

pub fn main(args: &LeaksArgs, global: Global) -> Result<u8, Failure> {
    let at = args.baseline.as_deref();
    let read = |path: &Path| Baseline::read(path).with_context(|| format!("baseline {}", path.display())).map_err(Failure::usage);
    let baseline = at.filter(|_| !args.update_baseline).map(read).transpose()?;
    let mut tally = LeakTally::default();
    let replayed = load(&args.recording, args.view.view(), global, &mut tally)?;
    let leaks = leaks(&replayed, &tally);
    let fails = |strength: Strength| match args.fail_on {
        FailOn::Suspected => strength >= Strength::Suspected,
        FailOn::Never => false,
    };
    if let Some(path) = at.filter(|_| args.update_baseline) {
        let known = Baseline::of(leaks.iter().filter(|leak| leak.strength >= Strength::Suspected));
        write_output(Some(path), |out| {
            serde_json::to_writer_pretty(&mut *out, &known)?;
            out.write_all(b"\n")
        })?;
    }
    let output = args.output.output.as_deref();
    let said = leaks_out(&replayed, &leaks, baseline.as_ref());
    write_output(output, |mut out| match args.format {
        LeaksFormat::Text => leaks_text::write(&said, colored(global, output), &mut out),
        LeaksFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &said)?;
            out.write_all(b"\n")
        }
    })?;
    let is_new = |leak: &&Leak| !baseline.as_ref().is_some_and(|baseline| baseline.knows(&leak.fingerprint));
    let fails = leaks.iter().filter(is_new).any(|leak| fails(leak.strength)) && !args.update_baseline;
    Ok(if fails { LEAKS } else { 0 })
}
