//! What stays of the segments in a folder: the newest, up to an amount or an age. Only those of this node are looked at.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::settings::Keep;

/// Of a segment of ours.
#[derive(Default)]
struct Found {
    bytes: u64,
    newest: Option<SystemTime>,
    files: Vec<PathBuf>,
}

/// Removes the oldest segments until what is left may stay: their `meta` first, so that nobody takes a half for a whole.
pub fn apply(store: &Path, node: &str, keep: Keep) -> io::Result<()> {
    if keep == Keep::default() {
        return Ok(());
    }
    // Names begin with the time.
    let segments = segments(store, node)?;
    let mut bytes: u64 = segments.values().map(|segment| segment.bytes).sum();
    for segment in segments.into_values() {
        let age = segment.newest.and_then(|newest| newest.elapsed().ok()).unwrap_or_default();
        let stays = keep.bytes.is_none_or(|most| bytes <= most) && keep.time.is_none_or(|most| age <= most);
        if stays {
            break;
        }
        bytes -= segment.bytes;
        let is_meta = |path: &Path| path.strip_prefix(store).is_ok_and(|path| path.starts_with("meta"));
        let (first, then): (Vec<_>, Vec<_>) = segment.files.into_iter().partition(|path| is_meta(path));
        first.iter().chain(&then).try_for_each(|file| remove(file, store))?;
    }
    Ok(())
}

/// Removes a file, and the partitions that are empty then.
fn remove(file: &Path, store: &Path) -> io::Result<()> {
    fs::remove_file(file)?;
    let folders = file.ancestors().skip(1).take_while(|folder| *folder != store);
    // One that is not empty stays, and so do those above it.
    let _ = folders.map(fs::remove_dir).take_while(Result::is_ok).count();
    Ok(())
}

/// Those of a node: `TABLE/date=…/node=NODE/program=…/SEGMENT[-PART].parquet`. Links are followed nowhere.
fn segments(store: &Path, node: &str) -> io::Result<BTreeMap<String, Found>> {
    let mut segments: BTreeMap<String, Found> = BTreeMap::new();
    let own = format!("node={node}");
    for table in folders(store, |_| true)? {
        for date in folders(&table, |name| name.starts_with("date="))? {
            for node in folders(&date, |name| name == own)? {
                for program in folders(&node, |name| name.starts_with("program="))? {
                    files(&program, &mut segments)?;
                }
            }
        }
    }
    Ok(segments)
}

fn folders(path: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name().to_str().is_some_and(&wanted) {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

fn files(folder: &Path, segments: &mut BTreeMap<String, Found>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".parquet")) else { continue };
        let metadata = entry.metadata()?;
        if !metadata.is_file() {
            continue;
        }
        let found = segments.entry(of_part(name).to_owned()).or_default();
        found.bytes += metadata.len();
        found.newest = found.newest.max(metadata.modified().ok());
        found.files.push(entry.path());
    }
    Ok(())
}

/// The segment that a file is of: `20261129T201524.123Z-3f9a1c22-2` is a second part.
fn of_part(name: &str) -> &str {
    match name.match_indices('-').nth(1) {
        Some((at, _)) => &name[..at],
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const OLD: &str = "20261128T000000.000Z-aaaaaaaa";
    const NEW: &str = "20261129T000000.000Z-aaaaaaaa";

    fn put(store: &Path, table: &str, node: &str, file: &str, bytes: usize) -> PathBuf {
        let folder = store.join(format!("{table}/date=2026-11-29/node={node}/program=_"));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{file}.parquet"));
        fs::write(&file, vec![0; bytes]).unwrap();
        file
    }

    /// Check that the oldest segments go, whole, once there is too much, and that nobody else's do.
    #[test]
    fn by_size() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path();
        let old = [
            put(store, "spans", "n1", OLD, 60),
            put(store, "spans", "n1", &format!("{OLD}-2"), 20),
            put(store, "gc", "n1", OLD, 10),
        ];
        let stays = [put(store, "spans", "n1", NEW, 50), put(store, "meta", "n2", OLD, 500), store.join("mine.parquet")];
        fs::write(&stays[2], "precious").unwrap();
        apply(store, "n1", Keep { bytes: Some(140), time: None }).unwrap();
        assert!(old.iter().all(|file| file.exists()));
        apply(store, "n1", Keep { bytes: Some(139), time: None }).unwrap();
        assert!(old.iter().all(|file| !file.exists()) && stays.iter().all(|file| file.exists()));
        assert!(!store.join("gc").exists(), "an empty partition stays");
    }

    /// Check that age alone has them go as well.
    #[test]
    fn by_age() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (put(dir.path(), "meta", "n1", OLD, 1), put(dir.path(), "meta", "n1", NEW, 1));
        let then = SystemTime::now() - Duration::from_secs(7200);
        fs::File::options().write(true).open(&old).unwrap().set_modified(then).unwrap();
        apply(dir.path(), "n1", Keep { bytes: None, time: Some(Duration::from_secs(3600)) }).unwrap();
        assert!(!old.exists() && new.exists());
    }
}
