//! Every map, and the counters' arithmetic. Sizes given here are the defaults; userspace may change them before loading.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{ArrayOfMaps, RingBuf},
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use tracer_common::{
    config::{Adoption, ClassicLayout, CurrentG, Followed, GoLayout, KernelLayout, MAX_BINARIES},
    counters,
    summing::{Kept, Sum, SumKey},
    usdt::{MAX_SPECS, UsdtSpec},
};

use crate::stack::{KernelStack, SCRATCHES, Scratch};

/// The ring of each CPU's records, by its number. Userspace makes them, and says how many there are; the one given here is their
/// likeness alone, of a size that every kernel takes (whole pages, which may be of 64 KiB).
#[btf_map]
pub static RINGS: ArrayOfMaps<RingBuf<u64, 65536>, 1> = ArrayOfMaps::new();

/// Processes that are followed, by tgid.
#[map]
pub static FOLLOWED: HashMap<u32, Followed> = HashMap::with_max_entries(65_536, 0);

/// Go runtime layouts, by binary id.
#[map]
pub static LAYOUTS: Array<GoLayout> = Array::with_max_entries(MAX_BINARIES, 0);

/// Stacks that userspace has been sent, by id. One that falls out is sent again.
#[map]
pub static STACKS: LruHashMap<u64, u8> = LruHashMap::with_max_entries(65_536, 0);

/// The goroutine that each thread runs, by tid (T3). A thread that falls out is unknown until it next begins to run one.
#[map]
pub static CURRENT: LruHashMap<u32, CurrentG> = LruHashMap::with_max_entries(65_536, 0);

/// How the arguments of USDT probes are fetched, by the index in their cookies.
#[map]
pub static USDT_SPECS: Array<UsdtSpec> = Array::with_max_entries(MAX_SPECS, 0);

/// Processes that have exited and are not reaped yet: tgid, and start in boot time. Of one that finds no place the reaping is not
/// told: userspace finds it gone.
#[map]
pub static ZOMBIES: HashMap<[u64; 2], u8> = HashMap::with_max_entries(65_536, 0);

/// What each thread was last told to have done, until the second program has seen that (`crate::turn`). By tid.
#[map]
pub static TOLD: HashMap<u32, u64> = HashMap::with_max_entries(4096, 0);

/// How many signals of a process were told of in a second: which second, and the count. By tgid.
#[map]
pub static SIGNAL_BUDGETS: LruHashMap<u32, [u32; 2]> = LruHashMap::with_max_entries(8192, 0);

/// Places to copy pieces of the target's stack to.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(SCRATCHES, 0);

/// Entry 0: where the kernel copies its own stack to.
#[map]
pub static KERNEL_STACK: PerCpuArray<KernelStack> = PerCpuArray::with_max_entries(1, 0);

/// Entry 0: the running kernel's offsets.
#[map]
pub static KERNEL: Array<KernelLayout> = Array::with_max_entries(1, 0);

/// Entry 0: where the records of classic tracepoints keep their fields.
#[map]
pub static CLASSIC: Array<ClassicLayout> = Array::with_max_entries(1, 0);

/// The process of each thread, by tid; 0 for one that has exited and is not reaped. Kept where there is no BTF only.
#[map]
pub static THREAD_GROUPS: HashMap<u32, u32> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// How many threads of each process live. Kept where there is no BTF only.
#[map]
pub static LIVE_THREADS: HashMap<u32, u64> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Entry 0: whose processes are followed without being named.
#[map]
pub static ADOPTION: Array<Adoption> = Array::with_max_entries(1, 0);

/// Goroutines that live, by tgid and goid, where short waits are summed. One that finds no place is told of as always.
#[map]
pub static KEPT: HashMap<[u64; 2], Kept> = HashMap::with_max_entries(1 << 18, 0);

/// Sums of what is not told. What finds no place is told.
#[map]
pub static SUMS: HashMap<SumKey, Sum> = HashMap::with_max_entries(16_384, 0);

/// Entry 0: a sum of nothing, to begin with. It would take half a program's stack.
#[map]
pub static NO_SUM: Array<Sum> = Array::with_max_entries(1, 0);

/// [`tracer_common::counters`], one table a CPU.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counters::LIMIT, 0);

/// [`counters::hits`], one table a CPU.
#[map]
pub static HITS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counters::HITS_LIMIT, 0);

/// Counts a hit of a binary's probes of a tier.
#[inline(always)]
pub fn count_hit(binary: u16, tier: u8) {
    if let Some(slot) = HITS.get_ptr_mut(counters::hits(binary, tier)) {
        // SAFETY: as in `count`.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(slot, 1) };
    }
}

/// Adds one to this CPU's counter.
///
/// Atomic although the counter is this CPU's own: a uprobe program can be preempted, and the next task on this CPU may run
/// the same program before it goes on.
#[inline(always)]
pub fn count(index: u32) {
    if let Some(slot) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: a map value is 8-byte aligned and lives as long as the program runs. (`AtomicU64::fetch_add` is withheld
        // from this target because not every version of it has compare-and-swap.)
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(slot, 1) };
    }
}

/// The same, and returns what it was before.
///
/// Sequentially consistent because LLVM 22 turns a relaxed addition into the form that returns nothing, and then takes the
/// addend for the result.
#[inline(always)]
pub fn count_and_get(index: u32) -> u64 {
    let Some(slot) = COUNTERS.get_ptr_mut(index) else {
        return 0;
    };
    // SAFETY: as above.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(slot, 1) }
}
