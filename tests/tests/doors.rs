//! The agent's doors: TLS and who is let in, its own profile, native histograms.

use std::{
    fs,
    io::Write,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    agent::Agent,
    deadline::{PATIENCE, wait_for},
    fixture, lifetrace,
    process::{self, Running},
    program,
    prometheus::Prometheus,
    scenario::{Need, along},
};
use nix::sys::signal::Signal;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// Somebody who signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// A certificate and its key, as files; `until`: a year.
    fn issue(&self, dir: &Path, name: &str, usage: ExtendedKeyUsagePurpose, until: i32) -> Result<Issued> {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        let issued = Issued { cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) };
        fs::write(&issued.cert, certificate.pem())?;
        fs::write(&issued.key, key.serialize_pem())?;
        Ok(issued)
    }
}

struct Issued {
    cert: PathBuf,
    key: PathBuf,
}

/// An agent that has TLS, under way, and how it is asked.
struct Guarded {
    running: Running,
    address: String,
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Guarded {
    /// `more`: what else its file says of TLS. The authority is `ca.pem`, which clients know the server by as well.
    fn start(more: &str, token: Option<&str>) -> Result<Self> {
        let (dir, authority) = (tempfile::tempdir()?, Authority::new("ours")?);
        fs::write(dir.path().join("ca.pem"), authority.0.pem())?;
        authority.issue(dir.path(), "server", ExtendedKeyUsagePurpose::ServerAuth, 2100)?;
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut text = "listen = \"127.0.0.1:0\"\n".to_owned();
        if let Some(token) = token {
            fs::write(at("token"), token)?;
            text += &format!("token_file = {:?}\n", at("token"));
        }
        text += &format!("[tls]\ncert_file = {:?}\nkey_file = {:?}\n{more}", at("server.pem"), at("server.key"));
        text = text.replace("ca.pem", &at("ca.pem"));
        fs::write(at("agent.toml"), text)?;
        let mut command = lifetrace::command();
        command.args(["agent", "--config", &at("agent.toml")]);
        let mut running = Running::start(command, None)?;
        running.said("/metrics; following")?;
        let said = running.stderr();
        let address =
            said.split("https://").nth(1).and_then(|rest| rest.split("/metrics").next()).context("no address")?.to_owned();
        let guarded = Self { running, address, dir, authority };
        wait_for("the agent to follow", PATIENCE, || Ok((guarded.status("/readyz", &[])? == "200").then_some(())))?;
        Ok(guarded)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn curl(&self, path: &str, args: &[&str]) -> Result<process::Finished> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--include", "--cacert"]).arg(self.at("ca.pem")).args(args);
        curl.arg(format!("https://{}{path}", self.address));
        process::run(curl)
    }

    /// The status of an answer; without one, what curl says why.
    fn status(&self, path: &str, args: &[&str]) -> Result<String> {
        let finished = self.curl(path, args)?;
        let status = finished.stdout.split(' ').nth(1).map(str::to_owned);
        Ok(status.unwrap_or(finished.stderr))
    }

    fn status_with(&self, path: &str, issued: &Issued) -> Result<String> {
        let [cert, key] = [&issued.cert, &issued.key].map(|path| path.display().to_string());
        self.status(path, &["--cert", &cert, "--key", &key])
    }

    fn client(&self, name: &str) -> Result<Issued> {
        self.authority.issue(self.dir.path(), name, ExtendedKeyUsagePurpose::ClientAuth, 2100)
    }
}

/// Check that a certificate of the right authority opens the doors, and none that is another's, over, or meant for servers; that who shows
/// none learns whether the agent lives, and nothing else.
#[test]
fn certificates() -> Result<()> {
    along(&[Need::Root, Need::Command("curl")], || {
        let doors = Guarded::start("client_ca_file = \"ca.pem\"\n", None)?;
        let dir = doors.dir.path();
        assert_eq!(doors.status_with("/metrics", &doors.client("friend")?)?, "200");
        for path in ["/metrics", "/debug/pprof/profile?seconds=1", "/nothing"] {
            let refused = doors.curl(path, &[])?.stdout;
            assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("a certificate is wanted"), "{path}: {refused}");
        }
        for path in ["/healthz", "/readyz"] {
            assert_eq!(doors.status(path, &[])?, "200", "an orchestrator has no certificate");
        }
        let bearer = doors.status("/metrics", &["--header", "Authorization: Bearer 0123456789abcdef"])?;
        assert_eq!(bearer, "401", "there is no token");
        let wrong = [
            Authority::new("ours")?.issue(dir, "stranger", ExtendedKeyUsagePurpose::ClientAuth, 2100)?,
            doors.authority.issue(dir, "over", ExtendedKeyUsagePurpose::ClientAuth, 2021)?,
            doors.authority.issue(dir, "server-too", ExtendedKeyUsagePurpose::ServerAuth, 2100)?,
        ];
        for issued in wrong {
            for path in ["/metrics", "/healthz"] {
                let said = doors.status_with(path, &issued)?;
                assert!(said.contains("alert"), "{}: {said}", issued.cert.display());
            }
        }
        // Its own certificate is what it says it is.
        let mut distrusting = Command::new("curl");
        distrusting.args(["--silent", "--show-error", &format!("https://{}/healthz", doors.address)]);
        assert!(process::run(distrusting)?.stderr.contains("certificate"));
        Ok(())
    })
}

