//! The records of processes, signals and cgroups.

use tracer_common::{
    header::{Header, Kind},
    process::{
        ACTION_DEFAULT, ACTION_HANDLER, ARGS_MAX, AUTOREAPED, CgroupMoved, EXE_MAX, OomVictim, ProcessExec, ProcessExit,
        ProcessFork, ProcessReaped, REAPER_KNOWN, STATUS_UNKNOWN, SignalSent, SignalTaken,
    },
};

use super::{DecodeError, bytes, read};
use crate::{
    event::{self, Program, What},
    id::{Tgid, Tid},
};

pub(super) fn decode(kind: Kind, bytes: &[u8]) -> Result<What, DecodeError> {
    Ok(match kind {
        Kind::ProcessFork => {
            let fork: ProcessFork = read(bytes)?;
            What::ProcessFork(event::ProcessFork {
                child: Tgid(fork.child_tgid),
                child_start_boottime_ns: fork.child_start_boottime_ns,
                parent_start_boottime_ns: fork.parent_start_boottime_ns,
                parent: Tgid(fork.parent_tgid),
                cgroup: fork.cgroup,
            })
        }
        Kind::ProcessExec => What::ProcessExec(program(kind, &read(bytes)?)?),
        Kind::ProcessMet => What::ProcessMet(program(kind, &read(bytes)?)?),
        Kind::ProcessExit => {
            let exit: ProcessExit = read(bytes)?;
            What::ProcessExit(event::ProcessExit {
                start_boottime_ns: exit.start_boottime_ns,
                wait_status: (exit.flags & STATUS_UNKNOWN == 0).then_some(exit.wait_status),
                parent: known(exit.parent_tgid),
                autoreaped: exit.flags & AUTOREAPED != 0,
            })
        }
        Kind::ProcessReaped => {
            let reaped: ProcessReaped = read(bytes)?;
            What::ProcessReaped(event::ProcessReaped {
                tgid: Tgid(reaped.reaped_tgid),
                start_boottime_ns: reaped.start_boottime_ns,
                parent: known(reaped.parent_tgid),
                reaper_known: reaped.flags & REAPER_KNOWN != 0,
            })
        }
        Kind::SignalSent => {
            let sent: SignalSent = read(bytes)?;
            What::SignalSent(event::SignalSent {
                to: Tgid(sent.target_tgid),
                to_tid: Tid(sent.target_tid),
                to_start_boottime_ns: sent.target_start_boottime_ns,
                signal: sent.signal,
                code: sent.code,
                result: sent.result,
                group: sent.group != 0,
            })
        }
        Kind::SignalTaken => {
            let taken: SignalTaken = read(bytes)?;
            What::SignalTaken { signal: taken.signal, code: taken.code, handled: taken.action == ACTION_HANDLER }
        }
        Kind::OomVictim => What::OomVictim { victim: Tgid(read::<OomVictim>(bytes)?.victim_tgid) },
        Kind::CgroupMoved => {
            let moved: CgroupMoved = read(bytes)?;
            What::CgroupMoved {
                tgid: Tgid(moved.moved_tgid),
                tid: Tid(moved.moved_tid),
                cgroup: moved.cgroup,
                hierarchy: moved.hierarchy,
            }
        }
        _ => return Err(DecodeError::UnknownKind { kind: kind as u8 }),
    })
}

/// Tgids begin at 1; 0 is the idle task, or memory that could not be read.
fn known(tgid: u32) -> Option<Tgid> {
    (tgid != 0).then_some(Tgid(tgid))
}

fn program(kind: Kind, record: &ProcessExec) -> Result<Box<Program>, DecodeError> {
    let malformed = DecodeError::Malformed { kind };
    let area = record.args.get(..record.args_copied as usize).ok_or(malformed)?;
    let area = area.strip_suffix(&[0]).unwrap_or(area);
    let args = if area.is_empty() { Vec::new() } else { area.split(|byte| *byte == 0).map(lossy).collect() };
    let exe = record.exe.get(..record.exe_copied as usize).ok_or(malformed)?;
    Ok(Box::new(Program {
        start_boottime_ns: record.start_boottime_ns,
        args,
        args_truncated: record.args_len > record.args_copied,
        exe: lossy(exe.split(|byte| *byte == 0).next().unwrap_or_default()),
        old_tid: (record.old_tid != 0).then_some(Tid(record.old_tid)),
        cgroup: record.cgroup,
    }))
}

pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Texts longer than a record holds are cut. Nothing for an event that is not of these.
pub(super) fn encode(what: &What, header: impl Fn(Kind) -> Header) -> Vec<u8> {
    match what {
        What::ProcessFork(fork) => bytes(&ProcessFork {
            header: header(Kind::ProcessFork),
            child_start_boottime_ns: fork.child_start_boottime_ns,
            parent_start_boottime_ns: fork.parent_start_boottime_ns,
            child_tgid: fork.child.0,
            parent_tgid: fork.parent.0,
            cgroup: fork.cgroup,
        }),
        What::ProcessExec(program) => encode_program(header(Kind::ProcessExec), program),
        What::ProcessMet(program) => encode_program(header(Kind::ProcessMet), program),
        What::ProcessExit(exit) => bytes(&ProcessExit {
            header: header(Kind::ProcessExit),
            start_boottime_ns: exit.start_boottime_ns,
            wait_status: exit.wait_status.unwrap_or(0),
            parent_tgid: exit.parent.map_or(0, |tgid| tgid.0),
            flags: if exit.autoreaped { AUTOREAPED } else { 0 } | if exit.wait_status.is_none() { STATUS_UNKNOWN } else { 0 },
            _pad: 0,
        }),
        What::ProcessReaped(reaped) => bytes(&ProcessReaped {
            header: header(Kind::ProcessReaped),
            start_boottime_ns: reaped.start_boottime_ns,
            reaped_tgid: reaped.tgid.0,
            parent_tgid: reaped.parent.map_or(0, |tgid| tgid.0),
            flags: if reaped.reaper_known { REAPER_KNOWN } else { 0 },
            _pad: 0,
        }),
        What::SignalSent(sent) => bytes(&SignalSent {
            header: header(Kind::SignalSent),
            target_start_boottime_ns: sent.to_start_boottime_ns,
            target_tgid: sent.to.0,
            target_tid: sent.to_tid.0,
            signal: sent.signal,
            code: sent.code,
            result: sent.result,
            group: u32::from(sent.group),
        }),
        What::SignalTaken { signal, code, handled } => bytes(&SignalTaken {
            header: header(Kind::SignalTaken),
            signal: *signal,
            code: *code,
            action: if *handled { ACTION_HANDLER } else { ACTION_DEFAULT },
            _pad: 0,
        }),
        What::OomVictim { victim } => bytes(&OomVictim { header: header(Kind::OomVictim), victim_tgid: victim.0, _pad: 0 }),
        What::CgroupMoved { tgid, tid, cgroup, hierarchy } => bytes(&CgroupMoved {
            header: header(Kind::CgroupMoved),
            cgroup: *cgroup,
            moved_tgid: tgid.0,
            moved_tid: tid.0,
            hierarchy: *hierarchy,
            _pad: 0,
        }),
        _ => Vec::new(),
    }
}

fn encode_program(header: Header, program: &Program) -> Vec<u8> {
    let mut area: Vec<u8> = program.args.iter().flat_map(|arg| arg.bytes().chain([0])).collect();
    let args_len = area.len() as u32 + u32::from(program.args_truncated);
    area.truncate(ARGS_MAX);
    let path = &program.exe.as_bytes()[..program.exe.len().min(EXE_MAX)];
    let mut record = ProcessExec {
        header,
        start_boottime_ns: program.start_boottime_ns,
        args_len,
        args_copied: area.len() as u32,
        cgroup: program.cgroup,
        old_tid: program.old_tid.map_or(0, |tid| tid.0),
        exe_copied: path.len() as u32,
        exe: [0; EXE_MAX],
        args: [0; ARGS_MAX],
    };
    record.args[..area.len()].copy_from_slice(&area);
    record.exe[..path.len()].copy_from_slice(path);
    bytes(&record)
}

#[cfg(test)]
pub(super) mod tests {
    use tracer_common::process::Cgroup;

    use super::*;

    /// One event of each kind, and of each form that it may have.
    pub fn every() -> Vec<What> {
        let cgroup = Cgroup { unified: 71, memory: 72 };
        let (parent, start) = (Some(Tgid(4)), 5);
        let fork = event::ProcessFork {
            child: Tgid(50),
            child_start_boottime_ns: start,
            parent_start_boottime_ns: 4,
            parent: Tgid(40),
            cgroup,
        };
        let program = |args: &[&str], args_truncated| {
            let args = args.iter().map(|arg| (*arg).to_owned()).collect();
            let exe = "/usr/bin/go".to_owned();
            Box::new(Program { start_boottime_ns: start, args, args_truncated, exe, old_tid: Some(Tid(41)), cgroup })
        };
        let exit = event::ProcessExit { start_boottime_ns: start, wait_status: Some(2 << 8), parent, autoreaped: false };
        let reaped = event::ProcessReaped { tgid: Tgid(50), start_boottime_ns: start, parent, reaper_known: true };
        let sent = event::SignalSent {
            to: Tgid(50),
            to_tid: Tid(51),
            to_start_boottime_ns: start,
            signal: 9,
            code: -6,
            result: 0,
            group: true,
        };
        vec![
            What::ProcessFork(fork),
            What::ProcessExec(program(&["go", "", "x"], false)),
            What::ProcessExec(program(&[], true)),
            What::ProcessMet(program(&["go"], true)),
            What::ProcessMet(Box::default()),
            What::ProcessExit(exit),
            What::ProcessExit(event::ProcessExit { wait_status: None, parent: None, autoreaped: true, ..exit }),
            What::ProcessReaped(reaped),
            What::ProcessReaped(event::ProcessReaped { parent: None, reaper_known: false, ..reaped }),
            What::SignalSent(sent),
            What::SignalSent(event::SignalSent { group: false, code: 0x80, ..sent }),
            What::SignalTaken { signal: 15, code: 0, handled: true },
            What::SignalTaken { signal: 15, code: -6, handled: false },
            What::OomVictim { victim: Tgid(50) },
            What::CgroupMoved { tgid: Tgid(50), tid: Tid(51), cgroup: 72, hierarchy: 4 },
        ]
    }
}
