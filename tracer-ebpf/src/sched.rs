//! Threads: born and ended, off and on their CPUs, woken, about to wait.
//!
//! `switch` and `waking` run on the scheduler's path, under its locks and with interrupts off: whoever is not followed costs a look into
//! a table, no more.

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs},
    },
    programs::{BtfTracePointContext, ProbeContext},
};
use tracer_common::{
    config::{KernelLayout, THREADS_AUTO, THREADS_ON},
    header::Kind,
    thread::{
        COMM_MAX, NO_SYSCALL, PREEMPTED, ThreadBirth, ThreadExit, ThreadOff, ThreadOn, ThreadWait, ThreadWake, UNKNOWN_SYSCALL,
        WAKER_INTERRUPT, WAKER_TASK, WAKER_UNKNOWN, WITH_PROCESS,
    },
};

use crate::{
    emit,
    maps::{FOLLOWED, KERNEL},
    mem::read_kernel,
    stack,
};

/// `TASK_DEAD` of `include/linux/sched.h`: it leaves for the last time, and its exit was told.
const TASK_DEAD: u32 = 0x80;

/// What a thread was in user code, as it was saved when it entered the kernel: `struct pt_regs` from `si` on.
#[derive(Clone, Copy)]
#[repr(C)]
struct Saved {
    si: u64,
    di: u64,
    orig_ax: u64,
    ip: u64,
    cs: u64,
    _flags: u64,
    sp: u64,
    _ss: u64,
}

/// Offsets in `struct pt_regs`.
const BP: u32 = 32;
const SI: u32 = 104;

/// `__USER_CS` of `arch/x86/include/asm/segment.h`: 64-bit code, whose system calls have the numbers that userspace knows.
const USER_CS: u64 = 0x33;

/// A thread of a followed process, before it runs.
#[inline(always)]
pub fn birth(child: *const u8, pid_tgid: u64, kernel: &KernelLayout) {
    let Some(child_tid) = read_kernel::<u32>(child, kernel.task_pid) else {
        return;
    };
    let start_boottime_ns = read_kernel::<u64>(child, kernel.task_start_boottime).unwrap_or(0);
    let header = emit::header(Kind::ThreadBirth, 0, 0, pid_tgid);
    emit::send(Kind::ThreadBirth, header.seq, ThreadBirth { header, start_boottime_ns, child_tid, _pad: 0 });
}

/// A thread of a followed process ends, maybe because all of the process does.
#[inline(always)]
pub fn exit(task: *const u8, with_process: bool, kernel: &KernelLayout) {
    let exit_code = read_kernel::<u32>(task, kernel.task_exit_code).unwrap_or(0);
    let comm = read_kernel::<[u8; COMM_MAX]>(task, kernel.task_comm).unwrap_or([0; COMM_MAX]);
    let flags = if with_process { WITH_PROCESS } else { 0 };
    let header = emit::header(Kind::ThreadExit, 0, 0, bpf_get_current_pid_tgid());
    emit::send(Kind::ThreadExit, header.seq, ThreadExit { header, exit_code, flags, comm });
}

/// Whether the threads of a process are followed in detail.
#[inline(always)]
pub fn in_detail(tgid: u32, kernel: &KernelLayout) -> bool {
    let Some(followed) = FOLLOWED.get_ptr(&tgid) else {
        return false;
    };
    // SAFETY: a map value that lives as long as the program runs.
    kernel.threads == THREADS_ON || kernel.threads == THREADS_AUTO && unsafe { (*followed).binary } == 0
}

/// A CPU goes over from one task to another.
#[inline(always)]
pub fn switch(ctx: &BtfTracePointContext, preempted: bool, prev: *const u8, next: *const u8) {
    let Some(kernel) = KERNEL.get(0) else {
        return;
    };
    // The one that leaves is still the current task.
    let pid_tgid = bpf_get_current_pid_tgid();
    if in_detail((pid_tgid >> 32) as u32, kernel) {
        off(ctx, preempted, prev, pid_tgid, kernel);
    }
    // The idle task's process is 0, which nobody follows.
    let tgid = read_kernel::<u32>(next, kernel.task_tgid).unwrap_or(0);
    if in_detail(tgid, kernel) {
        let tid = read_kernel::<u32>(next, kernel.task_pid).unwrap_or(0);
        let header = emit::header(Kind::ThreadOn, 0, 0, (tgid as u64) << 32 | tid as u64);
        emit::send(Kind::ThreadOn, header.seq, ThreadOn { header });
    }
}

