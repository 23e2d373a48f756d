//! Segments of agents: asked by engines that nobody here wrote, through outages, full disks and deaths.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use lifetrace_tests::{
    agent::Agent,
    deadline::{PATIENCE, wait_for},
    fixture, lifetrace,
    lifetrace::Run,
    process::{self, Running},
    recording::Recording,
    scenario::{Need, alone, along},
    segments::{CHDB, DUCKDB, KEY, S3, SECRET, VERSITYGW, answer, ask, files, whole},
    truth::{self, Orders},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

const GROWS: &str = "Which creation sites grow";
/// Whom the order service leaks.
const REMINDERS: &str = "site=\"time.goFunc (time/sleep.go:215)";

/// The order service under a path of its own, leaking a goroutine an order: `orders` of them, 15 a second.
fn orders_at(path: &Path, orders: u64) -> Result<Running> {
    fixture::orders_at(path, &["-leak", "afterfunc", "-n", &orders.to_string(), "-rate", "15", "-for", "600s"])
}

/// An agent's file: who is followed, what it is called, and what of segments.
fn config(node: &str, programs: &Path, store: &str, spool: &Path, more: &str) -> String {
    format!(
        "node = \"{node}\"\nbudget = \"none\"\nsnapshot_every = \"1s\"\n\
         [[rule]]\naction = \"follow\"\nexe = \"{}/**\"\n\
         [segments]\nstore = \"{store}\"\nspool = \"{}\"\n{more}\n",
        programs.display(),
        spool.display()
    )
}

fn file_url(folder: &Path) -> String {
    format!("file://{}", folder.display())
}

/// How many segments met a fate.
fn fate(agent: &Agent, result: &str) -> Result<u64> {
    let found = agent.metrics()?.sum("lifetrace_agent_segments_total", &[&format!("result=\"{result}\"")]);
    Ok(found.context("no segments are counted")? as u64)
}

/// Ends a program and reads how many goroutines its own truth says its reminders are.
fn reminders(running: Running) -> Result<u64> {
    running.signal(Signal::SIGTERM)?;
    let truth: Orders = truth::read(running.finish()?.expect_code(0)?.last_line())?;
    let left = truth.alive.iter().filter(|count| count.function == "time.goFunc");
    Ok(left.map(|count| count.count).sum())
}

/// Rows without regard to what engines call numbers.
fn normal(rows: &[Value]) -> Vec<String> {
    rows.iter().map(Value::to_string).collect()
}

