//! Lives of processes and threads on a kernel without BTF: classic tracepoints, whose records have no task to look into.
//!
//! What is told is less: no start times, so a process is known by its number alone; no wait status; no parent by the end. A record names
//! threads by their numbers, so who is a thread of whom is kept here, and how many of a process live.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, generated::bpf_probe_read_kernel_str},
    programs::TracePointContext,
};
use tracer_common::{
    config::{ClassicLayout, Followed},
    counters,
    header::Kind,
    process::{EXE_MAX, ProcessExec, ProcessExit, ProcessFork, ProcessReaped, STATUS_UNKNOWN, SignalSent},
    thread::{
        PREEMPTED, ThreadBirth, ThreadExit, ThreadOff, ThreadOn, ThreadWake, UNKNOWN_SYSCALL, WAKER_INTERRUPT, WAKER_UNKNOWN,
    },
};

use crate::{
    emit,
    maps::{CLASSIC, FOLLOWED, KERNEL, LIVE_THREADS, THREAD_GROUPS, count},
    mem::read_kernel,
    sched,
};

/// `CLONE_THREAD` and `CLONE_PARENT` of `include/uapi/linux/sched.h`.
const CLONE_THREAD: u64 = 0x0001_0000;
const CLONE_PARENT: u64 = 0x0000_8000;

/// More than any field's offset: a record is smaller.
const OFFSET_MASK: u32 = 0xff;

/// A field of the record at hand.
#[inline(always)]
fn field<T>(ctx: &TracePointContext, offset: u32) -> Option<T> {
    read_kernel(ctx.as_ptr().cast_const().cast(), offset & OFFSET_MASK)
}

#[inline(always)]
fn tgid_of(pid_tgid: u64) -> u32 {
    (pid_tgid >> 32) as u32
}

/// `task:task_newtask`: somebody made a thread or a process.
#[inline(always)]
pub fn newtask(ctx: &TracePointContext) -> Option<()> {
    let layout = CLASSIC.get(0)?;
    let kernel = KERNEL.get_ptr_mut(0)?;
    let pid_tgid = bpf_get_current_pid_tgid();
    let tgid = tgid_of(pid_tgid);
    // SAFETY: a map value that lives as long as the program runs.
    let spawner = unsafe { (*kernel).spawner_tid };
    let spawned = spawner != 0 && spawner == pid_tgid as u32;
    if !spawned && FOLLOWED.get_ptr(&tgid).is_none() {
        return None;
    }
    let child: u32 = field(ctx, layout.newtask_pid)?;
    let flags: u64 = field(ctx, layout.newtask_clone_flags)?;
    if flags & CLONE_THREAD != 0 {
        let _ = THREAD_GROUPS.insert(&child, &tgid, 0);
        add_thread(tgid);
        let header = emit::header(Kind::ThreadBirth, 0, 0, pid_tgid);
        emit::send(Kind::ThreadBirth, header.seq, ThreadBirth { header, start_boottime_ns: 0, child_tid: child, _pad: 0 });
        return None;
    }
    if spawned {
        // Once: the number may name another thread tomorrow.
        // SAFETY: as above.
        unsafe { (&raw mut (*kernel).spawner_tid).write_volatile(0) };
    }
    if FOLLOWED.insert(&child, &Followed::default(), 0).is_err() {
        count(counters::PROCESSES_REFUSED);
        return None;
    }
    let _ = THREAD_GROUPS.insert(&child, &child, 0);
    let _ = LIVE_THREADS.insert(&child, &1, 0);
    let header = emit::header(Kind::ProcessFork, 0, 0, pid_tgid);
    let record = ProcessFork {
        header,
        child_start_boottime_ns: 0,
        parent_start_boottime_ns: 0,
        child_tgid: child,
        parent_tgid: if flags & CLONE_PARENT != 0 { 0 } else { tgid },
        cgroup: Default::default(),
    };
    emit::send(Kind::ProcessFork, header.seq, record);
    None
}

#[inline(always)]
fn add_thread(tgid: u32) {
    if let Some(live) = LIVE_THREADS.get_ptr_mut(&tgid) {
        // SAFETY: a map value is 8-byte aligned and lives as long as the program runs.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(live, 1) };
    }
}

