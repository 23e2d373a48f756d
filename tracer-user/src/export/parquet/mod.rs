//! Tables for SQL: Parquet files, one a noun (docs/parquet.md), written in bounded memory.
//!
//! A recording is read twice. The first time teaches names: what the tracer knew of code and processes may stand behind the events that need
//! it ([`Learned`]). The second time each span and each life becomes a row as soon as it is over ([`Export`]). [`table`] knows columns, rows
//! and their files, each of the other files the rows of its noun.

use std::{io, path::Path};

use crate::{
    clock::KtimeNs,
    correlate::{
        Census, LabelsId, Life, Sink, Span, SumOfMany, TestName,
        gc::{Cycle, Pause},
        goroutine::Who,
        process::ImageId,
        replay::{Replayed, View, replay_as},
        sample::Sample,
        thread::{ThreadLife, ThreadSpan, ThreadWho},
        unit::{UnitSpan, UnitWho},
    },
    id::Goid,
    leak::tests::Tests,
    recording::{
        RecordingError,
        reader::{Recording, Source},
    },
    symbolize::Symbolizer,
    timeline::life_repaired,
};

#[cfg(test)]
mod definitions;
mod gc;
mod goroutines;
pub mod layout;
mod losses;
mod meta;
mod names;
mod processes;
mod samples;
mod snapshots;
mod spans;
mod stacks;
mod table;
mod threads;
mod units;

use gc::GcRow;
use goroutines::{GoroutineRow, Population};
use layout::{Layout, Segment};
use losses::{LossRow, SumRow};
use meta::MetaRow;
use names::Names;
use processes::{CoverageRow, ImageRow, ProcessRow};
use samples::SampleRow;
use snapshots::{LabelRow, SnapshotRow};
use spans::SpanRow;
use stacks::{FrameRow, StackRow};
pub use table::{ColumnSchema, TableSchema};
use table::{Row, Table};
use threads::{ThreadRow, ThreadSpanRow, ThreadSums};
use units::{UnitRow, UnitSpanRow};

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Recording(#[from] RecordingError),
    #[error("the recording was written to while it was read")]
    Changed,
    #[error("cannot write its tables")]
    Write(#[source] io::Error),
}

/// The tables, in the order in which the documentation shows them.
pub fn schema() -> Vec<TableSchema> {
    vec![
        TableSchema::of::<GoroutineRow>(),
        TableSchema::of::<SpanRow>(),
        TableSchema::of::<StackRow>(),
        TableSchema::of::<FrameRow>(),
        TableSchema::of::<ProcessRow>(),
        TableSchema::of::<ImageRow>(),
        TableSchema::of::<CoverageRow>(),
        TableSchema::of::<ThreadRow>(),
        TableSchema::of::<ThreadSpanRow>(),
        TableSchema::of::<SampleRow>(),
        TableSchema::of::<GcRow>(),
        TableSchema::of::<SnapshotRow>(),
        TableSchema::of::<LabelRow>(),
        TableSchema::of::<SumRow>(),
        TableSchema::of::<UnitRow>(),
        TableSchema::of::<UnitSpanRow>(),
        TableSchema::of::<LossRow>(),
        TableSchema::of::<MetaRow>(),
    ]
}

/// What a first reading told.
pub struct Learned {
    pub replayed: Replayed,
    tests: Tests,
}

impl Learned {
    /// Reads a recording to its end.
    pub fn from<R: Source + Send>(recording: Recording<R>, view: View) -> Result<Self, RecordingError> {
        let mut listener = TestListener::default();
        let replayed = replay_as(recording, view, &mut listener)?;
        Ok(Self { replayed, tests: listener.0 })
    }

    /// Reads the same recording again, and writes its tables into an empty directory.
    pub fn write<R: Source + Send>(&self, again: Recording<R>, dir: &Path) -> Result<(), ExportError> {
        self.write_as(again, Layout::plain(dir))
    }

    /// The same as a segment: below the directory, by table, its partitions, and program. Tables without rows have no files.
    pub fn write_segment<R: Source + Send>(
        &self,
        again: Recording<R>,
        dir: &Path,
        segment: Segment<'_>,
    ) -> Result<(), ExportError> {
        self.write_as(again, Layout::of_segment(dir, segment, &self.replayed))
    }

    fn write_as<R: Source + Send>(&self, again: Recording<R>, layout: Layout<'_>) -> Result<(), ExportError> {
        let symbols = Symbolizer::new(&self.replayed);
        let mut export = Export::new(Names::new(&self.replayed, &symbols, &self.tests, layout));
        replay_as(again, self.replayed.view, &mut export)?;
        export.finish()
    }
}

/// Listens for which tests ran in which goroutines.
#[derive(Default)]
struct TestListener(Tests);

impl Sink for TestListener {
    fn span(&mut self, _who: &Who, _span: &Span) {}

    fn life(&mut self, who: &Who, life: &Life) {
        self.0.life(who, life);
    }

    fn test_run(&mut self, image: ImageId, by: Option<Goid>, at: KtimeNs, name: &TestName) {
        self.0.started(image, by, at, name);
    }

    fn test_seen(&mut self, image: ImageId, goid: Goid, name: Option<&str>) {
        self.0.seen(image, goid, name);
    }
}

/// The sink of the second reading: the tables whose rows come while it goes on.
struct Export<'a> {
    names: Names<'a>,
    population: Population,
    thread_sums: ThreadSums,
    snapshots_taken: u64,
    goroutines: Table<GoroutineRow>,
    spans: Table<SpanRow>,
    threads: Table<ThreadRow>,
    thread_spans: Table<ThreadSpanRow>,
    samples: Table<SampleRow>,
    units: Table<UnitRow>,
    unit_spans: Table<UnitSpanRow>,
    snapshots: Table<SnapshotRow>,
    labels: Table<LabelRow>,
    gc: Table<GcRow>,
    sums: Table<SumRow>,
    /// The first failure: from there on nothing is written.
    failed: Option<ExportError>,
}

