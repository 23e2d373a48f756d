//! What `--help` of each subcommand shows it with. Each line is tried by a test.

pub const RUN: &str = "\
Examples:
  sudo lifetrace run -o app.rec -- ./app --flag
  sudo lifetrace run --tier T3 -o app.rec -- ./app
  sudo lifetrace run --min-block 1ms --budget 1% -o app.rec -- ./app
  sudo lifetrace run --pprof auto --heap-every 30s -o app.rec -- ./app
  sudo lifetrace run --threads on -o build.rec -- make -j8";

pub const ATTACH: &str = "\
Examples:
  sudo lifetrace attach --pid 4711 --for 30s -o app.rec
  sudo lifetrace attach --exe /usr/bin/app --budget 1% -o app.rec
  sudo lifetrace attach --cgroup /system.slice/app.service --tier T1 -o app.rec
  sudo lifetrace attach --pid 4711 --guard-url http://127.0.0.1:8080/health -o app.rec";

pub const REPORT: &str = "\
Examples:
  lifetrace report app.rec
  lifetrace report app.rec --format json -o report.json
  lifetrace report app.rec --format html -o report.html
  lifetrace report app.rec --group-by label:endpoint";

pub const TIMELINE: &str = "\
Examples:
  lifetrace timeline app.rec --id go:17
  sudo lifetrace timeline --pid 4711 --for 10s --format html -o app.html
  lifetrace timeline app.rec --id pid:4711
  lifetrace timeline app.rec --label endpoint=/pay --format jsonl
  lifetrace timeline app.rec --format perfetto -o app.perfetto-trace   (open it at ui.perfetto.dev)";

pub const FLAME: &str = "\
Examples:
  lifetrace flame app.rec --by blocked -o blocked.svg
  sudo lifetrace flame --pid 4711 --for 10s --by alive -o alive.svg
  sudo lifetrace flame --pid 4711 --for 10s --tier 2 --by blocked -o blocked.svg
  lifetrace flame app.rec --by alive --format pprof -o alive.pb.gz
  lifetrace flame before.rec --by blocked --diff after.rec -o growth.svg
  lifetrace flame app.rec --by created --format folded
  lifetrace flame app.rec --by inuse_space --diff -o growth.svg";

pub const EXPORT: &str = "\
Examples:
  lifetrace export app.rec --format parquet -o app.tables
  lifetrace export app.rec --format parquet --events-only -o app.events";

pub const LEAKS: &str = "\
Examples:
  lifetrace leaks app.rec
  lifetrace leaks app.rec --baseline leaks.json
  sudo lifetrace leaks -- go test ./...
  lifetrace leaks --pid 4711 --watch 60s";

pub const SNAPSHOT: &str = "\
Examples:
  lifetrace snapshot --pid 4711
  lifetrace snapshot --pid 4711 --format pprof -o goroutines.pb.gz
  lifetrace snapshot --pid 4711 --no-stacks --format json";

pub const TOP: &str = "\
Examples:
  sudo lifetrace top --pid 4711
  sudo lifetrace top --pid 4711 --tier T3
  sudo lifetrace top --all --budget 0.5%
  lifetrace top app.rec";

pub const AGENT: &str = "\
Examples:
  lifetrace agent --config agent.toml --check-config
  sudo lifetrace agent --config agent.toml   (metrics at http://127.0.0.1:9464/metrics)";

pub const USDT: &str = "\
Examples:
  lifetrace usdt list --pid 4711
  lifetrace usdt list --exe /usr/bin/app --usdt-table jobs.toml";

pub const DOCTOR: &str = "\
Examples:
  lifetrace doctor
  lifetrace doctor --exe ./app
  sudo lifetrace doctor --programs --json";

pub const COMPLETIONS: &str = "\
Examples:
  lifetrace completions bash > /etc/bash_completion.d/lifetrace
  lifetrace completions zsh > ~/.zfunc/_lifetrace
  lifetrace completions fish > ~/.config/fish/completions/lifetrace.fish";
