//! The code of a running process at the places where probes sit.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lifetrace;

/// What the kernel writes over a probed instruction on x86-64: `int3`.
pub const BREAKPOINT: u8 = 0xcc;

/// The addresses of the hooks that lifetrace chooses in `program`, as `doctor --exe` tells. They are link-time addresses; the fixtures
/// are not position independent, so these are the addresses in their processes too.
pub fn hook_addresses(program: &Path) -> Result<Vec<u64>> {
    let mut command = lifetrace::command();
    command.args(["doctor", "--json", "--exe"]).arg(program);
    let finished = crate::process::run(command)?;
    let answer: Value = serde_json::from_str(&finished.stdout).with_context(|| format!("doctor printed {finished:?}"))?;
    let hooks = find(&answer, "hooks").and_then(Value::as_array).context("doctor names no hooks")?;
    let addresses: Vec<u64> = hooks.iter().map(|hook| address(&hook["address"])).collect::<Result<_>>()?;
    ensure!(!addresses.is_empty(), "doctor names no hook of {}", program.display());
    Ok(addresses)
}

/// How many of `addresses` hold a breakpoint in a process.
pub fn breakpoints(pid: Pid, addresses: &[u64]) -> Result<usize> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut count = 0;
    for &address in addresses {
        let mut byte = [0];
        memory.read_exact_at(&mut byte, address).with_context(|| format!("cannot read {address:#x} of {pid}"))?;
        count += usize::from(byte[0] == BREAKPOINT);
    }
    Ok(count)
}

/// The first value of this name, at any depth.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(name).or_else(|| map.values().find_map(|inner| find(inner, name))),
        Value::Array(list) => list.iter().find_map(|inner| find(inner, name)),
        _ => None,
    }
}

/// A number, or a hexadecimal text.
fn address(value: &Value) -> Result<u64> {
    match value {
        Value::Number(number) => number.as_u64().context("a negative address"),
        Value::String(text) => Ok(u64::from_str_radix(text.trim_start_matches("0x"), 16)?),
        other => bail!("not an address: {other}"),
    }
}
