//! Servers of every Go that is installed: those that `LIFETRACE_GO` names (separated by colons), and those in the project's cache.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use serde::Deserialize;

use super::{
    base::Base,
    client::{Client, ClientError, MAX_INDEX, PATIENCE},
    counted,
    discover::{self, Search},
    index, mem_stats, path_of, profile,
    resolve::{Names, claims, resolve, sight},
    text, verdict,
};
use crate::{
    clock::ktime_now,
    id::{Address, BinaryId, Goid, ProcessKey, Tgid},
    recording::contract::{CodeUse, GoroutineDump, ProfileKind, Tier},
    snapshot::{Detail, Goroutines, StackRead, dump::Of, process::Process},
    target::procfs,
};

const LIMIT: usize = 16 << 20;

#[derive(Deserialize)]
struct Truth {
    pid: u32,
    address: String,
    said: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    goid: u64,
    labels: BTreeMap<String, String>,
}

fn toolchains() -> Vec<PathBuf> {
    let named = std::env::var_os("LIFETRACE_GO").unwrap_or_else(|| "go".into());
    let mut all: Vec<PathBuf> = std::env::split_paths(&named).collect();
    let cache = std::env::var_os("LIFETRACE_CACHE").map(PathBuf::from);
    let cached = cache.and_then(|cache| fs::read_dir(cache).ok()).into_iter().flatten();
    all.extend(cached.filter_map(|entry| Some(entry.ok()?.path().join("go/bin/go"))));
    all.retain(|go| Command::new(go).arg("version").output().is_ok_and(|output| output.status.success()));
    if all.is_empty() {
        println!("skipped: no go toolchain");
    }
    all
}

