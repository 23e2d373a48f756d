//! Where the runtime keeps its list of all goroutines.
//!
//! Source: `runtime/proc.go`, `allgadd`: it compares `&allgs[0]` with `allgptr` and stores `len(allgs)` to `allglen`. Both live
//! on, unlike the slice `allgs` itself, for readers that take no lock (`atomicAllG`). The shape of the code is the same in
//! Go 1.19 to 1.27.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::flow::{Code, number};

/// Link-time addresses of two words of the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllGoroutines {
    /// Address of `runtime.allglen`: how many there are. Read it first: the list only grows.
    pub len: u64,
    /// Address of `runtime.allgptr`: where the first pointer to a `runtime.g` is.
    pub first: u64,
}

/// Finds them in the decoded `runtime.allgadd`.
pub fn find(code: &Code) -> Option<AllGoroutines> {
    let slice = slice(code)?;
    let outside = |address: &u64| !(slice..slice + 24).contains(address);
    let first = code.instructions.iter().filter(|i| is_compare(i)).map(Instruction::ip_rel_memory_address).find(outside)?;
    let len = stores(code).into_iter().rfind(outside).filter(|len| *len != first)?;
    Some(AllGoroutines { len, first })
}

/// Address of the slice `allgs`: three words in a row that are all read or written.
fn slice(code: &Code) -> Option<u64> {
    let words = code.instructions.iter().filter(|i| i.is_ip_rel_memory_operand() && i.mnemonic() != Mnemonic::Lea);
    let mut words: Vec<u64> = words.map(Instruction::ip_rel_memory_address).collect();
    words.sort_unstable();
    let follows = |word: u64, by: u64| word.checked_add(by).is_some_and(|word| words.binary_search(&word).is_ok());
    words.iter().copied().filter(|&word| word < u64::MAX - 24 && follows(word, 8) && follows(word, 16)).min()
}

/// `cmp qword [rip+…], register`, either way round.
fn is_compare(instruction: &Instruction) -> bool {
    let register = [instruction.op0_register(), instruction.op1_register()].into_iter().any(Register::is_gpr64);
    instruction.mnemonic() == Mnemonic::Cmp && instruction.is_ip_rel_memory_operand() && register
}

/// Addresses that are written by `lea register, [rip+…]` and, later, `xchg [register], register`: what atomic stores look like.
fn stores(code: &Code) -> Vec<u64> {
    let mut holds = [None::<u64>; 16];
    let mut found = Vec::new();
    for (instruction, effect) in code.instructions.iter().zip(&code.effects) {
        if instruction.mnemonic() == Mnemonic::Xchg && instruction.op0_kind() == OpKind::Memory {
            let base = number(instruction.memory_base()).and_then(|base| holds.get(usize::from(base)).copied().flatten());
            let plain = instruction.memory_index() == Register::None && instruction.memory_displacement64() == 0;
            let word = instruction.op1_register().is_gpr64();
            found.extend(base.filter(|_| plain && word));
        }
        let address = (instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand())
            .then(|| instruction.ip_rel_memory_address());
        for (register, held) in holds.iter_mut().enumerate() {
            if effect.written() & 1 << register != 0 {
                *held = address;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Go makes of `allgadd`, shortened, at 0x1000.
    #[rustfmt::skip]
    const CODE: [u8; 51] = [
        0x48, 0x8b, 0x0d, 0x09, 0x10, 0, 0,  // 1000 mov rcx, [2010]  allgs+16
        0x48, 0x8b, 0x1d, 0xfa, 0x0f, 0, 0,  // 1007 mov rbx, [2008]  allgs+8
        0x48, 0x8b, 0x05, 0xeb, 0x0f, 0, 0,  // 100e mov rax, [2000]  allgs
        0x83, 0x3d, 0xe4, 0x1f, 0, 0, 0,     // 1015 cmp dword [3000], 0
        0x48, 0x39, 0x1d, 0xdd, 0x2f, 0, 0,  // 101c cmp [4000], rbx  allgptr
        0x48, 0x8d, 0x15, 0xd6, 0x3f, 0, 0,  // 1023 lea rdx, [5000]  allglen
        0x84, 0x02,                          // 102a test [rdx], al
        0x48, 0x87, 0x0a,                    // 102c xchg [rdx], rcx
        0xc3, 0xc3, 0xc3, 0xc3,
    ];

    /// Check that list and length are told from the slice, from the write barrier's flag and from each other.
    #[test]
    fn both_are_found() {
        let found = find(&Code::decode(0x1000, &CODE));
        assert_eq!(found, Some(AllGoroutines { len: 0x5000, first: 0x4000 }));
    }

    /// Check that code without one of the parts finds nothing rather than something else.
    #[test]
    fn parts_missing() {
        for gone in [0..7, 7..14, 14..21, 28..35, 35..42, 44..47] {
            let mut code = CODE;
            code[gone.clone()].fill(0x90);
            assert_eq!(find(&Code::decode(0x1000, &code)), None, "{gone:?}");
        }
        assert_eq!(find(&Code::decode(0x1000, &[])), None);
    }

    /// Check that a register that was overwritten in between does not lead anywhere.
    #[test]
    fn overwritten_register() {
        let mut code = CODE;
        code[42..44].copy_from_slice(&[0x31, 0xd2]); // xor edx, edx
        assert_eq!(find(&Code::decode(0x1000, &code)), None);
    }
}
