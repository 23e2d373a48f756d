//! `cargo xtask bench leaks`: verdicts on the labelled set (tests/leakset), precision and recall of each half, and docs/leakset.md.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::{go, place, shell::run};

/// Programs that run side by side; they idle most of the time.
const AT_ONCE: usize = 4;
const LABEL: &str = "// leak";

/// An entry of `set.json`.
#[derive(Clone, Debug, Deserialize)]
struct Entry {
    name: String,
    leaking: bool,
    half: String,
    kind: String,
}

/// What was said of one program.
struct Judged {
    entry: Entry,
    /// Groups that are suspected, and of these those at a labelled line.
    suspected: usize,
    at_label: usize,
    /// Where the largest of them was made.
    named: String,
    /// What a check for goroutines that are alive at exit would have counted.
    alive: u64,
}

impl Judged {
    fn verdict(&self) -> &'static str {
        match (self.entry.leaking, self.suspected, self.at_label) {
            (true, _, 1..) => "found",
            (true, 0, _) => "**missed**",
            (true, ..) => "**found elsewhere**",
            (false, 0, _) => "silent",
            (false, ..) => "**false**",
        }
    }

    fn right(&self) -> bool {
        !self.verdict().starts_with('*')
    }
}

pub fn bench(lifetrace: &Path) -> Result<()> {
    let set = place::root().join("tests/leakset");
    let entries: Vec<Entry> = serde_json::from_str(&fs::read_to_string(set.join("set.json"))?)?;
    let programs = place::target().join("bench/leakset");
    fs::create_dir_all(&programs)?;
    let mut build = Command::new(go::go()?);
    build.args(["build", "-o"]).arg(&programs).args(["./leaking/...", "./healthy/..."]);
    run(build.current_dir(&set).env("GOFLAGS", "-mod=mod").env("GOWORK", "off"))?;
    let (waiting, judged) = (Mutex::new(VecDeque::from(entries)), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        let work = || -> Result<()> {
            loop {
                let Some(entry) = waiting.lock().ok().and_then(|mut waiting| waiting.pop_front()) else { return Ok(()) };
                let name = entry.name.clone();
                let one = judge(lifetrace, &set, &programs, entry).with_context(|| name)?;
                println!("{:<18} {:<8} {:<18} {}", one.entry.name, one.entry.half, one.verdict(), one.named);
                judged.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(one);
            }
        };
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })?;
    let mut judged = judged.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    judged.sort_by(|one, other| (!one.entry.leaking, &one.entry.name).cmp(&(!other.entry.leaking, &other.entry.name)));
    let page = page(&judged);
    println!("\n{}", page.split("\n\n").nth(2).unwrap_or_default());
    fs::write(place::root().join("docs/leakset.md"), page)?;
    let wrong = judged.iter().filter(|one| !one.right()).count();
    if wrong > 0 {
        bail!("{wrong} of {} are judged wrongly", judged.len());
    }
    Ok(())
}

fn judge(lifetrace: &Path, set: &Path, programs: &Path, entry: Entry) -> Result<Judged> {
    let recording = programs.join(format!("{}.lifetrace", entry.name));
    let mut traced = Command::new(lifetrace);
    traced.args(["run", "--quiet", "-o"]).arg(&recording).arg("--").arg(programs.join(&entry.name));
    let status = traced.stdout(Stdio::null()).status()?;
    if !status.success() {
        bail!("{status}");
    }
    let said =
        Command::new(lifetrace).args(["leaks", "--quiet", "--fail-on", "never", "--format", "json"]).arg(&recording).output()?;
    let said: Value = serde_json::from_slice(&said.stdout).context("leaks says nothing")?;
    fs::remove_file(&recording)?;
    let side = if entry.leaking { "leaking" } else { "healthy" };
    let main: PathBuf = set.join(side).join(&entry.name).join("main.go");
    let source = fs::read_to_string(&main)?;
    let lines: Vec<u64> = (1..).zip(source.lines()).filter(|(_, line)| line.ends_with(LABEL)).map(|(at, _)| at).collect();
    // A package comment names the function of the library that makes them.
    let comment: Vec<&str> = source.lines().take_while(|line| line.starts_with("//")).collect();
    let comment = comment.join(" ");
    let groups = said["leaks"].as_array().context("no leaks")?;
    let suspected: Vec<&Value> = groups.iter().filter(|group| group["strength"] == "suspected").collect();
    let is_label = |frame: &Value| {
        let own = frame["file"].as_str().is_some_and(|file| file.ends_with(&format!("{side}/{}/main.go", entry.name)));
        own && frame["line"].as_u64().is_some_and(|line| lines.contains(&line))
    };
    let at_label = |group: &&&Value| {
        let made =
            group["creation"].as_array().is_some_and(|frames| frames.iter().any(is_label)) || is_label(&group["starts_at"]);
        let function = group["created_by"]["function"].as_str().unwrap_or_default();
        let short = function.rsplit(['.', '/']).next().unwrap_or_default();
        made || (!function.starts_with("main.") && !short.is_empty() && comment.contains(short))
    };
    let place = |group: &&Value| {
        let made = &group["created_by"];
        format!("{}:{}", made["function"].as_str().unwrap_or("?"), made["line"])
    };
    Ok(Judged {
        suspected: suspected.len(),
        at_label: suspected.iter().filter(at_label).count(),
        named: suspected.first().map_or_else(String::new, place),
        alive: groups.iter().filter_map(|group| group["count"].as_u64()).sum(),
        entry,
    })
}

fn page(judged: &[Judged]) -> String {
    let mut page = "# The labelled set\n\nVerdicts on the programs of tests/leakset, written by `cargo xtask bench leaks`. A leaking program is found if what is suspected was made at \
                    a labelled line, or by the library's function that its comment names. \"Alive at exit\" is what a check for goroutines that are left would report.\n\n"
        .to_owned();
    page += "| half | leaking | found | missed | healthy | false | healthy with goroutines alive at exit |\n| --- | --- | --- | --- | --- | --- | --- |\n";
    for half in ["seen", "unseen"] {
        let of = |leaking: bool| judged.iter().filter(move |one| one.entry.half == half && one.entry.leaking == leaking);
        let found = of(true).filter(|one| one.right()).count();
        let wrong = of(false).filter(|one| !one.right()).count();
        let alive = of(false).filter(|one| one.alive > 0).count();
        let (leaking, healthy) = (of(true).count(), of(false).count());
        let _ = writeln!(page, "| {half} | {leaking} | {found} | {} | {healthy} | {wrong} | {alive} |", leaking - found);
    }
    page += "\n| program | what it is | half | verdict | suspected at | alive at exit |\n| --- | --- | --- | --- | --- | --- |\n";
    for one in judged {
        let Entry { name, kind, half, leaking } = &one.entry;
        let side = if *leaking { "leaking" } else { "healthy" };
        let _ = writeln!(page, "| {side}/{name} | {kind} | {half} | {} | {} | {} |", one.verdict(), one.named, one.alive);
    }
    page
}
