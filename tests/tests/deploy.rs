//! What deploy/ holds for the agent: its files are understood, its manifests are valid, and the rights that they give are the four that do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use lifetrace_tests::{
    agent::Agent,
    deadline::{PATIENCE, wait_for},
    deploy::{Manifest, RIGHTS, VALIDATOR, manifests, of_unit, path},
    fixture, lifetrace, process,
    scenario::{Need, along},
    user,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The rights that the unit gives, without `CAP_`, in the order of their names.
fn rights() -> Result<Vec<String>> {
    let [given] = &of_unit("AmbientCapabilities")?[..] else { anyhow::bail!("given twice, or never") };
    let mut rights: Vec<String> = given.split(' ').map(|name| name.strip_prefix("CAP_").unwrap_or(name).to_owned()).collect();
    rights.sort();
    Ok(rights)
}

/// Check that the agent understands both files, and that what they say of the doors is meant.
#[test]
fn files_are_understood() -> Result<()> {
    along(&[], || {
        let dir = tempfile::tempdir()?;
        let token = dir.path().join("token");
        fs::write(&token, "0123456789abcdef\n")?;
        let of_pod = fs::read_to_string(path("kubernetes/agent.toml"))?;
        let mounted = "/etc/lifetrace/token/token";
        assert!(of_pod.contains(mounted), "{of_pod}");
        let here = dir.path().join("agent.toml");
        fs::write(&here, of_pod.replace(mounted, &token.display().to_string()))?;
        for (file, listens) in [(path("agent.toml"), "127.0.0.1:9464\n"), (here, "0.0.0.0:9464, with a token\n")] {
            let mut check = lifetrace::command();
            check.args(["agent", "--check-config", "--config"]).arg(&file);
            let said = process::run(check)?.expect_code(0)?.stdout;
            assert!(said.contains(&format!("listens on      {listens}")), "{}: {said}", file.display());
            assert_eq!(said.contains("asks for pods   the API server of its cluster"), listens.starts_with("0.0.0.0"), "{said}");
        }
        Ok(())
    })
}

/// Check that Kubernetes takes every manifest, that the base names them all, and that the agent gets four rights and nothing of the host's
/// but its process ids.
#[test]
fn manifests_are_valid() -> Result<()> {
    along(&[Need::Program(VALIDATOR)], || {
        let entries = fs::read_dir(path("kubernetes"))?.collect::<Result<Vec<_>, _>>()?;
        let is_manifest = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "yaml");
        let files: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).filter(is_manifest).collect();
        let (base, manifests): (Vec<_>, Vec<_>) =
            manifests(&files)?.into_iter().partition(|manifest| manifest.object["kind"] == "Kustomization");
        for Manifest { file, problem, .. } in &manifests {
            assert_eq!(*problem, None, "{}", file.display());
        }
        let named = |manifest: &Manifest| Some(manifest.file.file_name()?.to_str()?.to_owned());
        let mut there: Vec<String> = manifests.iter().filter_map(named).collect();
        let mut wanted: Vec<String> = serde_json::from_value(base[0].object["resources"].clone())?;
        there.sort();
        wanted.sort();
        assert_eq!(there, wanted);
        let is_set = |manifest: &&Manifest| manifest.object["kind"] == "DaemonSet";
        let set = manifests.iter().find(is_set).context("no DaemonSet")?;
        expect_confined(&set.object["spec"]["template"]["spec"])?;
        expect_few_rights(&manifests)
    })
}

/// The API server lets the account of the agent's pods see pods, and nothing else.
fn expect_few_rights(manifests: &[Manifest]) -> Result<()> {
    let one = |kind: &str| -> Result<&Value> {
        let of_kind: Vec<&Manifest> = manifests.iter().filter(|manifest| manifest.object["kind"] == kind).collect();
        let [manifest] = of_kind[..] else { anyhow::bail!("{} of {kind}", of_kind.len()) };
        Ok(&manifest.object)
    };
    let (account, role, binding, set) =
        (one("ServiceAccount")?, one("ClusterRole")?, one("ClusterRoleBinding")?, one("DaemonSet")?);
    assert_eq!(role["rules"], serde_json::json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]));
    assert!(role["aggregationRule"].is_null());
    assert_eq!((&binding["roleRef"]["kind"], &binding["roleRef"]["name"]), (&role["kind"], &role["metadata"]["name"]));
    let [subject] = &binding["subjects"].as_array().context("nobody is bound")?[..] else { anyhow::bail!("one is enough") };
    assert_eq!((&subject["kind"], &subject["name"]), (&account["kind"], &account["metadata"]["name"]));
    assert_eq!(subject["namespace"], one("Namespace")?["metadata"]["name"]);
    assert_eq!(set["spec"]["template"]["spec"]["serviceAccountName"], account["metadata"]["name"]);
    assert_eq!(account["automountServiceAccountToken"], false, "whoever runs as it has to ask");
    Ok(())
}

