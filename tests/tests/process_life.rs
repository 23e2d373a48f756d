//! Lives of processes: ends, zombies, orphans, signals, restarts, numbers that are used again.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result};
use lifetrace_tests::{
    deadline::{PATIENCE, wait_for},
    fixture,
    life::{Lives, rows},
    lifetrace::Run,
    scenario::{Need, alone, along},
    truth,
};
use serde::Deserialize;
use tempfile::TempDir;

/// Of `family`.
#[derive(Debug, Deserialize)]
struct Family {
    parent: u32,
    /// The thread that executed another program.
    executor: u32,
    children: Vec<Child>,
    orphans: Vec<Orphan>,
}

#[derive(Debug, Deserialize)]
struct Child {
    pid: u32,
    status: u32,
    /// The signal that it was sent; 0 for none.
    sent: u32,
    zombie: bool,
    executes: bool,
}

#[derive(Debug, Deserialize)]
struct Orphan {
    pid: u32,
    parent: u32,
    adopter: u32,
}

/// Check every fact of a family of 500 children: how each ended and who reaped it, 37 zombies, five orphans and who adopted them, who sent
/// which signal, a core dump, an exec from a thread, and processes whose first thread ends before their last.
#[test]
fn family() -> Result<()> {
    family_told(&[])
}

/// Check the same where the kernel leaves out every first program of a tracepoint: the second one tells.
#[test]
fn family_told_by_seconds() -> Result<()> {
    family_told(&["--knob", "seconds-only=1"])
}

fn family_told(options: &[&str]) -> Result<()> {
    alone(&[Need::Root], || {
        let dir = TempDir::new()?;
        let until = dir.path().join("until");
        // Its core dump goes where it runs, on most machines.
        let run = options.iter().fold(Run::of(fixture::c("family")?), Run::option);
        let (finished, recording) = run.args([&until]).current_dir(dir.path()).finish_whole()?;
        fs::write(&until, "")?;
        let left_out = recording.report()?.lost.left_out;
        if !options.is_empty() && !left_out.is_empty() {
            println!("this kernel preempts programs, so one of two does not see everything, and says so: {left_out:?}");
            return Ok(());
        }
        let family: Family = truth::read(finished.expect_code(0)?.last_line())?;
        let lives = Lives::of(&recording)?;
        assert_eq!(lives.lost.events, 0);
        assert_eq!(lives.processes.len(), 1 + 1 + family.children.len() + family.orphans.len());
        let mut sent: BTreeMap<u32, Vec<(u32, String)>> = BTreeMap::new();
        for row in rows(&recording, None)?.into_iter().filter(|row| row.event.as_deref() == Some("signal_received")) {
            sent.entry(row.tgid).or_default().push((row.signal.unwrap_or(0), row.by.unwrap_or_default()));
        }
        for child in &family.children {
            let life = lives.process(child.pid);
            let signal = Some(child.status & 0x7f).filter(|signal| *signal != 0);
            let code = signal.is_none().then_some(child.status >> 8 & 0xff);
            assert_eq!((life.parent, life.exit_code, life.signal), (Some(family.parent), code, signal), "{child:?} {life:?}");
            assert_eq!(life.core_dumped, Some(child.status & 0x80 != 0), "{child:?}");
            assert_eq!(life.reaped_by, (!child.zombie).then_some(family.parent), "{child:?} {life:?}");
            assert!(life.zombie_ns.is_some() && !life.autoreaped && life.adopted_by.is_none(), "{life:?}");
            if child.sent != 0 {
                assert_eq!(sent.get(&child.pid), Some(&vec![(child.sent, format!("pid:{}", family.parent))]), "{child:?}");
            }
            let expected = if child.executes { 1 } else { 0 };
            assert_eq!(life.programs.len(), expected, "{child:?} {life:?}");
            if let Some(program) = life.programs.first() {
                let told = (program.by_tid, program.exe.as_deref(), program.argv.last().map(String::as_str));
                assert_eq!(told, (Some(family.executor), Some("/bin/true"), Some("from-a-thread")));
            }
        }
        let mut zombies: Vec<u32> = family.children.iter().filter(|child| child.zombie).map(|child| child.pid).collect();
        zombies.sort_unstable();
        let mut found = lives.zombies();
        found.sort_unstable();
        assert_eq!((found.len(), &found), (37, &zombies));
        assert_eq!(family.orphans.len(), 5);
        for orphan in &family.orphans {
            let life = lives.process(orphan.pid);
            assert_eq!((life.parent, life.adopted_by, life.exit_code), (Some(orphan.parent), Some(orphan.adopter), Some(9)));
            assert_eq!(life.reaped_by, Some(orphan.adopter));
        }
        // Their parent outlives the command: it is an orphan too, and still runs.
        let parent = lives.process(family.parent);
        assert!(parent.exited_at_ns.is_none() && parent.adopted_by.is_some(), "{parent:?}");
        Ok(())
    })
}

