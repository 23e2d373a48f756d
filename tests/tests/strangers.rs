//! Other users of the host: what they plant is not written through, what is written is not for them, and of programs that are not theirs they
//! are told nothing.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, lchown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use lifetrace_tests::{
    agent::{self, Agent},
    attach::Attached,
    fixture,
    lifetrace::{self, Run},
    process::{self, Finished, Running},
    recording::Recording,
    scenario::{Need, along},
    truth::{self, Births},
    user::{self, User},
};

const NEEDS: [Need; 2] = [Need::Root, Need::Nobody];
/// What root has, and strangers would like to see overwritten, or to read.
const PRECIOUS: &str = "root's own\n";

fn nobody() -> Result<User> {
    user::nobody().context("no nobody")
}

/// A folder like /tmp, with a file of root's beside it.
struct Shared {
    dir: tempfile::TempDir,
    nobody: User,
}

impl Shared {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        fs::create_dir(dir.path().join("tmp"))?;
        fs::set_permissions(dir.path().join("tmp"), fs::Permissions::from_mode(0o1777))?;
        fs::create_dir(dir.path().join("etc"))?;
        fs::write(dir.path().join("etc/precious"), PRECIOUS)?;
        Ok(Self { dir, nobody: nobody()? })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A link of nobody's.
    fn plant(&self, name: &str, leads_to: &str) -> Result<PathBuf> {
        let link = self.at(name);
        symlink(self.at(leads_to), &link)?;
        lchown(&link, Some(self.nobody.uid), Some(self.nobody.gid))?;
        Ok(link)
    }

    fn expect_untouched(&self) -> Result<()> {
        ensure!(fs::read_to_string(self.at("etc/precious"))? == PRECIOUS, "overwritten");
        let names = fs::read_dir(self.at("etc"))?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
        ensure!(names == ["precious"], "something was put there: {names:?}");
        Ok(())
    }
}

fn recorded() -> Result<Recording> {
    let (finished, recording) = Run::of(fixture::go("births")?).args(["-n", "3"]).finish()?;
    finished.expect_code(0)?;
    Ok(recording)
}

/// Check that recordings are written neither through another user's link, at the end of the path or on the way, nor into a file that has
/// another name, nor into one that another user could read; and that the command does not run then.
#[test]
fn planted_recordings() -> Result<()> {
    along(&NEEDS, || {
        let shared = Shared::new()?;
        let last = shared.plant("tmp/last", "etc/precious")?;
        let folder = shared.plant("tmp/folder", "etc")?.join("new");
        let hard = shared.at("tmp/hard");
        fs::hard_link(shared.at("etc/precious"), &hard)?;
        let theirs = shared.at("tmp/theirs");
        fs::write(&theirs, "")?;
        chown(&theirs, Some(shared.nobody.uid), Some(shared.nobody.gid))?;
        let words =
            [(last, "is a symbolic link"), (folder, "link of another user's"), (hard, "hard link"), (theirs, "another user")];
        for (path, said) in words {
            let mut touch = Run::of("touch").args([shared.at("ran")]).output(&path).finish()?.0;
            touch = touch.expect_code(125)?;
            assert!(touch.stderr.contains(said), "{}: {}", path.display(), touch.stderr);
            let mut sleep = Command::new("sleep");
            sleep.arg("60");
            let sleep = Running::start(sleep, None)?;
            let mut attach = lifetrace::command();
            attach.args(["attach", "--for", "1s", "--pid", &sleep.pid().to_string(), "-o"]).arg(&path);
            let attach = process::run(attach)?;
            assert_ne!(attach.code(), 0, "{}", path.display());
            assert!(attach.stderr.contains(said), "{}: {}", path.display(), attach.stderr);
        }
        assert!(!shared.at("ran").exists());
        assert_eq!(fs::metadata(shared.at("tmp/theirs"))?.len(), 0, "somebody else would read it");
        shared.expect_untouched()?;
        // A link of our own on the way is our own business.
        symlink(shared.at("tmp"), shared.at("own"))?;
        Run::of("true").output(&shared.at("own/rec")).finish()?.0.expect_code(0)?;
        assert!(shared.at("tmp/rec").is_file());
        Ok(())
    })
}

