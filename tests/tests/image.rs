//! The agent's container image: one program on nothing, and it does its work in a container with the rights that the manifests give.

use std::{fs, io::ErrorKind, net::TcpListener, path::Path, process::Command};

use anyhow::{Context, Result};
use lifetrace_tests::{
    agent::Agent,
    bpf::Inventory,
    deadline::{PATIENCE, wait_for},
    deploy, fixture,
    image::{Confinement, Image, is_program},
    process::{self, Running},
    scenario::{Need, alone, along, skip},
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

const PROGRAM: &str = "/usr/local/bin/lifetrace";

fn readelf(what: &str, file: &Path) -> Result<String> {
    let mut readelf = Command::new("readelf");
    readelf.arg(what).arg("--wide").arg(file);
    Ok(process::run(readelf)?.expect_code(0)?.stdout)
}

/// Check that there is nothing in it but the program and whom receivers are believed, that the program asks for no loader and no library,
/// and that it is started as the DaemonSet starts it.
#[test]
fn nothing_but_the_program() -> Result<()> {
    along(&[Need::Image, Need::Command("readelf"), Need::Program(deploy::VALIDATOR)], || {
        let image = Image::unpack()?;
        let files = image.files()?;
        let authorities = "/etc/ssl/certs/ca-certificates.crt";
        assert!(files == [authorities, PROGRAM] || files == [PROGRAM], "{files:?}");
        let program = image.root().join(&PROGRAM[1..]);
        assert!(is_program(&program)?);
        let headers = readelf("--program-headers", &program)?;
        assert!(headers.contains("LOAD") && !headers.contains("INTERP"), "{headers}");
        assert!(!readelf("--dynamic", &program)?.contains("(NEEDED)"));
        let container = deploy::container()?;
        let words = |value: &serde_json::Value| serde_json::from_value::<Vec<String>>(value.clone());
        assert_eq!(image.config.config.entrypoint, words(&container["command"])?);
        assert_eq!(image.config.config.cmd, words(&container["args"])?);
        assert_eq!(image.config.architecture, "amd64");
        Ok(())
    })
}

/// Check that the agent follows a program of the host from within a container, with the rights, the read-only root and the folders that the
/// DaemonSet names, finds a collector by its name, and leaves nothing when it is asked to end.
#[test]
fn follows_from_a_container() -> Result<()> {
    let needs = [Need::Root, Need::Image, Need::Command("crun"), Need::Program(deploy::VALIDATOR)];
    alone(&needs, || {
        let image = Image::unpack()?;
        if let Err(error) = starts(&image) {
            return skip(&format!("crun starts no container here: {error:#}"));
        }
        let before = Inventory::take()?;
        let dir = TempDir::new()?;
        let app = dir.path().join("app");
        let _orders = fixture::orders_at(&app, &["-leak", "afterfunc", "-n", "300", "-rate", "75", "-for", "600s"])?;
        let config = TempDir::new()?;
        // A collector by name: what a C library would load parts for. Runtimes put this file in.
        let collector = TcpListener::bind("127.0.0.1:0")?;
        let hosts = config.path().join("hosts");
        fs::write(&hosts, "127.0.0.1 collector.example\n")?;
        let settings = format!(
            "listen = \"127.0.0.1:0\"\nbudget = \"none\"\n[[rule]]\naction = \"follow\"\nexe = \"{}\"\n\
             [otlp]\nendpoint = \"http://collector.example:{}\"\ninterval = \"1s\"\n",
            app.display(),
            collector.local_addr()?.port()
        );
        fs::write(config.path().join("agent.toml"), settings)?;
        let shared = vec![(config.path().to_owned(), "/etc/lifetrace/agent"), (hosts, "/etc/hosts")];
        let added: Vec<String> = serde_json::from_value(deploy::container()?["securityContext"]["capabilities"]["add"].clone())?;
        let rights = added.iter().map(|right| format!("CAP_{right}")).collect();
        let confined = Confinement { rights, shared, args: Vec::new() };
        let agent = Agent::of(Running::start(image.command(&confined)?, None)?, config)?;
        let label = format!("program=\"{}\"", app.display());
        agent.until("300 reminders, born and waiting", |metrics| {
            let alive = metrics.sum("lifetrace_goroutines", &[&label, "time.goFunc (time/sleep.go:215)"])?;
            let waiting = metrics.sum("lifetrace_goroutines_by_state", &[&label, "state=\"blocked\""])?;
            (alive == 300.0 && waiting >= 300.0).then_some(())
        })?;
        collector.set_nonblocking(true)?;
        wait_for("somebody at the collector's door", PATIENCE, || match collector.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            accepted => Ok(Some(accepted?)),
        })?;
        let inside = process::pid(image.pid()?);
        let status = fs::read_to_string(format!("/proc/{inside}/status"))?;
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).context("no CapEff")?;
        assert_eq!(u64::from_str_radix(effective, 16)?, deploy::RIGHTS);
        nix::sys::signal::kill(inside, Signal::SIGTERM)?;
        agent.running.finish()?.expect_code(0)?;
        before.wait_restored(PATIENCE)
    })
}

/// Whether the runtime can start the program at all.
fn starts(image: &Image) -> Result<()> {
    let args = vec![PROGRAM.to_owned(), "--version".to_owned()];
    let said = process::run(image.command(&Confinement { rights: Vec::new(), shared: Vec::new(), args })?)?.expect_code(0)?;
    anyhow::ensure!(said.stdout.starts_with("lifetrace "), "{}", said.stdout);
    Ok(())
}
