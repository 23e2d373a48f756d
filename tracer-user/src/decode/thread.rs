//! The records of threads.

use tracer_common::{
    header::{Header, Kind},
    thread::{
        NO_SYSCALL, PREEMPTED, ThreadBirth, ThreadExit, ThreadOff, ThreadOn, ThreadWait, ThreadWake, UNKNOWN_SYSCALL, WAIT_EPOLL,
        WAIT_FUTEX, WAKER_INTERRUPT, WAKER_TASK, WAKER_UNKNOWN, WITH_PROCESS,
    },
};

use super::{DecodeError, bytes, nonzero, read};
use crate::{
    event::{self, Syscall, ThreadName, WaitsOn, Waker, What},
    id::{Address, StackId, Tgid, Tid},
};

pub(super) fn decode(kind: Kind, bytes: &[u8]) -> Result<What, DecodeError> {
    let malformed = DecodeError::Malformed { kind };
    Ok(match kind {
        Kind::ThreadBirth => {
            let birth: ThreadBirth = read(bytes)?;
            What::ThreadBirth { child: Tid(birth.child_tid), start_boottime_ns: birth.start_boottime_ns }
        }
        Kind::ThreadExit => {
            let exit: ThreadExit = read(bytes)?;
            What::ThreadExit {
                exit_code: exit.exit_code,
                with_process: exit.flags & WITH_PROCESS != 0,
                name: ThreadName(exit.comm),
            }
        }
        Kind::ThreadOff => {
            let off: ThreadOff = read(bytes)?;
            What::ThreadOff(event::ThreadOff {
                state: off.state,
                preempted: off.flags & PREEMPTED != 0,
                syscall: match off.syscall {
                    NO_SYSCALL => Syscall::None,
                    number => u32::try_from(number).map_or(Syscall::Unknown, |number| Syscall::Known { number, args: off.args }),
                },
                kernel_stack: nonzero(off.kernel_stack_id).map(StackId),
                user_stack: nonzero(off.user_stack_id).map(StackId),
            })
        }
        Kind::ThreadOn => {
            read::<ThreadOn>(bytes)?;
            What::ThreadOn
        }
        Kind::ThreadWake => {
            let wake: ThreadWake = read(bytes)?;
            What::ThreadWake {
                tgid: Tgid(wake.woken_tgid),
                tid: Tid(wake.woken_tid),
                waker: match wake.waker {
                    WAKER_UNKNOWN => Waker::Unknown,
                    WAKER_TASK => Waker::Task,
                    WAKER_INTERRUPT => Waker::Interrupt,
                    _ => return Err(malformed),
                },
            }
        }
        Kind::ThreadWait => {
            let wait: ThreadWait = read(bytes)?;
            What::ThreadWait {
                on: match wait.what {
                    WAIT_FUTEX => WaitsOn::Futex(Address(wait.object)),
                    WAIT_EPOLL => WaitsOn::Epoll,
                    _ => return Err(malformed),
                },
                kernel_stack: nonzero(wait.kernel_stack_id).map(StackId),
                user_stack: nonzero(wait.user_stack_id).map(StackId),
            }
        }
        _ => return Err(DecodeError::UnknownKind { kind: kind as u8 }),
    })
}

/// Nothing for an event that is not of these.
pub(super) fn encode(what: &What, header: impl Fn(Kind) -> Header) -> Vec<u8> {
    match what {
        What::ThreadBirth { child, start_boottime_ns } => {
            let header = header(Kind::ThreadBirth);
            bytes(&ThreadBirth { header, start_boottime_ns: *start_boottime_ns, child_tid: child.0, _pad: 0 })
        }
        What::ThreadExit { exit_code, with_process, name } => {
            let flags = if *with_process { WITH_PROCESS } else { 0 };
            bytes(&ThreadExit { header: header(Kind::ThreadExit), exit_code: *exit_code, flags, comm: name.0 })
        }
        What::ThreadOff(off) => {
            let (syscall, args) = match off.syscall {
                Syscall::Unknown => (UNKNOWN_SYSCALL, [0; 2]),
                Syscall::None => (NO_SYSCALL, [0; 2]),
                Syscall::Known { number, args } => (i32::try_from(number).unwrap_or(UNKNOWN_SYSCALL), args),
            };
            bytes(&ThreadOff {
                header: header(Kind::ThreadOff),
                kernel_stack_id: off.kernel_stack.map_or(0, |id| id.0),
                user_stack_id: off.user_stack.map_or(0, |id| id.0),
                state: off.state,
                flags: if off.preempted { PREEMPTED } else { 0 },
                syscall,
                _pad: 0,
                args,
            })
        }
        What::ThreadOn => bytes(&ThreadOn { header: header(Kind::ThreadOn) }),
        What::ThreadWake { tgid, tid, waker } => bytes(&ThreadWake {
            header: header(Kind::ThreadWake),
            woken_tgid: tgid.0,
            woken_tid: tid.0,
            waker: match waker {
                Waker::Unknown => WAKER_UNKNOWN,
                Waker::Task => WAKER_TASK,
                Waker::Interrupt => WAKER_INTERRUPT,
            },
            _pad: 0,
        }),
        What::ThreadWait { on, kernel_stack, user_stack } => {
            let (what, object) = match on {
                WaitsOn::Futex(address) => (WAIT_FUTEX, address.0),
                WaitsOn::Epoll => (WAIT_EPOLL, 0),
            };
            bytes(&ThreadWait {
                header: header(Kind::ThreadWait),
                kernel_stack_id: kernel_stack.map_or(0, |id| id.0),
                user_stack_id: user_stack.map_or(0, |id| id.0),
                object,
                what,
                _pad: 0,
            })
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One event of each kind, and of each form that it may have.
    pub fn every() -> Vec<What> {
        let (kernel_stack, user_stack) = (Some(StackId(8)), None);
        let off = event::ThreadOff { state: 1, preempted: false, syscall: Syscall::None, kernel_stack, user_stack };
        let wake = |waker| What::ThreadWake { tgid: Tgid(50), tid: Tid(51), waker };
        vec![
            What::ThreadBirth { child: Tid(51), start_boottime_ns: 5 },
            What::ThreadExit { exit_code: 9, with_process: true, name: ThreadName(*b"worker\0\0\0\0\0\0\0\0\0\0") },
            What::ThreadOff(off),
            What::ThreadOff(event::ThreadOff { syscall: Syscall::Unknown, state: 0, preempted: true, ..off }),
            What::ThreadOff(event::ThreadOff { syscall: Syscall::Known { number: 202, args: [0x7f00, 128] }, ..off }),
            What::ThreadOn,
            wake(Waker::Unknown),
            wake(Waker::Task),
            wake(Waker::Interrupt),
            What::ThreadWait { on: WaitsOn::Futex(Address(0x7f00)), kernel_stack, user_stack },
            What::ThreadWait { on: WaitsOn::Epoll, kernel_stack: None, user_stack: Some(StackId(3)) },
        ]
    }
}