fn expect_confined(pod: &Value) -> Result<()> {
    assert_eq!(pod["hostPID"], true);
    for shared in ["hostNetwork", "hostIPC"] {
        assert!(pod[shared].is_null() || pod[shared] == false, "{shared}");
    }
    assert_eq!(pod["automountServiceAccountToken"], true);
    let name = &pod["containers"][0]["env"][0];
    assert_eq!((&name["name"], &name["valueFrom"]["fieldRef"]["fieldPath"]), (&"NODE_NAME".into(), &"spec.nodeName".into()));
    for volume in pod["volumes"].as_array().context("no volumes")? {
        assert!(volume["hostPath"].is_null(), "{volume}");
    }
    let [container] = &pod["containers"].as_array().context("no containers")?[..] else { anyhow::bail!("one is enough") };
    let context = &container["securityContext"];
    assert_eq!(context["privileged"], false);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
    let mut added: Vec<String> = serde_json::from_value(context["capabilities"]["add"].clone())?;
    added.sort();
    assert_eq!(added, rights()?);
    Ok(())
}

/// Check that a manifest with a field that Kubernetes does not know, a value of the wrong kind, or of a kind without a schema is seen.
#[test]
fn wrong_manifests() -> Result<()> {
    along(&[Need::Program(VALIDATOR)], || {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("daemonset.yaml");
        let text = fs::read_to_string(path("kubernetes/daemonset.yaml"))?;
        for (right, wrong, said) in [
            ("hostPID: true", "hostPid: true", "'hostPid' was unexpected"),
            ("hostPID: true", "hostPID: sometimes", "spec.template.spec.hostPID"),
            ("kind: DaemonSet", "kind: DemonSet", "find schema"),
        ] {
            assert!(text.contains(right), "{right}");
            fs::write(&file, text.replace(right, wrong))?;
            let [manifest] = &manifests(std::slice::from_ref(&file))?[..] else { anyhow::bail!("one object") };
            let problem = manifest.problem.as_deref().unwrap_or_default();
            assert!(problem.contains(said), "{wrong}: {problem}");
        }
        Ok(())
    })
}

/// Check that systemd understands every line of the unit.
#[test]
fn unit_is_understood() -> Result<()> {
    along(&[Need::Command("systemd-analyze")], || {
        let dir = tempfile::tempdir()?;
        let unit = dir.path().join("lifetrace-agent.service");
        let text = fs::read_to_string(path("systemd/lifetrace-agent.service"))?;
        // The program has to be there.
        fs::write(&unit, text.replace("/usr/local/bin/lifetrace", &lifetrace::binary().display().to_string()))?;
        let mut verify = Command::new("systemd-analyze");
        verify.arg("verify").arg(&unit);
        let verified = process::run(verify)?.expect_code(0)?;
        assert!(!verified.stderr.contains("lifetrace-agent.service"), "{}", verified.stderr);
        // In tenths: what is open to a service, of 10.
        let mut security = Command::new("systemd-analyze");
        security.args(["--no-pager", "security", "--offline=yes", "--threshold=30"]).arg(&unit);
        process::run(security)?.expect_code(0)?;
        Ok(())
    })
}

/// The groups of system calls that systemd knows, and what is in them: calls, and other groups.
fn groups() -> Result<BTreeMap<String, Vec<String>>> {
    let mut list = Command::new("systemd-analyze");
    list.args(["--no-pager", "syscall-filter"]);
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut group = String::new();
    for line in process::run(list)?.expect_code(0)?.stdout.lines() {
        match line.trim_start() {
            name if name.is_empty() || name.starts_with('#') => {}
            name if name.starts_with('@') && name == line => name.clone_into(&mut group),
            name => groups.entry(group.clone()).or_default().push(name.to_owned()),
        }
    }
    Ok(groups)
}

