//! Births, exits, still-alive, creators, lines and wait reasons, against the program's own truth.

use anyhow::Result;
use lifetrace_tests::{
    fixture,
    lifetrace::Run,
    report::Report,
    scenario::{Need, alone, along},
    truth::{self, Births, Orders, Tree},
};

/// Check that 100,000 goroutines of three go statements, half of them parked for ever, are counted exactly with default settings and the
/// reader on the target's own CPU.
#[test]
fn hundred_thousand_births_on_one_cpu() -> Result<()> {
    alone(&[Need::Root, Need::Command("taskset")], || {
        let (finished, recording) = Run::of(fixture::go("births")?).pinned_to(0).finish()?;
        let births: Births = truth::read(finished.expect_code(0)?.last_line())?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        truth::assert_sites(&report, births.pid, &births.sites);
        truth::assert_waits(&report, births.pid, &births.sites);
        assert_totals(&report, &births);
        Ok(())
    })
}

/// Check the same where reader and target have all CPUs.
#[test]
fn hundred_thousand_births_unpinned() -> Result<()> {
    alone(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::go("births")?).finish()?;
        let births: Births = truth::read(finished.expect_code(0)?.last_line())?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        truth::assert_sites(&report, births.pid, &births.sites);
        truth::assert_waits(&report, births.pid, &births.sites);
        assert_totals(&report, &births);
        Ok(())
    })
}

/// Check that tier 1 counts births and exits as exactly as tier 2, and claims to know nothing of waits.
#[test]
fn births_at_tier_1() -> Result<()> {
    alone(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::go("births")?).option("--tier").option("T1").finish()?;
        let births: Births = truth::read(finished.expect_code(0)?.last_line())?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        truth::assert_sites(&report, births.pid, &births.sites);
        for site in report.sites.iter().filter(|site| site.tgid == births.pid) {
            assert!(site.waits.as_ref().is_none_or(|waits| waits.values().all(|wait| wait.count == 0)), "{site:#?}");
        }
        Ok(())
    })
}

/// Check children of children of children: each generation by its creator and line, each goroutine by its id and its end.
#[test]
fn children_of_children() -> Result<()> {
    along(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::go("tree")?).finish()?;
        let tree: Tree = truth::read(finished.expect_code(0)?.last_line())?;
        let report = recording.report()?;
        report.assert_nothing_lost();
        truth::assert_sites(&report, tree.pid, &tree.sites);

        let spans = recording.timeline(None)?;
        for node in &tree.nodes {
            let id = format!("go:{}", node.goid);
            let own: Vec<_> = spans.iter().filter(|span| span.id == id && span.tgid == tree.pid).collect();
            assert!(!own.is_empty(), "no timeline of {id}");
            // All of them end with the process; only some exit.
            let dead = own.iter().any(|span| span.state == "dead" && span.reason.as_deref() == Some("exit"));
            assert_eq!(dead, node.generation < 3, "{id}, generation {}: {own:#?}", node.generation);
        }
        Ok(())
    })
}

/// Check that a tree whose leaves end too leaves nobody alive.
#[test]
fn pruned_tree() -> Result<()> {
    along(&[Need::Root], || {
        let (finished, recording) = Run::of(fixture::go("tree")?).args(["-prune"]).finish()?;
        let tree: Tree = truth::read(finished.expect_code(0)?.last_line())?;
        let report = recording.report()?;
        for site in &tree.sites {
            let _ = report.goroutines().of(tree.pid).created_by(&site.function).at(&site.file, site.line).born(site.made).exits();
        }
        Ok(())
    })
}

/// Check the order service in each way it misbehaves against its own truth.
#[test]
fn order_service_with_each_leak() -> Result<()> {
    along(&[Need::Root], || {
        for leak in ["none", "afterfunc", "ticker", "httpbody", "ctx", "timeout"] {
            let (finished, recording) = Run::of(fixture::orders()?).args(["-n", "2000", "-leak", leak]).finish()?;
            let orders: Orders = truth::read(finished.expect_code(0)?.last_line())?;
            assert!(orders.settled, "{leak}: the service cannot vouch for itself");
            assert_orders(&recording.report()?, &orders);
        }
        Ok(())
    })
}

/// A counted `go` statement of the service has a line; one of net/http is held against those that it is known to leave behind.
fn assert_orders(report: &Report, orders: &Orders) {
    for made in &orders.made {
        let alive = orders.alive.iter().find(|alive| alive.function == made.function && alive.line == made.line);
        let alive = alive.map_or(0, |alive| alive.count);
        let found = report.goroutines().created_by(&made.function);
        let (Some(file), Some(line)) = (&made.file, made.line) else {
            let _ = found.alive(alive);
            continue;
        };
        let _ = found.at(file, line).born(made.count).alive(alive).exited(made.count - alive);
    }
}

/// The program's own goroutines are those of its go statements, and main, which never exits: the process does.
#[track_caller]
fn assert_totals(report: &Report, births: &Births) {
    let made: u64 = births.sites.iter().map(|site| site.made).sum();
    let alive: u64 = births.sites.iter().map(|site| site.alive).sum();
    let totals = report.goroutines;
    assert_eq!(totals.born, Some(made + 1), "{totals:?}");
    assert_eq!(totals.exited, Some(made - alive), "{totals:?}");
    assert_eq!(totals.alive, Some(alive + 1), "{totals:?}");
}
