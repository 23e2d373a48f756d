//! Finds the instructions to probe.
//!
//! All changes of a goroutine's state go through `runtime.casgstatus(gp, old, new)` (`runtime/proc.go`), with constants for
//! the states of interest. Where the compiler kept the call, the call is the site; where profile-guided inlining copied the
//! function into its caller, the jump behind the copy's compare-and-swap is. Births are taken where `runtime.newproc1` has
//! returned: the newborn is complete there in every version.
//!
//! A few functions try the compare-and-swap themselves and call casgstatus where it fails (system calls from Go 1.26 on,
//! coroutine switches): both are sites, and a change passes exactly one of them. What a change means: [`super::transition`].
//!
//! Not seen: calls injected by debuggers; and Go before 1.21 as far as its prologues differ.

use std::ops::Range;

use iced_x86::{Code as Opcode, Register};

use super::{
    elf::Elf,
    flow::{Code, MAX_FUNCTION, number},
    hook::{Hook, HookSite, MissingHook, Plan},
    offsets::Runtime,
    pclntab::{Function, Pclntab},
    symbol,
    transition::COROUTINE_SWITCH,
};
use crate::recording::contract::Tier;

mod births;
mod swap;
mod transitions;

use swap::ends_path;

const RAX: u8 = 0;
const RCX: usize = 1;
const RBX: usize = 3;
const RSP: u8 = 4;
const RBP: u8 = 5;
const R14: u8 = 14;

/// Code decoded for one plan, in bytes: the runtime's own relevant functions come to less than 100 KB.
const MAX_CODE: usize = 8 << 20;
/// Code searched for calls, in bytes, and the length of the names of its functions: all the code of a large program, should
/// its linker have spread the runtime over it.
const MAX_SEARCHED: usize = 1 << 30;
const MAX_NAMES: usize = 64 << 20;
/// Steps through tables and inlined calls looked at, in search of copies of newproc1: some of each for a hundred thousand functions.
const MAX_LOOKED_AT: u32 = 16 << 20;
/// More than this of anything is no runtime: entries of a function, sites, complaints, goroutines made in one function, and states that
/// are not known where they are swapped.
const MAX_ENTRIES: usize = 8;
const MAX_SITES: usize = 256;
const MAX_MISSING: usize = 64;
const MAX_BIRTHS: usize = 16;
const MAX_UNKNOWN: u32 = 1000;
/// How far behind a compare-and-swap or a call its site may be.
const MAX_DISTANCE: usize = 24;

/// Compare-and-swaps on the status that are no transition of [`Hook`]s (`runtime/proc.go`, `runtime/mgc.go`).
const OTHER_SWAPS: [&str; 5] = [
    "runtime.casgstatus",
    "runtime.casfrom_Gscanstatus",
    "runtime.castogscanstatus",
    "runtime.casGToPreemptScan",
    "runtime.allGsSnapshotSortedForGC",
];
/// Functions that change the state of the current goroutine by a compare-and-swap of their own: R14 is theirs throughout.
const SYSTEM_CALLS: [&str; 3] = ["runtime.reentersyscall", "runtime.entersyscallblock", "runtime.exitsyscall"];
/// The compare-and-swap of a build without inlining (`runtime/internal/atomic` up to Go 1.22).
const SWAP_FUNCTION: &str = "runtime/internal/atomic.(*Uint32).CompareAndSwap";
const SWAP_FUNCTION_123: &str = "internal/runtime/atomic.(*Uint32).CompareAndSwap";
/// Functions probed where they begin, and the registers that must still hold their arguments and g there.
const ENTRIES: [(Hook, &str, u16); 4] = [
    (Hook::Park, GOPARK, 1 << RAX | 1 << RCX | 1 << RBX | 1 << R14),
    (Hook::StopTheWorld, "runtime.stopTheWorldWithSema", 1 << RAX | 1 << R14),
    (Hook::StartTheWorld, "runtime.startTheWorldWithSema", 1 << R14),
    (Hook::GcCycle, "runtime.gcBgMarkStartWorkers", 1 << R14),
];
/// Functions whose calls must not have been folded into others: those that newproc1 was folded into have a birth, those with a copy of
/// gopark a park of their own, and a folded copy of the others would not be seen.
const INLINED: [&str; 5] = ["runtime.newproc1", GOPARK, ENTRIES[1].1, ENTRIES[2].1, ENTRIES[3].1];
/// Starts a test in a goroutine of its own.
const TEST_RUN: &str = "testing.(*T).Run";
/// Runs for every go statement, on the system stack.
const GO_STATEMENT: &str = "runtime.newproc.func1";
const DEBUGGER: &str = "runtime.debugCall";
const GOPARK: &str = "runtime.gopark";
const INLINED_PARK: &str = "in an inlined gopark";

