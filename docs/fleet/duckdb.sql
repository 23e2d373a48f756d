-- DuckDB. A table of which nobody has rows yet has no files, and its view cannot be made: that is no error of the others.
-- Made of what is written (docs/fleet.md): put your own place for s3://bucket/prefix.

CREATE OR REPLACE VIEW goroutines AS FROM read_parquet('s3://bucket/prefix/goroutines/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW spans AS FROM read_parquet('s3://bucket/prefix/spans/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW stacks AS FROM read_parquet('s3://bucket/prefix/stacks/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW frames AS FROM read_parquet('s3://bucket/prefix/frames/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW processes AS FROM read_parquet('s3://bucket/prefix/processes/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW images AS FROM read_parquet('s3://bucket/prefix/images/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW coverage AS FROM read_parquet('s3://bucket/prefix/coverage/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW threads AS FROM read_parquet('s3://bucket/prefix/threads/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW thread_spans AS FROM read_parquet('s3://bucket/prefix/thread_spans/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW samples AS FROM read_parquet('s3://bucket/prefix/samples/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW gc AS FROM read_parquet('s3://bucket/prefix/gc/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW snapshots AS FROM read_parquet('s3://bucket/prefix/snapshots/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW labels AS FROM read_parquet('s3://bucket/prefix/labels/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW sums AS FROM read_parquet('s3://bucket/prefix/sums/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW units AS FROM read_parquet('s3://bucket/prefix/units/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW unit_spans AS FROM read_parquet('s3://bucket/prefix/unit_spans/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW losses AS FROM read_parquet('s3://bucket/prefix/losses/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});

CREATE OR REPLACE VIEW meta AS FROM read_parquet('s3://bucket/prefix/meta/date=*/node=*/program=*/*.parquet', union_by_name = true,
    hive_partitioning = true, hive_types = {'date': DATE, 'node': VARCHAR, 'program': VARCHAR});
