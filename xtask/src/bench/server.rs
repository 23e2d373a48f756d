//! What following an HTTP server costs those who ask it: throughput and lateness, untraced, at each tier, at a budget, and with Go's own
//! execution tracer on.
//!
//! In turn, several rounds, each with a fresh attach to the same server; untraced twice, so that the spread of untraced against untraced
//! stands beside.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{
    median,
    page::{SERVER, tell},
    process::{Running, cpu_seconds},
    spread,
};
use crate::{place, setup, shell};

const FULL: &str = "HTTP server, full load";
const TENTH: &str = "HTTP server, a tenth of it";
/// Rounds, if `LIFETRACE_BENCH_ROUNDS` does not say otherwise, and how long the server is asked in each.
const ROUNDS: usize = 10;
const LASTS: Duration = Duration::from_secs(8);
/// Connections of wrk.
const CONNECTIONS: &str = "16";
const BODY: &str = r#"{"Item": 7, "Count": 3}"#;

/// How the server is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Untraced,
    /// The same again: what differs is chance.
    Again,
    /// Looks at its memory, without a probe.
    Looks,
    Tier(&'static str),
    Budget,
    /// The same, once it has been followed for a while: the governor does not begin with what it will come to.
    Settled,
    /// `runtime/trace`.
    GoTrace,
}

impl Mode {
    const ALL: [Self; 9] = [
        Self::Untraced,
        Self::Looks,
        Self::Tier("T1"),
        Self::Tier("T2"),
        Self::Tier("T3"),
        Self::Budget,
        Self::Settled,
        Self::GoTrace,
        Self::Again,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Untraced => "untraced",
            Self::Again => "untraced again",
            Self::Looks => "T0",
            Self::Tier(tier) => tier,
            Self::Budget => "budget 1 %",
            Self::Settled => "budget 1 %, settled",
            Self::GoTrace => "runtime/trace",
        }
    }
}

/// What those who asked saw.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Seen {
    a_second: f64,
    p99_ns: f64,
}

/// One line of the benchmark's JSON (docs: "bench").
#[derive(Serialize)]
struct Row {
    row: String,
    mode: &'static str,
    /// Requests a second, and how late 99 of 100 answers were at most, ns.
    a_second: f64,
    p99_ns: f64,
    /// CPU time of the server for a request, ns.
    cpu_ns: f64,
    /// The same as shares of untraced: medians of the rounds' own ratios.
    throughput: f64,
    p99: f64,
    cpu: f64,
    rounds: usize,
    /// Spread of the ratio of throughput: (largest - smallest) / median.
    spread: f64,
    /// The same of the ratio of p99.
    p99_spread: f64,
}

/// The server, ended with us.
struct Shop {
    running: Running,
    address: String,
}

