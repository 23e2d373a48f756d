//! Threads: who made them, what kept them off their CPUs, who woke them, and what other tools say about that.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    deadline, fixture,
    life::Lives,
    lifetrace::Run,
    process::{Running, run},
    recording::{Recording, Span},
    scenario::{Need, alone, along},
    truth,
};
use nix::sys::signal::Signal;
use serde::Deserialize;
use tempfile::TempDir;

/// What the program says of itself.
#[derive(Deserialize)]
struct Truth {
    pid: u32,
    threads: Vec<Thread>,
}

#[derive(Deserialize)]
struct Thread {
    role: String,
    tid: u32,
    creator: u32,
    /// As the kernel had counted them before its last sleep.
    voluntary: usize,
    involuntary: usize,
    measured_ns: u64,
    waits: usize,
    object: String,
}

/// The lines of each thread of a process, by time.
fn timelines(recording: &Recording, pid: u32) -> Result<BTreeMap<u32, Vec<Span>>> {
    let mut threads: BTreeMap<u32, Vec<Span>> = BTreeMap::new();
    for span in recording.timeline(Some(&format!("pid:{pid}")))? {
        if let Some(tid) = span.id.strip_prefix("tid:") {
            threads.entry(tid.parse()?).or_default().push(span);
        }
    }
    Ok(threads)
}

fn time(span: &Span) -> u64 {
    span.end_ns.unwrap_or(span.start_ns) - span.start_ns
}

fn is_blocked(span: &&Span) -> bool {
    span.state == "blocked"
}

/// It was taken off its CPU.
fn is_preempted(span: &&Span) -> bool {
    matches!(span.state.as_str(), "runnable" | "unknown") && matches!(span.reason.as_deref(), Some("preempted" | "sched_yield"))
}

/// Spans before the last sleep, by which the program marks the place.
fn before_last_sleep(spans: &[Span]) -> Result<&[Span]> {
    let last = spans.iter().rposition(|span| is_blocked(&span) && span.reason.as_deref() == Some("clock_nanosleep"));
    Ok(&spans[..last.context("it slept")?])
}

/// Check births, ends, waits with their reasons, objects, wakers and times, and the delays under load, against what the program did, and the
/// number of context switches against what the kernel counted.
#[test]
fn what_threads_did() -> Result<()> {
    alone(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::c("threads")?).finish_whole()?;
        let truth: Truth = truth::read(finished.expect_code(0)?.last_line())?;
        let report = recording.report()?;
        assert_eq!(report.lost.events, 0);
        let lives = timelines(&recording, truth.pid)?;
        assert_eq!(lives.len(), truth.threads.len() + 1, "the first thread, and those it made: {:?}", lives.keys());
        let main = format!("tid:{}", truth.pid);
        for thread in &truth.threads {
            let spans = lives.get(&thread.tid).with_context(|| format!("no {}", thread.role))?;
            let (role, last) = (&thread.role, spans.last().context("a life has spans")?);
            assert_eq!((last.state.as_str(), last.reason.as_deref()), ("dead", Some("exit")), "{role}");
            assert_eq!(spans[0].created_by, Some(format!("tid:{}", thread.creator)), "{role}");
            assert_eq!(spans[0].state, "runnable", "{role} is born able to run");
            let before = before_last_sleep(spans)?;
            assert_eq!(before.iter().filter(is_blocked).count(), thread.voluntary, "{role}: switches by itself");
            // It may be taken off its CPU between the kernel's count and the sleep that marks it.
            let preempted = before.iter().filter(is_preempted).count();
            assert!((thread.involuntary..=thread.involuntary + 1).contains(&preempted), "{role}: {preempted} preemptions");
            let (reason, waker) = match role.as_str() {
                "sleeper" => ("clock_nanosleep", "interrupt"),
                "futex" => ("futex", main.as_str()),
                "epoll" => ("epoll_wait", main.as_str()),
                "pipe" => ("read", main.as_str()),
                "burner" => {
                    let running: u64 = before.iter().filter(|span| span.state == "running").map(time).sum();
                    assert!(running + 5_000_000 >= thread.measured_ns, "{role} ran {running} ns of {}", thread.measured_ns);
                    continue;
                }
                _ => continue,
            };
            let waits: Vec<&Span> =
                before.iter().filter(is_blocked).filter(|span| span.reason.as_deref() == Some(reason)).collect();
            assert_eq!(waits.len(), thread.waits, "{role}: waits of {reason}");
            let blocked: u64 = waits.iter().map(|span| time(span)).sum();
            assert!(blocked <= thread.measured_ns, "{role}: blocked {blocked} ns of {}", thread.measured_ns);
            for wait in waits {
                assert_eq!(wait.woken_by.as_deref(), Some(waker), "{role}: {wait:?}");
                assert_eq!(wait.object.as_deref().unwrap_or_default(), thread.object, "{role}");
                let stack = wait.stack.as_deref().unwrap_or_default();
                assert!(stack.first().is_some_and(|frame| frame.kernel), "{role}: the kernel's frames come first: {stack:?}");
                assert!(stack.iter().any(|frame| !frame.kernel), "{role}: then those of user code: {stack:?}");
            }
        }
        // The one of them that ends last has waited for the others' work, all on one CPU.
        let burners = truth.threads.iter().filter(|thread| thread.role == "burner");
        let waited =
            burners.map(|thread| lives[&thread.tid].iter().filter(|span| span.state == "runnable").map(time).sum::<u64>());
        let waited = waited.max().unwrap_or_default();
        assert!(
            waited >= 90_000_000,
            "three threads with 60 ms of work each, on one CPU, and none waited longer than {waited} ns"
        );
        let sleeper = truth.threads.iter().find(|thread| thread.role == "sleeper").context("a sleeper")?;
        let slept: u64 = before_last_sleep(&lives[&sleeper.tid])?.iter().filter(is_blocked).map(time).sum();
        assert!(slept >= 5 * 19_900_000, "five sleeps of 20 ms, and {slept} ns off CPU");
        // The first thread's end is the process's.
        assert_eq!(lives[&truth.pid].last().map(|span| span.state.as_str()), Some("dead"));
        let threads = &recording.answer("report", &["--format", "json"])?;
        let threads: serde_json::Value = serde_json::from_str(threads)?;
        let of = threads["processes"].as_array().into_iter().flatten().find(|process| process["tgid"] == truth.pid);
        let of = &of.context("the process is reported")?["threads"];
        let all = truth.threads.len() + 1;
        assert_eq!(
            (of["born"].as_u64(), of["exited"].as_u64(), of["alive"].as_u64()),
            (Some(all as u64), Some(all as u64), Some(0))
        );
        assert!(of["off_cpu"]["futex"]["count"].as_u64() >= Some(50), "{of}");
        Ok(())
    })
}

