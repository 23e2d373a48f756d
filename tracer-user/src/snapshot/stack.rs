//! The stack of a goroutine that does not run, out of the bytes above its stack pointer.
//!
//! Go keeps frame pointers on amd64 (`cmd/compile/abi-internal.md`): at RBP lies the caller's RBP, above it the return address.
//! A function that has not pushed RBP yet (one that has not begun, or that was preempted in its prologue) is told by its frame
//! of no length: its return address lies at the stack pointer.

use super::{
    goroutine::{Raw, Registers},
    memory::Piece,
};

/// How much of a stack is read, from the stack pointer on.
const MAX_BYTES: u64 = 4096;
/// How many frames are followed.
pub const MAX_FRAMES: usize = 128;

/// Code addresses, innermost first. All but the first are return addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stack {
    pub pcs: Vec<u64>,
    /// There is more at the root.
    pub truncated: bool,
}

/// The part of its stack to read; `None` where its registers say nothing or point elsewhere.
pub fn piece(raw: &Raw) -> Option<Piece> {
    let sp = raw.registers?.sp;
    let inside = raw.stack_lo <= sp && sp < raw.stack_hi && sp.is_multiple_of(8);
    inside.then(|| Piece { address: sp, len: (raw.stack_hi - sp).min(MAX_BYTES) as usize })
}

/// Follows the frames in `bytes`, which begin at the stack pointer that `registers` hold. `frame` is how far the return address
/// of the first function is from it, if that is known. What `stack` held before is gone.
pub fn walk(raw: &Raw, registers: Registers, bytes: &[u8], frame: Option<u64>, stack: &mut Stack) {
    let word = |address: u64| {
        let at = usize::try_from(address.checked_sub(registers.sp)?).ok()?;
        Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
    };
    stack.truncated = false;
    stack.pcs.clear();
    stack.pcs.push(registers.pc);
    if frame == Some(0) {
        stack.pcs.extend(word(registers.sp).filter(|pc| *pc != 0));
    }
    // RBP is saved right below the return address.
    let saved = frame.filter(|frame| *frame >= 8).and_then(|frame| registers.sp.checked_add(frame - 8));
    let mut next = registers.bp.or(saved).filter(|fp| *fp != 0);
    let mut last = None;
    while let Some(fp) = next.filter(|fp| last.is_none_or(|last| last < *fp)) {
        let words = fp.checked_add(8).and_then(|above| Some((word(fp)?, word(above)?)));
        let Some((caller, pc)) = words.filter(|_| stack.pcs.len() < MAX_FRAMES) else {
            stack.truncated = registers.sp <= fp && fp < raw.stack_hi;
            break;
        };
        if pc == 0 {
            break;
        }
        stack.pcs.push(pc);
        last = Some(fp);
        next = Some(caller).filter(|fp| *fp != 0);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::goroutine::State, *};

    const SP: u64 = 0x1_0000;

    fn raw(bp: Option<u64>) -> Raw {
        Raw {
            goid: 1,
            state: State::Waiting,
            wait_reason: 0,
            wait_since: 0,
            stack_lo: SP - 0x800,
            stack_hi: SP + 0x8000,
            registers: Some(Registers { pc: 0x100, sp: SP, bp }),
            parent: None,
            gopc: 0,
            startpc: 0,
            locked: false,
            labels: 0,
            waiting: 0,
        }
    }

    /// A stack with the given frames: where each lies, and what it holds.
    fn bytes(frames: &[(u64, u64, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        for (at, caller, pc) in frames {
            bytes[*at as usize..][..8].copy_from_slice(&caller.to_le_bytes());
            bytes[*at as usize + 8..][..8].copy_from_slice(&pc.to_le_bytes());
        }
        bytes
    }

    fn pcs(raw: &Raw, bytes: &[u8], frame: Option<u64>) -> (Vec<u64>, bool) {
        let mut stack = Stack { pcs: vec![1, 2, 3], truncated: true };
        walk(raw, raw.registers.unwrap(), bytes, frame, &mut stack);
        (stack.pcs, stack.truncated)
    }

    /// Check that frames are followed to the root, by the saved frame pointer or, where none is saved, by the frame's length.
    #[test]
    fn frames_are_followed() {
        let frames = bytes(&[(0x10, SP + 0x40, 0x200), (0x40, 0, 0x300)]);
        let expected = (vec![0x100, 0x200, 0x300], false);
        assert_eq!(pcs(&raw(Some(SP + 0x10)), &frames, Some(0x18)), expected);
        assert_eq!(pcs(&raw(None), &frames, Some(0x18)), expected);
        assert_eq!(pcs(&raw(Some(0)), &frames, None), (vec![0x100], false));
    }

    /// Check that a function without a frame yet has its return address at the stack pointer.
    #[test]
    fn function_that_has_not_begun() {
        let frames = bytes(&[(0, 0x150, 0), (0x10, 0, 0x200)]);
        assert_eq!(pcs(&raw(Some(SP + 0x10)), &frames, Some(0)), (vec![0x100, 0x150, 0x200], false));
    }

    /// Check that a frame that leads to itself or down ends the walk, and that a long one ends at the bound.
    #[test]
    fn cycles_and_depth() {
        let cycle = bytes(&[(0x10, SP + 0x10, 0x200)]);
        assert_eq!(pcs(&raw(Some(SP + 0x10)), &cycle, None), (vec![0x100, 0x200], false));
        let down = bytes(&[(0x10, SP + 0x40, 0x200), (0x40, SP + 0x10, 0x300)]);
        assert_eq!(pcs(&raw(Some(SP + 0x10)), &down, None).0.len(), 3);
        let deep: Vec<_> = (0..250).map(|i| (i * 16, SP + i * 16 + 16, 0x200 + i)).collect();
        let (deep, truncated) = pcs(&raw(Some(SP)), &bytes(&deep), None);
        assert_eq!((deep.len(), truncated), (MAX_FRAMES, true));
    }

    /// Check that a frame beyond what was read cuts the stack, and one outside of it ends it.
    #[test]
    fn frames_elsewhere() {
        let far = bytes(&[(0x10, SP + 0x2000, 0x200)]);
        assert_eq!(pcs(&raw(Some(SP + 0x10)), &far, None), (vec![0x100, 0x200], true));
        for fp in [u64::MAX, u64::MAX - 7, SP - 8, SP + 0x8000, 1] {
            assert_eq!(pcs(&raw(Some(fp)), &far, None), (vec![0x100], false), "{fp:#x}");
        }
        assert_eq!(pcs(&raw(Some(SP + 0x10)), &[], None), (vec![0x100], true));
    }

    /// Check that nothing is read by a stack pointer outside of the stack.
    #[test]
    fn stack_pointer_elsewhere() {
        for sp in [0, SP - 0x801, SP + 4, SP + 0x8000, u64::MAX] {
            let mut raw = raw(None);
            raw.registers = Some(Registers { pc: 0x100, sp, bp: None });
            assert_eq!(piece(&raw), None, "{sp:#x}");
        }
        assert_eq!(piece(&raw(None)), Some(Piece { address: SP, len: 4096 }));
    }
}