/// Of `parent.js`.
#[derive(Debug, Deserialize)]
struct Step {
    what: String,
    pid: u32,
    #[serde(default)]
    before: f64,
    #[serde(default)]
    after: f64,
}

/// Check that a Node.js parent which asks its worker to end, kills it, and starts it again with growing pauses is told of exactly so.
#[test]
fn stubborn_worker() -> Result<()> {
    alone(&[Need::Root, Need::Command("node")], || {
        let (finished, recording) = Run::of("node").args([fixture::example("node-parent/parent.js")]).finish_whole()?;
        let finished = finished.expect_code(0)?;
        let steps: Vec<Step> = finished.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let of = |what: &str| -> Vec<&Step> { steps.iter().filter(|step| step.what == what).collect() };
        let (spawns, asked, killed) = (of("spawn"), of("SIGTERM"), of("SIGKILL"));
        assert_eq!((spawns.len(), asked.len(), killed.len()), (4, 4, 4));
        let parent = of("done")[0].pid;
        let lives = Lives::of(&recording)?;
        let mut ends = Vec::new();
        for ((spawn, asked), killed) in spawns.iter().zip(&asked).zip(&killed) {
            let life = lives.process(spawn.pid);
            assert_eq!((life.parent, life.signal, life.reaped_by), (Some(parent), Some(9), Some(parent)), "{life:?}");
            ends.push((life.started_at_ns.context("no start")?, life.exited_at_ns.context("no end")?));
            let all = rows(&recording, Some(&format!("pid:{}", spawn.pid)))?;
            let sent: Vec<_> = all.iter().filter(|row| row.event.as_deref() == Some("signal_received")).collect();
            let by = Some(format!("pid:{parent}"));
            assert_eq!(sent.iter().map(|row| (row.signal, &row.by)).collect::<Vec<_>>(), [(Some(15), &by), (Some(9), &by)]);
            let handled = all.iter().find(|row| row.event.as_deref() == Some("signal_taken") && row.signal == Some(15));
            assert_eq!(handled.and_then(|row| row.result.as_deref()), Some("handler"));
            // The parent looked at its clock before and after each kill.
            let waited = (sent[1].start_ns - sent[0].start_ns) as f64 / 1e6;
            let (least, most) = (killed.before - asked.after, killed.after - asked.before);
            assert!((least - 0.1..=most + 0.1).contains(&waited), "{waited} ms is not within {least} to {most}");
            assert!(waited >= 199.0, "{waited}");
            let states: Vec<&str> = all.iter().filter(|row| row.event.is_none()).map(|row| row.state.as_str()).collect();
            assert_eq!(states, ["alive", "zombie", "dead"]);
        }
        let finding = lives.findings.iter().find(|finding| finding.kind == "restart_loop").context("no restart loop")?;
        assert_eq!((finding.tgid, finding.evidence["starts"].as_u64()), (parent, Some(4)));
        let pauses: Vec<u64> = serde_json::from_value(finding.evidence["pauses_ns"].clone())?;
        assert_eq!(pauses, ends.windows(2).map(|pair| pair[1].0 - pair[0].1).collect::<Vec<_>>());
        for (pause, least_ms) in pauses.iter().zip([99, 199, 399]) {
            assert!(*pause >= least_ms * 1_000_000, "{pauses:?}");
        }
        assert_eq!(lives.findings.iter().filter(|finding| finding.kind == "killed_after_timeout").count(), 4);
        Ok(())
    })
}

/// Of `storm`.
#[derive(Debug, Deserialize)]
struct Storm {
    forks: u64,
}

/// Memory that lifetrace itself may use while two loops fork for ten seconds: the ring counts, which is mapped twice.
const MAX_MEMORY_KIB: u64 = 512 << 10;

/// Check that processes that live as short as can be, two loops making them for ten seconds, are all there or counted as lost, that none is
/// taken to be alive or a zombie, and that the recorder's memory is bounded.
#[test]
fn short_lives() -> Result<()> {
    alone(&[Need::Root], || {
        let untraced = Command::new(fixture::c("storm")?).arg("10").output()?;
        let untraced: Storm = truth::read(String::from_utf8(untraced.stdout)?.trim())?;
        let traced = Run::of(fixture::c("storm")?).args(["10"]).start()?;
        let status = format!("/proc/{}/status", traced.running.pid());
        let mut peak = 0;
        let line = wait_for("the storm to be over", 4 * PATIENCE, || {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let kib = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
            peak = peak.max(kib.unwrap_or(0));
            Ok(traced.running.stdout().lines().next().map(str::to_owned))
        })?;
        let storm: Storm = truth::read(&line)?;
        let (finished, recording) = traced.finish()?;
        finished.expect_code(0)?;
        let lives = Lives::of(&recording)?;
        let lost = |kind: &str| lives.lost.by_kind.get(kind).copied().unwrap_or(0);
        println!("{} forks untraced, {} traced, {} lost; at most {peak} KiB", untraced.forks, storm.forks, lives.lost.events);
        let told = lives.processes.iter().filter(|life| life.started_at_ns.is_some()).count() as u64;
        assert_eq!(told + lost("process_fork"), storm.forks + 1);
        let alive = lives.processes.iter().filter(|life| life.exited_at_ns.is_none()).count() as u64;
        assert!(alive <= lost("process_exit"), "{alive} seem to live, {:?}", lives.lost);
        assert_eq!(lives.zombies(), [] as [u32; 0]);
        assert!((1..MAX_MEMORY_KIB).contains(&peak), "{peak} KiB");
        Ok(())
    })
}

