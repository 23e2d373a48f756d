//! What this kernel and our privileges allow: the facts behind `doctor` and behind a refusal.

use std::{
    fs, io,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use serde::Serialize;

use super::{offsets::VMLINUX_BTF, usdt::PERF_FLAG_FD_CLOEXEC};

/// Bit numbers of `linux/capability.h`.
const CAPABILITIES: [(&str, u32); 5] =
    [("CAP_SYS_ADMIN", 21), ("CAP_SYS_PTRACE", 19), ("CAP_DAC_READ_SEARCH", 2), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// One thing that lifetrace needs or can use.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub ok: bool,
    /// Whether `run` is impossible without it.
    pub required: bool,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where it is fine.
    pub advice: String,
}

/// The release of the running kernel (`uname -r`).
pub fn kernel_release() -> String {
    nix::sys::utsname::uname().map_or_else(|_| "unknown".into(), |name| name.release().to_string_lossy().into_owned())
}

/// The host's name.
pub fn hostname() -> String {
    nix::sys::utsname::uname().map_or_else(|_| "unknown".into(), |name| name.nodename().to_string_lossy().into_owned())
}

/// How many CPUs are online, whatever of them is ours; at least one.
pub fn online_cpus() -> u32 {
    let online = aya::util::online_cpus().map_or(1, |cpus| cpus.len());
    u32::try_from(online).unwrap_or(u32::MAX).max(1)
}

/// Whether we may load BPF programs and set probes: the refusal that `run` gives otherwise.
pub fn missing_privilege() -> Option<String> {
    let effective = effective_capabilities()?;
    let has = |bit: u32| effective & (1 << bit) != 0;
    let admin = has(21);
    if !admin && has(38) && has(39) && perf_is_closed() {
        return Some(format!(
            "this kernel ({}) sets probes for nobody without CAP_SYS_ADMIN while kernel.perf_event_paranoid is above 2: \
             set it to 2, or give lifetrace that capability",
            kernel_release()
        ));
    }
    if admin || (has(38) && has(39)) {
        return None;
    }
    Some(
        "lifetrace needs root, or CAP_BPF and CAP_PERFMON (and CAP_SYS_ADMIN for following execs): try `sudo lifetrace …`"
            .to_owned(),
    )
}

/// Whether the calling thread, whatever rights it has, may open no perf event, and each probe is one: kernels of Debian and Ubuntu want
/// CAP_SYS_ADMIN where `kernel.perf_event_paranoid` is above 2, as it is there by default (`perf_event_open` in their `kernel/events/core.c`; others
/// know nothing above 2). From Linux 6.6 on probes are links of many, and no perf events.
pub(super) fn perf_is_closed() -> bool {
    let release = kernel_release();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 6) {
        return false;
    }
    // `struct perf_event_attr` as it was first (PERF_ATTR_SIZE_VER0): the software clock of this thread, disabled.
    const SIZE: u64 = 64;
    let attr: [u64; 8] = [1 | SIZE << 32, 0, 0, 0, 0, 1, 0, 0];
    // SAFETY: the kernel reads as many bytes as the attribute says it has; the descriptor is ours to close.
    let opened = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), 0, -1, -1, PERF_FLAG_FD_CLOEXEC) };
    if opened < 0 {
        return io::Error::last_os_error().raw_os_error() == Some(libc::EACCES);
    }
    // SAFETY: as above.
    drop(unsafe { OwnedFd::from_raw_fd(opened as i32) });
    false
}

fn effective_capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Whether no file is closed to us.
pub fn may_open_every_file() -> bool {
    // CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    effective_capabilities().is_some_and(|held| held & (1 << 1 | 1 << 2) != 0)
}

/// Whether we live in the initial pid namespace, whose numbers the BPF side sees. Its inode is fixed
/// (`include/uapi/linux/nsfs.h`, PROC_PID_INIT_INO).
pub fn in_initial_pid_namespace() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|meta| meta.ino() == 0xEFFF_FFFC)
}

/// What this kernel lacks of all that cannot be done without.
pub fn missing_in_kernel() -> Option<Check> {
    [btf, uprobes, ring_buffer, attach_cookies].into_iter().map(|check| check()).find(|check| !check.ok)
}

/// Every check, cheapest first. Changes nothing.
pub fn checks() -> Vec<Check> {
    let mut checks = vec![capabilities(), pid_namespace(), btf()];
    checks.push(uprobes());
    checks.push(device(
        "kprobes",
        "/sys/bus/event_source/devices/kprobe/type",
        false,
        "facts without a tracepoint fall back; a kernel with CONFIG_KPROBE_EVENTS has them",
    ));
    checks.push(ring_buffer());
    checks.push(attach_cookies());
    checks.push(fanotify());
    checks.push(network_namespaces());
    checks
}

