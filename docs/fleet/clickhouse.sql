-- ClickHouse, from 25.1 on. For a folder that the server sees: file('PATH/…', in place of s3('https://…/prefix/….
-- Made of what is written (docs/fleet.md): put your own place for s3://bucket/prefix.

CREATE OR REPLACE VIEW goroutines AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/goroutines/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, goroutine Int64, process Int32, image Int32, tgid Int32, goid Int64, parent_goid Nullable(Int64), created_function Nullable(String), created_file Nullable(String), created_line Nullable(Int32), start_function Nullable(String), system Bool, depth Int32, creation_stack_id Nullable(Int64), test Nullable(String), born_at_ns Nullable(Int64), born_by_ns Nullable(Int64), first_seen_ns Int64, ended_at_ns Nullable(Int64), ended String, alive Bool, unconfirmed Bool, last_known_ns Int64, spans Int64, waits Nullable(Int64), blocked_ns Nullable(Int64), longest_wait_ns Nullable(Int64), runnable_ns Nullable(Int64), running_ns Nullable(Int64), syscall_ns Nullable(Int64), awake_ns Int64, unknown_ns Int64, last_state Nullable(String), last_reason Nullable(String), last_since_ns Nullable(Int64), last_stack_id Nullable(Int64), date Date, node String, program String');

CREATE OR REPLACE VIEW spans AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/spans/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, goroutine Int64, tgid Int32, goid Int64, state String, start_ns Int64, end_ns Int64, reason Nullable(String), stack_id Nullable(Int64), woken_by Nullable(String), woken_by_goid Nullable(Int64), tid Nullable(Int32), object Nullable(UInt64), repaired Nullable(String), date Date, node String, program String');

CREATE OR REPLACE VIEW stacks AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/stacks/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, stack_id Int64, position Int32, frame_id Int64, truncated Bool, date Date, node String, program String');

CREATE OR REPLACE VIEW frames AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/frames/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, frame_id Int64, function String, file String, line Nullable(Int32), kernel Bool, date Date, node String, program String');

CREATE OR REPLACE VIEW processes AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/processes/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, process Int32, tgid Int32, parent_tgid Nullable(Int32), exe Nullable(String), argv Nullable(String), go_version Nullable(String), tier Nullable(String), unprobed Nullable(String), container_id Nullable(String), runtime Nullable(String), pod_uid Nullable(String), cgroup Nullable(String), started_at_ns Nullable(Int64), first_seen_ns Int64, exited_at_ns Nullable(Int64), exit_code Nullable(Int32), signal Nullable(Int32), core_dumped Nullable(Bool), zombie_ns Nullable(Int64), reaped_at_ns Nullable(Int64), reaped_by_tgid Nullable(Int32), adopted_by_tgid Nullable(Int32), oom_killed Bool, stopped_ns Int64, throttled_ns Nullable(Int64), signals_sent Int64, signals_received Int64, date Date, node String, program String');

CREATE OR REPLACE VIEW images AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/images/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, image Int32, process Int32, tgid Int32, exe Nullable(String), argv Nullable(String), go_version Nullable(String), tier Nullable(String), executed Bool, since_ns Int64, until_ns Nullable(Int64), date Date, node String, program String');

CREATE OR REPLACE VIEW coverage AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/coverage/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, image Int32, tgid Int32, tier String, from_ns Int64, to_ns Int64, date Date, node String, program String');

CREATE OR REPLACE VIEW threads AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/threads/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, thread Int32, process Int32, tgid Int32, tid Int32, name Nullable(String), born_at_ns Nullable(Int64), born_by_tid Nullable(Int32), first_seen_ns Int64, ended_at_ns Nullable(Int64), ended String, running_ns Nullable(Int64), runnable_ns Nullable(Int64), blocked_ns Nullable(Int64), unknown_ns Nullable(Int64), date Date, node String, program String');

CREATE OR REPLACE VIEW thread_spans AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/thread_spans/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, thread Int32, tgid Int32, tid Int32, state String, start_ns Int64, end_ns Int64, reason Nullable(String), stack_id Nullable(Int64), woken_by Nullable(String), woken_by_tid Nullable(Int32), object Nullable(String), date Date, node String, program String');

CREATE OR REPLACE VIEW samples AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/samples/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, image Int32, tgid Int32, tid Int32, at_ns Int64, runner String, goroutine Nullable(Int64), goid Nullable(Int64), stack_id Nullable(Int64), in_kernel Bool, cpu_ns Int64, date Date, node String, program String');

CREATE OR REPLACE VIEW gc AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/gc/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, kind String, process Int32, tgid Int32, start_ns Int64, end_ns Int64, start_seen Bool, end_seen Bool, reason Nullable(String), by_goid Nullable(Int64), tid Nullable(Int32), date Date, node String, program String');

CREATE OR REPLACE VIEW snapshots AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/snapshots/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, snapshot Int64, image Int32, tgid Int32, from_ns Int64, to_ns Int64, torn Int64, created_function Nullable(String), created_file Nullable(String), created_line Nullable(Int32), start_function Nullable(String), system Nullable(Bool), goroutines Int64, stack_bytes Nullable(Int64), stacks_unknown Int64, date Date, node String, program String');

CREATE OR REPLACE VIEW labels AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/labels/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, goroutine Int64, at_ns Int64, key Nullable(String), value Nullable(String), date Date, node String, program String');

CREATE OR REPLACE VIEW sums AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/sums/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, kind String, process Int32, tgid Int32, created_function Nullable(String), created_file Nullable(String), created_line Nullable(Int32), start_function Nullable(String), system Bool, reason Nullable(String), stack_id Nullable(Int64), by_ns Int64, count Int64, total_ns Int64, date Date, node String, program String');

CREATE OR REPLACE VIEW units AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/units/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, unit Int64, process Int32, tgid Int32, runtime String, id String, name Nullable(String), born_at_ns Nullable(Int64), first_seen_ns Int64, ended_at_ns Nullable(Int64), ended String, date Date, node String, program String');

CREATE OR REPLACE VIEW unit_spans AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/unit_spans/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, unit Int64, state String, start_ns Int64, end_ns Int64, reason Nullable(String), object Nullable(UInt64), tid Nullable(Int32), at_most Bool, date Date, node String, program String');

CREATE OR REPLACE VIEW losses AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/losses/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, kind String, from_ns Nullable(Int64), to_ns Nullable(Int64), cpu Nullable(Int32), event Nullable(String), events Int64, date Date, node String, program String');

CREATE OR REPLACE VIEW meta AS SELECT * REPLACE (decodeURLComponent(program) AS program)
FROM s3('https://bucket.s3.amazonaws.com/prefix/meta/date=*/node=*/program=*/*.parquet', 'Parquet',
    'segment String, schema String, lifetrace String, hostname String, kernel String, cpus Int32, command Nullable(String), target Nullable(String), tier String, threads String, min_block_ns Nullable(Int64), zero_unix_ns Int64, clock_error_ns Int64, clock_drift_ns Nullable(Int64), duration_ns Int64, completeness String, end_reason Nullable(String), trust String, events_only Bool, lost_events Int64, lost_undated Int64, late_events Int64, repairs String, warnings String, probe_hits Nullable(Int64), cost_ns Nullable(Int64), target_cpu_ns Nullable(Int64), share Nullable(Float64), budget Nullable(Float64), date Date, node String, program String');
