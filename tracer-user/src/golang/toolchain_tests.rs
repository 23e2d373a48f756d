//! Binaries of a real toolchain, built on the spot: `go` from PATH, or the ones `LIFETRACE_GO` names (separated by colons).

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use super::*;
use crate::event::Transition;

/// `inner` is inlined into `outer`, and `outer` into `main`: the call to `keep` is then three frames deep.
const PROGRAM: &str = r#"package main

import "os"

//go:noinline
func keep(n int) int { return n + len(os.Args) }

func inner(n int) int {
	return keep(n) * 2
}

func outer(n int) int { return inner(n) + 1 }

func main() {
	c := make(chan int)
	go func() { c <- outer(3) }()
	println(outer(<-c))
}
"#;
const MAIN_LINE: u32 = 14;
const KEEP_CALL_LINE: u32 = 9;

/// Coroutines beside go statements, busy enough for a profile to inline the scheduler's hot paths. Go 1.23 and later.
const COROUTINES: &str = r#"package main

import (
	"iter"
	"os"
	"runtime/pprof"
	"sync"
	"time"
)

func burst(end time.Time) {
	for time.Now().Before(end) {
		c := make(chan int)
		for i := 0; i < 50; i++ {
			go func() { c <- i }()
		}
		for i := 0; i < 50; i++ {
			<-c
		}
		next, stop := iter.Pull(iter.Seq[int](func(yield func(int) bool) {
			for i := 0; i < 3 && yield(i); i++ {
			}
		}))
		next()
		stop()
	}
}

func main() {
	pprof.StartCPUProfile(os.Stdout)
	var wg sync.WaitGroup
	for i := 0; i < 4; i++ {
		wg.Add(1)
		go func() { burst(time.Now().Add(time.Second)); wg.Done() }()
	}
	wg.Wait()
	pprof.StopCPUProfile()
}
"#;

/// The toolchains to test with. None at all is said aloud: a silent pass would be a lie.
fn toolchains() -> Vec<PathBuf> {
    let named = std::env::var_os("LIFETRACE_GO").unwrap_or_else(|| "go".into());
    let works = |go: &PathBuf| Command::new(go).arg("version").output().is_ok_and(|output| output.status.success());
    let found: Vec<_> = std::env::split_paths(&named).filter(works).collect();
    if found.is_empty() {
        println!("skipped: no go toolchain");
    }
    found
}

fn build(go: &Path, folder: &Path, flags: &[&str]) -> Vec<u8> {
    build_program(go, folder, flags, PROGRAM, "1.19")
}

/// `language` is the `go` line of go.mod.
fn build_program(go: &Path, folder: &Path, flags: &[&str], program: &str, language: &str) -> Vec<u8> {
    fs::write(folder.join("main.go"), program).unwrap();
    fs::write(folder.join("go.mod"), format!("module example.com/traced\n\ngo {language}\n")).unwrap();
    let mut command = Command::new(go);
    command.arg("build").args(flags).args(["-o", "traced", "."]).current_dir(folder);
    for variable in ["GOROOT", "GOFLAGS", "GOOS", "GOARCH", "GOEXPERIMENT"] {
        command.env_remove(variable);
    }
    command.env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0").env("GOAMD64", "v1");
    if std::env::var_os("HOME").is_none() {
        command.env("GOCACHE", folder.join("cache"));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}: {}", go.display(), String::from_utf8_lossy(&output.stderr));
    fs::read(folder.join("traced")).unwrap()
}

const MODES: [&[&str]; 4] = [&[], &["-ldflags=-s -w"], &["-buildmode=pie"], &["-buildmode=pie", "-ldflags=-s -w"]];

