//! Programs that nobody here wrote, at work: everything is seen and named, and what they do comes out as it does without us.

use std::{fmt::Write, fs, net::TcpListener, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    deadline::{PATIENCE, wait_for},
    lifetrace::Run,
    process::{self, Running},
    program::fetched,
    recording::Recording,
    report::Report,
    scenario::{Need, alone},
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

const ETCD: &str = "etcd/bin/etcd";
const ETCDCTL: &str = "etcd/bin/etcdctl";
const ESBUILD: &str = "esbuild/bin/esbuild";
const LONG: Duration = Duration::from_secs(180);

/// Check that Debian's etcd (stripped, Go 1.19) under its own benchmark is traced without a loss and with every name, and that what it
/// stored can be read afterwards by one that is not traced.
#[test]
fn etcd_under_its_own_benchmark() -> Result<()> {
    const FEWEST_EVENTS: u64 = 100_000;
    alone(&[Need::Root, Need::Program(ETCD), Need::Program(ETCDCTL)], || {
        let data = TempDir::new()?;
        let etcd = Etcd::choose(data.path())?;
        let traced = Run::of(fetched(ETCD)).args(etcd.args()).start()?;
        etcd.wait_until_healthy()?;
        etcd.put(500)?;
        etcd.client(&["check", "datascale", "--load=s"], None)?;
        etcd.assert_holds(500)?;
        traced.running.signal(Signal::SIGTERM)?;
        let (finished, recording) = traced.finish_within(LONG)?;

        let mut bare = Command::new(fetched(ETCD));
        bare.args(etcd.args());
        let bare = Running::start(bare, None)?;
        etcd.wait_until_healthy()?;
        etcd.assert_holds(500)?;
        bare.signal(Signal::SIGTERM)?;
        assert_eq!(finished.code(), bare.finish()?.code(), "{}", finished.stderr);

        let report = recording.report()?;
        let [process] = &report.processes[..] else { panic!("{:?}", report.processes) };
        assert_eq!(process.go_version.as_deref(), Some("go1.19.8"));
        let waits: u64 = report.sites.iter().flat_map(|site| site.waits.iter().flatten()).map(|(_, wait)| wait.count).sum();
        assert!(2 * waits > FEWEST_EVENTS, "{waits} waits, a park and a wake each: not much of a load");
        let _ = report.goroutines().created_by("google.golang.org/grpc.(*Server).serveStreams.func1").exits();
        assert_whole(&report, &recording)
    })
}

/// Check that esbuild (no build info, a recent Go) is traced the same way, and that what it builds is the same to the last byte.
#[test]
fn esbuild_builds_the_same() -> Result<()> {
    alone(&[Need::Root, Need::Program(ESBUILD)], || {
        let project = TempDir::new()?;
        write_project(project.path(), 400)?;
        let build = |out: &str| {
            let out = format!("--outfile={out}");
            ["main.tsx", "--bundle", "--minify", "--sourcemap", "--target=es2018", "--jsx=automatic", "--external:react", &out]
                .map(str::to_owned)
        };
        let mut bare = Command::new(fetched(ESBUILD));
        bare.args(build("out.js")).current_dir(project.path());
        let bare = process::run(bare)?.expect_code(0)?;
        let outputs = || -> Result<_> { Ok(["out.js", "out.js.map"].map(|name| fs::read(project.path().join(name)).ok())) };
        let expected = outputs()?;
        ensure!(expected.iter().flatten().all(|bytes| bytes.len() > 50_000), "esbuild made little: {}", bare.stderr);
        for name in ["out.js", "out.js.map"] {
            fs::remove_file(project.path().join(name))?;
        }
        let run = Run::of(fetched(ESBUILD)).args(build("out.js")).current_dir(project.path());
        let (finished, recording) = run.finish_within(LONG)?;
        finished.expect_code(0)?;
        assert!(outputs()? == expected, "what the traced esbuild made is something else");

        let report = recording.report()?;
        let [process] = &report.processes[..] else { panic!("{:?}", report.processes) };
        assert!(process.go_version.as_deref().is_some_and(|version| version.starts_with("go1.2")), "{process:?}");
        let parsed = report.goroutines().created_by("github.com/evanw/esbuild/internal/bundler.(*scanner).maybeParseFile");
        let _ = parsed.exits();
        assert!(report.goroutines.born.is_some_and(|born| born > 400), "{:?}", report.goroutines);
        assert_whole(&report, &recording)
    })
}

/// Claims that nothing was lost, that all of it was seen at T2, that births are exits and those alive, and that every goroutine and
/// every blocking stack has its names.
fn assert_whole(report: &Report, recording: &Recording) -> Result<()> {
    report.assert_nothing_lost();
    assert!(!report.coverage.is_empty() && report.coverage.iter().all(|span| span.tier == "T2"), "{:?}", report.coverage);
    for site in &report.sites {
        assert_eq!(site.born, site.exited + site.alive, "{site:#?}");
        let by = &site.created_by;
        let named = by.function.as_ref().is_some_and(|name| !name.is_empty() && !name.starts_with('?'));
        assert!(named && by.file.is_some() && by.line.is_some_and(|line| line > 0), "{site:#?}");
        assert!(site.start_function.as_ref().is_some_and(|name| name.contains('.')), "{site:#?}");
    }
    let totals = report.goroutines;
    assert_eq!(totals.born, Some(totals.exited.unwrap_or_default() + totals.alive.unwrap_or_default()), "{totals:?}");
    let folded = recording.answer("flame", &["--by", "blocked", "--format", "folded"])?;
    let strange: Vec<_> = folded.lines().filter(|line| line.split(';').any(|frame| frame.starts_with('?'))).collect();
    assert!(
        strange.is_empty(),
        "frames without a name, {} of {} stacks: {:#?}",
        strange.len(),
        folded.lines().count(),
        &strange[..1]
    );
    assert!(folded.lines().count() > 10, "few stacks: {folded}");
    Ok(())
}

/// An etcd of one member.
struct Etcd<'a> {
    data: &'a Path,
    client: String,
    peer: String,
}

