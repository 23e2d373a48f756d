//! Leaks as JUnit XML, for Jenkins and GitLab: a group is a test case, and fails where the gate does.
//!
//! Source: the schema of Jenkins's xUnit plugin (`junit-10.xsd`).

use std::io::{self, Write};

use quick_xml::{
    Writer,
    events::{BytesDecl, BytesText, Event},
};

use super::{LeakOut, LeaksOut, text};

/// A case of the suite.
struct Case {
    name: String,
    verdict: Verdict,
    story: String,
}

enum Verdict {
    Passed,
    /// And why.
    Skipped(String),
    Failed {
        kind: &'static str,
        message: String,
    },
}

/// Writes the document.
pub fn write(leaks: &LeaksOut, out: &mut impl Write) -> io::Result<()> {
    let cases = cases(leaks)?;
    let failures = cases.iter().filter(|case| matches!(case.verdict, Verdict::Failed { .. })).count().to_string();
    let skipped = cases.iter().filter(|case| matches!(case.verdict, Verdict::Skipped(_))).count().to_string();
    let tests = cases.len().to_string();
    let counts = [("tests", tests.as_str()), ("failures", &failures), ("errors", "0"), ("time", "0")];
    let mut xml = Writer::new_with_indent(out, b' ', 2);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let suites = xml.create_element("testsuites").with_attribute(("name", "lifetrace")).with_attributes(counts);
    suites.write_inner_content(|xml| {
        let suite = xml.create_element("testsuite").with_attribute(("name", "lifetrace leaks")).with_attributes(counts);
        suite.with_attribute(("skipped", skipped.as_str())).write_inner_content(|xml| {
            cases.iter().try_for_each(|case| case.write(xml))?;
            let mut said = format!("{}\n{}\n", text::sum(leaks.summary), leaks.trust);
            if !leaks.not_seen.is_empty() {
                said += &format!("not seen: {}\n", leaks.not_seen.join("; "));
            }
            xml.create_element("system-out").write_text_content(BytesText::new(&plain(&said))).map(drop)
        })?;
        Ok(())
    })?;
    xml.get_mut().write_all(b"\n")
}

fn cases(leaks: &LeaksOut) -> io::Result<Vec<Case>> {
    let mut cases = Vec::with_capacity(leaks.leaks.len() + leaks.not_watched.len());
    for leak in &leaks.leaks {
        let mut story = Vec::new();
        text::one(leak, leak.strength, &mut story)?;
        let name = format!("{} [{}]", text::headline(leak), leak.fingerprint);
        cases.push(Case { name, verdict: verdict(leak), story: String::from_utf8_lossy(&story).into_owned() });
    }
    for package in &leaks.not_watched {
        let why = "answered from go's test cache: it did not run".to_owned();
        cases.push(Case { name: package.clone(), verdict: Verdict::Skipped(why), story: String::new() });
    }
    if cases.is_empty() {
        // A suite without cases reads as if nothing had been looked at.
        let name = "nothing was left behind".to_owned();
        cases.push(Case { name, verdict: Verdict::Passed, story: String::new() });
    }
    Ok(cases)
}

fn verdict(leak: &LeakOut) -> Verdict {
    match &leak.ignored {
        _ if leak.fails => Verdict::Failed { kind: leak.strength, message: text::headline(leak) },
        Some(ignored) => Verdict::Skipped(format!("ignored until {}: {}", ignored.expires, ignored.reason)),
        None if leak.known => Verdict::Skipped("the baseline has it".to_owned()),
        None => Verdict::Passed,
    }
}

impl Case {
    fn write<W: Write>(&self, xml: &mut Writer<W>) -> io::Result<()> {
        let name = plain(&self.name);
        let case =
            xml.create_element("testcase").with_attributes([("classname", "lifetrace.leaks"), ("name", &name), ("time", "0")]);
        let story = plain(&self.story);
        case.write_inner_content(|xml| {
            match &self.verdict {
                Verdict::Passed => {}
                Verdict::Skipped(why) => {
                    xml.create_element("skipped").with_attribute(("message", plain(why).as_str())).write_empty()?;
                }
                Verdict::Failed { kind, message } => {
                    let failure = xml.create_element("failure").with_attributes([("type", *kind), ("message", &plain(message))]);
                    return failure.write_text_content(BytesText::new(&story)).map(drop);
                }
            }
            if !story.is_empty() {
                xml.create_element("system-out").write_text_content(BytesText::new(&story))?;
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// Characters that XML 1.0 has no place for are replaced.
fn plain(text: &str) -> String {
    let fits = |c: char| matches!(c, '\t' | '\n' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().map(|c| if fits(c) { c } else { '\u{fffd}' }).collect()
}
