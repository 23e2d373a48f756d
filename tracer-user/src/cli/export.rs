//! `lifetrace export`.

#[cfg(not(feature = "parquet"))]
use anyhow::anyhow;

use super::{
    Failure,
    args::{ExportArgs, Global},
};

#[cfg(not(feature = "parquet"))]
pub fn main(_args: &ExportArgs, _global: Global) -> Result<(), Failure> {
    Err(Failure::environment(anyhow!("this lifetrace was built without Parquet (feature `parquet`)")))
}

#[cfg(feature = "parquet")]
pub fn main(args: &ExportArgs, global: Global) -> Result<(), Failure> {
    tables::export(args, global)
}

#[cfg(feature = "parquet")]
mod tables {
    use std::{
        fs::{self, File},
        io::{self, BufReader, Read, Seek},
        os::unix::fs::PermissionsExt,
        path::Path,
    };

    use anyhow::{Context, anyhow};

    use super::{ExportArgs, Failure, Global};
    use crate::{
        cli::{progress::Progress, say_what_lacks},
        export::parquet::{ExportError, Learned, schema},
        recording::{RecordingError, place::Place, reader::Recording},
    };

    pub fn export(args: &ExportArgs, global: Global) -> Result<(), Failure> {
        let mut twice = Twice::open(&args.recording)?;
        let target = Target::at(&args.output)?;
        let shown = args.recording.display();
        let reading = Progress::of_reading(&twice.file, format!("reading names in {shown}"), global);
        let learned = Learned::from(twice.recording()?, args.view.view()).map_err(Failure::usage)?;
        drop(reading);
        say_what_lacks(&learned.replayed, global);
        let _writing = Progress::of_reading(&twice.file, format!("writing tables of {shown}"), global);
        let again = twice.recording()?;
        target.fill(|dir| learned.write(again, dir)).map_err(|error| failure(&args.output, error))
    }

    /// A recording that can be read again: what was in its file at first, and not what a tracer adds meanwhile.
    struct Twice<'a> {
        path: &'a Path,
        file: File,
        len: u64,
    }

    impl<'a> Twice<'a> {
        fn open(path: &'a Path) -> Result<Self, Failure> {
            let io = |source| Failure::usage(RecordingError::Io { path: path.into(), source });
            let file = File::open(path).map_err(io)?;
            let metadata = file.metadata().map_err(io)?;
            if !metadata.is_file() {
                return Err(Failure::usage(anyhow!("{} is no file: a recording is read twice for its tables", path.display())));
            }
            Ok(Self { path, file, len: metadata.len() })
        }

        fn recording(&mut self) -> Result<Recording<BufReader<io::Take<File>>>, Failure> {
            let io = |source| Failure::usage(RecordingError::Io { path: self.path.into(), source });
            self.file.rewind().map_err(io)?;
            let file = self.file.try_clone().map_err(io)?;
            let input = BufReader::with_capacity(1 << 20, file.take(self.len));
            Recording::from_reader(input, self.path).map_err(Failure::usage)
        }
    }

    /// Where the tables go: a directory that appears whole or not at all.
    struct Target {
        place: Place,
        /// It holds an export, or nothing.
        replaces: bool,
    }

    impl Target {
        /// Refuses one that holds anything but an export.
        fn at(dir: &Path) -> Result<Self, Failure> {
            // Through a link, the directory it names is replaced, not the link.
            let place = Place::behind(dir).with_context(|| format!("cannot write {}", dir.display())).map_err(Failure::usage)?;
            let replaces = holds_an_export(&place.path(), dir)?;
            Ok(Self { place, replaces })
        }

        /// Has the tables written beside it, and puts them in its place.
        fn fill(&self, write: impl FnOnce(&Path) -> Result<(), ExportError>) -> Result<(), ExportError> {
            let (dir, beside) = (self.place.path(), self.place.folder());
            let folder = |name: &str| {
                let mode = fs::Permissions::from_mode(0o700);
                tempfile::Builder::new().prefix(name).permissions(mode).tempdir_in(&beside).map_err(ExportError::Write)
            };
            let fresh = folder(".lifetrace-")?;
            write(fresh.path())?;
            // Reading took its time: what somebody has put there meanwhile is not ours to remove.
            let still = holds_an_export(&dir, &dir).is_ok_and(|now| now == self.replaces);
            if !still {
                return Err(ExportError::Write(io::Error::other("something else is there by now")));
            }
            let old = if self.replaces { Some(folder(".lifetrace-old-")?) } else { None };
            if let Some(old) = &old {
                fs::rename(&dir, old.path()).map_err(ExportError::Write)?;
            }
            if let Err(error) = fs::rename(fresh.path(), &dir) {
                if let Some(old) = &old {
                    // As it was; the failure that matters is the one above.
                    let _ = fs::rename(old.path(), &dir);
                }
                return Err(ExportError::Write(error));
            }
            // What it was called is gone: nothing is left to remove.
            let _ = fresh.keep();
            Ok(())
        }
    }

    /// Whether a directory is there. One that holds anything but an export is an error.
    fn holds_an_export(dir: &Path, shown: &Path) -> Result<bool, Failure> {
        let shown = shown.display();
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            entries => entries.with_context(|| format!("cannot write {shown}")).map_err(Failure::usage)?,
        };
        let ours: Vec<String> = schema().iter().map(|table| format!("{}.parquet", table.name)).collect();
        for entry in entries {
            let name = entry.map_err(Failure::environment)?.file_name();
            if !ours.iter().any(|own| name == own.as_str()) {
                let what = anyhow!("{shown} holds other things than an export ({})", name.display());
                return Err(Failure::usage(what.context("will not replace it: name an empty or a new directory")));
            }
        }
        Ok(true)
    }

    fn failure(dir: &Path, error: ExportError) -> Failure {
        match error {
            ExportError::Recording(_) | ExportError::Changed => Failure::usage(error),
            ExportError::Write(error) => {
                // A path that leads nowhere is a slip of the caller's; a full disk is not.
                let slip = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
                let error = anyhow::Error::from(error).context(format!("cannot write {}", dir.display()));
                if slip { Failure::usage(error) } else { Failure::environment(error) }
            }
        }
    }
}