struct Server {
    child: Child,
    truth: Truth,
    minor: u32,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(go: &Path, folder: &Path) -> Server {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/go");
    let local = |command: &mut Command| {
        command
            .current_dir(&fixtures)
            .env("GOTOOLCHAIN", "local")
            .env("CGO_ENABLED", "0")
            .env_remove("GOROOT")
            .env_remove("GOFLAGS");
    };
    let mut version = Command::new(go);
    local(version.args(["env", "GOVERSION"]));
    let version = String::from_utf8(version.output().unwrap().stdout).unwrap();
    let minor: u32 = version.split('.').nth(1).unwrap().trim().parse().unwrap();
    let program = folder.join("served");
    let mut build = Command::new(go);
    local(build.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg("./served"));
    build.env("GOEXPERIMENT", if minor == 26 { "goroutineleakprofile" } else { "" });
    let built = build.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut serve = Command::new(&program);
    serve.arg("-other").env("GODEBUG", "tracebacklabels=1").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = serve.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    Server { child, truth: serde_json::from_str(&line).unwrap(), minor }
}

/// What a recording would hold of a server's goroutines, and its memory before and after.
struct Asked {
    dump: GoroutineDump,
    after: Goroutines,
}

fn ask_goroutines(server: &Server, client: &Client, base: &Base) -> Asked {
    let tgid = Tgid(server.truth.pid);
    let process = Process::open(tgid).unwrap();
    let look = || process.snapshot_of(Detail::WithoutStacks).unwrap().found;
    let (from, before) = (ktime_now(), look());
    let answer = client.get(&base.profile("goroutine?debug=2"), LIMIT, PATIENCE).unwrap();
    let (to, after) = (ktime_now(), look());
    let answer = String::from_utf8(answer).unwrap();
    let dump = text::parse(&answer).unwrap();
    let (binary, bias) = (Arc::clone(&process.binary), process.bias);
    let sights = [&before, &after].map(|found| sight(found, &binary, bias));
    assert_eq!(verdict::judge(&sights[0], &sights[1], &claims(&dump), dump.cut, 2), Ok(()));
    let key = ProcessKey { tgid, start_ticks: procfs::stat(tgid).unwrap().key.start_ticks };
    let of = Of { process: key, binary: &binary, binary_id: BinaryId(1), bias, tier: Tier::T2, check: true };
    let mut names = Names::new(&binary, bias);
    // Without the memory the addresses come from the names alone.
    let alone = resolve(&dump, None, &mut names, of, (from, to)).unwrap();
    // The server's own goroutines go on meanwhile; the program's stand still.
    let stands = |gopc: Address| {
        let frames = binary.symbolize(gopc.0.wrapping_sub(bias), CodeUse::Return);
        frames.last().is_some_and(|frame| frame.function.starts_with("main."))
    };
    assert_addresses(&alone, &after, server.minor, stands);
    Asked { dump: resolve(&dump, Some(&after), &mut names, of, (from, to)).unwrap(), after }
}

/// Claims that the addresses that were found by names are those that the memory has.
fn assert_addresses(dump: &GoroutineDump, memory: &Goroutines, minor: u32, stands: impl Fn(Address) -> bool) {
    let mut resolved = 0;
    for goroutine in &dump.goroutines {
        let Some(known) = memory.all.iter().find(|known| known.goid == goroutine.0) else { continue };
        let kind = &dump.kinds[goroutine.2 as usize];
        assert!([0, known.gopc.0].contains(&kind.gopc.0), "go1.{minor}: {goroutine:?} {kind:#x?} {known:#x?}");
        resolved += u32::from(kind.gopc.0 != 0);
        // Who accepts connections has just been woken by the one that asks.
        if stands(known.gopc) && known.wait_reason != Some("IO wait") {
            assert_eq!(kind.wait_reason.as_deref(), known.wait_reason, "go1.{minor}");
        }
    }
    assert!(resolved >= 10, "go1.{minor}: {resolved} creators of {} were resolved", dump.goroutines.len());
}

/// Check on every Go that the server is found, that all its profiles are understood, and that goroutines have the labels, creators,
/// wait reasons and stacks that their memory shows.
#[test]
fn every_version() {
    for go in toolchains() {
        let folder = tempfile::tempdir().unwrap();
        let server = start(&go, folder.path());
        let client = Client::default();
        // It is given a second each time.
        let search = || Search::default().look(Tgid(server.truth.pid), &client).ok();
        let found = (0..30).find_map(|_| search()).unwrap();
        assert_eq!(found.base.authority(), server.truth.address);
        assert!(discover::owns(Tgid(server.truth.pid), &found.base) && !discover::owns(Tgid(std::process::id()), &found.base));
        let page = client.get(&found.base.index(), MAX_INDEX, PATIENCE).unwrap();
        assert!(index::parse(&String::from_utf8_lossy(&page)).unwrap().goroutines.unwrap() > 10);
        profiles(&server, &client, &found.base);
        let asked = ask_goroutines(&server, &client, &found.base);
        labels(&server, &asked);
        stacks(&asked);
    }
}

fn profiles(server: &Server, client: &Client, base: &Base) {
    let minor = server.minor;
    let kinds = [ProfileKind::Goroutine, ProfileKind::Heap, ProfileKind::Allocs, ProfileKind::Mutex, ProfileKind::Block];
    for kind in kinds {
        let data = client.get(&base.profile(&path_of(kind)), LIMIT, PATIENCE).unwrap();
        assert!(!profile::decode(&data).unwrap().sample.is_empty(), "go1.{minor}: {kind:?}");
    }
    let cpu = client.get(&base.profile("profile?seconds=1"), LIMIT, PATIENCE).unwrap();
    profile::decode(&cpu).unwrap();
    let heap = client.get(&base.profile("heap?debug=1"), LIMIT, PATIENCE).unwrap();
    assert!(mem_stats::parse(&String::from_utf8_lossy(&heap)).unwrap().alloc_bytes > 1 << 20);
    let counts = client.get(&base.profile("goroutine?debug=1"), LIMIT, PATIENCE).unwrap();
    let counts = String::from_utf8(counts).unwrap();
    let labelled = counted::parse(&counts).unwrap().records.iter().filter(|record| !record.labels.is_empty()).count();
    assert_eq!(labelled, 2, "go1.{minor}: {counts}");
    let leak = client.get(&base.profile("goroutineleak?debug=1"), LIMIT, PATIENCE);
    if minor < 26 {
        assert!(matches!(leak, Err(ClientError::Status { status: 404, .. })), "go1.{minor}: {leak:?}");
        return;
    }
    let leak = String::from_utf8(leak.unwrap()).unwrap();
    assert!(counted::parse(&leak).unwrap().total >= 2, "{leak}");
    let leak = client.get(&base.profile(&path_of(ProfileKind::GoroutineLeak)), LIMIT, PATIENCE).unwrap();
    assert!(!profile::decode(&leak).unwrap().sample.is_empty());
    let all = client.get(&base.profile("goroutine?debug=2"), LIMIT, PATIENCE).unwrap();
    let all = String::from_utf8(all).unwrap();
    assert!(text::parse(&all).unwrap().goroutines.iter().filter(|goroutine| goroutine.leaked).count() >= 2, "{all}");
}

fn labels(server: &Server, asked: &Asked) {
    for Said { goid, labels } in &server.truth.said {
        let told = asked.dump.goroutines.iter().find(|told| told.0 == Goid(*goid)).unwrap();
        let set = asked.dump.kinds[told.2 as usize].labels.unwrap();
        let told: BTreeMap<String, String> = asked.dump.labels[set as usize].iter().cloned().collect();
        assert_eq!(told, *labels, "go1.{}: goroutine {goid}", server.minor);
    }
}

/// Claims that goroutines that wait have a stack whose return addresses are some of those in memory.
fn stacks(asked: &Asked) {
    let waiting =
        asked.dump.goroutines.iter().filter(|told| asked.dump.kinds[told.2 as usize].state.as_deref() == Some("waiting"));
    let known = waiting.clone().filter(|told| asked.dump.kinds[told.2 as usize].stack.is_some()).count();
    assert!(known >= 8, "{known} stacks of {}", waiting.count());
    assert!(asked.after.all.iter().all(|goroutine| goroutine.stack == StackRead::LeftOut));
}
