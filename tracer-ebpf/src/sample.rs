//! What a CPU does when the sampling clock ticks: which goroutine, in which code.
//!
//! Runs in the timer's interrupt: reads of user memory that would fault fail instead.

use core::arch::asm;

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    },
    programs::PerfEventContext,
};
use tracer_common::{
    config::{ABSENT, Cookie, GoLayout},
    counters,
    header::Kind,
    sample::{GOID_KNOWN, IN_KERNEL, OnCpuSample},
};

use crate::{
    emit,
    filter::plausible,
    maps::{CURRENT, FOLLOWED, KERNEL, LAYOUTS, count},
    mem::{read_kernel, read_user},
    stack,
};

/// The user code that ran, or that called into the kernel.
#[derive(Clone, Copy)]
struct Registers {
    ip: u64,
    stack_pointer: u64,
    frame_pointer: u64,
}

/// Offsets in `struct pt_regs`.
const BP: u32 = 32;
const IP: u32 = 128;
const SP: u32 = 152;

/// One load from the context at a constant offset, opaque to LLVM: the verifier refuses computed ones.
macro_rules! load {
    ($ctx:expr, $offset:literal) => {{
        let value: u64;
        // SAFETY: the kernel passes a bpf_perf_event_data, which begins with a pt_regs; the offset lies in it.
        unsafe { asm!(concat!("{0} = *(u64 *)({1} + ", $offset, ")"), out(reg) value, in(reg) $ctx.ctx) };
        value
    }};
}

/// A tick on this CPU, whatever it runs.
#[inline(always)]
pub fn tick(ctx: &PerfEventContext) {
    count(counters::TICKS);
    let pid_tgid = bpf_get_current_pid_tgid();
    let tgid = (pid_tgid >> 32) as u32;
    let Some(followed) = FOLLOWED.get_ptr(&tgid) else {
        return;
    };
    // SAFETY: a map value that lives as long as the program runs.
    let binary = unsafe { (*followed).binary };
    // SAFETY: takes no pointer.
    let task: *const u8 = unsafe { bpf_get_current_task_btf() }.cast();
    // The requested privilege level of CS: 3 in user code.
    let in_kernel = load!(ctx, 136) & 3 != 3;
    let registers = if in_kernel { registers_at_entry() } else { interrupted_registers(ctx) };
    let mut flags = if in_kernel { IN_KERNEL } else { 0 };
    let (mut goid, mut stack_id) = (0, 0);
    if binary != 0
        && let Some(layout) = LAYOUTS.get(binary as u32)
        && plausible(layout)
    {
        if let Some(known) = current_goid(task, pid_tgid, binary, layout) {
            goid = known;
            flags |= GOID_KNOWN;
        }
        if let Some(Registers { ip, stack_pointer, frame_pointer }) = registers {
            let cookie = Cookie { binary, ..Cookie::default() };
            stack_id = stack::interrupted(cookie, pid_tgid, ip, stack_pointer, frame_pointer);
        }
    } else if binary == 0
        && let Some(Registers { ip, stack_pointer, frame_pointer }) = registers
    {
        stack_id = stack::native(pid_tgid, ip, stack_pointer, frame_pointer);
    }
    let header = emit::header(Kind::OnCpuSample, binary, 0, pid_tgid);
    let record = OnCpuSample { header, goid, stack_id, period_ns: load!(ctx, 168) as u32, flags };
    emit::send(Kind::OnCpuSample, header.seq, record);
}

#[inline(always)]
fn interrupted_registers(ctx: &PerfEventContext) -> Option<Registers> {
    Some(Registers { ip: load!(ctx, 128), stack_pointer: load!(ctx, 152), frame_pointer: load!(ctx, 32) })
}

/// What user code had in its registers when it entered the kernel.
#[inline(always)]
fn registers_at_entry() -> Option<Registers> {
    // SAFETY: the helper takes the task that the other one returned.
    let saved = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const u8;
    Some(Registers {
        ip: read_kernel(saved, IP)?,
        stack_pointer: read_kernel(saved, SP)?,
        frame_pointer: read_kernel(saved, BP)?,
    })
}

/// The goroutine on whose behalf the thread runs, 0 for none: as the scheduling events told, else as the thread itself says.
#[inline(always)]
fn current_goid(task: *const u8, pid_tgid: u64, binary: u16, layout: &GoLayout) -> Option<u64> {
    let tid = pid_tgid as u32;
    if let Some(current) = CURRENT.get_ptr(&tid) {
        // SAFETY: a map value that lives as long as the program runs.
        let current = unsafe { *current };
        let its_own = current.tgid == (pid_tgid >> 32) as u32 && current.binary == binary;
        if its_own && layout.scheduling != 0 && current.since == layout.scheduling as u16 {
            return Some(current.goid);
        }
    }
    goid_of_thread(task, layout)
}

/// The same out of thread-local storage: the thread's g, its m, and the goroutine of that, which must know the m in turn.
#[inline(always)]
fn goid_of_thread(task: *const u8, layout: &GoLayout) -> Option<u64> {
    if layout.g_tls == 0 {
        return None;
    }
    let at = KERNEL.get(0)?.task_fsbase;
    if at == ABSENT {
        return None;
    }
    let thread_pointer = read_kernel::<u64>(task, at)?;
    if thread_pointer == 0 {
        return None;
    }
    let g = read_user::<u64>(thread_pointer.wrapping_add_signed(layout.g_tls as i64))?;
    if g == 0 {
        return Some(0); // a thread of C's
    }
    let m = read_user::<u64>(g + layout.g_m as u64)?;
    if m == 0 {
        return None;
    }
    let user_g = read_user::<u64>(m + layout.m_curg as u64)?;
    if user_g == 0 {
        return Some(0);
    }
    if read_user::<u64>(user_g + layout.g_m as u64)? != m {
        return None;
    }
    read_user::<u64>(user_g + layout.g_goid as u64)
}
