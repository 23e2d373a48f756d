//! Where a thread keeps its current g: an offset from the thread pointer (the FS base), which differs between builds.
//!
//! It is -8 in a program without C, and further down where C has thread-local variables of its own. `runtime.morestack`
//! begins by loading g from there (`runtime/asm_amd64.s`: `get_tls`, `MOVQ g(CX), …`), so its code tells: as
//! `mov %fs:OFFSET, reg`, or in position-independent code as `mov $OFFSET, reg; mov %fs:(reg), reg`.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::flow::Code;

/// morestack loads g with its first or second instruction.
const MAX_INSTRUCTIONS: usize = 4;
/// No thread has more thread-local storage than this in front of its thread pointer and in reach of it.
const MAX_DISTANCE: i64 = 1 << 20;

/// The offset that the code of `runtime.morestack` loads g from; `None` if it does not begin as expected (a shared library
/// asks the dynamic linker for the offset).
pub fn g_offset(morestack: &Code) -> Option<i32> {
    let mut constant: Option<(Register, i64)> = None;
    for instruction in morestack.instructions.iter().take(MAX_INSTRUCTIONS) {
        if instruction.mnemonic() != Mnemonic::Mov {
            return None;
        }
        if instruction.memory_segment() == Register::FS && instruction.op1_kind() == OpKind::Memory {
            let offset = offset_of(instruction, constant)?;
            let plausible = offset < 0 && offset > -MAX_DISTANCE && offset % 8 == 0;
            return plausible.then(|| i32::try_from(offset).ok())?;
        }
        let immediate = matches!(instruction.op1_kind(), OpKind::Immediate32to64 | OpKind::Immediate64);
        constant = immediate.then(|| (instruction.op0_register(), instruction.immediate(1) as i64));
    }
    None
}

fn offset_of(instruction: &Instruction, constant: Option<(Register, i64)>) -> Option<i64> {
    let displacement = instruction.memory_displacement64() as i64;
    match (instruction.memory_base(), instruction.memory_index()) {
        (Register::None, Register::None) => Some(displacement),
        (base, Register::None) => constant.filter(|(register, _)| *register == base)?.1.checked_add(displacement),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the forms that Go's linker and others leave, and that anything else is not understood.
    #[test]
    fn forms_of_the_load() {
        for (what, bytes, expected) in [
            ("mov %fs:-8,%rdi", &[0x64, 0x48, 0x8b, 0x3c, 0x25, 0xf8, 0xff, 0xff, 0xff][..], Some(-8)),
            ("mov %fs:-0x80,%rdi", &[0x64, 0x48, 0x8b, 0x3c, 0x25, 0x80, 0xff, 0xff, 0xff], Some(-0x80)),
            (
                "mov $-0x30,%rcx; mov %fs:(%rcx),%rdi",
                &[0x48, 0xc7, 0xc1, 0xd0, 0xff, 0xff, 0xff, 0x64, 0x48, 0x8b, 0x39],
                Some(-0x30),
            ),
            ("mov got(%rip),%rcx; mov %fs:(%rcx),%rdi", &[0x48, 0x8b, 0x0d, 0, 1, 0, 0, 0x64, 0x48, 0x8b, 0x39], None),
            ("mov $-0x30,%rdx; mov %fs:(%rcx),%rdi", &[0x48, 0xc7, 0xc2, 0xd0, 0xff, 0xff, 0xff, 0x64, 0x48, 0x8b, 0x39], None),
            ("mov %fs:8,%rdi", &[0x64, 0x48, 0x8b, 0x3c, 0x25, 8, 0, 0, 0], None),
            ("mov %fs:-4,%rdi", &[0x64, 0x48, 0x8b, 0x3c, 0x25, 0xfc, 0xff, 0xff, 0xff], None),
            ("ret", &[0xc3], None),
            ("nothing", &[], None),
        ] {
            assert_eq!(g_offset(&Code::decode(0x1000, bytes)), expected, "{what}");
        }
    }
}
