//! Addresses into frames, by the code tables of the recording.
//!
//! A runtime address becomes a link-time one by its image's load bias, and that is looked up among what the tracer
//! resolved. What it did not resolve stays an address: the frame's function is `?` and its file the address in hex.

use std::cell::RefCell;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    clock::KtimeNs,
    correlate::{
        goroutine::Origin,
        process::{Image, ImageId, Processes},
        replay::{Replayed, Stack},
        replaying::Replaying,
    },
    event::{CodeOf, Top},
    id::{Address, BinaryId, StackId, Tgid},
    recording::contract::{Code, CodeUse, Frame, IN_KERNEL, NativeCode},
};

/// The function of a frame whose address has no name.
pub const UNKNOWN: &str = "?";

/// A distinct frame, by order of appearance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub u32);

/// By whose address it is and what it stands for: its frame, as of which time.
type NativeNames<'a> = FxHashMap<(Option<Tgid>, CodeUse, Address), Vec<(KtimeNs, &'a Frame)>>;

/// Resolves addresses of one recording, and remembers each.
pub struct Symbolizer<'a> {
    processes: &'a Processes,
    stacks: &'a FxHashMap<StackId, Stack>,
    code: FxHashMap<(BinaryId, CodeUse, Address), &'a [Frame]>,
    /// Where functions have no frame.
    frameless: FxHashSet<(BinaryId, Address)>,
    /// Names of code that is not of a probed binary; `None`: the kernel's. In the order in which they were looked up.
    native: NativeNames<'a>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    frames: Vec<Frame>,
    ids: FxHashMap<Frame, FrameId>,
    resolved: FxHashMap<(ImageId, CodeOf, CodeUse, Address), Box<[FrameId]>>,
}

impl<'a> Symbolizer<'a> {
    pub fn new(replayed: &'a Replayed) -> Self {
        Self::of(replayed.engine.processes(), &replayed.stacks, &replayed.code, &replayed.native)
    }

    /// As far as its tables have come.
    pub fn so_far(replaying: &'a Replaying) -> Self {
        let (stacks, code, native) = replaying.stacks_and_names();
        Self::of(replaying.engine().processes(), stacks, code, native)
    }

    fn of(processes: &'a Processes, stacks: &'a FxHashMap<StackId, Stack>, code: &'a [Code], native: &'a [NativeCode]) -> Self {
        let mut symbols = Self::from_tables(processes, stacks, code);
        symbols.learn(native);
        symbols
    }

    fn learn(&mut self, tables: &'a [NativeCode]) {
        for table in tables {
            for entry in &table.entries {
                self.native.entry((table.tgid, entry.use_as, entry.address)).or_default().push((table.at, &entry.frame));
            }
        }
    }

    fn from_tables(processes: &'a Processes, stacks: &'a FxHashMap<StackId, Stack>, tables: &'a [Code]) -> Self {
        let (mut code, mut frameless) = (FxHashMap::default(), FxHashSet::default());
        for table in tables {
            for entry in table.entries.iter().filter(|entry| !entry.frames.is_empty()) {
                code.insert((table.binary, entry.use_as, entry.address), &entry.frames[..]);
                if entry.frameless {
                    frameless.insert((table.binary, entry.address));
                }
            }
        }
        Self { processes, stacks, code, frameless, native: NativeNames::default(), state: RefCell::default() }
    }

    /// A frame by its id.
    pub fn frame(&self, id: FrameId) -> Frame {
        self.state.borrow().frames[id.0 as usize].clone()
    }

    /// Appends the frames of one address, innermost first.
    fn push(&self, image: ImageId, of: CodeOf, use_as: CodeUse, pc: Address, out: &mut Vec<FrameId>) {
        let mut state = self.state.borrow_mut();
        let key = (image, of, use_as, pc);
        if !state.resolved.contains_key(&key) {
            let ids = match of {
                CodeOf::Binary => self.lookup(self.processes.image(image), use_as, pc).unwrap_or_default(),
                CodeOf::Process | CodeOf::Kernel => {
                    self.lookup_native(image, of, use_as, pc).map_or(&[][..], std::slice::from_ref)
                }
            };
            let ids = match ids {
                [] => [state.intern(&unknown(of, pc))].into(),
                frames => frames.iter().map(|frame| state.intern(frame)).collect(),
            };
            state.resolved.insert(key, ids);
        }
        out.extend_from_slice(&state.resolved[&key]);
    }

