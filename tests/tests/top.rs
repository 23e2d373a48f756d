//! `lifetrace top` through a pseudo-terminal, on programs that know their own truth.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result};
use lifetrace_tests::{
    attach::Attached,
    deadline::{PATIENCE, let_pass, wait_for},
    fixture, lifetrace,
    process::{self, Running, is_alive},
    scenario::{Need, alone, along},
    terminal::Terminal,
};
use nix::sys::signal::Signal;

const ENTER: &str = "\r";
const ESC: &str = "\x1b";
/// Wide enough for every column.
const WIDE: (u16, u16) = (220, 30);

fn top(args: &[&str], (columns, lines): (u16, u16)) -> Result<Terminal> {
    let mut command = lifetrace::command();
    command.arg("top").args(args).env_remove("NO_COLOR");
    Terminal::start(command, columns, lines)
}

/// Waits for the row of the screen that contains all of these.
fn row(terminal: &Terminal, texts: &[&str]) -> Result<String> {
    let contains = |line: &&str| texts.iter().all(|text| line.contains(text));
    terminal.until(&format!("a row with {texts:?}"), |screen| screen.lines().find(contains).map(str::to_owned))
}

/// The first column that is a number.
fn number(row: &str) -> Option<u64> {
    row.split_whitespace().next()?.replace(',', "").parse().ok()
}

/// What stands in a row below a title, in a column of numbers so wide: they end where their titles do.
fn cell(screen: &str, row: &str, (title, width): (&str, usize)) -> Option<String> {
    let header = screen.lines().find(|line| line.contains("DELAY p50"))?;
    let end = header[..header.find(title)? + title.len()].chars().count();
    let within: String = row.chars().take(end).skip(end - width).collect();
    Some(within.trim().to_owned())
}

/// The table of a screen without what differs from run to run: every number with its unit is `#`, runs of blanks are one, and rows are in
/// the order of their names.
fn masked(screen: &str) -> String {
    const UNITS: [&str; 7] = ["ns", "µs", "ms", "s", "min", "h", "%"];
    let line = |line: &str| {
        let mut words: Vec<String> = Vec::new();
        for word in line.split_whitespace() {
            let is_number = word.trim_start_matches(['>', '+']).trim_end_matches("/s").parse::<f64>().is_ok();
            let after_number = words.last().is_some_and(|last| last == "#");
            match word {
                _ if is_number || word.replace(',', "").parse::<f64>().is_ok() => words.push("#".into()),
                // Whether it was watched for long enough.
                "no" => words.push("-".into()),
                _ if after_number && UNITS.contains(&word.trim_end_matches(',')) => {}
                _ => words.push(word.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect()),
            }
        }
        words.join(" ")
    };
    let mut lines: Vec<String> = screen.lines().skip_while(|line| !line.contains("creation sites")).map(line).collect();
    lines.retain(|line| !line.is_empty());
    let rows = 2..lines.len().saturating_sub(1).max(2);
    lines[rows].sort_by_key(|line| line.split_once("main.").or_else(|| line.split_once("os/")).map(|(_, name)| name.to_owned()));
    lines.join("\n")
}

