//! Changes of state: what each call of casgstatus, and each copy of it, means.

use super::{
    Found, MAX_BIRTHS, MAX_UNKNOWN, Named, OTHER_SWAPS, R14, RAX, RBX, RCX, SYSTEM_CALLS, Search, never_returns,
    swap::{after_swap, after_swap_call},
    swaps_states,
};
use crate::{
    event::Transition,
    golang::{
        flow::{Code, Value},
        hook::Hook,
        transition::{self, DEAD, Meaning},
    },
    recording::contract::Tier,
};

impl Search<'_> {
    pub(super) fn transitions(&mut self, named: &Named, code: &Code, newborn: bool) {
        let returns = |target| self.program.table.lookup(target).is_none_or(|f| !never_returns(self.program.table.name_start(f)));
        let constants = code.constants(returns);
        let constant = |index: usize, register: usize| match constants.get(index).and_then(|r| r.get(register)) {
            Some(Value::Constant(value)) => Some(*value),
            _ => None,
        };
        let before = self.plan.count(Hook::Birth);
        let (mut late_birth, mut births) = (None, 0);
        for index in 0..code.instructions.len() {
            if let Some(target) = code.call_target(index) {
                if swaps_states(&named.name) && self.is_swap_function(target) {
                    // The word swapped may be another one: then its values are none of these.
                    if let (Some(old), Some(new)) = (constant(index, RBX), constant(index, RCX))
                        && !matches!(transition::meaning(&named.name, old, new), Meaning::Unknown)
                    {
                        self.transition(named, code, index, Some(old), Some(new), &Found::SwapCall);
                    }
                } else if self.newproc1.contains(&target) {
                    births += 1;
                    match births {
                        ..=MAX_BIRTHS => self.birth(named, code, index),
                        _ => self.miss(Hook::Birth, &format!("{} makes more goroutines than are believed", named.name)),
                    }
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

    /// A call of casgstatus, or a compare-and-swap of the state, with what is known of the states.
    fn transition(&mut self, named: &Named, code: &Code, index: usize, old: Option<u32>, new: Option<u32>, found: &Found) {
        let address = code.instructions.get(index).map_or(0, iced_x86::Instruction::ip);
        let (Some(old), Some(new)) = (old, new) else {
            return self.unresolved(named, address, transition::possible(&named.name, old, new), found);
        };
        let hook = match transition::meaning(&named.name, old, new) {
            Meaning::Hook(hook) => hook,
            Meaning::Nothing => return,
            Meaning::Unknown => {
                let reason = format!("{} changes a state from {old} to {new}, which is not known", named.name);
                return self.miss(Hook::Transition(Transition::Run), &reason);
            }
        };
        let site = match found {
            Found::Call => Some((index, RAX, None, "")),
            Found::Swap { base } => {
                let note =
                    if self.is_casgstatus_copy(address) { "behind an inlined casgstatus" } else { "behind a compare-and-swap" };
                after_swap(code, index, *base).map(|(at, zf)| (at, *base, Some(zf), note))
            }
            Found::SwapCall => {
                let own = SYSTEM_CALLS.contains(&named.name.as_str());
                let jump = after_swap_call(code, index).filter(|_| own);
                jump.map(|at| (at, R14, Some(false), "behind a compare-and-swap that is not inlined"))
            }
        };
        match site {
            Some((at, register, zf, note)) => self.add(hook, named, code, at, register, zf, note),
            None => {
                let reason =
                    format!("the compare-and-swap in {} has no cheap instruction behind it that has the goroutine", named.name);
                self.miss(hook, &reason);
            }
        }
    }

    /// A change whose states are not constants may be any of `hooks`.
    fn unresolved(&mut self, named: &Named, address: u64, hooks: Vec<Hook>, found: &Found) {
        // A swap that is no copy of casgstatus, and a call that may be of another word, have states of their own. Those of the
        // functions that change states themselves were read.
        self.unknown += 1;
        let other = match found {
            Found::Call => false,
            // Too many to look each up: a binary that is not what it seems.
            Found::Swap { .. } => self.unknown <= MAX_UNKNOWN && !self.is_casgstatus_copy(address),
            Found::SwapCall => true,
        };
        for hook in hooks {
            if !other || (hook.tier() > Tier::T2 && swaps_states(&named.name)) {
                self.miss(hook, &format!("{} changes a state at {address:#x} that is not a constant", named.name));
            }
        }
    }
}