/// A thread leaves its CPU. Its state is read and not taken from the tracepoint, which gives it since Linux 5.18 only, and which before
/// 6.14 says of one that a signal keeps from sleeping that it sleeps: the state itself was set back by then.
#[inline(always)]
fn off(ctx: &BtfTracePointContext, preempted: bool, task: *const u8, pid_tgid: u64, kernel: &KernelLayout) {
    let state = read_kernel::<u32>(task, kernel.task_state).unwrap_or(0);
    if state & TASK_DEAD != 0 {
        return;
    }
    let (mut syscall, mut args) = (UNKNOWN_SYSCALL, [0; 2]);
    let (mut kernel_stack_id, mut user_stack_id) = (0, 0);
    let by_itself = state != 0 && !preempted;
    if let Some(saved) = saved() {
        if saved.orig_ax as i64 == -1 {
            syscall = NO_SYSCALL;
        } else if saved.cs == USER_CS {
            syscall = saved.orig_ax as i32;
            args = [saved.di, saved.si];
        }
        if by_itself {
            user_stack_id = user_stack(&saved, pid_tgid);
        }
    }
    if by_itself {
        kernel_stack_id = stack::kernel(ctx.as_ptr(), pid_tgid);
    }
    let header = emit::header(Kind::ThreadOff, 0, 0, pid_tgid);
    let flags = if by_itself { 0 } else { PREEMPTED };
    let record = ThreadOff { header, kernel_stack_id, user_stack_id, state, flags, syscall, _pad: 0, args };
    emit::send(Kind::ThreadOff, header.seq, record);
}

/// What the current thread had in its registers when it entered the kernel.
#[inline(always)]
fn saved() -> Option<Saved> {
    read_kernel::<Saved>(saved_at(), SI)
}

#[inline(always)]
fn saved_at() -> *const u8 {
    // SAFETY: the helper takes the task that the other one returned.
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u8 }
}

/// Where user code entered the kernel.
#[inline(always)]
fn user_stack(saved: &Saved, pid_tgid: u64) -> u64 {
    let frame_pointer = read_kernel::<u64>(saved_at(), BP).unwrap_or(0);
    stack::native(pid_tgid, saved.ip, saved.sp, frame_pointer)
}

/// A thread is made runnable, by the current task or an interrupt that came upon it.
#[inline(always)]
pub fn waking(task: *const u8) {
    let Some(kernel) = KERNEL.get(0) else {
        return;
    };
    let Some(woken_tgid) = read_kernel::<u32>(task, kernel.task_tgid) else {
        return;
    };
    if !in_detail(woken_tgid, kernel) {
        return;
    }
    let woken_tid = read_kernel::<u32>(task, kernel.task_pid).unwrap_or(0);
    let pid_tgid = bpf_get_current_pid_tgid();
    let header = emit::header(Kind::ThreadWake, 0, 0, pid_tgid);
    let waker = waker(pid_tgid, kernel);
    emit::send(Kind::ThreadWake, header.seq, ThreadWake { header, woken_tgid, woken_tid, waker, _pad: 0 });
}

/// Whether the current task does what happens, or an interrupt.
#[inline(always)]
fn waker(pid_tgid: u64, kernel: &KernelLayout) -> u32 {
    if pid_tgid as u32 == 0 {
        return WAKER_INTERRUPT; // the idle task wakes nobody
    }
    match preempt_count(kernel) {
        Some(count) if count & kernel.in_interrupt != 0 => WAKER_INTERRUPT,
        Some(_) => WAKER_TASK,
        None => WAKER_UNKNOWN,
    }
}

/// This CPU's preemption count. Per-CPU variables keep their distances from each other on every CPU, and a task knows the run queue of the
/// CPU that it runs on, which is one of them.
#[inline(always)]
fn preempt_count(kernel: &KernelLayout) -> Option<u32> {
    if kernel.in_interrupt == 0 {
        return None;
    }
    // SAFETY: takes no pointer.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    let queue = read_kernel::<u64>(task, kernel.task_cfs_rq)? as *const u8;
    let run_queue = read_kernel::<u64>(queue, kernel.cfs_rq_rq)?;
    let at = run_queue.wrapping_add_signed(kernel.preempt_count_from_rq as i32 as i64);
    read_kernel::<u32>(at as *const u8, 0)
}

/// The current thread enters a function of the kernel in which it waits.
#[inline(always)]
pub fn wait(ctx: &ProbeContext, what: u32, object: u64) {
    let Some(kernel) = KERNEL.get(0) else {
        return;
    };
    let pid_tgid = bpf_get_current_pid_tgid();
    if !in_detail((pid_tgid >> 32) as u32, kernel) {
        return;
    }
    let user_stack_id = saved().map_or(0, |saved| user_stack(&saved, pid_tgid));
    let kernel_stack_id = stack::kernel(ctx.as_ptr(), pid_tgid);
    let header = emit::header(Kind::ThreadWait, 0, 0, pid_tgid);
    let record = ThreadWait { header, kernel_stack_id, user_stack_id, object, what, _pad: 0 };
    emit::send(Kind::ThreadWait, header.seq, record);
}
