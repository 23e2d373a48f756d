//! One direction of data: who imports whom, held against ARCHITECTURE.md.

use std::{
    fs,
    path::{Path, PathBuf},
};

const MAP: &str = include_str!("../../ARCHITECTURE.md");
/// What every stage may use.
const BASE: [&str; 5] = ["event", "id", "clock", "container", "signal"];

/// The stages as they stand in the map: later ones import earlier ones.
fn stages() -> Vec<&'static str> {
    let (_, rest) = MAP.split_once("A stage imports only what stands to its left in `").expect("the map has an order");
    rest.split('`').next().unwrap_or_default().split(" → ").flat_map(|stage| stage.split(", ")).collect()
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

/// The modules of this crate that a file names in its code, tests left out.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    let mut named = Vec::new();
    for rest in code.split("crate::").skip(1) {
        if let Some(group) = rest.strip_prefix('{') {
            // As rustfmt lays it out: one module a line, four blanks in, or all in one line.
            let end = group.find("};").unwrap_or(group.len());
            let mut depth = 0;
            let parts = group[..end].split(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                c == ',' && depth == 0
            });
            named.extend(parts.map(|part| part.trim().to_owned()));
        } else {
            named.push(rest.to_owned());
        }
    }
    let word = |name: String| name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned();
    named.into_iter().map(word).filter(|name| !name.is_empty()).collect()
}

/// Check that every module has its place in the map, and imports from its left only.
#[test]
fn one_direction() {
    let (stages, source) = (stages(), Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let place = |name: &str| stages.iter().position(|stage| *stage == name);
    let mut paths = Vec::new();
    files(&source, &mut paths);
    let mut checked = 0;
    for path in paths {
        let below = path.strip_prefix(&source).expect("below").to_string_lossy().into_owned();
        let stage = below.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        let tests = below.contains("tests");
        if tests || BASE.contains(&&*stage) || ["lib", "main"].contains(&&*stage) {
            continue;
        }
        let own = place(&stage).unwrap_or_else(|| panic!("{stage} is not in ARCHITECTURE.md"));
        for name in imports(&fs::read_to_string(&path).expect("text")) {
            let Some(other) = place(&name) else { continue };
            assert!(other <= own, "{below} imports {name}, which stands to its right");
            checked += usize::from(other < own);
        }
    }
    assert!(checked > 300, "{checked} imports: the test sees too little");
}
