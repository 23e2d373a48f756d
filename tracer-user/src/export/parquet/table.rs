//! A table on its way into its file: columns that say what they mean, and rows that are written in groups.

use std::{collections::BTreeMap, fs::File, io, sync::Arc};

use parquet::{
    basic::{Compression, Encoding, LogicalType, Repetition, Type as Physical, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::types::{ColumnPath, Type},
};
use rustc_hash::FxHashMap;

use super::{
    layout::{Of, ProgramId},
    names::Names,
};

/// Rows in a group, which are held in memory until they are written: as many as DuckDB puts into its own.
const GROUP_ROWS: usize = 122_880;
/// Files of one table that are open at once: who has more programs than these, and so many rows, has several files of some.
const MAX_OPEN: usize = 8;

/// What a column is read from. All are `None` for what is not known, or does not apply.
type Read<R, T> = for<'r> fn(&'r R, &'r Names<'_>) -> Option<T>;

enum Get<R> {
    /// Numbers and counts.
    BigInt(Read<R, u64>),
    Signed(Read<R, i64>),
    /// Process and thread numbers, lines, depths.
    Integer(Read<R, u32>),
    /// Nanoseconds since the recording's zero.
    Time(Read<R, u64>),
    Address(Read<R, u64>),
    Boolean(Read<R, bool>),
    Double(Read<R, f64>),
    Text(for<'r> fn(&'r R, &'r Names<'_>) -> Option<&'r str>),
}

/// A column of rows `R`.
pub(super) struct Column<R> {
    name: &'static str,
    about: &'static str,
    get: Get<R>,
    /// It has a value in every row.
    always: bool,
}

macro_rules! constructor {
    ($name:ident, $kind:ident, $value:ty) => {
        pub fn $name(name: &'static str, about: &'static str, get: Read<R, $value>) -> Self {
            Self { name, about, get: Get::$kind(get), always: false }
        }
    };
}

impl<R> Column<R> {
    constructor!(bigint, BigInt, u64);
    constructor!(signed, Signed, i64);
    constructor!(integer, Integer, u32);
    constructor!(time, Time, u64);
    constructor!(address, Address, u64);
    constructor!(boolean, Boolean, bool);
    constructor!(double, Double, f64);

    pub fn text(name: &'static str, about: &'static str, get: for<'r> fn(&'r R, &'r Names<'_>) -> Option<&'r str>) -> Self {
        Self { name, about, get: Get::Text(get), always: false }
    }

    pub fn always(self) -> Self {
        Self { always: true, ..self }
    }

    /// As SQL calls it.
    fn sql_type(&self) -> &'static str {
        match self.get {
            Get::BigInt(_) | Get::Signed(_) | Get::Time(_) => "BIGINT",
            Get::Integer(_) => "INTEGER",
            Get::Address(_) => "UBIGINT",
            Get::Boolean(_) => "BOOLEAN",
            Get::Double(_) => "DOUBLE",
            Get::Text(_) => "VARCHAR",
        }
    }

    fn schema(&self) -> Result<Type, ParquetError> {
        let (physical, logical) = match self.get {
            Get::BigInt(_) | Get::Signed(_) | Get::Time(_) => (Physical::INT64, None),
            Get::Address(_) => (Physical::INT64, Some(LogicalType::integer(64, false))),
            Get::Integer(_) => (Physical::INT32, None),
            Get::Boolean(_) => (Physical::BOOLEAN, None),
            Get::Double(_) => (Physical::DOUBLE, None),
            Get::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let repetition = if self.always { Repetition::REQUIRED } else { Repetition::OPTIONAL };
        Type::primitive_type_builder(self.name, physical).with_logical_type(logical).with_repetition(repetition).build()
    }

    fn write(&self, rows: &[R], names: &Names<'_>, out: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        match self.get {
            Get::BigInt(get) | Get::Time(get) => self.batch::<Int64Type>(rows.iter().map(|row| get(row, names).map(big)), out),
            Get::Signed(get) => self.batch::<Int64Type>(rows.iter().map(|row| get(row, names)), out),
            // The bits are those of an unsigned number.
            Get::Address(get) => self.batch::<Int64Type>(rows.iter().map(|row| get(row, names).map(u64::cast_signed)), out),
            Get::Integer(get) => self.batch::<Int32Type>(rows.iter().map(|row| get(row, names).map(small)), out),
            Get::Boolean(get) => self.batch::<BoolType>(rows.iter().map(|row| get(row, names)), out),
            Get::Double(get) => self.batch::<DoubleType>(rows.iter().map(|row| get(row, names)), out),
            Get::Text(get) => {
                let mut texts: FxHashMap<&str, ByteArray> = FxHashMap::default();
                let mut shared = |text| texts.entry(text).or_insert_with(|| ByteArray::from(text)).clone();
                self.batch::<ByteArrayType>(rows.iter().map(|row| get(row, names).map(&mut shared)), out)
            }
        }
    }

    fn batch<D: DataType>(
        &self,
        cells: impl Iterator<Item = Option<D::T>>,
        out: &mut SerializedColumnWriter<'_>,
    ) -> Result<(), ParquetError> {
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        for cell in cells {
            levels.push(i16::from(cell.is_some()));
            values.extend(cell);
        }
        if self.always && values.len() < levels.len() {
            return Err(ParquetError::General(format!("the column {} lacks a value", self.name)));
        }
        out.typed::<D>().write_batch(&values, (!self.always).then_some(&levels[..]), None)?;
        Ok(())
    }
}

