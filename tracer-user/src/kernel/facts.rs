//! Which hook of the running kernel tells which fact, best first: a BTF tracepoint, a kprobe where no tracepoint has it, a classic
//! tracepoint where there is no BTF. What is told by none of them has a fallback that needs no hook of its own, and `doctor` says so.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, KProbe, Program, ProgramError, TracePoint},
};
use serde::Serialize;
use tracer_common::config::{ClassicLayout, KernelLayout};

use super::{KernelError, classic, offsets};

/// Something that the kernel knows.
#[derive(Debug)]
pub struct Fact {
    /// As `doctor` and docs/kernels.md call it.
    pub name: &'static str,
    pub group: Group,
    /// Without it there is no recording.
    pub required: bool,
    /// Best first.
    pub hooks: &'static [Hook],
    /// What serves where none of the hooks is there; empty for nothing.
    pub fallback: &'static str,
}

/// Facts that are attached together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Births, ends and signals: rare, always attached.
    Lives,
    /// Every change of what a CPU runs: attached where threads are followed in detail.
    Scheduling,
}

/// A BPF program, and where it is attached.
#[derive(Clone, Copy, Debug)]
pub enum Hook {
    /// A tracepoint by its type in the kernel's BTF (`btf_trace_NAME`).
    Btf { program: &'static str, tracepoint: &'static str },
    /// The entry of the first of these functions that the kernel has.
    Kprobe { program: &'static str, functions: &'static [&'static str] },
    /// A tracepoint by its description in tracefs.
    Classic { program: &'static str, category: &'static str, tracepoint: &'static str },
}

/// Every fact.
pub const FACTS: &[Fact] = &[
    Fact {
        name: "process fork",
        group: Group::Lives,
        required: true,
        hooks: &[
            Hook::Btf { program: "sched_process_fork", tracepoint: "sched_process_fork" },
            Hook::Classic { program: "classic_newtask", category: "task", tracepoint: "task_newtask" },
        ],
        fallback: "",
    },
    Fact {
        name: "process exec",
        group: Group::Lives,
        required: true,
        hooks: &[
            Hook::Btf { program: "sched_process_exec", tracepoint: "sched_process_exec" },
            Hook::Classic { program: "classic_exec", category: "sched", tracepoint: "sched_process_exec" },
        ],
        fallback: "",
    },
    Fact {
        name: "process exit",
        group: Group::Lives,
        required: true,
        hooks: &[
            Hook::Btf { program: "sched_process_exit", tracepoint: "sched_process_exit" },
            Hook::Classic { program: "classic_exit", category: "sched", tracepoint: "sched_process_exit" },
        ],
        fallback: "",
    },
    Fact {
        name: "process reaped",
        group: Group::Lives,
        required: false,
        hooks: &[
            Hook::Kprobe { program: "release_task", functions: &["release_task"] },
            // After a grace period of RCU, in a bystander: who reaped is told by who was the parent.
            Hook::Btf { program: "sched_process_free", tracepoint: "sched_process_free" },
            Hook::Classic { program: "classic_free", category: "sched", tracepoint: "sched_process_free" },
        ],
        fallback: "",
    },
    Fact {
        name: "signal sent",
        group: Group::Lives,
        required: false,
        hooks: &[
            Hook::Btf { program: "signal_generate", tracepoint: "signal_generate" },
            Hook::Classic { program: "classic_signal", category: "signal", tracepoint: "signal_generate" },
        ],
        fallback: "the signal in a process's wait status",
    },
    Fact {
        name: "signal taken",
        group: Group::Lives,
        required: false,
        hooks: &[Hook::Btf { program: "signal_deliver", tracepoint: "signal_deliver" }],
        fallback: "",
    },
    Fact {
        name: "out of memory",
        group: Group::Lives,
        required: false,
        hooks: &[Hook::Btf { program: "mark_victim", tracepoint: "mark_victim" }],
        fallback: "the cgroup's own count (memory.events, memory.oom_control)",
    },
    Fact {
        name: "cgroup move",
        group: Group::Lives,
        required: false,
        hooks: &[Hook::Btf { program: "cgroup_attach_task", tracepoint: "cgroup_attach_task" }],
        fallback: "the cgroup at fork and exec",
    },
    Fact {
        name: "thread off and on CPU",
        group: Group::Scheduling,
        required: true,
        hooks: &[
            Hook::Btf { program: "sched_switch", tracepoint: "sched_switch" },
            Hook::Classic { program: "classic_switch", category: "sched", tracepoint: "sched_switch" },
        ],
        fallback: "",
    },
    Fact {
        name: "thread wake-up",
        group: Group::Scheduling,
        required: true,
        hooks: &[
            Hook::Btf { program: "sched_waking", tracepoint: "sched_waking" },
            Hook::Classic { program: "classic_waking", category: "sched", tracepoint: "sched_waking" },
        ],
        fallback: "",
    },
    Fact {
        name: "futex wait",
        group: Group::Scheduling,
        required: false,
        hooks: &[Hook::Kprobe { program: "futex_wait", functions: &["futex_wait"] }],
        fallback: SYSCALL_ARGUMENTS,
    },
    Fact {
        name: "epoll wait",
        group: Group::Scheduling,
        required: false,
        hooks: &[Hook::Kprobe { program: "epoll_wait", functions: &["do_epoll_wait", "ep_poll"] }],
        fallback: SYSCALL_ARGUMENTS,
    },
];

/// Programs that tell what the kernel left the first one of their tracepoint out of (tracer-ebpf/src/turn.rs).
const SECONDS: [(&str, &str); 3] = [
    ("sched_process_fork", "sched_process_fork_again"),
    ("sched_process_exec", "sched_process_exec_again"),
    ("sched_process_exit", "sched_process_exit_again"),
];

/// The second program of a first one's tracepoint.
fn second(first: &str) -> Option<&'static str> {
    SECONDS.iter().find(|(known, _)| *known == first).map(|(_, second)| *second)
}

/// The first program of the tracepoint that a program is attached to.
pub(super) fn first_of(program: &str) -> &str {
    SECONDS.iter().find(|(_, second)| *second == program).map_or(program, |(first, _)| first)
}

/// What tells of a wait without a kprobe. A wait that goes on after a signal (`restart_syscall`) has lost them.
const SYSCALL_ARGUMENTS: &str = "the system call and its arguments, when the thread leaves its CPU";

/// How a fact is told on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    pub fact: &'static str,
    /// `btf`, `kprobe`, `classic`, `fallback`, or `none`.
    pub through: &'static str,
    /// The tracepoint or function, or what serves instead.
    pub by: String,
}

impl Hook {
    fn through(&self) -> &'static str {
        match self {
            Self::Btf { .. } => "btf",
            Self::Kprobe { .. } => "kprobe",
            Self::Classic { .. } => "classic",
        }
    }
}