    fn lookup(&self, image: &Image, use_as: CodeUse, pc: Address) -> Option<&'a [Frame]> {
        let (binary, link) = image.link_address(pc)?;
        self.code.get(&(binary, use_as, link)).copied()
    }

    /// What an address stood for while a process ran an image; what is mapped may change later.
    fn lookup_native(&self, image: ImageId, of: CodeOf, use_as: CodeUse, pc: Address) -> Option<&'a Frame> {
        let image = self.processes.image(image);
        let tgid = (of == CodeOf::Process).then(|| self.processes.process(image.process).tgid);
        let known = self.native.get(&(tgid, use_as, pc))?;
        let fitting = known.iter().find(|(at, _)| *at >= image.since);
        fitting.or(known.last()).map(|(_, frame)| *frame)
    }

    /// The frames of one address, innermost first; never empty.
    pub fn frames(&self, image: ImageId, use_as: CodeUse, pc: Address) -> Vec<Frame> {
        let mut ids = Vec::new();
        self.push(image, CodeOf::Binary, use_as, pc, &mut ids);
        ids.into_iter().map(|id| self.frame(id)).collect()
    }

    /// The `go` statement at a return address: the innermost frame of the call.
    pub fn go_statement(&self, image: ImageId, gopc: Address) -> Frame {
        self.frames(image, CodeUse::Return, gopc).swap_remove(0)
    }

    /// The function that begins at an address.
    pub fn entry(&self, image: ImageId, pc: Address) -> Frame {
        self.frames(image, CodeUse::Entry, pc).pop().expect("never empty")
    }

    /// A whole stack, innermost first, and whether its root is cut off. `None` if the stack itself was lost.
    pub fn stack(&self, image: ImageId, id: StackId) -> Option<(Vec<FrameId>, bool)> {
        let stack = self.stacks.get(&id)?;
        if stack.of == CodeOf::Kernel {
            return Some((self.kernel_stack(image, &stack.pcs), stack.truncated));
        }
        let (first, callers) = match (stack.top, &*stack.pcs) {
            (Top::Instruction, [first, callers @ ..]) => (Some(*first), callers),
            (Top::InstructionAndWord, [first, _, callers @ ..]) if !self.has_word(image, stack.of, &stack.pcs) => {
                (Some(*first), callers)
            }
            (Top::InstructionAndWord, [first, callers @ ..]) => (Some(*first), callers),
            (_, callers) => (None, callers),
        };
        let mut frames = Vec::with_capacity(stack.pcs.len());
        if let Some(first) = first {
            self.push(image, stack.of, CodeUse::Entry, first, &mut frames);
        }
        frames.extend(self.walk(image, stack.of, callers));
        Some((frames, stack.truncated))
    }

    /// Whether the word on top of a stack is a return address: where the function has no frame, or of a process whose functions nobody
    /// knows, where that was found to lie behind a call.
    fn has_word(&self, image: ImageId, of: CodeOf, pcs: &[Address]) -> bool {
        match (of, pcs) {
            (CodeOf::Process, [_, word, ..]) => self.lookup_native(image, of, CodeUse::Return, *word).is_some(),
            (_, [first, ..]) => self.is_frameless(image, *first),
            _ => false,
        }
    }

    /// The kernel's frames, without those of the scheduler and of what looked at it.
    fn kernel_stack(&self, image: ImageId, pcs: &[Address]) -> Vec<FrameId> {
        let mut frames = Vec::with_capacity(pcs.len());
        pcs.iter().for_each(|pc| self.push(image, CodeOf::Kernel, CodeUse::Return, *pc, &mut frames));
        // Without names they are all the same.
        frames.dedup();
        let state = self.state.borrow();
        let is_ours = |id: &FrameId| {
            let function = state.frames[id.0 as usize].function.as_str();
            const OURS: [&str; 9] =
                ["bpf_", "__bpf_", "__traceiter_", "trace_", "kprobe", "ftrace_", "__kprobe", "arch_ftrace", "opt"];
            OURS.iter().any(|prefix| function.starts_with(prefix))
                || matches!(function, "__schedule" | "schedule" | "preempt_schedule_common" | "__cond_resched")
        };
        let ours = frames.iter().take_while(|id| is_ours(id)).count();
        let ours = if ours == frames.len() { 0 } else { ours };
        drop(frames.drain(..ours));
        drop(state);
        frames
    }

    fn is_frameless(&self, image: ImageId, pc: Address) -> bool {
        self.processes.image(image).link_address(pc).is_some_and(|place| self.frameless.contains(&place))
    }

    /// The stack that executed a `go` statement, innermost first, without what the runtime did to carry it out.
    pub fn creation(&self, image: ImageId, origin: &Origin) -> (Vec<FrameId>, bool) {
        let stack = origin.stack.and_then(|id| self.stacks.get(&id));
        let pcs = stack.map_or(&[][..], |stack| &stack.pcs);
        let truncated = stack.is_some_and(|stack| stack.truncated);
        if let Some(at) = pcs.iter().position(|pc| *pc == origin.gopc) {
            let mut frames = self.walk(image, CodeOf::Binary, &pcs[at..]);
            self.cut_scheduler(&mut frames);
            return (frames, truncated);
        }
        // The walk began outside of the `go` statement's own frame, or inside of the runtime.
        let mut frames = Vec::new();
        self.push(image, CodeOf::Binary, CodeUse::Return, origin.gopc, &mut frames);
        let outer = self.walk(image, CodeOf::Binary, pcs);
        let inside = outer.iter().take_while(|id| self.is_newproc(**id)).count();
        frames.extend_from_slice(&outer[inside..]);
        (frames, truncated)
    }

    fn walk(&self, image: ImageId, of: CodeOf, pcs: &[Address]) -> Vec<FrameId> {
        let mut frames = Vec::with_capacity(pcs.len());
        for pc in pcs {
            self.push(image, of, CodeUse::Return, *pc, &mut frames);
        }
        // Every stack ends there; it tells nothing.
        if frames.last().is_some_and(|id| self.state.borrow().frames[id.0 as usize].function == "runtime.goexit") {
            frames.pop();
        }
        frames
    }

    /// A timer makes goroutines while the scheduler looks for work: how it came to look is no part of their creation.
    fn cut_scheduler(&self, frames: &mut Vec<FrameId>) {
        let state = self.state.borrow();
        let function = |id: &FrameId| state.frames[id.0 as usize].function.as_str();
        if frames.last().is_some_and(|id| matches!(function(id), "runtime.mcall" | "runtime.mstart" | "runtime.mstart1")) {
            let own = frames.iter().rposition(|id| !function(id).starts_with("runtime."));
            frames.truncate(own.map_or(1, |last| last + 1));
        }
    }

    fn is_newproc(&self, id: FrameId) -> bool {
        let function = &self.state.borrow().frames[id.0 as usize].function;
        function.starts_with("runtime.newproc") || function.starts_with("runtime.systemstack")
    }
}

