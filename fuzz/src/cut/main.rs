//! Cuts a Go executable down to the functions that matter here: `cargo run --package lifetrace-fuzz --features cut --bin cut -- GO-BINARY
//! SEED`. What is left is a whole Go binary of a few ten kilobytes to every parser of ours, though nobody could run it: each function is
//! a segment of its own at its old address, and the table of functions is written anew with only their entries.
//!
//! For position-dependent binaries of Go 1.18 and later.

mod binary;
mod elf;
mod table;

use std::fs;

use anyhow::{Context, Result};

use crate::{binary::Binary, elf::Writer};

/// Functions that are read for the plan, the list of goroutines and the version, and two of everybody's.
const KEPT: [&str; 29] = [
    "main.main",
    "runtime.(*gcControllerState).findRunnableGCWorker",
    "runtime.allgadd",
    "runtime.casgstatus",
    "runtime.corostart",
    "runtime.coroswitch_m",
    "runtime.execute",
    "runtime.findRunnable",
    "runtime.gdestroy",
    "runtime.goexit0",
    "runtime.gopark",
    "runtime.goready.func1",
    "runtime.injectglist",
    "runtime.main",
    "runtime.mcall",
    "runtime.netpollgoready",
    "runtime.newcoro",
    "runtime.newcoro.func1",
    "runtime.newproc",
    "runtime.newproc.func1",
    "runtime.newproc1",
    "runtime.park_m",
    "runtime.preemptPark",
    "runtime.ready",
    "runtime.runqput",
    "runtime.schedinit",
    "runtime.systemstack",
    "runtime.throw",
    "runtime.wakep",
];

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let (from, to) = args.next().zip(args.next()).context("usage: cut GO-BINARY SEED")?;
    let bytes = fs::read(&from)?;
    let binary = Binary::read(&bytes)?;
    let kept: Vec<_> = binary.functions().filter(|function| KEPT.contains(&function.name.as_str())).collect();
    let table = table::cut(&binary, &kept);
    let mut seed = Writer::default();
    for function in &kept {
        seed.segment(function.start, binary.read_at(function.start, function.end - function.start)?, false);
    }
    seed.section(".gopclntab", table::ADDRESS, table.bytes, false);
    seed.segment(table::INLINED, table.inlined, false);
    let (address, module) = binary.module_data(table::ADDRESS, table.parts, table::INLINED)?;
    seed.section(".go.module", address, module, true);
    let (address, info) = binary.build_info()?;
    seed.section(".go.buildinfo", address, info, true);
    for (address, bytes) in binary.version_strings() {
        seed.segment(address, bytes, true);
    }
    fs::write(&to, seed.finish())?;
    Ok(())
}
