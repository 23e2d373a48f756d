//! What this kernel's verifier says of each BPF program. Every program is loaded and thrown away; nothing is attached.

use std::collections::HashMap;

use aya::{
    Btf, BtfError, EbpfLoader,
    programs::{Program, ProgramError},
};
use object::{Object, ObjectSection, ObjectSymbol};
use serde::Serialize;

use super::{KernelError, session::OBJECT, verdict};

/// One program, as the kernel took it.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    pub name: String,
    /// The kind of hook that it is for: `uprobe`, `kprobe`, `tracepoint`, `BTF tracepoint`, `perf event`, `test run`.
    pub kind: &'static str,
    /// Instructions that the verifier went through, over all paths (`bpf_prog_info.verified_insns`, Linux 5.16); the kernel allows a million.
    pub instructions: Option<u32>,
    /// Why it was refused.
    pub refused: Option<String>,
    /// Whether this kernel has no such hook at all: it was not tried.
    pub hook_missing: bool,
}

/// Tries every program of the object, in the order of their names.
pub fn verify() -> Result<Vec<Verified>, KernelError> {
    // The smallest that the kernel accepts.
    let mut ebpf = EbpfLoader::new().map_max_entries("FOLLOWED", 1).load(OBJECT)?;
    let hooks = hooks(OBJECT);
    let btf = Btf::from_sys_fs();
    let mut verified: Vec<Verified> = ebpf
        .programs_mut()
        .map(|(name, program)| {
            let hook = hooks.get(name).map_or(name, String::as_str);
            let hook_missing = matches!((&*program, &btf), (Program::BtfTracePoint(_), Ok(btf)) if !has_tracepoint(btf, hook));
            let loaded = if hook_missing { Ok(None) } else { load(program, hook, btf.as_ref()) };
            let (instructions, refused) = loaded.map_or_else(|refused| (None, Some(refused)), |count| (count, None));
            Verified { name: name.to_owned(), kind: kind(program), instructions, refused, hook_missing }
        })
        .collect();
    verified.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(verified)
}

/// The kernel describes each tracepoint by a type of this name.
fn has_tracepoint(btf: &Btf, name: &str) -> bool {
    btf.id_by_type_name_kind(&format!("btf_trace_{name}"), aya_obj::btf::BtfKind::Typedef).is_ok()
}

fn load(program: &mut Program, hook: &str, btf: Result<&Btf, &BtfError>) -> Result<Option<u32>, String> {
    let needs_btf = || btf.map_err(|error| format!("no kernel BTF: {error}"));
    let loaded = match program {
        Program::UProbe(program) => program.load(),
        Program::KProbe(program) => program.load(),
        Program::TracePoint(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        Program::PerfEvent(program) => program.load(),
        Program::SocketFilter(program) => program.load(),
        Program::BtfTracePoint(program) => program.load(hook, needs_btf()?),
        Program::FEntry(program) => program.load(hook, needs_btf()?),
        _ => return Err("a kind of program that is not tried here".to_owned()),
    };
    loaded.map_err(|error| reason(&error))?;
    let info = program.info().map_err(|error| reason(&error))?;
    Ok(info.verified_instruction_count())
}

fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            verdict(&verifier_log.to_string()).unwrap_or_else(|| io_error.to_string())
        }
        other => other.to_string(),
    }
}

fn kind(program: &Program) -> &'static str {
    match program {
        Program::UProbe(_) => "uprobe",
        Program::KProbe(_) => "kprobe",
        Program::TracePoint(_) => "tracepoint",
        Program::RawTracePoint(_) => "raw tracepoint",
        Program::BtfTracePoint(_) => "BTF tracepoint",
        Program::PerfEvent(_) => "perf event",
        Program::SocketFilter(_) => "test run",
        Program::FEntry(_) => "fentry",
        _ => "other",
    }
}

/// By program: the hook that its section names (`tp_btf/HOOK`).
fn hooks(object: &[u8]) -> HashMap<String, String> {
    let Ok(file) = object::File::parse(object) else { return HashMap::new() };
    let hook_of = |symbol: object::Symbol<'_, '_>| {
        let section = file.section_by_index(symbol.section_index()?).ok()?;
        let (_, hook) = section.name().ok()?.rsplit_once('/')?;
        Some((symbol.name().ok()?.to_owned(), hook.to_owned()))
    };
    file.symbols().filter_map(hook_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the hook of a BTF tracepoint is found by the name of its program.
    #[test]
    fn hooks_of_sections() {
        assert_eq!(hooks(OBJECT).get("sched_process_fork").map(String::as_str), Some("sched_process_fork"));
        assert!(hooks(b"no object").is_empty());
    }
}
