use tracer_user::cli::{args::*, run};
fn main() {
    if std::env::args().nth(1).as_deref() == Some("exec-gate") { let _ = tracer_user::kernel::gate::server::serve(); return; }
    let mut a: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let empty = a[0] == "-e"; if empty { a.remove(0); }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args = RunArgs { command: a, output: Some("/tmp/w/r.lifetrace".into()), user: None, as_root: false, tier: if std::env::var("T1").is_ok() { tracer_user::recording::contract::Tier::T1 } else { tracer_user::recording::contract::Tier::T2 }, ring_mib: None, max_processes: None, empty_probes: empty, global: Global { quiet: false } };
    match run::run(&args) { Ok(e) => std::process::exit(e.0.into()), Err(e) => { eprintln!("lifetrace: {e:#}"); std::process::exit(125) } }
}
