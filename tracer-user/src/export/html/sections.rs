//! What of a page is read, as plain HTML: it is there without the script, and in print.

use base64::{Engine, engine::general_purpose::STANDARD};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::{First, Page};
use crate::{
    export::{
        leaks::{LeakOut, LeaksOut, text},
        processes_text,
        report::{Report, SiteOut},
        report_text, runtime_text,
        series::{SeriesOut, text as series_text},
    },
    timeline::human::{count, duration, plain},
};

const STYLE: &str = include_str!("page.css");
/// Each owns a section of the page; the last one begins them.
const SCRIPT: &str = concat!(
    "\"use strict\";\n",
    include_str!("data.js"),
    include_str!("occupancy.js"),
    include_str!("view.js"),
    include_str!("drawn.js"),
    include_str!("timeline.js"),
    include_str!("flames.js"),
    include_str!("tables.js"),
    include_str!("page.js")
);

/// Leaks that are told in full.
const MOST_LEAKS: usize = 100;
/// Groups that are alive at the end and no more.
const MOST_WATCHED: usize = 50;
/// Creation sites.
const MOST_SITES: usize = 300;

/// The whole page.
pub fn page(page: &Page<'_>, packed: &str) -> Markup {
    let title = report_text::title(page.report);
    let leaks = leaks(page.leaks);
    let timeline = timeline();
    let mut sections = vec![
        ("leaks", "Leaks", leaks),
        ("timeline", "Timeline", timeline),
        ("flames", "Flamegraphs", flames()),
        ("over-time", "Over time", over_time(&page.report.series)),
        ("sites", "Creation sites", sites(page.report)),
        ("processes", "Processes", processes(page.report)),
        ("runtime", "Runtime and findings", runtime(page.report)),
    ];
    // What was asked for comes first.
    let first = match page.first {
        First::Report => "sites",
        First::Timeline => "timeline",
        First::Leaks => "leaks",
    };
    sections.sort_by_key(|(id, ..)| *id != first);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { "lifetrace: " (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    h1 { "lifetrace" }
                    p.command { code { (title) } }
                    nav aria-label="Sections" {
                        ul {
                            li { a href="#summary" { "Summary" } }
                            @for (id, name, _) in &sections { li { a href={ "#" (id) } { (name) } } }
                        }
                    }
                }
                main #main {
                    (summary(page.report, page.leaks))
                    @for (id, name, content) in &sections {
                        section id=(id) aria-labelledby={ (id) "-heading" } {
                            h2 id={ (id) "-heading" } { (name) }
                            (content)
                        }
                    }
                }
                noscript { p.note { "The timeline and the flamegraphs are drawn by a script, which this browser does not run." } }
                script type="application/octet-stream" id="packed" { (PreEscaped(packed)) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

/// Only this script and this style: a name in the traced program that is mistaken for markup could do nothing.
fn policy() -> String {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    let (script, style) = (hash(SCRIPT), hash(STYLE));
    format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
}

fn summary(report: &Report, leaks: &LeaksOut) -> Markup {
    let own = &report.goroutines.own;
    let lost = report.lost.events;
    let share = report.price.share.map_or("unknown".to_owned(), |share| format!("{:.2} %", share * 100.0));
    let found = leaks.summary.proven + leaks.summary.suspected;
    html! {
        section #summary aria-labelledby="summary-heading" {
            h2 #summary-heading { "Summary" }
            ul.tiles {
                (tile("goroutines born", &count(own.born), ""))
                (tile("alive at the end", &count(own.alive), ""))
                (tile("leaks proven or suspected", &count(found as u64), if found > 0 { "bad" } else { "good" }))
                (tile("events lost", &count(lost), if lost > 0 { "bad" } else { "good" }))
                (tile("price, of the target's CPU time", &share, ""))
            }
            dl.facts {
                @for (name, fact) in report_text::facts(report) {
                    div { dt { (name) } dd { (fact) } }
                }
            }
        }
    }
}

fn tile(name: &str, value: &str, mood: &str) -> Markup {
    html! { li class=(mood) { strong { (value) } span { (name) } } }
}

fn leaks(leaks: &LeaksOut) -> Markup {
    let (told, watched): (Vec<&LeakOut>, Vec<&LeakOut>) = leaks.leaks.iter().partition(|leak| leak.strength != "watched");
    html! {
        p { (text::sum(leaks.summary)) }
        @for leak in told.iter().take(MOST_LEAKS) { (leak_group(leak, told.len() <= 3)) }
        @if told.len() > MOST_LEAKS { p.note { "and " (told.len() - MOST_LEAKS) " more groups" } }
        @if !watched.is_empty() {
            h3 { "Watched: alive at the end, no more is known" }
            ul.watched {
                @for leak in watched.iter().take(MOST_WATCHED) {
                    li {
                        (text::headline(leak))
                        @if let Some(blocked) = &leak.blocked_on { ", " (plain(&blocked.reason)) }
                        @if leak.weakened_by_loss { "; only watched because records were lost" }
                    }
                }
            }
            @if watched.len() > MOST_WATCHED { p.note { "and " (watched.len() - MOST_WATCHED) " more groups" } }
        }
        @for what in &leaks.not_seen { p.note { "Not seen: " (what) } }
        @for package in &leaks.not_watched { p.note { "Not run, from go's test cache: " (plain(package)) } }
        @for entry in &leaks.expired {
            @let what = entry.fingerprint.as_ref().or(entry.function.as_ref()).map_or("", String::as_str);
            p.note { "Ignored no more since " (entry.expires) ": " (plain(what)) " (" (plain(&entry.reason)) ")" }
        }
    }
}

fn leak_group(leak: &LeakOut, open: bool) -> Markup {
    let mut story = Vec::new();
    // Writing to memory does not fail.
    let _ = text::one(leak, leak.strength, &mut story);
    let story = String::from_utf8_lossy(&story);
    // Its first line says what the summary says.
    let story = story.split_once('\n').map_or("", |(_, rest)| rest);
    let standing = match (leak.fails, &leak.ignored) {
        (true, _) => "fails",
        (false, Some(_)) => "ignored",
        (false, None) if leak.known => "known",
        (false, None) => "does not fail",
    };
    html! {
        details.leak open[open || leak.fails] {
            summary {
                span class={ "badge " (leak.strength) } { (leak.strength) } " "
                (text::headline(leak)) " " span.quiet { "[" (leak.fingerprint) ", " (standing) "]" }
            }
            pre tabindex="0" { (story) }
            @if leak.kind == "goroutine" {
                @if let Some(start) = &leak.start_function {
                    p { button type="button" data-show=(start) { "Show them in the timeline" } }
                }
            }
        }
    }
}

fn timeline() -> Markup {
    html! {
        form.controls #controls {
            label { "Search " input type="search" #search placeholder="go:17, a function, a label" autocomplete="off"; }
            label { "Process " select #process { option value="" { "all" } } }
            label { "Site " select #site { option value="" { "all" } } }
            label { "State " select #state { option value="" { "any" } } }
            label { "Label " select #label { option value="" { "any" } } }
            span.buttons {
                button type="button" #zoom-in aria-label="Zoom in" { "+" }
                button type="button" #zoom-out aria-label="Zoom out" { "−" }
                button type="button" #fit { "Fit" }
                button type="button" #expand { "Open all" }
                button type="button" #collapse { "Close all" }
            }
        }
        p.note #timeline-note {}
        div.drawing {
            canvas #lanes tabindex="0" role="application" aria-label="Timeline of goroutines" aria-describedby="keys" {}
        }
        ul.legend #legend aria-label="Colours" {}
        p.note #keys {
            "Drag or ← → to move, wheel or ↑ ↓ to go through the rows, Ctrl+wheel or + − to zoom, shift+drag to zoom into a stretch, 0 to fit; "
            "click or Enter opens a group or tells of a span."
        }
        div #told aria-live="polite" {}
    }
}

fn flames() -> Markup {
    html! {
        form.controls #flame-controls {
            label { "Flamegraph " select #flame-by {} }
            label { "Highlight " input type="search" #flame-search autocomplete="off"; }
            span.buttons { button type="button" #flame-reset { "All" } }
        }
        p.note #flame-note aria-live="polite" {}
        div #flame role="group" aria-label="Flamegraph: the root on top; arrow keys go from frame to frame, Enter makes one as wide as can be" {}
    }
}

/// A table out of the rows that are text elsewhere, without empty columns.
fn table<const N: usize>(rows: &[[String; N]], right: &[bool; N], caption: &str) -> Markup {
    let [header, rows @ ..] = rows else { return html! {} };
    let shown: Vec<usize> = (0..N).filter(|column| !header[*column].is_empty()).collect();
    let class = |column: usize| if right[column] { "number" } else { "" };
    html! {
        div.wide tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead { tr { @for column in &shown { th scope="col" class=(class(*column)) { (header[*column]) } } } }
                tbody { @for row in rows { tr { @for column in &shown { td class=(class(*column)) { (row[*column]) } } } } }
            }
        }
    }
}

fn over_time(series: &SeriesOut) -> Markup {
    let Some(told) = series_text::lines(series) else { return html! { p.note { "Nothing was counted over time." } } };
    html! {
        (chart(series))
        (table(&told.lines, &series_text::RIGHT, "Goroutines, memory and collector over time"))
        ul.watched { @for line in &told.legend { li { (line) } } }
    }
}

/// How wide and high the chart is, and the room for its axes.
const CHART: (f64, f64) = (960.0, 200.0);
const MARGIN: (f64, f64) = (70.0, 24.0);
/// Processes that have a line.
const MOST_LINES: usize = 6;

/// Goroutines alive, a line a process.
fn chart(series: &SeriesOut) -> Markup {
    let end = series.rows.last().map_or(1, |row| row.at_ns).max(1);
    let points = |process: usize| -> Vec<(u64, u64)> {
        let cell = |row: &crate::export::series::Row| {
            let cell = row.processes.iter().find(|cell| cell.process == process)?;
            Some((row.at_ns, cell.goroutines?))
        };
        series.rows.iter().filter_map(cell).collect()
    };
    let mut lines: Vec<(u32, Vec<(u64, u64)>)> =
        series.processes.iter().enumerate().map(|(index, process)| (process.tgid, points(index))).collect();
    lines.retain(|(_, points)| points.iter().any(|(_, alive)| *alive > 0));
    let most = |points: &[(u64, u64)]| points.iter().map(|(_, alive)| *alive).max().unwrap_or(0);
    lines.sort_by_key(|(_, points)| std::cmp::Reverse(most(points)));
    let Some((_, highest)) = lines.first() else { return html! {} };
    let peak = most(highest).max(1);
    let (width, height) = (CHART.0 - MARGIN.0, CHART.1 - MARGIN.1);
    let place = |(at, alive): &(u64, u64)| {
        let x = MARGIN.0 + *at as f64 / end as f64 * width;
        format!("{x:.1},{:.1}", height - *alive as f64 / peak as f64 * (height - 8.0))
    };
    let label = format!("Goroutines alive over time, at most {} in one process", count(peak));
    html! {
        svg.chart viewBox={ "0 0 " (CHART.0) " " (CHART.1) } role="img" aria-label=(label) {
            @for (value, y) in [(peak, 8.0), (0, height)] {
                line.axis x1=(MARGIN.0) x2=(CHART.0) y1=(y) y2=(y) {}
                text x=(MARGIN.0 - 6.0) y=(y + 4.0) text-anchor="end" { (count(value)) }
            }
            @for (at, anchor) in [(0, "start"), (end, "end")] {
                text x=(MARGIN.0 + at as f64 / end as f64 * width) y=(CHART.1 - 6.0) text-anchor=(anchor) { (duration(at)) }
            }
            @for (index, (_, points)) in lines.iter().take(MOST_LINES).enumerate() {
                polyline class={ "line-" (index) } points=(points.iter().map(place).collect::<Vec<_>>().join(" ")) {}
            }
        }
        @if lines.len() > 1 {
            ul.legend {
                @for (index, (tgid, _)) in lines.iter().take(MOST_LINES).enumerate() { li { span class={ "swatch line-" (index) } {} "pid " (tgid) } }
            }
        }
    }
}

fn sites(report: &Report) -> Markup {
    let all: Vec<&SiteOut> = report.sites.iter().chain(&report.system_sites).collect();
    if all.is_empty() {
        return html! { p.note { "No goroutine was seen." } };
    }
    let many = report.processes.iter().filter(|process| process.goroutines.is_some()).count() > 1;
    let scheduled = all.iter().any(|site| site.runnable_ns.is_some());
    let time = |ns: Option<u64>| {
        html! { td.number data-value=(ns.map_or(-1.0, |ns| ns as f64)) { (ns.map_or("-".to_owned(), duration)) } }
    };
    let number = |value: u64| html! { td.number data-value=(value) { (count(value)) } };
    html! {
        div.wide tabindex="0" role="region" aria-label="Goroutines by creation site" {
            table.sortable {
                caption { "Goroutines by creation site; those of the Go runtime come last" }
                thead { tr {
                    @if many { th.number scope="col" { "TGID" } }
                    th.number scope="col" { "born" }
                    th.number scope="col" { "exited" }
                    th.number scope="col" { "alive" }
                    th.number scope="col" { "blocked" }
                    @if scheduled { th.number scope="col" { "runnable" } th.number scope="col" { "running" } }
                    th scope="col" { "created by → start, and what they waited for" }
                } }
                tbody { @for site in all.iter().take(MOST_SITES) { tr {
                    @if many { td.number data-value=(site.tgid) { (site.tgid) } }
                    (number(site.population.seen()))
                    (number(site.population.exited))
                    (number(site.population.alive))
                    (time(site.blocked_ns))
                    @if scheduled { (time(site.runnable_ns)) (time(site.running_ns)) }
                    td { (plain(&report_text::origin(site))) @for wait in report_text::waits(site) { br; span.quiet { (wait.trim()) } } }
                } } }
            }
        }
        @if all.len() > MOST_SITES { p.note { "and " (all.len() - MOST_SITES) " more sites: report --format json has all" } }
    }
}

fn processes(report: &Report) -> Markup {
    html! {
        (table(&processes_text::rows(&report.processes), &processes_text::RIGHT, "Processes, parents before their children"))
        @if let Some(more) = processes_text::more(&report.processes) { p.note { (more) } }
        @let cgroups = lines(|out| processes_text::cgroups(&report.cgroups, out));
        @if !cgroups.is_empty() { h3 { "Cgroups" } pre tabindex="0" { (cgroups) } }
    }
}

/// What other formats say in lines.
fn lines(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    // Writing to memory does not fail.
    let _ = write(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn runtime(report: &Report) -> Markup {
    let told = lines(|out| runtime_text::write(report, &|heading: &str| heading.to_owned(), out));
    html! {
        @if told.is_empty() { p.note { "The collector was not seen, CPUs were not sampled, and nothing was late for a reason that the events prove." } }
        @else { pre tabindex="0" { (told.trim_matches('\n')) } }
    }
}
