//! Finds the instructions to probe.
//!
//! All changes of a goroutine's state go through `runtime.casgstatus(gp, old, new)` (`runtime/proc.go`), with constants for
//! the states of interest. Where the compiler kept the call, the call is the site; where profile-guided inlining copied the
//! function into its caller, the jump behind the copy's compare-and-swap is. Births are taken where `runtime.newproc1` has
//! returned: the newborn is complete there in every version.
//!
//! Not seen: coroutine switches (`coroswitch_m`), which hand a thread from one goroutine to the other without a park; calls
//! injected by debuggers; and Go before 1.21 as far as its prologues differ.

use std::ops::Range;

use iced_x86::{Code as Opcode, FlowControl, Mnemonic, Register};

use super::{
    elf::Elf,
    flow::{Code, MAX_FUNCTION, Value, number},
    hook::{Hook, HookSite, MissingHook, Plan},
    offsets::Runtime,
    pclntab::{Function, Pclntab},
    symbol,
};
use crate::recording::contract::Tier;

/// Goroutine states (`runtime/runtime2.go`).
const RUNNABLE: u32 = 1;
const RUNNING: u32 = 2;
const WAITING: u32 = 4;
const DEAD: u32 = 6;

const RAX: u8 = 0;
const RCX: usize = 1;
const RBX: usize = 3;
const R14: u8 = 14;

/// Code decoded for one plan, in bytes: the runtime's own relevant functions come to less than 100 KB.
const MAX_CODE: usize = 8 << 20;
/// Code searched for calls, in bytes, and the length of the names of its functions: all the code of a large program, should
/// its linker have spread the runtime over it.
const MAX_SEARCHED: usize = 1 << 30;
const MAX_NAMES: usize = 32 << 20;
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
/// Makes a goroutine runnable only to run it at once, in the same breath as the one that switched to it.
const COROUTINE_SWITCH: &str = "runtime.coroswitch_m";
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
    /// Entries of `casgstatus` and of `newproc1`.
    casgstatus: Vec<u64>,
    newproc1: Vec<u64>,
    plan: Plan,
    decoded: usize,
}

/// The sites of a tier and what is missing from it.
pub fn plan(program: &Program<'_>, tier: Tier) -> Plan {
    if tier == Tier::T0 {
        return Plan::default();
    }
    let functions = runtime_functions(program);
    let entries = |name: &str| functions.iter().filter(|f| f.name == name).map(|f| f.function.start).collect();
    let (casgstatus, newproc1) = (entries("runtime.casgstatus"), entries("runtime.newproc1"));
    let mut search = Search { program, functions, casgstatus, newproc1, plan: Plan::default(), decoded: 0 };
    search.park();
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
            names = names.saturating_add(named.name.len());
            names <= MAX_NAMES
        })
        .collect()
}