/// `sched:sched_process_exec`.
#[inline(always)]
pub fn exec(ctx: &TracePointContext) -> Option<()> {
    let layout = CLASSIC.get(0)?;
    let pid_tgid = bpf_get_current_pid_tgid();
    let tgid = tgid_of(pid_tgid);
    let followed = FOLLOWED.get_ptr_mut(&tgid)?;
    // SAFETY: a map value that lives as long as the program runs.
    unsafe { (*followed).binary = 0 };
    let old_tid: u32 = field(ctx, layout.exec_old_pid)?;
    // `__data_loc`: where in the record the text lies, and in the upper half its length.
    let place: u32 = field(ctx, layout.exec_filename)?;
    let header = emit::header(Kind::ProcessExec, 0, 0, pid_tgid);
    let mut entry = emit::reserve::<ProcessExec>(Kind::ProcessExec)?;
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is a reserved, writable ProcessExec. Bytes beyond what was copied are not read by userspace.
    unsafe {
        (*record).header = header;
        (*record).start_boottime_ns = 0;
        // Not known, and said so: more than was copied.
        (*record).args_len = 1;
        (*record).args_copied = 0;
        (*record).cgroup = Default::default();
        (*record).old_tid = old_tid;
        let text = ctx.as_ptr().cast::<u8>().add((place & OFFSET_MASK) as usize);
        let copied = bpf_probe_read_kernel_str((&raw mut (*record).exe).cast(), EXE_MAX as u32, text.cast());
        (*record).exe_copied = if copied > 0 { copied as u32 } else { 0 };
    }
    entry.submit(emit::wakeup(header.seq));
    None
}

/// `sched:sched_process_exit`: once a thread. The process is over when the last one is; of one whose threads were not counted from its
/// start, when the leader is.
#[inline(always)]
pub fn exit() -> Option<()> {
    let pid_tgid = bpf_get_current_pid_tgid();
    let (tgid, tid) = (tgid_of(pid_tgid), pid_tgid as u32);
    FOLLOWED.get_ptr(&tgid)?;
    let header = emit::header(Kind::ThreadExit, 0, 0, pid_tgid);
    let comm = bpf_get_current_comm().unwrap_or_default();
    emit::send(Kind::ThreadExit, header.seq, ThreadExit { header, exit_code: 0, flags: 0, comm });
    let _ = THREAD_GROUPS.remove(&tid);
    let last = match LIVE_THREADS.get_ptr_mut(&tgid) {
        // SAFETY: as in `add_thread`.
        Some(live) => (unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(live, u64::MAX) }) == 1,
        None => tid == tgid,
    };
    if !last {
        return None;
    }
    let _ = LIVE_THREADS.remove(&tgid);
    FOLLOWED.remove(&tgid).ok()?;
    let header = emit::header(Kind::ProcessExit, 0, 0, pid_tgid);
    let record = ProcessExit { header, start_boottime_ns: 0, wait_status: 0, parent_tgid: 0, flags: STATUS_UNKNOWN, _pad: 0 };
    if emit::send(Kind::ProcessExit, header.seq, record) {
        // Not reaped yet: a number that is its own group's, and lives no more.
        let _ = THREAD_GROUPS.insert(&tgid, &0, 0);
    }
    None
}

/// `sched:sched_process_free`: a thread's memory is given back, a while after it was reaped.
#[inline(always)]
pub fn free(ctx: &TracePointContext) -> Option<()> {
    let layout = CLASSIC.get(0)?;
    let tid: u32 = field(ctx, layout.free_pid)?;
    // SAFETY: the value is copied.
    if unsafe { THREAD_GROUPS.get(&tid) }.copied()? != 0 {
        return None;
    }
    let _ = THREAD_GROUPS.remove(&tid);
    let header = emit::header(Kind::ProcessReaped, 0, 0, bpf_get_current_pid_tgid());
    let record = ProcessReaped { header, start_boottime_ns: 0, reaped_tgid: tid, parent_tgid: 0, flags: 0, _pad: 0 };
    emit::send(Kind::ProcessReaped, header.seq, record);
    None
}

