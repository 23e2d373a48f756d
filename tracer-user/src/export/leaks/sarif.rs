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

/// Writes the log: one run, a result for each group.
pub fn write(leaks: &LeaksOut, sources: &Sources, out: &mut impl Write) -> io::Result<()> {
    let results: Vec<Value> = leaks.leaks.iter().map(|leak| result(leak, sources)).collect();
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "lifetrace",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": [
                    rule("goroutine-growth", "Goroutines that block for good, and grow in number"),
                    rule("goroutine-outlives-test", "Goroutines that outlive the test they were born under"),
                    rule("goroutine-alive", "Goroutines that are alive at the end; no more is known"),
                ],
            }},
            "columnKind": "unicodeCodePoints",
            "originalUriBaseIds": {ROOT: {"description": {"text": "The checkout."}}},
            "results": results,
            "invocations": [{
                "executionSuccessful": true,
                "toolExecutionNotifications": [{"level": "note", "message": {"text": leaks.trust}}],
            }],
        }],
    });
    serde_json::to_writer_pretty(&mut *out, &log)?;
    out.write_all(b"\n")
}

fn rule(id: &str, text: &str) -> Value {
    json!({"id": id, "shortDescription": {"text": text}})
}

fn result(leak: &LeakOut, sources: &Sources) -> Value {
    let (rule, index) = match leak.because {
        Some("growth") => ("goroutine-growth", 0),
        Some(_) => ("goroutine-outlives-test", 1),
        None => ("goroutine-alive", 2),
    };
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
        "ruleIndex": index,
        "level": level,
        "message": {"text": message},
        "partialFingerprints": {"lifetrace/v1": leak.fingerprint},
        "baselineState": if leak.known { "unchanged" } else { "new" },
        "occurrenceCount": leak.count.max(1),
        "stacks": stacks,
        "locations": [location(here, leak.created_by.as_ref())],
        "properties": {"strength": leak.strength, "count": leak.count, "oldest_ns": leak.oldest_ns, "tests": leak.born_under},
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