impl Shop {
    fn start(program: &Path) -> Result<Self> {
        let mut running = Running(Command::new(program).arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().context("no server")?);
        let mut line = String::new();
        BufReader::new(running.0.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("ready ").with_context(|| format!("the server says {line:?}"))?.to_owned();
        Ok(Self { running, address })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// CPU time so far, ns: to a hundredth of a second.
    fn cpu_ns(&self) -> Result<f64> {
        cpu_seconds(self.running.pid()).map(|seconds| seconds * 1e9).context("the server has ended")
    }
}

/// A tracer that goes on until it is dropped.
struct Tracer(Option<Child>);

impl Tracer {
    fn start(mode: Mode, lifetrace: &Path, shop: &Shop) -> Result<Self> {
        let mut command = Command::new(lifetrace);
        let pid = shop.running.pid().to_string();
        match mode {
            Mode::Untraced | Mode::Again => return Ok(Self(None)),
            Mode::GoTrace => {
                let seconds = LASTS.as_secs_f64() + 0.5;
                // What it writes is taken away again by a shell that waits for it.
                let url = shop.url(&format!("trace?seconds={seconds}"));
                let mut shell = Command::new("sh");
                shell.args(["-c", "rm -f \"$(curl -s \"$0\")\"", &url]).stdout(Stdio::null());
                let child = shell.spawn().context("no curl")?;
                thread::sleep(Duration::from_millis(100));
                return Ok(Self(Some(child)));
            }
            Mode::Looks => {
                command.args(["leaks", "--quiet", "--fail-on", "never", "--watch", "60s", "--pid", &pid]);
                command.stdout(Stdio::null());
            }
            Mode::Tier(tier) => _ = command.args(["attach", "--tier", tier, "--pid", &pid, "-o"]).arg(recording()),
            Mode::Budget | Mode::Settled => _ = command.args(["attach", "--budget", "1%", "--pid", &pid, "-o"]).arg(recording()),
        }
        let mut child = command.stderr(Stdio::piped()).spawn().context("cannot start lifetrace")?;
        let mut lines = BufReader::new(child.stderr.take().context("no stderr")?).lines();
        if mode == Mode::Looks {
            thread::sleep(Duration::from_millis(300));
        } else {
            let mut said = Vec::new();
            let mut follows = false;
            for line in lines.by_ref().map_while(Result::ok) {
                follows = line.contains("following");
                said.push(line);
                if follows {
                    break;
                }
            }
            if !follows {
                bail!("lifetrace does not follow the server: {}", said.join("; "));
            }
        }
        // What it says later must find a reader.
        thread::spawn(move || lines.for_each(drop));
        Ok(Self(Some(child)))
    }

    fn end(mut self, mode: Mode) -> Result<()> {
        if let Some(mut child) = self.0.take() {
            if mode != Mode::GoTrace {
                shell::run(Command::new("kill").args(["-INT", &child.id().to_string()]))?;
            }
            child.wait()?;
        }
        Ok(())
    }
}

fn recording() -> PathBuf {
    place::target().join("bench/server.lifetrace")
}

/// Measures the rows whose name holds `only`.
pub fn bench(lifetrace: &Path, only: &str, json_only: bool) -> Result<()> {
    if ![FULL, TENTH].iter().any(|row| row.contains(only)) {
        return Ok(());
    }
    let (shop, load) = (place::target().join("bench/shop"), place::target().join("bench/load"));
    setup::go_program(&place::root().join("xtask/bench/shop"), &shop)?;
    setup::go_program(&place::root().join("xtask/bench/load"), &load)?;
    let script = place::target().join("bench/order.lua");
    fs::write(&script, format!("wrk.method = \"POST\"\nwrk.body = '{BODY}'\n"))?;
    let shop = Shop::start(&shop)?;
    let at_full = || wrk(&shop, &script);
    let usual = at_full()?.a_second;
    if FULL.contains(only) {
        row(FULL, &Mode::ALL, (lifetrace, &shop), at_full, json_only)?;
    }
    if TENTH.contains(only) {
        let rate = (usual / 10.0).to_string();
        let seldom = || asked(&load, &shop, &rate);
        row(
            TENTH,
            &[Mode::Untraced, Mode::Tier("T2"), Mode::Budget, Mode::Settled, Mode::Again],
            (lifetrace, &shop),
            seldom,
            json_only,
        )?;
    }
    Ok(())
}

fn row(
    name: &str,
    modes: &[Mode],
    (lifetrace, shop): (&Path, &Shop),
    ask: impl Fn() -> Result<Seen>,
    json_only: bool,
) -> Result<()> {
    let wanted = std::env::var("LIFETRACE_BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let mut rounds: Vec<Vec<(Seen, f64)>> = vec![Vec::new(); modes.len()];
    for _ in 0..wanted {
        for (mode, seen) in modes.iter().zip(&mut rounds) {
            let tracer = Tracer::start(*mode, lifetrace, shop)?;
            if *mode == Mode::Settled {
                ask()?;
            }
            let before = shop.cpu_ns()?;
            let answered = ask()?;
            let cpu_ns = (shop.cpu_ns()? - before) / (answered.a_second * LASTS.as_secs_f64());
            tracer.end(*mode)?;
            seen.push((answered, cpu_ns));
        }
    }
    if !json_only {
        println!(
            "{:<28} {:<20} {:>10} {:>10} {:>12} {:>8} {:>8} {:>8} {:>8}",
            name, "", "req/s", "p99 µs", "CPU µs/req", "req/s", "p99", "CPU", "spread"
        );
    }
    let (untraced, all) = (rounds[0].clone(), rounds);
    for (mode, seen) in modes.iter().zip(all) {
        let of = |value: fn(&(Seen, f64)) -> f64| median(&seen.iter().map(value).collect::<Vec<_>>());
        let ratios = |value: fn(&(Seen, f64)) -> f64| -> Vec<f64> {
            seen.iter().zip(&untraced).map(|(ours, bare)| value(ours) / value(bare)).collect()
        };
        let throughput = ratios(|(seen, _)| seen.a_second);
        let p99 = ratios(|(seen, _)| seen.p99_ns);
        let row = Row {
            row: name.to_owned(),
            mode: mode.name(),
            a_second: of(|(seen, _)| seen.a_second),
            p99_ns: of(|(seen, _)| seen.p99_ns),
            cpu_ns: of(|(_, cpu)| *cpu),
            throughput: median(&throughput),
            p99: median(&p99),
            cpu: median(&ratios(|(_, cpu)| *cpu)),
            rounds: wanted,
            spread: spread(&throughput),
            p99_spread: spread(&p99),
        };
        if !json_only {
            println!(
                "{:<28} {:<20} {:>10.0} {:>10.0} {:>12.1} {:>8.3} {:>8.3} {:>8.3} {:>7.0}%",
                "",
                row.mode,
                row.a_second,
                row.p99_ns / 1e3,
                row.cpu_ns / 1e3,
                row.throughput,
                row.p99,
                row.cpu,
                row.spread * 100.0
            );
        }
        tell(&SERVER, &row)?;
    }
    Ok(())
}

/// Asks as fast as answers come.
fn wrk(shop: &Shop, script: &Path) -> Result<Seen> {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c", CONNECTIONS, "-d", &format!("{}s", LASTS.as_secs()), "--latency", "-s"]).arg(script);
    let said = shell::output(wrk.arg(shop.url("order")))?;
    let word = |line: &str| -> Option<String> {
        Some(said.lines().find(|said| said.trim_start().starts_with(line))?.split_whitespace().nth(1)?.to_owned())
    };
    let a_second = word("Requests/sec:").and_then(|word| word.parse().ok());
    let p99_ns = word("99%").and_then(|word| nanoseconds(&word));
    let (a_second, p99_ns) = a_second.zip(p99_ns).with_context(|| format!("wrk says {said}"))?;
    Ok(Seen { a_second, p99_ns })
}

/// A time as wrk writes it: `7.62ms`.
fn nanoseconds(word: &str) -> Option<f64> {
    let units = [("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    units.iter().find_map(|(unit, ns)| Some(word.strip_suffix(unit)?.parse::<f64>().ok()? * ns))
}

/// Asks so often a second.
fn asked(load: &Path, shop: &Shop, rate: &str) -> Result<Seen> {
    let lasts = format!("{}s", LASTS.as_secs());
    let mut command = Command::new(load);
    command.args(["-url", &shop.url("order"), "-body", BODY, "-rate", rate, "-for", &lasts, "-connections", CONNECTIONS]);
    let said = shell::output(&mut command)?;
    serde_json::from_str(&said).with_context(|| said.clone())
}
