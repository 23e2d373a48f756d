//! Real programs, healthy as far as anybody knows, under load: nothing may be suspected of them.

use std::{
    fmt::Write as _,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{super::process::Running, json};
use crate::{
    place, programs,
    setup::{self, which},
};

/// How long each is under load.
const SECONDS: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// What was said of one.
pub struct Judged {
    pub program: &'static str,
    pub load: &'static str,
    pub how: &'static str,
    /// How many were there at the end.
    pub goroutines: u64,
    /// What is suspected or proven.
    pub accused: Vec<String>,
}

impl Judged {
    pub fn verdict(&self) -> String {
        if self.accused.is_empty() { "silent".to_owned() } else { format!("**false**: {}", self.accused.join(", ")) }
    }

    pub fn wrong(&self) -> Option<String> {
        (!self.accused.is_empty()).then(|| format!("{} ({}): {}", self.program, self.how, self.accused.join(", ")))
    }
}

/// A program and who makes it work.
struct Case {
    program: &'static str,
    load: &'static str,
    server: Command,
    /// Where it listens.
    address: String,
    client: Command,
}

/// All of them, each recorded by attaching to it, and by looks.
pub fn all(lifetrace: &Path) -> Result<Vec<Judged>> {
    let fetched = programs::fetch();
    let scratch = place::target().join("bench/real");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    let mut judged = Vec::new();
    for mut case in [etcd(&fetched, &scratch)?, esbuild(&fetched, &scratch)?, http(&scratch)?] {
        let server = Running(case.server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context(case.program)?);
        wait_until_open(&case.address)?;
        let pid = server.0.id().to_string();
        let recording = scratch.join("real.lifetrace");
        let seconds = format!("{SECONDS}s");
        let client = Running(case.client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context(case.load)?);
        let mut attach = Command::new(lifetrace);
        let status = attach
            .args(["attach", "--quiet", "--tier", "T2", "--for", &seconds, "--pid", &pid, "-o"])
            .arg(&recording)
            .status()?;
        if !status.success() {
            bail!("attach to {}: {status}", case.program);
        }
        let mut leaks = Command::new(lifetrace);
        let said = json(leaks.args(["leaks", "--quiet", "--fail-on", "never", "--format", "json"]).arg(&recording))?;
        judged.push(case.judged("attached at T2", &said));
        let mut watch = Command::new(lifetrace);
        watch.args(["leaks", "--quiet", "--fail-on", "never", "--format", "json", "--watch", &seconds, "--pid", &pid]);
        judged.push(case.judged("looks alone", &json(&mut watch)?));
        drop((client, server));
    }
    for one in &judged {
        println!("{:<22} {:<16} {:>6} goroutines  {}", one.program, one.how, one.goroutines, one.verdict());
    }
    Ok(judged)
}

impl Case {
    fn judged(&self, how: &'static str, said: &Value) -> Judged {
        let groups = said["leaks"].as_array().map_or(&[][..], Vec::as_slice);
        let sure = groups.iter().filter(|group| group["strength"] != "watched");
        let name = |group: &Value| {
            let function = group["created_by"]["function"].as_str().or(group["name"].as_str()).unwrap_or("?");
            format!("{} {function} x {}", group["kind"].as_str().unwrap_or("?"), group["count"])
        };
        let goroutines = groups.iter().filter(|group| group["kind"] == "goroutine").filter_map(|group| group["count"].as_u64());
        Judged { program: self.program, load: self.load, how, goroutines: goroutines.sum(), accused: sure.map(name).collect() }
    }
}

fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn wait_until_open(address: &str) -> Result<()> {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        if began.elapsed() > PATIENCE {
            bail!("nobody listens at {address}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Twice the time: recorded, then watched, and some more for either to begin and end.
fn load_seconds() -> u64 {
    2 * SECONDS + 20
}

/// Clients that put and get and watch, again and again.
fn etcd(fetched: &Path, scratch: &Path) -> Result<Case> {
    let (client_at, peer_at) = (free_address()?, free_address()?);
    let mut server = Command::new(fetched.join("etcd/bin/etcd"));
    server.arg("--data-dir").arg(scratch.join("etcd")).arg("--log-level=error");
    for (option, at) in
        [("--listen-client-urls", &client_at), ("--advertise-client-urls", &client_at), ("--listen-peer-urls", &peer_at)]
    {
        server.arg(option).arg(format!("http://{at}"));
    }
    let ctl = fetched.join("etcd/bin/etcdctl");
    let script = format!(
        "export ETCDCTL_API=3 ETCDCTL_ENDPOINTS={client_at}; end=$((SECONDS + {})); \
         for client in 1 2 3; do (while [ $SECONDS -lt $end ]; do {ctl} put key-$client-$RANDOM value; {ctl} get --prefix key-$client; \
         timeout 0.2 {ctl} watch --prefix key-; done) & done; wait",
        load_seconds(),
        ctl = ctl.display()
    );
    let mut client = Command::new("bash");
    client.args(["-c", &script]);
    Ok(Case {
        program: "etcd (Debian, Go 1.19)",
        load: "puts, gets and watches of three clients",
        server,
        address: client_at,
        client,
    })
}

/// Its server mode: every request builds the project anew.
fn esbuild(fetched: &Path, scratch: &Path) -> Result<Case> {
    let project = scratch.join("project");
    fs::create_dir_all(&project)?;
    let mut main = String::new();
    for number in 0..60 {
        fs::write(project.join(format!("part{number}.ts")), format!("export const part{number}: number = {number};\n"))?;
        writeln!(main, "export * from './part{number}';")?;
    }
    fs::write(project.join("main.ts"), main)?;
    let at = free_address()?;
    let (host, port) = at.split_once(':').context("an address has a port")?;
    let mut server = Command::new(fetched.join("esbuild/bin/esbuild"));
    server.args(["main.ts", "--bundle", "--outfile=out.js", &format!("--serve={host}:{port}")]);
    // It ends when nobody holds its stdin.
    server.arg("--servedir=.").current_dir(&project).stdin(Stdio::piped());
    Ok(Case { program: "esbuild --serve", load: "wrk, a build a request", server, client: wrk(&at, "/out.js")?, address: at })
}

/// The order service, under wrk.
fn http(scratch: &Path) -> Result<Case> {
    let orders: PathBuf = scratch.join("orders");
    setup::go_program(&place::root().join("examples/orders"), &orders)?;
    let at = free_address()?;
    let mut server = Command::new(orders);
    server.args(["-serve", &at]);
    Ok(Case { program: "net/http (examples/orders)", load: "wrk", server, client: wrk(&at, "/sold")?, address: at })
}

fn wrk(at: &str, path: &str) -> Result<Command> {
    let wrk = which("wrk").context("wrk is not there: apt-get install wrk")?;
    let mut client = Command::new(wrk);
    client.args(["-t1", "-c32", &format!("-d{}s", load_seconds()), &format!("http://{at}{path}")]);
    Ok(client)
}
