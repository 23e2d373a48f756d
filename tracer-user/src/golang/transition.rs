//! What a change of a goroutine's state means, by the states and the function that makes it.
//!
//! Source: every `casgstatus` and every compare-and-swap of `g.atomicstatus` in `src/runtime` of Go 1.21 to 1.27. A change that
//! is not listed here is one of a Go version that nobody has looked at: it is said to be unknown, never ignored.

use super::hook::Hook;
use crate::event::Transition;

/// Goroutine states (`runtime/runtime2.go`).
const IDLE: u32 = 0;
const RUNNABLE: u32 = 1;
const RUNNING: u32 = 2;
const SYSCALL: u32 = 3;
const WAITING: u32 = 4;
pub const DEAD: u32 = 6;
const COPYSTACK: u32 = 8;
const PREEMPTED: u32 = 9;
/// From Go 1.26 on: found never to wake again; and the goroutine of an idle C thread.
const LEAKED: u32 = 10;
const DEADEXTRA: u32 = 11;
/// Its stack is being looked at.
const SCAN: u32 = 0x1000;

const STATES: [u32; 11] =
    [IDLE, RUNNABLE, RUNNING, SYSCALL, WAITING, DEAD, COPYSTACK, PREEMPTED, LEAKED, DEADEXTRA, SCAN | PREEMPTED];

/// Hands a thread from one goroutine to another without a park, and makes the other runnable only to run it in the same breath.
pub const COROUTINE_SWITCH: &str = "runtime.coroswitch_m";
/// Takes a park back.
const PARK: &str = "runtime.park_m";

/// What a change is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Hook(Hook),
    /// It says nothing, or another hook says it: a birth, a park, the growth of a stack, a wait during which it really runs.
    Nothing,
    Unknown,
}

/// The meaning of a change from `old` to `new` in `function`.
pub fn meaning(function: &str, old: u32, new: u32) -> Meaning {
    use Transition::*;
    let coroutine = function == COROUTINE_SWITCH;
    let transition = match (old, new) {
        (WAITING, RUNNABLE) if function == PARK => return Meaning::Hook(Hook::ParkAbort),
        (WAITING, RUNNABLE) if coroutine => return Meaning::Nothing,
        (WAITING, RUNNABLE) => return Meaning::Hook(Hook::Wake),
        (RUNNING, DEAD) => return Meaning::Hook(Hook::Exit),
        // The second step of a switch that takes two (the collector was looking at the goroutine): it was waiting.
        (RUNNABLE, RUNNING) if coroutine => CoroutineRun,
        (RUNNABLE, RUNNING) => Run,
        (RUNNING, RUNNABLE) => Yield,
        (RUNNING, new) if new == SCAN | PREEMPTED => Preempt,
        (RUNNING, SYSCALL) => Syscall,
        (SYSCALL, RUNNING) => SyscallExit,
        (SYSCALL, RUNNABLE) => SyscallExitQueued,
        (RUNNING, WAITING) if coroutine => CoroutineStop,
        (WAITING, RUNNING) if coroutine => CoroutineRun,
        (DEAD | DEADEXTRA, SYSCALL) if function.starts_with("runtime.need") => ThreadAttach,
        (SYSCALL, DEAD | DEADEXTRA) if function.starts_with("runtime.drop") => ThreadDetach,
        (RUNNING, WAITING | COPYSTACK) | (WAITING | COPYSTACK, RUNNING) => return Meaning::Nothing,
        (IDLE, DEAD | DEADEXTRA) | (DEAD, RUNNABLE | WAITING) => return Meaning::Nothing,
        (PREEMPTED, WAITING) | (WAITING, LEAKED) | (LEAKED, WAITING) => return Meaning::Nothing,
        _ => return Meaning::Unknown,
    };
    Meaning::Hook(Hook::Transition(transition))
}

/// Every hook that a change may be of which one state, or both, are not known.
pub fn possible(function: &str, old: Option<u32>, new: Option<u32>) -> Vec<Hook> {
    let candidates = |known: Option<u32>| known.map_or(STATES.to_vec(), |known| vec![known]);
    let mut hooks = Vec::new();
    for from in candidates(old) {
        for to in candidates(new) {
            if let Meaning::Hook(hook) = meaning(function, from, to)
                && !hooks.contains(&hook)
            {
                hooks.push(hook);
            }
        }
    }
    hooks
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check what changes mean, and that the function matters where it must.
    #[test]
    fn meanings() {
        let transition = |transition| Meaning::Hook(Hook::Transition(transition));
        for (function, old, new, expected) in [
            ("runtime.ready", WAITING, RUNNABLE, Meaning::Hook(Hook::Wake)),
            ("runtime.park_m", WAITING, RUNNABLE, Meaning::Hook(Hook::ParkAbort)),
            ("runtime.park_m", RUNNING, WAITING, Meaning::Nothing),
            ("runtime.gdestroy", RUNNING, DEAD, Meaning::Hook(Hook::Exit)),
            ("runtime.execute", RUNNABLE, RUNNING, transition(Transition::Run)),
            ("runtime.goschedImpl", RUNNING, RUNNABLE, transition(Transition::Yield)),
            ("runtime.preemptPark", RUNNING, 0x1009, transition(Transition::Preempt)),
            ("runtime.coroswitch_m", RUNNING, WAITING, transition(Transition::CoroutineStop)),
            ("runtime.coroswitch_m", WAITING, RUNNING, transition(Transition::CoroutineRun)),
            ("runtime.coroswitch_m", WAITING, RUNNABLE, Meaning::Nothing),
            ("runtime.coroswitch_m", RUNNABLE, RUNNING, transition(Transition::CoroutineRun)),
            ("runtime.gcAssistAlloc1", RUNNING, WAITING, Meaning::Nothing),
            ("runtime.newstack", RUNNING, COPYSTACK, Meaning::Nothing),
            ("runtime.needm", DEAD, SYSCALL, transition(Transition::ThreadAttach)),
            ("runtime.dropm", SYSCALL, DEADEXTRA, transition(Transition::ThreadDetach)),
            ("runtime.someday", RUNNABLE, WAITING, Meaning::Unknown),
            ("runtime.someday", RUNNING, 12, Meaning::Unknown),
        ] {
            assert_eq!(meaning(function, old, new), expected, "{function} {old} {new}");
        }
    }

    /// Check that a birth with either state of the newborn may be nothing else, and an unknown change of a running one much.
    #[test]
    fn possibilities() {
        assert_eq!(possible("runtime.newproc1", Some(DEAD), None), []);
        assert_eq!(possible("runtime.casGToWaiting", None, Some(WAITING)), []);
        assert_eq!(possible("runtime.x", Some(WAITING), None), [Hook::Wake]);
        assert_eq!(possible("runtime.x", Some(RUNNING), None).len(), 4);
    }
}
