-- Spark SQL. New partitions: MSCK REPAIR TABLE again.
-- Made of what is written (docs/fleet.md): put your own place for s3://bucket/prefix.

CREATE TABLE goroutines (segment STRING, goroutine BIGINT, process INT, image INT, tgid INT, goid BIGINT, parent_goid BIGINT, created_function STRING, created_file STRING, created_line INT, start_function STRING, system BOOLEAN, depth INT, creation_stack_id BIGINT, test STRING, born_at_ns BIGINT, born_by_ns BIGINT, first_seen_ns BIGINT, ended_at_ns BIGINT, ended STRING, alive BOOLEAN, unconfirmed BOOLEAN, last_known_ns BIGINT, spans BIGINT, waits BIGINT, blocked_ns BIGINT, longest_wait_ns BIGINT, runnable_ns BIGINT, running_ns BIGINT, syscall_ns BIGINT, awake_ns BIGINT, unknown_ns BIGINT, last_state STRING, last_reason STRING, last_since_ns BIGINT, last_stack_id BIGINT, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/goroutines';
MSCK REPAIR TABLE goroutines;

CREATE TABLE spans (segment STRING, goroutine BIGINT, tgid INT, goid BIGINT, state STRING, start_ns BIGINT, end_ns BIGINT, reason STRING, stack_id BIGINT, woken_by STRING, woken_by_goid BIGINT, tid INT, object DECIMAL(20, 0), repaired STRING, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/spans';
MSCK REPAIR TABLE spans;

CREATE TABLE stacks (segment STRING, stack_id BIGINT, position INT, frame_id BIGINT, truncated BOOLEAN, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/stacks';
MSCK REPAIR TABLE stacks;

CREATE TABLE frames (segment STRING, frame_id BIGINT, function STRING, file STRING, line INT, kernel BOOLEAN, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/frames';
MSCK REPAIR TABLE frames;

CREATE TABLE processes (segment STRING, process INT, tgid INT, parent_tgid INT, exe STRING, argv STRING, go_version STRING, tier STRING, unprobed STRING, container_id STRING, runtime STRING, pod_uid STRING, cgroup STRING, started_at_ns BIGINT, first_seen_ns BIGINT, exited_at_ns BIGINT, exit_code INT, signal INT, core_dumped BOOLEAN, zombie_ns BIGINT, reaped_at_ns BIGINT, reaped_by_tgid INT, adopted_by_tgid INT, oom_killed BOOLEAN, stopped_ns BIGINT, throttled_ns BIGINT, signals_sent BIGINT, signals_received BIGINT, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/processes';
MSCK REPAIR TABLE processes;

CREATE TABLE images (segment STRING, image INT, process INT, tgid INT, exe STRING, argv STRING, go_version STRING, tier STRING, executed BOOLEAN, since_ns BIGINT, until_ns BIGINT, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/images';
MSCK REPAIR TABLE images;

CREATE TABLE coverage (segment STRING, image INT, tgid INT, tier STRING, from_ns BIGINT, to_ns BIGINT, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/coverage';
MSCK REPAIR TABLE coverage;

CREATE TABLE threads (segment STRING, thread INT, process INT, tgid INT, tid INT, name STRING, born_at_ns BIGINT, born_by_tid INT, first_seen_ns BIGINT, ended_at_ns BIGINT, ended STRING, running_ns BIGINT, runnable_ns BIGINT, blocked_ns BIGINT, unknown_ns BIGINT, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/threads';
MSCK REPAIR TABLE threads;

CREATE TABLE thread_spans (segment STRING, thread INT, tgid INT, tid INT, state STRING, start_ns BIGINT, end_ns BIGINT, reason STRING, stack_id BIGINT, woken_by STRING, woken_by_tid INT, object STRING, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/thread_spans';
MSCK REPAIR TABLE thread_spans;

CREATE TABLE samples (segment STRING, image INT, tgid INT, tid INT, at_ns BIGINT, runner STRING, goroutine BIGINT, goid BIGINT, stack_id BIGINT, in_kernel BOOLEAN, cpu_ns BIGINT, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/samples';
MSCK REPAIR TABLE samples;

CREATE TABLE gc (segment STRING, kind STRING, process INT, tgid INT, start_ns BIGINT, end_ns BIGINT, start_seen BOOLEAN, end_seen BOOLEAN, reason STRING, by_goid BIGINT, tid INT, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/gc';
MSCK REPAIR TABLE gc;

CREATE TABLE snapshots (segment STRING, snapshot BIGINT, image INT, tgid INT, from_ns BIGINT, to_ns BIGINT, torn BIGINT, created_function STRING, created_file STRING, created_line INT, start_function STRING, system BOOLEAN, goroutines BIGINT, stack_bytes BIGINT, stacks_unknown BIGINT, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/snapshots';
MSCK REPAIR TABLE snapshots;

CREATE TABLE labels (segment STRING, goroutine BIGINT, at_ns BIGINT, key STRING, value STRING, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/labels';
MSCK REPAIR TABLE labels;

CREATE TABLE sums (segment STRING, kind STRING, process INT, tgid INT, created_function STRING, created_file STRING, created_line INT, start_function STRING, system BOOLEAN, reason STRING, stack_id BIGINT, by_ns BIGINT, count BIGINT, total_ns BIGINT, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/sums';
MSCK REPAIR TABLE sums;

CREATE TABLE units (segment STRING, unit BIGINT, process INT, tgid INT, runtime STRING, id STRING, name STRING, born_at_ns BIGINT, first_seen_ns BIGINT, ended_at_ns BIGINT, ended STRING, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/units';
MSCK REPAIR TABLE units;

CREATE TABLE unit_spans (segment STRING, unit BIGINT, state STRING, start_ns BIGINT, end_ns BIGINT, reason STRING, object DECIMAL(20, 0), tid INT, at_most BOOLEAN, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/unit_spans';
MSCK REPAIR TABLE unit_spans;

CREATE TABLE losses (segment STRING, kind STRING, from_ns BIGINT, to_ns BIGINT, cpu INT, event STRING, events BIGINT, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/losses';
MSCK REPAIR TABLE losses;

CREATE TABLE meta (segment STRING, schema STRING, lifetrace STRING, hostname STRING, kernel STRING, cpus INT, command STRING, target STRING, tier STRING, threads STRING, min_block_ns BIGINT, zero_unix_ns BIGINT, clock_error_ns BIGINT, clock_drift_ns BIGINT, duration_ns BIGINT, completeness STRING, end_reason STRING, trust STRING, events_only BOOLEAN, lost_events BIGINT, lost_undated BIGINT, late_events BIGINT, repairs STRING, warnings STRING, probe_hits BIGINT, cost_ns BIGINT, target_cpu_ns BIGINT, share DOUBLE, budget DOUBLE, date DATE, node STRING, program STRING)
USING parquet PARTITIONED BY (date, node, program) LOCATION 's3://bucket/prefix/meta';
MSCK REPAIR TABLE meta;
