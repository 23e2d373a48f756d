//! What stays of the recordings in a folder: the newest.

use std::{fs, io, path::Path, time::SystemTime};

use crate::agent::{flight::PART, folder::Folder};

/// What recordings are called at their end.
pub const ENDING: &str = "lifetrace";

/// Removes the oldest recordings until no more than so many bytes are left, and what became none; how many recordings went.
pub fn thin(folder: &Folder, bytes: u64) -> io::Result<usize> {
    // One is written at a time, and this comes before it.
    let is_part = |name: &str| Path::new(name).extension().is_some_and(|ending| ending == PART);
    for (name, _) in folder.files()?.into_iter().filter(|(name, _)| is_part(name)) {
        folder.remove(&name)?;
    }
    let mut all: Vec<(SystemTime, u64, String)> = Vec::new();
    let is_ours = |name: &str| Path::new(name).extension().is_some_and(|ending| ending == ENDING);
    for (name, len) in folder.files()?.into_iter().filter(|(name, _)| is_ours(name)) {
        let modified = fs::symlink_metadata(folder.path(&name)).and_then(|meta| meta.modified());
        all.push((modified.unwrap_or(SystemTime::UNIX_EPOCH), len, name));
    }
    all.sort_unstable();
    let mut left: u64 = all.iter().map(|(_, len, _)| len).sum();
    let mut gone = 0;
    for (_, len, name) in all {
        if left <= bytes {
            break;
        }
        match folder.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        left -= len;
        gone += 1;
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the oldest go first, and nothing that is no recording.
    #[test]
    fn thinned() {
        let dir = tempfile::tempdir().unwrap();
        for (age, name) in [(3, "a.lifetrace"), (2, "b.lifetrace"), (1, "c.lifetrace"), (9, "notes.txt"), (9, "d.part")] {
            let path = dir.path().join(name);
            fs::write(&path, [0; 100]).unwrap();
            let time = SystemTime::now() - std::time::Duration::from_secs(age * 1000);
            fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(thin(&folder, 250).unwrap(), 1);
        assert_eq!(thin(&folder, 0).unwrap(), 2);
        assert!(dir.path().join("notes.txt").exists() && !dir.path().join("d.part").exists());
    }
}