/// Check that creation sites are counted as the program counts them, that one can go into a site, a goroutine and its stack, and that what
/// it shows can be filtered, ordered and held still; and that the terminal is as it was afterwards.
#[test]
fn live() -> Result<()> {
    alone(&[Need::Root], || {
        let (running, births) = fixture::sleeper(&["-n", "120"])?;
        let site = &births.sites[0];
        let pid = births.pid.to_string();
        let mut terminal = top(&["--pid", &pid, "--tier", "T2"], WIDE)?;
        let place = format!("main.go:{}", site.line);
        let counted = row(&terminal, &[&place, "chan receive 120", "0 "])?;
        assert_eq!(number(&counted), Some(site.alive), "{counted}");
        assert!(terminal.is_alternate() && !terminal.is_untouched()?);
        terminal.shows(&["lost none", "tier T2", &format!("--pid {pid}"), "creation sites of all processes"])?;
        row(&terminal, &[&place, "120 "])?;

        terminal.press("/main.main\r")?;
        terminal.shows(&["[filter: main.main]"])?;
        let left = terminal.until("the filter", |screen| (!screen.contains("os/signal")).then(|| screen.to_owned()))?;
        assert!(left.contains(&place), "{left}");
        terminal.press(ESC)?;
        row(&terminal, &["os/signal"])?;
        terminal.press("s")?;
        terminal.shows(&["BORN/s*"])?;
        terminal.press("Sr")?;
        terminal.shows(&["ALIVE^"])?;
        terminal.press("r")?;
        terminal.shows(&["ALIVE*"])?;
        let text = terminal.until("rates", |screen| screen.contains(" 0 ").then(|| screen.to_owned()))?;
        assert!(text.contains("ALIVE*"));

        terminal.press("g")?;
        terminal.press(ENTER)?;
        terminal.shows(&["120 goroutines of", "blocked", "chan receive", ">"])?;
        terminal.until("all rows", |screen| {
            (screen.lines().filter(|line| line.contains("chan receive")).count() > 20).then_some(())
        })?;
        terminal.press(ENTER)?;
        let story =
            terminal.shows(&["stack", "runtime.chanrecv", "main.main.func", "made at", "blocked on chan receive", "SINCE"])?;
        assert!(story.contains(&format!("@{pid}")) && story.contains(&place), "{story}");
        terminal.press(ESC)?;
        terminal.shows(&["120 goroutines of"])?;

        terminal.press("?")?;
        terminal.shows(&["other keys close it"])?;
        terminal.press("x")?;
        terminal.shows(&["120 goroutines of"])?;
        terminal.press("q")?;
        assert_eq!(terminal.ended()?.code(), Some(0));
        terminal.expect_restored()?;
        assert!(is_alive(running.pid()));
        Ok(())
    })
}

/// Check what the screen looks like, but for its numbers, and that it is drawn anew where the terminal changes its size.
#[test]
fn screens() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, births) = fixture::sleeper(&["-n", "50"])?;
        let mut terminal = top(&["--pid", &births.pid.to_string(), "--tier", "T2"], (120, 20))?;
        let place = format!("main.go:{}", births.sites[0].line);
        // Until rates are known.
        let known = |line: &&str| line.contains(&place) && line.split_whitespace().take(3).all(|word| word != "-");
        terminal.until("rates", |screen| screen.lines().find(known).map(|_| ()))?;
        terminal.until("events", |screen| (!screen.contains("events -/s")).then_some(()))?;
        insta::assert_snapshot!("sites_120x20", masked(&terminal.screen()));
        terminal.resize(60, 8)?;
        let small = terminal.until("a small screen", |screen| {
            let fits = screen.contains("lost none") && screen.contains("CREATED BY") && !screen.contains("BORN/s");
            fits.then(|| screen.to_owned())
        })?;
        assert!(small.lines().count() <= 8 && small.lines().all(|line| line.chars().count() <= 60), "{small}");
        terminal.resize(20, 2)?;
        terminal
            .until("a tiny screen", |screen| (screen.lines().count() <= 2 && screen.contains("lifetrace top")).then_some(()))?;
        terminal.resize(120, 20)?;
        terminal.shows(&["BORN/s", "q quit"])?;
        terminal.press("\x03")?;
        assert_eq!(terminal.ended()?.code(), Some(0));
        Ok(())
    })
}

/// Check that births and deaths are counted by the second, and stand still while it is paused.
#[test]
fn rates_and_pause() -> Result<()> {
    alone(&[Need::Root], || {
        let (_running, births) = fixture::sleeper(&["-n", "10", "-churn"])?;
        let mut terminal = top(&["--pid", &births.pid.to_string(), "--tier", "T1"], WIDE)?;
        let churns = |line: &&str| line.contains("main.makeAndForget") && line.contains("makeAndForget.func");
        terminal.until("births and exits, about as many", |screen| {
            let line = screen.lines().find(churns)?;
            let mut words = line.split_whitespace().skip(1).map(|word| word.replace(',', "").parse::<f64>().ok());
            let (born, ended) = (words.next()??, words.next()??);
            let are_few = number(line).is_some_and(|alive| alive < 100);
            (are_few && born > 10.0 && (born - ended).abs() < born / 2.0).then_some(())
        })?;
        terminal.press("p")?;
        let still = terminal.shows(&["[PAUSED]"])?;
        let_pass(Duration::from_millis(1500));
        assert_eq!(terminal.screen(), still);
        terminal.press("p")?;
        terminal.until("it goes on", |screen| (!screen.contains("[PAUSED]") && screen != still).then_some(()))?;
        Ok(())
    })
}