fn big(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn small(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// Something a table has rows of.
pub(super) trait Row: Sized {
    const TABLE: &'static str;
    const ABOUT: &'static str;

    fn of(&self) -> Of;

    fn columns() -> Vec<Column<Self>>;
}

/// A table as the documentation shows it.
pub struct TableSchema {
    pub name: &'static str,
    pub about: &'static str,
    pub columns: Vec<ColumnSchema>,
}

pub struct ColumnSchema {
    pub name: &'static str,
    /// As SQL calls it.
    pub sql_type: &'static str,
    pub about: &'static str,
    /// `false`: it may be null.
    pub always: bool,
}

impl TableSchema {
    pub(super) fn of<R: Row>() -> Self {
        let columns = R::columns().into_iter().map(|column| ColumnSchema {
            name: column.name,
            sql_type: column.sql_type(),
            about: column.about,
            always: column.always,
        });
        Self { name: R::TABLE, about: R::ABOUT, columns: columns.collect() }
    }
}

/// A table that is being written.
pub(super) struct Table<R: Row> {
    /// Made with the first rows, or at the end.
    form: Option<Form<R>>,
    /// Rows that wait, of each program.
    heaps: BTreeMap<ProgramId, Vec<R>>,
    waiting: usize,
    /// Files that are not ended yet, in the order in which they were begun.
    open: Vec<(ProgramId, SerializedFileWriter<File>)>,
    /// How many files each program has.
    parts: BTreeMap<ProgramId, u32>,
}

/// What all files of a table share.
struct Form<R> {
    columns: Vec<Column<R>>,
    schema: Arc<Type>,
    properties: Arc<WriterProperties>,
}

impl<R: Row> Form<R> {
    fn new(names: &Names<'_>) -> Result<Self, ParquetError> {
        let of_segment = names
            .layout
            .segment()
            .map(|_| Column::<R>::text("segment", "the recording that it is of", |_, names| names.layout.segment()).always());
        let columns: Vec<_> = of_segment.into_iter().chain(R::columns()).collect();
        let fields: Result<Vec<_>, _> = columns.iter().map(|column| column.schema().map(Arc::new)).collect();
        let schema = Type::group_type_builder(R::TABLE).with_fields(fields?).build()?;
        let properties = Arc::new(properties(&columns));
        Ok(Self { columns, schema: Arc::new(schema), properties })
    }
}

impl<R: Row> Table<R> {
    pub fn new() -> Self {
        Self { form: None, heaps: BTreeMap::new(), waiting: 0, open: Vec::new(), parts: BTreeMap::new() }
    }

    pub fn push(&mut self, row: R, names: &Names<'_>) -> io::Result<()> {
        self.heaps.entry(names.program_of(row.of())).or_default().push(row);
        self.waiting += 1;
        if self.waiting < GROUP_ROWS {
            return Ok(());
        }
        let largest = self.heaps.iter().max_by_key(|(_, rows)| rows.len()).map(|(program, _)| *program);
        largest.map_or(Ok(()), |program| self.write(program, names).map_err(io))
    }

    pub fn extend(&mut self, rows: impl IntoIterator<Item = R>, names: &Names<'_>) -> io::Result<()> {
        rows.into_iter().try_for_each(|row| self.push(row, names))
    }

    /// Writes the rows of a program that wait, as a group of its file. None: a file without rows.
    fn write(&mut self, program: ProgramId, names: &Names<'_>) -> Result<(), ParquetError> {
        let rows = self.heaps.remove(&program).unwrap_or_default();
        self.waiting -= rows.len();
        let form = match &mut self.form {
            Some(form) => form,
            none => none.insert(Form::new(names)?),
        };
        let file = match self.open.iter().position(|(of, _)| *of == program) {
            Some(at) => &mut self.open[at].1,
            None => {
                if self.open.len() >= MAX_OPEN {
                    self.open.remove(0).1.close()?;
                }
                let part = self.parts.entry(program).or_default();
                let path = names.layout.place(R::TABLE, program, *part)?;
                *part += 1;
                let file =
                    SerializedFileWriter::new(File::create(path)?, Arc::clone(&form.schema), Arc::clone(&form.properties))?;
                self.open.push((program, file));
                let last = self.open.len() - 1;
                &mut self.open[last].1
            }
        };
        if rows.is_empty() {
            return Ok(());
        }
        let mut group = file.next_row_group()?;
        for column in &form.columns {
            let Some(mut out) = group.next_column()? else { break };
            column.write(&rows, names, &mut out)?;
            out.close()?;
        }
        group.close()?;
        Ok(())
    }

    /// Writes what is left, and the ends of files. A table without rows has a file as well, but in a segment.
    pub fn finish(mut self, names: &Names<'_>) -> io::Result<()> {
        if self.parts.is_empty() && self.waiting == 0 && names.layout.segment().is_none() {
            self.write(ProgramId::default(), names).map_err(io)?;
        }
        while let Some(program) = self.heaps.keys().next().copied() {
            self.write(program, names).map_err(io)?;
        }
        self.open.into_iter().try_for_each(|(_, file)| file.close().map(drop)).map_err(io)
    }
}

fn properties<R>(columns: &[Column<R>]) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("lifetrace {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // What the writer keeps of each group until the end should be little: of columns, not of their pages.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(None);
    for column in columns.iter().filter(|column| matches!(column.get, Get::Time(_))) {
        // Times ascend, nearly: what is told is by how much.
        let path = ColumnPath::from(column.name);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    properties.build()
}

/// The writer's errors are mostly those of the file.
fn io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => source.downcast().map_or_else(io::Error::other, |source| *source),
        other => io::Error::other(other),
    }
}
