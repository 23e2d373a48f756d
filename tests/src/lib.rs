//! End-to-end tests: real programs that know their own truth, traced for real, and what lifetrace says about them.
//!
//! The vocabulary:
//! - a [`fixture`] is a small Go or C program of `tests/fixtures`, built once; it prints its [`truth`] as JSON;
//! - [`lifetrace::Run`] traces a command; [`process::Running`] is any child with its output captured and a deadline;
//! - a [`recording::Recording`] is asked by `lifetrace report` and `timeline`, and a [`report::Report`] answers expectations such as
//!   `report.goroutines().created_by("main.worker").blocked_on("chan receive").exits()`;
//! - a [`scenario`] is one test: [`scenario::alone`] where it counts exactly or looks at the whole kernel, [`scenario::along`] otherwise. What it
//!   needs and does not find makes it a recorded skip.
//!
//! Environment: `LIFETRACE_BIN` (default: `lifetrace` in the target directory's `debug`), `LIFETRACE_GO` (default: `go` in `PATH`, then
//! `/usr/local/go/bin/go`), `LIFETRACE_MATRIX` (a file of cells, which xtask writes for `matrix.rs`), `LIFETRACE_REQUIRE_ALL=1` (a skip is a failure),
//! `LIFETRACE_FIXTURES` (a folder of fixtures to use instead of building them), `LIFETRACE_PATIENCE` (how many times longer anything may take),
//! `LIFETRACE_OWN_MACHINE` (nobody minds if the machine is put to sleep). Skips are appended to `target/skips.jsonl`.

pub mod agent;
pub mod api_server;
pub mod attach;
pub mod bpf;
pub mod cgroup;
pub mod container;
pub mod deadline;
pub mod deploy;
pub mod disk;
pub mod dump;
pub mod fixture;
pub mod image;
pub mod kernel;
pub mod leaks;
pub mod life;
pub mod lifetrace;
pub mod memory;
pub mod otelcol;
pub mod pod;
pub mod pprof_server;
pub mod process;
pub mod program;
pub mod prometheus;
pub mod recording;
pub mod report;
pub mod scenario;
pub mod segments;
pub mod series;
pub mod soak;
pub mod terminal;
pub mod truth;
pub mod usdt;
pub mod user;
