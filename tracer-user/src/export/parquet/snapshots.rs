//! What readings of processes' memory counted, by creation site, and the labels that looks saw.

use super::{
    layout::Of,
    names::{Names, SiteId},
    stacks::line,
    table::{Column, Row},
};
use crate::{
    clock::KtimeNs,
    correlate::{Census, CensusSite, LabelsId, process::ImageId},
};

/// Goroutines of one creation site, at one look.
pub(super) struct SnapshotRow {
    snapshot: u64,
    image: ImageId,
    from: KtimeNs,
    to: KtimeNs,
    torn: u64,
    /// `None`: nobody lived.
    site: Option<SiteId>,
    of_site: CensusSite,
}

impl SnapshotRow {
    /// The rows of a look: one a site, by address.
    pub fn all(snapshot: u64, image: ImageId, census: &Census, names: &mut Names<'_>) -> Vec<Self> {
        let row = |site, of_site| Self { snapshot, image, from: census.from, to: census.to, torn: census.torn, site, of_site };
        if census.sites.is_empty() {
            return vec![row(None, CensusSite::default())];
        }
        let mut sites: Vec<_> = census.sites.iter().collect();
        sites.sort_unstable_by_key(|(addresses, _)| **addresses);
        sites.into_iter().map(|(addresses, of_site)| row(Some(names.site_of(image, *addresses)), *of_site)).collect()
    }
}

impl Row for SnapshotRow {
    const TABLE: &'static str = "snapshots";
    const ABOUT: &'static str = "What each reading of a process's memory counted, a row a creation site (docs/snapshots.md).";

    fn of(&self) -> Of {
        Of::Image(self.image)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::bigint("snapshot", "the look, by order of time", |row, _| Some(row.snapshot)).always(),
            Column::<Self>::integer("image", "in `images`", |row, _| Some(row.image.0)).always(),
            Column::<Self>::integer("tgid", "", |row, names| Some(names.image(row.image).tgid)).always(),
            Column::<Self>::time("from_ns", "when the reading began", |row, names| Some(names.since_zero(row.from))).always(),
            Column::<Self>::time("to_ns", "and ended", |row, names| Some(names.since_zero(row.to))).always(),
            Column::<Self>::bigint("torn", "of the whole look: goroutines that kept changing", |row, _| Some(row.torn)).always(),
            Column::<Self>::text("created_function", "where the `go` statement is", |row, names| {
                names.site(row.site?).created_by.as_ref().map(|frame| frame.function.as_str())
            }),
            Column::<Self>::text("created_file", "", |row, names| {
                names.site(row.site?).created_by.as_ref().map(|frame| frame.file.as_str())
            }),
            Column::<Self>::integer("created_line", "", |row, names| names.site(row.site?).created_by.as_ref().and_then(line)),
            Column::<Self>::text("start_function", "", |row, names| names.site(row.site?).start_function.as_deref()),
            Column::<Self>::boolean("system", "the runtime's own", |row, names| Some(names.site(row.site?).system)),
            Column::<Self>::bigint("goroutines", "", |row, _| Some(row.of_site.goroutines)).always(),
            Column::<Self>::bigint("stack_bytes", "set aside for their stacks; null: that was not read", |row, _| {
                (row.of_site.stacks_unknown < row.of_site.goroutines).then_some(row.of_site.stack_bytes)
            }),
            Column::<Self>::bigint("stacks_unknown", "of how many that is not known", |row, _| Some(row.of_site.stacks_unknown))
                .always(),
        ]
    }
}

/// A label that a look found on a goroutine.
pub(super) struct LabelRow {
    image: ImageId,
    goroutine: u64,
    at: KtimeNs,
    labels: LabelsId,
    /// Which one of them; `None`: it has none any more.
    index: Option<usize>,
}

impl LabelRow {
    /// One for each label of a set; one for a set that is empty.
    pub fn all(
        image: ImageId,
        goroutine: u64,
        at: KtimeNs,
        labels: LabelsId,
        names: &Names<'_>,
    ) -> impl Iterator<Item = Self> + use<> {
        let count = names.replayed.engine.labels().get(labels).len();
        let row = move |index| Self { image, goroutine, at, labels, index };
        (count == 0).then(|| row(None)).into_iter().chain((0..count).map(move |index| row(Some(index))))
    }

    fn label<'n>(&self, names: &'n Names<'_>) -> Option<&'n (String, String)> {
        names.replayed.engine.labels().get(self.labels).get(self.index?)
    }
}

impl Row for LabelRow {
    const TABLE: &'static str = "labels";
    const ABOUT: &'static str = "Labels of goroutines (`runtime/pprof`), whenever a snapshot found others than before.";

    fn of(&self) -> Of {
        Of::Image(self.image)
    }

    fn columns() -> Vec<Column<Self>> {
        vec![
            Column::<Self>::bigint("goroutine", "in `goroutines`", |row, _| Some(row.goroutine)).always(),
            Column::<Self>::time("at_ns", "when they were seen: they hold until the next", |row, names| {
                Some(names.since_zero(row.at))
            })
            .always(),
            Column::<Self>::text("key", "null, as the value: it was seen without any more", |row, names| {
                row.label(names).map(|(key, _)| key.as_str())
            }),
            Column::<Self>::text("value", "", |row, names| row.label(names).map(|(_, value)| value.as_str())),
        ]
    }
}
