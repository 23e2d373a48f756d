//! Processes: who is followed, and fork, exec and exit of those.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_task, bpf_probe_read_kernel_str, bpf_probe_read_user},
    },
    programs::BtfTracePointContext,
};
use aya_log_ebpf::warn;
use tracer_common::{
    config::{ABSENT, Followed, KernelLayout},
    counters,
    header::Kind,
    process::{
        ARGS_MAX, AUTOREAPED, Cgroup, CgroupMoved, EXE_MAX, OomVictim, ProcessExec, ProcessExit, ProcessFork, ProcessReaped,
        REAPER_KNOWN,
    },
};

use crate::{
    emit,
    maps::{ADOPTION, FOLLOWED, KERNEL, ZOMBIES, count, count_and_get},
    mem::read_kernel,
    sched,
    turn::Turn,
};

#[inline(always)]
fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// When the process of a task began: its leader's start, whichever thread this is.
#[inline(always)]
pub fn start_boottime(task: *const u8, kernel: &KernelLayout) -> u64 {
    let leader = pointer(task, kernel.task_group_leader);
    read_kernel::<u64>(leader, kernel.task_start_boottime).unwrap_or(0)
}

/// The parent's tgid of a task; 0 if it cannot be read.
#[inline(always)]
fn parent_of(task: *const u8, kernel: &KernelLayout) -> u32 {
    let parent = read_kernel::<u64>(task, kernel.task_real_parent).unwrap_or(0) as *const u8;
    read_kernel::<u32>(parent, kernel.task_tgid).unwrap_or(0)
}

/// The cgroups that a task is in.
#[inline(always)]
fn cgroup_of(task: *const u8, kernel: &KernelLayout) -> Cgroup {
    let css_set = pointer(task, kernel.task_cgroups);
    let memory = pointer(css_set, kernel.css_set_memory);
    Cgroup {
        unified: cgroup_id(pointer(css_set, kernel.css_set_dfl_cgrp), kernel),
        memory: cgroup_id(pointer(memory, kernel.css_cgroup), kernel),
    }
}

/// The kernfs id of a `struct cgroup`; 0 if it cannot be read.
#[inline(always)]
pub fn cgroup_id(cgroup: *const u8, kernel: &KernelLayout) -> u64 {
    let node = pointer(cgroup, kernel.cgroup_kn);
    read_kernel::<u64>(node, kernel.kernfs_node_id).unwrap_or(0)
}

/// A pointer that lies in a structure; null where there is no such field, or nothing can be read.
#[inline(always)]
fn pointer(base: *const u8, offset: u32) -> *const u8 {
    if offset == ABSENT || base.is_null() {
        return core::ptr::null();
    }
    read_kernel::<u64>(base, offset).unwrap_or(0) as *const u8
}

/// A child of a followed process is followed too, before its first instruction; so is the command the tracer itself starts.
#[inline(always)]
pub fn fork(ctx: &BtfTracePointContext, turn: Turn, parent: *const u8, child: *const u8) {
    if turn.is_over(child) {
        return;
    }
    let Some(layout) = KERNEL.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a map value that lives as long as the program runs.
    let kernel = unsafe { &*layout };
    let pid_tgid = bpf_get_current_pid_tgid();
    let tgid = (pid_tgid >> 32) as u32;
    let tid = pid_tgid as u32;
    let spawned = kernel.spawner_tid != 0 && kernel.spawner_tid == tid;
    if !spawned && FOLLOWED.get_ptr(&tgid).is_none() || !turn.take(child) {
        return;
    }
    let Some(child_tgid) = read_kernel::<u32>(child, kernel.task_tgid) else {
        return;
    };
    if child_tgid == tgid {
        return sched::birth(child, pid_tgid, kernel);
    }
    if spawned {
        // Once: the number may name another thread tomorrow.
        // SAFETY: as above.
        unsafe { (&raw mut (*layout).spawner_tid).write_volatile(0) };
    }
    // Which attachment is the child's own is settled by its first hit, whether it executes another program or not.
    if FOLLOWED.insert(&child_tgid, &Followed::default(), 0).is_err() {
        if count_and_get(counters::PROCESSES_REFUSED) == 0 {
            table_full(ctx, child_tgid);
        }
        return;
    }
    let header = emit::header(Kind::ProcessFork, 0, 0, bpf_get_current_pid_tgid());
    let record = ProcessFork {
        header,
        child_start_boottime_ns: start_boottime(child, kernel),
        parent_start_boottime_ns: start_boottime(parent, kernel),
        child_tgid,
        parent_tgid: parent_of(child, kernel),
        cgroup: cgroup_of(child, kernel),
    };
    emit::send(Kind::ProcessFork, header.seq, record);
}