impl State {
    fn intern(&mut self, frame: &Frame) -> FrameId {
        if let Some(id) = self.ids.get(frame) {
            return *id;
        }
        let id = FrameId(self.frames.len() as u32);
        self.frames.push(frame.clone());
        self.ids.insert(frame.clone(), id);
        id
    }
}

fn unknown(of: CodeOf, pc: Address) -> Frame {
    if of == CodeOf::Kernel {
        return Frame { function: IN_KERNEL.into(), file: IN_KERNEL.into(), line: 0 };
    }
    Frame { function: UNKNOWN.into(), file: format!("{:#x}", pc.0), line: 0 }
}

/// What people read in place of a frame's function: its name, or the address of one without.
pub fn label(frame: &Frame) -> String {
    if frame.function == UNKNOWN { format!("{UNKNOWN} {}", frame.file) } else { frame.function.clone() }
}

/// Whether Go itself counts a goroutine with this start function among its own (`isSystemGoroutine`, `traceback.go`).
///
/// The finalizer's and the cleanups' goroutines are among them, although Go shows them while they run the program's code:
/// that cannot be told from here.
pub fn is_system(start_function: &str) -> bool {
    start_function.starts_with("runtime.")
        && !matches!(start_function, "runtime.main" | "runtime.corostart" | "runtime.handleAsyncEvent")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::contract::CodeEntry;

    fn frame(function: &str, line: u32) -> Frame {
        Frame { function: function.into(), file: "/src/main.go".into(), line }
    }

    /// One image at bias 0x1000 whose code knows three return addresses and an entry.
    fn tables() -> (Processes, Vec<Code>) {
        let mut processes = Processes::default();
        let image = processes.running(Tgid(1), KtimeNs(1)).unwrap();
        processes.hit(image, BinaryId(1), KtimeNs(1));
        processes.loaded(image, 0x1000, KtimeNs(1));
        let entry = |address, use_as, frames: &[Frame]| CodeEntry {
            address: Address(address),
            use_as,
            frames: frames.to_vec(),
            frameless: false,
        };
        let entries = vec![
            entry(0x10, CodeUse::Return, &[frame("runtime.newproc", 1)]),
            entry(0x20, CodeUse::Return, &[frame("main.inlined", 5), frame("main.spawn", 9)]),
            entry(0x30, CodeUse::Return, &[frame("main.main", 20)]),
            entry(0x40, CodeUse::Return, &[frame("runtime.goexit", 1)]),
            entry(0x50, CodeUse::Entry, &[frame("main.worker", 30)]),
        ];
        (processes, vec![Code { binary: BinaryId(1), entries }])
    }

    fn names(symbols: &Symbolizer<'_>, ids: &[FrameId]) -> Vec<String> {
        ids.iter().map(|id| label(&symbols.frame(*id))).collect()
    }

    /// Check that a creation stack begins at the `go` statement, whatever the walk saw of the runtime.
    #[test]
    fn creation_stacks() {
        let (processes, code) = tables();
        let stack = |pcs: &[u64]| Stack {
            pcs: pcs.iter().map(|pc| Address(pc + 0x1000)).collect(),
            truncated: false,
            top: Top::Return,
            of: CodeOf::Binary,
        };
        let stacks = FxHashMap::from_iter([
            (StackId(1), stack(&[0x10, 0x20, 0x30, 0x40])),
            (StackId(2), stack(&[0x30, 0x40])),
            (StackId(3), stack(&[0x10, 0x30, 0x40])),
        ]);
        let symbols = Symbolizer::from_tables(&processes, &stacks, &code);
        for id in [1, 2, 3] {
            let (gopc, startpc) = (Address(0x1020), Address(0x1050));
            let origin = Origin { parent: None, gopc, startpc, stack: Some(StackId(id)) };
            let (frames, _) = symbols.creation(ImageId(0), &origin);
            assert_eq!(names(&symbols, &frames), ["main.inlined", "main.spawn", "main.main"], "stack {id}");
        }
        assert_eq!(symbols.go_statement(ImageId(0), Address(0x1020)), frame("main.inlined", 5));
        assert_eq!(symbols.entry(ImageId(0), Address(0x1050)), frame("main.worker", 30));
    }

    /// Check that the word on top of the stack is a caller where the function has no frame, and nothing elsewhere, and that an
    /// interrupted instruction is looked up where it is.
    #[test]
    fn interrupted_stacks() {
        let (processes, mut code) = tables();
        let at = |address, frameless, name| CodeEntry {
            address: Address(address),
            use_as: CodeUse::Entry,
            frames: vec![frame(name, 7)],
            frameless,
        };
        code[0].entries.extend([at(0x60, true, "main.leaf"), at(0x68, false, "main.framed")]);
        let stack = |top, pcs: &[u64]| Stack {
            pcs: pcs.iter().map(|pc| Address(pc + 0x1000)).collect(),
            truncated: false,
            top,
            of: CodeOf::Binary,
        };
        for (what, stack, expected) in [
            (
                "a leaf",
                stack(Top::InstructionAndWord, &[0x60, 0x20, 0x30]),
                &["main.leaf", "main.inlined", "main.spawn", "main.main"][..],
            ),
            ("a frame", stack(Top::InstructionAndWord, &[0x68, 0x20, 0x30]), &["main.framed", "main.main"]),
            ("no word", stack(Top::Instruction, &[0x68, 0x30]), &["main.framed", "main.main"]),
            ("the word alone", stack(Top::InstructionAndWord, &[0x60]), &["main.leaf"]),
            ("nothing", stack(Top::Instruction, &[]), &[]),
        ] {
            let stacks = FxHashMap::from_iter([(StackId(1), stack)]);
            let symbols = Symbolizer::from_tables(&processes, &stacks, &code);
            let (frames, _) = symbols.stack(ImageId(0), StackId(1)).unwrap();
            assert_eq!(names(&symbols, &frames), expected, "{what}");
        }
    }

    /// Check that an address without a name stays an address.
    #[test]
    fn unknown_address() {
        let (processes, code) = tables();
        let stacks = FxHashMap::default();
        let symbols = Symbolizer::from_tables(&processes, &stacks, &code);
        assert_eq!(label(&symbols.entry(ImageId(0), Address(0xabc))), "? 0xabc");
        assert_eq!(symbols.stack(ImageId(0), StackId(77)), None);
    }

    /// Check which start functions are the runtime's own.
    #[test]
    fn system_goroutines() {
        for (function, system) in [
            ("runtime.main", false),
            ("runtime.bgsweep", true),
            ("runtime.gcenable.gowrap1", true),
            ("runtime.corostart", false),
            ("runtime/trace.Start.func1", false),
            ("main.worker", false),
            ("?", false),
        ] {
            assert_eq!(is_system(function), system, "{function}");
        }
    }
}
