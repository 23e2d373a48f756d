-- Trino, Hive connector. New partitions: sync_partition_metadata again. Addresses are read as signed numbers.
-- Made of what is written (docs/fleet.md): put your own place for s3://bucket/prefix.

CREATE TABLE goroutines (segment VARCHAR, goroutine BIGINT, process INTEGER, image INTEGER, tgid INTEGER, goid BIGINT, parent_goid BIGINT, created_function VARCHAR, created_file VARCHAR, created_line INTEGER, start_function VARCHAR, system BOOLEAN, depth INTEGER, creation_stack_id BIGINT, test VARCHAR, born_at_ns BIGINT, born_by_ns BIGINT, first_seen_ns BIGINT, ended_at_ns BIGINT, ended VARCHAR, alive BOOLEAN, unconfirmed BOOLEAN, last_known_ns BIGINT, spans BIGINT, waits BIGINT, blocked_ns BIGINT, longest_wait_ns BIGINT, runnable_ns BIGINT, running_ns BIGINT, syscall_ns BIGINT, awake_ns BIGINT, unknown_ns BIGINT, last_state VARCHAR, last_reason VARCHAR, last_since_ns BIGINT, last_stack_id BIGINT, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/goroutines', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'goroutines', 'ADD');

CREATE TABLE spans (segment VARCHAR, goroutine BIGINT, tgid INTEGER, goid BIGINT, state VARCHAR, start_ns BIGINT, end_ns BIGINT, reason VARCHAR, stack_id BIGINT, woken_by VARCHAR, woken_by_goid BIGINT, tid INTEGER, object BIGINT, repaired VARCHAR, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/spans', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'spans', 'ADD');

CREATE TABLE stacks (segment VARCHAR, stack_id BIGINT, position INTEGER, frame_id BIGINT, truncated BOOLEAN, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/stacks', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'stacks', 'ADD');

CREATE TABLE frames (segment VARCHAR, frame_id BIGINT, function VARCHAR, file VARCHAR, line INTEGER, kernel BOOLEAN, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/frames', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'frames', 'ADD');

CREATE TABLE processes (segment VARCHAR, process INTEGER, tgid INTEGER, parent_tgid INTEGER, exe VARCHAR, argv VARCHAR, go_version VARCHAR, tier VARCHAR, unprobed VARCHAR, container_id VARCHAR, runtime VARCHAR, pod_uid VARCHAR, cgroup VARCHAR, started_at_ns BIGINT, first_seen_ns BIGINT, exited_at_ns BIGINT, exit_code INTEGER, signal INTEGER, core_dumped BOOLEAN, zombie_ns BIGINT, reaped_at_ns BIGINT, reaped_by_tgid INTEGER, adopted_by_tgid INTEGER, oom_killed BOOLEAN, stopped_ns BIGINT, throttled_ns BIGINT, signals_sent BIGINT, signals_received BIGINT, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/processes', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'processes', 'ADD');

CREATE TABLE images (segment VARCHAR, image INTEGER, process INTEGER, tgid INTEGER, exe VARCHAR, argv VARCHAR, go_version VARCHAR, tier VARCHAR, executed BOOLEAN, since_ns BIGINT, until_ns BIGINT, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/images', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'images', 'ADD');

CREATE TABLE coverage (segment VARCHAR, image INTEGER, tgid INTEGER, tier VARCHAR, from_ns BIGINT, to_ns BIGINT, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/coverage', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'coverage', 'ADD');

CREATE TABLE threads (segment VARCHAR, thread INTEGER, process INTEGER, tgid INTEGER, tid INTEGER, name VARCHAR, born_at_ns BIGINT, born_by_tid INTEGER, first_seen_ns BIGINT, ended_at_ns BIGINT, ended VARCHAR, running_ns BIGINT, runnable_ns BIGINT, blocked_ns BIGINT, unknown_ns BIGINT, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/threads', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'threads', 'ADD');

CREATE TABLE thread_spans (segment VARCHAR, thread INTEGER, tgid INTEGER, tid INTEGER, state VARCHAR, start_ns BIGINT, end_ns BIGINT, reason VARCHAR, stack_id BIGINT, woken_by VARCHAR, woken_by_tid INTEGER, object VARCHAR, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/thread_spans', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'thread_spans', 'ADD');

CREATE TABLE samples (segment VARCHAR, image INTEGER, tgid INTEGER, tid INTEGER, at_ns BIGINT, runner VARCHAR, goroutine BIGINT, goid BIGINT, stack_id BIGINT, in_kernel BOOLEAN, cpu_ns BIGINT, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/samples', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'samples', 'ADD');

CREATE TABLE gc (segment VARCHAR, kind VARCHAR, process INTEGER, tgid INTEGER, start_ns BIGINT, end_ns BIGINT, start_seen BOOLEAN, end_seen BOOLEAN, reason VARCHAR, by_goid BIGINT, tid INTEGER, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/gc', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'gc', 'ADD');

CREATE TABLE snapshots (segment VARCHAR, snapshot BIGINT, image INTEGER, tgid INTEGER, from_ns BIGINT, to_ns BIGINT, torn BIGINT, created_function VARCHAR, created_file VARCHAR, created_line INTEGER, start_function VARCHAR, system BOOLEAN, goroutines BIGINT, stack_bytes BIGINT, stacks_unknown BIGINT, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/snapshots', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'snapshots', 'ADD');

CREATE TABLE labels (segment VARCHAR, goroutine BIGINT, at_ns BIGINT, key VARCHAR, value VARCHAR, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/labels', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'labels', 'ADD');

CREATE TABLE sums (segment VARCHAR, kind VARCHAR, process INTEGER, tgid INTEGER, created_function VARCHAR, created_file VARCHAR, created_line INTEGER, start_function VARCHAR, system BOOLEAN, reason VARCHAR, stack_id BIGINT, by_ns BIGINT, count BIGINT, total_ns BIGINT, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/sums', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'sums', 'ADD');

CREATE TABLE units (segment VARCHAR, unit BIGINT, process INTEGER, tgid INTEGER, runtime VARCHAR, id VARCHAR, name VARCHAR, born_at_ns BIGINT, first_seen_ns BIGINT, ended_at_ns BIGINT, ended VARCHAR, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/units', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'units', 'ADD');

CREATE TABLE unit_spans (segment VARCHAR, unit BIGINT, state VARCHAR, start_ns BIGINT, end_ns BIGINT, reason VARCHAR, object BIGINT, tid INTEGER, at_most BOOLEAN, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/unit_spans', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'unit_spans', 'ADD');

CREATE TABLE losses (segment VARCHAR, kind VARCHAR, from_ns BIGINT, to_ns BIGINT, cpu INTEGER, event VARCHAR, events BIGINT, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/losses', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'losses', 'ADD');

CREATE TABLE meta (segment VARCHAR, schema VARCHAR, lifetrace VARCHAR, hostname VARCHAR, kernel VARCHAR, cpus INTEGER, command VARCHAR, target VARCHAR, tier VARCHAR, threads VARCHAR, min_block_ns BIGINT, zero_unix_ns BIGINT, clock_error_ns BIGINT, clock_drift_ns BIGINT, duration_ns BIGINT, completeness VARCHAR, end_reason VARCHAR, trust VARCHAR, events_only BOOLEAN, lost_events BIGINT, lost_undated BIGINT, late_events BIGINT, repairs VARCHAR, warnings VARCHAR, probe_hits BIGINT, cost_ns BIGINT, target_cpu_ns BIGINT, share DOUBLE, budget DOUBLE, date DATE, node VARCHAR, program VARCHAR)
WITH (format = 'PARQUET', external_location = 's3://bucket/prefix/meta', partitioned_by = ARRAY['date', 'node', 'program']);
CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'meta', 'ADD');