#[inline(never)]
fn table_full(ctx: &BtfTracePointContext, tgid: u32) {
    warn!(ctx, "the table of followed processes is full: process {} and later ones are not followed", tgid);
}

/// A new program: which attachment is its own is settled by its first hit. A process that is not followed, but whose cgroup
/// is, is followed from here on.
#[inline(always)]
pub fn exec(turn: Turn, task: *const u8, old_tid: u32, bprm: *const u8) {
    if turn.is_over(bprm) {
        return;
    }
    let tgid = current_tgid();
    let followed = FOLLOWED.get_ptr_mut(&tgid);
    if followed.is_none() && !in_adopted_cgroup() || !turn.take(bprm) {
        return;
    }
    match followed {
        // SAFETY: a map value that lives as long as the program runs.
        Some(followed) => unsafe { (*followed).binary = 0 },
        None if !follow(tgid) => return,
        None => {}
    }
    describe(task, Kind::ProcessExec, old_tid, bprm);
}

/// Whether the current task is in the cgroup whose processes are followed, or below it.
#[inline(always)]
pub fn in_adopted_cgroup() -> bool {
    let Some(adoption) = ADOPTION.get(0) else {
        return false;
    };
    // SAFETY: takes no pointer.
    adoption.cgroup != 0 && unsafe { bpf_get_current_ancestor_cgroup_id(adoption.level as i32) } == adoption.cgroup
}

/// Follows the current process, which has run for a while.
#[inline(never)]
pub fn meet(tgid: u32) {
    if follow(tgid) {
        // SAFETY: takes no pointer.
        describe(unsafe { bpf_get_current_task() } as *const u8, Kind::ProcessMet, 0, core::ptr::null());
    }
}

/// Counts a process that found no place. Of two threads of one process that come at once, one may tell twice.
#[inline(always)]
fn follow(tgid: u32) -> bool {
    let followed = FOLLOWED.insert(&tgid, &Followed::default(), 0).is_ok();
    if !followed {
        count(counters::PROCESSES_REFUSED);
    }
    followed
}

/// Tells who the process of a task is and what it was called with; of an exec, by which thread and under which path.
#[inline(always)]
fn describe(task: *const u8, kind: Kind, old_tid: u32, bprm: *const u8) {
    let Some(kernel) = KERNEL.get(0) else {
        return;
    };
    let mm = pointer(task, kernel.task_mm);
    let start = read_kernel::<u64>(mm, kernel.mm_arg_start).unwrap_or(0);
    let end = read_kernel::<u64>(mm, kernel.mm_arg_end).unwrap_or(0);
    let header = emit::header(kind, 0, 0, bpf_get_current_pid_tgid());
    let Some(mut entry) = emit::reserve::<ProcessExec>(kind) else {
        return;
    };
    let args_len = end.saturating_sub(start).min(u32::MAX as u64) as u32;
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is a reserved, writable ProcessExec. Bytes of `args` beyond `args_copied` are whatever the ring held
    // before; userspace does not read them.
    unsafe {
        (*record).header = header;
        (*record).start_boottime_ns = start_boottime(task, kernel);
        (*record).args_len = args_len;
        (*record).cgroup = cgroup_of(task, kernel);
        (*record).old_tid = old_tid;
        let path = pointer(bprm, kernel.bprm_filename);
        let exe = (&raw mut (*record).exe).cast();
        let copied = if path.is_null() { 0 } else { bpf_probe_read_kernel_str(exe, EXE_MAX as u32, path.cast()) };
        (*record).exe_copied = if copied > 0 { copied as u32 } else { 0 };
        let mut wanted = args_len as u64;
        if wanted >= ARGS_MAX as u64 {
            wanted = ARGS_MAX as u64 - 1;
        }
        // Changes nothing, but is what the verifier of Linux 6.1 understands; LLVM would leave it out.
        asm!("{0} &= {1}", inout(reg) wanted, const ARGS_MAX - 1);
        let copied = bpf_probe_read_user((&raw mut (*record).args).cast(), wanted as u32, start as *const _);
        (*record).args_copied = if copied == 0 { wanted as u32 } else { 0 };
    }
    entry.submit(emit::wakeup(header.seq));
}

