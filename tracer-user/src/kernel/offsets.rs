//! Byte offsets of the running kernel's structures, looked up by name in its BTF.

use std::{fs, path::Path};

use btf_rs::{Btf, BtfType, Member, Type};
use tracer_common::config::{ABSENT, KernelLayout, THREADS_OFF};
use zerocopy::FromBytes;

use super::KernelError;

/// Where the kernel puts its own type information.
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// How deep anonymous structures are searched (mm_struct nests its fields once).
const MAX_DEPTH: usize = 4;

/// The offsets that the BPF programs need.
pub fn kernel_layout() -> Result<KernelLayout, KernelError> {
    let path = Path::new(VMLINUX_BTF);
    let btf = fs::read(path).map_err(Into::into).and_then(|bytes| Btf::from_bytes(&bytes));
    let btf = btf.map_err(|source| KernelError::NoBtf { path: path.into(), source })?;
    let maybe = |structure, field| offset_of(&btf, structure, field);
    let of = |structure, field| maybe(structure, field).ok_or(KernelError::NoField { structure, field });
    let or_absent = |offset: Option<u32>| offset.unwrap_or(ABSENT);
    let within = |outer: Option<u32>, inner: Option<u32>| or_absent(outer.zip(inner).map(|(outer, inner)| outer + inner));
    // `action[SIGCHLD - 1]`, and a `k_sigaction` holds nothing but its `sa`, and on some architectures a restorer behind it.
    let sigchld = maybe("sighand_struct", "action").zip(size_of_struct(&btf, "k_sigaction"));
    let sigchld = sigchld.map(|(action, size)| action + (SIGCHLD - 1) * size);
    let queue = within(maybe("task_struct", "se"), maybe("sched_entity", "cfs_rq"));
    let (queue, run_queue) = (Some(queue).filter(|offset| *offset != ABSENT), maybe("cfs_rq", "rq"));
    let count = queue.and(run_queue).and_then(|_| preempt_count(&btf)).unwrap_or_default();
    let memory = maybe("css_set", "subsys").zip(enumerator(&btf, "cgroup_subsys_id", "memory_cgrp_id"));
    Ok(KernelLayout {
        task_tgid: of("task_struct", "tgid")?,
        task_pid: of("task_struct", "pid")?,
        task_group_leader: of("task_struct", "group_leader")?,
        task_real_parent: of("task_struct", "real_parent")?,
        task_start_boottime: of("task_struct", "start_boottime")?,
        task_exit_code: of("task_struct", "exit_code")?,
        task_signal: of("task_struct", "signal")?,
        task_sighand: of("task_struct", "sighand")?,
        task_mm: of("task_struct", "mm")?,
        task_comm: of("task_struct", "comm")?,
        task_cgroups: or_absent(maybe("task_struct", "cgroups")),
        task_fsbase: of("task_struct", "thread")? + of("thread_struct", "fsbase")?,
        signal_live: of("signal_struct", "live")?,
        signal_flags: of("signal_struct", "flags")?,
        signal_group_exit_code: of("signal_struct", "group_exit_code")?,
        sighand_sigchld_handler: within(sigchld, maybe("sigaction", "sa_handler")),
        sighand_sigchld_flags: within(sigchld, maybe("sigaction", "sa_flags")),
        mm_arg_start: of("mm_struct", "arg_start")?,
        mm_arg_end: of("mm_struct", "arg_end")?,
        css_set_dfl_cgrp: or_absent(maybe("css_set", "dfl_cgrp")),
        css_set_memory: or_absent(memory.map(|(subsys, id)| subsys + id * POINTER)),
        css_cgroup: or_absent(maybe("cgroup_subsys_state", "cgroup")),
        cgroup_kn: or_absent(maybe("cgroup", "kn")),
        cgroup_root: or_absent(maybe("cgroup", "root")),
        root_hierarchy_id: or_absent(maybe("cgroup_root", "hierarchy_id")),
        kernfs_node_id: or_absent(maybe("kernfs_node", "id")),
        bprm_filename: of("linux_binprm", "filename")?,
        siginfo_code: or_absent(maybe("kernel_siginfo", "si_code")),
        k_sigaction_handler: within(maybe("k_sigaction", "sa"), maybe("sigaction", "sa_handler")),
        mark_victim_has_task: u32::from(first_argument_is_pointer(&btf, "btf_trace_mark_victim")),
        task_state: maybe("task_struct", "__state").map_or_else(|| of("task_struct", "state"), Ok)?,
        task_cfs_rq: or_absent(queue),
        cfs_rq_rq: or_absent(run_queue),
        preempt_count_from_rq: count.from_rq,
        in_interrupt: count.in_interrupt,
        threads: THREADS_OFF,
        spawner_tid: 0,
        _pad: 0,
    })
}

/// The same of a kernel whose structures nobody describes.
pub fn unknown() -> KernelLayout {
    let absent: Vec<u8> = ABSENT.to_ne_bytes().repeat(size_of::<KernelLayout>() / size_of::<u32>());
    let layout = KernelLayout::read_from_bytes(&absent).unwrap_or_default();
    KernelLayout { mark_victim_has_task: 0, in_interrupt: 0, threads: 0, spawner_tid: 0, _pad: 0, ..layout }
}