fn check_plan(binary: &GoBinary, label: &str) {
    let whole = binary.plan(Tier::T3);
    let counts: Vec<_> = Hook::all().map(|hook| format!("{hook} {}", whole.count(hook))).collect();
    println!("{label}: {}", counts.join(", "));
    assert!(whole.complete(), "{label}: {:?}", whole.missing);
    for hook in Hook::all().filter(|hook| hook.is_everywhere()) {
        assert!(whole.count(hook) > 0, "{label}: {hook}");
    }
    for site in &whole.sites {
        println!("  {:#x} {} {} in {}, register {}", site.address, site.hook, site.instruction, site.function, site.register);
        assert!(site.emulated, "{label}: {site:?}");
        assert_eq!(binary.shelf.outline().file_offset(site.address), Some(site.file_offset));
    }
    let mut keys: Vec<_> = whole.sites.iter().map(|site| (site.address, site.hook)).collect();
    keys.dedup();
    assert_eq!(keys.len(), whole.sites.len());
    for tier in [Tier::T1, Tier::T2] {
        let plan = binary.plan(tier);
        let part: Vec<_> = whole.sites.iter().filter(|site| site.hook.tier() <= tier).cloned().collect();
        assert!(plan.complete() && plan.sites == part, "{label} {tier:?}");
    }
    assert_eq!(whole.without_gc(), None, "{label}");
    assert!(Hook::GC.iter().all(|hook| whole.count(*hook) == 1), "{label}");
    assert_eq!(binary.plan(Tier::T0), Plan::default());
}

fn check_symbols(binary: &GoBinary, label: &str) {
    let entry = binary.function("main.main").unwrap();
    let frames = binary.symbolize(entry, CodeUse::Entry);
    let last = frames.last().unwrap();
    assert_eq!((last.function.as_str(), last.line), ("main.main", MAIN_LINE), "{label}");
    assert!(last.file.ends_with("main.go"), "{label}: {}", last.file);
    let keep = binary.function("main.keep").unwrap();
    let elf = binary.shelf.elf().unwrap();
    let code = elf.from(entry).unwrap();
    let code = &code[..code.len().min(512)];
    let code = flow::Code::decode(entry, code);
    let call = (0..code.instructions.len()).find(|&index| code.call_target(index) == Some(keep)).unwrap();
    let frames = binary.symbolize(code.instructions[call].next_ip(), CodeUse::Return);
    let names: Vec<_> = frames.iter().map(|frame| frame.function.as_str()).collect();
    assert_eq!(names, ["main.inner", "main.outer", "main.main"], "{label}");
    let lines: Vec<_> = frames.iter().map(|frame| frame.line).collect();
    assert_eq!(lines, [KEEP_CALL_LINE, 12, 17], "{label}");
}

/// Check that plan and symbols are whole in each build mode of each toolchain.
#[test]
fn plan_and_symbols() {
    for go in toolchains() {
        for flags in MODES {
            let folder = tempfile::tempdir().unwrap();
            build(&go, folder.path(), flags);
            let file = File::open(folder.path().join("traced")).unwrap();
            assert!(looks_like_go(&file).unwrap());
            let binary = GoBinary::open(&file).unwrap();
            let label = format!("{} {flags:?}", binary.version());
            assert_eq!(binary.is_pie(), flags.contains(&"-buildmode=pie"), "{label}");
            assert_eq!(binary.module(), "example.com/traced", "{label}");
            assert!(binary.build_id().is_some_and(|id| id.len() >= 20), "{label}");
            let layout = binary.layout().unwrap();
            assert_eq!((layout.valid, layout.g_tls), (1, -8), "{label}");
            assert!(binary.stw_reasons().contains(&"read mem stats"), "{label}");
            assert!(binary.hchan_lock().is_some() && binary.wait_reasons().len() > 20, "{label}");
            assert_eq!(
                version_from_code(&binary.shelf.elf().unwrap(), &binary.header, binary.text).as_ref(),
                Some(binary.version()),
                "{label}"
            );
            let all = binary.all_goroutines().unwrap();
            assert!(
                binary.snapshot_layout().is_ok() && all.len.is_multiple_of(8) && all.first.is_multiple_of(8),
                "{label}: {all:?}"
            );
            check_plan(&binary, &label);
            check_symbols(&binary, &label);
        }
    }
}

/// Check that an unoptimised build, whose variables live on the stack, has a whole plan.
#[test]
fn unoptimised_builds() {
    for go in toolchains() {
        let folder = tempfile::tempdir().unwrap();
        let binary = GoBinary::from_bytes(build(&go, folder.path(), &["-gcflags=all=-N -l"])).unwrap();
        check_plan(&binary, &format!("{} unoptimised", binary.version()));
        binary.all_goroutines().unwrap();
    }
}

