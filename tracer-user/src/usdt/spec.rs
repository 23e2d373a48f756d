//! From arguments to what the BPF side follows: offsets of registers, constants, displacements.

use tracer_common::{
    config::pt_regs_offset,
    usdt::{ARG_MEMORY, ARG_VALUE, ArgSpec, MAX_ARGS, NO_ARG, NO_REGISTER, UsdtSpec},
};

use super::{
    argument::{Argument, Memory, Operand},
    registers::Register,
};

/// `rip` in `struct pt_regs` (`arch/x86/include/uapi/asm/ptrace.h`).
const RIP_OFFSET: u8 = 128;

/// Which argument is text, from 0: where it begins, and if another one says how long it is, that.
pub type TextAt = (usize, Option<usize>);

/// How the arguments of a probe at a link address are fetched. `symbols` knows the link addresses of the object's symbols. What
/// cannot be fetched is left out.
pub fn spec(arguments: &[Argument], address: u64, symbols: &dyn Fn(&str) -> Option<u64>, text: Option<TextAt>) -> UsdtSpec {
    let mut spec = UsdtSpec::NONE;
    for (place, argument) in spec.args.iter_mut().zip(arguments) {
        *place = one(argument, address, symbols).unwrap_or(ArgSpec::NONE);
    }
    let fetched = |at: usize| (at < MAX_ARGS && spec.args[at] != ArgSpec::NONE).then_some(at as u8);
    if let Some((at, length)) = text
        && let Some(at) = fetched(at)
    {
        let length = length.map(fetched);
        // A text of unknown length is none.
        if length != Some(None) {
            (spec.text, spec.text_len) = (at, length.flatten().unwrap_or(NO_ARG));
        }
    }
    spec
}

/// Whether an argument can be fetched.
pub fn is_fetchable(argument: &Argument, symbols: &dyn Fn(&str) -> Option<u64>) -> bool {
    one(argument, 0, symbols).is_some()
}

fn one(argument: &Argument, address: u64, symbols: &dyn Fn(&str) -> Option<u64>) -> Option<ArgSpec> {
    let spec = ArgSpec {
        kind: ARG_VALUE,
        size_less_one: argument.bytes.checked_sub(1)?,
        signed: argument.signed.into(),
        ..ArgSpec::NONE
    };
    Some(match &argument.operand {
        Operand::Register(register) => ArgSpec { base: offset_of(*register), skip_bits: register.from_bit, ..spec },
        Operand::Constant(value) => ArgSpec { offset: *value, ..spec },
        Operand::Memory(Memory { base, index, displacement, symbol }) => {
            let offset = match symbol {
                // Where the probe is, and so its instruction pointer, the symbol is as far away as the linker put it.
                Some(name) => symbols(name)?.wrapping_sub(address).cast_signed().wrapping_add(*displacement),
                None => *displacement,
            };
            let (index, shift) = index.map_or((NO_REGISTER, 0), |(register, shift)| (offset_of(register), shift));
            ArgSpec { kind: ARG_MEMORY, base: base.map_or(NO_REGISTER, offset_of), index, shift, offset, ..spec }
        }
        Operand::Unsupported(_) => return None,
    })
}

fn offset_of(register: Register) -> u8 {
    if register.number == Register::RIP { RIP_OFFSET } else { pt_regs_offset(register.number) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usdt::{argument::parse, registers::Machine};

    /// Check registers, constants and memory, a symbol relative to the probe, and what cannot be fetched.
    #[test]
    fn specs() {
        let symbols = |name: &str| (name == "count").then_some(0x5000);
        let arguments = parse("-4@%ebx 1@%ah 8@$7 8@-8(%rbp,%rax,8) 4@count+4(%rip) 8@other(%rip)", Machine::X86_64);
        let spec = spec(&arguments, 0x1000, &symbols, None);
        let of = |kind, base, index, shift, size_less_one, signed, skip_bits, offset| ArgSpec {
            kind,
            base,
            index,
            shift,
            size_less_one,
            signed,
            skip_bits,
            _pad: 0,
            offset,
        };
        assert_eq!(spec.args[0], of(ARG_VALUE, 40, NO_REGISTER, 0, 3, 1, 0, 0));
        assert_eq!(spec.args[1], of(ARG_VALUE, 80, NO_REGISTER, 0, 0, 0, 8, 0));
        assert_eq!(spec.args[2], of(ARG_VALUE, NO_REGISTER, NO_REGISTER, 0, 7, 0, 0, 7));
        assert_eq!(spec.args[3], of(ARG_MEMORY, 32, 80, 3, 7, 0, 0, -8));
        assert_eq!(spec.args[4], of(ARG_MEMORY, RIP_OFFSET, NO_REGISTER, 0, 3, 0, 0, 0x4004));
        assert_eq!(spec.args[5], ArgSpec::NONE);
        assert!(is_fetchable(&arguments[4], &symbols) && !is_fetchable(&arguments[5], &symbols));
    }

    /// Check that text needs its arguments.
    #[test]
    fn texts() {
        let arguments = parse("8@%rdi 8f@%xmm0", Machine::X86_64);
        let text = |at| {
            let spec = spec(&arguments, 0, &|_| None, Some(at));
            (spec.text, spec.text_len)
        };
        assert_eq!(text((0, None)), (0, NO_ARG));
        assert_eq!(text((0, Some(0))), (0, 0));
        assert_eq!(text((0, Some(1))), (NO_ARG, NO_ARG));
        assert_eq!(text((1, None)), (NO_ARG, NO_ARG));
        assert_eq!(text((9, None)), (NO_ARG, NO_ARG));
    }
}
