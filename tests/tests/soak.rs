//! A minute of what `cargo xtask soak` does for twenty.

use std::time::Duration;

use anyhow::Result;
use lifetrace_tests::{
    otelcol::PROGRAM,
    scenario::{Need, along},
    soak::{self, Plan},
};

/// Check that programs that come and go are followed and forgotten, that leaks and nothing else are called so, and that no descriptor stays.
#[test]
fn a_minute() -> Result<()> {
    along(&[Need::Root, Need::Program(PROGRAM)], || {
        let outcome = soak::run(Plan { lasting: Duration::from_secs(60), programs: 20, seed: 1 })?;
        println!("{outcome}");
        outcome.check()
    })
}