/// The calls that a word of SystemCallFilter= means.
fn calls(word: &str, groups: &BTreeMap<String, Vec<String>>) -> Result<BTreeSet<String>> {
    if !word.starts_with('@') {
        return Ok(BTreeSet::from([word.to_owned()]));
    }
    let mut all = BTreeSet::new();
    for inner in groups.get(word).with_context(|| format!("systemd knows no {word}"))? {
        all.extend(calls(inner, groups)?);
    }
    Ok(all)
}

/// The calls that the unit allows, by its lines in their order (systemd.exec(5)).
fn allowed() -> Result<BTreeSet<String>> {
    let groups = groups()?;
    let mut allowed = calls("@default", &groups)?;
    for line in of_unit("SystemCallFilter")? {
        let (refused, words) = line.strip_prefix('~').map_or((false, &*line), |words| (true, words));
        for word in words.split_whitespace() {
            let calls = calls(word, &groups)?;
            if refused {
                allowed.retain(|call| !calls.contains(call));
            } else {
                allowed.extend(calls);
            }
        }
    }
    Ok(allowed)
}

/// A line of strace's: a call and what it was asked with, as far as that fits the line. The end of one that was interrupted is none.
fn call(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once(' ')?.1.trim_start().split_once('(')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some((name, rest))
}

/// Check that the agent calls nothing that the unit's filter refuses, opens no socket of a family that it has not, and asks for no memory
/// that can be written and executed, whatever it is asked for: windows, segments, its own profile, OTLP to nobody, its file once more.
#[test]
fn unit_lets_it_work() -> Result<()> {
    let needs = [Need::Root, Need::Command("strace"), Need::Command("systemd-analyze"), Need::Command("curl")];
    along(&needs, || {
        let dir = tempfile::tempdir()?;
        let app = dir.path().join("app");
        let _orders = fixture::orders_at(&app, &["-leak", "afterfunc", "-n", "100000", "-rate", "20", "-for", "600s"])?;
        let log = dir.path().join("strace.log");
        // It stands aside, so that whoever signals the process signals the agent.
        let mut strace = lifetrace::command_through("strace");
        strace.args(["-D", "-f", "-qq", "-s", "0", "-e", "signal=none", "-o"]).arg(&log).arg(lifetrace::binary());
        let at = |name: &str| dir.path().join(name).display().to_string();
        let agent = Agent::guarded_by(
            strace,
            &format!(
                "node = \"n1\"\nsnapshot_every = \"1s\"\n[[rule]]\naction = \"follow\"\nexe = {app:?}\n\
                 [record]\ndir = {:?}\nbefore = \"1s\"\nafter = \"1s\"\n\
                 [segments]\nstore = \"file://{}\"\nspool = {:?}\nevery = \"5s\"\n\
                 [otlp]\nendpoint = \"http://127.0.0.1:1\"\ninterval = \"1s\"\nqueue = {:?}\n",
                at("windows"),
                at("segments"),
                at("spool"),
                at("otlp")
            ),
        )?;
        is_used(&agent)?;
        agent.terminate()?;
        expect_within(&fs::read_to_string(&log)?)
    })
}

/// Asks an agent for all that it does.
fn is_used(agent: &Agent) -> Result<()> {
    agent.until("goroutines", |metrics| metrics.sum("lifetrace_goroutines", &["time.goFunc"]).filter(|alive| *alive >= 20.0))?;
    wait_for("a window", PATIENCE, || Ok(agent.post("/v1/record")?.starts_with("HTTP/1.1 202").then_some(())))?;
    let token = fs::read_to_string(agent.file().with_file_name("token"))?;
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--output", "/dev/null", "--header"]);
    curl.arg(format!("Authorization: Bearer {token}"));
    curl.arg(format!("http://{}/debug/pprof/profile?seconds=1", agent.address));
    process::run(curl)?.expect_code(0)?;
    agent.running.signal(Signal::SIGHUP)?;
    agent.until("all of it", |metrics| {
        let least = |series: &str, of: &str, least: f64| metrics.sum(series, &[of]).filter(|sum| *sum >= least);
        least("lifetrace_agent_windows_total", "kept", 1.0)?;
        least("lifetrace_agent_segments_total", "uploaded", 1.0)?;
        least("lifetrace_agent_reloads_total", "taken", 1.0)?;
        least("lifetrace_otlp_retries_total", "", 1.0).map(drop)
    })
}

