//! Parks and wakes, against what the program derives from how channels work.

use anyhow::Result;
use lifetrace_tests::{
    fixture,
    lifetrace::Run,
    recording::Recording,
    scenario::{Need, alone},
    truth::{self, PingPong},
};

/// Check that 200,000 parks of a ping-pong on one P, and their wakes, are counted exactly with the reader on the target's CPU.
#[test]
fn ping_pong_on_one_cpu() -> Result<()> {
    alone(&[Need::Root, Need::Command("taskset")], || {
        let (finished, recording) = Run::of(fixture::go("pingpong")?).pinned_to(0).finish()?;
        let truth: PingPong = truth::read(finished.expect_code(0)?.last_line())?;
        assert_eq!(truth.parks, 200_000);
        assert_parks_and_wakes(&recording, &truth)
    })
}

/// Check the same where the players run on two CPUs: then either side may come first, but the sum stays.
#[test]
fn ping_pong_on_two_cpus() -> Result<()> {
    alone(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::go("pingpong")?).args(["-procs", "2"]).finish()?;
        let truth: PingPong = truth::read(finished.expect_code(0)?.last_line())?;
        assert_parks_and_wakes(&recording, &truth)
    })
}

fn assert_parks_and_wakes(recording: &Recording, truth: &PingPong) -> Result<()> {
    let report = recording.report()?;
    report.assert_nothing_lost();
    truth::assert_sites(&report, truth.pid, &truth.sites);

    let lines: Vec<u32> = truth.sites.iter().map(|site| site.line).collect();
    let parks: u64 = lines
        .iter()
        .map(|&line| report.goroutines().of(truth.pid).created_by("main.main").at("main.go", line))
        .map(|player| player.waits_for("chan receive") + player.waits_for("chan send"))
        .sum();
    assert_eq!(parks, truth.parks);

    // A wake ends each of these parks, and it is the other player who wakes.
    let spans = recording.timeline(None)?;
    let waits = || spans.iter().filter(|span| matches!(span.reason.as_deref(), Some("chan receive" | "chan send")));
    let blocked: Vec<_> = waits().filter(|span| span.state == "blocked" && span.tgid == truth.pid).collect();
    let players: std::collections::BTreeSet<&str> =
        blocked.iter().map(|span| span.id.as_str()).filter(|id| *id != "go:1").collect();
    let woken = blocked.iter().filter(|span| players.contains(span.id.as_str()) && span.end_ns.is_some());
    let by_a_player = woken.filter(|span| {
        let waker = span.woken_by.as_deref().unwrap_or_default();
        waker != span.id && players.contains(waker.split('@').next().unwrap_or_default())
    });
    assert_eq!(by_a_player.count() as u64, truth.wakes);
    assert_eq!(players.len(), 2, "{players:?}");
    Ok(())
}