/// Where per-CPU variables are described (`include/asm-generic/vmlinux.lds.h`, as pahole names the section).
const PER_CPU: &str = ".data..percpu";

/// A CPU's preemption count. By default: not known.
#[derive(Default)]
struct PreemptCount {
    /// How far it lies behind the CPU's `runqueues`, wrapping.
    from_rq: u32,
    /// Of its bits those that tell of an interrupt, a non-maskable one, or a softirq being served.
    in_interrupt: u32,
}

/// Bits of `include/linux/preempt.h`, while the count has 32: serving a softirq, in an interrupt (4 bits), in an NMI (4 bits).
const IN_INTERRUPT_32: u32 = 0x00ff_0100;
/// Where the count has 64 bits (seen in 7.3): what `irq_enter_rcu` and `nmi_enter` add has moved up by 8, behind a count of
/// `local_interrupt_disable`, and the NMI has one bit.
const IN_INTERRUPT_64: u32 = 0x1f00_0100;

/// `__preempt_count`, or from Linux 6.2 to 6.14 a field of `pcpu_hot`.
fn preempt_count(btf: &Btf) -> Option<PreemptCount> {
    let variables = per_cpu_variables(btf)?;
    let find = |name: &str| variables.iter().find(|variable| variable.name == name);
    let (offset, size) = match find("__preempt_count") {
        Some(count) => (count.offset, count.size),
        None => (find("pcpu_hot")?.offset + offset_of(btf, "pcpu_hot", "preempt_count")?, 4),
    };
    let in_interrupt = match size {
        4 => IN_INTERRUPT_32,
        8 => IN_INTERRUPT_64,
        _ => return None,
    };
    Some(PreemptCount { from_rq: offset.wrapping_sub(find("runqueues")?.offset), in_interrupt })
}

/// A per-CPU variable.
struct PerCpu {
    name: String,
    offset: u32,
    size: usize,
}

fn per_cpu_variables(btf: &Btf) -> Option<Vec<PerCpu>> {
    let section = btf.resolve_types_by_name(PER_CPU).ok()?.into_iter().find_map(|ty| match ty {
        Type::Datasec(section) => Some(section),
        _ => None,
    })?;
    let named = |variable: &btf_rs::VarSecinfo| match btf.resolve_type_by_id(variable.get_type_id()?).ok()? {
        Type::Var(named) => {
            Some(PerCpu { name: btf.resolve_name(&named).ok()?, offset: variable.offset(), size: variable.size() })
        }
        _ => None,
    };
    Some(section.variables.iter().filter_map(named).collect())
}

/// `include/uapi/asm/signal.h`.
const SIGCHLD: u32 = 17;
/// Bytes of a pointer in the kernel.
const POINTER: u32 = 8;

fn size_of_struct(btf: &Btf, name: &str) -> Option<u32> {
    btf.resolve_types_by_name(name).ok()?.into_iter().find_map(|ty| match ty {
        Type::Struct(found) => u32::try_from(found.size()).ok(),
        _ => None,
    })
}

/// The value of a constant of an enumeration.
fn enumerator(btf: &Btf, enumeration: &str, name: &str) -> Option<u32> {
    btf.resolve_types_by_name(enumeration).ok()?.into_iter().find_map(|ty| match ty {
        Type::Enum(found) => {
            let constant = found.members.iter().find(|member| btf.resolve_name(*member).is_ok_and(|known| known == name))?;
            Some(constant.val())
        }
        _ => None,
    })
}

/// Whether a tracepoint gives a pointer first: its `btf_trace_…` type is a pointer to a function of (void *data, arguments…).
fn first_argument_is_pointer(btf: &Btf, typedef: &str) -> bool {
    let found = || {
        let types = btf.resolve_types_by_name(typedef).ok()?;
        let Type::Typedef(typedef) = types.into_iter().next()? else { return None };
        let Type::Ptr(pointer) = btf.resolve_type_by_id(typedef.get_type_id()?).ok()? else { return None };
        let Type::FuncProto(function) = btf.resolve_type_by_id(pointer.get_type_id()?).ok()? else { return None };
        let argument = function.parameters.get(1)?;
        Some(matches!(btf.resolve_type_by_id(argument.get_type_id()?).ok()?, Type::Ptr(_)))
    };
    found().unwrap_or(false)
}

fn offset_of(btf: &Btf, structure: &str, field: &str) -> Option<u32> {
    btf.resolve_types_by_name(structure).ok()?.into_iter().find_map(|ty| match ty {
        Type::Struct(found) => find_member(btf, &found.members, field, 0),
        _ => None,
    })
}

/// Byte offset of `field` among `members`, those of anonymous structures and unions included.
fn find_member(btf: &Btf, members: &[Member], field: &str, depth: usize) -> Option<u32> {
    if depth > MAX_DEPTH {
        return None;
    }
    members.iter().find_map(|member| {
        let name = btf.resolve_name(member).unwrap_or_default();
        let offset = member.bit_offset() / 8;
        if name == field {
            return Some(offset);
        }
        if !name.is_empty() {
            return None;
        }
        match btf.resolve_type_by_id(member.get_type_id()?).ok()? {
            Type::Struct(inner) | Type::Union(inner) => {
                find_member(btf, &inner.members, field, depth + 1).map(|within| offset + within)
            }
            _ => None,
        }
    })
}