impl<'a> Export<'a> {
    fn new(names: Names<'a>) -> Self {
        Self {
            names,
            population: Population::default(),
            thread_sums: ThreadSums::default(),
            snapshots_taken: 0,
            goroutines: Table::new(),
            spans: Table::new(),
            threads: Table::new(),
            thread_spans: Table::new(),
            samples: Table::new(),
            units: Table::new(),
            unit_spans: Table::new(),
            snapshots: Table::new(),
            labels: Table::new(),
            gc: Table::new(),
            sums: Table::new(),
            failed: None,
        }
    }

    /// Whether rows are still written, of images that the first reading knew.
    fn goes_on(&mut self, known: bool) -> bool {
        if self.failed.is_none() && !known {
            self.failed = Some(ExportError::Changed);
        }
        self.failed.is_none()
    }

    fn goes_on_with(&mut self, image: ImageId) -> bool {
        let known = self.names.knows(image);
        self.goes_on(known)
    }

    fn goes_on_with_thread(&mut self, who: &ThreadWho) -> bool {
        let known = (who.process.0 as usize) < self.names.replayed.engine.processes().processes().len();
        self.goes_on(known)
    }

    fn keep(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            self.failed.get_or_insert(ExportError::Write(error));
        }
    }

    /// Writes what is left, and the tables that need all to be known.
    fn finish(mut self) -> Result<(), ExportError> {
        match self.failed.take() {
            Some(failed) => Err(failed),
            None => self.write_rest().map_err(ExportError::Write),
        }
    }

    fn write_rest(self) -> io::Result<()> {
        let names = &self.names;
        let replayed = names.replayed;
        whole(names, ProcessRow::all(replayed))?;
        whole(names, ImageRow::all(names))?;
        whole(names, CoverageRow::all(replayed))?;
        whole(names, LossRow::all(replayed))?;
        whole(names, [MetaRow::new(replayed)])?;
        stacks::write(Table::new(), Table::new(), names)?;
        self.goroutines.finish(names)?;
        self.spans.finish(names)?;
        self.threads.finish(names)?;
        self.thread_spans.finish(names)?;
        self.samples.finish(names)?;
        self.units.finish(names)?;
        self.unit_spans.finish(names)?;
        self.snapshots.finish(names)?;
        self.labels.finish(names)?;
        self.gc.finish(names)?;
        self.sums.finish(names)
    }
}