/// Check that the switches of each thread are as many as `perf record` sees in the same run.
#[test]
fn as_many_switches_as_perf_sees() -> Result<()> {
    alone(&[Need::Root, Need::Command("perf")], || {
        let dir = TempDir::new()?;
        let data = dir.path().join("perf.data");
        let mut perf = Command::new("perf");
        perf.args(["record", "-q", "-a", "-e", "sched:sched_switch", "-o"]).arg(&data).args([
            "--",
            "sh",
            "-c",
            "echo there; exec sleep 600",
        ]);
        let mut perf = Running::start(perf, None)?;
        // It starts its command when it records; one that cannot says so and ends.
        if perf.line(0).is_err() {
            println!("peer: perf cannot record sched:sched_switch on this kernel");
            return Ok(());
        }
        let (finished, recording) = Run::of(fixture::c("threads")?).finish_whole()?;
        perf.signal(Signal::SIGINT)?;
        perf.wait_exit()?;
        let truth: Truth = truth::read(finished.expect_code(0)?.last_line())?;
        let mut script = Command::new("perf");
        script.args(["script", "--show-lost-events", "-F", "trace", "-i"]).arg(&data);
        let said = run(script)?.stdout;
        if !said.contains("prev_pid=") {
            println!("peer: perf recorded no switches on this kernel");
            return Ok(());
        }
        if said.contains("PERF_RECORD_LOST") {
            println!("peer: perf lost some of its events");
            return Ok(());
        }
        let lives = timelines(&recording, truth.pid)?;
        for thread in &truth.threads {
            let mine = format!("prev_pid={} ", thread.tid);
            // Its last one is the end of it, and no span of ours begins there.
            let last = ["prev_state=X", "prev_state=Z"];
            let theirs =
                said.lines().filter(|line| line.contains(&mine) && !last.iter().any(|state| line.contains(state))).count();
            let ours = lives[&thread.tid].iter().filter(|span| is_blocked(span) || is_preempted(span)).count();
            // On its way out it is of no interest to us: what is behind its exit is the kernel's alone.
            ensure!(ours <= theirs && theirs <= ours + 3, "{}: {ours} switches of ours, {theirs} of perf's", thread.role);
        }
        println!("peer: perf saw the same switches");
        Ok(())
    })
}

/// What bpftrace(8) is to count of the processes that are called `ltsh`. It says that it is there with its last probe.
const COUNTS: &str = r#"
    tracepoint:sched:sched_process_fork /comm == "ltsh"/ { @forks = count(); }
    tracepoint:sched:sched_process_exit /comm == "ltsh" && pid == tid/ { @exits = count(); }
    tracepoint:sched:sched_switch /comm == "ltsh"/ { @switches[pid] = count(); }
    tracepoint:sched:sched_switch /!@there/ { @there = 1; printf("there\n"); }
"#;

