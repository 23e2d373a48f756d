//! docs/leakset.md.

use std::fmt::Write as _;

use super::{
    Judged, real,
    set::{Entry, Said},
};

const HEAD: &str = "# The labelled set

Verdicts on the programs of tests/leakset and on real programs, written by `cargo xtask bench leaks`. A leaking program is found if what is suspected or proven was made at a labelled line, or by the library's function that its comment names; of zombies, if its comment says that it leaves them.
*whole*: from a recording of its life. *loss*: the same with a tenth of its records lost on purpose and no snapshots; what loss forces down to watched says so. *live*: attached to while it runs, with that loss and a snapshot a second. *looks*: `leaks --pid`, without any probe.
For comparison: *alive* is what a check for goroutines that are left at the end would count, as goleak does; *profile* is what Go 1.27's `goroutineleak` profile counts in the same program.

";

pub fn page(judged: &[Judged], real: &[real::Judged]) -> String {
    let mut page = HEAD.to_owned();
    page += "| half | | programs | whole | loss | live | looks | alive at exit | Go's profile |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    for half in ["seen", "unseen"] {
        for (leaking, what) in [(true, "leaking"), (false, "healthy")] {
            let of = || judged.iter().filter(move |one| one.entry.half == half && one.entry.leaking == leaking);
            let right = |said: fn(&Judged) -> &Said| {
                let right = of().filter(|one| matches!(said(one).verdict(leaking), "found" | "silent")).count();
                let word = if leaking { "found" } else { "silent" };
                format!("{right} {word}")
            };
            let accused = |accuses: fn(&Judged) -> bool| {
                let accused = of().filter(|one| accuses(one)).count();
                format!("{accused} {}", if leaking { "found" } else { "false" })
            };
            let _ = writeln!(
                page,
                "| {half} | {what} | {} | {} | {} | {} | {} | {} | {} |",
                of().count(),
                right(|one| &one.whole),
                right(|one| &one.lossy),
                right(|one| &one.live),
                right(|one| &one.looks),
                accused(|one| one.whole.alive > 0),
                accused(|one| one.profiled.is_some_and(|count| count > 0)),
            );
        }
    }
    let proven: usize =
        judged.iter().flat_map(|one| [&one.whole, &one.lossy, &one.live, &one.looks]).map(|said| said.proven).sum();
    let _ = writeln!(page, "\nOf all these verdicts {proven} are proven: no program serves the profile that would prove one.");
    page += "\n## Real programs\n\n| program | what it did | judged | goroutines | verdict |\n| --- | --- | --- | --- | --- |\n";
    for one in real {
        let _ = writeln!(page, "| {} | {} | {} | {} | {} |", one.program, one.load, one.how, one.goroutines, one.verdict());
    }
    page += "\n## Each program\n\n| program | what it is | half | whole | suspected at | loss | live | looks | alive | profile |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    for one in judged {
        let Entry { name, kind, half, leaking } = &one.entry;
        let [whole, lossy, live, looks] = [&one.whole, &one.lossy, &one.live, &one.looks].map(|said| said.verdict(*leaking));
        let profiled = one.profiled.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let side = one.entry.side();
        let (named, alive) = (&one.whole.named, one.whole.alive);
        let _ = writeln!(
            page,
            "| {side}/{name} | {kind} | {half} | {whole} | {named} | {lossy} | {live} | {looks} | {alive} | {profiled} |"
        );
    }
    page
}