/// Writes a whole table.
fn whole<R: Row>(names: &Names<'_>, rows: impl IntoIterator<Item = R>) -> io::Result<()> {
    let mut table = Table::new();
    table.extend(rows, names)?;
    table.finish(names)
}

impl Sink for Export<'_> {
    fn span(&mut self, who: &Who, span: &Span) {
        if !self.goes_on_with(who.image) {
            return;
        }
        let living = self.population.of(who);
        let of_life = if living.spans == 0 { life_repaired(who) } else { None };
        let row = SpanRow::new(living.number, who, span, of_life, &mut self.names);
        living.add(&row);
        let written = self.spans.push(row, &self.names);
        self.keep(written);
    }

    fn life(&mut self, who: &Who, life: &Life) {
        if !self.goes_on_with(who.image) {
            return;
        }
        let row = GoroutineRow::new(self.population.take(who), who, life, &mut self.names);
        let written = self.goroutines.push(row, &self.names);
        self.keep(written);
    }

    fn labels(&mut self, who: &Who, at: KtimeNs, labels: LabelsId) {
        if !self.goes_on_with(who.image) {
            return;
        }
        let living = self.population.of(who);
        living.labelled |= !self.names.replayed.engine.labels().get(labels).is_empty();
        if !living.labelled {
            // That it never had any goes without saying.
            return;
        }
        let written = self.labels.extend(LabelRow::all(who.image, living.number, at, labels, &self.names), &self.names);
        self.keep(written);
    }

    fn sample(&mut self, image: ImageId, sample: &Sample) {
        if !self.goes_on_with(image) || !sample.who.is_none_or(|who| self.goes_on_with(who.image)) {
            return;
        }
        let goroutine = sample.who.map(|who| self.population.of(&who).number);
        let row = SampleRow::new(image, sample, goroutine, &mut self.names);
        let written = self.samples.push(row, &self.names);
        self.keep(written);
    }

    fn summed(&mut self, sum: &SumOfMany<'_>) {
        if !self.goes_on_with(sum.site.image) {
            return;
        }
        let row = SumRow::new(sum, &mut self.names);
        let written = self.sums.push(row, &self.names);
        self.keep(written);
    }

    fn census(&mut self, image: ImageId, census: &Census) {
        if !self.goes_on_with(image) {
            return;
        }
        let rows = SnapshotRow::all(self.snapshots_taken, image, census, &mut self.names);
        self.snapshots_taken += 1;
        let written = self.snapshots.extend(rows, &self.names);
        self.keep(written);
    }

    fn pause(&mut self, image: ImageId, pause: &Pause) {
        if self.goes_on_with(image) {
            let written = self.gc.push(GcRow::pause(image, pause), &self.names);
            self.keep(written);
        }
    }

    fn cycle(&mut self, image: ImageId, cycle: &Cycle) {
        if self.goes_on_with(image) {
            let written = self.gc.push(GcRow::cycle(image, cycle), &self.names);
            self.keep(written);
        }
    }

    fn thread_span(&mut self, who: &ThreadWho, span: &ThreadSpan) {
        if self.goes_on_with_thread(who) && self.goes_on_with(span.image) {
            self.thread_sums.add(who, span);
            let row = ThreadSpanRow::new(who, span, &mut self.names);
            let written = self.thread_spans.push(row, &self.names);
            self.keep(written);
        }
    }

    fn thread_life(&mut self, who: &ThreadWho, life: &ThreadLife) {
        if self.goes_on_with_thread(who) {
            let row = self.thread_sums.row(who, life, &self.names);
            let written = self.threads.push(row, &self.names);
            self.keep(written);
        }
    }

    fn unit_span(&mut self, who: &UnitWho, span: &UnitSpan) {
        if self.goes_on_with(who.image) {
            let written = self.unit_spans.push(UnitSpanRow::new(who, span), &self.names);
            self.keep(written);
        }
    }

    fn unit_life(&mut self, who: &UnitWho, life: &Life) {
        if self.goes_on_with(who.image) {
            let written = self.units.push(UnitRow::new(who, life), &self.names);
            self.keep(written);
        }
    }
}
