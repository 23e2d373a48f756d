//! Where a goroutine that waits for a semaphore keeps the semaphore's address: so locks can be told apart.
//!
//! Mutexes, read-write locks and wait groups park in `runtime.semacquire1` (`runtime/sema.go`), which is given the semaphore's address and gives
//! `gopark` the lock of a root that many semaphores share. It needs the address behind the park, and keeps it where the calling convention has a
//! place for it (`cmd/compile/abi-internal.md`, "spill area"): above its return address. That it does is read off its code.

use iced_x86::{Mnemonic, OpKind, Register};

use super::flow::Code;

/// What it parks for, and nobody else does (`runtime/runtime2.go`, `waitReasonStrings`).
pub const REASONS: [&str; 5] =
    ["semacquire", "sync.Mutex.Lock", "sync.RWMutex.RLock", "sync.RWMutex.Lock", "sync.WaitGroup.Wait"];

/// Whether `runtime.semacquire1`, decoded, stores its first argument 16 bytes above its frame pointer, and parks by itself: by a call of one
/// of `parks`.
pub fn keeps_address(code: &Code, parks: &[u64]) -> bool {
    let Some(frame) = frame_bytes(code) else { return false };
    let stores = code.instructions.iter().any(|instruction| {
        instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_kind() == OpKind::Memory
            && instruction.memory_base() == Register::RSP
            && instruction.memory_index() == Register::None
            && instruction.op1_register() == Register::RAX
            && instruction.memory_displacement64() == frame + 16
    });
    let calls = (0..code.instructions.len()).filter_map(|index| code.call_target(index));
    stores && calls.into_iter().any(|target| parks.contains(&target))
}

/// How far the frame pointer is above the stack pointer, once the frame is there: `push rbp; mov rbp, rsp; sub rsp, N`.
fn frame_bytes(code: &Code) -> Option<u64> {
    let pushed = code.instructions.iter().position(|i| i.mnemonic() == Mnemonic::Push && i.op0_register() == Register::RBP)?;
    let mut behind = code.instructions.iter().skip(pushed + 1);
    let moved = behind.next()?;
    let copies = (moved.mnemonic(), moved.op0_register(), moved.op1_register()) == (Mnemonic::Mov, Register::RBP, Register::RSP);
    let grows = behind.next().filter(|_| copies)?;
    if grows.op0_register() != Register::RSP {
        return None;
    }
    match grows.mnemonic() {
        Mnemonic::Sub => Some(grows.immediate(1)),
        // 128 bytes are subtracted by adding -128, which is shorter.
        Mnemonic::Add => Some(grows.immediate(1).wrapping_neg()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `push rbp; mov rbp, rsp; sub rsp, 0x58; mov [rsp + DISPLACEMENT], rax; call TARGET`, at 0x1000.
    fn code(displacement: u8, target: u8) -> Code {
        let bytes = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x58, 0x48, 0x89, 0x44, 0x24, displacement, 0xe8, target, 0, 0, 0];
        Code::decode(0x1000, &bytes)
    }

    /// Check that the place is believed only where the argument is stored there, by a function that parks itself.
    #[test]
    fn places() {
        let after_call = 0x1000 + 18;
        assert!(keeps_address(&code(0x68, 0x10), &[after_call + 0x10]));
        assert!(!keeps_address(&code(0x60, 0x10), &[after_call + 0x10]));
        assert!(!keeps_address(&code(0x68, 0x20), &[after_call + 0x10]));
        assert!(!keeps_address(&Code::decode(0x1000, &[0x90; 9]), &[0x1000]));
        assert!(!keeps_address(&Code::decode(0x1000, &[]), &[]));
    }
}
