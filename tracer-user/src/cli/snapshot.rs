//! `lifetrace snapshot`: all goroutines of a process now, out of its memory.

use std::io::Write;

use super::{
    Failure,
    args::{Global, SnapshotArgs, SnapshotFormat},
    progress::Progress,
    write_output,
};
use crate::{
    export::snapshot::{write_json, write_pprof, write_text},
    id::Tgid,
    snapshot::{
        Detail,
        process::{Process, ProcessError},
    },
};

/// Prints the goroutines of a process.
pub fn snapshot(args: &SnapshotArgs, global: Global) -> Result<(), Failure> {
    let reading = Progress::of_work(format!("reading process {}", args.pid), global);
    let process = Process::open(Tgid(args.pid)).map_err(coded)?;
    let detail = if args.no_stacks { Detail::WithoutStacks } else { Detail::Whole };
    let snapshot = process.snapshot_of(detail).map_err(coded)?;
    drop(reading);
    let (binary, bias) = (&process.binary, process.bias);
    write_output(args.output.output.as_deref(), |mut out| match args.format {
        SnapshotFormat::Text => write_text(&snapshot, binary, bias, &mut out),
        SnapshotFormat::Json => write_json(&snapshot, binary, bias, &mut out),
        SnapshotFormat::Pprof => write_pprof(&snapshot, binary, bias, &mut out),
    })?;
    if !global.quiet {
        let (all, torn) = (snapshot.found.all.len(), snapshot.found.torn);
        let milliseconds = snapshot.duration_ns as f64 / 1e6;
        let _ = writeln!(std::io::stderr(), "lifetrace: {all} goroutines read in {milliseconds:.1} ms; {torn} changed meanwhile");
    }
    Ok(())
}

fn coded(error: ProcessError) -> Failure {
    match error {
        ProcessError::NoProcess { .. } => Failure::usage(error),
        error => Failure::environment(error),
    }
}
