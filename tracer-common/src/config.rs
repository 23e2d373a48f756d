//! What userspace tells the BPF programs: the cookie of an attachment, the layout of a Go runtime, the kernel's offsets.

use crate::assert_size;

/// Binaries that can be probed in one session; ids run from 1.
pub const MAX_BINARIES: u32 = 1024;

/// The largest offset into a runtime structure that a program follows. A larger one is a wrong table.
pub const MAX_OFFSET: u32 = 4096;

/// What `bpf_get_attach_cookie` returns at a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cookie {
    pub binary: u16,
    pub site: u16,
    /// Where the register that holds the `*g` the event is about lies in `struct pt_regs` ([`pt_regs_offset`]).
    pub register: u8,
    /// Who is followed from its first hit on: [`ADOPT_NOBODY`], [`ADOPT_ANYBODY`] or [`ADOPT_IN_CGROUP`].
    pub adopt: u8,
    /// What the zero flag must be for the hit to count: 0 anything, 1 clear, 2 set (a jump after a compare-and-swap is also
    /// reached when the swap failed).
    pub zero_flag: u8,
    /// Whether the probed function has set its frame pointer already: its frame record is at RBP, and what is at RSP is its own.
    pub framed: bool,
    /// At the site of a transition: from which of [`crate::goroutine::status`] to which. Else 0.
    pub from: u8,
    pub to: u8,
}

impl Cookie {
    #[inline(always)]
    pub fn to_u64(self) -> u64 {
        self.binary as u64
            | (self.site as u64) << 16
            | (self.register as u64) << 32
            | (self.zero_flag as u64 & 3) << 40
            | (self.adopt as u64 & 3) << 42
            | (self.framed as u64) << 44
            | (self.from as u64) << 48
            | (self.to as u64) << 56
    }

    #[inline(always)]
    pub fn from_u64(value: u64) -> Self {
        Self {
            binary: value as u16,
            site: (value >> 16) as u16,
            register: (value >> 32) as u8,
            zero_flag: (value >> 40) as u8 & 3,
            adopt: (value >> 42) as u8 & 3,
            framed: value >> 44 & 1 != 0,
            from: (value >> 48) as u8,
            to: (value >> 56) as u8,
        }
    }
}

/// A process that is not followed stays so.
pub const ADOPT_NOBODY: u8 = 0;
/// Every process that hits the probe is followed (`attach --exe`).
pub const ADOPT_ANYBODY: u8 = 1;
/// A process of the cgroup in [`Adoption`] is (`attach --cgroup`).
pub const ADOPT_IN_CGROUP: u8 = 2;

/// Byte offset in `struct pt_regs` (`arch/x86/include/uapi/asm/ptrace.h`) of a register by its x86-64 number (0 = rax,
/// 3 = rbx, … 15 = r15).
pub const fn pt_regs_offset(number: u8) -> u8 {
    const OFFSETS: [u8; 16] = [80, 88, 96, 40, 152, 32, 104, 112, 72, 64, 56, 48, 24, 16, 8, 0];
    OFFSETS[(number & 15) as usize]
}

/// Byte offsets into the structures of one binary's Go runtime (`runtime2.go`), and what is at no offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct GoLayout {
    /// 1 once userspace has filled the entry.
    pub valid: u32,
    pub g_goid: u32,
    /// 1 where `parentGoid` lies just before `gopc` (since Go 1.21), else 0.
    pub has_parent_goid: u32,
    /// `g.gopc`; `g.startpc` lies 16 bytes behind it in every version.
    pub g_gopc: u32,
    pub g_m: u32,
    pub m_curg: u32,
    /// `g.sched.pc` and `g.sched.bp`: where a goroutine that has stopped goes on, and its frame pointer there.
    pub g_sched_pc: u32,
    pub g_sched_bp: u32,
    /// Not 0 while every change of a goroutine's state is probed (T3): then the table of what threads run is kept, and entries count that
    /// were made under this number.
    pub scheduling: u32,
    /// Where a thread keeps its g, from the thread pointer (the FS base); 0 where that is not known.
    pub g_tls: i32,
    /// `g.waitreason` (a byte) and `m.waitlock`: what gopark was given, where it has stored it. `m_waitlock` 0: nobody knows.
    pub g_waitreason: u32,
    pub m_waitlock: u32,
    /// Wait reasons below 64, by bit, that only `runtime.semacquire1` parks with; its first argument, the semaphore, then lies 16 bytes
    /// above the frame pointer. 0: it does not, or nobody knows.
    pub semaphore_reasons: u64,
    /// Waits and lives that are shorter are summed and not told ([`crate::summing`]); 0: each is told.
    pub min_block_ns: u64,
    /// Of waits and lives, those are summed that began at this time (`bpf_ktime_get_ns`) or later. What began before may have been found by a
    /// look, which asks for an end.
    pub summing_since: u64,
}
assert_size!(GoLayout, 72);

