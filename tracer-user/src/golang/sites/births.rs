//! Births: where newproc1 has returned, or where a copy of it makes its goroutine runnable.

use super::{GO_STATEMENT, MAX_DISTANCE, Named, RAX, RBX, Search, swap::ends_path};
use crate::golang::{
    flow::{Code, Effect},
    hook::Hook,
};

impl Search<'_> {
    /// From the call of newproc1 on, the first cheap instruction where a register still holds its result.
    pub(super) fn birth(&mut self, named: &Named, code: &Code, call: usize) {
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
                let copied = matches!(effect, Effect::Copy { from, wide: true, .. } if holds & 1 << from != 0);
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
            function.is_some_and(|f| self.program.table.is_named(f, "runtime.runqput"))
        };
        (named.name == GO_STATEMENT).then(|| (0..code.instructions.len()).find(is_put))?
    }

    /// Birth in a function that newproc1 was inlined into: `runqput(pp, newg, …)` in newproc.func1, else the newborn's first
    /// change of state, which follows the setting of goid from Go 1.24 on.
    pub(super) fn inlined_birth(&mut self, named: &Named, code: &Code, late: Option<(usize, u8, Option<bool>)>) {
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
}
