//! lifetrace's BPF programs: entry points only. Each says what it is attached to; the work is in the modules.
//!
//! On the host this crate is an empty program: it exists for `cargo xtask build-ebpf`.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", allow(internal_features), feature(asm_experimental_arch, core_intrinsics))]

#[cfg(target_arch = "bpf")]
mod classic;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod filter;
#[cfg(target_arch = "bpf")]
mod gc;
#[cfg(target_arch = "bpf")]
mod go_abi;
#[cfg(target_arch = "bpf")]
mod goroutine;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod mem;
#[cfg(target_arch = "bpf")]
mod own_stack;
#[cfg(target_arch = "bpf")]
mod process;
#[cfg(target_arch = "bpf")]
mod sample;
#[cfg(target_arch = "bpf")]
mod sched;
#[cfg(target_arch = "bpf")]
mod signal;
#[cfg(target_arch = "bpf")]
mod stack;
#[cfg(target_arch = "bpf")]
mod summing;
#[cfg(target_arch = "bpf")]
mod synthetic;
#[cfg(target_arch = "bpf")]
mod testing;
#[cfg(target_arch = "bpf")]
mod transition;
#[cfg(target_arch = "bpf")]
mod turn;
#[cfg(target_arch = "bpf")]
mod usdt;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        macros::{btf_tracepoint, kprobe, perf_event, socket_filter, tracepoint, uprobe},
        programs::{BtfTracePointContext, PerfEventContext, ProbeContext, SkBuffContext, TracePointContext},
    };
    use tracer_common::thread::{WAIT_EPOLL, WAIT_FUTEX};

    use crate::{
        classic, gc, goroutine, own_stack, process, sample, sched, signal, synthetic, testing, transition, turn::Turn, usdt,
    };

    /// After `runtime.newproc1` has returned the new g (in newproc's and newcoro's closures).
    #[uprobe]
    fn go_newproc1(ctx: ProbeContext) -> u32 {
        own_stack::keep(&ctx);
        goroutine::birth(&ctx);
        0
    }

    /// In `runtime.gopark`, on the stack of the goroutine that parks.
    #[uprobe]
    fn go_gopark(ctx: ProbeContext) -> u32 {
        own_stack::keep(&ctx);
        goroutine::park(&ctx);
        0
    }

    /// In a copy of `runtime.gopark` that profile-guided inlining made, where it calls `mcall`.
    #[uprobe]
    fn go_gopark_inlined(ctx: ProbeContext) -> u32 {
        own_stack::keep(&ctx);
        goroutine::inlined_park(&ctx);
        0
    }

    /// In `runtime.park_m`, where the unlock function has said no.
    #[uprobe]
    fn go_park_m(ctx: ProbeContext) -> u32 {
        own_stack::keep(&ctx);
        goroutine::park_abort(&ctx);
        0
    }

    /// Wherever the runtime makes a waiting goroutine runnable (`ready`, `injectglist`, `findRunnable`, …).
    #[uprobe]
    fn go_ready(ctx: ProbeContext) -> u32 {
        own_stack::keep(&ctx);
        goroutine::wake(&ctx);
        0
    }

    /// Where a goroutine becomes dead (`gdestroy`, before Go 1.22 `goexit0`).
    #[uprobe]
    fn go_gdestroy(ctx: ProbeContext) -> u32 {
        own_stack::keep(&ctx);
        goroutine::exit(&ctx);
        0
    }

    /// Where a goroutine begins to run (`execute`, `exitsyscall`, `coroswitch_m`), or is queued without having run
    /// (`exitsyscall0`).
    #[uprobe]
    fn go_execute(ctx: ProbeContext) -> u32 {
        own_stack::keep(&ctx);
        transition::without_stack(&ctx);
        0
    }

    /// Where a goroutine enters a system call (`reentersyscall`, `entersyscallblock`).
    #[uprobe]
    fn go_entersyscall(ctx: ProbeContext) -> u32 {
        own_stack::keep(&ctx);
        transition::on_own_stack(&ctx);
        0
    }

    /// Where a goroutine stops running and does not wait for anything (`goschedImpl`, `preemptPark`), or switches to a
    /// coroutine (`coroswitch_m`).
    #[uprobe]
    fn go_gosched(ctx: ProbeContext) -> u32 {
        own_stack::keep(&ctx);
        transition::on_system_stack(&ctx);
        0
    }

    /// In `runtime.stopTheWorldWithSema`, whose first argument is the reason.
    #[uprobe]
    fn go_stop_world(ctx: ProbeContext) -> u32 {
        own_stack::keep(&ctx);
        gc::stop_the_world(&ctx);
        0
    }

    /// In `runtime.startTheWorldWithSema`.
    #[uprobe]
    fn go_start_world(ctx: ProbeContext) -> u32 {
        own_stack::keep(&ctx);
        gc::start_the_world(&ctx);
        0
    }

    /// In `runtime.gcBgMarkStartWorkers`: once a cycle.
    #[uprobe]
    fn go_gc_cycle(ctx: ProbeContext) -> u32 {
        own_stack::keep(&ctx);
        gc::cycle_start(&ctx);
        0
    }

    /// In `testing.(*T).Run`.
    #[uprobe]
    fn go_test_run(ctx: ProbeContext) -> u32 {
        own_stack::keep(&ctx);
        testing::run(&ctx);
        0
    }

    /// At a USDT probe of whatever program or library: its cookie says how its arguments are fetched.
    #[uprobe]
    fn usdt(ctx: ProbeContext) -> u32 {
        own_stack::keep(&ctx);
        usdt::hit(&ctx);
        0
    }

    /// The software CPU clock, on each CPU.
    #[perf_event]
    fn cpu_clock(ctx: PerfEventContext) -> u32 {
        sample::tick(&ctx);
        0
    }

    /// Nothing: what the trap alone costs, for calibration and benchmarks.
    #[uprobe]
    fn empty(_ctx: ProbeContext) -> u32 {
        0
    }

    /// `(struct task_struct *parent, struct task_struct *child)`
    #[btf_tracepoint(function = "sched_process_fork")]
    fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
        process::fork(&ctx, Turn::First, ctx.arg(0), ctx.arg(1));
        0
    }

    /// The same, once more: tells what the kernel left the other out of.
    #[btf_tracepoint(function = "sched_process_fork")]
    fn sched_process_fork_again(ctx: BtfTracePointContext) -> i32 {
        process::fork(&ctx, Turn::Second, ctx.arg(0), ctx.arg(1));
        0
    }

    /// `(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
    #[btf_tracepoint(function = "sched_process_exec")]
    fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
        process::exec(Turn::First, ctx.arg(0), ctx.arg::<i32>(1) as u32, ctx.arg(2));
        0
    }

    /// The same, once more: tells what the kernel left the other out of.
    #[btf_tracepoint(function = "sched_process_exec")]
    fn sched_process_exec_again(ctx: BtfTracePointContext) -> i32 {
        process::exec(Turn::Second, ctx.arg(0), ctx.arg::<i32>(1) as u32, ctx.arg(2));
        0
    }

    /// `(struct task_struct *p, …)`: once a thread.
    #[btf_tracepoint(function = "sched_process_exit")]
    fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
        process::exit(Turn::First, ctx.arg(0));
        0
    }

    /// The same, once more: tells what the kernel left the other out of.
    #[btf_tracepoint(function = "sched_process_exit")]
    fn sched_process_exit_again(ctx: BtfTracePointContext) -> i32 {
        process::exit(Turn::Second, ctx.arg(0));
        0
    }

    /// `release_task(struct task_struct *p)`: once a thread, in the task that reaps it.
    #[kprobe]
    fn release_task(ctx: ProbeContext) -> u32 {
        process::reaped(ctx.arg::<u64>(0).unwrap_or(0) as *const u8, true);
        0
    }

    /// `(struct task_struct *p)`: once a thread, when nobody looks at it any more.
    #[btf_tracepoint(function = "sched_process_free")]
    fn sched_process_free(ctx: BtfTracePointContext) -> i32 {
        process::reaped(ctx.arg(0), false);
        0
    }

    /// `(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)`
    #[btf_tracepoint(function = "signal_generate")]
    fn signal_generate(ctx: BtfTracePointContext) -> i32 {
        let (signal, group, result) = (ctx.arg::<i32>(0) as u32, ctx.arg::<i32>(3) as u32, ctx.arg::<i32>(4) as u32);
        signal::generate(signal, process::raw_argument(&ctx, 1), ctx.arg(2), group, result);
        0
    }

    /// `(int sig, struct kernel_siginfo *info, struct k_sigaction *ka)`
    #[btf_tracepoint(function = "signal_deliver")]
    fn signal_deliver(ctx: BtfTracePointContext) -> i32 {
        signal::deliver(ctx.arg::<i32>(0) as u32, process::raw_argument(&ctx, 1), ctx.arg(2));
        0
    }

    /// `(struct task_struct *task, uid_t uid)` since Linux 6.8, `(int pid)` before.
    #[btf_tracepoint(function = "mark_victim")]
    fn mark_victim(ctx: BtfTracePointContext) -> i32 {
        process::oom_victim(process::raw_argument(&ctx, 0));
        0
    }

    /// `(struct cgroup *dst_cgrp, const char *path, struct task_struct *task, bool threadgroup)`
    #[btf_tracepoint(function = "cgroup_attach_task")]
    fn cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
        process::cgroup_moved(ctx.arg(0), ctx.arg(2));
        0
    }

    // Where there is no BTF.

    /// `task:task_newtask`
    #[tracepoint]
    fn classic_newtask(ctx: TracePointContext) -> u32 {
        classic::newtask(&ctx);
        0
    }

    /// `sched:sched_process_exec`
    #[tracepoint]
    fn classic_exec(ctx: TracePointContext) -> u32 {
        classic::exec(&ctx);
        0
    }

    /// `sched:sched_process_exit`
    #[tracepoint]
    fn classic_exit(_ctx: TracePointContext) -> u32 {
        classic::exit();
        0
    }

    /// `sched:sched_process_free`
    #[tracepoint]
    fn classic_free(ctx: TracePointContext) -> u32 {
        classic::free(&ctx);
        0
    }

    /// `signal:signal_generate`
    #[tracepoint]
    fn classic_signal(ctx: TracePointContext) -> u32 {
        classic::signal(&ctx);
        0
    }

    /// `sched:sched_switch`
    #[tracepoint]
    fn classic_switch(ctx: TracePointContext) -> u32 {
        classic::switch(&ctx);
        0
    }

    /// `sched:sched_waking`
    #[tracepoint]
    fn classic_waking(ctx: TracePointContext) -> u32 {
        classic::waking(&ctx);
        0
    }

    /// `(bool preempt, struct task_struct *prev, struct task_struct *next, …)`
    #[btf_tracepoint(function = "sched_switch")]
    fn sched_switch(ctx: BtfTracePointContext) -> i32 {
        sched::switch(&ctx, ctx.arg::<i32>(0) & 1 != 0, ctx.arg(1), ctx.arg(2));
        0
    }

    /// `(struct task_struct *p)`: runs in the waker.
    #[btf_tracepoint(function = "sched_waking")]
    fn sched_waking(ctx: BtfTracePointContext) -> i32 {
        sched::waking(ctx.arg(0));
        0
    }

    /// `futex_wait(u32 __user *uaddr, …)` of `kernel/futex/waitwake.c`, also when a signal has interrupted it and it goes on.
    #[kprobe]
    fn futex_wait(ctx: ProbeContext) -> u32 {
        sched::wait(&ctx, WAIT_FUTEX, ctx.arg::<u64>(0).unwrap_or(0));
        0
    }

    /// `do_epoll_wait(int epfd, …)` of `fs/eventpoll.c`.
    #[kprobe]
    fn epoll_wait(ctx: ProbeContext) -> u32 {
        sched::wait(&ctx, WAIT_EPOLL, 0);
        0
    }

    /// Never attached: benchmarks run it.
    #[socket_filter]
    fn synthetic_records(_ctx: SkBuffContext) -> i64 {
        synthetic::produce();
        0
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 4] = *b"GPL\0";
}