/// Check that the segments of three nodes, of programs with names that would break a path, are asked as docs/fleet.md says: DuckDB and
/// ClickHouse answer alike, and what they say of the leak is what the programs say of themselves.
#[test]
fn fleet() -> Result<()> {
    along(&[Need::Root, Need::Command("python3"), DUCKDB, CHDB], || {
        let dir = TempDir::new()?;
        let store = dir.path().join("store");
        let names = ["shop", "a=b \n<script>%2F..", "_other"];
        let mut fleet = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let programs = dir.path().join(format!("programs{at}"));
            let app = programs.join(name);
            let spool = dir.path().join(format!("spool{at}"));
            let agent = Agent::start(&config(&format!("n{at}"), &programs, &file_url(&store), &spool, "every = \"3s\""))?;
            fleet.push((app, agent));
        }
        let mut programs = Vec::new();
        for (at, (app, _)) in fleet.iter().enumerate() {
            programs.push(orders_at(app, 150 + 50 * at as u64)?);
        }
        let mut expected = BTreeMap::new();
        let mut segments = BTreeMap::new();
        for (at, ((app, agent), running)) in fleet.into_iter().zip(programs).enumerate() {
            let all = (150 + 50 * at) as f64;
            agent.until("all reminders", |metrics| {
                metrics.sum("lifetrace_goroutines", &[REMINDERS]).filter(|alive| *alive == all)
            })?;
            let sent = fate(&agent, "uploaded")?;
            wait_for("one more segment", PATIENCE, || Ok((fate(&agent, "uploaded")? >= sent + 2).then_some(())))?;
            agent.until("nothing that waits", |metrics| {
                metrics.sum("lifetrace_agent_spool_recordings", &[]).filter(|waiting| *waiting <= 1.0)
            })?;
            agent.terminate()?;
            let name = app.display().to_string();
            expected.insert((format!("n{at}"), name), reminders(running)?);
            segments.insert(format!("n{at}"), sent + 2);
        }
        assert_eq!(expected.values().copied().collect::<Vec<_>>(), [150, 200, 250]);
        let at = store.display().to_string();
        let (duckdb, chdb) = (ask("duckdb", &[&at])?, ask("chdb", &[&at])?);
        for (question, rows) in &duckdb {
            assert_eq!(normal(rows), normal(&chdb[question]), "{question}");
        }
        let leaks = answer(&duckdb, GROWS)?;
        let found = leaks.iter().map(|row| {
            assert_eq!(row["created_function"], "time.goFunc", "{leaks:?}");
            assert_eq!(row["start_function"], "main.(*leaks).remind.func1", "{leaks:?}");
            assert_eq!((&row["processes"], &row["seen_on"]), (&json!(1), &json!(3)), "{leaks:?}");
            let name = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            ((name("node"), name("program")), row["living"].as_u64().unwrap_or_default())
        });
        assert_eq!(found.collect::<BTreeMap<_, _>>(), expected, "{leaks:?}");
        let nodes = answer(&duckdb, "Which nodes")?;
        for (row, (node, least)) in nodes.iter().zip(&segments) {
            assert_eq!(
                (row["node"].as_str(), &row["cut_off"], &row["lost_events"]),
                (Some(&**node), &json!(0), &json!(0)),
                "{row}"
            );
            assert!(row["segments"].as_u64() >= Some(*least), "{row}");
        }
        assert_eq!(
            (nodes.len(), whole(&store)?),
            (3, nodes.iter().filter_map(|row| row["segments"].as_u64()).sum::<u64>() as usize)
        );
        let waits = answer(&duckdb, "What is waited for")?;
        assert!(waits.iter().any(|row| row["reason"] == "chan send" && row["node"] == "n2"), "{waits:?}");
        assert!((0..3).all(|at| files(&dir.path().join(format!("spool{at}"))).is_ok_and(|left| left.is_empty())));
        Ok(())
    })
}

/// What the agent is told of an S3 server.
fn options_of(s3: &S3, dir: &Path) -> Result<String> {
    let secret = dir.join("secret");
    fs::write(&secret, format!("{SECRET}\n"))?;
    Ok(format!(
        "[segments.options]\nendpoint = \"{}\"\nallow_http = true\nregion = \"us-east-1\"\naccess_key_id = \"{KEY}\"\n\
         secret_access_key_file = \"{}\"\n",
        s3.endpoint(),
        secret.display()
    ))
}

