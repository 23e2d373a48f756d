//! `lifetrace flame`.

use anyhow::Result;

use super::{
    args::{FlameArgs, FlameBy, FlameFormat},
    exit::Exit,
    output,
};
use crate::export::{
    flamegraph::{By, Flame, Weights},
    pprof,
};

pub fn flame(args: &FlameArgs) -> Result<Exit> {
    let by = match args.by {
        FlameBy::Created => By::Created,
        FlameBy::Blocked => By::Blocked,
        FlameBy::Alive => By::Alive,
        FlameBy::Lifetime => By::Lifetime,
    };
    let mut weights = Weights::new(by);
    let replayed = output::read(&args.recording, &mut weights)?;
    let flame = Flame::new(&replayed, weights);
    // Folded stacks have no place for it, and a profile's comments are easily overlooked.
    tracing::info!("{}", flame.trust(&replayed));
    output::write(args.output.as_deref(), |mut out| match args.format {
        FlameFormat::Svg => flame.svg(&replayed, out),
        FlameFormat::Folded => flame.folded().iter().try_for_each(|line| writeln!(out, "{line}")),
        FlameFormat::Pprof => pprof::write(&flame, &replayed, &mut out),
    })?;
    Ok(Exit::FINE)
}
