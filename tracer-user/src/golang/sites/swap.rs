//! The instruction behind a compare-and-swap.

use iced_x86::{FlowControl, Mnemonic, Register};

use super::MAX_DISTANCE;
use crate::golang::flow::{Code, number};

/// The jump behind the call of a compare-and-swap: `test al, al; jcc`. ZF is clear where it succeeded.
pub(super) fn after_swap_call(code: &Code, call: usize) -> Option<usize> {
    let test = (call + 1..call + 4).find(|index| code.instructions.get(*index).is_some_and(|i| i.mnemonic() != Mnemonic::Nop))?;
    let instruction = code.instructions.get(test)?;
    let tests = instruction.mnemonic() == Mnemonic::Test
        && instruction.op0_register() == Register::AL
        && instruction.op1_register() == Register::AL;
    (tests && code.is_emulated(test + 1)).then_some(test + 1)
}

/// The first cheap instruction behind a compare-and-swap at which ZF still tells success and `base` still holds the
/// goroutine, with the value of ZF that means success.
pub(super) fn after_swap(code: &Code, swap: usize, base: u8) -> Option<(usize, bool)> {
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
pub(super) fn ends_path(code: &Code, index: usize) -> bool {
    code.instructions.get(index).is_none_or(|i| i.flow_control() != FlowControl::Next)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{RBX, never_returns},
        *,
    };

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
            assert_eq!(never_returns(name.as_bytes()), expected, "{name}");
        }
    }
}