/// Check that coroutines have a birth site of their own, and that a build inlined by its own profile has a whole plan in which
/// each site behind a compare-and-swap says how success looks.
#[test]
fn coroutines_and_profile_guided_builds() {
    for go in toolchains() {
        let folder = tempfile::tempdir().unwrap();
        let version = GoBinary::from_bytes(build(&go, folder.path(), &[])).unwrap().version().clone();
        if version.release() < (1, 23) {
            println!("skipped: {version} has no package iter");
            continue;
        }
        let plain = build_program(&go, folder.path(), &[], COROUTINES, "1.23");
        let plain = GoBinary::from_bytes(plain).unwrap();
        check_plan(&plain, &format!("{version} coroutines"));
        for transition in [Transition::CoroutineStop, Transition::CoroutineRun] {
            assert_eq!(plain.plan(Tier::T3).count(Hook::Transition(transition)), 2, "{version}: {transition:?}");
        }
        assert_eq!(plain.plan(Tier::T1).count(Hook::Birth), 2, "{version}");
        assert!(plain.plan(Tier::T2).sites.iter().all(|site| site.needs_zf.is_none()), "{version}");
        let profile = Command::new(folder.path().join("traced")).output().unwrap().stdout;
        fs::write(folder.path().join("cpu.pprof"), profile).unwrap();
        let guided = GoBinary::from_bytes(build_program(&go, folder.path(), &["-pgo=cpu.pprof"], COROUTINES, "1.23")).unwrap();
        check_plan(&guided, &format!("{version} profile-guided"));
        for site in guided.plan(Tier::T3).sites {
            let behind = site.note.contains("casgstatus") || site.note.contains("compare-and-swap");
            assert_eq!(site.needs_zf.is_some(), behind, "{version}: {site:?}");
        }
    }
}

/// Check that a Go binary without section headers is read like one that has them.
#[test]
fn sections_are_not_needed() {
    for go in toolchains() {
        for flags in [MODES[0], MODES[2]] {
            let folder = tempfile::tempdir().unwrap();
            let mut bytes = build(&go, folder.path(), flags);
            let whole = GoBinary::from_bytes(bytes.clone()).unwrap();
            // e_shoff, then e_shnum and e_shstrndx.
            bytes[40..48].fill(0);
            bytes[60..64].fill(0);
            fs::write(folder.path().join("traced"), &bytes).unwrap();
            let file = File::open(folder.path().join("traced")).unwrap();
            let bare = GoBinary::open(&file).unwrap();
            assert_eq!(bare.version(), whole.version());
            assert_eq!(bare.module(), whole.module());
            assert_eq!(bare.plan(Tier::T2), whole.plan(Tier::T2));
        }
    }
}

/// Check that a binary cut anywhere gives an error or a poorer answer, never a panic.
#[test]
fn truncation_is_survived() {
    let Some(go) = toolchains().into_iter().next() else { return };
    let folder = tempfile::tempdir().unwrap();
    let bytes = build(&go, folder.path(), &["-ldflags=-s -w"]);
    let headers = 0..0x1000;
    let body = (0x1000..bytes.len()).step_by(bytes.len() / 61 + 1);
    for len in headers.chain(body) {
        if let Ok(binary) = GoBinary::from_bytes(bytes[..len].to_vec()) {
            let _ = (binary.plan(Tier::T2), binary.symbolize(binary.text + 100, CodeUse::Return));
        }
    }
}

/// Check that a binary with bytes overwritten here and there gives an error or a poorer answer, never a panic.
#[test]
fn damage_is_survived() {
    let Some(go) = toolchains().into_iter().next() else { return };
    let folder = tempfile::tempdir().unwrap();
    let bytes = build(&go, folder.path(), &["-buildmode=pie"]);
    let table = GoBinary::from_bytes(bytes.clone()).unwrap();
    let table = table.shelf.outline().file_offset(table.header.address).unwrap() as usize;
    let mut seed = 7u64;
    for round in 0..120 {
        let mut damaged = bytes.clone();
        // Half of the rounds hit the headers, where a lie does most.
        let range = [(0, 0x1000), (table, 0x100), (table, bytes.len() - table), (0, bytes.len())][round % 4];
        for _ in 0..24 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = range.0 + (seed >> 33) as usize % range.1;
            if at >= 20 {
                damaged[at] = if seed & 1 == 0 { 0xff } else { (seed >> 24) as u8 };
            }
        }
        if let Ok(binary) = GoBinary::from_bytes(damaged) {
            let plan = binary.plan(Tier::T2);
            for site in plan.sites.iter().take(20) {
                let _ = binary.symbolize(site.address, CodeUse::Return);
            }
        }
    }
}
