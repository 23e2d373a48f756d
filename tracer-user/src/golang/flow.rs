//! Machine code of one function, and which constants its registers hold.
//!
//! Owns decoding, the kernel's list of instructions it emulates at a probe, and a constant propagation over the function's
//! branches. Knows nothing of what the code means. Go's register ABI has no callee-saved general registers
//! (`cmd/compile/abi-internal.md`), so a call leaves nothing known.

use iced_x86::{
    Code as Opcode, Decoder, DecoderOptions, FlowControl, Formatter, GasFormatter, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};

/// Larger functions are not analysed: the runtime's largest is some 20 KB.
pub const MAX_FUNCTION: usize = 1 << 20;

/// What is known of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Unknown,
    Constant(u32),
}

/// By x86 number.
pub type Registers = [Value; 16];

const NOTHING: Registers = [Value::Unknown; 16];

/// What an instruction does to the general registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Constant {
        to: u8,
        value: u32,
    },
    Copy {
        to: u8,
        from: u8,
        wide: bool,
    },
    /// Overwrites the registers of this mask with something unknown.
    Clobbers(u16),
}

impl Effect {
    /// Registers that hold something else afterwards.
    pub fn written(self) -> u16 {
        match self {
            Self::Constant { to, .. } | Self::Copy { to, .. } => 1 << to,
            Self::Clobbers(mask) => mask,
        }
    }

    fn apply(self, registers: &mut Registers) {
        let mut set = |to: u8, value| {
            if let Some(register) = registers.get_mut(usize::from(to)) {
                *register = value;
            }
        };
        match self {
            Self::Constant { to, value } => set(to, Value::Constant(value)),
            Self::Copy { to, from, .. } => {
                let value = registers.get(usize::from(from)).copied().unwrap_or(Value::Unknown);
                if let Some(register) = registers.get_mut(usize::from(to)) {
                    *register = value;
                }
            }
            Self::Clobbers(mask) => (0..16).filter(|to| mask & 1 << to != 0).for_each(|to| set(to, Value::Unknown)),
        }
    }
}

/// A decoded function.
pub struct Code {
    pub start: u64,
    bytes: Vec<u8>,
    pub instructions: Vec<Instruction>,
    pub effects: Vec<Effect>,
}

