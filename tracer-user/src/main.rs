use tracer_user::cli::{args::*, run};
use tracer_user::recording::contract::Tier;
fn main() {
    let a: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    if a[0] == "exec-gate" {
        let _ = tracer_user::kernel::gate::server::serve();
        return;
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = RunArgs {
        command: vec![],
        output: None,
        user: None,
        as_root: false,
        tier: Tier::T2,
        ring_mib: None,
        max_processes: None,
        empty_probes: false,
        global: Global { quiet: false },
    };
    let mut i = 1;
    while i < a.len() {
        match a[i].to_str().unwrap() {
            "-o" => {
                i += 1;
                args.output = Some(a[i].clone().into())
            }
            "--tier" => {
                i += 1;
                if a[i] == "T1" {
                    args.tier = Tier::T1
                }
            }
            "--quiet" => args.global.quiet = true,
            "--empty-probes" => args.empty_probes = true,
            "--as-root" => args.as_root = true,
            "--" => {
                args.command = a[i + 1..].to_vec();
                break;
            }
            _ => {}
        }
        i += 1;
    }
    match run::run(&args) {
        Ok(e) => std::process::exit(e.0.into()),
        Err(e) => {
            eprintln!("lifetrace: {e:#}");
            std::process::exit(e.downcast_ref::<tracer_user::cli::exit::CliError>().map_or(125, |e| e.exit.0.into()))
        }
    }
}
