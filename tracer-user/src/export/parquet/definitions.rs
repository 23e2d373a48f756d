//! The tables of segments as engines are told of them: docs/fleet/*.sql, held against what is written.
//!
//! `LIFETRACE_UPDATE=1 cargo test -p tracer-user --lib definitions` writes these files anew.

use std::{env, fmt::Write, fs, path::Path};

use super::{TableSchema, schema};

/// Where the definitions say that segments are; whoever uses them puts his own there.
const STORE: &str = "s3://bucket/prefix";
const BELOW: &str = "date=*/node=*/program=*/*.parquet";

struct Dialect {
    file: &'static str,
    about: &'static str,
    /// Of `VARCHAR`, `BIGINT`, `INTEGER`, `UBIGINT`, `BOOLEAN`, `DOUBLE`.
    types: [&'static str; 6],
    define: fn(&Self, &TableSchema) -> String,
}

impl Dialect {
    fn named(&self, sql: &str) -> &'static str {
        let names = ["VARCHAR", "BIGINT", "INTEGER", "UBIGINT", "BOOLEAN", "DOUBLE"];
        let at = names.iter().position(|name| *name == sql);
        self.types[at.expect("a type that no dialect has")]
    }

    /// `segment`, and then the table's own.
    fn columns(&self, table: &TableSchema, one: impl Fn(&str, &'static str, bool) -> String) -> Vec<String> {
        let own = table.columns.iter().map(|column| one(column.name, self.named(column.sql_type), column.always));
        [one("segment", self.named("VARCHAR"), true)].into_iter().chain(own).collect()
    }
}

fn duckdb(_: &Dialect, table: &TableSchema) -> String {
    let name = table.name;
    format!(
        "CREATE OR REPLACE VIEW {name} AS FROM read_parquet('{STORE}/{name}/{BELOW}', union_by_name = true,\n    \
         hive_partitioning = true, hive_types = {{'date': DATE, 'node': VARCHAR, 'program': VARCHAR}});\n"
    )
}

fn clickhouse(dialect: &Dialect, table: &TableSchema) -> String {
    let name = table.name;
    let columns = dialect.columns(
        table,
        |name, kind, always| {
            if always { format!("{name} {kind}") } else { format!("{name} Nullable({kind})") }
        },
    );
    format!(
        "CREATE OR REPLACE VIEW {name} AS SELECT * REPLACE (decodeURLComponent(program) AS program)\n\
         FROM s3('https://bucket.s3.amazonaws.com/prefix/{name}/{BELOW}', 'Parquet',\n    \
         '{}, date Date, node String, program String');\n",
        columns.join(", ")
    )
}

fn spark(dialect: &Dialect, table: &TableSchema) -> String {
    let name = table.name;
    let columns = dialect.columns(table, |name, kind, _| format!("{name} {kind}")).join(", ");
    format!(
        "CREATE TABLE {name} ({columns}, date DATE, node STRING, program STRING)\n\
         USING parquet PARTITIONED BY (date, node, program) LOCATION '{STORE}/{name}';\nMSCK REPAIR TABLE {name};\n"
    )
}

fn trino(dialect: &Dialect, table: &TableSchema) -> String {
    let name = table.name;
    let columns = dialect.columns(table, |name, kind, _| format!("{name} {kind}")).join(", ");
    format!(
        "CREATE TABLE {name} ({columns}, date DATE, node VARCHAR, program VARCHAR)\n\
         WITH (format = 'PARQUET', external_location = '{STORE}/{name}', partitioned_by = ARRAY['date', 'node', 'program']);\n\
         CALL system.sync_partition_metadata(CURRENT_SCHEMA, '{name}', 'ADD');\n"
    )
}

const DIALECTS: [Dialect; 4] = [
    Dialect {
        file: "duckdb.sql",
        about: "DuckDB. A table of which nobody has rows yet has no files, and its view cannot be made: that is no error of the others.",
        types: ["VARCHAR", "BIGINT", "INTEGER", "UBIGINT", "BOOLEAN", "DOUBLE"],
        define: duckdb,
    },
    Dialect {
        file: "clickhouse.sql",
        about: "ClickHouse, from 25.1 on. For a folder that the server sees: file('PATH/…', in place of s3('https://…/prefix/….",
        types: ["String", "Int64", "Int32", "UInt64", "Bool", "Float64"],
        define: clickhouse,
    },
    Dialect {
        file: "spark.sql",
        about: "Spark SQL. New partitions: MSCK REPAIR TABLE again.",
        types: ["STRING", "BIGINT", "INT", "DECIMAL(20, 0)", "BOOLEAN", "DOUBLE"],
        define: spark,
    },
    Dialect {
        file: "trino.sql",
        about: "Trino, Hive connector. New partitions: sync_partition_metadata again. Addresses are read as signed numbers.",
        types: ["VARCHAR", "BIGINT", "INTEGER", "BIGINT", "BOOLEAN", "DOUBLE"],
        define: trino,
    },
];

/// Check that docs/fleet/*.sql name every table and column that segments have, with its type.
#[test]
fn are_those_of_the_tables() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("fleet");
    for dialect in DIALECTS {
        let mut text =
            format!("-- {}\n-- Made of what is written (docs/fleet.md): put your own place for {STORE}.\n", dialect.about);
        for table in schema() {
            let _ = write!(text, "\n{}", (dialect.define)(&dialect, &table));
        }
        let file = folder.join(dialect.file);
        if env::var_os("LIFETRACE_UPDATE").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &text).unwrap();
        }
        let found = fs::read_to_string(&file).unwrap_or_default();
        assert!(found == text, "{} is not what the tables are: LIFETRACE_UPDATE=1 writes it anew", file.display());
    }
}
