//! What the fixtures say about themselves: their JSON, and how a report is held against it.

use anyhow::{Context, Result};
use serde::{Deserialize, de::DeserializeOwned};

use crate::report::Report;

/// Of `births`, `osexit`, `panics` and `sleeper`.
#[derive(Clone, Debug, Deserialize)]
pub struct Births {
    pub pid: u32,
    pub sites: Vec<Site>,
}

/// One `go` statement.
#[derive(Clone, Debug, Deserialize)]
pub struct Site {
    pub function: String,
    pub file: String,
    pub line: u32,
    pub made: u64,
    pub exited: u64,
    pub alive: u64,
    /// What those alive wait for, in the words of the Go version that built the program.
    pub wait_reason: Option<String>,
}

/// Of `seam`.
#[derive(Clone, Debug, Deserialize)]
pub struct Seam {
    pub pid: u32,
    #[serde(default)]
    pub lives: Vec<Lifetime>,
}

/// A goroutine in wall time, as it saw itself.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Lifetime {
    pub goid: u64,
    /// Just before its go statement.
    pub made_ns: u64,
    /// Its first and its last statement; 0: it stays.
    pub begun_ns: u64,
    pub ended_ns: u64,
}

/// Of `pingpong`.
#[derive(Clone, Debug, Deserialize)]
pub struct PingPong {
    pub pid: u32,
    pub rounds: u64,
    pub parks: u64,
    pub wakes: u64,
    pub elapsed_ns: u64,
    pub sites: Vec<Site>,
}

/// Of `matrix`.
#[derive(Clone, Debug, Deserialize)]
pub struct Matrix {
    pub pid: u32,
    pub parks: u64,
    /// 3 where C counted, 0 in a build without it.
    pub from_c: u32,
    pub sites: Vec<Site>,
    /// Address of the mutex that those wait for who wait for one, in hex.
    pub lock: String,
}

/// Of `sched`: how often things were done that change a goroutine's state.
#[derive(Clone, Debug, Deserialize)]
pub struct Sched {
    pub pid: u32,
    /// By `runtime.Gosched`.
    pub yields: u64,
    pub sleeps: u64,
    /// Blocking reads, each a system call.
    pub calls: u64,
    /// To a coroutine, and as often back.
    pub switches: u64,
    pub delay: Delay,
    pub sites: Vec<Site>,
}

/// Of `cthreads`: threads of C that called Go, and their calls.
#[derive(Clone, Debug, Deserialize)]
pub struct CThreads {
    pub pid: u32,
    pub threads: u64,
    pub calls: u64,
}

/// How long a goroutine waited for a CPU after it was woken.
#[derive(Clone, Debug, Deserialize)]
pub struct Delay {
    pub at_least_ns: u64,
    pub at_most_ns: u64,
    pub goid: u64,
}

/// Of `tree`.
#[derive(Clone, Debug, Deserialize)]
pub struct Tree {
    pub pid: u32,
    pub sites: Vec<Site>,
    pub nodes: Vec<Node>,
}

/// Of `burner`.
#[derive(Clone, Debug, Deserialize)]
pub struct Burning {
    pub pid: u32,
    pub burners: Vec<Burner>,
}

/// A goroutine that burns CPU time in one function, made in another.
#[derive(Clone, Debug, Deserialize)]
pub struct Burner {
    pub function: String,
    pub maker: String,
    /// Its share is this over the sum of all.
    pub work: u64,
    pub goid: u64,
}

/// Of `collector`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Collected {
    pub pid: u32,
    pub cycles: u64,
    pub read_mem_stats: u64,
    pub gomaxprocs: u64,
    /// How long the world stood still in each cycle (`runtime.MemStats.PauseNs`).
    pub pause_ns: Vec<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    pub goid: u64,
    pub parent: u64,
    pub generation: u32,
}

