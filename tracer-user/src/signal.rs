//! What signals and their codes are called (signal(7), sigaction(2)). Numbers are those of x86 and AArch64.

const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];
/// The first one of real time, as the kernel counts; glibc keeps two for itself.
const FIRST_REALTIME: u32 = 32;
const LAST: u32 = 64;

/// The name of a signal by its number: `SIGTERM`, `SIGRT3` (the kernel's count, from 0), `signal 99`.
pub fn name(number: u32) -> String {
    match number {
        FIRST_REALTIME..=LAST => format!("SIGRT{}", number - FIRST_REALTIME),
        _ => {
            let index = (number as usize).checked_sub(1);
            index.and_then(|index| NAMES.get(index)).map_or_else(|| format!("signal {number}"), |name| (*name).to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the table's edges.
    #[test]
    fn names() {
        for (number, expected) in [
            (0, "signal 0"),
            (1, "SIGHUP"),
            (9, "SIGKILL"),
            (15, "SIGTERM"),
            (23, "SIGURG"),
            (31, "SIGSYS"),
            (32, "SIGRT0"),
            (64, "SIGRT32"),
            (65, "signal 65"),
        ] {
            assert_eq!(name(number), expected);
        }
    }
}