impl Search<'_> {
    fn finish(mut self, tier: Tier) -> Plan {
        let plan = &mut self.plan;
        for hook in Hook::ALL {
            if plan.count(hook) == 0 && !plan.missing.iter().any(|m| m.hook == hook) {
                plan.missing.push(MissingHook { hook, reason: "no site was found".to_owned() });
            }
        }
        let wanted = |hook: Hook| hook.tier() <= tier;
        plan.sites.retain(|site| wanted(site.hook));
        plan.missing.retain(|missing| wanted(missing.hook));
        plan.sites.sort_by_key(|site| (site.address, site.hook));
        plan.sites.dedup_by_key(|site| (site.address, site.hook));
        plan.missing.dedup();
        self.plan
    }

    /// The first cheap instruction of gopark past the stack check, with its arguments still in their registers.
    fn park(&mut self) {
        let named = self.functions.iter().filter(|f| f.name == GOPARK);
        let Some(named) = named.max_by_key(|f| f.function.end - f.function.start).cloned() else {
            return self.miss(Hook::Park, "the binary has no runtime.gopark");
        };
        let Some(code) = self.decode(&named) else { return self.miss(Hook::Park, "runtime.gopark cannot be read") };
        let check = code.instructions.iter().take(8).position(|i| i.code().is_jcc_short_or_near());
        let first = check.map_or(0, |index| index + 1);
        let arguments: u16 = 1 << RAX | 1 << RCX | 1 << RBX | 1 << R14;
        for index in 0..code.instructions.len().min(MAX_DISTANCE) {
            if index >= first && code.is_emulated(index) {
                return self.add(Hook::Park, &named, &code, index, R14, None, "");
            }
            let overwritten = code.effects.get(index).is_some_and(|effect| effect.written() & arguments != 0);
            if overwritten || (index >= first && ends_path(&code, index)) {
                break;
            }
        }
        self.miss(Hook::Park, "runtime.gopark has no instruction that is cheap to probe and still has its arguments");
    }

    fn calls_and_swaps(&mut self) {
        if self.casgstatus.is_empty() {
            self.miss(Hook::Exit, "the binary has no runtime.casgstatus");
            self.miss(Hook::Wake, "the binary has no runtime.casgstatus");
        }
        let mut searched = 0usize;
        for named in std::mem::take(&mut self.functions) {
            if named.name.starts_with(DEBUGGER) {
                continue;
            }
            let Some(bytes) = self.bytes(&named) else { continue };
            searched = searched.saturating_add(bytes.len());
            if searched > MAX_SEARCHED {
                self.miss(Hook::Exit, "there is more code than is searched");
                self.miss(Hook::Wake, "there is more code than is searched");
                break;
            }
            let program = self.program;
            let inlines = |name| symbol::inlines(program.elf, program.table, program.gofunc, named.function, name);
            let newborn = inlines("runtime.newproc1");
            let calls = self.calls_any(&named, bytes);
            let swaps = bytes.windows(2).any(|pair| pair == [0x0f, 0xb1]) && !OTHER_SWAPS.contains(&named.name.as_str());
            if named.name != GOPARK && inlines(GOPARK) {
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

    fn transitions(&mut self, named: &Named, code: &Code, newborn: bool) {
        let returns = |target| self.program.table.lookup(target).is_none_or(|f| !never_returns(&self.program.table.name(f)));
        let constants = code.constants(returns);
        let constant = |index: usize, register: usize| match constants.get(index).and_then(|r| r.get(register)) {
            Some(Value::Constant(value)) => Some(*value),
            _ => None,
        };
        let before = self.plan.count(Hook::Birth);
        let mut late_birth = None;
        for index in 0..code.instructions.len() {
            if let Some(target) = code.call_target(index) {
                if self.newproc1.contains(&target) {
                    self.birth(named, code, index);
                } else if self.casgstatus.contains(&target) {
                    let (old, new) = (constant(index, RBX), constant(index, RCX));
                    self.transition(named, code, index, old, new, &Found::Call);
                    if old == Some(DEAD) {
                        late_birth = Some((index, RAX, None));
                    }
                }
            } else if let Some((base, new_register)) = self.status_swap(code, index)
                && !OTHER_SWAPS.contains(&named.name.as_str())
            {
                let (old, new) = (constant(index, usize::from(RAX)), constant(index, usize::from(new_register)));
                self.transition(named, code, index, old, new, &Found::Swap { base });
                if old == Some(DEAD) {
                    late_birth = after_swap(code, index, base).map(|(at, zf)| (at, base, Some(zf)));
                }
            }
        }
        if newborn && self.plan.count(Hook::Birth) == before {
            self.inlined_birth(named, code, late_birth);
        }
    }

    /// A call of casgstatus, or a copy of it, with what is known of its states.
    fn transition(&mut self, named: &Named, code: &Code, index: usize, old: Option<u32>, new: Option<u32>, found: &Found) {
        let may_be = |from, to| old.is_none_or(|old| old == from) && new.is_none_or(|new| new == to);
        let hook = if may_be(WAITING, RUNNABLE) && named.name == "runtime.park_m" {
            Hook::ParkAbort
        } else if may_be(WAITING, RUNNABLE) && named.name != COROUTINE_SWITCH {
            Hook::Wake
        } else if may_be(RUNNING, DEAD) {
            Hook::Exit
        } else {
            return;
        };
        if old.is_none() || new.is_none() {
            // A swap that is no copy of casgstatus has its own states, none of them ours (`runtime/proc.go`, `coro.go`).
            let address = code.instructions.get(index).map_or(0, iced_x86::Instruction::ip);
            if matches!(found, Found::Call) || self.is_casgstatus_copy(address) {
                self.miss(hook, &format!("{} changes a state at {address:#x} that is not a constant", named.name));
            }
            return;
        }
        match found {
            Found::Call => self.add(hook, named, code, index, RAX, None, ""),
            Found::Swap { base } => match after_swap(code, index, *base) {
                Some((at, zf)) => self.add(hook, named, code, at, *base, Some(zf), "behind an inlined casgstatus"),
                None => self.miss(hook, &format!("the inlined casgstatus in {} has no cheap instruction behind it", named.name)),
            },
        }
    }

    /// From the call of newproc1 on, the first cheap instruction where a register still holds its result.
    fn birth(&mut self, named: &Named, code: &Code, call: usize) {
        let leaders = code.leaders();
        let mut holds: u16 = 1 << RAX;
        for index in call + 1..code.instructions.len().min(call + MAX_DISTANCE) {
            if leaders.get(index) == Some(&true) || holds == 0 {
                break;
            }
            if code.is_emulated(index) {
                let register = holds.trailing_zeros() as u8;
                return self.add(Hook::Birth, named, code, index, register, None, "");
            }
            if ends_path(code, index) {
                break;
            }
            if let Some(&effect) = code.effects.get(index) {
                let copied = matches!(effect, super::flow::Effect::Copy { from, wide: true, .. } if holds & 1 << from != 0);
                holds = if copied { holds | effect.written() } else { holds & !effect.written() };
            }
        }
        // An unoptimised build takes the result through the stack to the call that queues it.
        match self.queues_newborn(named, code) {
            Some(index) => self.add(Hook::Birth, named, code, index, RBX as u8, None, "second argument of runqput"),
            None => {
                let reason = format!("{} loses the new goroutine before an instruction that is cheap to probe", named.name);
                self.miss(Hook::Birth, &reason);
            }
        }
    }

    /// The call `runqput(pp, newg, true)` of newproc.func1, the same in every version (`runtime/proc.go`).
    fn queues_newborn(&self, named: &Named, code: &Code) -> Option<usize> {
        let is_put = |index: &usize| {
            let function = code.call_target(*index).and_then(|target| self.program.table.lookup(target));
            function.is_some_and(|f| self.program.table.name(f) == "runtime.runqput")
        };
        (named.name == GO_STATEMENT).then(|| (0..code.instructions.len()).find(is_put))?
    }

    /// Birth in a function that newproc1 was inlined into: `runqput(pp, newg, …)` in newproc.func1, else the newborn's first
    /// change of state, which follows the setting of goid from Go 1.24 on.
    fn inlined_birth(&mut self, named: &Named, code: &Code, late: Option<(usize, u8, Option<bool>)>) {
        if named.name == "runtime.newproc1" {
            return;
        }
        match (self.queues_newborn(named, code), late) {
            (Some(index), _) => self.add(Hook::Birth, named, code, index, RBX as u8, None, "newproc1 is inlined"),
            (None, Some((index, register, zf))) if self.program.minor >= 24 => {
                self.add(Hook::Birth, named, code, index, register, zf, "newproc1 is inlined");
            }
            _ => self
                .miss(Hook::Birth, &format!("newproc1 is inlined into {}, and no complete newborn is at hand there", named.name)),
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
            stored: note == INLINED_PARK,
            note: note.to_owned(),
        });
    }

    fn miss(&mut self, hook: Hook, reason: &str) {
        if !self.plan.missing.iter().any(|m| m.hook == hook && m.reason == reason) {
            self.plan.missing.push(MissingHook { hook, reason: reason.to_owned() });
        }
    }
}

/// Functions that end the program or unwind (`runtime/panic.go`).
fn never_returns(name: &str) -> bool {
    let panics = ["runtime.panic", "runtime.goPanic", "runtime.gopanic", "runtime.fatal"];
    name == "runtime.throw" || panics.iter().any(|prefix| name.starts_with(prefix))
}

/// In which form a transition was met.
enum Found {
    Call,
    Swap { base: u8 },
}

/// The first cheap instruction behind a compare-and-swap at which ZF still tells success and `base` still holds the
/// goroutine, with the value of ZF that means success.
fn after_swap(code: &Code, swap: usize, base: u8) -> Option<(usize, bool)> {
    // cmpxchg sets ZF on success; `sete r; test r, r` turns it over.
    let (mut success, mut flag) = (Some(true), None);
    for index in swap + 1..code.instructions.len().min(swap + MAX_DISTANCE) {
        let instruction = code.instructions.get(index)?;
        if let Some(success) = success
            && code.is_emulated(index)
            && !matches!(instruction.flow_control(), FlowControl::Call)
        {
            return Some((index, success));
        }
        let written = code.effects.get(index)?.written();
        if written & 1 << base != 0 || ends_path(code, index) {
            return None;
        }
        let operand = number(instruction.op0_register());
        match instruction.mnemonic() {
            Mnemonic::Sete if success == Some(true) => flag = operand,
            Mnemonic::Test if flag.is_some() && operand == flag && number(instruction.op1_register()) == flag => {
                success = Some(false);
            }
            _ if instruction.rflags_modified() != 0 => success = None,
            _ if flag.is_some_and(|flag| written & 1 << flag != 0) => flag = None,
            _ => {}
        }
    }
    None
}

/// Whether control does not simply go on behind this instruction.
fn ends_path(code: &Code, index: usize) -> bool {
    code.instructions.get(index).is_none_or(|i| i.flow_control() != FlowControl::Next)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check where the site behind a compare-and-swap is, how success looks there, and when there is none. The goroutine is in
    /// rbx.
    #[test]
    fn behind_a_swap() {
        const SWAP: [u8; 8] = [0xf0, 0x0f, 0xb1, 0x8b, 0x90, 0, 0, 0]; // lock cmpxchg [rbx+0x90], ecx
        for (what, behind, expected) in [
            ("je", &[0x74, 0][..], Some((1, true))),
            ("sete al; test al,al; jne", &[0x0f, 0x94, 0xc0, 0x84, 0xc0, 0x75, 0], Some((3, false))),
            ("sete al; mov edx,ecx; test al,al; je", &[0x0f, 0x94, 0xc0, 0x89, 0xca, 0x84, 0xc0, 0x74, 0], Some((4, false))),
            ("sete bl takes the goroutine away", &[0x0f, 0x94, 0xc3, 0x84, 0xdb, 0x75, 0], None),
            ("inc edx takes the flag away", &[0xff, 0xc2, 0x74, 0], None),
            ("test of another register", &[0x0f, 0x94, 0xc0, 0x84, 0xc9, 0x75, 0], None),
            ("ret", &[0xc3, 0x74, 0], None),
            ("nothing", &[], None),
        ] {
            let code = Code::decode(0x1000, &[&SWAP[..], behind].concat());
            assert_eq!(after_swap(&code, 0, RBX as u8), expected, "{what}");
        }
    }

    /// Check which functions are known not to return.
    #[test]
    fn functions_without_return() {
        for (name, expected) in [
            ("runtime.throw", true),
            ("runtime.panicIndex", true),
            ("runtime.goPanicSlice3C", true),
            ("runtime.fatalpanic", true),
            ("runtime.throwable", false),
            ("runtime.ready", false),
        ] {
            assert_eq!(never_returns(name), expected, "{name}");
        }
    }
}