/// Check that with a token as well either will do, and that without an authority the token is still asked for.
#[test]
fn tokens_by_tls() -> Result<()> {
    along(&[Need::Root, Need::Command("curl")], || {
        let right = ["--header", "Authorization: Bearer 0123456789abcdef"];
        let wrong = ["--header", "Authorization: Bearer 0123456789abcdeF"];
        let either = Guarded::start("client_ca_file = \"ca.pem\"\n", Some("0123456789abcdef"))?;
        assert_eq!(either.status("/metrics", &right)?, "200");
        assert_eq!(either.status("/metrics", &wrong)?, "401");
        assert_eq!(either.status_with("/metrics", &either.client("friend")?)?, "200");
        let token = Guarded::start("", Some("0123456789abcdef"))?;
        assert_eq!(token.status("/metrics", &right)?, "200");
        assert_eq!(token.status_with("/metrics", &token.client("friend")?)?, "401", "nobody asked for a certificate");
        Ok(())
    })
}

/// Check that plain HTTP gets nowhere, that handshakes that never end take up no room for good, and that others are served meanwhile.
#[test]
fn bad_handshakes() -> Result<()> {
    along(&[Need::Root, Need::Command("curl")], || {
        let doors = Guarded::start("client_ca_file = \"ca.pem\"\n", None)?;
        let plain = lifetrace_tests::agent::get(&doors.address, "/healthz").unwrap_or_default();
        assert!(!plain.contains("HTTP/1.1 200"), "{plain}");
        // As many as there may be connections: each begins a handshake, and says no more.
        let mut slow = Vec::new();
        for _ in 0..32 {
            let mut stream = TcpStream::connect(&doors.address)?;
            stream.write_all(&[0x16, 3, 1, 2, 0])?;
            slow.push(stream);
        }
        let began = Instant::now();
        assert_eq!(doors.status("/healthz", &["--max-time", "60"])?, "200");
        let waited = began.elapsed();
        assert!(waited > Duration::from_secs(5) && waited < Duration::from_secs(30), "served after {waited:?}");
        Ok(())
    })
}

/// Check that SIGHUP has certificates read again: a new one of ours is shown, who is no more trusted is not let in, and files that make no
/// sense leave everything as it was.
#[test]
fn rotation() -> Result<()> {
    along(&[Need::Root, Need::Command("curl")], || {
        let doors = Guarded::start("client_ca_file = \"ca.pem\"\n", None)?;
        let old = doors.client("old")?;
        assert_eq!(doors.status_with("/metrics", &old)?, "200");
        let file = fs::read(doors.at("server.key"))?;
        fs::write(doors.at("server.key"), "no key")?;
        doors.running.signal(Signal::SIGHUP)?;
        wait_for("a refusal", PATIENCE, || Ok(doors.running.stderr().contains("server.key has no private key").then_some(())))?;
        assert_eq!(doors.status_with("/healthz", &old)?, "200");

        let other = Authority::new("other")?;
        fs::write(doors.at("server.key"), file)?;
        other.issue(doors.dir.path(), "server", ExtendedKeyUsagePurpose::ServerAuth, 2100)?;
        fs::write(doors.at("ca.pem"), other.0.pem())?;
        doors.running.signal(Signal::SIGHUP)?;
        let new = other.issue(doors.dir.path(), "new", ExtendedKeyUsagePurpose::ClientAuth, 2100)?;
        wait_for("the new certificates", PATIENCE, || Ok((doors.status_with("/metrics", &new)? == "200").then_some(())))?;
        assert!(doors.status_with("/metrics", &old)?.contains("alert"));

        // What the doors ask for takes a restart: nobody gets in who did not before.
        let text = fs::read_to_string(doors.at("agent.toml"))?;
        fs::write(
            doors.at("agent.toml"),
            text.lines().filter(|line| !line.starts_with("client_ca")).collect::<Vec<_>>().join("\n"),
        )?;
        for _ in 0..2 {
            let warned = doors.running.stderr().matches("take a restart").count();
            doors.running.signal(Signal::SIGHUP)?;
            wait_for("a warning", PATIENCE, || {
                Ok((doors.running.stderr().matches("take a restart").count() > warned).then_some(()))
            })?;
            assert_eq!(doors.status("/metrics", &[])?, "401");
        }
        Ok(())
    })
}