fn capabilities() -> Check {
    let effective = effective_capabilities().unwrap_or(0);
    let held: Vec<&str> = CAPABILITIES.iter().filter(|(_, bit)| effective & (1 << bit) != 0).map(|(name, _)| *name).collect();
    let missing = missing_privilege();
    Check {
        name: "capabilities",
        ok: missing.is_none(),
        required: true,
        found: if held.is_empty() { "none of those that matter".into() } else { held.join(" ") },
        advice: missing.unwrap_or_default(),
    }
}

fn pid_namespace() -> Check {
    let ok = in_initial_pid_namespace();
    Check {
        name: "pid namespace",
        ok,
        required: true,
        found: if ok { "the initial one" } else { "one of a container" }.to_owned(),
        advice: if ok { String::new() } else { "run on the host, or in a container with the host's pid namespace".into() },
    }
}

fn btf() -> Check {
    let size = fs::metadata(VMLINUX_BTF).map(|meta| meta.len());
    Check {
        name: "BTF",
        ok: size.is_ok(),
        required: false,
        found: size.as_ref().map_or_else(|_| format!("no {VMLINUX_BTF}"), |size| format!("{VMLINUX_BTF}, {size} bytes")),
        advice: if size.is_ok() {
            String::new()
        } else {
            "classic tracepoints serve (tracefs must be mounted): no exit codes, no start times, no parents of orphans; a kernel with \
             CONFIG_DEBUG_INFO_BTF tells them"
                .into()
        },
    }
}

fn uprobes() -> Check {
    device("uprobes", "/sys/bus/event_source/devices/uprobe/type", true, "a kernel with CONFIG_UPROBE_EVENTS")
}

fn device(name: &'static str, path: &str, required: bool, advice: &str) -> Check {
    let ok = Path::new(path).exists();
    Check {
        name,
        ok,
        required,
        found: if ok { path.to_owned() } else { format!("no {path}") },
        advice: if ok { String::new() } else { advice.to_owned() },
    }
}

fn ring_buffer() -> Check {
    let supported = aya::sys::is_map_supported(aya::maps::MapType::RingBuf);
    let ok = matches!(supported, Ok(true));
    Check {
        name: "ring buffer",
        ok,
        required: true,
        found: match supported {
            Ok(true) => "BPF_MAP_TYPE_RINGBUF".into(),
            Ok(false) => "not in this kernel".into(),
            Err(error) => error.to_string(),
        },
        advice: if ok { String::new() } else { "Linux 5.8 or later, and the privilege to make BPF maps".into() },
    }
}

fn attach_cookies() -> Check {
    let ok = aya::features().bpf_cookie();
    Check {
        name: "attach cookies",
        ok,
        required: true,
        found: if ok { "bpf_get_attach_cookie".into() } else { "not found".into() },
        advice: if ok { String::new() } else { "Linux 5.15 or later".into() },
    }
}

/// Whether `--pprof auto` can follow a process into its own network namespace.
fn network_namespaces() -> Check {
    let ok = effective_capabilities().is_some_and(|held| held & (1 << 21) != 0);
    Check {
        name: "other networks",
        ok,
        required: false,
        found: if ok { "CAP_SYS_ADMIN: --pprof auto asks in any network namespace" } else { "no CAP_SYS_ADMIN" }.into(),
        advice: if ok {
            String::new()
        } else {
            "--pprof auto asks processes of our own network namespace only; of others the memory is read, or give a URL".into()
        },
    }
}

fn fanotify() -> Check {
    use nix::{
        fcntl::AT_FDCWD,
        sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags},
    };
    let tried = Fanotify::init(InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC, EventFFlags::O_RDONLY)
        // An inode mark on our own program: nobody waits for it, and it goes with the descriptor.
        .and_then(|group| group.mark(MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_EXEC_PERM, AT_FDCWD, Some("/proc/self/exe")));
    Check {
        name: "exec gate",
        ok: tried.is_ok(),
        required: false,
        found: tried.as_ref().map_or_else(|error| format!("fanotify: {error}"), |_| "fanotify permission events".into()),
        advice: if tried.is_ok() {
            String::new()
        } else {
            "without CAP_SYS_ADMIN and CONFIG_FANOTIFY_ACCESS_PERMISSIONS a child's first goroutines may be missed".into()
        },
    }
}
