//! CPU samples in the report: whose they are, and what they went into.
//!
//! A sample is of the class of the innermost frame that decides it ([`Class::of_frame`]), else the program's own: what a
//! program pays for parking its goroutines, making them ready and finding the next one is so told from what it does. A sample
//! taken in the kernel right at a probed instruction is the price of the probe, and shown as that.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use crate::{
    correlate::{
        process::{ImageId, ProcessId},
        replay::Replayed,
        sample::Sample,
    },
    event::{Runner, Top},
    id::{Address, BinaryId, StackId},
    symbolize::Symbolizer,
};

/// What CPU time goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A goroutine gives up its thread.
    Park,
    /// A goroutine is made runnable, and a thread found for it.
    Ready,
    /// A thread looks for a goroutine to run, or sleeps and wakes because there is none.
    Schedule,
    /// Marking, sweeping, assists, and stopping the world for them.
    Gc,
    /// Our own probes.
    Probes,
    /// Everything else: the program, what it calls of the runtime, and its system calls.
    User,
    /// No stack, or none with a name.
    Unknown,
}

impl Class {
    pub const ALL: [Self; 7] = [Self::Park, Self::Ready, Self::Schedule, Self::Gc, Self::Probes, Self::User, Self::Unknown];

    pub fn name(self) -> &'static str {
        match self {
            Self::Park => "park",
            Self::Ready => "ready",
            Self::Schedule => "schedule",
            Self::Gc => "gc",
            Self::Probes => "probes",
            Self::User => "user",
            Self::Unknown => "unknown",
        }
    }

    /// The class that a frame decides; `None`: ask its caller (threads are woken by `startm` and `wakep` for several reasons).
    /// Names: `runtime/proc.go`, `runtime/mgc*.go`.
    fn of_frame(function: &str) -> Option<Self> {
        let name = function.strip_prefix("runtime.")?;
        // Closures belong to the function they stand in.
        let name = name.split_once(".func").map_or(name, |(outer, _)| outer);
        Some(match name {
            "gopark" | "goparkunlock" | "park_m" | "dropg" | "goyield" | "goyield_m" | "Gosched" | "gosched_m"
            | "gopreempt_m" | "goschedImpl" | "preemptPark" => Self::Park,
            "goready" | "ready" | "readyWithTime" | "injectglist" => Self::Ready,
            "schedule" | "findRunnable" | "findrunnable" | "execute" | "stopm" | "handoffp" | "mstart" | "mstart0"
            | "mstart1" | "sysmon" | "retake" | "exitsyscall0" => Self::Schedule,
            "(*gcControllerState).findRunnableGCWorker" => Self::Schedule,
            "GC"
            | "bgsweep"
            | "bgscavenge"
            | "sweepone"
            | "stopTheWorldWithSema"
            | "startTheWorldWithSema"
            | "markroot"
            | "scanobject"
            | "greyobject"
            | "wbBufFlush"
            | "scanblock"
            | "scanstack" => Self::Gc,
            _ if name.starts_with("gc") && name[2..].starts_with(char::is_uppercase) => Self::Gc,
            _ if ["(*gcWork).", "(*sweepLocked).", "(*mheap).reclaim", "(*scavengerState)."]
                .iter()
                .any(|p| name.starts_with(p)) =>
            {
                Self::Gc
            }
            _ => return None,
        })
    }

    /// Of a stack, innermost frame first.
    fn of_stack<'f>(functions: impl Iterator<Item = &'f str>) -> Self {
        let mut class = Self::Unknown;
        for function in functions {
            if let Some(decided) = Self::of_frame(function) {
                return decided;
            }
            if function != crate::symbolize::UNKNOWN {
                class = Self::User;
            }
        }
        class
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    image: ImageId,
    stack: Option<StackId>,
    in_kernel: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    samples: u64,
    ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    samples: u64,
    goid: u64,
}

/// Collects samples while a recording is replayed.
#[derive(Default)]
pub struct CpuTally {
    weights: FxHashMap<Key, Weight>,
    known: FxHashMap<ImageId, Known>,
}