/// Check that every segment arrives at an S3 server through an outage of it, that the agent goes on following meanwhile, and that
/// ClickHouse reads them from there.
#[test]
fn s3_through_an_outage() -> Result<()> {
    along(&[Need::Root, Need::Command("python3"), VERSITYGW, CHDB], || {
        let dir = TempDir::new()?;
        let programs = dir.path().join("programs");
        let app = programs.join("shop");
        let mut s3 = S3::start(&dir.path().join("s3"), "traces")?;
        let options = format!("every = \"2s\"\n{}", options_of(&s3, dir.path())?);
        let agent = Agent::start(&config("n1", &programs, "s3://traces/prod/a", &dir.path().join("spool"), &options))?;
        let running = orders_at(&app, 150)?;
        let store = s3.bucket("traces").join("prod/a");
        wait_for("two segments", PATIENCE, || Ok((whole(&store)? >= 2).then_some(())))?;
        s3.kill()?;
        let made = agent.metrics()?.sum("lifetrace_agent_recordings_total", &[]).unwrap_or_default();
        agent.until("recordings that go on, and wait", |metrics| {
            let goes_on = metrics.sum("lifetrace_agent_recordings_total", &[])? >= made + 3.0;
            let waits = metrics.sum("lifetrace_agent_spool_recordings", &[])? >= 2.0;
            let refused = metrics.sum("lifetrace_agent_segment_upload_failures_total", &[])? >= 1.0;
            (goes_on && waits && refused).then_some(())
        })?;
        agent.until("all reminders", |metrics| {
            metrics.sum("lifetrace_goroutines", &[REMINDERS]).filter(|alive| *alive == 150.0)
        })?;
        s3.start_again()?;
        agent.until("nothing that waits", |metrics| {
            let waits = metrics.sum("lifetrace_agent_spool_recordings", &[])?;
            (waits <= 1.0).then_some(())
        })?;
        let (dropped, failed) = (fate(&agent, "dropped")?, fate(&agent, "failed")?);
        assert_eq!((dropped, failed), (0, 0));
        let recordings = agent.metrics()?.sum("lifetrace_agent_recordings_total", &[]).unwrap_or_default() as usize;
        let said = agent.terminate()?.stderr;
        assert_eq!(said.matches("segments wait in the spool").count(), 1, "{said}");
        assert!(whole(&store)? >= recordings, "{} of {recordings}", whole(&store)?);
        assert_eq!(files(&dir.path().join("spool"))?, [""; 0]);
        let answers = ask("chdb", &["traces/prod/a", &s3.endpoint(), KEY, SECRET])?;
        let [leak] = answer(&answers, GROWS)? else { anyhow::bail!("{answers:?}") };
        assert_eq!((leak["living"].as_u64(), leak["program"].as_str()), (Some(reminders(running)?), app.to_str()));
        let [node] = answer(&answers, "Which nodes")? else { anyhow::bail!("{answers:?}") };
        assert_eq!((node["segments"].as_u64(), &node["cut_off"]), (Some(whole(&store)? as u64), &json!(0)));
        Ok(())
    })
}

/// How often was waited for what, by what a recording says of itself.
fn waits(recording: &Recording) -> Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    for (reason, wait) in recording.report()?.sites.iter().filter_map(|site| site.waits.as_ref()).flatten() {
        *all.entry(reason.clone()).or_default() += wait.count;
    }
    Ok(all)
}