/// `SIGNAL_GROUP_EXIT` of `include/linux/sched/signal.h`.
const GROUP_EXIT: u32 = 4;

/// Whether the threads of a process end because all of it does.
#[inline(always)]
pub fn exits_as_a_whole(signal: *const u8, kernel: &KernelLayout) -> bool {
    read_kernel::<u32>(signal, kernel.signal_flags).unwrap_or(0) & GROUP_EXIT != 0
}

/// What a parent will be told (`wait_task_zombie` in `kernel/exit.c`).
#[inline(always)]
fn wait_status(leader: *const u8, signal: *const u8, kernel: &KernelLayout) -> u32 {
    let status = if exits_as_a_whole(signal, kernel) {
        read_kernel::<u32>(signal, kernel.signal_group_exit_code)
    } else {
        read_kernel::<u32>(leader, kernel.task_exit_code)
    };
    status.unwrap_or(0)
}

/// `SIG_IGN` of `include/uapi/asm-generic/signal-defs.h`.
const IGNORED: u64 = 1;
/// `SA_NOCLDWAIT` of the same.
const NO_CHILD_WAIT: u64 = 2;

/// Whether the parent of a process does not want to know of its end (`do_notify_parent` in `kernel/signal.c`).
#[inline(always)]
fn autoreaped(leader: *const u8, kernel: &KernelLayout) -> bool {
    if kernel.sighand_sigchld_handler == ABSENT || kernel.sighand_sigchld_flags == ABSENT {
        return false;
    }
    let sighand = pointer(pointer(leader, kernel.task_real_parent), kernel.task_sighand);
    let handler = read_kernel::<u64>(sighand, kernel.sighand_sigchld_handler).unwrap_or(0);
    let flags = read_kernel::<u64>(sighand, kernel.sighand_sigchld_flags).unwrap_or(0);
    handler == IGNORED || flags & NO_CHILD_WAIT != 0
}

/// Fires once a thread; the process is over when the last one is. Two threads that end at once may both see that, so the
/// one that takes the process out of the table tells.
#[inline(always)]
pub fn exit(turn: Turn, task: *const u8) {
    if turn.is_over(task) {
        return;
    }
    let tgid = current_tgid();
    if FOLLOWED.get_ptr(&tgid).is_none() || !turn.take(task) {
        return;
    }
    let Some(kernel) = KERNEL.get(0) else {
        return;
    };
    let signal = pointer(task, kernel.task_signal);
    sched::exit(task, exits_as_a_whole(signal, kernel), kernel);
    if read_kernel::<i32>(signal, kernel.signal_live) != Some(0) {
        return;
    }
    if FOLLOWED.remove(&tgid).is_err() {
        return;
    }
    let start_boottime_ns = start_boottime(task, kernel);
    let leader = pointer(task, kernel.task_group_leader);
    let autoreaped = autoreaped(leader, kernel);
    if !autoreaped {
        // Where this finds no place, only the time of its reaping is lost.
        let _ = ZOMBIES.insert(&[u64::from(tgid), start_boottime_ns], &0, 0);
    }
    let header = emit::header(Kind::ProcessExit, 0, 0, bpf_get_current_pid_tgid());
    let record = ProcessExit {
        header,
        start_boottime_ns,
        wait_status: wait_status(leader, signal, kernel),
        parent_tgid: parent_of(leader, kernel),
        flags: if autoreaped { AUTOREAPED } else { 0 },
        _pad: 0,
    };
    emit::send(Kind::ProcessExit, header.seq, record);
}

