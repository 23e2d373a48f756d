"""Asks segments the questions of docs/fleet.md, with DuckDB or with ClickHouse (PyPI's packages `duckdb` and `chdb-core`).

Usage: fleet.py ENGINE DOCS STORE [ENDPOINT KEY SECRET]. ENGINE is `duckdb` or `chdb`; STORE is a folder, or with an endpoint a bucket and a
path in it (ClickHouse alone). Tables are defined as DOCS/fleet/*.sql has it, with the place put in. Prints one object: rows by question.
"""

import json
import pathlib
import re
import sys


def questions(docs):
    return re.findall(r"^### ([^\n]+)\n(?:[^`#][^\n]*\n)*```sql\n(.+?);\n```", (docs / "fleet.md").read_text(), re.M | re.S)


def statements(file):
    text = re.sub(r"^--[^\n]*\n", "", file.read_text(), flags=re.M)
    return [part.strip() for part in text.split(";\n") if part.strip()]


def ask_duckdb(docs, store):
    import duckdb

    base = duckdb.connect()
    for statement in statements(docs / "fleet" / "duckdb.sql"):
        table = re.match(r"CREATE OR REPLACE VIEW (\w+)", statement)[1]
        # Of which nobody has rows there are no files.
        if (pathlib.Path(store) / table).is_dir():
            base.execute(statement.replace("s3://bucket/prefix", store))

    def rows(sql):
        found = base.execute(sql)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row)) for row in found.fetchall()]

    return rows


def ask_chdb(docs, store, endpoint=None, key=None, secret=None):
    from chdb import session

    base = session.Session()
    for statement in statements(docs / "fleet" / "clickhouse.sql"):
        usual = "s3('https://bucket.s3.amazonaws.com/prefix/"
        assert usual in statement, statement
        if endpoint:
            statement = re.sub(re.escape(usual) + r"([^']+)'", rf"s3('{endpoint}/{store}/\1', '{key}', '{secret}'", statement)
        else:
            statement = statement.replace(usual, f"file('{store}/")
        base.query(statement)

    def rows(sql):
        found = str(base.query(sql, "JSONEachRow"))
        return [json.loads(line) for line in found.splitlines() if line]

    return rows


def main(engine, docs, *where):
    docs = pathlib.Path(docs)
    rows = {"duckdb": ask_duckdb, "chdb": ask_chdb}[engine](docs, *where)
    found = questions(docs)
    assert len(found) == 4, [name for name, _ in found]
    print(json.dumps({name: rows(sql) for name, sql in found}))


main(*sys.argv[1:])