/// `signal:signal_generate`.
#[inline(always)]
pub fn signal(ctx: &TracePointContext) -> Option<()> {
    let layout = CLASSIC.get(0)?;
    let target_tid: u32 = field(ctx, layout.signal_pid)?;
    let pid_tgid = bpf_get_current_pid_tgid();
    // SAFETY: the value is copied.
    let group = unsafe { THREAD_GROUPS.get(&target_tid) }.copied().filter(|tgid| *tgid != 0);
    if group.is_none() && FOLLOWED.get_ptr(&tgid_of(pid_tgid)).is_none() {
        return None;
    }
    let header = emit::header(Kind::SignalSent, 0, 0, pid_tgid);
    let record = SignalSent {
        header,
        target_start_boottime_ns: 0,
        target_tgid: group.unwrap_or(target_tid),
        target_tid,
        signal: field(ctx, layout.signal_sig)?,
        code: field(ctx, layout.signal_code)?,
        result: field(ctx, layout.signal_result)?,
        group: field(ctx, layout.signal_group)?,
    };
    emit::send(Kind::SignalSent, header.seq, record);
    None
}

/// `sched:sched_switch`.
#[inline(always)]
pub fn switch(ctx: &TracePointContext) -> Option<()> {
    let layout = CLASSIC.get(0)?;
    let pid_tgid = bpf_get_current_pid_tgid();
    let kernel = KERNEL.get(0)?;
    if pid_tgid != 0 && sched::in_detail(tgid_of(pid_tgid), kernel) {
        off(ctx, layout, pid_tgid);
    }
    let next: u32 = field(ctx, layout.switch_next_pid)?;
    // SAFETY: the value is copied.
    let tgid = unsafe { THREAD_GROUPS.get(&next) }.copied()?;
    if !sched::in_detail(tgid, kernel) {
        return None;
    }
    let header = emit::header(Kind::ThreadOn, 0, 0, (tgid as u64) << 32 | next as u64);
    emit::send(Kind::ThreadOn, header.seq, ThreadOn { header });
    None
}

/// The states that a thread ends in, and `TASK_REPORT_MAX` of `include/linux/sched.h` (twice that, with idle), which the tracepoint sets
/// for one that was preempted.
const DEAD: u64 = 0x10 | 0x20 | 0x80;
const PREEMPTED_STATE: u64 = 0x100;

#[inline(always)]
fn off(ctx: &TracePointContext, layout: &ClassicLayout, pid_tgid: u64) -> Option<()> {
    let state: u64 = field(ctx, layout.switch_prev_state)?;
    if state & DEAD != 0 {
        return None;
    }
    let by_itself = state & !PREEMPTED_STATE != 0 && state & PREEMPTED_STATE == 0;
    let header = emit::header(Kind::ThreadOff, 0, 0, pid_tgid);
    let record = ThreadOff {
        header,
        kernel_stack_id: 0,
        user_stack_id: 0,
        state: if by_itself { state as u32 } else { 0 },
        flags: if by_itself { 0 } else { PREEMPTED },
        syscall: UNKNOWN_SYSCALL,
        _pad: 0,
        args: [0; 2],
    };
    emit::send(Kind::ThreadOff, header.seq, record);
    None
}

/// `sched:sched_waking`.
#[inline(always)]
pub fn waking(ctx: &TracePointContext) -> Option<()> {
    let layout = CLASSIC.get(0)?;
    let woken_tid: u32 = field(ctx, layout.waking_pid)?;
    // SAFETY: the value is copied.
    let woken_tgid = unsafe { THREAD_GROUPS.get(&woken_tid) }.copied()?;
    if !sched::in_detail(woken_tgid, KERNEL.get(0)?) {
        return None;
    }
    let pid_tgid = bpf_get_current_pid_tgid();
    let header = emit::header(Kind::ThreadWake, 0, 0, pid_tgid);
    // The idle task wakes nobody.
    let waker = if pid_tgid as u32 == 0 { WAKER_INTERRUPT } else { WAKER_UNKNOWN };
    emit::send(Kind::ThreadWake, header.seq, ThreadWake { header, woken_tgid, woken_tid, waker, _pad: 0 });
    None
}
