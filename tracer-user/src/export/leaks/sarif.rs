//! Leaks as SARIF 2.1.0, for tools that show findings beside the code.
//!
//! Source: OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0".

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{
    LeakOut, LeaksOut,
    sources::{Sources, own},
    text,
};
use crate::recording::contract::Frame;

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// What relative paths begin at.
const ROOT: &str = "SRCROOT";

/// By kind, and what a verdict stands on.
const RULES: [(&str, &str); 12] = [
    ("goroutine-collector", "Goroutines that nobody can wake, as Go's garbage collector proved"),
    ("goroutine-growth", "Goroutines that block for good, and grow in number"),
    ("goroutine-test", "Goroutines that outlive the test they were born under"),
    ("goroutine-alive", "Goroutines that are alive at the end; no more is known"),
    ("thread-growth", "Threads that wait for good, and grow in number"),
    ("thread-alive", "Threads that are alive at the end; no more is known"),
    ("process-growth", "Child processes that do not end, and grow in number"),
    ("process-alive", "Child processes that are alive at the end; no more is known"),
    ("zombie-unreaped", "Dead children that their parent has left unreaped for long, while they became more"),
    ("zombie-growth", "Dead children that nobody reaps, and that grow in number"),
    ("zombie-alive", "Dead children that were not reaped by the end; no more is known"),
    ("fd-growth", "Descriptors that are opened and not closed, and grow in number"),
];

/// Writes the log: one run, a result for each group.
pub fn write(leaks: &LeaksOut, sources: &Sources, out: &mut impl Write) -> io::Result<()> {
    let not_seen = leaks.not_seen.iter().map(|what| format!("not seen: {what}"));
    let notes = [leaks.trust.clone()].into_iter().chain(not_seen).map(|text| json!({"level": "note", "message": {"text": text}}));
    let results: Vec<Value> = leaks.leaks.iter().map(|leak| result(leak, sources)).collect();
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "lifetrace",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": RULES.map(|(id, text)| json!({"id": id, "shortDescription": {"text": text}})),
            }},
            "columnKind": "unicodeCodePoints",
            "originalUriBaseIds": {ROOT: {"description": {"text": "The checkout."}}},
            "results": results,
            "invocations": [{
                "executionSuccessful": true,
                "toolExecutionNotifications": notes.collect::<Vec<_>>(),
            }],
        }],
    });
    serde_json::to_writer_pretty(&mut *out, &log)?;
    out.write_all(b"\n")
}

fn result(leak: &LeakOut, sources: &Sources) -> Value {
    let rule = format!("{}-{}", leak.kind, leak.because.unwrap_or("alive"));
    let index = RULES.iter().position(|(id, _)| *id == rule);
    let level = match leak.strength {
        "watched" => "note",
        _ if leak.fails => "error",
        _ => "warning",
    };
    let mut message = text::headline(leak);
    if let Some(blocked) = &leak.blocked_on {
        message += &format!(", blocked on {}", blocked.reason);
    }
    if let Some(advice) = leak.advice {
        message += &format!(". {advice}");
    }
    let mut stacks = vec![stack("made by", &leak.creation, sources)];
    stacks.extend(leak.blocked_on.iter().map(|blocked| stack("blocked at", &blocked.stack, sources)));
    let here = own(sources, leak.created_by.iter().chain(&leak.creation).chain(&leak.starts_at));
    let mut result = json!({
        "ruleId": rule,
        "ruleIndex": index.map_or(-1, |index| index as i64),
        "level": level,
        "message": {"text": message},
        "partialFingerprints": {"lifetrace/v1": leak.fingerprint},
        "baselineState": if leak.known { "unchanged" } else { "new" },
        "occurrenceCount": leak.count.max(1),
        "stacks": stacks,
        "locations": [location(here, leak.created_by.as_ref())],
        "properties": {"strength": leak.strength, "count": leak.count, "oldest_ns": leak.oldest_ns, "tests": leak.born_under, "kind": leak.kind},
    });
    if let Some(ignored) = &leak.ignored {
        let justification = format!("{} (until {})", ignored.reason, ignored.expires);
        result["suppressions"] = json!([{"kind": "external", "justification": justification}]);
    }
    result
}

fn location(here: Option<(String, u32)>, frame: Option<&Frame>) -> Value {
    let mut location = json!({});
    if let Some((file, line)) = here {
        location["physicalLocation"] = physical(&file, line);
    }
    if let Some(frame) = frame {
        location["logicalLocations"] = json!([{"fullyQualifiedName": frame.function, "kind": "function"}]);
    }
    location
}

fn physical(file: &str, line: u32) -> Value {
    json!({"artifactLocation": {"uri": uri(file), "uriBaseId": ROOT}, "region": {"startLine": line}})
}

fn stack(text: &str, frames: &[Frame], sources: &Sources) -> Value {
    let frames: Vec<Value> =
        frames.iter().map(|frame| json!({"location": location(own(sources, [frame]), Some(frame))})).collect();
    json!({"message": {"text": text}, "frames": frames})
}

/// A relative path as a reference (RFC 3986).
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(byte.into()),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a path with anything in it is a reference.
    #[test]
    fn references() {
        assert_eq!(uri("api/a b%:ü.go"), "api/a%20b%25%3A%C3%BC.go");
    }
}
