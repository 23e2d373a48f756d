//! Which container and which Kubernetes pod a cgroup is, by its path. Pure: a path in, names out.
//!
//! Sources: the cgroup managers of runc and crun (`libcontainer/cgroups`: with systemd `PREFIX-ID.scope`, without it a folder `ID`), and
//! the kubelet's (`pkg/kubelet/cm/cgroup_manager_linux.go`: `kubepods-burstable-podUID.slice` with `_` for `-`, or `/kubepods/burstable/podUID`).

/// A container by its cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits, as the runtime's own tools show it.
    pub id: Option<String>,
    /// `containerd`, `cri-o`, `docker`, `podman`; `None` where the path does not tell.
    pub runtime: Option<&'static str>,
    /// Of the Kubernetes pod, as the API server writes it (with dashes; a static pod's is 32 digits).
    pub pod_uid: Option<String>,
}

/// Digits of an id.
const ID_DIGITS: usize = 64;
/// How runtimes mark their scopes.
const SCOPES: [(&str, &str); 5] = [
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "cri-o"),
    ("docker-", "docker"),
    ("libpod-", "podman"),
];
/// What helps a container along, in a cgroup of its own beside it.
const HELPERS: [&str; 2] = ["conmon-", "payload-"];
/// Longer paths are not cgroups (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// Reads a path within a hierarchy, as `/proc/PID/cgroup` gives it. `None`: it is no container's.
///
/// The innermost container counts: in Docker within Kubernetes that is Docker's.
pub fn of_path(path: &str) -> Option<Container> {
    if path.len() > MAX_PATH {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let pod_uid = parts.iter().rev().find_map(|part| pod_uid(part));
    let found = parts.iter().enumerate().rev().find_map(|(index, part)| {
        let before = &parts[..index];
        container(part, before).map(|(id, runtime)| (id.to_owned(), runtime))
    });
    match (found, pod_uid) {
        (None, None) => None,
        (None, pod_uid) => Some(Container { pod_uid, ..Container::default() }),
        (Some((id, runtime)), pod_uid) => Some(Container { id: Some(id), runtime, pod_uid }),
    }
}

/// The id that a part of a path names, and whose it is.
fn container<'a>(part: &'a str, before: &[&str]) -> Option<(&'a str, Option<&'static str>)> {
    if HELPERS.iter().any(|helper| part.contains(helper)) {
        return None;
    }
    let name = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, runtime) in SCOPES {
        if let Some(id) = name.strip_prefix(prefix).and_then(|rest| rest.get(..ID_DIGITS)).filter(|id| is_id(id)) {
            // Behind an id CRI-O and podman may say more (`libpod-ID.scope/container`, `crio-ID-pause`).
            let rest = &name[prefix.len() + ID_DIGITS..];
            return (rest.is_empty() || rest.starts_with(['-', '.'])).then_some((id, Some(runtime)));
        }
    }
    // containerd without systemd in a pod of its own kind: `…:cri-containerd:ID`.
    if let Some((left, id)) = name.rsplit_once(':').filter(|(_, id)| is_id(id)) {
        let runtime = if left.ends_with("cri-containerd") { "containerd" } else { "cri-o" };
        return Some((id, Some(runtime).filter(|_| left.ends_with("cri-containerd") || left.ends_with("crio"))));
    }
    if !is_id(name) {
        return None;
    }
    // A folder `ID` below one that names its namespace, or its owner.
    let runtime = match before.last() {
        Some(&"docker") => Some("docker"),
        Some(&"libpod_parent" | &"libpod") => Some("podman"),
        // containerd's own namespaces are the first folder: `/default/ID`, `/k8s.io/ID`.
        Some(_) if before.len() == 1 => Some("containerd"),
        _ => None,
    };
    Some((name, runtime))
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Of `kubepods-burstable-podUID.slice`, `kubepods-podUID.slice` or `podUID`.
fn pod_uid(part: &str) -> Option<String> {
    let name = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match name.strip_prefix("kubepods") {
        Some(rest) => &rest[rest.find("-pod")? + "-pod".len()..],
        None => name.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let dashed = uid.len() == 36
        && uid.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    let plain = uid.len() == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit());
    (dashed || plain).then_some(uid)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "0d6a2f5c-1b3e-4c8d-9f00-aa11bb22cc33";

    /// Check the paths that each runtime makes, in both versions, with and without systemd, and nested.
    #[test]
    fn runtimes() {
        let under = UID.replace('-', "_");
        let other = ID.replace('0', "f");
        let cases: Vec<(String, Option<&str>, Option<&str>)> = vec![
            (
                format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope"),
                Some("containerd"),
                Some(UID),
            ),
            (format!("/kubepods.slice/kubepods-pod{under}.slice/cri-containerd-{ID}.scope"), Some("containerd"), Some(UID)),
            (format!("/kubepods/burstable/pod{UID}/{ID}"), None, Some(UID)),
            (format!("/kubepods/besteffort/pod{UID}/crio-{ID}"), Some("cri-o"), Some(UID)),
            (
                format!(
                    "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/crio-{ID}.scope/container"
                ),
                Some("cri-o"),
                Some(UID),
            ),
            (
                format!("/system.slice/containerd.service/kubepods-burstable-pod{under}.slice:cri-containerd:{ID}"),
                Some("containerd"),
                None,
            ),
            (format!("/system.slice/docker-{ID}.scope"), Some("docker"), None),
            (format!("/docker/{ID}"), Some("docker"), None),
            (format!("/docker/{ID}/init.scope"), Some("docker"), None),
            (format!("/default/{ID}"), Some("containerd"), None),
            (format!("/k8s.io/{ID}"), Some("containerd"), None),
            (format!("/machine.slice/libpod-{ID}.scope/container"), Some("podman"), None),
            (format!("/libpod_parent/libpod-{ID}"), Some("podman"), None),
            (format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"), Some("podman"), None),
            // Docker within Kubernetes: the innermost.
            (format!("/kubepods/burstable/pod{UID}/{other}/docker/{ID}"), Some("docker"), Some(UID)),
        ];
        for (path, runtime, pod) in cases {
            let found = of_path(&path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((found.id.as_deref(), found.runtime, found.pod_uid.as_deref()), (Some(ID), runtime, pod), "{path}");
        }
    }

    /// Check that other cgroups are no containers, and that a pod's own is a pod's.
    #[test]
    fn others() {
        for path in [
            "",
            "/",
            "/user.slice/user-0.slice/session-3.scope",
            "/system.slice/podman.service",
            "/kubepods.slice/kubepods-burstable.slice",
            "/pods/podcast",
            &format!("/x-{ID}0.scope"),
            &format!("/{}", &ID[1..]),
            &format!("/{}", ID.to_uppercase()),
            &format!("/machine.slice/libpod-conmon-{ID}.scope"),
            &format!("/docker-{ID}0.scope"),
            &"/".repeat(MAX_PATH + 1),
        ] {
            assert_eq!(of_path(path), None, "{path}");
        }
        let pod = of_path(&format!("/kubepods/pod{UID}")).unwrap();
        assert_eq!((pod.id, pod.pod_uid.as_deref()), (None, Some(UID)));
        let fixed = of_path("/kubepods/burstable/pod0123456789abcdef0123456789abcdef").unwrap();
        assert_eq!(fixed.pod_uid.as_deref(), Some("0123456789abcdef0123456789abcdef"));
    }

    proptest! {
        /// Check that no path makes it panic, and that ids are ids.
        #[test]
        fn any_path(path in "\\PC{0,200}|(/?(kubepods|docker|crio|libpod|cri-containerd|:|-|_|pod|é|\\.scope|\\.slice|[0-9a-f]{60,66})){0,8}") {
            if let Some(found) = of_path(&path) {
                prop_assert!(found.id.as_deref().is_none_or(is_id));
                prop_assert!(found.id.is_some() || found.pod_uid.is_some());
            }
        }
    }
}