/// Check that goroutines that pile up are suspected while they do, and those that come and go are not.
#[test]
fn leak() -> Result<()> {
    alone(&[Need::Root], || {
        let mut command = Command::new(fixture::orders()?);
        command.args(["-leak", "afterfunc", "-n", "100000", "-rate", "100", "-for", "1m"]);
        let running = Running::start(command, None)?;
        let terminal = top(&["--pid", &running.pid().to_string(), "--tier", "T2"], WIDE)?;
        let leaking = terminal.until("a suspicion", |screen| {
            screen.lines().find(|line| line.contains("time.goFunc") && line.contains("/h ")).map(str::to_owned)
        })?;
        assert!(leaking.contains("chan send") && number(&leaking).is_some_and(|alive| alive > 500), "{leaking}");
        let screen = terminal.shows(&["1 site grows"])?;
        let others = screen.lines().filter(|line| line.contains("(orders/") && !line.contains("time.goFunc"));
        assert!(others.clone().count() > 2 && others.clone().all(|line| !line.contains("/h ")), "{screen}");
        Ok(())
    })
}

/// Check that delays are known at T3, and who runs.
#[test]
fn scheduling() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, births) = fixture::sleeper(&["-n", "10", "-churn"])?;
        let pid = births.pid.to_string();
        let terminal = top(&["--pid", &pid, "--tier", "T3"], WIDE)?;
        terminal.until("delays, and who runs", |screen| {
            let line = screen.lines().find(|line| line.contains("main.makeAndForget"))?;
            let is_time = |column| cell(screen, line, column).is_some_and(|text| text.ends_with('s'));
            let is_count = |column| cell(screen, line, column).is_some_and(|text| text.parse::<u64>().is_ok());
            let all = is_time(("DELAY p50", 9)) && is_time(("p99", 8)) && is_count(("RUN", 5)) && is_count(("READY", 6));
            all.then_some(())
        })?;
        terminal.shows(&["tier T3"])?;
        Ok(())
    })
}

/// Check that a terminal is given back however it ends, and that the target lives on.
#[test]
fn ends() -> Result<()> {
    along(&[Need::Root], || {
        let (mut running, births) = fixture::sleeper(&["-n", "20", "-tick", "50ms"])?;
        let pid = births.pid.to_string();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let mut terminal = top(&["--pid", &pid, "--tier", "T2"], WIDE)?;
            terminal.shows(&["chan receive 20", "lost none"])?;
            terminal.signal(signal)?;
            assert_eq!(terminal.ended()?.code(), Some(0), "{signal}");
            terminal.expect_restored().with_context(|| signal.to_string())?;
        }
        // A terminal that is gone ends it, whether somebody says so or not.
        let mut terminal = top(&["--pid", &pid, "--tier", "T2"], (100, 20))?;
        terminal.shows(&["lost none"])?;
        terminal.hang_up()?;
        terminal.ended()?;
        let mut terminal = top(&["--pid", &pid, "--tier", "T2"], (100, 20))?;
        terminal.shows(&["lost none"])?;
        terminal.signal(Signal::SIGKILL)?;
        terminal.ended()?;
        let ticks = running.stdout().lines().count();
        running.line(ticks + 5)?;
        assert!(is_alive(running.pid()));
        Ok(())
    })
}

/// Check that the end of the target is told of, with what lived then still to be seen.
#[test]
fn target_ends() -> Result<()> {
    along(&[Need::Root], || {
        let (running, births) = fixture::sleeper(&["-n", "30"])?;
        let mut terminal = top(&["--pid", &births.pid.to_string(), "--tier", "T2"], WIDE)?;
        row(&terminal, &["chan receive 30"])?;
        running.signal(Signal::SIGTERM)?;
        terminal.shows(&["[THE PROCESS HAS ENDED]"])?;
        let left = row(&terminal, &[&format!("main.go:{}", births.sites[0].line)])?;
        assert_eq!(number(&left), Some(30), "{left}");
        terminal.press(ESC)?;
        row(&terminal, &[&births.pid.to_string(), "exit 0", "sleeper"])?;
        // Nobody records any more, and signals are heeded all the same.
        terminal.signal(Signal::SIGTERM)?;
        assert_eq!(terminal.ended()?.code(), Some(0));
        terminal.expect_restored()?;
        Ok(())
    })
}

