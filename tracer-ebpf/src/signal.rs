//! Signals: who sent which to whom, and what was done about it. Of followed processes alone.
//!
//! Programs can send signals as fast as they can call. So a process has a budget a second, beyond which its signals are counted and
//! not told; and the signals with which Go's runtime interrupts its own threads are always only counted.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use tracer_common::{
    config::{ABSENT, KernelLayout},
    counters,
    header::Kind,
    process::{ACTION_DEFAULT, ACTION_HANDLER, SIGNALS_A_SECOND, SignalSent, SignalTaken},
};

use crate::{
    emit,
    maps::{FOLLOWED, KERNEL, SIGNAL_BUDGETS, count},
    mem::read_kernel,
    process::start_boottime,
};

/// `SI_USER`, `SI_KERNEL` and `SI_TKILL` of `include/uapi/asm-generic/siginfo.h`.
const SI_USER: i32 = 0;
const SI_KERNEL: i32 = 0x80;
const SI_TKILL: i32 = -6;
/// `SEND_SIG_PRIV` of `include/linux/sched/signal.h`; `SEND_SIG_NOINFO` is null.
const SEND_SIG_PRIV: u64 = 1;
const SIGKILL: u32 = 9;
const SIGCHLD: u32 = 17;
/// With which Go's runtime stops a thread that runs for too long (`runtime/signal_unix.go`, `sigPreempt`).
const SIGURG: u32 = 23;

/// `si_code` of a signal; the kernel stands in with small numbers for what it does not fill in.
#[inline(always)]
fn code_of(info: u64, kernel: &KernelLayout) -> i32 {
    match info {
        0 => SI_USER,
        SEND_SIG_PRIV => SI_KERNEL,
        _ if kernel.siginfo_code == ABSENT => SI_KERNEL,
        info => read_kernel::<i32>(info as *const u8, kernel.siginfo_code).unwrap_or(SI_KERNEL),
    }
}

/// Whether a process may still be told of in this second. Threads that come at once may each take the last place.
#[inline(always)]
fn within_budget(tgid: u32) -> bool {
    // SAFETY: takes no pointer.
    let second = (unsafe { bpf_ktime_get_ns() } >> 30) as u32;
    let Some(budget) = SIGNAL_BUDGETS.get_ptr_mut(&tgid) else {
        // One that finds no place is told of: the table is larger than the processes that are busy with signals at once.
        let _ = SIGNAL_BUDGETS.insert(&tgid, &[second, 1], 0);
        return true;
    };
    // SAFETY: a map value that lives as long as the program runs.
    let [since, told] = unsafe { &mut *budget };
    if *since != second {
        (*since, *told) = (second, 1);
        return true;
    }
    *told = told.wrapping_add(1);
    if *told <= SIGNALS_A_SECOND {
        return true;
    }
    count(counters::SIGNALS_LEFT_OUT);
    false
}

/// A signal is sent to a task: by the current one, or by the kernel on its CPU.
#[inline(always)]
pub fn generate(signal: u32, info: u64, task: *const u8, group: u32, result: u32) {
    let Some(kernel) = KERNEL.get(0) else {
        return;
    };
    let pid_tgid = bpf_get_current_pid_tgid();
    let sender = (pid_tgid >> 32) as u32;
    let Some(target) = read_kernel::<u32>(task, kernel.task_tgid) else {
        return;
    };
    if FOLLOWED.get_ptr(&target).is_none() && FOLLOWED.get_ptr(&sender).is_none() {
        return;
    }
    let code = code_of(info, kernel);
    // That a child has ended or stopped is told as what the child did.
    if signal == SIGCHLD && code > 0 {
        return;
    }
    if signal == SIGURG && code == SI_TKILL && sender == target {
        count(counters::PREEMPTION_SIGNALS);
        return;
    }
    if !within_budget(target) {
        return;
    }
    let header = emit::header(Kind::SignalSent, 0, 0, pid_tgid);
    let record = SignalSent {
        header,
        target_start_boottime_ns: start_boottime(task, kernel),
        target_tgid: target,
        target_tid: read_kernel::<u32>(task, kernel.task_pid).unwrap_or(0),
        signal,
        code,
        result,
        group,
    };
    emit::send(Kind::SignalSent, header.seq, record);
}

/// The current thread takes a signal that it does not ignore.
#[inline(always)]
pub fn deliver(signal: u32, info: u64, action: *const u8) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let tgid = (pid_tgid >> 32) as u32;
    // SIGKILL is what each thread takes when the process ends, however that came about: the exit tells.
    if signal == SIGKILL || FOLLOWED.get_ptr(&tgid).is_none() {
        return;
    }
    let Some(kernel) = KERNEL.get(0) else {
        return;
    };
    let code = code_of(info, kernel);
    if signal == SIGURG && code == SI_TKILL || !within_budget(tgid) {
        return;
    }
    let handler = match kernel.k_sigaction_handler {
        ABSENT => 0,
        offset => read_kernel::<u64>(action, offset).unwrap_or(0),
    };
    let header = emit::header(Kind::SignalTaken, 0, 0, pid_tgid);
    // SIG_DFL is 0; what is ignored is not taken.
    let action = if handler == 0 { ACTION_DEFAULT } else { ACTION_HANDLER };
    emit::send(Kind::SignalTaken, header.seq, SignalTaken { header, signal, code, action, _pad: 0 });
}
