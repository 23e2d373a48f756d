//! Where results go: standard output, or a file that is whole or not there at all.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use super::exit::CliError;
use crate::{
    correlate::{
        Sink,
        replay::{Replayed, replay},
    },
    recording::reader::Recording,
};

/// Replays the recording at `path` into `sink`.
pub fn read(path: &Path, sink: &mut impl Sink) -> Result<Replayed> {
    let replayed = Recording::open(path).and_then(|recording| replay(recording, sink));
    let replayed = replayed.map_err(CliError::bad_input)?;
    if !matches!(replayed.completeness, crate::recording::Completeness::Complete) {
        tracing::warn!("{}: {}", path.display(), replayed.trust());
    }
    Ok(replayed)
}

/// Lets `body` write to `file`, or to standard output. A file appears only when it is complete.
pub fn write(file: Option<&Path>, body: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let Some(file) = file else {
        let mut out = BufWriter::new(io::stdout().lock());
        body(&mut out)?;
        return Ok(out.flush()?);
    };
    let named = || format!("cannot write {}", file.display());
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = NamedTempFile::new_in(dir).with_context(named).map_err(CliError::bad_input)?;
    let mut out = BufWriter::new(&mut temporary);
    body(&mut out).and_then(|()| out.flush()).with_context(named)?;
    drop(out);
    temporary.persist(file).map_err(|error| error.error).with_context(named).map_err(CliError::bad_input)?;
    Ok(())
}
