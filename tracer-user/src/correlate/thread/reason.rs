//! Why a thread left its CPU, as far as the kernel tells.

use std::borrow::Cow;

use crate::{
    correlate::ReasonId,
    event::{Syscall, ThreadOff, WaitsOn},
    id::{Address, StackId},
};

use super::{WaitObject, syscalls};

/// Why and where a thread left its CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wait {
    pub reason: Option<ReasonId>,
    pub object: Option<WaitObject>,
    pub user_stack: Option<StackId>,
    pub kernel_stack: Option<StackId>,
}

/// What a kprobe told, in a function in which threads wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub on: WaitsOn,
    pub user_stack: Option<StackId>,
    pub kernel_stack: Option<StackId>,
}

/// Why one could run on that is off its CPU.
pub(super) const PREEMPTED: &str = "preempted";
/// It gave its CPU away.
pub(super) const YIELDED: &str = "sched_yield";

/// Bits of `task_struct.__state` (`include/linux/sched.h`).
const UNINTERRUPTIBLE: u32 = 2;
const STOPPED: u32 = 4;
const TRACED: u32 = 8;

/// Of `arch/x86/entry/syscalls/syscall_64.tbl`.
const SCHED_YIELD: u32 = 24;
const FUTEX: u32 = 202;
const RESTART: u32 = 219;
const EPOLL: [u32; 3] = [232, 281, 441];

/// Operations of futex(2) that wait, without their flags: WAIT, LOCK_PI, WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2.
const FUTEX_WAITS: [u64; 5] = [0, 6, 9, 11, 13];
const FUTEX_COMMAND: u64 = 0x7f;

/// The reason by its name: the system call, or what else keeps a thread off its CPU. `None`: nobody can tell.
pub(super) fn name(off: &ThreadOff, announced: Option<&Announced>) -> Option<Cow<'static, str>> {
    if off.preempted {
        let yielded = matches!(off.syscall, Syscall::Known { number: SCHED_YIELD, .. });
        return Some(if yielded { YIELDED } else { PREEMPTED }.into());
    }
    if off.state & STOPPED != 0 {
        return Some("stopped".into());
    }
    if off.state & TRACED != 0 {
        return Some("traced".into());
    }
    let name: Cow<'static, str> = match (announced, off.syscall) {
        (Some(Announced { on: WaitsOn::Futex(_), .. }), _) => "futex".into(),
        (Some(Announced { on: WaitsOn::Epoll, .. }), Syscall::Known { number, .. }) if number == RESTART => "epoll_wait".into(),
        (_, Syscall::None) => "fault".into(),
        (_, Syscall::Unknown) => return None,
        (_, Syscall::Known { number, .. }) => {
            syscalls::name(number).map_or_else(|| format!("syscall {number}").into(), Cow::Borrowed)
        }
    };
    Some(if off.state & UNINTERRUPTIBLE != 0 && off.syscall != Syscall::None {
        format!("{name} (uninterruptible)").into()
    } else {
        name
    })
}

/// What it waits for: as a kprobe told, else by the arguments of the system call.
pub(super) fn object(off: &ThreadOff, announced: Option<&Announced>) -> Option<WaitObject> {
    if off.preempted {
        return None;
    }
    if let Some(Announced { on: WaitsOn::Futex(address), .. }) = announced {
        return Some(WaitObject::Futex(*address));
    }
    match off.syscall {
        Syscall::Known { number: FUTEX, args: [address, operation] } if FUTEX_WAITS.contains(&(operation & FUTEX_COMMAND)) => {
            Some(WaitObject::Futex(Address(address)))
        }
        Syscall::Known { number, args: [descriptor, _] } if EPOLL.contains(&number) => Some(WaitObject::Epoll(descriptor as u32)),
        _ => None,
    }
}

/// Whether what a kprobe told can be what a thread waits for in this system call: it may have come back without waiting, and gone on.
pub(super) fn fits(announced: &Announced, off: &ThreadOff) -> bool {
    match (announced.on, off.syscall) {
        (_, Syscall::Known { number: RESTART, .. } | Syscall::Unknown) => true,
        (WaitsOn::Futex(_), Syscall::Known { number, .. }) => {
            number == FUTEX || syscalls::name(number).is_some_and(|name| name.starts_with("futex"))
        }
        (WaitsOn::Epoll, Syscall::Known { number, .. }) => EPOLL.contains(&number),
        (_, Syscall::None) => false,
    }
}