impl<'a> Etcd<'a> {
    fn choose(data: &'a Path) -> Result<Self> {
        let free = || -> Result<String> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string()) };
        Ok(Self { data, client: free()?, peer: free()? })
    }

    fn args(&self) -> Vec<String> {
        let (client, peer) = (format!("http://{}", self.client), format!("http://{}", self.peer));
        let mut args = vec!["--data-dir".to_owned(), self.data.display().to_string(), "--log-level=error".to_owned()];
        for (option, value) in
            [("--listen-client-urls", &client), ("--advertise-client-urls", &client), ("--listen-peer-urls", &peer)]
        {
            args.extend([option.to_owned(), value.clone()]);
        }
        args
    }

    fn client(&self, args: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = Command::new(fetched(ETCDCTL));
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(&self.client).args(args);
        let finished = Running::start(command, input.map(str::as_bytes))?.finish_within(LONG)?;
        Ok(finished.expect_code(0)?.stdout)
    }

    fn wait_until_healthy(&self) -> Result<()> {
        wait_for("etcd to be healthy", PATIENCE, || Ok(self.client(&["endpoint", "health"], None).ok().map(drop)))
    }

    /// Stores `key-N` = `value-N` for `count` numbers, a hundred in a transaction.
    fn put(&self, count: u32) -> Result<()> {
        for first in (0..count).step_by(100) {
            let mut requests = "\n".to_owned();
            for number in first..(first + 100).min(count) {
                writeln!(requests, "put key-{number} value-{number}")?;
            }
            let said = self.client(&["txn"], Some(&(requests + "\n\n")))?;
            ensure!(said.contains("OK"), "etcdctl txn: {said}");
        }
        Ok(())
    }

    fn assert_holds(&self, count: u32) -> Result<()> {
        let said = self.client(&["get", "--prefix", "key-"], None)?;
        let mut lines = said.lines();
        let mut found = 0;
        while let (Some(key), Some(value)) = (lines.next(), lines.next()) {
            ensure!(key.replace("key", "value") == value, "{key} is {value}");
            found += 1;
        }
        ensure!(found == count, "{found} of {count} keys are there");
        Ok(())
    }
}

/// Writes a project of `modules` modules in TypeScript and JSX, each of which imports some of those before it.
fn write_project(dir: &Path, modules: usize) -> Result<()> {
    let mut main = "import { useState } from 'react';\n".to_owned();
    for number in 0..modules {
        let before: Vec<_> = (1..=3).filter_map(|step| number.checked_sub(step * step)).collect();
        let mut text = String::new();
        for other in &before {
            writeln!(text, "import {{ Part{other}, sum{other} }} from './part{other}';")?;
        }
        let sums: String = before.iter().map(|other| format!(" + sum{other}(deep - 1)")).collect();
        let parts: String = before.iter().map(|other| format!("<Part{other} deep={{deep - 1}} />")).collect();
        write!(
            text,
            "interface Props{number} {{ deep: number; label?: string }}\n\
             enum Colour{number} {{ Red, Green, Blue = {number} }}\n\
             export function sum{number}(deep: number): number {{ return deep <= 0 ? Colour{number}.Blue : {number}{sums}; }}\n\
             export const Part{number} = ({{ deep, label = 'part {number}' }}: Props{number}) =>\n  \
             deep <= 0 ? null : <div className=\"part-{number}\" title={{label ?? `${{deep}}`}}>{parts}</div>;\n"
        )?;
        fs::write(dir.join(format!("part{number}.tsx")), text)?;
        writeln!(main, "export * from './part{number}';")?;
    }
    writeln!(main, "export const App = () => {{ const [n] = useState(3); return <main>{{n}}</main>; }};")?;
    fs::write(dir.join("main.tsx"), main).context("main.tsx")
}
