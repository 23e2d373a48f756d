//! What the kernel at hand has, and what it is known to keep to itself (docs/limits.md).

use std::path::Path;

/// Whether kprobes can be set, as the kernel says itself (`perf_event_open(2)`).
#[must_use]
pub fn has_kprobes() -> bool {
    Path::new("/sys/bus/event_source/devices/kprobe/type").exists()
}

/// Whether it may be one that opens perf events for nobody without CAP_SYS_ADMIN, where each probe is one: Debian's and Ubuntu's before 6.6, by their default.
#[must_use]
pub fn may_close_perf() -> bool {
    let read = |name: &str| std::fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).unwrap_or_default();
    let release = read("osrelease");
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version < (6, 6) && read("perf_event_paranoid").trim().parse::<i32>().is_ok_and(|paranoid| paranoid > 2)
}

/// Whether this kind of repair comes of what the kernel tells no tracing program, although none of its records were lost: a switch from a task that
/// it keeps to itself, and, where no kprobe tells of the reaping itself, the release of a zombie's memory.
#[must_use]
pub fn keeps_to_itself(repair: &str) -> bool {
    repair.starts_with("lost_thread_") || (repair == "reaped_by_look" && !has_kprobes())
}
