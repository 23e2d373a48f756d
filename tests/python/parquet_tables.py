"""Asks an export the questions of docs/parquet.md with DuckDB (PyPI's package `duckdb`), and says what it answered.

Usage: parquet_tables.py DIR DOC. Checked here: DIR holds the tables that DOC describes and no others, each with the columns and types that
stand there, texts are dictionary-encoded, and what one table calls by number another has. Prints one object: `answers` by question, a list of
rows each, and `system`, the goids of the runtime's own goroutines by tgid.
"""

import json
import pathlib
import re
import sys

import duckdb

# Every number of a row on the left is one on the right.
REFERENCES = [
    ("spans.goroutine", "goroutines.goroutine"),
    ("labels.goroutine", "goroutines.goroutine"),
    ("goroutines.process", "processes.process"),
    ("goroutines.image", "images.image"),
    ("images.process", "processes.process"),
    ("coverage.image", "images.image"),
    ("spans.stack_id", "stacks.stack_id"),
    ("goroutines.creation_stack_id", "stacks.stack_id"),
    ("goroutines.last_stack_id", "stacks.stack_id"),
    ("thread_spans.stack_id", "stacks.stack_id"),
    ("thread_spans.thread", "threads.thread"),
    ("threads.process", "processes.process"),
    ("stacks.frame_id", "frames.frame_id"),
    ("gc.process", "processes.process"),
    ("snapshots.image", "images.image"),
    ("samples.image", "images.image"),
    ("samples.goroutine", "goroutines.goroutine"),
    ("samples.stack_id", "stacks.stack_id"),
]
NUMBERS = ["goroutines.goroutine", "threads.thread", "processes.process", "images.image", "frames.frame_id", "units.unit"]


def described(text):
    """The tables of the page: columns with their types, and whether these may be null."""
    tables = {}
    for part in text.split("\n## The tables\n")[1].split("\n### ")[1:]:
        name = part.split("\n", 1)[0].strip("`")
        rows = re.findall(r"^\| `(\w+)` \| `(\w+)`( or null)? \|", part, re.M)
        tables[name] = [(column, kind, bool(null)) for column, kind, null in rows]
    return tables


def questions(text):
    return re.findall(r"^### ([^\n]+)\n```sql\n(.+?);\n```", text, re.M | re.S)


def check(base, folder, tables):
    assert {file.stem for file in folder.iterdir()} == tables.keys(), sorted(folder.iterdir())
    for name, columns in tables.items():
        file = folder / f"{name}.parquet"
        base.execute(f"CREATE VIEW {name} AS FROM '{file}'")
        found = [row[:2] for row in base.execute(f"DESCRIBE {name}").fetchall()]
        assert found == [(column, kind) for column, kind, _ in columns], f"{name}: {found}"
        schema = base.execute(f"SELECT name, repetition_type FROM parquet_schema('{file}')").fetchall()[1:]
        assert schema == [(column, "OPTIONAL" if null else "REQUIRED") for column, _, null in columns], f"{name}: {schema}"
    for left, right in REFERENCES:
        (a, x), (b, y) = left.split("."), right.split(".")
        strays = base.execute(f"SELECT count(*) FROM {a} WHERE {x} IS NOT NULL AND {x} NOT IN (SELECT {y} FROM {b})").fetchone()
        assert strays == (0,), f"{strays} rows of {left} have none in {right}"
    for number in NUMBERS:
        table, column = number.split(".")
        counts = base.execute(f"SELECT count(*), count(DISTINCT {column}) FROM {table}").fetchone()
        assert counts[0] == counts[1], f"{number}: {counts}"
    encodings = base.execute(
        f"SELECT path_in_schema, encodings, compression FROM parquet_metadata(['{folder}/spans.parquet', '{folder}/samples.parquet'])"
        " WHERE path_in_schema IN ('state', 'reason', 'start_ns', 'runner', 'at_ns')"
    ).fetchall()
    assert encodings
    for column, encoding, compression in encodings:
        wanted = "DELTA_BINARY_PACKED" if column.endswith("_ns") else "DICTIONARY"
        assert wanted in encoding and compression == "ZSTD", (column, encoding, compression)


def main(folder, page):
    text = pathlib.Path(page).read_text()
    base = duckdb.connect()
    check(base, pathlib.Path(folder), described(text))
    answers = {}
    for question, sql in questions(text):
        found = base.execute(sql)
        names = [column[0] for column in found.description]
        answers[question] = [dict(zip(names, row)) for row in found.fetchall()]
    system = base.execute("SELECT tgid, goid FROM goroutines WHERE system").fetchall()
    print(json.dumps({"answers": answers, "system": system}))


main(sys.argv[1], sys.argv[2])