/// Check that forks, ends, and the switches of each process, are as many as bpftrace(8) counts in the same run.
#[test]
fn as_many_as_bpftrace_counts() -> Result<()> {
    alone(&[Need::Root, Need::Command("bpftrace")], || {
        let dir = TempDir::new()?;
        let shell = fixture::copied(Path::new("/bin/sh"), &dir.path().join("ltsh"))?;
        let mut bpftrace = Command::new("bpftrace");
        bpftrace.args(["-B", "line", "-e", COUNTS]);
        let bpftrace = Running::start(bpftrace, None)?;
        let said = || Ok(bpftrace.stdout().contains("there").then_some(()));
        if deadline::wait_for("bpftrace to count", deadline::PATIENCE, said).is_err() {
            println!("peer: bpftrace cannot count tracepoints on this kernel");
            return Ok(());
        }
        let script = "i=0; while [ $i -lt 40 ]; do (exit 3) | (read line); i=$((i+1)); done";
        let (finished, recording) = Run::of(&shell).args(["-c", script]).finish()?;
        finished.expect_code(0)?;
        bpftrace.signal(Signal::SIGINT)?;
        let counted = bpftrace.finish()?.stdout;
        let count = |name: &str| {
            let line = counted.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.and_then(|count| count.parse::<usize>().ok()).unwrap_or(0)
        };
        let lives = Lives::of(&recording)?;
        let root = lives
            .processes
            .iter()
            .find(|life| life.parent.is_none_or(|parent| lives.processes.iter().all(|life| life.tgid != parent)));
        let root = root.context("the shell was not seen")?.tgid;
        let ended = lives.processes.iter().filter(|life| life.exited_at_ns.is_some()).count();
        assert_eq!((lives.processes.len() - 1, ended), (count("@forks"), count("@exits")), "{counted}");
        let spans = recording.timeline(None)?;
        for child in lives.processes.iter().filter(|life| life.tgid != root) {
            let of_child = |span: &&Span| span.id == format!("tid:{}", child.tgid);
            let ours = spans.iter().filter(of_child).filter(|span| is_blocked(span) || is_preempted(span)).count();
            let theirs = count(&format!("@switches[{}]", child.tgid));
            // On its way out it is of no interest to us.
            ensure!(ours <= theirs && theirs <= ours + 3, "{}: {ours} switches of ours, {theirs} of bpftrace's", child.tgid);
        }
        println!("peer: bpftrace saw the same forks, ends and switches");
        Ok(())
    })
}

/// Check that programs in other languages are followed: their threads, their children, and who woke whom.
#[test]
fn other_languages() -> Result<()> {
    along(&[Need::Root], || {
        let (finished, recording) = Run::of("bash").args(["-c", "for i in 1 2 3; do sleep 0.5; done"]).finish_whole()?;
        finished.expect_code(0)?;
        let spans = recording.timeline(None)?;
        // A child may be taken off its CPU on the way into its sleep: how much of that is left is not said. (Where CPUs are scarce, nothing
        // may be left of a short one.)
        let slept = spans.iter().filter(is_blocked).filter(|span| span.reason.as_deref() == Some("clock_nanosleep"));
        let slept: BTreeSet<&String> = slept.map(|span| &span.id).collect();
        assert_eq!(slept.len(), 3, "three children that sleep");
        let waited = spans.iter().filter(is_blocked).filter(|span| span.reason.as_deref() == Some("wait4"));
        let woken: Vec<String> = waited.filter_map(|span| span.woken_by.clone()).collect();
        for child in slept {
            assert!(woken.contains(child), "bash is woken by the end of {child}: {woken:?}");
        }
        Ok(())
    })
}

/// Check that a Node.js program's event loop is seen to wait in epoll, and its flamegraph to have that wait.
#[test]
fn node() -> Result<()> {
    along(&[Need::Root, Need::Command("node")], || {
        let run = Run::of("node").args(["-e", "setTimeout(() => console.log(process.pid), 2000)"]);
        let (finished, recording) = run.finish_whole()?;
        let pid: u32 = finished.expect_code(0)?.last_line().parse()?;
        let lives = timelines(&recording, pid)?;
        assert!(lives.len() > 4, "node has threads for its engine and its pool: {:?}", lives.keys());
        let main = &lives[&pid];
        let wait =
            main.iter().filter(is_blocked).filter(|span| span.reason.as_deref().is_some_and(|name| name.starts_with("epoll")));
        let longest = wait.max_by_key(|span| time(span)).context("the event loop waits")?;
        assert!(time(longest) >= 1_000_000_000 && longest.woken_by.as_deref() == Some("interrupt"), "{longest:?}");
        let folded = recording.answer("flame", &["--by", "blocked", "--format", "folded"])?;
        assert!(folded.lines().any(|line| line.contains("[epoll")), "{folded}");
        Ok(())
    })
}

/// Check that without thread detail births and ends are all there is, and nothing is said of what was not seen.
#[test]
fn threads_off() -> Result<()> {
    along(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::c("threads")?).option("--threads=off").finish()?;
        let truth: Truth = truth::read(finished.expect_code(0)?.last_line())?;
        for thread in &truth.threads {
            let spans = recording.timeline(Some(&format!("tid:{}", thread.tid)))?;
            let states: Vec<&str> = spans.iter().map(|span| span.state.as_str()).collect();
            assert_eq!(states, ["alive", "dead"], "{}", thread.role);
        }
        Ok(())
    })
}
