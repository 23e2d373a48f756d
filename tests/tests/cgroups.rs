//! Cgroups: containers, quotas, memory that runs out. Each test takes the hierarchy that this machine has for a controller.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use lifetrace_tests::{
    deadline::{PATIENCE, wait_for},
    life::{Lives, rows},
    lifetrace::{Run, binary, command_through},
    process::run,
    recording::Recording,
    scenario::{Need, alone, skip},
};
use tempfile::TempDir;

/// A cgroup of one controller that goes with the test.
struct Group {
    /// Of its hierarchy.
    mount: PathBuf,
    /// As it is mounted with them.
    controllers: String,
    path: PathBuf,
    /// Within its hierarchy.
    within: String,
    unified: bool,
}

impl Group {
    /// Makes a cgroup for a controller; `None` where there is none, as where that controller is not to be had.
    fn new(controller: &str, within: &str) -> Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mount = |kind: &str, option: &str| {
            mounts.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                let has = option.is_empty() || fields.get(3)?.split(',').any(|one| one == option);
                let controllers = fields.get(3)?.split(',').filter(|one| one.starts_with(option)).collect::<Vec<_>>();
                (fields.get(2)? == &kind && has).then(|| (PathBuf::from(fields[1]), controllers.join(",")))
            })
        };
        let ((mount, controllers), unified) = match (mount("cgroup", controller), mount("cgroup2", "")) {
            (Some(mount), _) => (mount, false),
            (None, Some((mount, controllers))) => {
                let all = fs::read_to_string(mount.join("cgroup.controllers"))?;
                if !all.split_whitespace().any(|one| one == controller) {
                    return Ok(None);
                }
                ((mount, controllers), true)
            }
            (None, None) => return Ok(None),
        };
        let path = mount.join(within);
        let mut above = mount.clone();
        for part in Path::new(within).components() {
            if unified {
                fs::write(above.join("cgroup.subtree_control"), format!("+{controller}"))?;
            }
            above.push(part);
            if !above.is_dir() {
                fs::create_dir(&above).with_context(|| format!("cannot make {}", above.display()))?;
            }
        }
        Ok(Some(Self { mount, controllers, path, within: format!("/{within}"), unified }))
    }

    fn set(&self, one: (&str, &str), two: (&str, &str)) -> Result<()> {
        let (file, value) = if self.unified { two } else { one };
        fs::write(self.path.join(file), value).with_context(|| format!("cannot write {file}"))
    }

    /// By the kernel's own count.
    fn throttled_ns(&self) -> Result<u64> {
        let stat = fs::read_to_string(self.path.join("cpu.stat"))?;
        let value = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        value("throttled_time ").or(value("throttled_usec ").map(|us| us * 1000)).context("no count of throttling")
    }

    /// A script that moves into the cgroup and then does something.
    fn script(&self, then: &str) -> String {
        format!("echo $$ > {}/cgroup.procs && {then}", self.path.display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its last process may still be on its way out; what lies above it may be others'.
        let _ = wait_for("the cgroup to be empty", PATIENCE, || Ok(fs::remove_dir(&self.path).ok()));
        for above in
            Path::new(self.within.trim_start_matches('/')).ancestors().skip(1).filter(|path| !path.as_os_str().is_empty())
        {
            let depth = Path::new(self.within.trim_start_matches('/')).components().count() - above.components().count();
            let _ = self.path.ancestors().nth(depth).map(fs::remove_dir);
        }
    }
}

const UID: &str = "0d6a2f5c-1b3e-4c8d-9f00-aa11bb22cc33";

/// Check that a process, and a child that lives for a moment, carry the container and the pod that their cgroup's path names.
#[test]
fn containers() -> Result<()> {
    alone(&[Need::Root], || {
        let id = format!("{:064x}", std::process::id());
        let Some(group) = Group::new("memory", &format!("kubepods/burstable/pod{UID}/{id}"))? else {
            return skip("no memory controller");
        };
        let (finished, recording) = Run::of("sh").args(["-c", &group.script("/bin/true; sh -c 'exit 3'; exit 0")]).finish()?;
        finished.expect_code(0)?;
        let lives = Lives::of(&recording)?;
        assert_eq!(lives.processes.len(), 3);
        for life in &lives.processes {
            assert_eq!((life.container_id.as_ref(), life.pod_uid.as_deref()), (Some(&id), Some(UID)), "{life:?}");
            assert_eq!(life.cgroup.as_deref(), Some(group.within.as_str()));
        }
        let moved = rows(&recording, None)?.into_iter().find(|row| row.event.as_deref() == Some("cgroup"));
        assert_eq!(moved.and_then(|row| row.cgroup).as_deref(), Some(group.within.as_str()));
        Ok(())
    })
}