/// A field that this kernel's structure does not have: beyond every structure, and small enough that the verifier lets it be added
/// to a pointer before it is looked at.
pub const ABSENT: u32 = 0xffff;

/// Byte offsets into the running kernel's structures, from its BTF; [`ABSENT`] for what it has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct KernelLayout {
    pub task_tgid: u32,
    pub task_pid: u32,
    pub task_group_leader: u32,
    pub task_real_parent: u32,
    pub task_start_boottime: u32,
    pub task_exit_code: u32,
    pub task_signal: u32,
    pub task_sighand: u32,
    pub task_mm: u32,
    pub task_comm: u32,
    pub task_cgroups: u32,
    /// `task_struct.thread.fsbase`: the thread pointer of user code.
    pub task_fsbase: u32,
    pub signal_live: u32,
    pub signal_flags: u32,
    pub signal_group_exit_code: u32,
    /// Of `sighand_struct.action[SIGCHLD - 1].sa`: handler and flags.
    pub sighand_sigchld_handler: u32,
    pub sighand_sigchld_flags: u32,
    pub mm_arg_start: u32,
    pub mm_arg_end: u32,
    /// `css_set.dfl_cgrp`: the cgroup of the unified hierarchy.
    pub css_set_dfl_cgrp: u32,
    /// `css_set.subsys[memory_cgrp_id]`: the memory controller's.
    pub css_set_memory: u32,
    pub css_cgroup: u32,
    pub cgroup_kn: u32,
    pub cgroup_root: u32,
    pub root_hierarchy_id: u32,
    pub kernfs_node_id: u32,
    pub bprm_filename: u32,
    pub siginfo_code: u32,
    /// Of `struct k_sigaction`: what `signal_deliver` is given.
    pub k_sigaction_handler: u32,
    /// 1 where `oom:mark_victim` is given a task (since Linux 6.8), 0 where a pid.
    pub mark_victim_has_task: u32,
    /// `task_struct.__state` (before Linux 5.14 `state`).
    pub task_state: u32,
    /// `task_struct.se.cfs_rq`: the run queue that the task is on.
    pub task_cfs_rq: u32,
    /// `cfs_rq.rq`: the CPU's, which is the per-CPU variable `runqueues`.
    pub cfs_rq_rq: u32,
    /// How far behind a CPU's `runqueues` its preemption count lies, wrapping.
    pub preempt_count_from_rq: u32,
    /// Bits of the preemption count, of which one is set where an interrupt is served. 0: not known, and the three above mean nothing.
    pub in_interrupt: u32,
    /// Whose threads are followed on and off their CPUs: one of `THREADS_…`.
    pub threads: u32,
    /// The thread whose next forked child is followed: the tracer's, while it starts the command. 0 for none.
    pub spawner_tid: u32,
    pub _pad: u32,
}
assert_size!(KernelLayout, 152);

/// Births and ends of threads are all that is told.
pub const THREADS_OFF: u32 = 0;
/// In detail those of processes of which no probe was hit since their exec: they are not Go's, as far as is known.
pub const THREADS_AUTO: u32 = 1;
/// In detail those of every followed process.
pub const THREADS_ON: u32 = 2;

/// Where the records of classic tracepoints keep their fields: byte offsets, as tracefs describes them (`events/*/*/format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct ClassicLayout {
    pub newtask_pid: u32,
    pub newtask_clone_flags: u32,
    /// A `__data_loc`.
    pub exec_filename: u32,
    pub exec_old_pid: u32,
    pub free_pid: u32,
    pub signal_sig: u32,
    pub signal_code: u32,
    pub signal_pid: u32,
    pub signal_group: u32,
    pub signal_result: u32,
    pub switch_prev_state: u32,
    pub switch_next_pid: u32,
    pub waking_pid: u32,
    pub _pad: u32,
}
assert_size!(ClassicLayout, 56);

/// The cgroup whose processes are followed whenever they appear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct Adoption {
    /// Its id in the unified hierarchy: the inode number of its directory. 0 for none.
    pub cgroup: u64,
    /// How many levels it lies below the root.
    pub level: u32,
    pub _pad: u32,
}
assert_size!(Adoption, 16);

/// What is known of a followed process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct Followed {
    /// The binary whose hits are accepted; 0 until the first hit after an exec.
    pub binary: u16,
    pub _pad: [u16; 3],
}
assert_size!(Followed, 8);

/// Which goroutine a thread runs, told by the scheduling events (T3). An entry is written by its own thread alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct CurrentG {
    /// The goroutine, also while it is in a system call; 0 for none: the thread runs the scheduler, or waits.
    pub goid: u64,
    /// Thread ids are reused: the entry is another thread's where this is not the reader's process.
    pub tgid: u32,
    pub binary: u16,
    /// The low bits of [`GoLayout::scheduling`] by then: it may be from before a gap.
    pub since: u16,
}
assert_size!(CurrentG, 16);