impl CpuTally {
    pub fn sample(&mut self, image: ImageId, sample: &Sample) {
        let key = Key { image, stack: sample.stack, in_kernel: sample.in_kernel };
        let weight = self.weights.entry(key).or_default();
        weight.samples += 1;
        weight.ns = weight.ns.saturating_add(sample.ns);
        let known = self.known.entry(image).or_default();
        known.samples += 1;
        known.goid += u64::from(sample.runner != Runner::Unknown);
    }
}

#[derive(Serialize)]
pub struct CpuOut {
    /// Samples a second, on each of `cpus`.
    pub hz: u32,
    pub cpus: u32,
    /// Ticks that came, whatever ran, and that should have come: fewer came where the machine did not give us the time.
    pub ticks: u64,
    pub expected_ticks: u64,
    pub samples: u64,
    /// CPU time that the samples stand for.
    pub cpu_ns: u64,
    /// Share of the samples of Go programs that know their goroutine, or that there was none.
    pub known_goid: Option<f64>,
    pub by_process: Vec<ProcessCpuOut>,
}

#[derive(Serialize)]
pub struct ProcessCpuOut {
    pub tgid: u32,
    pub samples: u64,
    pub cpu_ns: u64,
    /// Of them, taken in the kernel.
    pub in_kernel: u64,
    /// `null` for a process that is no probed Go program, as is `shares`.
    pub known_goid: Option<f64>,
    pub shares: Option<BTreeMap<&'static str, f64>>,
}

#[derive(Default)]
struct OfProcess {
    all: Weight,
    in_kernel: u64,
    go: bool,
    known: Known,
    classes: BTreeMap<Class, u64>,
}

/// Names what was sampled; `None` where CPUs were not sampled.
pub fn cpu(replayed: &Replayed, tally: &CpuTally) -> Option<CpuOut> {
    let sampling = replayed.sampling()?;
    let mut processes: BTreeMap<ProcessId, OfProcess> = BTreeMap::new();
    let classes = Classes::new(replayed);
    for (key, weight) in &tally.weights {
        let image = replayed.engine.processes().image(key.image);
        let process = processes.entry(image.process).or_default();
        process.all.samples += weight.samples;
        process.all.ns = process.all.ns.saturating_add(weight.ns);
        process.in_kernel += if key.in_kernel { weight.samples } else { 0 };
        process.go |= image.binary.is_some();
        *process.classes.entry(classes.of(key)).or_default() += weight.samples;
    }
    for (image, known) in &tally.known {
        let image = replayed.engine.processes().image(*image);
        if let (Some(process), true) = (processes.get_mut(&image.process), image.binary.is_some()) {
            process.known.samples += known.samples;
            process.known.goid += known.goid;
        }
    }
    let of_go = |number: fn(&Known) -> u64| processes.values().map(|process| number(&process.known)).fold(0, u64::saturating_add);
    Some(CpuOut {
        hz: sampling.hz,
        cpus: sampling.cpus,
        ticks: replayed.counters.as_ref().map_or(0, |counters| counters.ticks),
        expected_ticks: sampling.expected_ticks,
        samples: processes.values().map(|process| process.all.samples).sum(),
        cpu_ns: processes.values().map(|process| process.all.ns).fold(0, u64::saturating_add),
        known_goid: share(of_go(|known| known.goid), of_go(|known| known.samples)),
        by_process: processes.iter().map(|(id, process)| process.out(replayed, *id)).collect(),
    })
}

impl OfProcess {
    fn out(&self, replayed: &Replayed, id: ProcessId) -> ProcessCpuOut {
        let count = |class: Class| self.classes.get(&class).copied().unwrap_or(0);
        let shares = Class::ALL.into_iter().filter_map(|class| Some((class.name(), share(count(class), self.all.samples)?)));
        ProcessCpuOut {
            tgid: replayed.engine.processes().process(id).tgid.0,
            samples: self.all.samples,
            cpu_ns: self.all.ns,
            in_kernel: self.in_kernel,
            known_goid: share(self.known.goid, self.known.samples),
            shares: self.go.then(|| shares.collect()),
        }
    }
}