/// Check the same of what is made of recordings.
#[test]
fn planted_outputs() -> Result<()> {
    along(&NEEDS, || {
        let shared = Shared::new()?;
        let recording = recorded()?;
        let through = [shared.plant("tmp/last", "etc/precious")?, shared.plant("tmp/folder", "etc")?.join("new")];
        shared.plant("tmp/new", "etc/new")?;
        for path in through.iter().chain([&shared.at("tmp/new")]) {
            let path = path.display().to_string();
            for (what, format) in
                [("report", "html"), ("timeline", "jsonl"), ("flame", "svg"), ("leaks", "junit"), ("export", "parquet")]
            {
                let by = if what == "flame" { &["--by", "created"][..] } else { &[] };
                let finished = recording.ask(what, &[by, &["--format", format, "-o", &path]].concat())?;
                ensure!([2, 3].contains(&finished.code()), "{what} {path}: {finished:?}");
                finished.expect_said(&["link of another user's"])?;
            }
        }
        shared.expect_untouched()?;
        // A name for it in a folder that all may write to is replaced, and not written into.
        let hard = shared.at("tmp/hard");
        fs::hard_link(shared.at("etc/precious"), &hard)?;
        recording.answer("report", &["-o", &hard.display().to_string()])?;
        shared.expect_untouched()?;
        // FIFOs of strangers are read by strangers.
        let fifo = shared.at("tmp/fifo");
        process::run({
            let mut mkfifo = Command::new("mkfifo");
            mkfifo.arg(&fifo);
            mkfifo
        })?
        .expect_code(0)?;
        chown(&fifo, Some(shared.nobody.uid), Some(shared.nobody.gid))?;
        let mut reader = Command::new("cat");
        reader.arg(&fifo);
        let reader = Running::start(reader, None)?;
        recording.ask("report", &["-o", &fifo.display().to_string()])?.expect_code(3)?.expect_said(&["another user"])?;
        assert_eq!(reader.finish()?.stdout, "");
        Ok(())
    })
}

/// Check that whatever is written is for its owner alone, whatever the umask says.
#[test]
fn for_its_owner_alone() -> Result<()> {
    along(&[Need::Root], || {
        let dir = tempfile::tempdir()?;
        let run = |args: &[&str]| -> Result<()> {
            let mut sh = lifetrace::command_through("sh");
            sh.args(["-c", "umask 0; exec \"$0\" \"$@\""]).arg(lifetrace::binary()).args(args).current_dir(dir.path());
            process::run(sh)?.expect_code(0).map(drop)
        };
        let births = fixture::go("births")?.display().to_string();
        run(&["run", "-o", "rec", "--", &births, "-n", "3"])?;
        for args in [
            &["report", "rec", "--format", "html", "-o", "report"][..],
            &["timeline", "rec", "--format", "perfetto", "-o", "timeline"],
            &["flame", "rec", "--by", "created", "-o", "flame"],
            &["leaks", "rec", "--format", "json", "-o", "leaks"],
            &["export", "rec", "--format", "parquet", "-o", "tables"],
        ] {
            run(args)?;
        }
        for name in ["rec", "report", "timeline", "flame", "leaks", "tables"] {
            let mode = fs::metadata(dir.path().join(name))?.permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
        }
        Ok(())
    })
}

/// The same lifetrace, run by nobody.
fn as_nobody(binary: &Path, args: &[&str]) -> Result<Finished> {
    process::run(by_nobody(binary, args)?)
}

fn by_nobody(program: &Path, args: &[&str]) -> Result<Command> {
    let User { uid, gid, .. } = nobody()?;
    let mut setpriv = lifetrace::command_through("setpriv");
    setpriv.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]).arg(program).args(args);
    setpriv.current_dir("/");
    Ok(setpriv)
}