/// Check that a table that is larger than a part is sent by parts and is whole in the bucket: of a recording that an agent before has left.
#[test]
fn by_parts() -> Result<()> {
    // What is smaller is sent at once (tracer-user/src/agent/segments/store.rs).
    const PART: u64 = 8 << 20;
    // Tables are made with what CPU time others leave.
    alone(&[Need::Root, Need::Command("python3"), VERSITYGW, CHDB], || {
        let dir = TempDir::new()?;
        let (programs, spool) = (dir.path().join("programs"), dir.path().join("spool"));
        fs::create_dir(&spool)?;
        fs::set_permissions(&spool, fs::Permissions::from_mode(0o700))?;
        // As one that was killed calls what it was recording.
        let left = spool.join("20260101T000000.000Z-0000000a.running");
        let run = Run::of(fixture::orders()?).args(["-n", "120000"]).option("--tier=T3").output(&left);
        let (finished, recording) = run.finish()?;
        finished.expect_code(0)?;
        let expected = waits(&recording)?;
        let s3 = S3::start(&dir.path().join("s3"), "traces")?;
        let options = format!("every = \"1h\"\n{}", options_of(&s3, dir.path())?);
        let agent = Agent::start(&config("n1", &programs, "s3://traces/prod/a", &spool, &options))?;
        let store = s3.bucket("traces").join("prod/a");
        // It gives way to all others, and has much to read.
        wait_for("the segment", PATIENCE * 5, || {
            let sent = agent.metrics()?.sum("lifetrace_agent_segments_total", &["result=\"uploaded\""]);
            Ok((sent == Some(1.0)).then_some(()))
        })?;
        assert_eq!((whole(&store)?, fate(&agent, "failed")?), (1, 0));
        let sizes: Vec<(u64, String)> =
            files(&store)?.into_iter().map(|file| Ok((store.join(&file[1..]).metadata()?.len(), file))).collect::<Result<_>>()?;
        let (bytes, largest) = sizes.into_iter().max().context("no tables")?;
        println!("{bytes} bytes of {largest}");
        assert!(bytes > PART, "{bytes} bytes of {largest}: no table is sent by parts");
        // S3 says so in the tag of an object: its sum, and how many parts it came in.
        let tag = fs::read_to_string(dir.path().join("s3/sidecar/traces/prod/a").join(&largest[1..]).join("meta/etag"))?;
        assert!(tag.trim_matches('"').ends_with(&format!("-{}", bytes.div_ceil(PART))), "{bytes} bytes, {tag}");
        let answers = ask("chdb", &["traces/prod/a", &s3.endpoint(), KEY, SECRET])?;
        let rows = answer(&answers, "What is waited for")?.iter().map(|row| {
            let reason = row["reason"].as_str().unwrap_or_default().to_owned();
            (reason, row["waits"].as_u64().unwrap_or_default())
        });
        assert_eq!(rows.collect::<BTreeMap<_, _>>(), expected);
        agent.terminate()?;
        Ok(())
    })
}

/// Check that what was in the spool when the agent was killed arrives with the next one: what waited, and what was being recorded.
#[test]
fn killed() -> Result<()> {
    along(&[Need::Root, Need::Command("python3"), DUCKDB], || {
        let dir = TempDir::new()?;
        let (programs, store, spool) = (dir.path().join("programs"), dir.path().join("store"), dir.path().join("spool"));
        let _running = orders_at(&programs.join("shop"), 50)?;
        // Nobody listens there: recordings wait.
        let nowhere = "every = \"1s\"\n[segments.options]\nendpoint = \"http://127.0.0.1:1\"\nallow_http = true\nregion = \"x\"\n\
                       access_key_id = \"x\"\nsecret_access_key = \"x\"\n";
        let mut agent = Agent::start(&config("n1", &programs, "s3://b/p", &spool, nowhere))?;
        agent.until("recordings that wait", |metrics| {
            metrics.sum("lifetrace_agent_spool_recordings", &[]).filter(|waiting| *waiting >= 3.0)
        })?;
        agent.running.signal(Signal::SIGKILL)?;
        agent.running.wait_exit()?;
        let left: Vec<String> = files(&spool)?.into_iter().filter(|file| !file.contains("/tables/")).collect();
        assert!(left.len() >= 3, "{left:?}");
        let agent = Agent::start(&config("n1", &programs, &file_url(&store), &spool, "every = \"1h\""))?;
        wait_for("what was left", PATIENCE, || {
            let waiting = agent.metrics()?.sum("lifetrace_agent_spool_recordings", &[]);
            Ok((waiting == Some(0.0)).then_some(()))
        })?;
        assert_eq!((fate(&agent, "dropped")?, fate(&agent, "failed")?), (0, 0));
        agent.terminate()?;
        // The second one's own is the last.
        let names: Vec<String> = files(&store.join("meta"))?;
        for name in &left {
            let segment = name.trim_start_matches('/').rsplit_once('.').context("no ending")?.0;
            let arrived = names.iter().any(|file| file.ends_with(&format!("/{segment}.parquet")));
            // One that had not begun tells nothing.
            assert!(arrived || name.ends_with(".running"), "{segment} did not arrive: {names:?}");
        }
        let answers = ask("duckdb", &[&store.display().to_string()])?;
        let nodes = answer(&answers, "Which nodes")?;
        assert_eq!(nodes[0]["segments"].as_u64(), Some(names.len() as u64));
        Ok(())
    })
}

