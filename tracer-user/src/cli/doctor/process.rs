//! What can be done with a running process: its rights, its namespaces, and whether it bears the offsets out.

use std::{fs, io, os::unix::fs::MetadataExt};

use serde::Serialize;

use super::{Ability, pprof};
use crate::{
    container,
    golang::GoBinary,
    id::Tgid,
    kernel::features,
    snapshot::{
        process::{ProcessError, verify},
        self_check::Doubt,
    },
};

#[derive(Serialize)]
pub struct ProcessReport {
    pub pid: u32,
    /// Its numbers from our pid namespace inwards: the last is what it calls itself.
    pub namespace_pids: Vec<u32>,
    pub container_id: Option<String>,
    /// `null`: it could not be checked; `works` says why.
    pub bears_out: Option<bool>,
    pub works: Vec<Ability>,
}

/// Looks at a process, which runs on.
pub fn examine(tgid: Tgid, code: Option<&GoBinary>) -> ProcessReport {
    let status = fs::read_to_string(format!("/proc/{tgid}/status")).unwrap_or_default();
    let namespace_pids = namespace_pids(&status);
    let container_id = fs::read_to_string(format!("/proc/{tgid}/cgroup")).ok().and_then(|text| container_id(&text));
    let mut works = vec![attach(code), pid_namespace(tgid, &namespace_pids), mount_namespace(tgid, container_id.as_deref())];
    let mut bears_out = None;
    if let Some(code) = code {
        let checked = verify(tgid, code);
        bears_out = match &checked {
            Ok(_) => Some(true),
            Err(ProcessError::Doubted { source: Doubt::Contradicted { .. }, .. }) => Some(false),
            Err(_) => None,
        };
        works.push(memory(&checked));
        works.extend(self_check(&checked));
        works.push(pprof::served(tgid));
    }
    ProcessReport { pid: tgid.0, namespace_pids, container_id, bears_out, works }
}

/// `NSpid:` of proc_pid_status(5).
fn namespace_pids(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    line.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// By the lines of `/proc/PID/cgroup`.
fn container_id(cgroup: &str) -> Option<String> {
    let paths = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.filter_map(container::of_path).find_map(|container| container.id)
}

fn attach(code: Option<&GoBinary>) -> Ability {
    match (features::missing_privilege(), features::in_initial_pid_namespace(), code) {
        (Some(missing), ..) => Ability::no("probes", "not with our privileges".to_owned(), &missing),
        (None, false, _) => Ability::no(
            "probes",
            "we live in a pid namespace of our own".to_owned(),
            "run on the host, or in a container with the host's pid namespace",
        ),
        (None, true, None) => Ability::no("probes", "it runs no Go program".to_owned(), "give the Go program's own process"),
        (None, true, Some(_)) => Ability::yes("probes", "our privileges allow them".to_owned()),
    }
}

fn same_namespace(tgid: Tgid, kind: &str) -> io::Result<bool> {
    let of = |whose: &str| fs::metadata(format!("/proc/{whose}/ns/{kind}")).map(|meta| (meta.dev(), meta.ino()));
    Ok(of(&tgid.to_string())? == of("self")?)
}

fn pid_namespace(tgid: Tgid, numbers: &[u32]) -> Ability {
    match (same_namespace(tgid, "pid"), numbers.last()) {
        (Ok(true), _) => Ability::yes("pid namespace", "ours".to_owned()),
        (Ok(false), Some(own)) => Ability::yes("pid namespace", format!("its own: it calls itself {own}, lifetrace says {tgid}")),
        (Ok(false), None) => Ability::yes("pid namespace", "its own".to_owned()),
        (Err(error), _) => Ability::no("pid namespace", format!("cannot be told: {error}"), "run as root"),
    }
}

fn mount_namespace(tgid: Tgid, container: Option<&str>) -> Ability {
    let inside = container.map(|id| format!(" (container {})", &id[..12])).unwrap_or_default();
    match same_namespace(tgid, "mnt") {
        Ok(true) => Ability::yes("mount namespace", format!("ours{inside}")),
        Ok(false) => Ability {
            what: "mount namespace",
            ok: true,
            found: format!("its own{inside}: its program is read through /proc/{tgid}/exe"),
            advice: "programs that it executes from file systems never seen out here may be probed late".to_owned(),
        },
        Err(error) => Ability::no("mount namespace", format!("cannot be told: {error}"), "run as root"),
    }
}

/// Whether a snapshot may read its memory.
fn memory(checked: &Result<crate::snapshot::self_check::Borne, ProcessError>) -> Ability {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let scope = match scope.trim() {
        "" => String::new(),
        scope => format!(" (yama ptrace_scope {scope})"),
    };
    match checked {
        Ok(_) | Err(ProcessError::Doubted { .. }) => {
            Ability::yes("memory", format!("can be read{scope}: a snapshot is possible"))
        }
        Err(error) => Ability::no("memory", format!("{error}{scope}"), "run as root, or with CAP_SYS_PTRACE"),
    }
}

fn self_check(checked: &Result<crate::snapshot::self_check::Borne, ProcessError>) -> Option<Ability> {
    match checked {
        Ok(by) => {
            let on_threads = match by.threads {
                0 => "none of them on a thread just now".to_owned(),
                some => format!("{some} of them on a thread that leads back to them"),
            };
            Some(Ability::yes("self-check", format!("{} goroutines bear the offsets out, {on_threads}", by.goroutines)))
        }
        Err(ProcessError::Doubted { source: Doubt::NotYet, .. }) => {
            Some(Ability::no("self-check", "it has too few goroutines yet".to_owned(), "try again when it has begun its work"))
        }
        Err(ProcessError::Doubted { source, .. }) => Some(Ability::no(
            "self-check",
            format!("the process contradicts the offsets: {source}"),
            "nothing of its goroutines can be believed: the binary is not what it says it is; processes can be followed (T0)",
        )),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that container ids are found in the cgroup lines of the usual engines, and nowhere else.
    #[test]
    fn container_ids() {
        let id = "0123456789abcdef".repeat(4);
        for line in [
            format!("0::/system.slice/docker-{id}.scope"),
            format!("0::/kubepods.slice/kubepods-besteffort.slice/cri-containerd-{id}.scope"),
            format!("12:pids:/docker/{id}\n11:cpu:/docker/{id}"),
            format!("0::/machine.slice/libpod-{id}.scope/container"),
        ] {
            assert_eq!(container_id(&line).as_deref(), Some(id.as_str()), "{line}");
        }
        for line in ["", "0::/", "0::/user.slice/user-0.slice/session-3.scope", &format!("0::/x-{id}0.scope")] {
            assert_eq!(container_id(line), None, "{line}");
        }
    }

    /// Check that the numbers of a process in nested namespaces are read, outermost first.
    #[test]
    fn numbers_in_namespaces() {
        assert_eq!(namespace_pids("Name:\tx\nNSpid:\t4711\t12\t1\nNSpgid:\t9\n"), [4711, 12, 1]);
        assert!(namespace_pids("").is_empty());
    }
}