/// Check what a file may ask for where the doors can be reached from outside, and what is said of a token that goes in clear.
#[test]
fn outside() -> Result<()> {
    along(&[], || {
        let dir = tempfile::tempdir()?;
        let authority = Authority::new("ours")?;
        fs::write(dir.path().join("ca.pem"), authority.0.pem())?;
        fs::write(dir.path().join("token"), "0123456789abcdef")?;
        authority.issue(dir.path(), "server", ExtendedKeyUsagePurpose::ServerAuth, 2100)?;
        authority.issue(dir.path(), "another", ExtendedKeyUsagePurpose::ServerAuth, 2100)?;
        let tls = "[tls]\ncert_file = \"DIR/server.pem\"\nkey_file = \"DIR/server.key\"\n";
        let mutual = format!("{tls}client_ca_file = \"DIR/ca.pem\"\n");
        let token = "token_file = \"DIR/token\"\n";
        let mixed = tls.replace("server.key", "another.key");
        for (text, code, said) in [
            (tls.to_owned(), 2, "client_ca_file"),
            (mutual.clone(), 0, "listens on      0.0.0.0:1, by TLS, with a certificate\n"),
            (format!("{token}{mutual}"), 0, "by TLS, with a certificate or a token\n"),
            (format!("{token}{tls}"), 0, "listens on      0.0.0.0:1, by TLS, with a token\nfollows"),
            (token.to_owned(), 0, "with a token\n                the token goes over the network in clear"),
            (format!("{token}{mixed}"), 2, "certificate and key do not make a server"),
            (format!("{mutual}colour = \"red\"\n"), 2, "unknown field `colour`"),
        ] {
            let file = dir.path().join("agent.toml");
            fs::write(&file, format!("listen = \"0.0.0.0:1\"\n{text}").replace("DIR", &dir.path().display().to_string()))?;
            let mut check = lifetrace::command();
            check.args(["agent", "--check-config", "--config"]).arg(&file);
            let finished = process::run(check)?.expect_code(code)?;
            let told = format!("{}{}", finished.stdout, finished.stderr);
            assert!(told.contains(said), "{text}: {told}");
        }
        Ok(())
    })
}

/// Check that Go's own tool reads the agent's profile of itself and finds the recorder in it, that there is one at a time, within bounds, and
/// that the agent, interrupted two hundred times a second, goes on counting right.
#[test]
fn own_profile() -> Result<()> {
    along(&[Need::Root, Need::Go, Need::Command("curl")], || {
        let dir = tempfile::tempdir()?;
        let app = fixture::copied(&fixture::orders()?, &dir.path().join("app"))?;
        let rule =
            format!("tier = \"T3\"\nbudget = \"none\"\n[[rule]]\naction = \"follow\"\nexe = \"{}/**\"\n", dir.path().display());
        let agent = Agent::start(&rule)?;
        let profile = |seconds: &str| format!("/debug/pprof/profile?seconds={seconds}");
        let status = |seconds: &str| -> Result<String> {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]);
            curl.arg(format!("http://{}{}", agent.address, profile(seconds)));
            Ok(process::run(curl)?.stdout)
        };
        for wrong in ["0", "61", "-1", "x", ""] {
            assert_eq!(status(wrong)?, "400", "{wrong}");
        }
        let taken = dir.path().join("profile");
        let url = format!("http://{}{}", agent.address, profile("8"));
        // Of two who ask at once it may be the other one that is turned away.
        let taking = wait_for("the profiler to be busy", PATIENCE, || {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--fail", "--output"]).arg(&taken).arg(&url);
            let taking = Running::start(curl, None)?;
            if status("1")? == "429" {
                return Ok(Some(taking));
            }
            taking.finish()?;
            Ok(None)
        })?;
        let mut command = Command::new(&app);
        command.args(["-leak", "afterfunc", "-n", "2000", "-rate", "300", "-for", "600s"]);
        let _running = Running::start(command, None)?;
        taking.finish()?.expect_code(0)?;
        let label = format!("program=\"{}\"", app.display());
        agent.until("2000 reminders", |metrics| {
            let alive = metrics.sum("lifetrace_goroutines", &[&label, "time.goFunc (time/sleep.go:215)"]);
            (alive == Some(2000.0)).then_some(())
        })?;
        assert_eq!(agent.metrics()?.sum("lifetrace_lost_events_total", &[]), None);
        // By files: a compiler that has inlined a function keeps its bare name only.
        let top = fixture::go_pprof(&["-top", "-cum", "-files", &taken.display().to_string()])?;
        assert!(top.contains("Type: cpu") && top.contains("tracer-user/src/"), "{top}");
        // Nothing of it is left behind: it can be taken again, and the agent goes on.
        assert_eq!(status("1")?, "200");
        agent.terminate()?;
        Ok(())
    })
}

