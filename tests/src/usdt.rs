//! Programs with USDT probes: the job system of `examples/jobs` in every shape, and what it says of itself.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{
    deadline::{PATIENCE, slowness},
    fixture, process,
    recording::{Recording, Span},
};

/// How the job system is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// As a shared library beside a program that needs it.
    pub library: bool,
    pub position_independent: bool,
    pub semaphores: bool,
    /// Without the probe that tells of wakes.
    pub without_wakes: bool,
    /// Not at all: arguments lie in memory.
    pub unoptimised: bool,
}

const FIXED: Shape =
    Shape { library: false, position_independent: false, semaphores: false, without_wakes: false, unoptimised: false };

/// Every shape that there is.
pub const SHAPES: [Shape; 7] = [
    FIXED,
    Shape { semaphores: true, unoptimised: true, ..FIXED },
    Shape { position_independent: true, unoptimised: true, ..FIXED },
    Shape { position_independent: true, semaphores: true, ..FIXED },
    Shape { library: true, position_independent: true, ..FIXED },
    Shape { library: true, position_independent: true, semaphores: true, ..FIXED },
    Shape { without_wakes: true, ..FIXED },
];

impl Shape {
    /// The names of its program and of its library, if it has one.
    fn names(self) -> (String, String) {
        let number = SHAPES.iter().position(|shape| *shape == self).unwrap_or(SHAPES.len());
        (format!("jobs{number}"), format!("libjobs{number}.so"))
    }

    /// The program, in a folder with other shapes.
    pub fn program(self) -> Result<PathBuf> {
        fixture::built(&self.names().0)
    }

    /// A copy of it that nobody else traces.
    pub fn copied(self, dir: &Path) -> Result<PathBuf> {
        let (program, library) = self.names();
        let copy = |name: &str| fixture::copied(&fixture::built(name)?, &dir.join(name));
        copy(&program)?;
        if self.library {
            copy(&library)?;
        }
        Ok(dir.join(program))
    }

    fn build(self, dir: &Path) -> Result<()> {
        let sources = example("jobs");
        let (program, library) = self.names();
        let gcc = || {
            let mut gcc = Command::new("gcc");
            gcc.args(["-Wall", "-Wextra", "-Werror", "-pthread", if self.unoptimised { "-O0" } else { "-O2" }]);
            gcc.args(if self.semaphores { &["-DPROBE_SEMAPHORES"][..] } else { &[] });
            gcc.args(if self.without_wakes { &["-DJOBS_WITHOUT_WAKES"][..] } else { &[] });
            gcc
        };
        let mut link = gcc();
        link.args(if self.position_independent { ["-fPIE", "-pie"] } else { ["-fno-pie", "-no-pie"] });
        link.arg("-o").arg(dir.join(program)).arg(sources.join("main.c"));
        if self.library {
            let mut shared = gcc();
            shared.args(["-fPIC", "-shared", "-o"]).arg(dir.join(&library)).arg(sources.join("jobs.c"));
            fixture::succeed(&mut shared)?;
            link.arg("-L").arg(dir).arg(format!("-l:{library}")).arg("-Wl,-rpath,$ORIGIN");
        } else {
            link.arg(sources.join("jobs.c"));
        }
        fixture::succeed(&mut link)
    }
}

fn example(name: &str) -> PathBuf {
    fixture::workspace().join("examples").join(name)
}

/// Builds every shape in a folder.
pub(crate) fn build(dir: &Path) -> Result<()> {
    SHAPES.into_iter().try_for_each(|shape| shape.build(dir))
}

/// Compiles the Java example into a folder.
pub fn workers(dir: &Path) -> Result<()> {
    let mut javac = Command::new("javac");
    javac.arg("-d").arg(dir).arg(example("java").join("Workers.java"));
    process::run(javac)?.expect_code(0)?;
    Ok(())
}

/// What happened to a job.
#[derive(Clone, Debug, Deserialize)]
pub struct Job {
    pub id: u64,
    pub name: String,
    pub moments: Vec<Moment>,
}

/// Something that happened between two readings of CLOCK_MONOTONIC.
#[derive(Clone, Debug, Deserialize)]
pub struct Moment {
    pub what: String,
    pub reason: String,
    pub before: u64,
    pub after: u64,
}

/// The lines of the program that are jobs.
pub fn truth(stdout: &str) -> Result<Vec<Job>> {
    let lines = stdout.lines().filter(|line| line.starts_with('{'));
    let jobs: Vec<Job> = lines.map(|line| serde_json::from_str(line).context(line.to_owned())).collect::<Result<_>>()?;
    ensure!(jobs.len() == 24, "the program told of {} jobs", jobs.len());
    Ok(jobs)
}

/// Claims that the recording tells of every job exactly what happened to it, and of no other.
#[track_caller]
pub fn assert_told(recording: &Recording, runtime: &str, jobs: &[Job], wakes: bool) {
    let spans = recording.timeline(None).unwrap();
    let prefix = format!("{runtime}:");
    let units: Vec<&Span> = spans.iter().filter(|span| span.id.starts_with(&prefix)).collect();
    for job in jobs {
        let id = format!("{prefix}{}", job.id);
        let told: Vec<&&Span> = units.iter().filter(|span| span.id == id).collect();
        let (last, lines) = told.split_last().unwrap_or_else(|| panic!("nothing of {id}"));
        assert_eq!((last.state.as_str(), last.reason.as_deref()), ("dead", Some("exit")), "{told:#?}");
        let moments: Vec<&Moment> = job.moments.iter().filter(|moment| wakes || moment.what != "wake").collect();
        assert_eq!(lines.len(), moments.len() - 1, "{job:#?}\n{told:#?}");
        for (line, pair) in lines.iter().zip(moments.windows(2)) {
            let blocked = pair[0].what == "block";
            let reason = blocked.then_some(pair[0].reason.as_str());
            assert_eq!(line.state, if blocked { "blocked" } else { "awake" }, "{job:#?}\n{line:#?}");
            assert_eq!((line.reason.as_deref(), line.name.as_deref()), (reason, Some(job.name.as_str())), "{line:#?}");
            assert_eq!(line.at_most, blocked && !wakes, "{line:#?}");
            let lasted = line.end_ns.unwrap() - line.start_ns;
            let bounds = pair[1].before - pair[0].after..=pair[1].after - pair[0].before;
            assert!(bounds.contains(&lasted), "{lasted} is not in {bounds:?}: {job:#?}\n{told:#?}");
        }
    }
    let lines: usize = jobs.iter().map(|job| job.moments.iter().filter(|moment| wakes || moment.what != "wake").count()).sum();
    assert_eq!(units.len(), lines, "there is something of others");
}

/// A job system that answers what it is asked.
pub struct Asked {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Asked {
    pub fn start(program: &Path) -> Result<Self> {
        let mut child =
            Command::new(program).arg("ask").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start jobs")?;
        let (input, output) = (child.stdin.take().context("no stdin")?, child.stdout.take().context("no stdout")?);
        let (sender, lines) = channel();
        thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { child, input, lines })
    }

    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// How far its semaphores are raised.
    pub fn semaphores(&mut self) -> Result<u32> {
        writeln!(self.input, "semaphores")?;
        let line = self.lines.recv_timeout(PATIENCE * slowness()).context("no answer")?;
        Ok(line.strip_prefix("semaphores ").context(line.clone())?.parse()?)
    }

    /// Lets it run its jobs to their end.
    pub fn go(mut self) -> Result<Vec<Job>> {
        writeln!(self.input, "go")?;
        let mut text = String::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE * slowness()) {
            text += &line;
            text.push('\n');
        }
        truth(&text)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