/// What the scan reads.
pub struct Program<'a> {
    pub elf: &'a Elf,
    pub table: Pclntab<'a>,
    pub gofunc: Option<u64>,
    /// Minor version of Go.
    pub minor: u32,
    pub runtime: Option<&'a Runtime>,
}

/// A runtime function, by name.
#[derive(Clone)]
struct Named {
    function: Function,
    name: String,
}

struct Search<'a> {
    program: &'a Program<'a>,
    functions: Vec<Named>,
    /// Entries of `casgstatus` (and of its like for preemption, with the same arguments) and of `newproc1`.
    casgstatus: Vec<u64>,
    newproc1: Vec<u64>,
    plan: Plan,
    decoded: usize,
    unknown: u32,
}

/// The sites of a tier and what is missing from it.
pub fn plan(program: &Program<'_>, tier: Tier) -> Plan {
    if tier == Tier::T0 {
        return Plan::default();
    }
    let functions = runtime_functions(program);
    let entries =
        |name: &str| functions.iter().filter(|f| f.name == name).map(|f| f.function.start).take(MAX_ENTRIES).collect::<Vec<_>>();
    let (mut casgstatus, newproc1) = (entries("runtime.casgstatus"), entries("runtime.newproc1"));
    casgstatus.extend(entries("runtime.casGToPreemptScan"));
    let mut search = Search { program, functions, casgstatus, newproc1, plan: Plan::default(), decoded: 0, unknown: 0 };
    for (hook, function, arguments) in ENTRIES {
        let named = search.functions.iter().filter(|f| f.name == function);
        let named = named.max_by_key(|f| f.function.end - f.function.start).cloned();
        search.entry(hook, function, named.as_ref(), arguments);
    }
    // Only test binaries have it, and in these it is called through.
    let run = |f: &Function| program.table.has_prefix(*f, TEST_RUN) && program.table.name(*f) == TEST_RUN;
    if let Some(function) = program.table.functions().find(run) {
        let named = Named { function, name: TEST_RUN.to_owned() };
        search.entry(Hook::TestRun, TEST_RUN, Some(&named), 1 << RCX | 1 << RBX | 1 << R14);
    }
    search.calls_and_swaps();
    search.finish(tier)
}

/// The runtime's functions, and others between them: linkname gives some of the runtime's own the names of other packages.
fn runtime_functions(program: &Program<'_>) -> Vec<Named> {
    let runtime = |f: &Function| program.table.has_prefix(*f, "runtime.");
    let mut range: Option<Range<u64>> = None;
    for function in program.table.functions().filter(runtime) {
        let (start, end) =
            range.map_or((function.start, function.end), |r| (r.start.min(function.start), r.end.max(function.end)));
        range = Some(start..end);
    }
    let Some(range) = range else { return Vec::new() };
    let functions = program.table.functions().filter(|f| range.contains(&f.start));
    let mut names = 0usize;
    functions
        .map(|function| Named { function, name: program.table.name(function).into_owned() })
        .take_while(|named| {
            names = names.saturating_add(size_of::<Named>() + named.name.len());
            names <= MAX_NAMES
        })
        .collect()
}

