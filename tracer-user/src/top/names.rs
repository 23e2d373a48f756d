//! Names of creation sites, each looked up once: sites that read alike are one.

use rustc_hash::FxHashMap;

use crate::{
    correlate::{goroutine::SiteKey, process::ImageId, replaying::Replaying},
    recording::contract::Frame,
    symbolize::{Symbolizer, UNKNOWN, is_system, label},
    timeline::human::plain,
};

/// A creation site as people read it, by order of appearance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub u32);

/// What people read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SiteName {
    pub image: ImageId,
    /// The `go` statement: `main.serve (shop/server.go:71)`; `None`: the birth was not seen.
    pub created_by: Option<String>,
    /// The start function.
    pub start: Option<String>,
    /// Go counts it among the runtime's own.
    pub system: bool,
}

impl SiteName {
    fn of(key: &SiteKey, symbols: &Symbolizer<'_>) -> Self {
        let gopc = key.gopc.filter(|pc| pc.0 != 0);
        let start = key.startpc.filter(|pc| pc.0 != 0).map(|pc| plain(&label(&symbols.entry(key.image, pc))));
        Self {
            image: key.image,
            created_by: gopc.map(|gopc| plain(&near(&symbols.go_statement(key.image, gopc)))),
            system: start.as_deref().is_some_and(is_system),
            start,
        }
    }

    /// Whether some name has not come yet.
    pub fn is_incomplete(&self) -> bool {
        [&self.created_by, &self.start].into_iter().flatten().any(|name| name.starts_with(UNKNOWN))
    }

    /// In one line.
    pub fn line(&self) -> String {
        let start = self.start.as_deref().map_or(String::new(), |start| format!(" -> {start}"));
        format!("{}{start}", self.created_by.as_deref().unwrap_or("birth not seen"))
    }
}

/// A frame with the end of its place in the source: there is not much room.
fn near(frame: &Frame) -> String {
    if frame.line == 0 {
        return label(frame);
    }
    let from = frame.file.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    format!("{} ({}:{})", label(frame), &frame.file[from..], frame.line)
}

/// All that were asked for.
#[derive(Default)]
pub struct Names {
    names: Vec<SiteName>,
    by_name: FxHashMap<SiteName, SiteId>,
    by_key: FxHashMap<SiteKey, SiteId>,
    /// Those that may get another name, and how many tables of names there were when they were looked up.
    incomplete: Vec<SiteKey>,
    tables: usize,
}

impl Names {
    /// Looks up those that are not known, and those whose names were not there yet.
    pub fn learn(&mut self, keys: impl Iterator<Item = SiteKey>, replaying: &Replaying) {
        let mut wanted: Vec<SiteKey> = keys.filter(|key| !self.by_key.contains_key(key)).collect();
        if replaying.name_tables() != self.tables {
            self.tables = replaying.name_tables();
            wanted.append(&mut self.incomplete);
        }
        if wanted.is_empty() {
            return;
        }
        let symbols = Symbolizer::so_far(replaying);
        for key in wanted {
            let name = SiteName::of(&key, &symbols);
            if name.is_incomplete() {
                self.incomplete.push(key);
            }
            let fresh = SiteId(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
            let id = *self.by_name.entry(name.clone()).or_insert(fresh);
            if id == fresh {
                self.names.push(name);
            }
            self.by_key.insert(key, id);
        }
    }

    pub fn id(&self, key: &SiteKey) -> Option<SiteId> {
        self.by_key.get(key).copied()
    }

    pub fn name(&self, id: SiteId) -> Option<&SiteName> {
        self.names.get(id.0 as usize)
    }
}