/// Check that a spool that is full costs segments and nothing else: programs are followed on, and it is counted and said once.
#[test]
fn full_disk() -> Result<()> {
    along(&[Need::Root, Need::Command("unshare")], || {
        let dir = TempDir::new()?;
        let (programs, store, spool) = (dir.path().join("programs"), dir.path().join("store"), dir.path().join("spool"));
        fs::create_dir(&spool)?;
        fs::set_permissions(&spool, fs::Permissions::from_mode(0o700))?;
        let _running = orders_at(&programs.join("shop"), 150)?;
        // A mount of the agent's own, gone with it: there is room for the beginning of a recording, and not for its tables.
        let mut unshare = lifetrace::command_through("unshare");
        let script = "mount -t tmpfs -o size=16k,mode=0700 spool \"$0\" && exec \"$@\"";
        unshare.args(["-m", "sh", "-c", script]).arg(&spool).arg(lifetrace::binary());
        let agent = Agent::start_by(unshare, &config("n1", &programs, &file_url(&store), &spool, "every = \"2s\""))?;
        agent.until("copies that were cut", |metrics| {
            metrics.sum("lifetrace_agent_spool_cut_total", &["reason=\"no space\""]).filter(|cut| *cut >= 2.0)
        })?;
        agent.until("all reminders", |metrics| {
            metrics.sum("lifetrace_goroutines", &[REMINDERS]).filter(|alive| *alive == 150.0)
        })?;
        assert_eq!(agent.metrics()?.sum("lifetrace_lost_events_total", &[]), None, "a full disk costs events");
        let said = agent.terminate()?.stderr;
        assert_eq!(said.matches("only the beginning is in the spool").count(), 1, "{said}");
        Ok(())
    })
}

/// What the agent says when it refuses a file.
fn refusal(config: &str) -> Result<String> {
    let dir = TempDir::new()?;
    let file = dir.path().join("agent.toml");
    fs::write(&file, format!("listen = \"127.0.0.1:0\"\n{config}"))?;
    let mut command = lifetrace::command();
    command.args(["agent", "--config"]).arg(&file);
    let finished = process::run(command)?;
    assert_ne!(finished.code(), 0, "it follows all the same");
    Ok(finished.stderr)
}

/// Check that a spool or a store that leads somewhere else, or that others could fill, is refused, and that nothing is written there.
#[test]
fn folders_of_others() -> Result<()> {
    along(&[Need::Root], || {
        let dir = TempDir::new()?;
        let folder = |name: &str, mode: u32| -> Result<PathBuf> {
            let path = dir.path().join(name);
            fs::create_dir(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            Ok(path)
        };
        let (victim, open, fine) = (folder("victim", 0o700)?, folder("open", 0o777)?, dir.path().join("fine"));
        let (link, foreign) = (dir.path().join("link"), folder("foreign", 0o755)?);
        symlink(&victim, &link)?;
        std::os::unix::fs::chown(&foreign, Some(65534), None)?;
        for (wrong, said) in [(&link, "symbolic link"), (&open, "written to by others"), (&foreign, "belongs to user 65534")] {
            for (store, spool) in [(wrong, &fine), (&fine, wrong)] {
                let text = refusal(&config("n1", dir.path(), &file_url(store), spool, ""))?;
                assert!(text.contains(said) && text.contains(&wrong.display().to_string()), "{text}");
                let _ = fs::remove_dir_all(&fine);
            }
            assert_eq!(files(wrong)?, [""; 0]);
        }
        let spool = dir.path().join("spool");
        let _first = Agent::start(&config("n1", &victim, &file_url(&fine), &spool, ""))?;
        let text = refusal(&config("n2", &victim, &file_url(&fine), &spool, ""))?;
        assert!(text.contains("used by another agent"), "{text}");
        assert!(files(&victim)?.is_empty());
        Ok(())
    })
}
