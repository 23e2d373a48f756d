//! Work that is to be in nobody's way: the calling thread's nice value and its class of I/O (setpriority(2), ioprio_set(2)).

use std::io;

/// What gives way to everybody.
const NICEST: libc::c_int = 19;
/// `IOPRIO_WHO_PROCESS` and `IOPRIO_CLASS_IDLE << IOPRIO_CLASS_SHIFT` of linux/ioprio.h.
const OF_THREAD: libc::c_int = 1;
const IDLE: libc::c_int = 3 << 13;

/// Has the calling thread, and those that it starts, give way to all others. What is refused is told, and the rest is done.
pub fn give_way() -> io::Result<()> {
    // SAFETY: setpriority takes numbers alone. On Linux a nice value is a thread's own, and 0 is the thread that asks.
    let nice = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICEST) };
    let nice = if nice == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: ioprio_set takes numbers alone; 0 is the thread that asks.
    let idle = unsafe { libc::syscall(libc::SYS_ioprio_set, OF_THREAD, 0, IDLE) };
    let idle = if idle == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    nice.and(idle)
}