/// Check that a real Prometheus that takes native histograms gets them, that its quantile lies in the class that the text has it in, and that
/// the doors tell the others text.
#[test]
fn native_histograms() -> Result<()> {
    const SERVER: &str = "prometheus/bin/prometheus";
    along(&[Need::Root, Need::Program(SERVER)], || {
        let dir = tempfile::tempdir()?;
        let app = dir.path().join("programs/app");
        let _running = fixture::orders_at(&app, &["-leak", "afterfunc", "-n", "20000", "-rate", "500", "-for", "600s"])?;
        let agent = Agent::start(&format!(
            "tier = \"T3\"\nbudget = \"none\"\n[[rule]]\naction = \"follow\"\nexe = \"{}/programs/**\"\n",
            dir.path().display()
        ))?;
        let server = program::fetched(SERVER);
        let prometheus = Prometheus::scraping(&server, dir.path(), &agent.address, &["--enable-feature=native-histograms"])?;
        let bounds = ["0.00001", "0.000025", "0.00005", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01"];
        // Taken by the server and as text at nearly the same time, so that there is little between the two.
        let (quantile, shares) = wait_for("a quantile and its classes", PATIENCE, || {
            let value = prometheus.value("histogram_quantile(0.5,sum(lifetrace_runnable_delay_seconds))")?;
            let counted = prometheus.value("histogram_count(sum(lifetrace_runnable_delay_seconds))")?;
            let (Some(quantile), Some(counted)) = (value.filter(|value| value.is_finite()), counted) else { return Ok(None) };
            let metrics = agent.metrics()?;
            assert!(metrics.0.contains("application/openmetrics-text"), "{}", metrics.0);
            let total = metrics.sum("lifetrace_runnable_delay_seconds_count", &[]).context("no count in text")?;
            assert!(total >= counted, "{total} {counted}");
            let below = |bound: &str| metrics.sum("lifetrace_runnable_delay_seconds_bucket", &[&format!("le=\"{bound}\"")]);
            let shares: Vec<(f64, f64)> =
                bounds.iter().filter_map(|bound| Some((bound.parse().ok()?, below(bound)? / total))).collect();
            ensure!(!shares.is_empty(), "no classes: {}", metrics.0);
            Ok((counted > 1000.0 && total <= counted * 1.1).then_some((quantile, shares)))
        })?;
        assert_eq!(prometheus.value("count(lifetrace_runnable_delay_seconds_bucket)")?, None, "the native one came instead");
        // Half of them lie below the bound of its class, give or take what came since.
        for (bound, share) in &shares {
            assert!(quantile > *bound || *share > 0.35, "half are below {quantile} s, but {share} are below {bound} s");
            assert!(quantile < *bound || *share < 0.65, "half are above {quantile} s, but {share} are below {bound} s");
        }
        agent.terminate()?;
        Ok(())
    })
}

/// Check that threads are counted, and children that nobody reaps, those of before the agent as well, until they are reaped.
#[test]
fn threads_and_zombies() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let app = fixture::copied(&fixture::go("sleeper")?, &dir.path().join("app"))?;
        // Children of the shell's become the program's, which knows nothing of them.
        let mut sh = Command::new("sh");
        sh.args(["-c", "true & true & true & exec \"$0\" -n 10"]).arg(&app);
        let mut running = Running::start(sh, None)?;
        running.line(0)?;
        let agent = Agent::start(&format!("[[rule]]\naction = \"follow\"\nexe = \"{}/**\"\n", dir.path().display()))?;
        let label = format!("program=\"{}\"", app.display());
        agent.until("three zombies", |metrics| metrics.sum("lifetrace_zombies", &[&label]).filter(|zombies| *zombies == 3.0))?;
        let threads = fs::read_dir(format!("/proc/{}/task", running.pid()))?.count() as f64;
        let counted = agent.metrics()?.sum("lifetrace_threads", &[&label]).context("no threads")?;
        assert!((counted - threads).abs() <= 2.0, "{counted} of {threads}");
        running.signal(Signal::SIGKILL)?;
        running.wait_exit()?;
        agent.until("nobody", |metrics| metrics.sum("lifetrace_zombies", &[&label]).is_none().then_some(()))?;
        agent.terminate()?;
        Ok(())
    })
}