/// Check that a cgroup which uses up its CPU quota is told of as throttled, on the timeline of its process and in the report, with no more
/// than the kernel's own count.
#[test]
fn throttled() -> Result<()> {
    alone(&[Need::Root], || {
        let Some(group) = Group::new("cpu", &format!("lifetrace-quota-{}", std::process::id()))? else {
            return skip("no cpu controller");
        };
        if group.set(("cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 100000")).is_err() {
            return skip("no CPU quota in this kernel");
        }
        let script = group.script("exec timeout 8 sh -c 'while :; do :; done'");
        let (finished, recording) = Run::of("sh").args(["-c", &script]).finish()?;
        // busybox has a timeout of its own.
        let code = finished.status.code();
        assert!(matches!(code, Some(124 | 143)), "{code:?}");
        let truth = group.throttled_ns()?;
        let lives = Lives::of(&recording)?;
        let told =
            lives.cgroups.iter().find(|cgroup| cgroup.cpu_path.as_deref() == Some(&group.within)).context("no such cgroup")?;
        assert_eq!(told.quota_ns, Some(20_000_000));
        let throttled = told.throttled_ns.unwrap_or(0);
        println!("throttled for {throttled} of {truth} ns");
        assert!(throttled > 0 && throttled <= truth, "{throttled} of {truth}");
        let process =
            lives.processes.iter().find(|life| life.throttled_ns.is_some_and(|ns| ns > 0)).context("nobody is throttled")?;
        let all = rows(&recording, Some(&format!("pid:{}", process.tgid)))?;
        let rows: Vec<_> = all.iter().filter(|row| row.event.as_deref() == Some("throttled")).collect();
        assert_eq!(rows.iter().filter_map(|row| row.throttled_ns).sum::<u64>(), process.throttled_ns.unwrap_or(0));
        assert!(rows.iter().all(|row| row.start_ns < row.end_ns && row.cgroup.as_deref() == Some(&group.within)));
        Ok(())
    })
}

/// Check that what a cgroup bears is known from within a cgroup namespace that does not hold it, as an agent in a container is in.
#[test]
fn throttled_elsewhere() -> Result<()> {
    alone(&[Need::Root, Need::Command("unshare")], || {
        let name = format!("lifetrace-node-{}", std::process::id());
        let Some(own) = Group::new("cpu", &format!("{name}/agent/container"))? else { return skip("no cpu controller") };
        let group = Group::new("cpu", &format!("{name}/pod"))?.context("there was one just now")?;
        if group.set(("cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 100000")).is_err() {
            return skip("no CPU quota in this kernel");
        }
        let recording = Recording::in_dir(TempDir::new()?);
        let kind = if own.unified { "cgroup2".to_owned() } else { format!("cgroup -o {}", own.controllers) };
        let mount = own.mount.display();
        let within = format!("umount {mount} && mount -t {kind} lifetrace-test {mount} && exec \"$@\"");
        let script = own.script("exec unshare --cgroup --mount sh -c \"$0\" sh \"$@\"");
        let busy =
            format!("echo $$ > /proc/2/root{}/cgroup.procs && exec timeout 8 sh -c 'while :; do :; done'", group.path.display());
        let mut command = command_through("sh");
        command.args(["-c", &script, &within]).arg(binary()).args(["run", "-o"]).arg(recording.path());
        command.args(["--", "sh", "-c", &busy]);
        let finished = run(command)?;
        let code = finished.status.code();
        assert!(matches!(code, Some(124 | 143)), "{code:?} {}", finished.stderr);
        let lives = Lives::of(&recording)?;
        let seen = lives.cgroups.iter().find(|cgroup| cgroup.cpu_path.as_deref() == Some(&group.within));
        let seen = seen.with_context(|| format!("{:?}", lives.cgroups))?;
        assert_eq!(seen.quota_ns, Some(20_000_000));
        assert!(seen.throttled_ns.is_some_and(|ns| ns > 0 && ns <= group.throttled_ns().unwrap_or(0)), "{seen:?}");
        Ok(())
    })
}

/// Check that a process which is killed because its cgroup's memory ran out is told of as such.
#[test]
fn out_of_memory() -> Result<()> {
    alone(&[Need::Root], || {
        let Some(group) = Group::new("memory", &format!("lifetrace-oom-{}", std::process::id()))? else {
            return skip("no memory controller");
        };
        group.set(("memory.limit_in_bytes", "33554432"), ("memory.max", "33554432"))?;
        let script = group.script("sleep 5; tail /dev/zero; exit 0");
        let (finished, recording) = Run::of("sh").args(["-c", &script]).finish()?;
        finished.expect_code(0)?;
        let count = |file: &str, name: &str| -> Result<u64> {
            let text = fs::read_to_string(group.path.join(file))?;
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            value.with_context(|| format!("no {name} in {file}: {text}"))
        };
        let (hits, kills) = match group.unified {
            true => (count("memory.events", "max ")?, count("memory.events", "oom_kill ")?),
            false => (count("memory.failcnt", "")?, count("memory.oom_control", "oom_kill ")?),
        };
        let lives = Lives::of(&recording)?;
        let told = lives.cgroups.iter().find(|cgroup| cgroup.memory_path.as_deref() == Some(&group.within));
        let told = told.context("no such cgroup")?;
        assert_eq!((told.limit_bytes, told.oom_kills), (Some(33_554_432), Some(kills)));
        let seen = told.limit_hits.unwrap_or(0);
        assert!(seen > 0 && seen <= hits, "{seen} of {hits} times at the limit");
        let victims: Vec<_> = lives.processes.iter().filter(|life| life.oom_killed).collect();
        assert_eq!(victims.len(), 1, "{:?}", lives.processes);
        assert_eq!((victims[0].signal, victims[0].exe.as_deref().is_some_and(|exe| exe.ends_with("/tail"))), (Some(9), true));
        let all = rows(&recording, Some(&format!("pid:{}", victims[0].tgid)))?;
        assert!(all.iter().any(|row| row.event.as_deref() == Some("oom_victim")));
        let killed = all.iter().find(|row| row.event.as_deref() == Some("signal_received") && row.signal == Some(9));
        assert_eq!(killed.and_then(|row| row.by.as_deref()), Some("kernel"));
        Ok(())
    })
}