/// Of `waits`.
#[derive(Clone, Debug, Deserialize)]
pub struct Waits {
    pub pid: u32,
    /// Where it serves `net/http/pprof`.
    pub socket: std::path::PathBuf,
    pub said: Vec<Said>,
}

/// Of `served`.
#[derive(Clone, Debug, Deserialize)]
pub struct Served {
    pub pid: u32,
    /// Where it serves `net/http/pprof`.
    pub address: std::net::SocketAddr,
    pub said: Vec<Said>,
}

/// What a goroutine said of itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Said {
    pub goid: u64,
    pub labels: std::collections::BTreeMap<String, String>,
}

/// Of `spawner`: a process it made, or itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Process {
    pub pid: u32,
    pub program: String,
    pub exit_code: i32,
    /// What a leaf printed.
    pub output: Option<String>,
    #[serde(default)]
    pub children: Vec<Process>,
}

/// Of `waiter`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Waiter {
    pub pid: u32,
    pub children: u32,
    pub ended: u32,
    pub succeeded: u32,
    pub stops: u32,
    pub continues: u32,
    pub signals: ChildSignals,
}

/// SIGCHLDs by what they said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ChildSignals {
    pub exited: u32,
    pub stopped: u32,
    pub continued: u32,
    pub other: u32,
}

/// Of `stdio`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Stdio {
    pub args: Vec<String>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Option<Vec<u32>>,
    pub dir: String,
    pub env: std::collections::BTreeMap<String, String>,
    pub umask: u32,
    pub blocked: String,
    pub ignored: String,
}

/// A phase of the grower.
#[derive(Clone, Debug, Deserialize)]
pub struct Grown {
    pub pid: u32,
    /// Wall time at which it stood still.
    pub unix_ns: u64,
    pub goroutines: u64,
    pub rss_bytes: u64,
    pub cycles: u32,
    pub sites: Vec<Site>,
}

/// Of `examples/orders`.
#[derive(Clone, Debug, Deserialize)]
pub struct Orders {
    pub pid: u32,
    pub made: Vec<Count>,
    pub alive: Vec<Count>,
    pub settled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Count {
    pub function: String,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub via: Option<String>,
    pub count: u64,
}

/// Reads the line a fixture printed.
pub fn read<T: DeserializeOwned>(line: &str) -> Result<T> {
    serde_json::from_str(line).with_context(|| format!("not a fixture's truth: {line:?}"))
}

/// Claims births, exits, still-alive, creator and line of every site, exactly.
#[track_caller]
pub fn assert_sites(report: &Report, tgid: u32, sites: &[Site]) {
    for site in sites.iter().filter(|site| site.made > 0) {
        let found = report.goroutines().of(tgid).created_by(&site.function).at(&site.file, site.line);
        let _ = found.born(site.made).exited(site.exited).alive(site.alive);
    }
}

/// Claims that those alive wait for what the site says, each for the first time, and that those gone never waited for it.
#[track_caller]
pub fn assert_waits(report: &Report, tgid: u32, sites: &[Site]) {
    for site in sites {
        let Some(reason) = &site.wait_reason else { continue };
        let found = report.goroutines().of(tgid).created_by(&site.function).at(&site.file, site.line);
        let _ = found.blocked_on(reason).count(site.alive);
    }
}

impl Waiter {
    /// What a parent of `n` children that all succeed sees if nobody interferes.
    #[track_caller]
    pub fn assert_undisturbed(&self, n: u32) {
        let signals = ChildSignals { exited: n, stopped: 0, continued: 0, other: 0 };
        let expected = Self { pid: self.pid, children: n, ended: n, succeeded: n, stops: 0, continues: 0, signals };
        assert_eq!(*self, expected);
    }
}

impl Process {
    /// This process and all below it.
    #[must_use]
    pub fn all(&self) -> Vec<&Self> {
        std::iter::once(self).chain(self.children.iter().flat_map(Self::all)).collect()
    }
}
