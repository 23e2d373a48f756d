//! Where USDT probes are that a program will run over, or a process can.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use rustc_hash::FxHashSet;

use super::{blocks::Parts, libraries::Root, mappings};
use crate::{
    id::Tgid,
    usdt::{UsdtError, UsdtObject},
};

/// Libraries that are looked at for one program.
const MAX_LIBRARIES: usize = 256;
/// Where the virtual machine of `bin/java` is, beside `bin`: it is loaded by name, not needed.
const JVM: [&str; 2] = ["lib/server/libjvm.so", "jre/lib/amd64/server/libjvm.so"];

/// A file to be looked at for probes.
pub struct Place {
    pub file: File,
    /// As its process sees it.
    pub path: PathBuf,
}

/// Reads the probes of a file; of a large one, little is read.
pub fn read(file: &File) -> Result<UsdtObject, UsdtError> {
    UsdtObject::read(&Parts::of(file))
}

/// A program, the libraries that its loader will load with it, and for `java` its virtual machine.
pub fn of_program(root: &Root, program: Place) -> Vec<Place> {
    let mut seen: FxHashSet<String> = FxHashSet::default();
    let jvm = program.path.file_name().is_some_and(|name| name == "java").then(|| {
        let folder = program.path.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
        JVM.iter().find_map(|jvm| {
            let path = folder.join(jvm);
            root.open(&path).ok().map(|file| Place { file, path })
        })
    });
    let mut waiting = VecDeque::from([program]);
    waiting.extend(jvm.flatten());
    let mut places = Vec::new();
    while let Some(place) = waiting.pop_front() {
        if let Ok(object) = read(&place.file) {
            for name in object.needed {
                if seen.len() >= MAX_LIBRARIES || !seen.insert(name.clone()) {
                    continue;
                }
                let found = root.library(&name, &place.path, &object.search);
                waiting.extend(found.map(|(file, path)| Place { file, path }));
            }
        }
        places.push(place);
    }
    places
}

/// The files that a process has mapped to execute.
pub fn of_process(tgid: Tgid) -> io::Result<Vec<Place>> {
    let files = mappings::of(tgid)?.into_iter();
    Ok(files.filter_map(|mapped| Some(Place { file: mapped.open(tgid).ok()?, path: mapped.path.into() })).collect())
}