impl Search<'_> {
    fn finish(mut self, tier: Tier) -> Plan {
        let plan = &mut self.plan;
        for hook in Hook::all().filter(|hook| hook.is_everywhere()) {
            if plan.count(hook) == 0 && !plan.missing.iter().any(|m| m.hook == hook) {
                plan.missing.push(MissingHook { hook, reason: "no site was found".to_owned() });
            }
        }
        let no_track = Hook::GC.iter().any(|hook| plan.missing.iter().any(|missing| missing.hook == *hook));
        let wanted = |hook: Hook| hook.tier() <= tier;
        plan.sites.retain(|site| wanted(site.hook) && !(no_track && site.hook.is_of_gc()));
        plan.missing.retain(|missing| wanted(missing.hook));
        plan.sites.sort_by_key(|site| (site.address, site.hook));
        plan.sites.dedup_by_key(|site| (site.address, site.hook));
        plan.missing.dedup();
        self.plan
    }

    /// The first cheap instruction of a function past the stack check, with its arguments still in their registers.
    fn entry(&mut self, hook: Hook, function: &str, named: Option<&Named>, arguments: u16) {
        if hook == Hook::StopTheWorld && self.program.minor < 21 {
            return self.miss(hook, "Go before 1.21 does not say why it stops the world");
        }
        let Some(named) = named else {
            return self.miss(hook, &format!("the binary has no {function}"));
        };
        let Some(code) = self.decode(named) else { return self.miss(hook, &format!("{function} cannot be read")) };
        let check = code.instructions.iter().take(8).position(|i| i.code().is_jcc_short_or_near());
        let first = check.map_or(0, |index| index + 1);
        // Since Go 1.21 this is `push rbp`, the first instruction of all; before, a frame is made without one.
        let (mut framed, mut moved) = (false, false);
        for index in 0..code.instructions.len().min(MAX_DISTANCE) {
            // Between the move of the stack pointer and the new frame pointer, the caller is at neither.
            if index >= first && code.is_emulated(index) && moved == framed {
                self.add(hook, named, &code, index, R14, None, "");
                return self.plan.sites.iter_mut().filter(|site| site.hook == hook).for_each(|site| site.framed = framed);
            }
            let written = code.effects.get(index).map_or(0, |effect| effect.written());
            framed |= written & 1 << RBP != 0;
            moved |= written & 1 << RSP != 0;
            if written & arguments != 0 || (index >= first && ends_path(&code, index)) {
                break;
            }
        }
        self.miss(hook, &format!("{function} has no instruction that is cheap to probe and still has its arguments"));
    }

    fn calls_and_swaps(&mut self) {
        if self.casgstatus.is_empty() {
            self.miss(Hook::Exit, "the binary has no runtime.casgstatus");
            self.miss(Hook::Wake, "the binary has no runtime.casgstatus");
        }
        // Functions do not overlap, so that together they are no larger than the file.
        let (mut searched, most) = (0usize, self.program.elf.len().min(MAX_SEARCHED));
        let mut left = MAX_LOOKED_AT;
        for named in std::mem::take(&mut self.functions) {
            if named.name.starts_with(DEBUGGER) {
                continue;
            }
            let Some(bytes) = self.bytes(&named) else { continue };
            searched = searched.saturating_add(bytes.len());
            if searched > most {
                self.miss(Hook::Exit, "there is more code than is searched");
                self.miss(Hook::Wake, "there is more code than is searched");
                break;
            }
            let [newborn, parks, gc @ ..] = self.inlined(&named, &mut left);
            let calls = self.calls_any(&named, bytes);
            let swaps = bytes.windows(2).any(|pair| pair == [0x0f, 0xb1]) && !OTHER_SWAPS.contains(&named.name.as_str());
            for (hook, _) in Hook::GC.into_iter().zip(gc).filter(|(_, inlined)| *inlined) {
                self.miss(hook, &format!("its function is inlined into {}", named.name));
            }
            if parks && named.name != GOPARK {
                self.inlined_park(&named);
            }
            if !(calls || swaps || newborn) {
                continue;
            }
            let Some(code) = self.decode(&named) else {
                let reason = format!("{} is too large to be analysed", named.name);
                self.miss(Hook::Exit, &reason);
                self.miss(Hook::Wake, &reason);
                continue;
            };
            self.transitions(&named, &code, newborn);
        }
        let goes = self.plan.sites.iter().any(|s| s.hook == Hook::Birth && s.function == GO_STATEMENT);
        if !goes {
            self.miss(Hook::Birth, "no site in runtime.newproc.func1, where go statements lead");
        }
        if self.plan.count(Hook::ParkAbort) == 0 {
            self.miss(Hook::ParkAbort, "no transition from waiting to runnable was found in runtime.park_m");
        }
    }

    /// Which of [`INLINED`] were inlined into a function.
    fn inlined(&self, named: &Named, left: &mut u32) -> [bool; INLINED.len()] {
        let Program { elf, table, gofunc, .. } = *self.program;
        symbol::inlines(elf, table, gofunc, named.function, INLINED, left)
    }

    /// Copies of gopark that profile-guided inlining put into this function: each ends with `mcall(park_m)`.
    fn inlined_park(&mut self, named: &Named) {
        let Some(code) = self.decode(named) else {
            return self.miss(Hook::Park, &format!("{}, which holds a copy of gopark, is too large to be analysed", named.name));
        };
        let program = self.program;
        let is_mcall = |target| program.table.lookup(target).is_some_and(|f| program.table.is_named(f, "runtime.mcall"));
        let before = self.plan.count(Hook::Park);
        for index in 0..code.instructions.len() {
            let Some(call) = code.instructions.get(index).filter(|_| code.call_target(index).is_some_and(is_mcall)) else {
                continue;
            };
            let frames = symbol::frames(program.elf, program.table, program.gofunc, call.ip());
            if frames.iter().any(|frame| frame.function == GOPARK) {
                self.add(Hook::Park, named, &code, index, R14, None, INLINED_PARK);
            }
        }
        if self.plan.count(Hook::Park) == before {
            self.miss(Hook::Park, &format!("{} holds a copy of gopark in which no call of mcall was found", named.name));
        }
    }

    /// `lock cmpxchg [base+atomicstatus], r32`: base and new-value register.
    fn status_swap(&self, code: &Code, index: usize) -> Option<(u8, u8)> {
        let instruction = code.instructions.get(index)?;
        let status = u64::from(self.program.runtime?.offsets.g_atomicstatus);
        let plain = instruction.has_lock_prefix() && instruction.memory_index() == Register::None;
        (instruction.code() == Opcode::Cmpxchg_rm32_r32 && plain && instruction.memory_displacement64() == status)
            .then(|| Some((number(instruction.memory_base())?, number(instruction.op1_register())?)))?
    }

    fn is_swap_function(&self, target: u64) -> bool {
        let function = self.program.table.lookup(target);
        function
            .is_some_and(|f| self.program.table.is_named(f, SWAP_FUNCTION_123) || self.program.table.is_named(f, SWAP_FUNCTION))
    }

    fn is_casgstatus_copy(&self, address: u64) -> bool {
        let frames = symbol::frames(self.program.elf, self.program.table, self.program.gofunc, address);
        frames.iter().any(|frame| frame.function == "runtime.casgstatus")
    }

    /// Whether the raw bytes hold a relative call of one of the functions looked for. Cheaper than decoding by far.
    fn calls_any(&self, named: &Named, bytes: &[u8]) -> bool {
        bytes.windows(5).enumerate().filter(|(_, window)| window[0] == 0xe8).any(|(at, window)| {
            let displacement = i32::from_le_bytes([window[1], window[2], window[3], window[4]]);
            let next = named.function.start.wrapping_add(at as u64 + 5);
            let target = next.wrapping_add_signed(displacement.into());
            self.casgstatus.contains(&target) || self.newproc1.contains(&target)
        })
    }

    fn bytes(&self, named: &Named) -> Option<&'_ [u8]> {
        let len = usize::try_from(named.function.end.checked_sub(named.function.start)?).ok()?;
        self.program.elf.read(named.function.start, len)
    }

    fn decode(&mut self, named: &Named) -> Option<Code> {
        let bytes = self.bytes(named).filter(|bytes| bytes.len() <= MAX_FUNCTION)?;
        let decoded = self.decoded.checked_add(bytes.len()).filter(|&total| total <= MAX_CODE)?;
        let code = Code::decode(named.function.start, bytes);
        self.decoded = decoded;
        Some(code)
    }

    #[expect(clippy::too_many_arguments, reason = "one call per kind of site; a builder would say the same in more words")]
    fn add(&mut self, hook: Hook, named: &Named, code: &Code, index: usize, register: u8, needs_zf: Option<bool>, note: &str) {
        if self.plan.sites.len() >= MAX_SITES {
            return self.miss(hook, "it has more sites than are believed");
        }
        let Some(address) = code.instructions.get(index).map(iced_x86::Instruction::ip) else { return };
        let Some(file_offset) = self.program.elf.file_offset(address) else { return };
        let callee = code.call_target(index).and_then(|target| self.program.table.lookup(target));
        let instruction = callee.map_or_else(|| code.text(index), |f| format!("call {}", self.program.table.name(f)));
        self.plan.sites.push(HookSite {
            hook,
            function: named.name.clone(),
            address,
            file_offset,
            instruction,
            emulated: code.is_emulated(index),
            register,
            needs_zf,
            framed: false,
            stored: note == INLINED_PARK,
            note: note.to_owned(),
        });
    }

    fn miss(&mut self, hook: Hook, reason: &str) {
        let missing = &self.plan.missing;
        if missing.len() < MAX_MISSING && !missing.iter().any(|m| m.hook == hook && m.reason == reason) {
            self.plan.missing.push(MissingHook { hook, reason: reason.to_owned() });
        }
    }
}

/// Functions that end the program or unwind (`runtime/panic.go`).
fn never_returns(name: &[u8]) -> bool {
    let panics = ["runtime.panic", "runtime.goPanic", "runtime.gopanic", "runtime.fatal"];
    name == b"runtime.throw" || panics.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Functions that change states by a compare-and-swap of their own.
fn swaps_states(name: &str) -> bool {
    name == COROUTINE_SWITCH || SYSTEM_CALLS.contains(&name)
}

/// In which form a transition was met.
enum Found {
    /// A call of casgstatus: the goroutine is in RAX.
    Call,
    Swap {
        base: u8,
    },
    /// A call of a compare-and-swap that was not inlined.
    SwapCall,
}