/// What the running kernel offers to hook into.
pub struct Offers {
    btf: Option<Btf>,
    /// Where tracefs is, if it is mounted.
    tracefs: Option<PathBuf>,
    /// Functions that fact hooks name and the kernel has; empty where it knows no kprobes.
    functions: HashSet<String>,
    /// Links of many points are to be tried (Linux 6.6 and later have them).
    pub(super) many: bool,
    /// Of two programs on a tracepoint only the second is attached.
    seconds_only: bool,
}

impl Offers {
    /// Looks around. Costs a read of /proc/kallsyms where there are kprobes.
    pub fn look() -> Self {
        let tracefs = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"].map(PathBuf::from);
        let tracefs = tracefs.into_iter().find(|path| path.join("events").is_dir());
        let kprobes = Path::new("/sys/bus/event_source/devices/kprobe/type").exists();
        Self {
            btf: Btf::from_sys_fs().ok(),
            tracefs,
            functions: if kprobes { known_functions() } else { HashSet::new() },
            many: true,
            seconds_only: false,
        }
    }

    /// The same, as on a kernel that has no BTF.
    pub fn look_without_btf() -> Self {
        Self { btf: None, ..Self::look() }
    }

    /// The same, where every probe has a link of its own, as before Linux 6.6.
    pub fn one_by_one(self) -> Self {
        Self { many: false, ..self }
    }

    /// The same, as if the kernel left out every first program of a tracepoint that has two.
    pub fn seconds_only(self) -> Self {
        Self { seconds_only: true, ..self }
    }

    /// What the BPF programs must know of this kernel. Without BTF nothing is known of its structures.
    pub fn layouts(&self) -> Result<(KernelLayout, ClassicLayout), KernelError> {
        match (&self.btf, &self.tracefs) {
            (Some(_), _) => Ok((offsets::kernel_layout()?, ClassicLayout::default())),
            (None, Some(tracefs)) => Ok((offsets::unknown(), classic::layout(tracefs)?)),
            (None, None) => Err(KernelError::NoHook("processes")),
        }
    }

    pub(super) fn btf(&self) -> Option<&Btf> {
        self.btf.as_ref()
    }

    /// The best hook that is there, and the place of it.
    fn choose(&self, fact: &Fact) -> Option<(Hook, &'static str)> {
        fact.hooks.iter().find_map(|hook| Some((*hook, self.place(hook)?)))
    }