/// Check that all Go processes of the host are shown, later ones too, within a budget.
#[test]
fn all() -> Result<()> {
    alone(&[Need::Root], || {
        let (_one, first) = fixture::sleeper(&["-n", "40"])?;
        let mut terminal = top(&["--all"], WIDE)?;
        terminal.shows(&["processes", "of 1.00 %"])?;
        let alive = |tgid: u32, at_least: u64| {
            terminal.until("a process", |screen| {
                let line = screen.lines().find(|line| line.split_whitespace().next() == Some(&tgid.to_string()))?;
                let alive: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
                (alive >= at_least).then(|| line.to_owned())
            })
        };
        alive(first.pid, 40)?;
        let (_other, later) = fixture::sleeper(&["-n", "60"])?;
        let line = alive(later.pid, 60)?;
        assert!(line.contains("sleeper -n 60"), "{line}");
        terminal.press(&format!("/{}\r", "sleeper -n 60"))?;
        terminal.until("the filter", |screen| (!screen.contains("sleeper -n 40")).then_some(()))?;
        terminal.press(ENTER)?;
        row(&terminal, &["creation sites of", &later.pid.to_string()])?;
        let counted = row(&terminal, &[&format!("main.go:{}", later.sites[0].line)])?;
        assert_eq!(number(&counted), Some(60), "{counted}");
        Ok(())
    })
}

/// Check that a view that is stopped loses events and says so, and never makes the target wait.
#[test]
fn slow_view() -> Result<()> {
    alone(&[Need::Root], || {
        let (mut running, births) = fixture::sleeper(&["-n", "10", "-churn", "-tick", "50ms"])?;
        let terminal = top(&["--pid", &births.pid.to_string(), "--tier", "T2", "--knob", "ring-bytes=65536"], WIDE)?;
        terminal.shows(&["main.makeAndForget"])?;
        terminal.signal(Signal::SIGSTOP)?;
        let ticks = running.stdout().lines().count();
        running.line(ticks + 40)?;
        terminal.signal(Signal::SIGCONT)?;
        let lost = terminal.until("what was lost", |screen| {
            screen.lines().find(|line| line.contains("lost ") && !line.contains("lost none")).map(str::to_owned)
        })?;
        assert!(!lost.contains("lost 0"), "{lost}");
        terminal.shows(&["goroutine_"])?;
        Ok(())
    })
}

/// Check that a recording is shown as it was at its end.
#[test]
fn recording() -> Result<()> {
    along(&[Need::Root], || {
        let (_running, births) = fixture::sleeper(&["-n", "25"])?;
        let (_, recording) = Attached::to(&["--pid", &births.pid.to_string(), "--for", "1s"])?.finish()?;
        let path = recording.path().to_str().context("a path")?.to_owned();
        let mut terminal = top(&[&path], WIDE)?;
        terminal.shows(&["[END OF THE RECORDING]"])?;
        let counted = row(&terminal, &[&format!("main.go:{}", births.sites[0].line), "chan receive 25"])?;
        assert_eq!(number(&counted), Some(25), "{counted}");
        terminal.press("q")?;
        assert_eq!(terminal.ended()?.code(), Some(0));
        let mut terminal = top(&[&path], WIDE)?;
        terminal.shows(&["[END OF THE RECORDING]"])?;
        terminal.signal(Signal::SIGTERM)?;
        assert_eq!(terminal.ended()?.code(), Some(0));
        terminal.expect_restored()?;
        Ok(())
    })
}

/// Check what is refused, before the terminal is touched.
#[test]
fn refused() -> Result<()> {
    along(&[], || {
        let mut command = lifetrace::command();
        command.args(["top", "--all"]);
        process::run(command)?.expect_code(2)?.expect_said(&["terminal"])?;
        for (args, code, said) in [
            (&["/nonexistent.rec"][..], 2, "nonexistent"),
            (&["--pid", "4194304", "--tier", "T2"], 2, "4194304"),
            (&["--pid", "1", "--guard-url", "http://127.0.0.1:1/", "--tier", "T2"], 2, "--budget"),
        ] {
            let mut terminal = top(args, (100, 20))?;
            assert_eq!(terminal.ended()?.code(), Some(code), "{args:?}");
            wait_for("the message", PATIENCE, || Ok(terminal.screen().contains(said).then_some(())))?;
            terminal.expect_restored().with_context(|| format!("{args:?}"))?;
        }
        Ok(())
    })
}