/// Claims that what strace saw keeps within the unit.
fn expect_within(log: &str) -> Result<()> {
    let seen: Vec<(&str, &str)> = log.lines().filter_map(call).collect();
    let names: BTreeSet<&str> = seen.iter().map(|(name, _)| *name).collect();
    for sure in ["bpf", "ioprio_set", "mmap", "process_vm_readv", "setpriority", "socket"] {
        assert!(names.contains(sure), "{sure} was not seen: {names:?}");
    }
    let allowed = allowed()?;
    let refused: Vec<&&str> = names.iter().filter(|name| !allowed.contains(**name)).collect();
    assert!(refused.is_empty(), "outside of SystemCallFilter=: {refused:?}");
    let families: BTreeSet<String> =
        of_unit("RestrictAddressFamilies")?.iter().flat_map(|line| line.split_whitespace().map(str::to_owned)).collect();
    let calls_of = |names: &'static [&'static str]| seen.iter().filter(move |(name, _)| names.contains(name));
    for (_, asked) in calls_of(&["socket"]) {
        let family = asked.split(',').next().unwrap_or_default();
        assert!(families.contains(family), "outside of RestrictAddressFamilies=: socket({asked}");
    }
    // MemoryDenyWriteExecute= refuses both at once, and to make executable what was there before.
    for (name, asked) in calls_of(&["mmap", "mprotect", "pkey_mprotect"]) {
        let refused = asked.contains("PROT_EXEC") && (*name != "mmap" || asked.contains("PROT_WRITE"));
        assert!(!refused, "{name}({asked}");
    }
    Ok(())
}

/// Check that the unit gives four rights and keeps no other, and that the agent follows with these and no_new_privs: as the unit's user
/// without a name, and as user 0 of a container.
#[test]
fn four_rights() -> Result<()> {
    along(&[Need::Root, Need::Nobody, Need::Command("setpriv")], || {
        assert_eq!(of_unit("AmbientCapabilities")?, of_unit("CapabilityBoundingSet")?);
        assert_eq!(of_unit("NoNewPrivileges")?, ["yes"]);
        let list: String = rights()?.iter().map(|right| format!(",+{}", right.to_lowercase())).collect();
        let nobody = user::nobody().context("no user nobody")?;
        for user in [Some(&nobody), None] {
            let mut setpriv = lifetrace::command_through("setpriv");
            if let Some(user) = user {
                setpriv.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid)).arg("--clear-groups");
                setpriv.arg(format!("--inh-caps=-all{list}")).arg(format!("--ambient-caps=-all{list}"));
            } else {
                setpriv.arg("--inh-caps=-all");
            }
            setpriv.arg(format!("--bounding-set=-all{list}")).arg("--no-new-privs").arg(lifetrace::binary());
            follows_orders(setpriv)?;
        }
        Ok(())
    })
}

/// Starts the agent by this command, and sees it follow a program of which nobody but its owner may know.
fn follows_orders(command: Command) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let app = dir.path().join("app");
    let _orders = fixture::orders_at(&app, &["-leak", "afterfunc", "-n", "600", "-rate", "30", "-for", "600s"])?;
    let rule = format!("budget = \"none\"\n[[rule]]\naction = \"follow\"\nexe = \"{}\"\n", app.display());
    let agent = Agent::start_by(command, &rule)?;
    assert_eq!(effective_rights(&agent)?, RIGHTS);
    let label = format!("program=\"{}\"", app.display());
    agent.until("600 reminders, born and waiting", |metrics| {
        let alive = metrics.sum("lifetrace_goroutines", &[&label, "time.goFunc (time/sleep.go:215)"])?;
        let born = metrics.sum("lifetrace_goroutines_born_total", &[&label, "time.goFunc"])?;
        let waiting = metrics.sum("lifetrace_goroutines_by_state", &[&label, "state=\"blocked\""])?;
        (alive == 600.0 && born > 0.0 && waiting >= 600.0).then_some(())
    })?;
    agent.terminate()?;
    Ok(())
}

fn effective_rights(agent: &Agent) -> Result<u64> {
    let status = fs::read_to_string(Path::new("/proc").join(agent.running.pid().to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).context("no CapEff")?;
    Ok(u64::from_str_radix(line, 16)?)
}