/// Check that a user without rights is told nothing of what is in another user's process, and cannot follow it, whatever is tried.
#[test]
fn another_users_process() -> Result<()> {
    along(&[Need::Root, Need::Nobody, Need::Command("setpriv")], || {
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let binary = fixture::copied(&lifetrace::binary(), &dir.path().join("lifetrace"))?;
        let out = dir.path().join("out");
        fs::create_dir(&out)?;
        fs::set_permissions(&out, fs::Permissions::from_mode(0o777))?;
        let mut sleeper = Command::new(fixture::go("sleeper")?);
        sleeper.args(["-n", "50"]);
        let mut running = Running::start(sleeper, None)?;
        let births: Births = truth::read(&running.line(0)?)?;
        let (pid, rec) = (births.pid.to_string(), out.join("rec").display().to_string());
        let secret = &births.sites[0].function;
        let config = dir.path().join("agent.toml");
        fs::write(&config, "listen = \"127.0.0.1:0\"\n")?;
        let config = config.display().to_string();
        let attempts = [
            &["snapshot", "--pid", &pid, "--format", "json"][..],
            &["doctor", "--json", "--pid", &pid],
            &["attach", "--pid", &pid, "--for", "1s", "-o", &rec],
            &["report", "--pid", &pid, "--for", "1s"],
            &["leaks", "--pid", &pid, "--watch", "1s", "--record", &rec],
            &["leaks", "--pid", &pid, "--watch", "1s", "--pprof", "auto"],
            &["usdt", "list", "--pid", &pid],
            &["agent", "--config", &config],
        ];
        for args in attempts {
            let finished = as_nobody(&binary, args)?;
            let told = format!("{}{}", finished.stdout, finished.stderr);
            assert!(!told.contains(secret.as_str()) && !told.contains("panicked"), "{args:?}: {told}");
            assert_ne!(finished.stderr.len() + finished.stdout.len(), 0, "{args:?}: not a word");
            if args[0] != "doctor" {
                assert_eq!(finished.code(), 3, "{args:?}: {told}");
            }
            for left in fs::read_dir(&out)? {
                let left = fs::read(left?.path())?;
                assert!(!left.windows(secret.len()).any(|window| window == secret.as_bytes()), "{args:?}");
            }
        }
        assert!(process::is_alive(running.pid()));
        // It is there to be told to whom it belongs.
        let mut own = lifetrace::command();
        own.args(["snapshot", "--pid", &pid, "--format", "json"]);
        assert!(process::run(own)?.expect_code(0)?.stdout.contains(secret.as_str()));
        let _ = Attached::to(&["--pid", &pid, "--for", "1s"])?.finish()?;
        Ok(())
    })
}

/// Check that with a token the agent tells a local user who has none whether it lives, and nothing of anybody's programs.
#[test]
fn the_agents_doors() -> Result<()> {
    along(&[Need::Root, Need::Nobody, Need::Command("setpriv"), Need::Command("curl")], || {
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let token = dir.path().join("token");
        fs::write(&token, "0123456789abcdef\n")?;
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
        let mut sleeper = Command::new(fixture::go("sleeper")?);
        sleeper.args(["-n", "50"]);
        let mut running = Running::start(sleeper, None)?;
        let births: Births = truth::read(&running.line(0)?)?;
        let agent = Agent::start(&format!("token_file = {token:?}\n"))?;
        let ask = |path: &str, more: &[&str]| -> Result<String> {
            let url = format!("http://{}{path}", agent.address);
            Ok(process::run(by_nobody(Path::new("curl"), &[&["--silent", "--include", &url], more].concat())?)?.stdout)
        };
        let secret = &births.sites[0].function;
        for path in ["/metrics", "/debug/pprof/profile?seconds=1", "/", "/metrics/../metrics", "/debug/pprof/"] {
            let told = ask(path, &["--path-as-is"])?;
            assert!(told.starts_with("HTTP/1.1 401"), "{path}: {told}");
            assert!(!told.contains("sleeper") && !told.contains(secret.as_str()), "{path}: {told}");
        }
        assert!(ask("/healthz", &[])?.ends_with("ok\n"));
        let cannot = as_nobody(Path::new("cat"), &[&token.display().to_string()])?;
        assert_ne!(cannot.code(), 0, "the token is root's");
        let told = ask("/metrics", &["--header", "Authorization: Bearer 0123456789abcdef"])?;
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        assert!(agent::get(&agent.address, "/metrics")?.starts_with("HTTP/1.1 401"), "root's programs need it as well");
        agent.terminate()?;
        Ok(())
    })
}