    fn place(&self, hook: &Hook) -> Option<&'static str> {
        match hook {
            Hook::Btf { tracepoint, .. } => {
                let name = format!("btf_trace_{tracepoint}");
                let known = self.btf.as_ref()?.id_by_type_name_kind(&name, aya_obj::btf::BtfKind::Typedef).is_ok();
                known.then_some(tracepoint)
            }
            // What a function is given can only be read with BTF's offsets.
            Hook::Kprobe { functions, .. } => {
                functions.iter().copied().find(|name| self.btf.is_some() && self.functions.contains(*name))
            }
            Hook::Classic { category, tracepoint, .. } => {
                let events = self.tracefs.as_ref()?.join("events");
                events.join(category).join(tracepoint).is_dir().then_some(tracepoint)
            }
        }
    }

    /// How each fact would be told.
    pub fn told(&self) -> Vec<Told> {
        FACTS.iter().map(|fact| told(fact, self.choose(fact).map(|(hook, place)| (hook.through(), place)))).collect()
    }
}

fn told(fact: &Fact, hook: Option<(&'static str, &str)>) -> Told {
    let (through, by) = match hook {
        Some(hook) => hook,
        None if fact.fallback.is_empty() => ("none", ""),
        None => ("fallback", fact.fallback),
    };
    Told { fact: fact.name, through, by: by.to_owned() }
}

/// Which of the functions that [`FACTS`] name are there to be probed.
fn known_functions() -> HashSet<String> {
    let named: HashSet<&str> = FACTS
        .iter()
        .flat_map(|fact| fact.hooks)
        .filter_map(|hook| match hook {
            Hook::Kprobe { functions, .. } => Some(*functions),
            _ => None,
        })
        .flatten()
        .copied()
        .collect();
    if named.is_empty() {
        return HashSet::new();
    }
    let symbols = fs::read("/proc/kallsyms").unwrap_or_default();
    let symbols = String::from_utf8_lossy(&symbols);
    symbols
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .filter(|name| named.contains(name))
        .map(str::to_owned)
        .collect()
}

/// Attaches the best hook of each fact of a group; a hook that the kernel refuses although it seemed to be there is told of, and the
/// next one serves. They go when `ebpf` does.
pub fn attach(ebpf: &mut Ebpf, offers: &Offers, group: Group) -> Result<Vec<Told>, KernelError> {
    FACTS.iter().filter(|fact| fact.group == group).map(|fact| attach_one(ebpf, offers, fact)).collect()
}

fn attach_one(ebpf: &mut Ebpf, offers: &Offers, fact: &Fact) -> Result<Told, KernelError> {
    let mut refused = None;
    for hook in fact.hooks {
        let Some(place) = offers.place(hook) else { continue };
        match attach_hook(ebpf, offers, hook, place) {
            Ok(()) => return Ok(told(fact, Some((hook.through(), place)))),
            Err(error) => {
                tracing::debug!("{} through {place}: {error}", fact.name);
                refused = Some(error);
            }
        }
    }
    match refused {
        Some(error) if fact.required => Err(error),
        None if fact.required => Err(KernelError::NoHook(fact.name)),
        _ => Ok(told(fact, None)),
    }
}

fn attach_hook(ebpf: &mut Ebpf, offers: &Offers, hook: &Hook, place: &str) -> Result<(), KernelError> {
    match *hook {
        Hook::Btf { program, tracepoint } => {
            let btf = offers.btf.as_ref().ok_or(KernelError::Missing("kernel BTF"))?;
            let second = second(program);
            let first = Some(program).filter(|_| !offers.seconds_only || second.is_none());
            for program in first.into_iter().chain(second) {
                let found: &mut BtfTracePoint = find(ebpf, program)?;
                found.load(tracepoint, btf).map_err(KernelError::program(program, "loaded"))?;
                found.attach().map_err(KernelError::program(program, "attached"))?;
            }
        }
        Hook::Kprobe { program, .. } => {
            let found: &mut KProbe = find(ebpf, program)?;
            found.load().map_err(KernelError::program(program, "loaded"))?;
            found.attach(place, 0).map_err(KernelError::program(program, "attached"))?;
        }
        Hook::Classic { program, category, tracepoint } => {
            let found: &mut TracePoint = find(ebpf, program)?;
            found.load().map_err(KernelError::program(program, "loaded"))?;
            found.attach(category, tracepoint).map_err(KernelError::program(program, "attached"))?;
        }
    }
    Ok(())
}

fn find<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing(name))?;
    program.try_into().map_err(KernelError::program(name, "used"))
}