/// To a ten-thousandth; `None` of nothing.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64 * 10_000.0).round() / 10_000.0)
}

/// Says of what class a stack is.
struct Classes<'a> {
    replayed: &'a Replayed,
    symbols: Symbolizer<'a>,
    /// Link-time addresses at which a thread is while the kernel serves one of our probes: the instruction, or (before the
    /// kernel has set it back) the byte behind the breakpoint.
    probes: FxHashSet<(BinaryId, Address)>,
}

impl<'a> Classes<'a> {
    fn new(replayed: &'a Replayed) -> Self {
        let sites = replayed.binaries.values().flat_map(|binary| binary.sites.iter().map(|site| (binary.id, site.address.0)));
        let probes = sites.flat_map(|(binary, at)| [(binary, Address(at)), (binary, Address(at.wrapping_add(1)))]).collect();
        Self { replayed, symbols: Symbolizer::new(replayed), probes }
    }

    fn of(&self, key: &Key) -> Class {
        let Some(id) = key.stack else { return Class::Unknown };
        if key.in_kernel && self.at_probe(key.image, id) {
            return Class::Probes;
        }
        let Some((frames, _)) = self.symbols.stack(key.image, id) else { return Class::Unknown };
        let functions: Vec<String> = frames.into_iter().map(|frame| self.symbols.frame(frame).function).collect();
        Class::of_stack(functions.iter().map(String::as_str))
    }

    fn at_probe(&self, image: ImageId, id: StackId) -> bool {
        let stack = self.replayed.stacks.get(&id).filter(|stack| stack.top != Top::Return);
        let place = stack.and_then(|stack| self.replayed.engine.processes().image(image).link_address(*stack.pcs.first()?));
        place.is_some_and(|place| self.probes.contains(&place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check what decides the class of a stack, innermost first: the first frame that can.
    #[test]
    fn classes() {
        use Class::*;
        for (stack, class) in [
            (&["main.burn", "main.main", "runtime.main"][..], User),
            (&["runtime.mallocgc", "runtime.newobject", "main.f"], User),
            (&["runtime.chanrecv", "runtime.chanrecv1", "main.f"], User),
            (&["runtime.gopark", "runtime.chanrecv", "main.f"], Park),
            (&["runtime.casgstatus", "runtime.park_m", "runtime.mcall"], Park),
            (
                &[
                    "runtime.futex",
                    "runtime.futexwakeup",
                    "runtime.notewakeup",
                    "runtime.startm",
                    "runtime.wakep",
                    "runtime.ready",
                ],
                Ready,
            ),
            (&["runtime.startm", "runtime.wakep", "runtime.resetspinning", "runtime.schedule", "runtime.mcall"], Schedule),
            (&["runtime.runqput", "runtime.ready", "runtime.goready.func1", "runtime.systemstack", "runtime.chansend"], Ready),
            (&["runtime.stealWork", "runtime.findRunnable", "runtime.schedule", "runtime.park_m", "runtime.mcall"], Schedule),
            (&["runtime.futex", "runtime.futexsleep", "runtime.notesleep", "runtime.mPark", "runtime.stopm"], Schedule),
            (&["runtime.scanobject", "runtime.gcDrain", "runtime.gcBgMarkWorker.func2", "runtime.systemstack"], Gc),
            (&["runtime.gcAssistAlloc", "runtime.mallocgc", "main.f"], Gc),
            (&["runtime.gopark", "runtime.gcBgMarkWorker"], Park),
            (&["runtime.gcd", "main.f"], User),
            (&["main.runtime.ready"], User),
            (&["?"], Unknown),
            (&[], Unknown),
        ] {
            assert_eq!(Class::of_stack(stack.iter().copied()), class, "{stack:?}");
        }
    }
}