impl Code {
    pub fn decode(start: u64, bytes: &[u8]) -> Self {
        let bytes = bytes.get(..MAX_FUNCTION).unwrap_or(bytes).to_vec();
        let mut factory = InstructionInfoFactory::new();
        let instructions: Vec<_> = Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE).into_iter().collect();
        let effects = instructions.iter().map(|instruction| effect(&mut factory, instruction)).collect();
        Self { start, bytes, instructions, effects }
    }

    /// Whether the kernel emulates instruction `index` at a probe instead of single-stepping it.
    pub fn is_emulated(&self, index: usize) -> bool {
        let Some(instruction) = self.instructions.get(index) else { return false };
        let start = instruction.ip().wrapping_sub(self.start) as usize;
        self.bytes.get(start..start.saturating_add(instruction.len())).is_some_and(is_emulated)
    }

    /// The instruction as GNU tools write it.
    pub fn text(&self, index: usize) -> String {
        let mut text = String::new();
        if let Some(instruction) = self.instructions.get(index) {
            let mut formatter = GasFormatter::new();
            formatter.options_mut().set_branch_leading_zeros(false);
            formatter.options_mut().set_uppercase_hex(false);
            formatter.format(instruction, &mut text);
        }
        text
    }

    /// Target of the direct call at `index`.
    pub fn call_target(&self, index: usize) -> Option<u64> {
        let instruction = self.instructions.get(index)?;
        (instruction.code() == Opcode::Call_rel32_64).then(|| instruction.near_branch_target())
    }

    pub fn index_of(&self, address: u64) -> Option<usize> {
        self.instructions.binary_search_by_key(&address, Instruction::ip).ok()
    }

    /// Marks the instructions where control may arrive other than from the one before.
    pub fn leaders(&self) -> Vec<bool> {
        let mut leaders = vec![false; self.instructions.len()];
        let mut after_jump = true;
        for (index, instruction) in self.instructions.iter().enumerate() {
            if let Some(leader) = leaders.get_mut(index) {
                *leader |= after_jump;
            }
            after_jump = ends_block(instruction.flow_control());
            if let Some(target) = self.branch_target(instruction)
                && let Some(leader) = leaders.get_mut(target)
            {
                *leader = true;
            }
        }
        leaders
    }

    /// What the registers hold before each instruction, on every path that leads there. Paths through jump tables are
    /// covered by assuming nothing at each instruction that follows an unconditional jump. `returns` says whether the
    /// function at an address returns to its caller: what stands behind a call of `runtime.throw` is no continuation.
    pub fn constants(&self, returns: impl Fn(u64) -> bool) -> Vec<Registers> {
        let leaders = self.leaders();
        let mut entry: Vec<Option<Registers>> = vec![None; leaders.len()];
        let indirect = self.instructions.iter().any(|i| i.flow_control() == FlowControl::IndirectBranch);
        let mut previous = None;
        let mut work = Vec::new();
        for (index, instruction) in self.instructions.iter().enumerate() {
            let after_end = previous.is_some_and(|flow| !falls_through(flow));
            if index == 0 || (indirect && after_end) {
                join(&mut entry, index, &NOTHING);
                work.push(index);
            }
            previous = Some(instruction.flow_control());
        }
        // Each entry changes at most 17 times (once per register that becomes unknown), so this ends.
        while let Some(start) = work.pop() {
            let Some(Some(mut registers)) = entry.get(start).copied() else { continue };
            for (index, (instruction, effect)) in self.instructions.iter().zip(&self.effects).enumerate().skip(start) {
                if index != start && leaders.get(index) == Some(&true) {
                    if join(&mut entry, index, &registers) {
                        work.push(index);
                    }
                    break;
                }
                effect.apply(&mut registers);
                if let Some(target) = self.branch_target(instruction)
                    && join(&mut entry, target, &registers)
                {
                    work.push(target);
                }
                if !falls_through(instruction.flow_control()) || self.call_target(index).is_some_and(|target| !returns(target)) {
                    break;
                }
            }
        }
        let mut registers = NOTHING;
        let mut states = Vec::with_capacity(leaders.len());
        for ((effect, leader), entry) in self.effects.iter().zip(leaders).zip(entry) {
            if leader {
                registers = entry.unwrap_or(NOTHING);
            }
            states.push(registers);
            effect.apply(&mut registers);
        }
        states
    }

    /// Index of the instruction a direct jump within the function goes to.
    fn branch_target(&self, instruction: &Instruction) -> Option<usize> {
        let flow = instruction.flow_control();
        let direct = matches!(flow, FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch);
        direct.then(|| self.index_of(instruction.near_branch_target()))?
    }
}

/// Merges `registers` into what is known at `index`; true if that changed it.
fn join(entry: &mut [Option<Registers>], index: usize, registers: &Registers) -> bool {
    let Some(slot) = entry.get_mut(index) else { return false };
    let Some(known) = slot else {
        *slot = Some(*registers);
        return true;
    };
    let mut changed = false;
    for (known, new) in known.iter_mut().zip(registers) {
        if *known != *new && *known != Value::Unknown {
            *known = Value::Unknown;
            changed = true;
        }
    }
    changed
}

fn falls_through(flow: FlowControl) -> bool {
    !matches!(
        flow,
        FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Return
            | FlowControl::Exception
            | FlowControl::Interrupt
    )
}

fn ends_block(flow: FlowControl) -> bool {
    !falls_through(flow) || flow == FlowControl::ConditionalBranch
}

fn effect(factory: &mut InstructionInfoFactory, instruction: &Instruction) -> Effect {
    if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
        return Effect::Clobbers(!(1 << 4));
    }
    let wide = instruction.op0_register().is_gpr64();
    if instruction.op0_kind() == OpKind::Register && (wide || instruction.op0_register().is_gpr32()) {
        let (to, from) = (number(instruction.op0_register()), number(instruction.op1_register()));
        match (instruction.mnemonic(), instruction.op1_kind(), to, from) {
            (Mnemonic::Mov, OpKind::Register, Some(to), Some(from)) => return Effect::Copy { to, from, wide },
            (Mnemonic::Xor, OpKind::Register, Some(to), Some(from)) if to == from => {
                return Effect::Constant { to, value: 0 };
            }
            (Mnemonic::Mov, OpKind::Immediate32 | OpKind::Immediate64 | OpKind::Immediate32to64, Some(to), _) => {
                if let Ok(value) = u32::try_from(instruction.immediate(1)) {
                    return Effect::Constant { to, value };
                }
            }
            _ => {}
        }
    }
    let used = factory.info(instruction).used_registers();
    let written = used.iter().filter(|used| {
        matches!(used.access(), OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
    });
    Effect::Clobbers(written.filter_map(|used| number(used.register())).fold(0, |mask, n| mask | 1 << n))
}