/// Of `reuse`.
#[derive(Debug, Deserialize)]
struct Reuse {
    child: u32,
}

/// Check that a number which is used twice is two processes, in the report and on the timeline.
#[test]
fn number_used_twice() -> Result<()> {
    alone(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::c("reuse")?).finish()?;
        let Reuse { child } = truth::read(finished.expect_code(0)?.last_line())?;
        let lives = Lives::of(&recording)?;
        let both: Vec<_> = lives.processes.iter().filter(|life| life.tgid == child).map(|life| life.exit_code).collect();
        assert_eq!(both, [Some(3), Some(4)]);
        let all = rows(&recording, Some(&format!("pid:{child}")))?;
        let (alive, dead) = (|row: &&_| state(row) == "alive", |row: &&_| state(row) == "dead");
        assert_eq!((all.iter().filter(alive).count(), all.iter().filter(dead).count()), (2, 2));
        Ok(())
    })
}

fn state(row: &lifetrace_tests::life::Row) -> &str {
    &row.state
}

/// Check that stops, and whoever continues a process, are told of.
#[test]
fn stopped() -> Result<()> {
    along(&[Need::Root], || {
        let script = "sleep 60 & kill -STOP $!; until grep -q '^State:.T' /proc/$!/status; do :; done; sleep 0.2; kill -CONT $!; kill -TERM $!; wait $!; echo $!";
        let (finished, recording) = Run::of("sh").args(["-c", script]).finish()?;
        let pid: u32 = finished.expect_code(0)?.last_line().parse()?;
        let lives = Lives::of(&recording)?;
        let life = lives.process(pid);
        assert!(life.stopped_ns >= 199_000_000 && life.signal == Some(15), "{life:?}");
        let all = rows(&recording, Some(&format!("pid:{pid}")))?;
        let states: Vec<&str> = all.iter().filter(|row| row.event.is_none()).map(|row| row.state.as_str()).collect();
        assert!(states.contains(&"stopped") && states.ends_with(&["zombie", "dead"]), "{states:?}");
        Ok(())
    })
}

/// Check that forks and ends are as many as strace(1) sees of the same processes at the same time.
#[test]
fn as_strace_counts() -> Result<()> {
    along(&[Need::Root, Need::Command("strace")], || {
        let dir = TempDir::new()?;
        let log = dir.path().join("strace.log");
        let script = "i=0; while [ $i -lt 40 ]; do sh -c 'true; (exit 3) | cat'; i=$((i+1)); done";
        let strace = ["-f", "-q", "-e", "trace=fork,vfork,clone,clone3,execve", "-o"];
        let (finished, recording) = Run::of("strace").args(strace).args([&log]).args(["sh", "-c", script]).finish()?;
        finished.expect_code(0)?;
        let log = fs::read_to_string(&log)?;
        let ended = log.lines().filter(|line| line.contains("+++ exited with") || line.contains("+++ killed by")).count();
        let returned =
            |line: &&str| line.rsplit_once("= ").is_some_and(|(_, value)| value.trim().parse::<u32>().is_ok_and(|pid| pid > 0));
        let forks = log.lines().filter(|line| ["fork", "clone"].iter().any(|call| line.contains(call))).filter(returned).count();
        let lives = Lives::of(&recording)?;
        // strace itself, and what it tries out before, are not among those it looks at.
        let root = lives
            .processes
            .iter()
            .find(|life| life.programs.iter().any(|one| one.argv.iter().any(|arg| arg == script) && one.argv[0] == "sh"));
        let root = root.context("the script was not seen")?.tgid;
        let mut family = vec![root];
        let mut at = 0;
        while let Some(parent) = family.get(at).copied() {
            family.extend(lives.processes.iter().filter(|life| life.parent == Some(parent)).map(|life| life.tgid));
            at += 1;
        }
        let ends = lives.processes.iter().filter(|life| family.contains(&life.tgid) && life.exited_at_ns.is_some()).count();
        println!("strace: {forks} forks, {ended} ends; lifetrace: {} forks, {ends} ends", family.len() - 1);
        assert_eq!((family.len() - 1, ends), (forks, ended));
        Ok(())
    })
}