/// A task is taken out of the kernel's tables, by the current one if that is `known`. Fires once a thread; where the leader of a
/// followed process goes, the process has been reaped.
#[inline(always)]
pub fn reaped(task: *const u8, known: bool) {
    let Some(kernel) = KERNEL.get(0) else {
        return;
    };
    let Some(tgid) = read_kernel::<u32>(task, kernel.task_tgid) else {
        return;
    };
    if read_kernel::<u32>(task, kernel.task_pid) != Some(tgid) {
        return;
    }
    let start_boottime_ns = read_kernel::<u64>(task, kernel.task_start_boottime).unwrap_or(0);
    if ZOMBIES.remove(&[u64::from(tgid), start_boottime_ns]).is_err() {
        return;
    }
    let header = emit::header(Kind::ProcessReaped, 0, 0, bpf_get_current_pid_tgid());
    let record = ProcessReaped {
        header,
        start_boottime_ns,
        reaped_tgid: tgid,
        parent_tgid: parent_of(task, kernel),
        flags: if known { REAPER_KNOWN } else { 0 },
        _pad: 0,
    };
    emit::send(Kind::ProcessReaped, header.seq, record);
}

/// An argument of a tracepoint as a number, whatever the verifier thinks of its type.
#[inline(always)]
pub fn raw_argument(ctx: &BtfTracePointContext, index: u32) -> u64 {
    read_kernel::<u64>(ctx.as_ptr() as *const u8, index * 8).unwrap_or(0)
}

/// Memory ran out, and a process was chosen: given as its task, or as the number of one of its threads.
#[inline(always)]
pub fn oom_victim(victim: u64) {
    let Some(kernel) = KERNEL.get(0) else {
        return;
    };
    let victim_tgid = if kernel.mark_victim_has_task == 0 {
        victim as u32
    } else {
        read_kernel::<u32>(victim as *const u8, kernel.task_tgid).unwrap_or(0)
    };
    if FOLLOWED.get_ptr(&victim_tgid).is_none() {
        return;
    }
    let header = emit::header(Kind::OomVictim, 0, 0, bpf_get_current_pid_tgid());
    emit::send(Kind::OomVictim, header.seq, OomVictim { header, victim_tgid, _pad: 0 });
}

/// A task was moved to another cgroup of some hierarchy, with its whole process if it is a leader.
#[inline(always)]
pub fn cgroup_moved(cgroup: *const u8, task: *const u8) {
    let Some(kernel) = KERNEL.get(0) else {
        return;
    };
    let Some(moved_tgid) = read_kernel::<u32>(task, kernel.task_tgid) else {
        return;
    };
    if FOLLOWED.get_ptr(&moved_tgid).is_none() {
        return;
    }
    let root = pointer(cgroup, kernel.cgroup_root);
    let hierarchy = match kernel.root_hierarchy_id {
        ABSENT => 0,
        offset => read_kernel::<u32>(root, offset).unwrap_or(0),
    };
    let header = emit::header(Kind::CgroupMoved, 0, 0, bpf_get_current_pid_tgid());
    let record = CgroupMoved {
        header,
        cgroup: cgroup_id(cgroup, kernel),
        moved_tgid,
        moved_tid: read_kernel::<u32>(task, kernel.task_pid).unwrap_or(0),
        hierarchy,
        _pad: 0,
    };
    emit::send(Kind::CgroupMoved, header.seq, record);
}