/// x86 number of a general register of any width.
pub fn number(register: Register) -> Option<u8> {
    let full = register.full_register();
    full.is_gpr64().then(|| u8::try_from(full.number()).ok())?
}

/// Whether `arch/x86/kernel/uprobes.c` (`branch_setup_xol_ops`, `push_setup_xol_ops`) emulates an instruction of these bytes:
/// relative calls and jumps, conditional jumps, one-byte nops, pushes of a general register. Longer nops do not count: they are
/// emulated by recent kernels only, and a nop with an 0x66 prefix was refused altogether before Linux 6.2.
pub fn is_emulated(instruction: &[u8]) -> bool {
    matches!(
        instruction,
        [0xe8 | 0xe9, _, _, _, _]
            | [0xeb | 0x70..=0x7f, _]
            | [0x0f, 0x80..=0x8f, _, _, _, _]
            | [0x50..=0x57]
            | [0x41, 0x50..=0x57]
            | [0x90]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check which instructions count as emulated, byte for byte.
    #[test]
    fn emulated_instructions() {
        for (bytes, expected) in [
            (&[0x55][..], true),                            // push rbp
            (&[0x41, 0x57], true),                          // push r15
            (&[0x48, 0x55], false),                         // push rbp with REX.W
            (&[0xe8, 1, 2, 3, 4], true),                    // call
            (&[0x66, 0xe8, 1, 2], false),                   // callw
            (&[0xff, 0xd0], false),                         // call rax
            (&[0x74, 5], true),                             // je
            (&[0x0f, 0x86, 0, 0, 0, 0], true),              // jbe, near
            (&[0xeb, 0], true),                             // jmp
            (&[0x90], true),                                // nop
            (&[0x66, 0x90], false),                         // xchg ax,ax
            (&[0xf3, 0x90], false),                         // pause
            (&[0x0f, 0x1f, 0x44, 0, 0], false),             // five-byte nop
            (&[0xc3], false),                               // ret
            (&[0x49, 0x3b, 0x66, 0x10], false),             // cmp rsp,[r14+16]
            (&[0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0x90], false), // an immediate that ends like a nop
            (&[], false),
        ] {
            assert_eq!(is_emulated(bytes), expected, "{bytes:02x?}");
        }
    }

    /// Check that constants survive copies and joins that agree, and end at calls and at joins that do not.
    #[test]
    fn constants_follow_branches() {
        #[rustfmt::skip]
        let bytes = [
            0x41, 0xbb, 4, 0, 0, 0,       // 0  mov r11d, 4
            0x31, 0xc9,                   // 1  xor ecx, ecx
            0x85, 0xc0,                   // 2  test eax, eax
            0x74, 0x05,                   // 3  je +5 → 5
            0xb9, 1, 0, 0, 0,             // 4  mov ecx, 1
            0x44, 0x89, 0xdb,             // 5  mov ebx, r11d
            0xe8, 0, 0, 0, 0,             // 6  call
            0xc3,                         // 7  ret
        ];
        let states = Code::decode(0x1000, &bytes).constants(|_| true);
        assert_eq!(states[3][1], Value::Constant(0), "rcx before the branch");
        assert_eq!(states[5][1], Value::Unknown, "rcx where 0 meets 1");
        assert_eq!(states[6][3], Value::Constant(4), "rbx, copied");
        assert_eq!(states[7][3], Value::Unknown, "rbx after the call");
    }

    /// Check that code behind a call that does not return adds nothing to what follows it.
    #[test]
    fn calls_that_do_not_return() {
        #[rustfmt::skip]
        let bytes = [
            0xbf, 1, 0, 0, 0,             // 0  mov edi, 1
            0x74, 0x05,                   // 1  je +5 → 3
            0xe8, 0, 0, 0, 0,             // 2  call
            0xc3,                         // 3  ret
        ];
        let code = Code::decode(0x1000, &bytes);
        assert_eq!(code.constants(|_| true)[3][7], Value::Unknown);
        assert_eq!(code.constants(|target| target != 0x100c)[3][7], Value::Constant(1));
    }

    /// Check that any bytes can be decoded and followed.
    #[test]
    fn noise_is_survived() {
        let mut seed = 1u32;
        let bytes: Vec<u8> = (0..20_000)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            })
            .collect();
        let code = Code::decode(u64::MAX - 100, &bytes);
        assert_eq!(code.constants(|_| true).len(), code.instructions.len());
    }
}
